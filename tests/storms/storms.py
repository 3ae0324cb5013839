"""The storms: what goes wrong, all the time, on each fake kernel that kvmenc meets."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fakekvm.faults import DEATH, Fault, Faults
from fakekvm.guests import Flip
from fakekvm.requestnames import request_names
from fakekvm.revisions import REVISIONS, Form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from fakekvm.host import Host
    from fakekvm.vm import Vm

__all__ = ["ERRNOS", "STORMS", "storm"]

_READS = (
    *("KVM_GET_DIRTY_LOG", "KVM_CLEAR_DIRTY_LOG", "KVM_GET_PAGE_ENC_BITMAP"),
    *("KVM_GET_UNENCRYPTED_BITMAP", "KVM_GET_SHARED_PAGES_LIST"),
)


def _sometimes(error: int, chance: float) -> Callable[[Host, int], Sequence[Fault]]:
    return lambda _host, _seed: [Fault(error=error, chance=chance)]


def _slow_firmware(host: Host, seed: int) -> Sequence[Fault]:
    if not host.sev:
        return []
    return [Fault(request="KVM_MEMORY_ENCRYPT_OP", delay_s=0.005, every=2 + seed % 5)]


def _short_memory(host: Host, seed: int) -> Sequence[Fault]:
    """Limits of each kind, from tight to what is enough for most."""
    bitmap, guest, pinned = 64 << seed % 8, 1 << 20 + seed % 7, 4096 << seed % 6
    limits = {
        "KVM_GET_PAGE_ENC_BITMAP": bitmap,
        "KVM_GET_UNENCRYPTED_BITMAP": bitmap,
        "KVM_GET_SHARED_PAGES_LIST": bitmap,
        "KVM_SET_USER_MEMORY_REGION": guest,
        "KVM_MEMORY_ENCRYPT_REG_REGION": pinned,
    }
    names = request_names(host).keys() & limits
    return [
        Fault(request=name, above_bytes=limits[name], error=errno.ENOMEM) for name in sorted(names)
    ]


def _flips(host: Host, _seed: int) -> Sequence[Fault]:
    """Beside all memslots, up to their very edges: no slot's bitmap may show any of it."""
    if host.enc_revision is None:
        return []
    revision = REVISIONS[host.enc_revision]
    # Of v10's list a private range takes a page more on each side, as the kernel's code did.
    both = revision.form is not Form.LIST

    def flips(vm: Vm, rng: np.random.Generator) -> Iterator[Flip]:
        for gap in _gaps(vm):
            first, last = sorted(rng.integers(gap.start, gap.stop, 2).tolist())
            yield Flip(first, last + 1 - first, private=both and bool(rng.integers(2)))

    names = [name for name in _READS if name in request_names(host)]
    return [Fault(request=name, before=flips) for name in names]


def _gaps(vm: Vm) -> Iterator[range]:
    """Up to 70 gfns behind and before each memslot, in none."""
    slots = vm.slots.map.slots
    ends = [0, *(slot.end_gfn for slot in slots)]
    starts = [*(slot.base_gfn for slot in slots), 1 << 40]
    for end, start in zip(ends, starts, strict=True):
        if end < start:
            yield range(end, min(start, end + 70))
            yield range(max(end, start - 70), start) if start < 1 << 40 else range(end, end + 1)


STORMS: dict[str, Callable[[Host, int], Sequence[Fault]]] = {
    "eintr": _sometimes(errno.EINTR, 0.3),
    "enomem": _sometimes(errno.ENOMEM, 0.03),
    "eio": _sometimes(errno.EIO, 0.03),
    "death": _sometimes(DEATH, 0.02),
    "slow-firmware": _slow_firmware,
    "short-memory": _short_memory,
    "flips": _flips,
}

#: What errors name under a storm; under the others nothing may fail at all.
ERRNOS = {"enomem": "ENOMEM", "eio": "EIO", "death": "EIO", "short-memory": "ENOMEM"}


def storm(name: str, host: Host, seed: int) -> Faults:
    """A storm for one kernel."""
    return Faults(STORMS[name](host, seed), host, seed)
