"""The connections of one server, from their acceptance to their reports.

Theory of operation
===================

**A drain has one deadline**, ``grace`` seconds after it starts. Then (:meth:`Server._enforce`)
every stream whose handler still runs is marked truncated, and its handler is cancelled; every close
that still runs is hurried. A handler that does not return, because it shields itself, gets a
moment; then its stream is taken from it. A truncated stream's accepted bytes get half a second more
to arrive, all streams side by side.

**Last call.** Clients may have connected, and sent their requests, before anybody has accepted
them: the kernel keeps them in the listener's backlog, and resets them when the listener is closed.
So connections that wait there when the drain starts are still accepted. Later ones are not, or
under load there would be no end.

**What has arrived is read.** For the same reason a wait for a request must not be cut short before
it has looked: the waits of :meth:`Drain.until_started` have a deadline, which the run loop looks at
after it has looked for input, and are not cancelled.

**Without a drain** it serves for ever, and closes by force what a handler leaves open, as Trio
does. For the rest it is the same server, with a drain that never starts.

**Who is served.** A connection waits, in its own task, until there is room for it, then for its TLS
handshake; then its handler is called. Whatever is raised up to there is the peer's doing, and is
counted. From there on an exception is the handler's, and goes to ``on_error``.

**Ctrl-C** is held off from these lines, and not from the handlers.
"""

from __future__ import annotations

import contextlib
import errno
from collections import Counter
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

import trio
import trio.abc

from trio_asyncwrite._closing._graceful_close import (
    GracefulClose,
    end_stream,
    has_nothing_to_deliver,
    writer_of,
)
from trio_asyncwrite._closing._limits import DEFAULT_LINGER_BYTES, Limits
from trio_asyncwrite._closing._report import CloseReport
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._checks import consists_of
from trio_asyncwrite._core._close import Close, Hardness
from trio_asyncwrite._core._lifecycle import ENDED
from trio_asyncwrite._core._stack import writers_above

from . import _backlog
from ._callbacks import call_handler, call_on_error, split_exception
from ._drain import Drain, DrainReport
from ._log_errors import LOGGER, peer_of
from ._room import Room

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trio_asyncwrite._closing._report import CloseOutcome

    from ._options import Options

S = TypeVar("S", bound=trio.abc.AsyncResource)

#: Out of descriptors or memory, which may pass; and how long to wait for that, in seconds. Both
#: as in trio.serve_listeners.
_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_RESOURCES_PAUSE: Final = 0.1

#: How long handlers have to return when they were cancelled, before their streams are taken from
#: them, in seconds.
_TIME_TO_RETURN: Final = 0.25

#: How long the bytes of a truncated stream have to arrive after the grace, in seconds.
_TIME_TO_DELIVER: Final = 0.5

#: How long the handshakes that are under way when the drain starts may still take, in seconds.
_LAST_HANDSHAKES: Final = 1.0

#: What the peer of a failed handshake gets.
_AT_ONCE: Final = Limits(0, 0, 0)

#: Without a drain: how a stream ends whose handler has raised.
_AFTER_AN_ERROR: Final = Limits(_TIME_TO_DELIVER, _TIME_TO_DELIVER, DEFAULT_LINGER_BYTES)

# What a handler may raise when its stream was taken from it.
_STREAM_IS_GONE: Final = (trio.Cancelled, trio.ClosedResourceError, trio.BrokenResourceError)


