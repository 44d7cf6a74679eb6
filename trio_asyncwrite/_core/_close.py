"""The close of a stack: one for all layers that end together.

Theory of operation
===================

**Extent.** A close of a layer is the close of everything above it and of everything that any of
these owns below (:func:`extent_of`). From its first moment all of them refuse everybody but the
close itself, and the tasks inside them are evicted: what they had begun is settled first, so the
close knows whether a message was torn.

**Closes unite.** Who closes a layer that is being closed joins (:func:`enter`). One task runs the
close, the others wait. A later close can only make it harder (:meth:`Close.harden`).

**A close that has limits stays what it is.** Its limits are those of its own layers. So a wider
close that meets it (of the original of a handle, of the pair above a writer) goes on beside it, as
its *host*: it waits until those layers have been sent, passes its own limits on, and makes it
harder when it gets harder itself.

**Three stages.** *Sending*: every layer in turn, uppermost first, is polled to its end: flush,
epilogue, half-close. A layer's ``poll_shutdown`` also shuts down the one below it; where that one
has other layers above it that have not ended, this call does nothing yet (``postpones``).
*Lingering*: graceful closes hold the release back until they have seen the peer's end. *Releasing*:
guaranteed by the first ``try``.

**The state of the stack decides how it ends** (:class:`State`): a whole one waits as long as it
takes, an abandoned one is polled once, a truncated one ends at once and shows it. Only graceful
closes, which have limits, wait for a truncated one's accepted bytes (``delivers``).
"""

from __future__ import annotations

import contextlib
import enum
import math
import weakref
from typing import TYPE_CHECKING, Final, final

import trio

from ._budget import SPENT
from ._epilogue import Epilogue
from ._errors import ClosedRefusal, CutShort, NotReady
from ._lifecycle import (
    CLOSED,
    ENDED,
    ENDING,
    OPEN,
    Closer,
    Interrupt,
    Torn,
    lift,
    running_closes,
)
from ._stack import (
    above,
    attach,
    below,
    contains,
    epilogue_of,
    held_by,
    held_for,
    held_for_some,
    is_counted,
    is_layer,
    keep_witness,
    lacks_epilogue,
    not_held_below,
    number,
    owes_epilogue,
    poll_step,
    readers_above,
    says_what_is_below,
    settle,
    shut_above,
    stated_below,
    tear,
    unregister,
    warn_unraisably,
    writers_above,
    writing_chain,
    written_below,
)
from ._waits import BUSY_PAUSE, persist

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence

    from ._layer import Layer


# Why a layer is torn that stays open below one that was closed. An abort is on purpose: nobody is
# warned of it.
_CUT_OFF_TEXT: Final = "a layer above it was closed before it had written everything"
_ABORTED_TEXT: Final = "a layer above it was aborted"


class Hardness(enum.IntEnum):
    """How much a close still tries; it only grows."""

    #: Wait for as long as it takes.
    CLEAN = 0
    #: Poll each layer's flush once, and end.
    CUT_OFF = 1
    #: Send nothing more.
    ABORTED = 2


class State(enum.Enum):
    """What a stack is like when it is closed; the first that applies counts."""

    BROKEN = "broken"
    TRUNCATED = "truncated"
    ABANDONED = "abandoned"
    WHOLE = "whole"


def _is_half_written(layer: Layer) -> bool:
    """Whether the layer's epilogue, which is not complete, is data and was begun."""
    return layer.lifecycle.phase is ENDING and epilogue_of(layer) is Epilogue.DATA


def _uppermost_first(layers: Sequence[Layer]) -> list[Layer]:
    found: list[Layer] = []
    for layer in layers:
        _visit(layer, layers, found)
    return found


def _visit(layer: Layer, layers: Sequence[Layer], found: list[Layer]) -> None:
    """Add ``layer`` to ``found``, after those of ``layers`` that are above it."""
    if contains(found, layer):
        return
    for upper in above(layer):
        if contains(layers, upper):
            _visit(upper, layers, found)
    found.append(layer)


def _line_through(layer: Layer) -> list[Layer] | None:
    """The layers of a stack that has no branches, uppermost first; None if it may have some."""
    top = layer
    while uppers := above(top):
        if uppers[0].lifecycle.inner is not top:
            return None
        top = uppers[0]
    line: list[Layer] = []
    one: Layer | None = top
    while one is not None:
        lifecycle = one.lifecycle
        if (
            lifecycle.refusal is CLOSED
            or one.overrides_owns_below
            or (len(lifecycle.above) > 1 and len(above(one)) > 1)
            or (not lifecycle.is_single and says_what_is_below(one))
        ):
            return None
        line.append(one)
        one = lifecycle.inner
    return line


def _owns_below(layer: Layer, is_closing: Callable[[object], bool]) -> bool:
    """The answer ``owns_below``; one that raises is unknown, and then it is the default."""
    try:
        return layer.owns_below(is_closing)
    except Exception:  # noqa: BLE001 - a mistake of a user must not keep a stack open
        return True


def extent_of(roots: list[Layer]) -> tuple[list[Layer], list[Layer]]:
    """What a close of ``roots`` closes, and the layers above of which it ends only one side."""
    layers = [root for root in roots if not root.lifecycle.released]
    foreign: list[object] = []

    def is_closing(one: object) -> bool:
        return (
            contains(layers, one)
            or any(one is other for other in foreign)
            or (is_layer(one) and (one.lifecycle.released or one.lifecycle.close is not None))  # type: ignore[attr-defined]
        )

    grown = True
    while grown:
        grown = False
        for layer in list(layers):
            if _owns_below(layer, is_closing):
                for one in (*stated_below(layer), *layer.foreign_below):
                    # Also those that another close has: it is to be met.
                    if is_layer(one) and not (contains(layers, one) or one.lifecycle.released):  # type: ignore[attr-defined]
                        layers.append(one)  # type: ignore[arg-type]
                        grown = True
                    elif not is_closing(one):
                        foreign.append(one)
                        grown = True
            for upper in above(layer):
                if (
                    not contains(layers, upper)
                    and not upper.lifecycle.released
                    and all(map(is_closing, stated_below(upper)))
                ):
                    layers.append(upper)
                    grown = True
    sides: list[Layer] = []
    for layer in layers:
        for upper in writers_above(layer):
            if not contains(layers, upper) and not contains(sides, upper):
                sides.append(upper)
    return layers, sides


