"""Poll, wait, poll again: the one loop around all polls.

The loop checks for cancellation before the first poll. Once a poll has succeeded, only a
*shielded* yield may follow: had the task been cancelled there, ``Cancelled`` would no longer mean
"nothing was accepted".

Calls that stay in a buffer skip the yields. They draw on the budget of ``_budget.py`` instead.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from ._budget import SPENT, spend, spend_at_once
from ._buf import Buf
from ._checks import accepted, byte_view
from ._errors import NotReady
from ._lifecycle import ENDED, ENDING, Call, Torn, lifted
from ._stack import (
    attach,
    begin_shutdown,
    call_poll,
    check_shutdown,
    fail,
    finished,
    look,
    resumed,
    set_unfinished,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer, TypeVarTuple, Unpack

    from ._async_write import AsyncWrite
    from ._layer import Layer

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")

#: How often one call may poll without a wait before it lets the other tasks run.
POLLS_PER_TURN: Final = 16

#: How many parts to offer at once: as many as Linux's writev takes. To list all that are left at
#: every poll would take quadratic time.
_PARTS_PER_POLL: Final = 1024


@trio.lowlevel.enable_ki_protection
async def drive(
    layer: Layer, poll: Callable[[Unpack[Ts]], T], *args: Unpack[Ts], lift: object = None
) -> T:
    """Poll until it is ready: a full checkpoint. For who has claimed ``layer``.

    Args:
        layer: the layer that was called.
        poll: one of its polls that write; if it fails, the layer is broken.
        *args: its arguments.
        lift: whose refusals to lift for the polls; see ``_lifecycle.py``.
    """
    lifecycle = layer.lifecycle
    line = lifecycle.line
    turn = None if line is None else line.enter()
    try:
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while True:
            try:
                if lift is not None:
                    with lifted(lift):
                        result = poll(*args)
                elif line is not None and turn is not None:
                    result = line.poll(turn, functools.partial(poll, *args))
                else:
                    result = poll(*args)
                break
            except NotReady as not_ready:
                wait = not_ready.wait
            except BaseException as exc:
                fail(layer, exc)
                raise
            await lifecycle.wait(layer, wait)
            waited = True
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return result
    finally:
        if line is not None and turn is not None:
            line.leave(turn)


def claim(layer: Layer, *, writing: bool) -> object:
    """Make this task the one inside ``layer``; what lifts its refusals for this task, if any.

    Raises:
        trio.ClosedResourceError: if a shutdown or close has begun.
        trio.BusyResourceError: if another task is inside.
        trio.BrokenResourceError: if it has failed, is torn, or has an unfinished Buf.
    """
    lifecycle = layer.lifecycle
    if not lifecycle.attached:
        attach(layer)
    if lifecycle.refusal is None and lifecycle.is_simple and not lifecycle.inside:
        lifecycle.inside = True
        lifecycle.fast = SPENT
        return None
    lifecycle.claim(layer, writing=writing)
    return None if lifecycle.refusal is None else lifecycle.lift_of()


def leave(layer: Layer) -> None:
    """This task is not inside ``layer`` any more."""
    lifecycle = layer.lifecycle
    if lifecycle.refusal is None and lifecycle.is_simple:
        lifecycle.inside = False
        lifecycle.fast = lifecycle.budget
        return
    try:
        if lifecycle.is_watched:
            look(layer)
        for one in lifecycle.watched:
            look(one)
    finally:
        # Whatever a user's held_bytes raises.
        lifecycle.leave()


# ---- Messages: the argument of one call --------------------------------------------------------


class Message(Call):
    """What one call writes, and how far it has come.

    Most data is accepted whole and at once, and needs no cursor; ``rest`` is made when it is not.
    """

    __slots__ = ("data", "rest")

    def __init__(self, data: bytes | memoryview, *, sends: bool = False) -> None:
        # The base's fields spelt out: a message is made for every write.
        self.size = len(data)
        self.accepted = 0
        self.sends = sends
        self.flushing = self.goes_on = False
        self.buf = None
        self.data = data
        self.rest: Buf | None = None


def poll_some(writer: AsyncWrite, message: Message) -> int:
    """Write some of a message, which is all that was asked for: a close finds no torn message."""
    count = writer.poll_write(message.data)
    if count != message.size or type(count) is not int:
        count = accepted(count, message.size, writer)
    return count


def poll_once(writer: AsyncWrite, message: Message) -> int:
    """Write some of a message, of which all is to be written."""
    count = writer.poll_write(message.data)
    if count != message.size or type(count) is not int:
        count = accepted(count, message.size, writer)
    message.accepted = count
    return count


def poll_whole(writer: AsyncWrite, message: Message) -> None:
    """Write all of a message."""
    rest = message.rest
    if rest is None:
        if poll_once(writer, message) == message.size:
            return
        message.rest = rest = Buf(memoryview(message.data)[message.accepted :])
    poll_parts(writer, message, rest)


def poll_parts(writer: AsyncWrite, call: Call, rest: Buf) -> None:
    """Write all that is ahead of the cursor."""
    for _ in range(POLLS_PER_TURN):
        call.accepted += poll_buf(writer, rest)
        if not rest.remaining:
            return
    raise NotReady(trio.lowlevel.checkpoint)


def poll_send(writer: AsyncWrite, message: Message) -> None:
    """Write all of a message, and flush."""
    if not message.flushing:
        if message.size:
            poll_whole(writer, message)
        message.flushing = True
    call_poll(writer, "poll_flush")


# Ctrl-C must not fall between what was accepted and the cursor that says so.
@trio.lowlevel.enable_ki_protection
def poll_buf(writer: AsyncWrite, buf: Buf) -> int:
    """Write some of what is ahead of the cursor, and move it past what was accepted.

    A message of any number of parts stays one message through every layer.
    """
    if buf.is_contiguous():
        count = writer.poll_write(buf.chunk())
    elif buf.remaining < writer.spare_capacity or writer.keeps_messages:
        # What is taken whole is taken in one go.
        count = writer.poll_write_vectored(buf.chunks())
    else:
        count = writer.poll_write_vectored(buf.chunks(_PARTS_PER_POLL))
    count = accepted(count, buf.remaining, writer)
    buf.advance(count)
    return count


@trio.lowlevel.enable_ki_protection
async def drive_write(
    writer: AsyncWrite, size: int, poll: Callable[[Unpack[Ts]], T], *args: Unpack[Ts], lift: object
) -> T:
    """Write ``size`` bytes by ``poll``; if they stay in a buffer, it costs a call of the budget."""
    if size < writer.spare_capacity and lift is None:
        lifecycle = writer.lifecycle
        if lifecycle.line is None:
            lifecycle.budget = await spend(lifecycle.budget)
            stays = lifecycle.refusal is None
        else:
            # The line makes the checkpoint, or others could overtake during it.
            lifecycle.budget, stays = spend_at_once()
        if stays and size < writer.spare_capacity:
            try:
                return poll(*args)
            except NotReady:
                pass  # a spare_capacity that was not true
            except BaseException as exc:
                fail(writer, exc)
                raise
    return await drive(writer, poll, *args, lift=lift)


@trio.lowlevel.enable_ki_protection
async def write_message(
    writer: AsyncWrite, poll: Callable[[AsyncWrite, Message], T], data: Buffer, *, sends: bool
) -> T:
    """Write ``data`` by ``poll``.

    Args:
        writer: the writer.
        poll: writes some of it, or all.
        data: the bytes.
        sends: whether it is Trio's verb: it flushes, and is not resumed when it is cancelled.
    """
    view = data if type(data) is bytes else byte_view(data)
    lifecycle = writer.lifecycle
    try:
        lift = claim(writer, writing=True)
        message = Message(view, sends=sends)
        calls = lifecycle.calls
        lifecycle.calls = (*calls, message) if calls else (message,)
        done = False
        try:
            if sends or not writer.spare_capacity:
                result = await drive(writer, poll, writer, message, lift=lift)
                if sends:
                    resumed(writer)
            else:
                result = await drive_write(writer, message.size, poll, writer, message, lift=lift)
            done = True
            return result
        finally:
            if message.rest is not None:
                message.rest.release()
            _leave(writer, message, done=done)
    finally:
        if type(view) is memoryview:
            view.release()


@trio.lowlevel.enable_ki_protection
async def write_from(
    writer: AsyncWrite,
    buf: Buf,
    poll: Callable[[AsyncWrite, Call, Buf], T],
    *,
    whole: bool,
    resumable: bool = True,
    begun: bool = False,
) -> T:
    """Write from a cursor by ``poll``.

    Args:
        writer: the writer.
        buf: the cursor.
        poll: writes some of it, or all.
        whole: whether a Buf that was begun is then unfinished, until it is written completely.
        resumable: whether the caller keeps the cursor, and can go on with it.
        begun: whether the Buf is unfinished even before a part of it was accepted.
    """
    if not isinstance(buf, Buf):
        name = type(buf).__name__
        raise TypeError(f"expected a Buf, got {name}: write_all() takes bytes, or give Buf(data)")
    lifecycle = writer.lifecycle
    owner = lifecycle.original or lifecycle
    unfinished = owner.unfinished
    goes_on = unfinished is not None and unfinished.goes_on_with(buf)
    if goes_on:
        # Everybody else is refused; this is the one call that may go on.
        set_unfinished(writer, None)
    try:
        lift = claim(writer, writing=True)
    except BaseException:
        if goes_on:
            set_unfinished(writer, unfinished)
        raise
    kept = resumable and (whole or goes_on)
    call = Call(buf.remaining, buf=buf if kept else None, goes_on=goes_on or begun)
    lifecycle.calls += (call,)
    try:
        return await drive_write(writer, call.size, poll, writer, call, buf, lift=lift)
    finally:
        if goes_on and not buf.remaining:
            finished(writer)
        _leave(writer, call, done=not (whole and buf.remaining))


def _leave(writer: AsyncWrite, call: Call, *, done: bool) -> None:
    lifecycle = writer.lifecycle
    calls = lifecycle.calls
    lifecycle.calls = tuple(one for one in calls if one is not call) if len(calls) > 1 else ()
    try:
        is_short = not done or (call.goes_on and call.buf is not None and call.buf.remaining)
        if is_short and call in calls:  # a close that has evicted the call has settled it, too
            settle(writer, call, closed=writer.lifecycle.is_closed(reading=False))
    finally:
        leave(writer)


def poll_some_of_buf(writer: AsyncWrite, _call: Call, buf: Buf) -> int:
    """Write some of a Buf."""
    return poll_buf(writer, buf)


def poll_all_of_buf(writer: AsyncWrite, call: Call, buf: Buf) -> None:
    """Write all of a Buf."""
    poll_parts(writer, call, buf)


@trio.lowlevel.enable_ki_protection
async def flush(writer: AsyncWrite) -> None:
    """What ``AsyncWrite.flush`` does."""
    lift = claim(writer, writing=False)
    try:
        lifecycle = writer.lifecycle
        if lifecycle.torn is not None and lift is None:
            lift = Torn.HERE
        await drive(writer, poll_flush_unless_ended, writer, lift=lift)
        resumed(writer)
    finally:
        leave(writer)


def poll_flush_unless_ended(writer: AsyncWrite) -> None:
    """Flush; after a shutdown there is nothing left to do."""
    if writer.lifecycle.phase is not ENDED:
        call_poll(writer, "poll_flush")


@trio.lowlevel.enable_ki_protection
async def shutdown(writer: AsyncWrite, *, sends: bool) -> None:
    """What ``AsyncWrite.shutdown`` and ``send_eof`` do.

    Args:
        writer: the writer.
        sends: whether it is Trio's verb, which is not resumed when it is cancelled.
    """
    lifecycle = writer.lifecycle
    lift = claim(writer, writing=False)
    done = False
    try:
        if lifecycle.phase is not ENDED:
            if lifecycle.torn is not None and lift is None:
                lifecycle.refuse(writer)
            check_shutdown(writer)
        await drive(writer, poll_shutdown_unless_ended, writer, lift=lift)
        done = True
        resumed(writer)
    finally:
        is_closed = lifecycle.is_closed(reading=False)
        if sends and not done and lifecycle.phase is ENDING and not is_closed:
            lifecycle.abandoned = True
        leave(writer)


def poll_shutdown_unless_ended(writer: AsyncWrite) -> None:
    """Shut down; a second time there is nothing left to do."""
    if writer.lifecycle.phase is not ENDED:
        begin_shutdown(writer)
        call_poll(writer, "poll_shutdown")
        writer.lifecycle.end()
