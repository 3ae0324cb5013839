"""What was seen of a guest, as a file: one machine can look, and another one think.

The file holds facts (:class:`Capture`) and, where they were kept, bitmaps of the RAMBlocks. It may
come from anywhere, so it is read as hostile: of bounded size, every field checked, and nothing of a
half-good file is used.
"""

from __future__ import annotations

from kvmenc.capture.about import provenance_now, slot_facts
from kvmenc.capture.curve import curve_of
from kvmenc.capture.file import (
    Bitmaps,
    CaptureFile,
    load_capture,
    open_capture,
    save_capture,
)
from kvmenc.capture.model import (
    BitmapKind,
    BlockFacts,
    Capture,
    Costs,
    CurvePoint,
    DeviceCurve,
    DevicePoint,
    EndedBy,
    How,
    Provenance,
    SegmentFacts,
    SlotFacts,
    SyncSample,
    Window,
    WindowPoint,
)
from kvmenc.capture.segments import segment_facts

__all__ = [
    "BitmapKind",
    "Bitmaps",
    "BlockFacts",
    "Capture",
    "CaptureFile",
    "Costs",
    "CurvePoint",
    "DeviceCurve",
    "DevicePoint",
    "EndedBy",
    "How",
    "Provenance",
    "SegmentFacts",
    "SlotFacts",
    "SyncSample",
    "Window",
    "WindowPoint",
    "curve_of",
    "load_capture",
    "open_capture",
    "provenance_now",
    "save_capture",
    "segment_facts",
    "slot_facts",
]
