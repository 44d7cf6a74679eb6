"""Resume a TLS session, and save the better part of the handshake.

On TLS 1.3 the tickets for it come with the server's first data: so the client has to have read
something. Both connections need the same context.

Prints::

    first: resumed False
    second: resumed True
"""

from __future__ import annotations

import ssl
from functools import partial

import trio
import trustme

from trio_asyncwrite import TcpStream, TlsStream, open_tls_over_tcp_stream, serve_tls_over_tcp


async def greet(stream: TlsStream[TcpStream]) -> None:
    async with stream:
        await stream.send_all(b"hello")


async def visit(
    title: str, port: int, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> ssl.SSLSession | None:
    async with await open_tls_over_tcp_stream("localhost", port, ssl_context=context) as stream:
        if session is not None:
            stream.session = session  # before the handshake
        async for _ in stream:
            pass
        print(f"{title}: resumed {stream.session_reused}")
        return stream.session


async def main() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    async with trio.open_nursery() as nursery:
        serve = partial(serve_tls_over_tcp, greet, 0, server_context, host="localhost")
        listeners = await nursery.start(serve)
        port = listeners[0].transport_listener.socket.getsockname()[1]

        session = await visit("first", port, client_context, None)
        await visit("second", port, client_context, session)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
