"""Layers as users write them, and ways to use them."""

from __future__ import annotations

import gc
import io
import warnings
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.abc

from trio_asyncwrite import AsyncRead, AsyncWrite, Buf, BufWriter, NotReady, simplex
from trio_asyncwrite._core._budget import current_budget

from .._patience import wait_all_tasks_blocked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    Operation = Callable[[AsyncWrite], Awaitable[object]]


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
        self.held = 0

    def poll_shutdown(self) -> None:
        self.need_room("shutdown")
        self.held = 0

    async def release(self, *, clean: bool) -> None:
        self.log.append(f"release {clean}")

    @property
    def held_bytes(self) -> int:
        return self.held

    @property
    def releases(self) -> list[str]:
        return [entry for entry in self.log if entry.startswith("release")]

    def __repr__(self) -> str:
        return "<Wire>"


class Source(AsyncRead):
    """A reader that gives out what it is fed, and notes what it was asked for."""

    def __init__(self, *chunks: bytes | BaseException) -> None:
        self.chunks = deque(chunks)
        self.sizes: list[int] = []
        self.news = trio.lowlevel.ParkingLot()

    def feed(self, *chunks: bytes | BaseException) -> None:
        self.chunks.extend(chunks)
        self.news.unpark_all()

    def poll_read(self, size: int, /) -> bytes:
        self.sizes.append(size)
        if not self.chunks:
            raise NotReady(self.news.park)
        chunk = self.chunks.popleft()
        if isinstance(chunk, BaseException):
            raise chunk
        if len(chunk) > size:
            self.chunks.appendleft(chunk[size:])
        return chunk[:size]

    def __repr__(self) -> str:
        return "<Source>"


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
        return self.inner.poll_write(bytes(data).upper())  # type: ignore[no-any-return]


class Layer(AsyncWrite):
    """A wrapper that overrides nothing."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return "<Layer>"


class Holding(AsyncWrite):
    """A buffer as a user writes one: it says how much it holds, and nothing else of it."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner
        self.store = bytearray()

    @property
    def held_bytes(self) -> int:
        return len(self.store)

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.store += data
        return len(data)

    def poll_flush(self) -> None:
        while self.store:
            del self.store[: self.inner.poll_write(bytes(self.store))]
        self.inner.poll_flush()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Encoding(Holding):
    """Writes other bytes than it accepts, and a full stop at its end."""

    encodes = True
    shows_truncation = True
    ended = False

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        # One letter at a time, so that it can be cut short in the middle of a message.
        self.poll_rest()
        return super().poll_write(bytes(data[:1]).upper())

    def poll_rest(self) -> None:
        while self.store:
            del self.store[: self.inner.poll_write(bytes(self.store))]

    def poll_shutdown(self) -> None:
        if not self.ended:
            self.store += b"."
            self.ended = True
        self.poll_flush()
        self.inner.poll_shutdown()


class Once(AsyncWrite):
    """Passes on a byte, and then nothing."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner
        self.has_room = True

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.lifecycle.check_write(self)
        if not self.has_room:
            raise NotReady(trio.sleep_forever)
        self.has_room = False
        return self.inner.poll_write(data[:1])  # type: ignore[no-any-return]


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
#: Those whose argument is a message, which must not be cut short.
MESSAGES = {
    name: WRITES[name] for name in ("write_all", "write_all_vectored", "write_struct", "send_all")
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

GAPS = memoryview(b"abcd")[::2]

#: Arguments that are refused, by what is wanted in their place; and who wants it.
WRONG: dict[str, list[Any]] = {
    "data": ["text", "", None, 7, [1, 2], [b"abc"], GAPS],
    "buffers": [b"abc", bytearray(b"abc"), "text", None, 7, [1, 2], ["text"], [""], [None], [GAPS]],
    "buf": [b"abc", "text", None, [b"abc"]],
    "part": [b"abc", "text", None, 7, Buf(b"abc")],
    "file": [b"abc", "text", None, True, io.BytesIO(b"abc")],
    "format": [None, 7, "no format"],
}
TAKES = {
    "data": ("write", "write_all", "send_all", "poll_write"),
    "buffers": ("write_vectored", "write_all_vectored", "poll_write_vectored"),
    "buf": ("write_buf", "write_all_buf"),
    "part": ("write_all_file",),
    "file": ("send_file",),
    "format": ("write_struct",),
}


def each(operations: dict[str, Any], name: str = "operation") -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, operations.values(), ids=operations.keys())


def refuse_all(writer: AsyncWrite) -> None:
    """Poll by hand, with everything that is wrong."""
    for poll, wrongs in (
        (writer.poll_write, WRONG["data"]),
        (writer.poll_write_vectored, WRONG["buffers"]),
    ):
        for wrong in wrongs:
            with pytest.raises((TypeError, BufferError)):
                poll(wrong)


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
    """Run an operation in a scope that is cancelled already; the budget lets it look."""
    current_budget().left = 0
    run = Run(operation)
    run.scope.cancel()
    await run()
    return run


async def cut_short(operation: Callable[[], Awaitable[object]]) -> None:
    """Run an operation until it waits, and cancel it there."""
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, operation)
        run.scope.cancel()
    assert run.outcome == "cancelled"


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
