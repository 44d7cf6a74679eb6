"""Closing at once, so that the peer of a TCP stream sees a reset."""

from __future__ import annotations

import trio
import trio.abc

from trio_asyncwrite._core._close import abort_layer

from ._graceful_close import writer_of


@trio.lowlevel.enable_ki_protection
async def abort_stream(stream: trio.abc.SendStream) -> None:
    """See :func:`abort`."""
    writer = writer_of(stream)
    with trio.CancelScope(shield=True):
        if writer is not None:
            await abort_layer(writer)
        await trio.lowlevel.checkpoint()
