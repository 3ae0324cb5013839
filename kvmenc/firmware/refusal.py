"""When the firmware refuses a command: EIO, and a code of its own beside it."""

from __future__ import annotations

import errno
from types import MappingProxyType
from typing import TYPE_CHECKING

from kvmenc import uapi
from kvmenc.errors import IoctlError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FirmwareRefused"]

_HINTS: Mapping[int, str] = MappingProxyType(
    {
        uapi.SEV_RET_INVALID_PLATFORM_STATE: "the platform is not initialised: load ccp anew",
        uapi.SEV_RET_INVALID_GUEST_STATE: "the guest is not in the state that the command needs",
        uapi.SEV_RET_INVALID_LEN: "a length is too short, or no multiple of 16",
        uapi.SEV_RET_INVALID_CERTIFICATE: (
            "the certificates are not those of one platform, signed up to the chip maker's: export"
            " them again (`sevtool --pdh_cert_export`) on the host that is to receive"
        ),
        uapi.SEV_RET_POLICY_FAILURE: "the guest's policy forbids it",
        uapi.SEV_RET_INVALID_ADDRESS: "the address is no multiple of 16",
        uapi.SEV_RET_BAD_SIGNATURE: "a certificate's signature is not valid",
        uapi.SEV_RET_BAD_MEASUREMENT: (
            "what arrived is not what was sent, or it was sent to another platform or session"
        ),
        uapi.SEV_RET_ASID_OWNED: "the VM has a guest in the firmware already",
        uapi.SEV_RET_RESOURCE_LIMIT: "the firmware has no room for another guest",
        uapi.SEV_RET_UNSUPPORTED: "this firmware has no such command",
    }
)


class FirmwareRefused(IoctlError):
    """The firmware answered a command with an error.

    Attributes:
        command: the command's number (``KVM_SEV_*``).
        code: the firmware's error (``SEV_RET_*``).
    """

    def __init__(self, command: int, code: int) -> None:
        self.command, self.code = command, code
        name, hint = uapi.sev_ret_name(code), _HINTS.get(code, "")
        says = f"{name}: {hint}" if hint else name
        super().__init__("KVM_MEMORY_ENCRYPT_OP", errno.EIO, uapi.sev_cmd_name(command), says)
