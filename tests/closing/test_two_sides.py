"""Both streams of a tee are closed at about the same time, below a layer that writes a trailer.

Every interleaving of the two closes, as far as they can begin and be scheduled in another order.
"""

from __future__ import annotations

import itertools
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import AsyncWrite, BufWriter, CloseOutcome, TeeWriter, close_gracefully, duplex

from .._scheduling import scheduled_by
from ..core._fakes import Encoding, resource_warnings
from ..core.test_close_sides import Fan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CLOSES: dict[str, Callable[[Any], Awaitable[object]]] = {
    "aclose": AsyncWrite.aclose,
    "gracefully": partial(close_gracefully, timeout=100, linger=100),
}

makes = pytest.mark.parametrize("make", [TeeWriter, Fan])


class Side:
    """One of the two streams: its close, and what its peer gets."""

    def __init__(self, capacity: int) -> None:
        self.stream, self._peer = duplex(capacity)
        self.received = bytearray()
        self.outcome: CloseOutcome | None = None
        self.error: BaseException | None = None

    @property
    def is_complete(self) -> bool:
        return self.received == b"HELLO.|"

    async def read(self) -> None:
        try:
            async for chunk in self._peer:
                self.received += chunk
            self.received += b"|"
        except trio.BrokenResourceError:
            self.received += b" cut"
        await trio.aclose_forcefully(self._peer)

    async def close(self, how: str, delay: int) -> None:
        for _ in range(delay):
            await trio.lowlevel.checkpoint()
        try:
            report: Any = await CLOSES[how](self.stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self.error = exc
        else:
            self.outcome = None if report is None else report.outcome


async def play(
    make: Callable[..., AsyncWrite],
    hows: tuple[str, str],
    delays: tuple[int, int],
    capacities: tuple[int, int],
    *,
    buffers: bool,
) -> tuple[list[Side], list[str]]:
    sides = [Side(capacity) for capacity in capacities]
    writer: AsyncWrite = Encoding(make(*[side.stream for side in sides]))
    if buffers:
        writer = BufWriter(writer, 7)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        async with trio.open_nursery() as nursery:
            for side in sides:
                nursery.start_soon(side.read)
            await writer.write_all(b"hello")
            for side, how, delay in zip(sides, hows, delays, strict=True):
                nursery.start_soon(side.close, how, delay)
    return sides, [str(one.message) for one in caught]


@makes
@pytest.mark.parametrize("hows", list(itertools.product(CLOSES, repeat=2)), ids="+".join)
@pytest.mark.parametrize("buffers", [False, True], ids=["bare", "buffered"])
def test_what_a_close_says_of_a_side_is_what_its_peer_has_got(
    make: Callable[..., AsyncWrite], hows: tuple[str, str], *, buffers: bool
) -> None:
    complete = 0
    for delays, capacities, seed in itertools.product(
        itertools.product(range(4), repeat=2), itertools.product((1, 100), repeat=2), range(2)
    ):
        with scheduled_by(seed):
            sides, messages = trio.run(
                partial(play, make, hows, delays, capacities, buffers=buffers),
                clock=trio.testing.MockClock(autojump_threshold=0),
            )
        told = [bool(side.error or side.outcome is CloseOutcome.TRUNCATED) for side in sides]
        for side, how in zip(sides, hows, strict=True):
            complete += side.is_complete
            if how == "gracefully":
                assert (side.outcome is CloseOutcome.CLEAN) is side.is_complete
            elif not side.is_complete:
                assert any(told) or messages
        if all(side.is_complete for side in sides):
            assert not any(told)
            assert not messages
    assert complete


@makes
async def test_two_that_begin_together_complete_both(
    make: Callable[..., AsyncWrite], autojump_clock: trio.testing.MockClock
) -> None:
    """Though the first one finds that its side alone would lack the trailer."""
    sides = [Side(100), Side(100)]
    writer = Encoding(make(*[side.stream for side in sides]))
    await writer.write_all(b"hello")
    async with trio.open_nursery() as nursery:
        for side in sides:
            nursery.start_soon(side.read)
            nursery.start_soon(side.close, "gracefully", 0)
    assert [side.outcome for side in sides] == [CloseOutcome.CLEAN] * 2
    assert all(side.is_complete for side in sides)


@makes
async def test_one_that_comes_too_late_finds_the_other_side_cut(
    make: Callable[..., AsyncWrite], autojump_clock: trio.testing.MockClock
) -> None:
    sides = [Side(100), Side(100)]
    writer = Encoding(make(*[side.stream for side in sides]))
    await writer.write_all(b"hello")
    with resource_warnings():
        async with trio.open_nursery() as nursery:
            for side in sides:
                nursery.start_soon(side.read)
            await sides[0].close("gracefully", 0)
            await sides[1].close("gracefully", 0)
    assert [side.outcome for side in sides] == [CloseOutcome.TRUNCATED] * 2
    assert [bytes(side.received) for side in sides] == [b"HELLO|"] * 2


@makes
async def test_the_evidence_for_one_side_is_not_the_other_peer_s_end(
    make: Callable[..., AsyncWrite], autojump_clock: trio.testing.MockClock
) -> None:
    """The layers above read from the first stream, if from any."""
    first, second = Side(100), Side(100)
    writer = Encoding(make(first.stream, second.stream))
    await writer.write_all(b"hello")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.read)
        nursery.start_soon(first.close, "aclose", 0)
        await second.close("gracefully", 0)
    assert first.is_complete
    assert second.outcome is CloseOutcome.PEER_SILENT
