"""``python -m fakekvm``: the command, where its script is not on the PATH."""

from fakekvm.cli import main

if __name__ == "__main__":
    main(prog_name="fakekvm")
