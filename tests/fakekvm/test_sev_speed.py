"""The firmware's time: one command at a time on the whole host, at the rate that was set."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from fakekvm import host_named
from fakekvm import sevdecode as abi
from fakekvm.clock import HeldClock, MachineClock
from fakekvm.host import FirmwareSpeed
from tests.fakekvm import raw, sevraw
from tests.fakekvm.raw import PAGE, Guest
from tests.fakekvm.sevraw import INVALID_LEN, OK, Machine, SevGuest

pytestmark = pytest.mark.alone

RATE = 200.0
PAGES = 40


class Timed(Machine):
    """A machine whose firmware has a rate, by a clock that only its waits move."""

    def __init__(self, **speed: float) -> None:
        super().__init__(replace(host_named("sev"), firmware=FirmwareSpeed(**speed)))
        self.clock = self.kernel.firmware.clock = HeldClock()


def send_all(source: SevGuest) -> None:
    for number in range(PAGES):
        source.sent(number % 4)


def test_a_page_takes_its_time_each_way() -> None:
    with Timed(send=RATE, receive=2 * RATE) as fake:
        source, target = sevraw.session(fake)
        send_all(source)
        assert fake.clock.now() == pytest.approx(PAGES / RATE)
        wire = source.sent()
        start = fake.clock.now()
        for _ in range(PAGES):
            assert target.receive(wire) == OK
        assert fake.clock.now() - start == pytest.approx(PAGES / RATE / 2)


def test_a_page_takes_as_long_by_the_machines_clock() -> None:
    """No less; how much more depends on what else the machine does."""
    with Timed(send=RATE) as fake:
        fake.kernel.firmware.clock = MachineClock()
        source, _target = sevraw.session(fake)
        start = time.perf_counter()
        send_all(source)
        assert PAGES / RATE <= time.perf_counter() - start < 5 * PAGES / RATE


def test_two_vms_that_send_at_once_share_the_rate() -> None:
    with Timed(send=RATE) as fake:
        sources = [sevraw.session(fake)[0] for _ in range(2)]
        threads = [threading.Thread(target=send_all, args=(it,)) for it in sources]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert fake.clock.now() == pytest.approx(2 * PAGES / RATE)


def test_a_caller_in_the_queue_waits_for_who_came_first() -> None:
    """Both called at the same time: the second is done a page's time after the first."""
    with Timed(send=RATE) as fake:
        sources = [sevraw.session(fake)[0] for _ in range(2)]
        for number, source in enumerate(sources, 1):
            packet = abi.Packet(1, 52, source.address(), PAGE, 1, PAGE)
            handle = number * 3 - 2  # source, target, session: each takes a number
            command = abi.Command(abi.SEND_UPDATE_DATA, 0, 0, 0, fake.clock.now())
            fake.kernel.firmware.send_update(handle, bytes(PAGE), packet, command)
            assert command.ends == pytest.approx(command.entered + number / RATE)


def test_what_is_refused_takes_no_time() -> None:
    with Timed(send=1.0) as fake:
        source, _target = sevraw.session(fake)
        assert source.send(hdr=1) == INVALID_LEN
        assert fake.clock.now() == 0


def test_a_busy_firmware_does_not_hold_up_the_dirty_log() -> None:
    """SEV commands are under kvm->lock, the dirty log is not."""
    with Timed(send=2.0) as fake:
        fake.kernel.firmware.clock = MachineClock()
        source, _target = sevraw.session(fake)
        plain = Guest(fake)
        thread = threading.Thread(target=source.sent)
        thread.start()
        time.sleep(0.05)
        start = time.perf_counter()
        assert plain.get_log() == "[]"
        assert fake.ioctl(source.vm, raw.CHECK_EXTENSION, 10) == 32764
        assert time.perf_counter() - start < 0.4
        thread.join()
