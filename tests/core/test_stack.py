"""What layers tell each other: who is above, who holds bytes, and what is in the way."""

from __future__ import annotations

import dataclasses
import gc
import math
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import trio

from trio_asyncwrite import AsyncReadWrite, AsyncWrite, Buf, BufWriter, Sink
from trio_asyncwrite._core._stack import (
    above,
    check_nothing_held_above,
    detach,
    hold,
    let_go,
    set_inner,
)

from ._fakes import Encoding, Holding, Layer, Wire, begin, cut_short, each, resource_warnings

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._fakes import Operation


# ---- Registration --------------------------------------------------------------------------------


class Passing(AsyncWrite):
    """A buffer of a stranger, of which the cases below are variations."""

    inner: Any
    store: bytearray

    @property
    def held_bytes(self) -> int:
        return len(self.store)

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.store += data
        return len(data)

    def poll_flush(self) -> None:
        while self.store:
            del self.store[: self.inner.poll_write(bytes(self.store))]
        self.inner.poll_flush()


class Plain(Passing):
    def __init__(self, inner: AsyncWrite) -> None:
        self.inner, self.store = inner, bytearray()


class Slotted(Passing):
    __slots__ = ("inner", "store")

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner, self.store = inner, bytearray()


class SlottedSubclass(Slotted):
    __slots__ = ("other",)


@dataclasses.dataclass
class Data(Passing):
    inner: AsyncWrite
    store: bytearray = dataclasses.field(default_factory=bytearray)


@dataclasses.dataclass(frozen=True)
class Frozen(Passing):
    inner: AsyncWrite
    store: bytearray = dataclasses.field(default_factory=bytearray)

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.store.extend(data)
        return len(data)


@dataclasses.dataclass(slots=True)
class SlottedData(Passing):
    inner: AsyncWrite
    store: bytearray = dataclasses.field(default_factory=bytearray)


class Hostile(Plain):
    """Equal to everything, and without hash."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


class Falsy(Plain):
    """It has a length, which is 0."""

    def __len__(self) -> int:
        return 0


class Raising(Plain):
    """It may not be compared or hashed at all."""

    def __eq__(self, other: object) -> bool:
        raise NotImplementedError

    def __hash__(self) -> int:
        raise NotImplementedError


class OwnClosed(Plain):
    """It has a ``closed``, which the library never reads."""

    closed = True  # type: ignore[assignment]


class OtherInit(Plain):
    def __init__(self, *, below: AsyncWrite, **_: object) -> None:
        super().__init__(below)


class Property(Passing):
    """Its ``inner`` is a property."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.below, self.store = inner, bytearray()

    @property
    def inner(self) -> AsyncWrite:  # type: ignore[override]
        return self.below


class Attribute(Plain):
    """Its ``held_bytes`` is a plain attribute."""

    held_bytes = 0  # type: ignore[assignment]

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.held_bytes += len(data)  # type: ignore[misc]
        return super().poll_write(data)

    def poll_flush(self) -> None:
        super().poll_flush()
        self.held_bytes = 0  # type: ignore[misc]


MAKERS: dict[str, Callable[[AsyncWrite], Any]] = {
    cls.__name__: cls
    for cls in (
        Plain,
        Slotted,
        SlottedSubclass,
        Data,
        Frozen,
        SlottedData,
        Hostile,
        Falsy,
        Raising,
        OwnClosed,
        Property,
        Attribute,
        Holding,
    )
}
MAKERS["OtherInit"] = lambda inner: OtherInit(below=inner, other=1)


@each(MAKERS, "make")
async def test_a_layer_is_known_below_however_its_class_is_written(
    make: Callable[[AsyncWrite], Any],
) -> None:
    """It is found by a close of the stream below it, and its bytes are flushed."""
    wire = Wire(math.inf)
    middle = Layer(wire)
    layers = [make(middle) for _ in range(2)]
    for layer in layers:
        await layer.write(b"abc")
        assert layer.unsent_bytes == 3
    assert [one is layer for one, layer in zip(above(middle), layers, strict=True)] == [True] * 2
    await wire.aclose()

    assert wire.sent == b"abcabc"
    for layer in layers:
        with pytest.raises(trio.ClosedResourceError):
            await layer.write(b"x")


