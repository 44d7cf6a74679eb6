"""Endings: each outcome where it belongs, and not a byte lost that could be saved."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import pty
import sys
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from trio_asyncwrite import (
    AsyncReadWrite,
    AsyncWrite,
    Buf,
    BufWriter,
    DuplexStream,
    NotReady,
    PollEvented,
    ReadHalf,
    ReadWritePair,
    SharedWriter,
    Sink,
    TcpStream,
    TimeoutWriter,
    WriteHalf,
    duplex,
    simplex,
    split,
)
from trio_asyncwrite._closing._close import (
    abort,
    close_gracefully,
)
from trio_asyncwrite._closing._report import CloseOutcome, CloseReport
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._endings import Hostile, Result, into, plain, read_and_close, unread_pipe
from .._streams import (
    clog,
    connected,
    drain,
    pipe_pair,
    reset,
    socket_pair,
    tcp_pair,
    unix_pair,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CLEAN = CloseOutcome.CLEAN
PEER_SILENT = CloseOutcome.PEER_SILENT
TIMED_OUT = CloseOutcome.TIMED_OUT
BROKEN = CloseOutcome.BROKEN
ABORTED = CloseOutcome.ABORTED


ANSWER = bytes(range(256)) * 400

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")

Pair = tuple[trio.abc.SendStream, trio.abc.Stream]


# ---- Every kind of stream, and a peer that behaves ---------------------------------------------


async def over_tcp(make: Callable[[TcpStream], trio.abc.SendStream]) -> Pair:
    left, right = await tcp_pair()
    return make(left), right


async def over_memory(make: Callable[[Any], trio.abc.SendStream]) -> Pair:
    left, right = trio.testing.memory_stream_pair()
    return make(left), right


async def over_duplex(make: Callable[[DuplexStream], trio.abc.SendStream]) -> Pair:
    left, right = duplex(1000)
    return make(left), right


async def last_half() -> Pair:
    left, right = await tcp_pair()
    reading, writing = split(left)
    await reading.aclose()
    return writing, right


DUPLEX: dict[str, Callable[[], Awaitable[Pair]]] = {
    "TcpStream": tcp_pair,
    "Unix": unix_pair,
    "PollEvented": socket_pair,
    "duplex": lambda: over_duplex(lambda stream: stream),
    "BufWriter": lambda: over_tcp(BufWriter),
    "BufWriter-duplex": lambda: over_duplex(lambda stream: BufWriter(stream, 20)),
    "pair": lambda: over_tcp(lambda stream: ReadWritePair(stream, BufWriter(stream))),
    "pair-of-plain": lambda: over_tcp(
        lambda stream: ReadWritePair(plain(stream), BufWriter(plain(stream)))
    ),
    "last-half": last_half,
    "SocketStream": lambda: over_tcp(plain),
    "BufWriter-SocketStream": lambda: over_tcp(lambda stream: BufWriter(plain(stream))),
    "memory": lambda: over_memory(lambda stream: stream),
    "BufWriter-memory": lambda: over_memory(BufWriter),
}


@pytest.mark.parametrize("maker", DUPLEX.values(), ids=DUPLEX)
async def test_a_peer_that_ends_too_makes_a_clean_end(
    maker: Callable[[], Awaitable[Pair]],
) -> None:
    stream, peer = await maker()
    received = Result()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(into, received, lambda: read_and_close(peer))
        if isinstance(stream, AsyncWrite):
            await stream.write_all(ANSWER)  # some of it is still in a buffer
        else:
            await stream.send_all(ANSWER)
        await peer.send_all(b"unread")
        report = await close_gracefully(stream)

    assert report.outcome is CLEAN
    assert report.peer_closed is True
    assert report.unsent_bytes == 0
    assert not report.unacknowledged_bytes
    assert report.discarded_bytes == len(b"unread")
    assert report.error is None
    assert received.value == ANSWER
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")


@pytest.mark.parametrize("make", [BufWriter, plain], ids=["ours", "plain"])
@pytest.mark.parametrize("first", ["we", "the peer"])
async def test_what_was_ended_before_has_a_clean_end(
    make: Callable[[TcpStream], Any], first: str
) -> None:
    left, right = await tcp_pair()
    stream = make(left)
    if first == "the peer":
        await right.shutdown()
        assert await drain(left) == b""
    await stream.send_all(b"hello")
    await (stream.shutdown() if isinstance(stream, AsyncWrite) else stream.send_eof())
    assert await read_and_close(right) == b"hello"

    report = await close_gracefully(stream)

    assert report.outcome is CLEAN


# ---- Peers that do not behave, by the clock ----------------------------------------------------


async def test_a_silent_peer_is_waited_for_as_long_as_it_may_linger(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = duplex(100)
    await left.send_all(b"hello")

    report = await close_gracefully(left, linger=7)

    assert report == CloseReport(PEER_SILENT, peer_closed=False, elapsed=7)
    # All was sent, so the peer may take it for complete.
    assert await drain(right) == b"hello"


async def test_a_peer_that_ends_late_is_still_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = duplex(100)

    async def peer() -> None:
        await trio.sleep(6)
        await right.send_all(b"late")
        await read_and_close(right)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        report = await close_gracefully(left, linger=7)

    assert report == CloseReport(CLEAN, discarded_bytes=4, peer_closed=True, elapsed=6)


async def test_a_peer_that_never_reads_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = duplex(100)
    writer = BufWriter(left)
    await writer.write_all(bytes(1000))

    report = await close_gracefully(writer, timeout=11, linger=7)

    assert report == CloseReport(TIMED_OUT, unsent_bytes=900, peer_closed=False, elapsed=11)
    assert writer.unsent_bytes == 900
    # What it has must not look complete.
    with pytest.raises(trio.BrokenResourceError):
        await drain(right)


async def test_a_peer_that_reads_slowly_gets_all_within_the_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = duplex(100)
    writer = BufWriter(left)
    await writer.write_all(bytes(1000))
    received = bytearray()

    async def peer() -> None:
        while len(received) < 1000:
            await trio.sleep(1)
            received.extend(await right.receive_some(100))
        await read_and_close(right)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        report = await close_gracefully(writer, timeout=11, linger=7)

    assert report.outcome is CLEAN
    assert report.elapsed == 10


async def flood(stream: trio.abc.SendStream, sent: list[int]) -> None:
    try:
        while True:
            await stream.send_all(bytes(100))
            sent.append(100)
    except trio.BrokenResourceError:
        pass


async def test_a_peer_that_floods_is_listened_to_up_to_the_limit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = duplex(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood, right, [])
        report = await close_gracefully(left, linger_bytes=1000)

    assert report.outcome is PEER_SILENT
    assert report.peer_closed is False
    assert report.discarded_bytes == 1001  # the last tells that there is more
    assert report.elapsed == 0


async def test_what_floods_in_while_we_send_does_not_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = duplex(100)
    writer = BufWriter(left)
    await writer.write_all(bytes(1000))
    sent: list[int] = []

    async def peer() -> None:
        for _ in range(50):
            await right.send_all(bytes(100))
        await read_and_close(right)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        report = await close_gracefully(writer, linger_bytes=0)

    assert report.discarded_bytes == 5000
    assert report.outcome is CLEAN
    assert not sent


async def test_with_no_bytes_to_linger_for_the_end_is_still_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = duplex(100)

    async def peer() -> None:
        await trio.sleep(3)
        await right.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        report = await close_gracefully(left, linger_bytes=0)

    assert report.outcome is CLEAN


async def test_without_any_time_what_goes_at_once_goes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for size, outcome in ((100, PEER_SILENT), (101, TIMED_OUT)):
        left, right = duplex(100)
        writer = BufWriter(left)
        await writer.write_all(bytes(size))

        report = await close_gracefully(writer, timeout=0, linger=0)

        assert report.outcome is outcome
        assert report.unsent_bytes == size - 100
        assert report.elapsed == 0
        assert len(await right.receive_some(1000)) == 100


@pytest.mark.parametrize("over", ["tcp", "duplex"])
async def test_two_peers_that_only_write_do_not_block_each_other(over: str) -> None:
    ends = await tcp_pair() if over == "tcp" else duplex(64)
    size = 3_000_000 if over == "tcp" else 10_000  # more than all buffers between them hold
    reports: list[CloseReport] = []

    async def only_write(end: AsyncWrite) -> None:
        writer = BufWriter(end, capacity=size + 1)
        await writer.write_all(bytes(size))
        reports.append(await close_gracefully(writer))

    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(only_write, end)

    for report in reports:
        assert report.outcome is CLEAN
        assert report.discarded_bytes == size


# ---- Sockets: resets, and what is known of the kernel's buffers --------------------------------


@on_linux
async def test_what_the_kernel_still_holds_is_reported() -> None:
    left, right = await tcp_pair()
    sent = clog(left)

    report = await close_gracefully(left, linger=0)

    assert report.outcome is PEER_SILENT
    assert report.unsent_bytes == 0
    assert report.unacknowledged_bytes is not None
    assert 0 < report.unacknowledged_bytes < sent
    # It is not lost: the kernel goes on sending.
    assert len(await read_and_close(right)) == sent


async def test_a_peer_that_never_reads_from_a_socket_is_reset() -> None:
    left, right = await tcp_pair()
    writer = BufWriter(left, 10_000_000)
    await writer.write_all(bytes(9_000_000))

    report = await close_gracefully(writer, timeout=0)

    assert report.outcome is TIMED_OUT
    assert 0 < report.unsent_bytes < 9_000_000
    with pytest.raises(trio.BrokenResourceError):
        await drain(right)
    await right.aclose()


@pytest.mark.parametrize("unsent", [0, 9_000_000])
@pytest.mark.parametrize("make", [BufWriter, plain], ids=["ours", "plain"])
async def test_a_reset_before_is_seen(
    make: Callable[[TcpStream], trio.abc.SendStream], unsent: int
) -> None:
    left, right = await tcp_pair()
    stream = make(left)
    if isinstance(stream, BufWriter):
        stream = BufWriter(left, 10_000_000)
        await stream.write_all(bytes(unsent))
    reset(right)

    report = await close_gracefully(stream)

    assert report.outcome is BROKEN
    assert report.peer_closed is False
    assert isinstance(report.error, trio.BrokenResourceError)


@on_linux
async def test_a_reset_that_somebody_else_was_told_of_is_no_end_of_file() -> None:
    left, right = await tcp_pair()
    stream = plain(left)
    reset(right)
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    assert await stream.receive_some() == b""  # so the kernel says, from now on

    report = await close_gracefully(stream)

    assert report.outcome is BROKEN
    assert str(report.error) == "the connection had been reset before"
    assert report.peer_closed is False


async def test_a_reset_after_our_own_end_that_was_told_is_no_clean_end() -> None:
    left, right = await tcp_pair()
    await left.send_all(b"not read")
    await left.shutdown()
    reset(right)
    with pytest.raises(trio.BrokenResourceError):
        await left.receive_some()

    report = await close_gracefully(left)

    assert report.outcome is BROKEN
    assert str(report.error) == "the connection had been reset before"


async def test_a_reset_while_we_send_is_seen() -> None:
    left, right = await tcp_pair()
    writer = BufWriter(left, 10_000_000)
    await writer.write_all(bytes(9_000_000))
    closing = Result()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(into, closing, lambda: close_gracefully(writer))
        await wait_all_tasks_blocked()
        reset(right)

    assert closing.value.outcome is BROKEN
    assert closing.value.unsent_bytes > 0
    assert closing.value.peer_closed is False


async def test_a_reset_while_we_linger_is_seen() -> None:
    left, right = await tcp_pair()
    closing = Result()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(into, closing, lambda: close_gracefully(left))
        await wait_all_tasks_blocked()
        reset(right)

    assert closing.value.outcome is BROKEN
    assert closing.value.unsent_bytes == 0


@on_linux
@pytest.mark.parametrize("taken", [False, True], ids=["reset", "taken"])
async def test_an_end_of_file_older_than_our_bytes_does_not_prove_that_they_arrived(
    *, taken: bool
) -> None:
    left, right = await tcp_pair()
    await right.shutdown()
    sent = clog(left)
    closing = Result()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(into, closing, lambda: close_gracefully(left))
        await wait_all_tasks_blocked()
        assert closing.value is None  # though it has seen the end of the peer

        if taken:
            assert len(await drain(right)) == sent
        else:
            reset(right)
    await right.aclose()

    assert closing.value.peer_closed is True
    assert closing.value.outcome is (CLEAN if taken else BROKEN)
    assert (closing.value.unacknowledged_bytes == 0) is taken


@on_linux
async def test_bytes_that_are_never_acknowledged_make_no_clean_end() -> None:
    left, right = await tcp_pair()
    await right.shutdown()
    clog(left)

    report = await close_gracefully(left, linger=0.05)

    assert report.outcome is PEER_SILENT
    assert report.peer_closed is True
    assert report.unacknowledged_bytes
    await trio.aclose_forcefully(right)


# Layers that hide the transport: what it tells is told all the same.
HIDING: dict[str, Callable[[TcpStream], trio.abc.SendStream]] = {
    "halves": lambda stream: ReadWritePair(*split(stream)),
    "buffered-half": lambda stream: _pair_of(*split(stream)),
    "stapled-halves": lambda stream: _stapled(*split(stream)),
    "stapled": lambda stream: trio.StapledStream(BufWriter(stream), stream),
}


def _pair_of(reading: ReadHalf[Any], writing: WriteHalf[Any]) -> trio.abc.SendStream:
    return SharedWriter(ReadWritePair(reading, BufWriter(writing)))


def _stapled(reading: ReadHalf[Any], writing: WriteHalf[Any]) -> trio.abc.SendStream:
    return trio.StapledStream(writing, reading)


@on_linux
@pytest.mark.parametrize("hide", HIDING.values(), ids=HIDING)
async def test_no_layer_hides_what_was_not_acknowledged(
    hide: Callable[[TcpStream], trio.abc.SendStream],
) -> None:
    left, right = await tcp_pair()
    stream = hide(left)
    await right.shutdown()
    clog(left)

    report = await close_gracefully(stream, linger=0.05)

    assert report.outcome is PEER_SILENT
    assert report.unacknowledged_bytes != 0  # but None, where its own end closes it all
    await trio.aclose_forcefully(right)


@pytest.mark.parametrize("hide", HIDING.values(), ids=HIDING)
async def test_a_layer_that_is_cut_off_is_reset_in_its_transport(
    hide: Callable[[TcpStream], trio.abc.SendStream],
) -> None:
    left, right = await tcp_pair()
    stream = hide(left)
    await stream.send_all(b"half a mess")

    await abort(stream)

    with pytest.raises(trio.BrokenResourceError):
        await drain(right)
    await right.aclose()


class Trailer(AsyncWrite):
    """A layer that ends with data."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner
        self.trailer = Buf(b"trailer")

    def poll_shutdown(self) -> None:
        if self.trailer.remaining:
            self.trailer.advance(self.inner.poll_write(self.trailer.chunk()))
        self.inner.poll_shutdown()


