"""A KVM in userspace, for programs that are tested where no KVM is.

It is reached like the real one, by request numbers and addresses, and really reads and writes the
structs and bitmaps at these addresses. Guests are scripts that really write guest memory.

    with Kernel(host_named("sev-v2-2019")) as kernel:
        kvm = kernel.open("/dev/kvm")
        vm = kernel.ioctl(kvm, 0xAE01, 0)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakekvm.host import Host, host_named, host_names
    from fakekvm.kernel import Kernel

__all__ = ["Host", "Kernel", "host_named", "host_names"]


def __getattr__(name: str) -> object:
    """What is named above, when it is first asked for.

    Every pytest run imports the plugin and so this package; few need a kernel, or numpy for it.
    """
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    module = import_module("fakekvm.kernel" if name == "Kernel" else "fakekvm.host")
    return getattr(module, name)
