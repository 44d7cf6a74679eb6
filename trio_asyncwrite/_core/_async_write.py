"""The trait: three polls, and the await shell around them.

Theory of operation
===================

Rust's ``tokio_io::AsyncWrite`` describes a byte sink by three synchronous polls (write, flush,
shutdown), each of which makes progress at once or answers "not ready" and may then be polled
again. This module keeps the polls as the core of every writer and puts one thin shell around
them: *poll; if not ready, wait; poll again*.

**State changes only inside polls.** A poll is a plain function: no task switch and so no
cancellation can fall into it. The shell waits only between polls, and in a wait no state is
half-changed. That is why cancellation safety is a property of this architecture and not of
each writer: whatever must survive a wait is a field that a poll has updated before it.

**The shell is one loop**, :meth:`AsyncWrite._drive`. Every await of the trait is a poll handed
to it; those that need several polls (``write_all``, ``send_all``) are made into one poll first,
whose progress is kept in a :class:`Buf`. The loop checks for cancellation before the first
poll, and once a poll has succeeded only a *shielded* yield may follow: had the task been
cancelled there, ``Cancelled`` would no longer mean "nothing was accepted".

**Calls that stay in a buffer skip the loop.** A writer promises with ``_room`` that its next
poll_write takes anything *shorter* than ``_room`` whole, without touching the transport. Such a
call costs no trip through the scheduler; it draws on the budget of ``_budget.py`` instead. A
writer that is full, shutting down, broken or closed has no room, so the fast path needs no
other check of the state. Writers that are not ours have none either.

**One task at a time.** ``_busy`` is held over every await but ``aclose``'s. ``aclose`` must get
in while another task waits: it ends that task's wait through its cancel scope in ``_waiting``
(Trio takes the task out of the kernel's wait at once, synchronously, so that ``aclose`` may
wait for the same descriptor itself) and the task, woken, raises ClosedResourceError.
Releasing does the same for those who wait in an inner writer while a layer above closes it.

**Ctrl-C** is held off from where it could fall between what was done and the field that says
so; Trio raises it at the next wait instead. (``enable_ki_protection`` is a mark on the code
object and costs nothing per call. It covers what is called from there, too.)

**States** are those of ``_phase.py``; the writer's own polls and the shell move the same field,
so raw polls and awaits can be mixed. A failure is sticky: ``_failure`` keeps its cause until the
writer is closed, and is then dropped, because an exception's traceback refers to the writer.

None of this needs ``super().__init__()``: all fields have their first value in the class.
"""

from __future__ import annotations

import contextlib
import functools
import struct
import warnings
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, final

import trio
import trio.abc

from ._budget import SPENT, Budget, spend
from ._buf import Buf
from ._checks import accepted, byte_view
from ._errors import NotReady
from ._phase import BROKEN, CLOSED, ENDED, ENDING, OPEN, Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from typing_extensions import Buffer, Self, TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")
W = TypeVar("W", bound="AsyncWrite")

#: How often write_all may poll without a wait before it lets the other tasks run.
_POLLS_PER_TURN = 16

#: How many parts to offer at once: what Linux's writev takes. To list all that are left at every
#: poll would take quadratic time.
_PARTS_PER_POLL = 1024


class _Closing:
    """An ``aclose`` at work, for another task that closes the same writer meanwhile."""

    __slots__ = ("done", "failed", "reported", "scope")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.scope: trio.CancelScope | None = None
        # Whether it failed or was cut short, which another task that waited must learn of.
        self.failed = False
        # Whether somebody has warned of lost bytes; all the tasks may be cancelled at once.
        self.reported = False


class _LastWords:
    """Warns that a close was cut short, when it is itself garbage-collected: at once.

    With ``-W error`` a warning is an exception, which must not replace the Cancelled that is
    on its way. Out of a ``__del__`` it goes to :func:`sys.unraisablehook`.
    """

    __slots__ = ("writer",)

    def __init__(self, writer: AsyncWrite) -> None:
        self.writer = writer

    def __del__(self) -> None:
        self.writer._warn_unsent(self.writer.unsent_bytes, "was closed by a cancelled aclose")


