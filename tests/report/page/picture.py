"""The README's picture of a page: ``python -m tests.report.page.picture OUT.png``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.cli.test_root import kvmenc
from tests.report.page.browser import Browser

#: Of what is shown, in pixels.
_WIDTH = 840
_FIRST, _LAST = "curve", "map-readout"


def main(out: Path) -> None:
    """The demo's guest, with a firmware that keeps up with it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        capture, page = str(folder / "demo.capture"), str(folder / "a.html")
        _run("demo", "--backend", "fake", "-o", capture)
        _run("report", capture, "-o", page, "--private-rate", "20000pps")
        out.write_bytes(_picture(folder / "a.html"))


def _run(*arguments: str) -> None:
    run = kvmenc(*arguments)
    if run.returncode:
        sys.exit(run.stderr)


def _picture(page: Path) -> bytes:
    with Browser() as browser:
        browser.open(page, width=_WIDTH)
        top, bottom = browser.run(
            f"""new Promise((resolve) => {{
              const shown = () => performance.getEntriesByName("map-shown").length
                ? resolve([document.getElementById("{_FIRST}").getBoundingClientRect().top,
                           document.getElementById("{_LAST}").getBoundingClientRect().bottom])
                : setTimeout(shown, 5);
              shown();
            }})"""
        )
        return browser.picture({"x": 0, "y": top, "width": _WIDTH, "height": bottom - top})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
