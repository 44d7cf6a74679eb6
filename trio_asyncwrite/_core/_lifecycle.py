"""The state of one layer: may it be written to, who is inside, how has it ended.

Theory of operation
===================

Every layer (a writer, a reader, or both) has one :class:`Lifecycle`, made before its ``__init__``
runs. **Rare events walk, the hot path reads one field**: a tear, a failure, a shutdown, a close
walk the stack once and set the fields of each lifecycle; :meth:`Lifecycle.update` then computes
the two fields that every write reads:

``refusal``
    why the layer refuses writes, or None.
``fast``
    the run's budget while the layer is open, whole, and nobody is inside; else a spent one. So
    "may this call skip the shell" is one look at ``fast.left``.

**Lifting.** A close, and a torn layer's own flush, must write through layers that refuse everybody
else. Their polls are synchronous, so they lift the refusal for the length of one poll: ``lifted``
names, in this thread, the close or the torn layer that polls now. That is compared with ``open_to``
of a layer, the close that may write to it.

**Calls.** A write that can be ended in its middle keeps its progress in a :class:`Call`, in
``calls``, where a close that ends it finds it. :meth:`Lifecycle.leave` and the close settle a call
by the same function, :func:`trio_asyncwrite._core._stack.settle`.

A lifecycle never refers to its layer: without a cycle, a dropped stack is freed at once.
"""

from __future__ import annotations

import abc
import contextlib
import contextvars
import enum
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

import trio

from ._budget import SPENT, Budget
from ._buf import Buf
from ._errors import BrokenRefusal, BusyRefusal, ClosedRefusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence

    from ._file_part import FilePart
    from ._layer import Layer
    from ._waits import Line, OneForAll


class Phase(enum.Enum):
    """How far the writing direction has come; it moves downwards only."""

    OPEN = "open"
    ENDING = "shutting down"
    ENDED = "shut down"


class Refusal(enum.Enum):
    """Why a layer refuses writes; the first that applies counts."""

    CLOSED = "closed"
    BROKEN = "broken"
    TORN = "torn"
    SHUT_DOWN = "shut down"
    UNFINISHED = "a Buf or FilePart is unfinished"


class Torn(enum.Enum):
    """Where a torn layer lies, seen from the layer whose message was cut short."""

    HERE = "the layer that was called"
    BELOW = "below it: the bytes held here still go"
    ABOVE = "above it, or beside it: the bytes held here are lost"


# An attribute of an Enum class is a slow look-up (before 3.12 it runs Python code).
OPEN: Final = Phase.OPEN
ENDING: Final = Phase.ENDING
ENDED: Final = Phase.ENDED
CLOSED: Final = Refusal.CLOSED
SHUT_DOWN: Final = Refusal.SHUT_DOWN
UNFINISHED: Final = Refusal.UNFINISHED
ABOVE: Final = Torn.ABOVE


class Closer(abc.ABC):
    """A close that runs; see ``_close.py``."""

    __slots__ = ()

    #: Whether the stack has no branches: then ``layers`` is in order, and nobody is postponed.
    is_line: bool
    #: What it closes.
    layers: Sequence[Layer]
    #: Whether it now makes its one wait of limited length, and has waited when that is cancelled.
    waits_briefly: bool

    @abc.abstractmethod
    def is_host_of(self, other: object) -> bool:
        """Whether ``other`` is a close that may write through the layers of this one."""

    @abc.abstractmethod
    def ends_truncated(self, apart_from: Sequence[Layer] = ()) -> bool:
        """Whether its layers end, or will end, so that their peer should see a truncation.

        Args:
            apart_from: layers above that will still get what they lack.
        """

    @abc.abstractmethod
    def postpones(self, layer: Layer) -> bool:
        """Whether the layer's shutdown has to wait for others above it; not asked of a line."""


