"""A part of a file, and how much of it has been sent.

Theory of operation
===================

**Nobody waits for a disk in a poll.** The page cache is asked first (``_page_cache.py``). If it has
not what comes next, a worker thread reads that, and *those bytes* are sent. If the next poll asked
the page cache again, then under memory pressure nothing would ever be sent. ``offload=True`` is for
file systems that cannot be asked: each piece is read in a worker thread.

**The file's failures are not the writer's** (``_file_not_ready.py``).
"""

from __future__ import annotations

import contextlib
import io
import operator
import os
from typing import Any, Final, Protocol, final

import trio

from ._checks import counted, describe_answer, int_at_least, positive_int
from ._errors import BusyRefusal, NotReady
from ._file_not_ready import FileNotReady
from ._open_file import binary_file, pread, readable_size
from ._page_cache import PIECE, PageCache
from ._thread_call import ThreadCall

#: How much the kernel is to send at once, if it takes so much: 0.2 to 0.5 ms. Measured: with a
#: quarter, the calls of Python cost a third more of the CPU; with 128 KiB, as much as the rest.
#: (Above 2**31, sendfile overflows on some systems: python/cpython#107056.)
SENT_AT_ONCE: Final = 16 * PIECE

# Where the largest file ends: off_t is a signed integer of 64 bits.
_LAST_OFFSET: Final = 2**63 - 1


class SupportsFileno(Protocol):
    """What :class:`FilePart` takes besides a number: files, and those of :func:`trio.open_file`."""

    def fileno(self) -> int:  # pyright: ignore[reportReturnType] - there is nothing to return
        """The file descriptor."""


