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

**The shell is one loop**, ``drive`` in ``_shell.py``. Every await of the trait is a poll handed to
it; those that need several polls (``write_all``, ``send_all``) are made into one poll first, whose
progress is kept in a call object.

**Writes draw on a budget**, ``_budget.py``, and skip the scheduler until it is spent. **Calls that
stay in a buffer skip the loop, too.** A writer promises with ``spare_capacity`` that its next
poll_write takes anything *shorter* whole, without touching the transport. Such a call asks one
flag: the budget that the layer's lifecycle has in ``fast`` is a spent one unless the layer is open,
whole, and nobody is inside.

**State** is in one object, the lifecycle (``_lifecycle.py``). What layers tell each other is in
``_stack.py``, how they end together in ``_close.py``.

**Ctrl-C** is held off from where it could fall between what was done and the field that says
so; Trio raises it at the next wait instead. (``enable_ki_protection`` is a mark on the code
object and costs nothing per call. It covers what is called from there, too: polls of yours.)
"""

from __future__ import annotations

import inspect
import struct
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar, final

import trio.abc

from . import _shell, _write_file
from ._answer import answer
from ._async_read import AsyncRead
from ._budget import FAST_SIZE
from ._buf import Buf
from ._checks import accepted, check_buffers, check_data, checked_buffers
from ._epilogue import Epilogue
from ._errors import NotReady
from ._file_part import FilePart, check_part
from ._layer import Layer, overrides
from ._shell import (
    SOME,
    WHOLE,
    Message,
    go_on_after,
    poll_at_once,
    write_from,
    write_message,
)
from ._stack import (
    begin_shutdown,
    call_poll,
    contains,
    fail,
    find_inner,
    is_layer,
    poll_below,
    poll_step,
    shut_down,
    writing_chain,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer, Self

    from ._file_part import SupportsFileno

W = TypeVar("W", bound="AsyncWrite")


class AsyncWrite(Layer, trio.abc.SendStream):
    """A byte sink: three polls that you write, and all the awaits, provided.

    Every writer of this library is one, and so is yours: override :meth:`poll_write`, and
    :meth:`poll_flush`, :meth:`poll_shutdown`, :meth:`poll_write_vectored` and :meth:`release`
    where the defaults do not fit. A writer that wraps another one puts it into an attribute
    ``inner``; the defaults then pass everything on to it, so that a simple wrapper overrides
    one method. There is no ``__init__`` to call. See :doc:`own_writer`.

    The library does the rest: it checks arguments, keeps two tasks apart, waits, closes, and
    remembers failures. Check your writer with
    :func:`trio_asyncwrite.testing.check_async_write`.

    At the end of an ``async with writer:`` block the writer is closed. If the block raises an
    exception, that one is raised, even if closing fails.

    Source: ``tokio_io::AsyncWrite`` and ``tokio::io::AsyncWriteExt``.
    """

    is_writer = True
    #: With ``spare_capacity = n``, :meth:`poll_write` accepts any data of fewer than n bytes
    #: completely, without touching the transport: the fast path. A writer with a buffer sets it,
    #: at any time, as a plain attribute.
    spare_capacity: int = 0
    #: How many bytes this layer, with all below it, takes in about a microsecond: what a poll pays
    #: :ref:`the budget <budget>`. Say it if you define :meth:`poll_write`; the library asks once.
    #: With ``None``, a layer that inherits :meth:`poll_write` is as fast as ``inner``. Any other is
    #: taken for a slow one: 256.
    bytes_per_budget_unit: int | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Not by assignment, which type checkers take for a declaration.
        for name in ("poll_close", "poll_flush_side", "poll_shutdown", "poll_write"):
            setattr(cls, f"overrides_{name}", overrides(cls, name, AsyncWrite))

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
            TypeError: if the class defines neither this method nor ``inner``, or ``data`` is not
                bytes-like.
            BufferError: if ``data`` is a view with gaps.
            trio.ClosedResourceError: if a shutdown or close has begun.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Source: ``AsyncWrite::poll_write``.
        """
        lifecycle = self.lifecycle
        if lifecycle.refusal is not None:
            lifecycle.check_write(self)
        inner = lifecycle.inner
        if inner is None:
            inner = find_inner(self)
        if inner is None:
            if lifecycle.odd_inner is not None:
                _refuse_inner(self, lifecycle.odd_inner)
            _check_for_hidden_inner(self, "poll_write")
            raise TypeError(
                f"{type(self).__name__} must define poll_write(), or set self.inner to a writer"
            )
        if type(data) is not bytes:
            check_data(data)
        # poll_below() spelt out, to spare every write through a layer one more call.
        try:
            return inner.poll_write(data)  # type: ignore[attr-defined, no-any-return]
        except NotReady:
            raise
        except BaseException as exc:
            fail(_as_writer(self, inner), exc)
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
            TypeError: if ``buffers`` is not a sequence of bytes-like objects.
            BufferError: if one of them is a view with gaps.
            trio.ClosedResourceError: if a shutdown or close has begun.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Source: ``AsyncWrite::poll_write_vectored``.
        """
        if self.keeps_messages:
            # Its parts must not become messages of their own.
            return self.poll_write(b"".join(checked_buffers(buffers)))
        for data in checked_buffers(buffers):
            check_data(data)
            if len(data):
                return self.poll_write(data)
        return self.poll_write(b"")

    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        """Accept bytes of a file now, or raise :exc:`NotReady`.

        The default reads them and hands them to :meth:`poll_write`, so a layer that looks at the
        bytes or changes them need not override it. If :meth:`poll_write` is not overridden either,
        the layer below is asked. A transport lets the kernel send the file, as ``sendfile`` does.

        Whoever calls it moves ``part`` past the bytes, by :meth:`FilePart.advance`.

        Args:
            part: what to send. The bytes begin at :attr:`FilePart.offset`.
            limit: how many bytes to accept at most; at least 1.

        Returns:
            How many bytes were accepted; 0 only at the end of the part or of the file.

        Raises:
            NotReady: if nothing can be accepted now, or nothing is in memory to be read. If the
                file cannot be read at all, the *wait* raises the error, so it breaks no writer.
            TypeError: if ``part`` is not a :class:`FilePart`, or ``limit`` is not an integer.
            ValueError: if ``limit`` is less than 1.
            trio.ClosedResourceError: if a shutdown or close has begun.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Source: sendfile(2); ``io.ReaderFrom`` of Go, by which its ``io.Copy`` finds it.
        """
        lifecycle = self.lifecycle
        if lifecycle.refusal is not None:
            lifecycle.check_write(self)
        check_part(part, limit)
        # Not the class: an object may have a poll of its own.
        if getattr(self.poll_write, "__func__", None) is AsyncWrite.poll_write:
            inner = find_inner(self)
            if inner is not None:
                writer = _as_writer(self, inner)
                return poll_below(writer, writer.poll_write_file, part, limit)
        data = part.poll_read(limit)
        return accepted(self.poll_write(data), len(data), self) if data else 0

    def poll_flush_side(self, lower: object, /) -> None:
        """Pass on what is held for ``lower``, whatever else is held.

        Called when ``lower`` is closed, and another layer below is not. Override it in a layer that
        writes to several streams, together with :meth:`Layer.held_for`; then a close of one stream
        does not wait for the others, and they get what is held for them when this layer is closed.
        The default is :meth:`poll_flush`, which needs all of them.

        Args:
            lower: one of the layers directly below; whoever closes it flushes it afterwards.

        Raises:
            NotReady: if some of these bytes cannot go now.
            trio.BrokenResourceError: if the writer has failed, now or before.
        """
        self.poll_flush()

    def poll_flush(self) -> None:
        """Return when all bytes accepted so far have been handed to the innermost transport.

        Bytes that did not go yet stay queued, in order.

        Raises:
            NotReady: if some bytes cannot go now.
            trio.ClosedResourceError: if the writer is closed.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Source: ``AsyncWrite::poll_flush``.
        """
        lifecycle = self.lifecycle
        if lifecycle.refusal is not None:
            lifecycle.check_flush(self)
        inner = lifecycle.inner
        if inner is None and not lifecycle.has_no_inner:
            inner = find_inner(self)
        if inner is not None:
            poll_step(_as_writer(self, inner), "poll_flush")
        elif not lifecycle.has_no_inner:
            if lifecycle.odd_inner is not None:
                _refuse_inner(self, lifecycle.odd_inner)
            _check_for_hidden_inner(self, "poll_flush")

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
        if begin_shutdown(self):
            call_poll(self, "poll_flush")
            lifecycle = self.lifecycle
            inner = lifecycle.inner
            if inner is None and not lifecycle.has_no_inner:
                inner = find_inner(self)
            if inner is not None:
                shut_down(_as_writer(self, inner))
            elif not lifecycle.has_no_inner:
                _check_for_hidden_inner(self, "poll_shutdown")
            lifecycle.end()

    def poll_close(self) -> None:
        """The last poll of a clean close, once every layer is shut down; by default, nothing.

        For a layer whose epilogue comes with the close of something that is not ours.

        Raises:
            NotReady: until it is complete.
            trio.BrokenResourceError: if it fails.
        """

    def poll_ready(self) -> None:
        """Return if a write would probably be accepted now.

        Raises:
            NotReady: if it surely would not.
            trio.ClosedResourceError: if a shutdown or close has begun.
            trio.BrokenResourceError: if the writer has failed, now or before, or is torn.
        """
        self.lifecycle.check_write(self)
        inner = find_inner(self)
        if inner is not None:
            poll_step(_as_writer(self, inner), "poll_ready")

    @answer
    def epilogue(self) -> Epilogue:
        """What it writes at its proper end; data, if you override :meth:`poll_shutdown`."""
        inherited = type(self).poll_shutdown is AsyncWrite.poll_shutdown
        return Epilogue.NOTHING if inherited else Epilogue.DATA

    # ---- The await shell: what every writer gets -------------------------------------------

    # Ctrl-C must not fall between what was accepted and the cursor that says so.
    @trio.lowlevel.enable_ki_protection
    async def write(self, data: Buffer) -> int:
        """Write some of ``data``: one :meth:`poll_write` that succeeds.

        Args:
            data: any contiguous bytes-like object.

        Returns:
            How many bytes were accepted: 1 to all of them, and 0 only if ``data`` is empty.

        Raises:
            TypeError: if ``data`` is not bytes-like.
            BufferError: if ``data`` is a view with gaps.
            WriteZeroError: if the writer is full, and waiting would not help.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: nothing happened; not a byte was accepted.
        Checkpoints: if it waits, or if :ref:`the budget <budget>` is spent.

        Source: ``AsyncWriteExt::write``.
        """
        lifecycle = self.lifecycle
        budget = lifecycle.fast
        if type(data) is bytes and budget.left:
            if FAST_SIZE > len(data) < self.spare_capacity:
                budget.left -= 1
                try:
                    count = self.poll_write(data)
                except NotReady:
                    pass  # against its promise
                except BaseException as exc:
                    fail(self, exc)
                    raise
                else:
                    if count == len(data):
                        return count
                    return await go_on_after(self, data, count, SOME)
            elif lifecycle.is_simple and lifecycle.rate:
                count, wait = poll_at_once(self, data)
                if wait is None:
                    return count
                return await go_on_after(self, data, count, SOME, wait)
        return await write_message(self, Message(data, SOME))

    @trio.lowlevel.enable_ki_protection
    async def write_all(self, data: Buffer) -> None:
        """Write all of ``data``. It may end in a buffer: see :meth:`flush`, :meth:`send_all`.

        Args:
            data: any contiguous bytes-like object.

        Raises:
            TypeError: if ``data`` is not bytes-like.
            BufferError: if ``data`` is a view with gaps.
            WriteZeroError: if the writer is full, and waiting would not help.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: lost, as the call has no place to say how much was accepted; for that,
            use :meth:`write_all_buf`. (Data that fits into a buffer is taken whole or not at
            all.)
        Checkpoints: if it waits, or if :ref:`the budget <budget>` is spent.

        Source: ``AsyncWriteExt::write_all``.
        """
        # As in write(). One function for both would add a fifth to the time of a small write.
        lifecycle = self.lifecycle
        budget = lifecycle.fast
        if type(data) is bytes and budget.left:
            if FAST_SIZE > len(data) < self.spare_capacity:
                budget.left -= 1
                try:
                    count = self.poll_write(data)
                except NotReady:
                    pass  # against its promise
                except BaseException as exc:
                    fail(self, exc)
                    raise
                else:
                    if count != len(data):
                        await go_on_after(self, data, count, WHOLE)
                    return
            elif lifecycle.is_simple and lifecycle.rate:
                count, wait = poll_at_once(self, data)
                if count != len(data) or wait is not None:
                    await go_on_after(self, data, count, WHOLE, wait)
                return
        await write_message(self, Message(data, WHOLE))

    async def write_buf(self, buf: Buf) -> int:
        """Write some of ``buf``, and advance it past exactly what was accepted.

        Args:
            buf: the cursor to write from. Several parts are offered in one gathered call.

        Returns:
            How many bytes were accepted: at least 1, and 0 only if ``buf`` is at its end.

        Raises:
            TypeError: if ``buf`` is not a :class:`Buf`.
            WriteZeroError: if the writer is full, and waiting would not help.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: nothing happened; ``buf`` has not moved.
        Checkpoints: if it waits, or if :ref:`the budget <budget>` is spent.

        Source: ``AsyncWriteExt::write_buf``.
        """
        return await write_from(self, buf, whole=False)

    async def write_all_buf(self, buf: Buf) -> None:
        """Write all of ``buf``, and advance it past exactly what was accepted.

        Args:
            buf: the cursor to write from. Several parts leave in one gathered call.

        Raises:
            TypeError: if ``buf`` is not a :class:`Buf`.
            WriteZeroError: if the writer is full, and waiting would not help.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: resumable; ``buf`` stands where the next call goes on, also when the
            call has failed.
        Checkpoints: if it waits, or if :ref:`the budget <budget>` is spent.

        Source: ``AsyncWriteExt::write_all_buf``.
        """
        await write_from(self, buf, whole=True)

    async def write_vectored(self, buffers: Sequence[Buffer]) -> int:
        """Write some of ``buffers``: one :meth:`poll_write_vectored` that succeeds.

        Args:
            buffers: a sequence of contiguous bytes-like objects, in order.

        Returns:
            How many bytes were accepted, counted over the buffers; 0 only if all are empty.

        Raises:
            TypeError: if one of ``buffers`` is not bytes-like.
            BufferError: if one of ``buffers`` is a view with gaps.
            WriteZeroError: if the writer is full, and waiting would not help.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: nothing happened; not a byte was accepted.
        Checkpoints: if it waits, or if :ref:`the budget <budget>` is spent.

        Source: ``AsyncWriteExt::write_vectored``.
        """
        buf = Buf(*checked_buffers(buffers))
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
            WriteZeroError: if the writer is full, and waiting would not help.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: lost, as the call has no place to say how much was accepted; for that,
            use ``write_all_buf(Buf(*buffers))``.
        Checkpoints: if it waits, or if :ref:`the budget <budget>` is spent.

        Source: ``Write::write_all_vectored`` of Rust's standard library.
        """
        buf = Buf(*checked_buffers(buffers))
        try:
            await write_from(self, buf, whole=True, resumable=False)
        finally:
            buf.release()

    async def write_struct(self, format: str, /, *values: Any) -> None:
        """Pack ``values`` and write them all: ``write_struct("!HI", 7, 42)``.

        Args:
            format: a format of the :mod:`struct` module.
            *values: what it packs.

        Raises:
            struct.error: if ``values`` do not fit ``format``; nothing was accepted.
            WriteZeroError: if the writer is full, and waiting would not help.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: lost, as with :meth:`write_all`; behind a buffer that it fits into, it is
            taken whole or not at all.
        Checkpoints: if it waits, or if :ref:`the budget <budget>` is spent.

        Source: ``AsyncWriteExt::write_u16`` and its like.
        """
        await self.write_all(struct.pack(format, *values))

    async def write_all_file(self, part: FilePart) -> None:
        """Write all of a part of a file, and move it past exactly what was accepted.

        Over a bare socket or pipe, the kernel sends the file: its bytes are never in this process.

        Args:
            part: what to send. Its file must stay open.

        Raises:
            TypeError: if ``part`` is not a :class:`FilePart`.
            EOFError: if the part has a ``count``, and the file ends before. What there is was
                accepted, and the part stands at the end of the file.
            OSError: if the file cannot be read.
            ValueError: if the file is closed.
            WriteZeroError: if the writer is full, and waiting would not help.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: resumable; ``part`` stands where the next call goes on, also when the
            call has failed. Until that has finished it, other writes are refused.

        Source: sendfile(2).
        """
        await _write_file.write_all_file(self, part)

    async def send_file(
        self, file: int | SupportsFileno, offset: int = 0, count: int | None = None
    ) -> None:
        """Write a file and flush: when it returns, the bytes have left this process.

        Args:
            file: a file that is open for reading in binary; see :class:`FilePart`.
            offset: where to begin, in bytes from the start of the file. Its own position is neither
                used nor moved.
            count: how many bytes to send. None: up to the end.

        Raises:
            TypeError: if ``file`` is not a binary file, or ``offset`` or ``count`` not an integer.
            EOFError: if there is a ``count``, and the file ends before. What there is was accepted.
            OSError: if the file cannot be read.
            ValueError: if the file is closed or cannot be read from, or a number is out of range.
            WriteZeroError: if the writer is full, and waiting would not help.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: lost, as the call has no place to say how much was accepted; for that,
            use :meth:`write_all_file` and :meth:`flush`.

        Source: :meth:`socket.socket.sendfile`; ``loop.sendfile`` of asyncio.
        """
        await _write_file.send_file(self, FilePart(file, offset, count))

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
        await _shell.flush(self)

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
        await _shell.shutdown(self, sends=False)

    async def send_all(self, data: Buffer) -> None:
        """Write all of ``data`` and flush: when it returns, the bytes have left this process.

        This is Trio's contract, strictly, so a buffered writer stays correct wherever a plain
        :class:`trio.abc.SendStream` was expected.

        Args:
            data: any contiguous bytes-like object.

        Raises:
            TypeError: if ``data`` is not bytes-like.
            BufferError: if ``data`` is a view with gaps.
            WriteZeroError: if the writer is full, and waiting would not help.
            trio.BusyResourceError: if another task is inside this writer.
            trio.ClosedResourceError: if a shutdown or close has begun, or another task closes
                the writer while this one waits.
            trio.BrokenResourceError: if the writer has failed, now or before.

        Cancellation: lost, as Trio's signature has no place to say how much was accepted; for
            that, use :meth:`write_all_buf` and :meth:`flush`.

        Source: :meth:`trio.abc.SendStream.send_all`.
        """
        await _shell.send(self, data)

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
        lift = _shell.claim(self, writing=True)
        try:
            await _shell.drive(self, call_poll, self, "poll_ready", lift=lift)
        finally:
            _shell.leave(self)

    def by_ref(self) -> ByRef[Self]:
        """A borrowed handle, whose own shutdown and close leave this writer open.

        Source: ``AsyncWriteExt::by_ref``, and ``&mut T`` as a writer.
        """
        return ByRef(self)


