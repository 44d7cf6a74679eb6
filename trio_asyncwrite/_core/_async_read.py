"""The trait of readers: one poll, and the await around it.

**A foreign reader** is a class that overrides ``receive_some`` and not ``poll_read``. Its awaits
cannot be polled; so ``poll_read`` answers NotReady with a wait that receives and keeps what came,
and the next polls give that out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast, final

import trio
import trio.abc

from ._answer import answer
from ._budget import spend
from ._checks import RECEIVE_SIZE, describe_answer, positive_int, writable_view
from ._errors import BrokenRefusal, BusyRefusal, NotReady
from ._layer import Layer
from ._lifecycle import lifted
from ._stack import attach, find_inner, is_refusal
from ._waits import OneForAll

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")


class AsyncRead(Layer, trio.abc.ReceiveStream):
    """A byte source: one poll that you write, and :meth:`receive_some`, provided.

    Override :meth:`poll_read`. A reader that wraps another one puts it into an attribute ``inner``;
    the default then passes the poll on to it. If ``inner`` is a stream of another library, or the
    writer of one that can be read, the default receives from that stream. A class that overrides
    :meth:`receive_some` instead, as any :class:`trio.abc.ReceiveStream` does, works as well.

    Source: ``tokio::io::AsyncRead``.
    """

    def poll_read(self, size: int, /) -> bytes:
        """Take at most ``size`` bytes of what has arrived, or raise :exc:`NotReady`.

        Args:
            size: the most to return, in bytes; at least 1.

        Returns:
            1 to ``size`` bytes; empty at the end of the stream.

        Raises:
            NotReady: if nothing has arrived; nothing was consumed.
            trio.BrokenResourceError: if reading fails, now or before.

        Source: ``AsyncRead::poll_read``.
        """
        inner = find_inner(self)
        if type(self).receive_some is AsyncRead.receive_some:
            if isinstance(inner, AsyncRead):
                return poll_reader(inner, size)
            for stream in self.foreign_below if inner is None else inner.foreign_below:
                if isinstance(stream, trio.abc.ReceiveStream):
                    return poll_foreign_read(self, stream, size)
            raise TypeError(
                f"{type(self).__name__} must define poll_read(), or set self.inner to a stream "
                f"that can be read"
            )
        return poll_foreign_read(self, self, size)

    def poll_read_into(self, buffer: bytearray | memoryview, /) -> int:
        """Read into ``buffer``: :meth:`poll_read`, and a copy, unless you override it.

        Args:
            buffer: where to put the bytes: writable, contiguous, and not empty.

        Returns:
            How many bytes were read; 0 at the end of the stream.

        Raises:
            NotReady: if nothing has arrived; nothing was consumed.
            TypeError: if ``buffer`` is not a writable bytes-like object.
            BufferError: if ``buffer`` is a view with gaps.
            ValueError: if ``buffer`` is empty.
            trio.BrokenResourceError: if reading fails, now or before.
        """
        with writable_view(buffer) as view:
            data = self.poll_read(len(view))
            view[: len(data)] = data
        return len(data)

    @trio.lowlevel.enable_ki_protection
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive what has arrived, or wait for some.

        Args:
            max_bytes: the most to return, in bytes; at least 1. The default is 65536.

        Returns:
            The bytes received; empty at the end of the stream.

        Raises:
            TypeError: if ``max_bytes`` is not an integer.
            ValueError: if ``max_bytes`` is less than 1.
            trio.BusyResourceError: if another task is receiving.
            trio.ClosedResourceError: if the stream is closed, or is closed while this call waits.
            trio.BrokenResourceError: if reading fails, now or before.

        Cancellation: nothing happened; what has arrived stays for the next call.

        Source: :meth:`trio.abc.ReceiveStream.receive_some`.
        """
        size = RECEIVE_SIZE if max_bytes is None else max_bytes
        if type(size) is not int or size < 1:
            # True is 1, as for Trio's streams.
            size = 1 if size is True else positive_int(size, "max_bytes")
        lifecycle = self.lifecycle
        lift = claim_reading(self)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            waited = False
            while True:
                try:
                    if lift is None:
                        data = poll_reader(self, size)
                    else:
                        with lifted(lift):
                            data = poll_reader(self, size)
                    break
                except NotReady as not_ready:
                    wait = not_ready.wait
                await lifecycle.wait(self, wait, reading=True)
                waited = True
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
            return data
        finally:
            lifecycle.reading = False

    @answer
    def foreign_below(self) -> tuple[object, ...]:
        """The stream of another library that is ``inner``, if it is one; closed with this layer."""
        odd = self.lifecycle.odd_inner
        return (odd,) if isinstance(odd, trio.abc.ReceiveStream) else ()

    async def release(self, *, clean: bool) -> None:
        """Close a stream of another library that is ``inner``. See :meth:`Layer.release`.

        Cancellation: nothing happened, since it is not cancelled: the library shields it.
        Checkpoints: not necessarily one.
        """
        odd = self.lifecycle.odd_inner
        if isinstance(odd, trio.abc.ReceiveStream):
            await trio.aclose_forcefully(odd)

    def drain_source(self) -> trio.abc.ReceiveStream | None:
        """This stream itself."""
        return self


