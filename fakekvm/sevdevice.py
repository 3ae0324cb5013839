"""/dev/sev, as far as asking goes: nothing that would change the platform is carried out.

Source: Linux v6.12, drivers/crypto/ccp/sev-dev.c, sev_ioctl and sev_ioctl_do_pdh_export.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fakekvm import sevdecode as abi
from fakekvm.calls import File, Services
from fakekvm.errors import oserror
from fakekvm.sevfirmware import FirmwareError

if TYPE_CHECKING:
    from fakekvm.calls import Caller
    from fakekvm.processmemory import ProcessMemory

__all__ = ["SevDevice"]

_API_MAJOR, _API_MINOR, _BUILD = 1, 55, 0
_INIT, _WORKING = 1, 2


class SevDevice(File):
    """What open("/dev/sev") gives; any process may ask.

    Args:
        services: the kernel that it belongs to.
        writable: it was opened for writing too.
    """

    kind = "sev"
    unknown_errno = errno.EINVAL

    def __init__(self, services: Services, *, writable: bool) -> None:
        super().__init__(services)
        self._writable = writable

    def dispatch(self, request: int, arg: int, caller: Caller) -> int | File:
        """SEV_ISSUE_CMD, and nothing else."""
        if request != abi.SEV_ISSUE_CMD:
            return super().dispatch(request, arg, caller)
        memory = caller.process.memory
        command = abi.IssueCmd(*memory.unpack(arg, abi.ISSUE_CMD))
        if command.cmd > abi.SEV_MAX:
            raise oserror(errno.EINVAL)
        try:
            self._carry_out(command, memory)
            command.error = abi.SUCCESS
        except FirmwareError as refusal:
            command.error = refusal.code
            raise oserror(errno.EIO) from refusal
        finally:
            memory.write(arg, abi.ISSUE_CMD.pack(command.cmd, command.data, command.error))
        return 0

    def _carry_out(self, command: abi.IssueCmd, memory: ProcessMemory) -> None:
        if command.cmd == abi.PLATFORM_STATUS:
            guests = self.services.firmware.guest_count
            state = _WORKING if guests else _INIT
            status = abi.STATUS.pack(_API_MAJOR, _API_MINOR, state, 0, _BUILD, guests)
            memory.write(command.data, status)
        elif command.cmd == abi.PDH_CERT_EXPORT:
            self._export(command.data, memory)
        elif not self._writable:
            raise oserror(errno.EPERM)
        else:
            raise FirmwareError(abi.UNSUPPORTED)

    def _export(self, address: int, memory: ProcessMemory) -> None:
        """Both lengths are told, too short or not."""
        wanted = abi.CERT_EXPORT.read(memory, address)
        pdh, chain, _amd = self.services.firmware.chip.certificates()
        fits = wanted.pdh_cert_len >= len(pdh) and wanted.cert_chain_len >= len(chain)
        told = wanted._replace(pdh_cert_len=len(pdh), cert_chain_len=len(chain))
        abi.CERT_EXPORT.write(memory, address, told)
        if not fits or not wanted.pdh_cert_address or not wanted.cert_chain_address:
            raise FirmwareError(abi.INVALID_LEN)
        memory.write(wanted.pdh_cert_address, pdh)
        memory.write(wanted.cert_chain_address, chain)
