"""What a failure breaks, and what breaks nothing."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.abc
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    Cursor,
    NotReady,
    Sink,
    WriteZeroError,
)
from trio_asyncwrite._core._stack import forgive, poll_below

from .._streams import reset, tcp_pair
from .._writers import LAYERS_ABOVE
from ._fakes import (
    CLAIMS,
    ENDS,
    WRITES,
    BadlyReleased,
    Encoding,
    Holding,
    Layer,
    Run,
    Script,
    Upper,
    Wire,
    begin,
    cut_short,
    each,
    refuse_all,
    resource_warnings,
    run_cancelled,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._fakes import Operation


# ---- Failures ------------------------------------------------------------------------------------


@each({**WRITES, **ENDS})
@pytest.mark.parametrize("moment", ["poll", "poll after a wait"])
async def test_a_failure_of_a_poll_is_told_in_trios_words_and_sticky(
    operation: Operation, moment: str
) -> None:
    error = OSError("failed")

    wire = Wire(room=moment == "poll")
    if moment == "poll":
        wire.error = error
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(operation, wire))
        wire.error = error
        wire.give(1)

    assert type(run.error) is trio.BrokenResourceError
    assert run.error.__cause__ is error
    wire.error = None
    wire.give(math.inf)
    log = list(wire.log)
    for later in CLAIMS.values():
        with pytest.raises(trio.BrokenResourceError) as broken:
            await later(wire)
        assert broken.value.__cause__ is error
    assert wire.log == log

    await wire.aclose()  # what the caller knows already is not raised again
    assert wire.releases == ["release False"]
    with pytest.raises(trio.ClosedResourceError):
        await wire.write(b"a")


@pytest.mark.parametrize("make", [Layer, BufWriter])
@pytest.mark.parametrize("failing", ["write", "flush", "shutdown"])
async def test_a_failure_below_makes_the_layer_a_broken_one(
    make: Callable[[AsyncWrite], AsyncWrite], failing: str
) -> None:
    """Also if it came from a raw poll."""

    class Failing(Wire):
        def need_room(self, poll: str) -> None:
            super().need_room(poll)
            if poll == failing:
                raise error

    def poll() -> None:
        if failing != "shutdown":
            writer.poll_write(b"abc")
            writer.poll_flush()
        writer.poll_shutdown()

    error = OSError("failed")
    wire = Failing(math.inf)
    writer = make(wire)
    with pytest.raises(trio.BrokenResourceError, match="failed") as first:
        poll()
    assert first.value.__cause__ is error
    log = list(wire.log)
    with pytest.raises(trio.BrokenResourceError) as later:
        poll()
    assert later.value.__cause__ is error
    with resource_warnings() as messages:
        await writer.aclose()
    assert wire.log == [*log, "release False"]
    assert not messages


async def test_a_layer_that_was_not_ready_is_not_broken() -> None:
    wire = Wire()
    layer = Layer(wire)
    for poll in (partial(layer.poll_write, b"abc"), layer.poll_flush):
        with pytest.raises(NotReady):
            poll()
    wire.give(math.inf)

    assert layer.poll_write(b"abc") == 3


async def test_the_cause_of_a_broken_resource_error_is_the_first_cause() -> None:
    cause = OSError("first")
    error = trio.BrokenResourceError("second")
    error.__cause__ = cause
    script = Script(error)
    with pytest.raises(trio.BrokenResourceError, match="second"):
        await script.write(b"a")
    with pytest.raises(trio.BrokenResourceError, match="has failed before") as later:
        await script.write(b"a")

    assert later.value.__cause__ is cause


@pytest.mark.parametrize("error", [trio.ClosedResourceError, trio.BusyResourceError])
async def test_a_foreign_streams_own_refusal_is_a_failure(error: type[Exception]) -> None:
    """The library's refusals are told apart from it by their private class."""
    script = Script(error("no"), 3)
    with pytest.raises(error):
        await script.write(b"abc")
    with pytest.raises(trio.BrokenResourceError) as later:
        await script.write(b"abc")

    assert isinstance(later.value.__cause__, error)


