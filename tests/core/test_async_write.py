"""The trait and its await shell, row by row of the contract's tables."""

from __future__ import annotations

import gc
import math
import signal
import struct
import sys
import warnings
import weakref
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import hypothesis
import hypothesis.strategies as st
import pytest
import trio
import trio.abc
import trio.testing
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_asyncwrite import (
    AsyncReadWrite,
    AsyncWrite,
    Buf,
    BufWriter,
    NotReady,
    ReadWritePair,
    Sink,
    WriteZeroError,
)
from trio_asyncwrite._core._async_write import release_once
from trio_asyncwrite._transports._cursor import Cursor
from trio_asyncwrite._transports._duplex import simplex
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write

from .._streams import drain, reset, tcp_pair, unix_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence

    from trio_asyncwrite._core._budget import Budget

    Operation = Callable[[AsyncWrite], Awaitable[object]]


# ---- Hand-written writers, and ways to use them --------------------------------------------


class Wire(AsyncWrite):
    """An innermost writer as a user writes one; no ``__init__`` of ours is called.

    It takes as many bytes as it was given room for. Without room, nothing is ready.
    """

    def __init__(self, room: float = 0) -> None:
        self.room = room
        self.sent = bytearray()
        self.log: list[str] = []
        self.error: BaseException | None = None
        self.held = 0
        self.waiters = trio.lowlevel.ParkingLot()

    def give(self, room: float) -> None:
        """Make room, and wake who waits for it."""
        self.room += room
        self.waiters.unpark_all()

    def need_room(self, poll: str) -> None:
        self.log.append(poll)
        if self.error is not None:
            raise self.error
        if not self.room:
            raise NotReady(self.wait_for_room)

    async def wait_for_room(self) -> None:
        await self.waiters.park()

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.need_room("write")
        count = int(min(len(data), self.room))
        self.room -= count
        self.sent += data[:count]
        return count

    def poll_flush(self) -> None:
        self.need_room("flush")

    def poll_shutdown(self) -> None:
        self.need_room("shutdown")

    async def release(self, *, clean: bool) -> None:
        self.log.append(f"release {clean}")

    @property
    def unsent_bytes(self) -> int:
        return self.held

    @property
    def releases(self) -> list[str]:
        return [entry for entry in self.log if entry.startswith("release")]

    def __repr__(self) -> str:
        return "<Wire>"


class SlowlyReleased(Wire):
    """Its release goes on until it is let go."""

    def __init__(self, room: float = 0) -> None:
        super().__init__(room)
        self.let_go = trio.Event()

    async def release(self, *, clean: bool) -> None:
        self.log.append("begin")
        await self.let_go.wait()
        await super().release(clean=clean)


class BadlyReleased(Wire):
    """Its release fails."""

    async def release(self, *, clean: bool) -> None:
        await super().release(clean=clean)
        raise OSError("release")


class Upper(AsyncWrite):
    """A wrapper as a user writes one: it overrides one method."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return self.inner.poll_write(bytes(data).upper())


class Layer(AsyncWrite):
    """A wrapper that overrides nothing."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return "<Layer>"


class Script(AsyncWrite):
    """Answers each poll_write with what the script has next: a count, or an exception."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        answer = self.script.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]


SOME: dict[str, Operation] = {
    "write": lambda writer: writer.write(b"abc"),
    "write_buf": lambda writer: writer.write_buf(Buf(b"abc")),
    "write_vectored": lambda writer: writer.write_vectored([b"a", b"", b"bc"]),
}
ALL: dict[str, Operation] = {
    "write_all": lambda writer: writer.write_all(b"abc"),
    "write_all_buf": lambda writer: writer.write_all_buf(Buf(b"abc")),
    "write_all_vectored": lambda writer: writer.write_all_vectored([b"a", b"", b"bc"]),
    "write_struct": lambda writer: writer.write_struct("!BH", 0x61, 0x6263),
}
BUDGETED = {**SOME, **ALL}
WRITES: dict[str, Operation] = {
    **BUDGETED,
    "send_all": lambda writer: writer.send_all(b"abc"),
}
ENDS: dict[str, Operation] = {
    "flush": lambda writer: writer.flush(),
    "shutdown": lambda writer: writer.shutdown(),
}
WAITS: dict[str, Operation] = {
    "wait_send_all_might_not_block": lambda writer: writer.wait_send_all_might_not_block(),
}
#: All that one task at a time may do.
CLAIMS = {**WRITES, **ENDS, **WAITS}


def each(operations: dict[str, Any], name: str = "operation") -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, operations.values(), ids=operations.keys())


class Run:
    """A task that runs one operation, and what comes of it."""

    def __init__(self, operation: Callable[[], Awaitable[object]]) -> None:
        self.operation = operation
        self.scope = trio.CancelScope()
        self.result: object = "not finished"
        self.error: Exception | None = None

    async def __call__(self) -> None:
        with self.scope:
            try:
                self.result = await self.operation()
            except Exception as exc:  # noqa: BLE001 - the test looks at it
                self.error = exc

    @property
    def outcome(self) -> str:
        """In words; a test that compares it sees everything that came of the operation."""
        if self.scope.cancelled_caught:
            return "cancelled"
        return f"returned {self.result}" if self.error is None else type(self.error).__name__


async def begin(nursery: trio.Nursery, operation: Callable[[], Awaitable[object]]) -> Run:
    """Start an operation and return when it waits."""
    run = Run(operation)
    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    return run


async def run_cancelled(operation: Callable[[], Awaitable[object]]) -> Run:
    """Run an operation in a scope that is cancelled already."""
    run = Run(operation)
    run.scope.cancel()
    await run()
    return run


@contextmanager
def resource_warnings() -> Generator[list[str], None, None]:
    """The messages of the ResourceWarnings issued in the block, those of garbage included."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
        gc.collect()
    messages += [str(one.message) for one in caught if one.category is ResourceWarning]


