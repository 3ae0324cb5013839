"""The kernel's interface under the kernel's names: structs, ioctl numbers, constants.

One module for each header or idea; all their names are here as well.
"""

from kvmenc.uapi.caps import *  # noqa: F403 - the modules' own names, nothing they import
from kvmenc.uapi.exits import *  # noqa: F403
from kvmenc.uapi.ioc import Ioctl as Ioctl
from kvmenc.uapi.kvm import *  # noqa: F403
from kvmenc.uapi.names import exit_name as exit_name
from kvmenc.uapi.names import name_of as name_of
from kvmenc.uapi.names import sev_cmd_name as sev_cmd_name
from kvmenc.uapi.names import sev_ret_name as sev_ret_name
from kvmenc.uapi.page_enc import *  # noqa: F403
from kvmenc.uapi.page_enc_types import *  # noqa: F403
from kvmenc.uapi.para import *  # noqa: F403
from kvmenc.uapi.psp_sev import *  # noqa: F403
from kvmenc.uapi.ptrace import *  # noqa: F403
from kvmenc.uapi.run import *  # noqa: F403
from kvmenc.uapi.seccomp import *  # noqa: F403
from kvmenc.uapi.sev import *  # noqa: F403
from kvmenc.uapi.vcpu import *  # noqa: F403
