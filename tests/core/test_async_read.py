"""The trait of readers."""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.abc
import trio.testing
from trio.testing import assert_checkpoints

from trio_asyncwrite import AsyncReadWrite, NotReady, ReadWritePair, duplex, wrap_stream
from trio_asyncwrite._core._async_read import AsyncRead, ForeignReader, poll_foreign_read

from .._patience import wait_all_tasks_blocked
from ._fakes import Run, Source as Fed, Wire, begin, run_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable


class Source(Fed):
    """One that can be fed wrong answers, and functions that give answers."""

    def __init__(self, *chunks: Any) -> None:
        super().__init__(*chunks)
        self.releases = 0

    def poll_read(self, size: int, /) -> bytes:
        if not self.chunks or isinstance(self.chunks[0], (bytes, bytearray, BaseException)):
            return super().poll_read(size)
        answer: Any = self.chunks.popleft()
        return answer() if callable(answer) else answer  # type: ignore[no-any-return]

    async def release(self, *, clean: bool) -> None:
        self.releases += 1


class Over(AsyncRead):
    """A reader over another one."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner


class Foreign(trio.abc.ReceiveStream):
    """Somebody else's reader."""

    def __init__(self, *chunks: bytes | Exception) -> None:
        self.chunks = deque(chunks)
        self.sizes: list[int | None] = []
        self.ready = trio.Event()
        self.ready.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self.sizes.append(max_bytes)
        await self.ready.wait()
        chunk = self.chunks.popleft() if self.chunks else b""
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class ForeignLayer(AsyncRead):
    """A class that overrides ``receive_some`` and not ``poll_read``."""

    def __init__(self, foreign: Foreign) -> None:
        self.foreign = foreign

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self.foreign.receive_some(max_bytes)


@pytest.mark.parametrize(
    "make",
    [lambda source: source, Over, lambda source: Over(Over(source))],
    ids=["alone", "below one", "below two"],
)
async def test_receive_some_gives_what_has_arrived_or_waits(
    make: Callable[[Source], AsyncRead],
) -> None:
    source = Source(b"abcdef")
    reader = make(source)
    with assert_checkpoints():
        assert await reader.receive_some(4) == b"abcd"
    assert await reader.receive_some() == b"ef"
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, reader.receive_some)
        assert run.outcome == "returned not finished"
        source.feed(b"gh")
    assert run.result == b"gh"


async def test_the_end_is_sticky() -> None:
    reader = Source(b"a", b"", b"never")
    assert [await reader.receive_some() for _ in range(3)] == [b"a", b"", b""]


@pytest.mark.parametrize("error", [OSError("failed"), ValueError("odd"), KeyboardInterrupt()])
async def test_a_failing_poll_breaks_reading(error: BaseException) -> None:
    reader = Source(error, b"more")
    expected = trio.BrokenResourceError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as first:
        await reader.receive_some()
    assert error in (first.value, first.value.__cause__)
    with pytest.raises(trio.BrokenResourceError, match="reading from <Source> has failed") as later:
        await reader.receive_some()
    assert later.value.__cause__ is error
    await reader.aclose()
    assert reader.releases == 1


@pytest.mark.parametrize("error", [OSError("gone"), KeyError("mistake")])
async def test_a_failing_poll_breaks_the_reader_that_has_failed_too(error: Exception) -> None:
    source = Source(error, b"more")
    over = Over(Over(source))
    with pytest.raises((trio.BrokenResourceError, KeyError)):
        await over.receive_some()
    for reader in (over, over.inner, source):
        with pytest.raises(trio.BrokenResourceError, match="has failed before"):
            await reader.receive_some()


async def test_the_cause_is_the_first_one_and_a_refusal_breaks_nothing() -> None:
    error = trio.BrokenResourceError("second")
    error.__cause__ = cause = OSError("first")
    reader = Source(error)
    with pytest.raises(trio.BrokenResourceError, match="second"):
        await reader.receive_some()
    with pytest.raises(trio.BrokenResourceError) as later:
        await reader.receive_some()
    assert later.value.__cause__ is cause

    other = Source()
    await other.aclose()
    reader = Source(lambda: other.lifecycle.refuse(other), b"more")
    with pytest.raises(trio.ClosedResourceError):
        await reader.receive_some()
    assert await reader.receive_some() == b"more"


