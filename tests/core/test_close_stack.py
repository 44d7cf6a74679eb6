"""Law 4: closing is seen by the whole stack at once, and closes that meet are one."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import AsyncReadWrite, AsyncWrite, Buf, BufWriter, NotReady, abort, duplex

from .._patience import wait_all_tasks_blocked
from ._fakes import (
    CLAIMS,
    BadlyReleased,
    Encoding,
    Holding,
    Layer,
    Run,
    SlowlyReleased,
    Wire,
    begin,
    cut_short,
    each,
    resource_warnings,
    run_cancelled,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._fakes import Operation


class Logged(Layer):
    """Remembers its own release, and is not released twice."""

    releases = 0

    async def release(self, *, clean: bool) -> None:
        self.releases += 1


class Duplex(Wire, AsyncReadWrite):
    """Never has anything to read."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await AsyncReadWrite.receive_some(self, max_bytes)
        raise NotImplementedError

    def poll_read(self, size: int, /) -> bytes:
        self.need_read()
        raise NotImplementedError

    def need_read(self) -> None:
        raise NotReady(trio.sleep_forever)


class Tee(AsyncWrite):
    """A layer over two streams; it keeps what it has for each."""

    def __init__(self, inner: AsyncWrite, other: AsyncWrite) -> None:
        self.inner = inner
        self.other = other
        self.layers_below = (inner, other)
        self.store = bytearray()

    @property
    def held_bytes(self) -> int:
        return len(self.store)

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.store += data
        return len(data)

    def poll_flush(self) -> None:
        while self.store:
            count = self.inner.poll_write(bytes(self.store))
            self.other.poll_write(bytes(self.store[:count]))
            del self.store[:count]


# ---- The extent ----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("how", ["clean", "cancelled", "block", "block that raises"])
async def test_a_close_of_any_layer_closes_the_whole_stack(depth: int, how: str) -> None:
    wire = Wire(math.inf)
    layers: list[Any] = [wire, Logged(wire)]
    layers += [Logged(layers[1]), Logged(layers[1])]
    if how == "clean":
        await layers[depth].aclose()
    elif how == "cancelled":
        assert (await run_cancelled(layers[depth].aclose)).outcome == "cancelled"
    elif how == "block":
        async with layers[depth]:
            pass
    else:
        with pytest.raises(KeyError):
            async with layers[depth]:
                raise KeyError

    assert [layer.releases for layer in layers] == [["release True"], 1, 1, 1]
    for layer in layers:
        assert layer.closed
        with pytest.raises(trio.ClosedResourceError):
            await layer.write(b"x")
        await layer.aclose()
    assert [layer.releases for layer in layers] == [["release True"], 1, 1, 1]


async def test_forgotten_buffers_are_flushed_in_the_order_in_which_they_began_to_hold() -> None:
    wire = Wire(math.inf)
    first, second, third = BufWriter(wire), Holding(Layer(wire)), BufWriter(wire)
    await third.write(b"3")
    await first.write(b"1")
    await second.write(b"2")
    del first, second, third
    await wire.aclose()

    assert wire.sent == b"312"
    assert wire.releases == ["release True"]


async def test_a_layer_ends_before_those_below_it_and_writes_its_epilogue() -> None:
    wire = Wire(math.inf)
    encoder = Encoding(BufWriter(wire))
    writer = BufWriter(encoder)
    await writer.write(b"abc")
    await encoder.inner.aclose()

    assert wire.sent == b"ABC."


async def test_a_handle_owns_nothing_below() -> None:
    wire = Wire(math.inf)
    handle = wire.by_ref()
    over = BufWriter(handle)
    await over.write(b"abc")
    await over.aclose()

    assert wire.sent == b"abc"
    assert handle.closed
    assert not wire.closed
    await wire.write(b"d")
    await wire.aclose()


@pytest.mark.parametrize("number", [0, 1])
async def test_a_layer_over_two_streams_ends_only_its_side_over_the_closed_one(
    number: int,
) -> None:
    both = Wire(math.inf), Wire(math.inf)
    closed, other = both[number], both[1 - number]
    tee = Tee(*both)
    await tee.write(b"abc")
    await closed.aclose()

    assert closed.sent == other.sent == b"abc"
    assert closed.releases == ["release True"]
    assert not tee.closed
    assert not other.releases
    with pytest.raises(trio.ClosedResourceError):
        await tee.write(b"x")
    await tee.aclose()
    assert tee.closed
    assert other.releases == ["release True"]


