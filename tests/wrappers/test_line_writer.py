from __future__ import annotations

import random
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    CloseOutcome,
    Cursor,
    FilePart,
    LineWriter,
    NotReady,
    SharedWriter,
    close_gracefully,
    duplex,
    simplex,
)
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._streams import connected, drain, pipe_pair
from ..core._fakes import Script, Wire, begin, cut_short, resource_warnings, run_cancelled
from ._buffered import Inner

if TYPE_CHECKING:
    from pathlib import Path


async def discard(writer: AsyncWrite) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        await trio.aclose_forcefully(writer)


async def test_lines_go_and_the_tail_is_kept() -> None:
    inner = Inner()
    writer = LineWriter(inner)
    for data in (b"one", b" line\ntwo\nth", b"ree\n", b"", b"four", b"\n\n", b"rest"):
        await writer.write_all(data)
    assert inner.offers == [[b"one", b" line\ntwo\n"], [b"th", b"ree\n"], [b"four", b"\n\n"]]
    assert writer.held_bytes == writer.unsent_bytes == 4
    assert inner.flushes == 0
    await writer.flush()
    assert inner.offers[-1] == [b"rest"]
    assert inner.flushes == 1
    assert writer.held_bytes == 0
    assert repr(writer).startswith("<LineWriter of 65536 bytes over <")
    assert writer.capacity == 65536


async def test_a_gathered_write_is_one_message() -> None:
    inner = Inner()
    writer = LineWriter(inner)
    await writer.write_all_vectored([b"a", b"b\nc", b"", b"d"])
    await writer.write_all_vectored([b"", b""])
    await writer.wait_send_all_might_not_block()
    assert inner.offers == [[b"a", b"b\n"]]
    assert writer.held_bytes == 2
    await discard(writer)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8191, 20_000])
async def test_the_last_newline_is_found_however_far_it_is(size: int) -> None:
    cursor = Cursor()
    writer = LineWriter(cursor)
    await writer.write_all(bytearray(b"\n\n" + bytes(size)))
    assert (cursor.position, writer.held_bytes) == (2, size)
    await discard(writer)


# ---- More than fits ------------------------------------------------------------------------------


async def test_a_line_longer_than_the_capacity_goes_in_pieces() -> None:
    inner = Inner()
    writer = LineWriter(inner, 5)
    await writer.write_all(b"abc")
    await writer.write_all(b"def")
    assert (inner.offers, writer.held_bytes) == ([[b"abc"]], 3)
    await writer.write_all(b"ghijklm")
    assert (inner.offers[1:], writer.held_bytes) == ([[b"def"], [b"ghijklm"]], 0)
    await writer.write_all(b"x\nlong tail")
    assert inner.offers[3:] == [[b"x\n"], [b"long tail"]]
    await writer.write_all(b"12345")
    assert writer.held_bytes == 5
    await discard(writer)


async def test_a_capacity_of_one_is_a_capacity() -> None:
    cursor = Cursor()
    writer = LineWriter(cursor, 1)
    await writer.write_all(b"a")
    assert cursor.getvalue() == b""
    await writer.wait_send_all_might_not_block()
    assert cursor.getvalue() == b"a"
    await writer.write_all(b"b")
    await writer.write_all(b"\n")
    assert cursor.getvalue() == b"ab\n"


