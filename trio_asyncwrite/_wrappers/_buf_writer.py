"""The buffered writer."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final, overload

import trio
import trio.abc

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._budget import FAST_SIZE, rate_of
from trio_asyncwrite._core._checks import byte_view, positive_int
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._file_part import check_part
from trio_asyncwrite._core._stack import (
    begin_shutdown,
    hold,
    let_go,
    poll_below,
    poll_step,
    shut_down,
)
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._parts import offer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from trio_asyncwrite._core._file_part import FilePart
    from trio_asyncwrite._transports._poll_evented import PollEvented
    from trio_asyncwrite._transports._tcp import TcpStream

W = TypeVar("W", bound=AsyncWrite)

#: As much as a Linux pipe holds, and as Trio's streams receive at once. Tokio has 8 KiB:
#: in Python, everything but the copying costs more.
DEFAULT_CAPACITY: Final = 65536


@final
class BufWriter(AsyncWrite, Generic[W]):
    """Collects small writes and hands them on in large ones.

    A write that is smaller than the capacity is taken whole or, if there is no room for it and
    the writer below is not ready, not at all: messages are never torn by a cancellation. A write
    of at least the capacity bypasses the buffer; it leaves together with what is buffered, in
    one gathered call.

    It is write-only. ``ReadWritePair(stream, BufWriter(stream))`` is a buffered duplex stream.

    Between a flush and the next write it holds no memory.

    Args:
        inner: the writer, or any :class:`trio.abc.SendStream`, to write to; it goes through
            :func:`wrap_stream`.
        capacity: how many bytes to collect at most; at least 1.

    Raises:
        TypeError: if ``inner`` cannot be written to, or ``capacity`` is not an integer.
        ValueError: if ``capacity`` is less than 1.

    Source: ``tokio::io::BufWriter``.
    """

    #: The writer below.
    inner: W

    @overload
    def __init__(self, inner: W, capacity: int = ...) -> None: ...
    @overload
    def __init__(
        self: BufWriter[TcpStream], inner: trio.SocketStream, capacity: int = ...
    ) -> None: ...

    if sys.platform != "win32":

        @overload
        def __init__(
            self: BufWriter[PollEvented], inner: trio.lowlevel.FdStream, capacity: int = ...
        ) -> None: ...

    @overload
    def __init__(
        self: BufWriter[AsyncWrite], inner: trio.abc.SendStream, capacity: int = ...
    ) -> None: ...

    def __init__(self, inner: trio.abc.SendStream, capacity: int = DEFAULT_CAPACITY) -> None:
        self._capacity = positive_int(capacity, "capacity")
        # The bytes that wait are those from _start to the position of _store, which is the
        # capacity less spare_capacity. A BytesIO keeps its memory when it is rewound, and its
        # write() is CPython's cheapest append. It is not asked for its position: in a reference
        # cycle it may be closed before this writer's __del__ has told how much was lost.
        self._store: io.BytesIO | None = None
        self._start = 0
        # Before a wrong ``inner`` can raise: the finaliser asks how much is held.
        self.spare_capacity: int = self._capacity
        self.inner = wrap_stream(inner)  # type: ignore[assignment]

    @property
    def capacity(self) -> int:
        """How many bytes are collected at most."""
        return self._capacity

    announces_held_bytes = True

    @property
    def held_bytes(self) -> int:
        """How many bytes wait in the buffer."""
        return self._capacity - self.spare_capacity - self._start

    async def write(self, data: Buffer) -> int:
        """Write some of ``data``, and all of it if it is smaller than the capacity.

        See :meth:`AsyncWrite.write` for the arguments and errors.

        Raises:
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: nothing happened; not a byte was accepted.
        Checkpoints: if it waits, or if :ref:`the budget <budget>` is spent.
        """
        # The body of poll_write once more: protocols make this call for every message, and
        # a second Python function would add a quarter to its cost.
        budget = self.lifecycle.fast
        if type(data) is bytes and budget.left:
            size = len(data)
            room = self.spare_capacity - size
            if room > 0 and size < FAST_SIZE:
                budget.left -= 1
                self.append(data)
                self.spare_capacity = room
                return size
        return await super().write(data)

    # Ctrl-C must not fall between what was done and the field that says so: hence the
    # protection of all polls. It is a mark on the code object and costs nothing per call.
    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Accept ``data``, whole if it is smaller than the capacity.

        See :meth:`AsyncWrite.poll_write`.
        """
        if type(data) is bytes and self.lifecycle.refusal is None:
            room = self.spare_capacity - len(data)
            if room > 0:
                size = self.append(data)
                self.spare_capacity = room
                return size
        with byte_view(data) as view:
            return self._take([view])

    @trio.lowlevel.enable_ki_protection
    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Accept ``buffers`` as one message. See :meth:`AsyncWrite.poll_write_vectored`."""
        views = [byte_view(data) for data in buffers]
        try:
            return self._take(views)
        finally:
            for view in views:
                view.release()

    @trio.lowlevel.enable_ki_protection
    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        """Accept bytes of a file. See :meth:`AsyncWrite.poll_write_file`.

        What is in the buffer leaves together with the first bytes of the file, in one gathered
        call. A file, or a rest of one, that fits into the buffer is collected. The writer below
        gets everything else as a file.
        """
        self.lifecycle.check_write(self)
        check_part(part, limit)
        if self.held_bytes or 0 < min(part.remaining, limit) < self.spare_capacity:
            return super().poll_write_file(part, limit)
        return poll_below(self.inner, self.inner.poll_write_file, part, limit)

    @trio.lowlevel.enable_ki_protection
    def poll_flush(self) -> None:
        """Hand all that waits to the writer below. See :meth:`AsyncWrite.poll_flush`."""
        lifecycle = self.lifecycle
        if lifecycle.refusal is not None:
            lifecycle.check_flush(self)
        if self._store is not None:
            while self.held_bytes:
                self._push([])
            self._store = None
        # Not self.inner, here and in _push(): that is a call in Python.
        poll_step(lifecycle.inner, "poll_flush")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    @trio.lowlevel.enable_ki_protection
    def poll_shutdown(self) -> None:
        """Flush and shut down the writer below. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            self.poll_flush()
            shut_down(self.inner)
            self.lifecycle.end()

    @property
    def bytes_per_budget_unit(self) -> int:  # type: ignore[override]
        """That of the layer below: a buffer does nothing to the bytes."""
        return rate_of(self.inner)

    @answer
    def epilogue(self) -> Epilogue:
        """Nothing: it passes on what it was given."""
        return Epilogue.NOTHING

    def poll_ready(self) -> None:
        """Return if there is room for a byte. See :meth:`AsyncWrite.poll_ready`."""
        self.lifecycle.check_write(self)
        if self.held_bytes >= self._capacity:
            self._push([])
        if self._capacity == 1:  # even a single byte bypasses the buffer
            poll_step(self.inner, "poll_ready")

    @trio.lowlevel.enable_ki_protection
    def append(self, data: bytes | memoryview) -> int:
        """Put ``data`` into the buffer; for a layer above that sends many small messages.

        The layer has seen that the lifecycle's ``fast`` is not spent, and that ``data`` is shorter
        than :attr:`spare_capacity`. It lowers that by the length of ``data`` afterwards.
        """
        # Shadowed by the store's own write() while there are bytes in it.
        if not data:
            return 0
        hold(self)
        if self._store is None:
            self._store = io.BytesIO()
        self.append = self._store.write  # type: ignore[assignment, method-assign]
        return self.append(data)

    def _take(self, views: list[memoryview]) -> int:
        """Accept ``views`` as one write."""
        self.lifecycle.check_write(self)
        size = sum(map(len, views))
        if size >= self._capacity:
            return self._write_through(views)
        while self.held_bytes + size > self._capacity:
            self._push([])
        self._compact(size)
        for view in views:
            self.append(view)
        self.spare_capacity -= size
        return size

    def _write_through(self, views: list[memoryview]) -> int:
        """Offer a large write to the writer below, after what waits; keep none of it."""
        while self.held_bytes:
            count = self._push(views)
            if count:
                return count
        return offer(self.inner, views)

    def _push(self, views: list[memoryview]) -> int:
        """Offer what waits, and ``views`` after it, to the writer below, once.

        Returns:
            How many bytes of ``views`` it accepted.
        """
        store = self._store
        assert store is not None
        end = self._capacity - self.spare_capacity
        waiting = end - self._start
        # It copies nothing. A view by getbuffer() locks the store: were one left, in the frames of
        # an exception, neither a write nor the store's finaliser would succeed.
        head: bytes | memoryview = store.getvalue()
        if len(head) != waiting:
            head = memoryview(head)[self._start : end]
        inner: AsyncWrite = self.lifecycle.inner  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        count = offer(inner, [head, *views])
        self._start += min(count, waiting)
        if self._start == end:
            self._start = 0
            store.seek(0)
            self.spare_capacity = self._capacity
            del self.append
            let_go(self)
        return max(count - waiting, 0)

    def _compact(self, size: int) -> None:
        """Move what waits to the front of the store, if ``size`` more bytes need the place."""
        store = self._store
        end = self._capacity - self.spare_capacity
        if store is not None and end + size > self._capacity:
            rest = end - self._start
            with store.getbuffer() as whole:
                whole[:rest] = whole[self._start : end]
            store.seek(rest)
            self._start = 0
            self.spare_capacity = self._capacity - rest

    def __repr__(self) -> str:
        return f"<BufWriter of {self._capacity} bytes over {self.inner!r}>"
