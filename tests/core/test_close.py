"""The close of one task, and of several."""

from __future__ import annotations

import math
import sys
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.abc
import trio.testing
from trio.testing import assert_checkpoints

from trio_asyncwrite import (
    AsyncWrite,
    BufWriter,
)

from .._patience import wait_all_tasks_blocked
from .._streams import drain
from ._fakes import (
    CLAIMS,
    ENDS,
    WAITS,
    WRITES,
    BadlyReleased,
    Layer,
    Run,
    SlowlyReleased,
    Upper,
    Wire,
    begin,
    each,
    full,
    resource_warnings,
    run_cancelled,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._fakes import Operation


# ---- Closing: one task ---------------------------------------------------------------------------


async def test_aclose_is_graceful_and_idempotent() -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, wire.aclose)
        wire.give(1)

    assert run.outcome == "returned None"
    for _ in range(2):
        with assert_checkpoints():
            await wire.aclose()
    assert wire.log == ["shutdown", "shutdown", "release True"]


async def test_aclose_in_a_cancelled_scope_polls_the_flush_once_and_writes_no_epilogue() -> None:
    """If nothing is lost then, the end is a plain one."""
    for room, held in ((1, 0), (0, 0), (0, 3)):
        wire = Wire(room)
        wire.held = held
        with resource_warnings() as messages:
            run = await run_cancelled(wire.aclose)

        assert run.outcome == "cancelled"
        assert wire.log == ["flush", f"release {not held}"]
        assert len(messages) == bool(held)


@each(CLAIMS)
async def test_a_closed_writer_refuses_everything(operation: Operation) -> None:
    for close in ("aclose", "force"):
        wire = Wire(math.inf)
        if close == "aclose":
            await wire.aclose()
        else:
            await run_cancelled(wire.aclose)
        log = list(wire.log)
        with pytest.raises(trio.ClosedResourceError):
            await operation(wire)
        assert wire.log == log


@each({**WRITES, **WAITS})
async def test_after_a_shutdown_has_begun_nothing_more_is_written(operation: Operation) -> None:
    """It counts from the first poll on, whatever becomes of the shutdown."""
    wire = Wire()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, wire.shutdown)
        run.scope.cancel()
    wire.give(math.inf)
    with pytest.raises(trio.ClosedResourceError):
        await operation(wire)

    assert wire.log == ["shutdown"]


@pytest.mark.parametrize("make", [Wire, lambda: BufWriter(Wire())], ids=["wire", "layer"])
async def test_a_cancelled_aclose_releases_once_and_warns_once(
    make: Callable[[], AsyncWrite],
) -> None:
    writer = make()
    wire = writer if isinstance(writer, Wire) else writer.inner  # type: ignore[attr-defined]
    if writer is not wire:
        await writer.write(b"abc")
    wire.held = 4
    total = writer.unsent_bytes
    with resource_warnings() as messages:
        assert (await run_cancelled(writer.aclose)).outcome == "cancelled"
        assert (await run_cancelled(writer.aclose)).outcome == "cancelled"
        await writer.aclose()
        assert writer.unsent_bytes == total
        text = repr(writer)
        del writer

    assert wire.releases == ["release False"]
    lost = f"{total} bytes that it had accepted were never sent"
    assert messages == [f"{text} was closed: {lost}"]


async def test_of_bytes_that_an_error_has_told_of_a_cancelled_aclose_says_nothing() -> None:
    wire = Wire()
    writer = BufWriter(wire)
    await writer.write(b"abc")
    wire.error = OSError("write")
    with pytest.raises(trio.BrokenResourceError, match="write"):
        await writer.flush()
    with resource_warnings() as messages:
        assert (await run_cancelled(writer.aclose)).outcome == "cancelled"

    assert writer.unsent_bytes == 3
    assert not messages


