"""Resume a write after a timeout.

The reader has stalled, so the write cannot be finished in time. A cancelled ``send_all`` would
be the end of the connection, for nobody knows how much it has sent. ``write_all_buf`` knows: the
Buf stands where the next call goes on.

Prints::

    timed out: 6000 bytes to go
    timed out: 6000 bytes to go
    sent
    received 10000 bytes, as they were sent
"""

from __future__ import annotations

import trio

from trio_asyncwrite import Buf, simplex


async def main() -> None:
    data = bytes(number % 251 for number in range(10_000))
    received = bytearray()

    # A connection that holds 4000 bytes; BufWriter and TcpStream are used in the same way.
    writer, reader = simplex(capacity=4000)

    async def stalled_reader() -> None:
        await trio.sleep(0.25)
        async for chunk in reader:
            received.extend(chunk)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stalled_reader)

        async with writer:
            message = Buf(data)
            while message.remaining:
                with trio.move_on_after(0.1):
                    await writer.write_all_buf(message)
                if message.remaining:
                    # The place to log, to tell the user, or to give up on the peer.
                    print(f"timed out: {message.remaining} bytes to go")
            print("sent")

    assert received == data
    print(f"received {len(received)} bytes, as they were sent")


if __name__ == "__main__":
    trio.run(main)