def full() -> tuple[BufWriter[Any], trio.abc.ReceiveStream]:
    """A buffered writer in which everything waits until somebody reads ``xabcd``."""
    pipe, reader = simplex(1)
    pipe.poll_write(b"x")
    writer = BufWriter(pipe, 4)
    writer.poll_write(b"abc")
    writer.poll_write(b"d")
    return writer, reader


# ---- The trait -----------------------------------------------------------------------------


async def test_raw_polls_need_no_more_than_the_wait_of_not_ready() -> None:
    wire = Wire()
    counts = []

    async def write() -> None:
        data = b"abcdef"
        while data:
            try:
                counts.append(wire.poll_write(data))
                data = data[counts[-1] :]
            except NotReady as not_ready:
                await not_ready.wait()

    async with trio.open_nursery() as nursery:
        await begin(nursery, write)
        wire.give(4)
        await wait_all_tasks_blocked()
        wire.give(4)

    assert wire.sent == b"abcdef"
    assert counts == [4, 2]


def test_polls_are_plain_functions() -> None:
    """They work without a run."""
    wire = Wire(math.inf)
    layer = Layer(wire)

    assert layer.poll_write(b"abc") == 3
    layer.poll_flush()
    layer.poll_shutdown()
    layer.poll_shutdown()
    assert wire.log == ["write", "flush", "flush", "shutdown"]
    with pytest.raises(trio.ClosedResourceError):
        layer.poll_write(b"d")


async def test_a_wrapper_needs_to_override_one_method_only() -> None:
    wire = Wire(math.inf)
    async with Upper(wire) as writer:
        await writer.write_all(b"ab")
        await writer.write_all_vectored([b"", b"cd", b"ef"])
        await writer.flush()
        await writer.wait_send_all_might_not_block()
        wire.held = 7
        assert writer.unsent_bytes == 7
        wire.held = 0

    assert wire.sent == b"ABCDEF"
    assert wire.log == ["write"] * 3 + ["flush", "flush", "shutdown", "release True"]


def test_the_default_gathered_poll_takes_the_first_buffer_that_is_not_empty() -> None:
    wire = Wire(room=10)

    assert wire.poll_write_vectored([b"", b"ab", b"cd"]) == 2
    assert wire.poll_write_vectored([b"", b""]) == 0
    assert wire.poll_write_vectored([]) == 0
    assert wire.sent == b"ab"


async def test_a_class_with_neither_poll_write_nor_inner_is_told_so() -> None:
    class Empty(AsyncWrite):
        pass

    with pytest.raises(TypeError, match="Empty defines neither poll_write nor inner"):
        await Empty().write(b"a")
    async with Empty() as writer:
        await writer.flush()
        await writer.wait_send_all_might_not_block()
        assert writer.unsent_bytes == 0


def test_writers_are_trio_streams() -> None:
    assert isinstance(Wire(), trio.abc.SendStream)
    assert not isinstance(Wire(), trio.abc.HalfCloseableStream)
    assert issubclass(AsyncReadWrite, trio.abc.HalfCloseableStream)


async def test_send_eof_is_shutdown() -> None:
    class Duplex(Wire, AsyncReadWrite):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            raise NotImplementedError

    writer = Duplex(room=1)
    await writer.send_eof()

    assert writer.log == ["shutdown"]
    with pytest.raises(trio.ClosedResourceError):
        await writer.write(b"a")


@pytest.mark.parametrize("check", [trio.testing.check_one_way_stream, check_async_write])
async def test_a_hand_written_wrapper_passes_the_checks(
    check: Callable[..., Awaitable[None]], autojump_clock: trio.testing.MockClock
) -> None:
    """Trio's for streams, and ours for writers."""

    async def maker() -> tuple[AsyncWrite, trio.abc.ReceiveStream]:
        pipe, reader = simplex(64)
        return Layer(pipe), reader

    async def clogged_maker() -> tuple[AsyncWrite, trio.abc.ReceiveStream]:
        pipe, reader = simplex(8)
        pipe.poll_write(bytes(8))
        return Layer(pipe), reader

    await check(maker, clogged_maker)


# ---- The shell: what each method does ------------------------------------------------------


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
    wire._room = room  # as one of ours says what stays in its buffer
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


