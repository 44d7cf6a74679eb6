"""Begin in plain text, and go over to TLS (STARTTLS).

What a side has received beyond the line that ends the plain text must be taken for TLS, and never
for plain text: ``received=`` is the place for it. ``unwrap()`` is the way back.

Prints::

    S: 220 ready
    C: STARTTLS
    S: 220 go ahead
    TLSv1.3 from here on
    C: QUIT
    S: 221 bye
"""

from __future__ import annotations

import ssl

import trio
import trustme

from trio_asyncwrite import duplex, start_tls


class Lines:
    """Reads lines, and keeps what came beyond the last one."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self.stream = stream
        self.rest = b""

    async def next(self) -> str:
        while b"\r\n" not in self.rest:
            self.rest += await self.stream.receive_some()
        line, _, self.rest = self.rest.partition(b"\r\n")
        return line.decode()


async def serve(plain: trio.abc.Stream, context: ssl.SSLContext) -> None:
    lines = Lines(plain)
    await plain.send_all(b"220 ready\r\n")
    assert await lines.next() == "STARTTLS"
    await plain.send_all(b"220 go ahead\r\n")
    async with await start_tls(plain, context, server_side=True, received=lines.rest) as tls:
        assert await Lines(tls).next() == "QUIT"
        await tls.send_all(b"221 bye\r\n")


async def talk(plain: trio.abc.Stream, context: ssl.SSLContext) -> None:
    lines = Lines(plain)
    print("S:", await lines.next())
    print("C: STARTTLS")
    await plain.send_all(b"STARTTLS\r\n")
    print("S:", await lines.next())
    tls = await start_tls(plain, context, server_hostname="localhost", received=lines.rest)
    async with tls:
        print(tls.version(), "from here on")
        print("C: QUIT")
        await tls.send_all(b"QUIT\r\n")
        print("S:", await Lines(tls).next())


async def main() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    client, server = duplex(4096)  # in a program: open_tcp_stream and serve_tcp
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, server, server_context)
        nursery.start_soon(talk, client, client_context)


if __name__ == "__main__":
    trio.run(main)