@final
class Close(Closer):
    """A close at work. Made by :func:`enter`, run by its first caller."""

    # The first values are the class's, so that making a close costs little.
    layers: Sequence[Layer] = ()
    #: The layers above ours that also write to others: with this close, one side of them ends.
    sides: Sequence[Layer] = ()
    #: Other closes, of layers in our extent, that go on beside this one. Each may write through
    #: the layers of the other, and ours wait for those above them.
    guests: Sequence[Close] = ()
    #: The layer that is shut down now, and those that its shutdown reaches.
    _chain: Sequence[Layer] = ()
    #: The layers whose bytes are somebody's; known before the release.
    _counted: Sequence[Layer] = ()
    #: The sides that had failed before the close, which their users know.
    told_sides: Sequence[Layer] = ()
    #: The sides that cannot write their epilogue any more, to whatever stream.
    _lacking_sides: Sequence[Layer] = ()
    is_line: bool = False
    #: Whether it is a line of which every layer was open and well, and nobody was inside.
    is_quiet: bool = False
    waits_briefly: bool = False
    hardness: Hardness = Hardness.CLEAN
    #: Whether a truncated stack's accepted bytes are waited for.
    delivers: bool = False
    #: Whether a graceful close makes a report of it.
    is_reported: bool = False
    #: Whether whoever makes it reports what its layers lose, so that no ``aclose`` has to tell it.
    tells_users: bool = False
    #: The tasks that have made it harder, or get a report: their ``aclose`` tells them no loss.
    loss_known_to: tuple[weakref.ref[trio.lowlevel.Task], ...] = ()
    #: Whether a server or ``graceful`` has said that a message was cut short.
    marked_truncated: bool = False
    #: Whether every layer's shutdown was completed.
    sent: bool = False
    #: Whether the stack ended, or will end, so that its peer should see the truncation.
    is_truncated: bool = False
    #: Whether something of a side could not be written for our stream alone. A close of the whole
    #: side may do so, as long as we have not released.
    _cuts_sides: bool = False
    #: What a warning says of a message, or an epilogue, that was cut short.
    cut_short_text: str = ""
    #: The first failure that nobody was told of before; and what a wait has raised.
    error: BaseException | None = None
    #: Whether somebody else than the task that runs it has made it harder.
    was_hurried: bool = False
    #: Whether a task waits for its end that cannot wait for a peer, so nobody lingers.
    is_urgent: bool = False
    #: Whether a layer had failed before the close, which the user knows.
    was_broken: bool = False
    #: Whether those who wait for it are to be told that it was cut short, or has failed.
    fell_short: bool = False
    #: Whether an epilogue is missing, even if the end is plain.
    _lacks_epilogue: bool = False
    #: Whether the stack was torn or abandoned before.
    _is_given_up: bool = False
    is_running: bool = False
    #: The graceful close that brings limits, reads what comes in, and makes the report: one for
    #: all that join.
    graceful: object = None
    #: The close that this one has become a part of.
    successor: Close | None = None
    #: When all waits of limited length are over, together, on Trio's clock.
    _brief_deadline: float = math.inf
    #: Whether the sending stage is over, and whether all is.
    has_sent: bool = False
    is_done: bool = False
    #: When sending has taken long enough, on Trio's clock.
    deadline: float = math.inf
    was_late: bool = False
    #: Whether a graceful close of another task holds the release back, and may take over.
    _is_bounded: bool = False
    _news: trio.Event | None = None
    #: Around the wait that is made now.
    _scope: trio.CancelScope | None = None
    _lingering: tuple[trio.CancelScope, ...] = ()
    _order: Sequence[Layer] | None = None

    # ---- The extent ------------------------------------------------------------------------

    def is_host_of(self, other: object) -> bool:
        return any(other is one for one in self.guests) or (
            isinstance(other, Close) and any(self is one for one in other.guests)
        )

    def add(self, layers: list[Layer], sides: list[Layer]) -> None:
        """Take these into the close, and evict the tasks inside them."""
        self.is_line = False
        new = [one for one in layers if one.lifecycle.close is None]
        new_sides = [
            one for one in sides if not any(self is other for other in one.lifecycle.side_closes)
        ]
        self.layers = [*self.layers, *new]
        self.sides = [one for one in (*self.sides, *new_sides) if not contains(self.layers, one)]
        self._order = None
        for layer in new:
            lifecycle = layer.lifecycle
            lifecycle.close = self
            lifecycle.side_closes = ()
            lifecycle.update()
        for layer in new_sides:
            layer.lifecycle.side_closes += (self,)
            layer.lifecycle.update()
        self._evict(new, new_sides)

    def _evict(self, layers: Sequence[Layer], sides: Sequence[Layer] = ()) -> None:
        """Settle what the tasks inside these layers have begun, and wake them."""
        # Also below a handle, where the close itself has nothing to do.
        unbroken = [
            lower.lifecycle.unbroken_task
            for one in (*layers, *sides)
            if one.lifecycle.waits
            for lower in writing_chain(one)
        ]
        for layer in (*layers, *sides):
            for call in layer.lifecycle.evict_calls():
                try:
                    settle(layer, call, closed=True)
                except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised after the release
                    self.error = self.error or exc
        for layer in layers:
            for upper in readers_above(layer):
                for wait in upper.lifecycle.waits:
                    if wait.reading:
                        wait.scope.cancel()
        for layer in (*layers, *sides):
            for wait in layer.lifecycle.waits:
                is_there = layer.lifecycle.close is self or not wait.reading
                if is_there and not any(wait.task is task for task in unbroken):
                    wait.scope.cancel()

    def take_line(self, layers: list[Layer]) -> None:
        """Take in a stack that has no branches, of which no layer is being closed."""
        self.layers = self._order = layers
        is_quiet = True
        is_used = False
        for layer in layers:
            lifecycle = layer.lifecycle
            lifecycle.close = self
            if lifecycle.refusal is None:
                # What update() would come to.
                lifecycle.refusal, lifecycle.fast, lifecycle.open_to = CLOSED, SPENT, self
            else:
                lifecycle.update()
                is_quiet = False
            if lifecycle.calls or lifecycle.waits:
                is_used = True
            if lifecycle.abandoned or lifecycle.marked_truncated:
                is_quiet = False
        if is_used:
            self._evict(layers)
        self.is_line = True
        self.is_quiet = is_quiet and not is_used

    def try_at_once(self) -> bool:
        """Shut everything down, if that needs no waiting; whether it is done, or has failed.

        For a stack that is whole.
        """
        return self._guest_at_work() is None and self._poll(self._poll_end) is None

    def can_be_absorbed(self) -> bool:
        """Whether the task that runs it needs no more than to wait for its end."""
        return not self.has_sent and self.graceful is None

    def absorb(self, other: Close) -> None:
        """``other``, whose extent ours meets, is a part of this close from now on."""
        other.successor = self
        self.is_line = False
        for layer in other.layers:
            layer.lifecycle.close = self
            layer.lifecycle.update()
        for layer in other.sides:
            layer.lifecycle.side_closes += (self,)
        self.layers = [*self.layers, *other.layers]
        self.sides = [*self.sides, *other.sides]
        self._order = None
        self.error = self.error or other.error
        self.loss_known_to += other.loss_known_to
        self.harden(other.hardness)
        other.layers = other.sides = ()
        other.stop_waiting()
        other.is_running = False
        other.is_done = True
        other.tell()

    def include(self, layer: Layer) -> None:
        """A layer that is made over one of ours, while we close, belongs to us."""
        self.add([layer], [])

    def order(self) -> Sequence[Layer]:
        """The layers, uppermost first; siblings in the order in which they began to hold."""
        if self._order is None:
            self._order = _uppermost_first(self.layers)
        return self._order

    def postpones(self, layer: Layer) -> bool:
        """Whether other layers above ``layer`` have to end before it does."""
        return any(
            upper.is_writer
            and upper.lifecycle.phase is not ENDED
            # Shut by a shutdown of a layer below, it holds nothing and is not ended either.
            and not (upper.lifecycle.phase is OPEN and upper.lifecycle.shut)
            and contains(self.layers, upper)
            and not contains(self._chain, upper)
            for upper in above(layer)
        )

    def harden(self, hardness: Hardness, *, hurried: bool = True, late: bool = False) -> None:
        """Try less from now on.

        Args:
            hardness: how much.
            hurried: whether it comes from somebody else than the task that runs the close.
            late: whether the reason is that time is up.
        """
        if hardness is Hardness.CLEAN:
            return
        if hardness > self.hardness:
            self.hardness = hardness
            self.was_late = self.was_late or late
            self.stop_waiting()
        # Also if it is as hard already: it may linger.
        self.was_hurried = self.was_hurried or hurried
        if self.was_hurried:
            self.hurry()
        for guest in self.guests:
            guest.harden(hardness, late=late)
        self.tell()

    def stop_waiting(self) -> None:
        """End the wait that is made now, and see what has changed."""
        if self._scope is not None:
            self._scope.cancel()

    def hurry(self) -> None:
        """Let nobody linger."""
        self.is_urgent = True
        for scope in self._lingering:
            scope.cancel()
        self.tell()

    def on_hurry(self, scope: trio.CancelScope) -> None:
        """Cancel ``scope`` as soon as nobody may linger."""
        self._lingering = (*self._lingering, scope)
        if self.is_urgent:
            scope.cancel()

    def limit(self, deadline: float) -> None:
        """Stop sending at ``deadline``, if not before."""
        self.deadline = min(self.deadline, deadline)
        if self._scope is not None:
            self._scope.deadline = self.deadline

    def ends_truncated(self, apart_from: Sequence[Layer] = ()) -> bool:
        return self.is_truncated or self.state(apart_from) is State.TRUNCATED

    def state(self, apart_from: Sequence[Layer] = ()) -> State:
        """What the stack is like.

        Args:
            apart_from: sides that will still get what they lack.
        """
        is_truncated = (
            self.marked_truncated
            or (self._cuts_sides and self._is_lacking(apart_from))
            or self._writes_to_truncated()
        )
        is_abandoned = False
        for layer in self.layers:
            one = layer.lifecycle
            if one.failure is not None:
                return State.BROKEN
            if one.torn is not None or one.unfinished is not None or one.marked_truncated:
                is_truncated = True
            if one.abandoned:
                is_abandoned = True
        for layer in self.sides:
            one = layer.lifecycle
            if one.torn is not None or one.unfinished is not None or one.marked_truncated:
                is_truncated = True
        if is_truncated:
            return State.TRUNCATED
        return State.ABANDONED if is_abandoned else State.WHOLE

    def _writes_to_truncated(self) -> bool:
        """Whether a layer of ours, such as a pair, writes to one that a guest ends truncated.

        Not one that ends each of its sides for itself, and has no epilogue for all of them.
        """
        for guest in self.guests:
            writers = [
                one
                for one in self.layers
                if (not one.overrides_poll_flush_side or lacks_epilogue(one))
                and any(contains(guest.layers, lower) for lower in written_below(one))
            ]
            if writers and guest.ends_truncated(self.layers):
                return True
        return False

    def _is_lacking(self, apart_from: Sequence[Layer] = ()) -> bool:
        """Whether something of a side, which nobody writes for our stream alone, is missing."""
        return any(
            not contains(apart_from, one) and (lacks_epilogue(one) or self.held_by(one) != 0)
            for one in self.sides
        )

    def note_completion(self) -> bool:
        """Whether all was sent; see if a close of the sides has done it, and ended our layers."""
        if self._cuts_sides and not self._is_lacking():
            self.sent = all(one.lifecycle.phase is ENDED for one in self.layers if one.is_writer)
        return self.sent

    # ---- Running it ------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def run(
        self, linger: Callable[[], Awaitable[None]] | None = None, *, caller: Layer | None = None
    ) -> None:
        """Bring the close to its end; every layer is released in any case.

        If this task is cancelled while a graceful close waits with limits of its own, that one
        goes on in this task's place.

        Args:
            linger: called after the sending stage; the release waits for it. Who gives one shields
                this call.
            caller: the layer whose user is told by an error.
        """
        self.is_running = True
        # Nothing has been awaited, nor asked, since it was seen to be quiet.
        at_once = self.is_quiet and linger is None and self.hardness is Hardness.CLEAN
        interrupt = None if at_once else self._note_failures(caller)
        token = running_closes.set((*running_closes.get(), self))
        handed_over = owes_yield = False
        try:
            try:
                if interrupt is not None:
                    interrupt.raise_once()  # as a poll of ours would
                if at_once:
                    owes_yield = await self._send_quietly()
                else:
                    await trio.lowlevel.checkpoint()
                if not owes_yield:
                    await self._send()
            except trio.Cancelled:
                if self._is_bounded or self.successor is not None:
                    handed_over = True
                    raise
                self.harden(Hardness.CUT_OFF, hurried=False)
                self.hurry()
                with trio.CancelScope(shield=True):
                    await self._send_at_once()
                raise
            except BaseException as exc:
                if self.successor is not None:
                    handed_over = True
                    raise
                # A wait has raised: nothing is broken, but there is no more waiting.
                self.harden(Hardness.CUT_OFF, hurried=False)
                if not isinstance(exc, Exception):
                    raise
                self.error = self.error or exc
                with trio.CancelScope(shield=True):
                    await self._send_at_once()
            handed_over = self.successor is not None
        finally:
            try:
                if not handed_over:
                    self.has_sent = True
                    self.tell()
                    if linger is not None:
                        await self._end(linger)  # noqa: ASYNC102 - its caller is shielded
                    elif self._is_bounded or self.guests or self._waits_to_release():
                        with trio.CancelScope(shield=True) as shield:
                            await self._end(None, shield)
                    else:
                        await self._release()  # noqa: ASYNC102
            finally:
                self.is_running = False
                running_closes.reset(token)
                if handed_over:
                    self.tell()
                else:
                    self.finish()
        if owes_yield:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _note_failures(self, caller: Layer | None) -> Interrupt | None:
        """Keep what had failed before; a failure that its user was not told of is ours to raise.

        Others may know it: a reader has met a reset, while we held bytes.

        Returns:
            What is to be raised at once, for no call has raised it yet: Ctrl-C, perhaps.
        """
        if self.sides:
            broken = [one for one in self.sides if one.lifecycle.failure is not None]
            self.told_sides = [one for one in broken if one.lifecycle.told]
        due: Interrupt | None = None
        is_broken = is_untold = False
        for layer in self.layers:
            lifecycle = layer.lifecycle
            if lifecycle.failure is None:
                continue
            is_broken = True
            interrupt = lifecycle.interrupt
            if interrupt is not None and interrupt.is_due():
                due, is_untold = interrupt, True
                continue
            is_news = layer is caller and not lifecycle.told and held_by(layer) != 0
            if lifecycle.untold or is_news:
                is_untold = True
                self.error = trio.BrokenResourceError(f"{layer!r}: {lifecycle.failure}")
                self.error.__cause__ = lifecycle.failure
        self.was_broken = is_broken and not is_untold
        return due

    def tell(self) -> None:
        """Wake those who wait in :meth:`next_news`."""
        if self._news is not None:
            news, self._news = self._news, None
            news.set()

    @contextlib.contextmanager
    def bounded(self) -> Generator[None, None, None]:
        """For a graceful close: hold the release back, and take over from a cancelled task."""
        self._is_bounded = True
        try:
            yield
        finally:
            self._is_bounded = False
            self.tell()

    async def next_news(self) -> None:
        """Wait until the close has come a stage further, or is not run any more.

        Cancellation: nothing happened.
        """
        if self._news is None:
            self._news = trio.Event()
        await self._news.wait()

    async def _end(
        self, linger: Callable[[], Awaitable[None]] | None, shield: trio.CancelScope | None = None
    ) -> None:
        """Release, after what holds the release back.

        Args:
            linger: what does so first.
            shield: the scope around this call that shields it; None if nothing may cancel it.
        """
        try:
            if linger is not None or self._is_bounded or self.guests:
                self.note_truncation(is_final=False)
            if linger is not None:
                await linger()
            if self._is_bounded or self.guests:
                await self._wait_for_others(shield)
        finally:
            await self._release()  # noqa: ASYNC102

    async def _wait_for_others(self, shield: trio.CancelScope | None) -> None:
        """Hold the release back while a graceful close lingers, or a guest is not done.

        Until then, who closes our layers again finds this close, and can make it harder. If this
        task is cancelled meanwhile, nobody lingers any more.
        """
        if shield is None:
            await self._until_alone()
            return
        try:
            # A graceful close is not cancelled.
            shield.shield = self.graceful is not None and not self._is_bounded
            await self._until_alone()
        except trio.Cancelled:
            shield.shield = True
            self.harden(Hardness.CUT_OFF, hurried=False)
            self.hurry()
            await self._until_alone()  # noqa: ASYNC102
            raise
        finally:
            shield.shield = True

    async def _until_alone(self) -> None:
        while self._is_bounded and not self.is_urgent:
            await self.next_news()
        for guest in self.guests:
            while not guest.is_done:
                await guest.next_news()

    # ---- Sending ---------------------------------------------------------------------------

    async def _send_quietly(self) -> bool:
        """Send all of a quiet line at once, if that needs no waiting: nobody comes in between.

        Returns:
            Whether it is through, or has failed. Then the second half of a checkpoint is owed.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        wait = self._poll(self._poll_end)
        if wait is not None:
            await self._wait(wait)
        return wait is None

    async def _send(self) -> None:
        while self.hardness < Hardness.ABORTED and not self.sent and self.successor is None:
            while self.hardness is Hardness.CLEAN and (
                other := self._guest_at_work() or (self._cuts_sides and self._side_at_work())
            ):
                await self._wait(other.next_news)
            if self.successor is not None:
                return
            state = self.state()
            is_short = state is State.TRUNCATED or state is State.BROKEN
            self._is_given_up = state is State.TRUNCATED or state is State.ABANDONED
            if self.hardness is Hardness.CUT_OFF or (is_short and not self.delivers):
                await self._send_at_once()
                return
            wait = self._poll(self._poll_flush if is_short else self._poll_end)
            if wait is None:
                return
            if state is State.ABANDONED and not self.delivers:
                if await self._wait_briefly(wait):
                    self._poll(self._poll_end)
                return
            await self._wait(wait)

    async def _wait(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Make a wait that ends when time is up, or when the close gets harder."""
        with trio.CancelScope(deadline=self.deadline) as self._scope:  # noqa: ASYNC912
            try:
                await wait()
            except trio.BusyResourceError:
                # A task that uses a foreign stream directly cannot be made to leave it.
                await trio.sleep(BUSY_PAUSE)
        if trio.current_time() >= self.deadline:
            self.harden(Hardness.CUT_OFF, hurried=False, late=True)

    def _guest_at_work(self) -> Close | None:
        """A close of layers above ours that has not sent all yet; None if there is no more."""
        for guest in self.guests:
            if not guest.has_sent and not self._is_over(guest):
                return guest
        return None

    def _side_at_work(self) -> Close | None:
        """A close of a whole side that has not sent all yet; None if there is no more."""
        for side in self.sides:
            close = side.lifecycle.close
            if isinstance(close, Close) and not close.has_sent:
                return close
        return None

    def _is_over(self, other: Close) -> bool:
        """Whether a layer of ours, such as a pair, stands over one that ``other`` closes."""
        return any(contains(other.layers, lower) for one in self.layers for lower in below(one))

    async def _send_at_once(self) -> None:
        """Send what can be sent without waiting, after the guests, which do the same."""
        with trio.CancelScope(shield=True):  # noqa: ASYNC912 - there may be no guest
            while (guest := self._guest_at_work()) is not None:
                await guest.next_news()
        await self._flush_once()

    def _poll(self, poll: Callable[[], None]) -> Callable[[], Awaitable[object]] | None:
        """Poll once; the wait if there is one, and None if it is through or has failed."""
        try:
            poll()
        except NotReady as not_ready:
            return not_ready.wait
        except Exception as exc:  # noqa: BLE001 - raised after the release
            if isinstance(exc, CutShort) and self._is_given_up and not self.delivers:
                # By the call that was given up, or cut short, which has told its caller.
                self.cut_short_text = str(exc)
            else:
                self.error = self.error or exc
            # The layers below the one that failed may be well.
            return self._poll(self._poll_flush) if poll == self._poll_end else None
        return None

    def _poll_end(self) -> None:
        """Shut down every layer in its turn, or raise."""
        if not self.is_line:
            self._poll_sides()
        if self.sides and self._is_lacking():
            # Nobody writes it for one side, so the end of that side must not look proper.
            self._poll_flush()
            self._cuts_sides = True
            return
        for layer in self.order():
            lifecycle = layer.lifecycle
            if lifecycle.phase is ENDED or lifecycle.released or not layer.is_writer:
                continue
            inner = lifecycle.inner
            if inner is not None and inner.lifecycle.released:
                continue  # that side of a layer over two streams has ended before
            if lifecycle.phase is OPEN:
                if lifecycle.shut and not self._is_over_unended(layer):
                    continue  # a layer below was shut down before: nothing can be written
                lifecycle.phase = ENDING
            if not self.is_line:
                self._chain = writing_chain(layer)
            self._poll_layer(layer, "poll_shutdown")
            lifecycle.phase = ENDED
        for layer in self.order():
            if layer.overrides_poll_close and not layer.lifecycle.released:
                self._poll_layer(layer, "poll_close")
        self.sent = True

    def _is_over_unended(self, layer: Layer) -> bool:
        """Whether a shutdown was begun of a layer below ``layer`` that is not one of ours.

        Below a handle, for example. It may have been given up, and what was written through
        ``layer`` may still be there.
        """
        return any(
            one.lifecycle.phase is ENDING and not contains(self.layers, one)
            for one in writing_chain(layer)
        )

    def _poll_flush(self) -> None:
        """Flush every layer whose bytes can still go, or raise."""
        # Not the exceptions: their tracebacks refer to this frame.
        wait: Callable[[], Awaitable[object]] | None = None
        try:
            if not self.is_line:
                self._poll_sides()
        except NotReady as not_ready:
            wait = not_ready.wait
        for layer in self.order():
            lifecycle = layer.lifecycle
            if (
                not layer.is_writer
                or lifecycle.phase is ENDED
                or lifecycle.released
                or lifecycle.failure is not None
                or lifecycle.torn is Torn.ABOVE
            ):
                continue
            try:
                self._poll_layer(layer, "poll_flush")
            except NotReady as not_ready:
                # That of the uppermost layer goes through all below it.
                wait = wait or not_ready.wait
        if wait is not None:
            raise NotReady(wait)

    def _poll_sides(self) -> None:
        """Let the layers that write to ours and to others pass on what they hold for ours."""
        wait: Callable[[], Awaitable[object]] | None = None
        rest = [
            one
            for one in self.layers
            if one.overrides_poll_flush_side
            # A shutdown of one stream leaves the rest to the others, too.
            and (self._is_rest(one) or (one.lifecycle.shut and one.lifecycle.phase is OPEN))
        ]
        for layer in _uppermost_first([*self.sides, *rest]):
            lifecycle = layer.lifecycle
            # Another close may have come to its end with the whole layer.
            if lifecycle.released or lifecycle.failure is not None or lifecycle.torn is Torn.ABOVE:
                continue
            for lower in self._ended_below(layer):
                is_shut = lower.lifecycle.shut or lower.lifecycle.phase is not OPEN
                if layer.overrides_poll_flush_side and (is_shut or held_for(layer, lower) == 0):
                    continue
                try:
                    # Also if nothing is held: it may have a failure to tell.
                    self._poll_layer(layer, "poll_flush_side", lower)
                except NotReady as not_ready:
                    # That something is held for others is no reason to wait.
                    if held_for(layer, lower) != 0:
                        wait = wait or not_ready.wait
        if wait is not None:
            raise NotReady(wait)

    def _is_rest(self, layer: Layer) -> bool:
        """Whether one side of ``layer``, which is one of ours, has ended before."""
        return layer.lifecycle.has_ended_side and not contains(self.sides, layer)

    def _ended_below(self, layer: Layer) -> list[Layer]:
        """The layers directly below that ``layer`` writes to, and that end with this close."""
        return [
            lower
            for lower in written_below(layer)
            if contains(self.sides, lower) or contains(self.layers, lower)
        ]

    def held_by(self, layer: Layer) -> int | None:
        """How much ``layer`` holds for ours; of several streams, some may have ended before."""
        is_divided = contains(self.sides, layer) and layer.overrides_poll_flush_side
        if is_divided or self._is_rest(layer):
            return held_for_some(layer, self._ended_below(layer))
        return held_by(layer)

    def _poll_layer(self, layer: Layer, name: str, *args: object) -> None:
        before, lift.by = lift.by, self
        try:
            poll_step(layer, name, *args)
        finally:
            lift.by = before

    async def _flush_once(self) -> None:
        """Give every layer one chance to send what it holds."""
        if self.hardness is Hardness.ABORTED:
            return
        is_truncated = self.state() is State.TRUNCATED
        wait = self._poll(self._poll_flush)
        if wait is not None:
            if not await self._wait_briefly(wait):
                return  # the time that there is has passed
            self._poll(self._poll_flush)
        for layer in self.order():
            # Its end was begun, by a wait that does the work: it may come to its end.
            if layer.lifecycle.phase is not OPEN and layer.close_patience and not is_truncated:
                wait = self._poll(self._poll_end)
                if wait is not None and await self._wait_briefly(wait):
                    self._poll(self._poll_end)
                return

    async def _wait_briefly(self, wait: Callable[[], Awaitable[object]]) -> bool:
        """Where one wait is part of one poll (a foreign stream, a thread), make it."""
        patience = max((layer.close_patience for layer in self.layers), default=0.0)
        if not patience:
            return False
        self._brief_deadline = min(self._brief_deadline, trio.current_time() + patience)
        self.waits_briefly = True
        try:
            with trio.CancelScope(shield=True, deadline=self._brief_deadline) as scope:
                await persist(wait)
        except Exception as exc:  # noqa: BLE001 - raised after the release
            self.error = self.error or exc
            return False
        finally:
            self.waits_briefly = False
        return not scope.cancelled_caught

    # ---- Releasing -------------------------------------------------------------------------

    def note_truncation(self, *, is_final: bool = True) -> None:
        """Decide how the stack ends: by what is lost, and by what was begun.

        A layer that stays open below is told at once, lest another close ends it as a whole one.

        Args:
            is_final: whether we release now. Until then a close of the sides may complete them.
        """
        if self.sent and self.is_line and not (self.marked_truncated or self._holds_something()):
            # Every layer has ended properly.
            self.is_truncated = False
            return
        sides: Sequence[Layer] = self.sides if is_final else ()
        self._counted = [layer for layer in self.layers if is_counted(layer)]
        state = self.state(() if is_final else self.sides)
        self.note_completion()
        lacking = [one for one in (*self.layers, *sides) if lacks_epilogue(one)]
        self._lacks_epilogue = bool(lacking)
        self._lacking_sides = [one for one in lacking if contains(sides, one)]
        if lacking and not self.cut_short_text:
            self.cut_short_text = f"the epilogue of {lacking[0]!r} is missing"
        for layer in (*self.layers, *sides):
            # What a guest has cut off, its own task or report tells.
            told = ("", _ABORTED_TEXT, _CUT_OFF_TEXT if self.guests else "")
            if layer.lifecycle.torn_text not in told:
                self.cut_short_text = layer.lifecycle.torn_text
            elif layer.lifecycle.unfinished is not None:
                self.cut_short_text = layer.lifecycle.unfinished.text
        #: Whether something that was accepted, or begun, is missing.
        self.is_truncated = (
            state is State.TRUNCATED
            or (state is State.BROKEN and not self.sent)
            # The end is plain if none was begun, and that of TLS carries no data.
            or any(map(_is_half_written, lacking))
            or any(self.held_by(layer) != 0 for layer in (*self._counted, *sides))
        )
        if self.is_truncated:
            self._tear_below(self._spoiled_sides() if is_final else [])

    def _holds_something(self) -> bool:
        for layer in self.layers:  # noqa: SIM110 - any() takes three times as long
            if not layer.holds_nothing and held_by(layer) != 0:
                return True
        return False

    def ends_plainly(self, layer: Layer) -> bool:
        """Whether ``layer`` should end as if nothing was missing.

        Where a layer above shows the truncation by its missing epilogue, a reset would only
        destroy what is still on its way.
        """
        if self.hardness is Hardness.ABORTED:
            return False
        return not self.is_truncated or any(
            upper.shows_truncation for upper in (layer, *writers_above(layer))
        )

    def _waits_to_release(self) -> bool:
        for layer in self.layers:  # noqa: SIM110 - any() takes three times as long
            if layer.release_waits:
                return True
        return False

    async def _release(self) -> None:
        interrupt: BaseException | None = None
        # Before the first release: a layer that shows a truncation is above those that it is for.
        plain: list[Layer] | None = None
        try:
            self.note_truncation()
            if self.is_truncated or self.hardness is Hardness.ABORTED:
                plain = [one for one in self.layers if self.ends_plainly(one)]
        except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised below
            self.is_truncated, plain, interrupt = True, [], exc
        order: Sequence[Layer] = ()
        while self._order is not order:
            order = self.order()
            for layer in order:
                if layer.lifecycle.released:
                    continue
                layer.lifecycle.released, layer.lifecycle.open_to = True, None
                if not layer.overrides_release:
                    continue
                try:
                    await layer.release(clean=plain is None or contains(plain, layer))
                except Exception as exc:  # noqa: BLE001 - raised below
                    # Nor may a close raise Busy.
                    is_ours = isinstance(exc, (OSError, trio.BusyResourceError))
                    error = _from(trio.BrokenResourceError if is_ours else None, layer, exc)
                    if self.error is None:
                        self.error = error
                    else:
                        _add_context(self.error, error)
                    del error  # its traceback refers to this frame
                except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised below
                    interrupt = interrupt or exc
                if self._order is not order:
                    break  # others have joined meanwhile, which may be above those that are left
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                interrupt = None

    def finish(self) -> None:
        """Every layer is closed from now on, whatever has happened."""
        for layer in self.layers:
            lifecycle = layer.lifecycle
            lifecycle.close = None
            if not lifecycle.released:
                lifecycle.released, lifecycle.open_to = True, None
            if lifecycle.failure is not None or lifecycle.read_failure is not None:
                # Their tracebacks refer to the layers.
                lifecycle.failure = lifecycle.read_failure = lifecycle.interrupt = None
            if lifecycle.holding:
                lifecycle.unfinished = None
                lifecycle.holders = ()
        is_proper = self.sent and not self.is_truncated and self.hardness is Hardness.CLEAN
        if self.is_line and is_proper:
            # It is over no layers, has no sides, and has left nothing out.
            self.is_done = True
            self.tell()
            return
        try:
            # Users answer, from here on, and may raise: Ctrl-C, for example.
            self.fell_short = not (self.sent or self.was_broken) and (
                self.error is not None
                or self.hardness is Hardness.ABORTED
                or (self.hardness is Hardness.CUT_OFF and self._lacks_something())
            )
            spoiled = self._spoiled_sides()
            for layer in self.sides:
                lifecycle = layer.lifecycle
                lifecycle.side_closes = tuple(
                    one for one in lifecycle.side_closes if one is not self
                )
                lifecycle.has_ended_side = True
                lifecycle.phase = ENDED
                if not self._writes_elsewhere(layer):
                    # It has been told now. The other side is read from.
                    lifecycle.torn, lifecycle.torn_text = None, ""
                    lifecycle.unfinished = None
                    lifecycle.marked_truncated = False
                    keep_witness(layer)
                elif contains(spoiled, layer):
                    lifecycle.marked_truncated = True
                    lifecycle.torn_text = lifecycle.torn_text or _CUT_OFF_TEXT
                lifecycle.update()
            self._tear_below(spoiled)
            if not self.is_line:  # whose layers are over no others
                for layer in self.layers:
                    for lower in below(layer):
                        unregister(layer, lower)
            for layer in self.sides:
                for lower in written_below(layer):
                    if held_for(layer, lower) == 0 and not layer.lifecycle.is_witness:
                        not_held_below(layer, lower)
            if self.is_truncated and not self.tells_users:
                self.note_known_to()
                for layer, lost in self.untold_losses():
                    lifecycle = layer.lifecycle
                    if lifecycle.released:
                        lifecycle.lost, lifecycle.loss_known_to = lost, self.loss_known_to
        finally:
            self.is_done = True
            self.tell()

    def _lacks_something(self) -> bool:
        """Whether a clean end would have been another one than this, which was cut off."""
        return self.is_truncated or any(
            layer.lifecycle.phase is not ENDED and owes_epilogue(layer) for layer in self.layers
        )

    def _tear_below(self, spoiled: list[Layer]) -> None:
        """Tear the layers that stay open below ours, and below some sides, if something is missing.

        Args:
            spoiled: the sides that lack something.
        """
        is_aborted = self.hardness is Hardness.ABORTED
        if not (self.is_truncated or self._lacks_epilogue or is_aborted):
            return
        for layer in (*self.layers, *spoiled):
            # The original of a handle is not harmed by an abort that has lost nothing.
            is_harmed = (
                self.is_truncated or self._lacks_epilogue or layer.lifecycle.original is None
            )
            for lower in written_below(layer) if is_harmed else ():
                one = lower.lifecycle
                is_ours = one.released or one.close is self or contains(self.sides, lower)
                if not is_ours and one.unfinished is None:
                    text = _ABORTED_TEXT if is_aborted else _CUT_OFF_TEXT
                    tear(lower, text, ours=[*self.layers, *self.sides])

    def _writes_elsewhere(self, side: Layer) -> bool:
        """Whether what ``side`` writes reaches a stream that is still open."""
        return any(
            not (one.lifecycle.released or contains(self.sides, one)) for one in writing_chain(side)
        )

    def _spoiled_sides(self) -> list[Layer]:
        """The sides that lack something on their other streams, too, since nobody writes it now."""
        found = [
            one
            for one in self.sides
            if contains(self._lacking_sides, one)
            or (not one.overrides_poll_flush_side and held_by(one) != 0)
        ]
        for one in found:
            # What is missing above is missing here.
            found += [
                lower
                for lower in written_below(one)
                if contains(self.sides, lower) and not contains(found, lower)
            ]
        return found

    def lost_by(self, layer: Layer) -> int | None:
        """How many accepted bytes a layer still holds when all is over; None if it is unknown."""
        is_counted = contains(self._counted, layer) or contains(self.sides, layer)
        return self.held_by(layer) if is_counted else 0

    def note_known_to(self, task: trio.lowlevel.Task | None = None) -> None:
        """A task, or None for this one, learns what is lost without an ``aclose``."""
        # Not by its id, which is soon another's.
        self.loss_known_to += (weakref.ref(task or trio.lowlevel.current_task()),)

    def untold_losses(self) -> list[tuple[Layer, int | None]]:
        """How many bytes each layer has lost, as :meth:`lost_by` says.

        Left out are those whose calls have raised a failure, so that their users know.
        """
        layers = [one for one in self.layers if not (self.was_broken and one.lifecycle.told)]
        layers += [one for one in self.sides if not contains(self.told_sides, one)]
        return [(one, self.lost_by(one)) for one in layers]

    def lost_bytes(self, *parts: Close) -> int:
        """How many accepted bytes the layers still hold, over all; what is unknown adds 0.

        Args:
            *parts: other closes whose layers count as well.
        """
        layers = [*self._counted, *self.sides]
        theirs = [
            part.lost_by(one) for part in parts for one in part.layers if not contains(layers, one)
        ]
        return sum(filter(None, [*map(self.held_by, layers), *theirs]))