@pytest.mark.outer
@pytest.mark.parametrize("seed", range(30))
async def test_every_order_of_writes_arrives_in_order(seed: int) -> None:
    """Whatever the writer below takes at once, and whenever it is ready."""
    rng = random.Random(seed)
    ready = iter(lambda: rng.random() < 0.6, None)
    inner = Inner(rng.choice([1, 3, 10, 1000]), ready)
    writer = LineWriter(inner, rng.choice([1, 5, 20]))
    written = bytearray()
    for _ in range(100):
        data = bytes(rng.choices(b"ab\n", k=rng.choice([0, 1, 4, 15, 60])))
        size = len(data)
        kind = rng.randrange(4)
        if kind == 0:
            await writer.write_all(data)
        elif kind == 1:
            await writer.write_all_vectored([data[: size // 2], data[size // 2 :]])
        elif kind == 2:
            await writer.write_all_buf(Buf(data[: size // 3], data[size // 3 :]))
        else:
            data = data[: await writer.write(data)]
        written += data
        assert writer.held_bytes <= writer.capacity
        assert bytes(inner.taken) == written[: len(written) - writer.held_bytes]
        if kind < 3 and size <= writer.capacity and b"\n" in data:
            # Its lines are out when the call returns.
            assert b"\n" not in written[len(inner.taken) :]
    await writer.aclose()
    assert inner.taken == written


# ---- Not ready -----------------------------------------------------------------------------------


async def test_lines_that_cannot_go_are_not_accepted() -> None:
    wire = Wire(0)
    writer = LineWriter(wire)
    await writer.write_all(b"tail")
    for _ in range(2):
        with pytest.raises(NotReady):
            writer.poll_write(b"end\n")
    assert writer.held_bytes == 4
    assert writer.poll_write(b" more") == 5
    # A part of the tail goes, and nothing of the argument.
    wire.give(2)
    with pytest.raises(NotReady):
        writer.poll_write_vectored([b"end", b"\n"])
    assert (wire.sent, writer.held_bytes) == (b"ta", 7)
    await discard(writer)


async def test_a_complete_line_still_owed_goes_first() -> None:
    """Rust's PR 72808."""
    wire = Wire(3)
    writer = LineWriter(wire)
    assert await writer.write(b"line\ntail") == 9
    assert (wire.sent, writer.held_bytes) == (b"lin", 6)
    # Not even bytes without a newline are accepted before.
    for poll in (partial(writer.poll_write, b"x"), writer.poll_ready, writer.poll_flush):
        with pytest.raises(NotReady):
            poll()
    wire.give(100)
    assert await writer.write(b" next") == 5
    assert (wire.sent, writer.held_bytes) == (b"line\n", 9)
    await discard(writer)


async def test_an_empty_write_waits_for_nothing() -> None:
    writer = LineWriter(Wire(3))
    await writer.write(b"line\n")
    assert await writer.write(b"") == 0
    await discard(writer)


async def test_write_all_sees_its_lines_through(autojump_clock: trio.testing.MockClock) -> None:
    """Or the peer would wait for the rest of a line that nobody sends."""
    pipe, reader = simplex(3)
    writer = LineWriter(pipe)
    for operation in (
        partial(writer.write_all, b"question\n"),
        partial(writer.write_all_vectored, [b"quest", b"ion\n"]),
        partial(writer.write_all_buf, Buf(b"quest", b"ion\n")),
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(operation)
            received = bytearray()
            while b"\n" not in received:
                received += await reader.receive_some()
        assert received == b"question\n"


async def test_a_cancellation_never_cuts_a_line_in_two() -> None:
    wire = Wire(3)
    writer = LineWriter(wire)
    await cut_short(partial(writer.write_all, b"line\ntail"))
    assert writer.lifecycle.torn is None
    await cut_short(partial(writer.write_all, b"withdrawn\n"))
    buf = Buf(b"also\n")
    await cut_short(partial(writer.write_all_buf, buf))
    assert buf.remaining == 5
    wire.give(100)
    await writer.write_all_buf(buf)
    assert wire.sent == b"line\ntailalso\n"
    await discard(writer)


async def test_a_message_that_does_not_fit_can_be_torn() -> None:
    writer = LineWriter(Wire(3), 5)
    await cut_short(partial(writer.write_all, b"line\n" * 3))
    with pytest.raises(trio.BrokenResourceError, match="only 3 of the 15 bytes"):
        await writer.write_all(b"x")
    await discard(writer)


async def test_cancelled_anywhere_every_line_goes_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lines = [b"%d is a line\n" % number for number in range(5)]

    async def scenario(sweep: Sweep) -> None:
        pipe, reader = simplex(4)
        writer = LineWriter(pipe)
        received = bytearray()

        async def read() -> None:
            while chunk := await reader.receive_some(3):
                received.extend(chunk)

        done: list[bytes] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with sweep:
                for line in lines:
                    await writer.write_all(line)
                    done.append(line)
            await writer.send_all(b"end")
            await writer.aclose()
        assert bytes(received) in (
            b"".join(done) + b"end",
            b"".join(lines[: len(done) + 1]) + b"end",
        )

    assert await cancel_everywhere(scenario) > 8


async def test_tasks_share_it_line_by_line(autojump_clock: trio.testing.MockClock) -> None:
    pipe, reader = simplex(4)
    writer = SharedWriter(LineWriter(pipe))
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def write() -> None:
            async with trio.open_nursery() as tasks:
                for letter in (b"a", b"b", b"c"):
                    tasks.start_soon(writer.write_all, letter * 10 + b"\n")
            await writer.aclose()

        received = await drain(reader)
    assert sorted(received.splitlines()) == [b"a" * 10, b"b" * 10, b"c" * 10]


# ---- Failures ------------------------------------------------------------------------------------


async def test_there_is_no_error_after_accepting() -> None:
    """rust #37807, #32085: what was accepted is never part of an error; the next call raises it."""

    class FailsLater(Wire):
        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            if self.sent:
                self.error = OSError("gone")
            return super().poll_write(data)

    wire = FailsLater(3)
    writer = LineWriter(wire)
    assert await writer.write(b"line\ntail") == 9
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match="gone"):
            await writer.write(b"next\n")
    assert wire.sent == b"lin"
    assert writer.held_bytes == 6
    with resource_warnings():
        await writer.aclose()


async def test_an_error_before_accepting_keeps_the_cursor() -> None:
    wire = Wire(100)
    writer = LineWriter(wire)
    await writer.write_all(b"tail")
    wire.error = OSError("gone")
    buf = Buf(b"end\n")
    with pytest.raises(trio.BrokenResourceError, match="gone"):
        await writer.write_all_buf(buf)
    assert (buf.remaining, writer.held_bytes) == (4, 4)
    with resource_warnings():
        await writer.aclose()


@pytest.mark.parametrize("wrong", [None, True, 0, -1, 100])
async def test_a_wrong_answer_below_is_refused(wrong: Any) -> None:
    for tail in (b"", b"tail"):
        writer = LineWriter(Script(wrong))
        await writer.write_all(tail)
        with pytest.raises((TypeError, RuntimeError, trio.BrokenResourceError), match="Script"):
            await writer.write_all(b"end\n")
        with resource_warnings():
            await writer.aclose()


class Keeping(AsyncWrite):
    """Keeps a view, against the contract."""

    def __init__(self) -> None:
        self.kept: list[memoryview] = []

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.kept.append(memoryview(data))
        return len(data)


async def test_a_writer_below_that_keeps_a_view_breaks_this_one() -> None:
    """It cannot be told any more what has gone."""
    writer = LineWriter(Keeping())
    await writer.write_all(b"tail")
    with pytest.raises(BufferError):
        await writer.flush()
    with pytest.raises(trio.BrokenResourceError, match="has failed before"):
        await writer.write_all(b"x")
    with resource_warnings():
        await writer.aclose()


class Slicing(AsyncWrite):
    """Is not ready, with a view in its frame."""

    ready = False

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        view = memoryview(data)[1:]
        if not self.ready:
            raise NotReady(trio.lowlevel.checkpoint)
        return len(view) + 1


async def test_a_writer_below_that_is_not_ready_keeps_no_view() -> None:
    below = Slicing()
    writer = LineWriter(below)
    await writer.write_all(b"tail")
    try:
        writer.poll_flush()
    except NotReady as not_ready:
        kept = not_ready
    await writer.write_all(b" grows")
    del kept
    below.ready = True
    await writer.flush()


# ---- Ends ----------------------------------------------------------------------------------------


async def test_a_close_hands_on_the_tail() -> None:
    left, right = duplex(100)
    writer = LineWriter(left)
    await writer.write_all(b"line\ntail")
    report = None
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            assert await drain(right) == b"line\ntail"
            await right.aclose()

        report = await close_gracefully(writer)
    assert report.outcome is CloseOutcome.CLEAN
    assert report.unsent_bytes == 0


async def test_a_forgotten_tail_is_found_by_the_close_below() -> None:
    pipe, reader = simplex(100)
    await LineWriter(pipe).write_all(b"line\ntail")
    await pipe.aclose()
    assert await drain(reader) == b"line\ntail"


async def test_a_cut_off_close_tells_what_is_lost() -> None:
    writer = LineWriter(Wire(3))
    await cut_short(partial(writer.write_all, b"line\ntail"))
    with resource_warnings() as messages:
        assert (await run_cancelled(writer.aclose)).outcome == "cancelled"
    assert writer.unsent_bytes == 6
    assert len(messages) == 1
    assert "6 bytes" in messages[0]


async def test_a_close_evicts_who_waits_for_a_line() -> None:
    wire = Wire(3)
    writer = LineWriter(wire)
    async with trio.open_nursery() as nursery:
        waiting = await begin(nursery, partial(writer.write_all, b"line\n"))
        with resource_warnings():
            await run_cancelled(wire.aclose)
    assert waiting.outcome == "ClosedResourceError"


async def test_a_file_goes_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a line\n" * 30_000 + b"tail")
    async with connected(pipe_pair) as (pipe, other):
        writer = LineWriter(pipe)

        async def write() -> None:
            with path.open("rb") as file:
                await writer.write_all_file(FilePart(file))
            assert writer.held_bytes >= 4
            await writer.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            assert await drain(other) == path.read_bytes()


def test_polls_outside_of_any_run_work() -> None:
    cursor = Cursor()
    writer = LineWriter(cursor)
    assert writer.poll_write(b"a\nb") == 3
    writer.poll_shutdown()
    assert cursor.getvalue() == b"a\nb"


@pytest.mark.parametrize("capacity", [0, -1, 1.5, "many", None])
def test_what_is_no_capacity_is_refused(capacity: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="capacity must be an integer of at least 1"):
        LineWriter(Cursor(), capacity)


def test_what_is_no_stream_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a trio.abc.SendStream"):
        LineWriter("path")  # type: ignore[call-overload]
