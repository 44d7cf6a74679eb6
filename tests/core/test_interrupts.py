"""Law 7: Ctrl-C raised by any hook of a user's layer leaves nothing open and nobody waiting."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import AsyncReadWrite, AsyncWrite, BufWriter, Epilogue, NotReady, abort

from .._patience import wait_all_tasks_blocked
from ._fakes import CLAIMS, BadlyReleased, Holding, Layer, Run, Wire, each, resource_warnings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._fakes import Operation

HOOKS = ("poll_write", "poll_flush", "poll_shutdown", "release", "held_bytes", "wait")


class Pressed(Holding):
    """Ctrl-C is pressed in one of its hooks, once."""

    hook = ""
    closed_with: bool | None = None

    def press(self, hook: str) -> None:
        if self.hook == hook:
            self.hook = ""
            raise KeyboardInterrupt

    @property
    def held_bytes(self) -> int:
        self.press("held_bytes")
        return len(self.store)

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.press("poll_write")
        return super().poll_write(data)

    def poll_flush(self) -> None:
        self.press("poll_flush")
        if self.hook == "wait":
            raise NotReady(self.wait)
        super().poll_flush()

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()
        self.press("wait")

    def poll_shutdown(self) -> None:
        self.press("poll_shutdown")
        super().poll_shutdown()

    async def release(self, *, clean: bool) -> None:
        self.closed_with = clean
        self.press("release")


async def outcome(call: Callable[[], Awaitable[object]]) -> str:
    try:
        await call()
    except BaseException as exc:  # noqa: BLE001 - the test looks at it
        return type(exc).__name__
    return "returned"


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("how", ["aclose", "cancelled", "block", "block that raises"])
async def test_ctrl_c_in_a_hook_during_a_close_releases_everything(
    hook: str, depth: int, how: str
) -> None:
    wire = Wire(math.inf)
    pressed = Pressed(wire)
    layers: list[Any] = [wire, pressed, BufWriter(pressed)]
    await layers[2].write(b"abc")
    pressed.hook = hook

    async def close() -> None:
        if how == "aclose":
            await layers[depth].aclose()
        elif how == "cancelled":
            with trio.CancelScope() as scope:
                scope.cancel()
                await layers[depth].aclose()
        else:
            async with layers[depth]:
                if how != "block":
                    raise KeyError

    with resource_warnings():
        seen = await outcome(close)
        if not pressed.hook:
            assert seen == "KeyboardInterrupt"
        assert len(wire.releases) == 1
        assert pressed.closed_with is not None
        for layer in layers:
            assert layer.closed
            assert await outcome(layer.aclose) in ("returned", "ClosedResourceError")
            assert await outcome(partial(layer.write, b"x")) == "ClosedResourceError"


class Asked(Holding):
    """Ctrl-C is pressed when it is asked a question for the n-th time."""

    question = ""
    times = 0

    def ask(self, question: str) -> None:
        if self.question == question:
            self.times -= 1
            if not self.times:
                raise KeyboardInterrupt

    @property
    def held_bytes(self) -> int:
        self.ask("held_bytes")
        return len(self.store)

    @property
    def epilogue(self) -> Epilogue:
        self.ask("epilogue")
        return Epilogue.DATA

    @property
    def close_patience(self) -> float:
        self.ask("close_patience")
        return 0


@pytest.mark.parametrize("question", ["held_bytes", "epilogue", "close_patience"])
@pytest.mark.parametrize("close", [AsyncWrite.aclose, trio.aclose_forcefully, abort])
async def test_ctrl_c_in_any_answer_during_a_close_leaves_nobody_waiting(
    question: str,
    close: Callable[[AsyncWrite], Awaitable[object]],
    autojump_clock: trio.testing.MockClock,
) -> None:
    is_asked = True
    for number in range(1, 100):
        wire = Wire(math.inf)
        asked = Asked(wire)
        upper = BufWriter(asked)
        await upper.write(b"abc")
        asked.question, asked.times = question, number
        with resource_warnings():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outcome, partial(close, asked))
            is_asked = asked.times <= 0
            asked.question = ""
            for layer in (wire, asked, upper):
                with trio.fail_after(1):
                    await outcome(layer.aclose)
                assert layer.closed
        assert len(wire.releases) == 1
        if not is_asked:
            break
    assert not is_asked


@each(CLAIMS)
@pytest.mark.parametrize("hook", HOOKS)
async def test_ctrl_c_in_a_hook_leaves_no_layer_busy(operation: Operation, hook: str) -> None:
    """A poll's breaks the layer; a wait's breaks nothing."""
    wire = Wire(math.inf)
    pressed = Pressed(wire)
    layer = Layer(pressed)
    pressed.hook = hook
    for writer in (layer, pressed):
        await outcome(partial(operation, writer))
        pressed.hook = ""
        seen = await outcome(partial(writer.flush))
        if hook in ("wait", "held_bytes", "release"):
            assert seen == "returned"
        else:
            assert seen in ("returned", "BrokenResourceError")
    with resource_warnings():
        await pressed.aclose()
    assert len(wire.releases) == 1


async def test_ctrl_c_in_a_poll_of_a_close_reaches_the_caller_and_not_those_who_wait() -> None:
    class Interrupted(Wire):
        def poll_shutdown(self) -> None:
            super().poll_shutdown()
            raise KeyboardInterrupt

    wire = Interrupted()
    async with trio.open_nursery() as nursery:
        first = Run(partial(outcome, wire.aclose))
        nursery.start_soon(first)
        await wait_all_tasks_blocked()
        second = Run(wire.aclose)
        nursery.start_soon(second)
        await wait_all_tasks_blocked()
        wire.give(1)

    assert first.result == "KeyboardInterrupt"
    assert second.outcome == "ClosedResourceError"
    assert wire.releases == ["release False"]


async def test_every_layer_is_released_whatever_the_others_raise() -> None:
    """The first interrupt is raised, and not the first error."""

    class Interrupted(Layer):
        async def release(self, *, clean: bool) -> None:
            raise KeyboardInterrupt

    wire = BadlyReleased(math.inf)
    assert await outcome(Interrupted(Interrupted(wire)).aclose) == "KeyboardInterrupt"
    assert wire.releases == ["release True"]
    await wire.aclose()


async def test_ctrl_c_in_a_read_makes_reading_broken_and_not_busy() -> None:
    class Interrupted(Wire, AsyncReadWrite):
        def poll_read(self, size: int, /) -> bytes:
            raise KeyboardInterrupt

    stream = Interrupted(math.inf)
    assert await outcome(stream.receive_some) == "KeyboardInterrupt"
    assert await outcome(stream.receive_some) == "BrokenResourceError"
    await stream.send_all(b"abc")
    await stream.aclose()
    assert stream.releases == ["release True"]


def test_a_stream_works_in_another_run() -> None:
    """Law 11: nothing of one run is waited for in another, however the first one ended."""
    wire = Wire()
    writer: AsyncWrite = BufWriter(wire, 4)

    async def cut_off() -> None:
        with trio.move_on_after(1):
            await writer.write_all(b"abc")
            await writer.flush()

    async def finish() -> None:
        wire.give(math.inf)
        await writer.write_all(b"d")
        await writer.aclose()

    for _ in range(2):
        trio.run(cut_off, clock=trio.testing.MockClock(autojump_threshold=0))
    trio.run(finish)
    trio.run(writer.aclose)

    assert wire.sent == b"abcd"
