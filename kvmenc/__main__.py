"""``python -m kvmenc``: the command, where its script is not on the PATH."""

from kvmenc.cli import main

main()
