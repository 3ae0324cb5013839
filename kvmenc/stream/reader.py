"""Reads a migration stream from its first byte on: sections, and what is in them.

QEMU 7.2, migration/savevm.c: ``qemu_savevm_state_header``, ``save_section_header``,
``save_section_footer``, ``qemu_loadvm_state_main`` and ``vmstate_configuration``.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from kvmenc.filekind import begins_as
from kvmenc.stream.configuration import Configuration, read_configuration
from kvmenc.stream.description import find_description
from kvmenc.stream.events import Call, CallEnd, Device, End
from kvmenc.stream.records import Records
from kvmenc.stream.saved import skip_saved_header
from kvmenc.stream.window import CAPACITY_BYTES, Window
from kvmenc.stream.wire import (
    FILE_MAGIC,
    FILE_VERSION,
    RAM_SECTION,
    RAM_VERSION,
    Section,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import RawIOBase

    from kvmenc.stream.batch import Block
    from kvmenc.stream.description import Described
    from kvmenc.stream.dialects import Dialect
    from kvmenc.stream.events import Event

__all__ = ["StreamReader"]

#: QEMU 10.0, savevm.c, enum qemu_vm_cmd: all that say how long they are. PACKAGED (7) has a stream
#: of its own behind it, and after ENABLE_COLO (8) another protocol begins.
_COMMANDS = {1, 2, 3, 4, 5, 6, 9, 10, 11}
#: Postcopy may follow: the sizes of the host's pages, added up, and that of a page (7.2, savevm.c,
#: ``qemu_savevm_send_postcopy_advise``).
_ADVISE, _ADVISE_BYTES = 3, 16
_BEGINS = {Section.START, Section.FULL}
#: Sections before RAM's end that a capability of migration brings.
_CAPABILITIES = {"dirty-bitmap": "dirty-bitmaps", "block": "block"}


class _Header(NamedTuple):
    section_id: int
    name: str
    instance_id: int
    version: int


class StreamReader:
    """A migration stream, to be read once.

    Args:
        file: opened for reading, unbuffered.
        name: of it, as errors call it.
        dialect: of encrypted records; None: whichever explains them.
        capacity_bytes: of the buffer through which it is read.

    Attributes:
        configuration: what QEMU says of itself at the start.

    Raises:
        StreamError: it is no stream, or none of this configuration can be read.
    """

    def __init__(
        self,
        file: RawIOBase,
        name: str,
        dialect: Dialect | None = None,
        capacity_bytes: int = CAPACITY_BYTES,
    ) -> None:
        self._window = Window(file, name, capacity_bytes)
        status = os.fstat(file.fileno())
        self._size = status.st_size if stat.S_ISREG(status.st_mode) else None
        found = find_description(file, name)
        self._description_bytes, devices = found or (0, [])
        self._devices: deque[Described] = deque(devices)
        self._ram_id: int | None = None
        self._ram_over = False
        self._stopped_at: int | None = None
        self._check_magic()
        self.configuration: Configuration = read_configuration(self._window)
        self._records = Records(
            self._window, self.page_bytes, dialect, self.configuration.extra_row_bytes
        )

    @property
    def page_bytes(self) -> int:
        """Bytes in a page."""
        return self.configuration.page_bytes

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The RAMBlocks; none until their table was read."""
        return self._records.blocks

    @property
    def dialects(self) -> list[Dialect]:
        """Those that explain all encrypted records so far."""
        return sorted(self._records.dialects.left)

    @property
    def offset(self) -> int:
        """Bytes read so far; of a section that cannot be read, none."""
        return self._window.offset if self._stopped_at is None else self._stopped_at

    def __iter__(self) -> Iterator[Event]:
        """All that is in the stream, until its end, or until what cannot be told.

        Raises:
            StreamError: it is damaged, or has what cannot be read before all RAM was.
        """
        try:
            yield from self._events()
        finally:
            self._window.release()

    def _events(self) -> Iterator[Event]:
        while True:
            at = self._window.offset
            section = self._section()
            if section == Section.EOF:
                yield self._end()
                return
            if section == Section.COMMAND:
                self._command(at)
                continue
            if section not in {Section.START, Section.PART, Section.END, Section.FULL}:
                raise self._window.error(f"expected a section, got a byte {section:#x}", at)
            header = self._header(Section(section))
            if header.section_id == self._ram_id:
                yield from self._call(Section(section), header)
            elif section == Section.FULL and self._is_described(header):
                yield self._device(header, at)
            elif self._ram_over:
                yield self._stop(at, f"section {header.name!r} does not tell its length")
                return
            else:
                raise self._unreadable(header, at)

    def _section(self) -> int:
        window = self._window
        if not window.ensure(1):
            text = "the file ends where a section is to begin: the migration failed, was cancelled"
            raise window.error(f"{text}, or goes on")
        return window.u8("a section's type")

    def _check_magic(self) -> None:
        window = self._window
        if not window.ensure(1):
            raise window.error("it is empty: the migration has failed, or not begun")
        skip_saved_header(window)
        at = window.offset
        magic, version = window.u32("the magic number"), window.u32("the version")
        if magic != FILE_MAGIC:
            what = begins_as(magic.to_bytes(4, "big"))
            raise window.error(f"expected a migration stream, QEVM, got {magic:#010x}: {what}", at)
        if version != FILE_VERSION:
            raise window.error(
                f"expected version {FILE_VERSION} of the stream, got {version}", at + 4
            )

    def _header(self, section: Section) -> _Header:
        window, at = self._window, self._window.offset - 1
        section_id = window.u32("a section's id")
        if section not in _BEGINS:
            return _Header(section_id, f"number {section_id}", 0, 0)
        name = window.name("a section's name")
        header = _Header(section_id, name, window.u32("an instance"), window.u32("a version"))
        if section == Section.START and name == RAM_SECTION:
            if header.version != RAM_VERSION or self._ram_id is not None:
                text = f"expected one section of RAM, of version {RAM_VERSION}, got {header}"
                raise window.error(text, at)
            self._ram_id = section_id
        return header

    def _call(self, section: Section, header: _Header) -> Iterator[Event]:
        if self._ram_over or section == Section.FULL:
            raise self._window.error(f"a section {section.name} of RAM after RAM's end")
        yield Call(section)
        yield from self._records.call()
        self._footer(header)
        self._ram_over = section == Section.END
        yield CallEnd()

    def _footer(self, header: _Header) -> None:
        """Machine types before 2.4 have none."""
        window = self._window
        if window.peek("B") != (int(Section.FOOTER),):
            return
        window.skip(1, "a footer")
        if (got := window.u32("a footer")) != header.section_id:
            text = f"expected section {header.name} ({header.section_id}) to end, got {got}"
            raise window.error(text)

    def _is_described(self, header: _Header) -> bool:
        if not self._devices:
            return False
        first = self._devices[0]
        return (first.name, first.instance_id) == (header.name, header.instance_id)

    def _device(self, header: _Header, at: int) -> Device:
        device = self._devices.popleft()
        self._window.skip(device.size_bytes, f"the state of {header.name}")
        self._footer(header)
        return Device(header.name, header.instance_id, self._window.offset - at)

    def _command(self, at: int) -> None:
        """Postcopy's, and since 10.0 the one that begins the switch: they are gone past."""
        window = self._window
        command, size = window.u16("a command"), window.u16("a command's length")
        if command not in _COMMANDS:
            raise window.error(f"command {command} is of postcopy or COLO, which is not read", at)
        if (command, size) == (_ADVISE, _ADVISE_BYTES):
            self._records.host_page_sizes = window.u64("the host's page sizes")
            size -= 8
        window.skip(size, "a command")

    def _unreadable(self, header: _Header, at: int) -> Exception:
        text = f"section {header.name!r} stands before the end of RAM and does not tell its length"
        if capability := _CAPABILITIES.get(header.name):
            todo = f"migrate without the capability {capability}"
        elif self._size is None:
            todo = "save the stream to a file, whose end may tell it"
        elif not self._description_bytes:
            todo = "the stream's end, which may tell it, is not there"
        else:
            todo = "nor does the stream's end; migrate without what it belongs to"
        return self._window.error(f"{text}: {todo}", at)

    def _end(self) -> End:
        """After the stream's last section; a background snapshot has none of RAM's end."""
        window, at = self._window, self._window.offset
        if not self._ram_over and (self._devices or not self._description_bytes or not self.blocks):
            raise window.error("the stream ends, and RAM has not ended")
        if self._description_bytes:
            section, size = window.u8("a description"), window.u32("a description")
            if (section, size) != (Section.VMDESCRIPTION, self._description_bytes):
                raise window.error(f"expected the description of the devices, got {section}", at)
            window.skip(size, "the description")
            return End(5 + size, 0, "")
        if self._size is None:
            return self._stop(at, "a pipe is not read on") if window.ensure(1) else End(0, 0, "")
        return self._stop(at, "bytes follow the last section") if at < self._size else End(0, 0, "")

    def _stop(self, at: int, why: str) -> End:
        self._stopped_at = at
        return End(0, None if self._size is None else self._size - at, why)
