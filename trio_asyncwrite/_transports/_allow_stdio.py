"""Files and file-like objects: whatever has ``write`` and ``flush``.

The file is called either inline, by the poll itself, or by a worker thread. One
:class:`_File` does the calling for both and knows no Trio; a :class:`_Job` is one call of it in
a thread. A job keeps its outcome until a poll collects it, so it does not matter whether the
task that waited for it is still there.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import stat
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, final

import trio
import trio.abc

from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._checks import accepted, byte_view
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._phase import CLOSED

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

#: The most that one poll takes: what Tokio copies for its worker thread. Inline it bounds how
#: long one call of a blocking file can keep all other tasks waiting.
_MAX_CHUNK: Final = 2 * 1024 * 1024

# How long to wait for a file that cannot be waited for, in seconds; doubled at each attempt. A
# millisecond is nothing to who reads the other end, ten attempts a second nothing to the CPU.
_MIN_PAUSE: Final = 0.001
_MAX_PAUSE: Final = 0.1

_NOTHING: Final = memoryview(b"")

T = TypeVar("T")


class BinaryFile(Protocol):
    """What :class:`AllowStdIo` writes to: any object with these two methods, in binary."""

    def write(self, data: bytes, /) -> int | None:
        """Take some of ``data`` and say how much."""

    def flush(self) -> object:
        """Pass on what is buffered."""


class _File:
    """The file itself, called from one thread at a time."""

    def __init__(self, file: BinaryFile) -> None:
        self.file = file
        # Any other has a buffer of its own; there may be something in it from before our time.
        self._is_buffered = not isinstance(file, (io.RawIOBase, io.BytesIO))
        self.needs_flush = self._is_buffered
        # How much of what it took since the last flush it still holds, it does not say.
        self.unflushed = 0
        self._truncated = False

    @property
    def closed(self) -> bool:
        return bool(getattr(self.file, "closed", False))

    # A file may block: Ctrl-C must get through, and does no more harm than any other error.
    @trio.lowlevel.disable_ki_protection
    def write(self, chunk: memoryview) -> int:
        """Write some of ``chunk``.

        Raises:
            BlockingIOError: if nothing can be written now.
        """
        file = self.file
        try:
            # Files know what they get; other people's objects may keep it, or want its methods.
            count = file.write(chunk if isinstance(file, io.IOBase) else bytes(chunk))  # type: ignore[arg-type]
        except BlockingIOError as exc:
            self._check_resumable(exc)
            count = getattr(exc, "characters_written", 0)
            if not count:
                raise
        if count is None:
            if isinstance(file, io.RawIOBase) or self.selectable() is not None:
                raise BlockingIOError(errno.EAGAIN, "the write would block")
            raise TypeError(
                f"{file!r}.write() returned None, which does not say whether it took the bytes: "
                f"it must return how many"
            )
        count = accepted(count, len(chunk), file)
        if self._is_buffered:
            self.needs_flush = True
            self.unflushed += count
        return count

    @trio.lowlevel.disable_ki_protection
    def flush(self) -> None:
        """Pass on what is buffered.

        Raises:
            BlockingIOError: if not all of it can be passed on now.
        """
        try:
            self.file.flush()
        except BlockingIOError as exc:
            self._check_resumable(exc)
            raise
        self.needs_flush = False
        self.unflushed = 0

    def give_up(self) -> None:
        """From now on, closing must not make a truncated file look complete."""
        self._truncated = not self.closed and _compresses(self.file)

    @trio.lowlevel.disable_ki_protection
    def close(self) -> None:
        """Close the file, without a trailer if we gave up."""
        try:
            if self._truncated:
                self._close_truncated()
            else:
                self.file.close()  # type: ignore[attr-defined]
                self.unflushed = 0
        except BlockingIOError as exc:
            raise trio.BrokenResourceError(
                f"{self.file!r} was closed with bytes in its buffer that would not go"
            ) from exc

    def _close_truncated(self) -> None:
        """Close a compressing file so that its trailer goes nowhere."""
        file: Any = self.file
        if hasattr(file, "myfileobj"):  # a GzipFile: what it has opened itself, which it closes
            file.fileobj = io.BytesIO()
            file.close()
        else:  # BZ2File and LZMAFile have had the same private names since Python 3.3
            below, is_owned = file._fp, file._closefp
            file._fp = io.BytesIO()
            file.close()
            if is_owned:
                below.close()

    def selectable(self) -> int | None:
        """The descriptor, if the kernel may be able to wait for it."""
        file: Any = self.file
        try:
            fd: int = file.fileno()
            mode = os.fstat(fd).st_mode
        except (AttributeError, OSError, TypeError, ValueError):
            return None
        return None if sys.platform == "win32" or stat.S_ISREG(mode) else fd

    def _check_resumable(self, exc: BlockingIOError) -> None:
        if _compresses(self.file):
            raise trio.BrokenResourceError(
                f"{self.file!r} lost bytes that it had compressed: the file below it must block"
            ) from exc


class _Job:
    """One call of the file in a worker thread, and what came of it."""

    def __init__(self, file: _File, rest: memoryview = _NOTHING) -> None:
        self._file = file
        #: How much was to be written, and what still is.
        self.size = len(rest)
        self.rest = rest
        self._error: BaseException | None = None
        #: For polls and other threads; a poll may see the end before the run is told of it.
        self.ended = threading.Event()
        #: For tasks.
        self.done = trio.Event()

    def start(self, call: Callable[[], None], *, after: _Job | None = None) -> None:
        token = trio.lowlevel.current_trio_token()

        def run() -> None:
            try:
                if after is not None:
                    after.ended.wait()
                call()
            except BaseException as exc:  # noqa: ASYNC103, BLE001 - for the next poll to raise
                self._error = exc

        def deliver(_: object) -> None:
            self.ended.set()
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self.done.set)

        trio.lowlevel.start_thread_soon(run, deliver)

    def write(self) -> None:
        """Write all of ``rest``, or as much of it as goes without blocking."""
        while self.rest:
            self.rest = self.rest[self._file.write(self.rest) :]

    def raise_error(self) -> None:
        """Raise what the call has raised, and let go of it."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # or this frame and the exception would keep each other alive


