from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    BufWriter,
    PollEvented,
    ReadWritePair,
    Sink,
    TcpStream,
    split,
    wrap_stream,
)
from trio_asyncwrite._transports._send_stream import SendStreamWriter

from .._streams import connected, drain, drain_while, tcp_pair

if TYPE_CHECKING:
    from collections.abc import Callable


class Minimal(AsyncWrite):
    """A hand-written writer."""

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return len(data)


@pytest.mark.parametrize(
    "make",
    [Sink, Minimal, lambda: BufWriter(Sink()), lambda: Sink().by_ref()],
    ids=["Sink", "hand-written", "BufWriter", "ByRef"],
)
def test_a_writer_is_returned_as_it_is(make: Callable[[], AsyncWrite]) -> None:
    writer = make()

    assert wrap_stream(writer) is writer
    assert wrap_stream(writer, cancel_grace=5) is writer


async def test_a_socket_stream_becomes_a_tcp_stream() -> None:
    left, right = (trio.SocketStream(sock) for sock in trio.socket.socketpair())
    writer = wrap_stream(left)

    assert type(writer) is TcpStream
    assert writer.socket is left.socket
    await writer.send_all(b"data")
    await writer.aclose()
    assert await drain(right) == b"data"
    await right.aclose()


async def test_an_fd_stream_becomes_a_poll_evented() -> None:
    reading, writing = (trio.lowlevel.FdStream(fd) for fd in os.pipe())
    writer = wrap_stream(writing)

    assert type(writer) is PollEvented
    assert writer.fileno() == writing.fileno()
    await writer.send_all(b"data")
    await writer.aclose()
    assert writing.fileno() == -1
    assert await drain(reading) == b"data"
    await reading.aclose()


async def test_any_other_stream_is_written_to_with_its_own_send_all() -> None:
    left, right = trio.testing.memory_stream_one_way_pair()
    writer = wrap_stream(left)

    assert type(writer) is SendStreamWriter
    assert await drain_while(right, writer.aclose) == b""


async def test_a_stapled_stream_is_an_other_stream() -> None:
    """Also when its halves are known: its own methods may do more than theirs."""
    async with connected(tcp_pair) as (stream, _):
        stapled = trio.StapledStream(stream, stream)

        assert type(wrap_stream(stapled)) is SendStreamWriter


@pytest.mark.parametrize("wrong", ["stream", None, 7, [], open, Sink])
@pytest.mark.parametrize("constructor", [wrap_stream, BufWriter])
def test_what_is_no_stream_is_refused(constructor: Callable[[Any], object], wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a trio\.abc\.SendStream, got \w+"):
        constructor(wrong)


async def test_a_stream_to_read_from_is_refused() -> None:
    _, reader = trio.testing.memory_stream_one_way_pair()
    with pytest.raises(TypeError, match="MemoryReceiveStream"):
        wrap_stream(reader)  # type: ignore[call-overload]


async def test_every_constructor_that_takes_a_writer_wraps_it() -> None:
    left, right = trio.testing.memory_stream_pair()

    assert type(BufWriter(left).inner) is SendStreamWriter
    assert type(ReadWritePair(right, left).inner) is SendStreamWriter
    assert type(split(left)[1].inner) is SendStreamWriter
