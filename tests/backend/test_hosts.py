"""What a host answered is answered again: to a probe, a sync, a measurement, a demo."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from fakekvm import host_named
from kvmenc import uapi
from kvmenc.backend import LocalBackend
from kvmenc.backend.fake import FakeBackend
from kvmenc.backend.kinds import machine_root
from kvmenc.backend.machine import read_machine
from kvmenc.backend.recording import RecordingBackend
from kvmenc.encstate.pageenc import PageEncSource
from kvmenc.errors import NoKvm
from kvmenc.guest.scratch import ScratchVm
from kvmenc.kvm import Exit
from kvmenc.memory.sync import GuestMaps
from kvmenc.probe.firmware import known_certificates, measure_firmware
from kvmenc.probe.result import probe
from kvmenc.scratchrun import ScratchRun, open_scratch_backend
from tests.backend.recordings import PROGRAM, first_log, ioctls, record, replay
from tests.support import need_kvm

if TYPE_CHECKING:
    import mmap
    from pathlib import Path

    from kvmenc.backend import Backend
    from kvmenc.scratchrun import BackendName

HOSTS = ("mainline", "sev", "sev-v9", "sev-v10", "csv", "snp", "intel")
#: Of what a command prints, all that a replay says in its own words.
OWN_WORDS = {"backend", "how", "source", "captured_at"}
LOCAL = pytest.param("local", marks=pytest.mark.kvm)


def lower_of(host: str) -> Backend:
    if host == "local":
        need_kvm()
        return LocalBackend()
    return FakeBackend(host_named(host))


def without_own_words(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_own_words(v) for k, v in value.items() if k not in OWN_WORDS}
    return [without_own_words(it) for it in value] if isinstance(value, list | tuple) else value


def probed(backend: Backend, *, self_test: bool = False) -> Any:
    with machine_root(backend) as root:
        return msgspec.to_builtins(probe(backend, root=root, self_test=self_test))


@pytest.mark.parametrize("host", [*HOSTS, LOCAL])
def test_a_probe_finds_the_same_again(host: str, tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    live = record(path, lower_of(host), probed)
    again = replay(path, probed)
    assert again.pop("backend") == f"{live.pop('backend')}, recorded"
    assert again == live


@pytest.mark.parametrize("host", ["mainline", LOCAL])
def test_a_self_test_finds_the_same_again(host: str, tmp_path: Path) -> None:
    """Ring, manual protect, a guest in a thread of its own: all of it, and twice."""

    def tested(backend: Backend) -> Any:
        return probed(backend, self_test=True)

    path = tmp_path / "a.recording"
    live = record(path, lower_of(host), tested)
    assert len(live["self_test"]) == 6
    for _ in range(2):
        assert without_own_words(replay(path, tested)) == without_own_words(live)


@pytest.mark.parametrize("host", ["no-kvm", "no-rights"])
def test_a_host_that_refuses_refuses_again(host: str, tmp_path: Path) -> None:
    def refused(backend: Backend) -> str:
        with pytest.raises(NoKvm) as caught:
            probe(backend)
        return str(caught.value)

    path = tmp_path / "a.recording"
    live = record(path, FakeBackend(host_named(host)), refused)
    assert replay(path, refused) == live


def test_the_machine_of_the_recording_is_looked_at_and_not_ours(tmp_path: Path) -> None:
    for name, text in (
        ("proc/cpuinfo", "flags\t\t: svm sev_es\n\nflags\t\t: of the second\n"),
        ("sys/module/kvm_amd/parameters/sev", "Y\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    files = read_machine(tmp_path)
    assert files["proc/cpuinfo"] == "flags\t\t: svm sev_es\n", "the first CPU is enough"

    path = tmp_path / "a.recording"
    # To a recording that is not told so this fake is a machine: the files are looked at.
    backend = RecordingBackend(_Unlike(), machine=files)
    probe(backend, root=tmp_path)
    backend.save(path)
    found = {it["name"]: it["value"] for it in replay(path, probed)["evidence"]}
    assert found["kvm_amd.sev"] == "Y"
    assert found["kvm_amd.sev_es"] == "absent"
    assert found["CPU flags"] == "svm sev_es"


class _Unlike:
    """A fake that nobody can tell from a kernel."""

    def __init__(self) -> None:
        fake = FakeBackend(host_named("sev"))
        self.name = "local"
        self.open, self.ioctl, self.mmap, self.close = fake.open, fake.ioctl, fake.mmap, fake.close


REVISIONS = ("rfc-2018", "v2-2019", "v5", "v8", "v9", "v10")


def synced(backend: Backend, revision: str) -> tuple[object, ...]:
    """Both bitmaps of a guest that wrote and flipped, synced twice."""
    with ScratchVm(backend) as machine:
        machine.load(PROGRAM)
        private = PageEncSource(machine.vm, uapi.REVISIONS[revision])
        maps, reports = GuestMaps(machine.layout), []
        for _ in range(2):
            assert machine.vcpu.run(timeout_s=10) == Exit.IO
            reports.append(maps.sync(machine.dirty_source(), private))
        both = (maps.dirty, maps.private)
        words = [it.words.tobytes() for kind in both for it in kind.values()]
    return reports, words


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_sync_of_both_bitmaps_is_the_same_again(revision: str, tmp_path: Path) -> None:
    def use(backend: Backend) -> tuple[object, ...]:
        return synced(backend, revision)

    path = tmp_path / "a.recording"
    live = record(path, FakeBackend(host_named(f"sev-{revision}")), use)
    assert replay(path, use) == live
    assert all(it.known for it in ioctls(path, uapi.REVISIONS[revision].get))


@pytest.mark.kvm
def test_a_real_dirty_log_is_the_same_again(tmp_path: Path) -> None:
    need_kvm()
    path = tmp_path / "a.recording"
    live = record(path, LocalBackend(), first_log)
    assert any(live)
    assert replay(path, first_log) == live


def test_a_measurement_of_the_firmware_is_the_same_to_the_last_digit(tmp_path: Path) -> None:
    """Times are what was seen; contents arrive equal though none are in the file."""

    def measured(backend: Backend) -> Any:
        certificates = known_certificates(backend)
        assert certificates
        found = measure_firmware(backend, certificates, seconds=0.02)
        return msgspec.structs.replace(found, backend="")

    path = tmp_path / "a.recording"
    live = record(path, FakeBackend(host_named("sev")), measured)
    assert live.contents.equal is True
    assert replay(path, measured) == live


@pytest.mark.parametrize("name", ["fake", LOCAL])
def test_a_scratch_run_with_a_guest_beside_is_the_same_again(
    name: BackendName, tmp_path: Path
) -> None:
    if name == "local":
        need_kvm()

    def run(carrier: Backend) -> Any:
        with ScratchRun(carrier) as scratch:
            samples = list(scratch.syncs((25, 80)))
            capture, bitmaps = scratch.capture()
        words = {key: bits.tobytes() for key, bits in bitmaps.items()}
        parts = msgspec.to_builtins((scratch.parts, samples, capture))
        return without_own_words(parts), words

    path = tmp_path / "a.recording"
    live = record(path, open_scratch_backend(name), run)
    assert replay(path, run) == live


class _Filled(FakeBackend):
    """Whose new mappings are not empty."""

    def mmap(self, fd: int, length: int, offset: int) -> mmap.mmap:
        area = super().mmap(fd, length, offset)
        area[100:104] = b"here"
        return area


def test_what_a_new_mapping_holds_is_there_again(tmp_path: Path) -> None:
    def use(backend: Backend) -> bytes:
        with ScratchVm(backend) as machine:
            return bytes(machine.vcpu._map[90:110])

    path = tmp_path / "a.recording"
    live = record(path, _Filled(host_named("mainline")), use)
    assert b"here" in live
    assert replay(path, use) == live


def test_ring_entries_that_the_kernel_took_back_are_free_again(tmp_path: Path) -> None:
    def use(backend: Backend) -> list[list[int]]:
        with ScratchVm(backend, ring_bytes=4096) as machine:
            machine.load(PROGRAM)
            assert machine.vcpu.run(timeout_s=10) == Exit.IO
            ring, found = machine.vcpu.ring, []
            assert ring
            for step in (lambda: None, ring.harvest, machine.vm.reset_dirty_rings):
                step()
                found.append(ring._entries["flags"][:80].tolist())
        return found

    path = tmp_path / "a.recording"
    live = record(path, FakeBackend(host_named("mainline")), use)
    assert [set(it) for it in live] == [{0, 1}, {0, 2}, {0}]
    assert replay(path, use) == live


def test_signals_that_a_thread_blocks_are_its_own_affair(tmp_path: Path) -> None:
    """A run with a time limit tells the kernel of them."""
    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("mainline")), first_log)
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        replay(path, first_log)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    assert len(ioctls(path, uapi.KVM_SET_SIGNAL_MASK)) == 2
