"""Every writer of the library against the laws: a row a writer, a test or more a law.

The laws are properties of all writers and stacks. What a single writer does is in its own file.
"""

from __future__ import annotations

import copy
import gc
import os
import pickle
import struct
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncWrite,
    Buf,
    BufWriter,
    FilePart,
    NotReady,
    duplex,
    simplex,
)
from trio_asyncwrite._core._lifecycle import Torn
from trio_asyncwrite._core._stack import fail, writing_chain

from ._tls_helpers import open_tls
from ._writers import IN_MEMORY, LAYERS_ABOVE, ROWS, Borrower, Row, memory, over
from .core._fakes import (
    CLAIMS,
    TAKES,
    WRITES,
    WRONG,
    Layer,
    begin,
    cut_short,
    each,
    refuse_all,
    resource_warnings,
    run_cancelled,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


#: More than any of them holds, and more than the hostile ones pass on quickly.
LARGE = 1 << 20

#: Each kind in one of its settings.
LAW_ROWS = {
    **{
        name: row
        for name, row in ROWS.items()
        if not name.startswith(("BufWriter, 1,", "BufWriter, 4096, over TcpStream"))
        and name not in ("simplex, 1", "simplex, 4096", "wrap_stream, lockstep")
    },
    "TlsStream over duplex": Row(open_tls),
    "TlsStream under BufWriter": Row(over(open_tls, partial(BufWriter, capacity=4096))),
    "two layers over duplex": Row(
        over(memory(partial(duplex, 64)), lambda stream: Layer(BufWriter(stream, 7)))
    ),
    "four layers over simplex": Row(
        over(
            memory(partial(simplex, 64)),
            lambda stream: Layer(BufWriter(Layer(BufWriter(stream, 7)), 11)),
        )
    ),
}
#: Those that end when their transport does: a layer over two streams ends with both.
LINES = {name: row for name, row in LAW_ROWS.items() if not name.startswith("TeeWriter over")}
#: Those that wait when their peer does not read.
CLOGGING = {name: row for name, row in LAW_ROWS.items() if row.clogs}


def rows(table: dict[str, Row]) -> pytest.MarkDecorator:
    return each(table, "row")


@pytest.fixture
def clock(row: Row) -> trio.testing.MockClock | None:
    """In memory, a clock that finds a hang at once; else Trio's own."""
    if row.maker in IN_MEMORY:
        return trio.testing.MockClock(autojump_threshold=0)
    return None


pytestmark = pytest.mark.usefixtures("clock")


async def make(row: Row) -> tuple[Any, Any]:
    return await row.maker()


async def make_clogged(row: Row) -> tuple[Any, Any]:
    assert row.clogged_maker is not None
    return await row.clogged_maker()


async def close_all(*ends: Any) -> None:
    """Close both ends, whatever state they are in; what is lost by it is no matter."""
    with resource_warnings():
        for end in ends:
            if isinstance(end, trio.abc.AsyncResource):
                await trio.aclose_forcefully(end)


async def arrived(writer: AsyncWrite, other: Any, size: int) -> bytes | None:
    """Flush, and what the other end has got by then; None if it cannot tell."""
    received = bytearray()
    if isinstance(other, trio.abc.ReceiveStream):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.flush)
            while len(received) < size:
                received += await other.receive_some()
        return bytes(received)
    await writer.flush()
    return other() if callable(other) else None


def bottom_of(writer: AsyncWrite) -> Any:
    return writing_chain(writer)[-1]


# ---- Law 1: a poll that raises has accepted nothing ----------------------------------------------


@rows(CLOGGING)
async def test_a_poll_that_raises_has_accepted_nothing(row: Row) -> None:
    writer, other = await make_clogged(row)
    before = writer.unsent_bytes
    buf = Buf(b"abc", b"def")
    for write in (writer.poll_write, lambda data: writer.poll_write_vectored([b"", data])):
        for _ in range(2):
            with pytest.raises(NotReady):
                write(b"data")
    assert writer.unsent_bytes == before
    assert (await run_cancelled(partial(writer.write_all_buf, buf))).outcome == "cancelled"
    assert buf.remaining == 6
    assert writer.lifecycle.unfinished is None
    await close_all(writer, other)


# ---- Law 2: what an exception means --------------------------------------------------------------


