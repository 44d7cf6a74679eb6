"""One stream for many tasks: whole messages, first come, first served.

Theory of operation
===================

**A message is accepted whole or not at all.** The poll that begins one keeps a copy of what the
writer below did not take at once, in ``_rest``, and every poll sends that rest before it does
anything else. So it does not matter which task sends it: the one that wrote the message goes on
with it, and if that one is cancelled, whatever comes next does.

**The line.** Every await takes a place in ``_line`` before its first poll and keeps it until a poll
has succeeded; only the first in the line polls, and the others wait to become it. To be cancelled
is to leave the line. So the writer below never sees two tasks at once, and nobody is overtaken.
Writes that stay in the buffer below need no place while the line is empty.

**Polls without a place** (``aclose``, which must not wait in a line, :meth:`AsyncWrite.by_ref`, and
layers above) come in between two messages. What they wait for below, one task waits for on behalf
of all (:meth:`SharedWriter._wait_below`), since most transports bear only one.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, TypeVar, cast, final, overload

import trio
import trio.abc

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._budget import FAST_SIZE, POLL_COST
from trio_asyncwrite._core._buf import Buf
from trio_asyncwrite._core._checks import byte_view, checked_buffers
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._file_not_ready import FileNotReady
from trio_asyncwrite._core._file_part import FilePart, check_part, ended_early
from trio_asyncwrite._core._page_cache import PIECE
from trio_asyncwrite._core._shell import (
    POLLS_PER_TURN,
    WHOLE,
    Message,
    poll_buf,
    poll_data,
    write_from,
    write_message,
)
from trio_asyncwrite._core._stack import (
    begin_shutdown,
    hold,
    keep_for_next_call,
    let_go,
    poll_below,
    poll_step,
    shut_down,
    tear,
)
from trio_asyncwrite._core._waits import Line, OneForAll
from trio_asyncwrite._core._write_file import file_rate, poll_file, write_all_file
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._buf_writer import BufWriter
from ._wrapper import Wrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer, TypeVarTuple, Unpack

    from trio_asyncwrite._core._lifecycle import Call
    from trio_asyncwrite._transports._poll_evented import PollEvented
    from trio_asyncwrite._transports._tcp import TcpStream

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")
W = TypeVar("W", bound=AsyncWrite)


@final
class SharedWriter(Wrapper[W]):
    """Lets many tasks write to one stream: whole messages, first come, first served.

    What one call writes (:meth:`write`, :meth:`write_all`, :meth:`send_all`,
    :meth:`write_all_vectored` ...) is a message, and messages never mix. A task whose turn has
    not come waits in line; two tasks at once are no :exc:`trio.BusyResourceError` here.

    When a task is cancelled, a message that has not begun is withdrawn. One that has begun goes
    out whole and before all others: what is left of it is kept here (in
    :attr:`~AsyncWrite.unsent_bytes`), and the next operation of any task sends it first. So the
    stream stays in step, and no byte is lost.

    It is write-only. Close it when all tasks are done with it: ``aclose`` does not wait in line,
    and those that do get :exc:`trio.ClosedResourceError`. Handles of :meth:`by_ref`, and layers
    above this one, keep messages whole, but do not wait in line either: theirs come in between.

    A message that the stream does not take at once is copied, so this holds one message at most.
    Over a :class:`BufWriter`, small messages cost no trip through the scheduler.

    Args:
        inner: the writer, or any :class:`trio.abc.SendStream`, to write to; it goes through
            :func:`wrap_stream`.

    Raises:
        TypeError: if ``inner`` cannot be written to.

    Source: python-trio/trio#328.
    """

    #: The writer below.
    inner: W

    @overload
    def __init__(self, inner: W) -> None: ...
    @overload
    def __init__(self: SharedWriter[TcpStream], inner: trio.SocketStream) -> None: ...

    if sys.platform != "win32":

        @overload
        def __init__(self: SharedWriter[PollEvented], inner: trio.lowlevel.FdStream) -> None: ...

    @overload
    def __init__(self: SharedWriter[AsyncWrite], inner: trio.abc.SendStream) -> None: ...

    def __init__(self, inner: trio.abc.SendStream) -> None:
        #: What the writer below has not taken of the message that has begun.
        self._rest: Buf | FilePart | None = None
        self._below_wait = OneForAll()
        self._line = self.lifecycle.line = Line()
        self.inner = wrap_stream(inner)  # type: ignore[assignment]

    announces_held_bytes = True

    @property
    def held_bytes(self) -> int:
        """What is left of a message that has begun."""
        return 0 if self._rest is None else self._rest.remaining

    @property
    def spare_capacity(self) -> int:  # type: ignore[override]
        """The capacity of the writer below, while nobody stands in line."""
        return 0 if self._line.busy else self.inner.spare_capacity

    @answer
    def keeps_messages(self) -> bool:
        """A message is accepted whole or not at all."""
        return True

    async def write(self, data: Buffer) -> int:
        """Write ``data`` as one message, which is accepted whole.

        It returns as soon as the message has begun; what the writer below has not taken then
        waits for the next operation, for example :meth:`flush`. :meth:`write_all` sees it through.
        See :meth:`AsyncWrite.write` for the arguments.

        Returns:
            The length of ``data``, in bytes.

        Raises:
            trio.ClosedResourceError: if a shutdown or close has begun, or begins before it is
                this message's turn.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: nothing happened; the message had not begun and is withdrawn.
        Checkpoints: if it waits, or if :ref:`the budget <budget>` is spent.
        """
        if type(data) is bytes and self.put(data):
            return len(data)
        return await super().write(data)

    async def write_all(self, data: Buffer) -> None:
        """Write ``data`` as one message. See :meth:`AsyncWrite.write_all` for the arguments.

        Raises:
            trio.ClosedResourceError: if a shutdown or close has begun, or begins before this
                message is through.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: lost, as the call cannot tell you which it was: a message that had begun
            goes out whole, any other one is withdrawn. A :class:`Buf` can: after
            :meth:`write_all_buf` it is at its end if the message has begun, else at its start.
        Checkpoints: if it waits, or if :ref:`the budget <budget>` is spent.
        """
        if not (type(data) is bytes and self.put(data)):
            await write_message(self, Message(data, WHOLE, _see_through))

    async def write_all_buf(self, buf: Buf) -> None:
        """Write ``buf`` as one message. See :meth:`AsyncWrite.write_all_buf`.

        Cancellation: resumable; ``buf`` is at its end if the message has begun, else at its start.
        """
        await write_from(self, buf, after=_see_through, whole=True)

    async def write_all_vectored(self, buffers: Sequence[Buffer]) -> None:
        """Write ``buffers`` as one message. See :meth:`AsyncWrite.write_all_vectored`.

        Cancellation: lost, as with :meth:`write_all`: it goes out whole, or is withdrawn.
        """
        buf = Buf(*checked_buffers(buffers))
        try:
            await write_from(self, buf, after=_see_through, whole=True, resumable=False)
        finally:
            buf.release()

    async def write_all_file(self, part: FilePart) -> None:
        """Write ``part`` as one message. See :meth:`AsyncWrite.write_all_file`.

        If the file is shorter than the part, nothing is accepted. A part without a count goes up to
        the end that is found when the message begins. From then on the caller may close the file.

        Raises:
            EOFError: if the part has a ``count``, and the file ends before. Nothing was accepted.
            trio.ClosedResourceError: if a shutdown or close has begun, or begins before this
                message is through.
            trio.BrokenResourceError: if the writer has failed, now or before; or if the file of a
                message that has begun was truncated, or cannot be read any more.

        Cancellation: resumable; ``part`` is at its end if the message has begun, else at its start.
        """
        await write_all_file(self, part, _poll_file_through)

    @trio.lowlevel.enable_ki_protection
    def put(self, data: bytes) -> bool:
        """Accept a small message, if a buffer below has room for it, and nobody goes first.

        For layers above that send many small messages: an await does the same in three times as
        long.

        Returns:
            Whether it was accepted, and paid for with a unit of the budget.
        """
        lifecycle = self.lifecycle
        budget = lifecycle.fast
        if (
            (left := budget.left)
            and type(buffer := lifecycle.inner) is BufWriter
            and (room := buffer.spare_capacity - (size := len(data))) > 0
            and size < FAST_SIZE
            and buffer.lifecycle.refusal is None
            and not self._line.busy
        ):
            budget.left = left - 1
            buffer.append(data)
            buffer.spare_capacity = room
            return True
        return False

    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Accept ``data`` whole, or not at all. See :meth:`AsyncWrite.poll_write`."""
        # First, so that wrong data breaks nothing.
        view = data if type(data) is bytes else byte_view(data)
        try:
            self._make_ready()
            size = len(view)
            count = self._poll_below(poll_data, view)
            if count < size:
                self._keep(bytes(view[count:]))
        finally:
            if type(view) is memoryview:
                view.release()
        return size

    @trio.lowlevel.enable_ki_protection
    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Accept ``buffers`` as one message. See :meth:`AsyncWrite.poll_write_vectored`."""
        message = Buf(*checked_buffers(buffers))
        try:
            self._make_ready()
            size = message.remaining
            self._poll_below(poll_buf, message)
            if message.remaining:
                self._keep(b"".join(message.chunks()))
        finally:
            message.release()
        return size

    @trio.lowlevel.enable_ki_protection
    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        """Accept a file whole, or not at all. See :meth:`AsyncWrite.poll_write_file`.

        A file that is too short is not begun. One whose size the system does not know (in /proc)
        is accepted in pieces.
        """
        self.lifecycle.check_write(self)
        check_part(part, limit)
        size, there = min(part.remaining, limit), part.in_file()
        if 0 < there < size:
            return 0
        if there and size > PIECE:
            return self._begin_file(part, size)
        data = part.poll_read(limit)
        return self.poll_write(data) if data else 0

    @trio.lowlevel.enable_ki_protection
    def poll_flush(self) -> None:
        """Send the rest of a message, and flush. See :meth:`AsyncWrite.poll_flush`."""
        self.lifecycle.check_flush(self)
        self.push_rest()
        self._poll_below(poll_step, "poll_flush")

    @trio.lowlevel.enable_ki_protection
    def poll_shutdown(self) -> None:
        """Send the rest of a message, and shut down. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            self.push_rest()
            self._poll_below(shut_down)
            self.lifecycle.end()

    def poll_ready(self) -> None:
        """Return if a message can begin. See :meth:`AsyncWrite.poll_ready`."""
        self.lifecycle.check_write(self)
        self.push_rest()
        self._poll_below(poll_step, "poll_ready")

    def _make_ready(self) -> None:
        """What comes before a message: those who refuse, and the rest of an earlier one."""
        if self.lifecycle.refusal is not None:
            self.lifecycle.check_write(self)
        self._check_line()
        if self._rest is not None:
            self.push_rest()

    def _check_line(self) -> None:
        """Let no poll without a place into the middle of a message of several writes."""
        holder = self._line.holder
        if holder is not None and holder is not trio.lowlevel.current_task():
            raise NotReady(self._line.until_free)

    def _keep(self, rest: bytes) -> None:
        """Keep what the writer below has not taken of a message."""
        self._hold_rest(Buf(rest))
        self._push_eagerly()

    def _push_eagerly(self) -> None:
        """Send some of the rest of a message, which is accepted, whatever comes now.

        A failure has broken this writer, too.
        """
        try:
            self.push_rest()
        except BaseException as exc:  # noqa: BLE001, ASYNC103 - the next call raises it
            if not keep_for_next_call(self, exc):
                self.lifecycle.untold = self.lifecycle.failure is not None

    def _hold_rest(self, rest: Buf | FilePart) -> None:
        self._rest = rest
        self._line.keep_rest(has_rest=True)
        hold(self)

    def _begin_file(self, part: FilePart, size: int) -> int:
        """Offer a large file to the writer below; if it takes some, keep the rest, as a file."""
        self._check_line()
        self.push_rest()
        if not part.poll_cached(size):
            part.poll_read(size)  # the caller's part keeps it, also if it is not ready below
        try:
            message = part.copy(size)
        except (OSError, ValueError) as exc:
            raise FileNotReady.failed(exc) from None
        try:
            if not self._poll_below(poll_file, message):
                return 0  # it was truncated meanwhile
            if message:
                self._hold_rest(message)
        finally:
            if self._rest is not message:
                message.release()
        self._push_eagerly()
        return size

    def push_rest(self) -> None:
        """Send what is left of a message that has begun; for polls of messages.

        Raises:
            NotReady: if not all of it can go now.
            trio.BrokenResourceError: if the writer below fails, now or before.
        """
        rest = self._rest
        if rest is None:
            return
        if self.lifecycle.refusal is not None:
            # It may have failed since the message was accepted.
            self.lifecycle.check_flush(self)
        for _ in range(POLLS_PER_TURN):
            if isinstance(rest, Buf):
                self._poll_below(poll_buf, rest)
            else:
                self._push_file(rest)
            if not rest:
                self._rest = None
                self._line.keep_rest(has_rest=False)
                let_go(self)
                return
        raise NotReady(trio.lowlevel.checkpoint)

    def _push_file(self, rest: FilePart) -> None:
        try:
            if self._poll_below(poll_file, rest):
                if not rest:
                    rest.release()
                return
            error: Exception = ended_early(rest)
        except FileNotReady as not_ready:
            if not_ready.error is None:
                raise
            error = not_ready.error
        # Nobody can finish the message, so no other may follow it.
        rest.release()
        tear(self.inner, f"a file that was begun cannot be sent: {error!r}")
        self.lifecycle.refuse(self)

    def _poll_below(self, poll: Callable[[W, Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
        inner = self.inner
        try:
            return poll_below(inner, poll, inner, *args)
        except FileNotReady:
            raise
        except NotReady as not_ready:
            wait = functools.partial(self._below_wait.wait, not_ready.wait)
            raise NotReady(wait) from None

    release_waits = False

    async def release(self, *, clean: bool) -> None:
        """Let go of a file that was begun. See :meth:`AsyncWrite.release`.

        Cancellation: nothing happened, since there is nothing to wait for.
        Checkpoints: none.
        """
        if isinstance(self._rest, FilePart):
            self._rest.release()

    def __repr__(self) -> str:
        return f"<SharedWriter over {self.inner!r}>"


def _see_through(writer: AsyncWrite) -> None:
    """A message is accepted as soon as it has begun; this hands all of it to the writer below."""
    cast("SharedWriter[AsyncWrite]", writer).push_rest()


def _poll_file_through(writer: AsyncWrite, call: Call, part: FilePart) -> bool:
    shared = cast("SharedWriter[AsyncWrite]", writer)
    budget = shared.lifecycle.budget
    rate = file_rate(shared)
    while part and not call.flushing:
        # Of unknown size, it comes in pieces.
        is_one_message = part.in_file() > 0
        count = poll_file(shared, part)
        call.accepted += count
        if (is_one_message or not count) and part and not part.end_here():
            return False
        call.flushing = is_one_message
        budget.left = max(budget.left - POLL_COST - count // rate, 0)
        if part and not budget.left:
            raise NotReady(trio.lowlevel.checkpoint)
    call.flushing = True
    shared.push_rest()
    return True