class Call:
    """The progress of one call that writes.

    Args:
        size: how many bytes it writes.
        sends: whether it is one of Trio's verbs, which are not resumed when they are cancelled.

    Attributes:
        accepted: how many bytes of a message were accepted.
        flushing: whether all of them were, and what comes after is under way.
        buf: the caller's cursor, a Buf or a FilePart; what is left of it is unfinished, and not
            lost.
        goes_on: whether ``buf`` was begun by an earlier call.
    """

    __slots__ = ("accepted", "buf", "flushing", "goes_on", "sends", "size")

    #: Whether a layer that keeps messages whole goes on with a message of which a part is accepted.
    is_kept = True

    def __init__(self, size: int, *, sends: bool = False) -> None:
        self.size: int = size
        self.sends: bool = sends
        self.accepted: int = 0
        self.flushing: bool = False
        self.goes_on: bool = False
        self.buf: Buf | FilePart | None = None

    def cut_text(self) -> str:
        """What a layer says that is torn by this call; "" if the call tears nothing."""
        if 0 < self.accepted < self.size:
            return f"only {self.accepted} of the {self.size} bytes of a message were accepted"
        return ""


class Unfinished:
    """A Buf or FilePart of which a part was accepted.

    Nobody keeps it alive, and its caller may spoil it.

    Args:
        buf: the Buf or FilePart.
    """

    __slots__ = ("_buf", "_place", "advice", "text")

    def __init__(self, buf: Buf | FilePart) -> None:
        self._buf = weakref.ref(buf)
        self._place = _place(buf)
        kind, verb = ("Buf", "buf") if isinstance(buf, Buf) else ("FilePart", "file")
        #: What a close says.
        self.text: str = f"a {kind} was begun and not finished"
        #: What those are told that it stands in the way of.
        self.advice: str = (
            f"{self.text}: finish the {kind} first, by write_all_{verb}() of the same {kind}"
        )

    def goes_on_with(self, buf: Buf | FilePart) -> bool:
        """Whether ``buf`` is that Buf or FilePart, and stands where it stood."""
        return self._buf() is buf and _place(buf) == self._place


def _place(buf: Buf | FilePart) -> int:
    return buf.remaining if isinstance(buf, Buf) else buf.offset


class Interrupt:
    """An exception that a poll has met after it had accepted bytes: Ctrl-C, or a mistake.

    The poll has returned its count, so the next call raises the exception, unchanged and once: all
    layers that it has broken share this object.

    Args:
        exc: what was raised.
    """

    __slots__ = ("_exc",)

    def __init__(self, exc: BaseException) -> None:
        self._exc: BaseException | None = exc

    def is_due(self) -> bool:
        """Whether no call has raised it yet."""
        return self._exc is not None

    def raise_once(self) -> None:
        """Raise it, if no call has done so."""
        exc, self._exc = self._exc, None
        if exc is not None:
            try:
                raise exc
            finally:
                del exc  # its traceback refers to this frame


class Wait:
    """A task that waits inside a layer."""

    __slots__ = ("reading", "scope", "task")

    def __init__(self, *, reading: bool) -> None:
        self.reading = reading
        self.scope = trio.CancelScope()
        self.task = trio.lowlevel.current_task()


_NOBODY: Final[dict[Any, None]] = {}


class _Lift(threading.local):
    by: object = None


#: Who lifts refusals now, in this thread; set it by :func:`lifted`, or in a ``try`` of one poll.
lift = _Lift()

#: The closes that this task runs, and whose code it is called from.
running_closes: contextvars.ContextVar[tuple[object, ...]] = contextvars.ContextVar(
    "trio_asyncwrite closes", default=()
)


@contextlib.contextmanager
def lifted(by: object) -> Generator[None, None, None]:
    """Lift the refusals that ``by`` has caused, for the polls of the block: no await in it."""
    before, lift.by = lift.by, by
    try:
        yield
    finally:
        lift.by = before


