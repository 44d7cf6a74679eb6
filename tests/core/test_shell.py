"""The one loop: poll, wait, poll again."""

from __future__ import annotations

import math
import signal
import struct
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import hypothesis
import hypothesis.strategies as st
import pytest
import trio
import trio.abc
import trio.testing
from trio.testing import assert_checkpoints

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    NotReady,
    ReadWritePair,
    Sink,
    simplex,
)
from trio_asyncwrite._core._budget import current_budget
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._patience import wait_all_tasks_blocked
from .._streams import drain, unix_pair
from ._fakes import (
    ALL,
    BUDGETED,
    CLAIMS,
    ENDS,
    SOME,
    WAITS,
    WRITES,
    Layer,
    Run,
    Upper,
    Wire,
    begin,
    each,
    full,
    resource_warnings,
    run_cancelled,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from ._fakes import Operation


# ---- The shell: what each method does ------------------------------------------------------------


@each(ALL)
async def test_write_all_and_its_like_write_all(operation: Operation) -> None:
    wire = Wire(room=1)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(operation, wire))
        assert wire.sent == b"a"
        wire.give(1)
        await wait_all_tasks_blocked()
        assert wire.sent == b"ab"
        assert run.outcome == "returned not finished"
        wire.give(1)

    assert run.outcome == "returned None"
    assert wire.sent == b"abc"
    assert "flush" not in wire.log


@each(SOME)
async def test_write_and_its_like_make_one_successful_poll(operation: Operation) -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(operation, wire))
        assert run.outcome == "returned not finished"
        wire.give(1)

    assert run.outcome == "returned 1"
    assert wire.sent == b"a"


async def test_send_all_returns_when_all_is_flushed() -> None:
    wire = Wire(room=3)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.send_all, b"abc"))
        assert run.outcome == "returned not finished"
        wire.give(1)

    assert run.outcome == "returned None"
    assert wire.log == ["write", "flush", "flush"]


async def test_send_all_of_nothing_flushes() -> None:
    wire = Wire(room=1)
    await wire.send_all(b"")

    assert wire.log == ["flush"]


@pytest.mark.parametrize("data", [b"", bytearray(), memoryview(b"")], ids=type)
async def test_empty_data_is_accepted(data: bytes) -> None:
    wire = Wire(room=1)

    assert await wire.write(data) == 0
    assert await wire.write_buf(Buf(data)) == 0
    assert await wire.write_vectored([]) == 0
    await wire.write_all(data)
    await wire.write_all_buf(Buf())
    await wire.write_all_vectored([data, data])
    assert wire.sent == b""
    assert wire.room == 1


async def test_write_struct_packs_or_writes_nothing() -> None:
    wire = Wire(math.inf)
    await wire.write_struct("!HI", 7, 42)
    with pytest.raises(struct.error):
        await wire.write_struct("!B", 256)

    assert wire.sent == bytes.fromhex("0007 0000002a")


async def test_several_parts_are_offered_in_one_gathered_call() -> None:
    class Gathering(Wire):
        def poll_write_vectored(self, buffers: Sequence[Any], /) -> int:
            self.log.append(f"gather {len(buffers)}")
            return self.poll_write(b"".join(buffers))

    wire = Gathering(room=5)
    buf = Buf(b"head", b"body", b"end")
    assert await wire.write_buf(buf) == 5
    wire.give(math.inf)
    await wire.write_all_buf(buf)
    await wire.write_all_vectored([b"!"])

    assert wire.sent == b"headbodyend!"
    assert wire.log == ["gather 3", "write", "gather 2", "write", "write"]


@pytest.mark.parametrize(
    ("room", "polls"),
    [(0, [1024, 1024, 452]), (10_000, [2500])],
    ids=["transport", "buffer"],
)
async def test_a_message_of_very_many_parts(room: int, polls: list[int]) -> None:
    """A list of all that are left at each poll would take time in the square of their number.

    But what stays in a buffer is taken whole or not at all.
    """

    class Gathering(Wire):
        def poll_write_vectored(self, buffers: Sequence[Any], /) -> int:
            counts.append(len(buffers))
            return self.poll_write(b"".join(buffers))

    counts: list[int] = []
    wire = Gathering(math.inf)
    wire.spare_capacity = room
    await wire.write_all_vectored([b"ab"] * 2500)

    assert wire.sent == b"ab" * 2500
    assert counts == polls


async def test_a_buf_is_advanced_past_exactly_what_was_accepted() -> None:
    wire = Wire(room=4)
    buf = Buf(b"abc", b"def")

    assert await wire.write_buf(buf) == 3
    assert await wire.write_buf(buf) == 1
    assert buf.remaining == 2
    assert wire.sent == b"abcd"