def _from(
    kind: type[trio.BrokenResourceError] | None, layer: Layer, exc: Exception
) -> BaseException:
    if kind is None:
        return exc
    error = kind(f"{layer!r}: {exc}")
    error.__cause__ = exc
    return error


def _add_context(error: BaseException, later: BaseException) -> None:
    """Let the traceback of ``error`` show ``later``, too."""
    # Both may have come while a third one was on its way, such as a Cancelled, which must not refer
    # to what refers to it.
    behind = list(_chain_of(later))
    last: BaseException | None = None
    for one in _chain_of(error):
        if any(one is other for other in behind):
            break
        last = one
    if last is not None:
        last.__context__ = later


def _chain_of(error: BaseException) -> Generator[BaseException, None, None]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def covers(layer: Layer, close: Close) -> bool:
    """Whether a close of ``layer`` closes all that ``close`` does."""
    layers, _ = extent_of([layer])
    return _contains_all(layers, close.layers)


def _contains_all(layers: Sequence[Layer], others: Sequence[Layer]) -> bool:
    return all(contains(layers, one) for one in others)


def _ends_alone(layer: Layer, close: Close) -> bool:
    """Whether ``layer``, such as a handle, is only a part of ``close``, and loses nothing."""
    if layer.lifecycle.released:
        return False
    layers, _ = extent_of([layer])
    return not _contains_all(layers, close.layers) and not any(
        held_by(one) != 0 or (one.lifecycle.phase is not ENDED and owes_epilogue(one))
        for one in layers
    )


