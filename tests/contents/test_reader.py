"""Pages of another process, of every kind of memory a guest may be in, and what looking costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.contents import Contents, count_zero_pages
from kvmenc.contents.filepages import open_mapped
from kvmenc.contents.where import Where, stretches
from kvmenc.encstate.content import ContentSource
from kvmenc.encstate.kinds import VmKind
from kvmenc.errors import HostError, LayoutError
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.memory.words import count, from_pages
from kvmenc.procfs import Mapping
from tests.contents.target import PAGE, Target, page_of, target, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator

NPAGES = 2048
FILL = {3: 7, 4: 0, 5: 8, 700: 9, 701: 9, 702: 0, 2047: 1}
SHARED = ["memfd shared", "shared anonymous"]
KINDS = ["anonymous", "memfd private", *SHARED]
HUGE = ["huge shared", "huge private", "huge anonymous"]


def map_files_opens() -> bool:
    with Path("/proc/self/maps").open() as lines:
        span = next(line.split()[0] for line in lines if "/" in line)
    low, _, high = span.partition("-")
    try:
        os.close(os.open(f"/proc/self/map_files/{int(low, 16):x}-{int(high, 16):x}", os.O_RDONLY))
    except OSError:
        return False
    return True


@pytest.fixture(params=KINDS)
def filled(request: pytest.FixtureRequest) -> Iterator[Target]:
    if request.param == "shared anonymous" and not map_files_opens():
        pytest.skip("without CAP_CHECKPOINT_RESTORE such memory cannot be opened")
    with target(request.param, NPAGES) as it:
        it.write(FILL)
        yield it


def every_page(it: Target) -> np.ndarray:
    return np.arange(it.block.npages)


def test_exactly_the_pages_that_were_written_are_present(filled: Target) -> None:
    with Contents(filled.pid, filled.layout) as contents:
        present = contents.present(filled.block)
    assert present.tolist() == from_pages(np.array(list(FILL)), NPAGES).tolist()


def test_every_page_reads_as_it_was_written_and_as_zero_where_it_was_not(filled: Target) -> None:
    with Contents(filled.pid, filled.layout) as contents:
        rows, readable = contents.read(filled.block, every_page(filled))
    assert readable.all()
    assert values_of(rows) == [FILL.get(page, 0) for page in range(NPAGES)]


def test_looking_reading_and_counting_cost_the_process_nothing(filled: Target) -> None:
    before = filled.footprint()
    with Contents(filled.pid, filled.layout) as contents:
        for _ in range(2):
            contents.present(filled.block)
            contents.read(filled.block, every_page(filled))
            contents.read_pages(filled.slot, 0, NPAGES)
            for budget_pages in (2, NPAGES):
                count_zero_pages(contents, filled.block, budget_pages, np.random.default_rng(1))
        assert filled.footprint() == before
    assert filled.footprint() == before


def test_the_naive_way_costs_shared_memory_all_of_its_pages() -> None:
    """So the footprint shows what it is there to show."""
    with target("memfd shared", NPAGES) as it:
        before = it.footprint()
        it.naively_read(NPAGES)
        after = it.footprint()
    assert after.rollup["Rss"] - before.rollup["Rss"] == NPAGES * PAGE // 1024
    assert max(after.file_blocks) - max(before.file_blocks) == NPAGES * PAGE // 512


def test_the_naive_way_makes_pages_of_anonymous_memory() -> None:
    """Zero pages, which Rss does not count."""
    with target("anonymous", NPAGES) as it, Contents(it.pid, it.layout) as contents:
        assert count(contents.present(it.block), NPAGES) == 0
        it.naively_read(NPAGES)
        assert count(contents.present(it.block), NPAGES) == NPAGES


def test_a_file_mapped_privately_shows_the_file_and_what_the_process_wrote(tmp_path: Path) -> None:
    file = tmp_path / "ram"
    with file.open("wb") as out:
        out.write(page_of(1) * 2)
        out.truncate(6 * PAGE)
        out.seek(4 * PAGE)
        out.write(page_of(4))
    with target("private", 6, file) as it:
        it.write({1: 11, 2: 12})
        with Contents(it.pid, it.layout) as contents:
            where = contents.look(it.block, every_page(it))
            rows, readable = contents.read(it.block, every_page(it))
    assert np.flatnonzero(where == Where.PROCESS).tolist() == [1, 2]
    assert where[[0, 4]].tolist() == [Where.FILE] * 2
    assert readable.all()
    assert values_of(rows) == [1, 11, 12, 0, 4, 0]


def test_pages_of_a_file_that_are_only_on_disk_are_not_read_in(tmp_path: Path) -> None:
    file = tmp_path / "ram"
    with file.open("wb") as out:
        out.write(page_of(1) * 8)
        os.fsync(out.fileno())
        os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with target("shared", 8, file) as it, Contents(it.pid, it.layout) as contents:
        if (contents.look(it.block, every_page(it)) == Where.FILE).all():
            pytest.skip("this file system has no disk below it")
        for _ in range(2):
            assert set(contents.look(it.block, every_page(it)).tolist()) == {Where.AWAY}
            assert not contents.read(it.block, every_page(it))[1].any()
        assert count_zero_pages(contents, it.block, 8, np.random.default_rng(1)).pages == 0


@pytest.mark.usefixtures("swap")
@pytest.mark.parametrize("kind", ["anonymous", "memfd shared", "memfd private"])
def test_swapped_pages_are_data_that_is_not_read_and_stay_swapped(kind: str) -> None:
    with target(kind, 64) as it, Contents(it.pid, it.layout) as contents:
        it.write({page: page for page in range(8, 24)})
        it.page_out()
        before = it.footprint()
        where = contents.look(it.block, every_page(it))
        swapped = np.flatnonzero(where == Where.AWAY)
        assert swapped.size, "madvise(MADV_PAGEOUT) swapped nothing out"
        assert set(swapped) <= set(range(8, 24))
        assert contents.present(it.block).tolist() == from_pages(np.arange(8, 24), 64).tolist()
        rows, readable = contents.read(it.block, every_page(it))
        assert np.flatnonzero(~readable).tolist() == swapped.tolist()
        assert values_of(rows[readable]) == [
            page if 8 <= page < 24 else 0 for page in np.flatnonzero(readable)
        ]
        assert count_zero_pages(contents, it.block, 64, np.random.default_rng(1)).pages == 48
        assert np.array_equal(contents.look(it.block, every_page(it)), where)
        assert it.footprint() == before


@pytest.mark.usefixtures("huge_pages")
@pytest.mark.parametrize("kind", HUGE)
def test_huge_pages_are_read_and_none_is_taken(kind: str) -> None:
    def taken() -> list[str]:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return [line for line in lines if line.startswith("HugePages_")]

    with target(kind, 4 * 512) as it:
        it.write({600: 7})
        before = it.footprint(), taken()
        with Contents(it.pid, it.layout) as contents:
            rows, readable = contents.read(it.block, every_page(it))
            zero = count_zero_pages(contents, it.block, 4 * 512, np.random.default_rng(1))
            assert (it.footprint(), taken()) == before
    assert readable.all()
    assert values_of(rows) == [7 if page == 600 else 0 for page in range(4 * 512)]
    assert (zero.pages, zero.exact) == (4 * 512 - 1, True)


def test_shared_memory_that_may_not_be_opened_is_read_where_the_process_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rest is unknown: the file may hold what another process wrote."""
    monkeypatch.setattr("kvmenc.contents.regions.open_mapped", lambda *_: None)
    with target("memfd shared", 8) as it, Contents(it.pid, it.layout) as contents:
        it.write({2: 5})
        before = it.footprint()
        where = contents.look(it.block, every_page(it))
        rows, readable = contents.read(it.block, every_page(it))
        assert where.tolist() == [
            Where.PROCESS if page == 2 else Where.UNKNOWN for page in range(8)
        ]
        assert np.flatnonzero(readable).tolist() == [2]
        assert values_of(rows[readable]) == [5]
        assert it.footprint() == before


