"""Files and file-like objects: whatever has ``write`` and ``flush``.

The file is called either inline, by the poll itself, or by a worker thread. One
:class:`StdFile` does the calling for both and knows no Trio; a :class:`Job` is one call of it in
a thread.
"""

from __future__ import annotations

import contextlib
import select
from typing import TYPE_CHECKING, Final, TypeVar, final

import trio

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._budget import TRANSPORT_RATE
from trio_asyncwrite._core._checks import byte_view
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._errors import ClosedRefusal, NotReady
from trio_asyncwrite._core._lifecycle import ENDED
from trio_asyncwrite._core._stack import begin_shutdown, fail

from ._advice import advice
from ._std_file import StdFile, check_file, is_standard
from ._worker_thread import NOTHING, Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeVarTuple, Unpack

    from ._std_file import BinaryFile

    Ts = TypeVarTuple("Ts")

#: The most that one poll takes: what Tokio copies for its worker thread. Inline it bounds how
#: long one call of a blocking file can keep all other tasks waiting.
_MAX_CHUNK: Final = 2 * 1024 * 1024

# How long to wait for a file that cannot be waited for, in seconds; doubled at each attempt. A
# millisecond is nothing to who reads the other end, ten attempts a second nothing to the CPU.
_MIN_PAUSE: Final = 0.001
_MAX_PAUSE: Final = 0.1

