"""Guests and parameters for migrations that are predicted and then done.

A planner sees the capture only. Sizes are in MB (10^6 bytes) and rates in MB/s, so that they stand
beside QEMU's max-bandwidth; each migration lasts over 5 s, or is given up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvmenc.plan import Parameters
from tests.qemu.guest import PAGE, REGION_GPA, Guest, Paced, Stream
from tests.qemu.setup import Setup
from tests.qemu.transport import FAST_PIPE, FILE, PIPE, By

if TYPE_CHECKING:
    from typing import Any, Literal

    from tests.qemu.transport import Transport

__all__ = ["SCENARIOS", "Scenario"]


def pages(mb: float) -> int:
    return round(mb * 1e6 / PAGE)


@dataclass(frozen=True, slots=True)
class Device:
    """Memory that is written without a vCPU.

    Attributes:
        mb: so much of it, from where the guest's memory is filled.
        mb_per_s: how fast, in order, round and round.
        first_mb: where it begins.
    """

    mb: float
    mb_per_s: float
    first_mb: float = 0

    @property
    def words(self) -> list[str]:
        """As arguments of ``deviceload``: one write of a batch in 20 ms."""
        batch = pages(self.mb_per_s * 0.02)
        gpa = REGION_GPA + pages(self.first_mb) * PAGE
        return [str(gpa), str(pages(self.mb)), str(batch), "20"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One guest and one way of migrating it.

    Attributes:
        name: of the scenario.
        guest: what runs.
        mb_per_s: QEMU's max-bandwidth.
        downtime_limit_ms: QEMU's downtime-limit.
        auto_converge: QEMU's capability.
        transport: where to.
        setup: how QEMU is started.
        device: what writes beside the guest; None: nothing.
        give_up_s: a migration that has not ended by then is cancelled.
    """

    name: str
    guest: Guest
    mb_per_s: float
    downtime_limit_ms: float = 300
    auto_converge: bool = False
    transport: By = PIPE
    setup: Setup = field(default_factory=Setup)
    device: Device | None = None
    give_up_s: float = 20

    def parameters(self, transport: Transport) -> Parameters:
        return Parameters(
            max_bandwidth_bytes_per_s=self.mb_per_s * 1e6,
            link_bytes_per_s=transport.link_bytes_per_s,
            downtime_limit_ms=self.downtime_limit_ms,
            auto_converge=self.auto_converge,
        )


def _stream(
    mb: float,
    mb_per_s: float,
    order: Literal["sweep", "scatter", "random"] = "scatter",
    period_ms: float = 20,
    first_mb: float = 0,
    spacing: int = 1,
) -> Stream:
    batch = max(1, pages(mb_per_s * period_ms / 1e3))
    return Stream(pages(mb), batch, order, pages(first_mb), spacing)


def _hot(mb: float, first_mb: float = 0, spacing: int = 1) -> Stream:
    """Written again in every period."""
    return Stream(pages(mb), pages(mb), "sweep", pages(first_mb), spacing)


