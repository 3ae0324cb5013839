"""A scratch guest set going on the best KVM at hand, and watched: the main job in small.

What can be real is real. Where this machine's /dev/kvm opens, the guest is machine code on a real
vCPU and the dirty log is the kernel's; only the encryption bitmap, which no mainline kernel has, is
answered by fakekvm laid over it. Elsewhere all of it is fakekvm. ``parts`` says which.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal, Self

import msgspec
import numpy as np

from fakekvm import host_named
from kvmenc.backend import LocalBackend
from kvmenc.backend.fake import FakeBackend
from kvmenc.backend.kinds import beneath, clock_of, is_fake, seen, seen_bytes
from kvmenc.backend.overlay import OverlayBackend
from kvmenc.backend.replay import ReplayBackend
from kvmenc.encstate.pageenc import PageEncSource, offered_revisions
from kvmenc.errors import RecordingError, errno_name
from kvmenc.guest.program import Flip, Program, Step, Tick, WriteRun, hot_and_cold
from kvmenc.guest.runner import GuestThread
from kvmenc.guest.scratch import PAGE, GuestRam, ScratchVm
from kvmenc.guest.trial import delivered_hypercall
from kvmenc.guest.x86 import FLIP_PORT
from kvmenc.kvm import KvmSystem
from kvmenc.measure import Recording
from kvmenc.memory.words import from_pages, words_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvmenc import uapi
    from kvmenc.backend import Backend
    from kvmenc.capture import Bitmaps, Capture, SyncSample
    from kvmenc.guest.x86 import FlipBy
    from kvmenc.memory.words import Words

__all__ = [
    "SYNC_AT_MS",
    "BackendName",
    "Part",
    "ScratchRun",
    "best_backend",
    "open_scratch_backend",
    "scratch_program",
]

BackendName = Literal["local", "fake"]

REVISION = "v2-2019"

_FLIPS: tuple[FlipBy | None, ...] = (None, "port", "vmcall", "vmmcall")

# Dense at first, where the curve bends most.
SYNC_AT_MS = (25, 50, 100, 200, 400, 700, 1000, 1500, 2000, 3000)

TICKS_PER_S = 50
BOUNCE = range(0x100, 0x100 + 4800)  # shared, like swiotlb: devices see plain text there
CONVERTED = range(0x100 + 4800, 0x100 + 5056)  # flips to and fro
HOT = range(0x2000, 0x2000 + 400)
COLD = range(0x10000, 0x10000 + 2048)


class Part(msgspec.Struct, frozen=True):
    """One part of a run, and whether it was real.

    Attributes:
        name: what.
        real: by a kernel or a CPU, not by fakekvm.
        how: by what.
    """

    name: str
    real: bool
    how: str


def best_backend(say: Callable[[str], object] = lambda _text: None) -> BackendName:
    """``local`` if /dev/kvm opens here, else ``fake``.

    Args:
        say: told why it does not open although it is there.
    """
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno != errno.ENOENT:
            say(f"/dev/kvm does not open ({errno_name(error.errno or 0)}): all of this is fake")
        return "fake"
    return "local"


def scratch_program(seed: int = 2019) -> Program:
    """A guest with shared bounce buffers, a hot set, a cold sweep, and pages that change sides.

    Conversions come in both orders that real guests use: announced and then written, and written in
    place before the announcement.
    """
    rng = np.random.default_rng(seed)
    hot = np.concatenate([np.array(HOT), np.array(BOUNCE[:100])])
    writes = hot_and_cold(hot, np.array(COLD), rng, per_tick=256)
    steps: list[Step] = [Flip(BOUNCE.start, len(BOUNCE), private=False)]
    conversions = _conversions()
    for number, step in enumerate(writes):
        steps.append(step)
        if isinstance(step, Tick) and number % 16 == 1:
            steps += next(conversions)
    return tuple(steps)


def _conversions() -> Iterator[tuple[Step, ...]]:
    run = len(CONVERTED) // 8
    while True:
        for first in CONVERTED[::run]:
            yield (Flip(first, run, private=False), WriteRun(first, run))
            yield (WriteRun(first, run), Flip(first, run, private=True))


class ScratchRun:
    """The running guest; a context manager that stops it.

    Args:
        carrier: what ``open_scratch_backend`` returned, or a recording of it, or its replay.

    Attributes:
        parts: what was real and what was not.
        machine: the VM.
        recording: what has been seen of it.

    Raises:
        HostError: the KVM at hand cannot do it.
    """

    def __init__(self, carrier: Backend) -> None:
        self._cleanup = ExitStack()
        self._carrier = carrier
        with ExitStack() as on_error:
            on_error.callback(self._cleanup.close)
            flip_by = _flip_by(carrier)
            self.parts = _parts(carrier, flip_by)
            revision = _revision_of(carrier)
            self.machine = self._cleanup.enter_context(ScratchVm(carrier))
            if flip_by not in {None, "port"}:
                self.machine.deliver_hypercalls()
            self.machine.load(scratch_program(), flip_by or "port")
            private = PageEncSource(self.machine.vm, revision)
            dirty = self.machine.dirty_source()
            clock = clock_of(carrier, time.monotonic)
            self.recording = Recording(self.machine.layout, dirty, private, clock)
            self._guest = GuestThread(self.machine.vcpu, ticks_per_s=TICKS_PER_S)
            self._source = f"scratch guest on {_whose(carrier)[0]}"
            on_error.pop_all()

    def __enter__(self) -> Self:
        with ExitStack() as on_error:
            on_error.callback(self._cleanup.close)
            self._cleanup.enter_context(self._guest)
            self._guest.wait(3)  # past the announcements that a guest makes at its start
            self.recording.start()
            on_error.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cleanup.close()

    def syncs(self, at_ms: tuple[int, ...] = SYNC_AT_MS) -> Iterator[SyncSample]:
        """Sync at these times after the start, in milliseconds; yields each as it is done."""
        start_s = time.monotonic()
        for due_ms in at_ms:
            time.sleep(max(0.0, start_s + due_ms / 1e3 - time.monotonic()))
            yield self.recording.sync()

    def capture(self) -> tuple[Capture, Bitmaps]:
        """What was seen, facts and bitmaps, with the zero pages looked for now."""
        maps = self.recording.maps.private
        rams = (self.machine.ram, self.machine.bios, self.machine.dimm)
        zero = {ram.name: self._zeros(ram) & ~maps[ram.name].words for ram in rams}
        return self.recording.capture(self._source, zero)

    def _zeros(self, ram: GuestRam) -> Words:
        """A bitmap of pages that hold only zeros; kept by a recording, which has no pages."""
        found = seen_bytes(self._carrier, f"zero pages of {ram.name}", lambda: _zero_pages(ram))
        if len(found) != words_for(ram.npages) * 8:
            raise RecordingError(f"a recording of another guest: {len(found)} bytes of zero pages")
        return np.frombuffer(found, "<u8")


def record(carrier: Backend, on_sync: Callable[[SyncSample], object]) -> Capture:
    """Run the scratch guest, watch it for three seconds, and return what was seen.

    Args:
        carrier: as of ``ScratchRun``.
        on_sync: told of each sync as it is done.
    """
    with ScratchRun(carrier) as run:
        for sample in run.syncs():
            on_sync(sample)
        return run.capture()[0]


def open_scratch_backend(name: BackendName) -> Backend:
    """This machine's KVM with fakekvm's encryption bitmap laid over it, or fakekvm alone."""
    if name == "fake":
        return FakeBackend(host_named(f"sev-{REVISION}"))
    return OverlayBackend(LocalBackend(), REVISION, FLIP_PORT)


def _flip_by(carrier: Backend) -> FlipBy | None:
    """How flips are announced; None: as a step of a script."""
    number = seen(carrier, "how flips are announced", lambda: _FLIPS.index(_tried(carrier)))
    return _FLIPS[int(number) % len(_FLIPS)]


def _tried(carrier: Backend) -> FlipBy | None:
    """Tried below the overlay, which would take a hypercall for itself."""
    overlay = beneath(carrier)
    if isinstance(overlay, OverlayBackend):
        return delivered_hypercall(overlay.lower) or "port"
    return None


def _revision_of(carrier: Backend) -> uapi.PageEncRevision:
    """The revision's name is known here, not guessed; that its number is answered is probed."""
    with KvmSystem.open(carrier) as system, system.create_vm() as scratch:
        return offered_revisions(scratch).choose(REVISION)


