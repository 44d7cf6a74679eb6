"""The ends of streams that are not this library's: what their own close writes, and what hangs."""

from __future__ import annotations

import contextlib
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    CloseOutcome,
    CloseReport,
    ReadWritePair,
    SharedWriter,
    TcpStream,
    TimeoutWriter,
    TlsStream,
    abort,
    close_gracefully,
    graceful,
    split,
    wrap_stream,
)

from .._endings import Result, into
from .._streams import tcp_sockets
from .._tls_helpers import HOST, TLS13, both, client_context, server_context
from ..core._fakes import begin, resource_warnings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock


class Foreign(trio.abc.Stream):
    """A duplex stream without ``send_eof``: its close writes three bytes, in three seconds."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for byte in bytes(data):
            await trio.sleep(1)
            self.sent.append(byte)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        if self.closed:
            await trio.lowlevel.checkpoint()
            return
        self.closed = True
        for byte in b"end":
            await trio.sleep(1)
            self.sent.append(byte)


class Stuck(Foreign):
    """Takes two bytes; after these, ``send_all`` never returns."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await super().send_all(data[:2])
        await trio.sleep_forever()


class StuckAtItsEnd(Foreign):
    """Its close never returns."""

    async def aclose(self) -> None:
        await super().aclose()
        await trio.sleep_forever()


# ---- The close of the stream writes its epilogue -----------------------------------------------


def buffered_pair(stream: Foreign) -> AsyncWrite:
    return ReadWritePair(stream, BufWriter(stream))


LAYERS: dict[str, Callable[[Foreign], AsyncWrite]] = {
    "none": wrap_stream,
    "BufWriter": BufWriter,
    "SharedWriter": SharedWriter,
    "TimeoutWriter": partial(TimeoutWriter, idle=60),
    "three": lambda stream: TimeoutWriter(SharedWriter(BufWriter(stream)), idle=60),
    "a pair": buffered_pair,
}


async def shut_down(writer: AsyncWrite) -> None:
    await writer.shutdown()


async def shut_down_cancelled(writer: AsyncWrite) -> None:
    """At the last moment in which the grace does not run out."""
    with trio.move_on_after(2.5) as scope:
        await writer.shutdown()
    assert scope.cancelled_caught


async def nothing(writer: AsyncWrite) -> None:
    await trio.lowlevel.checkpoint()


async def aclose(writer: AsyncWrite) -> None:
    await writer.aclose()


async def aclose_below(writer: AsyncWrite) -> None:
    await wrap_stream(bottom_of(writer)).aclose()


async def report_silence(writer: AsyncWrite) -> None:
    report = await close_gracefully(writer)
    assert report.outcome is CloseOutcome.PEER_SILENT


def bottom_of(writer: Any) -> Foreign:
    while not hasattr(writer, "stream"):
        writer = writer.inner
    stream: Foreign = writer.stream
    return stream


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("before", [nothing, shut_down, shut_down_cancelled])
@pytest.mark.parametrize("close", [aclose, aclose_below, report_silence])
async def test_a_clean_close_calls_that_of_the_stream_last_and_waits_for_it(
    make: Callable[[Foreign], AsyncWrite],
    before: Callable[[AsyncWrite], Awaitable[None]],
    close: Callable[[AsyncWrite], Awaitable[None]],
    autojump_clock: MockClock,
) -> None:
    stream = Foreign()
    writer = make(stream)
    await writer.write_all(b"abc")
    await before(writer)
    await close(writer)

    assert stream.sent == b"abcend"
    assert trio.current_time() == 6


@pytest.mark.parametrize("borrow", ["a handle", "a half"])
@pytest.mark.parametrize("ends", ["the pair", "what is below"])
async def test_a_pair_that_reads_from_it_knows_the_writer_that_it_has(
    borrow: str, ends: str, autojump_clock: MockClock
) -> None:
    """It closed the stream under it: nothing was flushed, and no epilogue written."""
    stream = Foreign()
    writer = BufWriter(stream)
    handle = split(stream)[1] if borrow == "a half" else writer.inner.by_ref()
    pair = ReadWritePair(stream, handle)
    await writer.write_all(b"abc")
    await (pair if ends == "the pair" else writer).aclose()

    assert stream.sent == b"abcend"
    assert writer.closed


async def test_a_pair_ends_a_stream_that_is_only_read_from(autojump_clock: MockClock) -> None:
    """It may have something to say at its end, too."""
    reader, stream = Foreign(), Foreign()
    await ReadWritePair(reader, stream).aclose()

    assert reader.sent == stream.sent == b"end"


