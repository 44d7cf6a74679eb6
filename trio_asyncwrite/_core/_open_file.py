"""What a file must be to be sent from absolute offsets."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from typing import cast

if sys.platform != "win32":  # pragma: no branch
    import fcntl


def binary_file(file: object) -> object:
    """The file or descriptor to ask for its number.

    Raises:
        TypeError: if it is neither, or the bytes of its descriptor are not its own.
    """
    file = getattr(file, "wrapped", file)  # of Trio's asynchronous files
    if type(file) is int:
        return file
    if _is_bytes_like(file):
        raise TypeError(
            f"expected an open file, got {type(file).__name__}: data goes to write_all(); for a "
            f"path give open(path, 'rb')"
        )
    if isinstance(file, (str, os.PathLike)):
        raise TypeError(f"expected an open file, got the path {file!r}: give open(path, 'rb')")
    if isinstance(file, bool) or not callable(getattr(file, "fileno", None)):
        raise TypeError(f"expected a binary file or a file descriptor, got {type(file).__name__}")
    if isinstance(file, io.TextIOBase) or hasattr(file, "encoding"):
        raise TypeError(f"expected a binary file, got the text file {file!r}: open it with 'rb'")
    raw = file
    while isinstance(raw, (io.BufferedReader, io.BufferedRandom)):
        raw = cast("object", raw.raw)
    if isinstance(raw, io.BytesIO):
        raise TypeError("expected a file on disk, got a BytesIO: use write_all_buf(Buf(...))")
    if isinstance(raw, io.BufferedIOBase) and not isinstance(raw, io.BufferedWriter):
        raise TypeError(
            f"expected a file as it is on disk, got {type(raw).__name__}, whose descriptor has "
            f"other bytes: read from it, and use write_all()"
        )
    return file


def _is_bytes_like(thing: object) -> bool:
    try:
        memoryview(thing).release()  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def readable_size(number: int, file: object) -> int:
    """The size of an open file, 0 if the system does not know it.

    Raises:
        TypeError: if ``number`` is not an integer.
        ValueError: if it cannot be read, or has no absolute positions.
        IsADirectoryError: if it is a directory.
        OSError: if ``number`` is not an open descriptor.
    """
    if not isinstance(number, int):
        raise TypeError(f"fileno() of {file!r} must return an integer, it returned {number!r}")
    try:
        status = os.fstat(number)
    except (OSError, OverflowError):
        raise OSError(errno.EBADF, f"expected an open file descriptor, got {file!r}") from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, f"expected a file, got the directory {file!r}")
    try:
        os.lseek(number, 0, os.SEEK_CUR)
    except OSError:
        raise ValueError(
            f"expected a file with absolute positions, got {file!r}, which has none (is it a pipe, "
            f"a socket, a terminal?): read from it, and use write_all()"
        ) from None
    if (
        sys.platform != "win32"
        and fcntl.fcntl(number, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR) == os.O_WRONLY
    ):
        raise ValueError(f"expected a file that is open for reading, {file!r} is for writing only")
    return status.st_size


def pread_by_seeking(number: int, size: int, offset: int) -> bytes:
    """What ``os.pread`` does, for systems without it: for a moment it moves the file's position."""
    if offset >= os.fstat(number).st_size:
        return b""  # to seek far beyond the end may be an error
    before = os.lseek(number, 0, os.SEEK_CUR)
    try:
        os.lseek(number, offset, os.SEEK_SET)
        return os.read(number, size)
    finally:
        os.lseek(number, before, os.SEEK_SET)


#: Windows has none.
pread = getattr(os, "pread", pread_by_seeking)
