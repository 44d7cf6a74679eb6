"""A request/response client over one connection, whose timeout leaves the connection usable.

Any number of tasks ask at once. Each request has a number, and the answer has the same. A request
that times out is given up: whether it was withdrawn or is answered too late, the connection stays
in step, and the other requests go on.

Prints::

    double 21 is 42
    double 1000 took too long
    double 4 is 8
    answers that came too late: 1
"""

from __future__ import annotations

import json
from typing import Any

import trio
import trio.abc

from trio_asyncwrite import BufWriter, duplex
from trio_asyncwrite.codecs import FramedReader, FramedWriter, LengthDelimitedCodec

# The most that the other side can make a connection hold.
CODEC = LengthDelimitedCodec(max_size=64 * 1024)


class Client:
    """Asks, from any number of tasks; one task of its own receives the answers.

    Args:
        stream: the connection; it is closed with the client.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._requests = FramedWriter(BufWriter(stream), CODEC)
        self._answers = FramedReader(stream, CODEC)
        self._waiting: dict[int, trio.MemorySendChannel[Any]] = {}
        self._last_number = 0
        self.late = 0

    async def run(self) -> None:
        """Receive answers until the connection ends; those who wait then see the end, too."""
        try:
            async for frame in self._answers:
                number, answer = json.loads(frame)
                waiting = self._waiting.pop(number, None)
                if waiting is None:
                    self.late += 1  # its request has timed out
                else:
                    waiting.send_nowait(answer)
        finally:
            for waiting in self._waiting.values():
                waiting.close()

    async def ask(self, question: object) -> Any:
        """Ask, and wait for the answer; it may be cancelled anywhere."""
        self._last_number += 1
        number = self._last_number
        send, receive = trio.open_memory_channel[Any](1)
        self._waiting[number] = send
        try:
            # Cancelled here, the request is withdrawn.
            await self._requests.send(json.dumps([number, question]).encode())
            # Or the server would not see it before the buffer is full.
            await self._requests.flush()
            return await receive.receive()
        finally:
            self._waiting.pop(number, None)

    async def aclose(self) -> None:
        await self._requests.aclose()


async def serve(stream: trio.abc.Stream) -> None:
    """Double numbers, large ones slowly, and each request in a task of its own."""
    answers = FramedWriter(BufWriter(stream), CODEC)

    async def answer(number: int, value: int) -> None:
        await trio.sleep(value / 100)
        await answers.send(json.dumps([number, 2 * value]).encode())
        await answers.flush()

    async with answers, trio.open_nursery() as nursery:
        async for frame in FramedReader(stream, CODEC):
            number, value = json.loads(frame)
            nursery.start_soon(answer, number, value)


async def double(client: Client, value: int) -> None:
    with trio.move_on_after(5) as scope:
        print(f"double {value} is {await client.ask(value)}")
    if scope.cancelled_caught:
        print(f"double {value} took too long")


async def main() -> None:
    ours, theirs = duplex(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, theirs)
        client = Client(ours)
        nursery.start_soon(client.run)
        async with trio.open_nursery() as asking:
            asking.start_soon(double, client, 21)
            asking.start_soon(double, client, 1000)
        # The late answer comes in between, and harms nobody.
        await trio.sleep(10)
        await double(client, 4)
        print("answers that came too late:", client.late)
        nursery.cancel_scope.cancel()
    await client.aclose()


if __name__ == "__main__":
    trio.run(main)