async def test_a_layer_over_two_streams_that_it_does_not_own_tears_both() -> None:
    class Borrowing(Tee):
        def owns_below(self, is_closing: Callable[[object], bool]) -> bool:
            return False

    both = Wire(), Wire()
    tee = Borrowing(*both)
    await tee.write(b"abc")
    with resource_warnings() as messages:
        await run_cancelled(tee.aclose)
    assert len(messages) == 1
    for wire in both:
        wire.give(math.inf)
        with pytest.raises(trio.BrokenResourceError, match="torn"):
            await wire.write(b"x")
        with resource_warnings():
            await wire.aclose()


async def test_a_layer_over_two_streams_is_closed_with_the_second() -> None:
    inner, other = Wire(math.inf), Wire(math.inf)
    tee = Tee(inner, other)
    await other.aclose()
    assert not tee.closed
    await tee.inner.aclose()

    assert tee.closed


async def test_the_side_of_a_layer_waits_as_long_as_it_takes() -> None:
    inner, other = Wire(), Wire(math.inf)
    tee = Tee(inner, other)
    await tee.write(b"abc")
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, inner.aclose)
        with pytest.raises(trio.ClosedResourceError):
            await tee.write(b"x")
        assert closing.outcome == "returned not finished"
        inner.give(math.inf)

    assert closing.outcome == "returned None"
    assert inner.sent == b"abc"
    await tee.aclose()


# ---- The gate ------------------------------------------------------------------------------------


@each({**CLAIMS, "receive_some": lambda stream: stream.receive_some()})
async def test_from_the_first_moment_all_awaits_of_all_layers_are_refused(
    operation: Operation,
) -> None:
    class Upper(Layer, AsyncReadWrite):
        pass

    wire = Duplex()
    below = Upper(wire)
    layers: list[AsyncWrite] = [wire, below, Upper(below), below.by_ref(), BufWriter(below)]
    is_read = "receive_some" in operation.__code__.co_names
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, below.aclose)
        log = list(wire.log)
        for layer in layers:
            if is_read and not isinstance(layer, AsyncReadWrite):
                continue
            assert layer.closed
            with pytest.raises(trio.ClosedResourceError):
                await operation(layer)
        assert wire.log == log
        wire.give(math.inf)

    assert closing.outcome == "returned None"


@each({**CLAIMS, "receive_some": lambda stream: stream.receive_some()})
@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_tasks_inside_any_layer_are_evicted(operation: Operation, depth: int) -> None:
    class Upper(Layer, AsyncReadWrite):
        pass

    left, right = duplex(1)
    left.poll_write(b"x")
    layers: list[Any] = [left, Upper(left)]
    layers.append(Upper(layers[1]))
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(operation, layers[1]))
        if run.outcome == "returned not finished":
            assert (await run_cancelled(layers[depth].aclose)).outcome == "cancelled"
            await wait_all_tasks_blocked()
            assert run.outcome == "ClosedResourceError"
    await trio.aclose_forcefully(left)
    await right.aclose()


async def test_polls_by_hand_are_refused_while_the_close_makes_its_own() -> None:
    wire = Wire()
    encoder = Encoding(Layer(wire))
    upper = Layer(encoder)
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, upper.aclose)
        for layer in (upper, encoder.inner):
            for poll in (
                partial(layer.poll_write, b"x"),
                layer.poll_flush,
                layer.poll_shutdown,
                layer.poll_ready,
            ):
                with pytest.raises(trio.ClosedResourceError):
                    poll()
        wire.give(math.inf)

    assert closing.outcome == "returned None"
    assert wire.sent == b"."


async def test_the_fast_path_is_shut_in_every_layer() -> None:
    wire = Wire()
    below = BufWriter(wire)
    upper = BufWriter(below)
    for layer in (below, upper):
        await layer.write(b"x")  # from here on without the scheduler
    async with trio.open_nursery() as nursery:
        await begin(nursery, below.aclose)
        for layer in (below, upper, upper.by_ref()):
            with pytest.raises(trio.ClosedResourceError):
                await layer.write(b"y")
        wire.give(math.inf)

    assert sorted(wire.sent) == sorted(b"xx")


