"""How a stack ends over each transport, as an independent peer sees it: plainly, or truncated."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket as stdlib_socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import (
    AllowStdIo,
    AsyncWrite,
    Buf,
    BufWriter,
    PollEvented,
    TcpStream,
    duplex,
    simplex,
)

from .._patience import wait_all_tasks_blocked
from .._streams import clog, small_buffers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: What the peer sees after the bytes that have arrived.
END, RESET = "a proper end", "a reset"

Peer = tuple[bytes, str]


def read_socket(sock: stdlib_socket.socket) -> Peer:
    """A peer that knows nothing of this library, nor of Trio."""
    received = bytearray()
    with sock:
        sock.settimeout(60)
        try:
            while chunk := sock.recv(65536):
                received += chunk
        except ConnectionResetError:
            return bytes(received), RESET
    return bytes(received), END


def read_pipe(fd: int) -> Peer:
    with open(fd, "rb") as file:
        return file.read(), END


def in_thread(function: Callable[..., Peer], thing: Any) -> Callable[[], Awaitable[Peer]]:
    return lambda: trio.to_thread.run_sync(function, thing)


async def tcp() -> tuple[AsyncWrite, Callable[[], Awaitable[Peer]]]:
    with stdlib_socket.create_server(("127.0.0.1", 0)) as listener:
        left = trio.socket.socket()
        small_buffers(left)
        await left.connect(listener.getsockname())
        peer = listener.accept()[0]
    return TcpStream(left), in_thread(read_socket, peer)


async def polled_tcp() -> tuple[AsyncWrite, Callable[[], Awaitable[Peer]]]:
    with stdlib_socket.create_server(("127.0.0.1", 0)) as listener:
        left = stdlib_socket.create_connection(listener.getsockname())
        peer = listener.accept()[0]
    left.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 16384)
    return PollEvented(left), in_thread(read_socket, peer)


async def unix() -> tuple[AsyncWrite, Callable[[], Awaitable[Peer]]]:
    left, peer = stdlib_socket.socketpair()
    return TcpStream(trio.socket.from_stdlib_socket(left)), in_thread(read_socket, peer)


async def pipe() -> tuple[AsyncWrite, Callable[[], Awaitable[Peer]]]:
    reading, writing = os.pipe()
    return PollEvented(writing), in_thread(read_pipe, reading)


async def file_over_pipe() -> tuple[AsyncWrite, Callable[[], Awaitable[Peer]]]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    return AllowStdIo(os.fdopen(writing, "wb", buffering=0)), in_thread(read_pipe, reading)


def in_memory(reader: Any) -> Callable[[], Awaitable[Peer]]:
    async def read() -> Peer:
        received = bytearray()
        try:
            async for chunk in reader:
                received += chunk
        except trio.BrokenResourceError:
            return bytes(received), RESET
        finally:
            await reader.aclose()
        return bytes(received), END

    return read


async def in_memory_duplex() -> tuple[AsyncWrite, Callable[[], Awaitable[Peer]]]:
    left, right = duplex(1000)
    return left, in_memory(right)


async def in_memory_simplex() -> tuple[AsyncWrite, Callable[[], Awaitable[Peer]]]:
    writer, reader = simplex(1000)
    return writer, in_memory(reader)


#: The transport, and the end that its peer sees of a truncated stream.
TRANSPORTS = {
    "TCP": (tcp, RESET),
    "TCP by PollEvented": (polled_tcp, RESET),
    "Unix socket": (unix, END),
    "pipe": (pipe, END),
    "file": (file_over_pipe, END),
    "duplex": (in_memory_duplex, RESET),
    "simplex": (in_memory_simplex, RESET),
}
every_transport = pytest.mark.parametrize(
    ("make", "truncated"), TRANSPORTS.values(), ids=TRANSPORTS
)


async def close_by_exception(writer: AsyncWrite) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with writer:
            raise ZeroDivisionError


CLOSES: dict[str, Callable[[AsyncWrite], Awaitable[None]]] = {
    "aclose": lambda writer: writer.aclose(),
    "cancelled aclose": trio.aclose_forcefully,
    "exception": close_by_exception,
}
every_close = pytest.mark.parametrize("close", CLOSES.values(), ids=CLOSES)


@every_transport
@every_close
@pytest.mark.parametrize("buffered", [False, True])
async def test_a_whole_stack_ends_plainly_however_it_is_closed(
    make: Any, truncated: str, close: Any, *, buffered: bool
) -> None:
    """A cancelled close that can send everything at once loses nothing, and so shows nothing."""
    transport, read = await make()
    writer = BufWriter(transport) if buffered else transport
    await writer.write_all(b"abc")
    await close(writer)
    assert await read() == (b"abc", END)


async def cut_a_message_short(writer: AsyncWrite) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write_all, bytes(10_000_000))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def leave_a_buf_unfinished(writer: AsyncWrite) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.write_all_buf, Buf(bytes(10_000_000)))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


TRUNCATIONS = {"message": cut_a_message_short, "Buf": leave_a_buf_unfinished}


@every_transport
@every_close
@pytest.mark.parametrize("cut_short", TRUNCATIONS.values(), ids=TRUNCATIONS)
async def test_a_truncated_stack_shows_it_where_its_transport_can(
    make: Any, truncated: str, close: Any, cut_short: Any
) -> None:
    """Where it cannot, the warning says so."""
    transport, read = await make()
    await cut_short(transport)
    with pytest.warns(ResourceWarning, match="was closed: (only|a Buf)"):
        await close(transport)
    received, end = await read()
    assert 0 < len(received) < 10_000_000 or end is RESET
    assert end == truncated


@every_transport
async def test_bytes_lost_in_a_buffer_truncate_the_stack(make: Any, truncated: str) -> None:
    transport, read = await make()
    clog(transport)
    writer = BufWriter(transport)
    await writer.write_all(b"abc")
    with pytest.warns(ResourceWarning, match="was closed: 3 bytes"):
        await trio.aclose_forcefully(writer)
    received, end = await read()
    assert b"abc" not in received
    assert end == truncated


@pytest.mark.parametrize("kind", ["message", "Buf", "finished Buf"])
@pytest.mark.parametrize("make", [tcp, polled_tcp], ids=["TcpStream", "PollEvented"])
@pytest.mark.filterwarnings("ignore:unclosed :ResourceWarning")
async def test_a_torn_tcp_stream_that_is_dropped_resets(make: Any, kind: str) -> None:
    """The kernel closes it; SO_LINGER was set when the message was cut short."""
    writer, read = await make()
    seen: list[Peer] = []
    buf = Buf(bytes(1_000_000))
    if kind == "message":
        await cut_a_message_short(writer)
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.write_all_buf, buf)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    async def look() -> None:
        seen.append(await read())

    async with trio.open_nursery() as nursery:
        if kind == "finished Buf":
            nursery.start_soon(look)
            await writer.write_all_buf(buf)
        del writer
        if kind != "finished Buf":
            nursery.start_soon(look)
    assert seen[0][1] == (END if kind == "finished Buf" else RESET)


def gzip_file(path: Path) -> Any:
    return gzip.open(path, "wb")


@pytest.mark.parametrize("opener", [Path.open, gzip_file], ids=["plain", "gzip"])
@pytest.mark.parametrize("offload", [False, True], ids=["inline", "offload"])
@every_close
@pytest.mark.filterwarnings("ignore:.*may be lost:ResourceWarning")
async def test_a_file_ends_by_its_own_close_after_every_accepted_byte(
    opener: Any, close: Any, *, offload: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        file = path.open("wb") if opener is Path.open else opener(path)
        writer = AllowStdIo(file, offload=offload)
        await writer.write_all(b"abc")
        await writer.flush()
        await close(writer)
        job = writer._closing_job
        if job is not None:
            await job.wait()
        data = path.read_bytes()
        assert (data if opener is Path.open else gzip.decompress(data)) == b"abc"
