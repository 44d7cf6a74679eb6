"""The TLS proxy of the documentation, between programs of others, and before failing servers."""

from __future__ import annotations

import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import TcpStream, TlsStream, abort, duplex, open_tcp_stream, serve_tcp

from .._peers import Pki, find_peer
from .._tls_helpers import HOST, client_context, server_context
from ._load import load, program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

pytestmark = pytest.mark.once

PICTURE = bytes(number % 251 for number in range(1_000_000))

tls_proxy = load("tls_proxy")


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def proxy(port: int, pki: Pki) -> Any:
    """The proxy as a program, before a server on this machine."""
    return program("tls_proxy", "127.0.0.1", port, "--certificate", pki.chain, "--key", pki.key)


async def curl(pki: Pki, *arguments: object) -> bytes:
    """What curl prints."""
    command = [find_peer("curl"), "--silent", "--cacert", pki.authority, *map(str, arguments)]
    return (await trio.run_process(command, capture_stdout=True)).stdout


async def test_curl_talks_through_it_to_the_http_server_and_neither_is_cut_off_by_a_drain(
    tmp_path: Path, pki: Pki
) -> None:
    (tmp_path / "picture.png").write_bytes(PICTURE)
    async with program("http_server", tmp_path) as server, proxy(server.port, pki) as front:
        url = f"https://localhost:{front.port}/picture.png"
        assert await curl(pki, url, url) == PICTURE * 2
        received = bytearray()
        async with trio.open_nursery() as nursery:
            command = [
                find_peer("curl"), "--silent", "--cacert", pki.authority, "--limit-rate", "2M", url,
            ]  # fmt: skip
            process: trio.Process = await nursery.start(
                partial(trio.run_process, command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            )
            assert process.stdout is not None
            silent = await open_tcp_stream("127.0.0.1", front.port)  # it never shakes hands
            async for chunk in process.stdout:
                received += chunk
                front.drain()
                server.drain()
    assert received == PICTURE
    assert "cut short" not in front.log
    assert "1 handshake failed" in front.log
    await abort(silent)


async def test_openssl_gets_the_answer_and_the_end_of_the_server_behind(pki: Pki) -> None:
    async def answer(stream: TcpStream) -> None:
        await stream.send_all(bytes(await stream.receive_some()).upper())
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (behind,) = await nursery.start(partial(serve_tcp, answer, 0, host="127.0.0.1"))
        async with proxy(behind.socket.getsockname()[1], pki) as front:
            command = [
                find_peer("openssl"), "s_client", "-quiet", "-connect", f"127.0.0.1:{front.port}",
                "-CAfile", pki.authority, "-verify_return_error", "-servername", "localhost",
            ]  # fmt: skip
            done = await trio.run_process(
                command, stdin=b"hello\n", capture_stdout=True, capture_stderr=True
            )
            assert done.stdout == b"HELLO\n"
        nursery.cancel_scope.cancel()


# ---- In memory ------------------------------------------------------------------------------


async def serve_one(
    behind: Callable[[TcpStream], Awaitable[object]],
    client: Callable[[TlsStream[Any]], Awaitable[object]],
    **limits: Any,
) -> None:
    """Connect one client to a server through the proxy's handler."""
    left, right = duplex(4096)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(serve_tcp, behind, 0, host="127.0.0.1"))
        one = tls_proxy.Proxy("127.0.0.1", listener.socket.getsockname()[1], **limits)
        async with trio.open_nursery() as talk:
            talk.start_soon(one.handle, TlsStream(right, server_context(), server_side=True))
            talk.start_soon(client, TlsStream(left, client_context(), server_hostname=HOST))
        nursery.cancel_scope.cancel()


async def test_half_an_answer_does_not_look_whole() -> None:
    async def fail(stream: TcpStream) -> None:
        await stream.send_all(b"half")
        await stream.receive_some()
        await abort(stream)

    async def client(tls: TlsStream[Any]) -> None:
        received = b""
        with pytest.raises(trio.BrokenResourceError):
            while chunk := await tls.receive_some():
                received += chunk
                await tls.send_all(b"go on")
        assert received == b"half"
        await abort(tls)

    await serve_one(fail, client)


async def test_nobody_behind_is_no_proper_end_either() -> None:
    left, right = duplex(4096)
    closed = trio.socket.socket()
    await closed.bind(("127.0.0.1", 0))
    one = tls_proxy.Proxy("127.0.0.1", closed.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.handle, TlsStream(right, server_context(), server_side=True))
        client = TlsStream(left, client_context(), server_hostname=HOST)
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        await abort(client)
    closed.close()


async def test_a_client_that_stays_after_the_server_has_ended_is_given_up(
    autojump_clock: MockClock,
) -> None:
    async def end(stream: TcpStream) -> None:
        await stream.aclose()

    async def client(tls: TlsStream[Any]) -> None:
        assert await tls.receive_some() == b""
        await trio.sleep(70)
        await abort(tls)

    await serve_one(end, client, half_open=60.0)
