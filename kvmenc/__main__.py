"""The command, also as ``python -m kvmenc``: Ctrl-C is one line from the first moment."""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXIT_INTERRUPTED = 130


def main() -> None:
    """The console entry point."""
    try:
        from kvmenc import cli  # noqa: PLC0415 - importing takes long enough to be interrupted

        cli.main()
    except KeyboardInterrupt:
        sys.stderr.write("kvmenc: interrupted\n")
        sys.exit(_EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
