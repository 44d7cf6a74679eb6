"""Law 3: a message that was begun and not finished tears the stream; a Buf is gone on with."""

from __future__ import annotations

import gc
import math
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_asyncwrite import (
    AsyncReadWrite,
    AsyncWrite,
    Buf,
    BufWriter,
    Cursor,
    ReadWritePair,
    Sink,
    TeeWriter,
    WriteZeroError,
    duplex,
    graceful,
    simplex,
)

from .._patience import wait_all_tasks_blocked
from .._streams import drain
from ._fakes import (
    BUDGETED,
    CLAIMS,
    MESSAGES,
    SOME,
    WAITS,
    WRITES,
    Encoding,
    Holding,
    Layer,
    Run,
    Wire,
    begin,
    cut_short,
    each,
    resource_warnings,
    run_cancelled,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._fakes import Operation


class Armed(Wire):
    """Remembers whether the kernel was asked to reset the connection."""

    armed: bool | None = None

    def arm_reset(self, *, on: bool) -> None:
        self.armed = on


async def is_torn(layer: AsyncWrite) -> bool:
    """Whether nothing may follow; a write of nothing does no harm if that is wrong."""
    run = Run(partial(layer.write, b""))
    run.scope.cancel()
    await run()
    return "is torn" in str(run.error)


# ---- Its reach -----------------------------------------------------------------------------------


@each(MESSAGES)
@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_tear_reaches_every_layer_where_no_one_encodes(
    operation: Operation, depth: int
) -> None:
    """Above, below, and beside; the text says how much of how much."""
    wire = Wire(room=1)
    layers = [wire, Layer(wire)]
    layers.append(Layer(layers[1]))
    beside = [Layer(wire), BufWriter(layers[1])]
    await cut_short(partial(operation, layers[depth]))

    for layer in (*layers, *beside):
        with pytest.raises(trio.BrokenResourceError, match="only 1 of the 3 bytes of a message"):
            await layer.write(b"x")
    with resource_warnings():
        await wire.aclose()


async def test_a_tear_stops_below_the_first_layer_that_encodes() -> None:
    """That one finishes its record, and those below know nothing of messages."""
    wire = Wire(room=1)
    below = Layer(wire)
    encoder = Encoding(below)
    middle = Layer(encoder)
    top = Layer(middle)
    over_encoder, over_below = Layer(encoder), Layer(below)
    await cut_short(partial(top.write_all, b"abc"))

    assert [await is_torn(one) for one in (top, middle, encoder, over_encoder)] == [True] * 4
    assert [await is_torn(one) for one in (below, wire, over_below)] == [False] * 3
    wire.give(math.inf)
    await below.write_all(b"!")
    with resource_warnings() as messages:
        await top.aclose()
    assert wire.sent == b"A!B"  # what was accepted, and no end
    assert len(messages) == 1


async def test_a_tear_below_a_layer_that_encodes_reaches_it() -> None:
    wire = Wire(room=1)
    below = Layer(wire)
    encoder = Encoding(below)
    await cut_short(partial(below.write_all, b"abc"))

    assert await is_torn(encoder)
    with resource_warnings():
        await encoder.aclose()
    assert wire.releases == ["release True"]  # the missing end of the encoding shows it


@pytest.mark.parametrize("how", ["cancelled", "fails", "wait raises"])
async def test_a_message_is_cut_short_by_whatever_ends_it(how: str) -> None:
    class FailingWait(Wire):
        async def wait_for_room(self) -> None:
            await super().wait_for_room()
            if how == "wait raises":
                raise ValueError("wait")

    wire = FailingWait(room=1)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write_all, b"abc"))
        if how == "cancelled":
            run.scope.cancel()
        elif how == "fails":
            wire.error = OSError("failed")
        wire.waiters.unpark_all()
    wire.error = None

    with pytest.raises(trio.BrokenResourceError, match="failed" if how == "fails" else "torn"):
        await wire.write(b"x")
    with resource_warnings():
        await wire.aclose()
    assert wire.releases == ["release False"]