async def test_a_cancelled_aclose_raises_nothing_but_cancelled() -> None:
    for wire in (BadlyReleased(), BadlyReleased(room=1), Wire()):
        wire.error = OSError("shutdown") if type(wire) is Wire else None
        assert (await run_cancelled(wire.aclose)).outcome == "cancelled"
        assert len(wire.releases) == 1


async def test_a_cancelled_aclose_does_so_when_warnings_are_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ResourceWarning goes where Python reports what cannot be raised."""
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_value))
    wire = Wire()
    wire.held = 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = await run_cancelled(wire.aclose)

    assert run.outcome == "cancelled"
    assert [type(exc) for exc in unraisable] == [ResourceWarning]
    assert "5 bytes" in str(unraisable[0])
    unraisable.clear()


async def test_an_aclose_that_is_cancelled_by_a_group_warns_as_well() -> None:
    """A wait with a nursery in it raises an exception group."""

    class Grouped(Wire):
        async def wait_for_room(self) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await trio.sleep_forever()

    wire = Grouped()
    wire.held = 6
    with resource_warnings() as messages:
        assert (await run_cancelled(wire.aclose)).outcome == "cancelled"

    assert wire.releases == ["release False"]
    assert len(messages) == 1


async def test_an_aclose_cancelled_after_the_wake_up_is_clean() -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, wire.aclose)
        wire.give(1)
        run.scope.cancel()

    assert run.outcome == "returned None"  # it did what it was called for
    assert wire.releases == ["release True"]


async def test_a_close_lets_the_deadline_pass_and_no_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wire = Wire()
    start = trio.current_time()
    with trio.move_on_after(3) as scope:
        await wire.aclose()

    assert scope.cancelled_caught
    assert trio.current_time() == start + 3
    assert wire.releases == ["release True"]


async def test_a_release_is_shielded() -> None:
    wire = SlowlyReleased(room=1)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, wire.aclose)
        run.scope.cancel()
        await wait_all_tasks_blocked()
        assert run.outcome == "returned not finished"
        wire.let_go.set()

    assert run.outcome == "returned None"
    assert wire.releases == ["release True"]


async def test_aclose_goes_through_every_layer() -> None:
    wire = Wire(math.inf)
    async with Layer(Upper(BufWriter(wire))) as writer:
        await writer.write(b"abc")

    assert wire.sent == b"ABC"
    assert wire.releases == ["release True"]
    with pytest.raises(trio.ClosedResourceError):
        await wire.write(b"d")


# ---- Closing: several tasks ----------------------------------------------------------------------


@each(CLAIMS)
@pytest.mark.parametrize("how", ["graceful", "forceful"])
async def test_aclose_ends_the_wait_of_another_task(operation: Operation, how: str) -> None:
    """And it loses none of the bytes that were accepted before, if it is graceful."""
    writer, reader = full()
    received = bytearray()

    async def receive() -> None:
        try:
            received.extend(await drain(reader))
        except trio.BrokenResourceError:
            received.extend(b" truncated")

    with resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            run = await begin(nursery, partial(operation, writer))
            if how == "forceful":
                assert (await run_cancelled(writer.aclose)).outcome == "cancelled"
                await receive()
            else:
                nursery.start_soon(receive)
                await writer.aclose()

    assert run.outcome == "ClosedResourceError"
    assert bytes(received) == (b" truncated" if how == "forceful" else b"xabcd")
    assert len(messages) == (how == "forceful")


@each({**WRITES, "flush": ENDS["flush"], "shutdown": ENDS["shutdown"]})
async def test_aclose_ends_the_wait_in_a_hand_written_writer(operation: Operation) -> None:
    """Nobody wakes that one up, and its polls check nothing."""
    wire = Wire()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(operation, wire))
        closing = await begin(nursery, wire.aclose)
        assert run.outcome == "ClosedResourceError"
        wire.give(math.inf)

    assert closing.outcome == "returned None"
    assert not wire.sent
    assert wire.releases == ["release True"]


async def test_a_task_that_was_woken_before_the_close_does_not_write_after_it() -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write, b"abc"))
        wire.give(1)
        await run_cancelled(wire.aclose)

    assert run.outcome == "ClosedResourceError"
    assert not wire.sent


async def test_cancelled_and_closed_at_once_a_task_is_cancelled() -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write, b"abc"))
        run.scope.cancel()
        await run_cancelled(wire.aclose)

    assert run.outcome == "cancelled"


@each(CLAIMS)
async def test_while_another_task_closes_it_a_writer_refuses_everything(
    operation: Operation,
) -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, wire.aclose)
        with pytest.raises(trio.ClosedResourceError):
            await operation(wire)
        wire.give(1)

    assert closing.outcome == "returned None"


async def test_two_graceful_closes_wait_for_one_shutdown() -> None:
    wire = SlowlyReleased()
    async with trio.open_nursery() as nursery:
        runs = [await begin(nursery, wire.aclose) for _ in range(3)]
        wire.give(1)
        await wait_all_tasks_blocked()
        assert {run.outcome for run in runs} == {"returned not finished"}
        wire.let_go.set()

    assert [run.outcome for run in runs] == ["returned None"] * 3
    assert wire.log == ["shutdown", "shutdown", "begin", "release True"]


async def test_a_forceful_close_cuts_graceful_ones_short() -> None:
    wire = Wire()
    wire.held = 7
    with resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            runs = [await begin(nursery, wire.aclose) for _ in range(2)]
            assert (await run_cancelled(wire.aclose)).outcome == "cancelled"
            assert wire.releases == ["release False"]

    assert [run.outcome for run in runs] == ["ClosedResourceError"] * 2
    assert wire.releases == ["release False"]
    assert len(messages) == 1


async def test_a_graceful_close_after_a_forceful_one_waits_for_its_release() -> None:
    wire = SlowlyReleased()
    async with trio.open_nursery() as nursery:
        first = Run(wire.aclose)
        first.scope.cancel()
        nursery.start_soon(first)
        await wait_all_tasks_blocked()
        second = await begin(nursery, wire.aclose)
        assert second.outcome == "returned not finished"
        wire.let_go.set()

    assert first.outcome == "cancelled"
    assert second.outcome == "returned None"  # it found the writer closed, or as good as
    assert wire.log == ["flush", "begin", "release True"]


async def test_who_waits_for_a_close_learns_that_it_was_cancelled() -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        first = await begin(nursery, wire.aclose)
        second = await begin(nursery, wire.aclose)
        first.scope.cancel()

    assert first.outcome == "cancelled"
    assert second.outcome == "ClosedResourceError"


async def test_who_waits_for_a_close_that_fails_is_not_told_what_its_task_is() -> None:
    """Libraries close a stream in two tasks, as Trio's streams let them."""
    wire = Wire()
    async with trio.open_nursery() as nursery:
        first = await begin(nursery, wire.aclose)
        second = await begin(nursery, wire.aclose)
        wire.error = OSError("shutdown")
        wire.give(1)

    assert first.error is not None
    assert first.error.__cause__ is wire.error
    assert second.outcome == "returned None"


