"""Endings that are cancelled, at every checkpoint they have: they are what they are elsewhere."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    BufWriter,
    CloseOutcome,
    CloseReport,
    ReadWritePair,
    SharedWriter,
    TimeoutWriter,
    TlsStream,
    abort,
    close_all_gracefully,
    close_gracefully,
    duplex,
    graceful,
)
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._endings import plain
from .._streams import pipe_pair, tcp_pair
from .._tls_helpers import (
    HOST,
    client_context,
    duplex_1,
    duplex_7,
    open_tls,
    plain_pair,
    server_context,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

CLEAN = CloseOutcome.CLEAN
PEER_SILENT = CloseOutcome.PEER_SILENT
TIMED_OUT = CloseOutcome.TIMED_OUT
TRUNCATED = CloseOutcome.TRUNCATED

Pair = tuple[Any, Any]


async def plain_tcp() -> Pair:
    """Trio's stream, and ours as its peer."""
    left, right = await tcp_pair()
    return plain(left), right


async def plain_tls() -> Pair:
    """Trio's TLS stream, and ours as its peer."""
    left, right = await tcp_pair()
    ssl_stream = trio.SSLStream(plain(left), client_context(), server_hostname=HOST)
    peer = TlsStream(right, server_context(), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ssl_stream.do_handshake)
        nursery.start_soon(peer.do_handshake)
    return ssl_stream, peer


#: Where bytes go, what is over it, how many bytes go each way, and the best end there can be.
STREAMS: dict[
    str, tuple[Callable[[], Awaitable[Pair]], Callable[[Any], Any], int, int, CloseOutcome]
] = {
    "duplex": (duplex_1, partial(BufWriter, capacity=100), 20, 3, CLEAN),
    "TcpStream": (tcp_pair, BufWriter, 60_000, 30_000, CLEAN),
    "TlsStream": (open_tls, BufWriter, 10_000, 5_000, CLEAN),
    "TlsStream over TcpStream": (partial(open_tls, tcp_pair), BufWriter, 60_000, 30_000, CLEAN),
    "ReadWritePair": (duplex_7, lambda one: ReadWritePair(one, BufWriter(one)), 50, 3, CLEAN),
    "SharedWriter": (duplex_7, SharedWriter, 50, 3, CLEAN),
    "TimeoutWriter": (duplex_7, lambda one: TimeoutWriter(BufWriter(one), idle=9), 50, 3, CLEAN),
    "SocketStream": (plain_tcp, BufWriter, 60_000, 30_000, CLEAN),
    "SSLStream": (plain_tls, BufWriter, 60_000, 0, CLEAN),
    "pipe": (pipe_pair, partial(BufWriter, capacity=1 << 20), 300_000, 0, PEER_SILENT),
    "only send_all": (plain_pair, BufWriter, 10_000, 0, PEER_SILENT),
}


def timeless(report: CloseReport) -> CloseReport:
    return dataclasses.replace(report, elapsed=0.0)


async def read_and_close(stream: Any, received: bytearray) -> None:
    async for chunk in stream:
        received += chunk
    await stream.aclose()


async def read_whatever_end(stream: Any, received: bytearray) -> None:
    try:
        await read_and_close(stream, received)
    except trio.BrokenResourceError:
        await trio.aclose_forcefully(stream)


@pytest.mark.outer
@pytest.mark.parametrize(
    ("maker", "layer", "size", "upload", "outcome"), STREAMS.values(), ids=STREAMS
)
async def test_wherever_it_is_cancelled_the_report_is_the_same(
    maker: Callable[[], Awaitable[Pair]],
    layer: Callable[[Any], Any],
    size: int,
    upload: int,
    outcome: CloseOutcome,
    autojump_clock: MockClock,
) -> None:
    reports = []

    async def scenario(sweep: Sweep) -> None:
        stream, peer = await maker()
        writer = layer(stream)
        assert await writer.write(bytes(size)) == size
        received = bytearray()

        async def other() -> None:
            if upload:
                await peer.write_all(bytes(upload))
            await read_and_close(peer, received)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            with sweep:
                reports.append(await close_gracefully(writer))
        assert received == bytes(size)

    runs = await cancel_everywhere(scenario)
    assert runs > 5
    assert len(reports) == runs
    assert {timeless(report) for report in reports} == {timeless(reports[-1])}
    assert reports[-1].outcome is outcome
    assert reports[-1].discarded_bytes == upload


