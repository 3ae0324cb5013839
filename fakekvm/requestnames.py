"""Requests by the names that the kernel's headers give them, SEV's commands among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fakekvm import decode
from fakekvm import sevdecode as abi
from fakekvm.revisions import REVISIONS, Form, Revision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fakekvm.host import Host

__all__ = ["Request", "request_names"]

_KVMIO = 0xAE


class Request(NamedTuple):
    """What a name stands for.

    Attributes:
        number: the ioctl's.
        command: of KVM_MEMORY_ENCRYPT_OP, kvm_sev_cmd.id; None: any.
    """

    number: int
    command: int | None = None


_MAINLINE = {
    name: Request(value)
    for name, value in vars(decode).items()
    if name.startswith("KVM_") and value >> 8 & 0xFF == _KVMIO
}

_SEV = {
    "KVM_MEMORY_ENCRYPT_OP": Request(abi.KVM_MEMORY_ENCRYPT_OP),
    "KVM_MEMORY_ENCRYPT_REG_REGION": Request(abi.KVM_MEMORY_ENCRYPT_REG_REGION),
    "KVM_MEMORY_ENCRYPT_UNREG_REGION": Request(abi.KVM_MEMORY_ENCRYPT_UNREG_REGION),
    "SEV_ISSUE_CMD": Request(abi.SEV_ISSUE_CMD),
    **{
        f"KVM_SEV_{name}": Request(abi.KVM_MEMORY_ENCRYPT_OP, getattr(abi, name))
        for name in (
            *("INIT", "ES_INIT", "INIT2", "LAUNCH_START", "LAUNCH_UPDATE_DATA"),
            *("LAUNCH_UPDATE_VMSA", "LAUNCH_MEASURE", "LAUNCH_FINISH", "SEND_START"),
            *("SEND_UPDATE_DATA", "SEND_FINISH", "SEND_CANCEL", "RECEIVE_START"),
            *("RECEIVE_UPDATE_DATA", "RECEIVE_FINISH", "GUEST_STATUS", "DBG_DECRYPT"),
        )
    },
}


def request_names(host: Host) -> Mapping[str, Request]:
    """The requests that can be made of a host, by name: SEV's only of those that have SEV.

    What the out-of-tree encryption state's names stand for depends on its revision.
    """
    names = dict(_MAINLINE)
    if host.sev:
        names |= _SEV
    if host.csv:
        names["KVM_CSV_COMMAND_BATCH"] = Request(abi.KVM_MEMORY_ENCRYPT_OP, abi.CSV_COMMAND_BATCH)
    if host.enc_revision is not None:
        names |= _enc_names(REVISIONS[host.enc_revision])
    return names


def _enc_names(revision: Revision) -> dict[str, Request]:
    """As each posting's header has them: rfc-2018's was another, and had no SET."""
    if revision.form is Form.SLOT_BITMAP:
        return {"KVM_GET_UNENCRYPTED_BITMAP": Request(revision.get)}
    what = "SHARED_PAGES_LIST" if revision.form is Form.LIST else "PAGE_ENC_BITMAP"
    names = {f"KVM_GET_{what}": Request(revision.get), f"KVM_SET_{what}": Request(revision.set)}
    if revision.reset:
        names[f"KVM_{what}_RESET"] = Request(revision.reset)
    return names