def _check_file(file: Any) -> None:
    """Refuse what can be seen beforehand to be the wrong thing."""
    if isinstance(file, trio.abc.AsyncResource):
        raise TypeError(f"{file!r} is asynchronous: use wrap_stream(), or the file below it")
    if isinstance(file, io.TextIOBase) or hasattr(file, "encoding"):
        raise TypeError(f"{file!r} is a text file: use its .buffer, or open it in binary mode")
    if not all(callable(getattr(file, name, None)) for name in ("write", "flush")):
        raise TypeError(f"expected an object with write() and flush(), got {type(file).__name__}")
    if getattr(file, "closed", False):
        raise ValueError(f"{file!r} is closed")
    if hasattr(file, "writable") and not file.writable():
        raise ValueError(f"{file!r} is not open for writing")


def _is_standard(file: object) -> bool:
    """Whether ``file`` is standard input, output or error, or what one of them writes to."""
    for name in ("stdin", "stdout", "stderr"):
        for stream in (getattr(sys, name), getattr(sys, f"__{name}__")):
            buffer = getattr(stream, "buffer", None)
            if any(file is each for each in (stream, buffer, getattr(buffer, "raw", None))):
                return True
    return False


def _compresses(file: object) -> bool:
    """Whether ``file`` is one of the standard library's, without importing their modules."""
    classes = (("gzip", "GzipFile"), ("bz2", "BZ2File"), ("lzma", "LZMAFile"))
    return any(
        isinstance(file, getattr(sys.modules.get(module), name, ())) for module, name in classes
    )


