"""What passes: bytes, calls, flushes, and the time that was spent waiting."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, TypeVar, final, overload

import trio
import trio.abc

from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._checks import check_buffers, check_data
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._file_not_ready import FileNotReady
from trio_asyncwrite._core._file_part import check_part
from trio_asyncwrite._core._stack import begin_shutdown, poll_below, poll_step, shut_down
from trio_asyncwrite._core._waits import OneForAll
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._wrapper import Wrapper

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import TypeVarTuple, Unpack

    from trio_asyncwrite._core._file_part import FilePart
    from trio_asyncwrite._transports._poll_evented import PollEvented
    from trio_asyncwrite._transports._tcp import TcpStream

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")
W = TypeVar("W", bound=AsyncWrite)


@final
class MeteredWriter(Wrapper[W]):
    """Counts what passes: bytes, calls, flushes, waits, and the seconds waited.

    It changes nothing: gathered writes and files go to the writer below as they come. The counts
    stay valid after a close, and after a failure.

    :attr:`accepted_bytes` is what the writer below has accepted. Of these,
    :attr:`~trio_asyncwrite.Layer.unsent_bytes` are still in a layer below; the difference has left
    this process. A layer above this one passes its bytes on when it is flushed, and only then are
    they counted. What a layer below adds (TLS, compression) is not.

    It is write-only.

    Args:
        inner: the writer, or any :class:`trio.abc.SendStream`, to write to; it goes through
            :func:`wrap_stream`.

    Raises:
        TypeError: if ``inner`` cannot be written to.

    Source: golang/go#21756, where a writer that counted disabled ``writev``.
    """

    #: The writer below.
    inner: W

    @overload
    def __init__(self, inner: W) -> None: ...
    @overload
    def __init__(self: MeteredWriter[TcpStream], inner: trio.SocketStream) -> None: ...

    if sys.platform != "win32":

        @overload
        def __init__(self: MeteredWriter[PollEvented], inner: trio.lowlevel.FdStream) -> None: ...

    @overload
    def __init__(self: MeteredWriter[AsyncWrite], inner: trio.abc.SendStream) -> None: ...

    def __init__(self, inner: trio.abc.SendStream) -> None:
        self._accepted_bytes = self._writes = self._flushes = self._waits = 0
        self._seconds_waited = 0.0
        # One task for all: time that two tasks wait at once must not count twice.
        self._shared_wait = OneForAll()
        self.inner = wrap_stream(inner)  # type: ignore[assignment]

    @property
    def accepted_bytes(self) -> int:
        """How many bytes the writer below has accepted."""
        return self._accepted_bytes

    @property
    def writes(self) -> int:
        """How many polls have accepted bytes: over a bare transport, so many system calls."""
        return self._writes

    @property
    def flushes(self) -> int:
        """How many flushes were completed; each ``send_all`` is one."""
        return self._flushes

    @property
    def waits(self) -> int:
        """How often the writer below was not ready, so that a task has waited for it."""
        return self._waits

    @property
    def seconds_waited(self) -> float:
        """How long these waits have taken, on Trio's clock; one that goes on is not counted yet.

        A file that has to come from a disk is not the writer's: neither this nor ``waits`` counts
        it.
        """
        return self._seconds_waited

    # Ctrl-C must not fall between what was accepted and the count.
    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Pass ``data`` on. See :meth:`AsyncWrite.poll_write`."""
        if self.lifecycle.refusal is not None:
            self.lifecycle.check_write(self)
        if type(data) is not bytes:
            check_data(data)
        return self._counted(self._poll(self.inner.poll_write, data))

    @trio.lowlevel.enable_ki_protection
    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Pass the buffers on, gathered. See :meth:`AsyncWrite.poll_write_vectored`."""
        self.lifecycle.check_write(self)
        check_buffers(buffers)
        return self._counted(self._poll(self.inner.poll_write_vectored, buffers))

    @trio.lowlevel.enable_ki_protection
    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        """Pass the file on. See :meth:`AsyncWrite.poll_write_file`."""
        self.lifecycle.check_write(self)
        check_part(part, limit)
        return self._counted(self._poll(self.inner.poll_write_file, part, limit))

    @trio.lowlevel.enable_ki_protection
    def poll_flush(self) -> None:
        """Pass the flush on. See :meth:`AsyncWrite.poll_flush`."""
        self.lifecycle.check_flush(self)
        self._poll(poll_step, self.inner, "poll_flush")
        self._flushes += 1

    def poll_shutdown(self) -> None:
        """Pass the shutdown on. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            self._poll(shut_down, self.inner)
            self.lifecycle.end()

    def poll_ready(self) -> None:
        """Pass the question on. See :meth:`AsyncWrite.poll_ready`."""
        self.lifecycle.check_write(self)
        self._poll(poll_step, self.inner, "poll_ready")

    def _counted(self, count: int) -> int:
        if type(count) is int and count > 0:  # whoever has called the poll refuses a wrong answer
            self._accepted_bytes += count
            self._writes += 1
        return count

    def _poll(self, poll: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
        """Poll the writer below; if that is not ready, its wait is counted."""
        try:
            return poll_below(self.inner, poll, *args)
        except FileNotReady:
            raise
        except NotReady as not_ready:
            wait = functools.partial(self._wait, not_ready.wait)
            raise NotReady(functools.partial(self._shared_wait.wait, wait)) from None

    async def _wait(self, wait: Callable[[], Awaitable[object]]) -> None:
        self._waits += 1
        began = trio.current_time()
        try:
            await wait()
        finally:
            self._seconds_waited += trio.current_time() - began

    def __repr__(self) -> str:
        return f"<MeteredWriter over {self.inner!r}>"