@each(BUDGETED)
async def test_what_was_not_begun_tears_nothing(operation: Operation) -> None:
    wire = Wire()
    await cut_short(partial(operation, wire))
    wire.give(3)
    await operation(wire)

    assert not await is_torn(wire)


@each({name: WRITES[name] for name in ("write", "write_buf", "write_vectored")})
async def test_what_says_how_much_it_took_never_tears(operation: Operation) -> None:
    wire = Wire(room=1)
    await operation(wire)
    await cut_short(partial(operation, wire))

    assert not await is_torn(wire)


async def test_a_message_in_a_handle_is_one_of_the_original() -> None:
    wire = Wire(room=1)
    handle = wire.by_ref()
    await cut_short(partial(handle.write_all, b"abc"))

    assert await is_torn(handle)
    assert await is_torn(wire)
    assert await is_torn(wire.by_ref())  # made later
    with resource_warnings():
        await handle.aclose()
        await wire.aclose()
    assert wire.releases == ["release False"]


async def test_writers_into_memory_are_not_torn() -> None:
    """Nor are their handles: what was accepted can be looked at."""
    cursor = Cursor(bytearray(2), growable=False)
    for writer in (cursor, cursor.by_ref()):
        cursor.position = 0
        with pytest.raises(WriteZeroError):
            await writer.write_all(b"abc")
        assert not await is_torn(writer)
    assert not await is_torn(cursor)


class Announcing(Wire):
    """Tells as soon as it has accepted something."""

    def __init__(self, room: float) -> None:
        super().__init__(room)
        self.has_accepted = trio.Event()

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        count = super().poll_write(data)
        self.has_accepted.set()
        return count


@each(SOME)
async def test_a_write_of_a_part_is_not_torn_by_a_close_that_meets_it(operation: Operation) -> None:
    """It has accepted all that it will, and returns the count, but runs its checkpoint still."""
    with resource_warnings() as messages:
        for _ in range(20):  # Trio decides which of the two tasks is first
            wire = Announcing(room=1)
            run = Run(partial(operation, wire))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await wire.has_accepted.wait()
                await trio.aclose_forcefully(wire)

            assert run.outcome == "returned 1"
            assert wire.releases == ["release True"]

    assert messages == []


class Keeping(Wire):
    """Promises to send the rest of a message that it has begun."""

    keeps_messages = True


async def test_a_layer_that_keeps_messages_whole_is_not_torn() -> None:
    wire = Keeping(room=1)
    await cut_short(partial(wire.write_all, b"abc"))

    assert not await is_torn(wire)


async def test_a_layer_over_one_that_keeps_messages_whole_is_torn() -> None:
    """It has passed a part on, and the one below takes that for a message."""

    class Cutting(Layer):
        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            return self.inner.poll_write(data[:1])  # type: ignore[no-any-return]

    wire = Keeping(room=1)
    cutting = Cutting(wire)
    await cut_short(partial(cutting.write_all, b"abc"))

    assert await is_torn(cutting)
    assert not await is_torn(wire)


async def test_an_original_over_one_that_keeps_messages_whole_is_torn() -> None:
    """By a handle that was closed before all was said."""
    wire = Keeping(math.inf)
    original = BufWriter(wire)
    with pytest.raises(ValueError, match="oops"):
        async with graceful(original.by_ref()):
            raise ValueError("oops")

    assert await is_torn(original)
    assert not await is_torn(wire)


async def test_a_layer_made_over_a_torn_one_is_torn() -> None:
    wire = Wire(room=1)
    await cut_short(partial(wire.write_all, b"abc"))

    assert await is_torn(Layer(BufWriter(wire)))


# ---- Its effect ----------------------------------------------------------------------------------


class Duplex(Wire, AsyncReadWrite):
    """Reads what it is told to."""

    def poll_read(self, size: int, /) -> bytes:
        return b"read"


