"""Asks the C compiler what the newest kernel headers at hand say of everything kvmenc declares."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import pytest

from kvmenc.uapi.others import NAMES
from tests.uapi.inventory import constants, ioctls, members, structs
from tests.uapi.outside import CONSTANTS_ABSENT, CONSTANTS_SINCE, STRUCTS_ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST = (6, 12)
FETCHED = Path(__file__).parents[2] / ".cache" / "kernel-headers"
HINT = "run tools/kernel-headers.sh"


class Headers(NamedTuple):
    """A folder that holds usr/include/linux, and the kernel version of what is there."""

    root: Path
    version: tuple[int, int]

    @property
    def include_dirs(self) -> list[Path]:
        """asm/ lies beside linux/, in Debian's folder for the architecture, or in a shared one."""
        usr = self.root / "usr"
        return [usr / "include/x86_64-linux-gnu", usr / "lib/linux/uapi/x86", usr / "include"]


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("KVMENC_REQUIRE_HEADERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _headers_in(root: Path) -> Headers | None:
    try:
        text = (root / "usr/include/linux/version.h").read_text()
    except OSError:
        return None
    code = re.search(r"LINUX_VERSION_CODE\s+(\d+)", text)
    return Headers(root, (int(code[1]) >> 16, int(code[1]) >> 8 & 0xFF)) if code else None


@pytest.fixture(scope="session")
def headers() -> Headers:
    given = os.environ.get("KVMENC_KERNEL_HEADERS")
    roots = [Path(given)] if given else [FETCHED, Path("/")]
    found = [h for h in map(_headers_in, roots) if h]
    if not found:
        _unavailable(f"no kernel headers in {', '.join(map(str, roots))}: {HINT}")
    newest = max(found, key=lambda h: h.version)
    if newest.version < OLDEST:
        version = ".".join(map(str, newest.version))
        _unavailable(f"the kernel headers in {newest.root} are of {version}, too old: {HINT}")
    return newest


def _printed(what: str, expression: str, name: str = "") -> str:
    line = f'print("{what}", (unsigned long long)({expression}));'
    if name not in CONSTANTS_SINCE:
        return line
    major, minor = CONSTANTS_SINCE[name].version
    return f"#if LINUX_VERSION_CODE >= KERNEL_VERSION({major}, {minor}, 0)\n{line}\n#endif"


def _questions() -> Iterator[str]:
    for name in ioctls():
        yield _printed(name, name)
    for name in NAMES.values():
        yield _printed(name, name)
    for name in constants().keys() - CONSTANTS_ABSENT.keys():
        yield _printed(name, name, name)
    for name in structs().keys() - STRUCTS_ABSENT.keys():
        yield _printed(f"sizeof:{name}", f"sizeof(struct {name})")
        for path in (m.path for m in members(structs()[name])):
            yield _printed(f"{name}.{path}@", f"offsetof(struct {name}, {path})")
            yield _printed(f"{name}.{path}#", f"sizeof(((struct {name} *)0)->{path})")


def _program() -> str:
    asked = "\n".join(_questions())
    return f"""
#include <stddef.h>
#include <stdio.h>
#include <linux/version.h>
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <linux/psp-sev.h>
#include <linux/audit.h>
#include <linux/elf.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <linux/time.h>
#include <linux/uio.h>
#include <asm/sigcontext.h>
#include <asm/signal.h>
#include <asm/ucontext.h>
#include <sys/syscall.h>
#include <sys/user.h>
/* Names in C that mean "private" in Python, and two places in them. */
#define fpx_sw_bytes _fpx_sw_bytes
#define xstate_header _header
#define FPX_SW_BYTES_OFFSET offsetof(struct _fpstate_64, sw_reserved)
#define XSTATE_HEADER_OFFSET offsetof(struct _xstate, xstate_hdr)
static void print(const char *what, unsigned long long value)
{{
    printf("%s %llu\\n", what, value);
}}
int main(void) {{
{asked}
return 0;
}}
"""


@pytest.fixture(scope="session")
def in_c(headers: Headers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What the headers say: NAME, sizeof:STRUCT, STRUCT.FIELD@ (offset), STRUCT.FIELD# (size)."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        _unavailable("no C compiler: install gcc and libc6-dev, or set CC")
    probe = tmp_path_factory.mktemp("headers") / "probe"
    source = probe.with_suffix(".c")
    source.write_text(_program())
    includes = [f"-I{folder}" for folder in headers.include_dirs]
    built = subprocess.run(
        [compiler, *includes, "-o", probe, source], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, f"against {headers}:\n{built.stderr}"
    answers = subprocess.run([probe], capture_output=True, text=True, check=True).stdout
    return {what: int(value) for what, value in map(str.split, answers.splitlines())}
