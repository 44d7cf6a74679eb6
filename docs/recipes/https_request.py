"""An HTTPS request with h11, which knows HTTP and does no input or output.

``https_compatible=True`` is for servers that do without a close_notify, as many do: HTTP says by
itself where a message ends.

Prints::

    200 hello from /greeting
"""

from __future__ import annotations

import ssl
from functools import partial

import h11
import trio
import trustme

from trio_asyncwrite import (
    TcpStream,
    TlsStream,
    open_tls_over_tcp_stream,
    serve_tls_over_tcp,
)


async def next_event(http: h11.Connection, stream: trio.abc.ReceiveStream) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(bytes(await stream.receive_some()))
    return event


async def get(host: str, port: int, target: str, context: ssl.SSLContext) -> tuple[int, bytes]:
    http = h11.Connection(h11.CLIENT)
    stream = await open_tls_over_tcp_stream(host, port, ssl_context=context, https_compatible=True)
    async with stream:
        request = h11.Request(
            method="GET", target=target, headers=[("Host", host), ("Connection", "close")]
        )
        # send() gives None for events that need no bytes; together they leave in one record.
        parts = [http.send(request), http.send(h11.EndOfMessage())]
        await stream.write_all_vectored([part for part in parts if part])

        status, body = 0, b""
        while not isinstance(event := await next_event(http, stream), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
        return status, body


async def serve(stream: TlsStream[TcpStream]) -> None:
    http = h11.Connection(h11.SERVER)
    async with stream:
        request = await next_event(http, stream)
        assert isinstance(request, h11.Request)
        body = b"hello from " + request.target
        headers = [("Content-Length", str(len(body))), ("Connection", "close")]
        events = [h11.Response(status_code=200, headers=headers), h11.Data(body)]
        await stream.write_all_vectored([http.send(event) or b"" for event in events])


async def main() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(serve_tls_over_tcp, serve, 0, server_context, host="localhost")
        )
        port = listeners[0].transport_listener.socket.getsockname()[1]
        status, body = await get("localhost", port, "/greeting", client_context)
        print(status, body.decode())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