@pytest.mark.parametrize("kind", ["anonymous", "memfd shared", "memfd private"])
def test_memory_that_is_not_mapped_or_not_readable_is_unknown_and_never_zero(kind: str) -> None:
    """What lies around it is read all the same, from the right place of its file."""
    with target(kind, 8) as it:
        it.write({1: 5, 3: 6, 6: 7})
        it.make_unreadable(2)
        it.make_unreadable(3)
        beyond = RamBlock("gone", 4, 1 << 62)
        with Contents(it.pid, Layout([it.slot], [it.block, beyond], PAGE)) as contents:
            where = contents.look(it.block, every_page(it))
            rows, readable = contents.read(it.block, every_page(it))
            gone = contents.read(beyond, np.arange(4))[1].tolist()
            zero = count_zero_pages(contents, beyond, 10, np.random.default_rng(1))
    assert np.flatnonzero(where == Where.UNKNOWN).tolist() == [2, 3]
    assert np.flatnonzero(~readable).tolist() == [2, 3]
    assert values_of(rows[readable]) == [0, 5, 0, 0, 7, 0]
    assert gone == [False] * 4
    assert zero.pages == 0


def test_a_device_is_never_opened() -> None:
    """Reading one, such as what VFIO maps, has effects."""
    with Path("/dev/null").open() as device:
        inode = os.fstat(device.fileno()).st_ino
        assert (
            open_mapped(os.getpid(), Mapping(0, PAGE, "rw-s", 0, "00:05", inode, "/dev/null"))
            is None
        )