async def test_wait_send_all_might_not_block_waits_while_a_write_would() -> None:
    pipe, reader = simplex(1)
    pipe.poll_write(b"x")
    layer = Layer(pipe)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, layer.wait_send_all_might_not_block)
        assert run.outcome == "returned not finished"
        await reader.receive_some()

    assert run.outcome == "returned None"
    assert layer.poll_write(b"y") == 1


async def test_after_a_shutdown_flush_and_shutdown_have_nothing_to_do() -> None:
    wire = Wire(room=1)
    await wire.shutdown()
    wire.room = 0
    await wire.flush()
    await wire.shutdown()

    assert wire.log == ["shutdown"]


async def test_shutdown_goes_on_where_a_raw_poll_has_begun() -> None:
    wire = Wire()
    layer = Layer(wire)
    with pytest.raises(NotReady):
        layer.poll_shutdown()
    with pytest.raises(trio.ClosedResourceError):
        await layer.write(b"a")
    wire.give(1)
    await layer.shutdown()

    assert wire.log == ["flush", "flush", "shutdown"]


# ---- Cancellation: the three words, each proven by cancelling ------------------------------------


@each(CLAIMS)
async def test_cancelled_before_it_starts_a_call_polls_nothing(operation: Operation) -> None:
    wire = Wire(math.inf)
    run = await run_cancelled(partial(operation, wire))

    assert run.outcome == "cancelled"
    assert not wire.log
    await operation(wire)  # as if nothing had happened


@pytest.mark.parametrize("name", ["write", "write_buf", "write_vectored"])
async def test_nothing_happened_when_cancelled_in_the_wait(name: str) -> None:
    wire = Wire()
    buf = Buf(b"abc")
    call = partial(wire.write_buf, buf) if name == "write_buf" else partial(SOME[name], wire)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, call)
        run.scope.cancel()

    assert run.outcome == "cancelled"
    assert not wire.sent
    assert buf.remaining == 3
    wire.give(math.inf)
    await wire.write_all_buf(buf)
    assert wire.sent == b"abc"


async def test_write_all_buf_is_resumable_when_cancelled_in_the_wait() -> None:
    wire = Wire(room=2)
    buf = Buf(b"abc", b"def")
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write_all_buf, buf))
        run.scope.cancel()

    assert run.outcome == "cancelled"
    assert wire.sent == b"ab"
    assert buf.remaining == 4
    wire.give(math.inf)
    await wire.write_all_buf(buf)
    assert wire.sent == b"abcdef"


@each(ENDS)
async def test_flush_and_shutdown_are_resumable_when_cancelled_in_the_wait(
    operation: Operation,
) -> None:
    writer, reader = full()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(operation, writer))
        assert await reader.receive_some() == b"x"
        await wait_all_tasks_blocked()
        run.scope.cancel()
        await wait_all_tasks_blocked()
        assert run.outcome == "cancelled"
        assert writer.unsent_bytes == 3

        nursery.start_soon(operation, writer)
        for byte in b"abcd":
            assert await reader.receive_some() == bytes([byte])

    assert writer.unsent_bytes == 0
    await writer.aclose()


@each({name: WRITES[name] for name in ("write_all", "write_all_vectored", "send_all")})
async def test_lost_is_said_of_what_was_sent_in_part(operation: Operation) -> None:
    """Nothing may follow, or the peer would take two parts for one message."""
    wire = Wire(room=2)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(operation, wire))
        run.scope.cancel()

    assert run.outcome == "cancelled"
    assert wire.sent in (b"a", b"ab")
    wire.give(math.inf)
    with pytest.raises(trio.BrokenResourceError, match="torn"):
        await wire.write_all(b"!")
    assert wire.sent in (b"a", b"ab")
    with resource_warnings() as messages:
        await wire.aclose()
    assert len(messages) == 1
    assert wire.releases == ["release False"]


@each(CLAIMS)
async def test_cancelled_after_the_wake_up_a_call_completes(operation: Operation) -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(operation, wire))
        wire.give(100)
        run.scope.cancel()

    assert run.outcome in ("returned None", "returned 1", "returned 3")
    assert wire.sent in (b"", b"a", b"abc")


@each(CLAIMS)
async def test_cancelled_in_the_yield_after_its_poll_a_call_completes(operation: Operation) -> None:
    """Once something was accepted, Cancelled would be a lie."""

    class Cancelling(Wire):
        def need_room(self, poll: str) -> None:
            run.scope.cancel()

    wire = Cancelling(math.inf)
    run = Run(partial(operation, wire))
    await run()

    assert run.scope.cancel_called or operation is WAITS["wait_send_all_might_not_block"]
    assert run.outcome in ("returned None", "returned 1", "returned 3")