@each(LAYERS_ABOVE, "layer")
@rows(LAW_ROWS)
async def test_a_wrong_argument_is_refused_before_any_poll(
    row: Row, layer: Callable[[Any], AsyncWrite]
) -> None:
    """It breaks nothing, and not a byte is accepted."""
    below, other = await make(row)
    writer = layer(below)
    for kind, names in TAKES.items():
        for name in names:
            for wrong in WRONG[kind]:
                with pytest.raises((TypeError, BufferError, struct.error)):
                    result = getattr(writer, name)(wrong)
                    if not name.startswith("poll"):
                        await result
    assert writer.unsent_bytes == 0
    chain = writing_chain(writer)
    assert [one.lifecycle.refusal for one in chain] == [None] * len(chain)
    await writer.write_all(b"abcd")
    assert await arrived(writer, other, 4) in (b"abcd", None)
    await close_all(below, other)


@rows(CLOGGING)
async def test_a_wrong_argument_is_refused_though_nothing_is_ready(row: Row) -> None:
    writer, other = await make_clogged(row)
    refuse_all(writer)
    await close_all(writer, other)


@rows(LINES)
async def test_a_failure_below_breaks_every_layer_above(row: Row) -> None:
    writer, other = await make(row)
    layers = [*writing_chain(writer), writer.by_ref(), BufWriter(writer, 5)]
    error = OSError("gone")
    with pytest.raises(trio.BrokenResourceError, match="gone"):
        fail(bottom_of(writer), error)
    for layer in layers:
        with pytest.raises(trio.BrokenResourceError, match="has failed before") as caught:
            await layer.write(b"x")
        assert caught.value.__cause__ is error
        with pytest.raises(trio.BrokenResourceError):
            await layer.flush()
    await bottom_of(writer).aclose()
    assert all(layer.closed for layer in layers)
    await close_all(*layers, other)


@rows(CLOGGING)
async def test_an_exception_out_of_a_wait_breaks_nothing(row: Row) -> None:
    writer, other = await make_clogged(row)
    upper = Layer(writer)

    async def failing_wait() -> None:
        raise ZeroDivisionError

    def poll_flush() -> None:
        raise NotReady(failing_wait)

    upper.poll_flush = poll_flush  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        await upper.flush()
    assert upper.lifecycle.refusal is None
    assert writer.lifecycle.refusal is None
    await close_all(upper, other)


# ---- Law 3: a message that was begun and not finished --------------------------------------------


async def is_cut_short(operation: Callable[[], Any]) -> bool:
    """Cancel an operation where it waits; False if it does not, since all was accepted at once."""
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, operation)
        run.scope.cancel()
    return run.outcome == "cancelled"


@rows(CLOGGING)
async def test_a_torn_stream_refuses_and_ends_truncated_at_once(row: Row) -> None:
    writer, other = await make(row)
    was_cut = await is_cut_short(partial(writer.write_all, bytes(LARGE)))
    if writer.keeps_messages or not was_cut:
        assert writer.lifecycle.torn is None
        assert writer.unsent_bytes
        await close_all(writer, other)
        return
    assert writer.lifecycle.torn is Torn.HERE
    refused = {name: call for name, call in CLAIMS.items() if name != "flush"}
    for operation in refused.values():
        with pytest.raises(trio.BrokenResourceError, match="torn"):
            await operation(writer)
    for poll in (writer.poll_write, BufWriter(writer).poll_write):
        with pytest.raises(trio.BrokenResourceError, match="torn"):
            poll(b"x")
    with resource_warnings() as messages, trio.fail_after(5):
        await writer.aclose()
    # The closes of a handle and of its original are two.
    assert len(messages) == 1 + isinstance(writer, Borrower)
    for layer in writing_chain(writer):
        assert layer.lifecycle.released
    await close_all(other)


@rows(CLOGGING)
async def test_a_buf_that_was_begun_stands_in_the_way_of_other_writes_only(row: Row) -> None:
    writer, other = await make(row)
    buf = Buf(bytes(LARGE))
    was_cut = await is_cut_short(partial(writer.write_all_buf, buf))
    if writer.keeps_messages or not was_cut:
        assert buf.remaining == 0
    else:
        assert 0 < buf.remaining < LARGE
        for operation in WRITES.values():
            with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
                await operation(writer)
        left = buf.remaining
        await cut_short(partial(writer.write_all_buf, buf))
        assert buf.remaining == left
        with resource_warnings() as messages, trio.fail_after(5):
            await writer.aclose()
        assert len(messages) >= 1
    await close_all(writer, other)