async def test_who_waits_for_the_close_of_a_broken_writer_is_not_told_again() -> None:
    """It does not wait for the transport, either."""
    wire = SlowlyReleased()
    wire.error = OSError("write")
    with pytest.raises(trio.BrokenResourceError, match="write"):
        await wire.write(b"a")
    wire.error = None
    async with trio.open_nursery() as nursery:
        runs = [await begin(nursery, wire.aclose) for _ in range(2)]
        assert wire.log == ["write", "begin"]
        wire.let_go.set()

    assert [run.outcome for run in runs] == ["returned None"] * 2
    assert wire.releases == ["release False"]


async def test_closes_that_are_cancelled_together_warn_once() -> None:
    wire = SlowlyReleased()
    wire.held = 8
    with resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            runs = [await begin(nursery, wire.aclose) for _ in range(3)]
            for run in runs:
                run.scope.cancel()
            await wait_all_tasks_blocked()
            wire.let_go.set()

    assert [run.outcome for run in runs] == ["cancelled"] * 3
    assert wire.releases == ["release False"]
    assert len(messages) == 1


async def test_a_forceful_close_returns_when_the_release_is_complete() -> None:
    """Whichever task is about it."""
    wire = SlowlyReleased(room=1)
    async with trio.open_nursery() as nursery:
        first = await begin(nursery, wire.aclose)
        second = Run(wire.aclose)
        second.scope.cancel()
        nursery.start_soon(second)
        await wait_all_tasks_blocked()
        assert second.outcome == "returned not finished"
        wire.let_go.set()

    assert first.outcome == "returned None"
    assert second.outcome == "cancelled"
    assert wire.releases == ["release True"]