@pytest.mark.parametrize(
    "error", [ValueError("odd"), RecursionError(), SystemExit(3), StopIteration(), MemoryError()]
)
async def test_whatever_odd_a_poll_raises_passes_unchanged(error: BaseException) -> None:
    script = Script(error)
    expected: type[BaseException] = type(error)
    if isinstance(error, StopIteration):
        expected = RuntimeError  # what Python makes of it in any coroutine
    with pytest.raises(expected) as first:
        await script.write_all(b"a")
    with pytest.raises(trio.BrokenResourceError):
        await script.write_all(b"a")

    assert error in (first.value, first.value.__cause__)


@pytest.mark.parametrize("count", [0, 4, -1, None, "3"])
async def test_a_poll_that_lies_about_its_count_is_found_out(count: Any) -> None:
    """The cursor stays where it was."""
    error: type[Exception] = {0: WriteZeroError, None: TypeError, "3": TypeError}.get(
        count, RuntimeError
    )
    for name, operation in WRITES.items():
        with pytest.raises(error):
            await operation(Script(count))
        script, buf = Script(count), Buf(b"abc")
        with pytest.raises(error):
            await (script.write_all_buf if "all" in name else script.write_buf)(buf)
        assert buf.remaining == 3
        with pytest.raises(trio.BrokenResourceError):
            await script.write(b"a")


async def test_a_gathered_poll_must_not_claim_more_than_there_is() -> None:
    class Liar(AsyncWrite):
        def poll_write_vectored(self, buffers: Any, /) -> int:
            return 7

    buf = Buf(b"abc", b"def")
    with pytest.raises(RuntimeError, match="claims to have accepted 7 of 6 bytes"):
        await Liar().write_all_buf(buf)

    assert buf.remaining == 6


async def test_a_count_of_zero_is_right_for_empty_data_only() -> None:
    assert await Script(0).write(b"") == 0
    with pytest.raises(WriteZeroError, match="accepted 0 of 3 bytes"):
        await Script(0).write(b"abc")
    with pytest.raises(RuntimeError, match="1 of 0 bytes"):
        await Script(1).write(b"")


async def test_aclose_raises_the_failure_that_it_discovers_after_the_release() -> None:
    wire = Wire(room=1)
    wire.error = OSError("shutdown")
    with pytest.raises(trio.BrokenResourceError, match="shutdown"):
        await wire.aclose()

    assert wire.log == ["shutdown", "release False"]
    await wire.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await wire.write(b"a")


async def test_a_close_raises_after_the_release_whatever_its_wait_has_raised() -> None:
    """Nothing is broken, nothing was held: the end is a proper one."""

    class FailingWait(Wire):
        async def wait_for_room(self) -> None:
            await trio.lowlevel.checkpoint()
            raise OSError("wait")

    for held in (0, 1):
        wire = FailingWait()
        wire.held = held
        with pytest.raises(OSError, match="wait"):
            await wire.aclose()
        assert wire.log[:-1] == ["shutdown", "flush"]
        assert wire.releases == [f"release {not held}"]


async def test_aclose_raises_the_failure_of_the_release() -> None:
    wire = BadlyReleased(room=1)
    with pytest.raises(trio.BrokenResourceError, match="release"):
        await wire.aclose()

    assert wire.releases == ["release True"]
    await wire.aclose()
    assert wire.releases == ["release True"]


async def test_the_failure_of_a_release_does_not_replace_that_of_the_shutdown() -> None:
    wire = BadlyReleased(room=1)
    wire.error = ValueError("shutdown")
    with pytest.raises(ValueError, match="shutdown"):
        await wire.aclose()

    assert wire.releases == ["release False"]


async def test_the_failure_of_a_release_is_part_of_one_that_the_caller_knows() -> None:
    wire = BadlyReleased(room=1)
    wire.error = OSError("write")
    with pytest.raises(trio.BrokenResourceError, match="write"):
        await wire.write(b"a")
    await wire.aclose()

    assert wire.releases == ["release False"]


async def test_leaving_the_block_raises_what_closing_raises() -> None:
    wire = Wire(room=1)
    wire.error = OSError("shutdown")
    with pytest.raises(trio.BrokenResourceError, match="shutdown"):
        async with wire:
            pass


async def test_what_the_block_raises_is_not_replaced_by_a_failure() -> None:
    wire = Wire(room=1)
    wire.error = OSError("shutdown")
    with pytest.raises(KeyError, match="primary"):
        async with wire:
            raise KeyError("primary")

    assert wire.releases == ["release False"]


