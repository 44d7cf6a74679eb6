"""A subclass of a transport, or one object, that overrides a poll: no fast path goes past it."""

from __future__ import annotations

import os
import types
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import (
    Buf,
    BufReader,
    BufWriter,
    FilePart,
    PollEvented,
    Relay,
    TcpStream,
    copy,
)

from .._streams import drain
from ..core._fakes import each

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    #: Makes a stream over a socket whose poll of that name also appends to a list.
    How = Callable[[str, trio.socket.SocketType, list[bytes]], Any]
    Write = Callable[[Any, bytes, Path], Awaitable[None]]
    Read = Callable[[Any], Awaitable[bytes]]

SIZE = 16384
DATA = bytes(i * i % 251 for i in range(300_000))

KINDS: dict[str, Any] = {"TcpStream": TcpStream, "PollEvented": PollEvented}


def poll_write(seen: list[bytes], write: Callable[[Any], int], data: Any) -> int:
    count = write(data)
    seen.append(bytes(data[:count]))
    return count


def poll_read(seen: list[bytes], read: Callable[[int], bytes], size: int) -> bytes:
    seen.append(read(size))
    return seen[-1]


async def receive_some(
    seen: list[bytes], receive: Callable[..., Awaitable[bytes]], *args: Any
) -> bytes:
    seen.append(await receive(*args))
    return seen[-1]


SPIES: dict[str, Any] = {
    "poll_write": poll_write,
    "poll_read": poll_read,
    "receive_some": receive_some,
}


def by_subclass(kind: Any, name: str, sock: trio.socket.SocketType, seen: list[bytes]) -> Any:
    def method(self: Any, *args: Any) -> Any:
        return SPIES[name](seen, getattr(super(cls, self), name), *args)

    cls: Any = types.new_class(
        "Counting", (kind,), {}, lambda namespace: namespace.update({name: method})
    )
    return types.new_class("Inheriting", (cls,))(sock)


def by_mixin(kind: Any, name: str, sock: trio.socket.SocketType, seen: list[bytes]) -> Any:
    def method(self: Any, *args: Any) -> Any:
        return SPIES[name](seen, getattr(super(mixin, self), name), *args)

    mixin: Any = type("Mixin", (), {name: method})
    return types.new_class("Mixed", (mixin, kind))(sock)


def by_object(kind: Any, name: str, sock: trio.socket.SocketType, seen: list[bytes]) -> Any:
    stream = kind(sock)
    setattr(stream, name, partial(SPIES[name], seen, getattr(stream, name)))
    return stream


HOW: dict[str, Any] = {"subclass": by_subclass, "mixin": by_mixin, "object": by_object}


# ---- Writing -------------------------------------------------------------------------------------


async def write_file(stream: Any, data: bytes, path: Path) -> None:
    path.write_bytes(data)  # noqa: ASYNC240
    with path.open("rb") as file:
        await stream.write_all_file(FilePart(file))


async def write_parts(stream: Any, data: bytes, _: Path) -> None:
    await stream.write_all_vectored([data[:7], b"", data[7:]])


async def write_behind_a_buffer(stream: Any, data: bytes, _: Path) -> None:
    buffered = BufWriter(stream, 1000)
    await buffered.write_all(data[:7])
    await buffered.write_all_buf(Buf(data[7:100], data[100:]))
    await buffered.flush()


async def source_of(data: bytes) -> tuple[TcpStream, TcpStream]:
    near, far = map(TcpStream, trio.socket.socketpair())
    return near, far


async def write_by_copy(stream: Any, data: bytes, _: Path) -> None:
    near, far = await source_of(data)
    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(send, near, data)
        assert await copy(far, stream) == len(data)


