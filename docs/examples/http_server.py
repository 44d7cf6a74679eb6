"""An HTTP/1.1 server: a folder of files, uploads, a WebSocket.

    python http_server.py FOLDER [--port N] [--certificate FILE --key FILE]

GET and HEAD send a file of the folder, or a part of it (``Range``); text is compressed for those
who take gzip. POST takes a body and answers with its SHA-256. A WebSocket at ``/echo`` sends back
whatever it gets. SIGTERM and SIGINT drain it.

It shows the things that servers are often careless about:

* A slow client costs one connection and no more: a head has to arrive in time, an answer has to
  move on, and an upload that is too large is refused before it has arrived.
* An answer that failed half-way never looks complete.
* A drain answers every request that has arrived, and ends idle connections at once.

It needs h11 and trio-websocket.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import mimetypes
import os
import re
import ssl
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit

import h11
import trio
import trio_websocket

from trio_asyncwrite import (
    BufReader,
    BufWriter,
    Drain,
    FilePart,
    ReadWritePair,
    SharedWriter,
    TimeoutWriter,
    abort,
    close_gracefully,
    log_errors,
    serve_tcp,
    serve_tls_over_tcp,
)
from trio_asyncwrite.compression import gzip_compressor

if TYPE_CHECKING:
    from trio_asyncwrite import AsyncReadWrite

log = logging.getLogger("http_server")

Headers = list[tuple[str, str]]


@dataclass
class Site:
    """What is served, and within which limits."""

    folder: Path
    drain: Drain = field(default_factory=Drain)
    #: How long an idle connection is kept, and how long a head may take, in seconds.
    keep_alive: float = 60
    head_time: float = 10
    #: How long a client may take nothing, or send nothing of a body, in seconds; and how long a
    #: whole body may take.
    stall: float = 30
    body_time: float = 300
    #: How many bytes a body may have, and how many connections are served at once.
    largest_body: int = 1_000_000
    connections: int = 1000

    def find(self, target: str) -> Path | None:
        """The file that a request asks for, if there is one inside the folder."""
        with contextlib.suppress(ValueError, OSError):
            path = (self.folder / unquote(urlsplit(target).path).lstrip("/")).resolve()
            if path.is_relative_to(self.folder.resolve()) and path.is_file():
                return path
        return None


class Refusal(Exception):
    """A request that gets an error for an answer; the connection ends with it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Length:
    """Stands for so many bytes of a file: h11 needs to know how many there are, and no more."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


class Connection:
    """One client's connection."""

    def __init__(self, stream: AsyncReadWrite, site: Site) -> None:
        self.stream = stream
        self.site = site
        self.client = stream.peer_address
        self.h11 = h11.Connection(h11.SERVER)
        self.reader = BufReader(stream)
        # Heads wait in the buffer for the body behind them, and leave together with it.
        self.writer = BufWriter(TimeoutWriter(stream, idle=site.stall))
        #: The head of the request as it came, for those who take the connection over.
        self.head = bytearray()

    async def serve(self) -> None:
        """Answer requests until either side has had enough."""
        try:
            while await self.serve_one():
                pass
        except trio.TooSlowError:
            log.info("%s stalled", self.client)
            await abort(self.stream)  # what it got must not look complete
        except trio.BrokenResourceError as exc:
            log.info("%s left: %s", self.client, exc)

    async def serve_one(self) -> bool:
        """Answer one request; whether another may follow."""
        try:
            request = await self.receive_request()
            if request is None:
                return False
            upgrade = dict(request.headers).get(b"upgrade", b"").lower()
            if request.target == b"/echo" and upgrade == b"websocket":
                await self.echo()
                return False
            await self.answer(request)
        except h11.RemoteProtocolError as exc:
            await self.refuse(exc.error_status_hint)
            return False
        except Refusal as exc:
            await self.refuse(exc.status)
            return False
        await self.writer.flush()
        if self.h11.our_state is h11.MUST_CLOSE:
            return False
        self.h11.start_next_cycle()
        return True

    # ---- Receiving -------------------------------------------------------------------------

    async def receive_request(self) -> h11.Request | None:
        """The next request; None if none comes."""
        self.head[:] = self.h11.trailing_data[0]  # it may have come with the request before
        if not self.head:
            # The one place where a drain may break in: no request has begun.
            with self.site.drain.until_started(), trio.move_on_after(self.site.keep_alive):
                await self.reader.fill()
            if not self.reader.remaining:
                return None
        try:
            with trio.fail_after(self.site.head_time):
                event = await self.receive_event()
        except trio.TooSlowError:
            raise Refusal(408) from None
        return event if isinstance(event, h11.Request) else None

    async def receive_event(self) -> Any:
        """The next part of a request."""
        while (event := self.h11.next_event()) is h11.NEED_DATA:
            if self.h11.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
                await self.writer.flush()
            data = bytes(await self.reader.receive_some())
            if self.h11.their_state is h11.IDLE:
                self.head += data
            self.h11.receive_data(data)
        return event

    async def receive_body(self, request: h11.Request) -> bytes:
        """The whole body of a request, if it is not too large."""
        body = bytearray()
        announced = int(dict(request.headers).get(b"content-length", b"0"))
        with trio.fail_after(self.site.body_time):
            while len(body) + announced <= self.site.largest_body:
                with trio.fail_after(self.site.stall):
                    event = await self.receive_event()
                if not isinstance(event, h11.Data):
                    return bytes(body)
                body += event.data
                announced = 0
        raise Refusal(413)

    # ---- Answering -------------------------------------------------------------------------

    async def answer(self, request: h11.Request) -> None:
        """Do what a request asks for."""
        if request.method == b"POST":
            digest = hashlib.sha256(await self.receive_body(request)).hexdigest()
            await self.send_answer(request, 200, (digest + "\n").encode())
            return
        await self.receive_body(request)  # it has none, but who knows
        if request.method not in (b"GET", b"HEAD"):
            await self.send_answer(request, 405, b"", [("Allow", "GET, HEAD, POST")])
            return
        path = self.site.find(request.target.decode())
        if path is None:
            await self.send_answer(request, 404, b"no such file\n")
        else:
            await self.send_file(request, path)

    async def send_file(self, request: h11.Request, path: Path) -> None:
        """Send a file, or the part of it that was asked for."""
        try:
            file = path.open("rb")
        except OSError:
            await self.send_answer(request, 403, b"not readable\n")
            return
        with file:
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            headers = [("Content-Type", kind)]
            if kind.startswith("text/"):
                headers.append(("Vary", "Accept-Encoding"))
                if takes_gzip(request):
                    await self.send_compressed(request, file, headers)
                    return
            headers.append(("Accept-Ranges", "bytes"))
            await self.send_part(request, file, headers)

    async def send_part(self, request: h11.Request, file: BinaryIO, headers: Headers) -> None:
        """Send a file as it is, or a part of it."""
        size = os.fstat(file.fileno()).st_size
        wanted = asked_for(request, size)
        if wanted is None:
            await self.send_answer(request, 416, b"", [("Content-Range", f"bytes */{size}")])
            return
        first, length = wanted
        status = 200 if length == size else 206
        if status == 206:
            headers.append(("Content-Range", f"bytes {first}-{first + length - 1}/{size}"))
        await self.send_head(status, length, headers)
        if request.method == b"HEAD":
            length = 0
        else:
            stand_in: Any = Length(length)
            await self.send(h11.Data(data=stand_in), FilePart(file, first, length))
        await self.send(h11.EndOfMessage())
        self.note(request, status, length)

    async def send_compressed(self, request: h11.Request, file: BinaryIO, headers: Headers) -> None:
        """Send a file in gzip; how many bytes that are, nobody knows before."""
        headers.append(("Content-Encoding", "gzip"))
        await self.send(h11.Response(status_code=200, headers=headers, reason="OK"))
        length = 0
        if request.method != b"HEAD":
            encoder = gzip_compressor()
            while data := file.read(32768):
                length += await self.send_chunk(encoder.compress(data))
                await trio.lowlevel.checkpoint()  # an encoder may keep many pieces
            length += await self.send_chunk(encoder.finish())
        await self.send(h11.EndOfMessage())
        self.note(request, 200, length)

    async def send_chunk(self, data: bytes) -> int:
        """Send a part of a body of unknown length; how many bytes it has."""
        if data:  # an empty chunk would be the last one
            await self.send(h11.Data(data=data))
        return len(data)

    async def send_answer(
        self, request: h11.Request, status: int, body: bytes, headers: Headers | None = None
    ) -> None:
        """Send a short answer."""
        await self.send_head(status, len(body), headers or [])
        if request.method == b"HEAD":
            body = b""
        await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())
        self.note(request, status, len(body))

    async def send_head(self, status: int, length: int, headers: Headers) -> None:
        """Send the head of an answer; h11 adds ``Connection: close`` where it is due."""
        every = [("Content-Length", str(length)), *headers]
        reason = HTTPStatus(status).phrase
        await self.send(h11.Response(status_code=status, headers=every, reason=reason))

    async def send(self, event: h11.Event, part: FilePart | None = None) -> None:
        """Send a part of an answer; the bytes of a file stand in ``part``."""
        for data in self.h11.send_with_data_passthrough(event) or ():
            if isinstance(data, Length):
                assert part is not None
                await self.writer.write_all_file(part)
            else:
                await self.writer.write_all(data)

    async def refuse(self, status: int) -> None:
        """Answer with an error while the client may still be sending, and end the connection.

        A close with unread input would reset the connection, and the client would never read the
        answer. So this sends it, and reads on for a while.
        """
        log.info("%s %d", self.client, status)
        if self.h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self.send_head(status, 0, [("Connection", "close")])
            await self.send(h11.EndOfMessage())
        await close_gracefully(self.writer, linger=5, linger_bytes=50_000_000)

    def note(self, request: h11.Request, status: int, length: int) -> None:
        """Write the access log: the bytes are those that the connection has accepted."""
        line = f"{request.method.decode()} {request.target.decode()}"
        log.info('%s "%s" %d %d', self.client, line, status, length)

    # ---- Handing over ----------------------------------------------------------------------

    async def echo(self) -> None:
        """Give the connection to a WebSocket, with all that was read of it."""
        self.reader.unread(bytes(self.head))
        # Messages of several tasks, and a limit for a client that takes none of them.
        writer = SharedWriter(TimeoutWriter(self.stream, idle=self.site.stall))
        async with trio.open_nursery() as nursery:
            socket = None
            with trio.move_on_after(self.site.head_time):
                request = await trio_websocket.wrap_server_stream(
                    nursery, ReadWritePair(self.reader, writer)
                )
                socket = await request.accept()
            if socket is not None:  # else it was no proper upgrade, and was refused
                try:
                    await self.echo_messages(socket)
                except trio_websocket.ConnectionClosed:
                    pass
                except trio.TooSlowError:
                    await abort(self.stream)
            nursery.cancel_scope.cancel()

    async def echo_messages(self, socket: trio_websocket.WebSocketConnection) -> None:
        """Send everything back, until the client leaves or the server is drained."""
        while True:
            message: str | bytes = b""
            with self.site.drain.until_started() as scope:
                message = await socket.get_message()
            if scope.cancelled_caught:
                break
            await socket.send_message(message)
        with trio.move_on_after(self.site.head_time):
            await socket.aclose(1001)  # going away


