"""Blocks belong to a run, and to one lane at a time."""

from __future__ import annotations

import trio

from trio_asyncwrite._relay._block import give_block, take_block


async def test_a_block_that_was_given_back_is_taken_again() -> None:
    block = take_block(100)
    assert len(block) == 100
    assert not block.readonly
    other = take_block(100)
    assert other is not block
    give_block(block)
    assert take_block(100) is block


async def test_a_block_of_another_size_is_kept_until_others_are_wanted() -> None:
    """A lane that moves much changes between two sizes."""
    block = take_block(100)
    give_block(block)
    other = take_block(50)
    assert len(other) == 50
    give_block(other)
    assert take_block(100) is block
    assert take_block(50) is other
    for _ in range(2):
        give_block(block)
        give_block(other)
    give_block(memoryview(bytearray(70)))
    give_block(memoryview(bytearray(70)))
    assert take_block(100) is not block


async def test_a_few_are_kept_and_the_others_let_go() -> None:
    blocks = [take_block(10) for _ in range(5)]
    for block in blocks:
        give_block(block)
    again = [take_block(10) for _ in range(5)]
    kept = [one for one in again if any(one is block for block in blocks)]
    assert len(kept) == 2


def test_another_run_has_its_own() -> None:
    kept = []

    async def main() -> None:
        kept.append(take_block(10))
        give_block(kept[-1])

    trio.run(main)
    trio.run(main)
    assert kept[0] is not kept[1]
