"""A relay whose target refuses, fails and goes on living, or takes nothing any more."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    Buf,
    BufWriter,
    LaneOutcome,
    ReadWritePair,
    Relay,
    SharedWriter,
    TimeoutWriter,
    duplex,
)

from .._patience import wait_all_tasks_blocked
from ..core._fakes import resource_warnings
from ._fakes import Both

RUNNING, ENDED = LaneOutcome.RUNNING, LaneOutcome.ENDED
WRITE_FAILED, TIMED_OUT = LaneOutcome.WRITE_FAILED, LaneOutcome.TIMED_OUT


async def test_a_target_that_has_failed_once_is_torn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It may work again, and then its end would look complete."""
    left, right = duplex(5)
    target = ReadWritePair(left, TimeoutWriter(BufWriter(left), idle=1))
    source = Both(b"the first part")
    relay = Relay(source, target, half_open=1)
    await relay.run()
    assert relay.a_to_b.outcome is WRITE_FAILED
    assert isinstance(relay.a_to_b.error, trio.TooSlowError)
    assert await right.receive_some() == b"the f"
    with resource_warnings() as messages:
        await target.aclose()
    assert len(messages) == 1
    with pytest.raises(trio.BrokenResourceError):
        while await right.receive_some():
            pass


async def test_a_buf_of_somebody_else_is_to_be_finished_first() -> None:
    a, b = Both(b"abc", b""), Both(b"", room=1)
    buf = Buf(b"xyz")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.write_all_buf, buf)
            await wait_all_tasks_blocked()
            scope.cancel()
    relay = Relay(a, b)
    with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
        await relay.run()
    assert relay.a_to_b.outcome is RUNNING
    b.give(100)
    await b.write_all_buf(buf)
    await relay.run()
    assert (relay.a_to_b.outcome, b.taken) == (ENDED, b"xyzabc")


async def test_a_layer_above_the_target_is_to_be_flushed_first() -> None:
    a, b = Both(b"abc", b""), Both(b"")
    above = BufWriter(b)
    await above.write_all(b"xyz")
    relay = Relay(a, b)
    with pytest.raises(ValueError, match="flush it"):
        await relay.run()
    assert relay.a_to_b.outcome is RUNNING
    await above.flush()
    await relay.run()
    assert (relay.a_to_b.outcome, b.taken) == (ENDED, b"abcxyz")


@pytest.mark.parametrize("failure", [None, OSError("gone")])
async def test_a_target_that_takes_nothing_after_the_end_is_given_up(
    failure: OSError | None, autojump_clock: trio.testing.MockClock
) -> None:
    """Its source has ended, or failed, and that direction alone would wait for ever."""
    below = Both(room=0)
    target: Any = ReadWritePair(below, BufWriter(below))
    source = Both(b"abc", b"" if failure is None else failure)
    relay = Relay(source, target, half_open=3)
    with resource_warnings():
        await relay.run()
    assert relay.a_to_b.outcome is (TIMED_OUT if failure is None else LaneOutcome.READ_FAILED)
    assert trio.current_time() == 3
    await target.aclose()  # which need not tell that bytes were lost


async def test_after_a_mistake_the_other_direction_is_limited(
    autojump_clock: trio.testing.MockClock,
) -> None:
    a, b = Both(b"abc"), Both()
    b.error = ZeroDivisionError("odd")
    relay = Relay(a, b, half_open=3)
    with pytest.raises(ZeroDivisionError):
        await relay.run()
    assert (relay.a_to_b.outcome, relay.b_to_a.outcome) == (WRITE_FAILED, RUNNING)
    await relay.run()
    assert relay.b_to_a.outcome is TIMED_OUT


async def test_bytes_for_a_shared_writer_are_not_lost_without_a_word() -> None:
    """Its other messages go on, so its end does not tell."""
    left, _right = duplex(5)
    relay = Relay(Both(b"all of it", b"and more"), ReadWritePair(left, SharedWriter(left)))
    with resource_warnings() as messages:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay.run)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert messages == []
        assert relay.a_to_b.bytes == 9
        del relay
        gc.collect()
        await trio.aclose_forcefully(left)
    assert "a Relay has received 8 bytes and never sent to" in messages[0]


def test_half_open_is_a_number() -> None:
    with pytest.raises(TypeError, match="half_open must be a number, got str; None for no limit"):
        Relay(Both(), Both(), half_open="5")  # type: ignore[arg-type]


async def test_a_target_that_sips_lets_others_run() -> None:
    class Sips(Both):
        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            return super().poll_write(data[:1])

    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    target = Sips(b"")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        await Relay(Both(b"x" * 100, b""), target).run()
        nursery.cancel_scope.cancel()
    assert target.taken == b"x" * 100
    assert turns >= 6