async def torn_stack() -> tuple[Duplex, Layer, BufWriter[Layer], BufWriter[Layer]]:
    """A transport, a torn layer over it, and a buffer above and one beside, which hold bytes."""
    wire = Duplex(room=1)
    called = Layer(wire)
    holding, beside = BufWriter(called), BufWriter(Layer(wire))
    await holding.write(b"held")
    await beside.write(b"held")
    await cut_short(partial(called.write_all, b"abc"))
    wire.give(math.inf)
    return wire, called, holding, beside


@each({**WRITES, **WAITS, "shutdown": lambda writer: writer.shutdown()})
async def test_on_a_torn_layer_everything_that_writes_is_refused(operation: Operation) -> None:
    wire, *layers = await torn_stack()
    log = list(wire.log)
    for layer in (wire, *layers):
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="torn"):
                await operation(layer)
    with pytest.raises(trio.BrokenResourceError, match="torn"):
        await wire.send_eof()

    assert wire.log == log
    assert await wire.receive_some() == b"read"
    with resource_warnings():
        await wire.aclose()


async def test_polls_by_hand_are_refused_on_a_torn_layer() -> None:
    wire, called, holding, _ = await torn_stack()
    for layer in (called, holding):
        for poll in (
            partial(layer.poll_write, b"x"),
            partial(layer.poll_write_vectored, [b"x"]),
            layer.poll_flush,
            layer.poll_shutdown,
            layer.poll_ready,
        ):
            with pytest.raises(trio.BrokenResourceError, match="torn"):
                poll()
    with resource_warnings():
        await wire.aclose()


async def test_the_flush_of_the_called_layer_works_and_no_other_above() -> None:
    """The bytes that others hold are lost: they came before or after a hole."""
    wire, called, holding, beside = await torn_stack()
    await called.flush()
    for layer in (holding, beside):
        with pytest.raises(trio.BrokenResourceError, match="torn"):
            await layer.flush()

    assert wire.sent == b"a"
    with resource_warnings() as messages:
        await called.aclose()
    assert wire.sent == b"a"
    assert messages == [
        "<Layer> was closed: 8 bytes that it had accepted were never sent",
    ]


@pytest.mark.parametrize("make", [Holding, lambda inner: BufWriter(inner, 2)])
async def test_what_the_called_layer_and_those_below_hold_still_goes(
    make: Callable[[AsyncWrite], AsyncWrite],
) -> None:
    wire = Wire()
    below = BufWriter(wire, 2)
    called = make(below)
    buf = [b"a", b"b", b"cdefgh"]
    run = Run(partial(called.write_all_vectored, buf))
    if isinstance(called, Holding):
        run = Run(partial(called.send_all, b"abcdefgh"))
    else:
        await called.write(b"z")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        run.scope.cancel()
    accepted = called.unsent_bytes
    assert accepted
    wire.give(math.inf)
    await called.flush()

    assert len(wire.sent) == accepted
    assert called.unsent_bytes == 0
    with resource_warnings():
        await called.aclose()


async def test_a_torn_stream_closes_at_once_and_warns_once() -> None:
    """No epilogue says that it was all; the bytes that can go at once do."""
    pipe, reader = simplex(5)
    writer = BufWriter(Layer(pipe), 4)
    await writer.write(b"xyz")
    await cut_short(partial(writer.write_all, b"abcdefgh"))
    assert await is_torn(writer)
    with resource_warnings() as messages:
        with trio.testing.assert_checkpoints():
            await writer.aclose()
        await writer.aclose()

    assert len(messages) == 1
    with pytest.raises(trio.BrokenResourceError):
        await drain(reader)


@pytest.mark.parametrize("shows", [True, False])
async def test_a_torn_transport_resets_when_all_die_unless_a_missing_epilogue_tells(
    shows: bool,
) -> None:
    wire = Armed(room=1)
    layer = Encoding(wire) if shows else Layer(wire)
    await cut_short(partial(layer.write_all, b"abc"))

    assert wire.armed == (None if shows else True)
    with resource_warnings():
        await layer.aclose()
    assert wire.releases == [f"release {shows}"]


