"""A file object, called from one thread at a time. It knows no Trio but its errors."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from typing import Any, Protocol

import trio
import trio.abc

from trio_asyncwrite._core._checks import accepted


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


def check_file(file: Any) -> None:
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


def is_standard(file: object) -> bool:
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
