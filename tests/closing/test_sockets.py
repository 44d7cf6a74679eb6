"""Endings of sockets: resets, and what is known of the kernel's buffers."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    ReadHalf,
    ReadWritePair,
    SharedWriter,
    TcpStream,
    WriteHalf,
    split,
)
from trio_asyncwrite._closing._close import (
    abort,
    close_gracefully,
    graceful,
)
from trio_asyncwrite._closing._report import CloseOutcome

from .._endings import (
    Result,
    into,
    plain,
    read_and_close,
)
from .._patience import wait_all_tasks_blocked
from .._streams import (
    clog,
    drain,
    reset,
    socket_pair,
    tcp_pair,
    unix_pair,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_asyncwrite._transports._fd import FdWriter

CLEAN = CloseOutcome.CLEAN
PEER_SILENT = CloseOutcome.PEER_SILENT
TIMED_OUT = CloseOutcome.TIMED_OUT
BROKEN = CloseOutcome.BROKEN


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


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


@on_linux
@pytest.mark.parametrize("ends_before", [False, True])
@pytest.mark.parametrize("leaves", ["before", "after our end"])
@pytest.mark.parametrize("pair", [unix_pair, socket_pair])
async def test_a_peer_that_leaves_bytes_unread_in_a_unix_socket_makes_no_clean_end(
    pair: Callable[[], Awaitable[tuple[FdWriter, FdWriter]]], leaves: str, *, ends_before: bool
) -> None:
    left, right = await pair()
    if ends_before:
        await right.shutdown()
        assert await left.receive_some() == b""
    await left.send_all(b"not read")
    if leaves == "after our end":
        await left.shutdown()
    await trio.aclose_forcefully(right)

    report = await close_gracefully(left)

    assert report.outcome is BROKEN
    assert report.peer_closed is False


async def test_a_peer_that_has_read_all_of_a_unix_socket_makes_a_clean_end() -> None:
    left, right = await unix_pair()
    await left.send_all(b"read")
    assert await right.receive_some() == b"read"
    await right.aclose()

    assert (await close_gracefully(left)).outcome is CLEAN


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


@on_linux
@pytest.mark.parametrize("peer", ["has unread bytes", "had read all"])
async def test_a_truncated_stream_waits_for_no_peer_that_has_reset_it(
    autojump_clock: trio.testing.MockClock, peer: str
) -> None:
    """What was not acknowledged then stays so: there is nothing to wait for."""
    left, right = await tcp_pair()
    writer = BufWriter(left)
    if peer == "has unread bytes":
        clog(left)
    with pytest.raises(ZeroDivisionError):
        async with graceful(writer, linger=5) as ending:
            await writer.write_all(b"abc")
            await right.aclose()
            raise ZeroDivisionError

    assert ending.report.outcome is BROKEN
    assert ending.report.elapsed < 1
