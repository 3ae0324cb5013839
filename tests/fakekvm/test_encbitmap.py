"""The encryption state ioctls, revision by revision, through bytes.

The oracles at the end are the posted C functions, carried over line by line with loops over bits.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakekvm.encbitmap import EncBitmap
from fakekvm.host import Host, host_named
from fakekvm.revisions import REVISIONS
from tests.fakekvm import raw
from tests.fakekvm.raw import Buffer, FakeMachine, Guest

if TYPE_CHECKING:
    from collections.abc import Iterable

# name: GET, SET, RESET. Encoded values as _IOW(0xAE, nr, 24-byte struct) and _IO(0xAE, nr).
NUMBERS = {
    "rfc-2018": (0x4010AEBD, 0, 0),
    "v1-2019": (0x4018AEC2, 0x4018AEC3, 0),
    "v2-2019": (0x4018AEC2, 0x4018AEC3, 0),
    "repost-2020-02": (0x4018AEC2, 0x4018AEC3, 0xAEC4),
    "v5": (0x4018AEC5, 0x4018AEC6, 0xAEC7),
    "v6": (0x4018AEC5, 0x4018AEC6, 0xAEC7),
    "v7": (0x4018AEC6, 0x4018AEC7, 0),
    "v8": (0x4018AEC6, 0x4018AEC7, 0),
    "nov-2020": (0x4018AEC6, 0x4018AEC7, 0),
    "v9": (0x4018AEC8, 0x4018AEC9, 0),
    "interim-2021-01": (0x4018AEC8, 0x4018AEC9, 0),
    "v10": (0x4018AEC8, 0x4018AEC9, 0),
    "ibm-rfc-2021": (0x4018AEC6, 0x4018AEC7, 0),
}
BITMAPS = [n for n in NUMBERS if n not in {"rfc-2018", "v10", "interim-2021-01"}]
WITH_ONES = ["v1-2019", "v2-2019", "repost-2020-02"]
KEEPING = [name for name in BITMAPS if name not in WITH_ONES]
COPYING = ["v7", "v8", "nov-2020", "v9", "ibm-rfc-2021"]
CLEARING = [name for name in BITMAPS if name not in COPYING]
RESETTING = ["repost-2020-02", "v5", "v6"]


def call(enc: EncBitmap, request: int, arg: raw.Argument = 0) -> raw.Result:
    try:
        return enc.ioctl(request, arg if isinstance(arg, int) else arg.address)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def bits(data: Iterable[int]) -> str:
    """Bytes as bits, the first bit first."""
    return "".join(f"{byte:08b}"[::-1] for byte in data)


def get(enc: EncBitmap, name: str, start: int, npages: int, fill: int = 0) -> str | raw.Result:
    """What GET leaves in a buffer that was filled with ``fill``, or the errno."""
    out = Buffer(bytes([fill]) * ((npages + 63) // 64 * 8 + 8))
    result = call(enc, NUMBERS[name][0], Buffer(struct.pack("<QQQ", start, npages, out.address)))
    return bits(out.bytes) if result == 0 else result


def put(enc: EncBitmap, name: str, start: int, npages: int, private: str) -> raw.Result:
    """SET, from bits as text."""
    value = int(private[::-1] or "0", 2)
    bitmap = Buffer(value.to_bytes(max(npages, len(private)) // 64 * 8 + 8, "little"))
    argument = Buffer(struct.pack("<QQQ", start, npages, bitmap.address))
    return call(enc, NUMBERS[name][1], argument)


def state(enc: EncBitmap, name: str, npages: int) -> str:
    found = get(enc, name, 0, npages)
    assert isinstance(found, str)
    return found[:npages]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_revision_answers_its_numbers_and_no_other(name: str) -> None:
    enc = EncBitmap(name)
    everything = {0x4010AEBD, *(0x4018AE00 | nr for nr in range(256))}
    everything |= {0xAE00 | nr for nr in range(256)}
    answered = {number for number in everything if number in enc.requests}
    assert answered == {number for number in NUMBERS[name] if number}
    assert set(NUMBERS) == set(REVISIONS)


@pytest.mark.parametrize("name", NUMBERS)
def test_null_is_efault_before_it_is_known_whether_the_vm_is_a_sev_guest(name: str) -> None:
    """What a prober rests on. RESET has no argument, so there NULL is the deed."""
    for sev in (True, False):
        enc = EncBitmap(name, sev=sev)
        for number in NUMBERS[name][:2]:
            if number:
                assert call(enc, number) == "EFAULT"


@pytest.mark.parametrize("name", NUMBERS)
def test_a_vm_that_is_no_sev_guest_gets_enotty(name: str) -> None:
    enc = EncBitmap(name, sev=False)
    for number in NUMBERS[name]:
        if number:
            assert call(enc, number, Buffer(b"\xff" * 24)) == "ENOTTY"
    assert enc.set_range(0, 1, private=False) == -22


@pytest.mark.parametrize("name", BITMAPS)
def test_everything_is_private_until_it_is_announced(name: str) -> None:
    enc = EncBitmap(name)
    assert state(enc, name, 130) == "1" * 130
    assert enc.set_range(3, 2, private=False) == 0
    assert enc.set_range(64, 64, private=False) == 0
    assert enc.set_range(70, 1, private=True) == 0
    expected = "1" * 3 + "00" + "1" * 59 + "0" * 6 + "1" + "0" * 57 + "11"
    assert state(enc, name, 130) == expected
    far = get(enc, name, 1 << 60, 8)
    assert isinstance(far, str)
    assert far[:8] == "1" * 8, "past the end of the kernel's bitmap"
    unaligned = get(enc, name, 62, 10)
    assert isinstance(unaligned, str)
    assert unaligned[:10] == expected[62:72]


@pytest.mark.parametrize("name", WITH_ONES)
def test_old_revisions_write_whole_words_with_ones_behind_the_range(name: str) -> None:
    enc = EncBitmap(name)
    enc.set_range(0, 200, private=False)
    assert get(enc, name, 0, 10) == "0" * 10 + "1" * 54 + "0" * 64
    assert get(enc, name, 0, 64, fill=0xFF) == "0" * 64 + "1" * 64


@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize("fill", [0, 0xFF])
def test_newer_revisions_keep_what_the_caller_had_behind_the_range(name: str, fill: int) -> None:
    enc = EncBitmap(name)
    enc.set_range(0, 200, private=False)
    theirs = "1" if fill else "0"
    assert get(enc, name, 0, 10, fill) == "0" * 10 + theirs * 118
    enc.set_range(0, 200, private=True)
    assert get(enc, name, 0, 10, fill) == "1" * 10 + theirs * 118
    assert get(enc, name, 0, 16, fill) == "1" * 16 + theirs * 112


@pytest.mark.parametrize("name", BITMAPS)
def test_the_buffer_s_errors_come_last(name: str) -> None:
    enc = EncBitmap(name)
    get_number, set_number, _ = NUMBERS[name]
    most = 4 << 23  # 4 MiB of bitmap, 128 GiB of guest
    for number in (get_number, set_number):
        assert call(enc, number, Buffer(struct.pack("<QQQ", 0, most + 1, 8))) == "ENOMEM"
        assert call(enc, number, Buffer(struct.pack("<QQQ", 0, most, 8))) == "EFAULT"
        assert call(enc, number, Buffer(struct.pack("<QQQ", 0, 8, 8))) == "EFAULT"
        assert call(enc, number, Buffer(struct.pack("<QQQ", 0, 0, 8))) == 0
        assert call(enc, number, Buffer(struct.pack("<QQQ", 1 << 62, 8, 8))) == "EFAULT"


@pytest.mark.parametrize("name", BITMAPS)
def test_numbers_that_wrap_around_do_no_harm(name: str) -> None:
    enc = EncBitmap(name)
    enc.set_range(0, 64, private=False)
    high = (1 << 64) - 8
    wrapped = get(enc, name, high, 64)
    assert isinstance(wrapped, str)
    assert wrapped[:64] == "1" * 64
    everything = Buffer(struct.pack("<QQQ", 0, (1 << 64) - 1, 8))
    assert call(enc, NUMBERS[name][0], everything) == (0 if name in WITH_ONES else "EFAULT")
    assert call(enc, NUMBERS[name][1], everything) == "ENOMEM"
    # From v7 on the kernel would write outside of its bitmap, for which there is no right answer.
    assert put(enc, name, high, 64, "0" * 64) == ("EFAULT" if name in COPYING else 0)
    assert state(enc, name, 70) == "0" * 64 + "1" * 6
    assert enc.set_range(high, 8, private=False) == -22
    assert enc.set_range(high, 0, private=False) == 0


@pytest.mark.parametrize("name", BITMAPS)
def test_a_bitmap_that_no_host_has_memory_for_is_refused(name: str) -> None:
    enc = EncBitmap(name)
    assert enc.set_range(1 << 50, 1, private=False) == -errno.ENOMEM
    assert put(enc, name, 1 << 50, 8, "0" * 8) == "ENOMEM"


@pytest.mark.parametrize("name", CLEARING)
def test_set_used_to_clear_bits_only(name: str) -> None:
    enc = EncBitmap(name)
    assert put(enc, name, 0, 8, "10101010") == 0
    assert state(enc, name, 10) == "1010101011"
    assert put(enc, name, 0, 8, "11111111") == 0
    assert state(enc, name, 10) == "1010101011", "shared for ever"


@pytest.mark.parametrize("name", CLEARING)
def test_set_used_to_skip_as_many_bits_as_its_start_is_high(name: str) -> None:
    enc = EncBitmap(name)
    assert put(enc, name, 4, 8, "00000000") == 0
    assert state(enc, name, 16) == "1" * 8 + "0000" + "1111", "the first four are missed"
    assert put(enc, name, 100, 64, "0" * 64) == 0
    assert state(enc, name, 200) == "1" * 8 + "0000" + "1" * 188, "start >= length: nothing"


@pytest.mark.parametrize("name", COPYING)
def test_set_copies_words_from_v7_on(name: str) -> None:
    enc = EncBitmap(name)
    enc.set_range(0, 300, private=False)
    assert put(enc, name, 64, 64, "10" * 32) == 0
    assert state(enc, name, 192) == "0" * 64 + "10" * 32 + "0" * 64


@pytest.mark.parametrize("name", COPYING)
def test_set_takes_neighbours_along_where_the_range_is_not_of_words(name: str) -> None:
    enc = EncBitmap(name)
    enc.set_range(0, 300, private=True)
    assert put(enc, name, 64, 4, "0000") == 0
    assert state(enc, name, 192) == "1" * 64 + "0" * 64 + "1" * 64, "the word's other 60 bits too"
    enc.set_range(0, 300, private=True)
    assert put(enc, name, 70, 64, "0" * 64) == 0
    assert state(enc, name, 192) == "1" * 64 + "0" * 64 + "1" * 64, "rounded down to 64"


@pytest.mark.parametrize("name", COPYING)
def test_set_without_a_bitmap_makes_all_private(name: str) -> None:
    enc = EncBitmap(name)
    enc.set_range(0, 100, private=False)
    assert call(enc, NUMBERS[name][1], Buffer(struct.pack("<QQQ", 5, 7, 0))) == 0
    assert state(enc, name, 100) == "1" * 100


@pytest.mark.parametrize("name", RESETTING)
def test_reset_makes_all_private_whatever_its_argument(name: str) -> None:
    enc = EncBitmap(name)
    enc.set_range(0, 100, private=False)
    assert call(enc, NUMBERS[name][2]) == 0
    assert state(enc, name, 100) == "1" * 100


@pytest.mark.parametrize("name", COPYING)
def test_from_v7_on_the_bitmap_is_as_large_as_the_memslots(name: str) -> None:
    enc = EncBitmap(name)
    enc.slot_created(100)
    assert enc.set_range(90, 20, private=False) == 0, "dropped, and the guest is not told"
    assert enc.set_range(90, 10, private=False) == 0
    enc.slot_created(1 << 40)
    assert state(enc, name, 120) == "1" * 90 + "0" * 10 + "1" * 20, "too large: left as it is"


@pytest.mark.parametrize("name", CLEARING)
def test_before_v7_announcements_size_the_bitmap(name: str) -> None:
    enc = EncBitmap(name)
    enc.slot_created(100)
    assert enc.set_range(90, 20, private=False) == 0
    assert state(enc, name, 120) == "1" * 90 + "0" * 20 + "1" * 10


def test_the_first_rfc_reads_a_memslot_and_says_1_for_unencrypted() -> None:
    with FakeMachine(host_named("sev-rfc-2018")) as fake:
        guest = Guest(fake, npages=70)
        assert guest.region(slot=5, gfn=100) == 0
        vm = fake.kernel.file_of(guest.vm)
        enc = getattr(vm, "enc", None)
        assert isinstance(enc, EncBitmap)
        enc.set_range(101, 2, private=False)
        enc.set_range(169, 5, private=False)
        out = Buffer(b"\xff" * 24)

        def read(slot: int, address: int = out.address) -> raw.Result:
            return fake.ioctl(guest.vm, 0x4010AEBD, Buffer(struct.pack("<IIQ", slot, 0, address)))

        assert read(5) == 0
        assert bits(out.bytes) == "011" + "0" * 66 + "1" + "0" * 58 + "1" * 64
        assert (read(6), read(40000), read(1 << 16)) == ("ENOENT", "EINVAL", "EINVAL")
        assert read(5, 0) == "EFAULT"


def test_a_first_rfc_that_knows_no_memslots_has_none() -> None:
    assert call(EncBitmap("rfc-2018"), 0x4010AEBD, Buffer(bytes(16))) == "ENOENT"


@pytest.mark.parametrize("name", BITMAPS)
def test_a_vm_of_such_a_host_answers_and_the_mainline_does_not(name: str) -> None:
    number = NUMBERS[name][0]
    with FakeMachine(host_named(f"sev-{name}")) as fake, FakeMachine() as mainline:
        out = Buffer(bytes(16))
        argument = Buffer(struct.pack("<QQQ", 0, 8, out.address))
        assert fake.ioctl(raw.new_vm(fake), number, argument) == 0
        assert out.bytes[0] == 0xFF
        assert mainline.ioctl(raw.new_vm(mainline), number, argument) == "ENOTTY"
    with FakeMachine(Host(enc_revision=name)) as plain:
        vm = raw.new_vm(plain)
        assert plain.ioctl(vm, number) == "EFAULT"
        assert plain.ioctl(vm, number, argument) == "ENOTTY"


SIZE = 3 * 64
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["set", "shared", "private"]),
        st.integers(0, 200),
        st.integers(0, 150),
        st.integers(0, (1 << SIZE) - 1),
    ),
    max_size=6,
)


class PostedCode:
    """svm_page_enc_status_hc, svm_get_page_enc_bitmap and svm_set_page_enc_bitmap."""

    def __init__(self, *, copies: bool) -> None:
        self.bmap: list[int] = []  # in whole words, as allocated
        self.size = 0
        self.copies = copies

    def resize(self, new_size: int) -> None:
        if self.size < new_size:
            whole = (new_size + 63) // 64 * 64
            self.bmap += [1] * (whole - len(self.bmap))
            self.size = new_size

    def status_hc(self, start: int, npages: int, private: int) -> None:
        if npages:
            self.resize(start + npages)
            for i in range(start, start + npages):
                self.bmap[i] = private

    def get(self, start: int, npages: int) -> str:
        out = [1] * npages
        for i in range(start, min(self.size, start + npages)):
            if not self.bmap[i]:
                out[i - start] = 0
        return "".join(map(str, out))

    def set(self, start: int, npages: int, bitmap: list[int]) -> None:
        self.resize(start + npages)
        if self.copies:
            for i in range((npages + 63) // 64 * 64):
                self.bmap[start // 64 * 64 + i] = bitmap[i]
            return
        for i in range(start, npages):
            if not bitmap[i]:
                self.bmap[i + start] = 0


@pytest.mark.parametrize("name", ["v2-2019", "v6", "v8"])
@settings(max_examples=80, deadline=None)
@given(calls=CALLS, start=st.integers(0, 250), npages=st.integers(0, 200))
def test_any_calls_leave_what_the_posted_code_leaves(
    name: str, calls: list[tuple[str, int, int, int]], start: int, npages: int
) -> None:
    enc, code = EncBitmap(name), PostedCode(copies=name == "v8")
    for what, first, count, value in calls:
        text = f"{value:0{SIZE}b}"[::-1]
        if what == "set":
            assert put(enc, name, first, count, text) == 0
            code.set(first, count, [int(bit) for bit in text])
        else:
            assert enc.set_range(first, count, private=what == "private") == 0
            code.status_hc(first, count, int(what == "private"))
    found = get(enc, name, start, npages)
    assert isinstance(found, str)
    assert found[:npages] == code.get(start, npages)
