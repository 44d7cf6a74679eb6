"""What an :class:`ssl.SSLObject` tells, under the names that :class:`trio.SSLStream` has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    import ssl

    from ._engine import TlsEngine


class SessionInfo:
    """The part of :class:`TlsStream` that describes its session."""

    _engine: TlsEngine
    _handshook: bool

    def _after_handshake(self, name: str) -> ssl.SSLObject:
        if not self._handshook:
            raise trio.NeedHandshakeError(f"call do_handshake() before {name!r}")
        return self._engine.ssl_object

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """The session as :mod:`ssl` has it, for what has no name here. Only ask it.

        Reading, writing or unwrapping it would take bytes out of this stream.
        """
        return self._engine.ssl_object

    #: As :class:`trio.SSLStream` has it, which other libraries read.
    _ssl_object = ssl_object

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
