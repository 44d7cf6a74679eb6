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

import contextlib
import functools
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar, final, overload

import trio
import trio.abc

from trio_asyncwrite._core._async_write import _POLLS_PER_TURN, AsyncWrite
from trio_asyncwrite._core._budget import LIMIT, current_budget
from trio_asyncwrite._core._buf import Buf
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._phase import ENDED, OPEN
from trio_asyncwrite._transports._wrap_stream import wrap_stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import Buffer, TypeVarTuple, Unpack

    from trio_asyncwrite._transports._poll_evented import PollEvented
    from trio_asyncwrite._transports._tcp import TcpStream

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")
W = TypeVar("W", bound=AsyncWrite)


@final
class SharedWriter(AsyncWrite, Generic[W]):
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
        TypeError: if ``inner`` is no stream to write to.

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
        self._rest = Buf()
        #: Who is inside, in the order of their coming; an event is set when its turn has come.
        self._line: OrderedDict[trio.Event, None] = OrderedDict()
        #: Set while a task waits in the writer below.
        self._waiter: trio.Event | None = None
        self.inner = wrap_stream(inner)  # type: ignore[assignment]

    # The line does what this flag does elsewhere.
    @property
    def _busy(self) -> bool:
        return False

    @_busy.setter
    def _busy(self, busy: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        pass

    @property
    def _room(self) -> int:  # type: ignore[override]
        if self._phase is OPEN and not self._line and not self._rest.remaining:
            return self.inner._room
        return 0

    @property
    def unsent_bytes(self) -> int:
        """See :attr:`AsyncWrite.unsent_bytes`."""
        return self._rest.remaining + self.inner.unsent_bytes

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
        Checkpoints: if the transport was touched, and at least once in every 128 calls of
            the run otherwise.
        """
        return await super().write(data)

    async def write_all(self, data: Buffer) -> None:
        """Write ``data`` as one message. See :meth:`AsyncWrite.write_all` for the arguments.

        Raises:
            trio.ClosedResourceError: if a shutdown or close has begun, or begins before this
                message is through.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: lost, as the call has no place to say whether the message had begun, and
            goes out whole, or is withdrawn, whole as well. A :class:`Buf` has: after
            :meth:`write_all_buf` it is at its end if the message has begun, else at its start.
        Checkpoints: if the transport was touched, and at least once in every 128 calls of
            the run otherwise.
        """
        await super().write_all(data)

    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Accept ``data`` whole, or not at all. See :meth:`AsyncWrite.poll_write`."""
        if type(data) is bytes and len(data) < self._room:
            return self._poll_below(self.inner.poll_write, data)
        return self._begin(data)

    @trio.lowlevel.enable_ki_protection
    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Accept ``buffers`` as one message. See :meth:`AsyncWrite.poll_write_vectored`."""
        return self._begin(*buffers)

    @trio.lowlevel.enable_ki_protection
    def poll_flush(self) -> None:
        """Send the rest of a message, and flush. See :meth:`AsyncWrite.poll_flush`."""
        self._check_usable()
        if self._phase is not ENDED:  # it may have stood in line behind a shutdown
            self._push_rest()
            self._poll_below(self.inner.poll_flush)

    @trio.lowlevel.enable_ki_protection
    def poll_shutdown(self) -> None:
        """Send the rest of a message, and shut down. See :meth:`AsyncWrite.poll_shutdown`."""
        if self._begin_shutdown():
            self._push_rest()
            self._poll_below(self.inner.poll_shutdown)
            self._enter(ENDED)

    def _poll_ready(self) -> None:
        self._check_open()
        self._push_rest()
        self._poll_below(self.inner._poll_ready)

    @trio.lowlevel.enable_ki_protection
    def _poll_write_buf(self, buf: Buf) -> int:
        """See the base. Of however many parts: half of them would be half a message."""
        size = self._begin(*buf.chunks())
        buf.advance(size)
        return size

    # The base is through with what is accepted; here, it may be in _rest.
    def _poll_write_whole(self, data: bytes | memoryview, rest: list[Buf]) -> None:
        if not rest:
            self.poll_write(data)
            rest.append(Buf())
        self._push_rest()

    def _poll_write_all(self, buf: Buf) -> None:
        if buf.remaining:
            self._poll_write_buf(buf)
        self._push_rest()

    def _begin(self, *parts: bytes | bytearray | memoryview) -> int:
        """Offer a message to the writer below; if it takes some, keep the rest."""
        self._check_open()
        self._push_rest()
        message = Buf(*parts)
        try:
            size = message.remaining
            self._poll_below(self.inner._poll_write_buf, message)
            if message.remaining:
                self._rest = Buf(b"".join(message.chunks()))
        finally:
            message.release()
        with contextlib.suppress(NotReady):
            self._push_rest()
        return size

    def _push_rest(self) -> None:
        polls = 0
        while self._rest.remaining:
            if polls == _POLLS_PER_TURN:
                raise NotReady(trio.lowlevel.checkpoint)
            self._poll_below(self.inner._poll_write_buf, self._rest)
            polls += 1

    def _poll_below(self, poll: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
        try:
            return self._poll_inner(poll, *args)
        except NotReady as not_ready:
            raise NotReady(functools.partial(self._wait_below, not_ready.wait)) from None

    async def _wait_below(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Wait in the writer below, or for the task that already does."""
        if self._waiter is not None:
            await self._waiter.wait()
            return
        self._waiter = done = trio.Event()
        try:
            await wait()
        finally:
            self._waiter = None
            done.set()

    async def _charge(self, size: int) -> bool:
        """See the base. A checkpoint is left to the line, or others could overtake in it."""
        self._budget = budget = current_budget()
        stays_clear = budget.left > 0
        budget.left = (budget.left or LIMIT) - 1
        return stays_clear

    @trio.lowlevel.enable_ki_protection
    async def _drive(self, poll: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
        turn = trio.Event()
        self._line[turn] = None
        try:
            return await super()._drive(self._poll_in_turn, turn, functools.partial(poll, *args))
        finally:
            self._leave(turn)

    def _poll_in_turn(self, turn: trio.Event, poll: Callable[[], T]) -> T:
        if next(iter(self._line)) is not turn:
            raise NotReady(turn.wait)
        result = poll()
        # Not only after the shell's checkpoint: while one task is in it, all the others would
        # come to stand in line, and from then on each of their messages would cost one.
        self._leave(turn)
        return result

    def _leave(self, turn: trio.Event) -> None:
        self._line.pop(turn, None)
        for first in self._line:
            first.set()
            break

    def __repr__(self) -> str:
        return f"<SharedWriter over {self.inner!r}>"
