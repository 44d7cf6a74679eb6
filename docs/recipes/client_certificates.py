"""Let in only those who have a certificate of their own.

On TLS 1.3 a client's handshake is complete before the server has checked the client's certificate.
So a later read or write of the client raises the refusal, with the server's reason.

Prints::

    the server greets anna@example.org
    the server's reason: peer did not return a certificate
    refused: a client without a certificate
"""

from __future__ import annotations

import ssl
from functools import partial

import trio
import trustme

from trio_asyncwrite import TcpStream, TlsStream, open_tls_over_tcp_stream, serve_tls_over_tcp


async def greet(stream: TlsStream[TcpStream]) -> None:
    async with stream:
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as exc:
            reason = "peer did not return a certificate"
            print("the server's reason:", reason if reason in str(exc) else exc)
            return
        names = [value for kind, value in stream.getpeercert()["subjectAltName"] if kind == "email"]
        await stream.send_all(names[0].encode())


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


if __name__ == "__main__":
    trio.run(main)