async def test_a_stuck_peer_is_waited_for_as_long(autojump_clock: MockClock) -> None:
    """Neither for longer than the limits, nor for less."""

    async def scenario(sweep: Sweep) -> None:
        left, right = duplex(7)
        writer = BufWriter(left)
        await writer.write_all(bytes(20))
        with sweep:
            report = await close_gracefully(writer, timeout=4, linger=3)
        assert report == CloseReport(TIMED_OUT, unsent_bytes=13, peer_closed=False, elapsed=4)
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await right.receive_some()

    assert await cancel_everywhere(scenario) > 5


async def test_two_that_close_at_once_do_not_notice_that_one_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    """Each has more to say than the connection holds."""

    async def scenario(sweep: Sweep) -> None:
        reports = []
        writers = [BufWriter(stream) for stream in await open_tls()]

        async def close(writer: BufWriter[Any]) -> None:
            reports.append(await close_gracefully(writer))

        for writer in writers:
            await writer.write_all(bytes(10_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close, writers[0])
            with sweep:
                await close(writers[1])
        for report in reports:
            assert report.outcome is CLEAN
            assert report.discarded_bytes == 10_000

    assert await cancel_everywhere(scenario) > 20


async def test_wherever_the_block_of_graceful_is_cancelled_what_it_wrote_arrives(
    autojump_clock: MockClock,
) -> None:
    async def scenario(sweep: Sweep) -> None:
        left, right = duplex(7)
        received = bytearray()
        written = 0
        ending = graceful(BufWriter(left, 5))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_whatever_end, right, received)
            with sweep:
                async with ending:
                    for _ in range(5):
                        written += await ending.stream.write(b"four")
        outcome = TRUNCATED if sweep.cancelled else CLEAN
        assert ending.report.outcome is outcome
        assert ending.report.unsent_bytes == 0
        assert received == b"four" * (written // 4)

    assert await cancel_everywhere(scenario) > 10


async def test_wherever_all_are_cancelled_each_has_its_own_end(autojump_clock: MockClock) -> None:
    async def scenario(sweep: Sweep) -> None:
        pairs = [duplex(7) for _ in range(3)]
        writers = [BufWriter(left) for left, _ in pairs]
        for writer in writers:
            await writer.write_all(bytes(20))
        received = bytearray()
        async with trio.open_nursery() as nursery:
            for _, right in pairs[:2]:  # and the third does not read
                nursery.start_soon(read_and_close, right, received)
            with sweep:
                reports = await close_all_gracefully(writers, timeout=4)
        assert [report.outcome for report in reports] == [CLEAN, CLEAN, TIMED_OUT]
        assert [report.unsent_bytes for report in reports] == [0, 0, 13]
        assert received == bytes(40)

    assert await cancel_everywhere(scenario) > 10


async def test_wherever_abort_is_cancelled_the_stream_is_closed() -> None:
    async def scenario(sweep: Sweep) -> None:
        left, right = await tcp_pair()
        writer = BufWriter(left)
        await writer.write_all(b"not to be taken for complete")
        with sweep:
            await abort(writer)
        with pytest.raises(trio.ClosedResourceError):
            await writer.flush()
        with pytest.raises(trio.BrokenResourceError):
            await right.receive_some()
        await trio.aclose_forcefully(right)

    assert await cancel_everywhere(scenario) > 2
