"""What writers and readers have in common."""

from __future__ import annotations

import gc
import math
import warnings
import weakref
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.abc
import trio.testing
from trio.testing import wait_all_tasks_blocked

from trio_asyncwrite import (
    AsyncWrite,
    BufWriter,
    Sink,
)

from ._fakes import Layer, Run, Wire, begin, each, resource_warnings, run_cancelled

if TYPE_CHECKING:
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
