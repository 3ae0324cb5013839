"""Tests whose own assertions a storm makes untrue, though kvmenc does right; each with why."""

from __future__ import annotations

from tests.storms.storms import ERRNOS

__all__ = ["reason_of"]

_COUNTS_CALLS = "counts the calls of a recording: an interrupted call is one more"
_RUNS_ONCE = "is about single KVM_RUNs, which a signal ends: that is Exit.INTR, as documented"
_RATE = "knows the firmware's speed, which the storm changes: what is measured is right"

_OTHER_ERROR = "compares the text of an error that it provokes with another call's"
_THREADS = "its own threads meet the error, which pytest tells as a warning"
_UNKNOWN = "a probe goes on, and says `unknown` and which call failed: test_probes.py"

#: By storm (``errors``: all that make calls fail), what is in the test's id, and why.
_KNOWN: tuple[tuple[str, str, str], ...] = (
    ("errors", "test_hints.py::test_the_errno_comes_with_its_hint", _OTHER_ERROR),
    ("errors", "test_a_mainline_kernel_offers_no_revision", "an unclear answer is the right one"),
    ("errors", "tests/backend/test_beside.py", _THREADS),
    ("errors", "test_the_fake_passes_its_self_test", "a check fails, and says which call failed"),
    ("errors", "test_is_it_a_sev_host", _UNKNOWN),
    ("errors", "test_a_number_of_one_meaning_is_named_and_one_of_several_is_not_guessed", _UNKNOWN),
    ("errors", "test_the_encrypt_op_with_null_tells_sev_from_none", _UNKNOWN),
    ("eintr", "test_calls_that_were_not_made_are_reported_at_the_end", _COUNTS_CALLS),
    ("eintr", "test_what_only_goes_in_is_never_written_to", _COUNTS_CALLS),
    ("eintr", "test_no_more_is_written_than_the_caller_has_room_for", _COUNTS_CALLS),
    (
        "eintr",
        "test_an_ioctl_that_is_not_in_the_table_is_kept_with_its_struct_and_marked",
        _COUNTS_CALLS,
    ),
    ("eintr", "test_signals_that_a_thread_blocks_are_its_own_affair", _COUNTS_CALLS),
    ("eintr", "test_the_same_calls_make_the_same_bytes", _COUNTS_CALLS),
    ("eintr", "test_more_runs_than_recorded_are_interrupted_and_fewer_are_enough", _RUNS_ONCE),
    (
        "eintr",
        "test_the_same_seed_gives_the_same_ledger",
        "its guest makes a step before each call of a sync: an interrupted call is one more",
    ),
    ("slow-firmware", "test_both_rates_are_found", _RATE),
    ("slow-firmware", "test_a_second_user_all_the_time_halves_the_rate_and_is_counted", _RATE),
    ("slow-firmware", "test_a_second_user_for_a_while_shows_in_the_spread", _RATE),
    ("slow-firmware", "test_hygons_batches_are_measured_too_and_decide", _RATE),
)


def reason_of(storm: str, test: str) -> str | None:
    """Why a test is left out of a storm; None: it is not."""
    names = {storm, "errors"} if storm in ERRNOS else {storm}
    return next((why for name, what, why in _KNOWN if name in names and what in test), None)
