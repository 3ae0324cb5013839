"""Files that may come from anywhere."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import msgspec

from fakekvm.scenario import ScenarioError, load
from kvmenc.backend.recordfile import load_recording
from kvmenc.backtest import load_run
from kvmenc.capture import open_capture, save_capture
from kvmenc.capture.facts import MAX_FACTS_BYTES
from kvmenc.firmware import load_certificates
from kvmenc.plan.profile import profile_for
from kvmenc.rehearsal.records import PagesRecord
from tests.backtest.runs import run_file
from tests.capture.captures import sound_bitmaps, sound_capture
from tests.fuzz.inputs import Parser
from tests.fuzz.records import RECORDS, SIZES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["PARSERS"]

#: A file of facts is read into a buffer of the most that it may have.
_MOST_FACTS_BYTES = MAX_FACTS_BYTES + (4 << 20)
_RECORDING = b"""\
{"schema":"kvmenc.recording/1","kvmenc_version":"1","backend":"b","fake":true,"contents":false}
{"call":"open","path":"/dev/kvm","flags":524290,"fd":0}
{"call":"ioctl","fd":0,"request":44545,"name":"KVM_CREATE_VM","gives":1}
{"call":"ioctl","fd":1,"request":1075883590,"name":"KVM_SET_USER_MEMORY_REGION","arg":1,\
"before":{"arg":{"nbytes":4,"data":"AAAAAA=="}},"after":{"arg":{"nbytes":4,"data":"AAAAAQ=="}}}
{"call":"mmap","fd":2,"length":12288,"offset":0,"maps":[{"fd":2,"offset":8,"data":"AAAA"}]}
{"call":"ran","fd":2,"exits":{"KVM_EXIT_IO":3}}
{"call":"seen","what":"clock","value":1.5}
{"call":"close","fd":0}
{"call":"end","calls":7}
"""
_SCENARIO = b"""\
schema = "fakekvm.scenario/1"
seed = 7
[host]
base = "sev-v9"
[[guest]]
vms = [0, 1]
[[guest.phase]]
does = "zipf"
gfns = ["0x10-0x1f", "1 MiB-2 MiB", "slot 0", "25%-50%", 7]
steps = 100
[[guest.phase]]
does = "halt"
[[fault]]
request = "KVM_GET_DIRTY_LOG"
error = "EINTR"
chance = 0.5
"""


def _capture(folder: Path) -> Parser:
    path = folder / "a.capture"
    save_capture(sound_capture(), path, sound_bitmaps())

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with open_capture(path) as file:
            for block in file.capture.blocks:
                for kind in file.kinds(block.name):
                    file.bitmap(kind, block.name)
            provenance = file.capture.provenance
            profile_for(provenance.qemu if provenance else None)

    facts = msgspec.json.encode(sound_capture())
    return Parser([path.read_bytes(), facts], read, most_bytes=_MOST_FACTS_BYTES)


def _recording(folder: Path) -> Parser:
    """Lines are packed again after they were broken: few broken gzip streams reach a line."""
    path = folder / "a.recording"

    def read(data: bytes) -> None:
        path.write_bytes(data if data.startswith(b"\x1f\x8b") else gzip.compress(data, 1))
        load_recording(path)

    return Parser([gzip.compress(_RECORDING, mtime=0), _RECORDING], read, most_bytes=16 << 20)


def _run(folder: Path) -> Parser:
    path = folder / "run.json"
    pages = {"normal": 3, "zero": 2, "encrypted": 1}
    rounds = [{"ms": 10.5, "stopped": False, "pages": pages, "bytes": pages}]
    run = run_file(rounds=rounds, bulk_ms=10.5, qemu="7.2.22")
    inputs = {"link_bytes_per_s": 1e9, "private_rate_pps": 400.0, **run["parameters"]}
    ledger = {"profile": "qemu-7.2", "inputs": inputs, "rounds": rounds}
    ledger["query_migrate"] = run["query_migrate"]
    rehearsed = {"schema": "kvmenc.dry-run/1", "guest": "a", "capture": None, "ledger": ledger}
    rehearsed["capture"] = run["capture"]

    def read(data: bytes) -> None:
        path.write_bytes(data)
        load_run(path)

    seeds = [json.dumps(it).encode() for it in (run, rehearsed)]
    return Parser(seeds, read, most_bytes=_MOST_FACTS_BYTES)


def _scenario(folder: Path) -> Parser:
    path = folder / "a.toml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        load(path)

    return Parser([_SCENARIO], read, errors=(ScenarioError,))


def _certificates(folder: Path) -> Parser:
    path = folder / "a.cert"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        load_certificates(path, path, path)

    return Parser([b"pdh"], read)


def _record(_folder: Path) -> Parser:
    """In plain text, as if the other end itself were hostile."""
    return Parser(RECORDS, lambda data: PagesRecord.decode(data).check(SIZES, 52))


PARSERS: dict[str, Callable[[Path], Parser]] = {
    "capture": _capture,
    "recording": _recording,
    "run file": _run,
    "scenario": _scenario,
    "certificates": _certificates,
    "pages record": _record,
}