def test_the_file_opened_is_the_one_that_is_mapped() -> None:
    """Not another of the same name, as all of QEMU's memfds have."""
    fds = [os.memfd_create("memory-backend-memfd") for _ in range(3)]
    inodes = [os.fstat(fd).st_ino for fd in fds]
    path = "/memfd:memory-backend-memfd (deleted)"
    opened = open_mapped(os.getpid(), Mapping(0, PAGE, "rw-s", 0, "00:01", inodes[1], path))
    assert opened is not None
    assert os.fstat(opened).st_ino == inodes[1]
    for fd in (*fds, opened):
        os.close(fd)


def test_a_page_given_back_is_absent_again() -> None:
    with target("anonymous", 8) as it, Contents(it.pid, it.layout) as contents:
        it.write({1: 5, 2: 5})
        it.drop(1)
        assert count(contents.present(it.block), 8) == 1


def test_a_slot_is_read_across_its_blocks_and_up_to_what_cannot_be_read() -> None:
    with target("anonymous", 16) as it:
        it.write({3: 3, 4: 4, 9: 9})
        it.make_unreadable(12)
        addr = it.block.host_addr
        blocks = [RamBlock("a", 4, addr), RamBlock("b", 12, addr + 4 * PAGE)]
        slot = MemSlot(0, 0x100, 14, addr + 2 * PAGE)
        with Contents(it.pid, Layout([slot], blocks, PAGE)) as contents:
            assert values_of(contents.read_pages(slot, 0, 8)) == [0, 3, 4, 0, 0, 0, 0, 9]
            assert values_of(contents.read_pages(slot, 2, 1)) == [4]
            assert values_of(contents.read_pages(slot, 7, 7)) == [9, 0, 0]
            assert len(contents.read_pages(slot, 10, 4)) == 0


def test_the_content_source_reads_through_it() -> None:
    """Absent pages are zero: shared or never written, and never claimed to be private."""
    with target("memfd shared", 256) as it, Contents(it.pid, it.layout) as contents:
        it.write({3: 3, 200: 9, 201: 0})
        before = it.footprint()
        report = ContentSource(contents.read_pages, VmKind.SEV).survey([it.slot])
        assert it.footprint() == before
    assert (report.zero_pages, report.shared_pages, report.unread_pages) == (254, 2, 0)


