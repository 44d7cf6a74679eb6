"""What is asked about a file before it is read, and how often."""

from __future__ import annotations

import os
import random
import sys
from typing import Any

import pytest

from trio_asyncwrite._core._page_cache import PIECE, STRETCH, PageCache

pytestmark = pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="Linux only")


class Disk:
    """Says of each byte that it was asked for whether it is in memory."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.cold = sys.maxsize
        self.asked: list[int] = []
        patch.setattr(os, "preadv", self.preadv)

    def preadv(self, _number: int, _buffers: Any, offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        self.asked.append(offset)
        if offset >= self.cold:
            raise BlockingIOError
        return 1


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_after_a_stretch_without_a_miss_it_asks_less_often(disk: Disk) -> None:
    cache = PageCache()
    assert cache.ask(0, 0, STRETCH) == STRETCH
    assert disk.asked == [0, *range(PIECE - 1, STRETCH, PIECE)]
    disk.asked.clear()
    assert cache.ask(0, 7, 2 * STRETCH) == 2 * STRETCH
    assert disk.asked == [7, 7 + STRETCH - 1, 7 + 2 * STRETCH - 1]


@pytest.mark.parametrize("far", [False, True])
def test_what_is_missing_is_never_further_than_a_piece_behind_the_answer(
    disk: Disk, *, far: bool
) -> None:
    """At whatever distance it asks."""
    rng = random.Random(12)
    for _ in range(100):
        cache = PageCache()
        disk.cold = sys.maxsize
        if far:
            cache.ask(0, 0, STRETCH)
        begin, size = rng.randrange(10**9), rng.randrange(1, 4 * STRETCH)
        disk.cold = begin + rng.randrange(2 * size)
        found = cache.ask(0, begin, size)
        assert begin + found <= max(disk.cold, begin)
        assert found == size or disk.cold - (begin + found) < PIECE


def test_a_miss_makes_it_ask_often_again(disk: Disk) -> None:
    cache = PageCache()
    cache.ask(0, 0, STRETCH)
    disk.cold = STRETCH
    assert cache.ask(0, STRETCH, STRETCH) == 0
    disk.cold = sys.maxsize
    disk.asked.clear()
    cache.ask(0, STRETCH, 2 * PIECE)
    assert len(disk.asked) == 3


def test_a_small_read_says_nothing_of_the_rest(disk: Disk) -> None:
    cache = PageCache()
    for _ in range(3):
        cache.ask(0, 0, PIECE)
    disk.asked.clear()
    cache.ask(0, 0, STRETCH)
    assert len(disk.asked) == 1 + STRETCH // PIECE
