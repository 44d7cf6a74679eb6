"""Let in only those who have a certificate of their own.

On TLS 1.3 a client's handshake is complete before the server has checked the client's certificate.
So a later read or write of the client raises the refusal, with the server's reason. The server
shakes hands before it calls the handler, and logs a handshake that fails.

Prints::

    the server greets anna@example.org
    the server's log: peer did not return a certificate
    refused: a client without a certificate
"""

from __future__ import annotations

import logging
import ssl
from functools import partial

import trio
import trustme

from trio_asyncwrite import TcpStream, TlsStream, open_tls_over_tcp_stream, serve_tls_over_tcp


async def greet(stream: TlsStream[TcpStream]) -> None:
    async with stream:
        names = [value for kind, value in stream.getpeercert()["subjectAltName"] if kind == "email"]
        await stream.send_all(names[0].encode())


class Log(logging.Handler):
    """In a program: ``logging.basicConfig(level=logging.INFO)``."""

    def emit(self, record: logging.LogRecord) -> None:
        message, reason = record.getMessage(), "peer did not return a certificate"
        print("the server's log:", reason if reason in message else message)


async def visit(port: int, context: ssl.SSLContext) -> str:
    async with await open_tls_over_tcp_stream("localhost", port, ssl_context=context) as stream:
        return b"".join([bytes(chunk) async for chunk in stream]).decode()


async def main() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    server_context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server_context)

    stranger = ssl.create_default_context()
    authority.configure_trust(stranger)
    anna = ssl.create_default_context()
    authority.configure_trust(anna)
    authority.issue_cert("anna@example.org").configure_cert(anna)

    logger, log = logging.getLogger("trio_asyncwrite"), Log()
    logger.addHandler(log)
    logger.setLevel(logging.INFO)

    async with trio.open_nursery() as nursery:
        serve = partial(serve_tls_over_tcp, greet, 0, server_context, host="localhost")
        listeners = await nursery.start(serve)
        port = listeners[0].transport_listener.socket.getsockname()[1]

        print("the server greets", await visit(port, anna))
        try:
            await visit(port, stranger)
        except trio.BrokenResourceError:
            print("refused: a client without a certificate")
        nursery.cancel_scope.cancel()
    logger.removeHandler(log)


if __name__ == "__main__":
    trio.run(main)
