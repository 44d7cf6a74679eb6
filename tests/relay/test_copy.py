"""One direction: each byte once, flushed at each stall, and whose fault a failure is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncRead,
    Buf,
    BufReader,
    BufWriter,
    Cursor,
    NotReady,
    SharedWriter,
    TimeoutWriter,
    copy,
    duplex,
    simplex,
)
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._patience import wait_all_tasks_blocked
from .._streams import assert_leaves_no_cycle, connected, drain, pipe_pair, tcp_pair, unix_pair
from .._tls_helpers import open_tls
from ..core._fakes import Source
from ._fakes import Both, Target

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TEXT = bytes(i % 251 for i in range(3000))


async def test_it_copies_until_the_end_and_leaves_both_open() -> None:
    source, target = Source(b"abc", b"de", b""), Target()
    assert await copy(source, target) == 5
    assert target.taken == b"abcde"
    assert target.log == ["flush 5"]
    assert (source.closed, target.closed) == (False, False)
    assert await copy(source, target) == 0


@pytest.mark.parametrize("ahead", [False, True])
async def test_it_flushes_when_the_source_stalls_and_not_in_between(*, ahead: bool) -> None:
    """tokio PR 4001, PR 8424; meow-rs #272."""
    source, target = Source(b"ab", b"cd"), Target()
    reader: Any = BufReader(source) if ahead else source
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, reader, target)
        await wait_all_tasks_blocked()
        assert target.log == ["flush 4"]
        source.feed(b"e")
        await wait_all_tasks_blocked()
        assert target.log == ["flush 4", "flush 5"]
        source.feed(b"f", b"")
    assert target.log == ["flush 4", "flush 5", "flush 6"]


async def test_a_foreign_source_stalls_at_every_read() -> None:
    sending, receiving = trio.testing.memory_stream_one_way_pair()
    target = Target()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, receiving, target)
        await sending.send_all(b"abc")
        await wait_all_tasks_blocked()
        assert target.log == ["flush 3"]
        await sending.aclose()
    assert target.taken == b"abc"


async def memory() -> Any:
    return simplex(100)


async def foreign() -> Any:
    return trio.testing.memory_stream_one_way_pair()


async def tls() -> Any:
    return await open_tls()


MAKERS: dict[str, Callable[[], Awaitable[Any]]] = {
    "memory": memory,
    "foreign": foreign,
    "pipe": pipe_pair,
    "TCP": tcp_pair,
    "TLS": tls,
}


@pytest.mark.parametrize("into", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("out_of", MAKERS.values(), ids=MAKERS)
async def test_it_copies_from_any_stream_to_any_other(out_of: Any, into: Any) -> None:
    sending, source = await out_of()
    target, receiving = await into()

    async def send() -> None:
        await sending.send_all(TEXT)
        await sending.aclose()

    async def copy_and_close() -> None:
        assert await copy(source, target) == len(TEXT)
        await target.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(copy_and_close)
        assert await drain(receiving) == TEXT
    await source.aclose()
    await receiving.aclose()


@pytest.mark.parametrize(
    "layer",
    [lambda s: BufWriter(s, 64), SharedWriter, lambda s: TimeoutWriter(s, idle=60)],
    ids=["BufWriter", "SharedWriter", "TimeoutWriter"],
)
async def test_it_writes_through_layers(layer: Any) -> None:
    below, reader = simplex(100)
    async with trio.open_nursery() as nursery:

        async def copy_and_close() -> None:
            writer = layer(below)
            assert await copy(Source(TEXT, b""), writer) == len(TEXT)
            await writer.aclose()

        nursery.start_soon(copy_and_close)
        assert await drain(reader) == TEXT
    await reader.aclose()


# ---- Failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [False, True])
async def test_a_failing_source_breaks_no_target_and_what_came_before_is_written(
    *, ahead: bool
) -> None:
    """tokio's poll_copy drops it."""
    target = Target()
    source = Source(b"abc", OSError("odd"))
    with pytest.raises(trio.BrokenResourceError, match="odd"):
        await copy(BufReader(source) if ahead else source, target)
    assert target.taken == b"abc"
    await target.send_all(b"d")
    await target.aclose()
    assert target.log[-2:] == ["shutdown", "closed"]


@pytest.mark.parametrize("room", [0, 2])
@pytest.mark.parametrize("ahead", [False, True])
async def test_a_failing_target_is_broken_and_a_source_that_reads_ahead_keeps_the_rest(
    room: int, *, ahead: bool
) -> None:
    source, target = Source(b"abc"), Target(room)
    reader = BufReader(source)

    class Failing(Target):
        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            if not self.room:
                raise OSError("odd")
            return super().poll_write(data)

    target = Failing(room)
    with pytest.raises(trio.BrokenResourceError, match="odd"):
        await copy(reader if ahead else source, target)
    with pytest.raises(trio.BrokenResourceError):
        await target.write(b"x")
    if ahead:
        assert reader.position == room
        assert await reader.receive_some() == b"abc"[room:]
    await trio.aclose_forcefully(target)


async def test_a_full_cursor_is_no_broken_writer() -> None:
    cursor = Cursor(bytearray(4), growable=False)
    reader = BufReader(Source(b"abcdef", b""))
    with pytest.raises(trio.BrokenResourceError):
        await copy(reader, cursor)
    assert reader.position == 4
    cursor.position = 0
    assert await copy(reader, cursor) == 2
    assert cursor.getvalue() == b"efcd"


# ---- Cancellation --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [lambda s: s, lambda s: BufWriter(s, 3), SharedWriter],
    ids=["bare", "BufWriter", "SharedWriter"],
)
async def test_over_a_reader_that_reads_ahead_it_is_resumable(layer: Any) -> None:
    async def scenario(sweep: Sweep) -> None:
        sending, below = simplex(5)
        target, receiving = simplex(4)
        reader, writer = BufReader(below, 7), layer(target)
        received = bytearray()

        async def send() -> None:
            await sending.send_all(TEXT[:24])
            await sending.aclose()

        async def receive() -> None:
            while chunk := await receiving.receive_some(3):
                received.extend(chunk)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive)
            with sweep:
                await copy(reader, writer)
            await copy(reader, writer)
            await writer.aclose()
        assert received == TEXT[:24]
        assert reader.position == 24
        await reader.aclose()
        await receiving.aclose()

    assert await cancel_everywhere(scenario) > 20


