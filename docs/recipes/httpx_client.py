"""httpx over our streams, by the extension points that httpx and httpcore document.

httpcore makes its connections by a *network backend*, and httpx sends its requests by a
*transport*. ``Backend`` is the one, over ``TcpStream`` and ``TlsStream``; ``Transport`` the other.

httpcore sends by ``send_all``, within the write timeout. A stream whose ``send_all`` timed out does
not wait when it is closed, so a server that does not read holds up no client.

Prints::

    200 hello from /greeting
    200 hello from /farewell
    1 connection
"""

from __future__ import annotations

import math
import select
import ssl
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import httpcore
import httpx
import trio
import trustme

from trio_asyncwrite import (
    TcpStream,
    TlsStream,
    open_tcp_stream,
    open_unix_stream,
    serve_tls_over_tcp,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator


@contextmanager
def within(
    timeout: float | None, too_slow: type[Exception], failed: type[Exception]
) -> Generator[None, None, None]:
    """Raise what httpcore expects of a backend."""
    try:
        with trio.fail_after(math.inf if timeout is None else timeout):
            yield
    except trio.TooSlowError as exc:
        raise too_slow(str(exc)) from exc
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        raise failed(str(exc)) from exc


class Stream(httpcore.AsyncNetworkStream):
    def __init__(self, tcp: TcpStream, stream: TcpStream | TlsStream[Any]) -> None:
        self.tcp = tcp
        self.stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with within(timeout, httpcore.ReadTimeout, httpcore.ReadError):
            return bytes(await self.stream.receive_some(max_bytes))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with within(timeout, httpcore.WriteTimeout, httpcore.WriteError):
            await self.stream.send_all(buffer)

    async def aclose(self) -> None:
        await self.stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> Stream:
        # HTTP says by itself where a message ends, and many servers send no close_notify.
        tls = TlsStream(
            self.stream, ssl_context, server_hostname=server_hostname, https_compatible=True
        )
        try:
            with within(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
                await tls.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(tls)  # httpcore does not
            raise
        return Stream(self.tcp, tls)

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":  # has the server agreed on HTTP/2?
            return self.stream.ssl_object if isinstance(self.stream, TlsStream) else None
        if info == "is_readable":  # has the server closed an idle connection?
            poller = select.poll()
            poller.register(self.tcp, select.POLLIN)
            return bool(poller.poll(0))
        return None


class Backend(httpcore.AsyncNetworkBackend):
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> Stream:
        with within(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
            tcp = await open_tcp_stream(host, port, local_address=local_address)
            for option in socket_options or ():
                tcp.setsockopt(*option)
            return Stream(tcp, tcp)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Any = None
    ) -> Stream:
        with within(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
            tcp = await open_unix_stream(path)
            return Stream(tcp, tcp)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


@contextmanager
def errors_of_httpx() -> Generator[None, None, None]:
    """Raise the error of httpx that has the same name as that of httpcore."""
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as exc:
        raise getattr(httpx, type(exc).__name__)(str(exc)) from exc


class Body(httpx.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self.stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with errors_of_httpx():
            async for part in self.stream:
                yield part

    async def aclose(self) -> None:
        await self.stream.aclose()


class Transport(httpx.AsyncBaseTransport):
    def __init__(self, **options: Any) -> None:
        """Take the options of ``httpcore.AsyncConnectionPool``."""
        self.pool = httpcore.AsyncConnectionPool(network_backend=Backend(), **options)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        with errors_of_httpx():
            response: Any = await self.pool.handle_async_request(
                httpcore.Request(
                    request.method,
                    httpcore.URL(
                        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=Body(response.stream),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self.pool.aclose()


async def serve(stream: TlsStream[TcpStream]) -> None:
    """Answer every request, as far as the example needs it."""
    async with stream:
        while request := await stream.receive_some():
            body = b"hello from " + request.split()[1]
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
            await stream.send_all(head.encode() + body)


async def main() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    connections: list[TlsStream[TcpStream]] = []

    async def count_and_serve(stream: TlsStream[TcpStream]) -> None:
        connections.append(stream)
        await serve(stream)

    async with trio.open_nursery() as nursery:
        server = partial(serve_tls_over_tcp, host="127.0.0.1", https_compatible=True)
        listeners = await nursery.start(server, count_and_serve, 0, server_context)
        port = listeners[0].transport_listener.socket.getsockname()[1]
        transport = Transport(ssl_context=client_context)
        async with httpx.AsyncClient(transport=transport, timeout=None) as client:
            for target in ("/greeting", "/farewell"):
                response = await client.get(f"https://127.0.0.1:{port}{target}")
                print(response.status_code, response.text)
        print(len(connections), "connection")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
