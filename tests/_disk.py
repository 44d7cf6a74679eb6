"""Files that are sent, and what the system may know or refuse of them."""

from __future__ import annotations

import errno
import os
import random
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trio_asyncwrite._core import _file_part, _page_cache
from trio_asyncwrite._core._open_file import pread_by_seeking

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

#: More than two pieces, and no multiple of any.
CONTENT = random.Random(12).randbytes(2 * _page_cache.PIECE + 4321)


#: A file whose size the system does not know, on Linux.
STATUS = Path("/proc/self/status")


def overwrite(path: Path, data: bytes) -> None:
    """Write ``data`` into the file itself."""
    path.write_bytes(data)


def raising(error: OSError) -> Callable[..., Any]:
    """What takes anything and raises a fresh ``error``."""

    def refuse(*_: object) -> Any:
        raise type(error)(*error.args)

    return refuse


def nothing_in_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "preadv", raising(BlockingIOError(errno.EAGAIN, "not in memory")))


def cannot_be_asked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "preadv", raising(OSError(errno.EOPNOTSUPP, "of this file system")))


def is_short(patch: pytest.MonkeyPatch) -> None:
    send = os.sendfile

    def sendfile(out: int, file: int, offset: int, count: int) -> int:
        return send(out, file, offset, min(count, 10_001))

    patch.setattr(os, "sendfile", sendfile)


#: What a system may do with a file, and how the tests make it do so. The first is this system.
SYSTEMS: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "as it is": lambda _: None,
    "nothing in memory": nothing_in_memory,
    "memory cannot be asked": cannot_be_asked,
    "no RWF_NOWAIT": lambda patch: patch.delattr(os, "RWF_NOWAIT", raising=False),
    "no sendfile": lambda patch: patch.delattr(os, "sendfile"),
    "sendfile refuses": lambda patch: patch.setattr(
        os, "sendfile", raising(OSError(errno.EINVAL, "not with this file"))
    ),
    "sendfile of nothing": lambda patch: patch.setattr(os, "sendfile", lambda *_: 0),
    # As on macOS, where EAGAIN comes with a count, which os.sendfile returns.
    "sendfile is short": is_short,
    "no pread": lambda patch: patch.setattr(_file_part, "pread", pread_by_seeking),
}


@contextmanager
def on(system: str) -> Generator[None, None, None]:
    """For the block, the system is of that kind."""
    with pytest.MonkeyPatch.context() as patch:
        SYSTEMS[system](patch)
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a file with :data:`CONTENT`."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path
