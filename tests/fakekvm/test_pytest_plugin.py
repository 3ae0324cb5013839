"""The fixtures as another project meets them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import need_kvm

pytest_plugins = ["pytester"]

TESTS = """
import errno
import pytest
from fakekvm.faults import Fault

def test_a_mainline_host(fake_kvm):
    kvm = fake_kvm.open("/dev/kvm")
    assert fake_kvm.ioctl(kvm, 0xAE00, 0) == 12
    with pytest.raises(OSError):
        fake_kvm.open("/dev/sev")

@pytest.mark.fakekvm(host="no-rights")
def test_a_host_by_its_name(fake_kvm):
    with pytest.raises(PermissionError):
        fake_kvm.open("/dev/kvm")

def test_sev(sev_host):
    assert sev_host.open("/dev/sev") >= 0
    assert sev_host.host.enc_revision == "v9"

@pytest.mark.fakekvm(faults=[Fault(request="KVM_CREATE_VM", error=errno.ENOMEM, times=1)])
def test_faults(fake_kvm):
    kvm = fake_kvm.open("/dev/kvm")
    with pytest.raises(OSError, match="Cannot allocate"):
        fake_kvm.ioctl(kvm, 0xAE01, 0)
    assert fake_kvm.ioctl(kvm, 0xAE01, 0) > kvm
"""


def run(pytester: pytest.Pytester, text: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(text)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)


def test_the_fixtures_are_there_without_asking(pytester: pytest.Pytester) -> None:
    run(pytester, TESTS, "--strict-markers").assert_outcomes(passed=4)


def test_either_kvm_answers_the_same_way(pytester: pytest.Pytester) -> None:
    text = """
    import os
    def test_either(kvm):
        fd = kvm.open("/dev/kvm", os.O_RDWR)
        assert kvm.ioctl(fd, 0xAE00, 0) == 12
        kvm.close(fd)
        print("on", kvm.name)
    """
    run(pytester, text, "-s", "--kvm=fake").stdout.fnmatch_lines(["*on fake*"])
    result = run(pytester, text, "-s", "--kvm=real")
    if Path("/dev/kvm").exists():
        result.stdout.fnmatch_lines(["*on local*"])
    else:
        result.stdout.fnmatch_lines(["*--kvm=real, but /dev/kvm does not open*"])


@pytest.mark.kvm
def test_the_machines_own_is_taken_if_it_opens(pytester: pytest.Pytester) -> None:
    need_kvm()
    result = run(pytester, "def test_it(kvm): print('on', kvm.name)", "-s")
    result.stdout.fnmatch_lines(["*on local*"])


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ('host="vax"', "*@pytest.mark.fakekvm: no host is called 'vax'; there are mainline, *"),
        ("hots=1", "*@pytest.mark.fakekvm takes host, faults, seed, not hots*"),
    ],
)
def test_a_wrong_marker_is_said(pytester: pytest.Pytester, mark: str, message: str) -> None:
    text = f"import pytest\n@pytest.mark.fakekvm({mark})\ndef test_it(fake_kvm): pass\n"
    result = run(pytester, text)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message])


def test_descriptors_are_closed_after_each_test(pytester: pytest.Pytester) -> None:
    text = """
    from pathlib import Path
    count = lambda: sum(1 for _ in Path("/proc/self/fd").iterdir())
    seen = []
    def test_one(fake_kvm):
        seen.append(count())
        fake_kvm.ioctl(fake_kvm.open("/dev/kvm"), 0xAE01, 0)
        assert count() == seen[0] + 2
    def test_two():
        assert count() == seen[0]
    """
    run(pytester, text).assert_outcomes(passed=2)
