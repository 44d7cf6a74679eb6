"""A wrong argument gets an error that names what came, what was expected, and what to use instead.

Nothing is accepted then, and the stream can be used as before.
"""

from __future__ import annotations

import array
import asyncio
import io
import socket
import ssl
import sys
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AllowStdIo,
    AsyncWrite,
    Buf,
    BufReader,
    BufWriter,
    Cursor,
    Drain,
    ReadWritePair,
    Sink,
    TcpStream,
    TimeoutWriter,
    TlsStream,
    close_all_gracefully,
    close_gracefully,
    duplex,
    serve_tcp,
    split,
    start_tls,
    wrap_stream,
)

from ._patience import wait_all_tasks_blocked

if TYPE_CHECKING:
    from collections.abc import Callable

BYTES = "expected a bytes-like object, got "
SEQUENCE = "expected a sequence of bytes-like objects, got "


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("text", BYTES + "str: encode it first"),
        ([b"a"], BYTES + "list: several buffers go to write_vectored() or write_all_vectored()"),
        (Buf(b"a"), BYTES + "Buf: it goes to write_buf() or write_all_buf()"),
        (None, BYTES + "NoneType"),
        (5, BYTES + "int"),
    ],
)
async def test_what_is_no_bytes(data: Any, text: str) -> None:
    cursor = Cursor()
    for write in (cursor.write, cursor.write_all, cursor.send_all):
        with pytest.raises(TypeError) as caught:
            await write(data)
        assert str(caught.value) == text
    await cursor.write_all(b"as before")
    assert cursor.getvalue() == b"as before"


@pytest.mark.parametrize(
    ("buffers", "text"),
    [
        ("text", SEQUENCE + "str: encode it, and give [data]"),
        (b"bytes", SEQUENCE + "bytes: give [data]"),
        (memoryview(b"bytes"), SEQUENCE + "memoryview: give [data]"),
        (array.array("B", b"bytes"), SEQUENCE + "array: give [data]"),
        (Buf(b"a"), SEQUENCE + "Buf: it goes to write_buf() or write_all_buf()"),
        (None, SEQUENCE + "NoneType"),
        (5, SEQUENCE + "int"),
        ([b"a", "b"], BYTES + "str: encode it first"),
    ],
)
async def test_what_is_no_sequence_of_buffers(buffers: Any, text: str) -> None:
    cursor = Cursor()
    for write in (cursor.write_vectored, cursor.write_all_vectored):
        with pytest.raises(TypeError) as caught:
            await write(buffers)
        assert str(caught.value) == text
    await cursor.write_all_vectored(iter([b"as ", b"before"]))  # type: ignore[arg-type]
    assert cursor.getvalue() == b"as before"


# ---- What is no stream of ours -----------------------------------------------------------------

STREAM = "expected a trio.abc.SendStream, got "
READER = "expected a trio.abc.ReceiveStream, got "
ASYNCIO = (
    "StreamReader, which works under asyncio only and cannot be wrapped: open the connection with "
    "open_tcp_stream()"
)
PATH = ', which is a path: use AllowStdIo(open(it, "wb"))'


def text_file() -> Any:
    return io.TextIOWrapper(io.BytesIO())


def asyncio_stream() -> Any:
    return object.__new__(asyncio.StreamReader)


@pytest.mark.parametrize(
    ("call", "make", "text"),
    [
        (AllowStdIo, lambda: "a", "expected an object with write() and flush(), got str" + PATH),
        (AllowStdIo, lambda: PurePosixPath("a"), f"flush(), got PurePosixPath{PATH}"),
        (BufWriter, lambda: PurePosixPath("a"), STREAM + "PurePosixPath" + PATH),
        (BufWriter, io.BytesIO, STREAM + "BytesIO: use AllowStdIo(it)"),
        (
            AllowStdIo,
            lambda: io.TextIOWrapper(io.BytesIO()),
            "a text file: use AllowStdIo(it.buffer)",
        ),
        (BufWriter, asyncio_stream, STREAM + ASYNCIO),
        (AllowStdIo, asyncio_stream, "write() and flush(), got " + ASYNCIO),
        (BufReader, asyncio_stream, READER + ASYNCIO),
        (split, asyncio_stream, "expected a trio.abc.Stream, got " + ASYNCIO),
        (TcpStream, asyncio_stream, "a Trio socket, got " + ASYNCIO),
        (BufWriter, socket.socket, STREAM + "socket: use PollEvented(it)"),
        (BufReader, socket.socket, READER + "socket: use PollEvented(it)"),
        (split, trio.socket.socket, "a trio.abc.Stream, got _SocketType: use TcpStream(it)"),
        (BufReader, trio.socket.socket, READER + "_SocketType: use TcpStream(it)"),
        (
            TcpStream,
            socket.socket,
            "a Trio socket, got socket: use TcpStream(trio.socket.from_stdlib_socket(it))",
        ),
        (
            lambda thing: ReadWritePair(thing, Sink()),
            socket.socket,
            READER + "socket (the order is reader, writer): use PollEvented(it)",
        ),
    ],
)
async def test_what_is_no_stream_of_ours(call: Any, make: Callable[[], Any], text: str) -> None:
    thing = make()
    with pytest.raises(TypeError) as caught:
        call(thing)
    assert str(caught.value).endswith(text)
    if hasattr(thing, "close"):
        thing.close()


