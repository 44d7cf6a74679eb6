"""What the layers of a stack tell each other.

A layer knows those below it (``layers_below``); they know it by a reference that is weak as long
as nobody above holds bytes, has an epilogue to write, or knows of a message that is not complete,
and strong from then on: a forgotten buffer is found by whoever closes the stream below it, and a
stack that holds nothing is freed by reference counting.

Everything here walks, and is called at rare events only: when a layer is made, begins or ceases to
hold bytes, fails, is torn, shut down or closed.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from typing import TYPE_CHECKING, TypeVar

import trio

from ._checks import wrong_answer
from ._epilogue import Epilogue
from ._errors import BrokenRefusal, BusyRefusal, NotReady, Refusal, WriteZeroError
from ._lifecycle import (
    ENDED,
    ENDING,
    OPEN,
    Call,
    Closer,
    Interrupt,
    Lifecycle,
    Torn,
    Unfinished,
    lift,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import TypeVarTuple, Unpack

    from ._async_write import AsyncWrite
    from ._layer import Layer

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")


def lifecycle_of(layer: object) -> Lifecycle:
    """The lifecycle of a layer.

    Raises:
        TypeError: if it has none: a mock, or an object that was not made by its class.
    """
    lifecycle = getattr(layer, "lifecycle", None)
    if type(lifecycle) is not Lifecycle:
        raise TypeError(
            f"{type(layer).__name__} was not created by its class (a mock?), or `lifecycle` was "
            f"overwritten"
        )
    return lifecycle


def is_layer(thing: object) -> bool:
    """Whether ``thing`` is a layer of this library's kind, and not a foreign stream.

    A stream that delegates its attributes to a layer is foreign: its own ``send_all`` is to be
    called. So its class is asked as well, for what all layers have.
    """
    try:  # isinstance() takes four times as long, and believes a proxy
        type(thing).announces_held_bytes  # type: ignore[attr-defined]  # noqa: B018
        return type(thing.lifecycle) is Lifecycle  # type: ignore[attr-defined]
    except AttributeError:
        return False


# ---- Up and down -------------------------------------------------------------------------------


def below(layer: Layer) -> list[Layer]:
    """The layers directly below, each once."""
    if not says_what_is_below(layer):
        inner = layer.lifecycle.inner
        return [] if inner is None else [inner]
    found: list[Layer] = []
    for one in stated_below(layer):
        if is_layer(one) and not contains(found, one):
            found.append(one)  # type: ignore[arg-type]
    return found


def stated_below(layer: Layer) -> Sequence[object]:
    """The answer ``layers_below``; one that raises is unknown, and then it is ``inner``.

    A mistake in a user's property must not keep a stack from being closed.
    """
    try:
        return layer.layers_below
    except Exception:  # noqa: BLE001 - see above
        inner = layer.lifecycle.inner
        return () if inner is None else (inner,)


def is_closed(layer: Layer) -> bool:
    """Whether a layer is closed, or being closed; or else all that it is over."""
    if layer.lifecycle.close is not None or layer.lifecycle.released:
        return True
    lower = stated_below(layer)
    return bool(lower) and all(is_layer(one) and is_closed(one) for one in lower)  # type: ignore[arg-type]


def says_what_is_below(layer: Layer) -> bool:
    """Whether the layer, or its class, says itself what it is over: it may be several streams."""
    if layer.lifecycle.is_single:
        return False
    if layer.overrides_layers_below:
        return True
    if layer.announces_held_bytes:
        return False  # one of the library's: only its class answers
    # Not by vars(): the attributes of an object that was asked for its dictionary are slow.
    inner, lower = layer.lifecycle.inner, layer.layers_below
    return len(lower) > 1 or (lower[0] if lower else None) is not inner


def above(layer: Layer) -> list[Layer]:
    """The open layers directly above; those that hold bytes come first, in that order."""
    lifecycle = layer.lifecycle
    if not lifecycle.above:
        return []
    found = [one for one in lifecycle.holders if not one.lifecycle.released]
    for reference in lifecycle.above:
        one = reference()
        if one is not None and not one.lifecycle.released and not contains(found, one):
            found.append(one)
    return found


def contains(layers: Sequence[Layer], layer: object) -> bool:
    """Whether ``layer`` itself is in the list; nothing is compared or hashed."""
    for one in layers:  # noqa: SIM110 - any() takes three times as long
        if one is layer:
            return True
    return False


def written_below(layer: Layer) -> list[Layer]:
    """The layers directly below that ``layer`` writes to."""
    inner = layer.lifecycle.inner
    found = [] if inner is None else [inner]
    if layer.is_writer and says_what_is_below(layer):
        try:
            stated = layer.writes_below
        except Exception:  # noqa: BLE001 - as in stated_below()
            stated = ()
        layers = [one for one in stated if is_layer(one) and one is not inner]
        found.extend(one for one in layers if one.is_writer)  # type: ignore[attr-defined, misc]
    return found


def writing_chain(layer: Layer) -> list[Layer]:
    """``layer`` and those that its bytes pass on their way down."""
    chain = [layer]
    for one in chain:
        chain += [lower for lower in written_below(one) if not contains(chain, lower)]
    return chain


def readers_above(layer: Layer) -> list[Layer]:
    """All layers that may read through ``layer`` without writing to it, as a pair does."""
    found: list[Layer] = []
    todo = [upper for upper in above(layer) if upper.lifecycle.inner is not layer]
    while todo:
        one = todo.pop()
        if not contains(found, one):
            found.append(one)
            todo += above(one)
    return found


def writers_above(layer: Layer) -> list[Layer]:
    """All layers whose bytes pass ``layer``, the nearest ones first."""
    found: list[Layer] = []
    if not layer.lifecycle.above:
        return found
    todo = [layer]
    while todo:
        one = todo.pop(0)
        for upper in above(one):
            writes = upper.lifecycle.inner is one or contains(written_below(upper), one)
            if writes and not contains(found, upper):
                found.append(upper)
                todo.append(upper)
    return found


# ---- Registration ------------------------------------------------------------------------------


def register(layer: Layer, lower: Layer) -> None:
    """Let ``lower`` know that ``layer`` is above it, and forget those that are gone."""
    lifecycle = lower.lifecycle
    living: list[weakref.ref[Layer]] = []
    for reference in lifecycle.above:
        upper = reference()
        if upper is layer:
            return
        if upper is not None:
            living.append(reference)
    lifecycle.above = (*living, weakref.ref(layer))


def unregister(layer: Layer, lower: Layer) -> None:
    """Let ``lower`` forget ``layer``."""
    lifecycle = lower.lifecycle
    lifecycle.above = tuple(one for one in lifecycle.above if one() is not layer)
    not_held_below(layer, lower)


def set_inner(layer: Layer, thing: object) -> None:
    """``layer`` writes to ``thing`` from now on, and inherits the state it is in."""
    # What lifecycle_of() and register() do, without their frames: every new layer comes here.
    lifecycle = getattr(layer, "lifecycle", None)
    if type(lifecycle) is not Lifecycle:
        lifecycle = lifecycle_of(layer)
    if lifecycle.inner is not None or lifecycle.attached or lifecycle.odd_inner is not None:
        before = lifecycle.inner
        if before is not None:
            if before is thing:
                return
            unregister(layer, before)
        lifecycle.inner = lifecycle.odd_inner = None
        lifecycle.attached = lifecycle.is_single = False
        lifecycle.watched = ()
        lifecycle.rate = 0
    if is_layer(thing):
        inner: Layer = thing  # type: ignore[assignment]
        lifecycle.inner = inner
        theirs = inner.lifecycle
        if theirs.above:
            register(layer, inner)
        else:
            theirs.above = (weakref.ref(layer),)
        if lifecycle.holding:
            _hold_below(layer, inner)
        if theirs.refusal is not None:
            _inherit(layer, inner)
        return
    if hasattr(thing, "poll_write"):
        lifecycle_of(thing)  # a mock has everything but this
    lifecycle.odd_inner = thing


def _inherit(layer: Layer, inner: Layer) -> None:
    """``inner`` refuses, and so does ``layer``."""
    ours, theirs = layer.lifecycle, inner.lifecycle
    ours.failure = ours.failure or theirs.failure
    ours.interrupt = ours.interrupt or theirs.interrupt
    if theirs.torn is not None and ours.torn is None:
        ours.torn, ours.torn_text = Torn.ABOVE, theirs.torn_text
    ours.shut = ours.shut or theirs.shut or theirs.phase is not OPEN
    if theirs.released:
        ours.shut = True
    if theirs.close is not None and not theirs.released:
        theirs.close.include(layer)  # type: ignore[attr-defined]
    ours.update()


def find_inner(layer: Layer) -> Layer | None:
    """The layer that ``layer`` writes to.

    Nobody tells when a class that has ``inner`` as a property, or with a default, gets one.
    """
    lifecycle = layer.lifecycle
    if lifecycle.inner is None and layer.overrides_inner:
        inner = getattr(layer, "inner", None)
        if inner is not None:
            set_inner(layer, inner)
    return lifecycle.inner


def attach(layer: Layer) -> None:
    """See to it that the stack below knows this layer; at the latest at the first await."""
    lifecycle = lifecycle_of(layer)
    if layer.overrides_inner:
        # The poll that needs it raises the mistake of a user's property. A close goes on.
        with contextlib.suppress(Exception):
            find_inner(layer)
    lifecycle.attached = True
    lifecycle.is_single = not says_what_is_below(layer)
    if not layer.announces_held_bytes:
        lifecycle.is_watched = layer.overrides_held_bytes or "held_bytes" in vars(layer)
    if lifecycle.inner is not None or not lifecycle.is_single:
        _attach_below(layer)
    lifecycle.update_attached()


def _attach_below(layer: Layer) -> None:
    lifecycle = layer.lifecycle
    watched: list[Layer] = []
    for one in below(layer):
        theirs = one.lifecycle
        if one is not lifecycle.inner:  # that one knows us since it was set
            register(layer, one)
        if not theirs.attached:
            attach(one)
        if theirs.watched or theirs.is_watched:
            for each in (*theirs.watched, *([one] if theirs.is_watched else [])):
                if not contains(watched, each):
                    watched.append(each)
    lifecycle.watched = tuple(watched)
    inner = lifecycle.inner
    can_write = inner is not None and not inner.lifecycle.released
    if can_write and not lifecycle.owes_epilogue and owes_epilogue(layer):
        lifecycle.owes_epilogue = True
        hold(layer)


def owes_epilogue(layer: Layer) -> bool:
    """Whether a proper end of ``layer`` writes something; no, if its answer raises."""
    try:
        return layer.is_writer and layer.epilogue is not Epilogue.NOTHING
    except Exception:  # noqa: BLE001 - a mistake of a user must not keep a stack from being closed
        return False


def detach(layer: Layer, reason: str = "") -> None:
    """Close ``layer`` and all above it, and nothing else: what is below goes on without them.

    Args:
        layer: the layer.
        reason: what their users are told.
    """
    for one in (layer, *writers_above(layer)):
        lifecycle = one.lifecycle
        lifecycle.released = True
        lifecycle.closed_text = reason
        lifecycle.failure = lifecycle.read_failure = None
        lifecycle.holders = ()
        lifecycle.update()
    for lower in below(layer):
        unregister(layer, lower)


# ---- Holding bytes -----------------------------------------------------------------------------


def hold(layer: Layer) -> None:
    """``layer`` holds bytes from now on: those below keep it alive."""
    lifecycle = layer.lifecycle
    if not lifecycle.attached:  # a layer that is polled by hand
        attach(layer)
    # In a loop, since every flushed write comes through here.
    while True:
        lifecycle.holding += 1
        if lifecycle.holding > 1:
            return
        inner = lifecycle.inner
        if not lifecycle.is_single:
            for lower in below(layer):
                _hold_below(layer, lower)
            return
        if inner is None:
            return
        lifecycle = inner.lifecycle
        lifecycle.holders = (*lifecycle.holders, layer)
        layer = inner


def _hold_below(layer: Layer, lower: Layer) -> None:
    """Let ``lower`` keep ``layer`` alive, if it does not do so."""
    if not contains(lower.lifecycle.holders, layer):
        lower.lifecycle.holders = (*lower.lifecycle.holders, layer)
        hold(lower)


def let_go(layer: Layer) -> None:
    """``layer`` holds nothing any more."""
    lifecycle = layer.lifecycle
    # In a loop, as hold(), and mostly without _drop().
    while True:
        lifecycle.holding -= 1
        if lifecycle.holding:
            return
        inner = lifecycle.inner
        if not lifecycle.is_single:
            for lower in below(layer):
                not_held_below(layer, lower)
            return
        if inner is None:
            return
        lifecycle = inner.lifecycle
        holders = lifecycle.holders
        if len(holders) == 1 and holders[0] is layer:
            lifecycle.holders = ()
        elif not _drop(layer, inner):
            return
        layer = inner


def _drop(layer: Layer, lower: Layer) -> bool:
    """Let ``lower`` not refer to ``layer`` any more; whether it did so before."""
    lifecycle = lower.lifecycle
    if not contains(lifecycle.holders, layer):
        return False
    lifecycle.holders = tuple(one for one in lifecycle.holders if one is not layer)
    return True


def not_held_below(layer: Layer, lower: Layer) -> None:
    """``lower`` need not keep ``layer`` alive any more."""
    if _drop(layer, lower):
        let_go(lower)


def look(layer: Layer) -> None:
    """Ask a layer that does not announce it whether it holds bytes."""
    lifecycle = layer.lifecycle
    holds = held_by(layer) != 0
    # Its own hold, beside one for each of the layers above that are held, for its epilogue, and for
    # what it knows.
    others = len(lifecycle.holders) + lifecycle.owes_epilogue + lifecycle.is_witness
    announced = lifecycle.holding > others
    if holds and not announced:
        hold(layer)
    elif announced and not holds:
        let_go(layer)


def keep_witness(layer: Layer) -> None:
    """Let those below keep ``layer`` alive while it alone knows of a message that is cut short."""
    lifecycle = layer.lifecycle
    is_witness = lifecycle.unfinished is not None or any(
        (lifecycle.torn is not None and one.lifecycle.torn is None)
        or (lifecycle.failure is not None and one.lifecycle.failure is None)
        for one in written_below(layer)
    )
    if is_witness is not lifecycle.is_witness:
        lifecycle.is_witness = is_witness
        if is_witness:
            hold(layer)
        else:
            let_go(layer)


def held_by(layer: Layer) -> int | None:
    """How many bytes a layer holds; None if its answer raises, which is unknown.

    Law: unknown counts as held.
    """
    try:
        return layer.held_bytes
    except Exception:  # noqa: BLE001 - a user's property; to close the stack matters more
        return None


def held_for(layer: Layer, lower: Layer) -> int | None:
    """How much a layer holds for one below; None if its answer raises, which is unknown."""
    try:
        return layer.held_for(lower)
    except Exception:  # noqa: BLE001 - as in held_by()
        return None


def held_for_some(layer: Layer, lowers: Sequence[Layer]) -> int | None:
    """How much a layer over several streams holds for some of them; None if it is unknown.

    0 if it cannot divide that: who ends one stream tells of all, and tears the others.
    """
    if not layer.overrides_poll_flush_side:
        return 0
    counts = [held_for(layer, lower) for lower in lowers]
    return None if None in counts else max(filter(None, counts), default=0)


def number(count: int | None) -> str:
    """A count of bytes, for a message; None is unknown."""
    return "an unknown number of" if count is None else str(count)


def is_counted(layer: Layer) -> bool:
    """Whether what ``layer`` holds was written by somebody, as far as the layers above know.

    TLS sends a handshake and alerts of which its user knows nothing.
    """
    return not any(upper.encodes and not upper.carries_data for upper in writers_above(layer))


def unsent_below(layer: Layer) -> int:
    """The bytes that ``layer`` and all below it hold; an unknown count adds nothing."""
    if layer.lifecycle.inner is None and not says_what_is_below(layer):
        return held_by(layer) or 0
    return sum(held_by(one) or 0 for one in writing_chain(layer))


# ---- Failures ----------------------------------------------------------------------------------


def is_refusal(exc: BaseException) -> bool:
    """Whether an error that a poll raised breaks no layer."""
    return isinstance(exc, Refusal) or (isinstance(exc, WriteZeroError) and not exc.permanent)


def fail(layer: Layer, exc: BaseException) -> None:
    """To be called when a poll of ``layer`` that writes has raised ``exc``, before re-raising it.

    The writing direction of ``layer``, and of all above it, is broken from now on.

    Raises:
        trio.BrokenResourceError: from ``exc``, if that is an error of the operating system or of
            TLS, which the caller shall see in Trio's words.
    """
    lifecycle = layer.lifecycle
    if isinstance(exc, NotReady) or is_refusal(exc):
        if isinstance(exc, trio.BrokenResourceError):
            lifecycle.told, lifecycle.untold = True, False
        return
    lifecycle.told = True
    ours = isinstance(exc, trio.BrokenResourceError) and exc.__cause__ is not None
    cause = exc.__cause__ if ours else exc
    for one in (layer, *writers_above(layer)):
        if one.lifecycle.failure is None:
            one.lifecycle.failure = cause
            one.lifecycle.update()
    keep_witness(layer)
    if isinstance(exc, OSError):
        raise trio.BrokenResourceError(f"{layer!r}: {exc}") from exc


def keep_for_next_call(layer: Layer, exc: BaseException) -> bool:
    """For a poll of ``layer`` that has met ``exc`` after it had accepted bytes.

    The poll returns its count. ``layer`` and all above it are broken, and the next call of one of
    them raises ``exc``. A close does so, too, though it polls no broken layer.

    Returns:
        Whether it is kept: Ctrl-C is, for example, and so is a mistake in a layer of the user's. A
        failure of the connection is not: later calls say that the layer has failed, and why.
    """
    of_connection = OSError, trio.BrokenResourceError, trio.ClosedResourceError, NotReady
    if isinstance(exc, of_connection) or is_refusal(exc):
        return False
    if layer.lifecycle.failure is None:
        fail(layer, exc)
    interrupt = Interrupt(exc)
    for one in writing_chain(layer):
        for each in (one, *writers_above(one)):
            if each.lifecycle.failure is exc:
                each.lifecycle.interrupt = interrupt
    return True


def fail_because(layer: Layer, reason: BaseException) -> None:
    """Writing to ``layer`` and all above it has failed, and ``reason`` says more than others do.

    The peer's alert, for example, says more than the broken pipe that is met before it is read.
    """
    for one in (layer, *writers_above(layer)):
        one.lifecycle.failure = reason
        one.lifecycle.update()


def forgive(layer: Layer) -> None:
    """A failure of ``layer`` and those below has cost nothing: they have ended, and are not broken.

    For an epilogue that a peer which has ended before did not hear.
    """
    for one in writing_chain(layer):
        one.lifecycle.failure = None
        one.lifecycle.update()
        one.lifecycle.end()
        for upper in writers_above(one):
            upper.lifecycle.failure = None
            upper.lifecycle.update()


def call_poll(layer: Layer, name: str, *args: object) -> None:
    """Make the poll ``name`` of ``layer``, one that returns None.

    Raises:
        NotReady: as the poll does.
        TypeError: if it returns something: it is no poll.
    """
    answer = getattr(layer, name)(*args)
    if answer is not None:
        wrong_answer(layer, name, answer)


def poll_step(layer: Layer, name: str, *args: object) -> None:
    """Make the poll ``name`` of ``layer``, one that returns None; for layers above it.

    Raises:
        NotReady: as the poll does.
        TypeError: if it returns something.
        trio.BrokenResourceError: if it fails; ``layer`` and all above it are then broken.
    """
    try:
        # What call_poll() does, without its frame: every flush of a stack comes through here.
        answer = getattr(layer, name)(*args)
        if answer is not None:
            wrong_answer(layer, name, answer)
    except NotReady:
        raise
    except BaseException as exc:
        fail(layer, exc)
        raise


def poll_below(layer: Layer, poll: Callable[[Unpack[Ts]], T], *args: Unpack[Ts]) -> T:
    """Poll ``layer``, by a poll of its own that writes; for layers above it.

    Raises:
        NotReady: as the poll does.
        trio.BrokenResourceError: if it fails; ``layer`` and all above it are then broken.
    """
    try:
        return poll(*args)
    except NotReady:
        raise
    except BaseException as exc:
        fail(layer, exc)
        raise


# ---- Tears -------------------------------------------------------------------------------------


def tear(layer: Layer, text: str, *, ours: Sequence[Layer] = (), is_kept: bool = True) -> None:
    """A message that was begun on ``layer`` will not be finished.

    The tear reaches down to the first layer that encodes (a record or block that was begun there
    is finished there), and everything above any layer that it reaches.
    A layer that merely passes messages on to one that keeps them whole is not exempt: it may have
    passed on a part.

    Args:
        layer: the layer.
        text: what a torn layer says.
        ours: those above that are being closed, and know.
        is_kept: whether ``layer`` finishes the message if it is one that keeps messages whole.
    """
    reached: list[Layer] = []
    todo = [layer]
    for one in todo:
        says_itself = one.overrides_keeps_messages or "keeps_messages" in vars(one)
        finishes = says_itself and one.keeps_messages and (is_kept or one is not layer)
        if finishes or not one.can_be_torn:
            continue
        reached.append(one)
        if not one.encodes:
            todo += [lower for lower in written_below(one) if not contains(todo, lower)]
    for one in reached:
        for upper in writers_above(one):
            if upper.can_be_torn and not (contains(reached, upper) or contains(ours, upper)):
                _mark_torn(upper, Torn.ABOVE, text)
    for one in reached:
        _mark_torn(one, Torn.HERE if one is layer else Torn.BELOW, text)
    for one in reached:
        for each in (one, *writers_above(one)):
            keep_witness(each)
    if reached:
        arm_reset(layer)


def _mark_torn(layer: Layer, torn: Torn, text: str) -> None:
    lifecycle = layer.lifecycle
    if lifecycle.torn is None or lifecycle.torn is Torn.BELOW:
        lifecycle.torn, lifecycle.torn_text = torn, text
        lifecycle.update()


def arm_reset(layer: Layer) -> None:
    """Let the kernel reset the connection if everybody dies now.

    Not where a layer on the way shows the truncation by its missing epilogue: there the end is a
    FIN, so that what the kernel has queued survives.
    """
    for one in writing_chain(layer):
        if not any(each.shows_truncation for each in (one, *writers_above(one))):
            one.arm_reset(on=True)


def settle(layer: Layer, call: Call, *, closed: bool) -> None:
    """A call has ended before all was done: keep what a later end must know.

    Args:
        layer: the layer that was called.
        call: its progress.
        closed: whether another task's close has ended it, which goes on with a flush.
    """
    buf = call.buf
    if buf is not None:
        if buf and (call.accepted or call.goes_on):
            set_unfinished(layer, Unfinished(buf))
            arm_reset(layer)
        return
    text = call.cut_text()
    if text:
        tear(layer, text, is_kept=call.is_kept)
    if call.sends and not closed and any(held_by(one) != 0 for one in writing_chain(layer)):
        abandon(layer)


def abandon(layer: Layer) -> None:
    """A send_all or send_eof was given up with bytes unsent.

    They may be in any layer below, which may be closed when this one is gone.
    """
    for one in writing_chain(layer):
        one.lifecycle.abandoned = True


def set_unfinished(layer: Layer, unfinished: Unfinished | None) -> None:
    """A Buf or FilePart was begun on ``layer``, or is not in the way any more.

    One that was begun through a handle belongs to the original.
    """
    owner = layer.lifecycle.original or layer.lifecycle
    owner.unfinished = unfinished
    for one in writing_chain(layer):
        if one.lifecycle is owner:
            keep_witness(one)
            one.lifecycle.update()
            for upper in writers_above(one):
                if upper.lifecycle.original is owner:
                    upper.lifecycle.update()


def finished(layer: Layer) -> None:
    """A Buf or FilePart that an earlier call had begun has been written completely."""
    for one in writing_chain(layer):
        if all(
            each.lifecycle.torn is None and each.lifecycle.unfinished is None
            for each in (one, *writers_above(one))
        ):
            one.arm_reset(on=False)


def resumed(layer: Layer) -> None:
    """A flush, send or shutdown has returned: nothing is abandoned here and below."""
    one: Layer | None = layer
    while one is not None:
        lifecycle = one.lifecycle
        if lifecycle.abandoned:
            lifecycle.abandoned = False
        if not lifecycle.is_single:
            for lower in written_below(one):
                resumed(lower)
            return
        one = lifecycle.inner


# ---- Shutting down -----------------------------------------------------------------------------


def check_shutdown(layer: Layer, close: object = None) -> None:
    """Raise, and break nothing, if ``layer`` cannot be shut down now.

    Args:
        layer: the layer.
        close: the close that shuts it down, and has seen to its own layers.

    Raises:
        trio.BusyResourceError: if a message is under way in a layer that would be ended.
        trio.BrokenResourceError: if a Buf or FilePart is unfinished in one.
        ValueError: if a layer above one still holds bytes, or is in the middle of its epilogue.
    """
    chain = [layer]
    for one in chain:
        chain += [
            lower
            for lower in (written_below(one) if one.shuts_down_below else ())
            if lower.lifecycle.phase is not ENDED and not contains(chain, lower)
        ]
    for one in chain:
        lifecycle = one.lifecycle
        if (one is not layer or close is not None) and lifecycle.inside and lifecycle.calls:
            raise BusyRefusal(f"another task is writing a message to {one!r}")
        # Not that of the original of a handle: it stays open, to be gone on with.
        if lifecycle.unfinished is not None and lifecycle.torn is None:
            lifecycle.refuse_unfinished(one)
        for upper in writers_above(one):
            is_ended_by_it = close is not None and upper.lifecycle.close is close
            if not (contains(chain, upper) or is_ended_by_it):
                _check_whole(upper, one, f"shut {layer!r} down")


def _check_whole(upper: Layer, lower: Layer, purpose: str) -> None:
    """Raise if something of ``upper`` would be missing in ``lower``, were that ended now."""
    if upper.lifecycle.inside and upper.lifecycle.calls:
        raise BusyRefusal(f"another task is writing a message to {upper!r}")
    if upper.lifecycle.torn is not None:
        # What it holds is lost already. But where the tear has not come so far down, because a
        # layer in between keeps messages whole, nobody would see that the rest of one is missing.
        is_seen = lower.lifecycle.torn is not None or any(
            one.encodes for one in writers_above(lower)
        )
        if lower.can_be_torn and not is_seen:
            upper.lifecycle.refuse(upper)
        return
    if upper.lifecycle.unfinished is not None:
        upper.lifecycle.refuse_unfinished(upper)
    is_direct = contains(written_below(upper), lower)
    held = held_for(upper, lower) if is_direct else held_by(upper)
    if held != 0:
        raise ValueError(
            f"{upper!r} holds {number(held)} unsent bytes: flush it before you {purpose}"
        )
    if upper.lifecycle.phase is ENDING and lacks_epilogue(upper):
        raise ValueError(f"the shutdown of {upper!r} has begun: complete it first")


def check_nothing_held_above(layer: Layer, purpose: str) -> None:
    """Raise if a layer above ``layer`` holds bytes, or if a message is not complete.

    For those who end a layer without the one below.

    Raises:
        ValueError: says how many, and for which ``purpose`` they are in the way.
        trio.BusyResourceError: if a message is under way in a layer above.
        trio.BrokenResourceError: if a Buf or FilePart is unfinished in ``layer`` or a layer above.
    """
    if (layer.lifecycle.original or layer.lifecycle).unfinished is not None:
        layer.lifecycle.refuse_unfinished(layer)
    for upper in writers_above(layer):
        _check_whole(upper, layer, purpose)


def check_may_encode(layer: Layer, purpose: str) -> None:
    """The same, also for the layers below: for those who make a layer over ``layer`` that encodes.

    Its bytes pass all of them, down to the first one that encodes itself.

    Raises:
        ValueError: if a layer above one of them, which is not on the way, holds bytes.
        trio.BusyResourceError: if a message is under way there, or on the way.
        trio.BrokenResourceError: if a Buf or FilePart is unfinished there, or on the way.
    """
    chain = [layer]
    for one in chain:
        lifecycle = one.lifecycle
        if (lifecycle.original or lifecycle).unfinished is not None:
            lifecycle.refuse_unfinished(one)
        if lifecycle.inside and lifecycle.calls:
            raise BusyRefusal(f"another task is writing a message to {one!r}")
        for upper in writers_above(one):
            if not contains(chain, upper):
                _check_whole(upper, one, purpose)
        if not one.encodes:
            chain += [lower for lower in written_below(one) if not contains(chain, lower)]


def begin_shutdown(layer: Layer) -> bool:
    """For ``poll_shutdown``: begin, or go on; False if there is nothing left to do.

    From now on nothing can be written to ``layer`` and all above it.

    Raises:
        trio.ClosedResourceError: if it is closed.
        trio.BrokenResourceError: if it has failed or is torn; or if the close of a layer above
            would end it, and something of others is still to be written to it.
    """
    lifecycle = layer.lifecycle
    if lifecycle.phase is ENDED and not lifecycle.released:
        return False
    own, by = lifecycle.open_to, lift.by
    if own is not None and own is by and own.is_line:
        lifecycle.phase = ENDING  # all above are closed with it, and refuse everything
        return True
    lifecycle.check_flush(layer)
    close = lifecycle.close
    if close is None or close is not by:
        if lifecycle.phase is OPEN and isinstance(by, Closer) and not _may_end(by, layer):
            return False
    elif close.postpones(layer):
        return False
    if lifecycle.phase is OPEN:
        lifecycle.phase = ENDING
        lifecycle.update()
        shut_above(layer)
    return True


def _may_end(close: Closer, layer: Layer) -> bool:
    """Whether ``close``, which ends layers above ``layer`` but not ``layer``, may shut it down.

    For example, the close of one half of a stream whose other half lives. If not, that is left to
    the close of ``layer`` itself, if there is one.

    Raises:
        trio.BrokenResourceError: if there is none. ``layer`` stays open, and nothing is lost.
    """
    if not any(upper.lifecycle.close is close for upper in above(layer)):
        return True  # who began has looked: the shell, or this for a layer above
    own = layer.lifecycle.close
    if own is not None and own.ends_truncated(close.layers):
        return False
    try:
        if layer.lifecycle.torn is not None:
            layer.lifecycle.refuse(layer)
        check_shutdown(layer, close)
    except (ValueError, BusyRefusal, BrokenRefusal) as exc:
        if own is not None:
            return False
        # No close raises Busy.
        raise BrokenRefusal(f"{layer!r} was not shut down: {exc}") from None
    return True


def shut_above(layer: Layer) -> None:
    """Nothing can be written any more to the layers above ``layer``."""
    for upper in writers_above(layer):
        lifecycle = upper.lifecycle
        if lifecycle.shut:
            continue
        if lacks_epilogue(upper) and all(
            # Unless it is the upper layer's own shutdown, or that of one above it.
            one.lifecycle.phase is OPEN
            for one in (upper, *writers_above(upper))
        ):
            lifecycle.marked_truncated = True
            lifecycle.torn_text = "a layer below was shut down before its epilogue was written"
        lifecycle.shut = True
        lifecycle.update()


def lacks_epilogue(layer: Layer) -> bool:
    """Whether ``layer`` could still write an epilogue to the one below, and has not done so.

    It has when the shutdown of the layer below has begun.
    """
    lifecycle = layer.lifecycle
    inner = lifecycle.inner
    if lifecycle.phase is ENDED or lifecycle.shut or inner is None:
        return False
    if lifecycle.phase is ENDING and inner.lifecycle.phase is not OPEN:
        return False
    epilogue = epilogue_of(layer)
    # Without a session, nobody misses its close_notify.
    return epilogue is Epilogue.DATA or (
        epilogue is Epilogue.CLOSE_NOTIFY and layer.shows_truncation
    )


def epilogue_of(layer: Layer) -> Epilogue:
    """The answer ``epilogue``; one that raises is unknown, and then it is data."""
    try:
        return layer.epilogue
    except Exception:  # noqa: BLE001 - a user's property; to close the stack matters more
        return Epilogue.DATA


def shut_down(layer: AsyncWrite) -> None:
    """For a layer's ``poll_shutdown``: shut down ``layer``, which is below it.

    A layer of yours need not remember that it was shut down: this does.

    Raises:
        NotReady: until it is complete.
        trio.ClosedResourceError: if it is closed.
        trio.BrokenResourceError: if it fails, now or before.
    """
    if begin_shutdown(layer):
        poll_step(layer, "poll_shutdown")
        layer.lifecycle.end()


# ---- Warnings ----------------------------------------------------------------------------------


class _LostBytes:
    """Gives a warning when it is collected, which is at once.

    With ``-W error`` a warning is an exception, which must not replace the one that is on its way.
    Out of a ``__del__`` it goes to :func:`sys.unraisablehook`.
    """

    __slots__ = ("source", "text")

    def __init__(self, text: str, source: object) -> None:
        self.text = text
        self.source = source

    def __del__(self) -> None:
        warn(self.text, self.source)


def warn(text: str, source: object) -> None:
    """Give a ResourceWarning about ``source``."""
    warnings.warn(text, ResourceWarning, stacklevel=2, source=source)


def warn_unraisably(text: str, source: object) -> None:
    """Give a ResourceWarning that never becomes an exception here."""
    _LostBytes(text, source)
