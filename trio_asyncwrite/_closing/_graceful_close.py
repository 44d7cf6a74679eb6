"""The mechanism behind the close functions.

Theory of operation
===================

**Why bytes get lost at the end.** A TCP socket that is closed with unread input sends a reset,
and the peer's kernel then throws away what it had received from us and its program had not
read yet. To be safe one ends the own direction, reads on until the peer has ended its own, and
closes only then: a *lingering close*. And one reads already while sending, for two peers that
both only write would wait for each other for ever.

**Two tasks in one nursery.** One sends (:meth:`_Ending._send`): it polls the writer's shutdown,
which flushes, writes the epilogues and half-closes. The other reads and throws away
(:class:`_Drain`). When the first is through, the second has until the linger limits. Then the
writer is released. All this is shielded, for its limits are its own, and so a cancelled task
ends its streams as every other does.

**Closing wins** over other tasks inside the stream, as it does in ``aclose`` and by the same means:
``_closing`` is set, and who waits in the writer or comes later gets ClosedResourceError. A task
that reads would be in the way of the drain, so one that waits in the layer that is drained, or for
its descriptor, is woken with that error, too. Other people's streams give us no such means: there,
we try again until the other task has left.

**Honesty.** To hand bytes to a kernel is not to deliver them, and the end-of-file of a peer may be
older than they are: one that has closed long ago answers them with a reset. So the outcome is
CLEAN only if a TCP peer has acknowledged them (:meth:`_Ending._wait_acknowledged`). And an
end-of-file after a reset is none (:meth:`_Ending._failed_before`).

**What is known of other layers.** Wrappers are seen through by ``inner``. A layer may have two
private attributes: ``_close_notify_received`` says what the report wants to know of TLS, and
``_poll_read(size)`` is the poll of a ``receive_some`` that does not work any more while its stream
is closed.

**trio.SSLStream** cannot be half-closed, but it can exchange goodbyes, and its transport can be
half-closed: :meth:`_Ending._unwrap` does the first and hands the second on.
"""

from __future__ import annotations

import contextlib
import functools
import math
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Final, TypeVar, cast, final

import trio
import trio.abc

from trio_asyncwrite._core._async_write import AsyncWrite, ByRef, _Closing, release_once
from trio_asyncwrite._core._checks import RECEIVE_SIZE
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._phase import BROKEN, CLOSED, ENDED
from trio_asyncwrite._tls._stream import TlsStream
from trio_asyncwrite._transports._fd import RESET_ON_CLOSE, FdWriter
from trio_asyncwrite._transports._poll_evented import PollEvented
from trio_asyncwrite._transports._send_stream import SendStreamWriter
from trio_asyncwrite._transports._tcp_info import is_gone, next_pause, unacknowledged_bytes
from trio_asyncwrite._transports._wrap_stream import wrap_stream
from trio_asyncwrite._wrappers._read_write_pair import ReadWritePair
from trio_asyncwrite._wrappers._split import ReadHalf, WriteHalf

from ._report import CloseOutcome, CloseReport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")

# Nobody wakes us when another task has left a stream that is not ours: look again, in seconds.
_BUSY_PAUSE: Final = 0.01


# ---- Arguments ---------------------------------------------------------------------------------


@final
class Limits:
    """Checked limits, in seconds and bytes."""

    __slots__ = ("linger", "linger_bytes", "timeout")

    def __init__(self, timeout: float, linger: float, linger_bytes: int) -> None:
        self.timeout = _not_negative(timeout, "timeout")
        self.linger = _not_negative(linger, "linger")
        self.linger_bytes = _not_negative(linger_bytes, "linger_bytes")
        if not isinstance(linger_bytes, int):
            raise TypeError(f"linger_bytes must be an integer, got {linger_bytes!r}")


def _not_negative(value: T, name: str) -> T:
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not value >= 0:  # NaN is not, either
        raise ValueError(f"{name} must be a number of at least 0, got {value!r}")
    return value


def check_stream(stream: object) -> None:
    if not isinstance(stream, trio.abc.SendStream):
        raise TypeError(f"expected a trio.abc.SendStream, got {type(stream).__name__}")