@on_linux
async def test_a_trailer_that_finds_nobody_any_more_is_a_loss() -> None:
    """It is not a mere goodbye: the peer lacks it."""
    left, right = await tcp_pair()
    writer = Trailer(left)
    await writer.send_all(b"data")
    assert await right.receive_some() == b"data"
    await right.aclose()

    report = await close_gracefully(writer)

    assert report.outcome is BROKEN


async def test_a_peer_that_closed_before_without_missing_anything_ended_properly() -> None:
    left, right = await tcp_pair()
    await right.aclose()

    report = await close_gracefully(left)

    assert report.outcome is CLEAN


async def test_bytes_for_a_peer_that_closed_before_are_lost() -> None:
    left, right = await tcp_pair()
    await right.aclose()
    writer = BufWriter(left)
    await writer.write_all(b"into the void")

    report = await close_gracefully(writer)

    assert report.outcome is BROKEN


async def test_a_failure_of_before_is_not_forgotten() -> None:
    left, right = await unix_pair()
    await right.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await left.send_all(b"x")

    report = await close_gracefully(left)

    assert report.outcome is BROKEN
    assert isinstance(report.error, trio.BrokenResourceError)


# ---- The measurement of the issue --------------------------------------------------------------

UPLOAD = 200_000
DOWNLOAD = 4 * 1024 * 1024


