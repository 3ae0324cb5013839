"""The structs of KVM_GET/SET_PAGE_ENC_BITMAP and its kin, and what sets their revisions apart.

The revisions themselves are in ``page_enc``, each with its source.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from kvmenc.uapi.cstruct import Struct, u32, u64

if TYPE_CHECKING:
    from kvmenc.uapi.ioc import Ioctl


# Structs ---------------------------------------------------------------------------------------


class kvm_page_enc_bitmap(Struct):
    """A range of guest frames and the address of its bitmap: bit i is gfn ``start_gfn`` + i.

    ``enc_bitmap`` needs ALIGN(num_pages, 64) / 8 bytes, though later revisions write fewer. In
    v1-2019 the first field was called ``start``.
    """

    start_gfn: u64
    num_pages: u64
    enc_bitmap: u64


class kvm_unencrypted_bitmap(Struct):
    """The 2018 one: a memslot (address space in the upper 16 bits) and the address of a bitmap."""

    slot: u32
    padding1: u32
    bitmap: u64


class kvm_shared_pages_list(Struct):
    """Addresses of an int (number of entries) and of ``size`` bytes for the entries.

    In the interim of January 2021 it was called ``kvm_page_enc_list``.
    """

    pnents: u64
    buffer: u64
    size: u32


class shared_region_array_entry(Struct):
    """An entry of that list: guest frames ``gfn_start`` up to, not including, ``gfn_end``."""

    gfn_start: u64
    gfn_end: u64


# What revisions differ in ----------------------------------------------------------------------


class Kind(StrEnum):
    """What GET answers with."""

    BITMAP = "bitmap"
    LIST = "list"


class Polarity(StrEnum):
    """What a set bit, or an entry of the list, says of its pages."""

    PRIVATE = "private"
    SHARED = "shared"


class Addressing(StrEnum):
    """What GET asks for."""

    SLOT = "slot"
    GFN_RANGE = "gfn-range"
    WHOLE_GUEST = "whole-guest"


class TailBits(StrEnum):
    """What GET leaves in the bits past ``num_pages``."""

    ONES = "ones"  # whole 64-bit words are written
    KEPT = "kept"  # ceil(num_pages / 8) bytes are written; the caller's bits stay
    UNKNOWN = "unknown"  # no kernel side was found
    NONE = "none"  # a list has no tail


class SetSemantics(StrEnum):
    """What SET does."""

    NONE = "none"
    # Clears bits and never sets one; and scans the caller's bitmap from bit start_gfn instead of 0,
    # so that it is right for start_gfn 0 only.
    ONLY_CLEARS = "only-clears"
    # Copies, but from word start_gfn / 64: right only where start_gfn is a multiple of 64.
    COPIES_WORDS = "copies-words"
    # Adds entries and takes over their number as the list's length: after a second SET, GET writes
    # past its kernel buffer.
    APPENDS = "appends"
    UNKNOWN = "unknown"


class Reset(StrEnum):
    """How everything becomes private again, on reboot."""

    NONE = "none"
    BY_VCPU_RESET = "by-vcpu-reset"
    BY_IOCTL = "by-ioctl"
    BY_SET_NULL = "by-set-null"  # SET whose bitmap or buffer address is 0
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageEncRevision:
    """One posting of the interface.

    Attributes:
        name: what the user calls it by.
        date: when it was posted, ISO 8601, as far as known.
        source: Message-ID, or repository, branch and commit.
        get: the ioctl that reads the state; ``get.argtype`` is its struct.
        set: the ioctl that writes it.
        reset_ioctl: the ioctl that resets it; listed to be refused (see ``NEVER_PROBE``).
        kind: bitmap or list.
        polarity: what a set bit or an entry means.
        addressing: what GET asks for.
        tail_bits: bits past ``num_pages``.
        set_semantics: what SET really does.
        reset: how the state is reset.
    """

    name: str
    date: str
    source: str
    get: Ioctl
    set: Ioctl | None = None
    reset_ioctl: Ioctl | None = None
    kind: Kind = Kind.BITMAP
    polarity: Polarity = Polarity.PRIVATE
    addressing: Addressing = Addressing.GFN_RANGE
    tail_bits: TailBits
    set_semantics: SetSemantics
    reset: Reset