class AsyncReadWrite(AsyncWrite, AsyncRead, trio.abc.HalfCloseableStream):
    """A writer that can be read from as well: a :class:`trio.abc.HalfCloseableStream`.

    It is an :class:`AsyncWrite` and an :class:`AsyncRead`. You write the polls of both. One close
    ends both. It adds :meth:`send_eof`. One task can read while another one writes.

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
        await _shell.shutdown(self, sends=True)


@final
class ByRef(AsyncWrite, Generic[W]):
    """A borrowed write handle: what ``&mut writer`` is in Rust. Made by :meth:`AsyncWrite.by_ref`.

    Shutting it down or closing it flushes, ends the handle and leaves the original open. (Rust's
    would shut the original down; ``async with`` makes that a trap in Python.)

    Args:
        inner: the writer to borrow.
    """

    announces_held_bytes = True

    def __init__(self, inner: W) -> None:
        self.inner: W = inner
        # Who is inside the handle is inside the original: their messages do not mix.
        lower, lifecycle = inner.lifecycle, self.lifecycle
        lifecycle.original = lower.original or lower
        if lower.refusal is not None:
            lifecycle.update()

    def owns_below(self, is_closing: Callable[[object], bool]) -> bool:
        """The original is not closed with the handle."""
        return False

    @property
    def can_be_torn(self) -> bool:  # type: ignore[override]
        """As the original."""
        return self.inner.can_be_torn

    @property
    def spare_capacity(self) -> int:  # type: ignore[override]
        """The original's."""
        return self.inner.spare_capacity

    @answer
    def shows_truncation(self) -> bool:
        """A handle has no end of its own that the peer could see."""
        return False

    @answer
    def half_closes(self) -> bool:
        """The peer does not see the end of a handle."""
        return False

    @answer
    def epilogue(self) -> Epilogue:
        """Nothing: it flushes."""
        return Epilogue.NOTHING

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Pass the buffers on, gathered. See :meth:`AsyncWrite.poll_write_vectored`."""
        self.lifecycle.check_write(self)
        check_buffers(buffers)
        return poll_below(self.inner, self.inner.poll_write_vectored, buffers)

    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        """Pass the file on. See :meth:`AsyncWrite.poll_write_file`."""
        self.lifecycle.check_write(self)
        check_part(part, limit)
        return poll_below(self.inner, self.inner.poll_write_file, part, limit)

    def poll_shutdown(self) -> None:
        """Flush the original and end this handle. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            poll_step(self.inner, "poll_flush")
            self.lifecycle.end()

    def __repr__(self) -> str:
        return f"<ByRef of {self.inner!r}>"


