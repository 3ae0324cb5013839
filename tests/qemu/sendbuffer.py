"""What a TCP connection carries, and takes at once, as a program: HOST PORT; prints both.

The kernel's buffer grows with what has been sent, so the connection is kept busy for some seconds;
then it rests until all has arrived, and takes what it can.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import time
from contextlib import suppress

_SIOCOUTQ = 0x5411
_SETTLE_S, _BUSY_S, _FILLS = 0.5, 3.0, 4
_CHUNK = bytes(1 << 16)


def unacknowledged(connection: socket.socket) -> int:
    """Bytes that were written and have not been acknowledged (man 7 tcp, SIOCOUTQ)."""
    answer: int = struct.unpack("i", fcntl.ioctl(connection, _SIOCOUTQ, bytes(4)))[0]
    return answer


def arrived(connection: socket.socket, seconds: float) -> int:
    """Bytes acknowledged while it is kept busy for so long."""
    deadline = time.monotonic() + seconds
    total = unacknowledged(connection)
    while time.monotonic() < deadline:
        connection.sendall(_CHUNK)
        total += len(_CHUNK)
    return total - unacknowledged(connection)


def taken_at_once(connection: socket.socket) -> int:
    """Not counting what left meanwhile."""
    while unacknowledged(connection):
        time.sleep(0.001)
    connection.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            connection.send(_CHUNK)
    taken = unacknowledged(connection)
    connection.setblocking(True)
    return taken


def main(host: str, port: int) -> None:
    with socket.create_connection((host, port)) as connection:
        arrived(connection, _SETTLE_S)
        start = time.monotonic()
        carried = arrived(connection, _BUSY_S)
        rate = carried / (time.monotonic() - start)
        print(rate, max(taken_at_once(connection) for _ in range(_FILLS)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
