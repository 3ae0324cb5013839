"""The data flows one way, and so do imports; the fake shares no code with what it tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the top to the bottom: a part imports only parts above it.
ORDER = (
    "errors",
    "units",
    "atomic",
    "filekind",
    "uapi",
    "procfs",
    "tracee",
    "backend",
    "recorder",
    "memory",
    "call",
    "ring",
    "kvm",
    "dirtysource",
    "encstate",
    "firmware",
    "guest",
    "capture",
    "qemu",
    "contents",
    "measure",
    "scratchrun",
    "watch",
    "link",
    "ordering",
    "plan",
    "stream",
    "migrate",
    "backtest",
    "rehearsal",
    "probe",
    "report",
    "cli",
    "__main__",
)


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(module: str) -> str | None:
    names = module.split(".")
    return names[1] if names[0] == "kvmenc" and len(names) > 1 and names[1] in ORDER else None


MODULES = sorted((ROOT / "kvmenc").rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_what_stands_above_it(path: Path) -> None:
    own = part_of(name_of(path))
    if own is None:
        assert path == ROOT / "kvmenc" / "__init__.py", "every part has its place in ORDER"
        return
    parts = {part for part in map(part_of, imported_modules(path)) if part}
    below = {part for part in parts if ORDER.index(part) > ORDER.index(own)}
    assert not below


# Of fakekvm only these may know kvmenc: the plugin hands out its backends, and the command that
# records a real KVM writes its file. Neither is a part of the fake.
KNOW_KVMENC = {ROOT / "fakekvm" / name for name in ("pytest_plugin.py", "record.py")}


@pytest.mark.parametrize(
    "path", sorted({*(ROOT / "fakekvm").rglob("*.py")} - KNOW_KVMENC), ids=name_of
)
def test_the_fake_decodes_by_itself(path: Path) -> None:
    assert not [name for name in imported_modules(path) if name.split(".")[0] == "kvmenc"]


def test_contributing_lists_every_part_in_the_order_of_imports() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `kvmenc/")]
    names = re.findall(r"`(?:kvmenc/)?(\w+)(?:/|\.py)`", "".join(rows))
    assert tuple(names) == ORDER


def test_contributing_names_every_target_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = set(re.findall(r"make ([a-z][a-z0-9-]*)", (ROOT / "CONTRIBUTING.md").read_text()))
    assert told == targets
