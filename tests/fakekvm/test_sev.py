"""SEV commands on the fake: the kernel's checks, the firmware's answers, and what they mean."""

from __future__ import annotations

import os
import struct
from dataclasses import replace

import pytest

from fakekvm import host_named
from fakekvm.sevcerts import Chip
from tests.fakekvm import raw, sevraw
from tests.fakekvm.raw import PAGE, Area, Buffer, FakeMachine
from tests.fakekvm.sevraw import (
    BAD_MEASUREMENT,
    HDR,
    INVALID_ADDRESS,
    INVALID_CERTIFICATE,
    INVALID_LEN,
    INVALID_STATE,
    OK,
    POLICY_FAILURE,
    SESSION,
    UNASKED,
    Machine,
    SevGuest,
    Wire,
    filled,
    session,
)

NODBG, NOSEND = 1 << 0, 1 << 3


# -- becoming a guest ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vm_type", "number", "result"),
    [
        (0, sevraw.INIT, 0),
        (0, sevraw.ES_INIT, 0),
        (0, sevraw.INIT2, "EINVAL"),
        (2, sevraw.INIT, "EINVAL"),
        (2, sevraw.INIT2, 0),
        (3, sevraw.INIT2, 0),
    ],
)
def test_each_vm_type_has_its_init_once(vm_type: int, number: int, result: raw.Result) -> None:
    with Machine() as machine:
        guest = SevGuest(machine, vm_type=vm_type)
        data = Buffer(bytes(48))
        assert guest.issue(number, data)[0] == result
        assert guest.issue(number, data)[0] == "EINVAL"


@pytest.mark.parametrize(
    ("fields", "result"),
    [((1, 0, 0), "EINVAL"), ((0, 1, 0), "EINVAL"), ((0, 0, 1), "EINVAL"), ((0, 0, 0), 0)],
)
def test_init2_takes_no_features_flags_or_ghcb_of_a_plain_guest(
    fields: tuple[int, int, int], result: raw.Result
) -> None:
    with Machine() as machine:
        data = Buffer(struct.pack("<QIHH32x", *fields, 0))
        assert SevGuest(machine).issue(sevraw.INIT2, data)[0] == result


def test_a_vm_with_vcpus_becomes_no_sev_guest() -> None:
    with Machine() as machine:
        guest = SevGuest(machine, vm_type=0)
        assert isinstance(machine.ioctl(guest.vm, raw.CREATE_VCPU, 0), int)
        assert guest.issue(sevraw.INIT)[0] == "EINVAL"


def test_registers_of_vcpus_are_encrypted_with_es_alone() -> None:
    with Machine() as machine:
        plain, es = filled(machine), SevGuest(machine, vm_type=3).init()
        assert plain.issue(sevraw.LAUNCH_UPDATE_VMSA)[0] == "ENOTTY"
        assert isinstance(machine.ioctl(es.vm, raw.CREATE_VCPU, 0), int)
        assert es.issue(sevraw.LAUNCH_UPDATE_VMSA)[0] == "EBADF"
        assert es.launch_start(policy=4) == OK
        assert es.issue(sevraw.LAUNCH_UPDATE_VMSA) == OK
        assert es.measure() == OK
        assert es.issue(sevraw.LAUNCH_UPDATE_VMSA) == INVALID_STATE


@pytest.mark.parametrize("number", range(2, 22))
def test_before_init_every_command_is_enotty_or_unknown(number: int) -> None:
    """RECEIVE_UPDATE_DATA alone says EINVAL there; so do numbers without a handler."""
    known = {2, 3, 4, 6, 7, 8, 9, 11, 12, 15, 16, 17, 21}
    with Machine() as machine:
        result, error = SevGuest(machine).issue(number, Buffer(bytes(72)))
        assert result == ("ENOTTY" if number in known else "EINVAL")
        assert error == UNASKED


@pytest.mark.parametrize("number", [sevraw.SEND_UPDATE_VMSA, sevraw.RECEIVE_UPDATE_VMSA, 23, 24])
def test_commands_without_a_handler_are_einval_in_any_state(number: int) -> None:
    with Machine() as machine:
        assert filled(machine).issue(number, Buffer(bytes(72)))[0] == "EINVAL"