async def test_a_close_cut_short_returns_when_the_release_is_complete() -> None:
    wire = SlowlyReleased()
    async with trio.open_nursery() as nursery:
        first = await begin(nursery, wire.aclose)
        second = Run(wire.aclose)
        second.scope.cancel()
        nursery.start_soon(second)
        await wait_all_tasks_blocked()
        assert wire.log == ["shutdown", "flush", "begin"]
        assert first.outcome == second.outcome == "returned not finished"
        wire.let_go.set()

    assert first.outcome == "ClosedResourceError"
    assert second.outcome == "cancelled"
    assert wire.releases == ["release True"]


@pytest.mark.parametrize("error", [None, OSError("shutdown")], ids=["succeeds", "fails"])
async def test_a_close_that_is_woken_and_cut_short_at_once_is_one_of_the_two(
    error: OSError | None,
) -> None:
    """Trio decides which of the tasks comes first."""
    seen = set()
    for _ in range(30):
        wire = Wire()
        wire.held = 3
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            async with trio.open_nursery() as nursery:
                first = await begin(nursery, wire.aclose)
                second = await begin(nursery, wire.aclose)
                wire.error = error
                wire.give(1)
                second.scope.cancel()
        assert second.outcome == "cancelled"
        seen.add((first.outcome, *wire.releases, len(caught)))

    if error:  # the last flush of the one, or the shutdown of the other, finds it
        assert seen == {("BrokenResourceError", "release False", 0)}
    else:
        assert seen == {
            ("ClosedResourceError", "release True", 0),
            ("returned None", "release True", 0),
        }


async def test_a_failing_release_does_not_replace_the_cancellation_of_another_task() -> None:
    wire = BadlyReleased()
    async with trio.open_nursery() as nursery:
        first = await begin(nursery, wire.aclose)
        second = await run_cancelled(wire.aclose)

    assert first.outcome == "BrokenResourceError"
    assert second.outcome == "cancelled"


async def test_closing_a_layer_ends_the_waits_in_the_writer_below() -> None:
    wire = Wire()
    layer = Layer(wire)
    async with trio.open_nursery() as nursery:
        writing = await begin(nursery, partial(wire.write, b"abc"))
        await run_cancelled(layer.aclose)

    assert writing.outcome == "ClosedResourceError"

    wire = Wire()
    layer = Layer(wire)
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, wire.aclose)
        await run_cancelled(layer.aclose)

    assert closing.outcome == "ClosedResourceError"
    assert wire.releases == ["release True"]


async def test_a_task_that_waits_below_is_told_before_the_release_is_complete() -> None:
    """It must not poll a writer that is being released."""
    wire = SlowlyReleased()
    async with trio.open_nursery() as nursery:
        writing = await begin(nursery, partial(wire.write, b"abc"))
        closing = Run(Layer(wire).aclose)
        closing.scope.cancel()
        nursery.start_soon(closing)
        await wait_all_tasks_blocked()
        outcomes = writing.outcome, closing.outcome
        wire.let_go.set()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert outcomes == ("ClosedResourceError", "returned not finished")
    assert closing.outcome == "cancelled"
    assert wire.releases == ["release True"]


