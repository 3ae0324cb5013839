"""Any program, its /dev/kvm answered by the fake, or overlaid: by seccomp's user notification.

The program is not changed, needs no library of ours, and no rights. Its system calls stop in the
kernel, where they are answered from here; see ``filter`` for which, and ``notify`` for how.
"""

from fakekvm.supervisor.launch import Unavailable
from fakekvm.supervisor.over import Over, is_something
from fakekvm.supervisor.session import run

__all__ = ["Over", "Unavailable", "is_something", "run"]
