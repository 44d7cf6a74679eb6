"""What each hostile writer does. That they keep the contract is tests/test_every_writer.py's."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import AsyncWrite, BufWriter, Cursor, NotReady, Sink, simplex
from trio_asyncwrite.testing import (
    BrokenAfterWriter,
    NeverReadyTwiceWriter,
    OneByteWriter,
    ReadyAfterFlushWriter,
    ScriptedWriter,
)

from .._streams import drain_while

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

ZOO: dict[str, Callable[[Any], AsyncWrite]] = {
    "OneByteWriter": OneByteWriter,
    "NeverReadyTwiceWriter": NeverReadyTwiceWriter,
    "ReadyAfterFlushWriter": ReadyAfterFlushWriter,
    "BrokenAfterWriter": partial(BrokenAfterWriter, limit=1 << 20),
    "three of them": lambda inner: BrokenAfterWriter(
        NeverReadyTwiceWriter(ReadyAfterFlushWriter(inner)), 1 << 20
    ),
}


@pytest.fixture(params=ZOO.values(), ids=ZOO)
def make(request: pytest.FixtureRequest) -> Callable[[Any], AsyncWrite]:
    """Every class of the zoo, as a callable that takes only the writer below."""
    return request.param  # type: ignore[no-any-return]


async def test_they_take_any_stream(make: Callable[[Any], AsyncWrite]) -> None:
    left, right = trio.testing.memory_stream_one_way_pair()

    assert await drain_while(right, partial(send, make(left), b"hello")) == b"hello"


async def send(writer: AsyncWrite, data: bytes) -> None:
    async with writer:
        await writer.send_all(data)


async def test_a_failure_below_is_theirs(make: Callable[[Any], AsyncWrite]) -> None:
    writer = make(ScriptedWriter().fail(ValueError("a bug below")))

    with pytest.raises(ValueError, match="a bug below"):
        await writer.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await writer.write(b"x")
    await writer.aclose()


def test_they_name_themselves(make: Callable[[Any], AsyncWrite]) -> None:
    writer = make(Sink())

    assert repr(writer).startswith(f"<{type(writer).__name__} over <")


async def test_one_byte_writer_takes_one_byte_of_each_write() -> None:
    writer = OneByteWriter(Cursor())

    assert [writer.poll_write(b"abc"), writer.poll_write(b"")] == [1, 0]
    assert await writer.write_vectored([b"", b"bc", b"d"]) == 1
    await writer.write_all(b"cdefghijklmnopqrstuvwxyz")
    assert writer.inner.getvalue() == b"abcdefghijklmnopqrstuvwxyz"


async def test_never_ready_twice_writer_pends_before_everything_it_does() -> None:
    writer = NeverReadyTwiceWriter(Cursor())
    calls = [
        partial(writer.poll_write, b"a"),
        partial(writer.poll_write, b"b"),
        writer.poll_flush,
        partial(writer.poll_write, b"c"),
        writer.poll_flush,
        writer.poll_shutdown,
    ]

    for call in calls:
        with pytest.raises(NotReady) as not_ready:
            call()
        await not_ready.value.wait()
        call()
    assert writer.inner.getvalue() == b"abc"


def test_never_ready_twice_writer_flushes_at_once_what_was_flushed_before() -> None:
    """Who flushes and then shuts down in one poll comes to an end, too."""
    writer = NeverReadyTwiceWriter(Sink())

    with pytest.raises(NotReady):
        writer.poll_flush()
    writer.poll_flush()
    writer.poll_flush()


async def test_ready_after_flush_writer_hands_on_only_what_is_flushed() -> None:
    writer = ReadyAfterFlushWriter(Cursor())

    assert writer.poll_write(b"one") == 3
    assert writer.unsent_bytes == 3
    with pytest.raises(NotReady):
        writer.poll_write(b"two")
    assert writer.inner.getvalue() == b""
    writer.poll_flush()
    assert writer.inner.getvalue() == b"one"
    assert writer.unsent_bytes == 0
    assert writer.poll_write(b"two") == 3
    writer.poll_flush()
    assert writer.inner.getvalue() == b"onetwo"


async def test_ready_after_flush_writer_comes_on_without_a_flush() -> None:
    writer = ReadyAfterFlushWriter(Cursor())

    await writer.write_all(b"one")
    await writer.write_all(b"two")

    assert writer.inner.getvalue() == b"one"
    await writer.flush()
    assert writer.inner.getvalue() == b"onetwo"


async def test_ready_after_flush_writer_flushes_in_its_wait_over_a_slow_one() -> None:
    writer = ReadyAfterFlushWriter(ScriptedWriter().accept(1).not_ready().expect(b"ne").accept())

    await writer.write_all(b"one")
    await writer.send_all(b"two")

    assert writer.inner.received == b"onetwo"


async def test_who_answers_before_flushing_hangs_over_ready_after_flush(
    autojump_clock: MockClock,
) -> None:
    """What the writer is for: a missing flush is found out."""
    inner, reader = simplex(100)
    writer = ReadyAfterFlushWriter(BufWriter(inner))

    await writer.write_all(b"question")
    with trio.move_on_after(1) as scope:
        await reader.receive_some()

    assert scope.cancelled_caught
    await writer.flush()
    assert await reader.receive_some() == b"question"


async def test_broken_after_writer_breaks_at_the_byte_after_its_limit() -> None:
    writer = BrokenAfterWriter(Cursor(), 5)

    assert writer.poll_write(b"abc") == 3
    assert writer.poll_write(b"defg") == 2
    assert writer.poll_write(b"") == 0
    await writer.flush()
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            writer.poll_write(b"f")
    with pytest.raises(trio.BrokenResourceError):
        await writer.flush()
    assert writer.inner.getvalue() == b"abcde"
    await writer.aclose()


@pytest.mark.parametrize(("limit", "error"), [(-1, ValueError), ("5", TypeError)])
def test_broken_after_writer_refuses_a_senseless_limit(limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        BrokenAfterWriter(Sink(), limit)


@pytest.mark.parametrize("poll", ["poll_write", "poll_write_vectored"])
def test_raw_polls_check_what_they_get(make: Callable[[Any], AsyncWrite], poll: str) -> None:
    writer = make(Sink())

    with pytest.raises(TypeError):
        getattr(writer, poll)("text" if poll == "poll_write" else ["text"])


def test_a_shutdown_that_is_polled_again_is_ready() -> None:
    writer = NeverReadyTwiceWriter(Cursor())
    with pytest.raises(NotReady):
        writer.poll_shutdown()
    writer.poll_shutdown()
    writer.poll_shutdown()


def test_ready_after_flush_writer_is_ready_after_an_empty_write() -> None:
    writer = ReadyAfterFlushWriter(Cursor())

    assert [writer.poll_write(b""), writer.poll_write(b"abc")] == [0, 3]
    assert writer.held_bytes == 3
    writer.poll_flush()
