"""Files: what the shell does with a part of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ._errors import NotReady
from ._file_part import FilePart, ended_early, file_count
from ._lifecycle import Call
from ._shell import POLLS_PER_TURN, claim, drive, leave
from ._stack import call_poll, finished, resumed, set_unfinished, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._async_write import AsyncWrite


async def write_all_file(
    writer: AsyncWrite,
    part: FilePart,
    poll: Callable[[AsyncWrite, Call, FilePart], bool] | None = None,
) -> None:
    """What ``AsyncWrite.write_all_file`` does.

    Args:
        writer: the writer.
        part: what to write.
        poll: writes all of it; False if the file ends before.
    """
    if not await _write(writer, part, poll or poll_all_of_file, sends=False):
        raise ended_early(part)


async def send_file(writer: AsyncWrite, part: FilePart) -> None:
    """What ``AsyncWrite.send_file`` does."""
    if not await _write(writer, part, poll_send_file, sends=True):
        raise ended_early(part)


@trio.lowlevel.enable_ki_protection
async def _write(
    writer: AsyncWrite,
    part: FilePart,
    poll: Callable[[AsyncWrite, Call, FilePart], bool],
    *,
    sends: bool,
) -> bool:
    """Write a part by ``poll``; False if its file ends before.

    Args:
        writer: the writer.
        part: what to write.
        poll: writes all of it.
        sends: whether the call flushes, and is not resumed when it is cancelled.
    """
    if not isinstance(part, FilePart):
        raise TypeError(f"expected a FilePart, got {type(part).__name__}: give FilePart(file)")
    lifecycle = writer.lifecycle
    unfinished = (lifecycle.original or lifecycle).unfinished
    goes_on = unfinished is not None and unfinished.goes_on_with(part)
    if goes_on:
        # Everybody else is refused; this is the one call that may go on.
        set_unfinished(writer, None)
    try:
        lift = claim(writer, writing=True)
    except BaseException:
        if goes_on:
            set_unfinished(writer, unfinished)
        raise
    call = Call(part.remaining, sends=sends)
    call.buf, call.goes_on = None if sends else part, goes_on
    lifecycle.calls += (call,)
    done = False
    try:
        done = await drive(writer, poll, writer, call, part, lift=lift)
        if sends and done:
            resumed(writer)
        return done
    finally:
        if goes_on and not part:
            finished(writer)
        _leave(writer, call, done=done if sends else not part)


def _leave(writer: AsyncWrite, call: Call, *, done: bool) -> None:
    lifecycle = writer.lifecycle
    calls = lifecycle.calls
    lifecycle.calls = tuple(one for one in calls if one is not call)
    try:
        if not done and call in calls:  # a close that has evicted the call has settled it, too
            settle(writer, call, closed=lifecycle.is_closed(reading=False))
    finally:
        leave(writer)


# Ctrl-C must not fall between what was accepted and the part that says so.
@trio.lowlevel.enable_ki_protection
def poll_file(writer: AsyncWrite, part: FilePart) -> int:
    """Write some of a part, and move it past what was accepted; 0 if the file has ended."""
    limit = part.most()
    count = file_count(writer.poll_write_file(part, limit), limit, writer)
    part.advance(count)
    return count


def poll_all_of_file(writer: AsyncWrite, call: Call, part: FilePart) -> bool:
    """Write all of a part; False if the file ends before."""
    for _ in range(POLLS_PER_TURN):
        if not part:
            return True
        count = poll_file(writer, part)
        if not count:
            return part.end_here()
        call.accepted += count
        if call.buf is None:
            # How much is left without it being resumed; of some files the end is not known.
            call.size = call.accepted + max(part.remaining, bool(part))
    raise NotReady(trio.lowlevel.checkpoint)


def poll_send_file(writer: AsyncWrite, call: Call, part: FilePart) -> bool:
    """Write all of a part, and flush; False if the file ends before."""
    if not call.flushing:
        if not poll_all_of_file(writer, call, part):
            return False
        call.flushing = True
    call_poll(writer, "poll_flush")
    return True
