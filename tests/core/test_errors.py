"""The two exceptions of our own."""

from __future__ import annotations

import pytest
import trio

from trio_asyncwrite import NotReady, WriteZeroError


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
