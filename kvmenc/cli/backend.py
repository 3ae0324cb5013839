"""The options ``--backend`` and ``--record``: whose KVM a command works on, and what is kept."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from kvmenc.cli.common import OUTPUT, check_outputs
from kvmenc.errors import KvmencError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.shell_completion import CompletionItem

    from kvmenc.backend import Backend
    from kvmenc.scratchrun import BackendName

__all__ = ["Record", "Replay", "backend_option", "carried", "record_options", "wished_record"]

_NAMES = ("local", "fake")
_REPLAY = "replay:"
_METAVAR = "[local|fake|replay:FILE]"


class Replay(NamedTuple):
    """The answers of a recording."""

    file: Path


class Record(NamedTuple):
    """A recording to be made.

    Attributes:
        file: where it goes.
        contents: with secrets and what guests hold as they are.
    """

    file: Path
    contents: bool


class _Choice(click.ParamType):  # type: ignore[type-arg]  # generic only in new versions of click
    """``local``, ``fake`` or ``replay:FILE``."""

    name = "backend"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """What the user wrote, understood."""
        text = str(value)
        replayed = text.startswith(_REPLAY) and text != _REPLAY
        if not replayed and text not in _NAMES:
            self.fail(f"{text!r} is none of {_METAVAR}", param, ctx)
        return Replay(Path(text.removeprefix(_REPLAY))) if replayed else text

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem[str]]:
        """The names; after ``replay:`` files, which no shell finds behind a prefix."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only at a Tab

        if incomplete.startswith(_REPLAY):
            found = _files_from(incomplete.removeprefix(_REPLAY))
            return [CompletionItem(f"{_REPLAY}{it}") for it in found]
        return [CompletionItem(it) for it in (*_NAMES, _REPLAY) if it.startswith(incomplete)]


def _files_from(start: str) -> list[str]:
    """Files and folders whose paths begin so."""
    folder, name = os.path.split(start)
    typed = start.removesuffix(name)
    try:
        found = sorted(it for it in Path(folder or ".").iterdir() if it.name.startswith(name))
        return [f"{typed}{it.name}{'/' if it.is_dir() else ''}" for it in found]
    except OSError:
        return []


backend_option = click.option(
    "--backend",
    type=_Choice(),
    metavar=_METAVAR,
    help="This machine's /dev/kvm; fakekvm, which needs nothing; what --record kept in FILE.",
)


def record_options(command: Callable[..., None]) -> Callable[..., None]:
    """``--record FILE`` and ``--record-contents``, for ``wished_record``."""
    command = click.option(
        "--record-contents",
        is_flag=True,
        help="Keep secrets and what guests hold in it as they are: whoever has it has them.",
    )(command)
    return click.option(
        "--record",
        type=OUTPUT,
        metavar="FILE",
        help="Keep what the host answers in FILE, for --backend replay:FILE.",
    )(command)


def wished_record(file: Path | None, *, contents: bool) -> Record | None:
    """What both options say.

    Raises:
        UsageError: contents of no recording.
    """
    if contents and not file:
        raise click.UsageError("--record-contents goes with --record FILE")
    return Record(file, contents) if file else None


@contextmanager
def carried(
    choice: BackendName | Replay,
    record: Record | None,
    open_named: Callable[[BackendName], Backend],
) -> Iterator[Backend]:
    """Who carries out the calls of a command, and what is kept of them.

    A recording is written when the command is done, also where the host could not do what was
    asked: then that is what it answered.

    Args:
        choice: what ``--backend`` says.
        record: what ``wished_record`` says.
        open_named: the backend of a name.

    Raises:
        UsageError: a replay that is to be recorded.
        RecordingError: the recording cannot be read, or be written.
        ReplayDivergence: the command has made other calls than those recorded, or not all.
    """
    if isinstance(choice, Replay):
        if record:
            raise click.UsageError("--record goes without --backend replay:FILE")
        from kvmenc.backend.replay import ReplayBackend  # noqa: PLC0415 - slow to import

        with ReplayBackend(choice.file) as replay:
            yield replay
    elif record:
        with _recorded(open_named(choice), record) as recording:
            yield recording
    else:
        yield open_named(choice)


@contextmanager
def _recorded(lower: Backend, record: Record) -> Iterator[Backend]:
    from kvmenc.backend.kinds import recorded  # noqa: PLC0415 - slow to import

    check_outputs(record.file)
    recording = recorded(lower, contents=record.contents)
    try:
        yield recording
    except KvmencError:
        recording.save(record.file)
        raise
    recording.save(record.file)
