"""An echo server with TLS, whose writes time out and are resumed.

With ``trio.SSLStream`` the first write that times out is the end of the session. Here it costs
nothing: what was encrypted is kept, and the Buf knows how much of the message was accepted.

Prints::

    server: the client is slow, 134464 bytes to go
    server: the client is slow, 134464 bytes to go
    server: echoed 200000 bytes
    client: got 200000 bytes back, as they were sent
"""

from __future__ import annotations

import ssl

import trio
import trustme

from trio_asyncwrite import Buf, TlsStream, duplex

SIZE = 200_000


async def echo(stream: TlsStream[trio.abc.HalfCloseableStream]) -> None:
    async with stream:
        message = Buf(b"".join([bytes(chunk) async for chunk in stream]))
        size = message.remaining
        while message.remaining:
            with trio.move_on_after(1):
                await stream.write_all_buf(message)
            if message.remaining:
                # The place to log it, or to give up on the client.
                print(f"server: the client is slow, {message.remaining} bytes to go")
        print(f"server: echoed {size} bytes")


async def ask(stream: TlsStream[trio.abc.HalfCloseableStream]) -> None:
    data = bytes(number % 251 for number in range(SIZE))
    async with stream:
        await stream.write_all(data)
        await stream.shutdown()  # half-close: the server reads to the end, and we go on reading
        await trio.sleep(2.5)
        answer = b"".join([bytes(chunk) async for chunk in stream])
        assert answer == data
        print(f"client: got {len(answer)} bytes back, as they were sent")


async def main() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    left, right = duplex(10_000)  # in a program: open_tls_over_tcp_stream, serve_tls_over_tcp
    async with trio.open_nursery() as nursery:
        server = TlsStream[trio.abc.HalfCloseableStream](right, server_context, server_side=True)
        nursery.start_soon(echo, server)
        client = TlsStream[trio.abc.HalfCloseableStream](
            left, client_context, server_hostname="localhost"
        )
        nursery.start_soon(ask, client)


if __name__ == "__main__":
    trio.run(main)
