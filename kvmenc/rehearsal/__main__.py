"""The process of a destination, made by ``apart.far_target``: does what comes over a connection."""

from __future__ import annotations

import os
import pickle
import sys
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from kvmenc.errors import KvmencError
from kvmenc.memory.layout import Layout
from kvmenc.rehearsal.apart import RECORD
from kvmenc.rehearsal.ends import near_target
from kvmenc.rehearsal.heap import keep_freed_memory

if TYPE_CHECKING:
    from kvmenc.rehearsal.destination import NearTarget


def _serve(connection: Connection) -> None:
    """Until the other end is gone."""
    slots, blocks = pickle.loads(connection.recv_bytes())
    with near_target(Layout(slots, blocks)) as target:
        while True:
            _carry_out(connection, target, memoryview(connection.recv_bytes()))


def _carry_out(connection: Connection, target: NearTarget, message: memoryview) -> None:
    of_record: bool = message[:1] == RECORD
    if of_record and target.ended:
        return
    try:
        if of_record:
            target.take(message[1:])
            return
        name, args = pickle.loads(message[1:])
        answer: tuple[bool, bool, object] = of_record, False, getattr(target, name)(*args)
    except KvmencError as error:
        answer = of_record, True, str(error)
    connection.send_bytes(pickle.dumps(answer))


def _main() -> None:
    keep_freed_memory()
    with Connection(int(sys.argv[1])) as connection:
        try:
            _serve(connection)
        except (EOFError, OSError):
            os._exit(0)  # the other end is done; memory of gigabytes goes with the process


if __name__ == "__main__":
    _main()