async def test_a_spurious_wake_up_is_waited_out() -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write, b"abc"))
        wire.give(0)
        await wait_all_tasks_blocked()
        assert run.outcome == "returned not finished"
        wire.give(2)

    assert run.outcome == "returned 2"


async def test_a_message_survives_cancellation_everywhere() -> None:
    """Every byte arrives exactly once, wherever write_all_buf, flush and shutdown are cut."""

    async def scenario(sweep: Sweep) -> None:
        pipe, reader = simplex(2)
        writer = Upper(BufWriter(pipe, 3))
        buf = Buf(b"a", b"bcdefgh", b"ij")
        async with trio.open_nursery() as nursery:
            received = bytearray()

            async def receive() -> None:
                received.extend(await drain(reader))

            nursery.start_soon(receive)
            with sweep:
                await writer.write_all_buf(buf)
                await writer.flush()
                await writer.shutdown()
            if buf.remaining:
                await writer.write_all_buf(buf)
            await writer.flush()
            await writer.aclose()
        assert received == b"ABCDEFGHIJ"

    assert await cancel_everywhere(scenario) > 10


@hypothesis.given(
    parts=st.lists(st.binary(max_size=8), max_size=6),
    steps=st.lists(st.one_of(st.integers(1, 6), st.just("cancel")), max_size=12),
)
async def test_any_parts_any_room_any_cancellations(
    parts: list[bytes], steps: list[int | str]
) -> None:
    wire = Wire()
    buf = Buf(*parts)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write_all_buf, buf))
        for step in steps:
            if isinstance(step, int):
                wire.give(step)
            else:
                run.scope.cancel()
                await wait_all_tasks_blocked()
                run = await begin(nursery, partial(wire.write_all_buf, buf))
            await wait_all_tasks_blocked()
            assert len(wire.sent) + buf.remaining == sum(map(len, parts))
        wire.give(math.inf)

    assert wire.sent == b"".join(parts)


# ---- Checkpoints ---------------------------------------------------------------------------------


@each({**ENDS, **WAITS, "send_all": WRITES["send_all"]})
async def test_what_is_no_write_is_a_full_checkpoint(operation: Operation) -> None:
    with assert_checkpoints():
        await operation(Wire(math.inf))
    with assert_checkpoints():
        await operation(Layer(Wire(math.inf)))


@each({**ENDS, **WAITS, "send_all": WRITES["send_all"], "aclose": AsyncWrite.aclose})
async def test_what_has_nothing_to_do_is_a_full_checkpoint(operation: Operation) -> None:
    async with BufWriter(Wire(math.inf)) as writer:
        with assert_checkpoints():
            await operation(writer)
    for state in ("shutdown", "aclose"):
        writer = BufWriter(Wire(math.inf))
        await getattr(writer, state)()
        if operation is AsyncWrite.aclose or (state == "shutdown" and operation in ENDS.values()):
            with assert_checkpoints():
                await operation(writer)
        await writer.aclose()


@each(BUDGETED)
async def test_what_stays_in_a_buffer_is_no_checkpoint(operation: Operation) -> None:
    writer = BufWriter(Sink())
    writer.poll_write(b"x")
    await writer.write(b"x")  # may find the run's budget spent
    with trio.testing.assert_no_checkpoints():
        await operation(writer)
    await writer.aclose()


@each(BUDGETED)
async def test_a_write_that_finds_the_budget_spent_is_a_full_checkpoint(
    operation: Operation,
) -> None:
    writer = BufWriter(Sink())
    await writer.write(b"x")
    writer.lifecycle.budget.left = 0
    with assert_checkpoints():
        await operation(writer)
    assert writer.lifecycle.budget.left == 127
    await writer.aclose()


async def test_a_buffer_may_fill_up_while_the_call_yields() -> None:
    """The call then waits as if the buffer had been full before."""
    wire = Wire()
    writer = BufWriter(wire, 4)
    await writer.write(b"")
    current_budget().left = 0
    async with trio.open_nursery() as nursery:
        write = Run(partial(writer.write, b"de"))
        nursery.start_soon(write)
        # It yields within its first step, whichever task comes first.
        await trio.lowlevel.checkpoint()
        writer.poll_write(b"abc")
        await wait_all_tasks_blocked()
        assert writer.unsent_bytes == 3
        wire.give(math.inf)

    assert write.outcome == "returned 2"
    await writer.aclose()
    assert wire.sent == b"abcde"


async def test_write_all_to_a_writer_that_is_always_ready_lets_other_tasks_run() -> None:
    class OneByte(AsyncWrite):
        polls = 0

        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            self.polls += 1
            return 1

    writer = OneByte()
    seen = []

    async def look() -> None:
        while writer.polls < 1000:
            seen.append(writer.polls)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        for operation in (writer.write_all, writer.send_all):
            await operation(bytes(500))

    steps = [after - before for before, after in pairwise(seen)]
    assert max(steps) <= 3 * 16


