"""What the recipe for httpx says is true, also where a server fails. It runs in test_recipes.py."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from trio_asyncwrite import DuplexStream, TlsStream, duplex, open_tcp_listeners

from ._tls_helpers import HOST, client_context, server_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock

RECIPE = runpy.run_path(str(Path(__file__).parent.parent / "docs" / "recipes" / "httpx_client.py"))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class InMemory(RECIPE["Backend"]):  # type: ignore[misc]
    """Each connection is to a task of its own."""

    def __init__(
        self, nursery: trio.Nursery, serve: Callable[[DuplexStream], Awaitable[None]]
    ) -> None:
        self.nursery = nursery
        self.serve = serve
        self.streams: list[DuplexStream] = []

    async def connect_tcp(self, *args: Any, **options: Any) -> Any:
        client, server = duplex(1000)
        self.streams.append(client)
        self.nursery.start_soon(self.serve, server)
        return RECIPE["Stream"](None, client)


def client_of(backend: Any, **options: Any) -> httpx.AsyncClient:
    transport = RECIPE["Transport"](ssl_context=client_context())
    transport.pool._network_backend = backend
    return httpx.AsyncClient(transport=transport, **options)


class Endless(httpx.AsyncByteStream):
    """A body without end; no generator, which httpcore would leave to the garbage collector."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return bytes(10_000)


async def deaf(stream: DuplexStream) -> None:
    async with stream:
        await trio.sleep(100)


async def deaf_over_tls(stream: DuplexStream) -> None:
    async with TlsStream(stream, server_context(), server_side=True) as tls:
        await tls.do_handshake()
        await trio.sleep(100)


@pytest.mark.filterwarnings("ignore:.*was closed:")
@pytest.mark.parametrize(("scheme", "serve"), [("http", deaf), ("https", deaf_over_tls)])
async def test_a_server_that_does_not_read_holds_up_no_client(
    scheme: str, serve: Any, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        backend = InMemory(nursery, serve)
        async with client_of(backend) as client:
            request = httpx.Request(
                "POST",
                f"{scheme}://{HOST}/",
                headers={"Host": HOST, "Content-Length": "1000000000"},
                stream=Endless(),
                extensions={"timeout": httpx.Timeout(60, write=3).as_dict()},
            )
            with pytest.raises(httpx.WriteTimeout):
                await client.send(request)
        assert trio.current_time() == 3
        assert backend.streams[0].closed
        nursery.cancel_scope.cancel()


async def test_a_server_that_does_not_answer(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        async with client_of(InMemory(nursery, deaf), timeout=3) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(f"http://{HOST}/")
        assert trio.current_time() == 3
        nursery.cancel_scope.cancel()


async def test_a_server_that_shakes_no_hands(autojump_clock: MockClock) -> None:
    """httpcore leaves it to the backend to close the connection."""
    async with trio.open_nursery() as nursery:
        backend = InMemory(nursery, deaf)
        async with client_of(backend, timeout=3) as client:
            with pytest.raises(httpx.ConnectTimeout):
                await client.get(f"https://{HOST}/")
        assert backend.streams[0].closed
        nursery.cancel_scope.cancel()


async def test_a_server_with_another_name() -> None:
    async def shake(stream: DuplexStream) -> None:
        async with TlsStream(stream, server_context(), server_side=True) as tls:
            with pytest.raises(trio.BrokenResourceError):
                await tls.do_handshake()

    async with trio.open_nursery() as nursery:
        backend = InMemory(nursery, shake)
        async with client_of(backend) as client:
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await client.get("https://other.example.org/")
        assert backend.streams[0].closed


async def test_an_answer_that_is_cut_off() -> None:
    async def serve(stream: DuplexStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(OK[:-1])

    async with trio.open_nursery() as nursery, client_of(InMemory(nursery, serve)) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"http://{HOST}/")


async def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    (listener,) = await open_tcp_listeners(0, host="127.0.0.1")
    closed = [trio.Event(), trio.Event()]

    async def serve() -> None:
        for event in closed:
            async with await listener.accept() as stream:
                await stream.receive_some()
                await stream.send_all(OK)
            event.set()

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with httpx.AsyncClient(transport=RECIPE["Transport"](), timeout=None) as client:
            for event in closed:
                port = listener.socket.getsockname()[1]
                assert (await client.get(f"http://127.0.0.1:{port}/")).text == "ok"
                await event.wait()
