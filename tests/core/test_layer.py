"""What writers and readers have in common."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import warnings
import weakref
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.abc
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    BufWriter,
    Sink,
)
from trio_asyncwrite._core._async_read import AsyncRead
from trio_asyncwrite._core._epilogue import Epilogue
from trio_asyncwrite._core._stack import tear

from .._patience import wait_all_tasks_blocked
from ._fakes import Layer, Run, Wire, begin, each, resource_warnings, run_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._fakes import Operation


# ---- Garbage -------------------------------------------------------------------------------------


def test_a_collected_writer_warns_of_the_bytes_it_held() -> None:
    """Once, also through layers, which hold none themselves."""
    writer = Layer(BufWriter(Sink()))
    writer.poll_write(b"abcde")
    text = repr(writer.inner)
    with resource_warnings() as messages:
        del writer

    assert messages == [
        f"{text} was garbage-collected: 5 bytes that it had accepted were never sent"
    ]


async def test_a_collected_writer_that_holds_nothing_or_is_closed_does_not_warn() -> None:
    with resource_warnings() as messages:
        writer = BufWriter(Sink())
        writer.poll_write(b"abc")
        writer.poll_flush()
        writer = BufWriter(Sink())
        writer.poll_write(b"abc")
        await writer.aclose()
        del writer

    assert not messages


def test_a_writer_whose_init_has_failed_is_collected_silently() -> None:
    with resource_warnings() as messages, pytest.raises(ValueError, match="capacity"):
        BufWriter(Sink(), 0)

    assert not messages


async def test_a_forgotten_layer_is_flushed_and_warns_of_nothing() -> None:
    """Who closes the stream below it finds it."""
    wire = Wire(math.inf)
    with resource_warnings() as messages:
        below = BufWriter(wire)
        layer = BufWriter(below)
        await layer.write(b"abc")
        del layer
        gc.collect()
        await below.aclose()

    assert not messages
    assert wire.sent == b"abc"


async def noop(writer: AsyncWrite) -> None:
    pass


async def use(writer: AsyncWrite) -> None:
    await writer.write_all(b"abc")
    await writer.flush()
    await writer.shutdown()


async def fail(writer: AsyncWrite) -> None:
    writer.inner.error = OSError("failed")  # type: ignore[attr-defined]
    for _ in range(2):
        run = Run(partial(writer.send_all, bytearray(b"abc")))
        await run()
        assert isinstance(run.error, trio.BrokenResourceError)
        run.error = writer.inner.error = None  # type: ignore[attr-defined]


async def fail_in_closing(writer: AsyncWrite) -> None:
    writer.inner.error = OSError("failed")  # type: ignore[attr-defined]
    run = Run(writer.aclose)
    await run()
    assert type(run.error) is trio.BrokenResourceError
    run.error = writer.inner.error = None  # type: ignore[attr-defined]


async def cancel_and_cut_short(writer: AsyncWrite) -> None:
    writer.inner.room = 0  # type: ignore[attr-defined]
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(writer.send_all, b"abc"))
        run.scope.cancel()
        await wait_all_tasks_blocked()
        run = await begin(nursery, partial(writer.send_all, b"abc"))
        closing = await begin(nursery, writer.aclose)
        await run_cancelled(writer.aclose)
    assert run.outcome == "ClosedResourceError"
    run.error = closing.error = None


@each({f.__name__: f for f in (noop, use, fail, fail_in_closing, cancel_and_cut_short)})
async def test_nothing_refers_to_a_closed_writer(operation: Operation) -> None:
    """It goes with its last reference, without the help of the garbage collector."""
    for layer in (Layer, BufWriter):
        gc.collect()
        gc.disable()
        try:
            writer = layer(Wire(math.inf))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                await operation(writer)
                await writer.aclose()
            gone = weakref.ref(writer), weakref.ref(writer.inner)
            del writer
            assert [ref() for ref in gone] == [None, None]
        finally:
            gc.enable()


# ---- What belongs to the library -----------------------------------------------------------------


@pytest.mark.parametrize("operation", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize(
    "make",
    [Wire, lambda: Layer(Wire()), lambda: Wire().by_ref()],
    ids=["own", "over", "handle"],
)
def test_a_layer_cannot_be_copied_or_pickled(
    operation: Callable[[object], object], make: Callable[[], object]
) -> None:
    layer = make()
    with pytest.raises(TypeError, match=f"a {type(layer).__name__} cannot be copied or pickled"):
        operation(layer)


def test_overriding_unsent_bytes_is_told_what_to_override() -> None:
    with pytest.raises(TypeError, match=r"Mine overrides unsent_bytes, .*override held_bytes"):
        type("Mine", (AsyncWrite,), {"unsent_bytes": 0})


def test_the_lifecycle_is_not_to_be_overridden() -> None:
    with pytest.raises(TypeError, match=r"Mine overrides lifecycle, which is the library's$"):
        type("Mine", (AsyncWrite,), {"lifecycle": None})


def test_what_a_class_that_knows_nothing_answers() -> None:
    """Alone, and for the stack below it."""

    class Knowing(AsyncWrite):
        half_closes = False
        peer_ended = True
        close_notify_received = True
        was_reset = True
        unacknowledged_bytes = 7
        descriptor = 3
        peer_address = ("192.0.2.1", 80)
        local_address = "/socket"
        keeps_messages = True
        close_patience = 2.0

    wire, over = Wire(), Layer(Knowing())
    assert (wire.half_closes, over.half_closes) == (True, False)
    assert (wire.peer_ended, over.peer_ended) == (None, True)
    assert (wire.close_notify_received, over.close_notify_received) == (None, True)
    assert (wire.was_reset, over.was_reset) == (False, True)
    assert (wire.unacknowledged_bytes, over.unacknowledged_bytes) == (None, 7)
    assert (wire.descriptor, over.descriptor) == (None, 3)
    assert (wire.peer_address, over.peer_address) == (None, ("192.0.2.1", 80))
    assert (wire.local_address, over.local_address) == (None, "/socket")
    assert (wire.keeps_messages, over.keeps_messages) == (False, True)
    assert (wire.close_patience, over.close_patience) == (0.0, 2.0)
    assert wire.layers_below == ()
    assert over.layers_below == (over.inner,)
    assert not wire.shows_truncation
    assert not wire.loss_is_unknown
    wire.arm_reset(on=True)


def test_the_epilogue_is_data_where_the_shutdown_is_overridden() -> None:
    assert Wire().epilogue is Epilogue.DATA
    assert Layer(Wire()).epilogue is Epilogue.NOTHING
    handle = Wire().by_ref()
    assert (handle.epilogue, handle.half_closes) == (Epilogue.NOTHING, False)
    assert not handle.shows_truncation
    assert AsyncRead.epilogue.__doc__ is not None
    assert Plain().epilogue is Epilogue.NOTHING


class Plain(AsyncRead):
    """A reader."""


def test_what_there_is_to_drain_is_below_and_owned() -> None:
    reader = Plain()

    class Over(AsyncWrite):
        def __init__(self, inner: object) -> None:
            self.inner = inner

    assert Wire().drain_source() is None
    assert Over(Over(reader)).drain_source() is reader
    assert Over(object()).drain_source() is None
    assert Wire().by_ref().drain_source() is None


async def test_a_read_only_layer_closes_as_well() -> None:
    class Released(AsyncRead):
        clean: bool | None = None

        async def release(self, *, clean: bool) -> None:
            self.clean = clean

    reader = Released()
    assert not reader.closed
    async with reader:
        pass
    assert reader.closed
    assert reader.clean
    await Plain().aclose()


class ReleasedAtOnce(Wire):
    release_waits = False

    async def release(self, *, clean: bool) -> None:
        self.log.append("released")


class ReleasedLater(ReleasedAtOnce):
    async def release(self, *, clean: bool) -> None:
        await trio.lowlevel.checkpoint()
        await super().release(clean=clean)


class SlowMixin:
    log: list[str]

    async def release(self, *, clean: bool) -> None:
        await trio.lowlevel.checkpoint()
        self.log.append("released")


class ReleasedByMixin(SlowMixin, ReleasedAtOnce):
    """What its second base says is not said of the release that it has from the first."""


@pytest.mark.parametrize("cls", [ReleasedAtOnce, ReleasedLater, ReleasedByMixin])
async def test_a_release_that_may_wait_is_shielded_whatever_a_base_says(cls: type[Wire]) -> None:
    for hurried in (False, True):
        wire = cls(math.inf)
        with trio.CancelScope() as scope:
            if hurried:
                scope.cancel()
            else:
                wire.poll_shutdown = scope.cancel  # type: ignore[method-assign]
            await wire.aclose()
        assert scope.cancelled_caught is hurried
        assert wire.log[-1] == "released"


class HoldsNothing(AsyncWrite):
    announces_held_bytes = True

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        return len(data)


class Holds(HoldsNothing):
    held_bytes = 3


async def test_a_class_that_holds_bytes_is_asked_whatever_its_base_says() -> None:
    with resource_warnings() as messages:
        await HoldsNothing().aclose()
        HoldsNothing()
        await Holds().aclose()
        Holds()
    assert [message.partition(" b")[0][-1] for message in messages] == ["3", "3"]


class Numbered:
    made = 0

    def __new__(cls, *args: object) -> Numbered:  # noqa: PYI034
        self = super().__new__(cls)
        self.number = Numbered.made = Numbered.made + 1
        return self

    number: int


class NumberedFirst(Numbered, Wire):
    pass


class NumberedLast(Wire, Numbered):
    pass


@pytest.mark.parametrize("cls", [NumberedFirst, NumberedLast])
async def test_a_base_beside_ours_makes_the_object_as_well(cls: type[NumberedFirst]) -> None:
    before = Numbered.made
    writer = cls(math.inf)
    assert (writer.number, Numbered.made) == (before + 1, before + 1)
    await writer.write_all(b"abc")
    await writer.aclose()


async def test_a_block_whose_first_use_is_its_end_closes_the_whole_stack() -> None:
    wire = Wire(math.inf)
    layer = Layer(wire)
    with pytest.raises(KeyError):
        async with layer:
            raise KeyError
    async with layer:
        pass

    assert wire.releases == ["release True"]


async def test_a_layer_over_a_foreign_stream_says_so_and_names_it_as_it_likes() -> None:
    class OverForeign(AsyncWrite):
        def __init__(self, stream: object) -> None:
            self.stream = stream
            self.foreign_below = (stream,)

    layer = OverForeign(Wire())
    await layer.flush()
    assert layer.discarded_bytes == 0
    await layer.aclose()


# ---- What a mixin brings, which is no layer ------------------------------------------------------


class Answers:
    """All that the library looks for in a class."""

    __slots__ = ("calls", "inner")
    keeps_messages = True

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner
        self.calls: list[str] = []

    @property
    def held_bytes(self) -> int:
        return 0 if self.calls else 7

    @property
    def layers_below(self) -> tuple[object, ...]:
        return (self.inner,)

    def owns_below(self, is_closing: object) -> bool:
        return False

    def poll_flush(self) -> None:
        self.calls.append("flush")

    def poll_close(self) -> None:
        self.calls.append("close")

    async def release(self, *, clean: bool) -> None:
        self.calls.append("release")


async def test_a_mixin_answers_and_is_called_as_the_class_itself() -> None:
    class Mixed(Answers, AsyncWrite):
        """A layer."""

    wire = Wire(math.inf)
    layer = Mixed(wire)
    assert wire.lifecycle.above[0]() is layer
    await layer.wait_send_all_might_not_block()
    assert wire.lifecycle.holders == (layer,)
    layer.calls.append("message")
    tear(layer, "a message was cut short")
    assert layer.lifecycle.torn is None
    layer.calls.clear()
    await layer.aclose()
    assert layer.calls == ["flush", "close", "release"]
    assert not wire.closed


@pytest.mark.parametrize("name", ["lifecycle", "unsent_bytes"])
def test_a_mixin_must_not_override_what_is_the_librarys(name: str) -> None:
    mixin = type("Mixin", (), {name: None})
    with pytest.raises(TypeError, match=f"Mine overrides {name}, which is the library's"):
        type("Mine", (mixin, AsyncWrite), {})


# ---- Where the layer below is found --------------------------------------------------------------


class Connecting(AsyncWrite):
    """Its ``inner`` is a property, which is None, or raises, before there is a connection."""

    pipe: AsyncWrite | None = None
    error: Exception | None = None
    released = False

    @property
    def inner(self) -> AsyncWrite | None:  # type: ignore[override]
        if self.error is not None:
            raise self.error
        return self.pipe

    async def release(self, *, clean: bool) -> None:
        self.released = True


class Defaulting(AsyncWrite):
    inner: AsyncWrite | None = None


@pytest.mark.parametrize("poll", ["poll_write", "poll_flush", "poll_shutdown", "poll_ready"])
def test_a_poll_by_hand_finds_a_layer_below_that_a_class_keeps_itself(poll: str) -> None:
    arguments = (b"abc",) if poll == "poll_write" else ()
    for name in ("pipe", "inner"):
        wire = Wire(math.inf)
        layer = Connecting() if name == "pipe" else Defaulting()
        layer.poll_flush()  # there is none yet
        setattr(layer, name, wire)
        getattr(layer, poll)(*arguments)
        assert layer.lifecycle.inner is wire
        assert poll == "poll_ready" or wire.log[-1:] == [poll[5:]]


async def test_a_layer_that_connects_later_is_written_to_after_its_first_call() -> None:
    layer = Connecting()
    await layer.flush()
    layer.pipe = wire = Wire(math.inf)
    await layer.send_all(b"abc")
    await wire.aclose()
    assert layer.closed
    assert wire.sent == b"abc"


async def test_a_property_that_raises_does_not_keep_a_layer_from_being_closed() -> None:
    layer = Connecting()
    layer.error = RuntimeError("not connected")
    with pytest.raises(RuntimeError, match="not connected"):
        await layer.aclose()
    assert layer.closed
    assert layer.released


async def test_a_falsy_layer_below_is_there() -> None:
    class Queue(Layer):
        def __len__(self) -> int:
            return 0

    layer = BufWriter(Queue(Wire(math.inf)))
    assert repr(layer.inner) == "<Layer>"
    await layer.send_all(b"abc")
    await layer.aclose()
