"""A pipe or socket that is written to without blocking, and without O_NONBLOCK.

O_NONBLOCK belongs to the open file, which other processes share: a shell that finds its terminal or
pipe non-blocking loses output. RWF_NOWAIT makes one call non-blocking, and nothing else.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import sys
from typing import TYPE_CHECKING, Final, NoReturn, final

import trio

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._budget import TRANSPORT_RATE
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._errors import CannotWriteNowait, ClosedRefusal, NotReady
from trio_asyncwrite._core._stack import begin_shutdown, fail
from trio_asyncwrite._core._waits import OneForAll

from ._fd import IOV_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

assert not TYPE_CHECKING or sys.platform == "linux"

#: How a system says that it does not know RWF_NOWAIT, here or at all. On Linux that is ENOTSUP:
#: before 6.5 for all pipes and sockets, and still for named pipes and terminals (measured on 6.18).
_UNKNOWN: Final = (errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


@final
class OwnDescriptor:
    """A descriptor that is closed with its last user, without a complaint.

    Args:
        number: the descriptor.
    """

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        """The descriptor, or -1 once it is closed."""
        return self._number

    def close(self) -> None:
        """Close it. Once closed, calling it again does nothing."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<descriptor {self._number}>"


@final
class NowaitWriter(AsyncWrite):
    """A writer over a descriptor that others use as well.

    Its polls raise :exc:`CannotWriteNowait`, with nothing accepted, where the system cannot do it.

    Args:
        descriptor: the descriptor; it is closed with this writer.
    """

    announces_held_bytes = True
    bytes_per_budget_unit: int | None = TRANSPORT_RATE

    def __init__(self, descriptor: OwnDescriptor) -> None:
        self._descriptor = descriptor
        self._writable = OneForAll()

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Hand ``data`` to the kernel. See :meth:`AsyncWrite.poll_write`."""
        return self.poll_write_vectored((data,))

    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Hand ``buffers`` to the kernel, gathered. See :meth:`AsyncWrite.poll_write_vectored`."""
        self.lifecycle.check_write(self)
        if len(buffers) > IOV_MAX:
            # Empty ones must not take the places of others: 0 would say that all are empty.
            buffers = [data for data in buffers if len(data)]
        try:
            # At no offset: as write() does, at the position of the open file, if it has one.
            return os.pwritev(self._descriptor.fileno(), buffers[:IOV_MAX], -1, os.RWF_NOWAIT)
        except OSError as exc:
            self._raise(exc)

    def poll_flush(self) -> None:
        """The kernel has everything already. See :meth:`AsyncWrite.poll_flush`."""
        self.lifecycle.check_flush(self)

    def poll_shutdown(self) -> None:
        """Close the descriptor, which others have as well. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            self._close_now()
            self.lifecycle.end()

    def poll_ready(self) -> None:
        """Ask the kernel. See :meth:`AsyncWrite.poll_ready`."""
        self.lifecycle.check_write(self)
        poller = select.poll()
        poller.register(self._open_fileno(), select.POLLOUT)
        if not poller.poll(0):
            raise NotReady(self._wait_writable)

    async def release(self, *, clean: bool) -> None:
        """Close the descriptor. See :meth:`AsyncWrite.release`.

        Cancellation: nothing happened, since there is nothing to wait for.
        Checkpoints: none.
        """
        self._close_now()

    @answer
    def epilogue(self) -> Epilogue:
        """Nothing: it passes on what it was given."""
        return Epilogue.NOTHING

    # Ctrl-C must not fall between the field and the descriptor.
    @trio.lowlevel.enable_ki_protection
    def _close_now(self) -> None:
        number = self._descriptor.fileno()
        if number >= 0:
            trio.lowlevel.notify_closing(number)
            self._descriptor.close()

    def _open_fileno(self) -> int:
        number = self._descriptor.fileno()
        if number < 0:
            raise ClosedRefusal(f"{self!r} is closed")
        return number

    def _raise(self, exc: OSError) -> NoReturn:
        if isinstance(exc, (BlockingIOError, InterruptedError)):
            raise NotReady(self._wait_writable) from None
        if exc.errno == errno.EBADF:
            raise ClosedRefusal(f"{self!r} is closed") from None
        if exc.errno in _UNKNOWN:
            raise CannotWriteNowait(f"{self!r} cannot be written to without blocking") from None
        fail(self, exc)
        raise AssertionError  # pragma: no cover - fail() raises for an OSError

    async def _wait_writable(self) -> None:
        number = self._open_fileno()
        await self._writable.wait(functools.partial(trio.lowlevel.wait_writable, number))

    def __repr__(self) -> str:
        return f"<NowaitWriter over {self._descriptor.fileno()}>"
