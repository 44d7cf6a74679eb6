"""What layers leave behind: nothing, and at once, without the garbage collector."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from trio_asyncwrite import (
    BufWriter,
    InspectWriter,
    LineWriter,
    MeteredWriter,
    ReadWritePair,
    SharedWriter,
    Sink,
    TeeWriter,
    ThrottledWriter,
    TimeoutWriter,
    TokenBucket,
    duplex,
    split,
)
from trio_asyncwrite._core._stack import above
from trio_asyncwrite.testing import (
    BrokenAfterWriter,
    NeverReadyTwiceWriter,
    OneByteWriter,
    ReadyAfterFlushWriter,
)

from ..core._fakes import each

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from trio_asyncwrite import DuplexStream

    Make = Callable[[DuplexStream], Any]

BUCKET = TokenBucket(1e12)

WRAPPERS: dict[str, Make] = {
    "BufWriter": BufWriter,
    "BufWriter over BufWriter": lambda stream: BufWriter(BufWriter(stream), 7),
    "ReadWritePair": lambda stream: ReadWritePair(stream, stream),
    "ReadWritePair over BufWriter": lambda stream: ReadWritePair(stream, BufWriter(stream)),
    "SharedWriter": SharedWriter,
    "TimeoutWriter": lambda stream: TimeoutWriter(stream, idle=60),
    "LineWriter": LineWriter,
    "MeteredWriter": MeteredWriter,
    "InspectWriter": lambda stream: InspectWriter(stream, bytes),
    "ThrottledWriter": lambda stream: ThrottledWriter(stream, BUCKET),
    "TeeWriter": lambda stream: TeeWriter(stream, Sink()),
    "TeeWriter, detaching": lambda stream: TeeWriter(stream, Sink(), on_failure="detach"),
    "WriteHalf": lambda stream: split(stream)[1],
    "by_ref": lambda stream: stream.by_ref(),
    "OneByteWriter": OneByteWriter,
    "NeverReadyTwiceWriter": NeverReadyTwiceWriter,
    "ReadyAfterFlushWriter": ReadyAfterFlushWriter,
    "BrokenAfterWriter": lambda stream: BrokenAfterWriter(stream, 100),
}


@pytest.fixture
def no_collector() -> Generator[None, None, None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@each(WRAPPERS, "make")
async def test_a_wrapper_that_is_dropped_is_freed_at_once(make: Make) -> None:
    """Unused, and after it has held bytes; one that holds some only when they have gone."""
    stream, _ = duplex(1000)
    for sends in (False, True):
        writer = make(stream)
        gone = weakref.ref(writer)
        if sends:
            await writer.send_all(b"data")
        del writer
        assert gone() is None
    assert above(stream) == []
    assert len(stream.lifecycle.above) < 4  # those of the last ones, until the next comes


@pytest.mark.outer
@pytest.mark.usefixtures("no_collector")
@each(WRAPPERS, "make")
async def test_a_thousand_short_lived_layers_over_one_stream_leave_nothing(make: Make) -> None:
    stream, _ = duplex(2000)
    for _ in range(1000):
        await make(stream).send_all(b"x")

    lifecycle = stream.lifecycle
    assert above(stream) == []
    assert len(lifecycle.above) < 4  # those of the last ones, until the next comes
    assert (lifecycle.holders, lifecycle.holding) == ((), 0)
    assert not lifecycle.waits
    assert not lifecycle.calls


@pytest.mark.usefixtures("no_collector")
@each(WRAPPERS, "make")
async def test_a_closed_stack_is_freed_at_once(make: Make) -> None:
    stream, _ = duplex(1000)
    writer = make(stream)
    gone = weakref.ref(writer), weakref.ref(stream)
    await writer.write_all(b"data")
    await stream.aclose()
    del writer, stream
    assert [reference() for reference in gone] == [None, None]
