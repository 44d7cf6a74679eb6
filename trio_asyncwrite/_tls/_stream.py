"""TLS that survives cancellation.

Theory of operation
===================

``_engine.py`` does TLS; this module moves its ciphertext. Both halves of a connection share
one engine: a reader may have to send (a key update, an alert, a renegotiation) and a writer to
receive (the handshake). Trio's SSLStream sends inside each operation, and a task that is
cancelled there takes the session with it (python-trio/trio#198). Here a poll only makes ciphertext
and hands on what goes at once; **the rest is kept in** ``engine.out`` **and is sent by whatever
operation comes next**, on either half. Since polls cannot be interrupted, ciphertext leaves in
the order in which it was made, without a lock.

**Waits** come in two kinds, and each of them is made by one task at a time, on behalf of all:
``_wait_send`` (until the transport takes more) and ``_wait_receive`` (until ciphertext has
arrived, and is fed to the engine before anybody can be cancelled). A task that comes second waits
for the first to be done, however it ends, and polls again. ``_wait_either`` is for tasks that
either would help.

**Failures.** An exception that the transport raises from a *poll* means that no ciphertext can be
sent any more. What is queued is dropped. A write whose records had partly gone returns how much of
its plaintext is in them, and the next operation raises the exception. If a reader meets it, it is
kept for the next operation that writes or closes, and reading goes on. An exception from a *wait*
changes nothing: it goes to the task that waits, and the others poll again. A reader that would help
a writer's bytes along is not told of it. The transport's end-of-file is not believed after its
receive_some has raised BrokenResourceError: the kernel reports a reset once.

**The end.** A kernel that closes a TCP connection with unread input sends a reset, which destroys
data that the peer has not read yet. Session tickets are such input, so ``release`` reads what has
arrived first. A failure of the end itself is forgiven only if it can have cost nothing.

**Bounds.** Plaintext is only accepted when ``engine.out`` is empty, and at most ``_PIECE`` bytes
of it. Ciphertext is received at most ``RECEIVE_SIZE`` bytes at a time, and only when the engine
asks for it. A peer that makes us answer and does not read is not read from, either, once
``_QUEUE_LIMIT`` bytes are queued: these, and the answers to what was received last (a key update
is answered by one of the same size), are all that ``engine.out`` ever holds.

**Copies** of plaintext on its way out: one, by OpenSSL, which encrypts into its record buffer. Of
ciphertext: two, from there to the outgoing BIO and from the BIO to the bytes that are sent
(``ssl.MemoryBIO`` cannot lend its memory). On the way in: ciphertext two (into the BIO, and into
OpenSSL's record), plaintext one (into the bytes returned), and one more when several records are
returned together.
"""

from __future__ import annotations

import contextlib
import math
import os
import ssl
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast, final

import trio
import trio.abc

from trio_asyncwrite._core._async_write import AsyncReadWrite, AsyncWrite, release_once
from trio_asyncwrite._core._checks import RECEIVE_SIZE, accepted, byte_view, positive_int
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._phase import BROKEN, CLOSED, ENDED
from trio_asyncwrite._transports._duplex import DuplexStream
from trio_asyncwrite._transports._fd import FdWriter
from trio_asyncwrite._transports._send_stream import SendStreamWriter
from trio_asyncwrite._transports._tcp_info import unacknowledged_bytes
from trio_asyncwrite._transports._wrap_stream import wrap_stream
from trio_asyncwrite._wrappers._read_write_pair import ReadWritePair

from ._engine import RECORD_SIZE, TlsEngine
from ._server_name import server_name
from ._session_info import SessionInfo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

S = TypeVar("S", bound=trio.abc.Stream)

# Four records: enough to make a system call worth its while, and it stays in the L2 cache.
_PIECE: Final = 4 * RECORD_SIZE

# A writer's piece, and as much again for answers. To stop reading for the sake of the first alone
# would be a deadlock: the peer may be doing the same.
_QUEUE_LIMIT: Final = 2 * _PIECE

# How long a failed handshake may take to tell the peer why, in seconds. Alerts are 7 to 31 bytes
# and nothing else is under way, so it only takes time if the peer wants it to.
_ALERT_TIMEOUT: Final = 5.0

