"""A WebSocket with trio-websocket, over our TLS.

trio-websocket takes any Trio stream. Its ``send_message`` may be cancelled at any time now, for
the stream below it survives that.

Prints::

    server got: hello
    client got: HELLO
"""

from __future__ import annotations

import ssl
from typing import cast

import trio
import trio_websocket
import trustme

from trio_asyncwrite import TlsStream, duplex


async def serve(stream: trio.abc.Stream) -> None:
    async with trio.open_nursery() as nursery:
        request = await trio_websocket.wrap_server_stream(nursery, stream)
        socket = await request.accept()
        message = await socket.get_message()
        print("server got:", message)
        await socket.send_message(message.upper())
        await socket.aclose()


async def talk(stream: trio.abc.Stream) -> None:
    async with trio.open_nursery() as nursery:
        # Its annotation names Trio's own streams, and it takes any.
        stream_of_trio = cast("trio.SocketStream", stream)
        socket = await trio_websocket.wrap_client_stream(nursery, stream_of_trio, "localhost", "/")
        await socket.send_message("hello")
        print("client got:", await socket.get_message())
        await socket.aclose()


async def main() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    left, right = duplex(4096)  # in a program: open_tls_over_tcp_stream, serve_tls_over_tcp
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, TlsStream(right, server_context, server_side=True))
        client = TlsStream(left, client_context, server_hostname="localhost")
        nursery.start_soon(talk, client)


if __name__ == "__main__":
    trio.run(main)
