"""httpx and hypercorn talk to each other, both on our streams; run by ``nox -s downstream``."""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
import trustme
from hypercorn.config import Config
from hypercorn.trio import serve

import trio_asyncwrite as ours

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LOOPBACK = "127.0.0.1"
REQUESTS = 50


@pytest.fixture(autouse=True, scope="module")
def _streams_are_ours() -> None:
    assert trio.SSLStream is ours.TlsStream  # type: ignore[comparison-overlap]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the body, twice."""
    if scope["type"] != "http":
        raise NotImplementedError
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": body})


class Server:
    """hypercorn, with TLS if there is an authority."""

    def __init__(self, app: Any, authority: trustme.CA | None, folder: Path) -> None:
        self.app = app
        self.config = Config()
        self.config.bind = [f"{LOOPBACK}:0"]
        self.config.graceful_timeout = 10
        self.stop = trio.Event()
        if authority is not None:
            files = [folder / "key.pem", folder / "chain.pem"]
            certificate = authority.issue_cert(LOOPBACK)
            certificate.private_key_pem.write_to_path(str(files[0]))
            certificate.cert_chain_pems[0].write_to_path(str(files[1]))
            self.config.keyfile, self.config.certfile = map(str, files)
            self.config.alpn_protocols = ["h2", "http/1.1"]

    async def start(self, nursery: trio.Nursery) -> str:
        """Start it; its URL."""
        run = partial(serve, self.app, self.config, shutdown_trigger=self.stop.wait)
        (url,) = await nursery.start(run)
        return str(url)


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])
async def test_requests_are_answered_over_one_connection(
    authority: trustme.CA,
    client_context: ssl.SSLContext,
    tmp_path: Path,
    *,
    tls: bool,
    http2: bool,
) -> None:
    server = Server(echo, authority if tls else None, tmp_path)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            url = await server.start(nursery)
            async with httpx.AsyncClient(
                verify=client_context, http2=http2, http1=not http2
            ) as client:
                peers = set()
                for number in range(REQUESTS):
                    body = bytes([number]) * (number * 2000)
                    answer = await client.post(url, content=body)
                    assert answer.content == 2 * body
                    assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
                    peers.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
                assert len(peers) == 1
            server.stop.set()


async def test_a_drain_under_load_loses_no_answer(
    authority: trustme.CA, client_context: ssl.SSLContext, tmp_path: Path
) -> None:
    """What was asked before the end is answered whole."""
    started, asked = trio.Event(), 0

    async def slow_echo(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asked
        if scope["type"] == "http":
            asked += 1
            if asked == 20:
                started.set()
            await started.wait()
        await echo(scope, receive, send)

    server = Server(slow_echo, authority, tmp_path)
    body = bytes(300_000)
    answers = []

    async def ask(url: str) -> None:
        async with httpx.AsyncClient(verify=client_context, timeout=30) as client:
            answers.append((await client.post(url, content=body)).content)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            url = await server.start(nursery)
            for _ in range(20):
                nursery.start_soon(ask, url)
            await started.wait()
            server.stop.set()
    assert answers == [2 * body] * 20


async def both_ways(left: Any, right: Any) -> None:
    """Pass bytes on, both ways, to the end of either."""

    async def one_way(source: Any, target: Any) -> None:
        async for data in source:
            await target.send_all(data)
        nursery.cancel_scope.cancel()

    async with left, right, trio.open_nursery() as nursery:
        nursery.start_soon(one_way, left, right)
        nursery.start_soon(one_way, right, left)


async def proxy(stream: Any) -> None:
    """An HTTP proxy that knows CONNECT only."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some()
    host, _, port = head.split()[1].decode().partition(":")
    target = await trio.open_tcp_stream(host, int(port))
    await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
    await both_ways(stream, target)


@pytest.mark.parametrize("tls_in_tls", [False, True], ids=["TLS in TCP", "TLS in TLS"])
async def test_https_goes_through_a_proxy(
    authority: trustme.CA, client_context: ssl.SSLContext, tmp_path: Path, *, tls_in_tls: bool
) -> None:
    server = Server(echo, authority, tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(LOOPBACK).configure_cert(context)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            url = await server.start(nursery)
            scheme, listeners = "http", await trio.open_tcp_listeners(0, host=LOOPBACK)
            port = listeners[0].socket.getsockname()[1]
            if tls_in_tls:
                scheme = "https"
                secure = partial(trio.SSLListener, ssl_context=context, https_compatible=True)
                listeners = list(map(secure, listeners))  # type: ignore[arg-type]
            nursery.start_soon(trio.serve_listeners, proxy, listeners)
            where = httpx.Proxy(
                f"{scheme}://{LOOPBACK}:{port}", ssl_context=client_context if tls_in_tls else None
            )
            async with httpx.AsyncClient(verify=client_context, proxy=where) as client:
                for size in (0, 10, 200_000):
                    assert (await client.post(url, content=bytes(size))).content == bytes(2 * size)
            server.stop.set()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])
async def test_a_write_timeout_ends_in_time(
    authority: trustme.CA, client_context: ssl.SSLContext, *, tls: bool
) -> None:
    """The server does not read, so the upload stalls; closing must not wait for it either."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(LOOPBACK).configure_cert(context)

    async def deaf(stream: Any) -> None:
        if tls:
            await stream.do_handshake()
        await trio.sleep_forever()

    async def upload() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1_000_000)

    listeners: Any = await trio.open_tcp_listeners(0, host=LOOPBACK)
    port = listeners[0].socket.getsockname()[1]
    if tls:
        listeners = [trio.SSLListener(one, context) for one in listeners]
    timeout = httpx.Timeout(10, write=0.5)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, deaf, listeners)
            async with httpx.AsyncClient(verify=client_context, timeout=timeout) as client:
                url = f"http{'s' * tls}://{LOOPBACK}:{port}/"
                with pytest.raises(httpx.WriteTimeout):
                    await client.post(url, content=upload())
            nursery.cancel_scope.cancel()
