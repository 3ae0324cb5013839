"""What a file is by how it begins, for whoever gave the wrong one."""

from __future__ import annotations

__all__ = ["begins_as", "may_be_json"]

_KINDS = {
    b"QEVM": "a migration stream, which `kvmenc stream` reads",
    b"PK\x03\x04": "a ZIP; a capture is one, which `kvmenc show` reads",
    b"\x1f\x8b": "packed by gzip, as a recording is, which `--backend replay:FILE` reads; if it is "
    "none, unpack it first",
    b"\xfd7zX": "packed by xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "packed by zstd: unpack it first",
    b"QFI\xfb": "a qcow2 image; what savevm saves in one is no file of its own",
    b"\x11\x22\x33\x44": "one of multifd's connections, which hold pages alone",
}


def begins_as(start: bytes) -> str:
    """A file in words, by its first bytes: ``begins_as(b"QEVM") == "it is a migration stream..."``.

    Args:
        start: four bytes or more; fewer are all that the file holds.
    """
    if not start:
        return "it is empty"
    known = next((what for magic, what in _KINDS.items() if start.startswith(magic)), None)
    if known:
        return f"it is {known}"
    return "it is JSON" if may_be_json(start) else "it is nothing that kvmenc writes"


def may_be_json(start: bytes) -> bool:
    """Whether it begins as a JSON object does."""
    return start.lstrip().startswith(b"{")