def enter(layer: Layer, hardness: Hardness) -> tuple[Close, list[Close]]:
    """Begin a close of ``layer``, or join those that its extent meets.

    Returns:
        The close that closes ``layer``, new if its ``layers`` were empty before; and the others
        that meet its extent, to be waited for.
    """
    line = _line_through(layer)
    if line is not None:
        mine = Close()
        mine.take_line(line)
        mine.harden(hardness, hurried=False)
        mine.is_urgent = hardness is not Hardness.CLEAN
        return mine, []
    layers, sides = extent_of([layer])
    met: list[Close] = []
    for one in (layer, *layers):
        close = one.lifecycle.close
        if (
            isinstance(close, Close)
            and not any(close is other for other in met)
            # Called from inside of a running one, this closes the rest and waits for nothing.
            and close not in running_closes.get()
        ):
            met.append(close)
    if met and met[0] is layer.lifecycle.close:
        # It has met the others before.
        mine = met[0]
        met = []
    else:
        mine = Close()
    for close in met:
        if close.can_be_absorbed():
            mine.absorb(close)
    others = [one for one in met if one.successor is None]
    mine.guests = [*mine.guests, *others]
    mine.add(layers, sides)
    mine.harden(hardness, hurried=mine.is_running)
    if hardness is not Hardness.CLEAN:
        mine.hurry()
    return mine, others


