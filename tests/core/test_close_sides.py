"""A layer that writes to several streams, of which one is closed."""

from __future__ import annotations

import contextlib
import math
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
    Epilogue,
    InspectWriter,
    LineWriter,
    NotReady,
    ReadWritePair,
    SharedWriter,
    TeeWriter,
    abort,
    close_gracefully,
    duplex,
    simplex,
)

from .._patience import wait_all_tasks_blocked
from .._streams import assert_leaves_no_cycle, drain
from ._fakes import Encoding, Once, Wire, begin, cut_short, resource_warnings, run_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Fan(AsyncWrite):
    """Writes to any number of streams, and keeps what it has for each."""

    def __init__(self, *lower: AsyncWrite) -> None:
        self.inner = lower[0]
        self.layers_below = lower
        self.stores = [bytearray() for _ in lower]

    @property
    def held_bytes(self) -> int:
        return max(map(len, self.stores))

    def held_for(self, lower: object) -> int:
        return len(self.store_for(lower))

    def store_for(self, lower: object) -> bytearray:
        places = [one is lower for one in self.layers_below]
        return self.stores[places.index(True)]

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.lifecycle.check_write(self)
        for store in self.stores:
            store += data
        return len(data)

    def poll_flush_side(self, lower: Any, /) -> None:
        self.pass_on(lower)

    def pass_on(self, lower: Any) -> None:
        store = self.store_for(lower)
        while store:
            del store[: lower.poll_write(bytes(store))]

    def poll_flush(self) -> None:
        for lower in self.layers_below:
            self.pass_on(lower)
            lower.poll_flush()

    def poll_shutdown(self) -> None:
        self.poll_flush()
        for lower in self.layers_below[1:]:
            lower.poll_shutdown()
        super().poll_shutdown()

    @property
    def epilogue(self) -> Epilogue:
        return Epilogue.NOTHING

    def __repr__(self) -> str:
        return "<Fan>"


class Ended(Encoding):
    """Its reader cannot tell that the epilogue is missing."""

    shows_truncation = False


class Simple(Fan):
    """Says nothing of its sides: it passes on to all of its streams, or to none."""

    held_for = AsyncWrite.held_for
    poll_flush_side = AsyncWrite.poll_flush_side


KINDS: Any = pytest.mark.parametrize("make", [Fan, TeeWriter])


async def closed_by_the_peer(stream: trio.abc.Stream, received: list[bytes]) -> None:
    """Read to the end, whatever end it is, and close."""
    try:
        while chunk := await stream.receive_some():
            received.append(chunk)
        received.append(b".")
    except trio.BrokenResourceError:
        received.append(b" cut")
    await trio.aclose_forcefully(stream)


@KINDS
@pytest.mark.parametrize("how", ["aclose", "gracefully"])
async def test_a_complete_side_does_not_wait_for_the_others(
    make: Callable[..., AsyncWrite], how: str, autojump_clock: trio.testing.MockClock
) -> None:
    """And they get the rest by the layer's own close."""
    inner, peer = duplex(100)
    other = Wire()
    layer = make(inner, other)
    await layer.write_all(b"hello")
    if isinstance(layer, Fan):
        with pytest.raises(NotReady):
            layer.poll_flush()
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(closed_by_the_peer, peer, received)
        if how == "aclose":
            await inner.aclose()
        else:
            report = await close_gracefully(inner, timeout=1)
            assert (report.outcome, report.unsent_bytes) == (CloseOutcome.CLEAN, 0)
    assert b"".join(received) == b"hello."
    with pytest.raises(trio.ClosedResourceError):
        await layer.write(b"x")
    assert not other.releases
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, layer.aclose)
        assert closing.outcome == "returned not finished"
        other.give(math.inf)
    assert closing.outcome == "returned None"
    assert other.sent == b"hello"
    assert other.releases == ["release True"]


@KINDS
@pytest.mark.parametrize("how", ["cancelled", "gracefully", "abort"])
async def test_a_side_that_is_cut_off_does_not_spoil_the_others(
    make: Callable[..., AsyncWrite], how: str, autojump_clock: trio.testing.MockClock
) -> None:
    """What it lacks is told once."""
    inner, other = Wire(math.inf), Wire()
    layer = make(inner, other)
    await layer.write_all(b"hello")
    if isinstance(layer, Fan):
        layer.poll_flush_side(inner)
    with resource_warnings() as messages:
        if how == "cancelled":
            await run_cancelled(other.aclose)
        elif how == "abort":
            await abort(other)
        else:
            report = await close_gracefully(other, timeout=1, linger=1)
            assert report.outcome is CloseOutcome.TIMED_OUT
            assert report.unsent_bytes == 5
    assert len(messages) == (how == "cancelled")
    assert all("5 bytes that it had accepted were never sent" in one for one in messages)
    assert other.releases == ["release False"]
    await inner.write_all(b"!")
    with resource_warnings() as messages:
        # What it covers is that stream, and the layer. A report of the layer would cover both.
        report = await close_gracefully(inner, linger=1)
        assert layer.closed
        del layer
    assert (report.outcome, report.unsent_bytes) == (CloseOutcome.PEER_SILENT, 0)
    assert messages == []
    assert inner.sent == b"hello!"
    assert inner.releases == ["release True"]


