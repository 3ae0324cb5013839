"""``kvmenc probe``: evidence, verdicts, self-test, exit codes."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from kvmenc.backend import LocalBackend
from kvmenc.cli import root
from tests.schemas.validator import faults
from tests.support import need_kvm

if TYPE_CHECKING:
    from kvmenc.backend import Backend


def kvmenc(*arguments: str) -> Result:
    return CliRunner().invoke(root, arguments)


def test_the_fake_is_probed_like_a_kvm() -> None:
    run = kvmenc("probe", "--backend", "fake", "--json")
    assert run.exit_code == 0
    probe = json.loads(run.stdout)
    assert probe["schema"] == "kvmenc.probe/1"
    assert not faults(probe)
    assert probe["self_test"] == []
    assert all(it["source"] and it["says"] and it["value"] for it in probe["evidence"])
    answers = {it["question"]: it["answer"] for it in probe["verdicts"]}
    assert answers["SEV guests"] == "no"
    assert answers["private/shared by KVM_HC_MAP_GPA_RANGE"] == "unknown"


def test_the_fake_passes_its_self_test() -> None:
    run = kvmenc("probe", "--backend", "fake", "--self-test", "--json")
    assert run.exit_code == 0
    probe = json.loads(run.stdout)
    assert {check["result"] for check in probe["self_test"]} == {"passed"}
    assert not faults(probe)
    assert len(probe["self_test"]) == 6
    answers = {it["question"]: it["answer"] for it in probe["verdicts"]}
    assert answers["private/shared by KVM_HC_MAP_GPA_RANGE"] == "yes"


@pytest.mark.kvm
def test_the_real_dirty_log_passes_and_a_broken_ring_is_told() -> None:
    """All of the log must hold; the ring may overflow on a host that emulates in batches."""
    need_kvm()
    run = kvmenc("probe", "--self-test", "--json")
    probe = json.loads(run.stdout)
    results = {check["name"]: check["result"] for check in probe["self_test"]}
    burst = results.pop("dirty ring, filled in one burst")
    assert set(results.values()) == {"passed"}
    assert run.exit_code == (0 if burst == "passed" else 1)
    ring = next(it for it in probe["verdicts"] if it["question"] == "dirty ring")
    assert ring["answer"] == ("yes" if burst == "passed" else "no")


def test_the_text_fits_80_columns() -> None:
    run = kvmenc("probe", "--backend", "fake", "--self-test")
    assert max(map(len, run.stdout.splitlines())) <= 80
    for word in ("Verdicts", "Self-test", "Evidence (fake)", "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2"):
        assert word in run.stdout


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
@pytest.mark.parametrize("command", ["probe", "demo"])
def test_without_a_kvm_it_is_one_line_and_exit_code_3(
    command: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Backend, _path: str, _flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(LocalBackend, "open", refuse)
    run = kvmenc(command, "--backend", "local")
    assert run.exit_code == 3
    assert run.stdout == ""
    assert run.stderr.startswith(f"kvmenc: cannot open /dev/kvm: {errno.errorcode[number]}: ")
    assert run.stderr.count("\n") == 1


def test_an_unknown_backend_is_a_usage_error() -> None:
    assert kvmenc("probe", "--backend", "xen").exit_code == 2