def test_an_snp_guest_takes_no_command_of_plain_sev() -> None:
    with Machine(host_named("snp")) as machine:
        guest = SevGuest(machine, vm_type=4)
        assert guest.issue(sevraw.INIT2, Buffer(bytes(48)))[0] == 0
        assert guest.issue(sevraw.STATUS)[0] == "EPERM"
        assert guest.issue(100)[0] == "EINVAL"  # not in the fake


@pytest.mark.parametrize("number", [sevraw.LAUNCH_START, sevraw.SEND_START, sevraw.SEND_UPDATE])
def test_a_struct_at_a_bad_address_is_efault(number: int) -> None:
    with Machine() as machine:
        assert SevGuest(machine).init().issue(number, 8)[0] == "EFAULT"


def test_the_guest_is_bound_to_an_open_dev_sev() -> None:
    with Machine() as machine:
        guest = SevGuest(machine).init()
        assert guest.state() == ("EBADF", UNASKED)  # none was given yet
        for bad in (machine.open(), guest.vm, 9999):
            guest.sev_fd = bad
            assert guest.launch_start()[0] == "EBADF"
        guest.sev_fd = machine.sev
        assert guest.launch_start() == OK
        guest.sev_fd = 9999  # only LAUNCH_START and RECEIVE_START look at it
        assert guest.state() == sevraw.LAUNCHING
        machine.close(machine.sev)
        assert guest.state() == ("EBADF", UNASKED)


def test_a_second_guest_in_one_vm_finds_the_asid_taken() -> None:
    with Machine() as machine:
        guest = filled(machine)
        assert guest.launch_start() == ("EIO", 0x0C)
        assert sevraw.guest_count(machine) == 1


def test_the_firmware_forgets_a_guest_with_its_vm() -> None:
    with Machine() as machine:
        guests = [filled(machine), *session(machine)]
        assert sevraw.guest_count(machine) == 3
        for guest in guests:
            machine.close(guest.vm)
        assert sevraw.guest_count(machine) == 0


# -- memory -------------------------------------------------------------------------------------


def test_private_memory_reads_as_written_by_the_guest_alone() -> None:
    with Machine() as machine:
        guest = filled(machine)
        for page, content in enumerate(sevraw.pages(4)):
            assert guest.view(page) == content
            assert guest.bytes_at(page) != content


def test_bytes_copied_elsewhere_mean_nothing() -> None:
    """Neither in another guest, nor in another page of the same guest."""
    with Machine() as machine:
        source, other = filled(machine), filled(machine, seed=2)
        other.write(1, source.bytes_at(0))
        source.write(1, source.bytes_at(0))
        content = next(sevraw.pages(1))
        assert content not in {other.view(1), source.view(1)}
        assert source.bytes_at(1) == source.bytes_at(0)


@pytest.mark.parametrize(
    ("address", "size", "answer"),
    [
        (0, 0, "EINVAL"),
        (-1, PAGE, "EINVAL"),
        (0x1000, PAGE, "ENOMEM"),
        (None, PAGE, 0),
    ],
)
def test_regions_must_be_mapped(address: int | None, size: int, answer: raw.Result) -> None:
    with Machine() as machine:
        guest = SevGuest(machine).init()
        region = Buffer(
            struct.pack("<QQ", (guest.address() if address is None else address) % 2**64, size)
        )
        assert machine.ioctl(guest.vm, sevraw.REG, region) == answer
        assert machine.ioctl(guest.vm, sevraw.UNREG, region) == (0 if answer == 0 else "EINVAL")
        assert machine.ioctl(guest.vm, sevraw.UNREG, region) == "EINVAL"


def test_regions_are_for_sev_guests() -> None:
    with Machine() as machine, FakeMachine() as plain:
        region = Buffer(struct.pack("<QQ", 0, 0))
        for fake in (machine, plain):
            vm = raw.new_vm(fake)
            assert fake.ioctl(vm, sevraw.REG) == "EFAULT"
            assert fake.ioctl(vm, sevraw.REG, region) == "ENOTTY"
            assert fake.ioctl(vm, sevraw.UNREG, region) == "ENOTTY"