# ---- Evicted by a close --------------------------------------------------------------------------


@each(MESSAGES)
@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_message_that_a_close_ends_tears_before_its_first_poll(
    operation: Operation, depth: int
) -> None:
    """So that close writes no epilogue."""
    wire = Wire(room=1)
    layers: list[AsyncWrite] = [wire, Layer(wire)]
    layers.append(Layer(layers[1]))
    with resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            run = await begin(nursery, partial(operation, layers[1]))
            await layers[depth].aclose()

    assert run.outcome == "ClosedResourceError"
    assert "shutdown" not in wire.log
    assert wire.releases == ["release False"]
    assert messages == [
        f"{layers[depth]!r} was closed: only 1 of the 3 bytes of a message were accepted"
    ]


async def test_a_send_that_a_close_ends_after_all_was_accepted_is_finished_by_it() -> None:
    wire = Wire()
    writer = BufWriter(wire)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(writer.send_all, b"abc"))
        closing = await begin(nursery, writer.aclose)
        assert run.outcome == "ClosedResourceError"
        assert closing.outcome == "returned not finished"
        wire.give(math.inf)

    assert closing.outcome == "returned None"
    assert wire.sent == b"abc"
    assert wire.releases == ["release True"]


# ---- An unfinished Buf ---------------------------------------------------------------------------


async def unfinished(writer: AsyncWrite, wire: Wire) -> Buf:
    """A Buf of ``abcdef`` of which ``a`` was accepted."""
    buf = Buf(b"abc", b"def")
    wire.give(1)
    await cut_short(partial(writer.write_all_buf, buf))
    assert buf.remaining == 5
    wire.give(math.inf)
    return buf


@each(WRITES)
async def test_until_a_buf_is_finished_all_other_writes_are_refused(operation: Operation) -> None:
    """But it is not broken by them, and can be flushed."""
    wire = Wire()
    buf = await unfinished(wire, wire)
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
            await operation(wire)
    await wire.flush()
    await wire.write_all_buf(buf)
    await operation(wire)

    assert wire.sent in (b"abcdefa", b"abcdefabc")


async def test_a_buf_is_finished_by_write_buf_as_well() -> None:
    wire = Wire()
    buf = await unfinished(wire, wire)
    assert await wire.write_buf(buf) == 2
    with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
        await wire.write(b"x")
    assert await wire.write_buf(buf) == 3
    await wire.write(b"!")

    assert wire.sent == b"abcdef!"


async def test_write_buf_begins_no_buf() -> None:
    wire = Wire(room=1)
    buf = Buf(b"abc")
    await wire.write_buf(buf)
    await cut_short(partial(wire.write_buf, buf))
    wire.give(math.inf)
    await wire.write(b"x")

    assert wire.sent == b"ax"


@pytest.mark.parametrize("end", ["cancelled", "fails", "stays"])
async def test_going_on_with_a_buf_may_be_ended_again(end: str) -> None:
    wire = Wire()
    buf = await unfinished(wire, wire)
    wire.room = 0 if end != "stays" else 2
    wire.error = OSError("failed") if end == "fails" else None
    if end == "fails":
        with pytest.raises(trio.BrokenResourceError, match="failed"):
            await wire.write_all_buf(buf)
    else:
        await cut_short(partial(wire.write_all_buf, buf))
    assert buf.remaining == (3 if end == "stays" else 5)
    wire.error, wire.room = None, math.inf
    with pytest.raises(
        trio.BrokenResourceError, match="failed before" if end == "fails" else "finish the Buf"
    ):
        await wire.write(b"x")
    if end != "fails":
        await wire.write_all_buf(buf)
        assert wire.sent == b"abcdef"
    await wire.aclose()