@final
class Lifecycle:
    """The state of one layer. Your own layers use its methods as the library's do."""

    # The first values are the class's, so that making a layer costs little.

    # Hot: read at every write.
    fast: Budget = SPENT
    refusal: Refusal | None = None
    inside: bool = False
    #: The layer that this one writes to.
    inner: Layer | None = None
    #: What a class has put in its place that is no layer.
    odd_inner: object = None
    #: Whether it was seen that there is none, under any name.
    has_no_inner: bool = False

    # Rare.
    budget: Budget = SPENT
    #: What ``bytes_per_budget_unit`` has answered; 0 before it was asked for.
    rate: int = 0
    phase: Phase = OPEN
    #: Whether a layer below was shut down, and nothing can be written any more.
    shut: bool = False
    #: The cause of the first failure of writing. Kept until the close: its traceback refers to us.
    failure: BaseException | None = None
    #: Whether the failure was met by a call that did not raise it.
    untold: bool = False
    #: Whether a call of this layer has raised the failure.
    told: bool = False
    #: The failure, if it is one that a caller has to get as it is.
    interrupt: Interrupt | None = None
    torn: Torn | None = None
    #: What a torn layer says: how much of which message it accepted.
    torn_text: str = ""
    #: A Buf or FilePart that was begun; until it is finished no other write may come in between.
    unfinished: Unfinished | None = None
    #: Whether somebody who knows has said that a message was cut short: a server.
    marked_truncated: bool = False
    #: Whether a send_all or send_eof was given up with bytes unsent, here or above.
    abandoned: bool = False
    #: The close that this layer is part of.
    close: Closer | None = None
    #: The same close while its polls may write to the layer, which refuses all others.
    open_to: Closer | None = None
    #: The closes of layers below that now end one side of this layer over several streams.
    side_closes: tuple[object, ...] = ()
    #: Whether such a close has ended one side.
    has_ended_side: bool = False
    released: bool = False
    #: The report of the graceful close that has ended this layer.
    report: object = None
    #: What a closed layer says, if there is more to say.
    closed_text: str = ""
    #: Accepted bytes that a close has lost, until an ``aclose`` tells it; and the tasks that know
    #: it anyway.
    lost: int | None = 0
    loss_known_to: tuple[weakref.ref[trio.lowlevel.Task], ...] = ()
    #: Who claims this layer also claims that one: a by_ref handle and its original.
    original: Lifecycle | None = None
    #: Whether the bytes that it held when an encoding layer above it was dropped were nobody's.
    holds_nobodys: bool = False
    #: For a writer that many tasks may use: who is inside, in the order of their coming.
    line: Line | None = None
    #: Who is inside, and waits, in the order of their coming. There may be thousands of tasks, so
    #: to leave must not take longer the more there are. While there is none, nobody adds to it.
    calls: dict[Call, None] = _NOBODY
    waits: dict[Wait, None] = _NOBODY
    #: The task inside a call of a foreign stream that must not be ended; see ``_send_stream.py``.
    unbroken_task: object = None

    # Reading.
    reading: bool = False
    read_failure: BaseException | None = None
    at_end: bool = False
    #: What a foreign reader has received and nobody has read yet.
    received: bytes = b""
    receiving: OneForAll | None = None

    # The layers above: all of them weakly, and strongly those that are held, in that order.
    above: tuple[weakref.ref[Layer], ...] = ()
    holders: tuple[Layer, ...] = ()
    holding: int = 0
    #: Whether it is held for its epilogue, which is still to be written.
    owes_epilogue: bool = False
    #: Whether it is held for what it alone knows: a message that is not complete.
    is_witness: bool = False
    #: Whether this layer's ``held_bytes`` has to be asked for after each call; and the layers below
    #: of which that is true.
    is_watched: bool = False
    #: Whether nobody is watched and there is no original; and whether there is no line, either.
    is_unwatched: bool = False
    is_simple: bool = False
    watched: tuple[Layer, ...] = ()
    #: Whether the layers below need not be asked for: there is ``inner`` at most.
    is_single: bool = False
    attached: bool = False

    # ---- What writes read ------------------------------------------------------------------

    def update(self) -> None:
        """Compute ``refusal``, ``fast`` and ``open_to`` from the rest."""
        if self.close is not None or self.released or self.side_closes or self.has_ended_side:
            self.refusal = Refusal.CLOSED
            self.fast = SPENT
            is_well = not self.released and self.failure is None and self.torn is not ABOVE
            self.open_to = self.close if is_well else None
            return
        self.refusal = (
            Refusal.BROKEN
            if self.failure is not None
            else Refusal.TORN
            if self.torn is not None
            else Refusal.SHUT_DOWN
            if self.shut or self.phase is not OPEN
            else Refusal.UNFINISHED
            if (self.original or self).unfinished is not None
            else None
        )
        self.is_unwatched = self.original is None and not (self.is_watched or self.watched)
        self.is_simple = self.is_unwatched and self.line is None
        self.fast = (
            self.budget
            if self.refusal is None
            and not self.inside
            # Who is inside the original is inside its handles.
            and self.original is None
            # Somebody has to look whether these hold bytes now; the shell does.
            and (self.is_unwatched or self.holding)
            else SPENT
        )

    def update_attached(self) -> None:
        """What :meth:`update` comes to when a layer becomes known to those below it."""
        if self.refusal is None and self.original is None and not (self.is_watched or self.watched):
            # Its own from now on: a class's attribute takes longer to read.
            self.refusal = None
            self.is_unwatched = True
            self.is_simple = self.line is None
            self.fast = SPENT if self.inside else self.budget
        else:
            self.update()

    def check_write(self, layer: Layer) -> None:
        """For ``poll_write``: raise, unless ``layer`` may be written to now.

        Raises:
            trio.ClosedResourceError: if a shutdown or close has begun.
            trio.BrokenResourceError: if it has failed, is torn, or something is unfinished.
        """
        if self.refusal is not None:
            by = lift.by
            if self.phase is ENDED or by is None or not (by is self.open_to or self._is_lifted(by)):
                self.refuse(layer)

    def check_flush(self, layer: Layer) -> None:
        """For ``poll_flush``: raise, unless ``layer`` may be flushed now.

        Raises:
            trio.ClosedResourceError: if it is closed.
            trio.BrokenResourceError: if it has failed or is torn.
        """
        by, refusal = lift.by, self.refusal
        if not (
            (by is not None and by is self.open_to)
            or refusal is None
            or refusal is SHUT_DOWN
            or refusal is UNFINISHED
            or (by is not None and self._is_lifted(by))
        ):
            self.refuse(layer)

    def _is_lifted(self, by: object) -> bool:
        """Whether polls that ``by`` makes, which is not our own close, may write to the layer."""
        if self.released or self.failure is not None or self.torn is ABOVE:
            return False
        if any(by is one for one in self.side_closes):
            return True
        if self.close is not None:
            return self.close.is_host_of(by)
        if by is Torn.HERE:
            return True  # a torn layer's flush: this one, and the layers below it
        # A close of a layer that does not own those below may flush torn ones.
        return self.torn is not None and isinstance(by, Closer)

    def refuse(self, layer: object) -> NoReturn:
        """Raise what a layer that refuses says."""
        refusal = self.refusal
        if refusal is Refusal.BROKEN:
            self._is_told()
            if self.interrupt is not None:
                self.interrupt.raise_once()
            raise BrokenRefusal(f"{layer!r} has failed before: {self.failure!r}") from self.failure
        if refusal is Refusal.TORN:
            raise BrokenRefusal(
                f"{layer!r} is torn: {self.torn_text}. Nothing may follow, so close it"
            )
        if refusal is Refusal.UNFINISHED:
            self.refuse_unfinished(layer)
        if refusal is Refusal.SHUT_DOWN:
            raise ClosedRefusal(f"{layer!r} was shut down")
        raise ClosedRefusal(self.closed_text or f"{layer!r} is closed, or being closed")

    def refuse_unfinished(self, layer: object) -> NoReturn:
        """Raise what a layer says in which a Buf or FilePart is unfinished."""
        unfinished = (self.original or self).unfinished
        assert unfinished is not None
        raise BrokenRefusal(f"{layer!r}: {unfinished.advice}")

    def _is_told(self) -> None:
        self.told = True
        one: Lifecycle | None = self
        while one is not None:
            one.untold = False
            one = None if one.inner is None else one.inner.lifecycle

    # ---- Calls -----------------------------------------------------------------------------

    def add_call(self, call: Call) -> None:
        """From now on ``call`` is under way, until :meth:`remove_call`."""
        if self.calls:
            self.calls[call] = None
        else:
            self.calls = {call: None}

    def remove_call(self, call: Call) -> bool:
        """``call`` is over; False if a close has evicted it, and so has settled it."""
        is_there = self.calls.pop(call, call) is None
        if not self.calls:
            self.calls = _NOBODY  # an empty dict keeps its memory
        return is_there

    def evict_calls(self) -> dict[Call, None]:
        """For a close: the calls under way, which it settles."""
        calls, self.calls = self.calls, _NOBODY
        return calls

    # ---- Claims ----------------------------------------------------------------------------

    def lift_of(self) -> object:
        """What lifts the refusals for the awaits of this task: the close that it runs, or None.

        Code that a close calls (a user's ``release``, a reader that is drained) may use the
        layers that are being closed.
        """
        return self.close if self.is_closed_from_here() and not self.released else None

    def is_closed_from_here(self) -> bool:
        """Whether this task runs the close of the layer, or is called from it."""
        return self.close is not None and self.close in running_closes.get()

    def is_closed(self, *, reading: bool) -> bool:
        """Whether this direction is closed: one side of a layer over two streams may be."""
        if reading:
            return self.close is not None or self.released
        return self.refusal is Refusal.CLOSED

    def is_gone(self) -> bool:
        """Whether the layer is closed, and its close is over."""
        return self.released and self.close is None

    def may_take(self) -> bool:
        """Whether a call may take from a reader's buffer at once, for a unit of the budget.

        Nobody reads, nothing is refused, and no checkpoint is due. The caller pays. (There is a
        budget only after a first call, which has attached the layer.)
        """
        return self.refusal is None and not self.reading and self.budget.left > 0

    def claim(self, layer: Layer, *, writing: bool) -> None:
        """Make this task the one inside ``layer``; :meth:`leave` ends it.

        Raises:
            trio.ClosedResourceError: if a shutdown or close has begun.
            trio.BusyResourceError: if another task is inside.
            trio.BrokenResourceError: if it has failed, is torn, or something is unfinished.
        """
        # Closed before Busy: a task that the close has woken may not have left yet.
        if self.refusal is Refusal.CLOSED and self.lift_of() is None:
            self.refuse(layer)
        original = self.original
        if self.inside or (original is not None and original.inside):
            raise BusyRefusal(
                f"another task is using {layer!r}; for several tasks there is SharedWriter"
            )
        if (
            self.refusal is not None
            and self.refusal is not Refusal.CLOSED
            and (writing or self.failure is not None or self.torn is Torn.ABOVE)
        ):
            self.refuse(layer)
        if original is not None:
            original.claim(layer, writing=writing)
        if self.line is None:
            self.inside = True
            self.fast = SPENT

    def leave(self) -> None:
        """This task is not inside any more."""
        self.inside = False
        self.update()
        if self.original is not None:
            self.original.leave()

    async def wait(
        self, layer: Layer, wait: Callable[[], Awaitable[object]], *, reading: bool = False
    ) -> None:
        """Make a wait that a close of ``layer`` ends.

        Whatever the wait raises breaks nothing.

        Raises:
            trio.ClosedResourceError: if another task closes the layer meanwhile.
        """
        entry = Wait(reading=reading)
        if self.waits:
            self.waits[entry] = None
        else:
            self.waits = {entry: None}
        try:
            with entry.scope:
                await wait()
        finally:
            del self.waits[entry]
            if not self.waits:
                self.waits = _NOBODY  # an empty dict keeps its memory
        self.check_evicted(layer, reading=reading)

    def check_evicted(self, layer: Layer, *, reading: bool) -> None:
        """After a wait of a task inside ``layer``: raise if the layer was closed meanwhile.

        Raises:
            trio.ClosedResourceError: if it was, and this task does not run the close.
        """
        if self.is_closed(reading=reading) and self.lift_of() is None:
            raise ClosedRefusal(f"another task closed {layer!r}")

    # ---- Shutting down ---------------------------------------------------------------------

    def end(self) -> None:
        """For ``poll_shutdown``: the shutdown is complete."""
        if self.phase is not ENDED:
            self.phase = ENDED
            if self.refusal is not CLOSED:
                self.update()
