"""A timeout for progress, instead of one for the whole transfer.

A download may take an hour over a slow line, and should. A client that takes nothing for ten
seconds is another matter. What it had not taken can still be sent, if it comes back.

Prints::

    the slow one: 60000 bytes in 300 seconds
    the stalled one: given up after 10 seconds, with 56000 bytes to go
    it came back: 60000 bytes
"""

from __future__ import annotations

import trio

from trio_asyncwrite import Buf, TimeoutWriter, simplex

DATA = bytes(60_000)


async def read(reader: trio.abc.ReceiveStream, pause: float) -> int:
    received = 0
    while chunk := await reader.receive_some(1000):
        received += len(chunk)
        await trio.sleep(pause)
    return received


async def main() -> None:
    # A connection that holds 4000 bytes; a TcpStream or TlsStream is used in the same way.
    writer, reader = simplex(capacity=4000)
    timeouts = TimeoutWriter(writer, idle=10)
    began = trio.current_time()

    async def send() -> None:
        await timeouts.send_all(DATA)
        await timeouts.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        received = await read(reader, pause=5)
    print(f"the slow one: {received} bytes in {trio.current_time() - began:.0f} seconds")

    writer, reader = simplex(capacity=4000)
    timeouts = TimeoutWriter(writer, idle=10)
    buf = Buf(DATA)
    began = trio.current_time()
    try:
        await timeouts.write_all_buf(buf)
    except trio.TooSlowError:
        waited = trio.current_time() - began
        print(
            f"the stalled one: given up after {waited:.0f} seconds, "
            f"with {buf.remaining} bytes to go"
        )

    async def resume() -> None:
        await timeouts.write_all_buf(buf)
        await timeouts.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(resume)
        print("it came back:", await read(reader, pause=0), "bytes")


if __name__ == "__main__":
    trio.run(main)
