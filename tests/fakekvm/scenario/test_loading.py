"""Scenario files: what is read from good ones, and what is said of bad ones."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from unittest.mock import create_autospec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakekvm import host_named, scenario
from fakekvm.faults import DEATH
from fakekvm.guests import Flip, WritePages
from fakekvm.scenario import SCHEMA, ScenarioError, kinds
from fakekvm.scenario.gfns import Gfns
from fakekvm.scenario.phases import _KEYS, PHASES, Bursts, Zipf
from fakekvm.vm import Vm
from tests.fakekvm.scenario.toml import Writer

if TYPE_CHECKING:
    from pathlib import Path

HEAD = f'schema = "{SCHEMA}"\n'
GUEST = "[[guest]]\n[[guest.phase]]\n"
HALTS = f'{GUEST}does = "halt"\n'
FAULT = f'{HEAD}[[guest]]\nphase = [{{ does = "halt" }}]\n[[fault]]\n'


def error_of(text: str) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        scenario.parse(text, "a.toml")
    return caught.value


def test_a_scenario_says_all_that_is_in_its_file() -> None:
    read = scenario.parse(
        HEAD
        + """
about = "two kinds of vCPUs"
seed = 7
host = "sev-v9"

[[guest]]
vms = [0, 2]
vcpus = [1, 3]
at_end = "repeat"

[[guest.phase]]
does = "zipf"
gfns = ["0x10-0x1f", 5, "50%-100%"]
split = true
exponent = 1.5
steps = 100
pages_a_second = 2_000

[[guest.phase]]
does = "bursts"
rest = "250 ms"
steps = 3

[[guest]]
[[guest.phase]]
does = "halt"
"""
    )
    assert (read.about, read.seed, read.host) == ("two kinds of vCPUs", 7, host_named("sev-v9"))
    first, second = read.guests
    assert (first.vms, first.vcpus, first.repeats) == ((0, 2), (1, 3), True)
    assert (second.vms, second.vcpus, second.repeats) == (None, None, False)
    zipf, bursts = first.phases
    assert zipf.does == Zipf(exponent=1.5, chunk_pages=512)
    assert (zipf.split, zipf.max_steps, zipf.pages_a_second) == (True, 100, 2000.0)
    memory = {0: range(100), 1: range(1000, 1100)}
    assert zipf.gfns.of(memory) == [range(16, 32), range(5, 6), range(1000, 1100)]
    assert bursts.does == Bursts(rest=0.25)
    assert bursts.gfns.of(memory) == list(memory.values())


def test_a_host_can_be_another_with_changes() -> None:
    host = scenario.parse(
        HEAD
        + """
[host]
base = "csv"
chip = "chip 9"
max_gpa_bits = 40
enc_revision = "v8"
ring_reserved_entries = 576
ring_logs_every_write = true
open_errno = "EACCES"
vendor = "AuthenticAMD"
csv = false
firmware = { send = 400, batch = 1.5 }
capabilities = { 192 = 0, 10 = 509 }
"""
        + HALTS
    ).host
    base = host_named("csv")
    assert (host.sev, host.csv, host.chip, host.vendor) == (True, False, "chip 9", "AuthenticAMD")
    assert (host.max_gpa_bits, host.enc_revision) == (40, "v8")
    assert (host.ring_reserved_entries, host.ring_logs_every_write) == (576, True)
    assert host.open_errno == errno.EACCES
    assert (host.firmware.send, host.firmware.receive, host.firmware.batch) == (400, 0, 1.5)
    assert host.capabilities == {**base.capabilities, 192: 0, 10: 509}


def test_faults_are_read() -> None:
    faults = scenario.parse(
        HEAD
        + """
