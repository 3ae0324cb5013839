"""The table of RAMBlocks before any page: QEMU 7.2, migration/ram.c, ``ram_save_setup``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.stream.batch import Block

if TYPE_CHECKING:
    from kvmenc.stream.window import Window

__all__ = ["MAX_BLOCKS", "MAX_RAM_BYTES", "read_table"]

MAX_BLOCKS = 4096
#: Books are kept of four bytes for each page of RAM, so 16 GiB for as much.
MAX_RAM_BYTES = 16 << 40


def read_table(
    window: Window, total_bytes: int, page_bytes: int, extra_bytes: int, host_page_sizes: int
) -> tuple[Block, ...]:
    """Name and size of each RAMBlock, until they come to the total.

    Args:
        window: the stream, behind the table's header.
        total_bytes: of all RAMBlocks.
        page_bytes: bytes in a page.
        extra_bytes: of each row, beside name and size.
        host_page_sizes: those that RAM is made of, added up, if postcopy may follow; 0: it may not.

    Raises:
        StreamError: sizes that are none or too many, names that are none or not unique.
    """
    if not 0 < total_bytes <= MAX_RAM_BYTES:
        raise window.error(f"expected up to {MAX_RAM_BYTES} bytes of RAM, got {total_bytes:#x}")
    blocks: list[Block] = []
    names: set[str] = set()
    left, first = total_bytes, 0
    while left:
        block = _row(window, left, page_bytes, first)
        _skip_page_size(window, host_page_sizes)
        window.skip(extra_bytes, "a row of the block table")
        names.add(block.name)
        blocks.append(block)
        if len(names) < len(blocks) or len(blocks) > MAX_BLOCKS:
            text = f"expected at most {MAX_BLOCKS} RAMBlocks, each of a name of its own"
            raise window.error(f"{text}, got another {block.name!r}")
        left, first = left - block.npages * page_bytes, first + block.npages
    return tuple(blocks)


def _row(window: Window, left: int, page_bytes: int, first: int) -> Block:
    at = window.offset
    encoded = window.take(window.u8("a name's length"), "a RAMBlock's name")
    size = window.u64("a RAMBlock's size")
    try:
        name = encoded.decode()
    except UnicodeDecodeError:
        name = ""
    if not name.isprintable() or not name:
        raise window.error(f"expected a RAMBlock's name, got {encoded!r}", at)
    if not 0 < size <= left or size % page_bytes:
        text = f"expected 1 to {left:#x} bytes in pages of {page_bytes}, got {size:#x}"
        raise window.error(f"RAMBlock {name}: {text}", at)
    return Block(name, size // page_bytes, first)


def _skip_page_size(window: Window, host_page_sizes: int) -> None:
    """Where postcopy may follow, RAMBlocks of huge pages tell how large these are.

    What stands there otherwise begins with the length of a name, or is less than a page.
    """
    (size,) = window.peek(">Q") or (0,)
    if size & host_page_sizes and not size & (size - 1):
        window.skip(8, "the size of a RAMBlock's pages")