def test_a_block_of_another_layout_is_refused() -> None:
    words = r"^RAMBlock 'pc.ram' at 0x1000: not in this layout$"
    contents = Contents(os.getpid(), Layout([], [], PAGE))
    with contents, pytest.raises(LayoutError, match=words):
        contents.present(RamBlock("pc.ram", 1, PAGE))


def test_this_process_can_be_looked_at() -> None:
    own = np.full(PAGE * 2, 7, np.uint8)
    first = -(-own.ctypes.data // PAGE) * PAGE
    block = RamBlock("own", 1, first)
    with Contents(os.getpid(), Layout([], [block], PAGE)) as contents:
        assert values_of(contents.read(block, np.arange(1))[0]) == [7]


def test_a_process_that_is_gone_is_one_clear_line() -> None:
    with pytest.raises(HostError, match=r"^there is no process 4194305$"):
        Contents(4194305, Layout([], [], PAGE))


def test_a_process_that_ends_meanwhile_is_one_clear_line() -> None:
    with target("anonymous", 8) as it, Contents(it.pid, it.layout) as contents:
        it.write({1: 1})
        it.end()
        with pytest.raises(HostError, match=rf"^process {it.pid} ended while"):
            contents.present(it.block)


def as_nobody(it: Target) -> str:
    """What a user without privileges says of another process's page 5."""
    program = (
        "import os, sys\n"
        "import numpy as np\n"
        "from kvmenc.contents import Contents\n"
        "from kvmenc.errors import HostError\n"
        "from kvmenc.memory.layout import Layout\n"
        "from kvmenc.memory.slots import RamBlock\n"
        "os.setgid(65534)\n"
        "os.setuid(65534)\n"
        "pid, address = map(int, sys.argv[1:])\n"
        "block = RamBlock('pc.ram', 8, address)\n"
        "try:\n"
        "    with Contents(pid, Layout([], [block])) as contents:\n"
        "        rows, readable = contents.read(block, np.arange(8))\n"
        "        print(readable.all(), rows[:, 0].tolist())\n"
        "except HostError as error:\n"
        "    print(error)\n"
    )
    arguments = [sys.executable, "-c", program, str(it.pid), str(it.block.host_addr)]
    return subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True).stdout


only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


@only_root
def test_a_process_of_another_user_is_refused_in_one_clear_line() -> None:
    with target("anonymous", 8) as it:
        said = as_nobody(it)
    assert said.startswith(f"process {it.pid} may not be looked into: /proc/")
    assert "CAP_SYS_PTRACE" in said
    assert said.count("\n") == 1


@only_root
def test_a_users_own_process_is_read_without_privileges() -> None:
    """Its memfd is opened by its own descriptor, for /proc/PID/map_files takes a capability."""
    with target("memfd shared", 8) as it:
        it.become_nobody()
        it.write({5: 9})
        before = it.footprint()
        assert as_nobody(it) == "True [0, 0, 0, 0, 0, 9, 0, 0]\n"
        assert it.footprint() == before


def test_a_layout_of_other_pages_than_the_hosts_is_refused() -> None:
    with pytest.raises(HostError, match=r"pages are of 4096 bytes, not 65536"):
        Contents(os.getpid(), Layout([], [], 65536))


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 6), st.integers(1, 20))
def test_stretches_cover_every_page_once_and_are_as_short_as_asked(
    pages: list[int], reach: int, longest: int
) -> None:
    cut = list(stretches(np.array(pages, np.int64), reach, longest))
    assert [page for lo, hi in cut for page in pages[lo:hi]] == pages
    for lo, hi in cut:
        assert all(0 < pages[i + 1] - pages[i] <= reach for i in range(lo, hi - 1))
        assert pages[hi - 1] - pages[lo] < longest