def _writer_of(stream: trio.abc.SendStream) -> AsyncWrite | None:
    """The stream as a writer; None if it is one that cannot be wrapped any more when closed."""
    if sys.platform != "win32" and isinstance(stream, trio.lowlevel.FdStream):
        if stream.fileno() < 0:
            return None
    return wrap_stream(stream)


# ---- What a stream is made of ------------------------------------------------------------------


def _layers(stream: object, *, owned: bool = True) -> Iterator[object]:
    """``stream`` and what lies below it, down to the transport.

    Args:
        stream: what to begin with.
        owned: whether to stop at what is not closed with ``stream``.
    """
    part = stream
    wholes: list[object] = []
    while part is not None:
        yield part
        # Who has the reading half closes it as well.
        reader = getattr(part, "reader", getattr(part, "receive_stream", None))
        if isinstance(reader, ReadHalf):
            wholes.append(cast("ReadHalf[trio.abc.Stream]", reader)._whole)
        if isinstance(part, SendStreamWriter):
            part = part.stream
        elif isinstance(part, AsyncWrite):
            part = part._below() if not owned or _owns_what_is_below(part, wholes) else None
        else:
            # Names that Trio's own wrappers have; SSLStream's is None after its unwrap.
            part = getattr(part, "transport_stream", getattr(part, "send_stream", None))


def _owns_what_is_below(writer: AsyncWrite, wholes: list[object]) -> bool:
    if isinstance(writer, WriteHalf):
        whole = cast("WriteHalf[trio.abc.Stream]", writer)._whole
        return whole.halves == 1 or any(whole is one for one in wholes)
    return not isinstance(writer, ByRef)


def _base(writer: AsyncWrite) -> AsyncWrite:
    """The lowest of the writers that are closed with ``writer``, before other people's streams."""
    base = writer
    for layer in _layers(writer):
        if not isinstance(layer, AsyncWrite):
            break
        base = layer
    return base


def _may_have_an_epilogue(layer: object) -> bool:
    """Whether ending it may send more than a goodbye: a trailer, which is data."""
    if isinstance(layer, AsyncWrite) and type(layer).poll_shutdown is AsyncWrite.poll_shutdown:
        return False
    # A private module's classes may have the name of the public one.
    return type(layer).__module__.partition(".")[0] not in {__package__, trio.__name__}


def _descriptor_of(layer: object) -> tuple[int, bool] | None:
    """The descriptor of a transport, and whether its write side was shut down."""
    sock = getattr(layer, "socket", None)
    if isinstance(sock, trio.socket.SocketType):
        return sock.fileno(), sock.did_shutdown_SHUT_WR
    if isinstance(layer, FdWriter):
        return layer.fileno(), layer._phase is ENDED
    return None


def _receiver_of(writer: AsyncWrite) -> trio.abc.ReceiveStream | None:
    """What to drain: the outermost layer that can be read from and is closed with ``writer``."""
    for layer in _layers(writer):
        receiver = _reader_of(layer)
        if isinstance(receiver, PollEvented) and not receiver._close_fd:
            return None  # somebody else will go on reading
        tls = _as_ssl_stream(receiver)
        if tls is not None and not _has_session(tls):
            continue  # to read from it would start the handshake
        if receiver is not None:
            return receiver
    return None


def _reader_of(layer: object) -> trio.abc.ReceiveStream | None:
    while isinstance(layer, ReadWritePair):
        layer = cast("ReadWritePair[trio.abc.ReceiveStream, AsyncWrite]", layer).reader
    return layer if isinstance(layer, trio.abc.ReceiveStream) else None


def _transport_of(writer: AsyncWrite) -> tuple[int, bool] | None:
    """The first ``_descriptor_of`` its layers, to look at: also if it is not closed with them."""
    found = map(_descriptor_of, _layers(writer, owned=False))
    return next((transport for transport in found if transport is not None), None)


def _unacknowledged_bytes(writer: AsyncWrite) -> int | None:
    transport = _transport_of(writer)
    return None if transport is None else unacknowledged_bytes(transport[0], ended=transport[1])


def _close_notify_received(writer: AsyncWrite) -> bool | None:
    """What the outermost TLS layer says, which is known by this attribute."""
    for layer in _layers(writer):
        received: bool | None = getattr(layer, "_close_notify_received", None)
        if received is not None:
            return received
    return None