def test_launch_update_takes_mapped_memory_in_blocks_of_16() -> None:
    with Machine() as machine:
        guest = SevGuest(machine).init()
        assert guest.launch_start() == OK
        guest.area.unmap(3, 1)
        for address, size, answer in (
            (guest.address(), 0, ("EINVAL", UNASKED)),
            (guest.address(3), 16, ("ENOMEM", UNASKED)),
            (guest.address(2), PAGE + 16, ("ENOMEM", UNASKED)),
            (guest.address() + 1, 16, INVALID_ADDRESS),
            (guest.address(), 17, INVALID_LEN),
            (guest.address() + 16, 32, OK),
        ):
            data = Buffer(struct.pack("<QII", address, size, 0))
            assert guest.issue(sevraw.LAUNCH_UPDATE, data) == answer


def test_debugging_shows_a_guest_whose_policy_allows_it() -> None:
    with Machine() as machine:
        open_guest, closed = filled(machine), filled(machine, policy=NODBG)
        out = Area(1)
        for guest, answer in ((open_guest, OK), (closed, POLICY_FAILURE)):
            data = Buffer(struct.pack("<QQII", guest.address(), out.address, PAGE, 0))
            assert guest.issue(sevraw.DBG_DECRYPT, data) == answer
            empty = Buffer(struct.pack("<QQII", guest.address(), out.address, 0, 0))
            assert guest.issue(sevraw.DBG_DECRYPT, empty)[0] == "EINVAL"
        assert out.map[:] == next(sevraw.pages(1))


# -- lengths ------------------------------------------------------------------------------------


def test_lengths_are_asked_for_by_failing() -> None:
    with Machine() as machine:
        guest = SevGuest(machine).init()
        assert guest.launch_start() == OK
        blob = Buffer(struct.pack("<QII", 0, 0, 0))
        assert guest.issue(sevraw.LAUNCH_MEASURE, blob) == INVALID_LEN
        assert struct.unpack("<QII", blob.bytes)[1] == 48
        assert guest.measure(47) == INVALID_LEN
        assert [guest.measure(), guest.issue(sevraw.LAUNCH_FINISH)] == [OK, OK]
        start = Buffer(bytes(72))
        assert guest.issue(sevraw.SEND_START, start) == INVALID_LEN
        assert struct.unpack_from("<I", start.bytes, 64)[0] == SESSION
        assert guest.send_start(room=SESSION - 1)[0] == INVALID_LEN
        assert guest.send_start()[0] == OK


@pytest.mark.parametrize(("hdr_len", "trans_len"), [(0, 0), (0, PAGE), (HDR, 0)])
def test_either_length_being_0_asks_for_both(hdr_len: int, trans_len: int) -> None:
    """The header's is told; of the contents' the firmware's struct says: in, not out."""
    with Machine() as machine:
        source, _target = session(machine)
        data = Buffer(sevraw.PACKET.pack(0, hdr_len, 0, 0, 0, trans_len))
        assert source.issue(sevraw.SEND_UPDATE, data) == INVALID_LEN
        fields = sevraw.PACKET.unpack(data.bytes)
        assert (fields[1], fields[5]) == (HDR, 0)
        assert source.state() == sevraw.SENDING


