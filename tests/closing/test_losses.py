"""Whatever is lost is told to whose bytes they were, and what can be sent is sent."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import (
    AsyncRead,
    AsyncWrite,
    BufWriter,
    CloseOutcome,
    NotReady,
    ReadWritePair,
    SharedWriter,
    Sink,
    abort,
    close_all_gracefully,
    close_gracefully,
    duplex,
    graceful,
    simplex,
)
from trio_asyncwrite.testing import BrokenAfterWriter, OneByteWriter

from .._patience import wait_all_tasks_blocked
from .._streams import clog, drain, reset, tcp_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


# ---- Layers that a shutdown has shut, and that have nothing to send ------------------------------


async def aclose(stream: AsyncWrite) -> None:
    await stream.aclose()


async def gracefully(stream: AsyncWrite) -> None:
    assert (await close_gracefully(stream)).outcome is CloseOutcome.CLEAN


@pytest.mark.parametrize("end", [aclose, gracefully])
async def test_a_layer_that_is_made_during_a_close_holds_nobody_up(
    end: Callable[[AsyncWrite], Awaitable[None]],
) -> None:
    left, right = duplex(4)
    shared = SharedWriter(left)
    await shared.write(bytes(100))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end, shared)
        await wait_all_tasks_blocked()
        layers = [BufWriter(shared), BufWriter(left)]
        assert await drain(right) == bytes(100)
        await right.aclose()
    assert [layer.closed for layer in layers] == [True, True]


@pytest.mark.parametrize("end", [aclose, gracefully])
@pytest.mark.parametrize("uppers", [0, 1, 2])
async def test_a_cancelled_shutdown_of_a_middle_layer_is_gone_on_with_by_a_close(
    end: Callable[[AsyncWrite], Awaitable[None]], uppers: int
) -> None:
    left, right = duplex(4)
    shared = SharedWriter(left)
    layers = [BufWriter(shared) for _ in range(uppers)]
    await shared.write(bytes(100))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shared.shutdown)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end, shared)
        assert await drain(right) == bytes(100)
        await right.aclose()
    assert all(layer.closed for layer in layers)


# ---- A failure that somebody else was told of ----------------------------------------------------


async def test_bytes_that_a_reset_has_lost_are_told_to_their_writer() -> None:
    """The task that reads has met it."""
    left, right = await tcp_pair()
    writer = BufWriter(left)
    await writer.write_all(b"abc")
    reset(right)
    with pytest.raises(trio.BrokenResourceError):
        await left.receive_some()

    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await writer.aclose()
    assert writer.unsent_bytes == 3


@pytest.mark.parametrize("closes", ["told", "untold"])
async def test_each_of_two_buffers_is_told_of_its_own_bytes(closes: str) -> None:
    shared = SharedWriter(BrokenAfterWriter(Sink(), 5))
    told, untold = BufWriter(shared), BufWriter(shared)
    await told.write_all(bytes(10))
    await untold.write_all(bytes(7))
    with pytest.raises(trio.BrokenResourceError):
        await told.flush()

    if closes == "untold":
        with pytest.raises(trio.BrokenResourceError, match="breaks here"):
            await untold.aclose()
        return
    with pytest.warns(ResourceWarning, match="7 bytes that it had accepted were never sent"):
        await told.aclose()

    async def close_in_another_task() -> None:
        with pytest.raises(trio.ClosedResourceError, match="7 bytes that it had accepted"):
            await untold.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close_in_another_task)


async def test_the_rest_of_a_message_that_was_accepted_is_told() -> None:
    shared = SharedWriter(BrokenAfterWriter(OneByteWriter(Sink()), 5))
    assert await shared.write(bytes(20)) == 20
    with pytest.raises(trio.BrokenResourceError, match="breaks here"):
        await shared.aclose()
    assert shared.unsent_bytes == 15


@pytest.mark.parametrize("call", ["flush", "write_all", "write", "send_all"])
async def test_who_was_told_is_not_told_again(call: str) -> None:
    writer = BufWriter(BrokenAfterWriter(Sink(), 5))
    await writer.write_all(bytes(10))
    arguments = [] if call == "flush" else [bytes(100_000)]
    with pytest.raises(trio.BrokenResourceError):
        await getattr(writer, call)(*arguments)
    await writer.aclose()


# ---- A close that another task has made ----------------------------------------------------------


async def with_little_time(stream: AsyncWrite) -> None:
    report = await close_gracefully(stream, timeout=1)
    assert report.outcome is CloseOutcome.TIMED_OUT


async def with_a_body_that_raises(stream: AsyncWrite) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with graceful(stream, timeout=1):
            raise ZeroDivisionError


def holding() -> tuple[BufWriter[Any], AsyncWrite]:
    """A buffer with three bytes, and the writer below it, which takes none."""
    below, _ = simplex(4)
    clog(below)
    writer = BufWriter(below)
    assert writer.poll_write(b"abc") == 3
    return writer, below


three_are_lost = pytest.mark.filterwarnings("ignore:.*3 bytes that it had accepted were never sent")
ENDS = [trio.aclose_forcefully, abort, with_little_time, with_a_body_that_raises]


@pytest.mark.parametrize(
    ("end", "of_the_layer_below"),
    [*((end, True) for end in ENDS), *((end, False) for end in ENDS[1:])],
)
@three_are_lost
async def test_who_did_not_close_it_is_told_once_what_is_lost(
    end: Callable[[AsyncWrite], Awaitable[None]],
    *,
    of_the_layer_below: bool,
    autojump_clock: trio.testing.MockClock,
) -> None:
    writer, below = holding()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end, below if of_the_layer_below else writer)
    with pytest.raises(trio.ClosedResourceError, match="another task .* 3 bytes"):
        await writer.aclose()
    await writer.aclose()
    await below.aclose()  # which has lost nothing


@three_are_lost
async def test_an_aclose_of_the_layer_itself_tells_its_own_caller_only() -> None:
    """An ``aclose`` after one that was cancelled does nothing."""
    writer, below = holding()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.aclose_forcefully, writer)
    await writer.aclose()
    await below.aclose()


@pytest.mark.parametrize("of_the_layer_below", [False, True])
@pytest.mark.parametrize("end", ENDS)
@three_are_lost
async def test_who_closed_it_is_not_told_again(
    end: Callable[[AsyncWrite], Awaitable[None]],
    *,
    of_the_layer_below: bool,
    autojump_clock: trio.testing.MockClock,
) -> None:
    writer, below = holding()
    await end(below if of_the_layer_below else writer)
    await writer.aclose()
    await below.aclose()


@three_are_lost
@pytest.mark.parametrize("first", [0, 1])
async def test_every_task_that_ended_it_knows_what_is_lost_and_one_other_is_told(
    first: int, autojump_clock: trio.testing.MockClock
) -> None:
    writer, _ = holding()

    async def close_cancelled() -> None:
        with trio.move_on_after(0.5):
            await writer.aclose()
        await writer.aclose()

    async def gracefully_of_many() -> None:
        await close_all_gracefully([writer, duplex(1)[0]], timeout=2)
        await writer.aclose()

    async def with_a_body_that_raises_first() -> None:
        await with_a_body_that_raises(writer)
        await writer.aclose()

    ends: list[Callable[[], Awaitable[None]]] = [
        gracefully_of_many,
        with_a_body_that_raises_first,
        close_cancelled,
    ]
    async with trio.open_nursery() as nursery:
        for end in ends[first:]:
            nursery.start_soon(end)
            await wait_all_tasks_blocked()
    with pytest.raises(trio.ClosedResourceError, match="3 bytes"):
        await writer.aclose()
    await writer.aclose()


@pytest.mark.parametrize("end", [trio.aclose_forcefully, abort])
async def test_nobody_is_told_if_nothing_is_lost(
    end: Callable[[AsyncWrite], Awaitable[None]],
) -> None:
    below, _ = simplex(4)
    writer = BufWriter(below)
    await writer.write_all(b"abc")
    await writer.flush()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end, writer)
    await writer.aclose()


# ---- An unknown number of bytes ------------------------------------------------------------------


class Unknown(AsyncWrite):
    """Keeps what it is given, and cannot say how much that is."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner
        self.kept = bytearray()

    @property
    def held_bytes(self) -> int:  # type: ignore[override]
        raise ZeroDivisionError

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.lifecycle.check_write(self)
        self.kept += data
        return len(data)

    def poll_flush(self) -> None:
        self.lifecycle.check_flush(self)
        while self.kept:
            del self.kept[: self.inner.poll_write(bytes(self.kept))]
        super().poll_flush()


