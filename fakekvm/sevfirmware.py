"""The SEV firmware of a fake chip: guests by handle, and one command at a time for all VMs.

Source: AMD, "Secure Encrypted Virtualization API", publication 55766, 0.24: the guest states and
what each command needs and checks. Addresses are those of the calling process: the fake has no
physical ones.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from fakekvm import sevdecode as abi
from fakekvm.clock import MachineClock
from fakekvm.fairlock import FairLock
from fakekvm.sevcerts import Chip, Files, are_certified, public_key
from fakekvm.sevcrypt import HDR_BYTES, SESSION_BYTES, MemoryKey, TransportKeys, derive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakekvm.clock import Clock
    from fakekvm.host import Host
    from fakekvm.processmemory import ProcessMemory

__all__ = ["Firmware", "FirmwareError", "State", "Turn"]

MEASURE_BYTES = 32 + 16  # a mac and a nonce
_BLOCK_BYTES = 16


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
class Turn:
    """A caller's time. What the fake itself needs for the call is within it.

    Attributes:
        entered: when it called.
        ends: the call is not to return before that.
    """

    entered: float
    ends: float = 0.0


@dataclass(slots=True)
class _Guest:
    """What the firmware knows of a guest."""

    policy: int
    state: State
    key: MemoryKey
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
        return self._guest(handle).key.crypt(address, memory.read(address, size))

    def _guest(self, handle: int, *states: State) -> _Guest:
        guest = self._guests.get(handle)
        if guest is None:
            raise FirmwareError(abi.INVALID_GUEST)
        if states and guest.state not in states:
            raise FirmwareError(abi.INVALID_GUEST_STATE)
        return guest

    def _add(self, policy: int, state: State, shared: MemoryKey | None = None) -> int:
        self._made += 1
        key = shared or MemoryKey(derive(self.chip.secret, f"guest {self._made}"))
        self._guests[self._made] = _Guest(policy, state, key)
        return self._made

    # -- launch -----------------------------------------------------------------------------

    def launch_update(self, handle: int, memory: ProcessMemory, address: int, size: int) -> None:
        """Encrypt memory in place."""
        with self._turn:
            guest = self._guest(handle, State.LAUNCH_UPDATE)
            _check_blocks(address, size)
            memory.write(address, guest.key.crypt(address, memory.read(address, size)))

    def launch_measure(self, handle: int, size: int) -> bytes:
        """End the updates. What is returned is no measurement: nobody checks it here."""
        with self._turn:
            guest = self._guest(handle, State.LAUNCH_UPDATE)
            if size < MEASURE_BYTES:
                raise FirmwareError(abi.INVALID_LEN, MEASURE_BYTES)
            guest.state = State.LAUNCH_SECRET
            return derive(self.chip.secret, f"measure {handle}", MEASURE_BYTES)

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
        self, handle: int, memory: ProcessMemory, packet: abi.Packet, turn: Turn
    ) -> tuple[bytes, bytes]:
        """A page, or a part of one, for the way: its header and contents."""
        with self._taking(self._speed.send, 1, turn):
            return self._send(handle, memory, packet)

    def send_many(
        self, handle: int, memory: ProcessMemory, packets: list[abi.Packet], turn: Turn
    ) -> list[tuple[bytes, bytes]]:
        """Many in one command, as Hygon's firmware takes them from its ring."""
        with self._taking(self._speed.batch, len(packets), turn):
            return [self._send(handle, memory, packet) for packet in packets]

    def _send(self, handle: int, memory: ProcessMemory, packet: abi.Packet) -> tuple[bytes, bytes]:
        guest = self._guest(handle, State.SEND_UPDATE)
        if packet.hdr_len < HDR_BYTES or packet.trans_len < packet.guest_len:
            raise FirmwareError(abi.INVALID_LEN, HDR_BYTES)
        address, size = packet.guest_uaddr, packet.guest_len
        _check_blocks(address, size)
        assert guest.transport is not None, "SEND_UPDATE has keys"
        guest.packets += 1
        plain = guest.key.crypt(address, memory.read(address, size))
        return guest.transport.seal(guest.packets, plain, packet.trans_len)

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
        self,
        handle: int,
        memory: ProcessMemory,
        packet: abi.Packet,
        sealed: tuple[bytes, bytes],
        turn: Turn,
    ) -> None:
        """Put a page that was sent at its place, under this guest's key."""
        with self._taking(self._speed.receive, 1, turn):
            self._receive(handle, memory, packet, sealed)

    def receive_many(
        self,
        handle: int,
        memory: ProcessMemory,
        packets: list[tuple[abi.Packet, tuple[bytes, bytes]]],
        turn: Turn,
    ) -> None:
        """Many in one command."""
        with self._taking(self._speed.batch, len(packets), turn):
            for packet, sealed in packets:
                self._receive(handle, memory, packet, sealed)

    def _receive(
        self, handle: int, memory: ProcessMemory, packet: abi.Packet, sealed: tuple[bytes, bytes]
    ) -> None:
        guest = self._guest(handle, State.RECEIVE_UPDATE)
        hdr, trans = sealed
        if len(hdr) < HDR_BYTES or len(trans) < packet.guest_len:
            raise FirmwareError(abi.INVALID_LEN, HDR_BYTES)
        address = packet.guest_uaddr
        _check_blocks(address, packet.guest_len)
        assert guest.transport is not None, "RECEIVE_UPDATE has keys"
        plain = guest.transport.open(hdr, trans, packet.guest_len)
        if plain is None:
            raise FirmwareError(abi.BAD_MEASUREMENT)
        memory.write(address, guest.key.crypt(address, plain))

    def receive_finish(self, handle: int) -> None:
        """The guest may run here."""
        self._step(handle, State.RECEIVE_UPDATE, State.RUNNING)

    # -- time -------------------------------------------------------------------------------

    @contextmanager
    def _taking(self, pages_per_s: float, pages: int, turn: Turn) -> Iterator[None]:
        """Serve one caller; ``turn.ends`` becomes when that is over, after all who came before."""
        with self._turn:
            yield
            if pages_per_s:
                turn.ends = max(turn.entered, self._free_at) + pages / pages_per_s
                self._free_at = turn.ends


def _check_blocks(address: int, size: int) -> None:
    if address % _BLOCK_BYTES:
        raise FirmwareError(abi.INVALID_ADDRESS)
    if size % _BLOCK_BYTES:
        raise FirmwareError(abi.INVALID_LEN)
