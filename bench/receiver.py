"""The other end of every connection: reads, counts, discards. Runs in a process of its own.

Its standard streams are the control pipe. It prints the port it listens on; then, for each line
with a number of bytes to expect, it accepts one connection, prints "ready", reads that many, and
prints how many it got.
"""

from __future__ import annotations

import socket
import sys

#: As much as asyncio's transports read at once.
BUFFER_SIZE = 1 << 18


def count_bytes(connection: socket.socket, expected: int, buffer: bytearray) -> int:
    """Read until ``expected`` bytes or the end of the stream have come."""
    count = 0
    while count < expected:
        received = connection.recv_into(buffer)
        if not received:
            break
        count += received
    return count


def main() -> None:
    buffer = bytearray(BUFFER_SIZE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        for line in sys.stdin:
            connection, _ = listener.accept()
            with connection:
                print("ready", flush=True)
                print(count_bytes(connection, int(line), buffer), flush=True)


if __name__ == "__main__":
    main()