@pytest.mark.parametrize("shuts", ["first", "then drops"])
async def test_the_rest_can_be_shut_down_though_something_was_held_for_a_lost_side(
    shuts: str,
) -> None:
    inner, other = Wire(math.inf), Wire()
    layer = Fan(inner, other)
    await layer.write_all(b"hello")
    layer.poll_flush_side(inner)
    if shuts == "first":
        await inner.shutdown()
    await abort(other)
    del layer  # which nobody keeps alive, since it can write nothing any more
    await inner.shutdown()
    await inner.aclose()
    assert inner.releases == ["release True"]


async def test_several_sides_may_end_at_the_same_time() -> None:
    wires = [Wire() for _ in range(3)]
    layer = Fan(*wires)
    await layer.write_all(b"hello")
    async with trio.open_nursery() as nursery:
        closes = [await begin(nursery, wire.aclose) for wire in wires[:2]]
        wires[1].give(math.inf)
        await wait_all_tasks_blocked()
        assert [one.outcome for one in closes] == ["returned not finished", "returned None"]
        wires[0].give(math.inf)
    assert closes[0].outcome == "returned None"
    assert not layer.closed
    wires[2].give(math.inf)
    await layer.aclose()
    assert [bytes(wire.sent) for wire in wires] == [b"hello"] * 3
    assert [wire.releases for wire in wires] == [["release True"]] * 3


@pytest.mark.parametrize("broken_first", [True, False])
async def test_a_stream_that_fails_does_not_truncate_what_the_others_have_got(
    autojump_clock: trio.testing.MockClock, *, broken_first: bool
) -> None:
    """A report claims what was observed: they have got everything, and a proper end."""
    inner, peer = duplex(100)
    other = Wire()
    other.error = OSError("disk full")
    layer = TeeWriter(inner, other)
    await layer.write_all(b"hello")
    if broken_first:
        with pytest.raises(trio.BrokenResourceError, match="disk full"):
            await layer.flush()
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(closed_by_the_peer, peer, received)
        report = await close_gracefully(inner)
    assert (report.outcome, report.unsent_bytes) == (CloseOutcome.CLEAN, 0)
    assert b"".join(received) == b"hello."
    with resource_warnings():
        if broken_first:
            await layer.aclose()
        else:
            with pytest.raises(trio.BrokenResourceError, match="disk full"):
                await layer.aclose()
    assert other.releases == ["release False"]


