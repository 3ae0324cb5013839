"""Probes under storms: they say the same as in fair weather, or that they do not know, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakekvm import Kernel, host_named
from kvmenc.backend.fake import FakeBackend
from kvmenc.errors import IoctlError
from kvmenc.probe.result import probe
from tests.storms.storms import ERRNOS, STORMS, storm

if TYPE_CHECKING:
    from kvmenc.probe.result import Probe

HOSTS = ("mainline", "sev", "sev-v2-2019", "sev-rfc-2018", "snp")
SEEDS = range(12)


def probed(host: str, name: str | None = None, seed: int = 0) -> Probe:
    kernel = Kernel(host_named(host))
    if name is not None:
        kernel.faults = storm(name, kernel.host, seed)
    return probe(FakeBackend(kernel))


@pytest.mark.parametrize("name", STORMS)
@pytest.mark.parametrize("host", HOSTS)
def test_no_verdict_turns_into_another(host: str, name: str) -> None:
    fair = {it.question: it for it in probed(host).verdicts}
    ended = 0
    for seed in SEEDS:
        try:
            verdicts = probed(host, name, seed).verdicts
        except IoctlError as error:
            named = error
            ended += 1
        else:
            assert [it.question for it in verdicts] == list(fair)
            for it in verdicts:
                known = it == fair[it.question]
                assert known or (it.answer == "unknown" and ERRNOS[name] in it.because), it
            continue
        assert ERRNOS[name] in str(named)
    assert ended < len(SEEDS)