@rows(CLOGGING)
async def test_a_file_that_was_begun_stands_in_the_way_of_other_writes_only(
    row: Row, tmp_path: Path
) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, LARGE)
    writer, other = await make(row)
    with path.open("rb") as file:
        part = FilePart(file)
        was_cut = await is_cut_short(partial(writer.write_all_file, part))
        if writer.keeps_messages or not was_cut:
            assert part.offset == LARGE
            assert not part
        else:
            assert 0 < part.offset < LARGE
            for operation in WRITES.values():
                with pytest.raises(trio.BrokenResourceError, match="finish the FilePart first"):
                    await operation(writer)
            left = part.remaining
            await cut_short(partial(writer.write_all_file, part))
            assert part.remaining == left
            with resource_warnings() as messages, trio.fail_after(5):
                await writer.aclose()
            assert len(messages) >= 1
        await close_all(writer, other)


# ---- Law 4: closing is seen by the whole stack ---------------------------------------------------


@rows(LINES)
async def test_every_layer_says_closed_before_it_says_busy(row: Row) -> None:
    """From the first moment of a close, and not only when the task inside has left."""
    writer, other = await make(row)
    below = Layer(writer)
    upper = Layer(below)
    outcomes: list[str] = []

    async def look() -> None:
        for layer in (upper, below, writer, *writing_chain(writer)):
            assert layer.closed
            for operation in CLAIMS.values():
                run = await run_to_its_end(partial(operation, layer))
                outcomes.append(run)

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await look()

    def poll_write(data: object) -> int:
        raise NotReady(wait)

    upper.poll_write = poll_write  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        inside = await begin(nursery, partial(upper.write, b"x"))
        run = await run_to_its_end(partial(upper.write, b"x"))
        assert run == "BusyResourceError"
        with resource_warnings():
            await run_cancelled(bottom_of(writer).aclose)
    assert inside.outcome == "ClosedResourceError"
    assert set(outcomes) == {"ClosedResourceError"}
    await close_all(other)


READERS = {name: row for name, row in LAW_ROWS.items() if row.symmetric or "Tls" in name}


@rows({name: row for name, row in READERS.items() if "under" not in name})
async def test_a_reader_says_closed_before_it_says_busy(row: Row) -> None:
    stream, other = await make(row)
    outcomes: list[str] = []

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                outcomes.append(await run_to_its_end(stream.receive_some))

    def poll_read(size: int) -> bytes:
        raise NotReady(wait)

    stream.poll_read = poll_read
    async with trio.open_nursery() as nursery:
        inside = await begin(nursery, stream.receive_some)
        assert await run_to_its_end(stream.receive_some) == "BusyResourceError"
        await run_cancelled(stream.aclose)
    assert inside.outcome == "ClosedResourceError"
    assert outcomes == ["ClosedResourceError"]
    await close_all(other)


async def run_to_its_end(operation: Callable[[], Any]) -> str:
    try:
        await operation()
    except Exception as exc:  # noqa: BLE001 - the test compares it
        return type(exc).__name__
    return "returned"


@rows(CLOGGING)
async def test_a_task_that_waits_above_is_evicted(row: Row) -> None:
    writer, other = await make_clogged(row)
    upper = Layer(writer)
    async with trio.open_nursery() as nursery:
        waiting = await begin(nursery, partial(upper.write, b"x"))
        with resource_warnings():
            await run_cancelled(bottom_of(writer).aclose)
    assert waiting.outcome == "ClosedResourceError"
    await close_all(upper, other)


@rows(LINES)
async def test_all_above_is_closed_with_a_layer_below(row: Row) -> None:
    writer, other = await make(row)
    uppers = [Layer(writer), BufWriter(writer, 9), writer.by_ref()]
    uppers.append(Layer(uppers[1]))
    chain = writing_chain(writer)
    await bottom_of(writer).aclose()
    for layer in (*uppers, *chain):
        assert layer.closed
        assert layer.lifecycle.released
        for operation in CLAIMS.values():
            with pytest.raises(trio.ClosedResourceError):
                await operation(layer)
    await close_all(other)


@rows(LAW_ROWS)
async def test_a_second_aclose_returns_at_once_and_releases_nothing(row: Row) -> None:
    writer, other = await make(row)
    await writer.aclose()
    releases: list[bool] = []

    async def release(*, clean: bool) -> None:
        releases.append(clean)

    for layer in writing_chain(writer):
        layer.release = release  # type: ignore[method-assign]
        with trio.testing.assert_checkpoints(), trio.CancelScope() as scope:
            await layer.aclose()
        assert not scope.cancelled_caught
    assert releases == []
    assert not writer.unsent_bytes
    await close_all(other)


# ---- Laws 5 and 6: evidence, and no silent loss --------------------------------------------------


