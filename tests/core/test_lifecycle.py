"""Why a layer refuses, and what lifts that."""

from __future__ import annotations

import math
import pickle
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import AsyncWrite, Buf, NotReady
from trio_asyncwrite._core._close import Hardness, enter
from trio_asyncwrite._core._errors import BrokenRefusal, BusyRefusal, ClosedRefusal, CutShort
from trio_asyncwrite._core._lifecycle import Refusal, Torn, lifted
from trio_asyncwrite._core._stack import fail, tear

from .._patience import wait_all_tasks_blocked
from ._fakes import Layer, Wire, begin, cut_short, resource_warnings, run_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable


async def as_torn(wire: Wire) -> None:
    wire.room = 1
    await cut_short(partial(wire.write_all, b"abc"))


async def as_unfinished(wire: Wire) -> None:
    wire.room = 1
    await cut_short(partial(wire.write_all_buf, Buf(b"abc")))


async def as_broken(wire: Wire) -> None:
    wire.error = OSError("failed")
    with pytest.raises(trio.BrokenResourceError):
        await wire.write(b"x")
    wire.error = None


async def as_shut_down(wire: Wire) -> None:
    wire.room = math.inf
    await wire.shutdown()


async def as_closed(wire: Wire) -> None:
    assert (await run_cancelled(wire.aclose)).outcome == "cancelled"


#: The first that applies counts.
STATES = [
    (as_closed, Refusal.CLOSED, trio.ClosedResourceError, "is closed, or being closed"),
    (as_broken, Refusal.BROKEN, trio.BrokenResourceError, "has failed before"),
    (as_torn, Refusal.TORN, trio.BrokenResourceError, "is torn: only 1 of the 3"),
    (as_shut_down, Refusal.SHUT_DOWN, trio.ClosedResourceError, "was shut down"),
    (as_unfinished, Refusal.UNFINISHED, trio.BrokenResourceError, "finish the Buf first"),
]


def as_failed(wire: Wire) -> None:
    fail(wire, ValueError())


def as_torn_above(wire: Wire) -> None:
    base = wire.lifecycle.inner
    assert base is not None
    tear(base, "a message was cut short")


def as_released(wire: Wire) -> None:
    wire.lifecycle.released = True
    wire.lifecycle.update()


@pytest.mark.parametrize("change", [as_failed, as_torn_above, as_released])
@pytest.mark.parametrize("started", ["whole", "shut down"])
async def test_the_polls_of_its_close_may_write_to_a_layer_as_long_as_it_is_well(
    change: Callable[[Wire], None], started: str
) -> None:
    class Over(Wire):
        def __init__(self) -> None:
            super().__init__(math.inf)
            self.inner = Wire(math.inf)

    wire = Over()
    if started == "shut down":
        wire.lifecycle.shut = True
        wire.lifecycle.update()
    close, _ = enter(wire, Hardness.CLEAN)
    with lifted(close):
        wire.lifecycle.check_write(wire)
        wire.lifecycle.check_flush(wire)
    change(wire)
    for check in (wire.lifecycle.check_write, wire.lifecycle.check_flush):
        with pytest.raises(ClosedRefusal), lifted(close):
            check(wire)
    close.finish()


@pytest.mark.parametrize(("enter", "refusal", "error", "text"), STATES)
async def test_a_layer_says_why_it_refuses(
    enter: Callable[[Wire], Any], refusal: Refusal, error: type[Exception], text: str
) -> None:
    wire = Wire()
    await enter(wire)
    assert wire.lifecycle.refusal is refusal
    assert wire.lifecycle.fast.left == 0
    with pytest.raises(error, match=text) as caught:
        await wire.write(b"x")
    assert type(caught.value).__name__ == error.__name__
    with pytest.raises(error, match=text):
        wire.lifecycle.check_write(wire)
    if refusal in (Refusal.SHUT_DOWN, Refusal.UNFINISHED):
        wire.lifecycle.check_flush(wire)
    else:
        with pytest.raises(error, match=text):
            wire.lifecycle.check_flush(wire)
    with resource_warnings():
        await wire.aclose()


