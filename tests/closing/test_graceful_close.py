"""Endings: each outcome where it belongs, and not a byte lost that could be saved."""

from __future__ import annotations

import os
import pty
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
    duplex,
    simplex,
    split,
)
from trio_asyncwrite._closing._close import (
    close_gracefully,
)
from trio_asyncwrite._closing._report import CloseOutcome, CloseReport

from .._endings import (
    Pair,
    Result,
    into,
    over_duplex,
    over_memory,
    over_tcp,
    plain,
    read_and_close,
    unread_pipe,
)
from .._patience import wait_all_tasks_blocked
from .._streams import (
    drain,
    pipe_pair,
    socket_pair,
    tcp_pair,
    unix_pair,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CLEAN = CloseOutcome.CLEAN
PEER_SILENT = CloseOutcome.PEER_SILENT
TIMED_OUT = CloseOutcome.TIMED_OUT


ANSWER = bytes(range(256)) * 400


# ---- Every kind of stream, and a peer that behaves ---------------------------------------------


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


# ---- Streams that have less to offer -----------------------------------------------------------


@pytest.mark.parametrize("ends", [False, True])
async def test_a_foreign_stream_that_a_writer_drains_is_waited_for_no_longer_than_one_lingers(
    ends: bool,
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Drained(AsyncWrite):
        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            return len(data)

        def drain_source(self) -> trio.abc.ReceiveStream:
            return reader

    sender, reader = trio.testing.memory_stream_one_way_pair()
    await sender.send_all(b"unread")
    if ends:
        await sender.aclose()
    report = await close_gracefully(Drained(), linger=2)

    assert (report.peer_closed, report.discarded_bytes) == (ends, 6)
    assert report.elapsed == (0 if ends else 2)


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
    """A duplex stream whose only way to end is aclose, which takes some seconds."""

    def __init__(self, inner: trio.abc.Stream, takes: float) -> None:
        self.inner = inner
        self.takes = takes
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
                await trio.sleep(self.takes)
                await self.inner.send_all(b"goodbye")
                self.said_goodbye = True
        finally:
            await trio.aclose_forcefully(self.inner)


@pytest.mark.parametrize(("takes", "seconds"), [(1, 2), (1, 0.5), (3, 0.5)])
async def test_a_stream_that_cannot_be_half_closed_is_closed_in_its_own_way(
    autojump_clock: trio.testing.MockClock, takes: float, seconds: float
) -> None:
    """What it has begun when time is up may go on for the grace of a foreign stream, a second."""
    left, right = trio.testing.memory_stream_pair()
    stream = Polite(left, takes)
    writer = BufWriter(stream)
    await writer.write_all(b"hello, ")
    await right.send_all(b"unread")

    report = await close_gracefully(writer, timeout=seconds)

    if takes == 1:
        assert report.outcome is PEER_SILENT
        assert report.elapsed == 1
        assert report.discarded_bytes == len(b"unread")
        assert await drain(right) == b"hello, goodbye"
    else:
        assert report.outcome is TIMED_OUT
        assert report.elapsed == 1.5
        assert await drain(right) == b"hello, "
