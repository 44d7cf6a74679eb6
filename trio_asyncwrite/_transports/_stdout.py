"""Standard output and error, without a change that others would see.

Descriptors 1 and 2 belong to the whole process, and their open files to its parent as well. So
O_NONBLOCK is never changed, and the descriptors are never closed: every writer has a duplicate. How
it is written to depends on what it is:

============================ =========================================================
pipe, socket, ``/dev/null``  one call at a time without blocking (``_nowait.py``)
terminal, named pipe, older  an open file of its own, by ``/proc/self/fd``, which is made
kernels                      non-blocking
anything else                a worker thread
============================ =========================================================

A file is never opened again: the new one would begin at position 0, without O_APPEND. Nor is the
master of a pseudo-terminal: that would make another pair. Nor a socket, which cannot be.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING, Any, Final, Literal, final

import trio

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._budget import TRANSPORT_RATE
from trio_asyncwrite._core._checks import check_buffers, check_data
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._errors import CannotWriteNowait, NotReady
from trio_asyncwrite._core._stack import fail, poll_below, poll_step

from ._allow_stdio import AllowStdIo
from ._borrowed_socket import BorrowedSocket
from ._fd import check_byte_stream, is_terminal_master
from ._nowait import NowaitWriter, OwnDescriptor
from ._poll_evented import PollEvented

if sys.platform != "win32":  # pragma: no branch
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Sequence

_Name = Literal["stdout", "stderr"]

_TITLES: Final = {"stdout": "standard output", "stderr": "standard error"}


def stdout() -> AsyncWrite:
    """A writer to standard output: to descriptor 1, whatever ``sys.stdout`` is.

    What you write to it never blocks the run, however slow the reader is. It changes nothing that
    others see: not O_NONBLOCK, which belongs to the parent process as well, and closing it closes
    nothing but the writer. Make one, and use it as long as you like.

    What was printed before comes before: a write first flushes ``sys.stdout``, if that writes to
    the same descriptor. To print after a write, :meth:`~AsyncWrite.flush` the writer first.
    ``print`` itself, and the text of it that is still to be flushed, block as ever.

    If ``sys.stdout`` was replaced (``contextlib.redirect_stdout``, pytest's ``capsys``, a
    notebook), this still writes to the descriptor, as child processes do.

    A pipe, a socket or a terminal takes the bytes at once, or the write waits. A regular file, and
    what the system cannot write to without blocking, is written to by a worker thread as with
    ``AllowStdIo(offload=True)``: what goes wrong there is raised by the next operation, and you
    have to flush before the program ends, or a :exc:`ResourceWarning` says what is lost.

    Returns:
        The writer.

    Raises:
        OSError: if descriptor 1 is closed, or not open for writing, or was closed when the program
            began. (Then the number soon belongs to another file.)
        TypeError: if it is a packet socket.

    Source: ``tokio::io::stdout``; python-trio/trio#174, #1707.
    """
    return StandardWriter(1, "stdout")


def stderr() -> AsyncWrite:
    """A writer to standard error: to descriptor 2. See :func:`stdout`.

    Returns:
        The writer.

    Raises:
        OSError: if descriptor 2 is closed, or not open for writing, or was closed when the program
            began.
        TypeError: if it is a packet socket.

    Source: ``tokio::io::stderr``.
    """
    return StandardWriter(2, "stderr")


@final
class StandardWriter(AsyncWrite):
    """A writer to a descriptor that belongs to the whole process.

    Args:
        number: the descriptor.
        name: which of the streams of ``sys`` to flush before each write.
    """

    announces_held_bytes = True
    bytes_per_budget_unit: int | None = TRANSPORT_RATE

    inner: AsyncWrite
    _is_in_thread = False
    #: The files of ``sys`` at the last look, and those of them that print to the descriptor.
    _printing: tuple[Any, Any] = (None, None)
    _to_flush: Sequence[Any] = ()

    def __init__(self, number: int, name: _Name) -> None:
        self._number = number
        self._name: _Name = name
        self._first_name = f"__{name}__"
        if sys.platform == "win32":  # pragma: no cover
            # Not the number: the console takes text, which only Python's file makes of the bytes.
            file = getattr(sys, f"__{name}__").buffer
            self.inner = AllowStdIo(file, offload=True, close=False)
            return
        self._descriptor = _duplicate(number, name)
        status = os.fstat(number)
        is_device = stat.S_ISCHR(status.st_mode) and not os.isatty(number)
        is_stream = stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)
        if (is_device or is_stream) and hasattr(os, "RWF_NOWAIT"):
            self.inner = NowaitWriter(self._descriptor)
        else:
            self.inner = self._other_writer()

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Write after what was printed. See :meth:`AsyncWrite.poll_write`."""
        if type(data) is not bytes:
            check_data(data)
        return self._poll("poll_write", data)

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Write after what was printed. See :meth:`AsyncWrite.poll_write_vectored`."""
        check_buffers(buffers)
        return self._poll("poll_write_vectored", buffers)

    def _poll(self, name: str, data: object) -> int:
        if self.lifecycle.refusal is not None:
            self.lifecycle.check_write(self)
        self._flush_printed()
        inner = self.inner
        count: int
        try:
            count = poll_below(inner, getattr(inner, name), data)
        except CannotWriteNowait:
            # It is known only now: every kernel has some files that cannot be written to like that.
            inner = self.inner = self._other_writer()
        else:
            return count
        # Not in the handler, of which an error would carry the refusal along.
        count = poll_below(inner, getattr(inner, name), data)
        return count

    def _flush_printed(self) -> None:
        now, first = getattr(sys, self._name), getattr(sys, self._first_name)
        if now is not self._printing[0] or first is not self._printing[1]:
            self._printing = (now, first)
            self._to_flush = _files_over(self._number, self._printing)
        for file in self._to_flush:
            # Else the flush would block the run, as print does.
            poll_step(self.inner, "poll_ready")
            try:
                _flush(file)
            except BlockingIOError:  # somebody else has switched O_NONBLOCK on
                raise NotReady(trio.lowlevel.checkpoint) from None
            except OSError as exc:
                fail(self, exc)
            except ValueError:
                if not getattr(file, "closed", False):
                    raise

    def _other_writer(self) -> AsyncWrite:
        """What serves where a single call cannot be made non-blocking."""
        reopened = _reopen(self._descriptor)
        if reopened is not None:
            self._descriptor.close()
            return PollEvented(reopened)
        self._is_in_thread = True
        return AllowStdIo(_File(self._descriptor), offload=True, close=False)

    async def release(self, *, clean: bool) -> None:
        """Close the duplicate. See :meth:`AsyncWrite.release`.

        Cancellation: nothing happened, since there is nothing to wait for.
        Checkpoints: none.
        """
        # Otherwise the last user closes it: the thread that is at work, or the holder of this.
        if self._is_in_thread and not self.inner.loss_is_unknown:
            self._descriptor.close()

    @answer
    def epilogue(self) -> Epilogue:
        """Nothing: others may go on writing."""
        return Epilogue.NOTHING

    @answer
    def half_closes(self) -> bool:
        """No: the reader sees the end when all have closed it."""
        return False

    def __repr__(self) -> str:
        return f"<{_TITLES[self._name]}, {self.inner!r}>"


@final
class _File(io.FileIO):
    """A descriptor that lives as long as a thread may write to it."""

    def __init__(self, descriptor: OwnDescriptor) -> None:
        super().__init__(descriptor.fileno(), "wb", closefd=False)
        self._descriptor = descriptor


def _duplicate(number: int, name: _Name) -> OwnDescriptor:
    """Another descriptor of the same open file: it stays ours when the number is closed or reused.

    Raises:
        OSError: if it cannot be written to.
        TypeError: if it is a packet socket.
    """
    title = f"{_TITLES[name]} (descriptor {number})"
    try:
        status = os.fstat(number)
    except OSError:
        raise OSError(errno.EBADF, f"{title} is closed") from None
    if getattr(sys, f"__{name}__") is None:
        raise OSError(
            errno.EBADF,
            f"{title} was closed when the program began, so it may be any other file by now",
        )
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, f"{title} is not open for writing")
    # With a default timeout, Python's socket would switch O_NONBLOCK on.
    if stat.S_ISSOCK(status.st_mode) and socket.getdefaulttimeout() is None:
        check_byte_stream(BorrowedSocket(number))
    return OwnDescriptor(os.dup(number))


def _reopen(descriptor: OwnDescriptor) -> OwnDescriptor | None:
    """An open file of our own for a terminal or pipe, non-blocking; None if there is none."""
    number = descriptor.fileno()
    status = os.fstat(number)
    is_terminal = os.isatty(number) and not is_terminal_master(status)
    # Elsewhere there is /dev/fd, which makes duplicates only.
    if sys.platform == "linux" and (is_terminal or stat.S_ISFIFO(status.st_mode)):
        # It may belong to another user, as after su; a named pipe may have no reader any more.
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            reopened = OwnDescriptor(os.open(f"/proc/self/fd/{number}", flags))
            if os.path.samestat(os.fstat(reopened.fileno()), status):
                return reopened
    return None


def _files_over(number: int, files: tuple[Any, Any]) -> list[Any]:
    """Those of ``sys.stdout`` and ``sys.__stdout__`` that print to the descriptor.

    In tests, notebooks and the like, print goes elsewhere.
    """
    found: list[Any] = []
    for file in files[:1] if files[0] is files[1] else files:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, or closed
            if file.fileno() == number:
                found.append(file)
    return found


# It may block: Ctrl-C must get through.
@trio.lowlevel.disable_ki_protection
def _flush(file: Any) -> None:
    file.flush()