@pytest.mark.parametrize(
    "refusal",
    [ClosedRefusal, BrokenRefusal, BusyRefusal, CutShort],
    ids=["closed", "broken", "busy", "cut short"],
)
def test_a_refusal_is_one_of_trios_errors_to_everybody_else(refusal: type[Exception]) -> None:
    error = pickle.loads(pickle.dumps(refusal("text")))

    assert isinstance(refusal("text"), type(error))
    assert type(error) is getattr(trio, refusal.__name__)
    assert error.args == ("text",)
    assert refusal.__module__ == "trio"
    assert refusal.__qualname__ == type(error).__name__


async def test_a_lift_holds_for_its_own_cause_and_thread_only() -> None:
    class Upper(Layer):
        def poll_flush(self) -> None:
            poll()
            super().poll_flush()

    wire, other = Wire(room=1), Layer(Wire())
    called = Upper(wire)
    poll: Callable[[], object] = partial(int)
    await cut_short(partial(called.write_all, b"abc"))
    wire.give(math.inf)
    await as_closed(other)  # type: ignore[arg-type]
    poll = other.poll_flush
    with pytest.raises(trio.ClosedResourceError):
        await called.flush()

    def in_a_thread() -> None:
        with pytest.raises(trio.BrokenResourceError, match="torn"):
            called.lifecycle.check_flush(called)
        seen.append(True)

    def start() -> None:
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()

    seen: list[bool] = []
    poll = start
    await called.flush()
    assert seen == [True]
    poll = partial(int)
    with lifted(Torn.HERE), lifted(None), pytest.raises(trio.BrokenResourceError, match="torn"):
        called.poll_flush()
    with resource_warnings():
        await called.aclose()


async def test_a_lift_ends_where_it_began_though_a_poll_raises() -> None:
    class Upper(Layer):
        def poll_flush(self) -> None:
            raise ValueError

    called = Upper(Wire(room=1))
    await cut_short(partial(called.write_all, b"abc"))
    with pytest.raises(ValueError, match="^$"):
        await called.flush()
    with pytest.raises(trio.BrokenResourceError):
        called.poll_write(b"x")
    with resource_warnings():
        await called.aclose()


async def test_who_waits_is_found_by_a_close_and_by_nobody_later() -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        await begin(nursery, partial(wire.write, b"x"))
        assert [wait.task.parent_nursery for wait in wire.lifecycle.waits] == [nursery]
        assert len(wire.lifecycle.calls) == 1
        wire.give(1)
    assert not wire.lifecycle.waits
    assert not wire.lifecycle.calls


async def test_a_task_that_must_not_be_ended_is_waited_for() -> None:
    """Eviction is not cancellation: a foreign call that is at work goes on."""

    class AtWork(Wire):
        async def wait_for_room(self) -> None:
            self.lifecycle.unbroken_task = trio.lowlevel.current_task()
            await super().wait_for_room()

    wire = AtWork()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write, b"x"))
        closing = await begin(nursery, wire.aclose)
        assert run.outcome == "returned not finished"
        wire.give(1)

    assert run.outcome == "ClosedResourceError"
    assert closing.outcome == "returned None"
    assert not wire.sent


async def test_a_reader_over_the_closed_side_goes_on() -> None:
    """A side that ends wakes those that write, and not those that read."""

    class Pair(AsyncWrite):
        def __init__(self, inner: AsyncWrite, other: AsyncWrite) -> None:
            self.inner = inner
            self.layers_below = (inner, other)

    inner, other = Wire(), Wire()
    pair = Pair(inner, other)
    async with trio.open_nursery() as nursery:
        reading = await begin(
            nursery, partial(pair.lifecycle.wait, pair, trio.sleep_forever, reading=True)
        )
        writing = await begin(nursery, partial(pair.write, b"x"))
        await run_cancelled(inner.aclose)
        await wait_all_tasks_blocked()
        assert reading.outcome == "returned not finished"
        assert writing.outcome == "ClosedResourceError"
        nursery.cancel_scope.cancel()
    with pytest.raises(NotReady):
        other.poll_flush()
