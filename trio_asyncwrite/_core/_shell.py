"""Poll, wait, poll again: the one loop around all polls.

Theory of operation
===================

**A full checkpoint**, which ``flush``, ``shutdown``, ``send_all`` and the waits are, looks for a
cancellation before the first poll. Once a poll has succeeded, only a *shielded* yield may follow:
had the task been cancelled there, ``Cancelled`` would no longer mean "nothing was accepted".

**Writes draw on the budget** of ``_budget.py``: a call that finds it spent makes a checkpoint
before its first poll, and so does a long message between two polls. Afterwards it looks whether a
close has come meanwhile. After the last accepted byte nothing can be cancelled.

**Most calls are one poll that succeeds**, or a poll and a flush, of a layer that is open, whole,
and that nobody is inside. Such polls are made at once: nobody can come in between, so there is
nothing to claim and nothing that a close would have to find. Only what is left over goes through
the loop.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from ._budget import FAST_SIZE, POLL_COST, SPENT, UNKNOWN_RATE, current_budget, rate_of
from ._buf import Buf
from ._checks import accepted, byte_view, wrong_answer
from ._errors import BrokenRefusal, NotReady
from ._lifecycle import ENDED, ENDING, Call, Torn, lifted
from ._stack import (
    abandon,
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
    tear,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import NoReturn

    from typing_extensions import Buffer, TypeVarTuple, Unpack

    from ._async_write import AsyncWrite
    from ._layer import Layer

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")

#: How often one poll of a layer may poll the layer below without a wait.
POLLS_PER_TURN: Final = 16

#: How many parts to offer at once: as many as Linux's writev takes. To list all that are left at
#: every poll would take quadratic time.
_PARTS_PER_POLL: Final = 1024


@trio.lowlevel.enable_ki_protection
async def drive(
    layer: Layer,
    poll: Callable[[Unpack[Ts]], T],
    *args: Unpack[Ts],
    lift: object = None,
    is_full: bool = True,
    wait: Callable[[], Awaitable[object]] | None = None,
    has_turn: bool = False,
) -> T:
    """Poll until it is ready. For who has claimed ``layer``.

    Args:
        layer: the layer that was called.
        poll: one of its polls that write; if it fails, the layer is broken.
        *args: its arguments.
        lift: whose refusals to lift for the polls; see ``_lifecycle.py``.
        is_full: whether it is a full checkpoint in any case; else the budget decides.
        wait: what a first poll has said to wait for, if one was made.
        has_turn: whether the caller stands in the line itself, if there is one.
    """
    lifecycle = layer.lifecycle
    budget = lifecycle.budget
    if not budget.left:
        budget = lifecycle.budget = current_budget()
    line = None if has_turn else lifecycle.line
    # Before any checkpoint, or others could overtake during it.
    turn = None if line is None else line.enter()
    is_spent = wait is None and not budget.left and not is_full
    owes_yield = is_full
    if is_spent and line is not None:
        # First the poll, and out of the line: all that came during a checkpoint would stand in it,
        # and then each of their messages would cost a checkpoint.
        owes_yield = True
        budget.left = budget.limit
    try:
        if owes_yield:
            await trio.lowlevel.checkpoint_if_cancelled()
        elif is_spent:
            await trio.lowlevel.checkpoint()
            budget.left = budget.limit
            lifecycle.check_evicted(layer, reading=False)
        while True:
            if wait is not None:
                await lifecycle.wait(layer, wait)
                budget.left = budget.limit
                owes_yield = False
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
        if owes_yield:
            await trio.lowlevel.cancel_shielded_checkpoint()
            if is_full:
                budget.left = budget.limit
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

#: How much of a message a call writes: what one poll accepts, or all.
SOME: Final = False
WHOLE: Final = True


class Message(Call):
    """What one call writes, and how far it has come.

    Most data is accepted whole and at once, and needs no cursor; ``rest`` is made when it is not.

    Args:
        data: the bytes.
        whole: ``WHOLE``, or ``SOME``: then one poll that succeeds will do.
        after: makes the polls that follow once all of it was accepted.

    Raises:
        TypeError: if ``data`` is not bytes-like.
        BufferError: if ``data`` is a view with gaps between its bytes.
    """

    __slots__ = ("after", "data", "is_cut", "rest", "whole")

    def __init__(
        self,
        data: Buffer,
        whole: bool,  # noqa: FBT001 - a keyword would make the call slower by a third
        after: Callable[[AsyncWrite], object] | None = None,
    ) -> None:
        # Before anything else: it refuses what is no data.
        self.data: bytes | memoryview = data if type(data) is bytes else byte_view(data)
        # The base's fields spelt out: a message is made for every write.
        self.size = len(self.data)
        self.accepted = 0
        self.sends = self.flushing = self.goes_on = False
        self.buf = None
        self.whole = whole
        self.after = after
        #: What is ahead of the cursor; and whether that was made here, of what a poll has left.
        self.rest: Buf | None = None
        self.is_cut = False

    def begin(self, count: int) -> None:
        """The first ``count`` bytes were accepted, at least one."""
        self.accepted = count
        if count == self.size:
            self.flushing = True
        else:
            self.rest, self.is_cut = Buf(memoryview(self.data)[count:]), True


def poll_message(writer: AsyncWrite, message: Message) -> int:
    """Write a message: all of it, and what comes after; or some of it, if that will do.

    Returns:
        How many bytes the last poll accepted.
    """
    count = 0
    if not message.flushing:
        while True:
            rest = message.rest
            size = message.size if rest is None else rest.remaining
            count = poll_once(writer, message.data, size, rest)
            if not message.whole:
                return count
            if rest is None and count:
                message.begin(count)
            else:
                message.accepted += count
            if count == size:
                break
            if not writer.lifecycle.budget.left:
                raise NotReady(trio.lowlevel.checkpoint)
        message.flushing = True
    if message.after is not None:
        message.after(writer)
    return count


def poll_once(
    writer: AsyncWrite, data: bytes | memoryview, size: int, rest: Buf | None = None
) -> int:
    """Write some of ``data``, or else of the cursor ``rest``, and charge it to the budget.

    Args:
        writer: the writer.
        data: the bytes.
        size: how many bytes are offered.
        rest: what to write from in place of ``data``.

    Returns:
        How many bytes were accepted; the answer is checked.
    """
    stays = size < writer.spare_capacity
    if rest is not None:
        count = poll_buf(writer, rest)
    else:
        count = writer.poll_write(data)
        if count != size or type(count) is not int:
            count = accepted(count, size, writer)
    lifecycle = writer.lifecycle
    budget = lifecycle.budget
    if stays:
        left = budget.left - 1 - count // FAST_SIZE
    else:
        left = budget.left - POLL_COST - count // (lifecycle.rate or UNKNOWN_RATE)
    budget.left = left if left > 0 else 0  # noqa: FURB136 - max() is a call, at every write
    return count


def poll_at_once(
    writer: AsyncWrite, data: bytes
) -> tuple[int, Callable[[], Awaitable[object]] | None]:
    """Make the one poll that most writes are; see the top of this file.

    Returns:
        How many bytes were accepted, and what to wait for before the rest.
    """
    try:
        return poll_once(writer, data, len(data)), None
    except NotReady as not_ready:
        return 0, not_ready.wait
    except BaseException as exc:
        fail(writer, exc)
        raise


def poll_flush(writer: AsyncWrite) -> None:
    """Flush; after a shutdown there is nothing left to do."""
    if writer.lifecycle.phase is not ENDED:
        answer: object = writer.poll_flush()  # type: ignore[func-returns-value]
        if answer is not None:
            wrong_answer(writer, "poll_flush", answer)


# Ctrl-C must not fall between what was accepted and the cursor that says so.
@trio.lowlevel.enable_ki_protection
def poll_buf(writer: AsyncWrite, buf: Buf) -> int:
    """Write some of what is ahead of the cursor, and move it past what was accepted.

    A message of any number of parts stays one message through every layer.
    """
    size = buf.remaining
    if buf.is_contiguous():
        count = writer.poll_write(buf.chunk())
    else:
        parts = buf.chunks(_PARTS_PER_POLL + 1)
        if len(parts) > _PARTS_PER_POLL:
            # What is taken whole is taken in one go.
            is_whole = size < writer.spare_capacity or writer.keeps_messages
            parts = buf.chunks(None if is_whole else _PARTS_PER_POLL)
        count = writer.poll_write_vectored(parts)
    if count != size or type(count) is not int:
        count = accepted(count, size, writer)
    buf.advance(count)
    return count


def poll_data(writer: AsyncWrite, data: bytes | memoryview) -> int:
    """Write some of ``data``; the answer is checked."""
    size = len(data)
    count = writer.poll_write(data)
    if count != size or type(count) is not int:
        count = accepted(count, size, writer)
    return count


@trio.lowlevel.enable_ki_protection
async def write_message(
    writer: AsyncWrite, message: Message, wait: Callable[[], Awaitable[object]] | None = None
) -> int:
    """Write a message.

    Args:
        writer: the writer.
        message: the message; by a first poll at once, some of it may be accepted already.
        wait: what that poll has said to wait for.

    Returns:
        How many bytes the last poll accepted.
    """
    lifecycle = writer.lifecycle
    line = lifecycle.line
    lift: object = None
    try:
        if not lifecycle.rate:
            rate_of(writer)  # before the polls, so that a wrong answer breaks nothing
        has_begun = wait is not None or message.accepted
        if has_begun or (
            lifecycle.fast.left
            and lifecycle.is_unwatched
            and not (message.sends or message.goes_on)
            and (line is None or not line.turns)
        ):
            # At once; see the top of this file.
            if wait is None and not message.sends:
                try:
                    return poll_message(writer, message)
                except NotReady as not_ready:
                    wait = not_ready.wait
                except BaseException as exc:
                    _fail_message(writer, message, exc)
                    raise
            # Without the checks of claim(): the message may have begun.
            if line is None:
                lifecycle.inside = True
                lifecycle.fast = SPENT
        else:
            lift = claim(writer, writing=True)
        lifecycle.add_call(message)
        done = False
        try:
            count = await drive(
                writer, poll_message, writer, message, lift=lift, is_full=message.sends, wait=wait
            )
            if message.sends:
                resumed(writer)
            done = True
            return count
        finally:
            _leave(writer, message, done=done)
    finally:
        if message.is_cut and message.rest is not None:
            message.rest.release()
        if type(message.data) is memoryview:
            message.data.release()


async def go_on_after(
    writer: AsyncWrite,
    data: bytes,
    count: int,
    whole: bool,  # noqa: FBT001 - as Message has it
    wait: Callable[[], Awaitable[object]] | None = None,
    *,
    sends: bool = False,
) -> int:
    """Go on after a first poll at once.

    Args:
        writer: the writer.
        data: what that poll was given.
        count: how many bytes of it were accepted, as the poll has answered.
        whole: ``WHOLE``, or ``SOME``.
        wait: what that poll, or the flush after it, has said to wait for.
        sends: whether a flush comes after it.

    Returns:
        How many bytes the last poll accepted.
    """
    message = message_to_send(data) if sends else Message(data, whole)
    if wait is None:
        try:
            accepted(count, len(data), writer)
        except BaseException as exc:
            fail(writer, exc)
            raise
        if not whole:
            return count
        if not writer.lifecycle.budget.left:
            wait = trio.lowlevel.checkpoint
    if count:
        message.begin(count)
    return await write_message(writer, message, wait)


@trio.lowlevel.enable_ki_protection
async def write_from(
    writer: AsyncWrite,
    buf: Buf,
    *,
    whole: bool,
    resumable: bool = True,
    after: Callable[[AsyncWrite], object] | None = None,
) -> int:
    """Write from a cursor.

    Args:
        writer: the writer.
        buf: the cursor.
        whole: whether to write all that is ahead of it. A Buf that was begun is then unfinished,
            until it is written completely.
        resumable: whether the caller keeps the cursor, and can go on with it.
        after: makes the polls that follow once all of it was accepted.

    Returns:
        How many bytes the last poll accepted.
    """
    if not isinstance(buf, Buf):
        name = type(buf).__name__
        raise TypeError(f"expected a Buf, got {name}: write_all() takes bytes, or give Buf(data)")
    owner = writer.lifecycle.original or writer.lifecycle
    unfinished = owner.unfinished
    message = Message(b"", whole, after)
    message.rest, message.size = buf, buf.remaining
    message.goes_on = unfinished is not None and unfinished.goes_on_with(buf)
    if resumable and (whole or message.goes_on):
        message.buf = buf
    if message.goes_on:
        # Everybody else is refused; this is the one call that may go on.
        set_unfinished(writer, None)
    try:
        count = await write_message(writer, message)
    finally:
        if message.goes_on:
            if not buf.remaining:
                finished(writer)
            elif owner.unfinished is None:  # the call was refused
                set_unfinished(writer, unfinished)
    if whole and message.accepted < message.size:
        _refuse_released(writer, message)
    return count


def _refuse_released(writer: AsyncWrite, message: Message) -> NoReturn:
    """Somebody has let go of a Buf, or moved it, while it was being written."""
    text = f"{message.accepted} of the {message.size} bytes of a Buf were accepted, then it "
    text += "was released or advanced by somebody else"
    if message.accepted or message.goes_on:
        tear(writer, text)
    raise BrokenRefusal(f"{writer!r}: {text}")


@trio.lowlevel.enable_ki_protection
async def send(writer: AsyncWrite, data: Buffer) -> None:
    """What ``AsyncWrite.send_all`` does."""
    lifecycle = writer.lifecycle
    if not (
        type(data) is bytes
        and data
        and lifecycle.fast.left
        and lifecycle.is_simple
        and lifecycle.rate
    ):
        await write_message(writer, message_to_send(data))
        return
    await trio.lowlevel.checkpoint_if_cancelled()
    # At once; see the top of this file.
    count = 0
    wait: Callable[[], Awaitable[object]] | None = None
    try:
        count = poll_once(writer, data, len(data))
        if count == len(data):
            poll_flush(writer)
    except NotReady as not_ready:
        wait = not_ready.wait
    except BaseException as exc:
        message = message_to_send(data)
        if count:
            message.begin(count)
        _fail_message(writer, message, exc)
        raise
    if wait is None and count == len(data):
        await _yield_inside(writer)
    else:
        await go_on_after(writer, data, count, WHOLE, wait, sends=True)


async def _yield_inside(writer: AsyncWrite) -> None:
    """The second half of a full checkpoint, after polls at once: others find the writer busy."""
    resumed(writer)
    lifecycle = writer.lifecycle
    lifecycle.inside = True
    lifecycle.fast = SPENT
    try:
        await trio.lowlevel.cancel_shielded_checkpoint()
    finally:
        leave(writer)
    lifecycle.budget.left = lifecycle.budget.limit


def _fail_message(writer: AsyncWrite, message: Message, exc: BaseException) -> None:
    """A poll at once has failed: break the writer, and settle what the message had begun."""
    try:
        fail(writer, exc)
    finally:
        settle(writer, message, closed=False)


def message_to_send(data: Buffer) -> Message:
    """What ``AsyncWrite.send_all`` writes."""
    message = Message(data, WHOLE, poll_flush)
    message.sends = True
    message.flushing = not message.size
    return message


def _leave(writer: AsyncWrite, message: Message, *, done: bool) -> None:
    lifecycle = writer.lifecycle
    is_ours = lifecycle.remove_call(message)
    try:
        is_short = not done or (message.buf is not None and message.buf.remaining)
        if is_short and is_ours:
            settle(writer, message, closed=lifecycle.is_closed(reading=False))
    finally:
        leave(writer)


@trio.lowlevel.enable_ki_protection
async def flush(writer: AsyncWrite) -> None:
    """What ``AsyncWrite.flush`` does."""
    lifecycle = writer.lifecycle
    wait: Callable[[], Awaitable[object]] | None = None
    if lifecycle.fast.left and lifecycle.is_simple:
        await trio.lowlevel.checkpoint_if_cancelled()
        # At once; see the top of this file.
        try:
            poll_flush(writer)
        except NotReady as not_ready:
            wait = not_ready.wait
        except BaseException as exc:
            fail(writer, exc)
            raise
        else:
            await _yield_inside(writer)
            return
    lift = claim(writer, writing=False)
    try:
        if lifecycle.torn is not None and lift is None:
            lift = Torn.HERE
        await drive(writer, poll_flush, writer, lift=lift, wait=wait)
        resumed(writer)
    finally:
        leave(writer)


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
            abandon(writer)
        leave(writer)


def poll_shutdown_unless_ended(writer: AsyncWrite) -> None:
    """Shut down; a second time there is nothing left to do."""
    if writer.lifecycle.phase is not ENDED:
        begin_shutdown(writer)
        call_poll(writer, "poll_shutdown")
        writer.lifecycle.end()
