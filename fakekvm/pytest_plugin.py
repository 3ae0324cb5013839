"""Fixtures for projects that test code which uses KVM: pytest finds them by itself.

    def test_my_vmm(fake_kvm):            # a fake kernel, of a mainline host
        kvm = fake_kvm.open("/dev/kvm")

    @pytest.mark.fakekvm(host="no-rights")
    def test_without_rights(fake_kvm): ...

    def test_migration(sev_host): ...     # the same of a host with SEV
    def test_either(kvm): ...             # the machine's /dev/kvm if it opens, else a fake one

``kvm`` has ``open``, ``ioctl``, ``mmap`` and ``close`` (``kvmenc.backend.Backend``) and a ``name``:
``local`` or ``fake``. ``pytest --kvm=real`` makes it fail where /dev/kvm does not open, and
``--kvm=fake`` leaves the machine's alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakekvm.faults import Fault
    from fakekvm.kernel import Kernel
    from kvmenc.backend import Backend

__all__ = ["fake_kvm", "kvm", "pytest_addoption", "pytest_configure", "sev_host"]

_MARK = "fakekvm"
_SEV_HOST = "sev-v9"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--kvm``."""
    parser.getgroup("fakekvm").addoption(
        "--kvm",
        choices=["auto", "real", "fake"],
        default="auto",
        help="whose KVM the `kvm` fixture is: the machine's if it opens (auto), or one of the two",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line(
        "markers", f"{_MARK}(host=NAME, faults=[...], seed=0): the machine that fakekvm plays"
    )


@pytest.fixture
def fake_kvm(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """A fake kernel, ``mainline`` unless the marker says otherwise; closed after the test."""
    with _kernel(request, "mainline") as kernel:
        yield kernel


@pytest.fixture
def sev_host(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """A fake kernel with SEV and an encryption bitmap (``sev-v9`` unless the marker says)."""
    with _kernel(request, _SEV_HOST) as kernel:
        yield kernel


@pytest.fixture
def kvm(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """The machine's /dev/kvm if it opens, else a fake one."""
    wanted = request.config.getoption("--kvm")
    if wanted == "real" or (wanted == "auto" and _opens("/dev/kvm")):
        from kvmenc.backend import LocalBackend  # noqa: PLC0415 - most tests need neither

        if not _opens("/dev/kvm"):
            pytest.fail("--kvm=real, but /dev/kvm does not open", pytrace=False)
        yield LocalBackend()
        return
    from kvmenc.backend.fake import FakeBackend  # noqa: PLC0415

    with _kernel(request, "mainline") as kernel:
        yield FakeBackend(kernel)


def _kernel(request: pytest.FixtureRequest, host: str) -> Kernel:
    from fakekvm.host import host_named  # noqa: PLC0415 - numpy is slow to import
    from fakekvm.kernel import Kernel  # noqa: PLC0415

    wanted = {"host": host, "faults": (), "seed": 0}
    for mark in reversed(list(request.node.iter_markers(_MARK))):
        unknown = mark.kwargs.keys() - wanted.keys()
        if unknown or mark.args:
            names = ", ".join([*map(repr, mark.args), *sorted(unknown)])
            pytest.fail(
                f"@pytest.mark.{_MARK} takes {', '.join(wanted)}, not {names}", pytrace=False
            )
        wanted |= mark.kwargs
    try:
        machine = host_named(str(wanted["host"]))
    except KeyError as error:
        pytest.fail(f"@pytest.mark.{_MARK}: {error.args[0]}", pytrace=False)
    faults: tuple[Fault, ...] = tuple(wanted["faults"])  # type: ignore[arg-type]
    return Kernel(machine, faults=faults, seed=int(str(wanted["seed"])))


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True