@final
class AllowStdIo(AsyncWrite):
    """A writer over a file object: standard output, a file on disk, ``io.BytesIO``, gzip.

    **Inline**, the default, each poll calls the file itself. A non-blocking file (one that
    raises :exc:`BlockingIOError`, or a raw one whose ``write`` returns ``None``) makes the
    writer wait. A blocking file simply blocks, and with it every other task of the run, for as
    long as one call takes (of at most 2 MiB): right for memory and usually for a local
    disk, wrong for a pipe or a terminal that somebody may stop reading.

    **With offload=True**, a write copies at most 2 MiB, accepts them, and a worker thread calls
    the file, one call at a time. What goes wrong there is raised by the next operation. A write
    costs a trip to the thread: put a :class:`BufWriter` in front of small ones.

    Waiting uses the file's ``fileno()`` where the kernel can wait for it (pipes, terminals,
    sockets); any other file is tried again after 1 ms, 2 ms, 4 ms ... up to 100 ms.

    The shutdown flushes. Closing closes the file, but not standard input, output and error.
    With ``offload=True`` that is done by a worker thread, too. A clean close waits for it; one
    that was cancelled or failed does not, and if a write is at work just then, the file is
    closed when it is through.

    The standard library's compressing files (gzip, bz2, lzma) get no trailer when the shutdown
    was cancelled or failed, so that a truncated file never looks complete. They need a blocking
    file below them: what they have compressed they cannot take back.

    Args:
        file: an object with ``write`` and ``flush``, binary. It may write less than it is given.
            One that is no :class:`io.IOBase` gets ``bytes``, any other a view of the data.
        offload: whether a worker thread calls the file.
        close: whether closing the writer closes the file. By default it does if the file has a
            ``close`` and is not one of ``sys.stdin``, ``stdout``, ``stderr``, or below one.

    Raises:
        TypeError: if ``file`` has no ``write`` and ``flush``, is a text file, or is asynchronous.
        ValueError: if ``file`` is closed, or not open for writing.

    Source: ``futures::io::AllowStdIo``, and ``tokio::io::Stdout`` for ``offload=True``.
    """

    def __init__(
        self, file: BinaryFile, *, offload: bool = False, close: bool | None = None
    ) -> None:
        _check_file(file)
        if close is None:
            close = hasattr(file, "close") and not _is_standard(file)
        self._file = _File(file)
        self._offload = offload
        self._close_file = close
        self._pause = _MIN_PAUSE
        # The thread's work, until a poll has seen its end.
        self._job: _Job | None = None
        # Accepted, and in no job: what a job has left when the file would have blocked.
        self._rest = _NOTHING

    @property
    def file(self) -> BinaryFile:
        """The file object."""
        return self._file.file

    @property
    def held_bytes(self) -> int:
        """What the thread has not written yet, and what the file may still hold.

        A file with a buffer of its own does not say how much is in it, so all that it took
        since the last flush counts, and if closing it fails, goes on counting.
        """
        rest = self._rest if self._job is None else self._job.rest
        return len(rest) + self._file.unflushed

    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Hand ``data`` to the file or to the thread. See :meth:`AsyncWrite.poll_write`.

        Raises:
            TypeError: if the file's ``write`` returns None without being non-blocking.
            WriteZeroError: if the file takes nothing.
            RuntimeError: if the file claims to have written more than it was given.
        """
        self._check_open()
        with byte_view(data) as view, view[:_MAX_CHUNK] as chunk:
            if self._offload:
                self._poll_idle()
                if chunk:
                    self._start_writing(memoryview(bytes(chunk)))
                return len(chunk)
            count = self._call(self._file.write, chunk) if chunk else 0
        self._pause = _MIN_PAUSE
        return count

    @trio.lowlevel.enable_ki_protection
    def poll_flush(self) -> None:
        """Flush the file. See :meth:`AsyncWrite.poll_flush`."""
        self._check_usable()
        if self._offload:
            self._poll_idle()
            if self._file.needs_flush:
                job = _Job(self._file)
                job.start(self._file.flush)
                self._job = job
                raise NotReady(job.done.wait)
        else:
            self._call(self._file.flush)
            self._pause = _MIN_PAUSE

    async def release(self, *, clean: bool) -> None:
        """Close the file, unless it is a standard one. See :meth:`AsyncWrite.release`.

        Raises:
            trio.BrokenResourceError: if closing fails: a disk may be found full only now.

        Cancellation: nothing happened, since it is not cancelled: the shell shields it.
        Checkpoints: if a thread closes the file, and ``clean`` is true.
        """
        self._enter(CLOSED)
        if not self._close_file:
            return
        if not clean:
            self._file.give_up()
        if self._offload:
            job = _Job(self._file)
            job.start(self._file.close, after=self._job)
            # To close is to flush, and that may wait for a peer: it must not when not clean.
            if clean:
                await job.done.wait()
                self._call(job.raise_error)
        else:
            fd = self._file.selectable()
            if fd is not None:
                trio.lowlevel.notify_closing(fd)
            self._call(self._file.close)

    def _poll_ready(self) -> None:
        self._check_open()
        if self._offload:
            self._poll_idle()
        fd = self._file.selectable()
        if fd is not None:
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            if not poller.poll(0):
                raise NotReady(self._wait_writable)

    def _start_writing(self, data: memoryview) -> _Job:
        job = _Job(self._file, data)
        job.start(job.write)
        # Only now: there may be no more threads to be had.
        self._job, self._rest = job, _NOTHING
        return job

    def _poll_idle(self) -> None:
        """Return when the thread has written everything that was accepted."""
        job = self._job
        if job is not None:
            if not job.ended.is_set():
                raise NotReady(job.done.wait)
            self._job, self._rest = None, job.rest
            if len(job.rest) < job.size:
                self._pause = _MIN_PAUSE
            self._call(job.raise_error)
            self._pause = _MIN_PAUSE
        if self._rest:
            raise NotReady(self._start_writing(self._rest).done.wait)

    def _call(self, call: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
        """Raise what ``call`` raises in Trio's words, and remember it."""
        try:
            try:
                return call(*args)
            except BlockingIOError:
                raise NotReady(self._wait_writable) from None
            except OSError as exc:
                raise trio.BrokenResourceError(f"{self!r}: {exc}") from exc
            except ValueError as exc:
                if not self._file.closed:
                    raise
                raise trio.ClosedResourceError(f"{self!r}: {exc}") from exc
        except NotReady:
            raise
        except BaseException as exc:
            self._fail(exc)
            raise

    async def _wait_writable(self) -> None:
        fd = self._file.selectable()
        if fd is not None:
            # Not everything with a descriptor can be waited for.
            with contextlib.suppress(OSError):
                await trio.lowlevel.wait_writable(fd)
                return
        await trio.sleep(self._pause)
        self._pause = min(2 * self._pause, _MAX_PAUSE)

    def __repr__(self) -> str:
        return f"<AllowStdIo over {self.file!r}>"
