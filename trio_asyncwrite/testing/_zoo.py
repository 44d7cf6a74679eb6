"""Writers that are as unpleasant as the contract allows.

What works over each of them does not rest on luck with sizes, moments or flushes.
"""

from __future__ import annotations

import operator
from typing import Generic, TypeVar, final, overload

import trio
import trio.abc

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._buf import Buf
from trio_asyncwrite._core._checks import byte_view
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._shell import poll_buf
from trio_asyncwrite._core._stack import (
    begin_shutdown,
    fail,
    hold,
    let_go,
    poll_below,
    poll_step,
    shut_down,
)
from trio_asyncwrite._transports._wrap_stream import wrap_stream

W = TypeVar("W", bound=AsyncWrite)


class _Hostile(AsyncWrite, Generic[W]):
    #: The writer below.
    inner: W

    def __init__(self, inner: trio.abc.SendStream) -> None:
        self.inner = wrap_stream(inner)  # type: ignore[assignment]

    @answer
    def epilogue(self) -> Epilogue:
        """Nothing: it passes on what it was given."""
        return Epilogue.NOTHING

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self.inner!r}>"


@final
class OneByteWriter(_Hostile[W]):
    """Accepts one byte at a time.

    Args:
        inner: the writer, or any :class:`trio.abc.SendStream`, to write to.
    """

    @overload
    def __init__(self, inner: W) -> None: ...
    @overload
    def __init__(self: OneByteWriter[AsyncWrite], inner: trio.abc.SendStream) -> None: ...

    def __init__(self, inner: trio.abc.SendStream) -> None:
        super().__init__(inner)

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Accept the first byte of ``data``. See :meth:`AsyncWrite.poll_write`."""
        self.lifecycle.check_write(self)
        with byte_view(data) as view, view[:1] as first:
            return poll_below(self.inner, self.inner.poll_write, first)


@final
class NeverReadyTwiceWriter(_Hostile[W]):
    """Is not ready before every single write, before the flush after it, and before a shutdown.

    Args:
        inner: the writer, or any :class:`trio.abc.SendStream`, to write to.
    """

    # What has been not ready already, and may succeed now.
    _rested: frozenset[str] = frozenset()

    @overload
    def __init__(self, inner: W) -> None: ...
    @overload
    def __init__(self: NeverReadyTwiceWriter[AsyncWrite], inner: trio.abc.SendStream) -> None: ...

    def __init__(self, inner: trio.abc.SendStream) -> None:
        super().__init__(inner)

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Write, every other time. See :meth:`AsyncWrite.poll_write`."""
        self.lifecycle.check_write(self)
        with byte_view(data) as view:
            self._rest_before("write")
            count = poll_below(self.inner, self.inner.poll_write, view)
        self._rested = frozenset()
        return count

    def poll_flush(self) -> None:
        """Flush, not at once after a write. See :meth:`AsyncWrite.poll_flush`."""
        self.lifecycle.check_flush(self)
        self._rest_before("flush")
        poll_step(self.inner, "poll_flush")

    def poll_shutdown(self) -> None:
        """Shut down, not at once. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            self._rest_before("shutdown")
            shut_down(self.inner)
            self.lifecycle.end()

    def _rest_before(self, poll: str) -> None:
        if poll not in self._rested:
            self._rested |= {poll}
            raise NotReady(trio.lowlevel.checkpoint)


@final
class ReadyAfterFlushWriter(_Hostile[W]):
    """Hands nothing on unless it is flushed, and is not ready for a second write until it was.

    Its wait does that flush, for a layer above that only ever writes.

    Args:
        inner: the writer, or any :class:`trio.abc.SendStream`, to write to.
    """

    # An empty one is never changed, so all may share it.
    _held = Buf()

    @overload
    def __init__(self, inner: W) -> None: ...
    @overload
    def __init__(self: ReadyAfterFlushWriter[AsyncWrite], inner: trio.abc.SendStream) -> None: ...

    def __init__(self, inner: trio.abc.SendStream) -> None:
        super().__init__(inner)

    announces_held_bytes = True

    @property
    def held_bytes(self) -> int:
        """The last write, until it is flushed."""
        return self._held.remaining

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Hold a copy of ``data``. See :meth:`AsyncWrite.poll_write`."""
        with byte_view(data) as view:
            self.poll_ready()
            self._held = Buf(bytes(view))
        if self._held.remaining:
            hold(self)
        return self._held.remaining

    def poll_flush(self) -> None:
        """Hand on what is held. See :meth:`AsyncWrite.poll_flush`."""
        self.lifecycle.check_flush(self)
        while self._held.remaining:
            poll_below(self.inner, poll_buf, self.inner, self._held)
            if not self._held.remaining:
                let_go(self)
        poll_step(self.inner, "poll_flush")

    def poll_ready(self) -> None:
        """Return once everything was flushed. See :meth:`AsyncWrite.poll_ready`."""
        self.lifecycle.check_write(self)
        if self._held.remaining:
            raise NotReady(self._see_flushed)

    async def _see_flushed(self) -> None:
        while True:
            try:
                self.poll_flush()
            except NotReady as not_ready:
                wait = not_ready.wait
            else:
                break
            await wait()
        await trio.lowlevel.checkpoint()


@final
class BrokenAfterWriter(_Hostile[W]):
    """Breaks, as a connection does, at the first write after so many bytes.

    Args:
        inner: the writer, or any :class:`trio.abc.SendStream`, that gets the bytes before.
        limit: how many bytes that is.

    Raises:
        TypeError: if ``limit`` is not an integer, or ``inner`` cannot be written to.
        ValueError: if ``limit`` is negative.
    """

    @overload
    def __init__(self, inner: W, limit: int) -> None: ...
    @overload
    def __init__(
        self: BrokenAfterWriter[AsyncWrite], inner: trio.abc.SendStream, limit: int
    ) -> None: ...

    def __init__(self, inner: trio.abc.SendStream, limit: int) -> None:
        super().__init__(inner)
        self._left = operator.index(limit)
        if self._left < 0:
            raise ValueError(f"limit must be at least 0, got {limit}")

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Write up to the limit, or break. See :meth:`AsyncWrite.poll_write`."""
        self.lifecycle.check_write(self)
        with byte_view(data) as view, view[: self._left] as allowed:
            if view and not allowed:
                message = f"{self!r} breaks here, as it was told"
                fail(self, trio.BrokenResourceError(message))
                raise trio.BrokenResourceError(message)
            count = poll_below(self.inner, self.inner.poll_write, allowed)
        self._left -= count
        return count