async def test_a_buf_cannot_be_gone_on_with_while_another_task_is_inside() -> None:
    wire = Wire()
    buf = await unfinished(wire, wire)
    wire.room = 0
    async with trio.open_nursery() as nursery:
        await begin(nursery, wire.flush)
        with pytest.raises(trio.BusyResourceError):
            await wire.write_all_buf(buf)
        nursery.cancel_scope.cancel()
    wire.room = math.inf
    with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
        await wire.write(b"x")
    await wire.write_all_buf(buf)


@pytest.mark.parametrize("spoilt", ["released", "collected", "finished elsewhere"])
async def test_nothing_but_writing_that_buf_finishes_it(spoilt: str) -> None:
    wire = Wire()
    data = bytearray(b"xyz")
    buf: Buf | None = await unfinished(wire, wire)
    assert buf is not None
    if spoilt == "released":
        buf.release()
    elif spoilt == "finished elsewhere":
        await Sink().write_all_buf(buf)
    else:
        buf = None
        gc.collect()
    other = Buf(data)
    for one in (buf, other):
        if one is not None:
            with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
                await wire.write_all_buf(one)
    other.release()
    data.clear()  # nobody keeps it
    with resource_warnings() as messages:
        await wire.aclose()

    assert messages == ["<Wire> was closed: a Buf was begun and not finished"]
    assert wire.releases == ["release False"]


@pytest.mark.parametrize("accepted", [0, 2])
@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("how", ["released", "advanced"])
async def test_a_buf_that_somebody_else_takes_away_is_not_said_to_be_written(
    accepted: int, how: str, *, goes_on: bool
) -> None:
    wire = Wire()
    buf = await unfinished(wire, wire) if goes_on else Buf(b"abcdef")
    wire.room = accepted
    before = len(wire.sent)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write_all_buf, buf))
        assert len(wire.sent) - before == accepted
        if how == "released":
            buf.release()
        else:
            buf.advance(buf.remaining)
        wire.give(math.inf)
    assert run.outcome == "BrokenResourceError"
    if accepted or goes_on:
        with pytest.raises(trio.BrokenResourceError, match="by somebody else"):
            await wire.write(b"x")
    with resource_warnings():
        await wire.aclose()


@each({"shutdown": lambda writer: writer.shutdown(), "send_eof": lambda writer: writer.send_eof()})
@pytest.mark.parametrize("depth", [0, 1])
async def test_a_shutdown_is_refused_until_the_buf_is_finished_and_breaks_nothing(
    operation: Operation, depth: int
) -> None:
    class Upper(Layer, AsyncReadWrite):
        pass

    wire = Duplex()
    layers = [wire, Upper(wire)]
    buf = await unfinished(layers[depth], wire)
    for layer in layers:
        log = list(wire.log)
        with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
            await operation(layer)
        assert wire.log == log
    await layers[depth].write_all_buf(buf)
    await operation(layers[1])

    assert wire.sent == b"abcdef"


async def test_a_handle_whose_message_was_cut_short_closes_like_any_torn_layer() -> None:
    writer, _reader = simplex(1)
    handle = writer.by_ref()
    await cut_short(partial(handle.write_all, b"xy"))

    with pytest.warns(ResourceWarning, match="only 1 of the 2 bytes"):
        await handle.aclose()

    with pytest.warns(ResourceWarning, match="closed before it had written everything"):
        await writer.aclose()


async def test_a_buf_that_was_begun_in_a_handle_belongs_to_the_original() -> None:
    """Its end leaves the Buf to be gone on with there, or in another handle."""
    wire = Wire()
    handle, other = wire.by_ref(), wire.by_ref()
    for finish in (wire, other):
        with resource_warnings() as messages:
            wire.room = 0
            async with wire.by_ref() as handle:
                buf = await unfinished(handle, wire)
        assert not messages
        for writer in (wire, other, wire.by_ref()):
            with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
                await writer.write(b"x")
        await finish.write_all_buf(buf)
        await other.write(b".")
    await wire.aclose()

    assert wire.sent == b"abcdef.abcdef."
    assert wire.releases == ["release True"]


