"""What is sent: a file, or the files of a folder."""

from __future__ import annotations

import fnmatch
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How many bytes of a file travel in one message. Four times what a BufWriter collects, so
#: that a message of this size is accepted in several steps.
RECORD_SIZE: Final = 4 * 65536

#: Folders of the standard library's that hold other things than its sources.
_NOT_SOURCES: Final = {"__pycache__", "idle_test", "site-packages", "test", "tests"}


class SourceError(Exception):
    """There is nothing to send; the message says why, in words for the user."""


@dataclass(frozen=True)
class File:
    """A file to send."""

    path: Path
    #: How the receiver is told its name: relative, with forward slashes.
    name: str


@dataclass(frozen=True)
class Source:
    """The files to send, in order."""

    title: str
    files: list[File]
    #: What they held when they were looked for, in bytes.
    size: int
    #: How many others cannot be sent: unreadable, or no regular files.
    skipped: int


def standard_library() -> Source:
    """The sources of the standard library of the running Python, without its tests.

    Raises:
        SourceError: if this Python has none.
    """
    root = Path(sysconfig.get_path("stdlib"))
    return _collect(root, f"the standard library's sources, {root}", "*.py", _NOT_SOURCES)


def from_path(path: Path) -> Source:
    """The file ``path``, or all files in the folder ``path``, hidden ones included.

    Raises:
        SourceError: if there are none.
    """
    if not path.exists():
        raise SourceError(f"no such file or folder: {path}")
    # A name need not be text, but it is going to be printed.
    title = os.fsencode(path).decode(errors="backslashreplace")
    return _collect(path, title, "*", set())


async def read_record(path: Path, offset: int) -> bytes:
    """Read the record of ``path`` that begins at ``offset``; a shorter one ends the file.

    Raises:
        OSError: if the file cannot be read.

    Cancellation: nothing happened.
    """
    return await trio.to_thread.run_sync(_read, path, offset)


def _read(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(RECORD_SIZE)


def _collect(root: Path, title: str, pattern: str, without: set[str]) -> Source:
    files: list[File] = []
    size = skipped = 0
    for path in _walk(root, pattern, without):
        if path.is_file() and os.access(path, os.R_OK):
            # A single file has no name relative to itself.
            name = path.relative_to(root).as_posix() if path != root else path.name
            files.append(File(path, name))
            size += path.stat().st_size
        else:
            skipped += 1
    if not files:
        raise SourceError(f"no files that can be read in {root}")
    return Source(title, files, size, skipped)


def _walk(root: Path, pattern: str, without: set[str]) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return
    unreadable: list[OSError] = []
    for folder, subfolders, names in os.walk(root, onerror=unreadable.append):
        subfolders[:] = sorted(set(subfolders) - without)
        for name in sorted(fnmatch.filter(names, pattern)):
            yield Path(folder, name)
    for error in unreadable:
        yield Path(error.filename)
