"""The mechanism behind ``close_gracefully``.

Theory of operation
===================

**Why bytes get lost at the end.** A TCP socket that is closed with unread input sends a reset,
and the peer's kernel then throws away what it had received from us and its program had not
read yet. To be safe one ends the own direction, reads on until the peer has ended its own, and
closes only then: a *lingering close*. And one reads already while sending, for two peers that
both only write would wait for each other for ever.

**It is a close as every other** (``_core/_close.py``), with limits, with a task that discards
input while the close waits to send, and with a stage between sending and release. It is shielded,
for its limits are its own. If another task closes the stack already, it joins that close, and
brings its limits and its discarding.

**Of several for the same layers, one does the work**: two readers would take each other's input,
and a TLS session ends once. Those that come later bring their limits, and the tighter ones count
for all (:class:`Bounds`). So each of them returns within its own limits, and the stream is closed
then.

**Honesty.** To hand bytes to a kernel is not to deliver them, and the end-of-file of a peer may be
older than they are: one that has closed long ago answers them with a reset. So the outcome is
CLEAN only if a TCP peer has acknowledged them, and the evidence is looked at last. An end-of-file
after a reset is none.

**A truncated stack** (a torn message, a handler that was cut off) gets its accepted bytes
delivered, within the limits, and then the end that shows the truncation.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any, final

import trio
import trio.abc

from trio_asyncwrite._core._async_read import AsyncRead
from trio_asyncwrite._core._checks import inherits
from trio_asyncwrite._core._close import Close, Hardness, State, covers, enter, wait_done
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._frames import without_frames
from trio_asyncwrite._core._lifecycle import running_closes
from trio_asyncwrite._core._stack import attach, contains, held_by, writers_above, writing_chain
from trio_asyncwrite._core._waits import persist
from trio_asyncwrite._transports._send_stream import prepare_close_through
from trio_asyncwrite._transports._tcp_info import is_gone, next_pause
from trio_asyncwrite._transports._wrap_stream import wrap_stream

from ._bounds import Bounds
from ._discard import Discard
from ._report import CloseOutcome, CloseReport
from ._trio_ssl_stream import (
    as_ssl_stream,
    exchanges_close_notify,
    is_truncation,
    readable_part,
    ssl_stream_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trio_asyncwrite._core._async_write import AsyncWrite
    from trio_asyncwrite._core._layer import Layer

    from ._limits import Limits


def writer_of(stream: trio.abc.SendStream) -> AsyncWrite | None:
    """The stream as a writer; None if it is one that cannot be wrapped any more when closed."""
    if sys.platform != "win32" and inherits(stream, trio.lowlevel.FdStream):
        if stream.fileno() < 0:
            return None
    return wrap_stream(stream)


@final
@dataclasses.dataclass(slots=True, eq=False, repr=False)
class GracefulClose:
    """One graceful close, from its first moment to its report.

    Args:
        writer: the stack to end; not closed yet.
        limits: how long it may take.
        truncated: whether the caller knows that a message was cut short.
        caller: the task that gets the report; None for the one that runs it.
    """

    writer: AsyncWrite
    limits: Limits
    truncated: bool = False
    caller: trio.lowlevel.Task | None = None
    #: When it began, on Trio's clock.
    started: float = dataclasses.field(init=False)
    _bounds: Bounds = dataclasses.field(init=False)
    discard: Discard = dataclasses.field(init=False)
    #: The close that runs, or that was joined.
    close: Close = dataclasses.field(init=False)
    #: Where the evidence is: the writer, or after an unwrap the transport below.
    current: AsyncWrite = dataclasses.field(init=False)
    _is_late: bool = False
    #: Whether another task has begun the close; and whether it was cancelled, and this one goes on.
    joins: bool = False
    _has_taken_over: bool = False
    #: Whether other graceful closes wait for the report of this one; and what wakes them.
    _is_joined: bool = False
    _reported: trio.Event | None = None
    _report: CloseReport | None = None
    _is_over: bool = False
    error: Exception | None = None
    was_reset: bool = False
    state: State = State.WHOLE
    tls: trio.SSLStream[trio.abc.Stream] | None = None
    #: How much was discarded when lingering began.
    _lingers_from: int | None = None
    #: What was discarded above, before the discarding moved to a layer below.
    discarded_before: int = 0
    is_tcp: bool = False
    #: Whether all data is known to have arrived, so that only a close_notify can be lost now.
    delivered: bool = False
    unacknowledged: int | None = None
    sent: bool = False
    _sent_at_once: bool = False
    #: Whether a truncated stack has only to be closed.
    _has_arrived: bool = False
    unwrapped: bool = False
    #: A failure that cost no more than our close_notify, which a peer that has ended does not need.
    unheard: Exception | None = None
    _nursery: trio.Nursery | None = None

    def __post_init__(self) -> None:
        # Nothing is begun before run(), whose first `try` guarantees the release.
        self._bounds = Bounds(self.limits)
        self.started = self._bounds.started
        self.current = self.writer

    def time_is_up(self) -> None:
        """Send and wait no longer."""
        self.close.harden(Hardness.CUT_OFF, late=True)

    def caller_is_cancelled(self) -> None:
        """Send and wait no longer, unless others wait, within limits of their own."""
        if not self._is_joined:
            self.time_is_up()

    def tighten(self, limits: Limits) -> None:
        """Keep the limits of another graceful close of these layers, too."""
        self._bounds.tighten(limits)
        self.close.limit(self._bounds.send_by)
        if self._lingers_from is not None:
            self.discard.limit = self._lingers_from + self._bounds.linger_bytes
        _tighten(self.close.guests, limits)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> CloseReport:
        """Close, and report. Not cancelled; bounded by the limits.

        Checkpoints: other tasks run meanwhile, but a cancellation is delivered at the next one.
        """
        with trio.CancelScope(shield=True):
            self._report = await self.run_shielded()
        assert self._report is not None
        return self._report

    @trio.lowlevel.enable_ki_protection
    async def run_shielded(self) -> CloseReport:
        """The same, for who shields the call: a scope takes a tenth of the time of a close."""
        writer = self.writer
        if not writer.lifecycle.attached:
            attach(writer)
        has_begun = writer.lifecycle.close is not None
        self.close, others = close, _ = enter(writer, Hardness.CLEAN)
        close.note_known_to(self.caller)
        _tighten(others, self.limits)
        if has_begun and not covers(writer, close):
            # A handle whose original is being closed: the limits are for the handle alone.
            return await self._watch_within_limits(close)
        if isinstance(close.graceful, GracefulClose):
            return await self._join(close.graceful)
        close.graceful = self
        self.joins = has_begun or close.is_running
        token = running_closes.set((*running_closes.get(), close))
        interrupt: BaseException | None = None
        try:
            interrupt = self._prepare()
            if self._sent_at_once or (interrupt is not None and not self.joins):
                await close.run(self._linger)
            else:
                interrupt = await self._run_beside_discarding() or interrupt
            for other in others:
                await wait_done(other)
        finally:
            running_closes.reset(token)
            try:
                self._report = self._make_report()
                # A server counts what its handlers close.
                for layer in close.layers:
                    layer.lifecycle.report = self._report
            finally:
                close.graceful = None
                self._is_over = True
                if self._reported is not None:
                    self._reported.set()
        if not isinstance(close.error, Exception):
            interrupt = interrupt or close.error
        interrupt = interrupt or self.discard.interrupt
        # Exceptions refer to the frames they went through, and those to this object.
        self.error = self.unheard = self.discard.error = None
        if not self.joins or self._has_taken_over:
            close.error = None
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                interrupt = None
        return self._report

    async def _join(self, other: GracefulClose) -> CloseReport:
        """Let ``other`` do the work, within our limits too."""
        other.tighten(self.limits)
        other._is_joined = self._is_joined = True
        await other.wait_reported()
        return self._after(other)

    async def wait_reported(self) -> None:
        """Wait until there is a report."""
        if not self._is_over:
            if self._reported is None:
                self._reported = trio.Event()
            await self._reported.wait()

    @trio.lowlevel.enable_ki_protection
    async def watch(self, close: Close) -> CloseReport:
        """Wait for a close of another task, bring it nothing, and report; or leave if cancelled."""
        close.note_known_to()
        try:
            return await self._report_of(close)
        except trio.Cancelled:  # noqa: ASYNC103 - no Cancelled replaces the exception of a block
            error = trio.ClosedResourceError("another task was still closing the stream")
            elapsed = trio.current_time() - self.started
            return CloseReport(CloseOutcome.BROKEN, error=error, elapsed=elapsed)  # noqa: ASYNC104

    async def _watch_within_limits(self, close: Close) -> CloseReport:
        """The same; leave when our own limits are over."""
        limits = self.limits
        deadline = self.started + min(limits.timeout + limits.linger, limits.total)
        with trio.CancelScope(deadline=deadline):
            return await self._report_of(close)
        held = sum(held_by(one) or 0 for one in (self.writer, *writers_above(self.writer)))
        elapsed = trio.current_time() - self.started
        return CloseReport(CloseOutcome.TIMED_OUT, unsent_bytes=held, elapsed=elapsed)

    async def _report_of(self, close: Close) -> CloseReport:
        """Report a close when it has ended, or the one that it has become a part of."""
        graceful = close.graceful
        while not close.is_done or close.successor is not None:
            if close.successor is None:
                await close.next_news()
            else:
                close = close.successor
            graceful = close.graceful or graceful
        if isinstance(graceful, GracefulClose):
            await graceful.wait_reported()
            return self._after(graceful)
        self.close, self.sent, self.discard = close, close.sent, Discard(None, close)
        if close.was_broken:
            self._note(trio.BrokenResourceError(f"{self.writer!r} had failed before"))
        return self._make_report()

    def _after(self, other: GracefulClose) -> CloseReport:
        """The report of ``other``, with our time."""
        report = other._report or closed_before(self.writer)
        return dataclasses.replace(report, elapsed=trio.current_time() - self.started)

    def _prepare(self) -> BaseException | None:
        """Look at the stack; whatever its layers raise, it is closed.

        Returns:
            What interrupts: Ctrl-C, for example.
        """
        try:
            self._look_at_the_stack()
        except BaseException as exc:  # noqa: BLE001, ASYNC103 - reported, or raised after the release
            if not self.joins:
                self.close.harden(Hardness.CUT_OFF, hurried=False)
            if not isinstance(exc, Exception):
                return exc  # noqa: ASYNC104
            self._note(exc)
        return None

    def _look_at_the_stack(self) -> None:
        writer, close = self.writer, self.close
        self.discard = Discard(None, close)  # until it is known what there is to read from
        close.delivers = close.is_reported = True
        close.limit(self._bounds.send_by)
        if self.truncated:
            close.marked_truncated = True
        self.state = close.state()
        chain = writing_chain(writer)
        self.tls = ssl_stream_of([one for one in chain if one.lifecycle.close is close])
        self.discard.read_from(readable_part(self._drain_source()))
        unacknowledged = writer.unacknowledged_bytes
        self.is_tcp = unacknowledged is not None
        # Nobody but the close can write any more.
        self.delivered = (
            unacknowledged == 0
            and self.state is State.WHOLE
            and not any(map(close.held_by, close.layers))
            and all(
                layer.epilogue in (Epilogue.NOTHING, Epilogue.CLOSE_NOTIFY)
                for layer in close.layers
            )
        )
        for one in chain:
            if not contains(close.layers, one) and (
                one.lifecycle.released
                or not (one.lifecycle.close is None or close.is_host_of(one.lifecycle.close))
            ):
                self._note(_was_closed())
        if any(layer.was_reset for layer in close.layers):
            self._note(trio.BrokenResourceError("the connection had been reset before"))
            for layer in close.layers:
                layer.lifecycle.failure = layer.lifecycle.failure or self.error
                layer.lifecycle.update()
            self.state = State.BROKEN
        elif self.state is State.BROKEN:
            self._note(_failure_of(close))
        if not self.joins:
            # Where the waits do the sending, it is no matter of one poll.
            self._has_arrived = self.state is State.TRUNCATED and has_nothing_to_deliver(writer)
            self._sent_at_once = self._has_arrived or (
                self.state is State.WHOLE and not writer.close_patience and close.try_at_once()
            )
            if not self._sent_at_once:
                self._wake_foreign_readers()

    def _drain_source(self) -> trio.abc.ReceiveStream | None:
        """What to read to its end: whichever layer is closed, the same.

        A layer that decodes may need its input to be able to send, as TLS does for its handshake;
        and what the layers below it receive is not the peer's end. But above a layer over two
        streams, it would be that of the other stream.
        """
        for layer in self.close.order():
            if (
                layer.encodes
                and not contains(writers_above(layer), self.writer)
                and (
                    _reads_through(layer, self.writer)
                    or not contains(writers_above(self.writer), layer)
                )
            ):
                source = layer.drain_source()
                if source is not None:
                    return source
        return self.writer.drain_source()

    async def _run_beside_discarding(self) -> BaseException | None:
        interrupt: BaseException | None = None
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self.discard.run)
            try:
                if self.joins:
                    await self._run_joined()
                else:
                    await self.close.run(self._linger)
            except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised outside of the nursery
                interrupt = exc
            self._nursery.cancel_scope.cancel()
        return interrupt

    async def _run_joined(self) -> None:
        """Another task closes already: bring the limits, and go on if it is cancelled."""
        close = self.close
        with close.bounded():
            while close.is_running and not close.has_sent:
                await close.next_news()
            has_sent = close.has_sent
            if has_sent:
                await self._linger()
        if has_sent:
            await wait_done(close)
        else:
            self._has_taken_over = True
            await close.run(self._linger)

    def _wake_foreign_readers(self) -> None:
        """A task that waits for our descriptor through another object is in the way."""
        if not inherits(self.discard.source, AsyncRead):
            # A foreign stream might be broken by it.
            return
        for layer in self.close.layers:
            layer.end_use_by_others()
        fd: int | None = _answer(self.writer, "descriptor")
        if fd is not None and fd >= 0:
            trio.lowlevel.notify_closing(fd)

    # ---- Between sending and release -------------------------------------------------------

    async def _linger(self) -> None:
        close = self.close
        self.sent = close.sent
        if close.guests and self.state is State.WHOLE and self._was_late_above():
            # Time was up for a close of layers above: of a handle, for example.
            self._is_late = True
        elif self.state is not State.BROKEN and close.state() is State.TRUNCATED:
            # By a close of layers above that has come to its end meanwhile.
            self.state = State.TRUNCATED
        # When time is up, what is cut short fails: that is no news.
        if isinstance(close.error, Exception) and not close.was_late:
            self._note_sending(close.error)
        if self.tls is not None and self.sent:
            await self._end_ssl_stream(self.tls)
        if self.state in (State.TRUNCATED, State.BROKEN):
            await self._deliver()
            if self.state is State.TRUNCATED and close.note_completion():
                self.state, self.sent = close.state(), True
        elif self._is_worth_lingering():
            self._lingers_from = self.discard.discarded
            self.discard.limit = self._lingers_from + self._bounds.linger_bytes
            if self._reads_itself():
                await self.discard.read(waits=False)
            # If the peer has ended already, there is nothing to bound.
            if not self.discard.is_over or self._is_unacknowledged():
                with trio.CancelScope() as scope:  # noqa: ASYNC912 - polls may be through at once
                    self._bounds.bound_lingering(scope, self.close)
                    await self._discard_to_the_end()
                    await self._wait_acknowledged()
        # Before the release: a read that this ends would look like a stream that cannot be read.
        self.discard.stop()
        # The evidence comes last, when nothing can change it any more.
        self.was_reset = any(self._answers("was_reset"))
        if self.unacknowledged != 0:  # or it was seen that nothing is, which stays so
            self.unacknowledged = self._unacknowledged_bytes()

    def _is_worth_lingering(self) -> bool:
        if self.sent:
            return self.tls is not None or bool(_answer(self.writer, "half_closes"))
        # Has the peer ended properly, and closed before it could hear our close_notify?
        return self.unheard is not None

    def _reads_itself(self) -> bool:
        """Whether there is no task that discards what comes in."""
        return self._nursery is None and not self.joins

    def _discard_to_the_end(self) -> Awaitable[None]:
        if self._reads_itself():
            self._wake_foreign_readers()
            return self.discard.read()
        return self.discard.wait_over()

    async def _deliver(self) -> None:
        """Wait until the bytes that a truncated stack has accepted have arrived."""
        if self._has_arrived or any(
            layer.lifecycle.failure is not None for layer in self.close.layers
        ):
            return
        with trio.CancelScope() as scope:  # noqa: ASYNC912 - polls may be through at once
            self._bounds.bound_lingering(scope, self.close)
            since = trio.current_time()
            if self._unacknowledged_bytes() is None:
                # The peer's end is the only sign.
                await self._discard_to_the_end()
                return
            # There is no event for it. After a reset the count stays as it was.
            while self._unacknowledged_bytes() and not _answer(self.writer, "was_reset"):  # noqa: ASYNC110
                await trio.sleep(next_pause(trio.current_time() - since))

    async def _end_ssl_stream(self, tls: trio.SSLStream[trio.abc.Stream]) -> None:
        """Exchange close_notify, and half-close the transport below, however deep TLS is."""
        current: trio.SSLStream[trio.abc.Stream] | None = tls
        transport: trio.abc.Stream | None = None
        while current is not None:
            transport = current.transport_stream
            if exchanges_close_notify(current):
                if not await self._exchange_close_notify(current):
                    return
                if transport is not None and not self.discard.peer_closed:  # type: ignore[redundant-expr]
                    # The session is over, by some failure; but what we sent is on its way.
                    self._note(self.discard.error)
                    await self._discard_below(transport)
            if transport is None:
                self._note(trio.ClosedResourceError(f"{current!r} was unwrapped before"))
                self.sent = False
                return
            current = as_ssl_stream(transport)
        assert transport is not None
        self.current = wrap_stream(transport)
        self.sent = await self._within_time(self.current.shutdown)
        # The SSLStream has given it up, so nobody else closes it.
        self.close.include(self.current)

    async def _discard_below(self, transport: trio.abc.Stream) -> None:
        self.discarded_before += self.discard.discarded
        self.discard = Discard(transport, self.close)
        assert self._nursery is not None
        self._nursery.start_soon(self.discard.run)

    async def _within_time(self, operation: Callable[[], Awaitable[object]]) -> bool:
        """Try an operation of a foreign stream in the time for sending; whether it succeeded."""
        with trio.CancelScope() as scope:  # noqa: ASYNC912 - polls may be through at once
            self._bounds.bound_sending(scope, self.close)
            try:
                await persist(operation)
            except Exception as exc:  # noqa: BLE001 - it is reported
                self._note_close_notify(exc)
                return False
        self._is_late = self._is_late or scope.cancelled_caught
        return not scope.cancelled_caught

    async def _exchange_close_notify(self, tls: trio.SSLStream[trio.abc.Stream]) -> bool:
        # It does not read while it sends, so see to it while we discard that it can send.
        with trio.CancelScope() as waiting:  # noqa: ASYNC912 - polls may be through at once
            self._bounds.bound_sending(waiting, self.close)
            try:
                await persist(tls.wait_send_all_might_not_block)
            except Exception as exc:  # noqa: BLE001 - it is reported
                self._note_close_notify(exc)
        self.sent = not waiting.cancelled_caught
        if not self.sent:
            self._is_late = True
            return False
        # unwrap reads as well.
        self.discard.stop()
        await self.discard.wait_over()
        if self._bounds.linger == 0:
            # unwrap waits for the answer; its aclose sends close_notify and does not.
            with trio.CancelScope() as closing:
                closing.deadline = trio.current_time() + self.writer.close_patience
                prepare_close_through(tls, reset=False)
                await persist(tls.aclose)
            self.sent = not closing.cancelled_caught
            self._is_late = self._is_late or closing.cancelled_caught
            return False
        with trio.CancelScope() as lingering:  # noqa: ASYNC912 - polls may be through at once
            self._bounds.bound_lingering(lingering, self.close)
            try:
                _, rest = await persist(tls.unwrap)
                self.unwrapped = self.discard.peer_closed = True
                self.discard.discarded += len(rest)
            except Exception as exc:  # noqa: BLE001 - it is reported
                self._note_close_notify(exc)
        if lingering.cancelled_caught and self.discard.peer_closed:
            # The peer's close_notify was there, so it is ours that has not gone.
            self.sent, self._is_late = False, True
        return not lingering.cancelled_caught

    def _answers(self, name: str) -> list[Any]:
        """What the layers of the close know, those of the uppermost first."""
        answers = [_answer(layer, name) for layer in self.close.order()]
        return [one for one in answers if one is not None]

    def _close_notify_received(self) -> bool | None:
        return next(iter(self._answers("close_notify_received")), self.unwrapped or None)

    def _unacknowledged_bytes(self) -> int | None:
        count: int | None = _answer(self.current, "unacknowledged_bytes")
        return count

    def _is_unacknowledged(self) -> bool:
        """Whether the peer has ended, and its kernel has not taken our last bytes yet."""
        if not (self.sent and self.discard.peer_closed):
            return False
        self.unacknowledged = self._unacknowledged_bytes()
        return bool(self.unacknowledged)

    async def _wait_acknowledged(self) -> None:
        """After the peer's end: see whether its kernel takes the last bytes, or resets."""
        since: float | None = None
        while self._is_unacknowledged():
            fd = self.current.descriptor
            if fd is not None and is_gone(fd):
                self._note_sending(trio.BrokenResourceError("the peer had closed before"))
                return
            now = trio.current_time()
            since = now if since is None else since
            await trio.sleep(next_pause(now - since))

    def _note(self, exc: Exception | None) -> None:
        """Keep the first failure: those after it mostly follow from it."""
        self.error = self.error or exc

    def _note_sending(self, exc: Exception) -> None:
        if self.delivered:
            self.unheard = self.unheard or exc
        else:
            self._note(exc)

    def _note_close_notify(self, exc: Exception) -> None:
        if self.discard.peer_closed:
            self._note_sending(exc)
        else:
            self._note(exc)

    # ---- The report ------------------------------------------------------------------------

    def _guests_below(self) -> list[Close]:
        """The other closes of layers that our bytes pass, which go on beside this one."""
        below = writing_chain(self.writer)
        return [
            guest
            for guest in self.close.guests
            if any(contains(below, one) for one in guest.layers)
        ]

    def _was_late_above(self) -> bool:
        """Whether time was up for another close, of layers above."""
        below = self._guests_below()
        return any(guest.was_late for guest in self.close.guests if guest not in below)

    def _make_report(self) -> CloseReport:
        close, discard = self.close, self.discard
        is_aborted = close.hardness is Hardness.ABORTED
        was_cut_short = close.was_late and not self.sent
        if isinstance(close.error, Exception) and not (was_cut_short or self.error or self.unheard):
            self._note_sending(close.error)
        if discard.error is not None and is_truncation(discard.error):
            # The TLS session has no proper end, but the transport below has.
            discard.peer_closed = True
        parts = self._guests_below() if close.guests else []
        # Of a truncated end, the outcome tells.
        if self.state is not State.TRUNCATED and not all(part.sent for part in parts):
            self._note(
                trio.ClosedResourceError("another task closed a layer below, and lost bytes")
            )
        if self.was_reset:
            reset = trio.BrokenResourceError("the connection was reset")
            has_ended = self.tls is not None and discard.peer_closed
            if has_ended or self._close_notify_received():
                # The session had ended before, so at most our close_notify was lost.
                self._note_close_notify(reset)
            else:
                # Somebody was told of it. From then on, reading gives end-of-file.
                discard.peer_closed = False
                self._note(reset)
        if close.was_hurried and not (was_cut_short or self.sent or self.error or is_aborted):
            self._note(trio.ClosedResourceError("another task cut the close short"))
        ended = bool(discard.peer_closed) and discard.error is None
        # A failure of before was the first. Discarding goes on only while the sender is well: if
        # both failed, its failure was the first.
        first, second = discard.error, self.error
        if self.state is State.BROKEN:
            first, second = second, first
        error = first or second or (None if ended else self.unheard)
        return CloseReport(
            self._outcome(error, ended=ended),
            unsent_bytes=close.lost_bytes(*parts),
            unacknowledged_bytes=self.unacknowledged,
            discarded_bytes=self.discarded_before
            + discard.discarded
            + sum(layer.discarded_bytes for layer in close.layers),
            peer_closed=discard.peer_closed,
            close_notify_received=self._close_notify_received(),
            error=None if error is None else without_frames(error),
            elapsed=trio.current_time() - self.started,
        )

    def _outcome(self, error: Exception | None, *, ended: bool) -> CloseOutcome:
        close = self.close
        is_too_slow = isinstance(error, trio.TooSlowError)
        if close.hardness is Hardness.ABORTED:
            return CloseOutcome.ABORTED
        if self.state is State.BROKEN or not (error is None or is_too_slow):
            return CloseOutcome.BROKEN
        # Also if time was up, ours or that of a layer, whichever was first.
        if self.state is State.TRUNCATED or close.marked_truncated:
            return CloseOutcome.TRUNCATED
        if is_too_slow:
            return CloseOutcome.TIMED_OUT
        if self.unheard is None:
            if not self.sent and (close.was_late or self._is_late):
                return CloseOutcome.TIMED_OUT
            if close.is_truncated or not self.sent:
                return CloseOutcome.TRUNCATED if close.is_truncated else CloseOutcome.BROKEN
        if ended and (self.delivered or self.unacknowledged == (0 if self.is_tcp else None)):
            return CloseOutcome.CLEAN
        return CloseOutcome.PEER_SILENT