T = TypeVar("T")


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
    With ``offload=True`` a worker thread closes the file, after the write that may be at work. A
    clean close waits for the thread. A close that was cancelled or failed does not, so nobody knows
    whether the bytes that the thread still has reach the file: a :exc:`ResourceWarning` says that
    they may be lost, and how many they are.

    Files that compress (gzip, bz2, lzma, a member of a zip archive) write their trailer when they
    are closed, and cannot be asked not to. So a file that was cut short looks complete: look at
    the warning or the report of its close. They need a blocking file below them, because they
    cannot take back the bytes that they have compressed.

    Some files (bz2, lzma, a member of a zip archive, :class:`io.BufferedWriter` over one that
    compresses) do not flush until they are closed. Over these, a flush returns and has not handed
    over all bytes: :attr:`unsent_bytes` counts them until the file is closed.

    Args:
        file: an object with ``write`` and ``flush``, binary. It may write less than it is given.
            One that is no :class:`io.IOBase` gets ``bytes``, any other a view of the data.
        offload: whether a worker thread calls the file.
        close: whether closing the writer closes the file. By default it does if the file has a
            ``close`` and is not one of ``sys.stdin``, ``stdout``, ``stderr``, or below one.

    Raises:
        TypeError: if ``file`` has no ``write`` and ``flush``, is a text file, or is asynchronous.
            The message names the constructor that takes the object, if there is one.
        ValueError: if ``file`` is closed, or not open for writing.

    Source: ``futures::io::AllowStdIo``, and ``tokio::io::Stdout`` for ``offload=True``.
    """

    def __init__(
        self, file: BinaryFile, *, offload: bool = False, close: bool | None = None
    ) -> None:
        try:
            check_file(file)
        except TypeError as exc:
            raise TypeError(f"{exc}{advice(file)}") from None
        if close is None:
            close = hasattr(file, "close") and not is_standard(file)
        self._file = StdFile(file)
        self._offload = offload
        self._close_file = close
        self._pause = _MIN_PAUSE
        # The thread's work, until a poll has seen its end.
        self._job: Job | None = None
        # Accepted, and in no job: the rest of a job whose file would have blocked. The count is
        # for the finaliser, which must not touch the view.
        self._rest = NOTHING
        self._left = 0
        # Closes the file, after the other job.
        self._closing_job: Job | None = None
        # Whether it was closed inline; a file is closed once, also if that fails.
        self._was_closed = False

    @property
    def file(self) -> BinaryFile:
        """The file object."""
        return self._file.file

    announces_held_bytes = True
    bytes_per_budget_unit: int | None = TRANSPORT_RATE

    @property
    def held_bytes(self) -> int:
        """The bytes that the thread has not written yet, and those that the file may still hold.

        A file with a buffer does not say how many bytes are in it, so all that it took since the
        last flush count; over a file whose flush does nothing (bz2, lzma), all that it took. They
        count until the file is closed, and go on counting if closing it fails.
        """
        left = self._left if self._job is None else self._job.left
        if not self._close_file and self.lifecycle.phase is ENDED:
            return left  # what the file holds is its owner's business
        return left + self._file.held

    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Hand ``data`` to the file or to the thread. See :meth:`AsyncWrite.poll_write`.

        Raises:
            TypeError: if the file's ``write`` returns None without being non-blocking.
            WriteZeroError: if the file takes nothing.
            RuntimeError: if the file claims to have written more than it was given.
        """
        self.lifecycle.check_write(self)
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
        """Flush the file, as far as it can. See :meth:`AsyncWrite.poll_flush`."""
        self.lifecycle.check_flush(self)
        if self._offload:
            self._poll_idle()
            if self._file.needs_flush:
                job = Job(self._file)
                job.start(self._file.flush)
                self._job = job
                raise NotReady(job.wait)
        else:
            self._call(self._file.flush)
            self._pause = _MIN_PAUSE

    @trio.lowlevel.enable_ki_protection
    def poll_shutdown(self) -> None:
        """Flush. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            self.poll_flush()
            self.lifecycle.end()

    @trio.lowlevel.enable_ki_protection
    def poll_close(self) -> None:
        """Close the file, if that is wanted. See :meth:`AsyncWrite.poll_close`.

        A compressing file writes its trailer when it is closed, and a disk may be found full only
        then.
        """
        if not self._close_file:
            return
        if not self._offload:
            self._close_inline()
            return
        job = self._start_closing()
        if not job.ended.is_set():
            raise NotReady(job.wait)
        self._call(job.raise_error)

    def _close_inline(self) -> None:
        if self._was_closed:
            return
        try:
            fd = self._file.selectable()
            if fd is not None:
                trio.lowlevel.notify_closing(fd)
        finally:
            try:
                self._call(self._file.close)
            except Exception:
                self._was_closed = True
                raise
        # Not after Ctrl-C: the release tries again.
        self._was_closed = True

    def _start_closing(self) -> Job:
        if self._closing_job is None:
            job = Job(self._file)
            job.start(self._file.close, after=self._job)
            self._closing_job = job
        return self._closing_job

    async def release(self, *, clean: bool) -> None:
        """Close the file, if that was not done yet. See :meth:`AsyncWrite.release`.

        Raises:
            trio.BrokenResourceError: if closing fails.

        Cancellation: nothing happened, since there is nothing to wait for: a thread closes the
            file after the call that is at work.
        Checkpoints: none.
        """
        if not self._close_file:
            return
        if self._offload:
            try:
                self._start_closing()
                return
            except RuntimeError:  # no thread to be had
                if self._job is not None and not self._job.ended.is_set():
                    raise
        try:
            self._close_inline()
        except trio.BrokenResourceError as exc:
            # Of bytes that would not go, the warning tells: they still count as held.
            if clean or not isinstance(exc.__cause__, BlockingIOError):
                raise

    @answer
    def epilogue(self) -> Epilogue:
        """Only the file knows: a compressing one writes its trailer when it is closed."""
        return Epilogue.WITH_CLOSE if self._close_file else Epilogue.NOTHING

    @answer
    def loss_is_unknown(self) -> bool:
        """Whether a thread is still at work, for which nobody waits any more."""
        jobs = (self._job, self._closing_job)
        return any(job is not None and not job.ended.is_set() for job in jobs)

    def poll_ready(self) -> None:
        """Ask the thread, or the kernel. See :meth:`AsyncWrite.poll_ready`."""
        self.lifecycle.check_write(self)
        if self._offload:
            self._poll_idle()
        fd = self._file.selectable()
        if fd is not None:
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            if not poller.poll(0):
                raise NotReady(self._wait_writable)

    def _start_writing(self, data: memoryview) -> Job:
        job = Job(self._file, data)
        job.start(job.write)
        # Only now: there may be no more threads to be had.
        self._job, self._rest, self._left = job, NOTHING, 0
        return job

    def _poll_idle(self) -> None:
        """Return when the thread has written everything that was accepted."""
        job = self._job
        if job is not None:
            if not job.ended.is_set():
                raise NotReady(job.wait)
            self._job, self._rest, self._left = None, job.rest, job.left
            if job.left < job.size:
                self._pause = _MIN_PAUSE
            self._call(job.raise_error)
            self._pause = _MIN_PAUSE
        if self._rest:
            if self._file.closed:
                raise ClosedRefusal(f"{self!r}: write to closed file")
            raise NotReady(self._start_writing(self._rest).wait)

    def _call(self, call: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
        """Raise an error of ``call`` in Trio's words."""
        try:
            return call(*args)
        except BlockingIOError:
            raise NotReady(self._wait_writable) from None
        except OSError as exc:
            fail(self, exc)
            raise AssertionError from None  # pragma: no cover - fail() raises for an OSError
        except ValueError as exc:
            if not self._file.closed:
                raise
            raise ClosedRefusal(f"{self!r}: {exc}") from exc

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
        return f"<AllowStdIo over {self._file!r}>"