async def download(client: trio.SocketStream) -> int:
    """How much of the answer arrives, though the server does not read the upload."""
    received = 0

    async def upload() -> None:
        # When the server has closed, what it said before is still to be read.
        with contextlib.suppress(trio.BrokenResourceError):
            await client.send_all(bytes(UPLOAD))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(upload)
        try:
            async for chunk in client:
                received += len(chunk)
        except trio.BrokenResourceError:
            pass
        nursery.cancel_scope.cancel()
    return received


async def answer_and_close(stream: trio.SocketStream) -> None:
    writer = BufWriter(stream)
    await writer.inner.receive_some(1)
    await writer.write_all(bytes(DOWNLOAD))
    report = await close_gracefully(writer)
    assert report.outcome is CLEAN
    assert report.discarded_bytes == UPLOAD - 1


@pytest.mark.parametrize("times", [24, pytest.param(1000, marks=pytest.mark.slow)])
async def test_every_answer_is_whole_though_the_upload_was_not_read(times: int) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    whole = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer_and_close, listeners)
        for _ in range(times):
            address = listeners[0].socket.getsockname()
            async with await trio.open_tcp_stream(*address) as client:
                whole += await download(client) == DOWNLOAD
        nursery.cancel_scope.cancel()

    assert whole == times


# ---- Streams that have less to offer -----------------------------------------------------------


