"""TLS that survives cancellation.

Theory of operation
===================

``_engine.py`` does TLS, ``_ciphertext.py`` moves its ciphertext; this module is the stream over
both. Trio's SSLStream sends inside each operation, and a task that is cancelled there takes the
session with it (python-trio/trio#198). Here a poll only makes ciphertext and hands on what goes at
once; the rest is kept and is sent by the next operation.

**The handshake** is part of each poll that needs it. If it fails, the peer is told why, and the
error waits, for a few seconds at most, until that has gone. A peer that takes no more may have said
why: its alert is waited for likewise.

**The end.** A kernel that closes a TCP connection with unread input sends a reset, which destroys
data that the peer has not read yet. Session tickets are such input, so ``release`` reads what has
arrived first. A failure of the end itself is forgiven only if it can have cost nothing.

**Bounds.** Plaintext is only accepted when nothing is queued, and at most a piece of it: 64 KiB to
a transport that does not take as much at once. To one that does, the next piece is twice as large,
up to 512 KiB; when something stays, half as large. So a large write costs few system calls, and
behind a slow peer little is queued. Ciphertext is received at most ``RECEIVE_SIZE`` bytes at a
time, and only when the engine asks for it. A peer that makes us answer and does not read is not
read from, either, once ``_ANSWER_LIMIT`` bytes are queued beyond a writer's piece: these, and the
answers to what was received last (a key update is answered by one of the same size), are all that
is ever queued.

**Copies** of plaintext on its way out: one, by OpenSSL, which encrypts into its record buffer. Of
ciphertext: two, from there to the outgoing BIO and from the BIO to the bytes that are sent
(``ssl.MemoryBIO`` cannot lend its memory). On the way in: ciphertext two (into the BIO, and into
OpenSSL's record), plaintext one (into the bytes returned), and one more when several records are
returned together.
"""

from __future__ import annotations

import contextlib
import ssl
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

import trio
import trio.abc

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._core._async_read import AsyncRead, ForeignReader
from trio_asyncwrite._core._async_write import AsyncReadWrite, AsyncWrite
from trio_asyncwrite._core._checks import byte_view, check_duplex
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._errors import BrokenRefusal, BusyRefusal, NotReady
from trio_asyncwrite._core._shell import POLLS_PER_TURN, claim, drive, leave
from trio_asyncwrite._core._stack import (
    attach,
    begin_shutdown,
    check_may_encode,
    check_nothing_held_above,
    detach,
    fail,
    fail_because,
    forgive,
    held_by,
    hold,
    keep_for_next_call,
    let_go,
    poll_step,
    shut_down,
    writers_above,
    writing_chain,
)
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._ciphertext import Ciphertext
from ._engine import RECORD_SIZE, TlsEngine
from ._server_name import server_name
from ._session_info import SessionInfo
from ._time_limit import TimeLimit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

S = TypeVar("S", bound=trio.abc.Stream)

# Four records: enough to make a system call worth its while, and it stays in the L2 cache.
_SMALLEST_PIECE: Final = 4 * RECORD_SIZE

# Of a large write to a fast peer, pieces of 512 KiB took 560 us per MiB, and of 64 KiB 670 to 900.
_LARGEST_PIECE: Final = 32 * RECORD_SIZE

# How much may be queued for answers, beyond a writer's piece. To stop reading for the sake of that
# one alone would be a deadlock: the peer may be doing the same.
_ANSWER_LIMIT: Final = 4 * RECORD_SIZE

