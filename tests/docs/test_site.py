"""The documentation is built, as `make docs` does it: a warning is an error."""

from __future__ import annotations

import importlib.util
import subprocess

import pytest

from tests.docs.pages import ROOT


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="Sphinx is not installed")
def test_the_site_is_built_without_a_warning() -> None:
    built = subprocess.run(
        ["make", "--no-print-directory", "docs"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout
    commands = (ROOT / ".cache" / "site" / "reference" / "cli.html").read_text()
    assert "tcp:HOST:PORT" in commands
    assert 'href="tcp:' not in commands, "what looks like a link and leads nowhere"
