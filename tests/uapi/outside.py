"""What the kernel headers of Linux 6.12 do not hold: checked against values written down here."""

from __future__ import annotations

from typing import NamedTuple


class Since(NamedTuple):
    """A constant that headers from ``version`` on hold."""

    version: tuple[int, int]
    value: int


CONSTANTS_SINCE = {
    "GUEST_MEMFD_FLAG_INIT_SHARED": Since((6, 18), 2),
    "GUEST_MEMFD_FLAG_MMAP": Since((6, 18), 1),
    "KVM_CAP_GUEST_MEMFD_FLAGS": Since((6, 18), 244),
    "KVM_SEV_SNP_ENABLE_REQ_CERTS": Since((7, 2), 103),
    "KVM_X86_TDX_VM": Since((6, 16), 5),
}

# In no header: the kernel's own errnos, the documentation's guest states, the kernel's own platform
# states, and Hygon's.
CONSTANTS_ABSENT = {
    "ERESTARTNOHAND": 514,
    "ERESTARTNOINTR": 513,
    "ERESTARTSYS": 512,
    "ERESTART_RESTARTBLOCK": 516,
    "KVM_CSV_COMMAND_BATCH": 24,
    "SEV_STATE_INIT": 1,
    "SEV_STATE_INVALID": 0,
    "SEV_STATE_LAUNCHING": 1,
    "SEV_STATE_RECEIVING": 4,
    "SEV_STATE_RUNNING": 3,
    "SEV_STATE_SECRET": 2,
    "SEV_STATE_SENDING": 5,
    "SEV_STATE_UNINIT": 0,
    "SEV_STATE_WORKING": 2,
}

# Size, and each member with its offset and size.
STRUCTS_ABSENT: dict[str, tuple[int, list[tuple[str, int, int]]]] = {
    "kvm_csv_batch_list_node": (
        24,
        [("cmd_data_addr", 0, 8), ("addr", 8, 8), ("next_cmd_addr", 16, 8)],
    ),
    "kvm_csv_command_batch": (16, [("command_id", 0, 4), ("csv_batch_list_uaddr", 8, 8)]),
    "kvm_page_enc_bitmap": (24, [("start_gfn", 0, 8), ("num_pages", 8, 8), ("enc_bitmap", 16, 8)]),
    "kvm_shared_pages_list": (24, [("pnents", 0, 8), ("buffer", 8, 8), ("size", 16, 4)]),
    "kvm_unencrypted_bitmap": (16, [("slot", 0, 4), ("padding1", 4, 4), ("bitmap", 8, 8)]),
    "shared_region_array_entry": (16, [("gfn_start", 0, 8), ("gfn_end", 8, 8)]),
}