async def send(stream: TcpStream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()


async def write_by_relay(stream: Any, data: bytes, _: Path) -> None:
    near, far = await source_of(data)
    async with near, far, trio.open_nursery() as nursery:
        relay = Relay(far, stream, buffer_size=SIZE)
        nursery.start_soon(relay.run)
        await send(near, data)
        while relay.a_to_b.bytes < len(data):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


WRITES: dict[str, Write] = {
    "file": write_file,
    "parts": write_parts,
    "BufWriter": write_behind_a_buffer,
    "copy": write_by_copy,
    "Relay": write_by_relay,
}


@each(WRITES, "write")
@each(HOW, "how")
@each(KINDS, "kind")
async def test_a_poll_write_sees_all_bytes(
    kind: Any, how: Any, write: Write, tmp_path: Path
) -> None:
    """Not sendfile, not writev, not splice."""
    seen: list[bytes] = []
    ours, theirs = trio.socket.socketpair()
    async with how(kind, "poll_write", ours, seen) as stream, TcpStream(theirs) as other:
        received = b""

        async def receive() -> None:
            nonlocal received
            received = await drain(other)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await write(stream, DATA, tmp_path / "file")
            await stream.aclose()
    assert received == DATA
    assert b"".join(seen) == DATA


# ---- Reading -------------------------------------------------------------------------------------


async def read_into(stream: Any) -> bytes:
    found, block = bytearray(), bytearray(SIZE)
    while True:
        await trio.lowlevel.wait_readable(stream.fileno())
        count = stream.poll_read_into(block)
        found += block[:count]
        if not count:
            return bytes(found)


async def read_ahead(stream: Any) -> bytes:
    reader = BufReader(stream)
    return await reader.receive_exactly(len(DATA)) + await reader.receive_some()


async def read_by(move: Callable[[Any, TcpStream], Awaitable[object]], stream: Any) -> bytes:
    near, far = map(TcpStream, trio.socket.socketpair())
    received = b""

    async def receive() -> None:
        nonlocal received
        received = await drain(far)
        await far.send_eof()

    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await move(stream, near)
        await near.aclose()
    return received


async def relay(source: Any, target: TcpStream) -> None:
    await Relay(source, target, buffer_size=SIZE).run()


READS: dict[str, Read] = {
    "receive_some": drain,
    "BufReader": read_ahead,
    "copy": partial(read_by, copy),
    "Relay": partial(read_by, relay),
}


async def check_reading(kind: Any, how: Any, name: str, read: Read) -> None:
    seen: list[bytes] = []
    ours, theirs = trio.socket.socketpair()
    async with (
        how(kind, name, ours, seen) as stream,
        TcpStream(theirs) as other,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send, other, DATA)
        assert await read(stream) == DATA
    assert b"".join(seen) == DATA


@each(READS | {"poll_read_into": read_into}, "read")
@each(HOW, "how")
@each(KINDS, "kind")
async def test_a_poll_read_sees_all_bytes(kind: Any, how: Any, read: Read) -> None:
    await check_reading(kind, how, "poll_read", read)


@each(READS, "read")
@each(HOW, "how")
@each(KINDS, "kind")
async def test_a_receive_some_sees_all_bytes(kind: Any, how: Any, read: Read) -> None:
    await check_reading(kind, how, "receive_some", read)


@pytest.mark.skipif(not hasattr(os, "splice"), reason="Linux only")
@each(KINDS, "kind")
async def test_without_one_the_fast_paths_are_on(kind: Any) -> None:
    """Also in a subclass that overrides something else."""
    ours, theirs = trio.socket.socketpair()
    plain: Any = types.new_class("Plain", (kind,), {}, lambda namespace: namespace.update(name="x"))
    async with plain(ours) as stream, TcpStream(theirs):
        assert stream.splices
        for name in ("poll_write_vectored", "poll_write_file", "poll_read_into"):
            assert getattr(plain, name) is getattr(kind, name)


async def test_a_class_with_both_polls_keeps_both() -> None:
    base: Any = TcpStream

    class Both(base):
        def poll_write(self, data: Any, /) -> int:
            raise AssertionError

        def poll_write_vectored(self, buffers: Any, /) -> int:
            return sum(map(len, buffers))

    ours, theirs = trio.socket.socketpair()
    async with Both(ours) as stream, TcpStream(theirs):
        await stream.write_all_vectored([b"a", b"bc"])