@trio.lowlevel.enable_ki_protection
async def close_layer(layer: Layer, hardness: Hardness, *, joins_gently: bool = False) -> None:
    """What ``aclose`` does.

    Args:
        layer: the layer to close.
        hardness: how much to try.
        joins_gently: whether a close that another task has begun is only waited for.

    Raises:
        trio.BrokenResourceError: if the close finds a failure that nobody was told of before.
        trio.ClosedResourceError: if somebody else cut the close short.
    """
    lifecycle = layer.lifecycle
    started = lifecycle.close is None
    if started and lifecycle.released:
        await _closed_before(layer)
        return
    if not started and lifecycle.is_closed_from_here():
        # From inside of the running close: it does the rest.
        await trio.lowlevel.checkpoint()
        return
    close, others = enter(layer, Hardness.CLEAN if joins_gently and not started else hardness)
    if close.is_running or not started:
        await _join(close, layer, gently=joins_gently)
    else:
        await _run(close, layer, raises=not joins_gently)
    for other in others:
        await _join(other, layer, gently=joins_gently)


@trio.lowlevel.enable_ki_protection
async def abort_layer(layer: Layer, *, tells_users: bool = False) -> None:
    """Close the stack of ``layer`` at once; in a shielded scope. It raises nothing.

    Args:
        layer: a layer of the stack.
        tells_users: whether the caller reports what is lost, so that no ``aclose`` has to tell it.

    Cancellation: nothing happened; the close goes on, so shield it.
    """
    if layer.lifecycle.released:
        return
    if not layer.lifecycle.attached:
        attach(layer)
    running = layer.lifecycle.close
    if isinstance(running, Close) and _ends_alone(layer, running):
        return
    close, others = enter(layer, Hardness.ABORTED)
    close.note_known_to()
    # Nobody who aborts wants to hear of failures.
    with contextlib.suppress(Exception):
        if not close.is_running:
            close.tells_users = tells_users
            await close.run()
            close.error = None  # its traceback refers to the close
    for one in (close, *others):
        await wait_done(one)


