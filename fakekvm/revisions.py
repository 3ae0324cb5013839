"""The out-of-tree ioctls for the encryption state, 2018 to 2021: what each posting did.

Sources (https://lore.kernel.org/r/<Message-ID>), of which every line below was read:
hypercall and bitmap  20190710201244.25195-12-brijesh.singh@amd.com (2019-07), the reposts of
2020-02-13 (cover.1581555616.git.ashish.kalra@amd.com), 2020-03-30 (v5 1585531159, v6 1585548051),
2020-04-30 (v7 1588234824), 2020-05-05 (v8 1588711355), 2020-11-30 (1606633738), 2020-12-08
(v9 1607460588); list  89a3e3218f3b08be562f68a9c0d736030fff9b1b.1612398155.git.ashish.kalra@amd.com.

No kernel side was found of ``rfc-2018`` (only QEMU's header: per memslot, 1 = unencrypted), nor of
``interim-2021-01`` (QEMU's: a list). The first is answered with the checks of KVM_GET_DIRTY_LOG,
the second as v10. From v7 on the series also hold a patch by which GET fails with EINVAL until the
guest has written a "migration ready" MSR; guests here are ready from the start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["REVISIONS", "Form", "Revision"]


class Form(Enum):
    """How the state is handed over."""

    SLOT_BITMAP = auto()  # of one memslot, 1 = unencrypted
    BITMAP = auto()  # of a range of gfns, 1 = private
    LIST = auto()  # of the shared ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One posting.

    Attributes:
        get, set, reset: request numbers; 0 where there is none.
        keeps_tail: GET writes no byte past the range, and in its last byte keeps the caller's bits;
            otherwise it writes whole 8-byte words with ones behind the range.
        set_copies_words: SET copies words, starting at the word that holds start_gfn; otherwise it
            only clears bits, and looks for them from index start_gfn of the caller's bitmap on.
        sized_by_slots: the kernel's bitmap ends where the highest memslot ended when a slot was
            last created, and announcements beyond are dropped; otherwise announcements grow it.
    """

    form: Form
    get: int
    set: int = 0
    reset: int = 0
    keeps_tail: bool = False
    set_copies_words: bool = False
    sized_by_slots: bool = False


_2019 = Revision(form=Form.BITMAP, get=0x4018AEC2, set=0x4018AEC3)
_V5 = Revision(form=Form.BITMAP, get=0x4018AEC5, set=0x4018AEC6, reset=0xAEC7, keeps_tail=True)
_V7 = Revision(
    form=Form.BITMAP,
    get=0x4018AEC6,
    set=0x4018AEC7,
    keeps_tail=True,
    set_copies_words=True,
    sized_by_slots=True,
)
_LIST = Revision(form=Form.LIST, get=0x4018AEC8, set=0x4018AEC9)

REVISIONS: Mapping[str, Revision] = MappingProxyType(
    {
        "rfc-2018": Revision(form=Form.SLOT_BITMAP, get=0x4010AEBD),
        "v1-2019": _2019,
        "v2-2019": _2019,
        "repost-2020-02": replace(_2019, reset=0xAEC4),
        "v5": _V5,
        "v6": _V5,
        "v7": _V7,
        "v8": _V7,
        "nov-2020": _V7,
        "v9": replace(_V7, get=0x4018AEC8, set=0x4018AEC9),
        "interim-2021-01": _LIST,
        "v10": _LIST,
        "ibm-rfc-2021": _V7,
    }
)
"""By name."""