@final
class ForeignReader(AsyncRead):
    """A reader over any :class:`trio.abc.ReceiveStream`; it does not close it.

    Args:
        stream: the stream.
    """

    announces_held_bytes = True

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream

    def poll_read(self, size: int, /) -> bytes:
        """Take what a wait has received. See :meth:`AsyncRead.poll_read`."""
        return poll_foreign_read(self, self._stream, size)


def poll_foreign_read(layer: Layer, stream: trio.abc.ReceiveStream, size: int) -> bytes:
    """Poll a stream that can only be awaited; ``layer`` keeps what it has received.

    Raises:
        NotReady: whose wait receives.
        TypeError: if ``size`` is not an integer.
        ValueError: if ``size`` is less than 1.
    """
    size = positive_int(size, "size")
    lifecycle = layer.lifecycle
    received = lifecycle.received
    if received:
        lifecycle.received = received[size:]
        return received[:size]
    if lifecycle.at_end:
        return b""
    if lifecycle.receiving is None:
        lifecycle.receiving = OneForAll()
    shared = lifecycle.receiving

    @trio.lowlevel.enable_ki_protection
    async def receive() -> None:
        data = await stream.receive_some(size)
        # No checkpoint from here on: what came is kept whatever happens to this task.
        lifecycle.received = bytes(data)
        lifecycle.at_end = not data

    async def wait() -> None:
        await shared.wait(receive)

    raise NotReady(wait)


@trio.lowlevel.enable_ki_protection
async def drive_buffered(
    reader: AsyncRead, poll: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]
) -> T:
    """Poll, and wait if it is not ready; what is ready at once costs a unit of the budget.

    Args:
        reader: the reader that was called; it has a buffer.
        poll: a poll that reads from it.
        *args: its arguments.
    """
    lifecycle = reader.lifecycle
    budget = lifecycle.budget
    if budget.left:
        budget.left -= 1
    else:
        lifecycle.budget = await spend(budget)
    lift = None
    if lifecycle.reading or lifecycle.close or lifecycle.released or not lifecycle.attached:
        lift = claim_reading(reader)
    else:
        lifecycle.reading = True
    try:
        while True:
            try:
                if lift is None:
                    return poll(*args)
                with lifted(lift):
                    return poll(*args)
            except NotReady as not_ready:
                wait = not_ready.wait
            await lifecycle.wait(reader, wait, reading=True)
    finally:
        lifecycle.reading = False


def claim_reading(reader: AsyncRead) -> object:
    """Make this task the one that reads; what lifts the refusals for it, if any.

    Whoever calls it sets ``lifecycle.reading`` back.

    Raises:
        trio.ClosedResourceError: if the reader is closed, or being closed.
        trio.BusyResourceError: if another task is reading.
    """
    lifecycle = reader.lifecycle
    if not lifecycle.attached:
        attach(reader)
    lift = None
    if lifecycle.close is not None or lifecycle.released:
        lift = lifecycle.lift_of()
        if lift is None:
            lifecycle.refuse(reader)
    if lifecycle.reading:
        raise BusyRefusal(f"another task is receiving from {reader!r}")
    lifecycle.reading = True
    return lift