@pytest.mark.parametrize("begun", range(4))
@pytest.mark.parametrize("going_on", range(4))
async def test_a_buf_belongs_to_the_original_of_handles_of_handles(
    begun: int, going_on: int
) -> None:
    wire = Wire(1)
    handles: list[AsyncWrite] = [wire]
    for _ in range(3):
        handles.append(handles[-1].by_ref())
    buf = Buf(b"abc")
    await cut_short(partial(handles[begun].write_all_buf, buf))
    for handle in handles:
        with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
            await handle.write_all(b"x")
    wire.give(1)
    await cut_short(partial(handles[going_on].write_all_buf, buf))
    wire.give(math.inf)
    await handles[going_on].write_all_buf(buf)
    for handle in handles:
        await handle.write_all(b"x")
    assert wire.sent == b"abcxxxx"


async def test_an_unfinished_buf_arms_the_reset_until_the_last_one_is_finished() -> None:
    wire = Armed()
    layers = [Layer(wire), Layer(wire)]
    bufs = [await unfinished(layers[0], wire)]
    wire.room = 0
    bufs.append(await unfinished(layers[1], wire))
    assert wire.armed is True
    await layers[0].write_all_buf(bufs[0])
    assert wire.armed is True
    await layers[1].write_all_buf(bufs[1])
    assert wire.armed is False
    assert wire.sent == b"aabcdefbcdef"


async def test_a_buf_that_is_written_at_once_touches_no_option() -> None:
    wire = Armed(math.inf)
    await wire.write_all_buf(Buf(b"abc"))

    assert wire.armed is None


@pytest.mark.parametrize("going_on", [False, True])
async def test_a_buf_that_a_close_ends_is_unfinished(going_on: bool) -> None:
    wire = Wire(room=1)
    buf = Buf(b"abc")
    if going_on:
        await cut_short(partial(wire.write_all_buf, buf))
    with resource_warnings() as messages:
        async with trio.open_nursery() as nursery:
            run = await begin(nursery, partial(wire.write_all_buf, buf))
            await wire.aclose()

    assert run.outcome == "ClosedResourceError"
    assert wire.log[-2:] == ["flush", "release False"]
    assert len(messages) == 1


# ---- Abandoned -----------------------------------------------------------------------------------


async def test_a_send_that_was_given_up_makes_a_later_close_return_at_once() -> None:
    """It polls once; generic code that has timed out must get out of a shielded aclose."""
    for room, sent in ((0, b""), (2, b"ab")):
        wire = Wire()
        writer = BufWriter(wire)
        await cut_short(partial(writer.send_all, b"abc"))
        wire.room = room
        with resource_warnings() as messages, trio.CancelScope(shield=True):
            await writer.aclose()

        assert wire.sent == sent
        assert messages == [
            f"{writer!r} was closed: {3 - room} bytes that it had accepted were never sent"
        ]
        assert wire.releases == ["release False"]


async def test_an_abandoned_stack_ends_properly_if_one_poll_is_enough() -> None:
    wire = Wire()
    writer = BufWriter(wire)
    await cut_short(partial(writer.send_all, b"abc"))
    wire.give(math.inf)
    await writer.aclose()

    assert wire.sent == b"abc"
    assert wire.log[-2:] == ["shutdown", "release True"]


async def test_a_send_eof_that_was_given_up_abandons_as_well() -> None:
    wire = Duplex()
    await cut_short(wire.send_eof)
    await wire.aclose()

    assert wire.releases == ["release True"]  # nothing was lost, and nobody waited


async def assert_closes_at_once(writer: AsyncWrite) -> None:
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, writer.aclose)
        assert closing.outcome == "returned None"


