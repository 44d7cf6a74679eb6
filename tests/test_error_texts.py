"""A wrong argument gets an error that names what came, what was expected, and what to use instead.

Nothing is accepted then, and the stream can be used as before.
"""

from __future__ import annotations

import array
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    Buf,
    BufWriter,
    Cursor,
    Drain,
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
            "cannot advance by 2: there remain 1 byte",
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
