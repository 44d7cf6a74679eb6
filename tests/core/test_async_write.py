"""The trait, row by row of the contract's tables."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.abc
import trio.testing

from trio_asyncwrite import (
    AsyncRead,
    AsyncReadWrite,
    AsyncWrite,
    BufWriter,
    Cursor,
    NotReady,
    Sink,
    WriteZeroError,
    simplex,
)
from trio_asyncwrite._core._budget import current_budget
from trio_asyncwrite._core._waits import Line
from trio_asyncwrite.testing import check_async_write

from .._patience import wait_all_tasks_blocked
from ._fakes import (
    BUDGETED,
    CLAIMS,
    WRITES,
    Layer,
    Run,
    Upper,
    Wire,
    begin,
    each,
    resource_warnings,
    run_cancelled,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._fakes import Operation


# ---- The trait -----------------------------------------------------------------------------------


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

    with pytest.raises(
        TypeError, match=r"Empty must define poll_write\(\), or set self.inner to a writer"
    ):
        await Empty().write(b"a")
    async with Empty() as writer:
        await writer.flush()
        await writer.wait_send_all_might_not_block()
        assert writer.unsent_bytes == 0


class Hiding(AsyncWrite):
    def __init__(self, writer: AsyncWrite) -> None:
        self._out = writer

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return self._out.poll_write(data)


class HidingInSlot(AsyncWrite):
    __slots__ = ("__out", "unset")

    def __init__(self, writer: AsyncWrite) -> None:
        self.__out = writer

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return self.__out.poll_write(data)


class Flushing(Hiding):
    def poll_flush(self) -> None:
        super().poll_flush()
        self._out.poll_flush()


class Ending(Flushing):
    def poll_shutdown(self) -> None:
        super().poll_shutdown()
        self._out.poll_shutdown()


@pytest.mark.parametrize(
    ("cls", "attribute", "poll"),
    [
        (Hiding, "_out", "poll_flush"),
        (HidingInSlot, "_HidingInSlot__out", "poll_flush"),
        (Flushing, "_out", "poll_shutdown"),
    ],
)
async def test_a_wrapper_without_inner_is_told_which_poll_passes_nothing_on(
    cls: Callable[[AsyncWrite], AsyncWrite], attribute: str, poll: str
) -> None:
    for call in (AsyncWrite.shutdown, AsyncWrite.aclose):
        with pytest.raises(
            TypeError, match=rf"self\.{attribute}: name it self\.inner, .*, or define {poll}\(\)"
        ):
            await call(cls(Wire(math.inf)))


async def test_a_transport_may_know_the_layers_above_it() -> None:
    class Knowing(AsyncWrite):
        above: AsyncWrite | None = None

        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            return len(data)

    wire = Knowing()
    wire.above = Layer(Layer(wire))
    await wire.above.send_all(b"abc")
    await wire.above.aclose()


async def test_a_wrapper_that_defines_all_polls_may_name_its_writer_as_it_likes() -> None:
    wire = Wire(math.inf)
    writer = Ending(wire)
    await writer.send_all(b"abc")
    await writer.aclose()
    assert wire.log == ["write", "flush", "flush", "shutdown"]


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


# ---- What the caller hands in --------------------------------------------------------------------

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
            current_budget().left = 0
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


# ---- Borrowed handles ----------------------------------------------------------------------------


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
    with pytest.raises(trio.BrokenResourceError, match="failed"):
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
        await handle.write(b"abc")
        with pytest.raises(WriteZeroError):
            await handle.write(b"c")
        cursor.position = 0
        await handle.write_all(b"de")

    assert cursor.getvalue() == b"de"


# ---- What a writer says of itself ----------------------------------------------------------------


@each(BUDGETED)
async def test_a_users_writer_with_spare_capacity_skips_the_scheduler(
    operation: Operation,
) -> None:
    """It is an attribute that may change at any time."""

    class Roomy(AsyncWrite):
        spare_capacity = 8
        sent = b""

        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            self.lifecycle.check_write(self)
            self.sent += data
            self.spare_capacity -= len(data)
            return len(data)

    writer = Roomy()
    await writer.write(b"x")
    with trio.testing.assert_no_checkpoints():
        await operation(writer)
    before = current_budget().left
    writer.spare_capacity = 0
    await operation(writer)
    assert current_budget().left <= before - 8  # as if it had reached the transport
    await writer.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await operation(writer)


@pytest.mark.parametrize("error", [OSError("failed"), KeyboardInterrupt(), None])
@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc")], ids=["bytes", "bytearray"])
@pytest.mark.parametrize("whole", [False, True])
async def test_spare_capacity_that_is_not_true_is_forgiven_and_a_failure_is_not(
    error: BaseException | None, data: bytes, *, whole: bool
) -> None:
    wire = Wire(1)
    await wire.write(b"-")  # the first one is never the fastest
    wire.spare_capacity = 8
    wire.error = error
    write = wire.write_all if whole else wire.write
    if error is None:
        async with trio.open_nursery() as nursery:
            run = await begin(nursery, partial(write, data))
            wire.give(3)
        assert run.outcome == f"returned {None if whole else 3}"
        assert wire.sent == b"-abc"
        return
    with pytest.raises((trio.BrokenResourceError, KeyboardInterrupt)):
        await write(data)
    with pytest.raises(trio.BrokenResourceError) as later:
        await write(data)
    assert later.value.__cause__ is error


class Answers(AsyncWrite):
    """Promises to take what is short, and gives an answer of its own."""

    spare_capacity = 100

    def __init__(self, *answers: Any) -> None:
        self.answers = [*answers]
        self.sent = b""

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.lifecycle.check_write(self)
        count = self.answers.pop(0)
        if isinstance(count, BaseException):
            raise count
        if type(count) is int and count > 0:
            self.sent += bytes(data[:count])
        return count  # type: ignore[no-any-return]


async def test_a_part_is_not_taken_for_all_where_all_was_promised() -> None:
    writer = Answers(1, 2, 1, 3)
    await writer.write(b"-")
    assert await writer.write(b"abcd") == 2
    await writer.write_all(b"cdef")
    assert writer.sent == b"-abcdef"


@pytest.mark.parametrize("error", [OSError("failed"), KeyboardInterrupt()])
@pytest.mark.parametrize("whole", [False, True])
async def test_a_failure_where_all_was_promised_breaks_the_writer(
    error: BaseException, *, whole: bool
) -> None:
    writer = Answers(1, NotReady(trio.lowlevel.checkpoint), 3, error)
    write = writer.write_all if whole else writer.write
    await writer.write(b"-")
    await write(b"abc")
    assert writer.sent == b"-abc"
    with pytest.raises((trio.BrokenResourceError, KeyboardInterrupt)):
        await write(b"def")
    with pytest.raises(trio.BrokenResourceError) as later:
        await write(b"def")
    assert later.value.__cause__ is error


@pytest.mark.parametrize("answer", [None, -1, 5, 0])
@pytest.mark.parametrize("whole", [False, True])
async def test_a_wrong_answer_is_told_where_all_was_promised(answer: Any, *, whole: bool) -> None:
    writer = Answers(1, answer)
    await writer.write(b"-")
    write = writer.write_all if whole else writer.write
    with pytest.raises((TypeError, RuntimeError, WriteZeroError), match="Answers"):
        await write(b"abcd")
    with pytest.raises(trio.BrokenResourceError, match="has failed before"):
        await write(b"abcd")


async def test_parts_of_a_message_that_is_kept_whole_are_joined() -> None:
    class Keeping(Wire):
        keeps_messages = True

    wire = Keeping(math.inf)
    await wire.write_all_vectored([b"ab", b"", b"cd"])

    assert wire.sent == b"abcd"
    assert wire.log == ["write"]


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc"), "abc"], ids=type)
async def test_bytes_where_a_sequence_is_wanted_are_refused(data: Any) -> None:
    wire = Wire(math.inf)
    for operation in (wire.write_vectored, wire.write_all_vectored):
        with pytest.raises(TypeError, match=r"expected a sequence .* give \[data\]"):
            await operation(data)
    assert not wire.log


async def test_a_handle_is_shut_down_by_polls_as_well() -> None:
    wire = Wire()
    handle = wire.by_ref()
    with pytest.raises(NotReady):
        handle.poll_shutdown()
    wire.give(1)
    handle.poll_shutdown()
    handle.poll_shutdown()

    assert wire.log == ["flush", "flush"]


async def test_a_foreign_inner_is_told_at_a_write() -> None:
    layer = Layer(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"it is a object: use wrap_stream\(\)"):
        await layer.write(b"x")


# ---- Writers for many tasks ----------------------------------------------------------------------


class Many(Wire):
    """Several tasks may use it; their messages do not mix."""

    def __init__(self, room: float = 0) -> None:
        super().__init__(room)
        self.lifecycle.line = Line()
        self.lifecycle.update()


async def test_tasks_in_line_come_in_their_order() -> None:
    wire = Many(room=1)
    async with trio.open_nursery() as nursery:
        runs = [
            await begin(nursery, partial(wire.write_all, letter * 3))
            for letter in (b"a", b"b", b"c")
        ]
        runs[1].scope.cancel()
        await wait_all_tasks_blocked()
        wire.give(math.inf)

    assert wire.sent == b"aaaccc"
    assert [run.outcome for run in runs] == ["returned None", "cancelled", "returned None"]
    await wire.aclose()


async def test_a_small_write_waits_in_line_only_if_somebody_is_there() -> None:
    wire = Many(math.inf)
    wire.spare_capacity = 8
    data = bytearray(b"x")
    await wire.write(data)
    with trio.testing.assert_no_checkpoints():
        await wire.write(data)
    current_budget().left = 0
    with trio.testing.assert_checkpoints():
        await wire.write(data)
    await wire.aclose()


async def test_a_task_in_line_is_evicted_by_a_close() -> None:
    wire = Many()
    async with trio.open_nursery() as nursery:
        runs = [await begin(nursery, partial(wire.write_all, b"abc")) for _ in range(2)]
        await run_cancelled(wire.aclose)

    assert [run.outcome for run in runs] == ["ClosedResourceError"] * 2


async def test_a_wrapper_of_a_reader_is_told_what_its_inner_must_be() -> None:
    class Reader(AsyncRead):
        def poll_read(self, size: int, /) -> bytes:
            return b""

    class Wrapper(AsyncWrite):
        def __init__(self) -> None:
            self.inner = Reader()

    for name in ("flush", "shutdown", "wait_send_all_might_not_block"):
        with pytest.raises(TypeError, match="inner of Wrapper must be an AsyncWrite.* is a Reader"):
            await getattr(Wrapper(), name)()
