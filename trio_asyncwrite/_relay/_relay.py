"""Both directions between two streams."""

from __future__ import annotations

import contextlib
import math
from typing import final

import trio
import trio.abc

from trio_asyncwrite._core._async_read import claim_reading
from trio_asyncwrite._core._checks import above_zero, checked_buffer_size
from trio_asyncwrite._core._errors import BusyRefusal

from ._copy import DEFAULT_SIZE
from ._lane import Lane, LaneOutcome, LaneRun


@final
class Relay:
    """Passes bytes between two streams, in both directions, until both have ended.

    The end of one direction is passed on as a shutdown, and the other direction goes on. What one
    side sends is flushed whenever its source has nothing more at the moment. An end is only passed
    on if it is a proper one: if the source fails, the target is aborted.

    If :meth:`run` is cancelled, no byte is lost: call it again. Bytes that were received and not
    yet sent stay here, and until then nothing else can be written to their target (except to a
    :class:`SharedWriter`, whose other messages go on). If you do not
    go on, :func:`abort` the streams, or use :class:`graceful`: a plain ``aclose`` of a stream whose
    bytes are all sent is a proper end.

    A stream that fails is an outcome, not an exception: see :attr:`a_to_b` and :attr:`b_to_a`.
    Neither stream is closed, except one that is aborted. ::

        async with graceful(client), graceful(server):
            relay = Relay(client, server, half_open=60)
            await relay.run()
            print(relay.a_to_b, relay.b_to_a)

    Args:
        a: one stream: any :class:`trio.abc.Stream`. :class:`ReadWritePair` makes one of a reader
            and a writer. It is written to through :func:`wrap_stream`.
        b: the other stream.
        half_open: once one direction is over, how many seconds the other one may go on without
            moving a byte; ``None`` for ever. While both are open, nothing is limited.
        buffer_size: how many bytes to receive at once, and so to hold, at most. An idle relay holds
            no buffer. While much comes through, it is four times as many, but not above 1 MiB:
            in the kernel between two sockets or pipes on Linux, and elsewhere unless the other side
            is slow.

    Raises:
        TypeError: if ``a`` or ``b`` is not a :class:`trio.abc.Stream`, or an argument is not a
            number.
        ValueError: if ``a`` and ``b`` are the same stream, or over the same transport,
            ``half_open`` is not above 0, or ``buffer_size`` less than 1 or more than 1 GiB.

    Source: ``tokio::io::copy_bidirectional``.
    """

    def __init__(
        self,
        a: trio.abc.Stream,
        b: trio.abc.Stream,
        *,
        half_open: float | None = None,
        buffer_size: int = DEFAULT_SIZE,
    ) -> None:
        for stream in (a, b):
            if not isinstance(stream, trio.abc.Stream):
                raise TypeError(
                    f"expected a trio.abc.Stream, got {type(stream).__name__}: to join a reader "
                    f"and a writer there is ReadWritePair"
                )
        if a is b:
            raise ValueError("expected two streams, got the same one twice: to echo there is copy")
        limit = math.inf if half_open is None else above_zero(half_open, "half_open", "None")
        size = checked_buffer_size(buffer_size)
        self._runs = (LaneRun(a, b, limit, size), LaneRun(b, a, limit, size))
        for one in self._runs:
            if one.is_circular:
                raise ValueError(f"{a!r} and {b!r} are over one transport: to echo there is copy")
        self._streams = (a, b)
        self._is_running = False
        self._mistake: BaseException | None = None
        #: What is received from ``a`` and sent to ``b``.
        self.a_to_b: Lane = Lane(self._runs[0])
        #: What is received from ``b`` and sent to ``a``.
        self.b_to_a: Lane = Lane(self._runs[1])

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Pass bytes on until both directions have an outcome.

        While it runs, no other task may receive from the two streams.

        Raises:
            trio.BusyResourceError: if another task runs it, receives from a stream, or uses one
                that is written to. The relay can go on.
            trio.BrokenResourceError: if a stream has an unfinished Buf of somebody else. Once
                that is finished, the relay can go on.
            ValueError: if a layer above a stream that is to be shut down holds bytes. Once it is
                flushed, the relay can go on.
            Exception: if a stream raises what is no failure of a connection, but a mistake in the
                stream's code. It is also in :attr:`Lane.error`. The other direction can go on.

        Cancellation: resumable; what was received and not sent stays here.

        Source: ``tokio::io::copy_bidirectional``.
        """
        if self._is_running:
            raise BusyRefusal(f"another task is running {self!r}")
        self._is_running = True
        claimed: list[LaneRun] = []
        try:
            await trio.lowlevel.checkpoint()
            todo = [one for one in self._runs if one.outcome is LaneOutcome.RUNNING]
            for one in todo:
                # A source that is closed is its lane's outcome.
                with contextlib.suppress(trio.ClosedResourceError):
                    claim_reading(one.source)
                    claimed.append(one)
            await self._run_all(todo)
        finally:
            self._is_running = False
            for one in claimed:
                one.source.lifecycle.reading = False

    async def _run_all(self, todo: list[LaneRun]) -> None:
        async with trio.open_nursery() as nursery:
            for one in todo:
                nursery.start_soon(self._run_one, one, nursery.cancel_scope)
        mistake, self._mistake = self._mistake, None
        if mistake is not None:
            try:
                raise mistake
            finally:
                del mistake

    @trio.lowlevel.enable_ki_protection
    async def _run_one(self, lane: LaneRun, scope: trio.CancelScope) -> None:
        try:
            await lane.run()
        except trio.Cancelled:
            raise
        except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised when the other has stopped
            self._mistake = self._mistake or exc
            scope.cancel()
        finally:
            if lane.outcome is not LaneOutcome.RUNNING:
                for other in self._runs:
                    other.limit()

    def __repr__(self) -> str:
        a, b = self._streams
        return f"<Relay between {a!r} and {b!r}>"


async def copy_bidirectional(
    a: trio.abc.Stream,
    b: trio.abc.Stream,
    *,
    half_open: float | None = None,
    buffer_size: int = DEFAULT_SIZE,
) -> Relay:
    """Pass bytes between two streams, in both directions, until both have ended.

    It makes a :class:`Relay` and runs it. Make one yourself to read its counts after a
    cancellation, or to go on then.

    Args:
        a: as for :class:`Relay`.
        b: as for :class:`Relay`.
        half_open: as for :class:`Relay`, in seconds.
        buffer_size: as for :class:`Relay`, in bytes.

    Returns:
        The relay, for its counts and outcomes. A stream that has failed is an outcome, and no
        exception.

    Raises:
        TypeError: as :class:`Relay`.
        ValueError: as :class:`Relay`.
        trio.BusyResourceError: if another task receives from a stream, or uses one that is written
            to.

    Cancellation: lost: what was received and not sent is gone with the relay; then the end of the
        stream that lacks it is a truncated one.

    Source: ``tokio::io::copy_bidirectional``.
    """
    relay = Relay(a, b, half_open=half_open, buffer_size=buffer_size)
    await relay.run()
    return relay
