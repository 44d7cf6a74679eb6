from __future__ import annotations

import hashlib
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    Buf,
    BufWriter,
    CloseOutcome,
    Cursor,
    FilePart,
    InspectWriter,
    NotReady,
    SharedWriter,
    Sink,
    close_gracefully,
    duplex,
)
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._streams import connected, drain, pipe_pair
from ..core._fakes import (
    CLAIMS,
    Script,
    Wire,
    begin,
    cut_short,
    each,
    resource_warnings,
    run_cancelled,
)
from ._buffered import Inner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Witness:
    """A function that remembers what it was shown, and raises when it is told to."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.errors = list(errors)
        self.seen: list[bytes] = []

    def __call__(self, view: memoryview) -> None:
        assert view.readonly
        assert view.format == "B"
        self.seen.append(bytes(view))
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error

    @property
    def all(self) -> bytes:
        return b"".join(self.seen)


async def test_it_shows_what_was_accepted_and_nothing_else() -> None:
    witness = Witness()
    wire = Wire(4)
    writer = InspectWriter(wire, witness)
    assert await writer.write(b"abc") == 3
    assert await writer.write(bytearray(b"def")) == 1
    with pytest.raises(NotReady):
        writer.poll_write(b"ef")
    assert witness.seen == [b"abc", b"d"]
    await cut_short(partial(writer.write_all, b"ef"))
    assert witness.all == wire.sent == b"abcd"
    assert repr(writer) == "<InspectWriter over <Wire>>"


async def test_nothing_is_shown_of_nothing() -> None:
    witness = Witness()
    writer = InspectWriter(Sink(), witness)
    await writer.write_all(b"")
    await writer.write_all_vectored([b"", b""])
    await writer.flush()
    await writer.aclose()
    assert witness.seen == []


async def test_gathered_writes_stay_gathered() -> None:
    witness = Witness()
    inner = Inner(most=6)
    writer = InspectWriter(inner, witness)
    assert await writer.write_vectored([b"head", b"body"]) == 6
    assert inner.offers == [[b"head", b"body"]]
    assert witness.seen == [b"head", b"bo"]


async def test_a_file_is_read_for_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)
    digest = hashlib.sha256()
    async with connected(pipe_pair) as (pipe, other):
        writer = InspectWriter(pipe, digest.update)
        with path.open("rb") as file:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def write() -> None:
                    await writer.write_all_file(FilePart(file))
                    await writer.aclose()

                assert await drain(other) == path.read_bytes()
    assert digest.digest() == hashlib.sha256(path.read_bytes()).digest()


async def test_cancelled_anywhere_every_accepted_byte_is_shown_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    payload = bytes(range(200))

    async def scenario(sweep: Sweep) -> None:
        left, right = duplex(7)
        witness = Witness()
        writer = InspectWriter(left, witness)
        received = bytearray()

        async def read() -> None:
            while chunk := await right.receive_some(20):
                received.extend(chunk)

        buf = Buf(payload[:20], payload[20:])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with sweep:
                await writer.write_all_buf(buf)
            assert witness.all == payload[: len(payload) - buf.remaining]
            await writer.write_all_buf(buf)
            await writer.aclose()
        await right.aclose()
        assert witness.all == received == payload

    assert await cancel_everywhere(scenario) > 8


# ---- The function fails --------------------------------------------------------------------------


@each(CLAIMS)
async def test_what_the_function_raises_is_raised_by_the_next_operation(operation: Any) -> None:
    """Law 1: the bytes were accepted, so the call that wrote them says so."""
    error = ZeroDivisionError("bug")
    witness = Witness(error)
    cursor = Cursor()
    writer = InspectWriter(cursor, witness)
    assert await writer.write(b"abc") == 3
    assert writer.lifecycle.refusal is None
    with pytest.raises(ZeroDivisionError) as caught:
        await operation(writer)
    assert caught.value is error
    assert (witness.seen, cursor.getvalue()) == ([b"abc"], b"abc")
    for again in CLAIMS.values():
        with pytest.raises(trio.BrokenResourceError, match="has failed before") as later:
            await again(writer)
        assert later.value.__cause__ is error
    with resource_warnings():
        await writer.aclose()


async def test_a_cursor_is_exact_although_the_function_fails() -> None:
    buf = Buf(b"abc", b"def")
    writer = InspectWriter(Wire(4), Witness(None, OSError("full")))
    with pytest.raises(trio.BrokenResourceError, match="full") as caught:
        await writer.write_all_buf(buf)
    assert isinstance(caught.value.__cause__, OSError)
    assert buf.remaining == 2


async def test_after_a_failure_the_function_is_not_called_again() -> None:
    witness = Witness(ZeroDivisionError())
    writer = InspectWriter(Inner(), witness)
    assert await writer.write_vectored([b"abc", b"def"]) == 6
    with pytest.raises(ZeroDivisionError):
        await writer.flush()
    assert witness.seen == [b"abc"]


async def test_send_all_raises_it_in_its_flush() -> None:
    writer = InspectWriter(Cursor(), Witness(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        await writer.send_all(b"abc")
    assert writer.inner.getvalue() == b"abc"


@pytest.mark.parametrize("layers", [BufWriter, SharedWriter, lambda writer: writer.by_ref()])
async def test_layers_above_are_told(layers: Callable[[Any], Any]) -> None:
    error = ZeroDivisionError()
    upper = layers(InspectWriter(Cursor(), Witness(error)))
    await upper.write_all(bytes(70_000))
    with pytest.raises((ZeroDivisionError, trio.BrokenResourceError)) as caught:
        await upper.flush()
    assert error in (caught.value, caught.value.__cause__)
    with pytest.raises(trio.BrokenResourceError, match="has failed before"):
        await upper.write_all(b"x")


async def test_a_close_raises_it_and_the_end_is_truncated() -> None:
    left, right = duplex(100)
    writer = InspectWriter(left, Witness(ZeroDivisionError()))
    await writer.write_all(b"abc")
    with pytest.raises(ZeroDivisionError):
        await writer.aclose()
    assert left.closed
    assert await right.receive_some() == b"abc"
    with pytest.raises(trio.BrokenResourceError):
        await right.receive_some()


async def test_a_report_tells_it(autojump_clock: trio.testing.MockClock) -> None:
    left, right = duplex(100)
    error = ZeroDivisionError("bug")
    writer = InspectWriter(left, Witness(error))
    await writer.write_all(b"abc")
    report = await close_gracefully(writer, timeout=1, linger=1)
    assert report.outcome is CloseOutcome.BROKEN
    assert "bug" in str(report.error)
    await right.aclose()


async def test_a_cut_off_close_raises_no_more_than_cancelled() -> None:
    left, right = duplex(100)
    writer = InspectWriter(left, Witness(ZeroDivisionError()))
    await writer.write_all(b"abc")
    with resource_warnings():
        assert (await run_cancelled(writer.aclose)).outcome == "cancelled"
    assert left.closed
    await right.aclose()


async def test_an_interrupt_in_the_function_loses_no_count() -> None:
    writer = InspectWriter(Cursor(), Witness(KeyboardInterrupt()))
    assert await writer.write(b"abc") == 3
    with pytest.raises(KeyboardInterrupt):
        await writer.flush()
    with resource_warnings():
        await writer.aclose()


async def test_one_that_is_closed_says_so_and_no_more() -> None:
    """A question whether it is ready, too, comes after that."""
    writer = InspectWriter(duplex(10)[0], Witness())
    await writer.wait_send_all_might_not_block()
    await writer.aclose()
    with pytest.raises(trio.ClosedResourceError):
        writer.poll_ready()


async def test_a_second_writer_s_not_ready_is_a_failure_and_no_wait() -> None:
    """Taken for our own, it would be polled for ever."""
    writer = InspectWriter(Cursor(), Wire(0).poll_write)
    await writer.write_all(b"abc")
    with pytest.raises(trio.BrokenResourceError, match="its function raised NotReady"):
        await writer.flush()
    with pytest.raises(trio.BrokenResourceError, match="has failed before"):
        await writer.flush()


async def test_a_second_writer_s_refusal_breaks_this_one() -> None:
    other = Cursor()
    await other.aclose()
    writer = InspectWriter(Cursor(), other.poll_write)
    await writer.write_all(b"abc")
    with pytest.raises(trio.BrokenResourceError, match="its function raised"):
        await writer.write_all(b"def")
    with pytest.raises(trio.BrokenResourceError, match="has failed before"):
        await writer.write_all(b"def")


def test_polls_by_hand_find_it_once_and_then_broken() -> None:
    writer = InspectWriter(Cursor(), Witness(ZeroDivisionError()))
    assert writer.poll_write_vectored([b"abc"]) == 3
    with pytest.raises(ZeroDivisionError):
        writer.poll_ready()
    for poll in (writer.poll_ready, writer.poll_flush, writer.poll_shutdown):
        with pytest.raises(trio.BrokenResourceError):
            poll()


async def test_the_view_is_valid_during_the_call_only() -> None:
    kept: list[memoryview] = []
    writer = InspectWriter(Cursor(), kept.append)
    data = bytearray(b"abc")
    await writer.write_all(data)
    data += b"resized"  # a view would refuse it
    with pytest.raises(ValueError, match="released"):
        bytes(kept[0])


async def test_a_function_that_keeps_an_export_has_failed() -> None:
    kept: list[Any] = []
    writer = InspectWriter(Cursor(), lambda view: kept.append(pickle_buffer(view)))
    assert await writer.write(b"abc") == 3
    with pytest.raises(BufferError):
        await writer.flush()


def pickle_buffer(view: memoryview) -> Any:
    """Something that holds a buffer, as arrays of other libraries do."""
    return pickle.PickleBuffer(view)


async def test_wrong_answers_below_are_refused_and_not_shown() -> None:
    witness = Witness()
    for wrong in (None, 100, -1):
        writer = InspectWriter(Script(wrong, wrong), witness)
        with pytest.raises((TypeError, RuntimeError), match="Script"):
            await writer.write(b"abc")
    assert witness.seen == []


async def test_a_failure_below_shows_nothing() -> None:
    witness = Witness()
    wire = Wire(10)
    wire.error = OSError("gone")
    writer = InspectWriter(wire, witness)
    with pytest.raises(trio.BrokenResourceError):
        await writer.write_all_vectored([b"abc", b"def"])
    assert witness.seen == []


async def test_it_is_evicted_by_a_close() -> None:
    wire = Wire(0)
    writer = InspectWriter(wire, Witness())
    async with trio.open_nursery() as nursery:
        waiting = await begin(nursery, partial(writer.write, b"abc"))
        await run_cancelled(wire.aclose)
    assert waiting.outcome == "ClosedResourceError"


async def an_async_function(view: memoryview) -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (None, "function must be callable, got NoneType"),
        (an_async_function, "function must be a plain function, got an async one"),
        (partial(an_async_function), "function must be a plain function, got an async one"),
    ],
)
def test_what_is_no_function_is_refused(function: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        InspectWriter(Sink(), function)
