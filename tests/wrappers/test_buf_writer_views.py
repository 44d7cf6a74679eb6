from __future__ import annotations

import itertools
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from trio_asyncwrite import AsyncWrite, Buf, BufWriter, LineWriter, NotReady, WriteZeroError
from trio_asyncwrite._core._errors import BusyRefusal

from .._patience import wait_all_tasks_blocked
from .._streams import (
    assert_leaves_no_cycle,
    clog,
    connected,
    unix_pair,
)
from ._buffered import (
    Inner,
    assert_refuses,
    check_room,
    never,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


# ---- Views -----------------------------------------------------------------------------------


class Keeper(Inner):
    """One that breaks the contract: it keeps what it was lent."""

    def __init__(self, most: int, keep: Callable[[Any], object]) -> None:
        super().__init__(most)
        self.keep = keep
        self.kept: list[object] = []

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        self.kept.append([self.keep(data) for data in buffers])
        return super().poll_write_vectored(buffers)


@pytest.mark.parametrize("most", [2, 3, 6, 20])
@pytest.mark.parametrize("keep", [lambda data: data[:], memoryview, pickle.PickleBuffer])
async def test_what_an_inner_writer_keeps_locks_nothing(
    keep: Callable[[Any], object], most: int
) -> None:
    """It must not keep it. But all that was accepted goes, once, and nothing else does."""
    inner = Keeper(most, keep)
    inner.ready = itertools.cycle([True, False, False])
    writer = BufWriter(inner, 8)
    for data in (b"abcdefg", b"h", bytearray(b"ij"), b"klm"):
        await writer.write_all(data)
        check_room(writer)
    await writer.flush()
    await writer.write_all(b"no")
    await writer.aclose()

    assert inner.taken == b"abcdefghijklmno"


@pytest.mark.parametrize("waiting", [b"", b"abcd"])
async def test_an_inner_writer_that_keeps_an_export_of_the_caller_s_breaks_the_buffer(
    waiting: bytes,
) -> None:
    """How much it took is forgotten on the way: it must not be sent again."""
    inner = Keeper(6, pickle.PickleBuffer)
    writer = BufWriter(inner, 8)
    writer.poll_write(waiting)
    with pytest.raises(BufferError):
        await writer.write(bytearray(8))

    taken = bytes(inner.taken)
    await assert_refuses(writer, trio.BrokenResourceError, flush=True)
    assert inner.taken == taken
    inner.kept.clear()
    await writer.aclose()


class Slicing(Inner):
    """One whose frames hold a slice of what it was lent, and are kept by its exceptions."""

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        slices = [memoryview(data)[:] for data in buffers]
        exports = [pickle.PickleBuffer(data) for data in slices]
        try:
            self.most //= next(self.ready)
        except ZeroDivisionError:
            raise NotReady(self.wait)  # noqa: B904 - the context is under test
        assert exports
        some = b"".join(slices)[: self.most]
        self.taken += some
        return len(some)


async def test_a_kept_not_ready_does_not_lock_the_buffer() -> None:
    inner = Slicing(3, iter([True, False, False, False, *[True] * 20]))
    writer = BufWriter(inner, 8)
    writer.poll_write(b"abcdefg")
    with pytest.raises(NotReady) as flushing:
        writer.poll_flush()
    assert writer.poll_write(b"hijk") == 4  # after it was moved to the front
    with pytest.raises(NotReady) as writing:
        writer.poll_write(b"l")
    with pytest.raises(NotReady) as gathering:
        writer.poll_write(bytes(8))
    check_room(writer)
    await writer.flush()

    assert inner.taken == b"abcdefghijk"
    assert flushing.value
    assert writing.value
    assert gathering.value
    await writer.aclose()


@pytest.mark.parametrize("size", [3, 8, 30])
async def test_the_callers_buffer_is_free_after_the_call(size: int) -> None:
    """Accepted or not, and whoever keeps the exception: it can be resized."""
    inner = Slicing(ready=never())
    writer = BufWriter(inner, 8)
    data = bytearray(size)
    writer.poll_write(b"abcdefg")
    with pytest.raises(NotReady) as writing:
        writer.poll_write(data)
    data.append(1)
    with pytest.raises(NotReady) as gathering:
        writer.poll_write_vectored([b"xx", data])
    data.append(2)
    with trio.move_on_after(0):
        await writer.write(data)
    data.append(3)
    with trio.move_on_after(0):
        await writer.write_all(data)
    data.append(4)
    with trio.move_on_after(0):
        await writer.send_all(data)
    data.append(5)
    with trio.move_on_after(0):
        await writer.write_all_vectored([b"xx", data])
    data.append(6)
    inner.ready = itertools.repeat(True)
    writer.poll_write_vectored([b"xx", data])
    data.append(7)
    await writer.write_all(data)
    data.append(8)
    await writer.aclose()

    assert writing.value
    assert gathering.value


async def test_no_cycle_is_left() -> None:
    """Of exceptions, their frames, and the writer: its memory is free when it is let go."""

    async def scenario() -> None:
        async with connected(unix_pair) as (stream, peer):
            writer = BufWriter(stream, 100)
            clog(writer)
            for data in (b"x", bytes(500)):
                with pytest.raises(NotReady):
                    writer.poll_write(data)
                with pytest.raises(NotReady):
                    writer.poll_write_vectored([data, data])
            with trio.move_on_after(0):
                await writer.flush()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.flush)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await peer.aclose()
            for _ in range(2):
                with pytest.raises(trio.BrokenResourceError):
                    await writer.send_all(b"x")
            with pytest.raises(trio.BrokenResourceError):
                writer.poll_write(b"x")
            await writer.aclose()

    await assert_leaves_no_cycle(scenario)


