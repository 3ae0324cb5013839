"""A KVM in userspace, for programs that are tested where no KVM is.

It is reached like the real one, by request numbers and addresses, and really reads and writes the
structs and bitmaps at these addresses. Guests are scripts that really write guest memory.

    with Kernel(host_named("sev-v2-2019")) as kernel:
        kvm = kernel.open("/dev/kvm")
        vm = kernel.ioctl(kvm, 0xAE01, 0)
"""

from fakekvm.host import Host, host_named, host_names
from fakekvm.kernel import Kernel

__all__ = ["Host", "Kernel", "host_named", "host_names"]