class AsyncWrite(trio.abc.SendStream):
    """A byte sink: three polls that you write, and all the awaits, provided.

    Every writer of this library is one, and so is yours: override :meth:`poll_write`, and
    :meth:`poll_flush`, :meth:`poll_shutdown`, :meth:`poll_write_vectored` and :meth:`release`
    where the defaults do not fit. A writer that wraps another one puts it into an attribute
    ``inner``; the defaults then pass everything on to it, so that a simple wrapper overrides
    one method. There is no ``__init__`` to call.

    The polls are taken as you write them. The shell around them checks arguments, keeps two
    tasks apart, waits, closes, and remembers failures. Check yours with
    :func:`trio_asyncwrite.testing.check_async_write`. Names with one underscore in front are the
    shell's own: give yours none, or two.

    Used as ``async with writer:``, leaving the block closes the writer; when the block ends
    with an exception, that one is raised, whatever comes of closing.

    Source: ``tokio_io::AsyncWrite`` and ``tokio::io::AsyncWriteExt``.
    """

    _phase: Phase = OPEN
    _failure: BaseException | None = None
    _busy: bool = False
    # One for each task that waits; more than one only in a duplex writer that reads here, too.
    _waiting: tuple[trio.CancelScope, ...] = ()
    _closing: _Closing | None = None
    _releasing: trio.Event | None = None
    _released: bool = False
    _budget: Budget = SPENT
    # A poll_write shorter than this is taken whole and does not touch the transport.
    _room: int = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A writer's own ``_wait`` or ``_close`` would take the shell's place and break it silently.
        clashes = {name for name in vars(cls) if name in _SHELLS_OWN}
        if clashes and not cls.__module__.startswith("trio_asyncwrite"):
            raise TypeError(
                f"{cls.__name__} overrides what belongs to AsyncWrite: "
                f"{', '.join(sorted(clashes))}. Names without an underscore, or with two, are free"
            )

    # ---- The poll core: what a writer implements -------------------------------------------

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Accept some of ``data`` now, or raise :exc:`NotReady` with nothing accepted.

        Args:
            data: the bytes to write; valid only during this call, and not to be changed. What
                a layer above or the shell hands in is a flat view whose length is in bytes.

        Returns:
            How many bytes were accepted: 1 to ``len(data)``, and 0 only if ``data`` is empty.

        Raises:
            NotReady: if nothing can be accepted now.
            TypeError: if the class defines neither this method nor ``inner``.
            trio.ClosedResourceError: if a shutdown or close has begun.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Source: ``AsyncWrite::poll_write``.
        """
        self._check_open()
        inner = self._below()
        if inner is None:
            raise TypeError(f"{type(self).__name__} defines neither poll_write nor inner")
        # This is _poll_inner, spelt out to spare every write through a layer one more call.
        try:
            return inner.poll_write(data)
        except NotReady:
            raise
        except BaseException as exc:
            self._fail(exc)
            raise

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Accept bytes from the front of ``buffers`` now, or raise :exc:`NotReady`.

        The default hands the first buffer that is not empty to :meth:`poll_write`. A transport
        gathers instead, as ``writev`` does.

        Args:
            buffers: a sequence of what :meth:`poll_write` takes, in order.

        Returns:
            How many bytes were accepted, counted over the buffers; 0 only if all are empty.

        Raises:
            NotReady: if nothing can be accepted now.
            trio.ClosedResourceError: if a shutdown or close has begun.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Source: ``AsyncWrite::poll_write_vectored``.
        """
        for data in buffers:
            if len(data):
                return self.poll_write(data)
        return self.poll_write(b"")

    def poll_flush(self) -> None:
        """Return when all bytes accepted so far have been handed to the innermost transport.

        Bytes that did not go yet stay queued, in order.

        Raises:
            NotReady: if some bytes cannot go now.
            trio.ClosedResourceError: if the writer is closed.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Source: ``AsyncWrite::poll_flush``.
        """
        self._check_usable()
        inner = self._below()
        if inner is not None:
            self._poll_inner(inner.poll_flush)

    def poll_shutdown(self) -> None:
        """Flush, write this layer's epilogue, then shut down the layer below.

        After :exc:`NotReady` it is simply called again and goes on where it was. Once complete
        it is idempotent.

        Raises:
            NotReady: until all of it is complete.
            trio.ClosedResourceError: if the writer is closed.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Source: ``AsyncWrite::poll_shutdown``.
        """
        if self._begin_shutdown():
            self.poll_flush()
            inner = self._below()
            if inner is not None:
                self._poll_inner(inner.poll_shutdown)
            self._enter(ENDED)

    async def release(self, *, clean: bool) -> None:
        """Free what the writer holds, through every layer; :meth:`aclose` calls it once.

        It never waits for a peer and works in a cancelled scope (the shell shields it). An
        override that wraps a writer ends with ``await super().release(clean=clean)``, which
        passes it on to ``inner``.

        Args:
            clean: whether the shutdown was completed. If not, a transport makes the truncated
                end visible to the peer where its protocol can show it.

        Cancellation: nothing happened, since it is not cancelled: the shell shields it.
        Checkpoints: not necessarily one.
        """
        self._enter(CLOSED)
        inner = self._below()
        if inner is not None:
            await release_once(inner, clean=clean)

    @property
    def unsent_bytes(self) -> int:
        """How many accepted bytes have not reached the innermost transport, over all layers.

        Still valid after the writer was closed. A writer that holds bytes back overrides it and
        adds ``inner.unsent_bytes``.
        """
        inner = self._below()
        return 0 if inner is None else inner.unsent_bytes

    # ---- The await shell: what every writer gets -------------------------------------------

    async def write(self, data: Buffer) -> int:
        """Write some of ``data``: one :meth:`poll_write` that succeeds.

        Args:
            data: any contiguous bytes-like object.

        Returns:
            How many bytes were accepted: 1 to all of them, and 0 only if ``data`` is empty.

        Raises:
            TypeError: if ``data`` is not bytes-like.
            BufferError: if ``data`` is a view with gaps.
            WriteZeroError: if the writer is full for good.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: nothing happened; not a byte was accepted.
        Checkpoints: if the transport was touched, and at least once in every 128 calls of
            the run otherwise.

        Source: ``AsyncWriteExt::write``.
        """
        budget = self._budget
        if type(data) is bytes and len(data) < self._room and budget.left and not self._busy:
            budget.left -= 1
            return self.poll_write(data)
        return await self._write_data(self._poll_write_once, data, self._room)

    async def write_all(self, data: Buffer) -> None:
        """Write all of ``data``. It may end in a buffer: see :meth:`flush`, :meth:`send_all`.

        Args:
            data: any contiguous bytes-like object.

        Raises:
            TypeError: if ``data`` is not bytes-like.
            BufferError: if ``data`` is a view with gaps.
            WriteZeroError: if the writer is full for good.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: lost, as the call has no place to say how much was accepted; for that,
            use :meth:`write_all_buf`. (Data that fits into a buffer is taken whole or not at
            all.)
        Checkpoints: if the transport was touched, and at least once in every 128 calls of
            the run otherwise.

        Source: ``AsyncWriteExt::write_all``.
        """
        budget = self._budget
        if type(data) is bytes and len(data) < self._room and budget.left and not self._busy:
            budget.left -= 1
            self.poll_write(data)
            return
        await self._write_data(self._poll_write_whole, data, self._room)

    async def write_buf(self, buf: Buf) -> int:
        """Write some of ``buf``, and advance it past exactly what was accepted.

        Args:
            buf: the cursor to write from. Several parts are offered in one gathered call.

        Returns:
            How many bytes were accepted: at least 1, and 0 only if ``buf`` is at its end.

        Raises:
            TypeError: if ``buf`` is not a :class:`Buf`.
            WriteZeroError: if the writer is full for good.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: nothing happened; ``buf`` has not moved.
        Checkpoints: if the transport was touched, and at least once in every 128 calls of
            the run otherwise.

        Source: ``AsyncWriteExt::write_buf``.
        """
        return await self._write_from(buf, self._poll_write_buf)

    async def write_all_buf(self, buf: Buf) -> None:
        """Write all of ``buf``, and advance it past exactly what was accepted.

        Args:
            buf: the cursor to write from. Several parts leave in one gathered call.

        Raises:
            TypeError: if ``buf`` is not a :class:`Buf`.
            WriteZeroError: if the writer is full for good.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: resumable; ``buf`` stands where the next call goes on, also when the
            call has failed.
        Checkpoints: if the transport was touched, and at least once in every 128 calls of
            the run otherwise.

        Source: ``AsyncWriteExt::write_all_buf``.
        """
        await self._write_from(buf, self._poll_write_all)

    async def write_vectored(self, buffers: Sequence[Buffer]) -> int:
        """Write some of ``buffers``: one :meth:`poll_write_vectored` that succeeds.

        Args:
            buffers: a sequence of contiguous bytes-like objects, in order.

        Returns:
            How many bytes were accepted, counted over the buffers; 0 only if all are empty.

        Raises:
            TypeError: if one of ``buffers`` is not bytes-like.
            BufferError: if one of ``buffers`` is a view with gaps.
            WriteZeroError: if the writer is full for good.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: nothing happened; not a byte was accepted.
        Checkpoints: if the transport was touched, and at least once in every 128 calls of
            the run otherwise.

        Source: ``AsyncWriteExt::write_vectored``.
        """
        buf = Buf(*buffers)
        try:
            return await self.write_buf(buf)
        finally:
            buf.release()

    async def write_all_vectored(self, buffers: Sequence[Buffer]) -> None:
        """Write all of ``buffers``, gathered: a header and a body leave in one call.

        Args:
            buffers: a sequence of contiguous bytes-like objects, in order.

        Raises:
            TypeError: if one of ``buffers`` is not bytes-like.
            BufferError: if one of ``buffers`` is a view with gaps.
            WriteZeroError: if the writer is full for good.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: lost, as the call has no place to say how much was accepted; for that,
            use ``write_all_buf(Buf(*buffers))``.
        Checkpoints: if the transport was touched, and at least once in every 128 calls of
            the run otherwise.

        Source: ``Write::write_all_vectored`` of Rust's standard library.
        """
        buf = Buf(*buffers)
        try:
            await self.write_all_buf(buf)
        finally:
            buf.release()

    async def write_struct(self, format: str, /, *values: Any) -> None:
        """Pack ``values`` and write them all: ``write_struct("!HI", 7, 42)``.

        Args:
            format: a format of the :mod:`struct` module.
            *values: what it packs.

        Raises:
            struct.error: if ``values`` do not fit ``format``; nothing was accepted.
            WriteZeroError: if the writer is full for good.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: lost, as with :meth:`write_all`; behind a buffer that it fits into, it is
            taken whole or not at all.
        Checkpoints: if the transport was touched, and at least once in every 128 calls of
            the run otherwise.

        Source: ``AsyncWriteExt::write_u16`` and its like.
        """
        await self.write_all(struct.pack(format, *values))

    async def flush(self) -> None:
        """Wait until all bytes accepted so far have been handed to the innermost transport.

        After a completed shutdown there is nothing left to do, and it returns.

        Raises:
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if the writer is closed, or another task closes it while
                this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: resumable; what did not go yet stays queued.

        Source: ``AsyncWriteExt::flush``.
        """
        self._claim(writing=False)
        try:
            await self._drive(_ready if self._phase is ENDED else self.poll_flush)
        finally:
            self._busy = False

    async def shutdown(self) -> None:
        """Flush, then end the stream: the peer reads everything, and then end-of-file.

        From its first poll on nothing more can be written. The read half, if there is one,
        stays open. Once complete, calling it again does nothing.

        Raises:
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if the writer is closed, or another task closes it while
                this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: resumable; call it again and it goes on where it was.

        Source: ``AsyncWriteExt::shutdown``.
        """
        self._claim(writing=False)
        try:
            await self._drive(_ready if self._phase is ENDED else self._poll_end)
        finally:
            self._busy = False

    async def send_all(self, data: Buffer) -> None:
        """Write all of ``data`` and flush: when it returns, the bytes have left this process.

        This is Trio's contract, strictly, so a buffered writer stays correct wherever a plain
        :class:`trio.abc.SendStream` was expected.

        Args:
            data: any contiguous bytes-like object.

        Raises:
            TypeError: if ``data`` is not bytes-like.
            BufferError: if ``data`` is a view with gaps.
            WriteZeroError: if the writer is full for good.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: lost, as Trio's signature has no place to say how much was accepted; for
            that, use :meth:`write_all_buf` and :meth:`flush`.

        Source: :meth:`trio.abc.SendStream.send_all`.
        """
        await self._write_data(self._poll_send_whole, data, 0)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until a write might be accepted at once; it may return too early, never late.

        Raises:
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: nothing happened.

        Source: :meth:`trio.abc.SendStream.wait_send_all_might_not_block`.
        """
        self._claim()
        try:
            await self._drive(self._poll_ready)
        finally:
            self._busy = False

    async def aclose(self) -> None:
        """Shut down as far as the caller's time allows, then release the transport, always.

        The shutdown is polled at least once, even in a scope that is already cancelled: what
        the kernel takes at once still goes out. Another task that waits in this writer gets
        :exc:`trio.ClosedResourceError`; one that is closing it too is waited for, or, if this
        call is cancelled, cut short. Once closed, calling it again does nothing.

        Raises:
            trio.BrokenResourceError: if the shutdown finds the transport failed, and the caller
                has not been told before. The writer is closed all the same.
            trio.ClosedResourceError: if another task cut this call's shutdown short, or this call
                waited for another task's, which failed or was cancelled.

        Cancellation: lost, for what the transport did not take at once: closing without waiting
            is what a cancelled close is for. A :exc:`ResourceWarning` says how many bytes, and
            :attr:`unsent_bytes` keeps the count; :meth:`shutdown` first is resumable.

        Source: :meth:`trio.abc.AsyncResource.aclose`.
        """
        if self._closing is not None and not self._released:
            await self._join_closing(self._closing)
        elif self._released or self._phase is CLOSED:
            if self._releasing is not None:  # a layer above is about it
                with trio.CancelScope(shield=True):
                    await self._releasing.wait()
            await trio.lowlevel.checkpoint()
        else:
            await self._close()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the writer; what the block raised is never replaced by what closing raises."""
        try:
            await self.aclose()
        except (Exception, trio.Cancelled):  # noqa: ASYNC103 - the block's own one is raised
            if exc_value is None:
                raise

    def by_ref(self) -> ByRef[Self]:
        """A borrowed handle, whose own shutdown and close leave this writer open.

        Source: ``AsyncWriteExt::by_ref``, and ``&mut T`` as a writer.
        """
        return ByRef(self)

    # ---- For the writers of this library ---------------------------------------------------

    def _below(self) -> AsyncWrite | None:
        inner: AsyncWrite | None = getattr(self, "inner", None)
        return inner

    def _refuse(self) -> NoReturn:
        """Raise what a writer that is not OPEN answers to a write."""
        if self._phase is BROKEN:
            raise trio.BrokenResourceError(f"{self!r} has failed before") from self._failure
        raise trio.ClosedResourceError(f"{self!r} was shut down or closed")

    def _check_open(self) -> None:
        if self._phase is not OPEN:
            self._refuse()

    def _check_usable(self) -> None:
        if self._phase is BROKEN or self._phase is CLOSED:
            self._refuse()

    def _enter(self, phase: Phase) -> None:
        self._phase = phase

    def _begin_shutdown(self) -> bool:
        """Enter ENDING; False if there is nothing left to do."""
        if self._phase is ENDED:
            return False
        self._check_usable()
        self._enter(ENDING)
        return True

    def _fail(self, exc: BaseException) -> None:
        """Remember that the transport failed. Misuse, a closed or a slow writer are no failures."""
        if isinstance(exc, (trio.ClosedResourceError, trio.BusyResourceError, trio.TooSlowError)):
            return
        if self._phase is OPEN or self._phase is ENDING:
            self._enter(BROKEN)
            is_ours = isinstance(exc, trio.BrokenResourceError) and exc.__cause__ is not None
            self._failure = exc.__cause__ if is_ours else exc

    def _poll_inner(self, poll: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
        """Poll the writer below; if it fails, this layer has failed, too."""
        try:
            return poll(*args)
        except NotReady:
            raise
        except BaseException as exc:
            self._fail(exc)
            raise

    def _shows_truncation(self) -> bool:
        """Whether nothing accepted is lost, and the peer sees without a reset that it is no end.

        A reset would destroy what is still on its way.
        """
        inner = self._below()
        return inner is not None and not self.unsent_bytes and inner._shows_truncation()

    def _poll_ready(self) -> None:
        """Raise NotReady if a write would surely not be accepted now."""
        inner = self._below()
        if inner is not None:
            inner._poll_ready()

    # ---- Polls that the shell makes of the writer's own ------------------------------------

    # Ctrl-C must not fall between what was accepted and the cursor that says so.
    @trio.lowlevel.enable_ki_protection
    def _poll_write_buf(self, buf: Buf) -> int:
        if buf.is_contiguous():
            count = self.poll_write(buf.chunk())
        else:
            # What stays in a buffer is taken whole, and in one go.
            limit = None if buf.remaining < self._room else _PARTS_PER_POLL
            count = self.poll_write_vectored(buf.chunks(limit))
        buf.advance(accepted(count, buf.remaining, self))
        return count

    # Most data is accepted whole and at once, and needs no cursor. For what does not, polls that
    # have to write all of it put one into ``rest``.
    def _poll_write_once(self, data: bytes | memoryview, rest: list[Buf]) -> int:
        count = self.poll_write(data)
        return count if count == len(data) else accepted(count, len(data), self)

    def _poll_write_whole(self, data: bytes | memoryview, rest: list[Buf]) -> None:
        if not rest:
            count = self._poll_write_once(data, rest)
            if count == len(data):
                return
            rest.append(Buf(memoryview(data)[count:]))
        self._poll_write_all(rest[0])

    def _poll_send_whole(self, data: bytes | memoryview, rest: list[Buf]) -> None:
        if rest[0].remaining if rest else data:
            self._poll_write_whole(data, rest)
        try:
            self.poll_flush()
        except NotReady:
            if not rest:
                rest.append(Buf())
            raise

    def _poll_write_all(self, buf: Buf) -> None:
        for _ in range(_POLLS_PER_TURN):
            self._poll_write_buf(buf)
            if not buf.remaining:
                return
        raise NotReady(trio.lowlevel.checkpoint)

    def _poll_end(self) -> None:
        # The phase is moved here, too, for writers whose own polls do not keep one.
        if self._phase is OPEN:
            self._enter(ENDING)
        self.poll_shutdown()
        self._enter(ENDED)

    # ---- The shell itself ------------------------------------------------------------------

    def _claim(self, *, writing: bool = True) -> None:
        """Make this task the one inside the writer."""
        # Before Busy: a task that the close has woken may not have left yet.
        if self._closing is not None or self._phase is CLOSED:
            raise trio.ClosedResourceError(f"{self!r} is closed, or being closed")
        if self._busy:
            raise trio.BusyResourceError(f"another task is using {self!r}")
        if writing:
            self._check_open()
        else:
            self._check_usable()
        self._busy = True

    async def _charge(self, size: int) -> bool:
        """Charge a write that stays clear of the transport; whether it still does."""
        self._budget = await spend(self._budget)
        return size < self._room

    async def _write_data(
        self, poll: Callable[[bytes | memoryview, list[Buf]], T], data: Buffer, room: int
    ) -> T:
        """Write ``data``; what is shorter than ``room`` costs a call of the budget only."""
        self._claim()
        view: bytes | memoryview = b""
        rest: list[Buf] = []
        try:
            view = data if type(data) is bytes else byte_view(data)
            if len(view) < room and await self._charge(len(view)):
                return poll(view, rest)
            return await self._drive(poll, view, rest)
        finally:
            self._busy = False
            for buf in rest:
                buf.release()
            if type(view) is memoryview:
                view.release()

    async def _write_from(self, buf: Buf, poll: Callable[[Buf], T]) -> T:
        if not isinstance(buf, Buf):
            raise TypeError(f"expected a Buf, got {type(buf).__name__}")
        self._claim()
        try:
            size = buf.remaining
            if size < self._room and await self._charge(size):
                return poll(buf)
            return await self._drive(poll, buf)
        finally:
            self._busy = False

    @trio.lowlevel.enable_ki_protection
    async def _drive(self, poll: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
        """Poll until it is ready: the whole of the shell, and a full checkpoint."""
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while True:
            try:
                result = poll(*args)
                break
            except NotReady as not_ready:
                wait = not_ready.wait
            except BaseException as exc:
                self._fail(exc)
                raise
            await self._wait(wait)
            waited = True
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return result

    async def _wait(self, wait: Callable[[], Awaitable[object]]) -> None:
        with trio.CancelScope() as scope:
            self._waiting += (scope,)
            try:
                await wait()
            except Exception as exc:
                self._fail(exc)
                raise
            finally:
                self._waiting = tuple(one for one in self._waiting if one is not scope)
        if scope.cancel_called or self._phase is CLOSED:
            raise trio.ClosedResourceError(f"another task closed {self!r}")

    def _end_waits(self) -> None:
        """Wake all who wait in this writer, to find it closed."""
        for scope in self._waiting:
            scope.cancel()
        if self._closing is not None and self._closing.scope is not None:
            self._closing.scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def _close(self) -> None:
        self._end_waits()
        self._closing = closing = _Closing()
        # A failure is remembered only once it was raised, so the caller knows this one.
        told = self._phase is BROKEN
        error: Exception | None = None
        clean = False
        cut_short = True
        try:
            try:
                clean = await self._finish(closing) and not told
            except Exception as exc:  # noqa: BLE001 - raised below, after the release
                error = exc
            finally:
                closing.failed = not clean and not told
                try:
                    with trio.CancelScope(shield=True):
                        await release_once(self, clean=clean or self._shows_truncation())
                except Exception as exc:  # noqa: BLE001 - raised below
                    error = error or exc
                finally:
                    self._closing = None
                    closing.done.set()
            await trio.lowlevel.checkpoint()
            cut_short = False
            if told:
                return
            if error is not None:
                raise error
            if not clean:
                raise trio.ClosedResourceError(f"another task closed {self!r} meanwhile")
        finally:
            del error
            if cut_short and not told:  # by a cancellation or Ctrl-C
                self._report_lost(closing)

    async def _finish(self, closing: _Closing) -> bool:
        """Poll the shutdown to its end; False if another task does not let us wait for it."""
        while True:
            try:
                self._poll_end()
                return True
            except NotReady as not_ready:
                wait = not_ready.wait
            with trio.CancelScope() as closing.scope:
                await wait()
            if self._released or closing.scope.cancelled_caught:
                return False

    async def _join_closing(self, closing: _Closing) -> None:
        """Wait for the other task's aclose; if cancelled, cut it short."""
        try:
            await closing.done.wait()
        except trio.Cancelled:
            if not closing.done.is_set():
                with contextlib.suppress(Exception), trio.CancelScope(shield=True):
                    await release_once(self, clean=False)
                self._report_lost(closing)
            raise
        if closing.failed:
            raise trio.ClosedResourceError(f"another task's aclose of {self!r} did not succeed")

    def _report_lost(self, closing: _Closing) -> None:
        """Warn of the bytes that a close without their delivery has lost."""
        if not closing.reported:
            closing.reported = True
            _LastWords(self)

    def _warn_unsent(self, count: int, how: str) -> None:
        if count > 0:  # a layer need not count all that the one below it does
            warnings.warn(
                f"{self!r} {how}: {count} bytes that it had accepted were never sent",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __del__(self) -> None:
        if self._phase is not CLOSED:
            inner = self._below()
            try:
                count = self.unsent_bytes - (0 if inner is None else inner.unsent_bytes)
            except AttributeError:
                return  # its __init__ did not get far enough to accept anything
            self._warn_unsent(count, "was garbage-collected")


_SHELLS_OWN = {
    name for name in vars(AsyncWrite) if name.startswith("_") and not name.startswith("__")
} - {"_abc_impl", "_poll_ready"}  # the second is made to be overridden


class AsyncReadWrite(AsyncWrite, trio.abc.HalfCloseableStream):
    """A writer that can be read from as well: a :class:`trio.abc.HalfCloseableStream`.

    To an :class:`AsyncWrite` it adds ``receive_some``, which you write, and :meth:`send_eof`,
    provided. Reading and writing do not get in each other's way.

    Source: ``AsyncRead + AsyncWrite``.
    """

    async def send_eof(self) -> None:
        """The same as :meth:`AsyncWrite.shutdown`, under the name that Trio gives it.

        Raises:
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if the writer is closed, or another task closes it while
                this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: resumable; call it again and it goes on where it was.

        Source: :meth:`trio.abc.HalfCloseableStream.send_eof`.
        """
        await self.shutdown()


@final
class ByRef(AsyncWrite, Generic[W]):
    """A borrowed write handle: what ``&mut writer`` is in Rust. Made by :meth:`AsyncWrite.by_ref`.

    Shutting it down or closing it flushes, ends the handle and leaves the original open. (Rust's
    would shut the original down; ``async with`` makes that a trap in Python.)

    Args:
        inner: the writer to borrow.
    """

    def __init__(self, inner: W) -> None:
        self.inner: W = inner

    @property
    def _room(self) -> int:  # type: ignore[override]
        return self.inner._room if self._phase is OPEN else 0

    # Who is inside the handle is inside the original: their messages do not mix, and closing
    # the original ends the wait.
    @property
    def _busy(self) -> bool:
        return self.inner._busy

    @_busy.setter
    def _busy(self, busy: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.inner._busy = busy

    async def _wait(self, wait: Callable[[], Awaitable[object]]) -> None:
        await super()._wait(functools.partial(self.inner._wait, wait))

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Pass the buffers on, gathered. See :meth:`AsyncWrite.poll_write_vectored`."""
        self._check_open()
        return self._poll_inner(self.inner.poll_write_vectored, buffers)

    def _poll_write_buf(self, buf: Buf) -> int:
        """See the base. How many parts make a message, the original knows."""
        self._check_open()
        return self._poll_inner(self.inner._poll_write_buf, buf)

    def poll_shutdown(self) -> None:
        """Flush the original and end this handle. See :meth:`AsyncWrite.poll_shutdown`."""
        if self._begin_shutdown():
            self._poll_inner(self.inner.poll_flush)
            self._enter(ENDED)

    def _check_open(self) -> None:
        super()._check_open()
        self.inner._check_open()

    def _fail(self, exc: BaseException) -> None:
        """The failure is the original's; whether it is one, that one knows."""
        self.inner._fail(exc)
        if self.inner._phase is BROKEN:
            super()._fail(exc)

    def _report_lost(self, closing: _Closing) -> None:
        """Nothing is lost with a handle: what waits, waits in the original."""

    async def release(self, *, clean: bool) -> None:
        """End the handle; the original is not ours to release.

        Cancellation: nothing happened, since there is nothing to wait for.
        Checkpoints: none.
        """
        self._enter(CLOSED)

    def __repr__(self) -> str:
        return f"<ByRef of {self.inner!r}>"


def _ready() -> None:
    """The poll of what has nothing left to do."""


@trio.lowlevel.enable_ki_protection
async def release_once(writer: AsyncWrite, *, clean: bool) -> None:
    """Release ``writer``; while another task is doing it, wait for that one."""
    if writer._releasing is not None:
        await writer._releasing.wait()
    elif not writer._released:
        writer._released = True
        writer._releasing = done = trio.Event()
        writer._end_waits()
        try:
            await writer.release(clean=clean)
        finally:
            writer._enter(CLOSED)
            writer._failure = None
            writer._releasing = None
            done.set()
