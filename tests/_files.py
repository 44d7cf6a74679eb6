"""Files as they come: short writes, blocking ones, scripted ones, pipes."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from trio_asyncwrite._transports._poll_evented import PollEvented

DATA = bytes(range(256)) * 400
FULL = Path("/dev/full")

both_modes = pytest.mark.parametrize("offload", [False, True], ids=["inline", "offload"])
lost_on_purpose = pytest.mark.filterwarnings(
    "ignore:.*(were never sent|may be lost):ResourceWarning"
)


class ShortWrites(io.RawIOBase):
    """A raw file that takes at most three bytes at a time."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.written += data[:3]
        return len(data[:3])


class Scripted:
    """No io.IOBase: does what ``answers`` say, one per write, and then takes everything."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.written = b""
        self.flushed = 0
        self.closed = False

    def write(self, data: bytes) -> Any:
        assert type(data) is bytes
        answer: Any = self.answers.pop(0) if self.answers else len(data)
        if isinstance(answer, BaseException):
            try:
                raise answer
            finally:
                del answer  # or frame and exception would keep each other
        if isinstance(answer, int) and answer > 0:
            self.written += data[:answer]
        return answer

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed = True


class Duck:
    """What the standard library's wrappers look like: no io class, and everything of one."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class Watched:
    """Says when it was closed: a thread may do that when the test has long gone on."""

    was_closed: threading.Event

    async def wait_closed(self) -> None:
        assert await trio.to_thread.run_sync(self.was_closed.wait, 60)

    def close(self) -> None:
        try:
            super().close()  # type: ignore[misc]
        finally:
            self.was_closed.set()


class Gated(Watched, Scripted):
    """Each write waits, in its thread, until the gate is open."""

    def __init__(self, *answers: object) -> None:
        super().__init__(*answers)
        self.gate = threading.Event()
        self.was_closed = threading.Event()

    def write(self, data: bytes) -> Any:
        assert self.gate.wait(60)
        assert not self.closed
        return super().write(data)


def would_block(*written: int) -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, "would block", *written)


def make_pipe(*, blocking: bool, buffering: int, size: int = 4096) -> tuple[Any, PollEvented]:
    """A file that writes into a pipe as small as there is, and the reading end."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, size)
    os.set_blocking(writing, blocking)
    return os.fdopen(writing, "wb", buffering=buffering), PollEvented(reading)


both_files = pytest.mark.parametrize("buffering", [0, 4096], ids=["raw", "buffered"])
