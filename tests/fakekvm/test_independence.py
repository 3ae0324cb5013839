"""The fake must not share a mistake with what it tests."""

from __future__ import annotations

import ast
from pathlib import Path

import fakekvm

PACKAGE = Path(fakekvm.__file__).parent


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


def test_fakekvm_imports_nothing_of_kvmenc() -> None:
    """But for what is no part of the fake: its plugin, and the command that records a real KVM."""
    apart = {PACKAGE / "pytest_plugin.py", PACKAGE / "record.py"}
    files = [path for path in PACKAGE.rglob("*.py") if path not in apart]
    assert len(files) > 10
    assert not [path.name for path in files if "kvmenc" in imported(path)]