async def test_a_failing_read_does_not_break_writing() -> None:
    class Duplex(Wire, AsyncReadWrite):
        def poll_read(self, size: int, /) -> bytes:
            raise OSError("failed")

    stream = Duplex(math.inf)
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    await stream.send_all(b"abc")
    await stream.aclose()
    assert stream.releases == ["release True"]


async def test_a_second_reader_is_busy_and_a_cancelled_one_has_taken_nothing() -> None:
    reader = Source()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, reader.receive_some)
        with pytest.raises(trio.BusyResourceError):
            await reader.receive_some()
        run.scope.cancel()
    assert (await run_cancelled(reader.receive_some)).outcome == "cancelled"
    reader.feed(b"abc")
    assert await reader.receive_some() == b"abc"


@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (-1, ValueError), ("7", TypeError), (1.5, TypeError)]
)
async def test_a_size_is_an_integer_of_at_least_1(size: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_bytes"):
        await Source(b"abc").receive_some(size)


async def coroutine() -> bytes:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (None, TypeError, "returned None"),
        ("abc", TypeError, "returned 'abc'"),
        (coroutine, TypeError, "a coroutine"),
        (lambda: b"abcdef", RuntimeError, "returned 6 bytes, more than 4"),
        (lambda: bytearray(5), RuntimeError, "returned 5 bytes, more than 4"),
    ],
    ids=["None", "str", "coroutine", "too many", "too many in another kind"],
)
async def test_a_wrong_answer_is_told_with_class_and_method(
    answer: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=rf"Source\.poll_read\(\).* {text}"):
        await Source(answer).receive_some(4)


async def test_another_kind_of_bytes_is_made_into_bytes() -> None:
    reader = Source(bytearray(b"abc"), lambda: memoryview(b"de"))
    for expected in (b"abc", b"de"):
        received = await reader.receive_some()
        assert type(received) is bytes
        assert received == expected


def test_reading_into_a_buffer_is_the_same_poll() -> None:
    reader = Source(b"abcdef", b"")
    buffer = bytearray(4)
    assert reader.poll_read_into(buffer) == 4
    assert reader.poll_read_into(memoryview(buffer)[1:]) == 2
    assert buffer == b"aefd"
    assert reader.poll_read_into(buffer) == 0


@pytest.mark.parametrize(
    "buffer",
    ["text", None, [0], b"read-only", bytearray(), memoryview(bytearray(4))[::2]],
    ids=["text", "None", "list", "read-only", "empty", "gaps"],
)
def test_a_wrong_buffer_to_read_into_costs_no_bytes(buffer: Any) -> None:
    reader = Source(b"abcd")
    with pytest.raises((TypeError, ValueError, BufferError)):
        reader.poll_read_into(buffer)
    assert reader.poll_read(4) == b"abcd"


@pytest.mark.parametrize("size", ["4", None, 0, -1])
@pytest.mark.parametrize("foreign", [False, True])
async def test_a_wrong_size_breaks_no_reader_below(size: Any, *, foreign: bool) -> None:
    below, other = duplex(10)
    pair = ReadWritePair(trio.StapledStream(below, below) if foreign else below, below)
    await other.send_all(b"abcd")
    if foreign:
        assert await pair.receive_some(1) == b"a"
    with pytest.raises((TypeError, ValueError)):
        pair.poll_read(size)
    assert await pair.receive_some() == (b"bcd" if foreign else b"abcd")
    await pair.aclose()
    await other.aclose()


async def test_a_class_with_neither_poll_read_nor_a_reading_inner_is_told_so() -> None:
    class Empty(AsyncRead):
        pass

    for reader in (Empty(), Over(Wire())):
        with pytest.raises(
            TypeError, match=r"must define poll_read\(\), or set self.inner to a stream"
        ):
            await reader.receive_some()


def test_what_to_drain_is_the_reader_itself() -> None:
    reader = Source()
    assert reader.drain_source() is reader


# ---- Closing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1])
async def test_a_close_evicts_a_reader_and_refuses_the_next(depth: int) -> None:
    source = Source()
    readers = [source, Over(source)]
    async with trio.open_nursery() as nursery:
        runs = [await begin(nursery, reader.receive_some) for reader in readers]
        await readers[depth].aclose()
    assert [run.outcome for run in runs] == ["ClosedResourceError"] * 2
    for reader in readers:
        with pytest.raises(trio.ClosedResourceError):
            await reader.receive_some()
    assert source.releases == 1


async def test_a_reader_that_was_woken_before_the_close_does_not_read_after_it() -> None:
    source = Source()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, source.receive_some)
        source.feed(b"abc")
        await run_cancelled(source.aclose)
    assert run.outcome == "ClosedResourceError"


