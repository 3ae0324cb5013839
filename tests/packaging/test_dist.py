"""What is published: the wheel alone, in an environment that has its dependencies and nothing else.

Nothing is downloaded: dependencies are those of the environment that runs the tests.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.test_architecture import ROOT

PACKAGES = ("kvmenc", "fakekvm")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    code = (
        f"from hatchling.build import *; build_sdist({str(folder)!r}); build_wheel({str(folder)!r})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    return folder


def files_of(*folders: str) -> set[str]:
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


def test_the_wheel_holds_both_packages_their_licence_and_no_tests(dist: Path) -> None:
    with zipfile.ZipFile(dist / f"kvmenc-{VERSION}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
    about = {name for name in names if ".dist-info/" in name}
    assert names - about == files_of(*PACKAGES)
    assert f"kvmenc-{VERSION}.dist-info/licenses/LICENSE" in about
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_sdist_holds_what_its_tests_need(dist: Path) -> None:
    with tarfile.open(dist / f"kvmenc-{VERSION}.tar.gz") as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = files_of(*PACKAGES, "tests", "examples", "docs", "tools", ".ci")
    assert wanted - names == set()
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile"} <= names


@pytest.fixture(scope="session")
def bare(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and its dependencies; its folder of commands."""
    home = tmp_path_factory.mktemp("bare")
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    subprocess.run(
        [
            sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index",
            "--no-deps", "--no-compile", dist / f"kvmenc-{VERSION}-py3-none-any.whl",
        ],
        check=True,
    )  # fmt: skip
    (site,) = home.glob("lib/python*/site-packages")
    for name in dependencies("kvmenc"):
        link_distribution(name, site)
    return home / "bin"


def dependencies(name: str) -> set[str]:
    """What a distribution requires, directly or not, without extras."""
    found: set[str] = set()
    for line in importlib.metadata.requires(name) or []:
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            found |= {needed.name} | dependencies(needed.name)
    return found


def link_distribution(name: str, site: Path) -> None:
    files = importlib.metadata.files(name)
    assert files, f"{name} does not say what it holds"
    for top in {path.parts[0] for path in files} - {"..", "__pycache__"}:
        there = Path(str(importlib.metadata.distribution(name).locate_file(top)))
        if not (site / top).exists():
            (site / top).symlink_to(there)


def run(bare: Path, *command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a folder that is not ours, so that nothing is imported from there."""
    path = f"{bare}{os.pathsep}{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [bare / command[0], *command[1:]],
        cwd=folder, env={**environment, "PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_installed_package_is_tried_and_not_this_tree(bare: Path, tmp_path: Path) -> None:
    code = "import kvmenc, fakekvm; print(kvmenc.__file__, fakekvm.__file__)"
    found = run(bare, "python", "-c", code, folder=tmp_path).stdout.split()
    assert all(Path(it).is_relative_to(bare.parent) for it in found)
    assert run(bare, "python", "-c", "import pytest", folder=tmp_path).returncode == 1


@pytest.mark.parametrize("program", PACKAGES)
def test_the_version_is_that_of_pyproject(program: str, bare: Path, tmp_path: Path) -> None:
    assert run(bare, program, "--version", folder=tmp_path).stdout == f"{program} {VERSION}\n"


def test_the_main_job_runs(bare: Path, tmp_path: Path) -> None:
    """A reader's first commands."""
    assert run(bare, "kvmenc", "--help", folder=tmp_path).returncode == 0
    made = run(bare, "kvmenc", "demo", "--backend", "fake", "-o", "a.capture", folder=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    assert (tmp_path / "a.capture").exists()


def test_every_module_is_imported_without_what_is_optional(bare: Path, tmp_path: Path) -> None:
    code = """
import importlib, pkgutil, fakekvm, kvmenc
for package in (fakekvm, kvmenc):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name != "fakekvm.pytest_plugin":
            importlib.import_module(module.name)
"""
    done = run(bare, "python", "-c", code, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_pytest_plugin_is_found(bare: Path, tmp_path: Path) -> None:
    """A reader's project: pytest beside the wheel, and the example's tests."""
    extra = tmp_path / "pytest"
    extra.mkdir()
    for name in {"pytest"} | dependencies("pytest"):
        link_distribution(name, extra)
    (tmp_path / "test_vmm.py").write_text((ROOT / "examples/ci/test_vmm.py").read_text())
    code = (
        f"import site, sys; site.addsitedir({str(extra)!r}); import pytest; sys.exit(pytest.main())"
    )
    done = run(bare, "python", "-c", code, folder=tmp_path)
    assert "5 passed" in done.stdout
    assert done.returncode == 0
