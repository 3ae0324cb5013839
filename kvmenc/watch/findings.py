"""What the windows found, added up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.memory.maps import DirtyMap

if TYPE_CHECKING:
    from kvmenc.capture import DeviceCurve, EndedBy, Window
    from kvmenc.memory.layout import Layout
    from kvmenc.memory.maps import PrivateMap
    from kvmenc.watch.looking import Looking

__all__ = ["Findings"]


class Findings:
    """All windows of one capture.

    Args:
        layout: the guest's memslots and RAMBlocks, with KVM's numbers.
        opened_s: when the capture began, by the clock of the looks.

    Attributes:
        layout: as given.
        windows: those with a point in them.
        dirty: pages written within any window, by RAMBlock.
        private: private pages at the last look, by RAMBlock.
        device: what devices wrote within the first window that could tell.
        log_start_ms: how long each start of the log took.
        ended_by: why the last window ended.
        trouble: what ended it, if it was an error or Ctrl-C.
        late_s: by how much the latest look of all came after its time.
    """

    def __init__(self, layout: Layout, opened_s: float) -> None:
        self.layout = layout
        self.windows: list[Window] = []
        self.dirty = {block.name: DirtyMap(block.npages) for block in layout.blocks}
        self.private: dict[str, PrivateMap] = {}
        self.device: DeviceCurve | None = None
        self.log_start_ms: list[float] = []
        self.ended_by: EndedBy = "time"
        self.trouble: BaseException | None = None
        self.late_s = 0.0
        self._opened_s = opened_s

    def add(self, looking: Looking, log_start_s: float | None = None) -> None:
        """Add one window.

        Args:
            looking: the window, at its end.
            log_start_s: how long the start of its log took.
        """
        maps = looking.log.maps
        self.private = maps.private
        self.ended_by, self.trouble = looking.ended_by, looking.trouble
        self.late_s = max(self.late_s, looking.late_s)
        if log_start_s is not None:
            self.log_start_ms.append(log_start_s * 1e3)
        window = looking.window(self._opened_s)
        if window:
            self.windows.append(window)
            for name, dirty in maps.dirty.items():
                self.dirty[name].merge(dirty)
        if looking.devices and not self.device:
            self.device = looking.devices.curve()
