"""What this host can do: each piece of evidence, and the verdicts drawn from them."""