@pytest.mark.parametrize(
    ("odd", "answer"),
    [
        ({"hdr_uaddr": 0}, ("EINVAL", UNASKED)),
        ({"guest_uaddr": 0}, ("EINVAL", UNASKED)),
        ({"guest_len": 0}, ("EINVAL", UNASKED)),
        ({"trans_uaddr": 0}, ("EINVAL", UNASKED)),
        ({"guest_len": PAGE + 1}, ("EINVAL", UNASKED)),
        ({"guest_len": PAGE + 16}, ("EINVAL", UNASKED)),
        ({"guest_uaddr": 0x1000}, ("ENOMEM", UNASKED)),
        ({"hdr_len": (1 << 22) + 1}, ("ENOMEM", UNASKED)),
        ({"trans_len": (1 << 22) + 1}, ("ENOMEM", UNASKED)),
        ({"hdr_len": HDR - 1}, INVALID_LEN),
        ({"trans_len": PAGE - 1}, INVALID_LEN),
        ({"guest_len": 17}, INVALID_LEN),
        ({"hdr_uaddr": 8}, ("EFAULT", 0)),  # what the firmware made is lost
        ({"trans_uaddr": 8}, ("EFAULT", 0)),
    ],
)
def test_what_send_update_refuses(odd: dict[str, int], answer: sevraw.Answer) -> None:
    with Machine() as machine:
        source, _target = session(machine)
        assert source.send(**odd) == answer
        assert isinstance(source.send(), Wire), "the session goes on"


@pytest.mark.parametrize(
    ("offset", "size", "fits"),
    [(0, PAGE, True), (16, PAGE - 16, True), (16, PAGE, False), (PAGE - 16, 32, False)],
)
def test_a_packet_does_not_cross_a_page(offset: int, size: int, fits: bool) -> None:
    with Machine() as machine:
        source, target = session(machine)
        odd = {"guest_uaddr": source.address() + offset, "guest_len": size}
        wire = source.send(**odd)
        if not fits:
            assert wire == ("EINVAL", UNASKED)
            return
        assert isinstance(wire, Wire)
        there = {"guest_uaddr": target.address() + offset, "guest_len": size}
        assert target.receive(wire, **there) == OK
        part = slice(offset, offset + size)
        assert target.view()[part] == source.view()[part]


@pytest.mark.parametrize(
    ("odd", "answer"),
    [
        ({"hdr_uaddr": 0}, ("EINVAL", UNASKED)),
        ({"hdr_len": 0}, ("EINVAL", UNASKED)),
        ({"guest_uaddr": 0}, ("EINVAL", UNASKED)),
        ({"guest_len": 0}, ("EINVAL", UNASKED)),
        ({"trans_uaddr": 0}, ("EINVAL", UNASKED)),
        ({"trans_len": 0}, ("EINVAL", UNASKED)),
        ({"guest_len": PAGE + 16}, ("EINVAL", UNASKED)),
        ({"hdr_len": 0x4001}, ("EINVAL", UNASKED)),
        ({"trans_len": 0x4001}, ("EINVAL", UNASKED)),
        ({"hdr_uaddr": 8}, ("EFAULT", UNASKED)),
        ({"trans_uaddr": 8}, ("EFAULT", UNASKED)),
        ({"guest_uaddr": 0x1000}, ("ENOMEM", UNASKED)),
        ({"hdr_len": HDR - 1}, INVALID_LEN),
        ({"trans_len": PAGE - 16}, INVALID_LEN),
        ({"guest_len": PAGE - 16}, BAD_MEASUREMENT),
    ],
)
def test_what_receive_update_refuses(odd: dict[str, int], answer: sevraw.Answer) -> None:
    with Machine() as machine:
        source, target = session(machine)
        wire = source.sent()
        before = target.bytes_at()
        assert target.receive(wire, **odd) == answer
        assert target.bytes_at() == before
        assert target.receive(wire) == OK


def test_blobs_may_have_16_kib_and_not_more() -> None:
    with Machine() as machine:
        source, target = session(machine)
        wide = source.send(hdr=0x4000, trans=0x4000)
        assert isinstance(wide, Wire)
        assert target.receive(wide) == OK
        assert target.view() == source.view()
        more = source.send(hdr=0x4001, trans=0x4001)  # the sender's kernel knows no such limit
        assert isinstance(more, Wire)
        assert target.receive(more) == ("EINVAL", UNASKED)
        other = filled(machine)
        assert other.send_start(room=0x4001)[0] == ("EINVAL", UNASKED)
        pdh, plat, amd = Chip("chip 0").certificates()
        for blobs in ((bytes(0x4001), plat, amd), (pdh, bytes(0x4001), amd), (pdh, plat, b"")):
            assert other.send_start(blobs=blobs)[0] == ("EINVAL", UNASKED)
        assert other.send_start(room=0x4000)[0] == OK