@final
class _Connection(Generic[S]):
    """A stream, and how far its handler and its close have come."""

    __slots__ = (
        "_writer",
        "closing",
        "handshake",
        "is_handled",
        "is_running",
        "is_served",
        "scope",
        "stream",
    )

    def __init__(self, stream: S) -> None:
        self.stream = stream
        # What was made of a stream of another library: it keeps what it is told of its end.
        self._writer: AsyncWrite | None = None
        #: Around the handler.
        self.scope = trio.CancelScope()
        #: Whether the handler has neither returned nor lost the stream.
        self.is_handled = True
        #: Whether there was room for it; and whether the handler was called.
        self.is_served = self.is_running = False
        #: Around the handshake.
        self.handshake: trio.CancelScope | None = None
        #: The server's own close of it.
        self.closing: GracefulClose | None = None

    def writer(self) -> AsyncWrite | None:
        """The stream as a writer; None if it is none, or is closed and cannot be asked."""
        stream: object = self.stream
        if isinstance(stream, AsyncWrite):
            return stream
        if self._writer is None and isinstance(stream, trio.abc.SendStream):
            # The handler may have closed it, and then nobody can tell what it was.
            with contextlib.suppress(Exception):
                self._writer = writer_of(stream)
        return self._writer

    def is_closed(self) -> bool:
        """Whether somebody has closed the stream, or is closing it."""
        writer = self.writer()
        return writer is None or writer.lifecycle.released or writer.lifecycle.close is not None

    def is_ending(self) -> bool:
        """Whether somebody has closed the stream, or is closing it, or a handle above it."""
        writer = self.writer()
        return self.is_closed() or (
            writer is not None
            and any(one.lifecycle.close is not None for one in writers_above(writer))
        )

    def mark_truncated(self) -> None:
        """Whatever ends the stream now must show that a message was cut short."""
        writer = self.writer()
        if writer is not None and writer.lifecycle.phase is not ENDED:
            writer.lifecycle.marked_truncated = True


