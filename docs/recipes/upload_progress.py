"""SHA-256 and progress of an upload, by functions that look at what passes.

They see exactly the bytes that were accepted, also when the upload is cancelled and resumed. Here
it gets a second at a time.

Prints::

    after 1 s: 12000 of 40000 bytes
    after 2 s: 21000 of 40000 bytes
    after 3 s: 31000 of 40000 bytes
    after 4 s: 40000 of 40000 bytes
    the server has got what was hashed: True
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import trio

from trio_asyncwrite import Buf, InspectWriter, simplex

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = bytes(range(250)) * 160


class Progress:
    """Counts the bytes that it is shown."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, view: memoryview) -> None:
        # The view is valid during this call only.
        self.count += len(view)


async def receive(
    reader: trio.abc.ReceiveStream, update: Callable[[bytes | bytearray], object]
) -> None:
    """The server: it takes 10 kB per second."""
    while chunk := await reader.receive_some(1000):
        update(chunk)
        await trio.sleep(0.1)


async def main() -> None:
    # Any stream will do: a TcpStream, a TlsStream, one of Trio's.
    stream, reader = simplex(capacity=1000)
    digest, progress, received = hashlib.sha256(), Progress(), hashlib.sha256()
    writer = InspectWriter(InspectWriter(stream, digest.update), progress)
    buf = Buf(DATA)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, reader, received.update)
        # Not in step with the server's pauses.
        await trio.sleep(0.05)
        began = trio.current_time()
        while buf:
            with trio.move_on_after(1):
                await writer.write_all_buf(buf)
            print(
                f"after {trio.current_time() - began:.0f} s: {progress.count} of {len(DATA)} bytes"
            )
        await writer.aclose()
    print("the server has got what was hashed:", received.digest() == digest.digest())


if __name__ == "__main__":
    trio.run(main)