# -- what a session means -----------------------------------------------------------------------


def test_what_arrives_is_what_was_sent_and_unreadable_on_the_way() -> None:
    with Machine() as machine:
        source, target = session(machine)
        for page, content in enumerate(sevraw.pages(4)):
            wire = source.sent(page)
            assert wire.trans not in {content, source.bytes_at(page)}
            assert target.receive(wire, page) == OK
            assert target.view(page) == content
            assert target.bytes_at(page) != source.bytes_at(page)
        assert [source.issue(sevraw.SEND_FINISH), target.issue(sevraw.RECEIVE_FINISH)] == [OK, OK]
        assert (source.state(), target.state()) == (sevraw.SENT, sevraw.RUNNING)


def test_packets_may_come_in_any_order_to_any_page_more_than_once() -> None:
    """The MAC is over no order and no address: QEMU sends pages again as they get dirty."""
    with Machine() as machine:
        source, target = session(machine)
        wires = [source.sent(page) for page in range(4)]
        for page in (3, 1, 2, 0, 1):
            assert target.receive(wires[page], 3 - page) == OK
        assert [target.view(3 - page) for page in range(4)] == list(sevraw.pages(4))


def test_the_same_page_sent_twice_looks_different() -> None:
    with Machine() as machine:
        source, _target = session(machine)
        first, second = source.sent(), source.sent()
        assert first.trans != second.trans
        assert first.hdr != second.hdr


@pytest.mark.parametrize("bit", [0, 31, 32, 159, 160, 415, 416, 8 * (HDR + PAGE) - 1])
def test_a_flipped_bit_anywhere_is_refused_and_nothing_written(bit: int) -> None:
    """In flags, iv, mac, and contents."""
    with Machine() as machine:
        source, target = session(machine)
        wire = source.sent()
        before = target.bytes_at()
        assert target.receive(wire.flipped(bit)) == BAD_MEASUREMENT
        assert target.bytes_at() == before


def test_a_header_of_another_packet_is_refused() -> None:
    with Machine() as machine:
        source, target = session(machine)
        first, second = source.sent(0), source.sent(1)
        assert target.receive(Wire(first.hdr, second.trans)) == BAD_MEASUREMENT
        swapped_iv = first.hdr[:4] + second.hdr[4:20] + first.hdr[20:]
        assert target.receive(Wire(swapped_iv, first.trans)) == BAD_MEASUREMENT


def test_packets_of_another_session_are_refused() -> None:
    with Machine() as machine:
        source, target = session(machine)
        other, _ = session(machine)
        assert target.receive(other.sent()) == BAD_MEASUREMENT
        assert source.issue(sevraw.SEND_CANCEL) == OK
        assert source.send_start()[0] == OK
        assert target.receive(source.sent()) == BAD_MEASUREMENT


@pytest.mark.parametrize("byte", [0, 16, 48, 64, 96, 127])
def test_a_changed_session_is_refused(byte: int) -> None:
    """Nonce, keys, iv, both macs."""
    with Machine() as machine:
        _answer, blob = filled(machine).send_start()
        changed = bytearray(blob)
        changed[byte] ^= 1
        target = SevGuest(machine).init()
        assert target.receive_start(bytes(changed)) == BAD_MEASUREMENT
        assert target.receive_start(blob, policy=2) == BAD_MEASUREMENT
        assert target.receive_start(blob[:-1]) == INVALID_LEN
        assert target.receive_start(blob) == OK


def test_a_guest_goes_from_chip_to_chip_and_to_no_third() -> None:
    hosts = [replace(host_named("sev"), chip=f"chip {number}") for number in range(3)]
    with Machine(hosts[0]) as here, Machine(hosts[1]) as there, Machine(hosts[2]) as elsewhere:
        source = filled(here)
        answer, blob = source.send_start("chip 1")
        assert answer == OK
        wrong = SevGuest(elsewhere).init()
        assert wrong.receive_start(blob, chip="chip 0") == BAD_MEASUREMENT
        target = SevGuest(there).init()
        assert target.receive_start(blob, chip="chip 2") == BAD_MEASUREMENT
        assert target.receive_start(blob, chip="chip 0") == OK
        assert target.receive(source.sent()) == OK
        assert target.view() == source.view()