@each(MAKERS, "make")
async def test_a_forgotten_layer_that_holds_bytes_is_kept_alive(
    make: Callable[[AsyncWrite], Any],
) -> None:
    """And one that holds none dies at once, without the garbage collector."""
    wire = Wire(math.inf)
    gc.disable()
    try:
        layer = make(wire)
        gone = weakref.ref(layer)
        await layer.write(b"abc")
        await layer.flush()
        del layer
        assert gone() is None

        layer = make(wire)
        kept = weakref.ref(layer)
        await layer.write(b"def")
        del layer
        assert kept() is not None
        await wire.aclose()
        assert kept() is None
    finally:
        gc.enable()

    assert wire.sent == b"abcdef"


async def test_a_thousand_short_lived_layers_leave_nothing() -> None:
    wire = Wire(math.inf)
    gc.disable()
    try:
        for make in (Layer, BufWriter, Holding, lambda inner: BufWriter(Layer(inner))):
            for _ in range(250):
                layer = make(wire)
                await layer.write(b"a")
                await layer.flush()
        del layer
        assert above(wire) == []
        assert len(wire.lifecycle.above) < 4  # those of the last ones, until the next comes
        assert wire.lifecycle.holders == ()
        assert wire.lifecycle.holding == 0
    finally:
        gc.enable()
    assert wire.sent == b"a" * 1000


async def test_a_stack_that_is_closed_is_freed_at_once() -> None:
    gc.disable()
    try:
        layers: list[Any] = [Wire(math.inf)]
        layers += [Holding(layers[0])]
        layers += [BufWriter(layers[1])]
        await layers[2].write(b"a")
        gone = [weakref.ref(layer) for layer in layers]
        await layers[0].aclose()
        layers.clear()
        assert [reference() for reference in gone] == [None] * 3
    finally:
        gc.enable()


def test_a_dropped_stack_that_holds_bytes_warns_when_it_is_collected() -> None:
    """Each layer of those that it holds itself, in its own unit; finalisers come in any order."""
    with resource_warnings() as messages:
        below = BufWriter(Sink())
        writer = BufWriter(below)
        below.poll_write(b"de")
        writer.poll_write(b"abc")
        writer.itself = writer  # type: ignore[attr-defined]
        del below, writer
        gc.collect()

    assert sorted(message.partition(": ")[2] for message in messages) == [
        "2 bytes that it had accepted were never sent",
        "3 bytes that it had accepted were never sent",
    ]


def test_a_collected_layer_whose_answer_raises_says_nothing() -> None:
    class Raising(Layer):
        @property
        def held_bytes(self) -> int:
            raise ValueError

    with resource_warnings() as messages:
        Raising(Sink())

    assert not messages


def test_a_new_inner_forgets_the_old_one() -> None:
    wires = [Wire(), Wire()]
    layer = BufWriter(wires[0])
    layer.poll_write(b"abc")
    assert above(wires[0]) == [layer]
    layer.inner = wires[1]
    assert above(wires[0]) == []
    assert wires[0].lifecycle.holding == 0
    assert above(wires[1]) == [layer]
    assert wires[1].lifecycle.holders == (layer,)
    layer.inner = wires[1]
    assert above(wires[1]) == [layer]
    del layer.inner
    assert above(wires[1]) == []
    with pytest.raises(AttributeError, match="BufWriter has no inner layer"):
        layer.inner  # noqa: B018
    with pytest.raises(AttributeError, match="AsyncWrite has no inner layer"):
        AsyncWrite.inner  # noqa: B018
    with pytest.raises(AttributeError):
        Slotted.inner  # noqa: B018
    let_go(layer)
    layer.lifecycle.released = True


def test_a_slotted_inner_can_be_read_on_an_instance() -> None:
    wire = Wire()
    assert Slotted(wire).inner is wire


def test_a_mock_is_told_by_the_name_of_its_class() -> None:
    """Its attributes are mocks as well, so it has no working lifecycle."""
    fake = mock.Mock(spec=AsyncWrite)
    with pytest.raises(
        TypeError, match=r"Mock was not created by its class \(a mock\?\), or `lifecycle` was ov"
    ):
        set_inner(fake, Wire())
    with pytest.raises(
        TypeError, match=r"Mock was not created by its class \(a mock\?\), or `lifecycle` was ov"
    ):
        Layer(fake)


