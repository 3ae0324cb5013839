"""Takes TCP connections, one after the other, and reads all that comes, as a program.

It prints its port once it listens.
"""

from __future__ import annotations

import socket

_CHUNK_BYTES = 1 << 20


def swallow(connection: socket.socket) -> int:
    """How many bytes came before the other end closed."""
    chunk = memoryview(bytearray(_CHUNK_BYTES))
    total = 0
    while received := connection.recv_into(chunk):
        total += received
    return total


def main() -> None:
    with socket.create_server(("", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                swallow(connection)


if __name__ == "__main__":
    main()