async def test_a_pair_ends_a_stream_that_cannot_be_written_to(autojump_clock: MockClock) -> None:
    far, reader = trio.testing.memory_stream_one_way_pair()
    stream = Foreign()
    await ReadWritePair(reader, stream).aclose()

    assert stream.sent == b"end"
    with pytest.raises(trio.BrokenResourceError):
        await far.send_all(b"x")


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("before", [nothing, shut_down])
async def test_a_close_that_never_returns_is_too_slow(
    before: Callable[[AsyncWrite], Awaitable[None]], autojump_clock: MockClock, *, deep: bool
) -> None:
    stream = StuckAtItsEnd()
    writer = TimeoutWriter(BufWriter(stream) if deep else stream, idle=5)
    await before(writer)
    with pytest.raises(trio.TooSlowError):
        await writer.aclose()

    assert trio.current_time() == 5 + 1  # the grace
    assert writer.closed


async def test_a_timeout_over_a_handle_has_no_close_to_wait_for(autojump_clock: MockClock) -> None:
    stream = StuckAtItsEnd()
    await TimeoutWriter(wrap_stream(stream).by_ref(), idle=5).aclose()

    assert not stream.closed


async def test_a_close_that_is_cut_short_is_not_clean(autojump_clock: MockClock) -> None:
    stream = StuckAtItsEnd()
    writer = wrap_stream(stream)
    result = Result()
    async with trio.open_nursery() as nursery:
        await begin(nursery, partial(into, result, partial(close_gracefully, writer)))
        await trio.aclose_forcefully(writer)

    assert result.value.outcome is CloseOutcome.BROKEN
    assert trio.current_time() == 1
    late = await close_gracefully(wrap_stream(StuckAtItsEnd()), timeout=5)
    assert late.outcome is CloseOutcome.TIMED_OUT


async def test_the_close_of_a_handle_does_not_cut_a_send_short(autojump_clock: MockClock) -> None:
    """It ends the task's call, but starts no clock: the bytes go, and what is below is well."""
    stream = Foreign()
    writer = wrap_stream(stream, cancel_grace=1)
    handle = BufWriter(writer.by_ref())

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await handle.send_all(b"abc")

    async with trio.open_nursery() as nursery:
        await begin(nursery, send)
        await handle.aclose()
    assert stream.sent == b"abc"
    await writer.send_all(b"d")
    await writer.aclose()

    assert stream.sent == b"abcdend"


# ---- Its send_all never returns ----------------------------------------------------------------


LIMITS: dict[str, Any] = {"timeout": 10, "linger": 3}


async def holding(writer: AsyncWrite) -> None:
    await writer.write_all(b"abc")


async def abandoned(writer: AsyncWrite) -> None:
    with trio.move_on_after(5):
        await writer.send_all(b"abc")


async def torn(writer: AsyncWrite) -> None:
    with trio.move_on_after(5):
        await writer.write_all(bytes(1_000_000))


async def unfinished(writer: AsyncWrite) -> None:
    with trio.move_on_after(5):
        await writer.write_all_buf(Buf(bytes(1_000_000)))


async def by_aclose(writer: AsyncWrite) -> None:
    with trio.move_on_after(1000):
        await writer.aclose()


async def by_an_exception(writer: AsyncWrite) -> None:
    with contextlib.suppress(KeyError):
        async with writer:
            raise KeyError


async def by_close_gracefully(writer: AsyncWrite) -> CloseReport:
    return await close_gracefully(writer, **LIMITS)


async def by_graceful_and_an_exception(writer: AsyncWrite) -> CloseReport:
    with contextlib.suppress(KeyError):
        async with graceful(writer, **LIMITS) as ending:
            raise KeyError
    return ending.report


class Row(NamedTuple):
    """What is to be seen.

    Args:
        seconds: how long the end takes; the grace of one second included.
        outcome: that of the report, if there is one; else a warning tells of the loss.
    """

    seconds: float
    outcome: CloseOutcome | None = None


WAYS = (
    by_aclose,
    trio.aclose_forcefully,
    by_an_exception,
    by_close_gracefully,
    by_graceful_and_an_exception,
    abort,
)
GIVEN_UP = (
    *(Row(0), Row(0), Row(0)),
    *(Row(0, CloseOutcome.BROKEN), Row(0, CloseOutcome.BROKEN), Row(0)),
)
TABLE: dict[Any, tuple[Row, ...]] = {
    holding: (
        *(Row(1001), Row(1), Row(1)),
        *(Row(11, CloseOutcome.TIMED_OUT), Row(11, CloseOutcome.TRUNCATED), Row(0)),
    ),
    # The grace is over, and nobody knows how much was sent: there is nothing to wait for.
    abandoned: GIVEN_UP,
    torn: GIVEN_UP,
    unfinished: GIVEN_UP,
}