async def test_what_cannot_be_passed_on_is_missed_at_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The report says so, and the peer sees it."""
    inner, peer = duplex(100)
    layer = Simple(inner, Wire())
    await layer.write_all(b"hello")
    layer.lifecycle.failure, layer.lifecycle.told = OSError("failed"), True
    layer.lifecycle.update()
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(closed_by_the_peer, peer, received)
        report = await close_gracefully(inner)
    assert (report.outcome, report.unsent_bytes) == (CloseOutcome.TRUNCATED, 5)
    assert received == [b" cut"]
    with resource_warnings():
        await layer.aclose()


# ---- Without a word of its sides -----------------------------------------------------------------


async def test_a_layer_that_holds_nothing_is_not_waited_for() -> None:
    inner, other = Wire(math.inf), Wire()
    layer = Simple(inner, other)
    with pytest.raises(NotReady):
        layer.poll_flush()
    await inner.aclose()
    assert inner.releases == ["release True"]
    other.give(math.inf)
    await layer.aclose()


async def test_what_it_holds_is_waited_for_and_missed_everywhere() -> None:
    """Nobody knows for which stream it is."""
    inner, other = Wire(), Wire()
    layer = Simple(inner, other)
    await layer.write_all(b"hello")
    with resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            closing = await begin(nursery, inner.aclose)
            inner.give(math.inf)
            await wait_all_tasks_blocked()
            assert closing.outcome == "returned not finished"
            closing.scope.cancel()
        await layer.aclose()
    assert [one.split(": ")[1] for one in messages] == [
        "5 bytes that it had accepted were never sent",
        "a layer above it was closed before it had written everything",
    ]
    assert inner.releases == other.releases == ["release False"]


async def test_an_answer_that_raises_counts_as_held() -> None:
    class Unsure(Fan):
        def held_for(self, lower: object) -> int:
            raise ZeroDivisionError

    inner, other = Wire(math.inf), Wire(math.inf)
    layer = Unsure(inner, other)
    await layer.write_all(b"hello")
    with resource_warnings() as messages:
        await inner.aclose()
    assert inner.sent == b"hello"
    assert inner.releases == ["release False"]
    assert "an unknown number of bytes" in messages[0]
    with resource_warnings():
        await layer.aclose()


# ---- Layers above --------------------------------------------------------------------------------


@KINDS
async def test_what_is_held_above_is_for_all_sides(make: Callable[..., AsyncWrite]) -> None:
    inner, other = Wire(math.inf), Wire(math.inf)
    upper = BufWriter(make(inner, other))
    await upper.write_all(b"hello")
    await inner.aclose()
    assert inner.sent == b"hello"
    await upper.aclose()
    assert other.sent == b"hello"
    assert inner.releases == other.releases == ["release True"]


@KINDS
@pytest.mark.parametrize("closes", ["the first", "the other one"])
async def test_what_is_lost_above_is_missed_on_all_sides(
    make: Callable[..., AsyncWrite], closes: str
) -> None:
    """Also on the one that stays open."""
    ends = [simplex(100), simplex(100)]
    (one, one_end), (two, two_end) = ends if closes == "the first" else reversed(ends)
    upper = BufWriter(make(*(writer for writer, _ in ends)))
    await upper.write_all(b"hello")
    await abort(one)
    with resource_warnings():
        await upper.aclose()
    for end in (one_end, two_end):
        with pytest.raises(trio.BrokenResourceError):
            await drain(end)
    assert two.closed


@KINDS
async def test_a_failure_above_is_told_by_the_first_close(make: Callable[..., AsyncWrite]) -> None:
    """An inspecting function fails after the bytes have gone."""

    def fails(view: memoryview) -> None:
        raise ZeroDivisionError

    inner, other = Wire(math.inf), Wire(math.inf)
    upper = InspectWriter(make(inner, other), fails)
    await upper.write(b"hello")
    with pytest.raises(ZeroDivisionError), resource_warnings():
        await inner.aclose()
    assert inner.sent == b"hello"
    with resource_warnings():
        await upper.aclose()


@KINDS
async def test_what_is_lost_above_by_a_failure_is_told_though_the_close_is_cancelled(
    make: Callable[..., AsyncWrite],
) -> None:
    """The failure cannot be raised then."""
    inner, other = Wire(math.inf), Wire(math.inf)
    upper = BufWriter(make(inner, other))
    await upper.write_all(b"hello")
    inner.error = OSError("gone")
    with resource_warnings() as messages:
        assert (await run_cancelled(inner.aclose)).outcome == "cancelled"
    assert len(messages) == 1
    assert "5 bytes that it had accepted were never sent" in messages[0]
    with resource_warnings():
        await upper.aclose()


@KINDS
@pytest.mark.parametrize("end", [lambda one: one.aclose(), abort, close_gracefully])
async def test_an_epilogue_that_was_lost_with_one_side_is_missed_on_the_others(
    make: Callable[..., AsyncWrite],
    end: Callable[[AsyncWrite], Awaitable[object]],
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A lost trailer is never CLEAN."""
    inner, peer = duplex(100)
    pipe, reader = simplex(100)
    middle = make(inner, pipe)
    upper = Ended(middle)
    await upper.write_all(b"hello")
    await upper.flush()
    with resource_warnings():
        await end(pipe)
    with pytest.raises(trio.BrokenResourceError):
        await drain(reader)
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(closed_by_the_peer, peer, received)
        report = await close_gracefully(inner)
    assert upper.closed
    assert report.outcome is CloseOutcome.TRUNCATED
    assert b"".join(received) == b"HELLO cut"


@KINDS
@pytest.mark.parametrize("closes", ["the first", "the other one"])
@pytest.mark.parametrize("how", ["message", "Buf"])
async def test_what_was_begun_and_not_finished_truncates_all_sides(
    make: Callable[..., AsyncWrite], closes: str, how: str
) -> None:
    """Also one that takes messages whole or not at all: it was given a part of this one."""
    pipes = [simplex(100), simplex(100)]
    branches = [SharedWriter(writer) for writer, _ in pipes]
    layer = make(*branches)
    upper = LineWriter(Once(layer), 10)
    if how == "message":
        await cut_short(partial(upper.write_all, b"0123456789abcdef"))
    else:
        await cut_short(partial(upper.write_all_buf, Buf(b"0123456789abcdef")))
    first = branches[0] if closes == "the first" else branches[1]
    with resource_warnings() as messages:
        await first.aclose()
        assert not upper.closed
        await upper.aclose()
    assert len(messages) == 2  # of two streams
    for _, reader in pipes:
        with pytest.raises(trio.BrokenResourceError):
            await drain(reader)


