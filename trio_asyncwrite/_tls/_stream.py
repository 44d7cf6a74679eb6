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
for the first to be done, whatever comes of it, and polls again. ``_wait_either`` is for those
whom either would help.

**Failures** of sending that a reader meets are kept for the next operation that writes or closes,
if accepted plaintext is lost with them: a reader's caller cannot be meant, and reading may go on.

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

import os
import ssl
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

import idna
import trio
import trio.abc

from trio_asyncwrite._core._async_write import AsyncReadWrite, AsyncWrite
from trio_asyncwrite._core._checks import RECEIVE_SIZE, accepted, byte_view, positive_int
from trio_asyncwrite._core._compat import release_once
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._phase import BROKEN, CLOSED, ENDED
from trio_asyncwrite._transports._send_stream import SendStreamWriter
from trio_asyncwrite._transports._tcp import TcpStream
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._engine import RECORD_SIZE, TlsEngine

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


@final
class TlsStream(AsyncReadWrite, Generic[S]):
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
            client needs it unless ``ssl_context.check_hostname`` is off.
        server_side: whether this side is the server.
        https_compatible: neither expect nor send a close_notify, as is usual in HTTPS, where the
            protocol above says how long its messages are.

    Raises:
        TypeError: if ``transport_stream`` is not a :class:`trio.abc.Stream`.
        ValueError: if ``server_hostname`` is missing or not valid.

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
        if isinstance(server_hostname, str) and not server_hostname.isascii():
            # As Trio does for the name that it connects to, and whose dependency idna is. Python
            # itself would go by IDNA 2003, and might check for another host (bpo-17305).
            server_hostname = idna.encode(server_hostname, uts46=True)
        self._engine = TlsEngine(
            ssl_context, server_side=server_side, server_hostname=server_hostname
        )
        self._https_compatible = https_compatible
        self._handshook = False
        self._handshake_error: ssl.SSLError | None = None
        self._alert_deadline = 0.0
        # Whether the peer was told why TLS failed after the handshake.
        self._alerted = False
        # Whether an aclose is at work.
        self._leaving = False
        # Plaintext bytes that went into engine.out since it was last empty; that did since the
        # last complete flush; that were in engine.out when a failure emptied it.
        self._queued = 0
        self._accepted = 0
        self._lost = 0
        # Whether what reading has made TLS say has not been flushed yet.
        self._answering = False
        self._reading = False
        # The waits that are made by one task for all, and what they came upon.
        self._sending: trio.Event | None = None
        self._send_wait: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint
        self._send_error: Exception | None = None
        self._receiving: trio.Event | None = None
        self._received = 0  # how many waits of the second kind there have been
        self._receive_scope: trio.CancelScope | None = None
        self._receive_error: Exception | None = None
        self.inner = wrap_stream(transport_stream)
        self.transport_stream = transport_stream
        # What the writer knows of a reset, its reader knows as well.
        self._receiver: trio.abc.ReceiveStream = (
            self.inner if isinstance(self.inner, trio.abc.ReceiveStream) else transport_stream
        )
        innermost = self.inner
        while (below := innermost._below()) is not None:
            innermost = below
        # Whether a task that waits to send can leave it at any time, without harm.
        self._exact = not isinstance(innermost, SendStreamWriter)

    # ---- The polls -------------------------------------------------------------------------

    @property
    def held_bytes(self) -> int:
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
            blocked = self._pushed_back()
            self._check_received()
            raise NotReady(self._wait_either if blocked else self._wait_receive)
        self._queued = count
        self._accepted += count
        try:
            self._push()
        except Exception:
            # It is queued, and so accepted; unless the stream has failed, and will never send it:
            # then it stays the caller's.
            if self._phase is BROKEN:
                self._queued = 0
                self._accepted -= count
                raise
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
            if not self._engine.sent_close_notify:
                self._push(flush=True)
            if not self._https_compatible:
                self._engine.close_notify()
                self._push(flush=True)
            self._poll_below(self.inner.poll_shutdown)
        except (trio.BrokenResourceError, ssl.SSLError):
            if self.unsent_bytes:
                raise
            # All data has gone. What is left may come too late for a peer that has ended its own
            # stream and closed the connection (RFC 8446, section 6.1, allows that): no failure.
            self._engine.out = b""
        self._enter(ENDED)

    def _shows_truncation(self) -> bool:
        """See the base: without a close_notify, a stream is not complete."""
        return self._handshook and not self._https_compatible and not self.unsent_bytes

    def _forgo_session(self) -> None:
        """End like the transport alone: without a session there is nobody to take leave of."""
        if not self._handshook:
            self._https_compatible = True

    async def release(self, *, clean: bool) -> None:
        """Close the transport. See :meth:`AsyncWrite.release`.

        Cancellation: nothing happened, since it is not cancelled: the shell shields it.
        """
        self._enter(CLOSED)
        # A TLS failure is visible to the peer without a reset, which could overtake the alert.
        clean = clean or self._alerted or self._handshake_error is not None
        # Their tracebacks refer to this stream.
        self._handshake_error = self._send_error = self._receive_error = self._engine.error = None
        await release_once(self.inner, clean=clean)

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
                self._alert_deadline = trio.current_time() + _ALERT_TIMEOUT
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
                self._check_received()
                raise NotReady(self._wait_either if blocked else self._wait_receive)
        self._poll_alert(self._handshake_error)

    def _poll_reason(self) -> None:
        """Be ready once the peer, which takes no more, has had its say; raise it if it is why."""
        if self._engine.established:
            self._peek()
        if not self._alert_deadline:
            self._alert_deadline = trio.current_time() + _ALERT_TIMEOUT
        if self._receive_error is None and trio.current_time() < self._alert_deadline:
            raise NotReady(self._wait_reason)

    def _poll_alert(self, exc: ssl.SSLError) -> None:
        """Fail, but not before the peer has been told why, or cannot be told in time."""
        if trio.current_time() < self._alert_deadline and self._answer():
            raise NotReady(self._wait_alert)
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
        self._check_received()
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
        if not self._engine.sent_close_notify:
            self._push(flush=True)
            try:
                self._engine.close_notify()
            except ssl.SSLError as exc:
                raise self._tls_failed(exc) from exc
        self._push(flush=True)
        data = self._decrypt(RECORD_SIZE)
        if data is None:
            self._check_received()
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

    def _check_received(self) -> None:
        """Raise what the last wait for ciphertext came upon."""
        if self._receive_error is not None:
            error = self._receive_error
            if isinstance(error, trio.BusyResourceError):
                self._receive_error = None
            try:
                raise error
            finally:
                del error  # or this frame and the exception would keep each other alive

    # ---- Moving ciphertext -----------------------------------------------------------------

    def _push(self, *, flush: bool = False) -> None:
        """Hand on what is queued; be ready once the queue is empty. For those who write."""
        if self._send_error is not None:
            error, self._send_error = self._send_error, None
            self._fail(error)
            try:
                raise error
            finally:
                del error  # as above
        try:
            self._transfer(flush=flush)
        except NotReady:
            raise
        except BaseException as exc:
            self._fail(exc)
            self._learn_why()
            raise

    def _learn_why(self) -> None:
        """A peer that takes no more may have said why; if that has arrived, raise it."""
        if not self._handshook or self._receiving is not None:
            return
        if isinstance(self.inner, TcpStream):
            try:
                # An end is for the reader to judge: after a reset it is none.
                if ciphertext := os.read(self.inner.fileno(), RECEIVE_SIZE):
                    self._engine.feed(ciphertext)
            except BlockingIOError:
                pass
            except OSError as exc:
                self.inner._keep_read_error(exc)
        try:
            self._peek()
        except trio.BrokenResourceError as exc:
            self._failure = exc.__cause__
            raise

    def _pushed_back(self) -> bool:
        """Hand on what goes; whether something stays."""
        try:
            self._push(flush=True)
        except NotReady:
            return True
        return False

    def _answer(self) -> bool:
        """Hand on what goes; whether something stays. For those who read.

        If it cannot go, it is dropped, and whoever writes is told, should it have been theirs.
        """
        if self._send_error is None:
            try:
                self._transfer(flush=True)
            except NotReady:
                return True
            except Exception as exc:  # noqa: BLE001 - raised by the next operation that sends
                self._send_error = exc
            else:
                return False
        if isinstance(self._send_error, trio.BusyResourceError):
            # Somebody is sending past us. The next operation tries again.
            self._send_error = None
            return False
        self._lost += min(self._queued, len(self._engine.out))
        self._queued = 0
        self._engine.out = b""
        self._answering = False
        if not self.unsent_bytes:
            self._send_error = None
        return False

    def _transfer(self, *, flush: bool) -> None:
        engine = self._engine
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
        else:
            return
        raise NotReady(self._wait_send)

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
        except Exception as exc:  # noqa: BLE001 - raised by the next poll
            self._send_error = exc
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
                self._engine.feed(ciphertext)
        except Exception as exc:  # noqa: BLE001 - raised by the next poll that needs more
            self._receive_error = exc
        finally:
            self._received += 1
            self._receive_scope = None
            self._receiving = None
            done.set()

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
        receiving = trio.CancelScope(shield=True)
        interrupt: BaseException | None = None

        async def receive() -> None:
            with receiving:
                # Another task may have done it before this one could begin.
                if self._received == received:
                    await self._wait_receive()
            sending.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            # This one has to begin at once: what it waits for may happen in the meantime.
            try:
                with trio.CancelScope() as sending:
                    await self._wait_send()
            except BaseException as exc:  # noqa: ASYNC103, BLE001
                # Raised below: out of the nursery it would come in an ExceptionGroup.
                interrupt = exc
            receiving.cancel()
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                interrupt = None  # it refers to this frame

    async def _wait_alert(self) -> None:
        with trio.move_on_at(self._alert_deadline):
            await self._wait_send()

    async def _wait_reason(self) -> None:
        with trio.move_on_at(self._alert_deadline):
            await self._wait_receive()

    # ---- What an SSLObject tells -----------------------------------------------------------

    def _after_handshake(self, name: str) -> ssl.SSLObject:
        if not self._handshook:
            raise trio.NeedHandshakeError(f"call do_handshake() before {name!r}")
        return self._engine.ssl_object

    @property
    def context(self) -> ssl.SSLContext:
        """The context. See :attr:`ssl.SSLSocket.context`."""
        return self._engine.ssl_object.context

    @context.setter
    def context(self, context: ssl.SSLContext) -> None:
        self._engine.ssl_object.context = context

    @property
    def server_side(self) -> bool:
        """Whether this side is the server. See :attr:`ssl.SSLSocket.server_side`."""
        return self._engine.ssl_object.server_side

    @property
    def server_hostname(self) -> str | None:
        """The name of the server. See :attr:`ssl.SSLSocket.server_hostname`."""
        return self._engine.ssl_object.server_hostname

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session; set it before the handshake to resume. See :attr:`ssl.SSLSocket.session`."""
        return self._engine.ssl_object.session

    @session.setter
    def session(self, session: ssl.SSLSession) -> None:
        self._engine.ssl_object.session = session

    @property
    def session_reused(self) -> bool | None:
        """Whether the session was resumed. See :attr:`ssl.SSLSocket.session_reused`."""
        return self._after_handshake("session_reused").session_reused

    def getpeercert(self, binary_form: bool = False) -> Any:  # noqa: FBT001, FBT002 - as ssl has it
        """The peer's certificate. See :meth:`ssl.SSLSocket.getpeercert`."""
        return self._after_handshake("getpeercert").getpeercert(binary_form)

    def selected_alpn_protocol(self) -> str | None:
        """The protocol that ALPN chose. See :meth:`ssl.SSLSocket.selected_alpn_protocol`."""
        return self._after_handshake("selected_alpn_protocol").selected_alpn_protocol()

    def selected_npn_protocol(self) -> str | None:
        """The protocol that NPN chose. See :meth:`ssl.SSLSocket.selected_npn_protocol`."""
        tls = self._after_handshake("selected_npn_protocol")
        return tls.selected_npn_protocol()  # pyright: ignore[reportDeprecated] - as Trio

    def cipher(self) -> tuple[str, str, int] | None:
        """The cipher in use. See :meth:`ssl.SSLSocket.cipher`."""
        return self._after_handshake("cipher").cipher()

    def shared_ciphers(self) -> list[tuple[str, str, int]] | None:
        """The ciphers that the client offered. See :meth:`ssl.SSLSocket.shared_ciphers`."""
        return self._after_handshake("shared_ciphers").shared_ciphers()

    def compression(self) -> str | None:
        """The compression in use. See :meth:`ssl.SSLSocket.compression`."""
        return self._after_handshake("compression").compression()

    def pending(self) -> int:
        """How many decrypted bytes wait to be received. See :meth:`ssl.SSLSocket.pending`."""
        return self._engine.pending()

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """The channel binding. See :meth:`ssl.SSLSocket.get_channel_binding`."""
        return self._after_handshake("get_channel_binding").get_channel_binding(cb_type)

    def version(self) -> str | None:
        """The version of TLS in use. See :meth:`ssl.SSLSocket.version`."""
        return self._after_handshake("version").version()

    def __repr__(self) -> str:
        return f"<TlsStream over {self.transport_stream!r}>"


