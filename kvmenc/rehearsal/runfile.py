"""A rehearsal as a migration that happened: a run file, which ``kvmenc backtest`` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from kvmenc.backtest.run import REHEARSED_NOTES, SCHEMA
from kvmenc.plan.profile import PROFILES

if TYPE_CHECKING:
    from kvmenc.plan.result import Inputs, PlannedRound
    from kvmenc.rehearsal.run import Rehearsed

__all__ = ["run_file"]


def run_file(rehearsed: Rehearsed, name: str) -> bytes:
    """One JSON object of schema ``kvmenc.backtest-run/1``.

    Args:
        rehearsed: a rehearsal.
        name: of the run.
    """
    ledger = rehearsed.result.ledger
    run = {
        "schema": SCHEMA,
        "name": name,
        "source": f"kvmenc dry-run of {rehearsed.result.guest}",
        "capture": rehearsed.capture,
        "parameters": _parameters(ledger.inputs),
        "query_migrate": ledger.query_migrate,
        "qemu": next(it.version for it in PROFILES.values() if it.name == ledger.profile),
        "rounds": [_round(it) for it in ledger.rounds],
        "bulk_ms": ledger.rounds[0].ms if ledger.rounds else None,
        "notes": REHEARSED_NOTES,
    }
    return msgspec.json.format(msgspec.json.encode(run), indent=1)


def _round(it: PlannedRound) -> dict[str, object]:
    return {"ms": it.ms, "stopped": it.stopped, "pages": it.pages, "bytes": it.bytes}


def _parameters(inputs: Inputs) -> dict[str, object]:
    """Those that a run file knows, and that a rehearsal can have."""
    return {
        "max_bandwidth_bytes_per_s": inputs.max_bandwidth_bytes_per_s,
        "link_bytes_per_s": inputs.link_bytes_per_s,
        "downtime_limit_ms": inputs.downtime_limit_ms,
        "private_rate_pps": inputs.private_rate_pps,
    }
