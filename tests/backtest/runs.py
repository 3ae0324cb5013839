"""Run files for the tests."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.plan.guests import guest


def run_file(**changes: object) -> dict[str, Any]:
    """A sound one: a guest of 1 GiB that completed; ``changes`` replace its fields."""
    capture = guest(2**18, 0, [(100, 0, 500), (1000, 0, 4000), (2000, 0, 6000)], zero=2**17)
    fields = {
        "schema": "kvmenc.backtest-run/1",
        "name": "a run",
        "source": "a test",
        "capture": msgspec.to_builtins(capture),
        "parameters": {"max_bandwidth_bytes_per_s": 1e8, "downtime_limit_ms": 300.0},
        "query_migrate": {
            "status": "completed",
            "total-time": 6000,
            "setup-time": 3,
            "downtime": 100,
            "socket-address": [],
            "ram": {
                "transferred": 600_000_000,
                "dirty-sync-count": 4,
                "normal": 140_000,
                "duplicate": 131_072,
                "remaining": 0,
                "mbps": 800.5,
            },
        },
    }
    return fields | changes