# How much ciphertext to read at a close, and before a failure is judged: more than a flight of
# session tickets or what a socket buffer holds by default, and little memory.
_ARRIVED_LIMIT: Final = 256 * 1024

# A transport that raises one of these from a poll has not failed: see AsyncWrite._fail.
_REFUSALS: Final = (trio.ClosedResourceError, trio.BusyResourceError, trio.TooSlowError)

# What may be raised again by a later wait, instead of an error that was met at the same time.
_CAN_WAIT: Final = (Exception, trio.Cancelled, type(None))


def _innermost(writer: AsyncWrite) -> AsyncWrite:
    while (below := writer._below()) is not None:
        writer = below
    return writer


def _source(receiver: object) -> object:
    """What ``receiver`` reads from without changing it, and closes."""
    while isinstance(receiver, ReadWritePair):
        receiver = cast("ReadWritePair[trio.abc.ReceiveStream, AsyncWrite]", receiver).reader
    return wrap_stream(receiver) if isinstance(receiver, trio.SocketStream) else receiver


def _take_arrived(source: object, size: int) -> bytes:
    """At most ``size`` bytes that have arrived, without waiting; empty if there are none.

    At the end, too: after a reset was reported to somebody, an end is none.

    Raises:
        OSError: if the descriptor cannot be read from now.
    """
    if isinstance(source, DuplexStream):
        pipe = source._incoming
        return pipe._take(size) if pipe._bytes else b""
    # A PollEvented may leave its descriptor open, for somebody else to read on.
    if isinstance(source, FdWriter) and getattr(source, "_close_fd", True):
        try:
            return os.read(source.fileno(), size)
        except ConnectionError as exc:
            source._note_reset(exc)
            raise
    return b""


@final
class _TimeLimit:
    """A number of seconds from now, within this ``trio.run``; over in every other one."""

    __slots__ = ("_run", "deadline")

    def __init__(self, seconds: float) -> None:
        self._run = trio.lowlevel.current_trio_token()
        #: The time on the clock of the run.
        self.deadline = trio.current_time() + seconds

    def is_over(self) -> bool:
        # The clock of another run says nothing about this deadline.
        return (
            self._run is not trio.lowlevel.current_trio_token()
            or trio.current_time() >= self.deadline
        )

    def end(self) -> None:
        self.deadline = -math.inf


