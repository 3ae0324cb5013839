"""What the commands share: options, units on the command line, output, progress."""

from __future__ import annotations

import math
import os
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from kvmenc import package_version, units
from kvmenc.errors import InputError, KvmencError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from click.types import OptionHelpExtra
    from msgspec import Struct
    from rich.console import Console
    from rich.progress import Progress

Command = TypeVar("Command", bound="Callable[..., Any]")

__all__ = [
    "BANDWIDTH",
    "INPUT",
    "OUTPUT",
    "PAGE_RATE",
    "TIME",
    "Percent",
    "Seconds",
    "Unit",
    "Whole",
    "check_outputs",
    "console",
    "downtime_limit_option",
    "emit_json",
    "json_option",
    "link_option",
    "max_bandwidth_option",
    "option",
    "package_version",
    "private_rate_option",
    "progress",
    "say",
    "time_limit_option",
    "write_output",
]


class Unit(click.ParamType):  # type: ignore[type-arg]  # generic only in new versions of click
    """A number with a unit; what :mod:`kvmenc.units` refuses is a usage error."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read ``value``, unless a default already is a number."""
        if isinstance(value, float):
            return value
        try:
            return self._parse(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)


class Whole(click.IntRange):
    """A whole number; called by its name where it is none."""

    name = "integer"


class Percent(click.FloatRange):
    """A percentage, as ``50`` or ``50%``."""

    name = "percentage"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read ``value``."""
        number: Any = str(value).removesuffix("%")  # click says float, and takes text
        return float(super().convert(number, param, ctx))


class Seconds(click.FloatRange):
    """A time, as ``10`` or with a unit: ``10s``, ``2min``."""

    name = "seconds"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read ``value``; a number alone is seconds, as the option's name says."""
        text = str(value)
        try:
            seconds = float(text) if _is_number(text) else units.parse_time_ms(text) / 1000
        except InputError as error:
            self.fail(f"{error}; without one it is seconds", param, ctx)
        return float(super().convert(seconds, param, ctx))


class _FileName(click.Path):
    """A file to read or to write; whether that can be done is for others to say.

    Args:
        dash: what ``-`` is, as in other commands.
    """

    def __init__(self, dash: str) -> None:
        super().__init__()
        self._dash = dash

    def convert(
        self,
        value: object,
        _param: click.Parameter | None,
        _ctx: click.Context | None,
    ) -> Path:
        """Read ``value``."""
        return Path(self._dash if value == "-" else str(value))


INPUT = _FileName("/dev/stdin")
OUTPUT = _FileName("/dev/stdout")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


BANDWIDTH = Unit("bandwidth", units.parse_bandwidth_bytes_per_s)
TIME = Unit("time", units.parse_time_ms)
PAGE_RATE = Unit("page-rate", units.parse_page_rate_pps)


class _Option(click.Option):
    """Shows a default in words as it shows a number: click puts words into parentheses."""

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        """What stands in brackets behind the help."""
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        return extra


def option(
    *names: str,
    **attributes: Any,  # noqa: ANN401 - whatever click takes
) -> Callable[[Command], Command]:
    """``click.option``, whose defaults read alike."""
    return click.option(*names, cls=_Option, **attributes)


max_bandwidth_option = option(
    "--max-bandwidth",
    "max_bandwidth_bytes_per_s",
    type=BANDWIDTH,
    show_default="128MiB/s, as in QEMU",
    help="QEMU's cap while the guest runs: 1GB/s, 10Gbit.",
)
link_option = option(
    "--link",
    "link_bytes_per_s",
    type=BANDWIDTH,
    show_default="max-bandwidth",
    help="The network's speed; the stopped guest is sent at it.",
)
downtime_limit_option = option(
    "--downtime-limit",
    "downtime_limit_ms",
    type=TIME,
    show_default="300ms, as in QEMU",
    help="The pause that QEMU may plan for: 300ms, 1s.",
)
time_limit_option = option(
    "--time-limit",
    "time_limit_ms",
    type=TIME,
    show_default="none",
    help="Longer than this counts as not converging: 10min.",
)
private_rate_option = option(
    "--private-rate",
    "private_rate_pps",
    type=PAGE_RATE,
    show_default="400pps, AMD's published rate",
    help="Private pages per second through the firmware: 400pps.",
)
json_option = option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def emit_json(result: Struct) -> None:
    """Print one JSON object on stdout: ``result``, whose first field is its ``schema``."""
    import msgspec  # noqa: PLC0415 - only this needs it

    fields = msgspec.to_builtins(result)
    schema = {"schema": fields.pop("schema"), "kvmenc_version": package_version()}
    data = msgspec.json.encode(schema | fields)
    click.echo(msgspec.json.format(data, indent=2))


