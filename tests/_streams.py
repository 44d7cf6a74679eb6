"""Connected pairs over the real thing, and what the tests do to them."""

from __future__ import annotations

import contextlib
import gc
import os
import socket as stdlib_socket
import struct
from typing import TYPE_CHECKING, TypeVar

import trio
import trio.abc

from trio_asyncwrite import AsyncReadWrite, AsyncWrite, NotReady, PollEvented, TcpStream

from ._patience import let_the_network_settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

S = TypeVar("S", bound=AsyncWrite)
R = TypeVar("R", bound=trio.abc.AsyncResource)


async def tcp_sockets() -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    """Both ends of a TCP connection over loopback, with small buffers."""
    with trio.socket.socket() as listener:
        small_buffers(listener)
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = trio.socket.socket()
        small_buffers(client)
        await client.connect(listener.getsockname())
        server, _ = await listener.accept()
    return client, server


async def tcp_pair() -> tuple[TcpStream, TcpStream]:
    """Both ends of such a connection, as streams."""
    left, right = await tcp_sockets()
    return TcpStream(left), TcpStream(right)


async def unix_pair() -> tuple[TcpStream, TcpStream]:
    """Both ends of a Unix socket pair."""
    left, right = trio.socket.socketpair()
    return TcpStream(left), TcpStream(right)


async def socket_pair() -> tuple[PollEvented, PollEvented]:
    """Both ends of a Unix socket pair, by the standard library's sockets."""
    left, right = stdlib_socket.socketpair()
    return PollEvented(left), PollEvented(right)


async def pipe_pair() -> tuple[PollEvented, PollEvented]:
    """The writing and the reading end of a pipe, by their numbers."""
    reading, writing = os.pipe()
    return PollEvented(writing), PollEvented(reading)


@contextlib.asynccontextmanager
async def connected(maker: Callable[[], Awaitable[tuple[S, R]]]) -> AsyncIterator[tuple[S, R]]:
    """A pair whose ends are closed after the block, if the block has not done it."""
    left, right = await maker()
    try:
        yield left, right
    finally:
        await trio.aclose_forcefully(left)
        await trio.aclose_forcefully(right)


def small_buffers(sock: trio.socket.SocketType) -> None:
    """Make the kernel keep few bytes, so that little clogs the connection."""
    # With much less than this, Linux finds room for some more bytes a moment after it was full.
    for option in (stdlib_socket.SO_SNDBUF, stdlib_socket.SO_RCVBUF):
        sock.setsockopt(stdlib_socket.SOL_SOCKET, option, 16384)


def clog(writer: AsyncWrite) -> int:
    """Write until nothing more is accepted, now or a moment later; how many bytes were."""
    count = 0
    while more := fill(writer):
        count += more
        let_the_network_settle(writer.descriptor)
    return count


def fill(writer: AsyncWrite) -> int:
    """Write until nothing more is accepted now; how many bytes were."""
    count = 0
    for size in (65536, 1):  # a byte still fits into a buffer where a large write does not
        with contextlib.suppress(NotReady):
            while True:
                count += writer.poll_write(bytes(size))
    return count


def clogged(maker: Callable[[], Awaitable[tuple[S, R]]]) -> Callable[[], Awaitable[tuple[S, R]]]:
    """A maker of pairs whose first end takes no more bytes."""

    async def clogged_maker() -> tuple[S, R]:
        left, right = await maker()
        clog(left)
        return left, right

    return clogged_maker


def clogged_both_ways(
    maker: Callable[[], Awaitable[tuple[S, S]]],
) -> Callable[[], Awaitable[tuple[S, S]]]:
    """A maker of pairs whose ends take no more bytes, neither of them."""

    async def clogged_maker() -> tuple[S, S]:
        left, right = await maker()
        # What goes one way takes acknowledgements along, and they make room for the other.
        while clog(left) + clog(right):
            pass
        return left, right

    return clogged_maker


class Listener(trio.abc.Listener[AsyncReadWrite]):
    """Accepts one end of each pair in memory."""

    def __init__(self) -> None:
        self.connect, self.accepted = trio.open_memory_channel[AsyncReadWrite](10)

    async def accept(self) -> AsyncReadWrite:
        return await self.accepted.receive()

    async def aclose(self) -> None:
        await self.accepted.aclose()


async def drain(stream: trio.abc.ReceiveStream) -> bytes:
    """All bytes until end-of-file."""
    received = bytearray()
    async for chunk in stream:
        received += chunk
    return bytes(received)


async def drain_while(
    stream: trio.abc.ReceiveStream, write: Callable[[], Awaitable[object]]
) -> bytes:
    """All bytes until end-of-file, received while ``write`` runs."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        return await drain(stream)


def reset(stream: TcpStream) -> None:
    """Close a TCP connection with a reset, as a crashed peer does."""
    linger = struct.pack("ii", 1, 0)
    stream.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, linger)
    stream.socket.close()


async def assert_leaves_no_cycle(scenario: Callable[[], Awaitable[object]]) -> None:
    """Run ``scenario`` and find no writer or exception left for the garbage collector."""
    await scenario()  # what is made once only
    await trio.lowlevel.checkpoint()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await scenario()
        await trio.lowlevel.checkpoint()
        gc.collect()
        left = [thing for thing in gc.garbage if isinstance(thing, (AsyncWrite, BaseException))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []
