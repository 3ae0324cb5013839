"""What decides a plan beside bandwidth and downtime limit, as options of every planning command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from kvmenc import units
from kvmenc.cli.common import (
    BANDWIDTH,
    Percent,
    Unit,
    Whole,
    option,
    private_rate_option,
    progress,
    time_limit_option,
)
from kvmenc.errors import HostError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmenc.capture import Capture
    from kvmenc.plan import Parameters, Plan, Profile

__all__ = [
    "advised_plan",
    "described_by",
    "guest_options",
    "link_found",
    "parameters_of",
    "plan_options",
    "profile_of",
    "to_option",
]

SIZE = Unit("size", units.parse_size_bytes)

_OPTIONS = (
    time_limit_option,
    private_rate_option,
    option(
        "--private-batch",
        "private_batch_pages",
        type=Whole(1, 1 << 20),
        metavar="PAGES",
        help="Private pages that one command of the firmware takes; Hygon's QEMU: 4094.",
    ),
    option(
        "--send-buffer",
        "send_buffer_bytes",
        type=SIZE,
        show_default="none",
        help="What the connection takes at once while it is empty: 4MiB.",
    ),
    option("--auto-converge", is_flag=True, help="With QEMU's auto-converge."),
    option(
        "--multifd",
        "multifd_channels",
        type=Whole(1, 255),
        metavar="CHANNELS",
        help="With QEMU's multifd, of so many connections.",
    ),
    option(
        "--xbzrle",
        "encoded_percent",
        type=Percent(0, 100, min_open=True),
        metavar="PERCENT",
        help="With QEMU's xbzrle; a page's difference is this much of the page.",
    ),
    option(
        "--xbzrle-cache",
        "cache_bytes",
        type=SIZE,
        show_default="64MiB, as in QEMU",
        help="Its cache.",
    ),
    option("--postcopy", is_flag=True, help="With QEMU's postcopy, after the first pass."),
    option(
        "--qemu",
        "qemu",
        metavar="VERSION",
        show_default="that of the capture, else 10.0",
        help="By the rules of which QEMU; they changed in 7.2, 8.2, 10.0, 10.2, 11.",
    ),
)


SHARE = Unit("share", units.parse_share)

_GUEST_OPTIONS = (
    option("--memory", "memory_bytes", type=SIZE, help="Without FILE: a guest of this RAM:"),
    option("--zero", "zero_share", type=SHARE, help="of its shared pages so many zero, 40%;"),
    option("--private", "private_share", type=SHARE, help="of all pages so many private;"),
    option(
        "--dirty-rate",
        "dirty_bytes_per_s",
        type=BANDWIDTH,
        help="writing pages at this rate, 200MB/s,",
    ),
    option(
        "--working-set",
        "working_set_bytes",
        type=SIZE,
        show_default="all that are not zero",
        help="by chance within this, 2GiB.",
    ),
)


def guest_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that describe a guest; :func:`described_by` takes what they give."""
    for added in reversed(_GUEST_OPTIONS):
        function = added(function)
    return function


def described_by(given: dict[str, object]) -> Capture | None:
    """The guest that the options describe, and none of them left in ``given``; None: they do not.

    Raises:
        InputError: no guest is so.
    """
    names = ("memory_bytes", "zero_share", "private_share", "dirty_bytes_per_s")
    known = {name: given.pop(name, None) for name in (*names, "working_set_bytes")}
    known = {name: value for name, value in known.items() if value is not None}
    if not known:
        return None
    if "memory_bytes" not in known:
        raise click.UsageError("a guest is described by its --memory first")
    from kvmenc.plan.described import Described  # noqa: PLC0415 - numpy is slow to import

    return Described(**cast("Any", known)).capture()


to_option = option(
    "--to",
    "host",
    metavar="HOST",
    help="Take what one TCP connection to HOST gets for the link, as `kvmenc link` says.",
)


def link_found(given: dict[str, object]) -> tuple[str, ...]:
    """Where ``--to`` is given, look at the way to that host, and put the link's speed in its place.

    Returns:
        What that assumes, in words; nothing where it is not given.

    Raises:
        InputError: no such host, or it is this machine.
        HostError: no route, or no limit is known.
    """
    host = given.pop("host")
    if host is None:
        return ()
    if given["link_bytes_per_s"]:
        raise click.UsageError("--to finds out what --link says: give one of them")
    from kvmenc.link import look  # noqa: PLC0415 - pyroute2 is slow to import

    link = look(str(host))
    rate = link.goodput_bytes_per_s
    if link.route.local:
        raise InputError(f"{host} is this machine: no link to look at; give --link")
    if not rate:
        why = f"{link.limited_by} is in full use" if link.limited_by else "no limit is known"
        raise HostError(f"{host}: {why}: see `kvmenc link --to {host}`, and give --link")
    given["link_bytes_per_s"] = rate
    assumed = (
        f"The link: {units.format_bandwidth(rate)} after headers, what one TCP connection to "
        f"{link.address} gets at most ({link.limited_by})."
    )
    return (assumed,)


def plan_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options; :func:`parameters_of` and :func:`profile_of` take what they give."""
    for added in reversed(_OPTIONS):
        function = added(function)
    return function


def parameters_of(given: dict[str, object]) -> Parameters:
    """What the options say, without those that are not given.

    Raises:
        InputError: they make no sense together.
    """
    from kvmenc.plan import Parameters, Xbzrle  # noqa: PLC0415 - numpy is slow to import

    known: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    known.pop("qemu", None)
    percent, cache_bytes = known.pop("encoded_percent", None), known.pop("cache_bytes", None)
    if percent is None and cache_bytes is not None:
        raise click.UsageError("--xbzrle-cache goes with --xbzrle")
    if percent is not None:
        known["xbzrle"] = Xbzrle(percent / 100, *([cache_bytes] if cache_bytes else []))
    return Parameters(**known)


def profile_of(given: dict[str, object], capture: Capture) -> Profile:
    """The rules asked for, or those of the QEMU that was captured.

    Raises:
        InputError: there are none of that name.
    """
    from kvmenc.plan import own_profile, profile_named  # noqa: PLC0415 - numpy is slow to import

    if given.get("qemu") is not None:
        return profile_named(str(given["qemu"]))
    return own_profile(capture)


def advised_plan(
    capture: Capture, parameters: Parameters, profile: Profile, assumed: tuple[str, ...]
) -> Plan:
    """A plan, how sure it is, what would make it converge, and what was assumed beside its own."""
    from msgspec.structs import replace  # noqa: PLC0415

    from kvmenc.plan import advise, interval_of, make_plan  # noqa: PLC0415 - numpy is slow

    asked = capture, parameters, profile
    plan = make_plan(*asked)
    with progress("planning", 2) as update:
        interval = interval_of(*asked, update)
        advice = advise(*asked, lambda share: update(1 + share))
    assumptions = (*plan.assumptions, *assumed)
    return replace(plan, interval=interval, advice=advice, assumptions=assumptions)
