"""The buffered reader: for reading what a Buf is for writing.

Everything that has arrived stays in the buffer until a call takes all that it promises at once. So
a cancelled call has consumed nothing, however much it had waited for already.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final, overload

import trio
import trio.abc

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_read import AsyncRead, drive_buffered, poll_reader
from trio_asyncwrite._core._checks import (
    RECEIVE_SIZE,
    byte_view,
    counted,
    int_at_least,
    positive_int,
)
from trio_asyncwrite._core._errors import BusyRefusal, NotReady
from trio_asyncwrite._core._shell import POLLS_PER_TURN
from trio_asyncwrite._transports._wrap_reader import wrap_reader

from ._read_buffer import ReadBuffer

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from trio_asyncwrite._transports._poll_evented import PollEvented
    from trio_asyncwrite._transports._tcp import TcpStream

R = TypeVar("R", bound=AsyncRead)

#: As much as Trio's streams receive at once.
DEFAULT_CAPACITY: Final = RECEIVE_SIZE

# Why receive_until() found no delimiter: the stream has ended, or there are too many bytes.
_ENDED: Final = -1
_TOO_LONG: Final = -2


@final
class BufReader(AsyncRead, Generic[R]):
    r"""Reads ahead, and gives out exactly what is asked for: so many bytes, or up to a delimiter.

    A call that is cancelled has consumed nothing. What has arrived stays in the buffer for the
    next call, whichever that is. ::

        reader = BufReader(stream)
        while line := await reader.receive_until(b"\r\n", max_bytes=8192):
            ...

    The end of the stream where bytes were promised is a :exc:`trio.BrokenResourceError`; an end
    between two messages is ``b""``. If the reader below fails, what arrived before can still be
    read, and then the failure is raised.

    It reads only. ``ReadWritePair(BufReader(stream), stream)`` is a duplex stream that reads ahead.
    Closing it closes the stream below; bytes in the buffer are dropped then, except that
    :meth:`peek` still shows them.

    It holds at most ``capacity`` bytes, or as many as one call asks for if that is more. While it
    is empty it holds no memory.

    Args:
        inner: the reader below, or any :class:`trio.abc.ReceiveStream`. Over an
            :class:`AsyncRead`, a :class:`trio.SocketStream` and a ``trio.lowlevel.FdStream`` it
            polls; over any other stream it waits in that one's ``receive_some``.
        capacity: how many bytes to read ahead at most; at least 1.

    Raises:
        TypeError: if ``inner`` cannot be read from, or ``capacity`` is not an integer.
        ValueError: if ``capacity`` is less than 1.

    Source: ``tokio::io::BufReader``, ``AsyncBufReadExt``.
    """

    announces_held_bytes = True

    #: The reader below.
    inner: R

    @overload
    def __init__(self, inner: R, capacity: int = ...) -> None: ...

    if sys.platform != "win32":

        @overload
        def __init__(
            self: BufReader[TcpStream], inner: trio.SocketStream, capacity: int = ...
        ) -> None: ...
        @overload
        def __init__(
            self: BufReader[PollEvented], inner: trio.lowlevel.FdStream, capacity: int = ...
        ) -> None: ...

    @overload
    def __init__(
        self: BufReader[AsyncRead], inner: trio.abc.ReceiveStream, capacity: int = ...
    ) -> None: ...

    def __init__(self, inner: trio.abc.ReceiveStream, capacity: int = DEFAULT_CAPACITY) -> None:
        self._capacity = positive_int(capacity, "capacity")
        # For layers of this library that look for messages in it.
        self.buffer: Final = ReadBuffer()
        self._ended = False
        self.inner = wrap_reader(inner)  # type: ignore[assignment]

    @property
    def capacity(self) -> int:
        """How many bytes are read ahead at most, unless one call asks for more."""
        return self._capacity

    @property
    def remaining(self) -> int:
        """How many bytes are in the buffer."""
        return len(self.buffer.data)

    @property
    def position(self) -> int:
        """How many bytes were consumed since the start, less those that were put back."""
        return self.buffer.position

    def peek(self) -> bytes:
        """All bytes in the buffer, as a copy; they stay in it.

        After a close, it shows what nobody has read.
        """
        return bytes(self.buffer.data)

    @trio.lowlevel.enable_ki_protection
    def advance(self, count: int) -> None:
        """Consume ``count`` bytes of the buffer.

        Args:
            count: how many, in bytes; at most :attr:`remaining`.

        Raises:
            TypeError: if ``count`` is not an integer.
            ValueError: if ``count`` is negative, or more than there is. Nothing is consumed.
            trio.BusyResourceError: if another task is receiving.
            trio.ClosedResourceError: if the reader is closed.

        Source: ``AsyncBufRead::consume``.
        """
        count = int_at_least(0, count, "count")
        if count > self.remaining:
            raise ValueError(
                f"cannot consume {counted(count, 'byte')}: {self.remaining} are in the buffer"
            )
        self._check_idle()
        self.buffer.consume(count)

    @trio.lowlevel.enable_ki_protection
    def unread(self, data: Buffer) -> None:
        """Put ``data`` back: the next call reads it first.

        It is for what another protocol has read too much, before STARTTLS or after an HTTP
        upgrade. :attr:`position` goes back by as many bytes, below 0 if they were never read here.

        Args:
            data: the bytes; they are copied.

        Raises:
            TypeError: if ``data`` is not bytes-like.
            BufferError: if ``data`` is a view with gaps.
            trio.BusyResourceError: if another task is receiving.
            trio.ClosedResourceError: if the reader is closed.
        """
        with byte_view(data) as view:
            self._check_idle()
            self.buffer.put_back(view)
            if len(view):
                # What is below says again that it has ended, or failed.
                self.lifecycle.at_end = False
                self.lifecycle.read_failure = None

    # ---- Polls -----------------------------------------------------------------------------

    def poll_fill(self, count: int = 1, /) -> bool:
        """See to it that ``count`` bytes are in the buffer, or raise :exc:`NotReady`.

        Args:
            count: how many, in bytes; 0 is always true.

        Returns:
            True if they are in the buffer; False if the stream has ended before, and what came
            is in the buffer.

        Raises:
            NotReady: if not so many have arrived; nothing was consumed.
            TypeError: if ``count`` is not an integer.
            ValueError: if ``count`` is negative.
            trio.ClosedResourceError: if the reader is closed.
            trio.BrokenResourceError: if reading fails, now or before; what came before is in the
                buffer.

        Source: ``AsyncBufRead::poll_fill_buf``.
        """
        count = int_at_least(0, count, "count")
        self._check_open()
        for _ in range(POLLS_PER_TURN):
            if len(self.buffer.data) >= count:
                return True
            if not self._poll_more(count):
                return False
        if len(self.buffer.data) >= count:
            return True
        raise NotReady(trio.lowlevel.checkpoint)

    def poll_read(self, size: int, /) -> bytes:
        """Take what is in the buffer, or else what has arrived. See :meth:`AsyncRead.poll_read`."""
        size = positive_int(size, "size")
        self._check_open()
        if not self.buffer.data:
            if size >= self._capacity:
                return self._poll_past(size)
            if not self._poll_more(1):
                return b""
        return self._take(min(size, self.remaining))

    def _poll_past(self, size: int) -> bytes:
        """Read past the empty buffer, since as much is wanted as that may hold."""
        data = b"" if self._ended else poll_reader(self.inner, size)
        self._ended = not data
        self.buffer.position += len(data)
        return data

    @trio.lowlevel.enable_ki_protection
    def _poll_more(self, wanted: int) -> bool:
        """Read once into the buffer; False at the end of the stream.

        Of a large message no more is asked for than a buffer's worth: memory grows with what
        arrives, and not with what a header claims.
        """
        if self._ended:
            return False
        room = max(self._capacity, wanted) - len(self.buffer.data)
        chunk = poll_reader(self.inner, min(room, max(self._capacity, RECEIVE_SIZE)))
        self._ended = not chunk
        self.buffer.append(chunk)
        return not self._ended

    def _poll_exactly(self, size: int) -> bytes | None:
        if len(self.buffer.data) < size and not self.poll_fill(size):
            return None
        return self._take(size)

    def _poll_until(self, delimiter: bytes, max_bytes: int) -> bytes | int:
        """The message, or why there is none."""
        for _ in range(POLLS_PER_TURN):
            size = self.buffer.find(delimiter)
            if size > max_bytes or (not size and len(self.buffer.data) >= max_bytes):
                return _TOO_LONG
            if size:
                return self._take(size)
            if not self._poll_more(max_bytes):
                return _ENDED if self.buffer.data else b""
        raise NotReady(trio.lowlevel.checkpoint)

    # ---- Awaits ----------------------------------------------------------------------------

    async def fill(self, count: int = 1) -> bool:
        """Wait until ``count`` bytes are in the buffer; they stay in it.

        Args:
            count: how many, in bytes; 0 is always true.

        Returns:
            True if they are in the buffer; False if the stream has ended before, and what came
            is in the buffer.

        Raises:
            TypeError: if ``count`` is not an integer.
            ValueError: if ``count`` is negative.
            trio.BusyResourceError: if another task is receiving.
            trio.ClosedResourceError: if the reader is closed, or is closed while this call waits.
            trio.BrokenResourceError: if reading fails, now or before; what came before is in the
                buffer.

        Cancellation: nothing happened; what has arrived stays in the buffer.
        Checkpoints: when it has to wait; else at least one call in 128.

        Source: ``AsyncBufReadExt::fill_buf``.
        """
        return await drive_buffered(self, self.poll_fill, int_at_least(0, count, "count"))

    # Ctrl-C must not fall between the bytes and the position.
    @trio.lowlevel.enable_ki_protection
    async def receive_exactly(self, size: int) -> bytes:
        """Receive exactly ``size`` bytes.

        Args:
            size: how many, in bytes; 0 gives ``b""``.

        Returns:
            The bytes.

        Raises:
            TypeError: if ``size`` is not an integer.
            ValueError: if ``size`` is negative.
            trio.BusyResourceError: if another task is receiving.
            trio.ClosedResourceError: if the reader is closed, or is closed while this call waits.
            trio.BrokenResourceError: if the stream ends before, or reading fails; what came before
                is in the buffer.

        Cancellation: nothing happened; what has arrived stays in the buffer.
        Checkpoints: when it has to wait; else at least one call in 128.

        Source: ``AsyncReadExt::read_exact``.
        """
        if type(size) is not int or size < 0:
            size = int_at_least(0, size, "size")
        lifecycle = self.lifecycle
        if lifecycle.may_take() and size <= len(self.buffer.data):
            lifecycle.budget.left -= 1
            return self.buffer.take(0, size, size)
        data = await drive_buffered(self, self._poll_exactly, size)
        if data is None:
            raise trio.BrokenResourceError(
                f"{self!r} has ended after {len(self.buffer.data)} of {counted(size, 'byte')}"
            )
        return data

    @trio.lowlevel.enable_ki_protection
    async def receive_until(self, delimiter: Buffer, max_bytes: int) -> bytes:
        r"""Receive up to and including the first ``delimiter``.

        Args:
            delimiter: the bytes to look for, at least one: ``b"\n"``, for example.
            max_bytes: the most to return, in bytes, the delimiter included; no less than the
                delimiter has.

        Returns:
            The bytes, the delimiter included; empty if the stream has ended and the buffer is
            empty.

        Raises:
            TypeError: if ``delimiter`` is not bytes-like, or ``max_bytes`` is not an integer.
            BufferError: if ``delimiter`` is a view with gaps.
            ValueError: if ``delimiter`` is empty, or ``max_bytes`` less than its length.
            trio.BusyResourceError: if another task is receiving.
            trio.ClosedResourceError: if the reader is closed, or is closed while this call waits.
            trio.BrokenResourceError: if ``max_bytes`` hold no delimiter, if the stream ends before
                one, or if reading fails. What came stays in the buffer.

        Cancellation: nothing happened; what has arrived stays in the buffer.
        Checkpoints: when it has to wait; else at least one call in 128.

        Source: ``AsyncBufReadExt::read_until``.
        """
        if type(delimiter) is not bytes:
            with byte_view(delimiter) as view:
                delimiter = bytes(view)
        if not delimiter:
            raise ValueError("the delimiter must have at least one byte")
        if type(max_bytes) is not int or max_bytes < len(delimiter):
            max_bytes = int_at_least(len(delimiter), max_bytes, "max_bytes")
        lifecycle = self.lifecycle
        if lifecycle.may_take():
            end = self.buffer.find(delimiter)
            if 0 < end <= max_bytes:
                lifecycle.budget.left -= 1
                return self.buffer.take(0, end, end)
        data = await drive_buffered(self, self._poll_until, delimiter, max_bytes)
        if type(data) is bytes:
            return data
        if data == _ENDED:
            text = f"has ended after {counted(len(self.buffer.data), 'byte')} without {delimiter!r}"
        else:
            text = f"has no {delimiter!r} in {counted(max_bytes, 'byte')}, as many as max_bytes"
        raise trio.BrokenResourceError(f"{self!r} {text}")

    def _take(self, size: int) -> bytes:
        return self.buffer.take(0, size, size)

    def _check_open(self) -> None:
        lifecycle = self.lifecycle
        if lifecycle.is_closed(reading=True) and lifecycle.lift_of() is None:
            lifecycle.refuse(self)

    def _check_idle(self) -> None:
        self._check_open()
        if self.lifecycle.reading:
            raise BusyRefusal(f"another task is receiving from {self!r}")

    # ---- What closing asks -----------------------------------------------------------------

    @answer
    def peer_ended(self) -> bool | None:
        """Whether the peer has ended its direction, as far as was seen."""
        return self.inner.peer_ended

    @answer
    def discarded_bytes(self) -> int:
        """The bytes in the buffer that nobody has read before the close."""
        return self.remaining if self.closed else 0

    def drain_source(self) -> trio.abc.ReceiveStream | None:
        """This reader, unless the one below is left to somebody else."""
        return None if self.inner.drain_source() is None else self

    def __repr__(self) -> str:
        return f"<BufReader over {self.inner!r}>"
