"""What guests do: the orders in which they flip, announce and write, and settings to do it in.

Sources of what Linux does, read in 6.12: arch/x86/mm/pat/set_memory.c, __set_memory_enc_pgtable
(page table, then the hypercall; the caller writes); kernel/dma/swiotlb.c,
swiotlb_update_mem_attributes (nobody writes after it); arch/x86/mm/mem_encrypt_amd.c,
__set_clr_pte_enc (contents, page table), then early_set_mem_enc_dec_hypercall; .bss..decrypted:
arch/x86/kernel/head64.c, sme_postprocess_startup (page table; written next), and kvm.c,
kvm_init_platform (the hypercall, much later).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product

from kvmenc.ordering.pages import Act

__all__ = [
    "OLD_BYTES_ORDER",
    "ORDERS",
    "XBZRLE_ORDER",
    "Case",
    "Move",
    "Order",
    "Setting",
    "Xbzrle",
    "case_of",
]


@dataclass(frozen=True, slots=True)
class Move:
    """One step of a vCPU, that nothing comes between.

    Attributes:
        text: what a timeline says.
        acts: what it does to each page.
    """

    text: str
    acts: tuple[tuple[Act, ...], ...]


#: What a vCPU does, from its first move to its last.
Program = tuple[Move, ...]


class Setting(StrEnum):
    """How many pages and vCPUs there are."""

    ALONE = "one page, one vCPU"
    CUT = "one page, rounds cut short"  # a round may leave dirty pages to the next
    SECOND_WRITER = "one page, a 2nd vCPU writes it"
    ONE_WORD = "two pages in a word, two vCPUs"  # each vCPU has a page, and does the same
    ONE_WORD_CUT = "two pages in a word, cut short"  # and rounds may leave dirty pages
    PAGE_TABLE = "one page and its page table"  # each flip of the one dirties the other


class Xbzrle(StrEnum):
    """Whether shared pages go as differences to what was sent before."""

    OFF = "off"
    EVICTS = "the encrypted road evicts"
    KEEPS = "nothing is evicted"


_ONE_WORD = {Setting.ONE_WORD, Setting.ONE_WORD_CUT}


@dataclass(frozen=True, slots=True)
class Order:
    """What a guest does to a page, step by step.

    Attributes:
        name: of the order.
        steps: what is done at once, in turn.
        announces_first: no byte is written under a new key before the change was announced: what
            the host may ask of a guest.
        expects_old_bytes: the guest counts on bytes that were there before a flip and were not
            written since; no architecture promises it.
        seen_in: where guests do so.

    Raises:
        ValueError: more than two conversions in place: a state has no room for so many keys.
    """

    name: str
    steps: tuple[tuple[Act, ...], ...]
    announces_first: bool = True
    expects_old_bytes: bool = False
    seen_in: str = ""

    def __post_init__(self) -> None:
        if sum(acts.count(Act.CONVERT) for acts in self.steps) > 2:
            msg = f"{self.name}: more than two conversions in place"
            raise ValueError(msg)

    @property
    def reboots(self) -> bool:
        """Whether there is a reset in it."""
        return any(Act.RESET in acts for acts in self.steps)


_W, _C, _F, _A, _R = ((act,) for act in (Act.WRITE, Act.CONVERT, Act.FLIP, Act.ANNOUNCE, Act.RESET))
_NOTHING = (Act.NOTHING,)
_AT_ONCE = (Act.FLIP, Act.ANNOUNCE)

_WRITER = Order("write", (_W,))

#: Every order that is checked.
ORDERS = (
    Order("write, write", (_W, _W), seen_in="every guest"),
    Order("flip, announce, write", (_F, _A, _W), seen_in="Linux, set_memory_decrypted()"),
    Order("announce, flip, write", (_A, _F, _W)),
    Order("flip and announce at once, write", (_AT_ONCE, _W), seen_in="SNP, TDX: by the host"),
    Order("flip, announce", (_F, _A), seen_in="Linux, the first SWIOTLB"),
    Order("flip, announce, write, all twice", (_F, _A, _W) * 2),
    Order("flip and back", (_F, _A, _F, _A)),
    Order("flip and back, old bytes expected", (_F, _A, _F, _A), expects_old_bytes=True),
    Order("flip, announce, write, reboot, write", (_F, _A, _W, _R, _W), seen_in="a reboot"),
    Order(
        "flip, write, announce",
        (_F, _W, _A),
        announces_first=False,
        seen_in="Linux, .bss..decrypted at boot; kexec",
    ),
    Order(
        "convert in place, flip, announce",
        (_C, _F, _A),
        announces_first=False,
        seen_in="Linux, early_set_memory_decrypted() at boot",
    ),
    Order("convert in place, there and back", (_C, _F, _A) * 2, announces_first=False),
    Order("announce, convert in place, flip", (_A, _C, _F), announces_first=False),
)

#: Looks like a guest that converts in place; only to find what no host can know.
OLD_BYTES_ORDER = Order(
    "write, flip and back, old bytes expected", (_W, _F, _A, _F, _A), expects_old_bytes=True
)
#: What it takes for xbzrle's cache to go wrong: shared twice after the first round, and private in
#: between.
XBZRLE_ORDER = Order("write, then flip, announce, write, all twice", (_W, *(_F, _A, _W) * 2))


@dataclass(frozen=True, slots=True)
class Case:
    """A guest in a setting: what is explored at once.

    Attributes:
        order: what the vCPUs do.
        setting: where.
        programs: of each vCPU.
        npages: how many pages there are.
        starts: for each way to begin, which pages are private.
        xbzrle: how shared pages are sent again.
    """

    order: Order
    setting: Setting
    programs: tuple[Program, ...]
    npages: int
    starts: tuple[tuple[bool, ...], ...]
    xbzrle: Xbzrle = Xbzrle.OFF

    @property
    def is_symmetric(self) -> bool:
        """The vCPUs and their pages may change places."""
        return self.setting in _ONE_WORD and not self.order.reboots

    @property
    def cuts_rounds(self) -> bool:
        """Whether a live round may leave dirty pages."""
        return self.setting in {Setting.CUT, Setting.ONE_WORD_CUT}


def case_of(order: Order, setting: Setting, xbzrle: Xbzrle = Xbzrle.OFF) -> Case:
    """A guest of that order in that setting, its pages private or shared at first."""
    npages = 2 if setting in {*_ONE_WORD, Setting.PAGE_TABLE} else 1
    starts = tuple(product((True, False), repeat=npages))
    own = _program(order, 0, npages)
    programs: tuple[Program, ...] = (own,)
    if setting == Setting.SECOND_WRITER:
        programs = own, _program(_WRITER, 0, npages)
    elif setting in _ONE_WORD:
        # A reboot ends what the other vCPU does, too; so there the other one only writes.
        programs = own, _program(_WRITER if order.reboots else order, 1, npages)
    elif setting == Setting.PAGE_TABLE:
        programs = (tuple(map(_with_page_table, own)),)
        starts = tuple(start for start in starts if start[1])
    return Case(order, setting, programs, npages, starts, xbzrle)


def _program(order: Order, page: int, npages: int) -> Program:
    return tuple(
        Move(
            " and ".join(acts),
            tuple(acts if at == page or acts == _R else _NOTHING for at in range(npages)),
        )
        for acts in order.steps
    )


def _with_page_table(move: Move) -> Move:
    """A flip is a write to the page table, here page 1; it is private, and never flips itself."""
    flips = Act.FLIP in move.acts[0]
    return replace(move, acts=(move.acts[0], _W)) if flips else move