def _as_ssl_stream(stream: object) -> trio.SSLStream[trio.abc.Stream] | None:
    if isinstance(stream, trio.SSLStream):
        return cast("trio.SSLStream[trio.abc.Stream]", stream)
    return None


def _as_tls_stream(stream: object) -> TlsStream[trio.abc.Stream] | None:
    if isinstance(stream, TlsStream):
        return cast("TlsStream[trio.abc.Stream]", stream)
    return None


def _ssl_stream_of(writer: AsyncWrite) -> trio.SSLStream[trio.abc.Stream] | None:
    base = _base(writer)
    return _as_ssl_stream(base.stream) if isinstance(base, SendStreamWriter) else None


def _half_closes(writer: AsyncWrite) -> bool:
    """Whether the writer's shutdown lets the peer see an end."""
    base = _base(writer)
    if isinstance(base, PollEvented):
        return base._is_socket or base._write_only
    if isinstance(base, SendStreamWriter):
        return isinstance(base.stream, trio.abc.HalfCloseableStream) or not isinstance(
            base.stream, trio.abc.ReceiveStream
        )
    return True


def _has_session(tls: trio.SSLStream[trio.abc.Stream]) -> bool:
    try:
        tls.version()
    except trio.NeedHandshakeError:
        return False
    return True


def _is_truncation(exc: BaseException) -> bool:
    """Whether the transport's end-of-file came before the end of the TLS session."""
    return isinstance(exc.__cause__, ssl.SSLEOFError)


# ---- Closing at once ---------------------------------------------------------------------------


async def _cut_off(writer: AsyncWrite) -> None:
    """Release a writer so that the peer of a TCP connection sees a reset."""
    is_below_others = False
    for layer in _layers(writer):
        if isinstance(layer, trio.SocketStream):
            with contextlib.suppress(OSError):
                layer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        elif not isinstance(layer, AsyncWrite):
            is_below_others = True
        elif is_below_others:
            # Others would close it as they always do, and that is with an end-of-file.
            await release_once(layer, clean=False)
            break
    await release_once(writer, clean=False)


async def _force(writer: AsyncWrite) -> None:
    """Release a writer now, and cut short whoever is closing it."""
    closing = None
    if writer._closing is None:
        # Other tasks get ClosedResourceError from now on.
        closing = writer._closing = _Closing()
    with contextlib.suppress(Exception):
        await _cut_off(writer)
    if closing is not None:
        writer._closing = None
        closing.done.set()


# ---- Closing gracefully ------------------------------------------------------------------------


async def _persist(operation: Callable[[], Awaitable[T]]) -> T:
    """Try until other tasks have left what cannot be taken away from them."""
    while True:
        try:
            return await operation()
        except trio.BusyResourceError:
            await trio.sleep(_BUSY_PAUSE)


async def _receive(receiver: trio.abc.ReceiveStream, size: int) -> bytes | bytearray:
    poll_read: Callable[[int], bytes] | None = getattr(receiver, "_poll_read", None)
    if poll_read is None:
        return await receiver.receive_some(size)
    while True:
        try:
            data = poll_read(size)
        except NotReady as not_ready:
            wait = not_ready.wait
        else:
            await trio.lowlevel.checkpoint()
            return data
        await wait()


@final
class _Drain:
    """Reads what the peer still sends, and throws it away, until the peer's end."""

    def __init__(self, receiver: trio.abc.ReceiveStream | None) -> None:
        self.receiver = receiver
        self.peer_closed: bool | None = None if receiver is None else False
        self.discarded = 0
        #: When more than this is discarded, it is enough.
        self.limit: float = math.inf
        self.error: Exception | None = None
        self.scope = trio.CancelScope()
        self.done = trio.Event()

    async def run(self) -> None:
        with self.scope:
            if self.receiver is not None:
                await self._read(self.receiver)
        self.done.set()

    async def _read(self, receiver: trio.abc.ReceiveStream) -> None:
        try:
            while self.discarded <= self.limit:
                # One byte beyond the limit tells that there is more.
                size = int(min(self.limit - self.discarded + 1, RECEIVE_SIZE))
                data = await _persist(functools.partial(_receive, receiver, size))
                if not data:
                    self.peer_closed = True
                    return
                self.discarded += len(data)
        except trio.ClosedResourceError:
            # It can only be written to, or somebody has closed it; the sender will find out.
            self.peer_closed = None
        except Exception as exc:  # noqa: BLE001 - it is reported
            self.error = exc
            # The TLS session has no proper end, but the transport below has.
            self.peer_closed = _is_truncation(exc)