def test_a_program_without_asyncio_has_no_streams_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    thing = asyncio_stream()
    monkeypatch.delitem(sys.modules, "asyncio")

    with pytest.raises(TypeError, match="got StreamReader$"):
        BufWriter(thing)


async def test_a_socket_is_closed_gracefully_as_a_stream() -> None:
    with trio.socket.socket() as plain, pytest.raises(TypeError, match=r"use TcpStream\(it\)$"):
        await close_gracefully(plain)  # type: ignore[arg-type]


# ---- A writer of your own ----------------------------------------------------------------------


class Plain(AsyncWrite):
    """Its poll answers what it was given."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def poll_write(self, data: Any, /) -> Any:
        return self._answer


class Coroutine(AsyncWrite):
    async def poll_write(self, data: Any, /) -> int:  # type: ignore[override]
        return len(data)


class Hidden(AsyncWrite):
    def __init__(self) -> None:
        self._inner = Cursor()


class Empty(AsyncWrite):
    pass


POLLS = "poll_write() or poll_write_vectored() of "


@pytest.mark.parametrize(
    ("writer", "text"),
    [
        (Plain(None), POLLS + "Plain must return how many bytes it accepted, it returned None"),
        (
            Coroutine(),
            POLLS + "Coroutine must return how many bytes it accepted, it returned a coroutine "
            "(a poll is a plain function, without async)",
        ),
        (Empty(), "Empty must define poll_write(), or set self.inner to a writer"),
        (
            Hidden(),
            (
                "Hidden keeps a writer in self._inner: name it self.inner, so that poll_write() "
                "is passed on to it, or define poll_write()"
            ),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_writer_that_was_written_wrong(writer: AsyncWrite, text: str) -> None:
    with pytest.raises(TypeError) as caught:
        await writer.write_all(b"abc")
    assert str(caught.value) == text


async def test_two_tasks_are_told_of_the_writer_for_several() -> None:
    stream, peer = duplex(4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.write_all, b"too much")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="for several tasks there is SharedWriter"):
            await stream.write_all(b"more")
        assert await peer.receive_some() == b"too "


# ---- Arguments of functions --------------------------------------------------------------------

DUPLEX = (
    "expected a trio.abc.Stream, got BufWriter, which can only be written to: put it over what "
    "this returns, or make it duplex by ReadWritePair(reader, writer)"
)
CONTEXT = ssl.create_default_context()


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda s: split(BufWriter(s)), TypeError, DUPLEX),
        (lambda s: TlsStream(BufWriter(s), CONTEXT, server_hostname="x"), TypeError, DUPLEX),  # type: ignore[type-var]
        (lambda _: split(None), TypeError, "expected a trio.abc.Stream, got NoneType"),  # type: ignore[type-var]
        (
            lambda s: TlsStream(s, None, server_hostname="x"),  # type: ignore[arg-type]
            TypeError,
            "expected an ssl.SSLContext, got NoneType",
        ),
        (
            TimeoutWriter,
            ValueError,
            "TimeoutWriter has no limit: give idle, min_rate, or both",
        ),
        (
            lambda _: Buf(b"x").advance("1"),  # type: ignore[arg-type]
            TypeError,
            "count must be an integer of at least 0, got str",
        ),
        (
            lambda _: Buf(b"x").advance(2),
            ValueError,
            "cannot advance by 2, past the remaining 1 byte",
        ),
        (
            lambda _: wrap_stream(trio.testing.memory_stream_pair()[0], "1"),  # type: ignore[call-overload]
            TypeError,
            "cancel_grace must be a number, got str",
        ),
        (
            lambda _: Drain(grace=None),  # type: ignore[arg-type]
            TypeError,
            "grace must be a number, got NoneType: math.inf for no limit",
        ),
    ],
    ids=[
        "split",
        "TlsStream",
        "split of None",
        "context",
        "TimeoutWriter",
        "advance by text",
        "advance too far",
        "cancel_grace",
        "grace",
    ],
)
async def test_wrong_arguments(call: Callable[[Any], object], kind: Any, text: str) -> None:
    stream, peer = duplex(100)
    with pytest.raises(kind) as caught:
        call(stream)
    assert str(caught.value) == text
    await stream.send_all(b"as before")
    assert await peer.receive_some() == b"as before"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda stream: close_gracefully([stream]),  # type: ignore[arg-type]
            "expected a trio.abc.SendStream, got list: close_all_gracefully() takes several",
        ),
        (
            close_all_gracefully,
            "expected several streams, got DuplexStream: close_gracefully() takes one",
        ),
        (
            lambda stream: start_tls(stream, CONTEXT, server_hostname="x", received="text"),  # type: ignore[arg-type]
            BYTES + "str: encode it first",
        ),
        (
            lambda _: serve_tcp(trio.aclose_forcefully, 0, drain=5),  # type: ignore[call-overload]
            "drain must be a Drain or None, got int",
        ),
    ],
)
async def test_wrong_arguments_of_functions_that_are_awaited(call: Any, text: str) -> None:
    stream, peer = duplex(100)
    above = BufWriter(stream)
    with pytest.raises(TypeError) as caught:
        await call(stream)
    assert str(caught.value) == text
    await above.send_all(b"as before")
    assert await peer.receive_some() == b"as before"