def close_at_once(layer: Layer) -> None:
    """Close one layer without waiting; whoever calls it frees what the layer holds.

    Tasks inside it are evicted, and a close that another task runs is cut off. The layers above
    are shut down, and are still to be closed.
    """
    lifecycle = layer.lifecycle
    if isinstance(lifecycle.close, Close):
        lifecycle.close.harden(Hardness.CUT_OFF)
    elif not lifecycle.released:
        close = Close()
        close.add([layer], [])
        shut_above(layer)
        close.note_truncation()
        close.finish()
        if close.is_truncated:
            _tell_losses(close, layer, raises=False)


async def _closed_before(layer: Layer) -> None:
    await trio.lowlevel.checkpoint()
    _raise_if_lost(layer)


def _raise_if_lost(layer: Layer) -> None:
    lifecycle = layer.lifecycle
    if lifecycle.lost == 0:
        return
    me = trio.lowlevel.current_task()
    if any(task() is me for task in lifecycle.loss_known_to):
        return
    lost, lifecycle.lost = lifecycle.lost, 0
    text = f"{number(lost)} bytes that it had accepted were never sent"
    raise ClosedRefusal(f"another task closed {layer!r}: {text}")


async def _run(close: Close, layer: Layer, *, raises: bool) -> None:
    try:
        await close.run(caller=layer)
    except trio.Cancelled:
        raises = False
        if close.successor is not None:
            await _make_harder(close, layer)  # noqa: ASYNC102
        raise
    except BaseException:
        raises = False  # an error of the close does not replace this one, so nobody hears of it
        raise
    finally:
        if close.is_done and close.successor is None:
            if close.is_truncated:
                # Of an abort, which is on purpose, nobody is warned.
                is_aborted = close.hardness is Hardness.ABORTED and _was_cut_short(close)
                tells = close.error is not None or is_aborted
                _tell_losses(close, layer, raises=raises and tells)
            if not raises:
                close.error = None  # its traceback refers to the close
    if close.successor is not None:
        await _join(close, layer, gently=False)
        return
    error, close.error = close.error, None
    if error is not None and not close.was_broken:
        close.fell_short = False  # this task is told, so those who have joined need not be
        try:
            raise error
        finally:
            del error
    if _was_cut_short(close):
        raise ClosedRefusal(f"another task cut the close of {layer!r} short")