async def test_of_a_write_only_stream_the_peers_end_cannot_be_seen() -> None:
    writer, reader = simplex(100)
    await writer.write_all(b"hello")

    report = await close_gracefully(writer)

    assert report.outcome is PEER_SILENT
    assert report.peer_closed is None
    assert await drain(reader) == b"hello"
    assert report.elapsed < 5  # there was nothing to linger for


async def test_a_pipe_gives_its_reader_an_end() -> None:
    writing, reading = await pipe_pair()
    writer = BufWriter(writing)
    await writer.write_all(b"hello")

    report = await close_gracefully(writer)

    assert report.outcome is PEER_SILENT
    assert report.peer_closed is None
    assert report.unacknowledged_bytes is None
    assert await drain(reading) == b"hello"
    await reading.aclose()


async def test_a_plain_write_only_stream_is_closed() -> None:
    sender, receiver = trio.testing.memory_stream_one_way_pair()
    await sender.send_all(b"hello")

    report = await close_gracefully(sender)

    assert report.outcome is PEER_SILENT
    assert await drain(receiver) == b"hello"


async def test_a_plain_pipe_is_closed() -> None:
    report = await close_gracefully(await unread_pipe())

    assert report.outcome is PEER_SILENT
    assert report.peer_closed is None


async def test_a_sink_has_no_peer() -> None:
    assert (await close_gracefully(Sink())).outcome is PEER_SILENT