# ---- What the caller hands in --------------------------------------------------------------

TAKES_DATA: dict[str, Callable[[AsyncWrite, Any], Awaitable[object]]] = {
    "write": lambda writer, data: writer.write(data),
    "write_all": lambda writer, data: writer.write_all(data),
    "write_vectored": lambda writer, data: writer.write_vectored([data]),
    "write_all_vectored": lambda writer, data: writer.write_all_vectored([b"ok", data]),
    "send_all": lambda writer, data: writer.send_all(data),
}


@each(TAKES_DATA)
@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("text", TypeError),
        (None, TypeError),
        ([97, 98], TypeError),
        (7, TypeError),
        (memoryview(b"abcdef")[::2], BufferError),
    ],
    ids=["str", "None", "list", "int", "gaps"],
)
async def test_what_is_not_bytes_like_is_refused_at_once(
    operation: Callable[..., Awaitable[object]], data: Any, error: type[Exception]
) -> None:
    for wire in (Wire(math.inf), Wire()):
        for writer in (wire, BufWriter(wire)):
            with pytest.raises(error, match="bytes-like"), trio.testing.assert_no_checkpoints():
                await operation(writer, data)
            assert not wire.log
            with trio.CancelScope() as scope:  # nothing has happened to the writer
                scope.cancel()
                await writer.write_all(b"")
            assert writer.unsent_bytes == 0


async def test_write_buf_wants_a_buf() -> None:
    wire = Wire(math.inf)
    for operation in (wire.write_buf, wire.write_all_buf):
        with pytest.raises(TypeError, match="expected a Buf, got bytes"):
            await operation(b"abc")  # type: ignore[arg-type]

    assert not wire.log


@each(TAKES_DATA)
async def test_a_view_of_other_items_counts_as_its_bytes(
    operation: Callable[..., Awaitable[object]],
) -> None:
    wire = Wire(math.inf)
    for view in (
        memoryview(b"abcdef").cast("H"),
        memoryview(b"abcdef").cast("B", (2, 3)),
        memoryview(bytearray(b"abcdef")).toreadonly(),
    ):
        wire.sent.clear()
        await operation(wire, view)
        assert wire.sent.endswith(b"abcdef")


#: How a write may end that has taken some of its data, or none.
FATES: dict[str, tuple[int, BaseException | None]] = {
    "succeeds": (6, None),
    "is cancelled in the wait": (0, None),
    "is cancelled half-way": (2, None),
    "fails": (2, OSError("failed")),
}


@each(TAKES_DATA)
@each(FATES, "fate")
async def test_the_callers_buffer_is_free_after_each_call(
    operation: Callable[..., Awaitable[object]], fate: tuple[int, BaseException | None]
) -> None:
    """Also while the exception is alive, whose traceback keeps the frames of the call."""
    room, error = fate
    for layer in (Layer, BufWriter):
        wire = Wire(room)
        if error is not None:
            # The first poll takes what there is room for, the second one fails.
            wire.need_room = partial(fail_without_room, wire, error)  # type: ignore[method-assign]
        writer = layer(wire)
        data = bytearray(b"abcdef")
        run = Run(partial(operation, writer, data))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        data.append(0)
        data.clear()
        with resource_warnings():
            await trio.aclose_forcefully(writer)


def fail_without_room(wire: Wire, error: BaseException, poll: str) -> None:
    if not wire.room:
        raise error


@pytest.mark.parametrize("state", ["busy", "shut down", "other part is no bytes"])
async def test_the_callers_buffer_is_free_after_a_refused_call(state: str) -> None:
    wire = Wire(room=1)
    if state == "shut down":
        await wire.shutdown()
    data = bytearray(b"abcdef")
    async with trio.open_nursery() as nursery:
        if state == "busy":
            await begin(nursery, partial(wire.write_all, b"xy"))
        for operation in TAKES_DATA.values():
            run = Run(partial(operation, wire, data))
            if state.startswith("other"):
                run = Run(partial(wire.write_all_vectored, [bytearray(), data, "text"]))
            await run()
            assert run.error is not None
            data.append(0)
        nursery.cancel_scope.cancel()


async def test_a_poll_must_not_use_the_data_after_it_has_returned() -> None:
    class Keeper(Wire):
        kept: memoryview

        def poll_write(self, data: Any, /) -> int:
            self.kept = data
            return super().poll_write(data)

    wire = Keeper(math.inf)
    for operation in TAKES_DATA.values():
        await operation(wire, bytearray(b"abc"))
        with pytest.raises(ValueError, match="released"):
            bytes(wire.kept)


# ---- Cancellation: the three words, each proven by cancelling ------------------------------


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
    """The writer itself goes on undisturbed."""
    wire = Wire(room=2)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(operation, wire))
        run.scope.cancel()

    assert run.outcome == "cancelled"
    assert wire.sent in (b"a", b"ab")
    wire.give(math.inf)
    await wire.write_all(b"!")
    assert wire.sent in (b"a!", b"ab!")


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