@rows(CLOGGING)
async def test_a_cancelled_aclose_releases_everything_and_tells_what_is_lost(row: Row) -> None:
    writer, other = await make_clogged(row)
    held = sum(layer.held_bytes for layer in writing_chain(writer))
    assert writer.unsent_bytes == held
    ended: list[object] = []
    writer.poll_shutdown = partial(ended.append, writer)
    with resource_warnings() as messages:
        run = await run_cancelled(writer.aclose)
    assert run.outcome == "cancelled"
    assert ended == []
    assert all(layer.lifecycle.released for layer in writing_chain(writer))
    lost = writer.unsent_bytes
    assert lost <= held
    assert len(messages) == bool(lost)
    if lost:
        assert str(lost) in messages[0]
    await close_all(other)


@rows(LAW_ROWS)
async def test_what_is_accepted_is_either_held_or_out_of_the_stack(row: Row) -> None:
    """And what is held is counted, layer by layer."""
    writer, other = await make(row)
    accepted = 0
    while accepted < 4:
        try:
            accepted += writer.poll_write(b"abcd"[accepted:])
        except NotReady:
            await writer.flush()
    held = [layer.held_bytes for layer in writing_chain(writer)]
    assert all(type(count) is int and count >= 0 for count in held)
    assert writer.unsent_bytes == sum(held)
    received = await arrived(writer, other, 4)
    if received is not None:
        assert received == b"abcd"
        assert writer.unsent_bytes == 0
        assert writer.lifecycle.holding == writer.lifecycle.owes_epilogue
    await close_all(writer, other)


# ---- Law 7: release is guaranteed ----------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@rows(LAW_ROWS)
async def test_whatever_an_end_raises_all_is_released(row: Row, error: type[BaseException]) -> None:
    writer, other = await make(row)
    chain = writing_chain(writer)

    def poll_shutdown() -> None:
        raise error

    writer.poll_shutdown = poll_shutdown
    with resource_warnings(), pytest.raises(error):
        await writer.aclose()
    assert all(layer.lifecycle.released for layer in chain if layer.closed)
    assert writer.closed
    await writer.aclose()
    await close_all(*chain, other)


# ---- Laws 8 to 11: the world around --------------------------------------------------------------


@pytest.mark.parametrize("when", ["open", "closed"])
@rows(LAW_ROWS)
async def test_no_answer_raises(row: Row, when: str) -> None:
    writer, other = await make(row)
    if when == "closed":
        await writer.aclose()
    for layer in writing_chain(writer):
        for name in (
            "close_notify_received",
            "descriptor",
            "discarded_bytes",
            "encodes",
            "epilogue",
            "half_closes",
            "held_bytes",
            "keeps_messages",
            "peer_ended",
            "shows_truncation",
            "spare_capacity",
            "unacknowledged_bytes",
            "unsent_bytes",
            "was_reset",
        ):
            getattr(layer, name)
        assert layer.descriptor is None or layer.descriptor >= 0
        assert repr(layer)
    await close_all(writer, other)


@rows(CLOGGING)
async def test_in_a_reference_cycle_it_warns_at_most_and_never_fails(row: Row) -> None:
    writer, other = await make_clogged(row)
    lost = sum(bool(layer.held_bytes) for layer in writing_chain(writer))
    writer.itself = writer
    unraisable: list[Any] = []
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.setattr("sys.unraisablehook", unraisable.append)
        del writer
        gc.collect()
    assert unraisable == []
    told = [one for one in caught if "that it had accepted" in str(one.message)]
    assert len(told) == lost
    await close_all(other)


@rows(LAW_ROWS)
async def test_it_cannot_be_copied(row: Row) -> None:
    writer, other = await make(row)
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            duplicate(writer)
    await close_all(writer, other)


@rows(CLOGGING)
def test_nothing_of_one_run_is_waited_for_in_another(row: Row) -> None:
    async def first() -> tuple[Any, Any]:
        writer, other = await make_clogged(row)
        await cut_short(partial(writer.write, b"x"))
        return writer, other

    async def second() -> None:
        with trio.move_on_after(5) as scope:
            await run_cancelled(writer.aclose)
        assert not scope.cancelled_caught
        assert writer.lifecycle.released
        await close_all(other)

    writer, other = trio.run(first)
    with resource_warnings():
        trio.run(second)


# ---- Ready, and room -----------------------------------------------------------------------------


@rows(CLOGGING)
async def test_room_and_readiness_agree_with_what_a_write_does(row: Row) -> None:
    writer, other = await make(row)
    for _ in range(20):
        room = writer.spare_capacity
        if room < 2:
            break
        size = min(room - 1, 1000)
        assert writer.poll_write(bytes(size)) == size
    await close_all(writer, other)
    writer, other = await make_clogged(row)
    for _ in range(2):
        with pytest.raises(NotReady):
            writer.poll_write(b"x")
    assert writer.spare_capacity <= 1
    await close_all(writer, other)
