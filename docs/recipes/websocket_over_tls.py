"""A WebSocket with trio-websocket, over our TLS.

trio-websocket takes any Trio stream, and sends each message by one ``send_all``. A ``SharedWriter``
below it lets you cancel ``send_message`` at any time: a message that has begun goes out whole, with
the next one at the latest; one that has not is withdrawn. Over a bare ``TlsStream`` this is true of
messages up to 64 KiB. A longer one that is cancelled in the middle ends the connection there: the
next ``send_message`` raises ``ConnectionClosed``.

Close the stream yourself, inside the nursery: trio-websocket leaves it open when the connection
fails, and then its own task goes on reading from it.

Prints::

    cancelled: True
    server got 5 characters
    server got 100000 characters
    client got: that is all
"""

from __future__ import annotations

import ssl
from typing import cast

import trio
import trio_websocket
import trustme

from trio_asyncwrite import DuplexStream, ReadWritePair, SharedWriter, TlsStream, duplex


async def serve(tls: TlsStream[DuplexStream]) -> None:
    stream = ReadWritePair(tls, SharedWriter(tls))
    async with trio.open_nursery() as nursery, stream:
        # With no place to queue them, messages wait until they are asked for.
        request = await trio_websocket.wrap_server_stream(nursery, stream, message_queue_size=0)
        socket = await request.accept()
        await trio.sleep(2)
        while (message := await socket.get_message()) != "last":
            print("server got", len(message), "characters")
        await socket.send_message("that is all")
        await socket.aclose()


async def talk(tls: TlsStream[DuplexStream]) -> None:
    stream = ReadWritePair(tls, SharedWriter(tls))
    # The annotation of wrap_client_stream names Trio's own streams, but it takes any.
    as_trios = cast("trio.SocketStream", stream)
    async with trio.open_nursery() as nursery, stream:
        socket = await trio_websocket.wrap_client_stream(nursery, as_trios, "localhost", "/")
        await socket.send_message("first")
        with trio.move_on_after(1) as scope:
            await socket.send_message("x" * 100_000)
        print("cancelled:", scope.cancelled_caught)
        await socket.send_message("last")
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
        nursery.start_soon(talk, TlsStream(left, client_context, server_hostname="localhost"))


if __name__ == "__main__":
    trio.run(main)