@final
class _Ending(_Closing):
    """A graceful close at work; as the writer's ``_closing`` it tells other tasks so."""

    def __init__(self, writer: AsyncWrite, limits: Limits) -> None:
        super().__init__()
        self.writer = writer
        #: What is being ended: the writer, or after an unwrap the transport below.
        self.current = writer
        receiver = _receiver_of(writer)
        while (tls := _as_tls_stream(receiver)) and not tls._handshook and not writer.unsent_bytes:
            tls._forgo_session()
            receiver = _receiver_of(tls.inner)
        self.drain = _Drain(receiver)
        self.discarded_before = 0
        self.limits = limits
        #: Whether all that was written is known to have arrived, so that goodbyes are all that
        #: can be lost any more.
        unacknowledged = _unacknowledged_bytes(writer)
        self.delivered = (
            unacknowledged == 0
            and not writer.unsent_bytes
            and writer._phase is not BROKEN
            and not any(map(_may_have_an_epilogue, _layers(writer)))
        )
        self.is_tcp = unacknowledged is not None
        self.unacknowledged: int | None = None
        self.started = trio.current_time()
        self.send_by = self.started + limits.timeout
        self.linger_by: float | None = None
        self.sent = False
        self.unwrapped = False
        self.error: Exception | None = None
        #: A failure that cost no more than our goodbye. A peer that has ended does not need it.
        self.unheard: Exception | None = None
        #: Whether another task waits for the report, which is kept only then.
        self.shared = False
        self.report: CloseReport | None = None

    async def run(self) -> CloseReport:
        self.writer._closing = self
        self._evict()
        try:
            # Those who were woken leave now.
            await trio.lowlevel.checkpoint()
            if failure := self._failed_before():
                self._note(failure)
            elif self._is_sent_at_once():
                await self._linger(self.drain.run)
            else:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.drain.run)
                    await self._end(nursery)
                    nursery.cancel_scope.cancel()
            self.unacknowledged = _unacknowledged_bytes(self.current)
        finally:
            await self._release()  # noqa: ASYNC102 - run is shielded as a whole
        report = self._make_report()
        # Exceptions refer to the frames they went through, and those to this object.
        self.error = self.unheard = self.drain.error = None
        if self.shared:
            self.report = report
        return report

    def _evict(self) -> None:
        """Wake the tasks that are in our way."""
        receiver = self.drain.receiver
        for layer in (self.writer, receiver):
            if isinstance(layer, AsyncWrite):
                for scope in layer._waiting:
                    scope.cancel()
        # Only if we read from it ourselves: the waits of a layer above may not bear it.
        transport = _descriptor_of(receiver)
        if transport is not None and transport[0] >= 0:
            trio.lowlevel.notify_closing(transport[0])

    def _failed_before(self) -> trio.BrokenResourceError | None:
        """The failure that somebody else was told of. From then on, reading gives end-of-file."""
        for layer in _layers(self.writer, owned=False):
            error: OSError | None = getattr(layer, "_read_error", None)
            if error is not None and not isinstance(error, ConnectionResetError):
                return trio.BrokenResourceError(f"the connection had failed before: {error}")
            if error is not None:
                return trio.BrokenResourceError("the connection had been reset before")
        transport = _transport_of(self.writer) if self.is_tcp else None
        # If both sides have ended it properly, it is gone as well.
        if transport is not None and not transport[1] and is_gone(transport[0]):
            return trio.BrokenResourceError("the connection had been reset before")
        return None

    def _is_sent_at_once(self) -> bool:
        """Whether sending is over before there was anything to wait for: no second task then."""
        if isinstance(_base(self.writer), SendStreamWriter):
            return False
        try:
            self.writer._poll_end()
            self.sent = True
        except NotReady:
            return False
        except Exception as exc:  # noqa: BLE001 - it is reported
            self._note_sending(exc)
        return True

    async def _end(self, nursery: trio.Nursery) -> None:
        await self._send()
        while self.sent and (tls := _ssl_stream_of(self.current)) is not None:
            if not await self._unwrap(tls, nursery):
                return
        await self._linger(self.drain.done.wait)

    async def _linger(self, drained: Callable[[], Awaitable[None]]) -> None:
        if not self._is_worth_lingering():
            return
        self.drain.limit = self.drain.discarded + self.limits.linger_bytes
        with self._lingering() as self.scope:
            await drained()
            if self.sent:
                await self._wait_acknowledged()

    def _is_worth_lingering(self) -> bool:
        if self.sent:
            return _half_closes(self.current)
        # Has the peer said goodbye, and closed before it could hear ours?
        return self.unheard is not None

    async def _send(self) -> None:
        """Shut down what is to be ended, within the timeout."""
        self.sent = False
        with trio.CancelScope(deadline=self.send_by):  # noqa: ASYNC912 - may be through at once
            try:
                self.sent = await _persist(self._shut_down)
            except Exception as exc:  # noqa: BLE001 - it is reported
                self._note_sending(exc)

    async def _shut_down(self) -> bool:
        if not await self.current._finish(self):
            raise trio.ClosedResourceError("another task cut the close short")
        base = _base(self.current)
        if (
            isinstance(base, SendStreamWriter)
            and not isinstance(base.stream, trio.SSLStream)
            and not _half_closes(base)
        ):
            # Its own goodbye is part of what is to be sent, and it has no other way to say it.
            await base.stream.aclose()
        return True

    async def _unwrap(self, tls: trio.SSLStream[trio.abc.Stream], nursery: trio.Nursery) -> bool:
        """Exchange goodbyes, and end the transport below; False if time was up before."""
        transport: trio.abc.Stream | None = tls.transport_stream
        # A stream that is told neither to expect goodbyes nor to send them has no public name
        # for that.
        if _has_session(tls) and not getattr(tls, "_https_compatible", False):
            if not await self._say_goodbye(tls):
                return False
            if transport is not None and not self.drain.peer_closed:
                # Its session is over, by some failure; but what we sent is still on its way.
                self._note(self.drain.error)
                self.discarded_before += self.drain.discarded
                self.drain = _Drain(transport)
                nursery.start_soon(self.drain.run)
        if transport is None:
            self._note(trio.ClosedResourceError(f"{tls!r} was unwrapped before"))
            self.sent = False
            return False
        self.current = wrap_stream(transport)
        await self._send()
        return True

    async def _say_goodbye(self, tls: trio.SSLStream[trio.abc.Stream]) -> bool:
        # It does not read while it sends, so see to it while we drain that it can send.
        with trio.CancelScope(deadline=self.send_by) as waiting:  # noqa: ASYNC912 - likewise
            try:
                await _persist(tls.wait_send_all_might_not_block)
            except Exception as exc:  # noqa: BLE001 - it is reported
                self._note_goodbye(exc)
        self.sent = not waiting.cancelled_caught
        if not self.sent:
            return False
        # unwrap reads as well.
        self.drain.scope.cancel()
        await self.drain.done.wait()
        with self._lingering() as lingering:
            self.scope = lingering
            try:
                _, rest = await _persist(tls.unwrap)
                self.unwrapped = self.drain.peer_closed = True
                self.drain.discarded += len(rest)
            except Exception as exc:  # noqa: BLE001 - it is reported
                self._note_goodbye(exc)
        # If time was up: what is still to be said, its aclose says when it is released.
        return not lingering.cancelled_caught

    def _lingering(self) -> trio.CancelScope:
        if self.linger_by is None:
            self.linger_by = trio.current_time() + self.limits.linger
        return trio.CancelScope(deadline=self.linger_by)

    async def _wait_acknowledged(self) -> None:
        """After the peer's end: see whether its kernel takes the last bytes, or resets."""
        since = trio.current_time()
        while self.drain.peer_closed and _unacknowledged_bytes(self.current):
            transport = _transport_of(self.current)
            if transport is not None and is_gone(transport[0]):
                self._note_sending(trio.BrokenResourceError("the peer had closed before"))
                return
            await trio.sleep(next_pause(trio.current_time() - since))

    def _note(self, exc: Exception | None) -> None:
        """Keep the first failure: those after it mostly follow from it."""
        self.error = self.error or exc

    def _note_sending(self, exc: Exception) -> None:
        if self.delivered:
            self.unheard = self.unheard or exc
        else:
            self._note(exc)

    def _note_goodbye(self, exc: Exception) -> None:
        if self.drain.peer_closed:
            self._note_sending(exc)
        else:
            self._note(exc)

    async def _release(self) -> None:
        # After an unwrap, what lies above the transport has nothing more to say.
        is_whole = self.current is self.writer
        for writer, clean in ((self.current, self.sent), (self.writer, self.sent and is_whole)):
            try:
                await (release_once(writer, clean=True) if clean else _cut_off(writer))
            except Exception as exc:  # noqa: BLE001 - it is reported
                self._note(exc)
        self.writer._closing = None
        self.failed = not self.sent
        self.done.set()

    def _make_report(self) -> CloseReport:
        drain = self.drain
        ended = drain.peer_closed and drain.error is None
        # The drain goes on only while the sender is well: if both failed, it was the first.
        error = drain.error or self.error or (None if ended else self.unheard)
        if isinstance(error, trio.TooSlowError):
            outcome = CloseOutcome.TIMED_OUT
        elif error is not None:
            outcome = CloseOutcome.BROKEN
        elif not self.sent and self.unheard is None:
            outcome = CloseOutcome.TIMED_OUT
        elif ended and (self.delivered or self.unacknowledged == (0 if self.is_tcp else None)):
            outcome = CloseOutcome.CLEAN
        else:
            outcome = CloseOutcome.PEER_SILENT
        return CloseReport(
            outcome,
            unsent_bytes=self.writer.unsent_bytes,
            unacknowledged_bytes=self.unacknowledged,
            discarded_bytes=self.discarded_before + drain.discarded,
            peer_closed=drain.peer_closed,
            close_notify_received=self.unwrapped or _close_notify_received(self.writer),
            error=error,
            elapsed=trio.current_time() - self.started,
        )