@final
class FilePart:
    """A part of a file, and the position up to which it has been sent.

    ``await writer.write_all_file(part)`` moves :attr:`offset` past exactly what was accepted, also
    when the call is cancelled or fails: call it again and it goes on. A part is true until all of
    it was sent, so ``while part:`` is the loop that goes on after each timeout.

    Offsets are absolute: the file's own position is neither used nor moved, and one open file may
    serve many parts at once. Keep the file open until the part was sent or given up. If you also
    write to the file object, flush it first: bytes that are still in its buffer are not sent.

    A socket may send the pages of the file itself, long after the call has returned. A file that
    is overwritten in place meanwhile reaches the peer with the new bytes, so replace files by
    renaming.

    Args:
        file: a file that is open for reading in binary, one of :func:`trio.open_file`, or a file
            descriptor. It must have absolute positions: no pipe, terminal or socket.
        offset: where the part begins, in bytes from the start of the file.
        count: how many bytes the part has. None: up to the end that is found when it is reached.
        offload: whether each piece is read in a worker thread. For file systems that may be slow
            and cannot say what is in memory, such as those over a network. Without it, a worker
            thread reads what the system says is not in memory (Linux only).

    Raises:
        TypeError: if ``file`` is not such an object: a path, a text file, a file that decodes
            (gzip, bz2, lzma), one in memory or in an archive, or another part; or if ``offset``
            or ``count`` is not an integer.
        ValueError: if the file is closed or open for writing only, has no absolute positions, or
            if ``offset`` or ``count`` is negative or beyond what a file can have.
        IsADirectoryError: if ``file`` is a directory.
        OSError: if ``file`` is a number and no open descriptor.

    Source: sendfile(2); :meth:`socket.socket.sendfile`.
    """

    __slots__ = (
        "__weakref__",
        "_cache",
        "_end",
        "_file",
        "_finished",
        "_is_claimed",
        "_kept",
        "_known_to",
        "_load",
        "_offload",
        "_offset",
        "_pace",
        "_passed",
        "_size",
    )

    def __init__(
        self,
        file: int | SupportsFileno,
        offset: int = 0,
        count: int | None = None,
        *,
        offload: bool = False,
    ) -> None:
        if isinstance(file, FilePart):
            raise TypeError("expected a file, got a FilePart: use write_all_file(part)")
        self._file: Any = binary_file(file)
        self._offset = int_at_least(0, offset, "offset")
        if self._offset >= _LAST_OFFSET:
            raise ValueError(f"offset must be less than 2**63 - 1, got {self._offset}")
        self._end: int | None = None
        if count is not None:
            self._end = self._offset + int_at_least(0, count, "count")
            if self._end > _LAST_OFFSET:
                raise ValueError(f"offset + count must be less than 2**63, got {self._end}")
        self._offload = offload
        self._finished = count == 0
        # Whether a call is writing it.
        self._is_claimed = False
        # What was read and not accepted yet, and how much of it was.
        self._kept = b""
        self._passed = 0
        self._load: _Load | None = None
        # How much to offer next: twice the most that was taken, so that not too much is asked for.
        self._pace = PIECE
        # What the page cache has, and up to where it was asked since the last wait.
        self._cache = PageCache()
        self._known_to = 0
        try:
            number = self.fileno()
        except (io.UnsupportedOperation, AttributeError):  # the latter of tarfile's
            raise TypeError(
                f"expected a file with a descriptor, {file!r} has none: read from it, and use "
                f"write_all()"
            ) from None
        self._size = readable_size(number, file)

    @property
    def offset(self) -> int:
        """Where the next call goes on, in bytes from the start of the file."""
        return self._offset

    @property
    def remaining(self) -> int:
        """How many bytes are ahead.

        Without a ``count`` it is how far away the file's end is now. That is 0 where the system
        does not know, as in /proc; ask the part itself whether it is finished: ``while part:``.
        """
        if self._finished:
            return 0
        return self.in_file() if self._end is None else self._end - self._offset

    def in_file(self) -> int:
        """How many bytes the file has from the offset on; 0 where the system does not know.

        :meta private:
        """
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            self._size = os.fstat(self.fileno()).st_size
        return max(self._size - self._offset, 0)

    def copy(self, count: int) -> FilePart:
        """The next ``count`` bytes as a part that does not depend on the caller's file.

        Raises:
            OSError: if there is no descriptor left.
            ValueError: if the file is closed.

        :meta private:
        """
        part = FilePart(_Duplicate(self.fileno()), self._offset, count, offload=self._offload)
        part._kept, part._passed = self._kept, self._passed
        return part

    def release(self) -> None:
        """Let go of the file, if it is a copy's.

        :meta private:
        """
        if isinstance(self._file, _Duplicate):
            self._file.close()

    def claim(self) -> None:
        """Refuse other calls, until :meth:`leave`: two would each send some of it.

        Raises:
            trio.BusyResourceError: if another call is writing it.

        :meta private:
        """
        if self._is_claimed:
            raise BusyRefusal(
                f"another task is writing {self!r}: one part goes to one writer at a time, so "
                f"make another FilePart"
            )
        self._is_claimed = True
        self.forget()

    def forget(self) -> None:
        """There was, or will be, a wait: what was in memory may be gone after it.

        :meta private:
        """
        self._known_to = 0

    def leave(self) -> None:
        """The call that has claimed it has ended.

        :meta private:
        """
        self._is_claimed = False

    def most(self) -> int:
        """How many bytes can be ahead at most.

        :meta private:
        """
        return (_LAST_OFFSET if self._end is None else self._end) - self._offset

    @property
    def known_remaining(self) -> int:
        """As :attr:`remaining`, by what was last seen of the file; at least 1 until it is finished.

        :meta private:
        """
        if self._finished:
            return 0
        return max(self.known_ahead if self._end is None else self._end - self._offset, 1)

    @property
    def known_ahead(self) -> int:
        """How far away the end of the file was when it was last looked at.

        :meta private:
        """
        return self._size - self._offset

    def bound(self, count: int) -> int:
        """How many bytes a writer can have accepted that claims ``count``, as far as is known.

        :meta private:
        """
        # What was read before the file was truncated counts; so does the size at the poll.
        ahead = max(len(self._kept) - self._passed, self.known_ahead)
        if 0 < ahead < count:
            ahead = self.in_file()
        return ahead if ahead > 0 else count

    def __bool__(self) -> bool:
        return not self._finished

    def fileno(self) -> int:
        """The file's descriptor.

        Raises:
            ValueError: if the file is closed.
        """
        number: int = self._file if isinstance(self._file, int) else self._file.fileno()
        return number

    def advance(self, count: int) -> None:
        """Move the offset past ``count`` bytes that a writer has accepted.

        The library does it after each poll.

        Args:
            count: the number of bytes.

        Raises:
            TypeError: if ``count`` is not an integer.
            ValueError: if ``count`` is negative or more than the part has. The offset stays.
        """
        try:
            count = operator.index(count)
        except TypeError:
            raise TypeError(
                f"count must be an integer of at least 0, got {type(count).__name__}"
            ) from None
        if not 0 <= count <= self.most():
            raise ValueError(f"cannot advance by {count}: {self.most()} bytes remain")
        self._offset += count
        self._pace = min(max(self._pace, 2 * count), SENT_AT_ONCE)
        self._passed += count
        if self._passed >= len(self._kept):
            self._kept, self._passed = b"", 0
        self._finished = self._offset == self._end

    def end_here(self) -> bool:
        """The file has no more bytes; whether that is what the part wants.

        :meta private:
        """
        self._finished = self._end is None
        return self._finished

    # ---- For polls ---------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def poll_read(self, limit: int, /) -> bytes | memoryview:
        """Read what comes next, without moving the offset.

        Args:
            limit: how many bytes to return at most; at least 1.

        Returns:
            The bytes; empty at the end of the part or of the file.

        Raises:
            NotReady: if they have to be read from the disk first, or cannot be read. In that case
                the wait raises the error.
            TypeError: if ``limit`` is not an integer.
            ValueError: if ``limit`` is less than 1.
        """
        _check_limit(limit)
        try:
            number = self.fileno()  # raises if the file was closed meanwhile
            if self._load is not None:
                if not self._collect(self._load):
                    self._read(number)
            elif not self._kept:
                self._read(number)
        except NotReady:
            raise
        except Exception as exc:  # noqa: BLE001 - it goes to the caller
            raise FileNotReady.failed(exc) from None
        if self._passed or len(self._kept) > limit:
            return memoryview(self._kept)[self._passed : self._passed + limit]
        return self._kept

    @trio.lowlevel.enable_ki_protection
    def poll_cached(self, limit: int, /) -> int:
        """How many bytes a transport can send from the file itself, without waiting for the disk.

        Args:
            limit: how many bytes it would send at most; at least 1.

        Returns:
            A count. If it is 0, call :meth:`poll_read`: it tells of the end and of failures, and
            gives what a worker thread has read.

        Raises:
            TypeError: if ``limit`` is not an integer.
            ValueError: if ``limit`` is less than 1.
        """
        _check_limit(limit)
        if self._kept or self._load is not None or self._offload:
            return 0
        try:
            size = self._ahead(min(limit, self._pace))
            known = self._known_to - self._offset
            if known < min(size, PIECE):
                known = self._cache.ask(self.fileno(), self._offset, size)
                self._known_to = self._offset + known
            return min(size, known)
        except Exception:  # noqa: BLE001 - poll_read() meets it, too, and tells the caller
            return 0

    def can_be_read(self) -> bool:
        """Whether a byte can be read: if so, the file is not to blame for a failed sendfile.

        :meta private:
        """
        try:
            pread(self.fileno(), 1, self._offset)
        except Exception:  # noqa: BLE001 - poll_read() meets it, too, and tells the caller
            return False
        return True

    def may_end_here(self) -> bool:
        """Whether 0 can be the answer of a writer: at the file's end, or if it is too short.

        Raises:
            NotReady: if it cannot be read.

        :meta private:
        """
        there = self.in_file()
        if self._end is not None and 0 < there < self._end - self._offset:
            return True  # a writer that takes a file whole or not at all takes nothing of it
        try:
            return not pread(self.fileno(), 1, self._offset)
        except Exception as exc:  # noqa: BLE001 - it goes to the caller
            raise FileNotReady.failed(exc) from None

    def _ahead(self, limit: int) -> int:
        """How many bytes to read or send at once; 0 at the end."""
        size = min(limit, self.most())
        if size <= self.known_ahead:
            return size  # if the file has been truncated since, what is sent or read says so
        self._size = os.fstat(self.fileno()).st_size
        ahead = self.known_ahead
        # Of /proc and of devices the size is not known. At the end, reading finds that out.
        return min(size, ahead) if ahead > 0 else size

    def _read(self, number: int) -> None:
        size = self._ahead(PIECE)
        if size and (self._offload or self._cache.ask(number, self._offset, size) < size):
            self._load = _Load(number, size, self._offset)
            raise FileNotReady(self._load.wait)
        self._kept, self._passed = pread(number, size, self._offset), 0

    def _collect(self, load: _Load) -> bool:
        """Take what a worker thread has read; whether it is what comes next."""
        if not load.ended.is_set():
            raise FileNotReady(load.wait)
        self._load = None
        load.raise_error()
        if load.offset != self._offset:
            return False
        self._kept, self._passed = load.data, 0
        return True

    def __repr__(self) -> str:
        end = "the end" if self._end is None else self._end
        return f"<FilePart: {self._offset} to {end} of {self._file!r}>"