async def test_a_borrowed_handle_leaves_the_original_to_its_owner() -> None:
    left, right = await tcp_pair()
    async with trio.open_nursery() as nursery:
        received = Result()
        nursery.start_soon(into, received, left.receive_some)
        await wait_all_tasks_blocked()
        handle = left.by_ref()
        await handle.write_all(b"hello")

        report = await close_gracefully(handle)

        assert report.outcome is PEER_SILENT
        assert report.peer_closed is None
        await right.send_all(b"still there")
    assert received.value == b"still there"
    await left.send_all(b" again")
    await left.aclose()
    assert await read_and_close(right) == b"hello again"


async def test_a_half_leaves_the_other_half_to_its_owner() -> None:
    left, right = await tcp_pair()
    reading, writing = split(left)
    await writing.write_all(b"hello")

    report = await close_gracefully(writing)

    assert report.outcome is PEER_SILENT
    assert report.peer_closed is None
    assert await drain(right) == b"hello"
    await right.send_all(b"still there")
    await right.aclose()
    assert await drain(reading) == b"still there"
    await reading.aclose()


async def test_a_terminal_cannot_be_half_closed_so_nobody_lingers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    controller, terminal = pty.openpty()
    try:
        report = await close_gracefully(PollEvented(terminal))
    finally:
        os.close(controller)

    assert report == CloseReport(PEER_SILENT, peer_closed=False)