async def test_a_writer_that_a_layer_is_releasing_is_not_closed_again() -> None:
    wire = SlowlyReleased(math.inf)
    layer = Layer(wire)
    async with trio.open_nursery() as nursery:
        await begin(nursery, layer.aclose)
        log = list(wire.log)
        closing = await begin(nursery, wire.aclose)
        forced = Run(wire.aclose)
        forced.scope.cancel()
        nursery.start_soon(forced)
        await wait_all_tasks_blocked()
        assert closing.outcome == forced.outcome == "returned not finished"
        assert wire.log == log
        wire.let_go.set()

    assert closing.outcome == "returned None"
    assert forced.outcome == "cancelled"
    assert wire.releases == ["release True"]


async def test_a_writer_does_not_collect_the_waits_of_its_past() -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        await begin(nursery, partial(wire.write_all, b"abcdef"))
        for _ in range(6):
            assert len(wire.lifecycle.waits) == 1
            wire.give(1)
            await wait_all_tasks_blocked()

    assert not wire.lifecycle.waits


@pytest.mark.parametrize(
    "name",
    ["keeps_messages", "can_be_torn", "encodes", "shows_truncation", "close_patience", "epilogue"],
)
@pytest.mark.parametrize("evicts", [False, True], ids=["idle", "evicts"])
async def test_an_answer_that_raises_leaves_nothing_open(name: str, *, evicts: bool) -> None:
    """Also the answers that an eviction asks for, before the close has begun to run."""

    def fail(_: object) -> object:
        raise ZeroDivisionError

    wire = type("Answering", (Wire,), {name: property(fail)})(1)
    upper = Layer(wire)
    if not evicts:
        wire.room = math.inf
    async with trio.open_nursery() as nursery:
        with resource_warnings():
            writing = await begin(nursery, partial(upper.write_all, b"abc"))
            closing = await begin(nursery, wire.aclose)
            closing.scope.cancel()
    assert wire.closed
    assert upper.closed
    assert len(wire.releases) == 1
    assert writing.outcome == ("ClosedResourceError" if evicts else "returned None")
    with pytest.raises(trio.ClosedResourceError):
        await upper.write(b"x")


@pytest.mark.parametrize("name", ["owns_below", "layers_below"])
@pytest.mark.parametrize("closes", ["upper", "wire"])
async def test_a_place_in_the_stack_that_cannot_be_told_is_the_default(
    name: str, closes: str
) -> None:
    def fail(*_: object) -> bool:
        raise ZeroDivisionError

    answer = fail if name == "owns_below" else property(fail)
    wire = Wire(math.inf)
    upper = type("Upper", (Layer,), {name: answer})(wire)
    await {"upper": upper, "wire": wire}[closes].aclose()

    assert upper.closed
    assert wire.releases == ["release True"]


async def test_an_unknown_number_of_held_bytes_truncates() -> None:
    class Unknown(Wire):
        @property
        def held_bytes(self) -> int:  # type: ignore[override]
            raise ZeroDivisionError

    wire = Unknown(100)
    with pytest.warns(ResourceWarning, match="an unknown number of bytes .* were never sent"):
        await wire.aclose()
    assert wire.releases == ["release False"]


async def test_layers_that_raise_one_and_the_same_error_make_no_circle_of_it() -> None:
    error = ValueError("release")

    class Failing(Upper):
        async def release(self, *, clean: bool) -> None:
            raise error

    top = Failing(Failing(Wire(math.inf)))
    with pytest.raises(ValueError, match="release") as info:
        await top.aclose()

    assert info.value is error
    assert error.__context__ is not error
    assert top.closed
    assert top.inner.closed
