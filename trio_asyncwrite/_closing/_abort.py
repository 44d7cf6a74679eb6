"""Closing at once, so that the peer of a TCP stream sees a reset."""

from __future__ import annotations

import contextlib

import trio
import trio.abc

from trio_asyncwrite._core._close import Hardness, enter, wait_done
from trio_asyncwrite._core._stack import attach

from ._graceful_close import writer_of


@trio.lowlevel.enable_ki_protection
async def abort_stream(stream: trio.abc.SendStream) -> None:
    """See :func:`abort`."""
    writer = writer_of(stream)
    with trio.CancelScope(shield=True):
        if writer is not None and not writer.lifecycle.released:
            if not writer.lifecycle.attached:
                attach(writer)
            close, others = enter(writer, Hardness.ABORTED)
            # Nobody who aborts wants to hear of failures.
            with contextlib.suppress(Exception):
                if not close.is_running:
                    await close.run()
            for one in (close, *others):
                await wait_done(one)
        await trio.lowlevel.checkpoint()
