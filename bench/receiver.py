"""The other end of every connection: reads, counts, discards. Runs in a process of its own.

Its argument is the file of its certificate and key, its standard streams are the control pipe. It
prints "started"; then, for each line, it prints the port that it listens on, "ready", and in the
end what it has counted. The line is one of

``bytes N``: it accepts one connection and reads N bytes from it.
``tls N``: it accepts N connections, one after the other; does the handshake; and reads until
    close_notify. It counts ciphertext, and decrypts nothing, for it is the sender that is measured.
``ends N``: it accepts N connections, is ready, and closes each when the peer has ended it.
``ping N``, ``tls-ping N``: it accepts one connection, and answers N requests of 64 bytes, over TLS
    or not, each by as many bytes. It counts the bytes of the requests.
``slow N``: it accepts one connection, and reads 200 kB per second for N milliseconds.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import sys
import time

HOST = "127.0.0.1"

#: As much as asyncio's transports read at once.
BUFFER_SIZE = 1 << 18

#: What a record has around its plaintext: header, content type, tag (RFC 8446, section 5.2).
RECORD_OVERHEAD = 5 + 1 + 16

#: A request, and its answer.
PING_SIZE = 64

#: How fast the slow reader reads, in bytes per second, and how many bytes it reads at a time.
SLOW_RATE, SLOW_SIZE = 200_000, 20_000

#: A close_notify, which is an alert and so has two bytes of plaintext; and how such a record
#: begins. None of the workloads has messages of two bytes.
GOODBYE_SIZE = RECORD_OVERHEAD + 2
GOODBYE = bytes([23, 3, 3, 0, GOODBYE_SIZE - 5])


def say(what: object) -> None:
    print(what, flush=True)


def read_bytes(listener: socket.socket, expected: int) -> int:
    """Read until ``expected`` bytes or the end of the stream have come."""
    buffer = bytearray(BUFFER_SIZE)
    connection, _ = listener.accept()
    with connection:
        say("ready")
        count = 0
        while count < expected:
            received = connection.recv_into(buffer)
            if not received:
                break
            count += received
        return count


def read_ciphertext(connection: ssl.SSLSocket) -> int:
    """Count until close_notify or the end of the stream has come."""
    buffer = bytearray(BUFFER_SIZE)
    view = memoryview(buffer)
    tail = b""
    count = 0
    while tail[: len(GOODBYE)] != GOODBYE:
        # The method of the class below passes OpenSSL by.
        received = socket.socket.recv_into(connection, buffer)
        if not received:
            break
        count += received
        last = view[max(0, received - GOODBYE_SIZE) : received]
        tail = (tail + last)[-GOODBYE_SIZE:]
    return count


def read_tls(listener: socket.socket, context: ssl.SSLContext, count: int) -> int:
    """Shake hands with ``count`` connections in turn, and read each to its end."""
    # Before the handshake: an event loop may have put off sending the last of its part, and would
    # be blocked while it waits for this.
    say("ready")
    total = 0
    for _ in range(count):
        accepted, _ = listener.accept()
        with context.wrap_socket(accepted, server_side=True) as connection:
            total += read_ciphertext(connection)
            connection.setblocking(False)
            # Our goodbye, to whoever still listens. It goes, and then the peer's is not to be
            # found: that one was read as ciphertext.
            with contextlib.suppress(OSError):
                connection.unwrap()
    return total


def await_ends(listener: socket.socket, count: int) -> int:
    """Have ``count`` connections, and close each when its peer has ended it."""
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            connection, _ = listener.accept()
            selector.register(connection, selectors.EVENT_READ)
        say("ready")
        ended = 0
        while ended < count:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(ConnectionResetError):
                    if key.fileobj.recv(BUFFER_SIZE):
                        continue
                selector.unregister(key.fileobj)
                key.fileobj.close()
                ended += 1
        return ended


def answer_pings(listener: socket.socket, context: ssl.SSLContext | None, count: int) -> int:
    """Answer ``count`` requests of one connection."""
    say("ready")  # before a handshake, as above
    accepted, _ = listener.accept()
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    total = 0
    with context.wrap_socket(accepted, server_side=True) if context else accepted as connection:
        while total < count * PING_SIZE:
            request = connection.recv(PING_SIZE - total % PING_SIZE)
            if not request:
                break
            total += len(request)
            connection.sendall(request)
    return total


def read_slowly(listener: socket.socket, milliseconds: int) -> int:
    """Read as a client behind a slow link does."""
    connection, _ = listener.accept()
    with connection:
        say("ready")
        begin, count = time.perf_counter(), 0
        while (passed := time.perf_counter() - begin) < milliseconds / 1000:
            if count > passed * SLOW_RATE:
                time.sleep(0.001)
            else:
                count += len(connection.recv(SLOW_SIZE))
    return count


def main() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Tickets would be something to read, to peers that only write.
    context.num_tickets = 0
    context.load_cert_chain(sys.argv[1])
    say("started")
    for line in sys.stdin:
        word, number = line.split()
        # A new port, so that nobody has to wait for the ports of connections past.
        with socket.create_server((HOST, 0), backlog=4096) as listener:
            say(listener.getsockname()[1])
            if word == "bytes":
                counted = read_bytes(listener, int(number))
            elif word == "tls":
                counted = read_tls(listener, context, int(number))
            elif word == "slow":
                counted = read_slowly(listener, int(number))
            elif word.endswith("ping"):
                over = context if word == "tls-ping" else None
                counted = answer_pings(listener, over, int(number))
            else:
                counted = await_ends(listener, int(number))
        say(counted)


if __name__ == "__main__":
    main()
