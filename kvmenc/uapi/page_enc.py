"""KVM_GET/SET_PAGE_ENC_BITMAP and its kin: one name, many ABIs, none of them in mainline.

From 2018 to 2021 this interface was posted again and again. It never got a KVM_CAP, its numbers
moved, and one number came to mean different things. ``REVISIONS`` holds each posting as data.

How to find out what a kernel has: every revision that was read copies the argument before it looks
at the VM, so GET with a NULL argument on a scratch VM gives EFAULT where the number is known and
ENOTTY where it is not, and changes nothing. What a number *means* must come from elsewhere when
``is_ambiguous`` says so. Never try the numbers of ``NEVER_PROBE`` that way: RESET has no argument,
so the trial is the deed.

Source: each revision's ``source``: a Message-ID of its patch (https://lore.kernel.org/r/<id>), or
a repository, branch and commit.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from kvmenc.uapi.ioc import _IO, _IOW, Ioctl
from kvmenc.uapi.kvm import KVM_RESET_DIRTY_RINGS, KVMIO
from kvmenc.uapi.page_enc_types import (
    Addressing,
    Kind,
    PageEncRevision,
    Polarity,
    Reset,
    SetSemantics,
    TailBits,
    kvm_page_enc_bitmap,
    kvm_shared_pages_list,
    kvm_unencrypted_bitmap,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def _get(nr: int) -> Ioctl:
    return _IOW("KVM_GET_PAGE_ENC_BITMAP", KVMIO, nr, kvm_page_enc_bitmap)


def _set(nr: int) -> Ioctl:
    return _IOW("KVM_SET_PAGE_ENC_BITMAP", KVMIO, nr, kvm_page_enc_bitmap)


def _reset(nr: int) -> Ioctl:
    return _IO("KVM_PAGE_ENC_BITMAP_RESET", KVMIO, nr)


def _list(name: str, nr: int) -> Ioctl:
    return _IOW(name, KVMIO, nr, kvm_shared_pages_list)


def _mail(patch: str, series: str) -> str:
    return f"{patch}.{series}.git.ashish.kalra@amd.com"


_RFC_2018 = PageEncRevision(
    name="rfc-2018",
    date="2018-02",
    source="github.com/codomania/qemu v8-migration 384b33c07a",
    get=_IOW("KVM_GET_UNENCRYPTED_BITMAP", KVMIO, 0xBD, kvm_unencrypted_bitmap),
    polarity=Polarity.SHARED,
    addressing=Addressing.SLOT,
    tail_bits=TailBits.UNKNOWN,
    set_semantics=SetSemantics.NONE,
    reset=Reset.UNKNOWN,
)

# QEMU's v2 is the kernel's v3. Its change log has nothing but BY_VCPU_RESET that v1 lacks, whose
# kernel side was not found.
_V2_2019 = PageEncRevision(
    name="v2-2019",
    date="2019-07-10",
    source="20190710201244.25195-12-brijesh.singh@amd.com",
    get=_get(0xC2),
    set=_set(0xC3),
    tail_bits=TailBits.ONES,
    set_semantics=SetSemantics.ONLY_CLEARS,
    reset=Reset.BY_VCPU_RESET,
)
_V1_2019 = replace(
    _V2_2019,
    name="v1-2019",
    date="2019-06",
    source="github.com/codomania/qemu sev-migration-rfc-v1 ac1f5a9f34",
    reset=Reset.UNKNOWN,
)
_REPOST_2020 = replace(
    _V2_2019,
    name="repost-2020-02",
    date="2020-02-13",
    source=_mail("042534206aa0800f9eeb038176e22c3ab39df11c", "1581555616"),
    reset_ioctl=_reset(0xC4),
    reset=Reset.BY_IOCTL,
)

_V5 = PageEncRevision(
    name="v5",
    date="2020-03-30",
    source=_mail("ca84b8c580f3c1e411d4191b46e726f84ac25376", "1585531159"),
    get=_get(0xC5),
    set=_set(0xC6),
    reset_ioctl=_reset(0xC7),
    tail_bits=TailBits.KEPT,
    set_semantics=SetSemantics.ONLY_CLEARS,
    reset=Reset.BY_IOCTL,
)
_V6 = replace(
    _V5, name="v6", source=_mail("388afbf3af3a10cc3101008bc9381491cc7aab2f", "1585548051")
)

_V7 = PageEncRevision(
    name="v7",
    date="2020-04-30",
    source=_mail("6366a6d1ae1bdca23435949a8ce7d8bf62098f4f", "1588234824"),
    get=_get(0xC6),
    set=_set(0xC7),
    tail_bits=TailBits.KEPT,
    set_semantics=SetSemantics.COPIES_WORDS,
    reset=Reset.BY_SET_NULL,
)
_V8 = replace(
    _V7,
    name="v8",
    date="2020-05-05",
    source=_mail("eeacea5ff4c2c5ba16a14dfdb86869dc5b17520a", "1588711355"),
)
_NOV_2020 = replace(
    _V7,
    name="nov-2020",
    date="2020-11-30",
    source=_mail("8495534821c6270bd7013085243d8224b91e1e81", "1606633738"),
)
_IBM_2021 = replace(
    _V7,
    name="ibm-rfc-2021",
    date="2021-03-02",
    source="20210302204822.81901-2-dovmurik@linux.vnet.ibm.com",
)
_V9 = replace(
    _V7,
    name="v9",
    date="2020-12-08",
    source=_mail("cdda5c5b5bea5d66a80a9c2469a624a37e1aa734", "1607460588"),
    get=_get(0xC8),
    set=_set(0xC9),
)

_V10 = PageEncRevision(
    name="v10",
    date="2021-02-04",
    source=_mail("89a3e3218f3b08be562f68a9c0d736030fff9b1b", "1612398155"),
    get=_list("KVM_GET_SHARED_PAGES_LIST", 0xC8),
    set=_list("KVM_SET_SHARED_PAGES_LIST", 0xC9),
    kind=Kind.LIST,
    polarity=Polarity.SHARED,
    addressing=Addressing.WHOLE_GUEST,
    tail_bits=TailBits.NONE,
    set_semantics=SetSemantics.APPENDS,
    reset=Reset.BY_SET_NULL,
)
# Its header names struct kvm_page_enc_bitmap, of the same size; its code passes a list.
_INTERIM_2021 = replace(
    _V10,
    name="interim-2021-01",
    date="2021-01-19",
    source="github.com/AMDESE/qemu sev_shared_regions_list ab6773ea57",
    get=_list("KVM_GET_PAGE_ENC_LIST", 0xC8),
    set=_list("KVM_SET_PAGE_ENC_LIST", 0xC9),
    set_semantics=SetSemantics.UNKNOWN,
    reset=Reset.UNKNOWN,
)

_ALL = (
    _RFC_2018,
    _V1_2019,
    _V2_2019,
    _REPOST_2020,
    _V5,
    _V6,
    _V7,
    _V8,
    _NOV_2020,
    _V9,
    _INTERIM_2021,
    _V10,
    _IBM_2021,
)

REVISIONS: Mapping[str, PageEncRevision] = MappingProxyType({r.name: r for r in _ALL})
"""By name, oldest first. v11 and later use exits and have no ioctl at all."""

NEVER_PROBE: Mapping[int, str] = MappingProxyType(
    {
        _reset(0xC4): "takes no argument, so trying it does it; on s390 it is KVM_S390_CLEAR_RESET",
        _reset(0xC7): "takes no argument, so trying it does it; in mainline this number is "
        f"{KVM_RESET_DIRTY_RINGS.name}, which takes dirty pages from whoever reads the ring",
    }
)
"""RESET ioctls, and why a trial of each is to be refused."""


def revisions_answering(request: int) -> tuple[PageEncRevision, ...]:
    """Which revisions read the encryption state with this number, oldest first.

    Args:
        request: an ioctl number, such as one that answered the NULL trial with EFAULT.
    """
    return tuple(r for r in _ALL if r.get == request)


def is_ambiguous(request: int) -> bool:
    """Does this number mean different things in different revisions?

    GET in one and SET in another, or a bitmap in one and a list in another: the caller has to be
    told which revision the kernel has. Numbers that mean the same in several are not ambiguous.
    """
    meanings = {("get", r.kind, r.polarity) for r in _ALL if r.get == request}
    meanings |= {("set", r.kind, r.polarity) for r in _ALL if r.set == request}
    return len(meanings) > 1
