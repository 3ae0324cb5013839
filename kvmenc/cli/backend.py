"""The ``--backend`` option: whose KVM a command works on."""

from __future__ import annotations

import click

__all__ = ["backend_option"]

backend_option = click.option(
    "--backend",
    type=click.Choice(["local", "fake"]),
    help="This machine's /dev/kvm, or fakekvm, which needs nothing.",
)