async def _join(writer: AsyncWrite, closing: _Closing, limits: Limits) -> CloseReport | None:
    """Wait for the task that closes the writer already, within the limits; share its report."""
    if isinstance(closing, _Ending):
        closing.shared = True
    with trio.move_on_after(limits.timeout + limits.linger):
        await closing.done.wait()
    if not closing.done.is_set():
        await _force(writer)
    return closing.report if isinstance(closing, _Ending) else None


def _closed_before(writer: AsyncWrite | None) -> CloseReport:
    """All that can be said about a stream that somebody else has closed."""
    return CloseReport(
        CloseOutcome.BROKEN,
        unsent_bytes=0 if writer is None else writer.unsent_bytes,
        close_notify_received=None if writer is None else _close_notify_received(writer),
        error=trio.ClosedResourceError("it was closed before, and not by close_gracefully"),
    )


# ---- The ways in -------------------------------------------------------------------------------


async def end_stream(stream: trio.abc.SendStream, limits: Limits) -> CloseReport:
    """See :func:`close_gracefully`."""
    writer = _writer_of(stream)
    report: CloseReport | None = None
    with trio.CancelScope(shield=True):
        if writer is None or writer._phase is CLOSED:
            await trio.lowlevel.checkpoint()
        elif writer._closing is not None:
            report = await _join(writer, writer._closing, limits)
        else:
            report = await _Ending(writer, limits).run()
    return report or _closed_before(writer)


async def abort_stream(stream: trio.abc.SendStream) -> CloseReport:
    """See :func:`abort`."""
    started = trio.current_time()
    writer = _writer_of(stream)
    unacknowledged = close_notify_received = None
    with trio.CancelScope(shield=True):
        if writer is not None:
            unacknowledged = _unacknowledged_bytes(writer)
            close_notify_received = _close_notify_received(writer)
            await _force(writer)
        await trio.lowlevel.checkpoint()
    return CloseReport(
        CloseOutcome.ABORTED,
        unsent_bytes=0 if writer is None else writer.unsent_bytes,
        unacknowledged_bytes=unacknowledged,
        close_notify_received=close_notify_received,
        elapsed=trio.current_time() - started,
    )
