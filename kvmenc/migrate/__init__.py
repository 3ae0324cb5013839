"""The real migration of a running QEMU, beside what was predicted of it."""

from __future__ import annotations

from kvmenc.migrate.parameters import Chosen, QemuParameters
from kvmenc.migrate.result import FieldPair, MigrateReport
from kvmenc.migrate.run import Band, Migration, Progress
from kvmenc.migrate.sameguest import check_same_guest

__all__ = [
    "Band",
    "Chosen",
    "FieldPair",
    "MigrateReport",
    "Migration",
    "Progress",
    "QemuParameters",
    "check_same_guest",
]