def test_the_callers_buffer_may_be_changed_once_it_is_accepted() -> None:
    inner = Inner()
    writer = BufWriter(inner, 16)
    data = bytearray(b"before")
    writer.poll_write(data)
    writer.poll_write_vectored([data])
    data[:] = b"after!"
    writer.poll_flush()

    assert inner.taken == b"beforebefore"


# ---- Any interleaving ------------------------------------------------------------------------


class Modelled(Inner):
    """One with a drawn mind, whose n-th wait is cancelled from here on."""

    def __init__(self, minds: list[tuple[bool, int]]) -> None:
        super().__init__()
        # It is ready at some time, or nothing would ever end.
        self.minds = itertools.cycle([*minds, (True, 3)])
        self.scope = trio.CancelScope()
        self.patience = 0

    def require_ready(self) -> None:
        ready, self.most = next(self.minds)
        if not ready:
            raise NotReady(self.wait)

    async def wait(self) -> None:
        self.patience -= 1
        if not self.patience:
            self.scope.cancel()
        await trio.lowlevel.checkpoint()


pieces = st.integers(0, 20)
operations = st.one_of(
    st.tuples(st.sampled_from(["poll_write", "write", "write_buf", "write_all_buf"]), pieces),
    st.tuples(
        st.sampled_from(["poll_write_vectored", "write_vectored", "write_parts"]),
        st.lists(pieces, max_size=4),
    ),
    st.tuples(st.sampled_from(["poll_flush", "flush", "send_all", "poll_ready"]), st.just(0)),
)


