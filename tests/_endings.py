"""What the tests of endings have in common."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import trio
import trio.abc
import trio.testing

from trio_asyncwrite import AsyncReadWrite, AsyncWrite, DuplexStream, TcpStream, duplex

from ._streams import drain, tcp_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


S = TypeVar("S", bound=AsyncWrite)

Pair = tuple[trio.abc.SendStream, trio.abc.Stream]


async def read_and_close(stream: trio.abc.Stream) -> bytes:
    """What a well-behaved peer does."""
    received = await drain(stream)
    await stream.aclose()
    return received


class Result:
    """What a task returned, or None until then."""

    value: Any = None


async def into(result: Result, function: Callable[[], Awaitable[object]]) -> None:
    """Keep what ``function`` returns."""
    result.value = await function()


def plain(stream: TcpStream) -> trio.SocketStream:
    """The same connection as Trio's stream."""
    return trio.SocketStream(stream.socket)


async def unread_pipe() -> trio.lowlevel.FdStream:
    """Trio's stream over a pipe whose other end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    return trio.lowlevel.FdStream(writing)


async def over_tcp(make: Callable[[TcpStream], trio.abc.SendStream]) -> Pair:
    left, right = await tcp_pair()
    return make(left), right


async def over_memory(make: Callable[[Any], trio.abc.SendStream]) -> Pair:
    left, right = trio.testing.memory_stream_pair()
    return make(left), right


async def over_duplex(make: Callable[[DuplexStream], trio.abc.SendStream]) -> Pair:
    left, right = duplex(1000)
    return make(left), right


class One(trio.abc.Listener[S]):
    """Accepts these streams, one after the other."""

    def __init__(self, *streams: S) -> None:
        self.streams = [*streams]

    async def accept(self) -> S:
        if not self.streams:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return self.streams.pop()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class Hostile(AsyncReadWrite):
    """Fails where it is told to."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, where: str) -> None:
        if where == self.where:
            raise ZeroDivisionError(where)

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return len(data)

    def poll_shutdown(self) -> None:
        self.fail("shutdown")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        self.fail("receive")
        return b""

    async def release(self, *, clean: bool) -> None:
        await super().release(clean=clean)
        self.fail("release")
