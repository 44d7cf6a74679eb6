"""Libraries that write to a file, over a writer: from a worker thread.

Theory of operation
===================

``function`` runs in a worker thread and writes to an :class:`io.BufferedWriter`. Whenever that is
full, the thread stops in ``_Raw.write``, and the task that waits for the thread hands the bytes to
the writer: that is the back-pressure. A trip takes 0.1 ms, so a small piece is kept for the next
one: for example the header of a zip member, which a BufferedWriter hands over before the member.

**All output is one message**, so the writer is claimed, or the first place in its line is kept,
until the end; ``_Output`` is the message's progress, which a close finds in the lifecycle.

**Nothing is written twice.** A BufferedWriter offers bytes again when writing them has failed, and
a function may go on after that. So a failure is kept, nothing is accepted after it, and it is
raised at the end in any case.
"""

from __future__ import annotations

import inspect
import io
from typing import TYPE_CHECKING, Final, TypeVar, cast, final

import trio
import trio.abc

from trio_asyncwrite._core._budget import rate_of
from trio_asyncwrite._core._checks import checked_buffer_size, counted
from trio_asyncwrite._core._lifecycle import Call
from trio_asyncwrite._core._shell import (
    WHOLE,
    Message,
    claim,
    drive,
    leave,
    poll_flush,
    poll_message,
)
from trio_asyncwrite._core._stack import resumed, settle, warn_unraisably
from trio_asyncwrite._transports._wrap_stream import wrap_stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from typing_extensions import Buffer, TypeVarTuple, Unpack

    from trio_asyncwrite._core._async_write import AsyncWrite

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")

#: A trip from the thread to the run costs 60 to 110 us. With this many bytes a trip, a zip archive
#: of 20,000 small writes took as long as into memory; with 64 KiB three times as long (measured).
_DEFAULT_SIZE: Final = 262144

#: What is written at once is larger than the buffer and passes it by. It is copied in pieces.
_PIECE_SIZE: Final = 1 << 20


