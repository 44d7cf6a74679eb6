"""Write to a child process, and read what it answers.

The child sorts the lines that it reads. It can only begin to write when its input ends, so its
stdin must be closed while its stdout is still read: a half-close.

Prints::

    ['ape', 'bee', 'cat']
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import trio

from trio_asyncwrite import BufWriter

CHILD = "import sys; sys.stdout.writelines(sorted(sys.stdin))"


async def main() -> None:
    start_child = partial(
        trio.run_process,
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    output = bytearray()

    async def read(stdout: trio.abc.ReceiveStream) -> None:
        async for chunk in stdout:
            output.extend(chunk)

    async with trio.open_nursery() as nursery:
        # If this block fails or is cancelled, the child is killed.
        child = await nursery.start(start_child)
        # Read from the very start: when both pipes are full, and each side only writes, neither
        # ever gets any further.
        nursery.start_soon(read, child.stdout)

        # BufWriter passes the pipe through wrap_stream, which makes a PollEvented of it.
        async with BufWriter(child.stdin) as writer:
            for word in ("bee", "cat", "ape"):
                await writer.write_all(word.encode() + b"\n")
            # Flush, and close the pipe: the child reads all of it, and then end-of-file.
            await writer.shutdown()

    # The nursery has waited for the child to end, and for the last of its output.
    print(output.decode().split())


if __name__ == "__main__":
    trio.run(main)
