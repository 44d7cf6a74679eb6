"""A file object, called from one thread at a time. It knows no Trio but its errors."""

from __future__ import annotations

import errno
import inspect
import io
import os
import stat
import sys
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio
import trio.abc

from trio_asyncwrite._core._checks import accepted

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Files without a buffer: they pass on at once all bytes that they take.
_UNBUFFERED: Final = (io.RawIOBase, io.BytesIO)

#: Their flush passes everything on to the file below, and does not flush that one.
_BUFFERS: Final = (io.BufferedWriter, io.BufferedRandom)


class BinaryFile(Protocol):
    """What :class:`AllowStdIo` writes to: any object with these two methods, in binary."""

    def write(self, data: bytes, /) -> int | None:
        """Take some of ``data`` and say how much."""

    def flush(self) -> object:
        """Pass on what is buffered."""


class StdFile:
    """The file itself, called from one thread at a time."""

    def __init__(self, file: BinaryFile) -> None:
        self.file = file
        layers = list(_layers(file))
        # Any other file has a buffer, which may hold something from before our time.
        self._is_buffered = not isinstance(file, _UNBUFFERED)
        self._flush_is_complete = _flush_is_complete(layers)
        self._is_resumable = not any(_is_gzip(layer) or _ignores_flush(layer) for layer in layers)
        self.needs_flush = self._is_buffered
        #: How many bytes the file may still hold. It does not say, so these are all that it took
        #: since the last complete flush.
        self.held = 0
        self._close_began = False

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
            # An object that is no io class may keep the data, or use the methods of bytes.
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
                f"{self!r}.write() returned None, which does not say whether it took the bytes: "
                f"it must return how many"
            )
        count = accepted(count, len(chunk), file)
        if self._is_buffered:
            self.needs_flush = True
            self.held += count
        return count

    @trio.lowlevel.disable_ki_protection
    def flush(self) -> None:
        """Pass on what is buffered, as far as the file does that before it is closed.

        Raises:
            BlockingIOError: if not all of it can be passed on now.
        """
        try:
            self.file.flush()
        except BlockingIOError as exc:
            self._check_resumable(exc)
            raise
        self.needs_flush = False
        if self._flush_is_complete:
            self.held = 0

    @trio.lowlevel.disable_ki_protection
    def close(self) -> None:
        """Close the file, which writes what it holds and, if it compresses, its trailer."""
        again, self._close_began = self._close_began, True
        try:
            self.file.close()  # type: ignore[attr-defined]
        except BlockingIOError as exc:
            raise trio.BrokenResourceError(
                f"{self!r} was closed with bytes in its buffer that could not be written"
            ) from exc
        if not again:  # the first one was interrupted, and may have lost bytes
            self.held = 0

    def selectable(self) -> int | None:
        """The descriptor, if the kernel may be able to wait for it."""
        file: Any = self.file
        try:
            fd: int = file.fileno()
            mode = os.fstat(fd).st_mode
        except (AttributeError, OSError, TypeError, ValueError):
            return None
        return None if sys.platform == "win32" or stat.S_ISREG(mode) else fd

    def __repr__(self) -> str:
        # A finaliser shows it, and the file may have been finalised before.
        try:
            return repr(self.file)
        except Exception:  # noqa: BLE001
            return f"<{type(self.file).__name__}>"

    def _check_resumable(self, exc: BlockingIOError) -> None:
        if not self._is_resumable:
            raise trio.BrokenResourceError(
                f"{self!r} may have lost bytes that it had taken: the file below it must block"
            ) from exc


def check_file(file: Any) -> None:
    """Refuse an object that is seen to be no binary file, open for writing."""
    methods = [getattr(file, name, None) for name in ("write", "flush")]
    if isinstance(file, trio.abc.AsyncResource) or any(map(inspect.iscoroutinefunction, methods)):
        raise TypeError(f"expected a file, and {file!r} is asynchronous")
    if isinstance(file, io.TextIOBase) or hasattr(file, "encoding"):
        raise TypeError(f"expected a binary file, and {file!r} is a text file")
    if isinstance(file, type) or not all(map(callable, methods)):
        raise TypeError(f"expected an object with write() and flush(), got {type(file).__name__}")
    if getattr(file, "closed", False):
        raise ValueError(f"{file!r} is closed")
    if hasattr(file, "writable") and not file.writable():
        raise ValueError(f"{file!r} is not open for writing")


def is_standard(file: object) -> bool:
    """Whether ``file`` is standard input, output or error, or what one of them writes to."""
    for name in ("stdin", "stdout", "stderr"):
        for stream in (getattr(sys, name), getattr(sys, f"__{name}__")):
            buffer = getattr(stream, "buffer", None)
            if any(file is each for each in (stream, buffer, getattr(buffer, "raw", None))):
                return True
    return False


def _layers(file: object) -> Iterator[object]:
    """The file that does the work and the files below it, as far as they can be seen."""
    while file is not None:
        owner = getattr(getattr(file, "flush", None), "__self__", file)
        if owner is not file:  # it only passes calls on
            file = owner
            continue
        yield file
        file = getattr(file, _name_of_below(file), None)


def _name_of_below(file: object) -> str:
    """The attribute of ``file`` that is the file to which it writes, or ""."""
    if isinstance(file, _BUFFERS):
        return "raw"
    return "fileobj" if _is_gzip(file) else ""


def _flush_is_complete(layers: list[object]) -> bool:
    """Whether nothing stays in any of ``layers`` after a flush of the first."""
    is_flushed = True
    for layer in layers:
        if isinstance(layer, _UNBUFFERED):
            return True
        if not is_flushed or _ignores_flush(layer):
            return False
        is_flushed = not isinstance(layer, _BUFFERS)
    return True


def _ignores_flush(file: object) -> bool:
    """Whether ``file`` inherits the flush that does nothing, though it buffers.

    So do the standard library's files that compress, except gzip's.
    """
    has_none = getattr(type(file), "flush", None) is io.IOBase.flush
    return has_none and not isinstance(file, _UNBUFFERED)


def _is_gzip(file: object) -> bool:
    """Whether ``file`` is a GzipFile, without importing the module."""
    return isinstance(file, getattr(sys.modules.get("gzip"), "GzipFile", ()))
