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
So those who wait there when the drain starts are still accepted; and not those who come later, or
under load there would be no end.

**What has arrived is read.** For the same reason a wait for a request must not be cut short before
it has looked: the waits of :meth:`Drain.until_started` have a deadline, which the run loop looks at
after it has looked for input, and are not cancelled.

**Ctrl-C** is held off from these lines, and not from the handlers.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

import trio
import trio.abc

from trio_asyncwrite._closing._graceful_close import GracefulClose, end_stream
from trio_asyncwrite._core._async_write import AsyncWrite
from trio_asyncwrite._core._checks import consists_of
from trio_asyncwrite._core._close import Close, Hardness
from trio_asyncwrite._core._lifecycle import ENDED

from . import _backlog
from ._drain import DrainReport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trio_asyncwrite._closing._limits import Limits
    from trio_asyncwrite._closing._report import CloseOutcome, CloseReport

    from ._drain import Drain

S = TypeVar("S", bound=AsyncWrite)

#: Out of descriptors or memory, which may pass; and how long to wait for that, in seconds. Both
#: as in trio.serve_listeners.
_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_RESOURCES_PAUSE: Final = 0.1

#: How long handlers have to return when they were cancelled, before their streams are taken from
#: them, in seconds.
_TIME_TO_RETURN: Final = 0.25

#: How long the bytes of a truncated stream have to arrive after the grace, in seconds.
_TIME_TO_DELIVER: Final = 0.5

# What a handler may raise when its stream was taken from it.
_STREAM_IS_GONE: Final = (trio.Cancelled, trio.ClosedResourceError, trio.BrokenResourceError)


# The server's own lines are protected from Ctrl-C, and a protection covers what is called from
# there, too; but a handler that never awaits must be interruptible.
@trio.lowlevel.disable_ki_protection
async def _call_handler(handler: Callable[[S], Awaitable[object]], stream: S) -> None:
    await handler(stream)


@final
class _Connection(Generic[S]):
    """A stream, and how far its handler and its close have come."""

    __slots__ = ("closing", "is_handled", "scope", "stream")

    def __init__(self, stream: S) -> None:
        self.stream = stream
        #: Around the handler.
        self.scope = trio.CancelScope()
        #: Whether the handler has neither returned nor lost the stream.
        self.is_handled = True
        #: The server's own close of it.
        self.closing: GracefulClose | None = None

    def is_closed(self) -> bool:
        """Whether somebody has closed the stream, or is closing it."""
        lifecycle = self.stream.lifecycle
        return lifecycle.released or lifecycle.close is not None

    def mark_truncated(self) -> None:
        """Whatever ends the stream now must show that a message was cut short."""
        lifecycle = self.stream.lifecycle
        lifecycle.marked_truncated = lifecycle.phase is not ENDED


@final
class Server(Generic[S]):
    """The connections of one server."""

    def __init__(self, handler: Callable[[S], Awaitable[object]], drain: Drain) -> None:
        self._handler = handler
        self._drain = drain
        self._open_connections: dict[int, _Connection[S]] = {}
        #: How many listeners and connections there are, and when there are none any more.
        self._open = 0
        self._all_closed = trio.Event()
        self._connections = 0
        self._closed_by_handler = 0
        self._cancelled = 0
        self._unsent_bytes = 0
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
                        await self._accept_one(listener, nursery)
                with trio.move_on_at(self._drain.deadline):
                    await self._last_call(listener, nursery)
        finally:
            self._count_closed()

    async def _last_call(self, listener: trio.abc.Listener[S], nursery: trio.Nursery) -> None:
        sock = _backlog.socket_of(listener)
        waiting = 0 if sock is None else _backlog.queue_length(sock)
        while sock is not None and waiting and _backlog.has_waiting(sock):
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
        if not isinstance(stream, AsyncWrite):
            await trio.aclose_forcefully(stream)
            raise TypeError(
                f"a server with a drain needs listeners that accept streams of this library, got "
                f"{type(stream).__name__}: use TcpListener(it) or TlsListener(it)"
            )
        self._connections += 1
        self._open += 1
        nursery.start_soon(self._serve, stream)
        return True

    # ---- Serving ---------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _serve(self, stream: S) -> None:
        connection = _Connection(stream)
        self._open_connections[id(connection)] = connection
        try:
            await self._handle(connection)
        finally:
            del self._open_connections[id(connection)]
            self._count_closed()

    def _count_closed(self) -> None:
        self._open -= 1
        if not self._open:
            self._all_closed.set()

    async def _handle(self, connection: _Connection[S]) -> None:
        try:
            with connection.scope:
                await _call_handler(self._handler, connection.stream)
        except BaseException as exc:  # noqa: ASYNC103 - the task ends here
            if not connection.is_handled:
                # The stream was taken from it; what it says of that is our doing.
                if not consists_of(exc, _STREAM_IS_GONE):
                    raise
                return  # noqa: ASYNC104
            connection.is_handled = False
            if not consists_of(exc, (trio.Cancelled,)):
                # A message may be half-sent.
                connection.mark_truncated()
            # It has limits of its own.
            await self._end(connection)  # noqa: ASYNC102
            raise
        if connection.is_handled:
            connection.is_handled = False
            await self._end(connection)

    async def _end(self, connection: _Connection[S]) -> None:
        """Close a stream that its handler has left."""
        if connection.is_closed():
            self._closed_by_handler += 1
            return
        connection.closing = closing = GracefulClose(connection.stream, self._limits())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hurry_when_cancelled, closing)
            report = await closing.run()
            self._note(report)
            nursery.cancel_scope.cancel()

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
        for connection in list(self._open_connections.values()):
            if connection.is_handled:
                self._cancelled += 1
                if not connection.is_closed():
                    connection.mark_truncated()
                connection.scope.cancel()
            else:
                assert connection.closing is not None
                connection.closing.time_is_up()
        await trio.sleep(_TIME_TO_RETURN)
        async with trio.open_nursery() as nursery:
            for connection in list(self._open_connections.values()):
                if connection.is_handled and not connection.stream.lifecycle.released:
                    connection.is_handled = False
                    nursery.start_soon(self._take, connection.stream)

    @trio.lowlevel.enable_ki_protection
    async def _take(self, stream: S) -> None:
        """Close a stream that its handler is still using, or closing."""
        running = stream.lifecycle.close
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
        )
