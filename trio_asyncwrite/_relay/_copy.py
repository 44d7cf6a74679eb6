"""One direction, until its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import trio
import trio.abc

from trio_asyncwrite._core._async_read import AsyncRead, claim_reading
from trio_asyncwrite._core._checks import accepted, inherits
from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._core._shell import claim, drive, leave
from trio_asyncwrite._core._stack import is_refusal, tear
from trio_asyncwrite._transports._wrap_reader import wrap_reader
from trio_asyncwrite._transports._wrap_stream import wrap_stream
from trio_asyncwrite._wrappers._buf_reader import BufReader

from ._pump import Pump

if TYPE_CHECKING:
    from trio_asyncwrite._core._async_write import AsyncWrite

#: How many bytes to read at once. With less, more goes into calls; with more, the cache is missed.
DEFAULT_SIZE: Final = 262144


@trio.lowlevel.enable_ki_protection
async def copy(reader: trio.abc.ReceiveStream, writer: trio.abc.SendStream) -> int:
    """Receive until the stream ends, and send everything on.

    It flushes the writer at the end, and whenever nothing arrives at the moment, for somebody may
    wait for the answer. It neither shuts down nor closes anything: :meth:`AsyncWrite.shutdown`
    tells the reader at the other end that this was all. For two directions at once, there is
    :class:`Relay`.

    While it waits for ``reader`` it does not see that the other end of ``writer`` is gone.

    Args:
        reader: where to receive; while it lasts, no other task may.
        writer: where to send; it goes through :func:`wrap_stream`.

    Returns:
        How many bytes were copied.

    Raises:
        TypeError: if ``reader`` cannot be received from, or ``writer`` cannot be sent to.
        trio.BusyResourceError: if another task is receiving, or uses the writer.
        trio.ClosedResourceError: if one of them is closed, now or meanwhile.
        trio.BrokenResourceError: if one of them fails. A failing reader does not break the writer:
            what had arrived was written before.

    Cancellation: lost: what was received and not written, one block at most, is gone, and then the
        writer is torn (but not a :class:`SharedWriter`, whose other messages go on). Resumable if
        ``reader`` is a :class:`BufReader`, which keeps it; its :attr:`BufReader.position` says how
        much was copied.

    Source: ``tokio::io::copy``, ``copy_buf``.
    """
    source = wrap_reader(reader)
    target = wrap_stream(writer)
    await trio.lowlevel.checkpoint()
    if inherits(source, BufReader):
        return await _copy_ahead(cast("BufReader[AsyncRead]", source), target)
    claim_reading(source)
    try:
        return await _copy_blocks(source, target)
    finally:
        source.lifecycle.reading = False


async def _copy_blocks(source: AsyncRead, target: AsyncWrite) -> int:
    # What cannot be written must not be received.
    claim(target, writing=True)
    leave(target)
    pump = Pump(source, target, DEFAULT_SIZE, is_kept=False)
    try:
        await pump.run()
    except BaseException as exc:
        pump.drop()
        # A refusal harms nobody: another task may be in the middle of a message.
        if pump.held and target.lifecycle.failure is None and not is_refusal(exc):
            tear(target, f"copy() was cut short with {pump.held} bytes received and not written")
        raise
    pump.drop()
    return pump.moved


async def _copy_ahead(source: BufReader[AsyncRead], target: AsyncWrite) -> int:
    """Consume what the target has accepted, and nothing more."""
    copied = 0

    def poll() -> None:
        nonlocal copied
        source.advance(0)  # raises while another task is reading, or if it is closed
        data = source.peek()
        count = accepted(target.poll_write(data), len(data), target)
        source.advance(count)
        copied += count

    is_flushed = True
    while True:
        if source.remaining:
            lift = claim(target, writing=True)
            try:
                await drive(target, poll, lift=lift)
            finally:
                leave(target)
            is_flushed = False
            continue
        try:
            if not source.poll_fill():
                break
            continue
        except NotReady:
            pass
        if not is_flushed:
            await target.flush()
            is_flushed = True
        await source.fill()
    await target.flush()
    return copied
