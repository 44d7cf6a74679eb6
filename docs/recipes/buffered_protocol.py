"""A buffered protocol writer: a pipeline of Redis commands.

Each command is a handful of small pieces. They collect in the BufWriter, and leave in one
system call at the flush point: where this side is going to wait for answers.

Prints::

    87 bytes are waiting, nothing was sent
    0 bytes are waiting
    ['+OK', '+OK', '+OK']
"""

from __future__ import annotations

from functools import partial

import trio

from trio_asyncwrite import AsyncWrite, BufWriter, open_tcp_stream


async def send_command(writer: AsyncWrite, *words: bytes) -> None:
    """Write a command as Redis reads it: an array of strings, each with its length."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        parts += [b"$%d\r\n" % len(word), word, b"\r\n"]
    # One call for the whole command. Behind a BufWriter that it fits into, it is taken whole
    # or, if this task is cancelled here, not at all: no command is ever torn.
    await writer.write_all_vectored(parts)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, server, 0, host="127.0.0.1"))
        stream = await open_tcp_stream(*listeners[0].socket.getsockname())

        # Write through the buffer, read from the stream itself.
        async with BufWriter(stream) as writer:
            for name in (b"ape", b"bee", b"cat"):
                await send_command(writer, b"SET", name, b"1")
            print(writer.unsent_bytes, "bytes are waiting, nothing was sent")

            await writer.flush()
            print(writer.unsent_bytes, "bytes are waiting")

            answers = bytearray()
            async for chunk in stream:
                answers += chunk
                if answers.count(b"\n") == 3:
                    break
            print(answers.decode().split())

        nursery.cancel_scope.cancel()  # ends the server


async def server(stream: trio.SocketStream) -> None:
    """Stand in for Redis: answer each SET, which is seven lines."""
    lines = 0
    async for chunk in stream:
        lines += chunk.count(b"\n")
        while lines >= 7:
            lines -= 7
            await stream.send_all(b"+OK\r\n")


if __name__ == "__main__":
    trio.run(main)