async def test_a_wrapper_without_inner_gets_an_error_and_not_silence() -> None:
    class Hidden(AsyncWrite):
        def __init__(self, inner: AsyncWrite) -> None:
            self._inner = inner

        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            return self._inner.poll_write(data)

    for call in (AsyncWrite.flush, AsyncWrite.shutdown, AsyncWrite.aclose):
        wire = Wire(math.inf)
        with pytest.raises(TypeError, match=r"Hidden .*_inner.*inner"):
            await call(Hidden(wire))
        assert not wire.log


async def test_a_writer_that_a_shutdown_would_miss_is_found_though_a_flush_has_found_none() -> None:
    class Hidden(AsyncWrite):
        def __init__(self, inner: AsyncWrite) -> None:
            self._inner = inner

        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            return self._inner.poll_write(data)

        def poll_flush(self) -> None:
            super().poll_flush()
            self._inner.poll_flush()

    wire = Wire(math.inf)
    writer = Hidden(wire)
    await writer.flush()
    with pytest.raises(TypeError, match="poll_shutdown\\(\\) is passed on to it"):
        await writer.shutdown()
    assert wire.log == ["flush"] * 2


async def test_a_foreign_inner_is_no_layer() -> None:
    class Foreign(trio.abc.SendStream):
        async def send_all(self, data: object) -> None:
            raise NotImplementedError

        async def wait_send_all_might_not_block(self) -> None:
            raise NotImplementedError

        async def aclose(self) -> None:
            raise NotImplementedError

    layer = Layer(Foreign())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"it is a Foreign: use wrap_stream\(\)"):
        await layer.flush()
    layer.inner = Wire(math.inf)
    with pytest.raises(trio.BrokenResourceError):
        await layer.flush()


@pytest.mark.parametrize("state", ["closed", "broken", "torn", "shut down"])
async def test_a_new_layer_inherits_the_state_of_the_one_below(state: str) -> None:
    wire = Wire(room=1)
    if state == "closed":
        await wire.aclose()
    elif state == "broken":
        wire.error = OSError("failed")
        with pytest.raises(trio.BrokenResourceError):
            await wire.write(b"x")
    elif state == "torn":
        await cut_short(partial(wire.write_all, b"abc"))
    else:
        await wire.shutdown()
    text = {"closed": "shut down|closed", "broken": "failed before"}.get(state, state)
    expected = trio.BrokenResourceError if state in ("broken", "torn") else trio.ClosedResourceError
    for layer in (Layer(wire), Layer(Layer(wire)), wire.by_ref()):
        with pytest.raises(expected, match=text):
            await layer.write(b"x")
    wire.error = None
    with resource_warnings():
        await wire.aclose()


# ---- Holding bytes -------------------------------------------------------------------------------


async def test_a_layer_that_does_not_announce_its_bytes_is_asked_after_each_call() -> None:
    """Also if it was written to through a layer above it."""
    wire = Wire(math.inf)
    holding = Holding(Layer(wire))
    top = Layer(Layer(holding))
    await top.write(b"abc")
    assert [len(one.lifecycle.holders) for one in (wire, holding.inner, holding)] == [1, 1, 0]
    await top.write(b"d")
    assert len(wire.lifecycle.holders) == 1
    await top.flush()
    assert [one.lifecycle.holding for one in (wire, holding, top)] == [0, 0, 0]


async def test_two_holders_of_one_layer_are_counted() -> None:
    wire = Wire()
    below = Layer(wire)
    first, second = BufWriter(below), BufWriter(below)
    hold(below)
    first.poll_write(b"a")
    second.poll_write(b"b")
    assert (below.lifecycle.holding, wire.lifecycle.holding) == (3, 1)
    wire.give(math.inf)
    first.poll_flush()
    assert (below.lifecycle.holding, wire.lifecycle.holding) == (2, 1)
    second.poll_flush()
    let_go(below)
    assert (below.lifecycle.holding, wire.lifecycle.holding) == (0, 0)


def test_what_a_stack_holds_is_the_sum_and_an_answer_that_raises_adds_nothing() -> None:
    class Raising(Layer):
        @property
        def held_bytes(self) -> int:
            raise ValueError

    wire = Wire()
    wire.held = 2
    below = Holding(wire)
    below.store += b"abc"
    assert Layer(below).unsent_bytes == 5
    assert Raising(below).unsent_bytes == 5
    wire.held = 0
    below.store.clear()


# ---- What is in the way --------------------------------------------------------------------------


