"""HTTP bodies in gzip and Zstandard, and server-sent events that arrive when they are sent.

A body is a stack of its own: ``CompressWriter`` over ``ChunkedBody`` over the connection. Closing
it writes the encoder's trailer and then the last chunk, and leaves the connection open.

Prints::

    gzip, /events: 'data: 0' at 0 s, 'data: 1' at 1 s, 'data: 2' at 2 s, end
    gzip, /page: 27000 bytes in less than a tenth, end
    zstd, /events: 'data: 0' at 0 s, 'data: 1' at 1 s, 'data: 2' at 2 s, end
    zstd, /page: 27000 bytes in less than a tenth, end
    identity, /broken: 'data: 0' at 0 s, cut short
    gzip, /broken: 'data: 0' at 0 s, cut short
"""

from __future__ import annotations

import contextlib
import sys
import zlib
from typing import TYPE_CHECKING, Any, final

import h11
import trio
import trio.abc

from trio_asyncwrite import AsyncWrite, duplex, graceful
from trio_asyncwrite.compression import CompressWriter, gzip_compressor, zstd_compressor

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable

ENCODERS = {"zstd": zstd_compressor, "gzip": gzip_compressor}


@final
class ChunkedBody(AsyncWrite):
    """The body of one HTTP message: a write is a chunk, and the last one says that it is whole."""

    encodes = True

    @property
    def shows_truncation(self) -> bool:
        return True

    def __init__(self, stream: AsyncWrite, connection: h11.Connection) -> None:
        # The end of a handle leaves the stream open, for the next message.
        self.inner: AsyncWrite = stream.by_ref()
        self._connection = connection
        self._out = b""
        self._held = 0

    @property
    def held_bytes(self) -> int:
        return self._held

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.lifecycle.check_write(self)
        self._push()
        if data:
            self._out = self._connection.send(h11.Data(data=bytes(data))) or b""
            self._held = len(data)
        return len(data)

    def poll_flush(self) -> None:
        self.lifecycle.check_flush(self)
        self._push()
        self.inner.poll_flush()

    def poll_shutdown(self) -> None:
        if self._connection.our_state is h11.SEND_BODY:
            self._push()
            self._out = self._connection.send(h11.EndOfMessage()) or b""
        super().poll_shutdown()

    def _push(self) -> None:
        while self._out:
            self._out = self._out[self.inner.poll_write(self._out) :]
        self._held = 0


async def serve(stream: Any) -> None:
    """Answer requests, one after the other, until the client leaves."""
    connection = h11.Connection(h11.SERVER)
    # After an exception the client can tell that the body under way was cut short.
    with contextlib.suppress(ZeroDivisionError):
        async with graceful(stream):
            while isinstance(request := await next_event(stream, connection), h11.Request):
                while not isinstance(await next_event(stream, connection), h11.EndOfMessage):
                    pass
                await answer(stream, connection, request)
                connection.start_next_cycle()


async def answer(stream: AsyncWrite, connection: h11.Connection, request: h11.Request) -> None:
    wanted = dict(request.headers).get(b"accept-encoding", b"").decode()
    encoding = next((name for name in ENCODERS if name in wanted), None)
    headers = [("Content-Type", "text/event-stream"), ("Vary", "Accept-Encoding")]
    if encoding:
        headers.append(("Content-Encoding", encoding))
    head = connection.send(h11.Response(status_code=200, headers=headers))
    await stream.write_all(head or b"")
    body: AsyncWrite = ChunkedBody(stream, connection)
    if encoding:
        body = CompressWriter(body, ENCODERS[encoding]())
    await write_body(body, request.target.decode())
    await body.aclose()


async def write_body(body: AsyncWrite, target: str) -> None:
    if target == "/page":
        await body.write_all(b"Compressed. Not an event. \n" * 1000)
        return
    for number in range(3):
        # It flushes the encoder: the event does not stick there until more has been written.
        await body.send_all(b"data: %d\n\n" % number)
        await trio.sleep(1)
        if target == "/broken":
            raise ZeroDivisionError


# ---- The client, which knows nothing of this library ---------------------------------------------


async def next_event(stream: trio.abc.ReceiveStream, connection: h11.Connection) -> Any:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(bytes(await stream.receive_some(4096)))
    return event


def decoder(encoding: str) -> tuple[Callable[[bytes], bytes], Callable[[], bool]]:
    """A function that decodes, and one that says whether the trailer was seen."""
    if encoding == "zstd":
        unzstd = zstd.ZstdDecompressor()
        return unzstd.decompress, lambda: unzstd.eof
    if encoding == "gzip":
        gunzip = zlib.decompressobj(wbits=31)
        return gunzip.decompress, lambda: gunzip.eof
    return bytes, lambda: True


async def get(stream: Any, connection: h11.Connection, target: str, encoding: str) -> str:
    """Make a request; what has arrived, when, and how it ended."""
    headers = [("Host", "example.org"), ("Accept-Encoding", encoding)]
    request = h11.Request(method="GET", target=target, headers=headers)
    ask = (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")
    await stream.send_all(ask)
    began = trio.current_time()
    found: list[str] = []
    plain = encoded = 0
    response = await next_event(stream, connection)
    used = dict(response.headers).get(b"content-encoding", b"identity").decode()
    decode, is_whole = decoder(used)
    try:
        while isinstance(event := await next_event(stream, connection), h11.Data):
            text = decode(bytes(event.data)).decode()
            plain, encoded = plain + len(text), encoded + len(event.data)
            if target != "/page" and text:
                found.append(f"{text.strip()!r} at {trio.current_time() - began:.0f} s")
        found.append("end" if is_whole() else "without a trailer")
    except (h11.RemoteProtocolError, trio.BrokenResourceError):
        found.append("cut short")
    if target == "/page":
        is_small = encoded < plain / 10
        found.insert(0, f"{plain} bytes{' in less than a tenth' if is_small else ''}")
    return f"{used}, {target}: {', '.join(found)}"


async def main() -> None:
    # One connection for what ends well, and one for each body that does not.
    for requests in (
        [("/events", "gzip"), ("/page", "gzip"), ("/events", "zstd"), ("/page", "zstd")],
        [("/broken", "identity")],
        [("/broken", "gzip")],
    ):
        client, server = duplex(65536)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, server)
            connection = h11.Connection(h11.CLIENT)
            async with client:
                for target, encoding in requests:
                    print(await get(client, connection, target, encoding))
                    if connection.our_state is h11.DONE:
                        connection.start_next_cycle()


if __name__ == "__main__":
    trio.run(main)