def say(text: str) -> None:
    """A message on stderr."""
    click.echo(f"kvmenc: {text}", err=True)


def console(*written: Path | None, stderr: bool = False) -> Console:
    """A terminal, or 80 columns without colour where there is none; NO_COLOR is honoured.

    Args:
        written: files beside the answer; it goes to stderr if one of them is stdout.
        stderr: or in any case.
    """
    from kvmenc.atomic import names_stdout  # noqa: PLC0415
    from kvmenc.report.terminal import Terminal  # noqa: PLC0415 - rich is slow to import

    return Terminal(
        stderr=stderr or names_stdout(*written), markup=False, highlight=False, emoji=False
    )


def check_outputs(*outputs: Path | None, inputs: Iterable[Path | None] = ()) -> None:
    """Say now that a file cannot be written, and not when the work is done.

    Args:
        outputs: what will be written; None: nothing.
        inputs: what is read, and must not be written over.

    Raises:
        UsageError: one file is given twice; or one is stdout, where JSON or CSV goes.
        InputError: one cannot be written.
    """
    from kvmenc.atomic import check_writable, names_stdout  # noqa: PLC0415 - only some write files

    chosen = click.get_current_context().params
    printed = next((it for it in ("json", "csv") if chosen.get(f"as_{it}")), None)
    if printed and names_stdout(*outputs):
        raise click.UsageError(f"--{printed} goes to stdout, where a file goes already")
    taken = {os.path.realpath(it) for it in inputs if it}
    for output in filter(None, outputs):
        with _unwritable(output):
            check_writable(output)
        name = os.path.realpath(output)
        if name in taken and (output.is_file() or not output.exists()):
            raise click.UsageError(f"{output} is given twice: each file needs a name of its own")
        taken.add(name)


def write_output(output: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file that an option names: whole or not at all, where it is a file.

    Raises:
        InputError: it cannot be written.
    """
    from kvmenc.atomic import write_atomically  # noqa: PLC0415 - only some commands write files

    with _unwritable(output):
        write_atomically(output, write)


@contextmanager
def _unwritable(output: Path) -> Iterator[None]:
    try:
        yield
    except (KvmencError, BrokenPipeError):  # some of the first are OSErrors, and not of this file
        raise
    except FileNotFoundError as error:
        raise InputError(f"{output}: there is no folder {output.parent}") from error
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror or error}") from error


@contextmanager
def progress(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """Show on stderr how far a long job is.

    Nothing is shown in the first second, nor where stderr is no terminal; it is gone at the end.

    Args:
        what: is being done, in a few words.
        total: what the job comes to, in a unit of its own.

    Yields:
        A function to call with how much is done so far.
    """
    if not _can_redraw_stderr():
        yield lambda _done: None
        return
    with ExitStack() as cleanup:
        bar: Progress | None = None
        show_at = time.monotonic() + 1

        def update(done: float) -> None:
            nonlocal bar
            if bar is None and time.monotonic() >= show_at:
                bar = _bar(what, total)
                cleanup.callback(bar.stop)  # first: a Ctrl-C in start() would leave no cursor
                bar.start()
            if bar is not None:
                bar.update(bar.task_ids[0], completed=done)

        yield update


def _can_redraw_stderr() -> bool:
    """Stderr is a terminal that can move its cursor; None: it was closed (2>&-)."""
    return (
        sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    )


def _bar(what: str, total: float) -> Progress:
    from rich.progress import Progress  # noqa: PLC0415 - slow to import, and seldom shown

    bar = Progress(console=console(stderr=True), transient=True)
    bar.add_task(what, total=total)
    return bar
