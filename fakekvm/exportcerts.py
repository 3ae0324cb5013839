"""Write a fake chip's certificates to files, as sevctl and sev-tool do for a real one.

::

    python -m fakekvm.exportcerts DIR [CHIP]
"""

from __future__ import annotations

import sys
from pathlib import Path

from fakekvm.host import Host
from fakekvm.sevcerts import Chip

__all__ = ["export"]


def export(folder: Path, chip: str = Host().chip) -> list[Path]:
    """Write ``pdh.cert``, ``plat.cert`` and ``amd.cert``; returns their paths in this order."""
    paths = [folder / name for name in ("pdh.cert", "plat.cert", "amd.cert")]
    for path, content in zip(paths, Chip(chip).certificates(), strict=True):
        path.write_bytes(content)
    return paths


if __name__ == "__main__":
    export(Path(sys.argv[1]), *sys.argv[2:])
