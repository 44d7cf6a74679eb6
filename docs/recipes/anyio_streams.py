"""An anyio application on its Trio back end, with our writers.

``ToAnyio`` gives a duplex stream of ours to code that takes anyio's. ``FromAnyio`` gives a stream
of anyio's to our writers. What works, and what does not:

* Errors have anyio's types there and Trio's here. The peer's end is ``EndOfStream`` there and
  ``b""`` here.
* ``send_eof`` works over every duplex stream of ours, ``TlsStream`` too. anyio's ``TLSStream`` has
  none: put our ``TlsStream`` over ``FromAnyio`` of the stream below it.
* Of anyio's extra attributes, ``ToAnyio`` has the two addresses of a ``TcpStream``, and no others.
* anyio's cancel scopes are Trio's. If ``send`` of ``ToAnyio`` is cancelled after a part has gone,
  the next one raises ``BrokenResourceError``. To resume it, use ``write_all_buf`` of our stream.
* anyio cannot say how much of a cancelled ``send`` has gone. So a writer of ours over ``FromAnyio``
  sees a chunk of at most 64 KiB through, for ``cancel_grace`` seconds; see ``wrap_stream``.
* ``async with ToAnyio(stream)`` waits at its end until all is sent, also after an exception. Use a
  deadline, or ``async with`` of our own stream.
* Nothing of this works on asyncio: our streams wait as Trio does.

Prints::

    the server got: hello anyio
    the client got: HELLO
    the client got: ANYIO
    the server is at 127.0.0.1
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import trio
import trio.abc
from anyio.abc import SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream

from trio_asyncwrite import AsyncReadWrite, BufWriter, TcpStream, open_tcp_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    Errors = Mapping[type[Exception], Callable[[str], Exception]]

IN_ANYIO: Errors = {
    trio.BrokenResourceError: anyio.BrokenResourceError,
    trio.BusyResourceError: lambda _: anyio.BusyResourceError("using"),  # it takes a verb
    trio.ClosedResourceError: anyio.ClosedResourceError,
}
IN_TRIO: Errors = {
    anyio.BrokenResourceError: trio.BrokenResourceError,
    anyio.BusyResourceError: trio.BusyResourceError,
    anyio.ClosedResourceError: trio.ClosedResourceError,
}


@contextmanager
def raising(errors: Errors) -> Generator[None, None, None]:
    try:
        yield
    except tuple(errors) as exc:
        raise next(errors[kind](str(exc)) for kind in errors if isinstance(exc, kind)) from exc


class ToAnyio(anyio.abc.ByteStream):
    def __init__(self, stream: AsyncReadWrite) -> None:
        self.stream = stream

    async def send(self, item: bytes) -> None:
        with raising(IN_ANYIO):
            await self.stream.send_all(item)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        with raising(IN_ANYIO):
            if data := await self.stream.receive_some(max_bytes):
                return bytes(data)
            raise anyio.EndOfStream

    async def send_eof(self) -> None:
        with raising(IN_ANYIO):
            await self.stream.send_eof()

    async def aclose(self) -> None:
        with raising(IN_ANYIO):
            await self.stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        if not isinstance(self.stream, TcpStream):
            return {}
        sock = self.stream.socket
        return {
            SocketAttribute.local_address: sock.getsockname,
            SocketAttribute.remote_address: sock.getpeername,
        }


class FromAnyio(trio.abc.HalfCloseableStream):
    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self.stream = stream
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with raising(IN_TRIO):
            await self.stream.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()  # anyio has no wait for it
        if self.closed:
            raise trio.ClosedResourceError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            with raising(IN_TRIO):
                return await self.stream.receive(65536 if max_bytes is None else max_bytes)
        except anyio.EndOfStream:
            return b""

    async def send_eof(self) -> None:
        with raising(IN_TRIO):
            await self.stream.send_eof()

    async def aclose(self) -> None:
        self.closed = True
        with raising(IN_TRIO):
            await self.stream.aclose()


async def serve(stream: anyio.abc.ByteStream) -> None:
    """Use a stream that anyio has made."""
    async with BufWriter(FromAnyio(stream)) as writer:
        request = await stream.receive()
        print("the server got:", request.decode())
        for word in request.split():
            await writer.write_all(word.upper() + b"\n")  # they leave together


async def talk(host: str, port: int) -> None:
    """Use what anyio has for streams over one of ours."""
    async with ToAnyio(await open_tcp_stream(host, port)) as stream:
        await stream.send(b"hello anyio")
        replies = BufferedByteReceiveStream(stream)
        for _ in range(2):
            print("the client got:", (await replies.receive_until(b"\n", 100)).decode())
        print("the server is at", stream.extra(SocketAttribute.remote_address)[0])


async def main() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        await talk("127.0.0.1", listener.extra(SocketAttribute.local_port))
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, backend="trio")