async def test_what_the_block_raises_is_not_replaced_by_a_cancellation() -> None:
    """The scope would swallow the Cancelled, and the error with it."""
    wire = Wire()
    with pytest.raises(KeyError, match="primary"), trio.CancelScope() as scope:
        async with wire:
            scope.cancel()
            raise KeyError("primary")

    assert wire.releases == ["release True"]


async def test_a_block_that_is_cancelled_ends_cancelled() -> None:
    wire = Wire()
    wire.error = OSError("shutdown")
    with trio.CancelScope() as scope:
        async with wire:
            scope.cancel()
            await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert wire.releases == ["release False"]


async def test_a_full_cursor_can_be_rewound() -> None:
    """There, WriteZeroError is not sticky."""
    cursor = Cursor(bytearray(2), growable=False)
    buf = Buf(b"abcd")
    with pytest.raises(WriteZeroError):
        await cursor.write_all_buf(buf)
    cursor.position = 0
    await cursor.write_all_buf(buf)

    assert cursor.getvalue() == b"cd"


async def test_a_peer_that_resets_breaks_the_writer_and_frees_the_buffer() -> None:
    """The same over a real connection."""
    for make in (Layer, BufWriter):
        left, right = await tcp_pair()
        writer: AsyncWrite = make(left)
        data = bytearray(1 << 20)
        async with trio.open_nursery() as nursery:
            run = await begin(nursery, partial(writer.send_all, data))
            reset(right)
        assert run.outcome == "BrokenResourceError"
        data.append(0)
        with pytest.raises(trio.BrokenResourceError) as broken:
            await writer.write(b"a")
        assert isinstance(broken.value.__cause__, OSError)
        with resource_warnings() as messages:
            await writer.aclose()
        assert not messages


# ---- Law 2: a poll breaks, a wait does not -------------------------------------------------------

#: Layers as users write them, and the library's.
LAYERS: dict[str, Callable[[AsyncWrite], AsyncWrite]] = {
    "default": Layer,
    "one method": Upper,
    "holds": Holding,
    "encodes": Encoding,
    "BufWriter": lambda inner: BufWriter(inner, 4),
    "handle": lambda inner: inner.by_ref(),
}


def stack_of(wire: AsyncWrite, *makers: Callable[[AsyncWrite], AsyncWrite]) -> list[AsyncWrite]:
    """The layers over ``wire``, that one included."""
    layers = [wire]
    for make in makers:
        layers.append(make(layers[-1]))
    return layers


@each(LAYERS, "lower")
@each(LAYERS, "upper")
@pytest.mark.parametrize("error", [OSError("failed"), ValueError("odd"), KeyboardInterrupt()])
async def test_a_failing_poll_breaks_the_called_layer_and_all_above_it(
    lower: Callable[[AsyncWrite], AsyncWrite],
    upper: Callable[[AsyncWrite], AsyncWrite],
    error: BaseException,
) -> None:
    """An error of the system in Trio's words, all others unchanged; later ones come from it."""
    wire = Wire(math.inf)
    layers = stack_of(wire, Layer, lower, upper)
    beside = Layer(layers[2])
    wire.error = error
    expected = trio.BrokenResourceError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as caught:
        await layers[3].send_all(b"abcdefgh")
    assert error in (caught.value, caught.value.__cause__)
    wire.error = None
    called = layers[3:] if isinstance(layers[3], (Upper, Holding)) else [*layers[2:], beside]
    for layer in called:
        with pytest.raises(trio.BrokenResourceError, match="has failed before") as later:
            await layer.send_all(b"a")
        assert later.value.__cause__ is error
    with resource_warnings():
        await trio.aclose_forcefully(wire)


async def test_a_failure_is_known_to_each_layer_that_was_called_by_one_of_the_library() -> None:
    """Down to the transport, and from there to everything above, wherever it was noticed."""
    wire = Wire(math.inf)
    layers = stack_of(wire, Layer, BufWriter, Layer)
    siblings = [Layer(wire), BufWriter(layers[1])]
    wire.error = error = OSError("failed")
    with pytest.raises(trio.BrokenResourceError):
        await layers[3].send_all(b"a")
    log = list(wire.log)
    for layer in (*layers, *siblings):
        for operation in CLAIMS.values():
            with pytest.raises(trio.BrokenResourceError) as later:
                await operation(layer)
            assert later.value.__cause__ is error
    assert wire.log == log
    with resource_warnings():
        await layers[3].aclose()