class Upper(Layer, AsyncReadWrite):
    pass


ENDS: dict[str, Operation] = {
    "shutdown": lambda writer: writer.shutdown(),
    "send_eof": lambda writer: writer.send_eof(),  # type: ignore[attr-defined]
}


@each(ENDS)
@pytest.mark.parametrize("make", [BufWriter, Holding, Encoding])
@pytest.mark.parametrize("beside", [False, True])
async def test_nothing_is_shut_down_under_held_bytes(
    operation: Operation, make: Callable[[AsyncWrite], Any], beside: bool
) -> None:
    """Neither under those of a holder above, nor of a sibling; and nothing happens."""
    wire = Wire(math.inf)
    layer = Upper(wire)
    holder = make(wire if beside else layer)
    await holder.write(b"a")
    log = list(wire.log)
    with pytest.raises(ValueError, match="holds 1 unsent bytes: flush it before you shut"):
        await operation(layer)
    assert wire.log == log
    with pytest.raises(ValueError, match="holds 1 unsent bytes: flush it before you wrap"):
        check_nothing_held_above(wire, "wrap it")
    await holder.flush()
    check_nothing_held_above(wire, "wrap it")
    await operation(layer)
    with pytest.raises(trio.ClosedResourceError):
        await holder.write(b"x")
    with resource_warnings() as messages:
        await wire.aclose()
    # It cannot write its full stop any more.
    assert len(messages) == (make is Encoding)


async def test_an_unknown_count_is_in_the_way_as_well() -> None:
    class Raising(Holding):
        @property
        def held_bytes(self) -> int:
            raise ValueError

    wire = Wire(math.inf)
    holder = Raising(wire)
    with pytest.raises(ValueError, match="holds an unknown number of unsent bytes"):
        await wire.shutdown()
    await holder.flush()
    with pytest.warns(ResourceWarning, match="an unknown number of bytes"):
        await wire.aclose()


async def test_bytes_of_the_layer_itself_and_of_those_below_are_no_hindrance() -> None:
    wire = Wire(math.inf)
    below = BufWriter(wire)
    layer = BufWriter(below)
    await below.write(b"a")
    await layer.write(b"b")
    await layer.shutdown()

    assert wire.sent == b"ab"
    await layer.shutdown()


@each(ENDS)
@pytest.mark.parametrize("depth", [0, 2, 3])
async def test_nothing_is_shut_down_while_a_message_is_under_way(
    operation: Operation, depth: int
) -> None:
    """In a layer below, above or beside; that goes on unharmed."""
    wire = Wire()
    layer = Upper(wire)
    layers: list[Any] = [wire, layer, Layer(layer), Layer(wire)]
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(layers[depth].write_all, b"abc"))
        log = list(wire.log)
        with pytest.raises(trio.BusyResourceError):
            await operation(layer)
        assert wire.log == log
        wire.give(3)

    assert run.outcome == "returned None"
    wire.give(math.inf)
    await operation(layer)
    assert wire.sent == b"abc"


async def test_the_shutdown_of_a_handle_looks_at_nothing_below() -> None:
    wire = Wire(math.inf)
    handle = wire.by_ref()
    beside = BufWriter(wire)
    await beside.write(b"a")
    await handle.shutdown()
    await beside.aclose()

    assert wire.sent == b"a"


async def test_who_goes_on_with_a_shutdown_is_not_asked_again() -> None:
    wire = Wire()
    layer = Layer(wire)
    await cut_short(layer.shutdown)
    wire.give(math.inf)
    await layer.shutdown()
    beside = Layer(wire)
    await layer.shutdown()
    with pytest.raises(trio.ClosedResourceError):
        await beside.write(b"a")


async def test_a_layer_over_one_that_was_shut_down_may_be_shut_down_as_well() -> None:
    wire = Wire(math.inf)
    layer = Layer(wire)
    await wire.shutdown()
    await layer.shutdown()

    assert wire.log.count("shutdown") == 1


async def test_what_a_torn_layer_holds_is_lost_and_no_hindrance() -> None:
    wire = Wire()
    below = Layer(wire)
    holder = BufWriter(below.by_ref())
    await holder.write(b"a")
    wire.give(1)
    await cut_short(partial(below.write_all, b"abc"))
    with pytest.raises(trio.BrokenResourceError, match="torn"):
        await below.shutdown()
    other = Encoding(wire)
    with pytest.raises(trio.BrokenResourceError, match="torn"):
        await other.shutdown()
    with resource_warnings():
        await wire.aclose()


