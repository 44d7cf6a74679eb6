"""A look at what passes: for checksums, progress bars, logs."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar, final, overload

import trio
import trio.abc

from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._budget import rate_of
from trio_asyncwrite._core._checks import byte_view, checked_buffers
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._shell import poll_data
from trio_asyncwrite._core._stack import fail, is_refusal, keep_for_next_call, poll_below, poll_step
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._parts import front, poll_parts, release
from ._wrapper import Wrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio_asyncwrite._core._file_part import FilePart
    from trio_asyncwrite._transports._poll_evented import PollEvented
    from trio_asyncwrite._transports._tcp import TcpStream

W = TypeVar("W", bound=AsyncWrite)

#: How many bytes a function takes in about a microsecond: as many as SHA-256 (measured).
_RATE: Final = 1024


@final
class InspectWriter(Wrapper[W]):
    """Shows a function what passes: ``InspectWriter(writer, hashlib.sha256().update)``.

    The function is called with exactly the bytes that the writer below has accepted, once for each
    byte and in order, after they were accepted, also if a call is cancelled or fails. It gets a
    read-only :class:`memoryview` that is valid during the call; what it returns does not matter.

    If the function raises, the bytes were accepted all the same, so the call says so. The next
    operation (a write, a flush, ``aclose``) raises the exception instead of doing anything, and the
    writer is broken from then on.

    The function runs in the writing task and holds up all others, so it must not take long. This
    writer is write-only. A file is read, so that the function can see its bytes.

    Args:
        inner: the writer, or any :class:`trio.abc.SendStream`, to write to; it goes through
            :func:`wrap_stream`.
        function: what to call; a plain function.

    Raises:
        TypeError: if ``inner`` cannot be written to, or ``function`` cannot be called, or is
            async.

    Source: ``tokio_util::io::InspectWriter``.
    """

    #: The writer below.
    inner: W

    @overload
    def __init__(self, inner: W, function: Callable[[memoryview], object]) -> None: ...
    @overload
    def __init__(
        self: InspectWriter[TcpStream],
        inner: trio.SocketStream,
        function: Callable[[memoryview], object],
    ) -> None: ...

    if sys.platform != "win32":

        @overload
        def __init__(
            self: InspectWriter[PollEvented],
            inner: trio.lowlevel.FdStream,
            function: Callable[[memoryview], object],
        ) -> None: ...

    @overload
    def __init__(
        self: InspectWriter[AsyncWrite],
        inner: trio.abc.SendStream,
        function: Callable[[memoryview], object],
    ) -> None: ...

    def __init__(
        self, inner: trio.abc.SendStream, function: Callable[[memoryview], object]
    ) -> None:
        if not callable(function):
            raise TypeError(f"function must be callable, got {type(function).__name__}")
        if inspect.iscoroutinefunction(function):
            raise TypeError("function must be a plain function, got an async one")
        self._function = function
        #: What the function has raised; the next operation raises it.
        self._failure: Exception | None = None
        self.inner = wrap_stream(inner)  # type: ignore[assignment]

    @property
    def bytes_per_budget_unit(self) -> int:  # type: ignore[override]
        """That of the layer below, but at most as much as a function may take."""
        return min(rate_of(self.inner), _RATE)

    # Ctrl-C must not fall between what was accepted and the function.
    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Pass ``data`` on, and show what was accepted. See :meth:`AsyncWrite.poll_write`."""
        self._make_ready()
        inner = self.inner
        if type(data) is bytes:
            count = poll_below(inner, poll_data, inner, data)
            if count == len(data):
                self._call(memoryview(data))
                return count
            self._show([memoryview(data)], count)
            return count
        with byte_view(data) as view:
            count = poll_below(inner, poll_data, inner, view)
            self._show([view], count)
        return count

    @trio.lowlevel.enable_ki_protection
    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Pass the buffers on, gathered. See :meth:`AsyncWrite.poll_write_vectored`."""
        self._make_ready()
        views = [byte_view(data) for data in checked_buffers(buffers)]
        try:
            count = poll_below(self.inner, poll_parts, self.inner, views)
            self._show(views, count)
        finally:
            release(views)
        return count

    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        """Read some of the file, and write it. See :meth:`AsyncWrite.poll_write_file`."""
        return AsyncWrite.poll_write_file(self, part, limit)

    def poll_flush(self) -> None:
        """Pass the flush on. See :meth:`AsyncWrite.poll_flush`."""
        self.lifecycle.check_flush(self)
        self._raise_failure()
        poll_step(self.inner, "poll_flush")

    def poll_ready(self) -> None:
        """Pass the question on. See :meth:`AsyncWrite.poll_ready`."""
        self._make_ready()
        poll_step(self.inner, "poll_ready")

    def _make_ready(self) -> None:
        if self.lifecycle.refusal is not None:
            self.lifecycle.check_write(self)
        self._raise_failure()

    def _show(self, views: list[memoryview], count: int) -> None:
        """Call the function with the accepted bytes; it cannot undo that they were accepted."""
        parts = front(views, count)
        for part in parts:
            if self._failure is None:
                self._call(part.toreadonly())
        release(parts)

    def _call(self, view: memoryview) -> None:
        if not view:
            return
        try:
            with view:
                self._function(view)
        # Also a BufferError, if the function has kept something of the view.
        except BaseException as exc:  # noqa: BLE001, ASYNC103 - the next operation raises it
            if isinstance(exc, Exception):
                self._failure = exc
            else:
                keep_for_next_call(self, exc)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._refuse()

    def _refuse(self) -> NoReturn:
        failure, self._failure = self._failure, None
        assert failure is not None
        try:
            if isinstance(failure, NotReady) or is_refusal(failure):
                # From a writer that the function uses. From here it would be taken for our own.
                error = trio.BrokenResourceError(f"{self!r}: its function raised {failure!r}")
                error.__cause__ = failure
                failure = error
            # Polls made by hand must find it, too.
            fail(self, failure)
            raise failure
        finally:
            del failure  # its traceback refers to this frame

    def __repr__(self) -> str:
        return f"<InspectWriter over {self.inner!r}>"