async def test_the_librarys_refusals_break_no_layer_that_they_pass() -> None:
    class Forwarding(AsyncWrite):
        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            return other.poll_write(data)

    class Asking(AsyncWrite):
        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            claiming.lifecycle.claim(claiming, writing=True)
            return len(data)

    wire, claiming = Wire(room=1), Layer(Sink())
    other: AsyncWrite = Layer(wire)
    top = Layer(BufWriter(Forwarding(), 1))
    buf = Buf(b"ab")
    await cut_short(partial(other.write_all_buf, buf))
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
            await top.write(b"x")
    wire.give(math.inf)
    await other.write_all_buf(buf)
    assert await top.write(b"x") == 1

    await other.aclose()
    for _ in range(2):
        with pytest.raises(trio.ClosedResourceError, match="is closed"):
            await top.write(b"x")
    other = Sink()
    assert await top.write(b"x") == 1

    asking = Layer(Asking())
    claiming.lifecycle.claim(claiming, writing=True)
    for _ in range(2):
        with pytest.raises(trio.BusyResourceError):
            await asking.write(b"x")
    claiming.lifecycle.leave()
    assert await asking.write(b"x") == 1


@each({name: make for name, make in LAYERS.items() if name not in ("holds", "encodes")}, "make")
@pytest.mark.parametrize("permanent", [True, False])
async def test_a_writer_that_is_full_is_broken_if_that_is_permanent(
    make: Callable[[AsyncWrite], AsyncWrite], permanent: bool
) -> None:
    class Full(Wire):
        def need_room(self, poll: str) -> None:
            if not self.room and poll == "write":
                raise WriteZeroError("full", permanent=permanent)

    wire = Full()
    layers = stack_of(wire, make, Layer)
    with pytest.raises(WriteZeroError):
        await layers[2].send_all(b"abcdef")
    wire.room = math.inf
    if permanent:
        with pytest.raises(trio.BrokenResourceError):
            await layers[2].send_all(b"abcdef")
    else:
        await layers[2].send_all(b"abcdef")
    with resource_warnings():
        await trio.aclose_forcefully(wire)


@each(CLAIMS)
@each({name: make for name, make in LAYERS.items() if name != "encodes"}, "make")
async def test_what_a_wait_raises_breaks_nothing(
    operation: Operation, make: Callable[[AsyncWrite], AsyncWrite]
) -> None:
    """The caller gets it as it is, may call again, and finds everything in its place."""

    class Failing(Wire):
        async def wait_for_room(self) -> None:
            await trio.lowlevel.checkpoint()
            self.waits += 1
            raise errors[self.waits % len(errors)]

        waits = 0

    errors = [OSError("wait"), trio.TooSlowError(), ValueError("wait")]
    wire = Failing()
    layers = stack_of(wire, make, Layer)
    run = Run(partial(operation, layers[2]))
    await run()
    assert run.error in (None, *errors)
    wire.room = math.inf
    if operation is not ENDS["shutdown"]:
        await layers[2].send_all(b"xyz")
        assert b"".join(wire.sent.split(b"abc")).lower().endswith(b"xyz")
    await wire.aclose()
    assert wire.releases == ["release True"]


# ---- Answers that are none -----------------------------------------------------------------------


async def coroutine() -> int:
    raise NotImplementedError


@pytest.mark.parametrize("name", ["poll_write", "poll_write_vectored"])
@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (lambda: None, TypeError, "returned None"),
        (coroutine, TypeError, "a coroutine"),
        (lambda: True, TypeError, "returned True"),
        (lambda: "3", TypeError, "returned '3'"),
        (lambda: -1, RuntimeError, "accepted -1 of 4 bytes"),
        (lambda: 5, RuntimeError, "accepted 5 of 4 bytes"),
    ],
)
async def test_a_wrong_answer_to_a_write_is_told_with_class_and_method(
    name: str, answer: Callable[[], Any], error: type[Exception], text: str
) -> None:
    for make in (lambda writer: writer, lambda writer: BufWriter(writer, 1)):
        cls = type("Wrong", (AsyncWrite,), {name: lambda self, data: answer()})
        buf = Buf(b"abcd") if name == "poll_write" else Buf(b"ab", b"cd")
        writer = make(cls())
        with pytest.raises(error, match=text) as caught:
            await writer.write_buf(buf)
        assert "Wrong" in str(caught.value)
        assert name in str(caught.value)
        assert buf.remaining == 4


