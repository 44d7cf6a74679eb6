"""Read lines from a connection, with a timeout that loses none of them.

A line that arrives in two pieces, with a timeout in between, is still read whole. A line that is
too long, and an end in the middle of one, are errors.

Prints::

    line: b'first'
    nothing for a second
    line: b'second, in two pieces'
    not a line: b'an unfinished one'
"""

from __future__ import annotations

import trio

from trio_asyncwrite import BufReader, duplex


async def read_lines(stream: trio.abc.ReceiveStream) -> None:
    reader = BufReader(stream)
    while True:
        try:
            with trio.move_on_after(1):
                line = await reader.receive_until(b"\n", max_bytes=8192)
                if not line:
                    break  # a proper end, between two lines
                print("line:", line.rstrip(b"\r\n"))
                continue
        except trio.BrokenResourceError:
            print("not a line:", reader.peek())
            break
        # What has arrived of the line is still in the reader.
        print("nothing for a second")


async def main() -> None:
    ours, theirs = duplex(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_lines, ours)
        async with theirs:
            await theirs.send_all(b"first\r\nsecond, ")
            await trio.sleep(1.5)
            await theirs.send_all(b"in two pieces\r\nan unfinished one")


if __name__ == "__main__":
    trio.run(main)
