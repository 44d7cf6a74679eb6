"""The line-buffered writer.

Theory of operation
===================

``_store`` holds two things, in this order: what is *owed*, the rest of lines that the writer below
has not taken yet; and the *tail*, the beginning of a line that has no end yet. What is owed goes
before anything else is accepted, so lines never overtake each other.

A write is offered to the writer below up to its last newline, behind the tail, in one gathered
call. If that is not ready, nothing was accepted. If it takes a part, the rest of the lines is owed
and the new tail is kept, so the write was accepted whole, if it fits; and no further poll is made
that could fail after that (rust-lang/rust#32085).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast, final, overload

import trio
import trio.abc

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._budget import rate_of
from trio_asyncwrite._core._buf import Buf
from trio_asyncwrite._core._checks import byte_view, checked_buffers, positive_int
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._shell import WHOLE, Message, write_from, write_message
from trio_asyncwrite._core._stack import begin_shutdown, fail, hold, let_go, poll_step, shut_down
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._buf_writer import DEFAULT_CAPACITY
from ._parts import back, front, offer, release

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from trio_asyncwrite._transports._poll_evented import PollEvented
    from trio_asyncwrite._transports._tcp import TcpStream

W = TypeVar("W", bound=AsyncWrite)

#: How much is searched for a newline at once, in bytes.
_PIECE: Final = 4096


@final
class LineWriter(AsyncWrite, Generic[W]):
    r"""Hands on whole lines, and keeps the beginning of the next one.

    Each write goes to the writer below up to its last newline (``b"\n"``), together with what was
    kept, in one gathered call. What follows is kept until its newline comes, or a flush. A line
    that is longer than the capacity goes on in pieces.

    :meth:`write_all` and its like return when all lines are handed on. A write that fits into the
    capacity is accepted whole or not at all: a cancellation never cuts a line in two. What the
    writer below has not taken of a line then goes before everything else.

    It does not flush the writer below. It is write-only.

    Args:
        inner: the writer, or any :class:`trio.abc.SendStream`, to write to; it goes through
            :func:`wrap_stream`.
        capacity: how many bytes to keep at most; at least 1.

    Raises:
        TypeError: if ``inner`` cannot be written to, or ``capacity`` is not an integer.
        ValueError: if ``capacity`` is less than 1.

    Source: ``std::io::LineWriter``.
    """

    #: The writer below.
    inner: W

    @overload
    def __init__(self, inner: W, capacity: int = ...) -> None: ...
    @overload
    def __init__(
        self: LineWriter[TcpStream], inner: trio.SocketStream, capacity: int = ...
    ) -> None: ...

    if sys.platform != "win32":

        @overload
        def __init__(
            self: LineWriter[PollEvented], inner: trio.lowlevel.FdStream, capacity: int = ...
        ) -> None: ...

    @overload
    def __init__(
        self: LineWriter[AsyncWrite], inner: trio.abc.SendStream, capacity: int = ...
    ) -> None: ...

    def __init__(self, inner: trio.abc.SendStream, capacity: int = DEFAULT_CAPACITY) -> None:
        # Before a wrong argument can raise: the finaliser asks how much is held.
        self._store = bytearray()
        self._owed = 0
        self._capacity = positive_int(capacity, "capacity")
        self.inner = wrap_stream(inner)  # type: ignore[assignment]

    announces_held_bytes = True

    @property
    def capacity(self) -> int:
        """How many bytes are kept at most."""
        return self._capacity

    @property
    def held_bytes(self) -> int:
        """How many bytes are kept: the beginning of a line, and earlier ones not passed on yet."""
        return len(self._store)

    @property
    def bytes_per_budget_unit(self) -> int:  # type: ignore[override]
        """As the layer below: nothing is done to the bytes here."""
        return rate_of(self.inner)

    @answer
    def epilogue(self) -> Epilogue:
        """Nothing: it passes on what it was given."""
        return Epilogue.NOTHING

    @answer
    def keeps_messages(self) -> bool:
        """No: a message may go in several pieces."""
        return False

    async def write_all(self, data: Buffer) -> None:
        """Write ``data``, and hand on its lines. See :meth:`AsyncWrite.write_all`.

        Raises:
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: lost, as the call has no place to say whether ``data`` was accepted: whole,
            or, if it fits into the capacity, not at all.
        Checkpoints: if it waits, or if :ref:`the budget <budget>` is spent.
        """
        await write_message(self, Message(data, WHOLE, _hand_on))

    async def write_all_buf(self, buf: Buf) -> None:
        """Write ``buf``, and hand on its lines. See :meth:`AsyncWrite.write_all_buf`.

        Cancellation: resumable; ``buf`` stands behind exactly what was accepted.
        """
        await write_from(self, buf, after=_hand_on, whole=True)

    async def write_all_vectored(self, buffers: Sequence[Buffer]) -> None:
        """Write ``buffers``, and hand on their lines. See :meth:`AsyncWrite.write_all_vectored`.

        Cancellation: lost, as with :meth:`write_all`.
        """
        buf = Buf(*checked_buffers(buffers))
        try:
            await write_from(self, buf, after=_hand_on, whole=True, resumable=False)
        finally:
            buf.release()

    # Ctrl-C must not fall between what was done and the field that says so.
    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Accept ``data``, and hand on its lines. See :meth:`AsyncWrite.poll_write`."""
        if type(data) is bytes and self.lifecycle.refusal is None and not self._owed:
            store = self._store
            size = len(data)
            if 0 < size <= self._capacity - len(store) and b"\n" not in data:
                if not store:
                    hold(self)
                store += data
                return size
        with byte_view(data) as view:
            return self._take([view])

    @trio.lowlevel.enable_ki_protection
    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Accept ``buffers`` as one message. See :meth:`AsyncWrite.poll_write_vectored`."""
        views = [byte_view(data) for data in checked_buffers(buffers)]
        try:
            return self._take(views)
        finally:
            release(views)

    @trio.lowlevel.enable_ki_protection
    def poll_flush(self) -> None:
        """Hand on all that is kept, and flush. See :meth:`AsyncWrite.poll_flush`."""
        self.lifecycle.check_flush(self)
        self._push_all()
        poll_step(self.inner, "poll_flush")

    @trio.lowlevel.enable_ki_protection
    def poll_shutdown(self) -> None:
        """Hand on all that is kept, and shut down. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            self._push_all()
            shut_down(self.inner)
            self.lifecycle.end()

    @trio.lowlevel.enable_ki_protection
    def poll_ready(self) -> None:
        """Return if there is room for a byte. See :meth:`AsyncWrite.poll_ready`."""
        self.lifecycle.check_write(self)
        self.push_lines()
        if len(self._store) >= self._capacity:
            self._push_all()

    @trio.lowlevel.enable_ki_protection
    def push_lines(self) -> None:
        """Hand on what is owed of lines; for polls.

        Raises:
            NotReady: if not all of it can go now.
            trio.BrokenResourceError: if the writer below fails, now or before.

        :meta private:
        """
        while self._owed:
            self._push([], self._owed)

    def _take(self, views: list[memoryview]) -> int:
        """Accept ``views`` as one write."""
        self.lifecycle.check_write(self)
        size = sum(map(len, views))
        if not size:
            return 0
        self.push_lines()
        end = _end_of_lines(views)
        if not end:
            if len(self._store) + size > self._capacity:
                self._push_all()  # no line is that long
            if size > self._capacity:
                return offer(self.inner, views)
            self._keep(views, 0)
            return size
        lines = front(views, end)
        try:
            count = 0
            while self._store and not count:
                count = self._push(lines, len(self._store))
            count = count or offer(self.inner, lines)
        finally:
            release(lines)
        if size - count > self._capacity:
            return count
        rest = back(views, count)
        self._keep(rest, end - count)
        release(rest)
        return size

    def _keep(self, views: list[memoryview], owed: int) -> None:
        was_empty = not self._store
        for view in views:
            self._store += view
        self._owed = owed
        if was_empty and self._store:
            hold(self)

    def _push_all(self) -> None:
        while self._store:
            self._push([], len(self._store))

    def _push(self, views: list[memoryview], most: int) -> int:
        """Offer the first ``most`` bytes of the store, and ``views`` after them, once.

        Returns:
            How many bytes of ``views`` were accepted.
        """
        try:
            with memoryview(self._store) as whole, whole[:most] as head:
                count = offer(self.inner, [head, *views])
            gone = min(count, most)
            del self._store[:gone]
        except BufferError as exc:
            fail(self, exc)  # the writer below keeps a view; what it accepted is forgotten
            raise
        self._owed = max(self._owed - gone, 0)
        if not self._store:
            let_go(self)
        return count - gone

    def __repr__(self) -> str:
        return f"<LineWriter of {self._capacity} bytes over {self.inner!r}>"


def _end_of_lines(views: list[memoryview]) -> int:
    """How many bytes there are up to the last newline, and with it."""
    left = sum(map(len, views))
    for view in reversed(views):
        left -= len(view)
        # From the end, and not all at once: most often it is near.
        for start in range((len(view) - 1) // _PIECE * _PIECE, -1, -_PIECE):
            found = view[start : start + _PIECE].tobytes().rfind(b"\n")
            if found >= 0:
                return left + start + found + 1
    return 0


def _hand_on(writer: AsyncWrite) -> None:
    """A write is accepted before its lines have gone; this sees them through."""
    cast("LineWriter[AsyncWrite]", writer).push_lines()