async def test_an_endless_write_can_be_cancelled() -> None:
    class Greedy(AsyncWrite):
        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            scope.cancel()
            return 1

    buf = Buf(bytes(1000))
    with trio.CancelScope() as scope:
        await Greedy().write_all_buf(buf)

    assert scope.cancelled_caught
    assert 900 < buf.remaining < 1000


# ---- Two tasks at once ---------------------------------------------------------------------------


@each(CLAIMS, "first")
@each(CLAIMS, "second")
async def test_the_second_of_two_tasks_is_told_busy(first: Operation, second: Operation) -> None:
    """Nothing of it interleaves, and the first goes on unharmed."""
    writer, reader = full()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(first, writer))
        with pytest.raises(trio.BusyResourceError):
            await second(writer)

        received = bytearray()

        async def receive() -> None:
            received.extend(await drain(reader))

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await writer.aclose()

    assert run.outcome in ("returned None", "returned 3")
    assert received == (b"xabcdabc" if first in WRITES.values() else b"xabcd")


@each(BUDGETED)
async def test_a_small_write_does_not_get_past_another_task(operation: Operation) -> None:
    """Though the buffer has room for it, and the call would not have to wait."""
    pipe, reader = simplex(1)
    buffered = BufWriter(pipe, 16)
    pair = ReadWritePair(reader, buffered)
    await pair.write(b"abc")
    for writer in (buffered, pair):
        async with trio.open_nursery() as nursery:
            await begin(nursery, writer.flush)
            with pytest.raises(trio.BusyResourceError):
                await operation(writer)
            nursery.cancel_scope.cancel()
    with resource_warnings():
        await trio.aclose_forcefully(pair)


async def test_reading_and_writing_are_not_in_each_others_way() -> None:
    left, right = await unix_pair()
    async with left, right, trio.open_nursery() as nursery:
        run = await begin(nursery, left.receive_some)
        await left.write(b"ping")
        assert await right.receive_some() == b"ping"
        await right.write(b"pong")

    assert run.result == b"pong"


# ---- Ctrl-C --------------------------------------------------------------------------------------


@pytest.fixture
def _ctrl_c() -> Generator[None, None, None]:
    """Trio takes care of SIGINT only where Python's own handler is in place."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupted(Wire):
    """Ctrl-C is pressed in the middle of each of its polls."""

    def need_room(self, poll: str) -> None:
        super().need_room(poll)
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("_ctrl_c")
@pytest.mark.parametrize("room", [0, 100], ids=["transport", "buffer"])
@pytest.mark.parametrize("name", ["write_buf", "write_all_buf"])
def test_ctrl_c_does_not_separate_the_bytes_from_the_cursor(name: str, room: int) -> None:
    wire = Interrupted(room=2)
    wire.spare_capacity = room
    buf = Buf(b"abc", b"def")

    async def main() -> None:
        while True:
            await getattr(wire, name)(buf)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)

    assert wire.sent == b"ab"
    assert buf.remaining == 4


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_breaks_no_writer() -> None:
    """What was accepted can still be flushed, and the end is a proper one."""
    wire = Interrupted(math.inf)

    async def main() -> None:
        async with wire:
            assert await wire.write(b"abc") == 3
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)

    assert wire.sent == b"abc"
    assert wire.log == ["write", "flush", "release True"]


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_in_a_wait_loses_nothing() -> None:
    wire = Wire()
    buf = Buf(b"abc")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(press_when_blocked)
            await wire.write_all_buf(buf)

    async def press_when_blocked() -> None:
        await wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGINT)

    async def again() -> None:
        wire.give(3)
        await wire.write_all_buf(buf)

    with pytest.raises(BaseException) as caught:
        trio.run(main)
    assert "KeyboardInterrupt" in repr(caught.value)
    trio.run(again)

    assert wire.sent == b"abc"


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_does_not_cut_a_release_short() -> None:
    class Pressed(Wire):
        async def release(self, *, clean: bool) -> None:
            signal.raise_signal(signal.SIGINT)
            await super().release(clean=clean)

    wire = Pressed(room=1)

    async def main() -> None:
        await wire.aclose()
        await trio.lowlevel.checkpoint()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert wire.releases == ["release True"]


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_in_a_close_releases_and_warns() -> None:
    wire = Wire()
    wire.held = 9

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(press_when_blocked)
            await wire.aclose()

    async def press_when_blocked() -> None:
        await wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGINT)

    with resource_warnings() as messages, pytest.raises(BaseException) as caught:
        trio.run(main)

    assert "KeyboardInterrupt" in repr(caught.value)
    assert wire.releases == ["release False"]
    assert len(messages) == 1
    trio.run(wire.aclose)
