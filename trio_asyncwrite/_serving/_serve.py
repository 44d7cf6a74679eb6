"""The ways to serve: TCP, TLS over TCP, and listeners of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

import trio
import trio.abc

from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._tls._over_tcp import TlsListener, open_tls_over_tcp_listeners
from trio_asyncwrite._transports._tcp_listener import TcpListener, open_tcp_listeners

from ._drain import Drain
from ._server import Server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence
    from typing import NoReturn

    from trio_asyncwrite._tls._stream import TlsStream
    from trio_asyncwrite._transports._tcp import TcpStream

    from ._drain import DrainReport

S = TypeVar("S", bound=AsyncWrite)
R = TypeVar("R", bound=trio.abc.AsyncResource)


def _check(drain: Drain | None) -> None:
    """Refuse one of another run, or none at all, before anything is opened."""
    if drain is not None:
        if not isinstance(drain, Drain):
            raise TypeError(f"drain must be a Drain or None, got {type(drain).__name__}")
        with drain.until_started():
            pass


async def _serve(  # noqa: ASYNC128 - serve_listeners and run do it
    handler: Callable[[S], Awaitable[object]],
    listeners: Sequence[Any],
    drain: Drain | None,
    handler_nursery: trio.Nursery | None,
    status: trio.TaskStatus[Any],
) -> DrainReport:
    if drain is None:
        await trio.serve_listeners(
            handler, list(listeners), handler_nursery=handler_nursery, task_status=status
        )
    return await Server(handler, drain).run(listeners, handler_nursery, status)


@overload
async def serve_tcp(
    handler: Callable[[TcpStream], Awaitable[object]],
    port: int,
    *,
    host: str | bytes | None = ...,
    backlog: int | None = ...,
    handler_nursery: trio.Nursery | None = ...,
    drain: None = ...,
    task_status: trio.TaskStatus[list[TcpListener]] = ...,
) -> NoReturn: ...


@overload
async def serve_tcp(
    handler: Callable[[TcpStream], Awaitable[object]],
    port: int,
    *,
    host: str | bytes | None = ...,
    backlog: int | None = ...,
    handler_nursery: trio.Nursery | None = ...,
    drain: Drain,
    task_status: trio.TaskStatus[list[TcpListener]] = ...,
) -> DrainReport: ...


async def serve_tcp(  # noqa: ASYNC128 - serve_listeners and run do it
    handler: Callable[[TcpStream], Awaitable[object]],
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    handler_nursery: trio.Nursery | None = None,
    drain: Drain | None = None,
    task_status: trio.TaskStatus[list[TcpListener]] = trio.TASK_STATUS_IGNORED,
) -> DrainReport:
    """Serve a TCP port: start ``handler(stream)`` for each connection.

    Without ``drain`` it serves for ever, as :func:`trio.serve_tcp` does, and forcefully closes a
    stream that a handler leaves open. With ``drain``, it closes each connection as
    :func:`close_gracefully` does, when the handler returns or is cancelled. So the bytes that a
    handler wrote are not cut off. When the drain starts, the listeners are closed (connections
    that wait there are still accepted). Handlers may finish; those that still run after the grace
    are cancelled. When all connections are closed, it returns.

    Args:
        handler: an async callable that takes the stream. What it raises ends the server, and
            truncates that connection.
        port: the port number; 0 lets the system choose one.
        host: the address to listen on; ``None`` for all of them.
        backlog: how many connections may wait to be accepted; ``None`` for a good default.
        handler_nursery: where the handlers run; by default in a nursery of this call.
        drain: what ends the server.
        task_status: with ``nursery.start``, it returns the listeners.

    Returns:
        What was seen of the ends of all connections. Without ``drain`` it does not return.

    Raises:
        OSError: if the port cannot be listened on.
        RuntimeError: if ``drain`` belongs to another ``trio.run``.

    Cancellation: nothing happened, except that the server and its handlers end. With ``drain``,
        buffered bytes that the kernel takes at once are still sent.

    Source: :func:`trio.serve_tcp`.
    """
    _check(drain)
    listeners = await open_tcp_listeners(port, host=host, backlog=backlog)
    return await _serve(handler, listeners, drain, handler_nursery, task_status)


@overload
async def serve_tls_over_tcp(
    handler: Callable[[TlsStream[TcpStream]], Awaitable[object]],
    port: int,
    ssl_context: ssl.SSLContext,
    *,
    host: str | bytes | None = ...,
    https_compatible: bool = ...,
    backlog: int | None = ...,
    handler_nursery: trio.Nursery | None = ...,
    drain: None = ...,
    task_status: trio.TaskStatus[list[TlsListener[TcpStream]]] = ...,
) -> NoReturn: ...


@overload
async def serve_tls_over_tcp(
    handler: Callable[[TlsStream[TcpStream]], Awaitable[object]],
    port: int,
    ssl_context: ssl.SSLContext,
    *,
    host: str | bytes | None = ...,
    https_compatible: bool = ...,
    backlog: int | None = ...,
    handler_nursery: trio.Nursery | None = ...,
    drain: Drain,
    task_status: trio.TaskStatus[list[TlsListener[TcpStream]]] = ...,
) -> DrainReport: ...


async def serve_tls_over_tcp(  # noqa: ASYNC128 - serve_listeners and run do it
    handler: Callable[[TlsStream[TcpStream]], Awaitable[object]],
    port: int,
    ssl_context: ssl.SSLContext,
    *,
    host: str | bytes | None = None,
    https_compatible: bool = False,
    backlog: int | None = None,
    handler_nursery: trio.Nursery | None = None,
    drain: Drain | None = None,
    task_status: trio.TaskStatus[list[TlsListener[TcpStream]]] = trio.TASK_STATUS_IGNORED,
) -> DrainReport:
    """Serve a TCP port with TLS: start ``handler(stream)`` for each connection.

    With ``drain`` it ends as :func:`serve_tcp` does.

    Args:
        handler: an async callable that takes the stream. What it raises ends the server, and
            truncates that connection.
        port: the port number; 0 lets the system choose one.
        ssl_context: the context for all connections.
        host: the address to listen on; ``None`` for all of them.
        https_compatible: passed on to :class:`TlsStream`.
        backlog: how many connections may wait to be accepted; ``None`` for a good default.
        handler_nursery: where the handlers run; by default in a nursery of this call.
        drain: what ends the server. Without it, a stream that a handler leaves open is closed
            forcefully.
        task_status: with ``nursery.start``, it returns the listeners.

    Returns:
        What was seen of the ends of all connections. Without ``drain`` it does not return.

    Raises:
        OSError: if the port cannot be listened on.
        RuntimeError: if ``drain`` belongs to another ``trio.run``.

    Cancellation: nothing happened, except that the server and its handlers end. With ``drain``,
        buffered bytes that the kernel takes at once are still sent.

    Source: :func:`trio.serve_ssl_over_tcp`.
    """
    _check(drain)
    listeners = await open_tls_over_tcp_listeners(
        port, ssl_context, host=host, https_compatible=https_compatible, backlog=backlog
    )
    return await _serve(handler, listeners, drain, handler_nursery, task_status)


@overload
async def serve_listeners(
    handler: Callable[[R], Awaitable[object]],
    listeners: Sequence[trio.abc.Listener[R]],
    *,
    drain: None = ...,
    handler_nursery: trio.Nursery | None = ...,
    task_status: trio.TaskStatus[Sequence[trio.abc.Listener[R]]] = ...,
) -> NoReturn: ...


@overload
async def serve_listeners(
    handler: Callable[[S], Awaitable[object]],
    listeners: Sequence[trio.abc.Listener[S]],
    *,
    drain: Drain,
    handler_nursery: trio.Nursery | None = ...,
    task_status: trio.TaskStatus[Sequence[trio.abc.Listener[S]]] = ...,
) -> DrainReport: ...


async def serve_listeners(  # noqa: ASYNC128 - serve_listeners and run do it
    handler: Callable[[Any], Awaitable[object]],
    listeners: Sequence[trio.abc.Listener[Any]],
    *,
    drain: Drain | None = None,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> DrainReport:
    """Serve listeners of your own, for ever or until they are drained, as :func:`serve_tcp` does.

    A Unix socket, for example: ``TcpListener(sock)``.

    Args:
        handler: an async callable that takes the stream. What it raises ends the server, and
            truncates that connection.
        listeners: what to accept connections from; with ``drain``, as streams of this library.
            They are closed.
        drain: what ends the server. Without it, a stream that a handler leaves open is closed
            forcefully.
        handler_nursery: where the handlers run; by default in a nursery of this call.
        task_status: with ``nursery.start``, it returns ``listeners``.

    Returns:
        What was seen of the ends of all connections. Without ``drain`` it does not return.

    Raises:
        OSError: if accepting fails, for more than a lack of resources.
        RuntimeError: if ``drain`` belongs to another ``trio.run``.

    Cancellation: nothing happened, except that the server and its handlers end. With ``drain``,
        buffered bytes that the kernel takes at once are still sent.

    Source: :func:`trio.serve_listeners`.
    """
    _check(drain)
    return await _serve(handler, listeners, drain, handler_nursery, task_status)
