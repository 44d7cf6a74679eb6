"""The two exceptions of our own."""

from __future__ import annotations

import copy

import pytest
import trio

from trio_asyncwrite import NotReady, WriteZeroError
from trio_asyncwrite._core._errors import BrokenRefusal, CutShort


async def test_not_ready_carries_its_wait() -> None:
    async def wait() -> str:
        return "woken"

    with pytest.raises(trio.WouldBlock) as caught:
        raise NotReady(wait)

    assert isinstance(caught.value, NotReady)
    assert caught.value.wait is wait
    assert await caught.value.wait() == "woken"
    assert str(caught.value) == "not ready: await .wait(), then poll again"


def test_write_zero_error_is_a_broken_resource() -> None:
    with pytest.raises(trio.BrokenResourceError, match="full"):
        raise WriteZeroError("full")


@pytest.mark.parametrize("error", [BrokenRefusal("why"), CutShort("why")])
def test_a_copy_of_what_only_the_library_tells_apart_is_trios(error: Exception) -> None:
    """A report keeps copies, which are told apart by nobody."""
    found = copy.copy(error)
    assert type(found) is trio.BrokenResourceError
    assert str(found) == "why"
