"""A TCP transfer as a program: ``receive PORT SECONDS`` or ``send HOST PORT``.

The receiver leaves out the first half second, in which a shaper's burst passes, and prints bytes
per second.
"""

from __future__ import annotations

import socket
import sys
import time

_SETTLE_S = 0.5


def receive(port: int, seconds: float) -> None:
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        print("ready", flush=True)
        connection, _ = server.accept()
        with connection:
            start = time.monotonic() + _SETTLE_S
            while time.monotonic() < start:
                connection.recv(1 << 20)
            start, received = time.monotonic(), 0
            while time.monotonic() < start + seconds:
                received += len(connection.recv(1 << 20))
            print(received / (time.monotonic() - start), flush=True)


def send(host: str, port: int) -> None:
    with socket.create_connection((host, port)) as connection:
        data = bytes(1 << 20)
        try:
            while True:
                connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(int(sys.argv[2]), float(sys.argv[3]))
    else:
        send(sys.argv[2], int(sys.argv[3]))