@trio.lowlevel.enable_ki_protection
async def write_from_thread(
    writer: trio.abc.SendStream,
    function: Callable[[io.BufferedWriter, Unpack[Ts]], T],
    *args: Unpack[Ts],
    buffer_size: int = _DEFAULT_SIZE,
    limiter: trio.CapacityLimiter | None = None,
) -> T:
    """Call ``function(file, *args)`` in a worker thread, and write all that it writes to ``file``.

    For libraries that write to a file: tarfile, zipfile, csv, json, pickle. The thread is stopped
    while the writer does not take more, so memory stays bounded.

    All that the function writes is one message. While it runs, another task that writes gets
    :exc:`trio.BusyResourceError`, or waits if ``writer`` is a :class:`SharedWriter`. If the
    function raises, what is still in the file's buffer is dropped; and if a part of its output was
    accepted before, the writer is torn: it refuses everything but its close, and its end is a
    truncated one. So an archive that was cut short cannot look complete, even if its library has
    written a valid end while the exception passed.

    ``file`` is an :class:`io.BufferedWriter` that cannot seek or tell. Its ``flush`` flushes the
    writer as well. Closing it flushes, and leaves the writer open. Only the function's thread may
    write to it, and only until the function returns. If you put a text file over it, flush that
    before; what is written later raises :exc:`ValueError`, and a :exc:`ResourceWarning` says that
    it is lost.

    Errors of the writer reach the function as they are, and not as :exc:`OSError`; the
    standard library treats them alike. Once a write has failed, the call fails, even if the
    function goes on.

    Args:
        writer: where to write; it goes through :func:`wrap_stream`.
        function: what to call. It may use ``trio.from_thread``.
        *args: its other arguments.
        buffer_size: how many bytes to collect before they are handed to the writer, at most 1 GiB.
            A larger write goes past the buffer, in pieces of 1 MiB at most, or of this size if that
            is more. So the memory is that of one piece, and one and a half buffers.
        limiter: limits how many threads run at once, as with ``trio.to_thread.run_sync``.

    Returns:
        What the function has returned. By then all of its output has left this process.

    Raises:
        TypeError: if ``writer`` cannot be sent to, or ``function`` is not a plain function.
        ValueError: if ``buffer_size`` is less than 1 or more than 1 GiB.
        WriteZeroError: if the writer is full, and waiting would not help.
        trio.BusyResourceError: if another task is inside this writer.
        trio.ClosedResourceError: if a shutdown or close has begun, or another task closes the
            writer meanwhile.
        trio.BrokenResourceError: if the writer has failed, now or before.
        Exception: what the function raises.

    Cancellation: lost: the thread cannot be cancelled, but ``Cancelled`` is raised in it at its
        next write or flush, and the writer is torn if a part of the output was accepted.

    Source: ``tokio_util::io::SyncIoBridge``.
    """
    target = wrap_stream(writer)
    buffer_size = checked_buffer_size(buffer_size)
    is_callable: bool = callable(function)
    if not is_callable or inspect.iscoroutinefunction(function):
        _refuse(function)
    rate_of(target)
    lift = claim(target, writing=True)
    output = _Output()
    lifecycle = target.lifecycle
    lifecycle.add_call(output)
    line = lifecycle.line
    turn = None
    raw = _Raw(target, output, lift, buffer_size)
    try:
        file = _File(raw, buffer_size)  # which takes that memory
        if line is not None:
            turn = line.enter()
            await drive(target, line.check, turn, lift=lift, has_turn=True)
            line.holder = trio.lowlevel.current_task()
        result = await trio.to_thread.run_sync(_call, file, raw, function, args, limiter=limiter)
        raw.raise_error()
        await raw.write_kept()
        output.flushing = output.sends = True
        await raw.flush_target()
        resumed(target)
        output.is_done = True
        return cast("T", result)
    finally:
        raw.is_over = True  # also if no thread was to be had
        raw.failure = None  # its traceback refers to us
        if line is not None and turn is not None:
            if line.holder is trio.lowlevel.current_task():
                line.holder = None
            line.leave(turn)
        is_ours = lifecycle.remove_call(output)
        try:
            if not output.is_done and is_ours:
                settle(target, output, closed=lifecycle.is_closed(reading=False))
        finally:
            leave(target)


@final
class _Output(Call):
    """The progress of a message whose size is not known before its end."""

    __slots__ = ("is_done",)

    #: Nobody else knows the rest of it.
    is_kept = False

    def __init__(self) -> None:
        super().__init__(0)
        self.is_done = False

    def cut_text(self) -> str:
        if not self.accepted or self.flushing:
            return ""
        count = counted(self.accepted, "byte")
        return f"write_from_thread() was cut short after {count} of its output had been accepted"


def _call(
    file: _File,
    raw: _Raw,
    function: Callable[[io.BufferedWriter, Unpack[Ts]], T],
    args: tuple[Unpack[Ts]],
) -> T | None:
    """Call the function, in the worker thread; then nothing can be written to the file."""
    result: T | None = None
    try:
        result = function(file, *args)
        if inspect.iscoroutine(result):
            result.close()
            _refuse(function)
        if raw.failure is None and not file.closed:
            io.BufferedWriter.flush(file)  # without the writer, which is flushed later
    except BaseException as exc:  # noqa: ASYNC103, BLE001 - raised by the task
        # Not by this call: a frame of Trio's would keep the exception, and so everything, alive.
        raw.error = exc
    else:
        # If the function has seen it, it went on. The collector, which closes text files, drops it.
        raw.error = raw.failure
    raw.is_over = True
    if raw.error is not None:
        file.close()  # drops what is buffered
        return None
    file.refuse_writes()
    return result


def _refuse(function: object) -> NoReturn:
    raise TypeError(f"expected a plain function, which is called in a thread, got {function!r}")


def _write_too_late(data: Buffer, /) -> NoReturn:
    with memoryview(data) as view:
        size = counted(view.nbytes, "byte")
    text = f"{size} were written to the file of write_from_thread() after its function had returned"
    # Before Python 3.13, the collector, which closes a text file, drops the error.
    warn_unraisably(f"{text}, and are lost: flush in the function", None)
    raise ValueError(text)


