"""What a scripted guest does: steps, and streams of them.

A script is any iterable of steps; each KVM_RUN of the vCPU goes on where the last one stopped, and
a vCPU whose script is at its end halts. Streams of steps are deterministic by their generator.
"""

from fakekvm.guests.flips import (
    OVMF_CONVERSIONS,
    boot_flips,
    firmware_flips,
    flip_then_write,
    linux_flips,
    reboot_flips,
    swiotlb_churn,
    write_then_flip,
)
from fakekvm.guests.steps import (
    Flip,
    Halt,
    PortOut,
    Rest,
    Script,
    Step,
    WritePages,
    paced,
    part_of,
    placed,
)
from fakekvm.guests.writers import (
    burst_writer,
    hot_and_cold,
    phase_writer,
    random_writer,
    sequential_writer,
    zipf_writer,
)

__all__ = [
    "OVMF_CONVERSIONS",
    "Flip",
    "Halt",
    "PortOut",
    "Rest",
    "Script",
    "Step",
    "WritePages",
    "boot_flips",
    "burst_writer",
    "firmware_flips",
    "flip_then_write",
    "hot_and_cold",
    "linux_flips",
    "paced",
    "part_of",
    "phase_writer",
    "placed",
    "random_writer",
    "reboot_flips",
    "sequential_writer",
    "swiotlb_churn",
    "write_then_flip",
    "zipf_writer",
]
