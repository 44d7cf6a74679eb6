"""Servers that can be drained: they stop listening, let handlers finish, and lose nothing.

Theory of operation
===================

**A drain has one deadline**, ``grace`` seconds after it starts, and all that is done until then is
bounded by it. Each connection runs in a cancel scope with that deadline: a handler that still runs
then is cancelled, and what closes gracefully then is cut short (:func:`_hurry`). A handler that
does not come out, because it shields itself, as a graceful close of its own does, gets a moment;
then its stream is taken away from it (:meth:`_Server._enforce`).

**Closing asks its surroundings how much time there is.** A graceful close is shielded, and bounded
by its own limits. Here they are no longer than the effective deadline of the connection's task, so
that a server that is cancelled from outside comes to its end at once: what the kernel takes still
goes out, and the reports say what did not.

**Last call.** Clients may have connected, and sent their requests, before anybody has accepted
them: the kernel keeps them in the listener's backlog, and resets them when the listener is closed.
So those who wait there when the drain starts are still accepted; and not those who come later, or
under load there would be no end.

**What has arrived is read.** By the same token a wait for a request must not be cut short before
it has looked: the waits of :meth:`Drain.until_started` have a deadline, which the run loop looks at
after it has looked for input, and are not cancelled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import math
import select
import signal
import socket
import struct
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final, overload

import trio
import trio.abc

from trio_asyncwrite._closing._close import (
    DEFAULT_LINGER,
    DEFAULT_LINGER_BYTES,
    DEFAULT_TIMEOUT,
    close_gracefully,
)
from trio_asyncwrite._closing._graceful_close import (
    Limits,
    _not_negative,
    _unacknowledged_bytes,
    abort_stream,
)
from trio_asyncwrite._closing._report import CloseOutcome, CloseReport
from trio_asyncwrite._core._async_write import AsyncWrite, release_once
from trio_asyncwrite._core._checks import consists_of
from trio_asyncwrite._core._phase import CLOSED, ENDED
from trio_asyncwrite._tls._over_tcp import TlsListener, open_tls_over_tcp_listeners
from trio_asyncwrite._transports._tcp_listener import TcpListener, open_tcp_listeners

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
    from typing import NoReturn

    from trio_asyncwrite._tls._stream import TlsStream
    from trio_asyncwrite._transports._tcp import TcpStream

S = TypeVar("S", bound=AsyncWrite)

DEFAULT_GRACE: Final = 30.0

#: Out of descriptors or memory, which may pass; and how long to wait for that, in seconds. Both
#: as in trio.serve_listeners.
_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_RESOURCES_PAUSE: Final = 0.1

#: How many connections may wait in a listener's queue where the system does not say how many do:
#: SOMAXCONN of macOS and BSD, which bounds any backlog there.
_LAST_CALL: Final = 128

#: Where Linux's struct tcp_info has tcpi_unacked, a number of 32 bits.
_TCPI_UNACKED: Final = 24

#: How long handlers have to come out when they were cancelled, before their streams are taken away,
#: in seconds.
_LAST_WORDS: Final = 0.25

# What a handler may raise when its stream was taken away.
_STREAM_IS_GONE: Final = (trio.Cancelled, trio.ClosedResourceError, trio.BrokenResourceError)

# How often a close that is to be cut short is told so, in seconds, as it goes from stage to stage.
_HURRY_PAUSE: Final = 0.01


@final
class Drain:
    """The end of a server: says when it has come, and how it is done.

    ::

        async def handler(stream):
            try:
                while True:
                    request = b""
                    with drain.until_started():
                        request = await stream.receive_some()
                    if not request:
                        return
                    await stream.send_all(answer(request))
            except trio.BrokenResourceError:
                pass  # this client's connection broke; that must not end the server

        drain = Drain(grace=20)
        async with trio.open_nursery() as nursery:
            await nursery.start(drain.start_on_signal)
            print(await serve_tcp(handler, 8000, drain=drain))
            nursery.cancel_scope.cancel()

    It serves for one end of any number of servers.

    The server closes the stream that it has handed out, and reports on that. What a layer of the
    handler's own still holds (``BufWriter(stream)``) it does not see: the handler has to flush
    that, or close it, before it returns.

    Args:
        grace: how long all of it may take from the start on, in seconds. Handlers that still run
            then are cancelled, and what was not sent is given up. One that closes its stream
            itself, or is shielded, and so does not come out within a quarter of a second, finds
            its stream closed.
        timeout: how long to try to send what is left when a handler has ended, in seconds: see
            :func:`close_gracefully`. Once the drain has started, ``grace`` bounds it as well.
        linger: how long to wait for the peer's end after that, in seconds; bounded likewise.
        linger_bytes: how many bytes to throw away after that, at most.

    Raises:
        TypeError: if one of them is not a number.
        ValueError: if one of them is negative.
    """

    def __init__(
        self,
        *,
        grace: float = DEFAULT_GRACE,
        timeout: float = DEFAULT_TIMEOUT,
        linger: float = DEFAULT_LINGER,
        linger_bytes: int = DEFAULT_LINGER_BYTES,
    ) -> None:
        self._grace = _not_negative(grace, "grace")
        self._limits = Limits(timeout, linger, linger_bytes)
        self._started_at = math.inf
        self._scopes: set[trio.CancelScope] = set()

    @property
    def started(self) -> bool:
        """Whether the drain has started."""
        return self._started_at < math.inf

    @property
    def deadline(self) -> float:
        """When it is to be over, on Trio's clock; infinity before it has started."""
        return self._started_at + self._grace

    def start(self) -> None:
        """Start the drain; when it has started already, do nothing.

        Out of another thread: ``trio.from_thread.run_sync(drain.start)``.
        """
        if not self.started:
            self._started_at = trio.current_time()
            for scope in self._scopes:
                scope.deadline = self._started_at

    async def wait_started(self) -> None:
        """Wait until the drain has started.

        Cancellation: nothing happened.
        """
        with self.until_started():
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()

    @contextlib.contextmanager
    def until_started(self) -> Generator[trio.CancelScope]:
        """A block that is cancelled when the drain starts, or if it has, as soon as it waits.

        It belongs around the wait for a request's *first* bytes, in which nothing is under way,
        and around nothing else: the rest of a request that has begun to come is read outside of
        it. What has arrived already is received even then, since it need not be waited for: so go
        on to the next request until there is none, and do not ask for :attr:`started`. (Over TLS,
        that goes for connections whose handshake is done. On others there is no request yet.)

        Yields:
            The cancel scope; its ``cancelled_caught`` says whether the block was cut short. Its
            deadline is the drain's business: for a timeout, use another scope.
        """
        with trio.CancelScope() as scope:
            # Now, and not before: it would be cancelled already, at its first checkpoint and not at
            # its first wait.
            scope.deadline = self._started_at
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    async def start_on_signal(
        self,
        *signals: int,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Start the drain when the process gets a signal; return when it has started.

        A second signal then does what it would do without this: it ends the process.

        Args:
            *signals: the signals' numbers; by default SIGTERM and SIGINT.
            task_status: with ``nursery.start``, it returns when signals are caught.

        Raises:
            RuntimeError: if this is not Python's main thread, the only one to get signals.

        Cancellation: nothing happened; signals do again what they did before.

        Source: :func:`trio.open_signal_receiver`.
        """
        with trio.open_signal_receiver(*(signals or (signal.SIGTERM, signal.SIGINT))) as arrived:
            task_status.started()
            with self.until_started():
                async for _ in arrived:
                    self.start()

    def __repr__(self) -> str:
        return f"<Drain, {'started' if self.started else 'not started'}>"


@final
@dataclass(frozen=True)
class DrainReport:
    """What a server has seen of its connections' ends, from its first to its last.

    As a string it is one line for a log.
    """

    #: How many connections were accepted.
    connections: int
    #: How they ended, by their reports: see :attr:`CloseReport.outcome`.
    outcomes: Mapping[CloseOutcome, int]
    #: How many were closed by their handlers, which alone know how they ended.
    closed_by_handler: int
    #: How many handlers were cancelled, or lost their streams, because time was up.
    cancelled: int
    #: Bytes that were never sent, over all connections that have a report.
    unsent_bytes: int
    #: The reports of the connections that were closed after the drain had started, in the order
    #: in which that was done. Those of before are only counted.
    reports: tuple[CloseReport, ...] = field(repr=False)
    #: How long the drain took, in seconds of Trio's clock.
    elapsed: float

    def __str__(self) -> str:
        facts = [f"{count} {outcome.value}" for outcome, count in self.outcomes.items()]
        facts += [
            f"{count} {what}"
            for count, what in (
                (self.closed_by_handler, "closed by their handlers"),
                (self.cancelled, "handlers cancelled"),
                (self.unsent_bytes, "bytes unsent"),
            )
            if count
        ]
        return ", ".join(
            [f"drained in {self.elapsed:.3f} s: {self.connections} connections", *facts]
        )


async def _hurry(stream: AsyncWrite, closed: trio.Event) -> None:
    """Once this task is cancelled, cut the close of ``stream`` short."""
    try:
        await closed.wait()
    except trio.Cancelled:  # noqa: ASYNC103 - the task that closes must not lose its report
        # Whoever cancelled both of them finds out from that one.
        while not closed.is_set():
            stream._end_waits()
            with trio.move_on_after(_HURRY_PAUSE, shield=True):
                await closed.wait()


@final
class _Server(Generic[S]):
    """The connections of one server."""

    def __init__(self, handler: Callable[[S], Awaitable[object]], drain: Drain) -> None:
        self._handler = handler
        self._drain = drain
        self._scopes: set[trio.CancelScope] = set()
        #: The streams whose handlers have neither returned nor lost them.
        self._handled: set[S] = set()
        #: How many listeners and connections there are, and when there are none any more.
        self._open = 0
        self._all_closed = trio.Event()
        self._connections = 0
        self._closed_by_handler = 0
        self._cancelled = 0
        self._unsent_bytes = 0
        self._outcomes: Counter[CloseOutcome] = Counter()
        self._reports: list[CloseReport] = []

    async def accept(self, listener: trio.abc.Listener[S], nursery: trio.Nursery) -> None:
        """Accept connections until the drain starts, and then those that wait already."""
        try:
            async with listener:
                with self._drain.until_started():
                    while True:
                        await self._accept_one(listener, nursery)
                with trio.move_on_at(self._drain.deadline):
                    await self._last_call(listener, nursery)
        finally:
            self._count_closed()

    async def _last_call(self, listener: trio.abc.Listener[S], nursery: trio.Nursery) -> None:
        sock = _socket_of(listener)
        waiting = 0 if sock is None else _queue_length(sock)
        while sock is not None and waiting and _has_waiting(sock):
            # Another process that shares the socket may be faster.
            with trio.move_on_after(_RESOURCES_PAUSE):
                waiting -= await self._accept_one(listener, nursery)

    async def _accept_one(self, listener: trio.abc.Listener[S], nursery: trio.Nursery) -> bool:
        try:
            stream = await listener.accept()
        except OSError as exc:
            if exc.errno not in _OUT_OF_RESOURCES:
                raise
            logging.getLogger(__name__).exception(
                "accept returned %s; trying again in %s seconds",
                errno.errorcode[exc.errno],
                _RESOURCES_PAUSE,
            )
            await trio.sleep(_RESOURCES_PAUSE)
            return False
        self._connections += 1
        self._open += 1
        nursery.start_soon(self._serve, stream)
        return True

    async def _serve(self, stream: S) -> None:
        scope = trio.CancelScope(deadline=self._drain.deadline)
        self._scopes.add(scope)
        try:
            with scope:
                await self._handle(stream, scope)
        finally:
            self._scopes.discard(scope)
            self._count_closed()

    def _count_closed(self) -> None:
        self._open -= 1
        if not self._open:
            self._all_closed.set()

    async def _handle(self, stream: S, scope: trio.CancelScope) -> None:
        self._handled.add(stream)
        try:
            await self._handler(stream)
        except BaseException as exc:  # noqa: ASYNC103 - the task ends here
            if self._leave(stream):
                if not consists_of(exc, (trio.Cancelled,)):
                    # What was sent may be half a message.
                    self._note(await abort_stream(stream))  # noqa: ASYNC102 - waits for nothing
                    raise
                self._cancelled += scope.cancel_called
                # It has limits of its own.
                await self._end(stream, cut_off=scope.cancel_called)  # noqa: ASYNC102
                raise
            if not consists_of(exc, _STREAM_IS_GONE):  # that would be our doing
                raise
        else:
            if self._leave(stream):
                await self._end(stream, cut_off=False)

    def _leave(self, stream: S) -> bool:
        """Take the stream back from its handler; whether it still has it."""
        has_it = stream in self._handled
        self._handled.discard(stream)
        return has_it

    async def _enforce(self) -> None:
        """When time is up, and handlers do not come out, take their streams away from them."""
        await trio.sleep_until(self._drain.deadline + _LAST_WORDS)
        lost = [stream for stream in self._handled if stream._phase is not CLOSED]
        self._handled.difference_update(lost)
        self._cancelled += len(lost)
        for stream in lost:
            self._note(await _take_away(stream))

    async def _end(self, stream: S, *, cut_off: bool) -> None:
        if stream._phase is CLOSED:
            self._closed_by_handler += 1
            return
        # An unbuffered stream has no unsent bytes: the kernel has some, and the handler had more.
        is_clogged = cut_off and _unacknowledged_bytes(stream)
        report = await self._close(stream)
        if is_clogged and report.outcome is CloseOutcome.PEER_SILENT:
            report = dataclasses.replace(report, outcome=CloseOutcome.TIMED_OUT)
        self._note(report)

    async def _close(self, stream: S) -> CloseReport:
        limits = self._drain._limits
        left = _time_left()
        closed = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hurry, stream, closed)
            report = await close_gracefully(
                stream,
                timeout=min(limits.timeout, left),
                linger=min(limits.linger, left),
                linger_bytes=limits.linger_bytes,
            )
            closed.set()
        if isinstance(report.error, trio.ClosedResourceError) and not _time_left():
            # That was us, in _hurry.
            report = dataclasses.replace(report, outcome=CloseOutcome.TIMED_OUT, error=None)
        return report

    def _note(self, report: CloseReport) -> None:
        self._outcomes[report.outcome] += 1
        self._unsent_bytes += report.unsent_bytes
        if self._drain.started:
            self._reports.append(report)

    async def run(
        self,
        listeners: Sequence[trio.abc.Listener[S]],
        handler_nursery: trio.Nursery | None,
        status: trio.TaskStatus[Sequence[trio.abc.Listener[S]]],
    ) -> DrainReport:
        """Serve until the drain is over."""
        drain = self._drain
        self._open = len(listeners)
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(self.accept, listener, handler_nursery or nursery)
            status.started(listeners)
            await drain.wait_started()
            for scope in self._scopes:
                scope.deadline = drain.deadline
            nursery.start_soon(self._enforce)
            if self._open:
                await self._all_closed.wait()
            nursery.cancel_scope.cancel()
        return DrainReport(
            self._connections,
            dict(self._outcomes),
            closed_by_handler=self._closed_by_handler,
            cancelled=self._cancelled,
            unsent_bytes=self._unsent_bytes,
            reports=tuple(self._reports),
            elapsed=trio.current_time() - drain._started_at,
        )


def _socket_of(listener: trio.abc.Listener[Any]) -> trio.socket.SocketType | None:
    """The listening socket; None if there is none that we know of."""
    sock: object = getattr(getattr(listener, "transport_listener", listener), "socket", None)
    return sock if isinstance(sock, trio.socket.SocketType) else None


def _queue_length(sock: trio.socket.SocketType) -> int:
    """How many wait to be accepted, at most.

    Source: TCP_INFO in tcp(7), and for a listening socket, where tcpi_unacked is an alias, Linux's
        tcp_get_info in net/ipv4/tcp.c.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a Unix socket
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_UNACKED + 4)
            (length,) = struct.unpack_from("=I", info, _TCPI_UNACKED)
            return int(length)
    return _LAST_CALL


