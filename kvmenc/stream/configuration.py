"""What a stream says of QEMU before the first section: savevm.c, ``vmstate_configuration``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kvmenc.stream.wire import Section

if TYPE_CHECKING:
    from kvmenc.stream.window import Window

__all__ = ["Configuration", "read_configuration"]

_MAX_NAME_BYTES = 255
_MAX_CAPABILITIES = 64
#: 4 KiB to 64 KiB: below, a header has no room for flags.
_PAGE_BITS = range(12, 17)


class Configuration(NamedTuple):
    """Of the QEMU that sends.

    Attributes:
        machine: its machine type; empty in streams of machine types before 2.4.
        page_bytes: bytes in a page of the guest.
        capabilities: those of migration that both ends must agree on.
    """

    machine: str = ""
    page_bytes: int = 4096
    capabilities: tuple[str, ...] = ()

    @property
    def extra_row_bytes(self) -> int:
        """In each row of the block table: an address, where shared RAM is not sent."""
        return 8 if "x-ignore-shared" in self.capabilities else 0


def read_configuration(window: Window) -> Configuration:
    """Read it, if it is there.

    Raises:
        StreamError: it is damaged, or RAM is in another form than a stream's.
    """
    if window.peek("B") != (int(Section.CONFIGURATION),):
        return Configuration()
    window.skip(1, "the configuration")
    size = window.u32("the length of the machine type")
    if size > _MAX_NAME_BYTES:
        raise window.error(f"expected a machine type of at most {_MAX_NAME_BYTES} bytes")
    machine = window.take(size, "the machine type").decode(errors="backslashreplace")
    found = Configuration(machine)
    while window.peek("B") == (int(Section.SUBSECTION),):
        found = _subsection(window, found)
    if "mapped-ram" in found.capabilities:
        text = "pages lie at fixed places of the file, and are no stream"
        raise window.error(f"{text}: migrate without the capability mapped-ram")
    return found


def _subsection(window: Window, found: Configuration) -> Configuration:
    at = window.offset
    window.skip(1, "a subsection")
    name = window.name("a subsection's name").removeprefix("configuration/")
    window.skip(4, "a subsection's version")
    if name == "target-page-bits":
        if (bits := window.u32("the size of a page")) not in _PAGE_BITS:
            raise window.error(f"expected pages of 4 to 64 KiB, got {bits} bits", at)
        return found._replace(page_bytes=1 << bits)
    if name == "capabilities":
        if (count := window.u32("the number of capabilities")) > _MAX_CAPABILITIES:
            raise window.error(f"expected up to {_MAX_CAPABILITIES} capabilities, got {count}", at)
        names = tuple(window.name("a capability") for _ in range(count))
        return found._replace(capabilities=names)
    if name == "uuid":
        window.skip(16, "the guest's UUID")
        return found
    raise window.error(f"expected a known subsection of the configuration, got {name!r}", at)