@pytest.mark.parametrize("name", ["poll_flush", "poll_shutdown"])
@pytest.mark.parametrize(
    "answer", [coroutine, lambda: 0, lambda: True], ids=["coroutine", "0", "True"]
)
async def test_a_wrong_answer_to_a_flush_is_told_with_class_and_method(
    name: str, answer: Callable[[], Any]
) -> None:
    cls = type("Wrong", (Wire,), {name: lambda self: answer()})
    writer = cls(math.inf)
    call = writer.flush if name == "poll_flush" else writer.shutdown
    with pytest.raises(TypeError, match=rf"Wrong\.{name}\(\) must return None, it returned "):
        await call()
    with pytest.raises(trio.BrokenResourceError):
        await call()
    if name == "poll_shutdown":  # to a close as well
        writer = cls(math.inf)
        with pytest.raises(TypeError, match=rf"Wrong\.{name}\(\) must return None, it returned "):
            await writer.aclose()
        assert writer.releases == ["release False"]
    else:
        assert (await run_cancelled(writer.aclose)).outcome == "cancelled"
        assert writer.releases == ["release False"]


@pytest.mark.parametrize("name", ["poll_flush", "poll_shutdown", "poll_ready"])
async def test_a_wrong_answer_to_a_layer_of_the_library_is_told_as_well(name: str) -> None:
    cls = type("Wrong", (Wire,), {name: lambda self: coroutine()})
    call = {
        "poll_flush": AsyncWrite.flush,
        "poll_shutdown": AsyncWrite.shutdown,
        "poll_ready": AsyncWrite.wait_send_all_might_not_block,
    }[name]
    for layer in (Layer(cls(math.inf)), Layer(Layer(cls(math.inf)))):
        with pytest.raises(TypeError, match=rf"Wrong\.{name}\(\) must return None"):
            await call(layer)


@pytest.mark.parametrize("call", [AsyncWrite.shutdown, AsyncWrite.aclose])
async def test_an_inherited_shutdown_tells_a_flush_that_is_none(call: Operation) -> None:
    class Wrong(AsyncWrite):
        async def poll_flush(self) -> None:  # type: ignore[override]
            raise NotImplementedError

    with pytest.raises(TypeError, match=r"Wrong\.poll_flush\(\) must return None, .* a coroutine"):
        await call(Wrong())


async def test_a_readiness_that_is_none_is_told() -> None:
    class Wrong(AsyncWrite):
        async def poll_ready(self) -> None:  # type: ignore[override]
            raise NotImplementedError

    with pytest.raises(TypeError, match=r"Wrong\.poll_ready\(\) must return None"):
        await Wrong().wait_send_all_might_not_block()


async def test_a_layer_may_poll_below_by_what_is_no_poll_of_the_trait() -> None:
    wire = Wire()

    assert poll_below(wire, lambda: 7) == 7


async def test_a_failure_that_has_cost_nothing_can_be_forgiven() -> None:
    wire = Wire(math.inf)
    layers = [wire, Layer(wire), Layer(wire)]
    wire.error = OSError("failed")
    with pytest.raises(trio.BrokenResourceError):
        await layers[1].flush()
    forgive(layers[1])

    assert [layer.lifecycle.failure for layer in layers] == [None] * 3
    with pytest.raises(trio.ClosedResourceError):
        await wire.write(b"x")


@each({name: layer for name, layer in LAYERS_ABOVE.items() if name != "alone"}, "layer")
async def test_a_poll_of_a_user_is_given_no_wrong_argument(
    layer: Callable[[Any], AsyncWrite],
) -> None:
    below = Wire(room=math.inf)
    writer = layer(below)
    refuse_all(writer)
    assert below.log == []
    await writer.send_all(b"abcd")
    assert below.sent == b"abcd"
