"""A capture of a running QEMU, from the first question to the last.

Nothing is installed in the guest, and QEMU is left as it was: its own calc-dirty-rate turns the
dirty log on and off, the log is looked at and never cleared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.errors import HostError, NotPermitted
from kvmenc.qemu.facts import read_facts
from kvmenc.tracee import Injector, Target
from kvmenc.watch.migrating import watch_migrating
from kvmenc.watch.peeking import watch_by_peeking
from kvmenc.watch.rates import watch_by_rates
from kvmenc.watch.wishes import CannotPeek

if TYPE_CHECKING:
    from kvmenc.qemu.monitor import Monitor
    from kvmenc.watch.wishes import OnPoint, Watched, Wishes

__all__ = ["watch"]


def watch(monitor: Monitor, wishes: Wishes, on_point: OnPoint) -> Watched:
    """Watch the guest of a running QEMU.

    Args:
        monitor: how to speak to it.
        wishes: what the user wants.
        on_point: told of every point of the curve as it is found.

    Raises:
        HostError: QEMU cannot be watched, or not now; says why.
        InputError: what QEMU or a file says is not understood.
    """
    facts = read_facts(monitor, wishes.pid)
    if facts.kind.uses_guest_memfd:
        raise HostError(
            f"a {facts.kind} guest has its private pages in guest_memfd: KVM refuses it a dirty "
            "log, and QEMU aborts when it is asked for one; so it is not asked"
        )
    if facts.is_migrating and not wishes.during_migration:
        raise HostError(
            f"a migration is going on ({facts.migration}): it reads the dirty log, and a second "
            "reader must not disturb it; --during-migration looks without starting anything"
        )
    try:
        with Injector(Target.of(facts.pid, facts.vcpu_tids)) as injector:
            how = watch_migrating if facts.is_migrating else watch_by_peeking
            return how(monitor, facts, wishes, injector, on_point)
    except (NotPermitted, CannotPeek) as error:
        if facts.is_migrating:
            raise
        return watch_by_rates(monitor, facts, wishes, on_point, str(error))