def test_wrong_certificates_are_refused() -> None:
    pdh, plat, amd = Chip("chip 0").certificates()
    foreign = Chip("chip 1").certificates()
    changed = bytes([pdh[0] ^ 1]) + pdh[1:]
    with Machine() as machine:
        guest = filled(machine)
        for blobs in (
            (plat, plat, amd),
            (changed, plat, amd),
            (foreign.pdh, plat, amd),
            (pdh, foreign.plat_certs, amd),
            (pdh, plat, amd[:-1]),
            (pdh, plat[2084:], amd),
            (b"x", b"y", b"z"),
        ):
            assert guest.send_start(blobs=blobs)[0] == INVALID_CERTIFICATE
        assert guest.send_start(blobs=(pdh, plat, amd))[0] == OK


def test_a_guest_whose_policy_forbids_it_is_not_sent() -> None:
    with Machine() as machine:
        guest = filled(machine, policy=NOSEND)
        assert guest.send_start()[0] == POLICY_FAILURE
        assert guest.state() == sevraw.RUNNING


def test_commands_in_the_wrong_state_are_refused() -> None:
    with Machine() as machine:
        guest = filled(machine)
        assert guest.send() == INVALID_STATE
        assert guest.launch_update() == INVALID_STATE
        assert guest.receive(Wire(bytes(HDR), bytes(PAGE))) == INVALID_STATE
        for number in (sevraw.SEND_FINISH, sevraw.SEND_CANCEL, sevraw.RECEIVE_FINISH):
            assert guest.issue(number) == INVALID_STATE


# -- /dev/sev -----------------------------------------------------------------------------------


def test_the_platform_exports_the_certificates_that_others_accept() -> None:
    with Machine() as machine:
        lengths = Buffer(struct.pack("<QIQI", 0, 0, 0, 0))
        command = Buffer(struct.pack("<IQI", 5, lengths.address, UNASKED))
        assert machine.ioctl(machine.sev, sevraw.SEV_ISSUE_CMD, command) == "EIO"
        assert struct.unpack("<IQI", command.bytes)[2] == 4
        _, pdh_len, _, chain_len = struct.unpack("<QIQI", lengths.bytes)
        pdh, chain = Buffer(bytes(pdh_len)), Buffer(bytes(chain_len))
        data = Buffer(struct.pack("<QIQI", pdh.address, pdh_len, chain.address, chain_len))
        command = Buffer(struct.pack("<IQI", 5, data.address, UNASKED))
        assert machine.ioctl(machine.sev, sevraw.SEV_ISSUE_CMD, command) == 0
        blobs = (pdh.bytes, chain.bytes, Chip("chip 0").certificates().amd_certs)
        assert filled(machine).send_start(blobs=blobs)[0] == OK


@pytest.mark.parametrize(
    ("number", "result"), [(0, "EPERM"), (2, "EPERM"), (6, "EPERM"), (13, "EINVAL")]
)
def test_what_would_change_the_platform_is_refused(number: int, result: raw.Result) -> None:
    with Machine() as machine:
        command = Buffer(struct.pack("<IQI", number, 0, 0))
        assert machine.ioctl(machine.sev, sevraw.SEV_ISSUE_CMD, command) == result
        writable = machine.kernel.open("/dev/sev", os.O_RDWR)
        answer = machine.ioctl(writable, sevraw.SEV_ISSUE_CMD, command)
        assert answer == ("EINVAL" if result == "EINVAL" else "EIO")


def test_dev_sev_is_on_sev_hosts_only_and_knows_one_ioctl() -> None:
    with Machine() as machine:
        assert machine.ioctl(machine.sev, 0xAE01) == "EINVAL"
        assert machine.ioctl(machine.sev, sevraw.SEV_ISSUE_CMD) == "EFAULT"
    with pytest.raises(OSError, match="No such file"), FakeMachine() as plain:
        plain.kernel.open("/dev/sev")