def has_nothing_to_deliver(writer: AsyncWrite) -> bool:
    """Whether all that a stack has accepted is known to have arrived.

    Then a truncated one has only to be closed, and there is nothing to wait for.
    """
    return (
        all(held_by(one) == 0 for one in (*writers_above(writer), *writing_chain(writer)))
        and _answer(writer, "unacknowledged_bytes") == 0
    )


def _reads_through(upper: Layer, lower: Layer) -> bool:
    """Whether the input of ``upper`` comes from ``lower``."""
    one: Layer | None = upper
    while one is not None and one is not lower:
        one = one.lifecycle.inner
    return one is not None


def _tighten(closes: Sequence[Close], limits: Limits) -> None:
    for one in closes:
        if isinstance(one.graceful, GracefulClose):
            one.graceful.tighten(limits)


def _answer(layer: Layer, name: str) -> Any:
    """What ``layer`` answers; None, which is unknown, if it raises."""
    try:
        return getattr(layer, name)
    except Exception:  # noqa: BLE001 - a user's property; the report says what is known
        return None


def _failure_of(close: Close) -> Exception:
    """The error that a stack which has failed before gives."""
    failure = next(
        one.lifecycle.failure for one in close.layers if one.lifecycle.failure is not None
    )
    error = trio.BrokenResourceError(f"{close.layers[0]!r} has failed before: {failure!r}")
    error.__cause__ = failure
    return error


