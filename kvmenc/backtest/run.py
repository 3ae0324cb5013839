"""A migration that really happened, as a file: one JSON object of schema ``kvmenc.backtest-run/1``.

Or one that was rehearsed: what ``kvmenc dry-run --json`` printed, schema ``kvmenc.dry-run/1``.
It may come from anywhere, so it is read as hostile, as a capture is.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from kvmenc.capture import Capture, load_capture
from kvmenc.capture.facts import MAX_FACTS_BYTES, decode
from kvmenc.errors import InputError
from kvmenc.filekind import begins_as, may_be_json
from kvmenc.plan import Parameters
from kvmenc.plan.compare import Answer, Count, Milliseconds
from kvmenc.plan.profile import PROFILES

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["ByRoad", "Figures", "MeasuredRound", "Run", "Transport", "load_run", "published_runs"]

SCHEMA: Final = "kvmenc.backtest-run/1"
REHEARSED: Final = "kvmenc.dry-run/1"
REHEARSED_NOTES: Final = ("Rehearsed, not run: times and bytes are computed.",)

_START_BYTES = 8
_MAX_BYTES = MAX_FACTS_BYTES + 2**20
_QUOTE = b'"'

# As kvmenc.units takes them on the command line.
ByteRate = Annotated[float, Meta(ge=1, le=1e13)]
PageRate = Annotated[float, Meta(ge=1e-3, le=1e9)]
Name = Annotated[str, Meta(min_length=1, max_length=100)]
Sentence = Annotated[str, Meta(max_length=1000)]
Sentences = Annotated[tuple[Sentence, ...], Meta(max_length=20)]

#: In a JSON schema: facts, the name of a file, or nothing.
_CAPTURE = {"anyOf": [{"$ref": "capture-1.json"}, {"type": "string"}, {"type": "null"}]}

#: How the bytes went: into another process, into a file, over a network.
Transport = Literal["exec", "file", "tcp"]


class _Parameters(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """As :class:`kvmenc.plan.Parameters`; null: its default."""

    max_bandwidth_bytes_per_s: ByteRate
    downtime_limit_ms: Annotated[float, Meta(ge=1, le=2000e3)]
    link_bytes_per_s: ByteRate | None = None
    private_rate_pps: PageRate | None = None
    auto_converge: bool | None = None
    send_buffer_bytes: Annotated[float, Meta(ge=0, le=1e12)] | None = None


class Figures(Answer, frozen=True):
    """QEMU's answer to query-migrate at the end, or the last one before it was given up."""

    status: Literal["completed", "active"]


class ByRoad(Struct, frozen=True, forbid_unknown_fields=True):
    """Pages or bytes.

    Attributes:
        normal: pages (or bytes) sent as they are.
        zero: pages (or bytes) of marks in place of zero pages.
        encrypted: pages (or bytes) through the firmware.
    """

    normal: Count
    zero: Count
    encrypted: Count


class MeasuredRound(Struct, frozen=True, kw_only=True):
    """From one sync to the next, as it was.

    Attributes:
        ms: its length.
        stopped: whether the guest was.
        pages: sent in it.
        bytes: of these on the wire.
    """

    ms: Milliseconds
    stopped: bool
    pages: ByRoad
    bytes: ByRoad


Rounds = Annotated[tuple[MeasuredRound, ...], Meta(max_length=100_000)]