@pytest.mark.parametrize("make", [wrap_stream, BufWriter])
@pytest.mark.parametrize(
    ("state", "way", "row"),
    [
        pytest.param(state, way, row, id=f"{state.__name__}-{way.__name__}")
        for state, rows in TABLE.items()
        for way, row in zip(WAYS, rows, strict=True)
    ],
)
async def test_the_end_of_a_stream_whose_send_all_never_returns(
    make: Callable[[Foreign], AsyncWrite],
    state: Callable[[AsyncWrite], Awaitable[None]],
    way: Callable[[AsyncWrite], Awaitable[CloseReport | None]],
    row: Row,
    autojump_clock: MockClock,
) -> None:
    """The table of docs/closing.rst, for the worst of all streams."""
    stream = Stuck()
    writer = make(stream)
    await state(writer)
    began = trio.current_time()
    with resource_warnings() as messages:
        report = await way(writer)

    assert trio.current_time() - began == row.seconds
    assert stream.closed
    assert writer.closed
    lost = 3 if state in (holding, abandoned) else 65536
    if report is not None:
        assert (report.outcome, report.unsent_bytes) == (row.outcome, lost)
    told = report is not None or way is abort
    assert [f"{lost} bytes that it had accepted" in one for one in messages] == [True] * (not told)


async def test_a_flush_that_was_cut_short_is_told_by_aclose(autojump_clock: MockClock) -> None:
    """A cancelled flush may be called again, so nobody knows yet that it has failed."""
    writer = wrap_stream(Stuck())
    await holding(writer)
    with trio.move_on_after(5):
        await writer.flush()
    with pytest.raises(trio.BrokenResourceError, match="unknown part of 3 bytes"):
        await writer.aclose()


# ---- Below it ----------------------------------------------------------------------------------


class Plugged(trio.abc.Stream):
    """Takes nothing any more once it is plugged."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.plugged = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.plugged:
            await trio.sleep_forever()
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()


@pytest.mark.parametrize("linger", [0, 3])
async def test_a_close_notify_that_does_not_go_is_missed(
    linger: float, autojump_clock: MockClock
) -> None:
    """Though the peer's was there, which is all that a report of CLEAN had asked for."""
    left, right = trio.testing.memory_stream_pair()
    transport = Plugged(left)
    client = trio.SSLStream(transport, client_context(), server_hostname=HOST)
    server = trio.SSLStream(right, server_context(), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    async with trio.open_nursery() as nursery:
        await begin(nursery, server.unwrap)
        assert await client.receive_some() == b""
        transport.plugged = True
        report = await close_gracefully(client, timeout=5, linger=linger)
        nursery.cancel_scope.cancel()

    assert report.outcome is CloseOutcome.TIMED_OUT
    assert report.peer_closed


class Over(Plugged):
    """Looks at the socket below when it is closed; and may not want to say what is below."""

    def __init__(self, stream: trio.SocketStream, *, tells: bool) -> None:
        super().__init__(stream)
        self.tells = tells
        self.linger: bytes | int = b""

    @property
    def transport_stream(self) -> trio.abc.Stream:
        if not self.tells:
            raise ZeroDivisionError
        return self.stream

    async def aclose(self) -> None:
        assert isinstance(self.stream, trio.SocketStream)
        if not self.linger:
            self.linger = self.stream.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        await super().aclose()


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("cleanly", [True, False])
async def test_the_socket_below_does_not_block_the_run_when_it_is_closed(
    *, cleanly: bool, tells: bool
) -> None:
    sock, far = await tcp_sockets()
    stream = Over(trio.SocketStream(sock), tells=tells)
    lingering = struct.pack("ii", 1, 2)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering)
    writer = wrap_stream(stream)
    with far:
        if cleanly:
            await writer.aclose()
        else:
            await trio.aclose_forcefully(writer)

    assert sock.fileno() == -1
    assert (stream.linger == lingering) is not tells


async def test_the_socket_below_an_ssl_stream_does_not_block_the_run_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sock, far = await tcp_sockets()
    transport = trio.SocketStream(sock)
    lingering: list[bytes] = []
    aclose = transport.aclose

    async def watched_aclose() -> None:
        lingering.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
        await aclose()

    monkeypatch.setattr(transport, "aclose", watched_aclose)
    stream = trio.SSLStream(transport, client_context(TLS13), server_hostname=HOST)
    peer = TlsStream(TcpStream(far), server_context(TLS13), server_side=True)
    await both(stream.do_handshake, peer.do_handshake)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 2))
    await close_gracefully(stream, linger=0)
    await peer.aclose()
    assert [struct.unpack("ii", option)[0] for option in lingering] == [0]