@pytest.mark.parametrize("is_dropped", [False, True])
@pytest.mark.parametrize(
    "make",
    [Layer, AsyncWrite.by_ref, BufWriter, lambda inner: TeeWriter(Sink(), inner)],
    ids=["Layer", "by_ref", "BufWriter", "TeeWriter"],
)
async def test_a_send_that_was_given_up_abandons_what_is_below(
    make: Callable[[AsyncWrite], AsyncWrite], *, is_dropped: bool
) -> None:
    """Whether or not the layer that was called is still there."""
    wire = Wire()
    below = BufWriter(wire)
    writer = make(below)
    await cut_short(partial(writer.send_all, b"abc"))
    if is_dropped:
        del writer
    with resource_warnings() as messages:
        await assert_closes_at_once(below)
    assert len(messages) == 1
    assert "3 bytes that it had accepted were never sent" in messages[0]


async def test_a_send_eof_that_was_given_up_abandons_what_is_below() -> None:
    wire = Wire()
    below = BufWriter(wire)
    await below.write(b"abc")
    await cut_short(ReadWritePair(simplex(1)[1], below).send_eof)
    with resource_warnings():
        await assert_closes_at_once(below)
    assert wire.releases == ["release False"]


@pytest.mark.parametrize("closes", [False, True])
async def test_a_flush_below_clears_what_was_abandoned_above(*, closes: bool) -> None:
    wire = Wire()
    below = BufWriter(wire)
    handle = below.by_ref()
    await cut_short(partial(handle.send_all, b"abc"))
    if closes:
        await trio.aclose_forcefully(handle)
    del handle
    wire.give(math.inf)
    await below.flush()
    wire.room = 0
    await below.write(b"more")
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, below.aclose)
        assert closing.outcome == "returned not finished"
        wire.give(math.inf)
    assert wire.sent == b"abcmore"


@pytest.mark.parametrize("name", ["flush", "shutdown"])
async def test_the_librarys_own_verbs_do_not_abandon(name: str) -> None:
    wire = Wire()
    writer = BufWriter(wire)
    await writer.write(b"abc")
    await cut_short(getattr(writer, name))
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, writer.aclose)
        assert closing.outcome == "returned not finished"
        wire.give(math.inf)

    assert closing.outcome == "returned None"
    assert wire.sent == b"abc"


@pytest.mark.parametrize("name", ["flush", "send_all", "shutdown"])
async def test_a_flush_that_returns_clears_it_here_and_below(name: str) -> None:
    wire = Wire()
    below = BufWriter(wire)
    writer = BufWriter(below)
    await cut_short(partial(writer.send_all, b"abc"))
    await cut_short(partial(below.send_all, b"def"))
    wire.give(math.inf)
    call = getattr(writer, name)
    await (call(b"!") if name == "send_all" else call())
    wire.room = 0
    if name == "shutdown":
        await writer.aclose()
        return
    below.poll_write(b"more")
    async with trio.open_nursery() as nursery:
        closing = await begin(nursery, writer.aclose)
        assert closing.outcome == "returned not finished"
        wire.give(math.inf)
    assert wire.sent.endswith(b"more")


async def test_an_abandoned_and_torn_stack_is_truncated() -> None:
    wire = Wire(room=1)
    await cut_short(partial(wire.send_all, b"abc"))
    wire.give(math.inf)
    with resource_warnings():
        await wire.aclose()

    assert wire.log[-2:] == ["flush", "release False"]


async def test_a_reader_sees_a_torn_duplex_as_broken() -> None:
    left, right = duplex(2)
    await cut_short(partial(left.send_all, b"abc"))
    with resource_warnings():
        await left.aclose()
    assert await right.receive_some() == b"ab"
    with pytest.raises(trio.BrokenResourceError):
        await right.receive_some()
    await right.aclose()


@each(CLAIMS)
async def test_a_torn_and_closed_layer_is_closed(operation: Operation) -> None:
    wire = Wire(room=1)
    await cut_short(partial(wire.write_all, b"abc"))
    with resource_warnings():
        assert (await run_cancelled(wire.aclose)).outcome == "cancelled"
        with pytest.raises(trio.ClosedResourceError):
            await operation(wire)
