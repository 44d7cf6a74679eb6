"""The ways to serve: TCP, TLS over TCP, and listeners of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import trio
import trio.abc

from trio_asyncwrite._closing._limits import DEFAULT_TIMEOUT
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._tls._over_tcp import TlsListener, open_tls_over_tcp_listeners
from trio_asyncwrite._transports._tcp_listener import TcpListener, open_tcp_listeners

from ._options import Options
from ._server import Server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence
    from typing import NoReturn

    from trio_asyncwrite._tls._stream import TlsStream
    from trio_asyncwrite._transports._tcp import TcpStream

    from ._drain import Drain, DrainReport

#: As much as a graceful close gives a peer to take what is sent.
DEFAULT_HANDSHAKE_TIMEOUT: Final = DEFAULT_TIMEOUT

S = TypeVar("S", bound=AsyncWrite)
R = TypeVar("R", bound=trio.abc.AsyncResource)


async def _serve(  # noqa: ASYNC128 - run does it
    handler: Callable[[Any], Awaitable[object]],
    listeners: Sequence[trio.abc.Listener[Any]],
    options: Options,
    handler_nursery: trio.Nursery | None,
    status: trio.TaskStatus[Any],
) -> DrainReport:
    return await Server(handler, options).run(listeners, handler_nursery, status)


@overload
async def serve_tcp(
    handler: Callable[[TcpStream], Awaitable[object]],
    port: int,
    *,
    host: str | bytes | None = ...,
    backlog: int | None = ...,
    handler_nursery: trio.Nursery | None = ...,
    drain: None = ...,
    on_error: Callable[[Exception, TcpStream], object] | None = ...,
    max_connections: int | None = ...,
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
    on_error: Callable[[Exception, TcpStream], object] | None = ...,
    max_connections: int | None = ...,
    task_status: trio.TaskStatus[list[TcpListener]] = ...,
) -> DrainReport: ...


async def serve_tcp(  # noqa: ASYNC128 - run does it
    handler: Callable[[TcpStream], Awaitable[object]],
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    handler_nursery: trio.Nursery | None = None,
    drain: Drain | None = None,
    on_error: Callable[[Exception, TcpStream], object] | None = None,
    max_connections: int | None = None,
    task_status: trio.TaskStatus[list[TcpListener]] = trio.TASK_STATUS_IGNORED,
) -> DrainReport:
    """Serve a TCP port: start ``handler(stream)`` for each connection.

    Without ``drain`` it serves for ever, as :func:`trio.serve_tcp` does, and forcefully closes a
    stream that a handler leaves open (after an exception, the bytes that it had written have half a
    second to arrive). With ``drain``, it closes each connection as
    :func:`close_gracefully` does, when the handler returns or is cancelled. So the bytes that a
    handler wrote are not cut off. When the drain starts, the listeners are closed (connections
    that wait there are still accepted). Handlers may finish; those that still run after the grace
    are cancelled. When all connections are closed, it returns.

    Args:
        handler: an async callable that takes the stream. What it raises truncates that connection,
            and goes to ``on_error`` or ends the server.
        port: the port number; 0 lets the system choose one.
        host: the address to listen on; ``None`` for all of them.
        backlog: how many connections may wait to be accepted; ``None`` for a good default.
        handler_nursery: where the handlers run; by default in a nursery of this call.
        drain: what ends the server.
        on_error: what is told of an exception that a handler raises, as ``on_error(exc, stream)``,
            before the stream is closed; for example :func:`log_errors`. That connection is
            truncated, and the server goes on. A plain function; what it raises ends the server. It
            is not told of :exc:`trio.Cancelled`, Ctrl-C and :exc:`SystemExit`. Without it, an
            exception ends the server.
        max_connections: how many connections may be served at once; ``None`` for no limit. At the
            limit the server stops accepting, and clients wait in the listener's backlog.
        task_status: with ``nursery.start``, it returns the listeners.

    Returns:
        What was seen of the ends of all connections. Without ``drain`` it does not return.

    Raises:
        OSError: if the port cannot be listened on.
        RuntimeError: if ``drain`` belongs to another ``trio.run``.
        TypeError: if ``handler`` is not an async function, or ``on_error`` not a plain one.
        ValueError: if a number is too small.

    Cancellation: nothing happened, except that the server and its handlers end. With ``drain``,
        buffered bytes that the kernel takes at once are still sent.

    Source: :func:`trio.serve_tcp`.
    """
    options = Options(handler, drain, on_error, max_connections, None)
    listeners = await open_tcp_listeners(port, host=host, backlog=backlog)
    return await _serve(handler, listeners, options, handler_nursery, task_status)


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
    on_error: Callable[[Exception, TlsStream[TcpStream]], object] | None = ...,
    max_connections: int | None = ...,
    handshake_timeout: float = ...,
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
    on_error: Callable[[Exception, TlsStream[TcpStream]], object] | None = ...,
    max_connections: int | None = ...,
    handshake_timeout: float = ...,
    task_status: trio.TaskStatus[list[TlsListener[TcpStream]]] = ...,
) -> DrainReport: ...


async def serve_tls_over_tcp(  # noqa: ASYNC128 - run does it
    handler: Callable[[TlsStream[TcpStream]], Awaitable[object]],
    port: int,
    ssl_context: ssl.SSLContext,
    *,
    host: str | bytes | None = None,
    https_compatible: bool = False,
    backlog: int | None = None,
    handler_nursery: trio.Nursery | None = None,
    drain: Drain | None = None,
    on_error: Callable[[Exception, TlsStream[TcpStream]], object] | None = None,
    max_connections: int | None = None,
    handshake_timeout: float = DEFAULT_HANDSHAKE_TIMEOUT,
    task_status: trio.TaskStatus[list[TlsListener[TcpStream]]] = trio.TASK_STATUS_IGNORED,
) -> DrainReport:
    """Serve a TCP port with TLS: start ``handler(stream)`` for each connection.

    The handshake is done before the handler is called. With ``drain`` it ends as :func:`serve_tcp`
    does.

    Args:
        handler: an async callable that takes the stream. What it raises truncates that connection,
            and goes to ``on_error`` or ends the server.
        port: the port number; 0 lets the system choose one.
        ssl_context: the context for all connections.
        host: the address to listen on; ``None`` for all of them.
        https_compatible: passed on to :class:`TlsStream`.
        backlog: how many connections may wait to be accepted; ``None`` for a good default.
        handler_nursery: where the handlers run; by default in a nursery of this call.
        drain: what ends the server. Without it, a stream that a handler leaves open is closed
            forcefully.
        on_error: see :func:`serve_tcp`.
        max_connections: see :func:`serve_tcp`. A connection counts from before its handshake.
        handshake_timeout: how long the handshake may take, in seconds; ``math.inf`` for no limit.
            It is done before the handler is called. One that fails, or takes too long, is counted
            in :attr:`DrainReport.failed_handshakes` and logged (level INFO, logger
            ``"trio_asyncwrite"``); the handler and ``on_error`` hear nothing of it. When the drain
            starts, those under way may take one more second.
        task_status: with ``nursery.start``, it returns the listeners.

    Returns:
        What was seen of the ends of all connections. Without ``drain`` it does not return.

    Raises:
        OSError: if the port cannot be listened on.
        RuntimeError: if ``drain`` belongs to another ``trio.run``.
        TypeError: if ``handler`` is not an async function, or ``on_error`` not a plain one.
        ValueError: if a number is too small.

    Cancellation: nothing happened, except that the server and its handlers end. With ``drain``,
        buffered bytes that the kernel takes at once are still sent.

    Source: :func:`trio.serve_ssl_over_tcp`.
    """
    options = Options(handler, drain, on_error, max_connections, handshake_timeout)
    listeners = await open_tls_over_tcp_listeners(
        port, ssl_context, host=host, https_compatible=https_compatible, backlog=backlog
    )
    return await _serve(handler, listeners, options, handler_nursery, task_status)


@overload
async def serve_listeners(
    handler: Callable[[R], Awaitable[object]],
    listeners: Sequence[trio.abc.Listener[R]],
    *,
    drain: None = ...,
    handler_nursery: trio.Nursery | None = ...,
    on_error: Callable[[Exception, R], object] | None = ...,
    max_connections: int | None = ...,
    handshake_timeout: float | None = ...,
    task_status: trio.TaskStatus[Sequence[trio.abc.Listener[R]]] = ...,
) -> NoReturn: ...


@overload
async def serve_listeners(
    handler: Callable[[S], Awaitable[object]],
    listeners: Sequence[trio.abc.Listener[S]],
    *,
    drain: Drain,
    handler_nursery: trio.Nursery | None = ...,
    on_error: Callable[[Exception, S], object] | None = ...,
    max_connections: int | None = ...,
    handshake_timeout: float | None = ...,
    task_status: trio.TaskStatus[Sequence[trio.abc.Listener[S]]] = ...,
) -> DrainReport: ...


async def serve_listeners(  # noqa: ASYNC128 - run does it
    handler: Callable[[Any], Awaitable[object]],
    listeners: Sequence[trio.abc.Listener[Any]],
    *,
    drain: Drain | None = None,
    handler_nursery: trio.Nursery | None = None,
    on_error: Callable[[Exception, Any], object] | None = None,
    max_connections: int | None = None,
    handshake_timeout: float | None = None,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> DrainReport:
    """Serve listeners of your own, for ever or until they are drained, as :func:`serve_tcp` does.

    A Unix socket, for example: ``TcpListener(sock)``.

    Args:
        handler: an async callable that takes the stream. What it raises truncates that connection,
            and goes to ``on_error`` or ends the server.
        listeners: what to accept connections from; with ``drain``, as streams of this library.
            They are closed.
        drain: what ends the server. Without it, a stream that a handler leaves open is closed
            forcefully.
        handler_nursery: where the handlers run; by default in a nursery of this call.
        on_error: see :func:`serve_tcp`.
        max_connections: see :func:`serve_tcp`.
        handshake_timeout: as for :func:`serve_tls_over_tcp`, for streams that have a
            ``do_handshake``; ``None`` leaves the handshake to the handler.
        task_status: with ``nursery.start``, it returns ``listeners``.

    Returns:
        What was seen of the ends of all connections. Without ``drain`` it does not return.

    Raises:
        OSError: if accepting fails, for more than a lack of resources.
        RuntimeError: if ``drain`` belongs to another ``trio.run``.
        TypeError: if ``handler`` is not an async function, or ``on_error`` not a plain one.
        ValueError: if a number is too small.

    Cancellation: nothing happened, except that the server and its handlers end. With ``drain``,
        buffered bytes that the kernel takes at once are still sent.

    Source: :func:`trio.serve_listeners`.
    """
    options = Options(handler, drain, on_error, max_connections, handshake_timeout)
    return await _serve(handler, listeners, options, handler_nursery, task_status)
