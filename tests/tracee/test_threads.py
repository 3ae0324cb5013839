"""Which sleeps may be interrupted, and how each goes on: the rules, one by one."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc import uapi
from kvmenc.tracee.threads import handlers_could_run, leaves_no_trace, way_back

SYSCALL_AT = 0x7F00_0000_1000
FUTEX, PRIVATE = uapi.SYS_futex, uapi.FUTEX_PRIVATE_FLAG
AGAIN = [
    (FUTEX, (1, uapi.FUTEX_WAIT, 5, 0), uapi.ERESTARTSYS),
    (FUTEX, (1, uapi.FUTEX_WAIT | PRIVATE, 5, 0), uapi.ERESTARTSYS),
    (FUTEX, (1, uapi.FUTEX_WAIT_BITSET, 5, 0), uapi.ERESTARTSYS),
    (FUTEX, (1, uapi.FUTEX_WAIT_BITSET | PRIVATE, 5, 9), uapi.ERESTART_RESTARTBLOCK),
    (FUTEX, (1, 0x189, 0, 0), uapi.ERESTARTSYS),  # as glibc's pthread_cond_wait has it
    (uapi.SYS_ppoll, (1, 2, 0, 0), uapi.ERESTARTNOHAND),
    (uapi.SYS_ppoll, (1, 2, 3, 0), uapi.ERESTARTNOHAND),
    (uapi.SYS_poll, (1, 2, 0xFFFF_FFFF, 0), uapi.ERESTART_RESTARTBLOCK),
    (uapi.SYS_clock_nanosleep, (1, uapi.TIMER_ABSTIME, 3, 0), uapi.ERESTARTNOHAND),
]
CUT_SHORT = [
    (uapi.SYS_nanosleep, (1, 2, 0, 0), uapi.ERESTART_RESTARTBLOCK),
    (uapi.SYS_clock_nanosleep, (1, 0, 3, 4), uapi.ERESTART_RESTARTBLOCK),
]
NEVER = [
    (FUTEX, (1, uapi.FUTEX_WAIT, 5, 9), uapi.ERESTART_RESTARTBLOCK),
    (FUTEX, (1, 6, 5, 0), uapi.ERESTARTNOINTR),  # FUTEX_LOCK_PI
    (uapi.SYS_ppoll, (1, 2, 3, 4), uapi.ERESTARTNOHAND),
    (uapi.SYS_poll, (1, 2, 1000, 0), uapi.ERESTART_RESTARTBLOCK),
    (uapi.SYS_nanosleep, (1, 0, 0, 0), uapi.ERESTART_RESTARTBLOCK),
    (uapi.SYS_clock_nanosleep, (1, 0, 3, 0), uapi.ERESTART_RESTARTBLOCK),
    (uapi.SYS_ioctl, (1, 0xAE80, 0, 0), errno.EINTR),  # KVM_RUN
    (uapi.SYS_ioctl, (1, 0xAE80, 0, 0), uapi.ERESTARTSYS),
]
U64 = (1 << 64) - 1


def stopped(number: int, args: tuple[int, ...], rax: int) -> uapi.user_regs_struct:
    rdi, rsi, rdx, r10 = args
    return uapi.user_regs_struct(
        cs=0x33,
        orig_rax=number & U64,
        rax=rax & U64,
        rip=SYSCALL_AT + 2,
        rdi=rdi,
        rsi=rsi,
        rdx=rdx,
        r10=r10,
    )


@pytest.mark.parametrize(("number", "args", "error"), AGAIN)
def test_a_sleep_whose_arguments_do_not_age_is_called_again(
    number: int, args: tuple[int, ...], error: int
) -> None:
    assert leaves_no_trace(number, (*args, 0, 0))
    assert way_back(stopped(number, args, -error)) == (SYSCALL_AT, number)


@pytest.mark.parametrize(("number", "args", "error"), CUT_SHORT)
def test_a_sleep_that_told_what_remains_ends_with_eintr(
    number: int, args: tuple[int, ...], error: int
) -> None:
    assert leaves_no_trace(number, (*args, 0, 0))
    assert way_back(stopped(number, args, -error)) == (SYSCALL_AT + 2, -errno.EINTR & U64)


@pytest.mark.parametrize(("number", "args", "error"), NEVER)
def test_other_sleeps_have_no_way_back(number: int, args: tuple[int, ...], error: int) -> None:
    assert not leaves_no_trace(number, (*args, 0, 0))
    assert way_back(stopped(number, args, -error)) is None


@pytest.mark.parametrize(("number", "args", "_error"), AGAIN + CUT_SHORT)
@given(result=st.integers(0, U64))
def test_a_call_that_has_its_result_has_no_way_back(
    number: int, args: tuple[int, ...], _error: int, result: int
) -> None:
    """It ended while it was being stopped: 0, EINTR, ETIMEDOUT and the like."""
    interrupted = {uapi.ERESTARTSYS, uapi.ERESTARTNOINTR, uapi.ERESTARTNOHAND}
    if (1 << 64) - result not in interrupted | {uapi.ERESTART_RESTARTBLOCK}:
        assert way_back(stopped(number, args, result)) is None


@pytest.mark.parametrize("error", [uapi.ERESTARTSYS, 0, 77])
def test_a_thread_that_is_in_no_call_has_no_way_back(error: int) -> None:
    assert way_back(stopped(-1, (1, 0, 0, 0), -error)) is None


def test_a_thread_in_32_bit_code_has_no_way_back() -> None:
    number, args, error = AGAIN[0]
    regs = stopped(number, args, -error)
    assert way_back(regs) is not None
    regs.cs = 0x23
    assert way_back(regs) is None


def test_only_signals_that_are_handled_and_let_through_could_run_a_handler() -> None:
    sigusr1, sigsegv, sigsetxid = 1 << 9, 1 << 10, 1 << 32
    assert handlers_could_run(caught=sigusr1, blocked=0)
    assert not handlers_could_run(caught=sigusr1, blocked=sigusr1)
    assert not handlers_could_run(caught=0, blocked=0)
    assert not handlers_could_run(caught=sigsegv | sigsetxid, blocked=0)