host = "csv"
[[fault]]
request = "KVM_GET_DIRTY_LOG"
error = "EINTR"
skip = 2
every = 3
times = 4
chance = 0.5
[[fault]]
request = 0xAE41
above = "4 MiB"
error = "death"
[[fault]]
request = "KVM_SEV_SEND_UPDATE_DATA"
delay = "5 ms"
[[fault]]
[[fault.before]]
does = "announce"
gfns = "slot 1"
private = false
[[fault.before]]
does = "sequential"
steps = 1
chunk_pages = 2
"""
        + HALTS
    ).faults
    log, dying, slow, flip = faults
    assert (log.request, log.error, log.chance) == ("KVM_GET_DIRTY_LOG", errno.EINTR, 0.5)
    assert (log.skip, log.every, log.times, log.above_bytes) == (2, 3, 4, None)
    assert (dying.request, dying.above_bytes, dying.error) == (0xAE41, 4 << 20, DEATH)
    assert (slow.request, slow.delay_s, slow.error) == ("KVM_SEV_SEND_UPDATE_DATA", 0.005, 0)
    assert (flip.request, flip.times, flip.skip, flip.every) == (None, None, 0, 1)
    assert callable(flip.before)
    vm = create_autospec(Vm, instance=True)
    vm.writable_gfns.return_value = {0: range(8, 12), 1: range(100, 120)}
    announced, written = flip.before(vm, np.random.default_rng(1))
    assert announced == Flip(100, 20, private=False)
    assert isinstance(written, WritePages)
    assert list(written.gfns) == [8, 9]


def test_a_scenario_without_a_host_is_on_a_mainline_one() -> None:
    assert scenario.parse(HEAD + HALTS).host == host_named("mainline")
    again = scenario.parse(HEAD + '[host]\nbase = "no-rights"\nopen_errno = "none"\n' + HALTS)
    assert again.host.open_errno == 0


# Each with what the error says of line, key and expectation.
WRONG = {
    "schema missing": ('about = "x"\n', 1, "schema", f'it is missing; expected "{SCHEMA}"'),
    "schema of later": ('\n\nschema = "2"', 3, "schema", f'got "2"; expected "{SCHEMA}"'),
    "no guest": (HEAD, 1, "guest", "there is none; expected at least one table, headed [[guest]]"),
    "guest is a table": (HEAD + "[guest]\n", 2, "guest", "got a table; expected tables, each"),
    "no phase": (HEAD + "\n[[guest]]\n", 3, "guest[0].phase", "headed [[guest.phase]]"),
    "unknown key": (
        HEAD + GUEST + 'does = "zipf"\nexponnent = 2\n',
        5,
        "guest[0].phase[0].exponnent",
        "chunk_pages, does, exponent, gfns, pages_a_second, split, steps (did you mean exponent?)",
    ),
    "key of another phase": (
        HEAD + GUEST + 'does = "boot"\nexponent = 2\n',
        5,
        "guest[0].phase[0].exponent",
        "there is no such key; expected one of cpus",
    ),
    "unknown key of all": (HEAD + 'hosts = "sev"\n' + HALTS, 2, "hosts", "(did you mean host?)"),
    "unknown key of a guest": (
        HEAD + '[[guest]]\nvcpu = 0\n[[guest.phase]]\ndoes = "halt"\n',
        3,
        "guest[0].vcpu",
        "expected one of at_end, phase, vcpus, vms (did you mean vcpus?)",
    ),
    "unknown key of firmware": (
        HEAD + "[host.firmware]\nsent = 4\n",
        3,
        "host.firmware.sent",
        "expected one of batch, receive, send (did you mean send?)",
    ),
    "two lines": (
        HEAD + 'host = "se\\nv"\n',
        2,
        "host",
        'got "se\\nv"; expected one of mainline, ',
    ),
    "unknown host": (HEAD + 'host = "sev-v99"\n', 2, "host", "(did you mean sev-v9?)"),
    "host is a number": (HEAD + "host = 5\n", 2, "host", "got 5; expected one of mainline, "),
    "base of a host": (HEAD + '[host]\nbase = "inte"\n', 3, "host.base", "(did you mean intel?)"),
    "key of a host": (HEAD + "[host]\nchips = 1\n", 3, "host.chips", "(did you mean chip?)"),
    "capability by name": (
        HEAD + "[host.capabilities]\nDIRTY_LOG = 1\n",
        3,
        "host.capabilities.DIRTY_LOG",
        "expected its number",
    ),
    "capability": (
        HEAD + "[host]\ncapabilities = { 192 = -1 }\n",
        3,
        "host.capabilities.192",
        "got -1; expected a whole number from 0 to 2147483647",
    ),
    "firmware": (
        HEAD + '[host.firmware]\n\n\nsend = "fast"\n',
        5,
        "host.firmware.send",
        'got "fast"; expected a number from 0 to 1e+09',
    ),
    "firmware is no table": (
        HEAD + "[host]\nfirmware = 4\n",
        3,
        "host.firmware",
        "got 4; expected a table",
    ),
    "seed": (HEAD + "seed = -1\n", 2, "seed", "got -1; expected a whole number from 0 to"),
    "seed is a flag": (HEAD + "seed = true\n", 2, "seed", "got true; expected a whole number"),
    "about": (HEAD + "about = 1\n", 2, "about", "got 1; expected a text"),
    "does missing": (HEAD + GUEST, 3, "guest[0].phase[0].does", "it is missing; expected one of"),
    "does": (HEAD + GUEST + 'does = "zip"\n', 4, "guest[0].phase[0].does", "(did you mean zipf?)"),
    "in the second phase": (
        HEAD + HALTS + '\n[[guest.phase]]\ndoes = "rest"\nrest = "5 h"\n',
        8,
        "guest[0].phase[1].rest",
        'got "5 h"; expected seconds up to 3600, or a text like "50 ms"',
    ),
    "in the second guest": (
        HEAD + HALTS + "[[guest]]\nvcpus = [0, 0]\n",
        6,
        "guest[1].vcpus",
        "got [0, 0] (one comes twice); expected a list of different whole numbers",
    ),
    "vcpus empty": (HEAD + "[[guest]]\nvcpus = []\n", 3, "guest[0].vcpus", "got []; expected a li"),
    "vms": (HEAD + '[[guest]]\nvms = ["0"]\n', 3, "guest[0].vms", "expected a list of different"),
    "at_end": (HEAD + '[[guest]]\nat_end = "stop"\n', 3, "guest[0].at_end", "one of halt, repeat"),
    "needed key": (
        HEAD + GUEST + 'does = "announce"\n',
        3,
        "guest[0].phase[0].private",
        "it is missing; expected true or false",
    ),
    "endless": (
        HEAD + GUEST + 'does = "zipf"\n[[guest.phase]]\ndoes = "halt"\n',
        3,
        "guest[0].phase[0].steps",
        "so that the phase never ends and the next never begins; expected a number of steps",
    ),
    "split of all": (
        HEAD + GUEST + 'does = "zipf"\nsplit = true\n',
        5,
        "guest[0].phase[0].split",
        "expected the key vcpus in the guest",
    ),
    "not finite": (
        HEAD + GUEST + 'does = "zipf"\nexponent = nan\n',
        5,
        "guest[0].phase[0].exponent",
        "got nan; expected a number from 0 to 16",
    ),
    "gfns": (
        HEAD + GUEST + 'does = "zipf"\ngfns = "some"\n',
        5,
        "guest[0].phase[0].gfns",
        'got "some"; expected page numbers: "all", a range like "0x100-0x7fff"',
    ),
    "gfns backwards": (
        HEAD + GUEST + 'does = "zipf"\ngfns = ["0x20-0x10"]\n',
        5,
        "guest[0].phase[0].gfns",
        "(its end is before its start)",
    ),
    "gfns within a page": (
        HEAD + GUEST + 'does = "zipf"\ngfns = "1 KiB-2 MiB"\n',
        5,
        "guest[0].phase[0].gfns",
        'got "1 KiB-2 MiB" (an end is no multiple of 4 KiB); expected page numbers: "all"',
    ),
    "gfns in other units": (
        HEAD + GUEST + 'does = "zipf"\ngfns = "64 MB-96 MB"\n',
        5,
        "guest[0].phase[0].gfns",
        'addresses like "64 MiB-96 MiB" (the end is not)',
    ),
    "a fault's request": (
        FAULT + 'request = "KVM_GET_DIRTY_LOGS"\nerror = "EIO"\n',
        5,
        "fault[0].request",
        "ioctl that this host has, or its number (did you mean KVM_GET_DIRTY_LOG?)",
    ),
    "a fault's request that the host has not": (
        FAULT + 'request = "KVM_GET_PAGE_ENC_BITMAP"\nerror = "EIO"\n',
        5,
        "fault[0].request",
        "that this host has",
    ),
    "a fault's error": (
        FAULT + 'error = "ENOMEN"\n',
        5,
        "fault[0].error",
        'expected an errno by name, like "ENOMEM", or "death" (did you mean ENOMEM?)',
    ),
    "a fault's error by number": (
        FAULT + "error = 12\n",
        5,
        "fault[0].error",
        "got 12; expected an",
    ),
    "a fault without effect": (
        FAULT + "times = 1\n",
        4,
        "fault[0]",
        "it makes nothing go wrong; expected a key error or delay, or tables before",
    ),
    "a fault's chance": (
        FAULT + 'error = "EIO"\nchance = 20\n',
        6,
        "fault[0].chance",
        "got 20; expected a number from 0 to 1",
    ),
    "a delay of no command": (
        FAULT + 'request = "KVM_RUN"\ndelay = "5 ms"\n',
        6,
        "fault[0].delay",
        "a delay is of the SEV firmware's commands, not of KVM_RUN; expected request = a command",
    ),
    "a fault's size": (
        FAULT + 'error = "ENOMEM"\nabove = "4 MB"\n',
        6,
        "fault[0].above",
        'got "4 MB"; expected bytes below 2^52, or a text like "4 MiB"',
    ),
    "an unknown key of a fault": (
        FAULT + 'error = "EIO"\nchanse = 1\n',
        6,
        "fault[0].chanse",
        "expected one of above, before, chance, delay, error, every, request, skip, times (did you",
    ),
    "before a call that never comes": (
        FAULT + '[[fault.before]]\ndoes = "random"\n',
        5,
        "fault[0].before[0].steps",
        "it is missing, so that it never ends; expected a number of steps",
    ),
    "what no guest does before a call": (
        FAULT + '[[fault.before]]\ndoes = "halt"\n',
        6,
        "fault[0].before[0].does",
        'got "halt"; expected one of sequential, ',
    ),
    "faults are a table": (HEAD + HALTS + "[fault]\n", 5, "fault", "got a table; expected tables"),
    "syntax": (HEAD + "a = = 1\n", 2, "", "expected TOML 1.0"),
    "syntax at the end": (HEAD + "\na = [1,\n2\n", 4, "", "expected TOML 1.0"),
    "a key twice": (HEAD + "seed = 1\nseed = 2\n", 3, "", "expected TOML 1.0"),
    "a number too long": (HEAD + f"seed = {'1' * 5000}\n", 2, "", "expected TOML 1.0"),
    "nested": (f"a = {'[' * 5000}", 0, "", "it is nested too deeply; expected TOML 1.0"),
}


@pytest.mark.parametrize(("text", "line", "key", "says"), WRONG.values(), ids=WRONG)
def test_an_error_names_file_line_key_and_what_was_expected(
    text: str, line: int, key: str, says: str
) -> None:
    error = error_of(text)
    assert (error.file, error.line, error.key) == ("a.toml", line, key)
    message = str(error)
    assert message.startswith("a.toml" + (f":{line}" if line else "") + ": " + key)
    assert says in message
    assert "; expected " in message
    assert "\n" not in message


def keys_of(does: str) -> list[str]:
    kind: Any = PHASES[does]
    return [own.name for own in dataclasses.fields(kind)]


def test_a_phase_has_no_key_that_is_not_described() -> None:
    assert {key for does in PHASES for key in keys_of(does)} == set(_KEYS)


@pytest.mark.parametrize("does", PHASES)
def test_each_kind_of_phase_can_be_had_with_all_its_keys(does: str) -> None:
    values = {"private": "true", "rest": "0.5", "hot": "0.25", "hot_share": "1"}
    keys = keys_of(does)
    lines = [f"{key} = {values.get(key, '3')}" for key in keys]
    text = "\n".join([HEAD + GUEST, f'does = "{does}"', *lines])
    (phase,) = scenario.parse(text).guests[0].phases
    assert type(phase.does) is PHASES[does]
    expected = {"private": True, "rest": 0.5, "hot": 0.25, "hot_share": 1}
    assert {key: getattr(phase.does, key) for key in keys} == {
        key: expected.get(key, 3) for key in keys
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2 us", 2e-6), ("50ms", 0.05), (" 1.5 s ", 1.5), ("2 min", 120), (3, 3.0), (0.25, 0.25)],
)
def test_times_have_units(text: object, seconds: float) -> None:
    assert kinds.SECONDS.read(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "5 hours", "-1 s", "61 min", -1, True, [1], "1e3 s"])
def test_other_times_are_refused(text: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        kinds.SECONDS.read(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("all", [range(10, 20), range(100, 130)]),
        ("0%-25%", [range(10, 20)]),
        ("12.5 % - 50%", [range(15, 20), range(100, 110)]),
        ("0x10-0x1F", [range(16, 32)]),
        ("16 - 31", [range(16, 32)]),
        ("7", [range(7, 8)]),
        (7, [range(7, 8)]),
        ("slot 2", [range(100, 130)]),
        ("slot  7", [range(0)]),
        ("slot 1", []),
        (["slot 0", "slot 2"], [range(10, 20), range(100, 130)]),
        ("64 MiB-96 MiB", [range(0x4000, 0x6000)]),
        ("0 B - 4KiB", [range(1)]),
        ("1.5 MiB-2 MiB", [range(384, 512)]),
        ("8192 B-1 GiB", [range(2, 1 << 18)]),
        ("1 TiB-4096 TiB", [range(1 << 28, 1 << 40)]),
        (["all", 5], [range(10, 20), range(100, 130), range(5, 6)]),
        ("0xffffffffff", [range((1 << 40) - 1, 1 << 40)]),
    ],
)
def test_pages_are_meant_by_number_or_share(value: object, expected: list[range]) -> None:
    assert Gfns.read(value).of({0: range(10, 20), 7: range(0), 2: range(100, 130)}) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a-b",
        "5-4",
        "0x-1",
        -1,
        1 << 40,
        "50%-50%",
        "50%-101%",
        "5%",
        True,
        1.5,
        [],
        [[1]],
        "1-2-3",
        "slot",
        "slot -1",
        "slot 100000",
        "slot 1-2",
        "64 MiB",
        "64-96 MiB",
        "64 MB-96 MB",
        "1 KiB-8 KiB",
        "0.3 B-4 KiB",
        "8 KiB-4 KiB",
        "4 KiB-4 KiB",
        "0 B-4097 TiB",
        "1 MiB-2 MiB-3 MiB",
    ],
)
def test_other_pages_are_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        Gfns.read(value)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=5),
    st.lists(st.integers(1, 9999), min_size=1, max_size=4, unique=True),
)
def test_shares_that_add_up_to_all_have_each_page_once(sizes: list[int], cuts: list[int]) -> None:
    memory = {n: range(100 * n, 100 * n + size) for n, size in enumerate(sizes)}
    ends = [0, *sorted(cuts), 10_000]
    found = [
        gfn
        for start, stop in pairwise(ends)
        for run in Gfns.read(f"{start / 100}%-{stop / 100}%").of(memory)
        for gfn in run
    ]
    assert found == [gfn for area in memory.values() for gfn in area]


# --- files


def test_a_file_is_read_and_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + HALTS)
    assert scenario.load(path).guests == scenario.load(str(path)).guests
    path.write_bytes((HEAD + "seed = -1\n").replace("\n", "\r\n").encode())
    with pytest.raises(ScenarioError, match=re.escape(f"{path}:2: seed: got -1")):
        scenario.load(path)


def test_a_file_that_cannot_be_read_is_told_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"^boot-linus: it cannot be read.*boot-linux"):
        scenario.load("boot-linus")
    with pytest.raises(ScenarioError, match="Is a directory"):
        scenario.load(tmp_path)
    with pytest.raises(ScenarioError, match="cannot be read"):
        scenario.load("a\0b")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(
        ScenarioError, match=r"fifo: it cannot be read \(it is a FIFO\); expected a"
    ):
        scenario.load(tmp_path / "fifo")
    with pytest.raises(ScenarioError, match="it is a device"):
        scenario.load("/dev/zero")
    path = tmp_path / "large.toml"
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ScenarioError, match="it has more than 1 MiB"):
        scenario.load(path)
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF\x02\x01\x01\n" + bytes(range(256)))
    with pytest.raises(ScenarioError, match="program:3: this is not UTF-8; expected TOML, a text"):
        scenario.load(path)
    path = tmp_path / "latin.toml"
    path.write_bytes(HEAD.encode() + b'about = "\xe4"\n')
    with pytest.raises(ScenarioError, match=r"latin\.toml:2: this is not UTF-8; expected TOML"):
        scenario.load(path)


# --- whatever else


KEYS = st.sampled_from(
    [
        *("schema", "about", "seed", "host", "guest", "phase", "vms", "vcpus", "at_end", "does"),
        *("gfns", "steps", "split", "pages_a_second", "base", "capabilities", "firmware", "send"),
        *("192", "x.y", *_KEYS),
        *("fault", "before", "request", "error", "above", "delay", "skip", "every", "chance"),
    ]
)
WORDS = st.sampled_from(
    [
        SCHEMA,
        "sev-v9",
        "EIO",
        "KVM_RUN",
        "1 MiB",
        "slot 0",
        "1 MiB-2 MiB",
        "all",
        "1%-2%",
        "5 ms",
        "repeat",
        "v9",
        "EACCES",
        *PHASES,
    ]
)
SCALARS = (
    st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.integers(0, 9)
    | st.floats()
    | WORDS
    | st.text(max_size=6)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
TABLES = st.dictionaries(KEYS, ANYTHING, max_size=3)


def outcome(text: str) -> ScenarioError | None:
    try:
        scenario.parse(text)
    except ScenarioError as error:
        return error
    return None


@given(TABLES, TABLES, TABLES, st.sampled_from(list(PHASES)), st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_toml_is_a_scenario_or_a_scenario_error(
    outer: dict[str, Any], guest: dict[str, Any], phase: dict[str, Any], does: str, near: bool
) -> None:
    tree = outer
    if near:
        inner = [{"does": does, **phase}, {"does": "halt"}]
        tree = {"schema": SCHEMA, **outer, "guest": [{**guest, "phase": inner}]}
    written = Writer(tree)
    error = outcome(written.text)
    if error is not None:
        assert "; expected " in str(error)
        assert error.line <= max(written.text.count("\n"), 1)


@given(
    st.text(max_size=200)
    | st.text(st.sampled_from("[]{}=.,\"'\\#\n 1-:aT\r\t"), max_size=80)
    | st.lists(st.sampled_from((HEAD + HALTS).splitlines()), max_size=8).map("\n".join)
)
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_scenario_or_a_scenario_error(text: str) -> None:
    error = outcome(text)
    assert error is None or "; expected " in str(error)


WHOLE = (
    HEAD
    + """about = "all kinds of keys"