def _was_closed() -> trio.ClosedResourceError:
    return trio.ClosedResourceError("the stream was closed before this call")


def closed_before(writer: AsyncWrite | None) -> CloseReport:
    """All that can be said about a stream that was closed before."""
    return CloseReport(
        CloseOutcome.BROKEN,
        unsent_bytes=0 if writer is None else writer.unsent_bytes,
        close_notify_received=None if writer is None else _answer(writer, "close_notify_received"),
        error=_was_closed(),
    )


@trio.lowlevel.enable_ki_protection
async def end_stream(
    stream: trio.abc.SendStream,
    limits: Limits,
    *,
    truncated: bool = False,
    is_shielded: bool = False,
    caller: trio.lowlevel.Task | None = None,
) -> CloseReport:
    """See :func:`close_gracefully`.

    Args:
        stream: the stream to end.
        limits: how long it may take.
        truncated: whether the body of ``graceful`` has raised. Then a close that another task has
            begun is waited for, and no more.
        is_shielded: whether the caller shields the call.
        caller: see :class:`GracefulClose`.
    """
    writer = writer_of(stream)
    if (
        writer is None
        or writer.lifecycle.is_gone()
        # Called from inside of the running close, which does the rest.
        or writer.lifecycle.is_closed_from_here()
    ):
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        return closed_before(writer)
    closing = GracefulClose(writer, limits, truncated=truncated, caller=caller)
    running = writer.lifecycle.close
    if truncated and isinstance(running, Close):
        return await closing.watch(running)
    return await (closing.run_shielded() if is_shielded else closing.run())