class Model:
    """What a BufWriter must do, in its simplest form: one bytearray of what it accepted."""

    def __init__(self, writer: BufWriter[Modelled]) -> None:
        self.writer = writer
        self.accepted = bytearray()
        self.written = 0
        self.unfinished: Buf | None = None

    async def finish(self) -> None:
        """Write the rest of a Buf that was begun; until then, nothing else is accepted."""
        buf = self.unfinished
        if buf is not None:
            with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
                self.writer.poll_write(b"x")
            with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
                await self.writer.write_all_buf(Buf(b"x"))
            rest = b"".join(buf.chunks())
            await self.writer.write_all_buf(buf)
            self.accepted += rest
            self.written += len(rest)
            self.unfinished = None

    def fresh(self, size: int) -> bytes:
        """Bytes that tell where they belong."""
        self.written += size
        return bytes(n % 251 for n in range(self.written - size, self.written))

    async def run(self, operation: str, argument: Any, patience: int) -> None:
        writer, inner = self.writer, self.writer.inner
        inner.patience = 0
        if operation not in {"flush", "poll_flush"}:
            await self.finish()
        sizes = argument if isinstance(argument, list) else [argument]
        parts = [self.fresh(size) for size in sizes]
        data = b"".join(parts)
        buf = Buf(*parts)
        count: int | None = None
        inner.patience = patience
        with trio.CancelScope() as inner.scope:
            try:
                if operation == "poll_write":
                    count = writer.poll_write(data)
                elif operation == "poll_write_vectored":
                    count = writer.poll_write_vectored(parts)
                elif operation == "poll_flush":
                    writer.poll_flush()
                    assert not writer.unsent_bytes
                elif operation == "poll_ready":
                    writer.poll_ready()
                elif operation == "write":
                    count = await writer.write(data)
                elif operation == "write_vectored":
                    count = await writer.write_vectored(parts)
                elif operation == "write_buf":
                    count = await writer.write_buf(buf)
                elif operation in {"write_all_buf", "write_parts"}:
                    await writer.write_all_buf(buf)
                    assert not buf.remaining
                else:
                    await (writer.flush() if operation == "flush" else writer.send_all(b""))
                    assert not writer.unsent_bytes
            except NotReady:
                assert operation.startswith("poll_")
        if operation in {"write_buf", "write_all_buf", "write_parts"}:
            assert count in {None, len(data) - buf.remaining}
            count = len(data) - buf.remaining
            if operation != "write_buf" and count and buf.remaining:
                self.unfinished = buf
        if count is not None and 0 < len(data) < writer.capacity and "write" in operation:
            assert count in {0, len(data)}, "a message that fits was torn"
        self.accepted += data[: count or 0]
        self.written -= len(data) - (count or 0)

    def check(self) -> None:
        taken = self.writer.inner.taken
        check_room(self.writer)
        assert taken == self.accepted[: len(taken)]
        assert len(taken) + self.writer.unsent_bytes == len(self.accepted)


@pytest.mark.outer
@given(
    capacity=st.integers(1, 16),
    minds=st.lists(st.tuples(st.booleans(), st.integers(1, 24)), max_size=8),
    script=st.lists(st.tuples(operations, st.integers(0, 3)), max_size=25),
)
def test_any_interleaving_delivers_every_byte_once_and_in_order(
    capacity: int,
    minds: list[tuple[bool, int]],
    script: list[tuple[tuple[str, Any], int]],
) -> None:
    """Polls, awaits, gathered writes, flushes, cancelled anywhere, over any readiness."""

    async def main() -> None:
        writer = BufWriter(Modelled(minds), capacity)
        model = Model(writer)
        for (operation, argument), patience in script:
            await model.run(operation, argument, patience)
            model.check()
        writer.inner.patience = 0
        await model.finish()
        # A send_all that was cancelled would let the close not wait.
        await writer.flush()
        await writer.aclose()
        assert writer.inner.taken == model.accepted

    trio.run(main)


class Full(AsyncWrite):
    """Keeps a slice of what it is given in its frame, and is refused until ``open`` is set."""

    def __init__(self, refusal: Callable[[], Exception]) -> None:
        self.refusal = refusal
        self.open = False
        self.taken = bytearray()

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        part = data[:3]
        if not self.open:
            raise self.refusal()
        self.taken += part
        return len(part)


@pytest.mark.parametrize("make", [BufWriter, LineWriter])
@pytest.mark.parametrize(
    "refusal",
    [partial(WriteZeroError, "full", permanent=False), partial(BusyRefusal, "busy")],
    ids=["full", "busy"],
)
async def test_an_error_that_breaks_nothing_keeps_no_view_of_the_store(
    make: Callable[[AsyncWrite, int], AsyncWrite], refusal: Callable[[], Exception]
) -> None:
    """Not even while the caller handles it."""
    below = Full(refusal)
    writer = make(below, 16)
    await writer.write(b"abcdef")
    try:
        await writer.flush()
    except (WriteZeroError, trio.BusyResourceError):
        below.open = True
        await writer.write(b"gh")
        await writer.flush()
    assert below.taken == b"abcdefgh"
