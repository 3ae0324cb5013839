"""Files of a machine that tell what it is: a probe reads them, and a recording keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["MACHINE_FILES", "MAX_MACHINE_FILE_BYTES", "read_machine", "write_machine"]

_PARAMETERS = "sys/module/kvm_amd/parameters"
_CPUINFO = "proc/cpuinfo"
MACHINE_FILES = (_CPUINFO, *(f"{_PARAMETERS}/{name}" for name in ("sev", "sev_es", "sev_snp")))
MAX_MACHINE_FILE_BYTES = 64 * 1024


def read_machine(root: Path) -> dict[str, str]:
    """Those files that there are, by path from ``root``; of /proc/cpuinfo the first CPU."""
    found = {}
    for name in MACHINE_FILES:
        try:
            text = (root / name).read_text(errors="replace")
        except OSError:
            continue
        if name == _CPUINFO:
            text = text.split("\n\n")[0] + "\n"
        found[name] = text[:MAX_MACHINE_FILE_BYTES]
    return found


def write_machine(files: Mapping[str, str], root: Path) -> None:
    """Lay them out below ``root``, as on the machine; /proc/cpuinfo is always there."""
    for name, text in {_CPUINFO: "", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
