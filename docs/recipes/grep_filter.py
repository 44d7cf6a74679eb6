"""A filter from stdin to stdout, for pipelines: it passes on the lines that have a word in them.

Run it as ``dmesg | python grep_filter.py usb | head -3``. Without a word it is its own pipeline: it
starts itself, as below. Other tasks of the program go on, however slow the reader is, and
when the reader has enough, the filter ends.

Prints::

    $ seq 1 30 | grep_filter.py 7
    7
    17
    27
"""

from __future__ import annotations

import os
import sys

import trio

from trio_asyncwrite import BufWriter, stdout


class Stdin(trio.abc.ReceiveStream):
    """Standard input, whatever it is, and left as it is: it is read by a worker thread."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        # A thread that waits for input cannot be stopped; what it reads later is lost.
        return await trio.to_thread.run_sync(os.read, 0, max_bytes or 65536, abandon_on_cancel=True)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def pass_on(word: bytes) -> None:
    rest = b""
    async with BufWriter(stdout()) as out:
        try:
            async for block in Stdin():
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    if word in line:
                        await out.write_all(line + b"\n")
                # The next block may be long in coming.
                await out.flush()
            if word in rest:
                await out.write_all(rest)
                await out.flush()
        except trio.BrokenResourceError:
            pass  # the reader has enough


async def main() -> None:
    print("$ seq 1 30 | grep_filter.py 7")
    numbers = b"".join(b"%d\n" % number for number in range(1, 31))
    command = [sys.executable, __file__, "7"]
    found = await trio.run_process(command, stdin=numbers, capture_stdout=True)
    print(found.stdout.decode(), end="")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trio.run(pass_on, os.fsencode(sys.argv[1]))
    else:
        trio.run(main)