@pytest.mark.filterwarnings("ignore:.*was closed:ResourceWarning")
async def test_over_another_reader_a_cancellation_that_loses_bytes_tears_the_target() -> None:
    torn = []

    async def scenario(sweep: Sweep) -> None:
        source = Source(TEXT[:20], b"")
        target, receiving = simplex(4)
        received = bytearray()
        is_done = False

        async def receive() -> None:
            try:
                while chunk := await receiving.receive_some(3):
                    received.extend(chunk)
            except trio.BrokenResourceError:
                torn.append(len(received))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            with sweep:
                await copy(source, target)
                is_done = True
            await target.aclose()
        complete = TEXT[:20].startswith(received) and (len(received) == 20 or bool(torn))
        # Before anything was received, or after everything was written, nothing is lost.
        assert complete or not received
        assert not is_done or received == TEXT[:20]
        await receiving.aclose()

    assert await cancel_everywhere(scenario) > 8
    assert torn


@pytest.mark.parametrize("room", [0, 2])
async def test_what_it_loses_tears_the_target_also_if_nothing_of_it_was_accepted(
    room: int,
) -> None:
    source, target = Source(b"abcd"), Target(room)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, source, target)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    text = rf"copy\(\) was cut short with {4 - room} bytes received and not written"
    with pytest.raises(trio.BrokenResourceError, match=f"is torn: {text}"):
        await target.write(b"x")
    with pytest.warns(ResourceWarning, match=text):
        await target.aclose()
    assert target.log[-1] == "aborted"


async def test_cancelled_while_the_source_stalls_nothing_is_lost() -> None:
    source, target = Source(b"abc"), Target()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, source, target)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    source.feed(b"d", b"")
    assert await copy(source, target) == 1
    assert target.taken == b"abcd"


async def test_a_message_withdrawn_by_a_shared_writer_is_lost_and_it_goes_on() -> None:
    source, target = Source(b"abcd"), Target(0)
    shared = SharedWriter(target)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, source, shared)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    target.give(10)
    await shared.send_all(b"x")
    assert target.taken == b"x"


async def test_it_lets_other_tasks_run_and_sees_a_cancellation() -> None:
    class Endless(AsyncRead):
        def poll_read(self, size: int, /) -> bytes:
            return bytes(10)

    target = Target(1 << 30)
    with trio.move_on_after(0) as scope:
        await copy(Endless(), target)
    assert scope.cancelled_caught
    assert len(target.taken) <= 1280


# ---- Who may use what meanwhile ------------------------------------------------------------------


