"""The blocks that all relays of a run read into.

A connection that is idle holds no memory for what may come. A lane takes a block for one read, and
gives it back at once if its target has taken everything. If not, the lane keeps the block until the
target has: to copy what is left would cost a third of the relay's work.
"""

from __future__ import annotations

from typing import Final

import trio

#: How many blocks are kept for the next reads. When many targets are slow, each of their lanes
#: has one, and afterwards they are let go.
_KEPT: Final = 2

_blocks: trio.lowlevel.RunVar[list[memoryview]] = trio.lowlevel.RunVar("trio_asyncwrite blocks")


def take_block(size: int) -> memoryview:
    """A block of ``size`` bytes, of this run, for the caller alone until it gives it back."""
    blocks = _free_blocks()
    for number, block in enumerate(blocks):
        if len(block) == size:
            return blocks.pop(number)
    return memoryview(bytearray(size))


def give_block(block: memoryview) -> None:
    """Let others have ``block``."""
    blocks = _free_blocks()
    blocks.append(block)
    del blocks[:-_KEPT]  # the next is most probably of a size that was given back now


def _free_blocks() -> list[memoryview]:
    try:
        return _blocks.get()
    except LookupError:
        blocks: list[memoryview] = []
        _blocks.set(blocks)
        return blocks
