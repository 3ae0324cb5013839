"""Export how fast a running guest dirties its memory, for Prometheus' node_exporter (textfile).

A systemd timer or cron calls it; each call watches the guest once and replaces the file, which is
the old one or the whole new one at every moment. The guest is left as it was found.

    pip install '.[metrics]'    # in kvmenc's sources
    python examples/exporter.py --qmp /run/web1.qmp --seconds 10 -o /var/lib/.../kvmenc-web1.prom
    python examples/exporter.py --capture web1.capture -o web1.prom    # of a capture made before

An alert on a guest that could not be migrated any more, before somebody has to:
``kvmenc_migration_converges == 0``.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.atomic import write_atomically
from kvmenc.capture import Capture, load_capture
from kvmenc.errors import KvmencError
from kvmenc.plan import Parameters, make_plan, own_profile
from kvmenc.qemu.qmp import Qmp
from kvmenc.units import parse_bandwidth_bytes_per_s, parse_page_rate_pps, parse_time_ms
from kvmenc.watch.run import watch
from kvmenc.watch.wishes import Wishes

try:
    from prometheus_client import CollectorRegistry, Gauge, generate_latest
except ImportError:
    sys.exit("exporter: no prometheus_client: pip install '.[metrics]' in kvmenc's sources")

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Always the same: each value of a label is a time series of its own.
WITHIN_S = (0.1, 0.3, 1, 3, 10, 30)


def watched(socket: Path, seconds: float) -> Capture:
    """A guest of a running QEMU, looked at from outside."""
    with Qmp(socket) as monitor:
        found = watch(monitor, Wishes(seconds=seconds), lambda _seconds, _pages: None)
    if found.trouble:
        raise found.trouble
    return found.capture


def metrics(capture: Capture, guest: str, parameters: Parameters) -> bytes:
    """The text that node_exporter reads; its base units are seconds."""
    registry = CollectorRegistry()
    _memory(registry, capture, guest)
    _curve(registry, capture, guest)
    _plan(registry, capture, guest, parameters)
    made = Gauge(
        "kvmenc_capture_timestamp_seconds", "When the guest was watched.", ["guest"],
        registry=registry,
    )  # fmt: skip
    made.labels(guest).set(_captured_at(capture))
    return generate_latest(registry)


def _memory(registry: CollectorRegistry, capture: Capture, guest: str) -> None:
    pages = Gauge(
        "kvmenc_guest_pages", "Pages of the guest, by class.", ["guest", "block", "class"],
        registry=registry,
    )  # fmt: skip
    for block in capture.blocks:
        pages.labels(guest, block.name, "private").set(block.private_pages)
        pages.labels(guest, block.name, "shared").set(block.npages - block.private_pages)


def _curve(registry: CollectorRegistry, capture: Capture, guest: str) -> None:
    written = Gauge(
        "kvmenc_guest_written_pages", "Distinct pages that vCPUs wrote within so many seconds.",
        ["guest", "class", "within"], registry=registry,
    )  # fmt: skip
    curve = [(0, 0, 0), *((it.ms, it.private_pages, it.shared_pages) for it in capture.curve)]
    ms, private, shared = zip(*curve, strict=True)
    for within_s in WITHIN_S:
        if within_s * 1000 <= ms[-1]:
            for name, pages in (("private", private), ("shared", shared)):
                value = np.interp(within_s * 1000, ms, pages)
                written.labels(guest, name, f"{within_s:g}").set(float(value))


def _plan(
    registry: CollectorRegistry, capture: Capture, guest: str, parameters: Parameters
) -> None:
    plan = make_plan(capture, parameters, own_profile(capture))
    seconds = {
        "kvmenc_migration_seconds": ("How long a migration would take.", plan.total_time_ms),
        "kvmenc_migration_downtime_seconds": ("How long it would pause.", plan.downtime_ms),
    }
    converges = Gauge(
        "kvmenc_migration_converges", "1 if a migration would converge, else 0.", ["guest"],
        registry=registry,
    )  # fmt: skip
    converges.labels(guest).set(plan.verdict == "converges")
    for name, (says, ms) in seconds.items():
        if ms is not None:
            Gauge(name, says, ["guest"], registry=registry).labels(guest).set(ms / 1000)


def _captured_at(capture: Capture) -> float:
    """Seconds since 1970; of a capture that does not say, now."""
    if capture.provenance is None:
        return time.time()
    return datetime.fromisoformat(capture.provenance.captured_at).timestamp()


def wishes(args: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Export a guest's dirty curve for Prometheus.")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--qmp", type=Path, help="QMP socket of a running QEMU")
    whose.add_argument("--capture", type=Path, help="a capture made before")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to watch")
    parser.add_argument("--guest", help="its name in labels; else that of the socket or file")
    parser.add_argument("--max-bandwidth", type=parse_bandwidth_bytes_per_s, default="10Gbit")
    parser.add_argument("--downtime-limit", type=parse_time_ms, default="300ms")
    parser.add_argument("--private-rate", type=parse_page_rate_pps, default="400pps")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .prom file")
    return parser.parse_args(args)


def main(args: Sequence[str]) -> int:
    """Watch or load, then write."""
    try:
        wished = wishes(args)
        capture = (
            watched(wished.qmp, wished.seconds) if wished.qmp else load_capture(wished.capture)
        )
        parameters = Parameters(
            wished.max_bandwidth,
            downtime_limit_ms=wished.downtime_limit,
            private_rate_pps=wished.private_rate,
        )
        guest = wished.guest or (wished.qmp or wished.capture).stem
        text = metrics(capture, guest, parameters)
        write_atomically(wished.output, lambda file: file.write(text))
    except (KvmencError, OSError) as error:
        print(f"exporter: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, KvmencError) else 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
