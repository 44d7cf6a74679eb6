"""TLS clients, listeners and servers over TCP."""

from __future__ import annotations

import socket as stdlib_socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    TcpListener,
    TcpStream,
    TlsListener,
    TlsStream,
    open_tcp_listeners,
    open_tcp_stream,
    open_tls_over_tcp_listeners,
    open_tls_over_tcp_stream,
    serve_tls_over_tcp,
)

from .._patience import wait_all_tasks_blocked
from .._streams import drain
from .._tls_helpers import (
    HOST,
    TLS12,
    TLS13,
    both,
    certificate,
    client_context,
    find_hangs,
    new_server_context,
    server_context,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LOOPBACK = "127.0.0.1"


async def listen(**options: Any) -> tuple[TlsListener[TcpStream], int]:
    """One listener on loopback, and its port."""
    [listener] = await open_tls_over_tcp_listeners(
        0, server_context(TLS13), host=LOOPBACK, **options
    )
    transport = listener.transport_listener
    assert isinstance(transport, TcpListener)
    return listener, transport.socket.getsockname()[1]


async def connect(port: int) -> TlsStream[TcpStream]:
    """A client that knows the server by its own name, wherever it is."""
    transport = await open_tcp_stream(LOOPBACK, port)
    return TlsStream(transport, client_context(TLS13), server_hostname=HOST)


async def test_a_listener_accepts_streams() -> None:
    listener, port = await listen()
    client = await connect(port)
    server = await listener.accept()
    assert server.server_side
    assert isinstance(server.transport_stream, TcpStream)
    await both(client.do_handshake, server.do_handshake)
    await client.send_all(b"hello")
    assert await server.receive_some() == b"hello"
    await client.aclose()
    assert await server.receive_some() == b""
    await server.aclose()
    assert "TlsListener over <TcpListener on" in repr(listener)

    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(accept)
        await wait_all_tasks_blocked()
        await listener.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()
    with pytest.raises(OSError):
        await connect(port)


async def test_a_listener_passes_https_compatible_on() -> None:
    listener, port = await listen(https_compatible=True)
    client = await connect(port)
    server = await listener.accept()
    await both(client.do_handshake, server.do_handshake)
    client.transport_stream.socket.shutdown(stdlib_socket.SHUT_WR)
    assert await server.receive_some() == b""
    for thing in (client, server, listener):
        await trio.aclose_forcefully(thing)


async def test_a_listener_of_any_streams() -> None:
    """It need not be ours: any listener and its streams will do."""
    [transport] = await trio.open_tcp_listeners(0, host=LOOPBACK)
    async with TlsListener(transport, server_context(TLS13)) as listener:
        assert listener.transport_listener is transport
        client = await connect(transport.socket.getsockname()[1])
        server = await listener.accept()
        assert isinstance(server.transport_stream, trio.SocketStream)
        await both(client.do_handshake, server.do_handshake)
        await client.aclose()
        assert await server.receive_some() == b""
        await server.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await transport.accept()


async def test_a_context_that_is_not_for_servers_leaves_no_connection_open() -> None:
    [transport] = await open_tcp_listeners(0, host=LOOPBACK)
    listener = TlsListener(transport, client_context(TLS13))
    client = await open_tcp_stream(LOOPBACK, transport.socket.getsockname()[1])
    with pytest.raises(ssl.SSLError):
        await listener.accept()
    assert await drain(client) == b""
    await trio.aclose_forcefully(client)
    await listener.aclose()


async def test_listeners_for_all_addresses() -> None:
    listeners = await open_tls_over_tcp_listeners(0, server_context(TLS13), backlog=5)
    assert len(listeners) >= 1
    for listener in listeners:
        await listener.aclose()
    with pytest.raises(TypeError):
        await open_tls_over_tcp_listeners("80", server_context(TLS13))  # type: ignore[arg-type]


async def echo(stream: TlsStream[TcpStream]) -> None:
    async with stream:
        async for chunk in stream:
            await stream.send_all(chunk)


async def test_server_and_client() -> None:
    """Names and addresses are what the certificate is checked for."""
    async with trio.open_nursery() as nursery:
        listeners: list[TlsListener[TcpStream]] = await nursery.start(
            partial(serve_tls_over_tcp, echo, 0, server_context(TLS13), host=LOOPBACK)
        )
        transport = listeners[0].transport_listener
        assert isinstance(transport, TcpListener)
        port = transport.socket.getsockname()[1]

        async def converse() -> None:
            async with await connect(port) as stream:
                await stream.send_all(b"hello")
                await stream.send_eof()
                assert await drain(stream) == b"hello"

        await both(converse, converse)

        # This certificate is for another name.
        stream = await open_tls_over_tcp_stream(LOOPBACK, port, ssl_context=client_context(TLS13))
        assert stream.server_hostname == LOOPBACK
        with pytest.raises(trio.BrokenResourceError, match="(?i)ip address mismatch"):
            await stream.do_handshake()
        await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_a_refused_client_does_not_end_the_server() -> None:
    """Nor does its handler hear of it: the handshake comes first."""
    served = 0

    async def handler(stream: TlsStream[TcpStream]) -> None:
        nonlocal served
        served += 1

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(
            partial(
                serve_tls_over_tcp,
                handler,
                0,
                server_context(TLS12),
                host=LOOPBACK,
                handler_nursery=nursery,
            )
        )
        port = listener.transport_listener.socket.getsockname()[1]
        for _ in range(2):
            client = await connect(port)
            with pytest.raises(trio.BrokenResourceError, match="(?i)alert protocol version"):
                await client.do_handshake()
            await client.aclose()
        await wait_all_tasks_blocked()
        assert served == 0
        nursery.cancel_scope.cancel()


async def test_a_handlers_open_stream_is_closed_forcefully() -> None:
    async def forget(stream: TlsStream[TcpStream]) -> None:
        await stream.send_all(b"hello")

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(
            partial(serve_tls_over_tcp, forget, 0, server_context(TLS13), host=LOOPBACK)
        )
        client = await connect(listener.transport_listener.socket.getsockname()[1])
        # Forcefully: it waits for nobody, and ends without close_notify.
        assert await client.receive_some() == b"hello"
        with pytest.raises(trio.BrokenResourceError, match="without a close_notify"):
            await client.receive_some()
        await trio.aclose_forcefully(client)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("https_compatible", [False, True])
async def test_a_client_with_the_system_s_trust(https_compatible: bool) -> None:
    """The default context knows nothing of our authority."""
    listener, port = await listen()
    client = await open_tls_over_tcp_stream(
        "localhost", port, https_compatible=https_compatible, happy_eyeballs_delay=None
    )
    server = await listener.accept()
    assert client.server_hostname == "localhost"
    assert client.context.verify_mode is ssl.CERT_REQUIRED

    async def fail(call: Callable[[], Awaitable[object]], reason: str) -> None:
        with pytest.raises(trio.BrokenResourceError, match=reason):
            await call()

    await both(
        partial(fail, client.do_handshake, "(?i)certificate verify failed"),
        partial(fail, server.do_handshake, "(?i)alert unknown ca"),
    )
    for thing in (client, server, listener):
        await thing.aclose()


async def test_a_context_that_is_not_for_clients_leaves_no_connection_open() -> None:
    listener, port = await listen()
    with pytest.raises(ssl.SSLError):
        await open_tls_over_tcp_stream(LOOPBACK, port, ssl_context=server_context(TLS13))
    server = await listener.accept()
    with pytest.raises(trio.BrokenResourceError, match="during the handshake"):
        await server.do_handshake()
    for thing in (server, listener):
        await thing.aclose()


@pytest.mark.parametrize(
    ("host", "name"), [("localhost.", "localhost"), ("fe80::1%eth0", "fe80::1")], ids=repr
)
async def test_a_host_is_connected_to_as_it_is_and_checked_by_its_bare_name(
    host: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = new_server_context(TLS13)
    certificate(name).configure_cert(context)
    [listener] = await open_tls_over_tcp_listeners(0, context, host=LOOPBACK)
    transport = listener.transport_listener
    assert isinstance(transport, TcpListener)
    port = transport.socket.getsockname()[1]
    hosts = []

    async def resolve(host: str, port: int, **options: Any) -> TcpStream:
        hosts.append(host)
        return await open_tcp_stream(LOOPBACK, port)

    monkeypatch.setattr("trio_asyncwrite._tls._over_tcp.open_tcp_stream", resolve)
    client = await open_tls_over_tcp_stream(host, port, ssl_context=client_context(TLS13))
    server = await listener.accept()
    await both(client.do_handshake, server.do_handshake)
    assert hosts == [host]
    assert client.server_hostname == name
    await both(client.aclose, server.aclose)
    await listener.aclose()


async def test_nobody_to_connect_to() -> None:
    listener, port = await listen()
    await listener.aclose()
    with pytest.raises(OSError):
        await open_tls_over_tcp_stream(LOOPBACK, port)


find_hangs(globals())