class _File(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One migration that really happened; docs/backtest.md says what each field is."""

    schema: Literal["kvmenc.backtest-run/1"]
    name: Name
    source: Sentence
    capture: Annotated[Raw, Meta(extra_json_schema=_CAPTURE)]
    parameters: _Parameters | None
    query_migrate: Figures
    scenario: Name | None = None
    transport: Transport | None = None
    qemu: Annotated[str, Meta(max_length=100)] | None = None
    bulk_ms: Milliseconds | None = None
    rounds: Rounds = ()
    assumptions: Sentences = ()
    missing: Sentences = ()
    notes: Sentences = ()


class _Schema(Struct):
    schema: str


class _Inputs(Struct, frozen=True):
    """Those of a ledger's that a rehearsal can have been given."""

    max_bandwidth_bytes_per_s: ByteRate
    downtime_limit_ms: Annotated[float, Meta(ge=1, le=2000e3)]
    link_bytes_per_s: ByteRate
    private_rate_pps: PageRate


class _Ledger(Struct, frozen=True):
    """A plan, of which this is read."""

    profile: str
    inputs: _Inputs
    rounds: Rounds
    query_migrate: Figures


class _Rehearsal(Struct, frozen=True):
    """What ``kvmenc dry-run --json`` prints, likewise."""

    guest: str
    capture: Raw
    ledger: _Ledger


@dataclass(frozen=True, slots=True)
class Run:
    """A migration that really happened, and what was known before.

    Attributes:
        name: of the run.
        source: where its figures are from.
        capture: the guest before; None where the source does not say enough.
        parameters: it was made with; None likewise.
        figures: what QEMU said at the end.
        scenario: runs of one are repeats of each other.
        transport: how the bytes went; None where that is not known.
        qemu: its version, such as ``7.2.22``; None likewise.
        bulk_ms: from the start to the second sync, setting up excluded; None likewise.
        rounds: those that sent pages; none where the source does not tell them.
        assumptions: what was taken for granted where the source does not say it.
        missing: what the source would have to say for a prediction.
        notes: what else a reader should know.
    """

    name: str
    source: str
    capture: Capture | None
    parameters: Parameters | None
    figures: Figures
    scenario: str
    transport: Transport | None
    qemu: str | None
    bulk_ms: float | None
    rounds: tuple[MeasuredRound, ...]
    assumptions: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def load_run(path: Path) -> Run:
    """Read a run file, and the capture that it names.

    Raises:
        InputError: the file cannot be read, or is no run; names the file, the field and what was
            expected there.
        CaptureError: likewise of the capture.
    """
    return _load(path, path.parent)


def published_runs() -> list[Run]:
    """The published migrations that this package brings with it."""
    files = resources.files("kvmenc.backtest") / "data" / "published"
    return [_load(it) for it in sorted(files.iterdir(), key=lambda it: it.name)]


def _load(file: Traversable, folder: Path | None = None) -> Run:
    """Read a run; where a ``folder`` is given, its capture may be a file in there."""
    try:
        with file.open("rb") as data:
            return _decode(data.read(_MAX_BYTES + 1), PurePosixPath(file.name).stem, folder)
    except OSError as error:
        raise _error(file, "cannot be read", error.strerror or error) from error
    except (ValueError, RecursionError) as error:
        raise _error(file, "not a usable run", error) from error


def _error(file: Traversable, what: str, why: object) -> InputError:
    """One line, even where the file's name or what it holds would break or colour it."""
    text = f"{file}: {what}: {why}"
    return InputError(text[:500] if text.isprintable() else ascii(text)[1:-1][:500])


def _decode(data: bytes, stem: str, folder: Path | None) -> Run:
    if not may_be_json(data):
        raise ValueError(begins_as(data[:_START_BYTES]))
    if len(data) > _MAX_BYTES:
        raise ValueError(f"expected at most {_MAX_BYTES} bytes")
    schema = msgspec.json.decode(data, type=_Schema).schema
    if schema not in {SCHEMA, REHEARSED}:
        raise ValueError(
            f"expected {SCHEMA!r} or {REHEARSED!r}, got {schema[:40]!a} - at `$.schema`"
        )
    if schema == REHEARSED:
        file = _of_rehearsal(msgspec.json.decode(data, type=_Rehearsal), stem)
    else:
        file = msgspec.json.decode(data, type=_File)
    named = (file.name, file.source, file.scenario or "", file.qemu or "")
    for text in (*named, *file.assumptions, *file.missing, *file.notes):
        if not text.isprintable():
            raise ValueError(f"expected printable text, got {text[:40]!a}")
    capture = _capture(bytes(file.capture).strip(), folder)
    if bool(capture and file.parameters) == bool(file.missing):
        raise ValueError("expected capture and parameters, or else what is `missing`")
    return Run(
        name=file.name,
        source=file.source,
        capture=capture,
        parameters=_parameters(file.parameters),
        figures=file.query_migrate,
        scenario=file.scenario or file.name,
        transport=file.transport,
        qemu=file.qemu,
        bulk_ms=file.bulk_ms,
        rounds=file.rounds,
        assumptions=file.assumptions,
        missing=file.missing,
        notes=file.notes,
    )


def _of_rehearsal(it: _Rehearsal, name: str) -> _File:
    """What ``kvmenc dry-run --json`` printed, as a run file of the file's own name."""
    ledger, versions = it.ledger, {one.name: one.version for one in PROFILES.values()}
    if ledger.profile not in versions:
        raise ValueError(f"expected a known profile, got {ledger.profile[:40]!a}")
    return _File(
        schema=SCHEMA,
        name=name,
        source=f"kvmenc dry-run of {it.guest}",
        capture=it.capture,
        parameters=_Parameters(**msgspec.structs.asdict(ledger.inputs)),
        query_migrate=ledger.query_migrate,
        qemu=versions[ledger.profile],
        bulk_ms=ledger.rounds[0].ms if ledger.rounds else None,
        rounds=ledger.rounds,
        notes=REHEARSED_NOTES,
    )


def _capture(raw: bytes, folder: Path | None) -> Capture | None:
    """The capture: its facts, the name of its file, or null."""
    if raw == b"null":
        return None
    if not raw.startswith(_QUOTE):
        return decode(raw)
    name = PurePosixPath(msgspec.json.decode(raw, type=str))
    if folder is None or name.is_absolute() or ".." in name.parts:
        raise ValueError("expected a path below the run file's own folder - at `$.capture`")
    return load_capture(folder / name)


def _parameters(given: _Parameters | None) -> Parameters | None:
    if not given:
        return None
    known = {k: v for k, v in msgspec.structs.asdict(given).items() if v is not None}
    return Parameters(**known)