@final
class TlsStream(SessionInfo, AsyncReadWrite, Generic[S]):
    """TLS over any stream; what :class:`trio.SSLStream` is, and safe to cancel.

    It takes the same arguments and has the same methods and attributes, and the whole of
    :class:`AsyncWrite`. Beyond that:

    * Every operation, the handshake included, may be cancelled and called again; the session is
      never lost, and cancelling one half does not harm the other. (Over a stream that has only
      ``send_all``, :func:`wrap_stream`'s ``cancel_grace`` applies.)
    * :meth:`shutdown` half-closes: the peer reads everything and then a proper end, while this
      side goes on reading.
    * A handshake that fails tells the peer why.
    * A stream that ends without close_notify is never taken for complete (unless
      ``https_compatible``), whatever the context's ``OP_IGNORE_UNEXPECTED_EOF`` says.

    Small messages belong into a :class:`BufWriter` around it, which makes full records of them.
    ``ReadWritePair(tls, BufWriter(tls))`` is the buffered duplex stream. At most 64 KiB of
    plaintext are queued as ciphertext.

    The handshake happens with the first operation that needs it, or in :meth:`do_handshake`. A
    server's session tickets (TLS 1.3) are sent with its first write. A client resumes a session
    with ``stream.session = earlier.session`` before the handshake.

    Args:
        transport_stream: the stream that carries the ciphertext. Closing this stream closes it.
        ssl_context: the :class:`ssl.SSLContext`.
        server_hostname: the name of the server, for SNI and for checking its certificate. A
            client needs it unless ``ssl_context.check_hostname`` is off. A trailing dot and the
            zone of an IPv6 address (``%eth0``) are left out.
        server_side: whether this side is the server.
        https_compatible: neither expect nor send a close_notify, as is usual in HTTPS, where the
            protocol above says how long its messages are.

    Raises:
        TypeError: if ``transport_stream`` is not a :class:`trio.abc.Stream`, or
            ``server_hostname`` neither a string nor bytes.
        ValueError: if ``server_hostname`` is missing, or no certificate can be valid for it.

    Source: ``tokio_rustls::TlsStream``; :class:`trio.SSLStream`; RFC 8446.
    """

    #: The stream that carries the ciphertext, as it was given; ``None`` after :meth:`unwrap`.
    transport_stream: S
    #: The same stream as a writer.
    inner: AsyncWrite

    def __init__(
        self,
        transport_stream: S,
        ssl_context: ssl.SSLContext,
        *,
        server_hostname: str | bytes | None = None,
        server_side: bool = False,
        https_compatible: bool = False,
    ) -> None:
        if not isinstance(transport_stream, trio.abc.Stream):
            raise TypeError(f"expected a trio.abc.Stream, got {type(transport_stream).__name__}")
        if server_hostname is None and not server_side and ssl_context.check_hostname:
            # Where ssl.SSLSocket refuses, ssl.SSLObject goes on, and checks no name.
            raise ValueError("a client whose context has check_hostname needs a server_hostname")
        self._engine = TlsEngine(
            ssl_context, server_side=server_side, server_hostname=server_name(server_hostname)
        )
        self._https_compatible = https_compatible
        self._handshook = False
        self._handshake_error: ssl.SSLError | None = None
        # How long a failed handshake may still wait: for its alert to go, or for the peer's.
        self._alert_limit: _TimeLimit | None = None
        # Whether the peer was told why TLS failed after the handshake.
        self._alerted = False
        # Whether an aclose is at work.
        self._leaving = False
        # Plaintext bytes that went into engine.out since it was last empty; that did since the
        # last complete flush; that were in engine.out when a failure emptied it.
        self._queued = 0
        self._accepted = 0
        self._lost = 0
        # How much ciphertext had gone when close_notify was made: all data, and nothing else.
        self._data_end: int | None = None
        #: Bytes of application data that closing threw away: they had arrived, and nobody had
        #: received them.
        self.discarded_bytes: int = 0
        # Whether what reading has made TLS say has not been flushed yet.
        self._answering = False
        self._reading = False
        # The waits that are made by one task for all.
        self._sending: trio.Event | None = None
        self._send_wait: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint
        self._receiving: trio.Event | None = None
        self._received = 0  # how often ciphertext or its end has arrived
        self._receive_scope: trio.CancelScope | None = None
        # Why no ciphertext can be sent any more. And the exception that said so, for the next
        # operation that writes or closes to raise, if that one is to know.
        self._send_failure: BaseException | None = None
        self._send_error: BaseException | None = None
        # Why the transport was called broken by its receive_some.
        self._receive_failure: BaseException | None = None
        self.inner = wrap_stream(transport_stream)
        self.transport_stream = transport_stream
        # What the writer knows of a reset, its reader knows as well.
        self._receiver: trio.abc.ReceiveStream = (
            self.inner if isinstance(self.inner, trio.abc.ReceiveStream) else transport_stream
        )
        self._source = _source(self._receiver)
        self._innermost = innermost = _innermost(self.inner)
        # Whether a task that waits to send can leave it at any time, without harm.
        self._exact = not isinstance(innermost, SendStreamWriter)

    # ---- The polls -------------------------------------------------------------------------

    @property
    def unsent_bytes(self) -> int:
        """See :attr:`AsyncWrite.unsent_bytes`; a record counts until the last of it has gone.

        What TLS itself has to say does not count.
        """
        queued = min(self._queued, len(self._engine.out))
        return self._lost + queued + min(self._accepted - queued, self.inner.unsent_bytes)

    @property
    def _close_notify_received(self) -> bool:
        """For the report of a close; see ``_graceful_close.py``, which uses ``_poll_read``, too."""
        return self._engine.received_close_notify

    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Encrypt up to 64 KiB of ``data``. See :meth:`AsyncWrite.poll_write`."""
        if type(data) is bytes and len(data) <= _PIECE:
            return self._poll_encrypt((data,))
        with byte_view(data) as view, view[:_PIECE] as piece:
            return self._poll_encrypt((piece,))

    @trio.lowlevel.enable_ki_protection
    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Encrypt up to 64 KiB of ``buffers``. See :meth:`AsyncWrite.poll_write_vectored`."""
        pieces: list[memoryview] = []
        room = _PIECE
        try:
            for data in buffers:
                with byte_view(data) as view:
                    pieces.append(view[:room])
                room -= len(pieces[-1])
            return self._poll_encrypt(pieces)
        finally:
            for piece in pieces:
                piece.release()

    def _poll_encrypt(self, pieces: Sequence[bytes | memoryview]) -> int:
        engine = self._engine
        self._check_open()
        if not self._handshook:
            self._poll_handshake()
        if engine.out or self._send_error is not None:
            self._push()
        if not any(pieces):
            return 0
        try:
            count = engine.encrypt(pieces)
        except ssl.SSLError as exc:
            raise self._tls_failed(exc) from exc
        if not count:  # a renegotiation has to be gone through first
            raise NotReady(self._wait_either if self._pushed_back() else self._wait_receive)
        records, sent_before = engine.out, engine.sent_bytes
        try:
            self._transfer(flush=False)
        except NotReady:
            pass  # it is queued, and so accepted
        except BaseException as exc:
            if self._send_failure is not None:
                # Nothing more will go, so what has not gone stays the caller's.
                count = engine.plaintext_in(records, engine.sent_bytes - sent_before)
                if not count:
                    self._break(exc)
                    raise
                self._send_error = exc
            # Otherwise the transport has refused it for now: it is queued, too.
        if engine.out:
            self._queued = count
        self._accepted += count
        return count

    @trio.lowlevel.enable_ki_protection
    def poll_flush(self) -> None:
        """Hand on all ciphertext. See :meth:`AsyncWrite.poll_flush`."""
        self._check_usable()
        self._push(flush=True)

    @trio.lowlevel.enable_ki_protection
    def poll_shutdown(self) -> None:
        """Send close_notify and half-close the transport. See :meth:`AsyncWrite.poll_shutdown`.

        With ``https_compatible``, it is the transport alone that is half-closed.
        """
        if not self._begin_shutdown():
            return
        if self._closing is not None and not self._leaving:
            self._leaving = True
            # A handshake that was begun and given up is not gone on with.
            if self._engine.has_spoken:
                self._forgo_session()
        if not self._https_compatible:
            self._poll_handshake()
        try:
            if not self._https_compatible:
                self._poll_close_notify()
            self._push(flush=True)
            self._poll_below(self.inner.poll_shutdown)
        except trio.BrokenResourceError:
            with contextlib.suppress(ssl.SSLError):
                self._read_ahead()
            if not self._is_forgivable():
                raise
            # The peer has ended its stream and closed the connection; it need not read
            # our close_notify (RFC 8446, section 6.1).
            self._drop_queue()
        self._enter(ENDED)

    def _poll_close_notify(self) -> None:
        """Flush, and make close_notify, which is then queued."""
        if not self._engine.sent_close_notify:
            self._push(flush=True)
            self._data_end = self._engine.sent_bytes
            try:
                self._engine.close_notify()
            except ssl.SSLError as exc:
                raise self._tls_failed(exc) from exc

    def _is_forgivable(self) -> bool:
        """Whether a failure to send the rest costs nothing, as far as can be known.

        The peer had ended its stream before, all data were handed over, and none are known to
        be unacknowledged.
        """
        engine = self._engine
        if self.unsent_bytes or not (engine.received_close_notify or engine.eof):
            return False
        if not isinstance(self._innermost, FdWriter):
            return True
        unacknowledged = unacknowledged_bytes(
            self._innermost.fileno(), ended=self._innermost._phase is ENDED
        )
        # The last that was sent is close_notify, and no data.
        data_end = engine.sent_bytes if self._data_end is None else self._data_end
        return not unacknowledged or unacknowledged <= engine.sent_bytes - data_end

    def _shows_truncation(self) -> bool:
        """See the base: without a close_notify, a stream is not complete."""
        return self._handshook and not self._https_compatible and not self.unsent_bytes

    def __del__(self) -> None:
        """Warn of lost plaintext: ciphertext in a writer that is ours alone is nobody's bytes."""
        try:
            transport: object = self.transport_stream
        except AttributeError:
            return  # __init__ did not get that far
        if self.inner is not transport and self._phase is not CLOSED:
            self._warn_unsent(self.unsent_bytes, "was garbage-collected")
            self.inner._enter(CLOSED)  # it would warn of the same bytes, encrypted
        else:
            super().__del__()

    def _forgo_session(self) -> None:
        """End like the transport alone: without a session there is nobody to take leave of."""
        if not self._handshook:
            self._https_compatible = True

    async def release(self, *, clean: bool) -> None:
        """Close the transport. See :meth:`AsyncWrite.release`.

        If it is to end with a FIN, what has arrived is read first, without waiting.

        Raises:
            trio.BrokenResourceError: if that meets a reset by a peer that had not ended its stream.

        Cancellation: nothing happened, since it is not cancelled: the shell shields it.
        """
        self._enter(CLOSED)
        # A TLS failure is visible to the peer without a reset, which could overtake the alert.
        clean = clean or self._alerted or self._handshake_error is not None
        reset: OSError | None = None
        try:
            if clean:
                reset = self._discard_arrived()
        finally:
            # Their tracebacks refer to this stream.
            self._handshake_error = self._engine.error = None
            self._send_failure = self._send_error = self._receive_failure = None
            await release_once(self.inner, clean=clean)
        if reset is not None:
            raise trio.BrokenResourceError(f"{self!r}: {reset}") from reset

    def _discard_arrived(self) -> OSError | None:
        """Read what has arrived, for closing TCP with unread input resets the connection.

        Session tickets are there even if the peer has sent nothing.

        Returns:
            The reset that was met, unless it costs nothing.
        """
        reset = self._feed_arrived()
        if self._handshook:
            with contextlib.suppress(ssl.SSLError):
                while data := self._engine.decrypt(RECORD_SIZE):
                    self.discarded_bytes += len(data)
        return None if reset is None or self._is_forgivable() else reset

    def _feed_arrived(self) -> OSError | None:
        """Feed TLS the ciphertext that has arrived, without waiting; the reset that ends it."""
        left = _ARRIVED_LIMIT
        try:
            while left > 0 and (ciphertext := _take_arrived(self._source, min(left, RECEIVE_SIZE))):
                self._engine.feed(ciphertext)
                left -= len(ciphertext)
        except ConnectionError as exc:
            return exc
        except OSError:
            pass  # there is no more, or it cannot be read from
        return None

    def _read_ahead(self) -> None:
        """Decrypt what has arrived, for later reads: what comes last tells how the peer ended."""
        # What another task is receiving comes first.
        if self._handshook and self._receiving is None:
            self._feed_arrived()
            self._engine.read_ahead()

    # ---- Handshake and reading -------------------------------------------------------------

    async def do_handshake(self) -> None:
        """Bring the handshake to its end; at once if it is complete.

        You need not call it: the first operation that sends or receives does. Several tasks may
        be in it at the same time, and also in other operations of this stream.

        Raises:
            trio.BrokenResourceError: if the handshake fails; the message names the reason, which
                the peer is told as well, within 5 seconds (and ``cancel_grace`` on top of it over
                a stream that has only ``send_all``). On TLS 1.3 a client's handshake is complete
                before the server has judged its certificate: a refusal is met by what comes next.
            trio.ClosedResourceError: if the stream is closed, or is closed meanwhile.

        Cancellation: resumable; any operation goes on with it.

        Source: :meth:`trio.SSLStream.do_handshake`.
        """
        if self._closing is not None:
            raise trio.ClosedResourceError(f"{self!r} is being closed")
        self._check_usable()
        await self._drive(self._poll_handshake)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive what has arrived, or wait for some.

        Args:
            max_bytes: the most to return, in bytes; at least 1. The default is 65536.

        Returns:
            The bytes received; empty once the peer has sent close_notify (or, if
            ``https_compatible``, has closed the connection).

        Raises:
            TypeError: if ``max_bytes`` is not an integer.
            ValueError: if ``max_bytes`` is less than 1.
            trio.BusyResourceError: if another task is receiving.
            trio.ClosedResourceError: if the stream is closed, or is closed while this call waits.
            trio.BrokenResourceError: if the handshake or TLS itself fails, or the peer closes the
                connection without a close_notify.

        Cancellation: nothing happened; what has arrived stays for the next call.

        Source: :meth:`trio.abc.ReceiveStream.receive_some`.
        """
        size = RECEIVE_SIZE if max_bytes is None else positive_int(max_bytes, "max_bytes")
        if self._closing is not None or self._phase is CLOSED:
            raise trio.ClosedResourceError(f"{self!r} is closed")
        if self._reading:
            raise trio.BusyResourceError(f"another task is receiving from {self!r}")
        self._reading = True
        try:
            return await self._drive(self._poll_read, size)
        finally:
            self._reading = False

    async def unwrap(self) -> tuple[S, bytes]:
        """End TLS, and give back the stream below for whatever comes after.

        It sends close_notify and waits for the peer's. The stream below is not closed by it, but
        this one is.

        Returns:
            The transport stream, and what was received beyond the end of TLS.

        Raises:
            trio.BusyResourceError: if another task is inside this stream.
            trio.ClosedResourceError: if the stream is closed, or is closed meanwhile.
            trio.BrokenResourceError: if TLS or the transport fails; or if the peer has sent data
                that were not received. Receive them, up to its end, and call this again.

        Cancellation: resumable; call it again and it goes on where it was.

        Source: :meth:`trio.SSLStream.unwrap`.
        """
        if self._reading:
            raise trio.BusyResourceError(f"another task is receiving from {self!r}")
        self._claim(writing=False)
        self._reading = True
        try:
            unread = await self._drive(self._poll_unwrap)
        finally:
            self._busy = self._reading = False
        if unread:
            raise trio.BrokenResourceError(
                f"the peer has sent {unread} bytes that were not received"
            )
        self._enter(CLOSED)
        self._released = True
        transport = self.transport_stream
        # As in Trio: it is not ours any more.
        self.transport_stream = None  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
        return transport, self._engine.trailing()

    @trio.lowlevel.enable_ki_protection
    def _poll_handshake(self) -> None:
        """Be ready once the handshake is complete and our part of it has been sent."""
        if self._handshook:
            return
        if self._handshake_error is None:
            try:
                complete = self._engine.handshake()
            except ssl.SSLError as exc:
                self._handshake_error = exc
                if self._phase is BROKEN:  # because something could not be sent
                    self._failure = exc
                self._alert_limit = _TimeLimit(_ALERT_TIMEOUT)
            else:
                try:
                    blocked = self._pushed_back()
                except trio.BrokenResourceError:
                    self._poll_reason()
                    raise
                if complete:
                    if not blocked:
                        self._handshook = True
                        return
                    # A peer that refuses what has gone so far says so, and takes no more.
                    if self._peek():
                        raise NotReady(self._wait_send)
                raise NotReady(self._wait_either if blocked else self._wait_receive)
        self._poll_alert(self._handshake_error)

    def _poll_reason(self) -> None:
        """Be ready once the peer, which takes no more, has had its say; raise it if it is why."""
        if self._engine.established:
            self._peek()
        limit = self._alert_limit = self._alert_limit or _TimeLimit(_ALERT_TIMEOUT)
        if not limit.is_over():
            raise NotReady(partial(self._wait_reason, limit))

    def _poll_alert(self, exc: ssl.SSLError) -> None:
        """Fail, but not before the peer has been told why, or cannot be told in time."""
        limit = self._alert_limit
        assert limit is not None
        if not limit.is_over() and self._answer():
            raise NotReady(partial(self._wait_alert, limit))
        raise trio.BrokenResourceError(f"TLS handshake failed: {exc}") from exc

    @trio.lowlevel.enable_ki_protection
    def _poll_read(self, size: int) -> bytes:
        try:
            self._poll_handshake()
            data = self._decrypt(size)
        except trio.BrokenResourceError as exc:
            if self._https_compatible and isinstance(exc.__cause__, ssl.SSLEOFError):
                return b""
            raise
        blocked = (self._answering or bool(self._engine.out)) and self._answer()
        if data is not None:
            return data
        if len(self._engine.out) > _QUEUE_LIMIT:
            raise NotReady(self._wait_send)
        # Where a send must not be broken off, one of a writer's bytes is left to the writer.
        if blocked and (self._exact or not self.unsent_bytes):
            raise NotReady(self._wait_either)
        raise NotReady(self._wait_receive)

    @trio.lowlevel.enable_ki_protection
    def _poll_unwrap(self) -> int:
        """Be ready at the peer's end, or when there are data before it; how many bytes."""
        self._begin_shutdown()
        self._poll_handshake()
        self._poll_close_notify()
        self._push(flush=True)
        data = self._decrypt(RECORD_SIZE)
        if data is None:
            raise NotReady(self._wait_receive)
        self._engine.unread(data)
        return len(data)

    def _peek(self) -> bool:
        """Raise if the next thing that was received is an alert; whether there is anything."""
        data = self._decrypt(RECORD_SIZE)
        if data is None:
            return False
        self._engine.unread(data)
        return True

    def _decrypt(self, size: int) -> bytes | None:
        queued = len(self._engine.out)
        try:
            data = self._engine.decrypt(size)
        except ssl.SSLError as exc:
            raise self._tls_failed(exc) from exc
        if len(self._engine.out) > queued:
            self._answering = True
        return data

    def _tls_failed(self, exc: ssl.SSLError) -> trio.BrokenResourceError:
        """Tell the peer why, if it can be told at once."""
        has_gone = not self._answer() and not self.unsent_bytes
        self._alerted = has_gone and self._engine.error is not None  # and not cut off
        return trio.BrokenResourceError(f"TLS failed: {exc}")

    # ---- Moving ciphertext -----------------------------------------------------------------

    def _push(self, *, flush: bool = False) -> None:
        """Hand on what is queued; be ready once the queue is empty. For those who write."""
        try:
            if self._send_error is not None:
                error, self._send_error = self._send_error, None
                try:
                    raise error
                finally:
                    del error  # or this frame and the exception would keep each other alive
            self._transfer(flush=flush)
        except NotReady:
            raise
        except BaseException as exc:
            self._break(exc)
            raise

    def _break(self, exc: BaseException) -> None:
        """Remember that sending has failed, and raise the peer's reason if it has told one."""
        self._fail(exc)
        if isinstance(exc, Exception):
            self._learn_why()

    def _learn_why(self) -> None:
        """A peer that takes no more may have said why; if that has arrived, raise it."""
        try:
            self._read_ahead()
        except ssl.SSLError as exc:
            self._failure = exc
            raise self._tls_failed(exc) from exc

    def _pushed_back(self) -> bool:
        """Hand on what goes; whether something stays."""
        try:
            self._push(flush=True)
        except NotReady:
            return True
        return False

    def _answer(self) -> bool:
        """Hand on what goes; whether something stays. For those who read.

        A failure is for the next operation that writes or closes, if accepted bytes are lost.
        """
        if self._send_failure is not None:
            self._drop_queue()
            return False
        try:
            self._transfer(flush=True)
        except NotReady:
            return True
        except Exception as exc:  # noqa: BLE001 - see above
            # If the transport has only refused it for now, the next operation tries again.
            if self._send_failure is not None and self.unsent_bytes:
                self._send_error = exc
        return False

    def _transfer(self, *, flush: bool) -> None:
        """Hand on what goes; be ready once nothing is queued. A failure empties the queue."""
        engine = self._engine
        if self._send_failure is not None:
            self._drop_queue()
            raise trio.BrokenResourceError(
                f"{self.inner!r} has failed before"
            ) from self._send_failure
        try:
            while out := engine.out:
                count = self.inner.poll_write(out)
                engine.sent(accepted(count, len(out), self.inner))
            self._queued = 0
            if flush:
                self.inner.poll_flush()
                self._accepted = 0
                self._answering = False
        except NotReady as not_ready:
            self._send_wait = not_ready.wait
        except BaseException as exc:
            # As AsyncWrite._fail has it, these are no failures.
            if not isinstance(exc, _REFUSALS):
                self._send_failure = exc.__cause__ or exc
                self._drop_queue()
            raise
        else:
            return
        raise NotReady(self._wait_send)

    def _drop_queue(self) -> None:
        """Forget the ciphertext that cannot be sent, and count the plaintext that is lost by it."""
        lost = min(self._queued, len(self._engine.out))
        self._lost += lost
        self._accepted -= lost
        self._queued = 0
        self._engine.out = b""
        self._answering = False

    def _poll_below(self, poll: Callable[[], None]) -> None:
        """Poll the writer below; the wait, if there is one, is made by one task for all."""
        try:
            self._poll_inner(poll)
        except NotReady as not_ready:
            self._send_wait = not_ready.wait
        else:
            return
        raise NotReady(self._wait_send)

    def _poll_ready(self) -> None:
        self._check_open()
        self._push()
        self._poll_below(self.inner._poll_ready)

    # Both are run by tasks of their own as well, and Ctrl-C must not fall between the transport
    # and the engine.
    @trio.lowlevel.enable_ki_protection
    async def _wait_send(self) -> None:
        if self._sending is not None:
            await self._sending.wait()
            return
        self._sending = done = trio.Event()
        try:
            await self._send_wait()
        except BaseException:
            # A reader counts on us to send what is queued. It has to see to it itself now.
            if self._receive_scope is not None:
                self._receive_scope.cancel()
            raise
        finally:
            self._sending = None
            done.set()

    @trio.lowlevel.enable_ki_protection
    async def _wait_receive(self) -> None:
        if self._receiving is not None:
            await self._receiving.wait()
            return
        self._receiving = done = trio.Event()
        try:
            with trio.CancelScope() as self._receive_scope:
                ciphertext = await self._receiver.receive_some(RECEIVE_SIZE)
                if not ciphertext:
                    self._check_end()
                self._engine.feed(ciphertext)
                self._received += 1
        except trio.BrokenResourceError as exc:
            self._receive_failure = exc.__cause__ or exc
            raise
        finally:
            self._receive_scope = None
            self._receiving = None
            done.set()

    def _check_end(self) -> None:
        """Raise if the transport was broken before: the end-of-file after a reset is no end."""
        if self._receive_failure is not None:
            raise trio.BrokenResourceError(
                f"{self.transport_stream!r} has failed before"
            ) from self._receive_failure

    @trio.lowlevel.enable_ki_protection
    async def _wait_either(self) -> None:
        if not self._exact:
            # What is sent must not be broken off for what is received. Nor does Trio's SSLStream
            # receive meanwhile.
            await self._wait_send()
            return
        if self._sending is not None and self._handshook and not self._answering:
            # Nothing that goes is this task's: it need not know when it has gone. Who sends it
            # sees to it, or wakes this task.
            await self._wait_receive()
            return
        received = self._received
        # Not so if the queue holds a writer's bytes only.
        must_send = not self._handshook or self._answering
        receiving = trio.CancelScope(shield=True)
        send_error: BaseException | None = None
        receive_error: BaseException | None = None

        async def receive() -> None:
            nonlocal receive_error
            try:
                with receiving:
                    # Another task may have done it before this one could begin.
                    if self._received == received:
                        await self._wait_receive()
            except BaseException as exc:  # noqa: ASYNC103, BLE001 - raised below
                receive_error = exc
            sending.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            # This one has to begin at once: what it waits for may happen in the meantime.
            try:
                with trio.CancelScope() as sending:
                    await self._wait_send()
            except BaseException as exc:  # noqa: ASYNC103, BLE001
                # Raised below: out of the nursery it would come in an ExceptionGroup.
                send_error = exc
            receiving.cancel()
        try:
            if receive_error is not None and isinstance(send_error, _CAN_WAIT):
                raise receive_error
            if isinstance(send_error, Exception) and not must_send:
                # It concerns the writer, who meets it in a wait for the same transport.
                if self._received == received:
                    await self._wait_receive()
            elif send_error is not None:
                raise send_error
        finally:
            send_error = receive_error = None  # they refer to this frame

    # Their callers have an error to tell already, which nothing that these come upon may replace.
    async def _wait_alert(self, limit: _TimeLimit) -> None:
        try:
            with trio.move_on_at(limit.deadline):
                await self._wait_send()
        except Exception:  # noqa: BLE001 - see above
            limit.end()

    async def _wait_reason(self, limit: _TimeLimit) -> None:
        try:
            with trio.move_on_at(limit.deadline):
                await self._wait_receive()
        except Exception:  # noqa: BLE001 - see above
            limit.end()

    def __repr__(self) -> str:
        return f"<TlsStream over {self.transport_stream!r}>"