def _check_for_hidden_inner(layer: Layer, poll: str) -> None:
    """Raise if ``layer`` inherits ``poll`` and keeps a writer elsewhere than in ``inner``.

    Nothing would be passed on to that writer. Otherwise it is not looked for again.

    Raises:
        TypeError: names the class and the attribute.
    """
    cls = type(layer)
    if layer.announces_held_bytes:
        layer.lifecycle.has_no_inner = True
        return  # one of the library's
    if getattr(cls, poll) is not getattr(AsyncWrite, poll):
        return
    names = () if layer.foreign_below else (*vars(layer), *_slots_of(cls))
    for name in names:
        value: Any = getattr(layer, name, None)
        if isinstance(value, trio.abc.SendStream) and not (
            # A layer above.
            is_layer(value) and contains(writing_chain(value), layer)  # type: ignore[arg-type]
        ):
            raise TypeError(
                f"{cls.__name__} keeps a writer in self.{name}: name it self.inner, so that "
                f"{poll}() is passed on to it, or define {poll}()"
            )
    layer.lifecycle.has_no_inner = not layer.overrides_inner


def _slots_of(cls: type) -> tuple[str, ...]:
    """The names in ``__slots__`` of a class and its bases. To find them takes 50 us."""
    slots = _SLOTS.get(cls)
    if slots is None:
        slots = _SLOTS[cls] = tuple(
            name
            for base in cls.__mro__
            for name, member in vars(base).items()
            if inspect.ismemberdescriptor(member)
        )
    return slots


#: What :func:`_slots_of` has found.
_SLOTS: Final[weakref.WeakKeyDictionary[type, tuple[str, ...]]] = weakref.WeakKeyDictionary()


def _as_writer(layer: Layer, inner: object) -> AsyncWrite:
    """``inner``, if it can be written to.

    Raises:
        TypeError: names the class whose ``inner`` is something else.
    """
    if getattr(inner, "is_writer", None) is not True:  # isinstance() takes ten times as long
        _refuse_inner(layer, inner)
    return inner  # type: ignore[return-value]


def _refuse_inner(layer: Layer, inner: object) -> NoReturn:
    raise TypeError(
        f"the inner of {type(layer).__name__} must be an AsyncWrite to pass writes on, it is a "
        f"{type(inner).__name__}: use wrap_stream()"
    )
