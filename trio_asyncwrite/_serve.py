"""Servers that can be drained: they stop listening, let handlers finish, and lose nothing.

Theory of operation
===================

**A drain has one deadline**, ``grace`` seconds after it starts, and all that is done until then is
bounded by it. Each connection runs in a cancel scope with that deadline: a handler that still runs
then is cancelled, and what closes gracefully then is cut short (:func:`_hurry`).

**Closing asks its surroundings how much time there is.** A graceful close is shielded, and bounded
by its own limits. Here they are no longer than the effective deadline of the connection's task, so
that a server that is cancelled from outside comes to its end at once: what the kernel takes still
goes out, and the reports say what did not.

**Last call.** Clients may have connected, and sent their requests, before anybody has accepted
them: the kernel keeps them in the listener's backlog, and resets them when the listener is closed.
So those who wait there when the drain starts are still accepted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import math
import select
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final, overload

import trio
import trio.abc

from ._abc import AsyncWrite
from ._close import (
    DEFAULT_LINGER,
    DEFAULT_LINGER_BYTES,
    DEFAULT_TIMEOUT,
    _is_only_cancelled,
    close_gracefully,
)
from ._close_engine import Limits, _not_negative, _unacknowledged_bytes, abort_stream
from ._close_report import CloseOutcome, CloseReport
from ._phase import CLOSED
from ._tcp import TcpListener, TcpStream, open_tcp_listeners
from ._tls_over_tcp import TlsListener, open_tls_over_tcp_listeners

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
    from typing import NoReturn

    from ._tls import TlsStream

S = TypeVar("S", bound=AsyncWrite)

DEFAULT_GRACE: Final = 30.0

#: Out of descriptors or memory, which may pass; and how long to wait for that, in seconds. Both
#: as in trio.serve_listeners.
_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_RESOURCES_PAUSE: Final = 0.1

#: How many connections the last call accepts at most, while more and more may come in. Linux keeps
#: no more than this many (net.core.somaxconn).
_LAST_CALL: Final = 4096

# How often a close that is to be cut short is told so, in seconds, as it goes from stage to stage.
_HURRY_PAUSE: Final = 0.01


@final
class Drain:
    """The end of a server: says when it has come, and how it is done.

    ::

        async def handler(stream):
            while not drain.started:
                with drain.until_started():
                    request = await receive_request(stream)
                await answer(stream, request)

        drain = Drain(grace=20)
        async with trio.open_nursery() as nursery:
            await nursery.start(drain.start_on_signal)
            print(await serve_tcp(handler, 8000, drain=drain))
            nursery.cancel_scope.cancel()

    It serves for one end of any number of servers.

    Args:
        grace: how long all of it may take from the start on, in seconds. Handlers that still run
            then are cancelled, and what was not sent is given up.
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
        self._started_at: float | None = None
        self._scopes: set[trio.CancelScope] = set()

    @property
    def started(self) -> bool:
        """Whether the drain has started."""
        return self._started_at is not None

    @property
    def deadline(self) -> float:
        """When it is to be over, on Trio's clock; infinity before it has started."""
        return math.inf if self._started_at is None else self._started_at + self._grace

    def start(self) -> None:
        """Start the drain; when it has started already, do nothing.

        Out of another thread: ``trio.from_thread.run_sync(drain.start)``.
        """
        if self._started_at is None:
            self._started_at = trio.current_time()
            for scope in self._scopes:
                scope.cancel()

    async def wait_started(self) -> None:
        """Wait until the drain has started.

        Cancellation: nothing happened.
        """
        with self.until_started():
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()

    @contextlib.contextmanager
    def until_started(self) -> Generator[trio.CancelScope]:
        """A block that is cancelled when the drain starts, or at once if it has started.

        It belongs around the waits of a handler in which nothing is under way: for the next
        request, for example.

        Yields:
            The cancel scope; its ``cancelled_caught`` says whether the block was cut short.
        """
        with trio.CancelScope() as scope:
            if self.started:
                scope.cancel()
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
    #: How many handlers were cancelled because time was up.
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
        self._open = 0
        #: Set when the last connection has ended, if somebody waits for that.
        self._idle: trio.Event | None = None
        self._connections = 0
        self._closed_by_handler = 0
        self._cancelled = 0
        self._unsent_bytes = 0
        self._outcomes: Counter[CloseOutcome] = Counter()
        self._reports: list[CloseReport] = []

    async def accept(self, listener: trio.abc.Listener[S], nursery: trio.Nursery) -> None:
        """Accept connections until the drain starts, and then those that wait already."""
        async with listener:
            with self._drain.until_started():
                while True:
                    await self._accept_one(listener, nursery)
            for _ in range(_LAST_CALL):
                if not _has_waiting(listener):
                    break
                # Another process that shares the socket may be faster.
                with trio.move_on_after(_RESOURCES_PAUSE):
                    await self._accept_one(listener, nursery)

    async def _accept_one(self, listener: trio.abc.Listener[S], nursery: trio.Nursery) -> None:
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
        else:
            self._connections += 1
            self._open += 1
            nursery.start_soon(self._serve, stream)

    async def _serve(self, stream: S) -> None:
        scope = trio.CancelScope(deadline=self._drain.deadline)
        self._scopes.add(scope)
        try:
            with scope:
                await self._handle(stream, scope)
        finally:
            self._scopes.discard(scope)
            self._open -= 1
            if self._idle is not None and not self._open:
                self._idle.set()

    async def _handle(self, stream: S, scope: trio.CancelScope) -> None:
        try:
            await self._handler(stream)
        except BaseException as exc:
            if not _is_only_cancelled(exc):
                # What was sent may be half a message.
                self._note(await abort_stream(stream))  # noqa: ASYNC102 - waits for nothing
                raise
            self._cancelled += scope.cancel_called
            # It has limits of its own.
            await self._end(stream, cut_off=scope.cancel_called)  # noqa: ASYNC102
            raise
        await self._end(stream, cut_off=False)

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
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(self.accept, listener, handler_nursery or nursery)
            status.started(listeners)
            await drain.wait_started()
            for scope in self._scopes:
                scope.deadline = drain.deadline
        if self._open:  # in the caller's nursery
            self._idle = trio.Event()
            await self._idle.wait()
        return DrainReport(
            self._connections,
            dict(self._outcomes),
            closed_by_handler=self._closed_by_handler,
            cancelled=self._cancelled,
            unsent_bytes=self._unsent_bytes,
            reports=tuple(self._reports),
            elapsed=trio.current_time() - drain.deadline + drain._grace,
        )


def _has_waiting(listener: trio.abc.Listener[Any]) -> bool:
    """Whether somebody waits to be accepted."""
    transport: Any = getattr(listener, "transport_listener", listener)
    poller = select.poll()
    poller.register(transport.socket.fileno(), select.POLLIN)
    return bool(poller.poll(0))


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
