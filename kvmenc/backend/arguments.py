"""What each ioctl's argument is, what it points at, and which way the bytes go.

For whoever keeps or repeats calls: a recording and its replay. An ioctl that is not here is kept
with the struct that its number tells of, and nothing that this points at.

Source: Linux v6.12, virt/kvm/kvm_main.c, arch/x86/kvm/x86.c, arch/x86/kvm/svm/sev.c,
drivers/crypto/ccp/sev-dev.c; of the encryption bitmap, see ``uapi.REVISIONS``; of Hygon's batches,
openEuler's arch/x86/kvm/svm/csv.c.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from types import MappingProxyType
from typing import Any

from kvmenc import uapi
from kvmenc.uapi import Ioctl

__all__ = ["Argument", "Commands", "Pointed", "Shape", "Slots", "Way", "argument_of"]

_PAGE_SHIFT = 12
_INT_BYTES = 4

#: Pages of a VM's memslots, by ``kvm_userspace_memory_region.slot``.
Slots = Mapping[int, int]


class Way(Flag):
    """Who reads the bytes: the kernel takes them in, gives them out, or both."""

    IN = auto()
    OUT = auto()
    BOTH = IN | OUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointed:
    """Memory that an address in a struct leads to.

    Attributes:
        member: that holds the address; "": the bytes right after the struct.
        way: which way they go.
        nbytes: how many, by the struct before the call and the VM's memslots.
        secret: keys, or what a guest holds.
        compared: differs only where the caller differs.
    """

    member: str
    way: Way
    nbytes: Callable[[Any, Slots], int]
    secret: bool = False
    compared: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Structs of which one member tells the kind, and another the address.

    Attributes:
        member: that holds the address.
        selector: that tells the kind.
        shapes: by kind; None: no struct at all.
    """

    member: str
    selector: str
    shapes: Mapping[int, Shape | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A struct.

    Attributes:
        struct: its layout.
        way: which way its bytes go.
        pointed: what it points at.
        addresses: members that are addresses, and are not followed.
        fds: members that are file descriptors.
        commands: what it points at, where that depends on a member.
        batch: it is the head of Hygon's list of commands, of these kinds.
        secret: its bytes may be keys, or what a guest holds.
    """

    struct: type[ctypes.Structure | ctypes.c_uint64]
    way: Way = Way.IN
    pointed: tuple[Pointed, ...] = ()
    addresses: tuple[str, ...] = ()
    fds: tuple[str, ...] = ()
    commands: Commands | None = None
    batch: Mapping[int, Shape | None] = field(default_factory=dict)
    secret: bool = False

    @property
    def pointers(self) -> tuple[str, ...]:
        """All members that hold an address."""
        followed = tuple(it.member for it in self.pointed if it.member)
        return self.addresses + followed + ((self.commands.member,) if self.commands else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """What an ioctl takes and gives.

    Attributes:
        shape: of the struct that it is the address of; None: it is an integer.
        gives_fd: what it returns is a file descriptor.
        known: it is in the table; else only its number is known.
    """

    shape: Shape | None = None
    gives_fd: bool = False
    known: bool = True


def _whole_words(npages: int) -> int:
    return -(-npages // 64) * 8


def _member(name: str) -> Callable[[Any, Slots], int]:
    return lambda struct, _slots: int(getattr(struct, name))


def _of_slot(struct: Any, slots: Slots) -> int:  # noqa: ANN401 - a ctypes struct
    return _whole_words(slots.get(struct.slot, 0))


def _of_pages(struct: Any, _slots: Slots) -> int:  # noqa: ANN401
    return _whole_words(struct.num_pages)


def _of_entries(struct: Any, _slots: Slots) -> int:  # noqa: ANN401
    return int(struct.nent) * ctypes.sizeof(uapi.kvm_cpuid_entry2)


def _blob(name: str, way: Way, *, secret: bool = False) -> Pointed:
    """``name`` as in hdr_uaddr and hdr_len."""
    prefix = f"{name}_" if name else ""
    return Pointed(member=f"{prefix}uaddr", way=way, nbytes=_member(f"{prefix}len"), secret=secret)


_LAUNCH_START = Shape(
    struct=uapi.kvm_sev_launch_start,
    way=Way.BOTH,
    pointed=(_blob("dh", Way.IN), _blob("session", Way.IN, secret=True)),
)
_SEND_START = Shape(
    struct=uapi.kvm_sev_send_start,
    way=Way.BOTH,
    pointed=(
        _blob("pdh_cert", Way.IN),
        _blob("plat_certs", Way.IN),
        _blob("amd_certs", Way.IN),
        _blob("session", Way.OUT, secret=True),
    ),
)
_SEND_UPDATE = Shape(
    struct=uapi.kvm_sev_send_update_data,
    way=Way.BOTH,
    pointed=(_blob("hdr", Way.OUT), _blob("trans", Way.OUT, secret=True)),
    addresses=("guest_uaddr",),
)
_RECEIVE_START = Shape(
    struct=uapi.kvm_sev_receive_start,
    way=Way.BOTH,
    pointed=(_blob("pdh", Way.IN), _blob("session", Way.IN, secret=True)),
)
_RECEIVE_UPDATE = Shape(
    struct=uapi.kvm_sev_receive_update_data,
    pointed=(_blob("hdr", Way.IN), _blob("trans", Way.IN, secret=True)),
    addresses=("guest_uaddr",),
)


_LAUNCH_SECRET = Shape(
    struct=uapi.kvm_sev_launch_secret,
    pointed=(_blob("hdr", Way.IN), _blob("trans", Way.IN, secret=True)),
    addresses=("guest_uaddr",),
)
# What is left of the range comes back; the pages themselves are the guest's from then on.
_SNP_LAUNCH_UPDATE = Shape(
    struct=uapi.kvm_sev_snp_launch_update,
    way=Way.BOTH,
    pointed=(_blob("", Way.IN, secret=True),),
)
_SNP_LAUNCH_FINISH = Shape(
    struct=uapi.kvm_sev_snp_launch_finish,
    pointed=(
        Pointed(
            member="id_block_uaddr",
            way=Way.IN,
            nbytes=lambda _struct, _slots: uapi.KVM_SEV_SNP_ID_BLOCK_SIZE,
        ),
        Pointed(
            member="id_auth_uaddr",
            way=Way.IN,
            nbytes=lambda _struct, _slots: uapi.KVM_SEV_SNP_ID_AUTH_SIZE,
        ),
    ),
)


def _debug(followed: str, left: str, way: Way) -> Shape:
    plain = Pointed(member=followed, way=way, nbytes=_member("len"), secret=True)
    return Shape(struct=uapi.kvm_sev_dbg, pointed=(plain,), addresses=(left,))


_ONE_COMMAND: Mapping[int, Shape | None] = MappingProxyType(
    {
        uapi.KVM_SEV_INIT: None,
        uapi.KVM_SEV_ES_INIT: None,
        uapi.KVM_SEV_INIT2: Shape(struct=uapi.kvm_sev_init),
        uapi.KVM_SEV_LAUNCH_START: _LAUNCH_START,
        # The caller's plain bytes go in; what they turn into is the guest's memory.
        uapi.KVM_SEV_LAUNCH_UPDATE_DATA: Shape(
            struct=uapi.kvm_sev_launch_update_data, pointed=(_blob("", Way.IN, secret=True),)
        ),
        uapi.KVM_SEV_LAUNCH_UPDATE_VMSA: None,
        uapi.KVM_SEV_LAUNCH_SECRET: _LAUNCH_SECRET,
        uapi.KVM_SEV_GET_ATTESTATION_REPORT: Shape(
            struct=uapi.kvm_sev_attestation_report, way=Way.BOTH, pointed=(_blob("", Way.OUT),)
        ),
        uapi.KVM_SEV_SNP_LAUNCH_START: Shape(struct=uapi.kvm_sev_snp_launch_start),
        uapi.KVM_SEV_SNP_LAUNCH_UPDATE: _SNP_LAUNCH_UPDATE,
        uapi.KVM_SEV_SNP_LAUNCH_FINISH: _SNP_LAUNCH_FINISH,
        uapi.KVM_SEV_LAUNCH_MEASURE: Shape(
            struct=uapi.kvm_sev_launch_measure, way=Way.BOTH, pointed=(_blob("", Way.OUT),)
        ),
        uapi.KVM_SEV_LAUNCH_FINISH: None,
        uapi.KVM_SEV_SEND_START: _SEND_START,
        uapi.KVM_SEV_SEND_UPDATE_DATA: _SEND_UPDATE,
        uapi.KVM_SEV_SEND_FINISH: None,
        uapi.KVM_SEV_SEND_CANCEL: None,
        uapi.KVM_SEV_RECEIVE_START: _RECEIVE_START,
        uapi.KVM_SEV_RECEIVE_UPDATE_DATA: _RECEIVE_UPDATE,
        uapi.KVM_SEV_RECEIVE_FINISH: None,
        uapi.KVM_SEV_GUEST_STATUS: Shape(struct=uapi.kvm_sev_guest_status, way=Way.OUT),
        uapi.KVM_SEV_DBG_DECRYPT: _debug("dst_uaddr", "src_uaddr", Way.OUT),
        uapi.KVM_SEV_DBG_ENCRYPT: _debug("src_uaddr", "dst_uaddr", Way.IN),
    }
)
_SEV_COMMANDS: Mapping[int, Shape | None] = MappingProxyType(
    {
        **_ONE_COMMAND,
        uapi.KVM_CSV_COMMAND_BATCH: Shape(
            struct=uapi.kvm_csv_command_batch,
            addresses=("csv_batch_list_uaddr",),
            batch=_ONE_COMMAND,
        ),
    }
)
_SEV_CMD = Shape(
    struct=uapi.kvm_sev_cmd,
    way=Way.BOTH,
    fds=("sev_fd",),
    commands=Commands(member="data", selector="id", shapes=_SEV_COMMANDS),
)


def _certificate(address: str, length: str, way: Way) -> Pointed:
    return Pointed(member=address, way=way, nbytes=_member(length))


_PLATFORM_CMD = Shape(
    struct=uapi.sev_issue_cmd,
    way=Way.BOTH,
    commands=Commands(
        member="data",
        selector="cmd",
        shapes={
            uapi.SEV_PLATFORM_STATUS: Shape(struct=uapi.sev_user_data_status, way=Way.OUT),
            uapi.SEV_FACTORY_RESET: None,
            uapi.SEV_PEK_GEN: None,
            uapi.SEV_PDH_GEN: None,
            uapi.SEV_PEK_CSR: Shape(
                struct=uapi.sev_user_data_pek_csr,
                way=Way.BOTH,
                pointed=(_certificate("address", "length", Way.OUT),),
            ),
            uapi.SEV_PEK_CERT_IMPORT: Shape(
                struct=uapi.sev_user_data_pek_cert_import,
                pointed=(
                    _certificate("pek_cert_address", "pek_cert_len", Way.IN),
                    _certificate("oca_cert_address", "oca_cert_len", Way.IN),
                ),
            ),
            uapi.SEV_PDH_CERT_EXPORT: Shape(
                struct=uapi.sev_user_data_pdh_cert_export,
                way=Way.BOTH,
                pointed=(
                    _certificate("pdh_cert_address", "pdh_cert_len", Way.OUT),
                    _certificate("cert_chain_address", "cert_chain_len", Way.OUT),
                ),
            ),
            uapi.SEV_GET_ID: Shape(struct=uapi.sev_user_data_get_id, way=Way.OUT),
            uapi.SEV_GET_ID2: Shape(
                struct=uapi.sev_user_data_get_id2,
                way=Way.BOTH,
                pointed=(_certificate("address", "length", Way.OUT),),
            ),
        },
    ),
)


def _cpuid(way: Way) -> Shape:
    entries = Pointed(member="", way=way, nbytes=_of_entries)
    return Shape(struct=uapi.kvm_cpuid2, way=way | Way.IN, pointed=(entries,))


_TABLE: Mapping[int, Argument] = MappingProxyType(
    {
        uapi.KVM_GET_API_VERSION: Argument(),
        uapi.KVM_CREATE_VM: Argument(gives_fd=True),
        uapi.KVM_CHECK_EXTENSION: Argument(),
        uapi.KVM_GET_VCPU_MMAP_SIZE: Argument(),
        uapi.KVM_GET_SUPPORTED_CPUID: Argument(shape=_cpuid(Way.OUT)),
        uapi.KVM_SET_CPUID2: Argument(shape=_cpuid(Way.IN)),
        uapi.KVM_CREATE_VCPU: Argument(gives_fd=True),
        uapi.KVM_SET_USER_MEMORY_REGION: Argument(
            shape=Shape(struct=uapi.kvm_userspace_memory_region, addresses=("userspace_addr",))
        ),
        uapi.KVM_SET_USER_MEMORY_REGION2: Argument(
            shape=Shape(
                struct=uapi.kvm_userspace_memory_region2,
                addresses=("userspace_addr",),
                fds=("guest_memfd",),
            )
        ),
        uapi.KVM_SET_TSS_ADDR: Argument(),
        uapi.KVM_SET_IDENTITY_MAP_ADDR: Argument(shape=Shape(struct=ctypes.c_uint64)),
        uapi.KVM_GET_DIRTY_LOG: Argument(
            shape=Shape(
                struct=uapi.kvm_dirty_log,
                pointed=(Pointed(member="dirty_bitmap", way=Way.OUT, nbytes=_of_slot),),
            )
        ),
        uapi.KVM_CLEAR_DIRTY_LOG: Argument(
            shape=Shape(
                struct=uapi.kvm_clear_dirty_log,
                pointed=(Pointed(member="dirty_bitmap", way=Way.IN, nbytes=_of_pages),),
            )
        ),
        uapi.KVM_RESET_DIRTY_RINGS: Argument(),
        uapi.KVM_ENABLE_CAP: Argument(shape=Shape(struct=uapi.kvm_enable_cap)),
        uapi.KVM_GET_STATS_FD: Argument(gives_fd=True),
        uapi.KVM_MEMORY_ENCRYPT_OP: Argument(shape=_SEV_CMD),
        uapi.KVM_MEMORY_ENCRYPT_REG_REGION: Argument(
            shape=Shape(struct=uapi.kvm_enc_region, addresses=("addr",))
        ),
        uapi.KVM_MEMORY_ENCRYPT_UNREG_REGION: Argument(
            shape=Shape(struct=uapi.kvm_enc_region, addresses=("addr",))
        ),
        uapi.KVM_SET_MEMORY_ATTRIBUTES: Argument(shape=Shape(struct=uapi.kvm_memory_attributes)),
        uapi.KVM_CREATE_GUEST_MEMFD: Argument(
            shape=Shape(struct=uapi.kvm_create_guest_memfd), gives_fd=True
        ),
        uapi.KVM_RUN: Argument(),
        # Which signals a thread blocks is its own affair.
        uapi.KVM_SET_SIGNAL_MASK: Argument(
            shape=Shape(
                struct=uapi.kvm_signal_mask,
                pointed=(Pointed(member="", way=Way.IN, nbytes=_member("len"), compared=False),),
            )
        ),
        uapi.KVM_PRE_FAULT_MEMORY: Argument(
            shape=Shape(struct=uapi.kvm_pre_fault_memory, way=Way.BOTH)
        ),
        uapi.KVM_GET_REGS: Argument(shape=Shape(struct=uapi.kvm_regs, way=Way.OUT)),
        uapi.KVM_SET_REGS: Argument(shape=Shape(struct=uapi.kvm_regs)),
        uapi.KVM_GET_SREGS: Argument(shape=Shape(struct=uapi.kvm_sregs, way=Way.OUT)),
        uapi.KVM_SET_SREGS: Argument(shape=Shape(struct=uapi.kvm_sregs)),
        uapi.SEV_ISSUE_CMD: Argument(shape=_PLATFORM_CMD),
    }
)


def _page_enc(argtype: object, way: Way) -> Shape | None:
    """The encryption bitmap's, whichever revision."""
    if argtype is uapi.kvm_page_enc_bitmap:
        bits = Pointed(member="enc_bitmap", way=way, nbytes=_of_pages)
        return Shape(struct=uapi.kvm_page_enc_bitmap, pointed=(bits,))
    if argtype is uapi.kvm_unencrypted_bitmap:
        bits = Pointed(member="bitmap", way=way, nbytes=_of_slot)
        return Shape(struct=uapi.kvm_unencrypted_bitmap, pointed=(bits,))
    if argtype is uapi.kvm_shared_pages_list:
        count = Pointed(member="pnents", way=way, nbytes=lambda _struct, _slots: _INT_BYTES)
        entries = Pointed(member="buffer", way=way, nbytes=_member("size"))
        return Shape(struct=uapi.kvm_shared_pages_list, pointed=(count, entries))
    return None


def argument_of(request: int) -> Argument:
    """What ``request`` takes and gives.

    Args:
        request: a number. Where one number has had several meanings (see ``uapi.page_enc``), an
            ``Ioctl`` knows its own; a plain number of these is not in the table.
    """
    if request in _TABLE:
        return _TABLE[request]
    if isinstance(request, Ioctl):
        way = Way.IN if request.name.startswith("KVM_SET_") else Way.OUT
        if shape := _page_enc(request.argtype, way):
            return Argument(shape=shape)
    return Argument(shape=_by_number(request), known=False)


def _by_number(request: int) -> Shape | None:
    """A struct of bytes, as large as the number says, that may go both ways, and hold anything.

    A vCPU's vector registers, which hold keys, are such.
    """
    size = Ioctl(request, "", None).size
    if size == 0:
        return None
    layout = type("argument", (ctypes.Structure,), {"_fields_": [("bytes", ctypes.c_uint8 * size)]})
    return Shape(struct=layout, way=Way.BOTH, secret=True)
