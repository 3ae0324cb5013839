"""The SEV firmware of a fake chip: guests by handle, and one command at a time for all VMs.

Source: AMD, "Secure Encrypted Virtualization API", publication 55766, 0.24: the guest states and
what each command needs and checks. Addresses are those of the calling process: the fake has no
physical ones.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from fakekvm import sevdecode as abi
from fakekvm.clock import MachineClock
from fakekvm.fairlock import FairLock
from fakekvm.sevcerts import Chip, Files, are_certified, public_key
from fakekvm.sevcrypt import (
    BLOCK_BYTES,
    HDR_BYTES,
    SESSION_BYTES,
    ClearMemory,
    MemoryKey,
    TransportKeys,
    derive,
    mac_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fakekvm.clock import Clock
    from fakekvm.host import Host
    from fakekvm.processmemory import ProcessMemory
    from fakekvm.sevcrypt import Memory

    #: Header and contents of a packet.
    Sealed = tuple[bytes | memoryview, bytes | memoryview]

__all__ = ["Firmware", "FirmwareError", "State"]

MEASURE_BYTES = 32 + 16  # a mac and a nonce


class State(IntEnum):
    """A guest's state. The kernel's documentation has 4 and 5 the other way round."""

    UNINIT, LAUNCH_UPDATE, LAUNCH_SECRET, RUNNING, SEND_UPDATE, RECEIVE_UPDATE, SENT = range(7)


class FirmwareError(Exception):
    """The firmware refused.

    Attributes:
        code: why, as in psp-sev.h.
        needed: with INVALID_LEN: how long the buffer must be.
    """

    def __init__(self, code: int, needed: int = 0) -> None:
        super().__init__(f"firmware error {code:#x}")
        self.code = code
        self.needed = needed


@dataclass(slots=True)
class _Guest:
    """What the firmware knows of a guest."""

    policy: int
    state: State
    key: Memory
    launched: hashlib._Hash = field(default_factory=hashlib.sha256)
    asid: int = 0
    transport: TransportKeys | None = None
    packets: int = 0


class Firmware:
    """Carries out commands; ``FirmwareError`` is what each fails with.

    Args:
        host: whose firmware it is: chip and speed.

    Attributes:
        chip: its keys.
        clock: what its speed is by; may be replaced.
    """

    def __init__(self, host: Host) -> None:
        self._speed = host.firmware
        self._clear_memory = host.clear_memory
        self.chip = Chip(host.chip)
        self._guests: dict[int, _Guest] = {}
        self._made = 0
        self._turn = FairLock()
        self._free_at = 0.0
        self.clock: Clock = MachineClock()

    @property
    def guest_count(self) -> int:
        """Guests that have a handle."""
        return len(self._guests)

    # -- guests -----------------------------------------------------------------------------

    def launch_start(self, handle: int, policy: int) -> int:
        """A new guest; with the key of another one if ``handle`` is not 0. Returns its handle."""
        with self._turn:
            shared = self._guest(handle).key if handle else None
            return self._add(policy, State.LAUNCH_UPDATE, shared)

    def activate(self, handle: int, asid: int) -> None:
        """Give it an ASID of its own."""
        with self._turn:
            if any(it.asid == asid for it in self._guests.values()):
                raise FirmwareError(abi.ASID_OWNED)
            self._guest(handle).asid = asid

    def decommission(self, handle: int) -> None:
        """Forget a guest and its keys."""
        with self._turn:
            self._guests.pop(handle, None)

    def guest_status(self, handle: int) -> tuple[int, State]:
        """Its policy and state."""
        with self._turn:
            guest = self._guest(handle)
            return guest.policy, guest.state

    def debug_decrypt(self, handle: int, memory: ProcessMemory, address: int, size: int) -> bytes:
        """Private memory in the clear, where the guest's policy allows that."""
        with self._turn:
            guest = self._guest(handle)
            if guest.policy & abi.POLICY_NODBG:
                raise FirmwareError(abi.POLICY_FAILURE)
            _check_blocks(address, size)
            return guest.key.crypt(address, memory.read(address, size))

    def guest_view(self, handle: int, memory: ProcessMemory, address: int, size: int) -> bytes:
        """Memory as the guest reads it when it takes it for private. No command of AMD's."""
        with self._turn:
            return self._guest(handle).key.crypt(address, memory.read(address, size))

    def _guest(self, handle: int, *states: State) -> _Guest:
        guest = self._guests.get(handle)
        if guest is None:
            raise FirmwareError(abi.INVALID_GUEST)
        if states and guest.state not in states:
            raise FirmwareError(abi.INVALID_GUEST_STATE)
        return guest

    def _add(self, policy: int, state: State, shared: Memory | None = None) -> int:
        self._made += 1
        self._guests[self._made] = _Guest(policy, state, shared or self._new_key())
        return self._made

    def _new_key(self) -> Memory:
        if self._clear_memory:
            return ClearMemory()
        return MemoryKey(derive(self.chip.secret, f"guest {self._made}"))

    # -- launch -----------------------------------------------------------------------------

    def launch_update(self, handle: int, memory: ProcessMemory, address: int, size: int) -> None:
        """Encrypt memory in place."""
        with self._turn:
            guest = self._guest(handle, State.LAUNCH_UPDATE)
            _check_blocks(address, size)
            plain = memory.read(address, size)
            guest.launched.update(plain)
            memory.write(address, guest.key.crypt(address, plain))

    def launch_measure(self, handle: int, size: int) -> bytes:
        """End the updates; a MAC over all of them, and its nonce.

        AMD's is under a key that the guest's owner agreed on; here it is one of the chip's.
        """
        with self._turn:
            guest = self._guest(handle, State.LAUNCH_UPDATE)
            if size < MEASURE_BYTES:
                raise FirmwareError(abi.INVALID_LEN, MEASURE_BYTES)
            guest.state = State.LAUNCH_SECRET
            nonce = derive(self.chip.secret, f"measure {handle}")
            measured = struct.pack("<I", guest.policy), guest.launched.digest(), nonce
            return mac_of(self.chip.secret, b"\4", *measured) + nonce

    def launch_finish(self, handle: int) -> None:
        """The guest may run."""
        self._step(handle, State.LAUNCH_SECRET, State.RUNNING)

    def _step(self, handle: int, old: State, new: State) -> None:
        with self._turn:
            guest = self._guest(handle, old)
            guest.state, guest.transport = new, None

    # -- send -------------------------------------------------------------------------------

    def send_start(self, handle: int, target: Files, session_len: int) -> tuple[int, bytes]:
        """Begin to send to who has the PDH of ``target``; returns the policy and the session."""
        with self._turn:
            guest = self._guest(handle, State.RUNNING)
            if guest.policy & abi.POLICY_NOSEND:
                raise FirmwareError(abi.POLICY_FAILURE)
            if session_len < SESSION_BYTES:
                raise FirmwareError(abi.INVALID_LEN, SESSION_BYTES)
            public = public_key(target.pdh)
            if public is None or not are_certified(target):
                raise FirmwareError(abi.INVALID_CERTIFICATE)
            guest.transport, nonce = self._new_session()
            guest.state = State.SEND_UPDATE
            master = self.chip.shared_secret(public)
            return guest.policy, guest.transport.wrap(master, nonce, guest.policy)

    def _new_session(self) -> tuple[TransportKeys, bytes]:
        self._made += 1
        named = [derive(self.chip.secret, f"{it} {self._made}") for it in ("tek", "tik", "nonce")]
        return TransportKeys(*named[:2]), named[2]

    def send_update(
        self, handle: int, content: bytes | memoryview, packet: abi.Packet, command: abi.Command
    ) -> tuple[bytes, bytes]:
        """A page, or a part of one, for the way: its header and contents.

        Args:
            handle: of the guest.
            content: what lies at the packet's guest address.
            packet: its lengths, and that address.
            command: whose time it takes.
        """
        with self._turn:
            sealed = self._send(handle, content, packet)
            self._take(self._speed.send, 1, command)
            return sealed

    def send_many(
        self, handle: int, pages: list[tuple[abi.Packet, bytes]], command: abi.Command
    ) -> list[tuple[bytes, bytes]]:
        """Many in one command, as Hygon's firmware takes them from its ring."""
        with self._turn:
            sealed = [self._send(handle, content, packet) for packet, content in pages]
            self._take(self._speed.batch, len(pages), command)
            return sealed

    def _send(
        self, handle: int, content: bytes | memoryview, packet: abi.Packet
    ) -> tuple[bytes, bytes]:
        guest = self._guest(handle, State.SEND_UPDATE)
        _, hdr_len, address, size, _, trans_len = packet
        if hdr_len < HDR_BYTES or trans_len < size:
            raise FirmwareError(abi.INVALID_LEN, HDR_BYTES)
        _check_blocks(address, size)
        assert guest.transport is not None, "SEND_UPDATE has keys"
        guest.packets += 1
        plain = guest.key.crypt(address, content)
        return guest.transport.seal(guest.packets, plain, trans_len)

    def send_finish(self, handle: int) -> None:
        """The guest is gone: it runs here no more."""
        self._step(handle, State.SEND_UPDATE, State.SENT)

    def send_cancel(self, handle: int) -> None:
        """The guest stays."""
        self._step(handle, State.SEND_UPDATE, State.RUNNING)

    # -- receive ----------------------------------------------------------------------------

    def receive_start(self, handle: int, policy: int, pdh: bytes, session: bytes) -> int:
        """A new guest, to be filled by who has this PDH; returns its handle."""
        with self._turn:
            public = public_key(pdh)
            if public is None:
                raise FirmwareError(abi.INVALID_CERTIFICATE)
            if len(session) < SESSION_BYTES:
                raise FirmwareError(abi.INVALID_LEN, SESSION_BYTES)
            keys = TransportKeys.unwrap(self.chip.shared_secret(public), session, policy)
            if keys is None:
                raise FirmwareError(abi.BAD_MEASUREMENT)
            shared = self._guest(handle).key if handle else None
            made = self._add(policy, State.RECEIVE_UPDATE, shared)
            self._guests[made].transport = keys
            return made

    def receive_update(
        self, handle: int, packet: abi.Packet, sealed: Sealed, command: abi.Command
    ) -> bytes:
        """What is to lie at the packet's guest address: the page, under this guest's key.

        Args:
            handle: of the guest.
            packet: its lengths, and that address.
            sealed: header and contents, as they arrived.
            command: whose time it takes.
        """
        with self._turn:
            content = self._receive(handle, packet, sealed)
            self._take(self._speed.receive, 1, command)
            return content

    def receive_many(
        self,
        handle: int,
        memory: ProcessMemory,
        packets: Sequence[tuple[abi.Packet, Sealed]],
        command: abi.Command,
    ) -> None:
        """Many in one command; those before one that is refused stay."""
        with self._turn:
            for packet, sealed in packets:
                memory.write(packet.guest_uaddr, self._receive(handle, packet, sealed))
            self._take(self._speed.batch, len(packets), command)

    def _receive(self, handle: int, packet: abi.Packet, sealed: Sealed) -> bytes:
        guest = self._guest(handle, State.RECEIVE_UPDATE)
        hdr, trans = sealed
        address, size = packet.guest_uaddr, packet.guest_len
        if len(hdr) < HDR_BYTES or len(trans) < size:
            raise FirmwareError(abi.INVALID_LEN, HDR_BYTES)
        _check_blocks(address, size)
        assert guest.transport is not None, "RECEIVE_UPDATE has keys"
        plain = guest.transport.open(hdr, trans, size)
        if plain is None:
            raise FirmwareError(abi.BAD_MEASUREMENT)
        return guest.key.crypt(address, plain)

    def receive_finish(self, handle: int) -> None:
        """The guest may run here."""
        self._step(handle, State.RECEIVE_UPDATE, State.RUNNING)

    # -- time -------------------------------------------------------------------------------

    def stall(self, seconds: float) -> None:
        """Be busy for so long, after all that came before; the caller waits for it."""
        with self._turn:
            ends = self._free_at = max(self.clock.now(), self._free_at) + seconds
        self.clock.wait_until(ends)

    def _take(self, pages_per_s: float, pages: int, command: abi.Command) -> None:
        """``command.ends`` becomes when these pages are done, after all who came before."""
        if pages_per_s:
            command.ends = max(command.entered, self._free_at) + pages / pages_per_s
            self._free_at = command.ends


def _check_blocks(address: int, size: int) -> None:
    if address % BLOCK_BYTES:
        raise FirmwareError(abi.INVALID_ADDRESS)
    if size % BLOCK_BYTES:
        raise FirmwareError(abi.INVALID_LEN)
