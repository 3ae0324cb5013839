"""``python -m fakekvm``: the command, where its script is not on the PATH."""

from fakekvm.cli import main

main(prog_name="fakekvm")