async def test_a_layer_made_during_a_close_belongs_to_it() -> None:
    wire = SlowlyReleased()
    layers = [wire, Layer(wire)]
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, wire.aclose)
        layers.append(Logged(wire))
        layers.append(Logged(layers[1]))
        wire.give(math.inf)
        await wait_all_tasks_blocked()
        assert wire.log[-1] == "begin"
        layers.append(Layer(layers[1]))
        for layer in layers:
            with pytest.raises(trio.ClosedResourceError):
                await layer.write(b"x")
        wire.let_go.set()

    assert closing.outcome == "returned None"
    assert [layer.releases for layer in layers[2:4]] == [1, 1]
    layers.append(Logged(wire))
    with pytest.raises(trio.ClosedResourceError):
        await layers[-1].write(b"x")
    await layers[-1].aclose()


# ---- From inside ---------------------------------------------------------------------------------


class ClosesInner(Layer):
    """Its release closes what is below it, as people write it."""

    in_child = False

    async def release(self, *, clean: bool) -> None:
        if self.in_child:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.inner.aclose)
        else:
            await self.inner.aclose()


@pytest.mark.parametrize("in_child", [False, True])
@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_release_may_close_what_is_below(
    in_child: bool, cancelled: bool, depth: int
) -> None:
    """It neither waits for the close that it is part of, nor does it release anything twice."""
    wire = Wire(math.inf)
    layers: list[AsyncWrite] = [wire, ClosesInner(wire)]
    layers.append(ClosesInner(layers[1]))
    for layer in layers:
        layer.in_child = in_child  # type: ignore[attr-defined]
    if cancelled:
        assert (await run_cancelled(layers[depth].aclose)).outcome == "cancelled"
    else:
        await layers[depth].aclose()

    assert wire.releases == ["release True"]


@pytest.mark.parametrize("closing", [False, True])
async def test_a_release_may_close_what_the_close_does_not_have(closing: bool) -> None:
    """Also when another task closes that already: it waits for that one."""

    class ClosesOther(Layer):
        async def release(self, *, clean: bool) -> None:
            await other.aclose()

    other = Wire(room=0 if closing else 1)
    wire = Wire(math.inf)
    writer = ClosesOther(wire)
    async with trio.open_nursery() as nursery:
        if closing:
            await begin(nursery, other.aclose)
        run = await begin(nursery, writer.aclose)
        assert run.outcome == ("returned not finished" if closing else "returned None")
        other.give(math.inf)

    assert other.releases == wire.releases == ["release True"]


async def test_the_closing_task_may_use_the_awaits_below() -> None:
    class SaysGoodbye(Layer):
        async def release(self, *, clean: bool) -> None:
            await self.inner.write_all(b"bye")
            await self.inner.flush()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.inner.send_all, b"!")
            assert await self.inner.receive_some() == b"read"

    class Reading(Wire, AsyncReadWrite):
        def poll_read(self, size: int, /) -> bytes:
            return b"read"

    wire = Reading(math.inf)
    await SaysGoodbye(wire).aclose()

    assert wire.sent == b"bye!"
    assert wire.releases == ["release True"]


# ---- Closes unite --------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1, 2, 3])
@pytest.mark.parametrize("second", [0, 1, 2, 3])
async def test_closes_of_one_stack_are_one(first: int, second: int) -> None:
    wire = SlowlyReleased()
    layers: list[Any] = [wire, Logged(wire)]
    layers += [Logged(layers[1]), Logged(wire)]
    async with trio.open_nursery() as nursery:
        runs = [await begin(nursery, layers[number].aclose) for number in (first, second)]
        assert [run.outcome for run in runs] == ["returned not finished"] * 2
        wire.give(math.inf)
        await wait_all_tasks_blocked()
        assert [run.outcome for run in runs] == ["returned not finished"] * 2
        wire.let_go.set()

    assert [run.outcome for run in runs] == ["returned None"] * 2
    assert [layer.releases for layer in layers[1:]] == [1, 1, 1]
    assert wire.releases == ["release True"]


@pytest.mark.parametrize("handles", [1, 2, 3])
async def test_a_close_takes_over_those_of_the_handles_above(handles: int) -> None:
    """Nothing is shut down below a buffer that another task is flushing."""
    wire = Wire()
    writers = [BufWriter(wire.by_ref()) for _ in range(handles)]
    for writer in writers:
        await writer.write(b"abc")
    async with trio.open_nursery() as nursery:
        runs = [await begin(nursery, writer.aclose) for writer in writers]
        runs.append(await begin(nursery, wire.aclose))
        assert [run.outcome for run in runs] == ["returned not finished"] * (handles + 1)
        wire.give(math.inf)

    assert [run.outcome for run in runs] == ["returned None"] * (handles + 1)
    assert wire.sent == b"abc" * handles
    assert wire.log[-2:] == ["shutdown", "release True"]
    assert all(writer.closed for writer in writers)