# ---- Checkpoints ---------------------------------------------------------------------------


@each(CLAIMS)
async def test_what_touches_the_transport_is_a_full_checkpoint(operation: Operation) -> None:
    """A hand-written writer counts as one."""
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
    writer._budget.left = 0
    with assert_checkpoints():
        await operation(writer)
    assert writer._budget.left == 127
    await writer.aclose()


async def test_a_buffer_may_fill_up_while_the_call_yields(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call then waits as if the buffer had been full before."""
    wire = Wire()
    writer = BufWriter(wire, 4)

    async def spend(budget: Budget) -> Budget:
        writer.poll_write(b"abc")
        return budget

    monkeypatch.setattr("trio_asyncwrite._core._async_write.spend", spend)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(writer.write, b"de"))
        assert writer.unsent_bytes == 3
        wire.give(math.inf)

    assert run.outcome == "returned 2"
    await writer.aclose()
    assert wire.sent == b"abcde"


async def test_a_writer_may_be_closed_while_the_call_yields(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = Wire(math.inf)
    writer = BufWriter(wire, 4)

    async def spend(budget: Budget) -> Budget:
        await writer.aclose()
        return budget

    monkeypatch.setattr("trio_asyncwrite._core._async_write.spend", spend)
    for operation in (writer.write, writer.write_all):
        with pytest.raises(trio.ClosedResourceError):
            await operation(b"de")

    assert not wire.sent


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


# ---- Two tasks at once ---------------------------------------------------------------------


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


# ---- Closing: one task ---------------------------------------------------------------------


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


async def test_aclose_in_a_cancelled_scope_still_polls_the_shutdown() -> None:
    """Whatever can go out at once does, and the end is then a proper one."""
    for room, clean in ((1, True), (0, False)):
        wire = Wire(room)
        run = await run_cancelled(wire.aclose)

        assert run.outcome == "cancelled"
        assert wire.log == ["shutdown", f"release {clean}"]


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
    assert messages == [f"{text} was closed by a cancelled aclose: {lost}"]


async def test_of_bytes_that_an_error_has_told_of_a_cancelled_aclose_says_nothing() -> None:
    wire = Wire()
    writer = BufWriter(wire)
    await writer.write(b"abc")
    wire.error = OSError("write")
    with pytest.raises(OSError, match="write"):
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

    assert run.outcome == "cancelled"  # an aclose is always a checkpoint
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
    assert wire.releases == ["release False"]


async def test_a_release_is_shielded() -> None:
    wire = SlowlyReleased(room=1)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, wire.aclose)
        run.scope.cancel()
        await wait_all_tasks_blocked()
        assert run.outcome == "returned not finished"
        wire.let_go.set()

    assert run.outcome == "cancelled"
    assert wire.releases == ["release True"]


async def test_aclose_goes_through_every_layer() -> None:
    wire = Wire(math.inf)
    async with Layer(Upper(BufWriter(wire))) as writer:
        await writer.write(b"abc")

    assert wire.sent == b"ABC"
    assert wire.releases == ["release True"]
    with pytest.raises(trio.ClosedResourceError):
        await wire.write(b"d")


# ---- Closing: several tasks ----------------------------------------------------------------


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
    assert wire.log == ["shutdown", "begin", "release False"]


async def test_who_waits_for_a_close_learns_that_it_was_cancelled() -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        first = await begin(nursery, wire.aclose)
        second = await begin(nursery, wire.aclose)
        first.scope.cancel()

    assert first.outcome == "cancelled"
    assert second.outcome == "ClosedResourceError"


async def test_who_waits_for_a_close_learns_that_it_failed() -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        first = await begin(nursery, wire.aclose)
        second = await begin(nursery, wire.aclose)
        wire.error = OSError("shutdown")
        wire.give(1)

    assert first.error is wire.error
    assert second.outcome == "ClosedResourceError"


async def test_who_waits_for_the_close_of_a_broken_writer_is_not_told_again() -> None:
    wire = Wire()
    wire.error = OSError("write")
    with pytest.raises(OSError, match="write"):
        await wire.write(b"a")
    wire.error = None
    async with trio.open_nursery() as nursery:
        runs = [await begin(nursery, wire.aclose) for _ in range(2)]
        assert not wire.releases
        wire.give(1)

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
        assert wire.log == ["shutdown", "begin"]
        assert first.outcome == second.outcome == "returned not finished"
        wire.let_go.set()

    assert first.outcome == "ClosedResourceError"
    assert second.outcome == "cancelled"
    assert wire.releases == ["release False"]


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

    assert seen == {
        ("ClosedResourceError", "release False", 1),
        ("OSError", "release False", 0) if error else ("returned None", "release True", 0),
    }


async def test_a_failing_release_does_not_replace_the_cancellation_of_another_task() -> None:
    wire = BadlyReleased()
    async with trio.open_nursery() as nursery:
        first = await begin(nursery, wire.aclose)
        second = await run_cancelled(wire.aclose)

    assert first.outcome == "ClosedResourceError"
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
    assert wire.releases == ["release False"]


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
    assert wire.releases == ["release False"]


async def test_a_layer_may_call_the_release_of_its_writer_itself() -> None:
    class Plain(Wire):
        async def release(self, *, clean: bool) -> None:
            await super().release(clean=clean)
            await AsyncWrite.release(self, clean=clean)

    wire = Plain()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write, b"abc"))
        await wire.release(clean=False)
        wire.give(1)

    assert run.outcome == "ClosedResourceError"
    assert not wire.sent
    await wire.aclose()
    assert wire.releases == ["release False"]


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
            assert len(wire._waiting) == 1
            wire.give(1)
            await wait_all_tasks_blocked()

    assert wire._waiting == ()


# ---- Garbage -------------------------------------------------------------------------------


def test_a_collected_writer_warns_of_the_bytes_it_held() -> None:
    """Once, also through layers, which hold none themselves."""
    writer = Layer(BufWriter(Sink()))
    writer.poll_write(b"abcde")
    text = repr(writer.inner)
    with resource_warnings() as messages:
        del writer

    assert messages == [
        f"{text} was garbage-collected: 5 bytes that it had accepted were never sent"
    ]


async def test_a_collected_writer_that_holds_nothing_or_is_closed_does_not_warn() -> None:
    with resource_warnings() as messages:
        writer = BufWriter(Sink())
        writer.poll_write(b"abc")
        writer.poll_flush()
        writer = BufWriter(Sink())
        writer.poll_write(b"abc")
        await writer.aclose()
        del writer

    assert not messages


def test_a_writer_whose_init_has_failed_is_collected_silently() -> None:
    with resource_warnings() as messages, pytest.raises(ValueError, match="capacity"):
        BufWriter(Sink(), 0)

    assert not messages


async def test_bytes_that_a_layer_below_holds_are_its_own_to_warn_of() -> None:
    with resource_warnings() as messages:
        below = BufWriter(Sink())
        layer = BufWriter(below)
        await layer.write(b"abc")
        await layer.flush()
        below.poll_write(b"de")
        await layer.write(b"f")
        del layer
        await below.aclose()

    assert len(messages) == 1
    assert ": 1 bytes" in messages[0]


async def noop(writer: AsyncWrite) -> None:
    pass


async def use(writer: AsyncWrite) -> None:
    await writer.write_all(b"abc")
    await writer.flush()
    await writer.shutdown()


async def fail(writer: AsyncWrite) -> None:
    writer.inner.error = OSError("failed")  # type: ignore[attr-defined]
    for expected in (OSError, trio.BrokenResourceError):
        run = Run(partial(writer.send_all, bytearray(b"abc")))
        await run()
        assert type(run.error) is expected
        run.error = writer.inner.error = None  # type: ignore[attr-defined]


async def fail_in_closing(writer: AsyncWrite) -> None:
    writer.inner.error = OSError("failed")  # type: ignore[attr-defined]
    run = Run(writer.aclose)
    await run()
    assert type(run.error) is OSError
    run.error = writer.inner.error = None  # type: ignore[attr-defined]


async def cancel_and_cut_short(writer: AsyncWrite) -> None:
    writer.inner.room = 0  # type: ignore[attr-defined]
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(writer.send_all, b"abc"))
        run.scope.cancel()
        await wait_all_tasks_blocked()
        run = await begin(nursery, partial(writer.send_all, b"abc"))
        closing = await begin(nursery, writer.aclose)
        await run_cancelled(writer.aclose)
    assert run.outcome == closing.outcome == "ClosedResourceError"
    run.error = closing.error = None


@each({f.__name__: f for f in (noop, use, fail, fail_in_closing, cancel_and_cut_short)})
async def test_nothing_refers_to_a_closed_writer(operation: Operation) -> None:
    """It goes with its last reference, without the help of the garbage collector."""
    for layer in (Layer, BufWriter):
        gc.collect()
        gc.disable()
        try:
            writer = layer(Wire(math.inf))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                await operation(writer)
                await writer.aclose()
            gone = weakref.ref(writer), weakref.ref(writer.inner)
            del writer
            assert [ref() for ref in gone] == [None, None]
        finally:
            gc.enable()


# ---- Failures ------------------------------------------------------------------------------


@each({**WRITES, **ENDS})
@pytest.mark.parametrize("moment", ["poll", "poll after a wait", "wait"])
async def test_a_failure_passes_unchanged_and_is_sticky(operation: Operation, moment: str) -> None:
    error = OSError("failed")

    class FailingWait(Wire):
        async def wait_for_room(self) -> None:
            await super().wait_for_room()
            if moment == "wait":
                raise error

    wire = FailingWait(room=moment == "poll")
    if moment == "poll":
        wire.error = error
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(operation, wire))
        if moment != "wait":
            wire.error = error
        wire.give(1)

    assert run.error is error
    wire.error = None
    wire.give(math.inf)
    log = list(wire.log)
    for later in CLAIMS.values():
        with pytest.raises(trio.BrokenResourceError) as broken:
            await later(wire)
        assert broken.value.__cause__ is error
    assert wire.log == log

    await wire.aclose()  # what the caller knows already is not raised again
    assert wire.releases == ["release False"]
    with pytest.raises(trio.ClosedResourceError):
        await wire.write(b"a")


@pytest.mark.parametrize("make", [Layer, BufWriter])
@pytest.mark.parametrize("failing", ["write", "flush", "shutdown"])
async def test_a_failure_below_makes_the_layer_a_broken_one(
    make: Callable[[AsyncWrite], AsyncWrite], failing: str
) -> None:
    """Also if it came from a raw poll."""

    class Failing(Wire):
        def need_room(self, poll: str) -> None:
            super().need_room(poll)
            if poll == failing:
                raise error

    def poll() -> None:
        if failing != "shutdown":
            writer.poll_write(b"abc")
            writer.poll_flush()
        writer.poll_shutdown()

    error = OSError("failed")
    wire = Failing(math.inf)
    writer = make(wire)
    with pytest.raises(OSError, match="failed") as first:
        poll()
    assert first.value is error
    log = list(wire.log)
    with pytest.raises(trio.BrokenResourceError) as later:
        poll()
    assert later.value.__cause__ is error
    with resource_warnings() as messages:
        await writer.aclose()
    assert wire.log == [*log, "release False"]
    assert not messages


async def test_a_layer_that_was_not_ready_is_not_broken() -> None:
    wire = Wire()
    layer = Layer(wire)
    for poll in (partial(layer.poll_write, b"abc"), layer.poll_flush):
        with pytest.raises(NotReady):
            poll()
    wire.give(math.inf)

    assert layer.poll_write(b"abc") == 3


async def test_the_cause_of_a_broken_resource_error_is_the_first_cause() -> None:
    cause = OSError("first")
    error = trio.BrokenResourceError("second")
    error.__cause__ = cause
    script = Script(error)
    with pytest.raises(trio.BrokenResourceError, match="second"):
        await script.write(b"a")
    with pytest.raises(trio.BrokenResourceError, match="has failed before") as later:
        await script.write(b"a")

    assert later.value.__cause__ is cause


@pytest.mark.parametrize("error", [trio.ClosedResourceError, trio.BusyResourceError])
async def test_misuse_is_no_failure(error: type[Exception]) -> None:
    script = Script(error("no"), 3)
    with pytest.raises(error):
        await script.write(b"abc")

    assert await script.write(b"abc") == 3


@pytest.mark.parametrize(
    "error", [ValueError("odd"), RecursionError(), SystemExit(3), StopIteration(), MemoryError()]
)
async def test_whatever_odd_a_poll_raises_passes_unchanged(error: BaseException) -> None:
    script = Script(error)
    expected: type[BaseException] = type(error)
    if isinstance(error, StopIteration):
        expected = RuntimeError  # what Python makes of it in any coroutine
    with pytest.raises(expected) as first:
        await script.write_all(b"a")
    with pytest.raises(trio.BrokenResourceError):
        await script.write_all(b"a")

    assert error in (first.value, first.value.__cause__)


@pytest.mark.parametrize("count", [0, 4, -1, None, "3"])
async def test_a_poll_that_lies_about_its_count_is_found_out(count: Any) -> None:
    """The cursor stays where it was."""
    error: type[Exception] = {0: WriteZeroError, None: TypeError, "3": TypeError}.get(
        count, RuntimeError
    )
    for name, operation in WRITES.items():
        with pytest.raises(error):
            await operation(Script(count))
        script, buf = Script(count), Buf(b"abc")
        with pytest.raises(error):
            await (script.write_all_buf if "all" in name else script.write_buf)(buf)
        assert buf.remaining == 3
        with pytest.raises(trio.BrokenResourceError):
            await script.write(b"a")


async def test_a_gathered_poll_must_not_claim_more_than_there_is() -> None:
    class Liar(AsyncWrite):
        def poll_write_vectored(self, buffers: Any, /) -> int:
            return 7

    buf = Buf(b"abc", b"def")
    with pytest.raises(RuntimeError, match="claims to have accepted 7 of 6 bytes"):
        await Liar().write_all_buf(buf)

    assert buf.remaining == 6


async def test_a_count_of_zero_is_right_for_empty_data_only() -> None:
    assert await Script(0).write(b"") == 0
    with pytest.raises(WriteZeroError, match="accepted 0 of 3 bytes"):
        await Script(0).write(b"abc")
    with pytest.raises(RuntimeError, match="1 of 0 bytes"):
        await Script(1).write(b"")


async def test_aclose_raises_the_failure_that_it_discovers_after_the_release() -> None:
    wire = Wire(room=1)
    wire.error = OSError("shutdown")
    with pytest.raises(OSError, match="shutdown"):
        await wire.aclose()

    assert wire.log == ["shutdown", "release False"]
    await wire.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await wire.write(b"a")


async def test_aclose_raises_the_failure_of_its_wait() -> None:
    class FailingWait(Wire):
        async def wait_for_room(self) -> None:
            await trio.lowlevel.checkpoint()
            raise OSError("wait")

    wire = FailingWait()
    with pytest.raises(OSError, match="wait"):
        await wire.aclose()

    assert wire.releases == ["release False"]


async def test_aclose_raises_the_failure_of_the_release() -> None:
    wire = BadlyReleased(room=1)
    with pytest.raises(OSError, match="release"):
        await wire.aclose()

    assert wire.releases == ["release True"]
    await wire.aclose()
    assert wire.releases == ["release True"]


async def test_the_failure_of_a_release_does_not_replace_that_of_the_shutdown() -> None:
    wire = BadlyReleased(room=1)
    wire.error = ValueError("shutdown")
    with pytest.raises(ValueError, match="shutdown"):
        await wire.aclose()

    assert wire.releases == ["release False"]


async def test_the_failure_of_a_release_is_part_of_one_that_the_caller_knows() -> None:
    wire = BadlyReleased(room=1)
    wire.error = OSError("write")
    with pytest.raises(OSError, match="write"):
        await wire.write(b"a")
    await wire.aclose()

    assert wire.releases == ["release False"]


async def test_leaving_the_block_raises_what_closing_raises() -> None:
    wire = Wire(room=1)
    wire.error = OSError("shutdown")
    with pytest.raises(OSError, match="shutdown"):
        async with wire:
            pass


async def test_what_the_block_raises_is_not_replaced_by_a_failure() -> None:
    wire = Wire(room=1)
    wire.error = OSError("shutdown")
    with pytest.raises(KeyError, match="primary"):
        async with wire:
            raise KeyError("primary")

    assert wire.releases == ["release False"]


async def test_what_the_block_raises_is_not_replaced_by_a_cancellation() -> None:
    """The scope would swallow the Cancelled, and the error with it."""
    wire = Wire()
    with pytest.raises(KeyError, match="primary"), trio.CancelScope() as scope:
        async with wire:
            scope.cancel()
            raise KeyError("primary")

    assert wire.releases == ["release False"]


async def test_a_block_that_is_cancelled_ends_cancelled() -> None:
    wire = Wire()
    wire.error = OSError("shutdown")
    with trio.CancelScope() as scope:
        async with wire:
            scope.cancel()
            await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert wire.releases == ["release False"]


async def test_a_full_cursor_can_be_rewound() -> None:
    """There, WriteZeroError is not sticky."""
    cursor = Cursor(bytearray(2), growable=False)
    buf = Buf(b"abcd")
    with pytest.raises(WriteZeroError):
        await cursor.write_all_buf(buf)
    cursor.position = 0
    await cursor.write_all_buf(buf)

    assert cursor.getvalue() == b"cd"


async def test_a_peer_that_resets_breaks_the_writer_and_frees_the_buffer() -> None:
    """The same over a real connection."""
    for make in (Layer, BufWriter):
        left, right = await tcp_pair()
        writer: AsyncWrite = make(left)
        data = bytearray(1 << 20)
        async with trio.open_nursery() as nursery:
            run = await begin(nursery, partial(writer.send_all, data))
            reset(right)
        assert run.outcome == "BrokenResourceError"
        data.append(0)
        with pytest.raises(trio.BrokenResourceError) as broken:
            await writer.write(b"a")
        assert isinstance(broken.value.__cause__, OSError)
        with resource_warnings() as messages:
            await writer.aclose()
        assert not messages


# ---- Ctrl-C --------------------------------------------------------------------------------


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
    wire._room = room  # as if it were one of ours that says what stays in its buffer
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
    assert wire.log == ["write", "shutdown", "release True"]


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

    for release in (AsyncWrite.aclose, partial(release_once, clean=True)):
        wire = Pressed(room=1)

        async def main(
            release: Callable[[AsyncWrite], Awaitable[None]] = release, wire: AsyncWrite = wire
        ) -> None:
            await release(wire)
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


# ---- Borrowed handles ----------------------------------------------------------------------


@pytest.mark.parametrize("end", ["shutdown", "aclose", "block"])
async def test_the_end_of_a_handle_flushes_and_leaves_the_original_open(end: str) -> None:
    wire = Wire(math.inf)
    writer = BufWriter(wire)
    handle = writer.by_ref()
    assert await handle.write(b"abc") == 3
    assert handle.unsent_bytes == 3
    if end == "block":
        async with handle:
            pass
    else:
        await getattr(handle, end)()
        await getattr(handle, end)()

    assert wire.sent == b"abc"
    assert wire.log == ["write", "flush"]
    for refused in WRITES.values():
        with pytest.raises(trio.ClosedResourceError):
            await refused(handle)
    await writer.write_all(b"def")
    await writer.aclose()
    assert wire.sent == b"abcdef"
    assert wire.releases == ["release True"]


async def test_a_handle_gathers_and_says_what_it_is_of() -> None:
    wire = Wire(math.inf)
    handle = BufWriter(wire).by_ref()
    await handle.write_all_vectored([b"ab", b"cd"])

    assert wire.sent == b""
    assert handle.unsent_bytes == 4
    assert repr(handle) == "<ByRef of <BufWriter of 65536 bytes over <Wire>>>"
    await handle.inner.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await handle.write(b"e")


async def test_a_handle_of_a_handle_is_a_handle() -> None:
    wire = Wire(math.inf)
    async with wire.by_ref() as outer:
        async with outer.by_ref() as inner:
            await inner.write(b"a")
        await outer.write(b"b")
    await wire.write(b"c")

    assert wire.sent == b"abc"


async def test_a_handle_costs_no_checkpoint_where_the_original_costs_none() -> None:
    writer = BufWriter(Sink())
    handle = writer.by_ref()
    await handle.write(b"a")
    with trio.testing.assert_no_checkpoints():
        await handle.write(b"b")
    await writer.aclose()


@each(CLAIMS)
async def test_a_task_inside_the_handle_is_inside_the_original(operation: Operation) -> None:
    """Two messages do not interleave by way of a handle."""
    wire = Wire(room=2)
    handle = wire.by_ref()
    for first, second in ((wire, handle), (handle, wire), (handle, wire.by_ref())):
        async with trio.open_nursery() as nursery:
            run = await begin(nursery, partial(first.write_all, b"abc"))
            with pytest.raises(trio.BusyResourceError):
                await operation(second)
            wire.give(3)
        assert run.outcome == "returned None"

    assert wire.sent == b"abcabcabc"


async def test_closing_the_original_ends_the_wait_in_a_handle() -> None:
    wire = Wire()
    handle = wire.by_ref()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(handle.write, b"abc"))
        await run_cancelled(wire.aclose)

    assert run.outcome == "ClosedResourceError"
    assert not wire.sent


@each(WRITES)
async def test_a_handle_refuses_to_write_once_the_original_does(operation: Operation) -> None:
    """Though the polls of a hand-written original check nothing."""
    wire = Wire()
    handle = wire.by_ref()
    async with trio.open_nursery() as nursery:
        await begin(nursery, wire.aclose)
        with pytest.raises(trio.ClosedResourceError):
            await operation(handle)
        wire.give(1)
    with pytest.raises(trio.ClosedResourceError):
        handle.poll_write(b"abc")

    assert not wire.sent


async def test_closing_a_handle_ends_its_own_wait_only() -> None:
    wire = Wire()
    handle, other = wire.by_ref(), wire.by_ref()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(handle.write, b"abc"))
        closing = await begin(nursery, handle.aclose)
        assert run.outcome == "ClosedResourceError"

        run = await begin(nursery, partial(wire.write, b"abc"))
        await run_cancelled(other.aclose)
        assert run.outcome == "returned not finished"
        wire.give(4)

    assert run.outcome == "returned 3"
    assert closing.outcome == "returned None"
    assert not wire.releases


async def test_a_handle_that_is_closed_by_force_loses_nothing() -> None:
    wire = Wire()
    writer = BufWriter(wire)
    handle = writer.by_ref()
    await handle.write(b"abc")
    with resource_warnings() as messages:
        assert (await run_cancelled(handle.aclose)).outcome == "cancelled"
        del handle
    wire.give(math.inf)
    await writer.aclose()

    assert not messages
    assert wire.sent == b"abc"


async def test_a_failure_in_a_handle_is_the_originals() -> None:
    wire = Wire(room=1)
    handle = wire.by_ref()
    wire.error = error = OSError("failed")
    with pytest.raises(OSError, match="failed"):
        await handle.write(b"a")
    for writer in (handle, wire):
        with pytest.raises(trio.BrokenResourceError) as broken:
            await writer.write(b"a")
        assert broken.value.__cause__ is error

    await handle.aclose()
    assert not wire.releases
    await wire.aclose()
    assert wire.releases == ["release False"]


async def test_what_is_no_failure_of_the_original_is_none_of_the_handle() -> None:
    cursor = Cursor(bytearray(2), growable=False)
    async with cursor.by_ref() as handle:
        with pytest.raises(WriteZeroError):
            await handle.write_all(b"abc")
        cursor.position = 0
        await handle.write_all(b"de")

    assert cursor.getvalue() == b"de"


# ---- For the library's own layers ----------------------------------------------------------


async def test_release_once_is_once() -> None:
    wire = Wire()
    await release_once(wire, clean=True)
    await release_once(wire, clean=False)
    await wire.aclose()

    assert wire.log == ["release True"]


async def test_a_pair_releases_its_writer_through_all_layers() -> None:
    wire = Wire(math.inf)
    _, reader = simplex(1)
    async with ReadWritePair(reader, Layer(wire)) as pair:
        await pair.write(b"abc")

    assert wire.log == ["write", "flush", "flush", "shutdown", "release True"]


@pytest.mark.parametrize("name", ["_wait", "_close", "_busy"])
def test_a_writer_that_would_override_the_shell_is_told(name: str) -> None:
    """A hand-written ``_wait`` is the obvious name for what NotReady carries."""
    with pytest.raises(TypeError, match=f"Clashing overrides what belongs to AsyncWrite: {name}"):
        type("Clashing", (AsyncWrite,), {name: None})