async def test_the_layers_above_a_torn_one_do_not_hinder_a_layer_below_that_is_whole() -> None:
    wire = Wire(room=1)
    below = Layer(wire)
    encoder = Encoding(below)
    holder = BufWriter(encoder)
    await holder.write(b"lost")
    await cut_short(partial(encoder.write_all, b"abc"))
    wire.give(math.inf)
    await encoder.flush()
    await below.shutdown()

    assert wire.sent == b"AB"
    assert holder.unsent_bytes == 4
    with resource_warnings() as messages:
        await wire.aclose()
    assert len(messages) == 1


# ---- Layers over two streams ---------------------------------------------------------------------


class Tee(AsyncWrite):
    """Over two writers, or twice over the same."""

    def __init__(self, inner: AsyncWrite, other: AsyncWrite) -> None:
        self.inner = inner
        self.layers_below = (inner, other)


class Armed(Wire):
    armed = False

    def arm_reset(self, *, on: bool) -> None:
        self.armed = on


class Copying(Holding):
    """A tee that keeps one store for both."""

    def __init__(self, inner: AsyncWrite, other: AsyncWrite) -> None:
        super().__init__(inner)
        self.other = other

    @property
    def layers_below(self) -> tuple[object, ...]:  # type: ignore[override]
        return (self.inner, self.other)

    def poll_flush(self) -> None:
        if self.store:
            count = self.inner.poll_write(bytes(self.store))
            self.other.poll_write(bytes(self.store[:count]))
            del self.store[:count]
        self.inner.poll_flush()
        self.other.poll_flush()


class Half(Copying):
    """It takes half of what it is given, and passes it on at once."""

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.inner.poll_write(data[:1])
        return self.other.poll_write(data[:1])  # type: ignore[no-any-return]


both_sides = pytest.mark.parametrize("number", [0, 1])


@both_sides
@each(ENDS)
async def test_nothing_is_shut_down_under_bytes_held_for_several_streams(
    operation: Operation, number: int
) -> None:
    wires = Wire(math.inf), Wire(math.inf)
    both = Upper(wires[0]), Upper(wires[1])
    tee = Copying(*both)
    await tee.write(b"a")
    with pytest.raises(ValueError, match="holds 1 unsent bytes: flush it before you shut"):
        await operation(both[number])
    await tee.flush()
    await operation(both[number])
    with pytest.raises(trio.ClosedResourceError):
        await tee.write(b"x")
    await tee.aclose()
    assert [wire.sent for wire in wires] == [b"a", b"a"]


@both_sides
@pytest.mark.parametrize("ended", [False, True])
async def test_a_shutdown_of_several_streams_looks_at_each(number: int, *, ended: bool) -> None:
    both = Wire(math.inf), Wire(math.inf)
    beside = BufWriter(both[number])
    tee = Copying(*both)
    if ended:
        await both[1 - number].shutdown()
    await beside.write(b"a")
    with pytest.raises(ValueError, match="holds 1 unsent bytes: flush it before you shut"):
        await tee.shutdown()
    await beside.flush()
    await tee.aclose()


@both_sides
async def test_a_failure_of_one_of_several_streams_breaks_the_layer_above(number: int) -> None:
    both = Wire(math.inf), Wire(math.inf)
    above = Layer(Copying(*both))
    await above.flush()
    both[number].error = OSError("gone")
    with pytest.raises(trio.BrokenResourceError):
        await both[number].write(b"x")
    with pytest.raises(trio.BrokenResourceError, match="failed before"):
        await above.write(b"x")
    await above.aclose()


@pytest.mark.parametrize("whole", [False, True])
async def test_a_message_that_was_cut_short_reaches_several_streams(*, whole: bool) -> None:
    both = Armed(room=1), Armed(room=1)
    tee = Half(*both)
    buf = Buf(b"abc")
    await cut_short(partial(tee.write_all_buf, buf) if whole else partial(tee.write_all, b"abc"))
    assert [wire.armed for wire in both] == [True, True]
    for wire in both:
        wire.give(math.inf)
    if whole:
        await tee.write_all_buf(buf)
        assert [wire.armed for wire in both] == [False, False]
    else:
        for wire in both:
            with pytest.raises(trio.BrokenResourceError, match="torn"):
                await wire.write(b"x")
    with resource_warnings() as messages:
        await tee.aclose()
    assert bool(messages) != whole