async def test_what_others_go_on_reading_from_is_not_drained() -> None:
    controller, terminal = pty.openpty()
    try:
        os.write(controller, b"typed ahead\n")
        stream = PollEvented(terminal, close=False)

        report = await close_gracefully(ReadWritePair(stream, BufWriter(stream)))

        assert report.peer_closed is None
        assert os.read(terminal, 100) == b"typed ahead\n"
    finally:
        os.close(controller)
        os.close(terminal)


class Polite(trio.abc.Stream):
    """A duplex stream whose only way to end is aclose, which takes a second."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner
        self.said_goodbye = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        try:
            if not self.said_goodbye:
                await trio.sleep(1)
                await self.inner.send_all(b"goodbye")
                self.said_goodbye = True
        finally:
            await trio.aclose_forcefully(self.inner)


@pytest.mark.parametrize("seconds", [2, 0.5])
async def test_a_stream_that_cannot_be_half_closed_is_closed_in_its_own_way(
    autojump_clock: trio.testing.MockClock, seconds: float
) -> None:
    left, right = trio.testing.memory_stream_pair()
    stream = Polite(left)
    writer = BufWriter(stream)
    await writer.write_all(b"hello, ")
    await right.send_all(b"unread")

    report = await close_gracefully(writer, timeout=seconds)

    if seconds == 2:
        assert report.outcome is PEER_SILENT
        assert report.elapsed == 1
        assert report.discarded_bytes == len(b"unread")
        assert await drain(right) == b"hello, goodbye"
    else:
        assert report.outcome is TIMED_OUT
        assert report.elapsed == 0.5
        assert await drain(right) == b"hello, "


# ---- Cancellation ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_a_cancelled_task_ends_its_streams_as_every_other_does(
    autojump_clock: trio.testing.MockClock, how: str
) -> None:
    left, right = duplex(100)
    writer = BufWriter(left)
    await writer.write_all(bytes(1000))
    received = Result()

    async def peer() -> None:
        await trio.sleep(3)
        received.value = await read_and_close(right)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer)
        with trio.CancelScope() as scope:
            if how == "cancelled":
                scope.cancel()
            else:
                scope.deadline = -math.inf
            try:
                await trio.sleep_forever()
            finally:
                report = await close_gracefully(writer)
                finished = True
    assert finished
    assert scope.cancelled_caught  # it is delivered afterwards, by the next checkpoint or here

    assert report == CloseReport(CLEAN, peer_closed=True, elapsed=3)
    assert received.value == bytes(1000)


async def test_a_cancellation_is_delivered_after_the_end() -> None:
    left, right = duplex(100)
    with trio.CancelScope() as scope:
        scope.cancel()
        report = await close_gracefully(left, linger=0)
        await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert report.outcome is PEER_SILENT
    assert await drain(right) == b""


async def test_wherever_it_is_cancelled_the_end_is_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def scenario(sweep: Sweep) -> None:
        left, right = duplex(7)
        writer = BufWriter(left, capacity=100)
        await writer.write_all(b"an answer that fills the pipe")
        received = Result()

        async def peer() -> None:
            await right.send_all(b"an upload that does, too")
            received.value = await read_and_close(right)

        report = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer)
            with sweep:
                report = await close_gracefully(writer)

        assert received.value == b"an answer that fills the pipe"
        assert report == CloseReport(CLEAN, discarded_bytes=24, peer_closed=True)

    assert await cancel_everywhere(scenario) > 10


# ---- Other tasks -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [TcpStream, plain], ids=["ours", "plain"])
async def test_a_task_that_reads_is_told_that_the_stream_is_closed(
    make: Callable[[Any], trio.abc.Stream],
) -> None:
    left, right = await tcp_pair()
    stream = left if make is TcpStream else make(left)
    closing = Result()

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        # Not a moment later than the first.
        assert closing.value is None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        nursery.start_soon(into, closing, lambda: close_gracefully(BufWriter(stream)))
        await wait_all_tasks_blocked()
        await right.send_all(b"for nobody")
        await read_and_close(right)

    assert closing.value.outcome is CLEAN
    assert closing.value.discarded_bytes == len(b"for nobody")


async def test_a_task_that_writes_is_told_that_the_stream_is_closed() -> None:
    left, right = duplex(10)
    writer = BufWriter(left, capacity=20)
    await writer.write_all(bytes(15))

    async def write() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.write_all(bytes(19))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        closing = Result()
        nursery.start_soon(into, closing, lambda: close_gracefully(writer))
        await wait_all_tasks_blocked()
        with pytest.raises(trio.ClosedResourceError):
            await writer.write(b"later")
        assert await read_and_close(right) == bytes(15)

    assert closing.value.outcome is CLEAN


async def test_a_task_that_reads_from_memory_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = duplex(10)
    received = Result()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(into, received, left.receive_some)
        await wait_all_tasks_blocked()

        async def peer() -> None:
            await trio.sleep(1)
            await right.send_all(b"first")
            await trio.sleep(1)
            await right.send_all(b"second")
            await read_and_close(right)

        nursery.start_soon(peer)
        report = await close_gracefully(left)

    assert received.value == b"first"
    assert report.outcome is CLEAN
    assert report.discarded_bytes == len(b"second")


class Slow(trio.abc.SendStream):
    """Takes a second to send, and cannot be shared."""

    def __init__(self) -> None:
        self.sent = b""
        self.sending = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sending = True
        await trio.sleep(1)
        self.sent += data
        self.sending = False

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.sending:
            raise trio.BusyResourceError


async def test_a_task_that_writes_to_a_plain_stream_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream = Slow()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, b"hello")
        await wait_all_tasks_blocked()
        report = await close_gracefully(stream)

    assert stream.sent == b"hello"
    assert report.outcome is PEER_SILENT
    assert 1 <= report.elapsed < 1.1


async def test_two_tasks_that_close_get_the_same_report(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, _ = duplex(10)
    reports: list[CloseReport] = []

    async def close() -> None:
        reports.append(await close_gracefully(left, linger=3))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        nursery.start_soon(close)

    first, second = reports
    assert first is second
    assert first == CloseReport(PEER_SILENT, peer_closed=False, elapsed=3)


async def test_aclose_waits_for_a_graceful_close(autojump_clock: trio.testing.MockClock) -> None:
    left, _ = duplex(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: close_gracefully(left, linger=3))
        await wait_all_tasks_blocked()
        await left.aclose()

        assert trio.current_time() == 3


@pytest.mark.parametrize("size", [10, 11], ids=["lingering", "sending"])
@pytest.mark.parametrize("how", ["aclose", "abort"])
async def test_a_graceful_close_can_be_cut_short(
    autojump_clock: trio.testing.MockClock, size: int, how: str
) -> None:
    left, right = duplex(10)
    writer = BufWriter(left)
    await writer.write_all(bytes(size))
    closing = Result()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(into, closing, lambda: close_gracefully(writer))
        await wait_all_tasks_blocked()
        if how == "abort" or size == 11:
            await abort(writer)
        else:
            await trio.aclose_forcefully(writer)

    report = closing.value
    assert report.elapsed == 0
    if size == 10:
        assert report.outcome is PEER_SILENT
    else:
        assert report.outcome is BROKEN
        assert isinstance(report.error, trio.ClosedResourceError)
        assert report.unsent_bytes == 1
    assert len(await right.receive_some()) == 10


async def test_a_close_without_limits_is_waited_for_within_ours(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, _ = duplex(10)
    writer = BufWriter(left)
    await writer.write_all(bytes(11))

    async def close() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        await wait_all_tasks_blocked()
        report = await close_gracefully(writer, timeout=2, linger=3)

        assert trio.current_time() == 5
    assert report.outcome is BROKEN
    assert isinstance(report.error, trio.ClosedResourceError)
    assert report.unsent_bytes == 1


# ---- Closed before -----------------------------------------------------------------------------


CLOSED: dict[str, Callable[[], Awaitable[trio.abc.SendStream]]] = {
    "BufWriter": lambda: first_of(over_duplex(BufWriter)),
    "memory": lambda: first_of(over_memory(lambda stream: stream)),
    "FdStream": unread_pipe,
}


async def first_of(pair: Awaitable[Pair]) -> trio.abc.SendStream:
    stream, _ = await pair
    return stream


@pytest.mark.parametrize("maker", CLOSED.values(), ids=CLOSED)
async def test_of_a_stream_that_was_closed_before_nothing_is_claimed(
    maker: Callable[[], Awaitable[trio.abc.SendStream]],
) -> None:
    stream = await maker()
    await stream.aclose()

    report = await close_gracefully(stream)

    assert report.peer_closed is None
    if not isinstance(stream, trio.StapledStream):  # which does not mind to be closed twice
        assert report.outcome is BROKEN
        assert isinstance(report.error, trio.ClosedResourceError)
    await abort(stream)


async def test_of_a_socket_that_was_closed_before_nothing_is_claimed() -> None:
    async with connected(tcp_pair) as (left, _):
        stream = plain(left)
        await stream.aclose()

        report = await close_gracefully(stream)

        assert report.outcome is BROKEN
        assert isinstance(report.error, trio.ClosedResourceError)
        await abort(stream)


# ---- Streams that fail in unexpected ways ------------------------------------------------------


@pytest.mark.parametrize("where", ["shutdown", "receive", "release"])
async def test_whatever_a_stream_raises_is_in_the_report(where: str) -> None:
    stream = Hostile(where)

    report = await close_gracefully(stream)

    assert report.outcome is BROKEN
    assert repr(report.error) == f"ZeroDivisionError('{where}')"
    with pytest.raises(trio.ClosedResourceError):
        await stream.write(b"x")


async def test_to_be_too_slow_is_to_be_out_of_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, right = duplex(10)
    writer = TimeoutWriter(BufWriter(left), idle=2)
    await writer.write_all(bytes(20))

    report = await close_gracefully(writer, timeout=5)

    assert report.outcome is TIMED_OUT
    assert isinstance(report.error, trio.TooSlowError)
    assert report.elapsed == 2
    await trio.aclose_forcefully(right)


async def test_the_first_failure_is_the_one_reported() -> None:
    class Worse(Hostile):
        def fail(self, where: str) -> None:
            raise ZeroDivisionError(where)

    assert str((await close_gracefully(Worse(""))).error) == "shutdown"


async def test_ctrl_c_still_closes() -> None:
    class Interrupted(Hostile):
        def fail(self, where: str) -> None:
            if where == "shutdown":
                raise KeyboardInterrupt

    stream = Interrupted("")
    with pytest.raises(KeyboardInterrupt):
        await close_gracefully(stream)

    with pytest.raises(trio.ClosedResourceError):
        await stream.write(b"x")


async def test_a_report_and_its_stream_are_freed_without_the_garbage_collector() -> None:
    left, right = await tcp_pair()
    reset(right)
    writer = BufWriter(left)
    gone = weakref.ref(writer)
    gc.collect()
    gc.disable()
    try:
        report = await close_gracefully(writer)
        assert report.outcome is BROKEN
        del left, writer, report
        assert gone() is None
    finally:
        gc.enable()


# ---- The hooks for layers that this module does not know ---------------------------------------


class FakeTls(AsyncReadWrite):
    """A layer that refuses to be read from while it is closing, and tells of close_notify."""

    def __init__(self, inner: DuplexStream, *, answers: bool) -> None:
        self.inner = inner
        self.answers = answers
        self.waits = 2
        self._close_notify_received = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise AssertionError("it is closing")

    def _poll_read(self, size: int) -> bytes:
        if self.waits:
            self.waits -= 1
            raise NotReady(trio.lowlevel.checkpoint)
        if not self.answers:
            raise NotReady(trio.sleep_forever)
        self._close_notify_received = True
        return b""


@pytest.mark.parametrize("answers", [True, False])
async def test_a_layer_of_tls_is_asked_for_what_it_knows(
    autojump_clock: trio.testing.MockClock, *, answers: bool
) -> None:
    left, _ = duplex(10)

    report = await close_gracefully(BufWriter(FakeTls(left, answers=answers)))

    assert report.outcome is (CLEAN if answers else PEER_SILENT)
    assert report.peer_closed is answers
    assert report.close_notify_received is answers
