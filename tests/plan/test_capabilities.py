"""What QEMU's other capabilities change in a plan."""

from __future__ import annotations

import msgspec
import pytest

from kvmenc.errors import InputError
from kvmenc.plan import PROFILES, Parameters, Xbzrle, make_plan, profile_for, profile_named
from tests.plan.guests import GIB_PAGES, changed, guest
from tests.plan.test_precopy import AMD_STORY, IDLE

#: A hot set of 9,000 pages, and 1,000 others a second.
HOT = guest(GIB_PAGES, 0, [(10, 0, 9_000), (1000, 0, 10_000)], zero=100_000)


def test_postcopy_begins_after_the_first_pass_and_pauses_for_no_page() -> None:
    plan = make_plan(HOT, Parameters(downtime_limit_ms=50, postcopy=True))
    assert plan.verdict == "converges"
    assert plan.downtime_ms is not None
    assert plan.downtime_ms < 20
    ram = plan.query_migrate.ram
    assert ram.dirty_sync_count == 3
    assert ram.postcopy_bytes == pytest.approx(ram.transferred - ram.precopy_bytes)
    assert ram.postcopy_bytes >= 9_000 * 4104


def test_xbzrle_sends_the_hot_set_as_differences() -> None:
    """From its second time after the first pass on."""
    limits = Parameters(downtime_limit_ms=200, time_limit_ms=60e3)
    whole = make_plan(HOT, limits).query_migrate
    short = make_plan(HOT, changed(limits, "xbzrle", Xbzrle(0.1))).query_migrate
    cache = short.xbzrle_cache
    assert cache is not msgspec.UNSET
    assert cache.pages > 9_000
    assert cache.bytes == pytest.approx(cache.pages * (409.6 + 3), rel=0.01)
    assert short.ram.normal < whole.ram.normal
    assert whole.xbzrle_cache is msgspec.UNSET


def test_private_pages_get_nothing_of_xbzrle_and_multifd() -> None:
    plain, both = (
        make_plan(AMD_STORY, Parameters(1e9, downtime_limit_ms=1000, multifd_channels=channels))
        for channels in (0, 4)
    )
    assert both.totals.bytes.encrypted == plain.totals.bytes.encrypted
    # What is left are the packets with which connections wait for each other.
    assert both.query_migrate.ram.multifd_bytes < 100_000


def test_multifd_counts_its_own_bytes() -> None:
    ram = make_plan(HOT, Parameters(multifd_channels=2)).query_migrate.ram
    assert ram.multifd_bytes == pytest.approx(ram.normal * 4106.5, rel=2e-3)
    assert ram.precopy_bytes + ram.downtime_bytes < ram.transferred


def test_a_batch_of_the_firmware_is_sent_whole() -> None:
    """4094 pages take 4.1 s at 1000 pages/s: no decision is made within it."""
    one, batch = (
        make_plan(AMD_STORY, Parameters(1e9, time_limit_ms=300e3, private_batch_pages=n))
        for n in (1, 4094)
    )
    assert batch.query_migrate.ram.dirty_sync_count < one.query_migrate.ram.dirty_sync_count


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("7.2.22", "7.2"),
        ("6.0.0", "7.2"),
        ("8.1.0", "7.2"),
        ("9.2.0", "8.2"),
        ("10.0.13", "10.0"),
        ("10.1.0", "10.0"),
        ("12.1", "11"),
        (None, "10.0"),
        ("something else", "10.0"),
    ],
)
def test_a_qemu_gets_the_rules_of_the_newest_version_before_it(
    release: str | None, version: str
) -> None:
    assert profile_for(release).version == version


@pytest.mark.parametrize("version", ["6.2", "7", "x", "qemu-10.0", "", "10.0.0.0", "9" * 9])
def test_what_has_no_rules_is_refused_and_the_known_ones_are_named(version: str) -> None:
    known = rf"no rules of QEMU '{version}': there are 7\.2, 8\.2, 10\.0"
    with pytest.raises(InputError, match=known):
        profile_named(version)


@pytest.mark.parametrize(
    ("asked", "rules"),
    [
        ("7.2", "7.2"),
        ("8.2.1", "8.2"),
        ("9.2", "8.2"),
        ("10", "10.0"),
        ("11.0", "11"),
        ("99", "11"),
    ],
)
def test_a_version_that_is_asked_for_has_the_rules_of_one_that_was_captured(
    asked: str, rules: str
) -> None:
    assert profile_named(asked).version == rules


@pytest.mark.parametrize("version", PROFILES)
def test_each_versions_answer_has_the_fields_it_prints(version: str) -> None:
    """`skipped` was removed in 9.1; what is unproven is said."""
    plan = make_plan(guest(GIB_PAGES, 0, IDLE), Parameters(), PROFILES[version])
    printed = msgspec.to_builtins(plan.query_migrate)
    assert ("skipped" in printed["ram"]) == (version in {"7.2", "8.2"})
    assert {"status", "total-time", "setup-time", "downtime", "ram"} == set(printed)
    said = " ".join(plan.assumptions)
    assert ("UNPROVEN" in said) == (not plan.proven)
