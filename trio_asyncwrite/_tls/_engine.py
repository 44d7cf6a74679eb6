"""TLS without input or output: bytes in, bytes out.

Theory of operation
===================

An :class:`ssl.SSLObject` talks to two memory buffers. This engine owns all three and gives them
the four verbs that a stream needs (handshake, encrypt, decrypt, close_notify), each a plain
function that either does its work or says that it needs more ciphertext from the peer. It knows
no sockets and no tasks; so everything that is delicate about TLS is here, and can be tested
without a loop.

**Ciphertext once made is kept.** Each verb ends by moving what OpenSSL has produced to ``out``,
in order. Whoever can send takes it from there; a cancelled send loses nothing.

**Session tickets wait for company.** A TLS 1.3 server makes them at the end of the handshake,
when the client may be busy with a write and not read: sending them then can deadlock
(openssl/openssl#7948). They stay back until there is anything else to send, and go first, as the
sequence numbers of the records demand.

**Half-close.** ``SSLObject.unwrap()`` sends close_notify and then *reads* for the peer's; any
application data that it finds is an error (APPLICATION_DATA_AFTER_CLOSE_NOTIFY), after which
OpenSSL refuses to go on. It must find nothing: what is decrypted already is read out into
``_plaintext``, and the ciphertext that waits is taken out of the buffer for the length of the
call. It then ends with SSLWantReadError, close_notify is in ``out``, and reading goes on.

**The peer's end.** OP_IGNORE_UNEXPECTED_EOF, which Python sets by default, makes OpenSSL take a
truncated stream for a complete one. So it never hears of the end of the transport: when it wants
more ciphertext and there is no more to come, the stream was truncated; the peer's close_notify
is the only clean end.

Source: OpenSSL's ssl(7); RFC 8446, sections 4.6.1, 5.1 and 6.1; python-trio/trio#198, #823, #819.
"""

from __future__ import annotations

import ssl
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The plaintext of one full record (RFC 8446, section 5.1).
RECORD_SIZE: Final = 16384

# The plaintext of a full record: as it is, or as a peer has asked for (RFC 6066, section 4).
_RECORD_SIZES: Final = (RECORD_SIZE, 4096, 2048, 1024, 512)

# What OpenSSL calls bytes that are no TLS, and the alert that it does not send for them (a fatal
# protocol_version: RFC 8446, section 6.2).
_NOT_TLS: Final = {"HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER"}
_PROTOCOL_VERSION: Final = b"\x15\x03\x01\x00\x02\x02\x46"


