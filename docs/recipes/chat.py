"""A chat: every message goes to every member, and a slow reader holds nobody up.

Several tasks write to one member at once: the fan-outs of all the others. ``SharedWriter`` puts
their messages in line, whole. And a member who does not keep up with the room is given up after a
while, instead of filling the memory or blocking the others.

Prints::

    carol does not keep up: she is out
    anna: 60 messages, all whole
    bert: 60 messages, all whole
"""

from __future__ import annotations

import trio

from trio_asyncwrite import DuplexStream, SharedWriter, abort, duplex

SEND_TIMEOUT = 2.0  # seconds for which a member may keep a message waiting, in line or half sent


class Room:
    """The members and their writers."""

    def __init__(self) -> None:
        self.members: dict[str, SharedWriter[DuplexStream]] = {}

    async def say(self, name: str, text: str) -> None:
        """Send a line to all members at once."""
        async with trio.open_nursery() as nursery:
            for member, writer in self.members.items():
                nursery.start_soon(self.send, member, writer, f"{name}: {text}\n".encode())

    async def send(self, member: str, writer: SharedWriter[DuplexStream], line: bytes) -> None:
        with trio.move_on_after(SEND_TIMEOUT) as scope:
            try:
                await writer.send_all(line)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # it is out already, or has left
        # If only this line had been withdrawn, the stream would still be in step. But who lets a
        # line wait for so long does not read, or more slowly than the others talk. (To put out
        # only those who take nothing at all, make it SharedWriter(TimeoutWriter(stream, idle=2)),
        # and be prepared for lines that wait without end.)
        if scope.cancelled_caught and member in self.members:
            del self.members[member]
            print(f"{member} does not keep up: she is out")
            await abort(writer)


async def read(name: str, stream: DuplexStream, count: int, counts: dict[str, int]) -> None:
    received = b""
    while received.count(b"\n") < count:
        received += await stream.receive_some()
    lines = received.decode().splitlines()
    assert all(line.endswith("hello " * 50) for line in lines)
    counts[name] = len(lines)


async def main() -> None:
    room = Room()
    ends: dict[str, DuplexStream] = {}
    counts: dict[str, int] = {}
    for name in ("anna", "bert", "carol"):
        ends[name], server_end = duplex(capacity=1000)
        room.members[name] = SharedWriter(server_end)

    async def talk(name: str) -> None:
        for _ in range(20):
            await room.say(name, "hello " * 50)

    async with trio.open_nursery() as nursery:
        for name in ends:
            nursery.start_soon(talk, name)
        for name in ("anna", "bert"):
            nursery.start_soon(read, name, ends[name], 60, counts)
    for name, count in sorted(counts.items()):
        print(f"{name}: {count} messages, all whole")


if __name__ == "__main__":
    trio.run(main)
