"""A tar stream of a folder over TCP.

The folder is packed while it is sent, by tarfile, in a worker thread that is stopped while the
reader is slow. If packing fails, the reader is told: the connection is reset.

Prints::

    received: album, album/one.txt, album/two.txt
    the client was told: BrokenResourceError
"""

from __future__ import annotations

import contextlib
import io
import tarfile
import tempfile
from functools import partial
from pathlib import Path

import trio

from trio_asyncwrite import TcpStream, graceful, open_tcp_stream, serve_tcp, write_from_thread


def pack(file: io.BufferedWriter, folder: Path) -> None:
    """What runs in the thread. ``w|`` is for streams: ``w`` would seek."""
    with tarfile.open(fileobj=file, mode="w|") as archive:
        archive.add(folder, folder.name)
        if folder.name == "album 2":
            archive.add(folder / "missing.txt")


async def serve(stream: TcpStream, parent: Path) -> None:
    name = (await stream.receive_some(1000)).decode()
    # Only this client is concerned; a real server logs it.
    with contextlib.suppress(FileNotFoundError):
        # Left by an exception, it makes a truncated end of it.
        async with graceful(stream):
            await write_from_thread(stream, pack, parent / Path(name).name)


async def download(port: int, name: str) -> bytes:
    async with await open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(name.encode())
        return b"".join([chunk async for chunk in stream])


async def main() -> None:
    with tempfile.TemporaryDirectory() as parent:
        for folder in (Path(parent, "album"), Path(parent, "album 2")):
            folder.mkdir()
            (folder / "one.txt").write_text("1" * 300_000)
            (folder / "two.txt").write_text("2")
        async with trio.open_nursery() as nursery:
            handler = partial(serve, parent=Path(parent))
            listeners = await nursery.start(partial(serve_tcp, handler, 0, host="127.0.0.1"))
            port = listeners[0].socket.getsockname()[1]

            archive = io.BytesIO(await download(port, "album"))
            with tarfile.open(fileobj=archive) as tar:
                print("received:", ", ".join(sorted(tar.getnames())))
            try:
                await download(port, "album 2")
            except trio.BrokenResourceError:
                print("the client was told: BrokenResourceError")
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