def _was_cut_short(close: Close) -> bool:
    """Whether somebody else than the task that runs it has."""
    return (close.was_hurried or close.was_late) and close.fell_short


def _tell_losses(close: Close, layer: Layer, *, raises: bool) -> None:
    """Warn of what a truncated stack has lost, unless an error, or a report, tells it."""
    # Trio wants an aclose that comes after one that was cancelled to do nothing.
    layer.lifecycle.lost = 0
    if raises or close.is_reported:
        return
    losses = [lost for _, lost in close.untold_losses()]
    if any(lost != 0 for lost in losses):
        fates = any(one.loss_is_unknown for one in close.layers)
        fate = "may be lost: nobody waits for them" if fates else "were never sent"
        total = None if None in losses else sum(lost or 0 for lost in losses)
        text = f"{number(total)} bytes that it had accepted {fate}"
    elif close.cut_short_text and not close.was_broken:
        text = close.cut_short_text
    else:
        return
    warn_unraisably(f"{layer!r} was closed: {text}", layer)


async def wait_done(close: Close) -> Close:
    """Wait for the end of a close, or of the one that it has become a part of."""
    await trio.lowlevel.checkpoint()
    while True:  # noqa: ASYNC913
        while not close.is_done:
            await close.next_news()
        if close.successor is None:
            return close
        close = close.successor


async def _make_harder(close: Close, layer: Layer) -> None:
    """Cut ``close`` short: this task closes ``layer``, waits for ``close``, and is cancelled."""
    while close.successor is not None:
        close = close.successor
    if close.is_done or _ends_alone(layer, close):
        return
    close.note_known_to()
    close.harden(Hardness.CUT_OFF)
    with trio.CancelScope(shield=True):
        await wait_done(close)


async def _join(close: Close, layer: Layer, *, gently: bool) -> None:
    was_clean = close.hardness is Hardness.CLEAN
    try:
        close = await wait_done(close)
    except trio.Cancelled:
        if not gently:
            await _make_harder(close, layer)  # noqa: ASYNC102
        raise
    if gently:
        return
    _raise_if_lost(layer)
    if close.fell_short and was_clean:
        raise ClosedRefusal(f"another task's close of {layer!r} did not succeed")
