"""A storm over tests that were written for fair weather.

    pytest -p tests.storms.layer --storm=enomem --storm-seed=1 tests/contract ...

Each ``FakeBackend`` made in a test gets the storm. A test then passes, or it ends in the right
error, a ``KvmencError`` that names the ioctl and the errno, which is told as skipped; whatever else
is a failure: a wrong bitmap, a wrong count, an error that does not say what happened. Tests whose
own assertions the storm makes untrue are in ``known.py``, each with the reason.
"""

from __future__ import annotations

import functools
import itertools
import re
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest
from click.testing import CliRunner

from kvmenc.backend.fake import FakeBackend
from kvmenc.errors import KvmencError
from tests.storms.known import reason_of
from tests.storms.storms import ERRNOS, STORMS, storm

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from click.testing import Result

    from fakekvm import Host, Kernel

_EXIT_HOST = 3


class _RightEnd(KvmencError):
    """A command that ended with an error, as it should."""


class Weather:
    """The storm of this run.

    Attributes:
        kernels: those made since the test began.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self._seed = seed
        self._seeds = itertools.count(seed)
        self.kernels: list[Kernel] = []
        self.struck_tests = 0
        self.right_errors = 0

    def begin(self, test: str) -> None:
        """A test begins: its kernels have storms of its own, whichever tests ran before."""
        self._seeds = itertools.count(crc32(f"{self._seed} {test}".encode()))

    def strike(self, kernel: Kernel) -> None:
        """Let the storm loose on a new kernel, unless a test has faults of its own for it."""
        if any(True for _ in kernel.faults):
            return
        kernel.faults = storm(self.name, kernel.host, next(self._seeds))
        self.kernels.append(kernel)

    def end(self) -> None:
        """A test is over."""
        self.struck_tests += any(kernel.faults.struck.total() for kernel in self.kernels)
        self.kernels.clear()

    def names_it(self, text: str) -> bool:
        """Whether an error says which call failed, and how, under this storm."""
        expected = ERRNOS.get(self.name)
        pattern = rf"\b(KVM|SEV)_[A-Z0-9_/]+\(.*\).* (failed:|gives) {expected}\b"
        return expected is not None and re.search(pattern, text, re.DOTALL) is not None

    def is_right(self, error: BaseException) -> bool:
        """Whether a test that ends with this has ended rightly."""
        if isinstance(error, BaseExceptionGroup):
            return all(self.is_right(one) for one in error.exceptions)
        if isinstance(error, AssertionError) and "Regex pattern did not match" in str(error):
            error = error.__context__ or error  # pytest.raises met another error than it expected
        if isinstance(error, _RightEnd):
            return True
        return isinstance(error, KvmencError) and self.names_it(str(error))


WEATHER = pytest.StashKey[Weather]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("storms")
    group.addoption("--storm", choices=list(STORMS), required=True, help="what goes wrong")
    group.addoption("--storm-seed", type=int, default=1, help="of what comes by chance")


def pytest_configure(config: pytest.Config) -> None:
    weather = Weather(config.getoption("--storm"), config.getoption("--storm-seed"))
    config.stash[WEATHER] = weather
    made = FakeBackend.__init__
    invoke = CliRunner.invoke

    def __init__(self: FakeBackend, machine: Host | Kernel) -> None:  # noqa: N807
        made(self, machine)
        weather.strike(self.kernel)

    def stormy(self: CliRunner, *args: Any, **options: Any) -> Result:
        result = invoke(self, *args, **options)
        if result.exit_code == _EXIT_HOST and weather.names_it(result.stderr):
            raise _RightEnd(result.stderr)
        return result

    FakeBackend.__init__ = __init__  # type: ignore[method-assign]
    CliRunner.invoke = stormy  # type: ignore[method-assign]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    name = config.stash[WEATHER].name
    for item in items:
        if reason := reason_of(name, item.nodeid):
            item.add_marker(pytest.mark.skip(reason=reason))
        inner = getattr(getattr(item, "obj", None), "hypothesis", None)
        if inner is not None:
            inner.inner_test = _each_example(inner.inner_test, config.stash[WEATHER])


def _each_example(test: Callable[..., None], weather: Weather) -> Callable[..., None]:
    """An example that ends in the right error is none that Hypothesis has to shrink."""

    @functools.wraps(test)
    def example(*args: Any, **arguments: Any) -> None:
        try:
            test(*args, **arguments)
        except (Exception, pytest.fail.Exception) as error:
            if not weather.is_right(error):
                raise

    return example


def _told(weather: Weather) -> Iterator[None]:
    try:
        yield
    except (Exception, pytest.fail.Exception) as error:
        if not weather.is_right(error):
            raise
        weather.right_errors += 1
        pytest.skip(f"ended in the right error: {error}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    item.config.stash[WEATHER].begin(item.nodeid)
    return (yield from _told(item.config.stash[WEATHER]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    return (yield from _told(item.config.stash[WEATHER]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    try:
        return (yield from _told(item.config.stash[WEATHER]))
    finally:
        item.config.stash[WEATHER].end()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    weather = config.stash[WEATHER]
    terminalreporter.write_line(
        f"{weather.name}: {weather.struck_tests} tests were struck, of which {weather.right_errors}"
        " ended in the right error"
    )