def _guest(filled_mb: float, *streams: Stream, every: int = 1, **how: Any) -> Guest:
    """Which writes streams, if any, every 20 ms; and has filled each page, or one of every few."""
    writer = Paced(streams, **{"period_ms": 20, **how}) if streams else None
    return Guest(pages(filled_mb) // every, every, writer)


def _ram(mib: int, blocks: int = 1) -> Setup:
    return Setup(ram_mib=mib, blocks=blocks, cpu_limit_s=900, extra=("-msg", "timestamp=on"))


def _of(
    name: str, guest: Guest, mb_per_s: float, limit_ms: float, setup: Setup, **more: Any
) -> Scenario:
    return Scenario(name, guest, mb_per_s, limit_ms, setup=setup, **more)


def _tcp(mb_per_s: float, *, into_qemu: bool = False) -> dict[str, Any]:
    return {"transport": By("tcp", mb_per_s, into_qemu)}


_S, _M, _L, _XL = _ram(256), _ram(512), _ram(1024), _ram(3072)
_AUTO: dict[str, Any] = {"auto_converge": True, "give_up_s": 30}

_SWEEPS = (
    _of("idle", _guest(900), 120, 300, _L),
    _of("idle, 3 GiB, 500 MB/s", _guest(3100), 500, 50, _XL, transport=FAST_PIPE),
    _of("scatter at 0.55 of the cap", _guest(240, _stream(240, 27.5)), 50, 100, _S),
    _of("scatter at 0.6 of the cap", _guest(400, _stream(400, 60)), 100, 50, _M),
    _of("scatter at 0.75 of the cap", _guest(240, _stream(240, 60)), 80, 100, _S),
    _of("scatter at 0.85 of the cap", _guest(480, _stream(480, 170)), 200, 50, _M),
    _of("scatter faster than the cap", _guest(240, _stream(240, 60)), 50, 1000, _S),
    _of("sweep in order at 0.7 of the cap", _guest(480, _stream(480, 105, "sweep")), 150, 100, _M),
    _of("sweep of a part, 5 MB/s", _guest(480, _stream(100, 5, "sweep")), 60, 50, _M),
    _of("sweep at 280 MB/s", _guest(1400, _stream(1400, 280, "sweep")), 400, 100, _ram(1536)),
    _of(
        "sweep at 400 MB/s, 3 GiB",
        _guest(3000, _stream(3000, 400, "sweep")), 700, 50, _XL, transport=FAST_PIPE,
    ),
    _of(
        "scatter, 3 GiB, 1 GB/s",
        _guest(3100, _stream(3100, 500)), 1000, 50, _XL, transport=FAST_PIPE,
    ),
)  # fmt: skip

_HOT_SETS = (
    _of("hot set below the threshold", _guest(480, _hot(20)), 80, 400, _M),
    _of("hot set above the threshold", _guest(240, _hot(40)), 100, 300, _S),
    _of("hot set far above the threshold", _guest(480, _hot(120), period_ms=40), 150, 300, _M),
    _of("hot set at the threshold, 300 ms", _guest(480, _hot(24)), 80, 300, _M),
    _of("hot set just above the threshold", _guest(480, _hot(24.1)), 80, 300, _M),
    _of("hot set at the threshold, 2 s", _guest(480, _hot(100), period_ms=40), 50, 2000, _M),
    _of("hot and cold", _guest(240, _hot(6), _stream(200, 26, first_mb=20)), 50, 300, _S),
    _of(
        "hot and cold, short pause",
        _guest(480, _hot(1.5), _stream(460, 55, first_mb=10)), 100, 50, _M,
    ),
    _of(
        "hot and cold, long pause",
        _guest(360, _hot(40), _stream(310, 25, first_mb=45)), 50, 2000, _M,
    ),
    _of(
        "hot in one piece, cold in order",
        _guest(800, _hot(15, first_mb=700), _stream(600, 90, "sweep")), 200, 200, _L,
    ),
    _of(
        "hot spread out, cold in order",
        _guest(400, _hot(6, spacing=64), _stream(400, 70, "sweep")), 100, 100, _M,
    ),
)  # fmt: skip

_RANDOM = (
    _of("random at 0.6 of the cap", _guest(400, _stream(400, 60, "random")), 100, 50, _M),
    _of("random at 0.75 of the cap", _guest(240, _stream(240, 45, "random")), 60, 300, _S),
    _of("random at the threshold", _guest(400, _stream(60, 100, "random")), 80, 300, _M),
    _of(
        "random in a part, three times the cap",
        _guest(400, _stream(60, 240, "random")), 80, 400, _M,
    ),
    _of(
        "random, hot part and all",
        _guest(400, _stream(40, 40, "random"), _stream(400, 45, "random")), 100, 200, _M,
    ),
)  # fmt: skip

_BURSTS = (
    _of(
        "bursts faster than the cap",
        _guest(240, _stream(240, 120), on_periods=15, off_periods=35), 80, 100, _S,
    ),
    _of(
        "long bursts",
        _guest(400, _stream(200, 150), on_periods=75, off_periods=75), 100, 300, _M,
    ),
    _of(
        "bursts of a hot set above the threshold",
        _guest(600, _hot(50), on_periods=25, off_periods=50), 100, 200, _L,
    ),
)  # fmt: skip

_THROTTLED = (
    _of(
        "auto-converge, sweep",
        _guest(200, _stream(60, 90, "sweep"), clock="cpu"), 60, 200, _S, **_AUTO,
    ),
    _of(
        "auto-converge, random",
        _guest(200, _stream(100, 150, "random"), clock="cpu"), 80, 300, _S, **_AUTO,
    ),
    _of(
        "auto-converge, hot and cold",
        _guest(200, _hot(4), _stream(150, 60, first_mb=10), clock="cpu"), 60, 200, _S, **_AUTO,
    ),
    _of(
        "auto-converge, paced by a timer",
        _guest(200, _stream(60, 100)), 60, 300, _S, **_AUTO,
    ),
    _of(
        "auto-converge, not needed",
        _guest(400, _stream(400, 30), clock="cpu"), 80, 100, _M, **_AUTO,
    ),
    _of(
        "paced by the CPU, random, not throttled",
        _guest(200, _stream(100, 150, "random"), clock="cpu"), 80, 300, _S,
    ),
)  # fmt: skip

_MEMORY = (
    _of("two RAMBlocks", _guest(480, _stream(480, 70)), 100, 100, _ram(512, blocks=2)),
    _of(
        "four RAMBlocks, one hot",
        _guest(800, _hot(4, first_mb=600), _stream(250, 60, "sweep", first_mb=20)),
        120, 100, _ram(1024, blocks=4),
    ),
    _of(
        "three quarters zero, in one piece",
        _guest(500, _stream(500, 50)), 80, 100, _ram(2048),
    ),
    _of(
        "three quarters zero, spread",
        _guest(2000, _stream(500, 50, spacing=4), every=4), 80, 100, _ram(2048),
    ),
    _of(
        "zero pages written",
        _guest(400, _stream(800, 40, "random")), 80, 100, _L,
    ),
)  # fmt: skip

_DEVICES = (
    _of("device, no vCPU", _guest(400), 80, 100, _M, device=Device(200, 40)),
    _of("device, hot", _guest(400, _stream(380, 20)), 80, 200, _M, device=Device(6, 40, 382)),
    _of(
        "device beside a vCPU",
        _guest(480, _stream(240, 30)), 100, 100, _M, device=Device(240, 30, 240),
    ),
)  # fmt: skip

_FILES = (
    _of("into a file", _guest(400, _stream(400, 50)), 80, 100, _M, transport=FILE),
    _of(
        "into a file, random",
        _guest(600, _stream(100, 60, "random")), 120, 50, _L, transport=FILE,
    ),
)  # fmt: skip

#: Of 1514 bytes in a packet, 1448 are QEMU's; the cap is below what that leaves, equal, or above.
_SHAPED = (
    _of("TCP, cap below the link", _guest(400, _hot(6), _stream(380, 32, first_mb=15)),
        60, 300, _M, **_tcp(100, into_qemu=True)),
    _of("TCP, cap equal to the link", _guest(400, _hot(10), _stream(380, 50, first_mb=15)),
        95.6, 300, _M, **_tcp(100)),
    _of("TCP, cap above the link", _guest(400, _hot(10), _stream(380, 52, first_mb=20)),
        1000, 300, _M, **_tcp(100)),
    _of("TCP of 50 MB/s", _guest(240, _hot(8), _stream(200, 24, first_mb=20)),
        1000, 500, _S, **_tcp(50)),
    _of("TCP of 250 MB/s, random", _guest(900, _stream(900, 130, "random")),
        200, 100, _L, **_tcp(250, into_qemu=True)),
    _of("TCP of 250 MB/s, hot", _guest(900, _hot(30), _stream(800, 110, first_mb=40)),
        1000, 300, _L, **_tcp(250)),
    _of("TCP of 150 MB/s, short pause", _guest(480, _hot(3), _stream(460, 80, first_mb=10)),
        1000, 60, _M, **_tcp(150)),
    _of("TCP, long pause", _guest(480, _hot(60), _stream(380, 20, first_mb=90), period_ms=40),
        70, 2000, _M, **_tcp(80, into_qemu=True)),
    _of("TCP, hot set above the threshold", _guest(400, _hot(50)),
        1000, 300, _M, **_tcp(100)),
    _of("TCP, hot set at the threshold", _guest(600, _hot(28.9)),
        1000, 300, _L, **_tcp(100)),
    _of("TCP, auto-converge", _guest(400, _stream(80, 150, "random"), clock="cpu"),
        1000, 200, _M, **_tcp(100), **_AUTO),
)  # fmt: skip

SCENARIOS = (
    *_SWEEPS,
    *_HOT_SETS,
    *_RANDOM,
    *_BURSTS,
    *_THROTTLED,
    *_MEMORY,
    *_DEVICES,
    *_FILES,
    *_SHAPED,
)