def takes_gzip(request: h11.Request) -> bool:
    """Whether the client takes gzip."""
    header = dict(request.headers).get(b"accept-encoding", b"").decode()
    return re.search(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))", header) is not None


def asked_for(request: h11.Request, size: int) -> tuple[int, int] | None:
    """Where the wanted part of a file begins, and how long it is; None if there is no such part.

    A server may send everything to those who want several parts, or make no sense.

    Source: RFC 9110, section 14.
    """
    header = dict(request.headers).get(b"range", b"").decode()
    found = re.fullmatch(r"bytes\s*=\s*([0-9]*)-([0-9]*)\s*", header)
    if request.method != b"GET" or found is None or found[0].strip().endswith("=-"):
        return 0, size
    begin, end = found.groups()
    first = int(begin) if begin else max(size - int(end), 0)
    last = min(int(end), size - 1) if begin and end else size - 1
    return (first, last - first + 1) if first <= last else None


async def run(site: Site, port: int, context: ssl.SSLContext | None = None) -> None:
    """Serve until a signal comes."""

    async def handler(stream: AsyncReadWrite) -> None:
        await Connection(stream, site).serve()

    options: dict[str, Any] = {
        "host": "127.0.0.1",
        "drain": site.drain,
        "max_connections": site.connections,
        "on_error": log_errors,
    }
    serve: Any = partial(serve_tcp, handler, port, **options)
    if context is not None:
        options["https_compatible"] = True  # browsers do not wait for close_notify
        serve = partial(serve_tls_over_tcp, handler, port, context, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(site.drain.start_on_signal)

        async def serve_and_report(task_status: trio.TaskStatus[Any]) -> None:
            log.info("%s", await serve(task_status=task_status))
            nursery.cancel_scope.cancel()

        (listener,) = await nursery.start(serve_and_report)
        tcp = getattr(listener, "transport_listener", listener)
        print("listening on port", tcp.socket.getsockname()[1], flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Serve a folder of files.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0, help="the system chooses one by default")
    parser.add_argument("--certificate", help="a file in PEM format; without it there is no TLS")
    parser.add_argument("--key", help="the certificate's private key")
    arguments = parser.parse_args()
    if (arguments.certificate is None) != (arguments.key is None):
        parser.error("a certificate and its key come together")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    context = None
    if arguments.certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(arguments.certificate, arguments.key)
    trio.run(run, Site(arguments.folder), arguments.port, context)


if __name__ == "__main__":
    main()
