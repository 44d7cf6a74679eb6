"""The writer over the ``send_all`` of any stream: wrap_stream's last resort.

``send_all`` is an await, and a cancelled one cannot say how much it sent (python-trio/trio#198).
So the poll only *takes* a chunk, and the wait that it hands out does the sending: shielded, until
the chunk is through or ``cancel_grace`` seconds have passed since the cancellation. In the second
case an unknown part of the chunk was sent, nothing may be sent after it, and the stream is broken:
never a guess. The same is true if ``send_all`` raises anything.

A close does not end such a wait: the task inside goes on, and the close waits for it.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, Final, final

import trio
import trio.abc

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._budget import TRANSPORT_RATE
from trio_asyncwrite._core._checks import byte_view, inherits, not_negative
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._errors import CutShort, NotReady
from trio_asyncwrite._core._stack import arm_reset, begin_shutdown, fail, is_layer, writing_chain

from ._address import foreign_address
from ._borrowed_socket import BorrowedSocket
from ._linger import prepare_close, swap_linger
from ._tcp_info import is_gone, unacknowledged_bytes

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterator

    from trio_asyncwrite._core._layer import Layer

DEFAULT_CANCEL_GRACE: Final = 1.0

# What a cancelled task may have to see through. 64 KiB take half a second at 1 Mbit/s.
_CHUNK_SIZE: Final = 65536


@final
class SendStreamWriter(AsyncWrite):
    """See :func:`wrap_stream`."""

    def __init__(
        self, stream: trio.abc.SendStream, cancel_grace: float = DEFAULT_CANCEL_GRACE
    ) -> None:
        not_negative(cancel_grace, "cancel_grace")
        #: The stream.
        self.stream = stream
        self._cancel_grace = cancel_grace
        self._chunk = b""
        # Set while a task is inside one of the stream's methods; others wait for its end.
        self._sending: trio.Event | None = None
        self._shield: trio.CancelScope | None = None
        self._eof_sent = False
        self._closed = False
        #: Whether a close ends a duplex stream by closing it; else somebody else says its end.
        self.ends_by_closing = True
        # Whether the stream's own wait until it can send has returned, for the next poll to say.
        self._was_ready = False
        # What a wait came upon, for the next poll to raise: the task that waited may have been
        # cancelled, and then nobody has been told.
        self._error: Exception | None = None
        # The user's SO_LINGER, while ours is set.
        self._linger_before: bytes | None = None

    #: There is no layer below that would have to keep this one alive.
    announces_held_bytes = True
    bytes_per_budget_unit: int | None = TRANSPORT_RATE

    @property
    def held_bytes(self) -> int:
        """The chunk, until its ``send_all`` has returned."""
        return len(self._chunk)

    @property
    def cancel_grace(self) -> float:
        """How long a cancelled task may still be held up to end a chunk, in seconds."""
        return self._cancel_grace

    @answer
    def close_patience(self) -> float:
        """A wait does the sending, so a close that must not wait gives it so many seconds."""
        return self._cancel_grace

    @answer
    def foreign_below(self) -> tuple[object, ...]:
        """The stream."""
        return (self.stream,)

    @answer
    def peer_address(self) -> Any:
        """That of the Trio socket below the stream, while it is open and connected."""
        return foreign_address(self.stream, "getpeername")

    @answer
    def local_address(self) -> Any:
        """That of the Trio socket below the stream, while it is open."""
        return foreign_address(self.stream, "getsockname")

    @answer
    def half_closes(self) -> bool:
        """Whether the stream can end its direction alone."""
        return isinstance(self.stream, trio.abc.HalfCloseableStream) or not isinstance(
            self.stream, trio.abc.ReceiveStream
        )

    @answer
    def epilogue(self) -> Epilogue:
        """Nobody knows, if the stream is ended by its own close."""
        is_ended_by_close = self.ends_by_closing and not self.half_closes
        return Epilogue.WITH_CLOSE if is_ended_by_close else Epilogue.NOTHING

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Take a chunk of ``data``. See :meth:`AsyncWrite.poll_write`."""
        self.lifecycle.check_write(self)
        with byte_view(data) as view, view[:_CHUNK_SIZE] as chunk:
            self._poll_chunk()
            self._chunk = bytes(chunk)
        return len(self._chunk)

    def poll_flush(self) -> None:
        """Be ready once the chunk is through. See :meth:`AsyncWrite.poll_flush`."""
        self.lifecycle.check_flush(self)
        self._poll_chunk()

    def poll_shutdown(self) -> None:
        """Flush, and end the stream if it can be. See :meth:`AsyncWrite.poll_shutdown`."""
        if begin_shutdown(self):
            self._poll_chunk()
            if not self._eof_sent:
                raise NotReady(self._send_eof)
            self.lifecycle.end()

    def poll_close(self) -> None:
        """Close a duplex stream that cannot be half-closed: so it says its end.

        See :meth:`AsyncWrite.poll_close`.
        """
        if self.ends_by_closing and not self.half_closes:
            self._poll_chunk()
            if not self._closed:
                raise NotReady(self._send_close)

    async def release(self, *, clean: bool) -> None:
        """Close the stream: forcefully, unless that was done. See :meth:`AsyncWrite.release`.

        Cancellation: nothing happened, since it is not cancelled: the shell shields it.
        """
        if self._shield is not None:
            self._shield.cancel()
        self._error = None  # its traceback refers to us; nothing is sent any more
        if self._closed:
            return
        prepare_close_through(self.stream, reset=not clean)
        await trio.aclose_forcefully(self.stream)

    def drain_source(self) -> trio.abc.ReceiveStream | None:
        """The stream, if it can be read."""
        return self.stream if isinstance(self.stream, trio.abc.ReceiveStream) else None

    def _bottom(self) -> Layer | trio.SocketStream | None:
        """The first one below the stream that can be asked."""
        for one in foreign_layers(self.stream):
            if is_layer(one):
                return one  # type: ignore[return-value]
            if inherits(one, trio.SocketStream):
                return one
        return None

    @answer
    def unacknowledged_bytes(self) -> int | None:
        """What a TCP socket of Trio's, below the stream, says."""
        bottom = self._bottom()
        if inherits(bottom, trio.SocketStream):
            sock = bottom.socket
            return unacknowledged_bytes(sock.fileno(), ended=sock.did_shutdown_SHUT_WR)
        return None if bottom is None else bottom.unacknowledged_bytes

    @answer
    def was_reset(self) -> bool:
        """Whether a TCP socket of Trio's, below the stream, is gone though we have not ended it."""
        bottom = self._bottom()
        if inherits(bottom, trio.SocketStream):
            fd, ended = bottom.socket.fileno(), bottom.socket.did_shutdown_SHUT_WR
            is_tcp = unacknowledged_bytes(fd, ended=ended) is not None
            return is_tcp and not ended and is_gone(fd) is True
        return False if bottom is None else bottom.was_reset

    @answer
    def descriptor(self) -> int | None:
        """That of a socket of Trio's, below the stream."""
        bottom = self._bottom()
        if inherits(bottom, trio.SocketStream):
            return bottom.socket.fileno()
        return None if bottom is None else bottom.descriptor

    def arm_reset(self, *, on: bool) -> None:
        """Let the kernel reset a TCP connection below the stream if the process ends now."""
        for one in foreign_layers(self.stream):
            if is_layer(one):
                for lower in writing_chain(one):  # type: ignore[arg-type]
                    lower.arm_reset(on=on)
            elif (sock := _socket_of(one)) is not None:
                self._linger_before = swap_linger(sock, self._linger_before, on=on)

    def poll_ready(self) -> None:
        """Ask the stream, by an await. See :meth:`AsyncWrite.poll_ready`."""
        self.lifecycle.check_write(self)
        self._poll_chunk()
        if not self._was_ready:
            raise NotReady(self._wait_ready)
        self._was_ready = False

    async def _wait_ready(self) -> None:
        await self.stream.wait_send_all_might_not_block()
        self._was_ready = True

    def _poll_chunk(self) -> None:
        """Raise what the last wait met; be ready once the chunk is through."""
        if self._sending is not None:
            raise NotReady(self._sending.wait)
        if self._error is not None:
            fail(self, self._error)  # also when somebody polls by hand
            if isinstance(self._error, trio.BrokenResourceError):
                raise self._error
            raise trio.BrokenResourceError(f"{self!r}: {self._error!r}") from self._error
        if self._chunk:
            raise NotReady(self._send_chunk)

    async def _send_chunk(self) -> None:
        await self._see_through(self._send_all)

    async def _send_eof(self) -> None:
        await self._see_through(self._end)

    async def _send_all(self) -> None:
        await self.stream.send_all(self._chunk)
        self._chunk = b""

    async def _send_close(self) -> None:
        await self._see_through(self._close)

    async def _end(self) -> None:
        if isinstance(self.stream, trio.abc.HalfCloseableStream):
            await self.stream.send_eof()
        elif not isinstance(self.stream, trio.abc.ReceiveStream):
            await self._close()
        self._eof_sent = True

    async def _close(self) -> None:
        prepare_close_through(self.stream, reset=False)
        try:
            await self.stream.aclose()
        except Exception as exc:
            # By Trio's contract it is closed whatever it raises. Busy says that it has not begun.
            self._closed = not isinstance(exc, trio.BusyResourceError)
            raise
        self._closed = True

    @trio.lowlevel.enable_ki_protection
    async def _see_through(self, operation: Callable[[], Awaitable[None]]) -> None:
        """Run ``operation`` to its end, or to ``cancel_grace`` seconds after a cancellation."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._sending is not None:
            await self._sending.wait()
            return
        if self._error is not None or self.lifecycle.released:
            # Somebody has kept this wait: nothing may be sent before a poll has said why.
            await trio.lowlevel.checkpoint()
            return
        self._sending = done = trio.Event()
        self.lifecycle.unbroken_task = trio.lowlevel.current_task()
        # Until it is through, for whatever may come in between.
        self._error = CutShort(
            f"{self!r}: a send was cut short, and an unknown part of {len(self._chunk)} bytes sent"
        )
        self._shield = shield = trio.CancelScope(shield=True)
        interrupt: BaseException | None = None

        async def run() -> None:
            nonlocal interrupt
            try:
                with shield:
                    await operation()
                    self._error = None
                if shield.cancelled_caught and self._chunk:
                    arm_reset(self)
            except Exception as exc:  # noqa: BLE001 - the next poll raises it
                if isinstance(exc, trio.BusyResourceError) and not self._chunk:
                    # Somebody uses the stream itself: its end can be tried again.
                    self._error, interrupt = None, exc
                else:
                    self._error = None if self.lifecycle.released else exc
            except KeyboardInterrupt as exc:
                interrupt = exc
            finally:
                self._sending = self._shield = None
                self.lifecycle.unbroken_task = None
                done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            try:
                await done.wait()
            except (trio.Cancelled, KeyboardInterrupt) as exc:  # noqa: ASYNC103 - raised below
                # Out of the nursery it would come in an ExceptionGroup.
                interrupt = exc
                shield.deadline = trio.current_time() + self._grace()
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                interrupt = None  # it refers to this frame

    def _grace(self) -> float:
        close = self.lifecycle.close
        is_over = close is not None and close.waits_briefly and self.lifecycle.lift_of() is close
        return 0 if is_over else self._cancel_grace

    def __repr__(self) -> str:
        return f"<writer over {self.stream!r}>"


def foreign_layers(stream: object) -> Iterator[object]:
    """A foreign stream and those below it, as far as they show them as Trio's wrappers do."""
    one: object = stream
    while one is not None:
        yield one
        if is_layer(one):
            return
        # SSLStream's is None after its unwrap.
        one = getattr(one, "transport_stream", getattr(one, "send_stream", None))


def _socket_of(stream: object) -> socket.socket | trio.socket.SocketType | None:
    """The open socket of a stream of Trio's; None if it has none."""
    if inherits(stream, trio.SocketStream):
        return stream.socket
    if sys.platform != "win32" and inherits(stream, trio.lowlevel.FdStream):
        with contextlib.suppress(OSError, ValueError):
            return BorrowedSocket(stream.fileno())
    return None


def prepare_close_through(stream: object, *, reset: bool) -> None:
    """Prepare a TCP socket below foreign layers for a close that does not block the run.

    Args:
        stream: the uppermost of them.
        reset: whether the peer shall see a reset.
    """
    with contextlib.suppress(Exception):  # whatever their attributes raise, they are closed
        for one in foreign_layers(stream):
            if is_layer(one):
                for lower in writing_chain(one) if reset else ():  # type: ignore[arg-type]
                    lower.arm_reset(on=True)
            elif (sock := _socket_of(one)) is not None:
                prepare_close(sock, reset=reset)
