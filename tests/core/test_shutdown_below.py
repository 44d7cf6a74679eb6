"""Which layers a shutdown, or a close, would shut down below, and what is in its way there.

What counts is whether the layer shuts the one below down, not whether it owns it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    CloseOutcome,
    DuplexStream,
    Epilogue,
    close_gracefully,
    duplex,
    split,
)
from trio_asyncwrite._core._stack import begin_shutdown, shut_down

from ._fakes import Encoding, Layer, begin, cut_short, each, resource_warnings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    Hindrance = Callable[[DuplexStream], AbstractAsyncContextManager[None]]


class Borrowing(Layer):
    """It does not own the layer below, and has no shutdown of its own: that shuts it down."""

    def owns_below(self, _is_closing: object) -> bool:
        return False


class Ending(Borrowing):
    """It has one of its own, and says what it does."""

    epilogue = Epilogue.NOTHING
    shuts_down_below = True

    def poll_shutdown(self) -> None:
        if begin_shutdown(self):
            self.poll_flush()
            shut_down(self.inner)


class Leaving(Borrowing):
    """A handle as a user writes one."""

    def poll_shutdown(self) -> None:
        self.poll_flush()


class Said(Layer):
    """It closes the layer below, and does not shut it down."""

    shuts_down_below = False

    def poll_shutdown(self) -> None:
        self.poll_flush()


#: The stream, and what was made over it: the other half has to live.
Made = tuple[AsyncWrite, Any]


def half(stream: DuplexStream) -> Made:
    reading, writing = split(stream)
    return writing, reading


def over_a_half(stream: DuplexStream) -> Made:
    reading, writing = split(stream)
    return BufWriter(writing), reading


SHUTTING: dict[str, Callable[[DuplexStream], Made]] = {
    "half": half,
    "over a half": over_a_half,
    "borrowing": lambda stream: (Borrowing(stream), None),
    "over a borrowing one": lambda stream: (BufWriter(Borrowing(stream)), None),
    "ending": lambda stream: (Ending(stream), None),
}
LEAVING: dict[str, Callable[[AsyncWrite], AsyncWrite]] = {
    "over a handle": lambda stream: BufWriter(stream.by_ref()),
    "leaving": Leaving,
    "over a leaving one": lambda stream: BufWriter(Leaving(stream)),
    "said": Said,
}


@asynccontextmanager
async def held_beside(stream: DuplexStream) -> AsyncIterator[None]:
    beside = BufWriter(stream)
    await beside.write_all(b"1234567")
    yield
    await beside.flush()


@asynccontextmanager
async def unfinished(stream: DuplexStream) -> AsyncIterator[None]:
    buf = Buf(b"1234567")
    await cut_short(partial(stream.write_all_buf, buf))
    yield
    await stream.write_all_buf(buf)


@asynccontextmanager
async def unfinished_beside(stream: DuplexStream) -> AsyncIterator[None]:
    beside, buf = Layer(stream), Buf(b"1234567")
    await cut_short(partial(beside.write_all_buf, buf))
    yield
    await beside.write_all_buf(buf)


@asynccontextmanager
async def under_way(stream: DuplexStream) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await begin(nursery, partial(stream.write_all, b"1234567"))
        yield


@asynccontextmanager
async def under_way_beside(stream: DuplexStream) -> AsyncIterator[None]:
    beside = Layer(stream)
    async with trio.open_nursery() as nursery:
        await begin(nursery, partial(beside.write_all, b"1234567"))
        yield


HINDRANCES: dict[str, Hindrance] = {
    "held": held_beside,
    "unfinished": unfinished,
    "unfinished beside": unfinished_beside,
    "under way": under_way,
    "under way beside": under_way_beside,
}


async def read(peer: trio.abc.ReceiveStream, received: list[bytes]) -> None:
    """Read to the end, whatever end it is; a proper one is noted as a full stop."""
    try:
        while chunk := await peer.receive_some():
            received.append(chunk)
        received.append(b".")
    except trio.BrokenResourceError:
        received.append(b" cut")


async def shutdown(layer: AsyncWrite) -> None:
    with pytest.raises((ValueError, trio.BusyResourceError, trio.BrokenResourceError)) as caught:
        await layer.shutdown()
    assert not isinstance(caught.value, trio.ClosedResourceError)


async def aclose(layer: AsyncWrite) -> None:
    with pytest.raises(trio.BrokenResourceError, match="was not shut down: "):
        await layer.aclose()


async def gracefully(layer: AsyncWrite) -> None:
    report = await close_gracefully(layer, timeout=3, linger=3)
    assert report.outcome is CloseOutcome.BROKEN
    assert "was not shut down: " in str(report.error)


@each(SHUTTING, "make")
@each(HINDRANCES, "hindrance")
@pytest.mark.parametrize("end", [shutdown, aclose, gracefully])
async def test_what_others_have_to_write_is_in_the_way_of_a_layer_that_shuts_down_below(
    make: Callable[[DuplexStream], Made],
    hindrance: Hindrance,
    end: Callable[[AsyncWrite], Awaitable[None]],
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whoever owns the stream; it stays open, all of that arrives, and then its proper end."""
    stream, peer = duplex(5)
    layer, _other = make(stream)
    received: list[bytes] = []
    with resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            async with hindrance(stream):
                await end(layer)
                assert not stream.closed
                nursery.start_soon(read, peer, received)
            await stream.aclose()
    assert b"".join(received) == b"1234567."
    assert not messages