def _has_waiting(sock: trio.socket.SocketType) -> bool:
    """Whether somebody waits to be accepted."""
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLIN)
    return bool(poller.poll(0))


async def _take_away(stream: AsyncWrite) -> CloseReport:
    """Close a stream that somebody is using; who waits in it, or in a layer above, is woken."""
    if stream._phase is not ENDED:
        # There may be half a message on its way.
        report = await abort_stream(stream)
        return dataclasses.replace(report, outcome=CloseOutcome.TIMED_OUT)
    unacknowledged = _unacknowledged_bytes(stream)
    with trio.CancelScope(shield=True):
        await release_once(stream, clean=True)
    return CloseReport(CloseOutcome.PEER_SILENT, unacknowledged_bytes=unacknowledged)


def _time_left() -> float:
    """How long this task may still take, in seconds."""
    return max(trio.current_effective_deadline() - trio.current_time(), 0.0)


async def _serve(  # noqa: ASYNC128 - serve_listeners and run do it
    handler: Callable[[S], Awaitable[object]],
    listeners: list[Any],
    drain: Drain | None,
    handler_nursery: trio.Nursery | None,
    status: trio.TaskStatus[Any],
) -> DrainReport:
    if drain is None:
        await trio.serve_listeners(
            handler, listeners, handler_nursery=handler_nursery, task_status=status
        )
    return await _Server(handler, drain).run(listeners, handler_nursery, status)


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

    Without ``drain`` it serves for ever, as :func:`trio.serve_tcp` does, and closes forcefully what
    a handler leaves open. With it, every connection is closed as :func:`close_gracefully` does it
    when its handler returns or is cancelled, so nothing that a handler wrote is cut off. When
    the drain starts, the listeners are closed (connections that wait there are still accepted),
    handlers may finish, those that still run after the grace are cancelled, and when all
    connections are closed it returns.

    Args:
        handler: an async callable that takes the stream. What it raises ends the server, and resets
            that connection.
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

    Cancellation: nothing happened, beyond the end of the server and of its handlers. With
        ``drain``, what the kernel takes at once of what they wrote still goes out.

    Source: :func:`trio.serve_tcp`.
    """
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
        handler: an async callable that takes the stream. What it raises ends the server, and resets
            that connection.
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

    Cancellation: nothing happened, beyond the end of the server and of its handlers. With
        ``drain``, what the kernel takes at once of what they wrote still goes out.

    Source: :func:`trio.serve_ssl_over_tcp`.
    """
    listeners = await open_tls_over_tcp_listeners(
        port, ssl_context, host=host, https_compatible=https_compatible, backlog=backlog
    )
    return await _serve(handler, listeners, drain, handler_nursery, task_status)


async def serve_listeners(  # noqa: ASYNC128 - run does it
    handler: Callable[[S], Awaitable[object]],
    listeners: Sequence[trio.abc.Listener[S]],
    *,
    drain: Drain,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Sequence[trio.abc.Listener[S]]] = trio.TASK_STATUS_IGNORED,
) -> DrainReport:
    """Serve listeners of your own until they are drained, as :func:`serve_tcp` does.

    A Unix socket, for example: ``TcpListener(trio.SocketListener(sock))``. To serve for ever, there
    is :func:`trio.serve_listeners`.

    Args:
        handler: an async callable that takes the stream. What it raises ends the server, and resets
            that connection.
        listeners: what to accept connections from, as streams of this library. They are closed.
        drain: what ends the server.
        handler_nursery: where the handlers run; by default in a nursery of this call.
        task_status: with ``nursery.start``, it returns ``listeners``.

    Returns:
        What was seen of the ends of all connections.

    Raises:
        OSError: if accepting fails, for more than a lack of resources.

    Cancellation: nothing happened, beyond the end of the server and of its handlers. What the
        kernel takes at once of what they wrote still goes out.

    Source: :func:`trio.serve_listeners`.
    """
    return await _Server(handler, drain).run(listeners, handler_nursery, task_status)