async def test_the_closing_task_may_drain_a_reader_that_somebody_waited_in() -> None:
    class Drained(Over):
        async def release(self, *, clean: bool) -> None:
            received.append(await self.inner.receive_some())

    received: list[bytes] = []
    source = Source()
    reader = Drained(source)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, reader.receive_some)
        source.chunks.append(b"rest")
        await reader.aclose()
    assert run.outcome == "ClosedResourceError"
    assert received == [b"rest"]


# ---- Foreign readers -----------------------------------------------------------------------------


@pytest.mark.parametrize("layered", [False, True])
async def test_a_foreign_reader_is_polled_by_a_wait_that_keeps_what_came(layered: bool) -> None:
    foreign = Foreign(b"abcdef", b"")
    layer = ForeignLayer(foreign)
    poll = layer.poll_read if layered else partial(poll_foreign_read, Source(), foreign)
    with pytest.raises(NotReady) as not_ready:
        poll(4)
    await not_ready.value.wait()
    assert [poll(4), poll(4)] == [b"abcd", b"ef"]
    with pytest.raises(NotReady) as not_ready:
        poll(4)
    await not_ready.value.wait()
    assert [poll(4), poll(4)] == [b"", b""]
    assert foreign.sizes == [4, 4]


async def test_a_wait_that_was_cancelled_after_the_bytes_came_has_kept_them() -> None:
    foreign = Foreign(b"abc")
    foreign.ready = trio.Event()
    reader = Over(ForeignLayer(foreign))
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, reader.receive_some)
        foreign.ready.set()
        run.scope.cancel()
    assert run.outcome in ("cancelled", "returned b'abc'")
    if run.outcome == "cancelled":
        assert await reader.receive_some() == b"abc"


async def test_an_exception_of_a_foreign_reader_passes_and_the_next_call_asks_again() -> None:
    reader = Over(ForeignLayer(Foreign(trio.TooSlowError(), OSError("odd"), b"abc")))
    with pytest.raises(trio.TooSlowError):
        await reader.receive_some()
    with pytest.raises(OSError, match="odd"):
        await reader.receive_some()
    assert await reader.receive_some() == b"abc"


async def test_two_layers_over_a_foreign_reader_wait_for_one_receive() -> None:
    foreign = Foreign(b"abcd")
    foreign.ready = trio.Event()
    below = ForeignLayer(foreign)
    async with trio.open_nursery() as nursery:
        runs: list[Run] = [
            await begin(nursery, partial(Over(below).receive_some, 2)) for _ in range(2)
        ]
        assert foreign.sizes == [2]
        foreign.ready.set()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert b"".join(run.result for run in runs if isinstance(run.result, bytes)) == b"abcd"


async def test_a_foreign_stream_is_read_through_a_reader_of_ours() -> None:
    reader = Over(ForeignReader(Foreign(b"abcd")))
    assert await reader.receive_some(3) == b"abc"
    assert await reader.receive_some(3) == b"d"


async def test_a_bare_foreign_stream_may_be_inner_and_is_closed_with_the_layer() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    reader = Over(ours)
    assert reader.foreign_below == (ours,)
    await theirs.send_all(b"hello")
    assert await reader.receive_some(3) == b"hel"
    assert await reader.receive_some(3) == b"lo"
    await reader.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()


async def test_a_layer_over_the_writer_of_a_foreign_duplex_stream_reads_from_that() -> None:
    class Both(AsyncReadWrite):
        def __init__(self, stream: trio.abc.SendStream) -> None:
            self.inner = wrap_stream(stream)

    ours, theirs = trio.testing.memory_stream_pair()
    stream = Both(ours)
    await theirs.send_all(b"hello")
    assert await stream.receive_some(3) == b"hel"
    assert await stream.receive_some(3) == b"lo"
    await stream.send_all(b"abc")
    assert await theirs.receive_some() == b"abc"
    await theirs.aclose()
    assert await stream.receive_some() == b""
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()


async def test_a_layer_over_the_writer_of_a_stream_that_is_only_written_to_reads_nothing() -> None:
    class Both(AsyncReadWrite):
        def __init__(self, stream: trio.abc.SendStream) -> None:
            self.inner = wrap_stream(stream)

    with pytest.raises(TypeError, match=r"Both must define poll_read\(\)"):
        await Both(trio.testing.MemorySendStream()).receive_some()