async def test_no_other_task_may_receive_and_a_close_ends_it() -> None:
    source, target = Source(), Target()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await copy(source, target)

        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await source.receive_some()
        with pytest.raises(trio.BusyResourceError):
            await copy(source, target)
        await source.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await copy(source, target)


async def test_a_task_inside_the_target_is_not_disturbed() -> None:
    target = Target(0)
    reader = BufReader(Source(b"abc"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(target.write_all, b"xy")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await copy(reader, target)
        target.give(10)
    assert target.taken == b"xy"
    assert reader.peek() == b"abc"


async def test_a_task_that_reads_ahead_meanwhile_gets_no_byte_twice() -> None:
    source, target = Source(b"abc"), Target(0)
    reader = BufReader(source)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, reader, target)
        await wait_all_tasks_blocked()
        assert await reader.receive_exactly(1) == b"a"
        target.give(10)
        source.feed(b"")
    assert target.taken == b"bc"


@pytest.mark.parametrize("wrong", ["text", None, 7, b"bytes"])
async def test_wrong_arguments_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"trio\.abc\.ReceiveStream"):
        await copy(wrong, Target())
    with pytest.raises(TypeError, match=r"trio\.abc\.SendStream"):
        await copy(Source(), wrong)


async def test_a_stream_may_be_echoed() -> None:
    left, right = duplex(4)
    async with trio.open_nursery() as nursery:

        async def echo() -> None:
            assert await copy(right, right) == 9
            await right.shutdown()

        nursery.start_soon(echo)

        async def ask() -> None:
            await left.send_all(b"some text")
            await left.send_eof()

        nursery.start_soon(ask)
        assert await drain(left) == b"some text"
    await left.aclose()
    await right.aclose()


async def test_it_leaves_no_cycle() -> None:
    async def scenario() -> None:
        async with connected(unix_pair) as (left, right):
            with trio.move_on_after(0.0):
                await copy(left, right)
            await right.send_all(TEXT)
            await right.aclose()
            assert await copy(left, Target()) == len(TEXT)

    await assert_leaves_no_cycle(scenario)


async def test_a_reader_that_answers_nonsense_is_told_so() -> None:
    class Wrong(Source):
        def poll_read_into(self, buffer: bytearray | memoryview, /) -> int:
            return len(buffer) + 1

    with pytest.raises(TypeError, match=r"Wrong\.poll_read_into\(\) must return a number from 0"):
        await copy(Wrong(b"abc"), Target())


async def test_a_reader_that_reads_into_a_buffer_ends_and_fails_as_any() -> None:
    class Into(Both):
        def poll_read_into(self, buffer: bytearray | memoryview, /) -> int:
            data = self.poll_read(len(buffer))
            memoryview(buffer)[: len(data)] = data
            return len(data)

    source, target = Into(b"abc", b"", b"never"), Target()
    assert await copy(source, target) == 3
    assert await copy(source, target) == 0
    for _ in range(2):
        source = Into(b"abc", OSError("odd"), b"never")
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="odd"):
                await copy(source, target)
    assert target.taken == b"abc" * 3
    with pytest.raises(NotReady):
        Into().poll_read_into(bytearray(1))


@pytest.mark.parametrize("ahead", [False, True])
async def test_a_target_that_refuses_is_not_harmed_and_nothing_is_received(*, ahead: bool) -> None:
    source, target = Source(b"abc", b""), Target(room=1)
    reader: Any = BufReader(source) if ahead else source
    async with trio.open_nursery() as nursery:
        nursery.start_soon(target.write_all, b"xyz")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await copy(reader, target)
        target.give(2)
    buf = Buf(b"uvw")
    target.give(1)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(target.write_all_buf, buf)
            await wait_all_tasks_blocked()
            scope.cancel()
    with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
        await copy(reader, target)
    target.give(100)
    await target.write_all_buf(buf)
    assert await copy(reader, target) == 3
    assert target.taken == b"xyzuvwabc"


async def test_a_target_that_refuses_later_is_not_harmed_either() -> None:
    source, target = Source(), Target(room=0)
    outcome: list[BaseException] = []

    async def copy_it() -> None:
        with pytest.raises(trio.BusyResourceError) as caught:
            await copy(source, target)
        outcome.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy_it)
        await wait_all_tasks_blocked()
        nursery.start_soon(target.write_all, b"xyz")
        await wait_all_tasks_blocked()
        source.feed(b"abc")
        await wait_all_tasks_blocked()
        assert outcome
        target.give(100)
    assert target.taken == b"xyz"
    await target.write_all(b"more")