seed = 7
[host]
base = "sev-v9"
firmware = { send = 400 }
capabilities = { 192 = 0 }
[[guest]]
vms = [0, 1]
vcpus = [0]
at_end = "repeat"
[[guest.phase]]
does = "zipf"
gfns = ["0x10-0x1f", "1 MiB-2 MiB", "slot 0", "25%-50%", 7]
steps = 100
split = true
exponent = 1.5
[[guest.phase]]
does = "rest"
rest = "5 ms"
[[fault]]
request = "KVM_GET_DIRTY_LOG"
error = "EINTR"
chance = 0.5
every = 2
[[fault]]
request = "KVM_GET_PAGE_ENC_BITMAP"
above = "4 KiB"
[[fault.before]]
does = "announce"
gfns = "0x100"
private = false
"""
)
CHANGES = st.tuples(
    st.integers(0, len(WHOLE)),
    st.integers(0, 9),
    st.sampled_from([*"[]{}=.,\"'#\n -0x%", "true", "[[fault]]\n", "9" * 30, "\0", "\u2028"])
    | st.text(max_size=3),
)


@given(st.lists(CHANGES, min_size=1, max_size=3))
@settings(max_examples=int(os.environ.get("KVMENC_FUZZ_INPUTS", "200")), deadline=None)
def test_a_scenario_that_was_changed_is_one_or_one_clear_line(
    changes: list[tuple[int, int, str]],
) -> None:
    text = WHOLE
    for at, length, put in changes:
        text = text[:at] + put + text[at + length :]
    error = outcome(text)
    if error is not None:
        message = str(error)
        assert message.isprintable(), "no control characters, hence one line"
        assert "; expected " in message
        assert len(message) < 1500
        assert 0 < error.line <= text.count("\n") + 1