async def test_what_is_unsent_below_a_layer_over_several_streams_is_counted_once() -> None:
    wire = Wire(math.inf)
    both = BufWriter(wire), BufWriter(wire)
    tee = Copying(*both)
    wire.held = 1
    await both[0].write(b"12")
    await both[1].write(b"3456")
    assert tee.unsent_bytes == 7
    await tee.aclose()


async def test_a_flush_resumes_what_was_abandoned_in_each_of_several_streams() -> None:
    both = Wire(math.inf), Wire()
    both[1].held = 1
    tee = Copying(*both)
    await cut_short(partial(both[1].send_all, b""))
    assert both[1].lifecycle.abandoned
    both[1].give(math.inf)
    await tee.flush()
    assert not both[1].lifecycle.abandoned
    await tee.aclose()


@pytest.mark.parametrize("is_raising", [False, True])
async def test_a_layer_may_say_that_it_only_reads_from_one_below(*, is_raising: bool) -> None:
    """An answer that raises is unknown, and then it writes to ``inner``."""

    class Reading(Copying):
        @property
        def writes_below(self) -> tuple[object, ...]:  # type: ignore[override]
            if is_raising:
                raise KeyError
            return (self.inner,)

    inner, source = Wire(math.inf), Wire(math.inf)
    layer = Reading(inner, source)
    await layer.write(b"a")
    await source.shutdown()
    with pytest.raises(ValueError, match="holds 1 unsent bytes"):
        await inner.shutdown()
    layer.other = Wire(math.inf)
    await layer.aclose()
    assert inner.sent == b"a"
    await source.aclose()


async def test_a_layer_over_the_same_writer_by_two_ways_is_known_once() -> None:
    wire = Holding(Wire(math.inf))
    both = Layer(wire), Layer(wire)
    tee = Tee(*both)
    await tee.write(b"a")
    assert [above(one) for one in both] == [[tee], [tee]]
    assert tee.lifecycle.watched == (wire.inner, wire)
    double = Tee(both[0], both[0])
    await double.write(b"b")
    assert above(both[0]) == [tee, double]
    hold(tee)
    assert (wire.lifecycle.holding, both[0].lifecycle.holding) == (3, 1)
    hold(double)
    let_go(tee)
    let_go(double)
    assert wire.lifecycle.holding == 1
    await wire.aclose()


async def test_a_layer_that_is_detached_is_closed_and_nothing_below_knows_it() -> None:
    wires = [Wire(math.inf), Wire(math.inf)]
    for attached in (False, True):
        tee = Tee(*wires)
        if attached:
            await tee.write(b"a")
            hold(tee)
        detach(tee)
        assert [above(wire) for wire in wires] == [[], []]
        assert [wire.lifecycle.holding for wire in wires] == [0, 0]
        with pytest.raises(trio.ClosedResourceError):
            await tee.write(b"x")
        await tee.aclose()
    await wires[0].write(b"b")
    assert not wires[0].releases


def test_references_to_layers_that_are_gone_leave_with_the_next_layer() -> None:
    wire = Wire()
    layers = [Layer(wire) for _ in range(3)]
    layers[1].inner = Wire()
    layers.clear()
    assert above(wire) == []

    layer = Layer(wire)
    assert [one() for one in wire.lifecycle.above] == [layer]


async def test_a_layer_that_holds_bytes_is_held_once_by_each_layer_below() -> None:
    wires = [Wire(math.inf), Wire(math.inf)]
    tee = Tee(*wires)
    hold(tee)
    tee.inner = wires[1]

    assert [len(wire.lifecycle.holders) for wire in wires] == [0, 1]
    let_go(tee)
    assert [wire.lifecycle.holding for wire in wires] == [0, 0]


async def test_what_the_layers_below_have_forgotten_is_let_go_of_all_the_same() -> None:
    """A close forgets who was held, and a layer may let go in its release."""
    wire = Wire(math.inf)
    layer = Layer(wire)
    hold(layer)
    assert wire.lifecycle.holders == (layer,)
    wire.lifecycle.holders = ()
    let_go(layer)
    assert (layer.lifecycle.holding, wire.lifecycle.holding) == (0, 1)