def _whose(carrier: Backend) -> tuple[str, str]:
    """The KVM by its short name, and by its long one."""
    replayed = isinstance(carrier, ReplayBackend)
    ending = ", recorded" if replayed else ""
    if is_fake(carrier):
        return f"fakekvm{ending}", f"fakekvm{ending}"
    machine = "another machine" if replayed else "this machine"
    return f"/dev/kvm{ending}", f"/dev/kvm of {machine}{ending}"


def _parts(carrier: Backend, flip_by: FlipBy | None) -> list[Part]:
    real, by = not is_fake(carrier), _whose(carrier)[1]
    guest = "32-bit code of our own on a vCPU" if real else "a script"
    if flip_by is None:
        flips = "the script's hypercalls"
    elif flip_by == "port":
        flips = "port writes: no hypercall exit on this host (needs SVM or VMX)"
    else:
        flips = f"KVM_HC_MAP_GPA_RANGE by {flip_by}"
    bitmap = f"KVM_GET_PAGE_ENC_BITMAP ({REVISION}) by fakekvm" + (" laid over it" if real else "")
    return [
        Part("KVM", real, by),
        Part("guest", real, guest),
        Part("dirty log", real, "KVM_GET_DIRTY_LOG, manual protect"),
        Part("flips", flip_by in {"vmcall", "vmmcall"}, flips),
        Part("private/shared", False, bitmap),
    ]


def _zero_pages(ram: GuestRam) -> bytes:
    contents = np.frombuffer(ram.area, dtype="<u8").reshape(ram.npages, PAGE // 8)
    return from_pages(np.flatnonzero(~contents.any(axis=1)), ram.npages).tobytes()
