"""An outbox that never waits: a chat whose slow readers hold nobody up.

``poll_write`` of a ``BufWriter`` puts a line into the member's outbox, whole, or raises
``NotReady`` if there is no room. It never waits, so to post to everybody is a plain loop. Beside
it, one task for each member flushes. An outbox is bounded by its capacity, however slow its reader
is; what to do when it is full is up to you. Here, a member who has missed some lines is told how
many. One who has missed too many in a row is out.

Prints::

    carol is out, after 60 lines in a row that she had no room for
    anna (TCP) got 400 lines and missed 0
    bert (TLS) is slow: the lines that he got and those that he was told he missed are 400
    no outbox held more than 4000 bytes
"""

from __future__ import annotations

import contextlib
import re
import ssl

import trio
import trustme

from trio_asyncwrite import (
    AsyncReadWrite,
    BufWriter,
    NotReady,
    TlsStream,
    abort,
    close_gracefully,
    duplex,
)

OUTBOX = 4000  # bytes that may wait for one member; a line must be shorter
MAX_MISSED = 60  # lines in a row that a member may miss


class Member:
    """A connection and its outbox."""

    def __init__(self, stream: AsyncReadWrite) -> None:
        self.outbox = BufWriter(stream, OUTBOX)
        self.scope = trio.CancelScope()
        self.missed = 0
        self.most_held = 0
        self.is_out = False
        self._posted = trio.Event()

    def post(self, line: bytes) -> None:
        """Put a line into the outbox, or drop it if there is no room. It never waits."""
        if self.missed:
            line = b"(you missed %d lines)\n" % self.missed + line
        try:
            self.outbox.poll_write(line)  # a line is shorter than the outbox: all of it, or nothing
        except NotReady:
            self.missed += 1
            self.is_out = self.missed >= MAX_MISSED
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.is_out = True  # the connection has failed, or was closed
        else:
            self.missed = 0
        self.most_held = max(self.most_held, self.outbox.held_bytes)
        self._posted.set()

    async def flush_for_ever(self) -> None:
        """Send what is posted. Lines that are posted during a flush leave with it."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await self._posted.wait()
                self._posted = trio.Event()
                await self.outbox.flush()


class Room:
    """All members. To say something is a plain loop, and takes no longer for a slow member."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.most_held = 0

    def say(self, text: str) -> None:
        for member in self.members.values():
            member.post(text.encode() + b"\n")
            if member.is_out:
                member.scope.cancel()

    async def serve(self, name: str, stream: AsyncReadWrite) -> None:
        """What a handler of ``serve_tcp`` or ``serve_tls_over_tcp`` does."""
        member = self.members[name] = Member(stream)
        async with trio.open_nursery() as nursery:
            member.scope = nursery.cancel_scope
            nursery.start_soon(member.flush_for_ever)
            with contextlib.suppress(trio.BrokenResourceError):
                async for _ in stream:  # what the member says; here, nothing
                    pass
            nursery.cancel_scope.cancel()
        del self.members[name]
        self.most_held = max(self.most_held, member.most_held)
        if member.is_out:
            print(f"{name} is out, after {member.missed} lines in a row that she had no room for")
            await abort(stream)  # it costs nothing more, not even the kernel's memory
        else:
            await close_gracefully(stream)  # a server with a drain does it


async def listen(stream: AsyncReadWrite, received: bytearray, pause: float) -> None:
    """A client that reads 1000 bytes at a time."""
    with contextlib.suppress(trio.ClosedResourceError):
        while chunk := await stream.receive_some(1000):
            received += chunk
            await trio.sleep(pause)


async def main() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    room = Room()
    anna_client, anna = duplex(capacity=4096)  # in a program, connections
    bert_transport, bert_below = duplex(capacity=4096)
    bert = TlsStream(bert_below, server_context, server_side=True)
    bert_client = TlsStream(bert_transport, client_context, server_hostname="localhost")
    carol_client, carol = duplex(capacity=4096)
    annas, berts = bytearray(), bytearray()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.serve, "anna", anna)
        nursery.start_soon(room.serve, "bert", bert)
        nursery.start_soon(room.serve, "carol", carol)  # who reads nothing
        nursery.start_soon(listen, anna_client, annas, 0)
        nursery.start_soon(listen, bert_client, berts, 0.7)
        await trio.sleep(1)
        for _ in range(400):
            room.say("hello " * 20)
            await trio.sleep(0.05)
        await trio.sleep(30)  # bert catches up
        told = sum(map(int, re.findall(rb"missed (\d+)", berts)))
        missed = told + room.members["bert"].missed
        await anna_client.aclose()
        await bert_client.aclose()
        await carol_client.aclose()

    print(f"anna (TCP) got {annas.count(b'hello ' * 20)} lines and missed 0")
    assert missed > 0
    print(
        "bert (TLS) is slow: the lines that he got and those that he was told he missed are",
        berts.count(b"hello " * 20) + missed,
    )
    assert room.most_held <= OUTBOX
    print(f"no outbox held more than {OUTBOX} bytes")


if __name__ == "__main__":
    trio.run(main)
