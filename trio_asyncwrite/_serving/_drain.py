"""The end of a server, and the report of it."""

from __future__ import annotations

import contextlib
import math
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

import trio

from trio_asyncwrite._closing._limits import (
    DEFAULT_LINGER,
    DEFAULT_LINGER_BYTES,
    DEFAULT_TIMEOUT,
    Limits,
)
from trio_asyncwrite._core._checks import counted, not_negative

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from trio_asyncwrite._closing._report import CloseOutcome, CloseReport

DEFAULT_GRACE: Final = 30.0


@final
class Drain:
    """Tells servers when to end, and how long that may take.

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

    Several servers may share one Drain. A Drain can be used once, in one
    ``trio.run``.

    The server closes the stream that it has handed out, with every layer that the handler has put
    above it: what a forgotten ``BufWriter(stream)`` holds is sent.

    Args:
        grace: how long handlers may go on, in seconds. Those that still run then are cancelled;
            they have 0.25 seconds to return before their streams are closed, and the bytes that
            they had written have half a second to arrive.
        timeout: how long to try to send what is left when a handler has ended, in seconds: see
            :func:`close_gracefully`. Once the drain has started, ``grace`` bounds it as well.
        linger: how long to wait for the peer's end after that, in seconds; bounded likewise.
        linger_bytes: how many bytes to receive and discard while lingering, at most.

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
        self._grace = not_negative(grace, "grace")
        # The limits of each connection's close; for servers.
        self.limits: Limits = Limits(timeout, linger, linger_bytes)
        # When it has started, on Trio's clock; for servers.
        self.started_at: float = math.inf
        self._scopes: set[trio.CancelScope] = set()
        self._run: trio.lowlevel.TrioToken | None = None

    @property
    def started(self) -> bool:
        """Whether the drain has started."""
        return self.started_at < math.inf

    @property
    def deadline(self) -> float:
        """When it is to be over, on Trio's clock; infinity before it has started."""
        return self.started_at + self._grace

    def _check_run(self) -> None:
        """Its times and scopes belong to one run of Trio.

        Raises:
            RuntimeError: if this is another run than the one that it was started or is used in.
        """
        run = trio.lowlevel.current_trio_token()
        if run is not self._run:
            if self.started or self._scopes:
                raise RuntimeError("this Drain belongs to another trio.run: make a new one")
            self._run = run

    def start(self) -> None:
        """Start the drain; when it has started already, do nothing.

        Out of another thread: ``trio.from_thread.run_sync(drain.start)``.

        Raises:
            RuntimeError: if it is in use in another ``trio.run``.
        """
        if not self.started:
            self._check_run()
            self.started_at = trio.current_time()
            for scope in self._scopes:
                scope.deadline = self.started_at

    async def wait_started(self) -> None:
        """Wait until the drain has started.

        Raises:
            RuntimeError: if that was, or is to be, in another ``trio.run``.

        Cancellation: nothing happened.
        """
        with self.until_started():
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()

    @contextlib.contextmanager
    def until_started(self) -> Generator[trio.CancelScope]:
        """A block that is cancelled when the drain starts; if it has started, at the first wait.

        Put it around the wait for a request's *first* bytes, and around nothing else: read the
        rest of a request outside of it. Bytes that have arrived are received even when the drain
        has started, because that needs no wait. So read the next request until there is none, and
        do not look at :attr:`started`. (Over TLS this is true once the handshake is complete.
        Before that, there is no request yet.)

        Yields:
            The cancel scope; its ``cancelled_caught`` says whether the block was cut short. Its
            deadline is the drain's business: for a timeout, use another scope.

        Raises:
            RuntimeError: if the drain was started, or is in use, in another ``trio.run``.
        """
        self._check_run()
        with trio.CancelScope() as scope:
            # Now, and not before: it would be cancelled already, at its first checkpoint and not at
            # its first wait.
            scope.deadline = self.started_at
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
            RuntimeError: if this is not Python's main thread, the only one to get signals; or if
                the drain was started, or is in use, in another ``trio.run``.

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
    #: How many were closed by their handlers, which alone know how they ended. One that was closed
    #: by :func:`close_gracefully` or :class:`graceful` counts by its outcome instead.
    closed_by_handler: int
    #: How many handlers still ran when time was up: they were cancelled. The server closed the
    #: streams of those that did not return then.
    cancelled: int
    #: Bytes that were never sent, over all connections that have a report.
    unsent_bytes: int
    #: The reports of the connections that were closed after the drain had started, in that order.
    #: Connections that were closed before are only counted.
    reports: tuple[CloseReport, ...] = field(repr=False)
    #: How long the drain took, in seconds of Trio's clock.
    elapsed: float
    #: TLS: how many connections failed in their handshake, or were too slow. Their handlers were
    #: not called; they count in ``connections``, and in no other field.
    failed_handshakes: int = 0
    #: How many times ``on_error`` was called.
    failed_handlers: int = 0

    def __str__(self) -> str:
        facts = [f"{count} {outcome.value}" for outcome, count in self.outcomes.items()]
        facts += [
            fact
            for count, fact in (
                (self.closed_by_handler, f"{self.closed_by_handler} closed by a handler"),
                (self.cancelled, f"{counted(self.cancelled, 'handler')} cancelled"),
                (self.failed_handlers, f"{counted(self.failed_handlers, 'handler')} failed"),
                (self.failed_handshakes, f"{counted(self.failed_handshakes, 'handshake')} failed"),
                (self.unsent_bytes, f"{counted(self.unsent_bytes, 'byte')} unsent"),
            )
            if count
        ]
        connections = counted(self.connections, "connection")
        return ", ".join([f"drained in {self.elapsed:.3f} s: {connections}", *facts])