@pytest.mark.parametrize("number", [0, 1])
async def test_a_cancelled_closer_makes_it_harder_for_all(number: int) -> None:
    """Whether it runs the close or waits for it."""
    wire = Wire()
    layers = [BufWriter(wire), BufWriter(wire)]
    for layer in layers:
        await layer.write(b"abc")
    with resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            runs = [await begin(nursery, layer.aclose) for layer in layers]
            runs[number].scope.cancel()

    assert runs[number].outcome == "cancelled"
    assert runs[1 - number].outcome == "ClosedResourceError"
    assert wire.releases == ["release False"]
    assert len(messages) == 1
    assert "6 bytes" in messages[0]


@pytest.mark.parametrize("depth", [0, 1])
async def test_a_block_that_raises_waits_for_the_close_of_another_task(depth: int) -> None:
    """It makes it no harder; and if its wait is cancelled, it leaves."""
    wire = Wire()
    layers = [wire, BufWriter(wire)]
    await layers[1].write(b"abc")

    async def block() -> None:
        async with layers[depth]:
            raise KeyError

    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, layers[1].aclose)
        left = await begin(nursery, block)
        cancelled = await begin(nursery, block)
        assert left.outcome == "returned not finished"
        cancelled.scope.cancel()
        await wait_all_tasks_blocked()
        assert cancelled.outcome == "KeyError"
        assert closing.outcome == left.outcome == "returned not finished"
        wire.give(math.inf)

    assert closing.outcome == "returned None"
    assert left.outcome == "KeyError"
    assert wire.sent == b"abc"
    assert wire.releases == ["release True"]


async def test_each_loss_is_told_once() -> None:
    """By the warning of the close; and to the first other task that closes a layer with a loss."""
    wire = Wire()
    below = BufWriter(wire)
    upper = BufWriter(below)
    await upper.write(b"abc")
    await below.write(b"de")
    with resource_warnings() as messages:
        assert (await run_cancelled(wire.aclose)).outcome == "cancelled"
        await upper.aclose()  # the same task knows
        async with trio.open_nursery() as nursery:
            runs = [await begin(nursery, below.aclose) for _ in range(2)]

    assert messages == ["<Wire> was closed: 5 bytes that it had accepted were never sent"]
    assert [run.outcome for run in runs] == ["ClosedResourceError", "returned None"]
    assert "5 bytes" in str(runs[0].error)  # those of the upper layer had come down to it


async def test_who_joins_a_close_that_was_cut_off_before_learns_only_of_a_loss() -> None:
    wire = SlowlyReleased()
    layers = [BufWriter(wire), BufWriter(wire)]
    await layers[1].write(b"abc")
    with resource_warnings():
        async with trio.open_nursery() as nursery:
            first = await begin(nursery, wire.aclose)
            first.scope.cancel()
            await wait_all_tasks_blocked()
            runs = [await begin(nursery, layer.aclose) for layer in layers]
            wire.let_go.set()

    assert [run.outcome for run in runs] == ["returned None", "ClosedResourceError"]


async def test_closing_a_broken_layer_raises_nothing_and_closes_everything() -> None:
    wire = BadlyReleased()
    layers = [BufWriter(wire), Logged(wire)]
    await layers[0].write(b"abc")
    wire.error = OSError("failed")
    with pytest.raises(trio.BrokenResourceError):
        await layers[0].flush()
    with resource_warnings() as messages:
        await layers[1].aclose()

    assert not messages
    assert wire.releases == ["release False"]
    assert layers[0].closed


async def test_a_buf_is_gone_on_with_after_the_close_of_a_handle_that_lost_bytes() -> None:
    """The layer below one that was closed truncated is torn; but an unfinished Buf stays."""
    wire = Wire()
    buf = Buf(b"abc")
    wire.room = 1
    await cut_short(partial(wire.write_all_buf, buf))
    over = Holding(wire.by_ref())
    over.poll_write(b"x")
    with resource_warnings() as messages:
        assert (await run_cancelled(over.aclose)).outcome == "cancelled"
    wire.give(math.inf)
    await wire.write_all_buf(buf)
    assert len(messages) == 1
    assert wire.sent == b"abc"

    over = Holding(wire.by_ref())
    wire.room = 0
    over.poll_write(b"x")
    with resource_warnings():
        assert (await run_cancelled(over.aclose)).outcome == "cancelled"
    with pytest.raises(trio.BrokenResourceError, match="a layer above it was closed before"):
        await wire.write(b"x")
    with resource_warnings():
        await wire.aclose()


