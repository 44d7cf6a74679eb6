"""A limit to the rate of writing, which many writers may share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar, final, overload

import trio
import trio.abc

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._checks import byte_view, checked_buffers
from trio_asyncwrite._core._file_part import check_part
from trio_asyncwrite._core._shell import poll_data
from trio_asyncwrite._core._stack import poll_below, poll_step
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._parts import front, poll_parts, release
from ._token_bucket import TokenBucket
from ._tokens import Turn
from ._wrapper import Wrapper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_asyncwrite._core._file_part import FilePart
    from trio_asyncwrite._transports._poll_evented import PollEvented
    from trio_asyncwrite._transports._tcp import TcpStream

W = TypeVar("W", bound=AsyncWrite)


@final
class ThrottledWriter(Wrapper[W]):
    """Writes no faster than a :class:`TokenBucket` allows.

    A write that is larger than what the bucket has goes in pieces; a call waits *before* bytes that
    would be too fast, and not after them. Bytes count when the writer below has accepted them. So a
    cancelled call has used up nothing but what it has written.

    Several writers may share one bucket. Those that wait get turns, first come, first served, and
    so the same share each. A flush, a shutdown and reading are not limited; nor is what a layer
    below adds, such as TLS. To limit what the network carries, put it below those.

    It is write-only. Files are passed on, in pieces. Under a :class:`SharedWriter` messages stay
    whole; above one, the pieces of different tasks may mix.

    Args:
        inner: the writer, or any :class:`trio.abc.SendStream`, to write to; it goes through
            :func:`wrap_stream`.
        bucket: the limit.

    Raises:
        TypeError: if ``inner`` cannot be written to, or ``bucket`` is not a :class:`TokenBucket`.

    Source: ``async_speed_limit::Resource``.
    """

    #: The writer below.
    inner: W

    @overload
    def __init__(self, inner: W, bucket: TokenBucket) -> None: ...
    @overload
    def __init__(
        self: ThrottledWriter[TcpStream], inner: trio.SocketStream, bucket: TokenBucket
    ) -> None: ...

    if sys.platform != "win32":

        @overload
        def __init__(
            self: ThrottledWriter[PollEvented],
            inner: trio.lowlevel.FdStream,
            bucket: TokenBucket,
        ) -> None: ...

    @overload
    def __init__(
        self: ThrottledWriter[AsyncWrite], inner: trio.abc.SendStream, bucket: TokenBucket
    ) -> None: ...

    def __init__(self, inner: trio.abc.SendStream, bucket: TokenBucket) -> None:
        if not isinstance(bucket, TokenBucket):
            raise TypeError(
                f"expected a TokenBucket, got {type(bucket).__name__}: give TokenBucket(rate)"
            )
        self._bucket = bucket
        self._turn = Turn()
        self.inner = wrap_stream(inner)  # type: ignore[assignment]

    @property
    def bucket(self) -> TokenBucket:
        """The limit. Its ``rate`` may be set."""
        return self._bucket

    @property
    def spare_capacity(self) -> int:  # type: ignore[override]
        """The capacity of the writer below, as far as the bucket has tokens."""
        below: int = super().spare_capacity
        return min(below, self._bucket.tokens.at_once + 1) if below else 0

    @answer
    def keeps_messages(self) -> bool:
        """No: a message may go in pieces."""
        return False

    # Ctrl-C must not fall between what was accepted and the tokens that it costs.
    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Pass on as much of ``data`` as the bucket allows. See :meth:`AsyncWrite.poll_write`."""
        if self.lifecycle.refusal is not None:
            self.lifecycle.check_write(self)
        inner = self.inner
        most = -1
        if type(data) is bytes:
            most = self._allowed(len(data))
            if most == len(data):
                return self._used(poll_below(inner, poll_data, inner, data))
        with byte_view(data) as view:
            if most < 0:
                most = self._allowed(len(view))
            with view[:most] as part:
                return self._used(poll_below(inner, poll_data, inner, part))

    @trio.lowlevel.enable_ki_protection
    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Pass on the front of ``buffers``. See :meth:`AsyncWrite.poll_write_vectored`."""
        self.lifecycle.check_write(self)
        views = [byte_view(data) for data in checked_buffers(buffers)]
        parts: list[memoryview] = []
        try:
            most = self._allowed(sum(map(len, views)))
            parts = front(views, most)
            return self._used(poll_below(self.inner, poll_parts, self.inner, parts))
        finally:
            release(parts)
            release(views)

    @trio.lowlevel.enable_ki_protection
    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        """Pass on as much of the file as allowed. See :meth:`AsyncWrite.poll_write_file`."""
        self.lifecycle.check_write(self)
        check_part(part, limit)
        # Nothing remains at the end, and in a file that does not tell its size (in /proc).
        most = self._allowed(min(part.remaining or limit, limit))
        count = poll_below(self.inner, self.inner.poll_write_file, part, most)
        return self._used(count) if type(count) is int else count

    def poll_ready(self) -> None:
        """Return if a byte may be written. See :meth:`AsyncWrite.poll_ready`."""
        self.lifecycle.check_write(self)
        self._allowed(1)
        poll_step(self.inner, "poll_ready")

    def _allowed(self, size: int) -> int:
        return self._bucket.tokens.poll(self._turn, size) if size else 0

    def _used(self, count: int) -> int:
        self._bucket.tokens.use(self._turn, count)
        return count

    def __repr__(self) -> str:
        return f"<ThrottledWriter over {self.inner!r}>"