@final
class _Duplicate:
    """A descriptor of our own of somebody's file."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = -1
        self._number = os.dup(number)

    def fileno(self) -> int:
        """The descriptor, or -1 once it is closed."""
        return self._number

    def close(self) -> None:
        """Close it, once."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def __del__(self) -> None:
        self.close()


@final
class _Load(ThreadCall):
    """A read in a worker thread."""

    def __init__(self, number: int, size: int, offset: int) -> None:
        super().__init__()
        self.offset = offset
        self.data = b""

        def read() -> None:
            self.data = pread(number, size, offset)

        self.start(read)


def check_part(part: FilePart, limit: int) -> None:
    """For a poll: refuse a wrong argument before it can break a layer.

    Raises:
        TypeError: if ``part`` is no FilePart, or ``limit`` is not an integer.
        ValueError: if ``limit`` is less than 1.
    """
    if not isinstance(part, FilePart):
        raise TypeError(f"expected a FilePart, got {type(part).__name__}: give FilePart(file)")
    _check_limit(limit)


def _check_limit(limit: int) -> None:
    if type(limit) is not int or limit < 1:
        positive_int(limit, "limit")


def file_count(count: int, limit: int, writer: object) -> int:
    """``count``, if it is what ``poll_write_file`` may answer to an offer of ``limit`` bytes.

    Raises:
        TypeError: if the answer is no integer.
        RuntimeError: if the writer claims more than it was given, or less than nothing.
    """
    if type(count) is not int:
        raise TypeError(
            f"poll_write_file() of {type(writer).__name__} must return how many bytes it accepted, "
            f"it returned {describe_answer(count)}"
        )
    if not 0 <= count <= limit:
        raise RuntimeError(
            f"poll_write_file() of {type(writer).__name__} claims to have accepted {count} of "
            f"{limit} bytes"
        )
    return count


def ended_early(part: FilePart) -> EOFError:
    """The error for a file that has fewer bytes than the part wants."""
    missing = counted(part.remaining - part.in_file(), "byte")
    return EOFError(f"{part!r}: the file ends {missing} too early")