# ---- Closes that meet while both run -------------------------------------------------------------


async def two_closes(nursery: trio.Nursery, wire: Wire) -> tuple[list[BufWriter[Any]], list[Run]]:
    """Two buffers over handles of ``wire``, closed by two tasks, whose closes have not met."""
    writers: list[BufWriter[Any]] = [BufWriter(wire.by_ref()) for _ in range(2)]
    for writer in writers:
        await writer.write(b"abc")
    return writers, [await begin(nursery, writer.aclose) for writer in writers]


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_each_of_several_united_closers_may_make_it_harder(number: int) -> None:
    wire = Wire()
    with resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            _, runs = await two_closes(nursery, wire)
            runs.append(await begin(nursery, wire.aclose))
            runs[number].scope.cancel()

    outcomes = [run.outcome for run in runs]
    assert outcomes.pop(number) == "cancelled"
    assert outcomes == ["ClosedResourceError"] * 2
    assert wire.releases == ["release False"]
    assert len(messages) == 1


async def test_a_cancelled_close_cuts_short_those_that_it_meets() -> None:
    wire = Wire()
    with resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            _, runs = await two_closes(nursery, wire)
            assert (await run_cancelled(wire.aclose)).outcome == "cancelled"

    assert [run.outcome for run in runs] == ["ClosedResourceError"] * 2
    assert wire.releases == ["release False"]
    assert len(messages) == 1


@pytest.mark.parametrize("above", [None, Layer, BufWriter])
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("how", ["cancelled", "abort"])
async def test_a_handle_that_has_lost_nothing_makes_the_close_of_its_original_no_harder(
    above: type[Layer] | None, order: str, how: str
) -> None:
    wire = Wire()
    held = BufWriter(wire)
    await held.write(b"abc")
    layer = wire.by_ref() if above is None else above(wire.by_ref())
    async with trio.open_nursery() as nursery:
        first, second = (wire, layer) if order == "after" else (layer, wire)
        runs = {id(one): await begin(nursery, one.aclose) for one in (first, second)}
        if how == "abort":
            await abort(layer)
        else:
            runs[id(layer)].scope.cancel()
        await wait_all_tasks_blocked()
        assert not wire.releases
        assert layer.closed
        wire.give(math.inf)

    assert runs[id(layer)].outcome == ("returned None" if how == "abort" else "cancelled")
    assert runs[id(wire)].outcome == "returned None"
    assert wire.sent == b"abc"
    assert wire.releases == ["release True"]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_who_waited_for_a_close_waits_for_the_one_that_it_became_a_part_of(
    cancelled: bool,
) -> None:
    wire = Wire()
    with resource_warnings():
        async with trio.open_nursery() as nursery:
            writers, runs = await two_closes(nursery, wire)
            joined = await begin(nursery, writers[0].aclose)
            runs.append(await begin(nursery, wire.aclose))
            runs += [joined, await begin(nursery, writers[1].aclose)]
            if cancelled:
                joined.scope.cancel()
                await wait_all_tasks_blocked()
            wire.give(math.inf)

    expected = "ClosedResourceError" if cancelled else "returned None"
    assert joined.outcome == ("cancelled" if cancelled else "returned None")
    assert [run.outcome for run in runs if run is not joined] == [expected] * 4


async def test_closes_may_be_united_again() -> None:
    wire = Wire()
    middle = Layer(wire.by_ref())
    async with trio.open_nursery() as nursery:
        _, runs = await two_closes(nursery, middle)  # type: ignore[arg-type]
        runs.append(await begin(nursery, middle.aclose))
        runs.append(await begin(nursery, wire.aclose))
        wire.give(math.inf)

    assert [run.outcome for run in runs] == ["returned None"] * 4
    assert wire.sent == b"abcabc"
    assert wire.releases == ["release True"]


