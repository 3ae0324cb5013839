"""The ``--backend`` and ``--record`` options: whose KVM a command works on, and what is kept."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from kvmenc.errors import InputError, KvmencError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvmenc.backend import Backend
    from kvmenc.scratchrun import BackendName

__all__ = ["Replay", "backend_option", "carried", "record_option"]

_REPLAY = "replay:"
_METAVAR = "[local|fake|replay:FILE]"


class Replay(NamedTuple):
    """The answers of a recording."""

    file: Path


class _Choice(click.ParamType):  # type: ignore[type-arg]  # generic only in new versions of click
    """``local``, ``fake`` or ``replay:FILE``."""

    name = "backend"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """What the user wrote, understood."""
        text = str(value)
        replayed = text.startswith(_REPLAY) and text != _REPLAY
        if not replayed and text not in ("local", "fake"):
            self.fail(f"{text!r} is none of {_METAVAR}", param, ctx)
        return Replay(Path(text.removeprefix(_REPLAY))) if replayed else text


backend_option = click.option(
    "--backend",
    type=_Choice(),
    metavar=_METAVAR,
    help="This machine's /dev/kvm; fakekvm, which needs nothing; what --record kept in FILE.",
)
record_option = click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep what the host answers in FILE, for --backend replay:FILE.",
)


@contextmanager
def carried(
    choice: BackendName | Replay, record: Path | None, open_named: Callable[[BackendName], Backend]
) -> Iterator[Backend]:
    """Who carries out the calls of a command, and what is kept of them.

    A recording is written when the command is done, also where the host could not do what was
    asked: then that is what it answered.

    Args:
        choice: what ``--backend`` says.
        record: what ``--record`` says.
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
def _recorded(lower: Backend, file: Path) -> Iterator[Backend]:
    from kvmenc.backend.kinds import recorded  # noqa: PLC0415 - slow to import

    if not file.parent.is_dir():
        raise InputError(f"{file}: there is no folder {file.parent} to keep the recording in")
    recording = recorded(lower)
    try:
        yield recording
    except KvmencError:
        recording.save(file)
        raise
    recording.save(file)
