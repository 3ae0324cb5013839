"""Numbers back to kernel names, for messages."""

from __future__ import annotations

from functools import cache

from kvmenc.uapi import exits, kvm, psp_sev, sev, vcpu
from kvmenc.uapi.ioc import Ioctl
from kvmenc.uapi.others import NAMES
from kvmenc.uapi.page_enc import REVISIONS


def _ioctls() -> list[Ioctl]:
    """All of them, mainline's first."""
    mainline = [v for m in (kvm, vcpu, psp_sev) for v in vars(m).values() if isinstance(v, Ioctl)]
    others = [i for r in REVISIONS.values() for i in (r.get, r.set, r.reset_ioctl) if i is not None]
    return mainline + others


@cache
def name_of(request: int) -> str:
    """The kernel's name of an ioctl number.

    Returns:
        Every name that the number has had, joined by "/", mainline's first:
        ``name_of(0xaec7) == "KVM_RESET_DIRTY_RINGS/KVM_PAGE_ENC_BITMAP_RESET"``; for a number not
        known here, ``"ioctl 0x..."``.
    """
    names = dict.fromkeys(i.name for i in _ioctls() if i == request)
    return "/".join(names) or NAMES.get(request, f"ioctl {request:#010x}")


def exit_name(reason: int) -> str:
    """The name of a ``kvm_run.exit_reason``: ``exit_name(5) == "KVM_EXIT_HLT"``."""
    return _named(exits, "KVM_EXIT_", reason) or f"exit {reason}"


def sev_ret_name(error: int) -> str:
    """The name of a firmware error: ``sev_ret_name(4) == "SEV_RET_INVALID_LEN"``.

    Args:
        error: signed or, as the structs hold it, unsigned 32 bits.
    """
    signed = error - (1 << 32) if error >= 1 << 31 else error
    return _named(psp_sev, "SEV_RET_", signed) or f"SEV firmware error {error:#x}"


@cache
def sev_cmd_name(number: int) -> str:
    """The name of a ``kvm_sev_cmd.id``: ``sev_cmd_name(8) == "KVM_SEV_SEND_START"``."""
    known = _named(sev, "KVM_SEV_", number) or _named(sev, "KVM_CSV_", number)
    return known or f"command {number}"


def _named(module: object, prefix: str, value: int) -> str | None:
    names = (k for k, v in vars(module).items() if k.startswith(prefix) and v == value)
    return next(names, None)