@pytest.mark.parametrize("error", [OSError("wait"), KeyboardInterrupt()])
async def test_a_wait_of_an_absorbed_close_that_raises_ends_that_call_only(
    error: BaseException,
) -> None:
    class Failing(Wire):
        async def wait_for_room(self) -> None:
            try:
                await super().wait_for_room()
            except trio.Cancelled:
                if not failed:
                    failed.append(error)
                    raise error from None
                raise

    failed: list[BaseException] = []
    wire = Failing()
    writer = BufWriter(wire.by_ref())
    await writer.write(b"abc")

    async def close() -> str:
        try:
            await writer.aclose()
        except BaseException as exc:  # noqa: BLE001 - the test looks at it
            return f"raised {type(exc).__name__}"
        return ""

    async with trio.open_nursery() as nursery:
        run = await begin(nursery, close)
        closing = await begin(nursery, wire.aclose)
        assert run.result == f"raised {type(error).__name__}"
        wire.give(math.inf)

    assert closing.outcome == "returned None"
    assert wire.sent == b"abc"


async def test_a_close_below_one_that_is_at_its_release_is_a_close_of_its_own() -> None:
    """Nothing would shut it down, otherwise."""

    class Slow(Layer):
        async def release(self, *, clean: bool) -> None:
            await let_go.wait()

    let_go = trio.Event()
    wire = Wire(math.inf)
    upper = Slow(wire.by_ref())
    async with trio.open_nursery() as nursery:
        runs = [await begin(nursery, one.aclose) for one in (upper, wire)]
        log = wire.log[-1:]
        outcomes = [run.outcome for run in runs]
        let_go.set()

    assert log == ["shutdown"]
    assert wire.log[-1] == "release True"
    assert outcomes == ["returned not finished"] * 2
    assert [run.outcome for run in runs] == ["returned None"] * 2


async def test_a_cancelled_closer_that_is_absorbed_at_once_makes_it_harder_all_the_same() -> None:
    wire = Wire()
    with resource_warnings():
        async with trio.open_nursery() as nursery:
            writers, runs = await two_closes(nursery, wire)
            runs[0].scope.cancel()
            closing = Run(wire.aclose)
            await closing()

    assert [run.outcome for run in runs] == ["cancelled", "ClosedResourceError"]
    assert closing.outcome == "ClosedResourceError"
    assert wire.releases == ["release False"]
    assert all(writer.closed for writer in writers)


async def test_the_sides_of_a_close_go_with_it() -> None:
    wire, other = Wire(), Wire(math.inf)
    handle = wire.by_ref()
    tee = Tee(handle, other)
    await tee.write(b"abc")
    async with trio.open_nursery() as nursery:
        runs = [await begin(nursery, one.aclose) for one in (handle, wire)]
        wire.give(math.inf)

    assert [run.outcome for run in runs] == ["returned None"] * 2
    assert wire.sent == other.sent == b"abc"
    assert not tee.closed
    with pytest.raises(trio.ClosedResourceError):
        await tee.write(b"x")
    await tee.aclose()


@pytest.mark.parametrize("state", ["broken", "torn", "not ready"])
async def test_a_side_that_cannot_be_flushed_does_not_hold_the_others_up(state: str) -> None:
    inner, other = Wire(), Wire(math.inf)
    middle = Layer(inner)
    tee = Tee(middle, other)
    beside = BufWriter(inner)
    await tee.write(b"abc")
    await beside.write(b"d")
    if state == "broken":
        inner.give(1)
        tee.lifecycle.failure = OSError("failed")
        tee.lifecycle.told = True
        tee.lifecycle.update()
    elif state == "torn":
        inner.give(1)
        await cut_short(partial(middle.write_all, b"xyz"))
    inner.room = math.inf if state == "broken" else 0
    with resource_warnings() as messages:
        if state == "broken":
            await inner.aclose()
        else:
            assert (await run_cancelled(inner.aclose)).outcome == "cancelled"
        await run_cancelled(tee.aclose)

    assert inner.sent == {"broken": b"d", "torn": b"x", "not ready": b""}[state]
    assert bool(messages) == (state != "broken")  # of which the failure has told


async def test_what_a_release_raises_is_raised_as_it_is_unless_the_system_says_it() -> None:
    class Failing(Wire):
        async def release(self, *, clean: bool) -> None:
            await super().release(clean=clean)
            raise ValueError("release")

    wire = Failing(math.inf)
    with pytest.raises(ValueError, match="release"):
        await Layer(wire).aclose()
    assert wire.releases == ["release True"]


async def test_a_release_that_finds_something_busy_has_failed() -> None:
    """A close that says Busy would seem to have done nothing."""

    class Busy(Wire):
        async def release(self, *, clean: bool) -> None:
            raise trio.BusyResourceError("release")

    wire = Busy(math.inf)
    with pytest.raises(trio.BrokenResourceError, match="release"):
        await wire.aclose()
    assert wire.closed