@KINDS
async def test_a_stream_that_was_shut_down_alone_leaves_the_rest_to_the_others(
    make: Callable[..., AsyncWrite],
) -> None:
    inner, other = Wire(math.inf), Wire()
    layer = make(inner, other)
    await layer.write_all(b"hello")
    if isinstance(layer, Fan):
        layer.poll_flush_side(inner)
    await inner.shutdown()
    with pytest.raises(trio.ClosedResourceError):
        await layer.write(b"x")
    with pytest.raises(ValueError, match="holds 5 unsent bytes"):
        await other.shutdown()
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, layer.aclose)
        assert closing.outcome == "returned not finished"
        other.give(math.inf)
    assert other.sent == b"hello"
    assert inner.releases == other.releases == ["release True"]


@KINDS
async def test_an_epilogue_that_was_cut_off_by_a_shutdown_is_missed_on_all_sides(
    make: Callable[..., AsyncWrite], autojump_clock: trio.testing.MockClock
) -> None:
    inner, other = Wire(math.inf), Wire(math.inf)
    upper = Ended(make(inner, other))
    await upper.send_all(b"hello")
    await other.shutdown()
    for stream in (other, inner):
        report = await close_gracefully(stream)
        assert report.outcome is CloseOutcome.TRUNCATED
    assert inner.releases == ["release False"]


@KINDS
async def test_a_report_does_not_claim_what_another_close_may_lose(
    make: Callable[..., AsyncWrite], autojump_clock: trio.testing.MockClock
) -> None:
    """Of the stream that it closes when the layer is closed."""
    inner, other = Wire(math.inf), Wire()
    layer = make(inner, BufWriter(other))
    await layer.write_all(b"hello")
    async with trio.open_nursery() as nursery:
        first = await begin(nursery, partial(close_gracefully, other, timeout=5, linger=1))
        report = await close_gracefully(layer, timeout=50, linger=1)
    assert "timed out" in first.outcome
    assert report.outcome is CloseOutcome.BROKEN
    assert isinstance(report.error, trio.ClosedResourceError)


@KINDS
async def test_a_report_that_joins_a_close_knows_of_a_side_that_was_closed_before(
    make: Callable[..., AsyncWrite],
) -> None:
    inner, other = Wire(), Wire()
    layer = make(inner, other)
    if isinstance(layer, Fan):
        await layer.write(b"")  # or nobody below knows of it
    await abort(other)
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, inner.aclose)
        joining = await begin(nursery, partial(close_gracefully, layer, linger=0))
        inner.give(math.inf)
    assert closing.outcome == "returned None"
    assert "the stream was closed before" in joining.outcome


@pytest.mark.parametrize("waits_for", ["above", "below"])
async def test_a_cancelled_close_of_a_side_gives_each_layer_one_chance(waits_for: str) -> None:
    inner, other = Wire(), Wire()
    layer = Fan(inner, other)
    upper = BufWriter(layer)
    await layer.write_all(b"hello")
    if waits_for == "above":
        await upper.write_all(b" again")
    inner.give(3)
    with resource_warnings() as messages:
        assert (await run_cancelled(partial(inner.aclose))).outcome == "cancelled"
        assert inner.sent == b"hel"
        assert len(messages) == 0
    assert len(messages) == 1
    with resource_warnings():
        other.give(math.inf)
        await upper.aclose()
    assert other.sent == b"hello again"[: 5 if waits_for == "below" else None]


@pytest.mark.parametrize(
    "first",
    [partial(close_gracefully, timeout=0, linger=0), abort, lambda stream: stream.aclose()],
)
@pytest.mark.parametrize("last", ["whole", "other side"])
@pytest.mark.parametrize("event", ["nothing", "loss", "failure"])
@pytest.mark.parametrize("make", [ReadWritePair, TeeWriter])
@pytest.mark.parametrize("is_buffered", [False, True])
async def test_a_layer_whose_sides_were_closed_one_by_one_is_freed(
    make: Any,
    event: str,
    first: Callable[[Any], Awaitable[object]],
    last: str,
    *,
    is_buffered: bool,
) -> None:
    async def scenario() -> None:
        other, _other_peer = duplex(100)
        stream, peer = duplex(16)
        side = BufWriter(stream) if is_buffered else stream
        whole = make(other, side)
        await whole.write_all(b"x")
        if event != "nothing":
            await peer.aclose()
        steps: list[Callable[[], Awaitable[object]]] = [
            partial(side.send_all, bytes(100) if event == "failure" else b""),
            partial(first, side),
            whole.aclose if last == "whole" else other.aclose,
        ]
        with resource_warnings():
            for step in steps:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await step()

    await assert_leaves_no_cycle(scenario)
