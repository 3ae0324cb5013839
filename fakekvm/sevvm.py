"""What KVM keeps of a VM that is an SEV guest, and its view of the caller's memory.

Source: Linux v6.12, arch/x86/kvm/svm/sev.c, struct kvm_sev_info, sev_pin_memory,
__sev_guest_init; drivers/crypto/ccp/sev-dev.c, psp_copy_user_blob.
"""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

from fakekvm import host
from fakekvm import sevdecode as abi
from fakekvm.decode import PAGE_BYTES, U64
from fakekvm.errors import oserror
from fakekvm.sevdevice import SevDevice
from fakekvm.sevfirmware import Firmware, FirmwareError
from fakekvm.sevmemory import CommandMemory, check_pages

if TYPE_CHECKING:
    from types import TracebackType

    from fakekvm.calls import Process, Services

__all__ = ["SevVm", "Telling", "refused"]

_MAX_GHCB_VERSION = 2


class SevVm:
    """A VM's struct kvm_sev_info.

    Args:
        services: the kernel.
        owner: the process that the VM belongs to.
        vm_type: as given to KVM_CREATE_VM.

    Attributes:
        used: the memory that commands point at.
        lock: kvm->lock: one command of a VM at a time. Not what the dirty log is read under.
        active: it is an SEV guest: an INIT command was carried out.
        is_es: with encrypted registers.
        is_snp: it takes SNP's commands only.
        handle: the firmware's; 0 before LAUNCH_START or RECEIVE_START.
        fd: the /dev/sev given with that; 0 at first, which is none.
    """

    def __init__(self, services: Services, owner: Process, vm_type: int) -> None:
        self._services = services
        self._owner = owner
        self.memory = owner.memory
        self.used = CommandMemory(owner.memory)
        self.vm_type = vm_type
        self.lock = threading.Lock()
        self.active = False
        self.is_es = self.is_snp = False
        self.handle = 0
        self.fd = 0
        self._regions: list[abi.Region] = []

    def init(self, vm_type: int, wanted: abi.Init) -> None:
        """Become an SEV guest of this type.

        Raises:
            OSError: EINVAL.
        """
        is_es = vm_type != host.VM_SEV
        ghcb_max = _MAX_GHCB_VERSION if is_es else 0
        if wanted.flags or wanted.vmsa_features or wanted.ghcb_version > ghcb_max or self.active:
            raise oserror(errno.EINVAL)
        self.active, self.is_es = True, is_es
        self.is_snp = vm_type == host.VM_SNP

    def need_active(self, number: int = errno.ENOTTY) -> None:
        """Refuse a VM that is no SEV guest."""
        if not self.active:
            raise oserror(number)

    def firmware(self, fd: int | None = None) -> Firmware:
        """The firmware, reached through a descriptor of /dev/sev: the VM's own by default.

        Raises:
            OSError: EBADF.
        """
        if not isinstance(self._owner.file_of(self.fd if fd is None else fd), SevDevice):
            raise oserror(errno.EBADF)
        return self._services.firmware

    def bind(self, handle: int, fd: int) -> None:
        """Make the firmware's guest ``handle`` this VM's."""
        try:
            self._services.firmware.activate(handle, id(self))
        except FirmwareError:
            self._services.firmware.decommission(handle)
            raise
        self.handle, self.fd = handle, fd

    def destroy(self) -> None:
        """The VM is gone, and its keys with it."""
        if self.handle:
            self._services.firmware.decommission(self.handle)

    def guest_view(self, address: int, size: int) -> bytes:
        """Memory as the guest reads it with the C-bit set."""
        return self._services.firmware.guest_view(self.handle, self.memory, address, size)

    # -- the caller's memory ----------------------------------------------------------------

    def pin(self, address: int, size: int) -> None:
        """sev_pin_memory: all pages must be there.

        Raises:
            OSError: EINVAL; ENOMEM, even for a bad address.
        """
        if not size or address + size > U64:
            raise oserror(errno.EINVAL)
        try:
            check_pages(self.memory, address - address % PAGE_BYTES, address + size)
        except OSError as error:
            raise oserror(errno.ENOMEM) from error

    def page(self, address: int, size: int) -> bytes:
        """What a part of a page holds, as the firmware finds it there.

        Raises:
            OSError: ENOMEM.
        """
        try:
            return self.memory.read(address, size)
        except OSError as error:
            raise oserror(errno.ENOMEM) from error

    def blob(self, address: int, size: int) -> bytes:
        """psp_copy_user_blob.

        Raises:
            OSError: EINVAL: none, or of more than 16 KiB; EFAULT.
        """
        if not address or not 0 < size <= abi.BLOB_MAX_BYTES:
            raise oserror(errno.EINVAL)
        return self.memory.read(address, size)

    def register(self, region: abi.Region) -> None:
        """KVM_MEMORY_ENCRYPT_REG_REGION."""
        with self.lock:
            self.need_active()
            self.pin(region.addr, region.size)
            self._regions.append(region)

    @property
    def pinned_bytes(self) -> int:
        """Of all regions that are registered; those that overlap count twice, as in the kernel."""
        return sum(region.size for region in self._regions)

    def unregister(self, region: abi.Region) -> None:
        """KVM_MEMORY_ENCRYPT_UNREG_REGION."""
        with self.lock:
            self.need_active()
            if region not in self._regions:
                raise oserror(errno.EINVAL)
            self._regions.remove(region)


def refused(command: abi.Command, refusal: FirmwareError) -> OSError:
    """What the firmware answers goes into ``command.error``, and the caller gets EIO."""
    command.error = refusal.code
    return oserror(errno.EIO)


class Telling:
    """What the firmware answers goes into ``command.error``; a refusal is EIO.

    Args:
        command: that is carried out in the block.
    """

    __slots__ = ("_command",)

    def __init__(self, command: abi.Command) -> None:
        self._command = command

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if isinstance(error, FirmwareError):
            raise refused(self._command, error) from error
        if error is None:
            self._command.error = abi.SUCCESS