@final
class Server(Generic[S]):
    """The connections of one server."""

    def __init__(self, handler: Callable[[S], Awaitable[object]], options: Options) -> None:
        self._handler = handler
        self._options = options
        #: Whether connections are closed gracefully, and the server has an end.
        self._is_graceful = options.drain is not None
        self._drain = options.drain or Drain()
        self._room = Room(options.max_connections)
        self._open_connections: dict[int, _Connection[S]] = {}
        #: How many listeners and connections there are, and when there are none any more.
        self._open = 0
        self._all_closed = trio.Event()
        self._connections = 0
        self._closed_by_handler = 0
        self._cancelled = 0
        self._failed_handshakes = 0
        self._failed_handlers = 0
        self._unsent_bytes = 0
        #: Whether the grace has ended.
        self._is_over = False
        self._outcomes: Counter[CloseOutcome] = Counter()
        self._reports: list[CloseReport] = []

    # ---- Accepting -------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _accept(self, listener: trio.abc.Listener[S], nursery: trio.Nursery) -> None:
        """Accept connections until the drain starts, and then those that wait already."""
        try:
            async with listener:
                with self._drain.until_started():
                    while True:
                        await self._room.wait_to_accept()
                        await self._accept_one(listener, nursery)
                with trio.move_on_at(self._drain.deadline):
                    await self._last_call(listener, nursery)
        finally:
            self._count_closed()

    async def _last_call(self, listener: trio.abc.Listener[S], nursery: trio.Nursery) -> None:
        sock = _backlog.socket_of(listener)
        waiting = 0 if sock is None else _backlog.queue_length(sock)
        while sock is not None and waiting and _backlog.has_waiting(sock):
            await self._room.wait_to_accept()
            # Another process that shares the socket may be faster.
            with trio.move_on_after(_RESOURCES_PAUSE):
                waiting -= await self._accept_one(listener, nursery)

    async def _accept_one(self, listener: trio.abc.Listener[S], nursery: trio.Nursery) -> bool:
        try:
            stream = await listener.accept()
        except OSError as exc:
            if exc.errno not in _OUT_OF_RESOURCES:
                raise
            LOGGER.exception(
                "accept returned %s; trying again in %s seconds",
                errno.errorcode[exc.errno],
                _RESOURCES_PAUSE,
            )
            await trio.sleep(_RESOURCES_PAUSE)
            return False
        if self._is_graceful and not isinstance(stream, AsyncWrite):
            await trio.aclose_forcefully(stream)
            raise TypeError(
                f"a server with a drain needs listeners that accept streams of this library, got "
                f"{type(stream).__name__}: use TcpListener(it) or TlsListener(it)"
            )
        self._connections += 1
        self._open += 1
        self._room.accepted += 1
        connection = _Connection(stream)
        # Now, and not when its task begins: the grace may end before that.
        self._open_connections[id(connection)] = connection
        if self._is_over:
            self._cut_short(connection)
        nursery.start_soon(self._serve, connection)
        return True

    # ---- Serving ---------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _serve(self, connection: _Connection[S]) -> None:
        try:
            await self._handle(connection)
        finally:
            del self._open_connections[id(connection)]
            self._room.leave(was_served=connection.is_served)
            self._count_closed()

    def _count_closed(self) -> None:
        self._open -= 1
        if not self._open:
            self._all_closed.set()

    async def _handle(self, connection: _Connection[S]) -> None:
        try:
            with connection.scope:
                await self._room.wait_to_serve()
                connection.is_served = True
                if self._is_over:
                    await trio.lowlevel.checkpoint()  # its time was over before it began
                if await self._shake_hands(connection):
                    connection.is_running = True
                    await call_handler(self._handler, connection.stream)
        except BaseException as exc:  # noqa: ASYNC103 - what nobody is told of is raised
            if not connection.is_handled and consists_of(exc, _STREAM_IS_GONE):
                # The stream was taken from it; what it says of that is our doing.
                return  # noqa: ASYNC104
            if await self._fail(connection, exc):  # noqa: ASYNC102
                raise
            return  # noqa: ASYNC104
        if connection.is_handled:
            connection.is_handled = False
            if connection.scope.cancelled_caught and not connection.is_closed():
                # It has closed a handle only, and might have gone on.
                connection.mark_truncated()
            if connection.handshake is not None and not connection.is_running:
                self._failed_handshakes += 1
                await self._end_at_once(connection)
            else:
                await self._end(connection)

    async def _end_at_once(self, connection: _Connection[S]) -> None:
        """Nobody waits for more than the alert, which a failed handshake has sent."""
        writer = connection.writer()
        if writer is None:
            with contextlib.suppress(Exception):  # it never ends the server
                await trio.aclose_forcefully(connection.stream)
        elif not connection.is_closed():
            connection.closing = GracefulClose(writer, _AT_ONCE)
            await connection.closing.run()

    async def _shake_hands(self, connection: _Connection[S]) -> bool:
        """Do the TLS handshake, if there is one to be done here; whether it has succeeded."""
        timeout = self._options.handshake_timeout
        do_handshake = getattr(connection.stream, "do_handshake", None)
        if timeout is None or do_handshake is None:
            return True
        timeout = min(timeout, _LAST_HANDSHAKES) if self._drain.started else timeout
        said: object = f"no handshake within {timeout:g} seconds"
        with trio.move_on_after(timeout) as scope:  # noqa: ASYNC912 - a handshake is one
            connection.handshake = scope
            try:
                await do_handshake()
            except trio.BrokenResourceError as exc:
                said = exc.__cause__ or exc
            else:
                return True
        LOGGER.info("TLS handshake with %s failed: %s", peer_of(connection.stream), said)
        return False

    async def _fail(self, connection: _Connection[S], exc: BaseException) -> bool:
        """Close the stream of a handler that has raised; whether that is to be raised."""
        was_taken = not connection.is_handled
        connection.is_handled = False
        is_cancelled = consists_of(exc, (trio.Cancelled,))
        # By a task that closes the stream, and sees by itself whether a message is half-sent.
        was_evicted = connection.is_closed() and consists_of(exc, (trio.ClosedResourceError,))
        if not (was_taken or is_cancelled or was_evicted):
            # A message may be half-sent.
            connection.mark_truncated()
        try:
            rest = self._tell(exc, connection.stream)
        except BaseException as from_on_error:  # noqa: ASYNC103, BLE001 - raised below
            rest = from_on_error
        if not was_taken:
            try:
                # It has limits of its own.
                await self._end(connection, failed=not is_cancelled)  # noqa: ASYNC102
            except BaseException as late:  # noqa: ASYNC103
                # A cancellation from meanwhile must not take the place of the error.
                if rest is None or not consists_of(late, (trio.Cancelled,)):
                    raise
        if rest is not None and rest is not exc:
            raise rest
        return rest is not None

    def _tell(self, exc: BaseException, stream: S) -> BaseException | None:
        """Tell ``on_error`` what concerns one connection; what is left is to be raised."""
        on_error = self._options.on_error
        if on_error is None:
            return exc
        told, rest = split_exception(exc)
        if told is not None:
            self._failed_handlers += 1
            call_on_error(on_error, told, stream)
        return rest

    async def _end(self, connection: _Connection[S], *, failed: bool = False) -> None:
        """Close a stream that its handler has left."""
        writer = connection.writer() if self._is_graceful or failed else None
        if writer is None:
            await self._close_by_force(connection)
            return
        # A graceful server waits for a close that another task runs.
        is_over = writer.lifecycle.is_gone() if self._is_graceful else connection.is_closed()
        if is_over:
            report = writer.lifecycle.report
            if isinstance(report, CloseReport):
                self._note(report)
            else:
                self._closed_by_handler += 1
            return
        limits = self._limits() if self._is_graceful else _AFTER_AN_ERROR
        connection.closing = closing = GracefulClose(writer, limits)
        if writer.lifecycle.marked_truncated and has_nothing_to_deliver(writer):
            # At once, so nobody need watch for a cancellation meanwhile.
            self._note(await closing.run())
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hurry_when_cancelled, closing)
            report = await closing.run()
            self._note(report)
            nursery.cancel_scope.cancel()

    async def _close_by_force(self, connection: _Connection[S]) -> None:
        """Close it as Trio's servers do."""
        try:
            await trio.aclose_forcefully(connection.stream)
        except Exception as exc:
            if self._tell(exc, connection.stream) is not None:
                raise

    @trio.lowlevel.enable_ki_protection
    async def _hurry_when_cancelled(self, closing: GracefulClose) -> None:
        """Cut the close short once the server is cancelled; the close itself is shielded."""
        try:
            await trio.sleep_forever()
        finally:
            closing.caller_is_cancelled()

    def _limits(self) -> Limits:
        """The limits of one close: within the drain's, and those of this task."""
        end = min(self._drain.deadline, trio.current_effective_deadline())
        left = max(end - trio.current_time(), 0.0)
        limits = self._drain.limits
        if left == 0.0 and self._drain.deadline <= trio.current_time():
            return limits.at_most(_TIME_TO_DELIVER)
        return limits.at_most(left)

    def _note(self, report: CloseReport) -> None:
        self._outcomes[report.outcome] += 1
        self._unsent_bytes += report.unsent_bytes
        if self._drain.started:
            self._reports.append(report)

    # ---- Draining --------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _enforce(self) -> None:
        """When time is up, cancel the handlers; take the streams of those that do not return."""
        await trio.sleep_until(self._drain.deadline)
        self._is_over = True
        for connection in list(self._open_connections.values()):
            if connection.is_handled:
                self._cut_short(connection)
            else:
                assert connection.closing is not None
                connection.closing.time_is_up()
        await trio.sleep(_TIME_TO_RETURN)
        async with trio.open_nursery() as nursery:
            for connection in list(self._open_connections.values()):
                writer = connection.writer()
                assert writer is not None  # with a drain, all are of this library
                if connection.is_handled and not writer.lifecycle.released:
                    connection.is_handled = False
                    if not connection.is_ending():
                        # It has closed a handle when the grace ended, and gone on.
                        connection.mark_truncated()
                    nursery.start_soon(self._take, writer)

    def _cut_short(self, connection: _Connection[S]) -> None:
        """Cancel the handler, whose time is over."""
        self._cancelled += connection.is_running
        if not connection.is_ending():
            connection.mark_truncated()
        connection.scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def _take(self, stream: AsyncWrite) -> None:
        """Close a stream that its handler is still using, or closing."""
        for one in (stream, *writers_above(stream)):
            running = one.lifecycle.close
            if isinstance(running, Close):
                running.harden(Hardness.CUT_OFF, late=True)
        self._note(await end_stream(stream, self._drain.limits.at_most(_TIME_TO_DELIVER)))

    @trio.lowlevel.enable_ki_protection
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
                nursery.start_soon(self._accept, listener, handler_nursery or nursery)
            status.started(listeners)
            await drain.wait_started()
            for connection in self._open_connections.values():
                if connection.handshake is not None:
                    # Harmless where it is over.
                    connection.handshake.deadline = min(
                        connection.handshake.deadline, drain.started_at + _LAST_HANDSHAKES
                    )
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
            elapsed=trio.current_time() - drain.started_at,
            failed_handshakes=self._failed_handshakes,
            failed_handlers=self._failed_handlers,
        )
