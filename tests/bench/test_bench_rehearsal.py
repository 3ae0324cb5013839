"""How quick a rehearsal is: private pages one command at a time, both ends at work."""

from __future__ import annotations

import pytest

from kvmenc.plan import Parameters
from kvmenc.rehearsal import BuiltIn, Wanted, fake_source, far_target, guest_layout, rehearse

pytestmark = pytest.mark.bench


@pytest.mark.parametrize(("mib", "private"), [(128, 1.0), (1024, 0.25)])
def test_pages_a_second(mib: int, private: float) -> None:
    fast = Parameters(private_rate_pps=1e6, max_bandwidth_bytes_per_s=1e11)
    with fake_source(BuiltIn(private, 1), guest_layout(mib << 20)) as source:
        result = rehearse(source, Wanted(parameters=fast), far_target).result
    assert result.verdict == "whole"
    effort = result.effort
    print(f"\n{mib} MiB, {private:.0%} private: {effort.pages_per_s:,.0f} pages/s")
