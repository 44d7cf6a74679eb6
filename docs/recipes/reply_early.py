"""Reply early: 413 while the client is still uploading.

The server has seen enough after the first header. If it answered and closed, the unread upload
would make its kernel send a reset, which destroys the answer before the client has read it.

Prints::

    the client read: HTTP/1.1 413 Content Too Large
    the server's view: clean, threw the rest of the upload away
"""

from __future__ import annotations

from functools import partial

import trio

from trio_asyncwrite import CloseReport, TcpStream, close_gracefully, open_tcp_stream, serve_tcp

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n"
ANSWER = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


async def refuse(stream: TcpStream) -> CloseReport:
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some(1024)
    await stream.send_all(ANSWER)
    # It half-closes, and reads on until the client has ended, too. An impolite one has so many
    # seconds, and so many bytes.
    return await close_gracefully(stream, linger=10, linger_bytes=20_000_000)


async def main() -> None:
    async def handler(stream: TcpStream) -> None:
        report = await refuse(stream)
        assert report.discarded_bytes > 4_000_000
        print(f"the server's view: {report.outcome.value}, threw the rest of the upload away")
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(serve_tcp, handler, 0, host="127.0.0.1"))

        # A client that does not look for an answer before it has sent everything.
        async with await open_tcp_stream(*listeners[0].socket.getsockname()) as stream:
            await stream.send_all(HEAD + bytes(5_000_000))
            answer = bytes(await stream.receive_some())
        print("the client read:", answer.split(b"\r\n")[0].decode())


if __name__ == "__main__":
    trio.run(main)