# How long a failed handshake may take to tell the peer why, in seconds. Alerts are 7 to 31 bytes
# and nothing else is under way, so it only takes time if the peer wants it to.
_ALERT_TIMEOUT: Final = 5.0


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
    ``ReadWritePair(tls, BufWriter(tls))`` is the buffered duplex stream. At most 512 KiB of
    plaintext are queued as ciphertext, and 64 KiB behind a peer that does not keep up.

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
        ValueError: if ``server_hostname`` is missing, or no certificate can be valid for it; or if
            a layer above ``transport_stream`` holds bytes. Flush it first.
        trio.BusyResourceError: if another task writes a message to ``transport_stream``, or to a
            layer above or below it.
        trio.BrokenResourceError: if a :class:`Buf` is unfinished there. Finish it first.

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
        check_duplex(transport_stream)
        if not isinstance(ssl_context, ssl.SSLContext):
            raise TypeError(f"expected an ssl.SSLContext, got {type(ssl_context).__name__}")
        if server_hostname is None and not server_side and ssl_context.check_hostname:
            # Where ssl.SSLSocket refuses, ssl.SSLObject goes on, and checks no name.
            raise ValueError("server_hostname is missing (ssl_context.check_hostname is on)")
        self._engine = TlsEngine(
            ssl_context, server_side=server_side, server_hostname=server_name(server_hostname)
        )
        self._https_compatible = https_compatible
        self._handshook = False
        self._handshake_error: ssl.SSLError | None = None
        # How long a failed handshake may still wait: for its alert to go, or for the peer's.
        self._alert_limit: TimeLimit | None = None
        # Whether the peer was told why TLS failed after the handshake.
        self._alerted = False
        # How much ciphertext had gone when close_notify was made: all data, and nothing else.
        self._data_end: int | None = None
        self._discarded_bytes = 0
        self._is_holding = False
        self._piece = _SMALLEST_PIECE
        writer = wrap_stream(transport_stream)
        check_may_encode(writer, "make a TLS stream over what is below it")
        self._ciphertext = Ciphertext(
            self._engine,
            writer,
            # What the writer knows of a reset, its reader knows as well.
            writer if isinstance(writer, AsyncRead) else ForeignReader(transport_stream),
        )
        self.inner = writer
        self.transport_stream = transport_stream

    encodes = True
    announces_held_bytes = True
    # Encrypting takes about as long as the kernel's memcpy.
    bytes_per_budget_unit: int | None = 2048

    @property
    def held_bytes(self) -> int:
        """The plaintext in ciphertext that the transport has not taken yet, or never will."""
        return self._ciphertext.held()

    def _note_held(self) -> None:
        holds = self._ciphertext.queued > 0
        if holds is not self._is_holding:
            self._is_holding = holds
            (hold if holds else let_go)(self)

    # ---- The polls -------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Encrypt up to 512 KiB of ``data``. See :meth:`AsyncWrite.poll_write`."""
        if type(data) is bytes and len(data) <= self._piece:
            return self._poll_encrypt((data,))
        with byte_view(data) as view, view[: self._piece] as piece:
            return self._poll_encrypt((piece,))

    @trio.lowlevel.enable_ki_protection
    def poll_write_vectored(self, buffers: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Encrypt up to 512 KiB of ``buffers``. See :meth:`AsyncWrite.poll_write_vectored`."""
        pieces: list[memoryview] = []
        room = self._piece
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
        engine, ciphertext = self._engine, self._ciphertext
        if self.lifecycle.refusal is not None:
            self.lifecycle.check_write(self)
        if not self._handshook:
            self._poll_handshake()
        if engine.out:
            self._push()
        if not any(pieces):
            return 0
        try:
            count = engine.encrypt(pieces)
        except ssl.SSLError as exc:
            raise self._tls_failed(exc) from exc
        if not count:  # a renegotiation has to be gone through first
            ciphertext.receive(self._handed_on())
            raise NotReady(trio.lowlevel.checkpoint)
        ciphertext.carries_data = True
        records, sent_before = engine.out, engine.sent_bytes
        try:
            ciphertext.transfer(flush=False)
        except NotReady:
            pass  # it is queued, and so accepted
        except BaseException as exc:  # noqa: ASYNC103 - the next operation raises it
            if ciphertext.has_failed():
                # Nothing more will go, so what has not gone stays the caller's. The next operation
                # raises the failure.
                count = engine.plaintext_in(records, engine.sent_bytes - sent_before)
                if not count:
                    self._break(exc)
                    raise
                self.lifecycle.untold = not keep_for_next_call(self.inner, exc)
            # Otherwise the transport has refused it for now: it is queued, too.
        if engine.out:
            ciphertext.queued = count
            self._piece = max(self._piece // 2, _SMALLEST_PIECE)
            self._note_held()
        elif count == self._piece:
            self._piece = min(2 * count, _LARGEST_PIECE)
        return count

    @trio.lowlevel.enable_ki_protection
    def poll_flush(self) -> None:
        """Hand on all ciphertext. See :meth:`AsyncWrite.poll_flush`."""
        if self.lifecycle.refusal is not None:
            self.lifecycle.check_flush(self)
        self._push(flush=True)

    @trio.lowlevel.enable_ki_protection
    def poll_shutdown(self) -> None:
        """Send close_notify and half-close the transport. See :meth:`AsyncWrite.poll_shutdown`.

        With ``https_compatible``, only the transport is half-closed. So it is by a close before the
        handshake is done: without a session there is nothing to end.
        """
        if not begin_shutdown(self):
            return
        if self.lifecycle.close is not None:
            self._forgo_session()
        if not self._https_compatible:
            self._poll_handshake()
        failure: trio.BrokenResourceError | None = None
        try:
            if not self._https_compatible:
                self._poll_close_notify()
            self._push(flush=True)
            self._ciphertext.poll(shut_down, self.inner)
        except trio.BrokenResourceError as exc:
            failure = exc
        if failure is not None:
            # Not inside the handler: an older SSLError that is raised again there would get this
            # failure as its context. It may also be the failure's cause, and that is a cycle.
            try:
                self._forgive_or_raise(failure)
            finally:
                failure = None
        self.lifecycle.end()

    def _forgive_or_raise(self, failure: trio.BrokenResourceError) -> None:
        """The end could not be sent: perhaps the peer, which has ended, does not need it."""
        try:
            with contextlib.suppress(ssl.SSLError):
                self._read_ahead()
            if not self._is_forgivable():
                raise failure
        finally:
            del failure  # its traceback refers to this frame
        # The peer has ended its stream and closed the connection; it need not read our close_notify
        # (RFC 8446, section 6.1).
        self._ciphertext.drop()
        self._ciphertext.failure = None
        forgive(self)

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
        if self._ciphertext.is_unsent() or not (engine.received_close_notify or engine.eof):
            return False
        unacknowledged = self.inner.unacknowledged_bytes
        # The last that was sent is close_notify, and no data.
        data_end = engine.sent_bytes if self._data_end is None else self._data_end
        return not unacknowledged or unacknowledged <= engine.sent_bytes - data_end

    def poll_ready(self) -> None:
        """Push what is queued, and ask the transport. See :meth:`AsyncWrite.poll_ready`."""
        self.lifecycle.check_write(self)
        self._push()
        self._ciphertext.poll(poll_step, self.inner, "poll_ready")

    @trio.lowlevel.enable_ki_protection
    def poll_read(self, size: int, /) -> bytes:
        """Decrypt what has arrived. See :meth:`AsyncRead.poll_read`."""
        ciphertext = self._ciphertext
        for _ in range(POLLS_PER_TURN):
            try:
                if not self._handshook:
                    self._poll_handshake()
                data = None if self._engine.needs_ciphertext() else self._decrypt(size)
            except trio.BrokenResourceError as exc:
                if self._https_compatible and isinstance(exc.__cause__, ssl.SSLEOFError):
                    return b""
                raise
            send_wait = None
            if ciphertext.answering or self._engine.out:
                knew = ciphertext.has_failed()
                try:
                    send_wait = ciphertext.answer()
                except BaseException as exc:  # noqa: ASYNC103 - the next write raises it
                    # Ctrl-C, for example. If there is data, this read returns that.
                    if data is None:
                        fail(self.inner, exc)
                        raise
                self._note_held()
                if ciphertext.has_failed() and not knew:
                    failure = ciphertext.failure
                    is_kept = failure is not None and keep_for_next_call(self.inner, failure)
                    self.lifecycle.untold = not is_kept
                    del failure  # its traceback refers to this frame
            if data is not None:
                return data
            if send_wait is not None:
                if len(self._engine.out) - ciphertext.queued > _ANSWER_LIMIT:
                    raise NotReady(send_wait)
                # A send that must not be broken off is left to the writer whose bytes it sends.
                if not ciphertext.exact and ciphertext.is_unsent():
                    send_wait = None
            ciphertext.receive(send_wait, must_send=ciphertext.answering)
        raise NotReady(trio.lowlevel.checkpoint)

    # ---- What closing asks -----------------------------------------------------------------

    @answer
    def epilogue(self) -> Epilogue:
        """close_notify, unless ``https_compatible``."""
        return Epilogue.NOTHING if self._https_compatible else Epilogue.CLOSE_NOTIFY

    @answer
    def shows_truncation(self) -> bool:
        """A stream without close_notify is not complete; a failure of TLS is told by its alert."""
        is_told = self._alerted or self._handshake_error is not None
        return is_told or (self._handshook and not self._https_compatible)

    @answer
    def peer_ended(self) -> bool | None:
        """Whether the peer's close_notify was received; if ``https_compatible``, any end counts."""
        engine = self._engine
        return engine.received_close_notify or (self._https_compatible and engine.eof)

    @answer
    def carries_data(self) -> bool:
        """Whether plaintext may be in the ciphertext that the layers below hold."""
        return self._ciphertext.carries_data

    @answer
    def discarded_bytes(self) -> int:
        """Application data that the release threw away: it had arrived, and nobody received it."""
        return self._discarded_bytes

    @answer
    def close_notify_received(self) -> bool | None:
        """Whether the peer's close_notify was received."""
        return self._engine.received_close_notify

    def drain_source(self) -> trio.abc.ReceiveStream | None:
        """This stream; before the handshake the transport, if there is nothing to send over TLS."""
        if self._handshook or self._https_compatible or self._is_wanted():
            return self
        return self.inner.drain_source()

    def _is_wanted(self) -> bool:
        """Whether a layer above holds bytes that need the session."""
        return any(held_by(upper) != 0 for upper in writers_above(self))

    def _forgo_session(self) -> None:
        if not self._handshook:
            self._https_compatible = True

    release_waits = False

    async def release(self, *, clean: bool) -> None:
        """Read what has arrived, so that it cannot cause a reset. See :meth:`AsyncWrite.release`.

        Only if the transport is to end with a FIN, and without waiting.

        Raises:
            trio.BrokenResourceError: if that meets a reset by a peer that had not ended its stream.

        Cancellation: nothing happened, since there is nothing to wait for.
        Checkpoints: none.
        """
        failure: Exception | None = None
        try:
            if clean:
                failure = self._discard_arrived()
        finally:
            # Their tracebacks refer to this stream.
            self._handshake_error = self._engine.error = None
            self._ciphertext.forget_failures()
        if failure is not None:
            try:
                raise failure
            finally:
                failure = None

    def _discard_arrived(self) -> Exception | None:
        """Read what has arrived, for closing TCP with unread input resets the connection.

        Session tickets are there even if the peer has sent nothing.

        Returns:
            The failure that was met, unless it costs nothing.
        """
        lifecycle = self.lifecycle
        knew = lifecycle.failure is not None or lifecycle.read_failure is not None
        failure = self._ciphertext.receive_arrived(deeply=True)
        try:
            if self._handshook:
                with contextlib.suppress(ssl.SSLError):
                    while data := self._engine.decrypt(RECORD_SIZE):
                        self._discarded_bytes += len(data)
            return None if failure is None or knew or self._is_forgivable() else failure
        finally:
            del failure  # its traceback refers to this frame

    def _read_ahead(self) -> None:
        """Decrypt what has arrived, for later reads: what comes last tells how the peer ended."""
        if self._handshook:
            self._ciphertext.receive_arrived()
            self._engine.read_ahead()

    # ---- The handshake, and the end of TLS -------------------------------------------------

    @trio.lowlevel.enable_ki_protection
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
        lifecycle = self.lifecycle
        if not lifecycle.attached:
            attach(self)
        lift = lifecycle.lift_of() if lifecycle.is_closed(reading=False) else None
        if lift is None:
            lifecycle.check_flush(self)
        await drive(self, self._poll_handshake, lift=lift)

    @trio.lowlevel.enable_ki_protection
    async def unwrap(self) -> tuple[S, bytes]:
        """End TLS, and give back the stream below for whatever comes after.

        It sends close_notify and waits for the peer's. The stream below is not closed by it, but
        this one is.

        Returns:
            The transport stream, and what was received beyond the end of TLS.

        Raises:
            ValueError: if a layer above holds unsent bytes. Nothing happened.
            trio.BusyResourceError: if another task is inside this stream, or writes a message to
                a layer above.
            trio.ClosedResourceError: if the stream is closed, or is closed meanwhile.
            trio.BrokenResourceError: if TLS or the transport fails, or a :class:`Buf` is
                unfinished here or in a layer above; or if the peer has sent data that were not
                received. Receive them, up to its end, and call this again.

        Cancellation: resumable; call it again and it goes on where it was.

        Source: :meth:`trio.SSLStream.unwrap`.
        """
        lifecycle = self.lifecycle
        if lifecycle.reading:
            raise BusyRefusal(f"another task is receiving from {self!r}")
        lift = claim(self, writing=False)
        lifecycle.reading = True
        try:
            if lifecycle.torn is not None:
                lifecycle.refuse(self)
            check_nothing_held_above(self, "unwrap it")
            unread = await drive(self, self._poll_unwrap, lift=lift)
        finally:
            lifecycle.reading = False
            leave(self)
        if unread:
            raise BrokenRefusal(f"the peer has sent {unread} bytes that were not received")
        detach(self, "TLS was unwrapped: use the transport that unwrap() has returned")
        transport = self.transport_stream
        # As in Trio: it is not ours any more.
        self.transport_stream = None  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
        return transport, self._engine.trailing()

    def feed(self, received: bytes) -> None:
        """Take in what was received beyond the last plain text; for :func:`start_tls`."""
        self._engine.feed(received)

    @trio.lowlevel.enable_ki_protection
    def _poll_handshake(self) -> None:
        """Be ready once the handshake is complete and our part of it has been sent."""
        if self._handshook:
            return
        while self._handshake_error is None:
            try:
                complete = self._engine.handshake()
            except ssl.SSLError as exc:
                self._handshake_error = exc
                self._alert_limit = TimeLimit(_ALERT_TIMEOUT)
                break
            try:
                send_wait = self._handed_on()
            except Exception as exc:
                if not self._ciphertext.has_failed():
                    raise
                if isinstance(exc, (trio.BrokenResourceError, OSError)):
                    self._poll_reason()
                self._break(exc)
                raise
            if complete:
                if send_wait is None:
                    self._handshook = True
                    return
                # A peer that refuses what has gone so far says so, and takes no more.
                if self._peek():
                    raise NotReady(send_wait)
            self._ciphertext.receive(send_wait)
        self._poll_alert(self._handshake_error)

    def _poll_reason(self) -> None:
        """Be ready once the peer, which takes no more, has had its say; raise it if it is why."""
        limit = self._alert_limit = self._alert_limit or TimeLimit(_ALERT_TIMEOUT)
        while True:
            try:
                if self._engine.established:
                    self._peek()
                else:
                    self._engine.handshake()
            except ssl.SSLError as exc:
                self._handshake_error = exc
                raise self._handshake_failed(exc) from exc
            if self._engine.eof or limit.is_over():
                return
            try:
                self._ciphertext.receive()
            except NotReady as not_ready:
                raise NotReady(partial(_wait_within, limit, not_ready.wait)) from None
            except trio.BrokenResourceError:
                return

    def _poll_alert(self, exc: ssl.SSLError) -> None:
        """Fail, but not before the peer has been told why, or cannot be told in time."""
        limit = self._alert_limit
        assert limit is not None
        if not limit.is_over():
            send_wait = self._ciphertext.answer()
            if send_wait is not None:
                raise NotReady(partial(_wait_within, limit, send_wait))
        raise self._handshake_failed(exc) from exc

    def _handshake_failed(self, exc: ssl.SSLError) -> trio.BrokenResourceError:
        return self._end_session(exc, "TLS handshake failed")

    @trio.lowlevel.enable_ki_protection
    def _poll_unwrap(self) -> int:
        """Be ready at the peer's end, or when there are data before it; how many bytes."""
        begin_shutdown(self)
        self._poll_handshake()
        self._poll_close_notify()
        self._push(flush=True)
        while (data := self._decrypt(RECORD_SIZE)) is None:
            self._ciphertext.receive()
        self._engine.unread(data)
        return len(data)

    # ---- Between plaintext and ciphertext --------------------------------------------------

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
            self._ciphertext.answering = True
        return data

    def _tls_failed(self, exc: ssl.SSLError) -> trio.BrokenResourceError:
        """Tell the peer why, if it can be told at once."""
        if self._engine.error is None:  # it was cut off, and our direction is well
            return trio.BrokenResourceError(f"TLS failed: {exc}")
        self._alerted = self._ciphertext.answer() is None and not self._ciphertext.is_unsent()
        return self._end_session(exc, "TLS failed")

    def _end_session(self, exc: ssl.SSLError, text: str) -> trio.BrokenResourceError:
        """No direction of a session goes on after TLS itself has failed."""
        fail_because(self, exc)
        return trio.BrokenResourceError(f"{text}: {exc}")

    def _push(self, *, flush: bool = False) -> None:
        """Hand on what is queued; be ready once the queue is empty. For those who write."""
        try:
            self._ciphertext.transfer(flush=flush)
        except NotReady:
            raise
        except BaseException as exc:
            self._break(exc)
            raise
        finally:
            if self._engine.out or self._is_holding:
                self._note_held()

    def _break(self, exc: BaseException) -> None:
        """Break the writing direction, and raise the peer's reason if it has told one."""
        if not self._ciphertext.has_failed():
            return
        self.lifecycle.untold = False
        if isinstance(exc, Exception):
            try:
                self._read_ahead()
            except ssl.SSLEOFError:
                pass
            except ssl.SSLError as reason:
                raise self._tls_failed(reason) from reason
        fail(self.inner, exc)

    def _handed_on(self) -> Callable[[], Awaitable[object]] | None:
        """Hand on what goes; the wait if something stays."""
        try:
            self._ciphertext.transfer(flush=True)
        except NotReady as not_ready:
            return not_ready.wait
        finally:
            self._note_held()
        return None

    def __del__(self) -> None:
        if hasattr(self, "_ciphertext") and not self._ciphertext.carries_data:
            for layer in writing_chain(self.inner):
                layer.lifecycle.holds_nobodys = True
        super().__del__()

    def __repr__(self) -> str:
        return f"<TlsStream over {self.transport_stream!r}>"


async def _wait_within(limit: TimeLimit, wait: Callable[[], Awaitable[object]]) -> None:
    # Their callers have an error to tell already, which no other one may replace.
    try:
        with trio.move_on_at(limit.deadline):
            await wait()
    except Exception:  # noqa: BLE001 - see above
        limit.end()