@each(LEAVING, "make")
@each(HINDRANCES, "hindrance")
async def test_it_is_not_in_the_way_of_a_layer_that_leaves_the_one_below_open(
    make: Callable[[AsyncWrite], AsyncWrite], hindrance: Hindrance
) -> None:
    stream, peer = duplex(5)
    layer = make(stream)
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        async with hindrance(stream):
            await layer.shutdown()
            nursery.start_soon(read, peer, received)
        await stream.aclose()
    assert b"".join(received) == b"1234567."


@pytest.mark.parametrize("end", [AsyncWrite.shutdown, AsyncWrite.aclose])
@each({key: HINDRANCES[key] for key in ("held", "unfinished", "unfinished beside")}, "hindrance")
async def test_it_is_not_in_the_way_of_a_handle(
    hindrance: Hindrance, end: Callable[[AsyncWrite], Awaitable[None]]
) -> None:
    """A Buf belongs to the original, which goes on with it."""
    stream, peer = duplex(5)
    handles = [stream.by_ref(), stream.by_ref().by_ref()]
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        async with hindrance(stream):
            handles.append(stream.by_ref())
            for handle in handles:
                await end(handle)
                with pytest.raises(trio.ClosedResourceError):
                    await handle.write(b"x")
            nursery.start_soon(read, peer, received)
        await stream.aclose()
    assert b"".join(received) == b"1234567."


async def test_what_is_held_over_a_handle_cannot_go_into_the_middle_of_a_buf() -> None:
    """Nothing breaks, and the shutdown is completed later."""
    stream, peer = duplex(5)
    layer = BufWriter(stream.by_ref())
    await layer.write_all(b"abc")
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        async with unfinished(stream):
            with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
                await layer.shutdown()
            nursery.start_soon(read, peer, received)
        await layer.shutdown()
        await stream.aclose()
    assert b"".join(received) == b"1234567abc."


async def test_an_epilogue_is_written_though_the_stream_is_not_shut_down() -> None:
    stream, peer = duplex(100)
    _reading, writing = split(stream)
    layer, beside = Encoding(writing), BufWriter(stream)
    await layer.write(b"a")
    await beside.write(b"b")
    await aclose(layer)
    await beside.flush()
    await stream.aclose()
    received: list[bytes] = []
    await read(peer, received)
    assert b"".join(received) == b"A.b."


async def test_the_close_of_a_layer_does_not_end_a_torn_one_below_that_it_does_not_own() -> None:
    class Mending(Borrowing):
        can_be_torn = False

    stream, peer = duplex(5)
    layer = Mending(stream)
    await cut_short(partial(stream.write_all, b"1234567"))
    await aclose(layer)
    with resource_warnings():
        await stream.aclose()
    received: list[bytes] = []
    await read(peer, received)
    assert b"".join(received) == b"12345 cut"


async def test_a_stream_that_is_closed_meanwhile_is_ended_by_its_own_close(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The close of the half does not wait for what is held beside it, and takes nothing away."""
    stream, peer = duplex(5)
    _reading, writing = split(stream)
    layer, beside = BufWriter(writing), BufWriter(stream)
    await layer.write_all(b"1234567")
    await beside.write_all(b"abcdefg")
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        graceful = await begin(nursery, partial(close_gracefully, layer, timeout=3, linger=3))
        closing = await begin(nursery, stream.aclose)
        await read(peer, received)
    assert b"".join(received) == b"1234567abcdefg."
    assert graceful.error is None
    assert closing.outcome == "returned None"


# ---- A shutdown below that was given up ----------------------------------------------------------


OVER: dict[str, Callable[[AsyncWrite], AsyncWrite]] = {
    "handle": AsyncWrite.by_ref,
    "over a handle": lambda stream: BufWriter(stream.by_ref()),
    "handle of a layer above": lambda stream: Layer(stream).by_ref(),
    "borrowing": Borrowing,
    "leaving": Leaving,
}


async def given_up(make: Callable[[AsyncWrite], AsyncWrite]) -> tuple[AsyncWrite, Any, Any]:
    """A layer over a buffer whose shutdown was given up, that buffer, and the peer."""
    stream, peer = duplex(5)
    original = BufWriter(stream, 100)
    layer = make(original)
    # No epilogue of the layer's own is missing.
    layer.epilogue = Epilogue.NOTHING  # type: ignore[misc]
    await original.write_all(b"1234567")
    await cut_short(original.shutdown)
    return layer, original, peer


@each(OVER, "make")
async def test_a_close_waits_for_what_was_written_to_an_original_that_was_not_shut_down(
    make: Callable[[AsyncWrite], AsyncWrite],
) -> None:
    layer, original, peer = await given_up(make)
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, layer.aclose)
        assert closing.outcome == "returned not finished"
        assert await peer.receive_some() == b"12345"

    assert closing.outcome == "returned None"
    assert original.unsent_bytes == 0
    received: list[bytes] = []
    await original.shutdown()
    await read(peer, received)
    assert b"".join(received) == b"67."


@each(OVER, "make")
async def test_a_report_claims_nothing_for_an_original_that_was_not_shut_down(
    make: Callable[[AsyncWrite], AsyncWrite], autojump_clock: trio.testing.MockClock
) -> None:
    layer, original, peer = await given_up(make)
    report = await close_gracefully(layer, timeout=3, linger=3)
    assert report.outcome is CloseOutcome.TIMED_OUT
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, peer, received)
        await original.shutdown()
    assert b"".join(received) == b"1234567."