async def start_tls(
    stream: S,
    ssl_context: ssl.SSLContext,
    *,
    server_hostname: str | bytes | None = None,
    server_side: bool = False,
    https_compatible: bool = False,
    received: bytes | bytearray | memoryview = b"",
) -> TlsStream[S]:
    """Go over to TLS on a connection that has spoken plain text so far (STARTTLS).

    Args:
        stream: the connection. It belongs to the new stream from now on.
        ssl_context: as for :class:`TlsStream`.
        server_hostname: as for :class:`TlsStream`.
        server_side: as for :class:`TlsStream`.
        https_compatible: as for :class:`TlsStream`.
        received: what was already received beyond the last plain text message. It is taken as
            the beginning of TLS, and never as plain text (which would let an attacker slip
            commands into the session: CVE-2011-0411).

    Returns:
        The encrypted stream, its handshake complete.

    Raises:
        ValueError: if ``stream`` still holds unsent plain text: flush it first. Nothing happened.
        trio.BrokenResourceError: if the handshake fails. The connection is closed.

    Cancellation: lost: a handshake has begun, nothing else can be said on the connection, and
        no stream was returned to go on with it. The connection is closed.

    Source: RFC 3207 (SMTP), RFC 2595 (IMAP, POP3).
    """
    writer: object = stream
    unsent = writer.unsent_bytes if isinstance(writer, AsyncWrite) else 0
    if unsent:
        raise ValueError(f"{stream!r} holds {unsent} bytes of unsent plain text: flush it first")
    tls = TlsStream(
        stream,
        ssl_context,
        server_hostname=server_hostname,
        server_side=server_side,
        https_compatible=https_compatible,
    )
    with byte_view(received) as view:
        if view:
            tls._engine.feed(bytes(view))
    try:
        await tls.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(tls)
        raise
    return tls