class TlsEngine:
    """One TLS connection. Every verb raises :exc:`ssl.SSLError` if TLS itself fails."""

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None,
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        #: Ciphertext to be sent, in order.
        self.out: bytes | memoryview = b""
        #: How many bytes of ciphertext have gone.
        self.sent_bytes = 0
        #: Whether a handshake has begun.
        self.has_spoken = False
        self.established = False
        #: Whether our close_notify has been made (it may still be in ``out``).
        self.sent_close_notify = False
        #: Whether the peer has ended its stream properly.
        self.received_close_notify = False
        #: Whether the transport has ended.
        self.eof = False
        self._tickets = b""
        #: What TLS has failed of. OpenSSL tells it once; asked again, it calls a connection that
        #: the peer has ended by an alert a complete one.
        self.error: ssl.SSLError | None = None
        # Where in ``out`` the records of the last encrypt begin, and how long its pieces were.
        self._data_begins = 0
        self._pieces: list[int] = []
        # Decrypted, and not yet asked for: by a half-close, or ahead of time.
        self._plaintext: deque[bytes] = deque()

    # ---- Ciphertext ------------------------------------------------------------------------

    def feed(self, ciphertext: bytes | bytearray) -> None:
        """Take in what the transport has received; nothing means that it has ended."""
        if ciphertext:
            self._incoming.write(ciphertext)
        else:
            self.eof = True

    def sent(self, count: int) -> None:
        """``count`` bytes of ``out`` have gone."""
        self.sent_bytes += count
        out = self.out
        # A slice of nothing would keep what it was sliced from.
        self.out = b"" if count == len(out) else memoryview(out)[count:]

    def trailing(self) -> bytes:
        """Take out the ciphertext that was received and not used."""
        return self._incoming.read()

    def pending(self) -> int:
        """How many bytes of plaintext are decrypted and not yet asked for."""
        return sum(map(len, self._plaintext)) + self.ssl_object.pending()

    def unread(self, plaintext: bytes) -> None:
        """Put back what the last decrypt returned."""
        if plaintext:
            self._plaintext.appendleft(plaintext)

    def _collect(self) -> None:
        made = self._outgoing.read()
        if made:
            if self.out or self._tickets:
                made = b"".join((self.out, self._tickets, made))
                self._tickets = b""
            self.out = made

    # ---- The four verbs --------------------------------------------------------------------

    def handshake(self) -> bool:
        """Go on with the handshake; whether it is complete."""
        if self.established:
            return True
        self._check_failed()
        self.has_spoken = True
        try:
            self.ssl_object.do_handshake()
        except ssl.SSLWantReadError:
            self._collect()
            self._check_truncated("during the handshake")
            return False
        except ssl.SSLError as exc:
            if exc.reason in _NOT_TLS and not self._outgoing.pending:
                self._outgoing.write(_PROTOCOL_VERSION)
            self._collect()  # the alert that tells the peer why
            self.error = exc
            raise
        if self.ssl_object.server_side and self.ssl_object.version() == "TLSv1.3":
            self._tickets = self._outgoing.read()
        else:
            self._collect()
        self.established = True
        return True

    def encrypt(self, pieces: Iterable[bytes | memoryview]) -> int:
        """Encrypt ``pieces`` in order; how many bytes they were.

        It is 0 in a renegotiation (TLS 1.2), which needs the peer first.
        """
        if self.error is not None:  # _check_failed(), without its frame
            raise self.error
        self._data_begins = len(self.out) + len(self._tickets)
        self._pieces = []
        try:
            for piece in pieces:
                if piece:  # to OpenSSL, writing nothing is an error
                    # All or nothing, since Python does not set SSL_MODE_ENABLE_PARTIAL_WRITE.
                    self._pieces.append(self.ssl_object.write(piece))
        except ssl.SSLWantReadError:
            if not self._pieces:
                self._check_truncated("during a renegotiation")
        except ssl.SSLError as exc:
            self.error = exc
            if not self._pieces:  # or the next call raises it
                raise
        finally:
            self._collect()
        return sum(self._pieces)

    def plaintext_in(self, records: bytes | memoryview, gone: int) -> int:
        """How much of the plaintext of the last ``encrypt`` has gone.

        A record that has only partly gone counts for nothing: the peer cannot decrypt it.

        Args:
            records: what ``out`` was after that call.
            gone: how many bytes of it have left.
        """
        ends: list[int] = []
        end = self._data_begins
        while end < len(records):
            end += 5 + int.from_bytes(records[end + 3 : end + 5], "big")
            ends.append(end)
        # OpenSSL fills its records, one piece after the other. There is one way only to get this
        # many records out of these pieces.
        splits = (
            [min(size, piece - at) for piece in self._pieces for at in range(0, piece, size)]
            for size in _RECORD_SIZES
        )
        split = next((split for split in splits if len(split) == len(ends)), [sum(self._pieces)])
        return sum(size for size, end in zip(split, ends, strict=False) if end <= gone)

    def needs_ciphertext(self) -> bool:
        """Whether ``decrypt`` is sure to return None. OpenSSL says so by an exception: slowly."""
        return not (
            self._incoming.pending
            or self._plaintext
            or self.eof
            or self.received_close_notify
            or self.error is not None
            or self.ssl_object.pending()
        )

    def decrypt(self, size: int) -> bytes | None:
        """At most ``size`` bytes of plaintext: empty at the end, None if ciphertext is needed.

        Raises:
            ssl.SSLEOFError: if the transport has ended and TLS has not.
        """
        if self._plaintext:
            kept = self._plaintext.popleft()
            if len(kept) > size:
                self._plaintext.appendleft(kept[size:])
            return kept[:size]
        data = self._read(size)
        if not data:
            return data
        # One read gives one record at most; the next may be there already.
        chunks = [data]
        size -= len(data)
        while size and (self.ssl_object.pending() or self._incoming.pending):
            try:
                more = self._read(size)
            except ssl.SSLError:
                break  # what came before it is good, and the next call fails
            if not more:
                break
            chunks.append(more)
            size -= len(more)
        return data if len(chunks) == 1 else b"".join(chunks)

    def read_ahead(self) -> None:
        """Decrypt all that was fed, for ``decrypt`` to return later.

        Raises:
            ssl.SSLError: as ``decrypt``, for what comes behind the data.
        """
        while data := self._read(RECORD_SIZE):
            self._plaintext.append(data)

    def _read(self, size: int) -> bytes | None:
        if self.received_close_notify:
            return b""
        if self.error is not None:  # likewise
            raise self.error
        data: bytes
        try:
            data = self.ssl_object.read(min(size, RECORD_SIZE))
        except ssl.SSLWantReadError:
            self._collect()
            self._check_truncated("without a close_notify")
            return None
        except ssl.SSLZeroReturnError:  # the end, if we have sent close_notify as well
            data = b""
        except ssl.SSLError as exc:
            self._collect()
            self.error = exc
            raise
        if self._outgoing.pending:  # the answer to a key update
            self._collect()
        if not data:
            self.received_close_notify = True
        return data

    def close_notify(self) -> None:
        """End our stream; the peer's goes on."""
        if self.sent_close_notify:
            return
        self._check_failed()
        while self.ssl_object.pending():
            self._plaintext.append(self.ssl_object.read(RECORD_SIZE))
        unread = self._incoming.read()
        try:
            self.ssl_object.unwrap()
        except ssl.SSLWantReadError:
            pass
        else:
            self.received_close_notify = True
        finally:
            self._incoming.write(unread)
            self._collect()
        self.sent_close_notify = True

    def _check_failed(self) -> None:
        if self.error is not None:
            raise self.error

    def _check_truncated(self, when: str) -> None:
        if self.eof:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, f"the peer closed the connection {when}")