def poll_reader(reader: AsyncRead, size: int) -> bytes:
    """Poll ``reader``; its end is sticky, and so is a failure.

    Raises:
        NotReady: as the poll does.
        TypeError: if ``size`` is not an integer.
        ValueError: if ``size`` is less than 1.
        trio.ClosedResourceError: if it is closed.
        trio.BrokenResourceError: if it fails; an OSError is the cause.
    """
    if type(size) is not int or size < 1:
        size = positive_int(size, "size")
    lifecycle = reader.lifecycle
    if lifecycle.refusal is not None or lifecycle.read_failure is not None:
        _check_reading(reader)
    if lifecycle.at_end and not lifecycle.received:
        return b""
    try:
        data = reader.poll_read(size)
    except NotReady:
        raise
    except BaseException as exc:
        _fail_reading(reader, exc)
        raise
    if type(data) is not bytes or len(data) > size:
        data = _checked(data, size, reader)
    if not data:
        lifecycle.at_end = True
    return data


def poll_reader_into(
    reader: AsyncRead, size: int, poll: Callable[[Unpack[Ts]], int], *args: Unpack[Ts]
) -> int:
    """Poll ``reader`` by a poll that puts the bytes somewhere, as :func:`poll_reader` does.

    Args:
        reader: the reader.
        size: the most that can be read, in bytes; at least 1.
        poll: its poll.
        *args: the arguments.

    Returns:
        How many bytes were read; 0 at the end.

    Raises:
        NotReady: as the poll does.
        TypeError: if the poll answers something else.
        trio.ClosedResourceError: if it is closed.
        trio.BrokenResourceError: if it fails; an OSError is the cause.
    """
    lifecycle = reader.lifecycle
    if lifecycle.refusal is not None or lifecycle.read_failure is not None:
        _check_reading(reader)
    if lifecycle.at_end and not lifecycle.received:
        return 0
    try:
        count = poll(*args)
    except NotReady:
        raise
    except BaseException as exc:
        _fail_reading(reader, exc)
        raise
    if type(count) is not int or not 0 <= count <= size:
        name = getattr(poll, "__name__", "poll")
        raise TypeError(
            f"{type(reader).__name__}.{name}() must return a number from 0 to {size}, it returned "
            f"{describe_answer(count)}"
        )
    if not count:
        lifecycle.at_end = True
    return count


def _check_reading(reader: AsyncRead) -> None:
    lifecycle = reader.lifecycle
    if lifecycle.is_closed(reading=True) and lifecycle.lift_of() is None:
        lifecycle.refuse(reader)  # below a layer over two streams, which is still open
    if lifecycle.read_failure is not None:
        cause = lifecycle.read_failure
        try:
            raise BrokenRefusal(f"reading from {reader!r} has failed before: {cause!r}") from cause
        finally:
            del cause  # its traceback refers to this frame's callers


def _fail_reading(reader: AsyncRead, exc: BaseException) -> None:
    if is_refusal(exc):
        return
    ours = isinstance(exc, trio.BrokenResourceError) and exc.__cause__ is not None
    reader.lifecycle.read_failure = exc.__cause__ if ours else exc
    if isinstance(exc, OSError):
        raise trio.BrokenResourceError(f"{reader!r}: {exc}") from exc


def _checked(data: object, size: int, reader: AsyncRead) -> bytes:
    name = type(reader).__name__
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(
            f"{name}.poll_read() must return bytes, it returned {describe_answer(data)}"
        )
    found = bytes(cast("bytes | bytearray", data))
    if len(found) > size:
        raise RuntimeError(f"{name}.poll_read() returned {len(found)} bytes, more than {size}")
    return found