async def test_an_unknown_loss_is_told() -> None:
    writer = Unknown(simplex(4)[0])
    await writer.write_all(b"0123456789")
    with pytest.warns(ResourceWarning, match="an unknown number of bytes .* were never sent"):
        await trio.aclose_forcefully(writer)


async def test_a_send_with_an_unknown_rest_was_given_up() -> None:
    """So a close does not wait for a reader that may never come."""
    writer = Unknown(simplex(4)[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.send_all, b"0123456789")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with pytest.warns(ResourceWarning, match="an unknown number of bytes"):
        await writer.aclose()


# ---- Readers of a stream that is closed ----------------------------------------------------------


class Silent(AsyncRead):
    """Nothing ever arrives."""

    def poll_read(self, size: int, /) -> bytes:
        raise NotReady(trio.sleep_forever)


@pytest.mark.parametrize(
    "make",
    [Silent, lambda: simplex(1)[1], lambda: duplex(1)[0]],
    ids=["one's own", "simplex", "duplex"],
)
@pytest.mark.parametrize("layers", [0, 1])
async def test_who_reads_through_a_pair_is_told_that_its_reader_is_closed(
    make: Callable[[], Any], layers: int
) -> None:
    reader = make()
    pair: Any = ReadWritePair(reader, Sink())
    for _ in range(layers):
        pair = ReadWritePair(pair, BufWriter(pair))

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await pair.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        nursery.start_soon(partial(reader.aclose))
    await pair.aclose()