@final
class _File(io.BufferedWriter):
    """What the function writes to."""

    def __init__(self, raw: _Raw, buffer_size: int) -> None:
        super().__init__(raw, buffer_size)
        self._raw = raw

    def flush(self) -> None:
        """Hand over what is buffered, and flush the writer."""
        super().flush()
        self._raw.flush_writer()

    def refuse_writes(self) -> None:
        """Let nobody write any more.

        It is not closed: the collector would pass over a text file above it that was not flushed.
        """
        setattr(self, "write", _write_too_late)  # noqa: B010 - hidden from type checkers

    def detach(self) -> NoReturn:
        """Refuse it: what is in the buffer has to be dropped after a failure."""
        raise io.UnsupportedOperation("detach")


@final
class _Raw(io.RawIOBase):
    """The writer as a file without a buffer, for a worker thread."""

    #: As the files of open() have it; gzip looks at it.
    mode = "wb"

    def __init__(self, target: AsyncWrite, output: _Output, lift: object, buffer_size: int) -> None:
        self._target = target
        self._output = output
        self._lift = lift
        self._piece_size = max(buffer_size, _PIECE_SIZE)
        # What goes with the next trip; and how many bytes that may be.
        self._kept = bytearray()
        self._limit = buffer_size // 2
        #: The first failure of a write or flush.
        self.failure: BaseException | None = None
        #: What the call has raised, or will raise.
        self.error: BaseException | None = None
        #: Whether nothing is written any more, and what comes is dropped.
        self.is_over = False

    def raise_error(self) -> None:
        """Raise what the call of the function has raised, and let go of it."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # or this frame and the exception would keep each other alive

    def writable(self) -> bool:
        """Yes; and it can neither be read nor seek."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Keep ``data``, or let the task write some of it, and wait until that is done."""
        with (
            memoryview(data) as view,
            view.cast("B") as octets,
            octets[: self._piece_size] as piece,
        ):
            size = len(piece)
            if self.is_over:
                return size
            kept = self._kept
            if len(kept) + size <= self._limit and self.failure is None:
                kept += piece
                return size
            # A copy: the bytes of a BufferedWriter are not kept alive by a view of them.
            copy = b"".join((kept, piece))
        trio.from_thread.run(self._write, copy)
        return size

    def flush_writer(self) -> None:
        """Let the task flush the writer, and wait until that is done."""
        if not self.is_over:
            trio.from_thread.run(self._flush)

    @trio.lowlevel.enable_ki_protection
    async def _write(self, data: bytes) -> None:
        """Write ``data``, in the task; what was kept is at its front."""
        self._kept = bytearray()
        await self._drive(self._poll, Message(data, WHOLE), is_full=False)

    @trio.lowlevel.enable_ki_protection
    async def _flush(self) -> None:
        await self.write_kept()
        await self.flush_target()

    async def write_kept(self) -> None:
        """Write what was kept, in the task."""
        if self._kept:
            await self._write(bytes(self._kept))

    async def flush_target(self) -> None:
        """Flush the writer, in the task."""
        await self._drive(poll_flush, self._target, is_full=True)

    async def _drive(
        self, poll: Callable[[Unpack[Ts]], object], *args: Unpack[Ts], is_full: bool
    ) -> None:
        target = self._target
        try:
            # A write may stay in a buffer and be no checkpoint.
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check()
            await drive(target, poll, *args, lift=self._lift, is_full=is_full, has_turn=True)
        except BaseException as exc:
            if self.failure is None:
                self.failure = exc
            raise

    def _check(self) -> None:
        if self.failure is not None:
            raise trio.BrokenResourceError(
                f"{self._target!r}: a write of this function has failed before: {self.failure!r}"
            ) from self.failure
        if self._lift is None and self._target.lifecycle.refusal is not None:
            self._target.lifecycle.refuse(self._target)

    def _poll(self, message: Message) -> None:
        before = message.accepted
        try:
            poll_message(self._target, message)
        finally:
            self._output.accepted += message.accepted - before
