"""A static file server that goes on after a timeout.

Each answer is a header, in a buffer, and a file. If the reader stalls, the write times out. Nothing
is lost by that: the part stands where the next call goes on. After three timeouts in a row without
a byte the server gives up, and the peer sees that the answer is truncated.

Prints::

    GET /picture: 300000 bytes
    timed out: no byte for a second
    picture: 300000 bytes, as on disk
    GET /missing: 404
    missing: 404
    GET /picture: 300000 bytes
    timed out: no byte for a second
    timed out: no byte for a second
    timed out: no byte for a second
    gave up
    picture: cut off
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import trio

from trio_asyncwrite import BufWriter, DuplexStream, FilePart, abort, duplex

PICTURE = bytes(number % 251 for number in range(300_000))


async def serve(stream: DuplexStream, folder: Path) -> None:
    """Answer one request."""
    name = (await stream.receive_some(1000)).decode().strip()
    path = folder / Path(name).name  # never leave the folder
    async with BufWriter(stream) as writer:
        if not path.is_file():
            print(f"GET /{name}: 404")
            await writer.write_all(b"404\n")
            return
        # Replace files by renaming a new one: what is being sent stays what it was.
        with path.open("rb") as file:
            size = path.stat().st_size
            part = FilePart(file, 0, size)
            print(f"GET /{name}: {size} bytes")
            await writer.write_all(b"%d\n" % size)
            if not await send(writer, part):
                print("gave up")
                await abort(writer)  # so that nobody takes half a file for all of it


async def send(writer: BufWriter[DuplexStream], part: FilePart) -> bool:
    """Send all of a part; False if the peer takes nothing for three seconds."""
    stalls = 0
    while part:
        before = part.offset
        with trio.move_on_after(1):
            await writer.write_all_file(part)
        if part:
            stalls = stalls + 1 if part.offset == before else 1
            print("timed out: no byte for a second")
            if stalls == 3:
                return False
    return True


async def get(stream: DuplexStream, name: str, *, stall: float = 0) -> None:
    """Ask for a file, and read the answer; ``stall`` seconds late."""
    await stream.send_all(name.encode())
    await trio.sleep(stall)
    answer = bytearray()
    try:
        async for chunk in stream:
            answer += chunk
    except trio.BrokenResourceError:
        print(f"{name}: cut off")
        return
    size, _, body = bytes(answer).partition(b"\n")
    if body:
        assert int(size) == len(body)
        assert body == PICTURE
        print(f"{name}: {len(body)} bytes, as on disk")
    else:
        print(f"{name}: {size.decode()}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "picture").write_bytes(PICTURE)
        for name, stall in (("picture", 1.5), ("missing", 0), ("picture", 10)):
            # In place of a TcpStream, over which the kernel would send the file itself.
            client, server = duplex(10_000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(get, client, name, stall=stall))
                await serve(server, folder)


if __name__ == "__main__":
    trio.run(main)
