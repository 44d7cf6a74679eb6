"""What a layer writes at its end is written whole, or nothing claims that it was."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncRead,
    AsyncWrite,
    BufWriter,
    CloseOutcome,
    CloseReport,
    Epilogue,
    NotReady,
    ReadWritePair,
    TlsStream,
    abort,
    close_gracefully,
    duplex,
    graceful,
    split,
)

from .._tls_helpers import HOST, client_context, server_context
from ._fakes import begin, resource_warnings, run_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Ended(AsyncWrite):
    """Ends with a trailer, which is none of its user's bytes."""

    def __init__(self, inner: AsyncWrite) -> None:
        self.inner = inner
        self.trailer = b"the end"

    def poll_shutdown(self) -> None:
        while self.trailer:
            self.trailer = self.trailer[self.inner.poll_write(self.trailer) :]
        self.inner.poll_shutdown()

    def __repr__(self) -> str:
        return "<Ended>"


class Both(Ended):
    """Over one stream to read from and another one to write to."""

    def __init__(self, reader: AsyncRead, inner: AsyncWrite) -> None:
        super().__init__(inner)
        self.layers_below = (reader, inner)
        self.writes_below = (inner,)


async def read(stream: trio.abc.Stream) -> str:
    """All that arrives, how it ends, and close."""
    received = bytearray()
    end = "."
    try:
        async for chunk in stream:
            received += chunk
    except trio.BrokenResourceError:
        end = " cut"
        await trio.aclose_forcefully(stream)
    await stream.aclose()
    return received.decode() + end


async def gracefully_read(stream: AsyncWrite, peer: trio.abc.Stream) -> tuple[CloseReport, str]:
    """End ``stream`` gracefully, whose peer reads to the end, and closes."""
    found: list[str] = []

    async def read_and_close() -> None:
        found.append(await read(peer))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_and_close)
        report = await close_gracefully(stream, timeout=5, linger=5)
    return report, found[0]


async def raise_in_the_block(layer: AsyncWrite) -> None:
    with contextlib.suppress(KeyError):
        async with layer:
            raise KeyError


# ---- Half of it --------------------------------------------------------------------------------


@pytest.mark.parametrize("closes", ["the layer", "the stream"])
@pytest.mark.parametrize("hurries", ["the layer", "the stream"])
async def test_a_close_that_is_hurried_in_the_middle_of_an_epilogue_shows_it(
    closes: str, hurries: str, autojump_clock: trio.testing.MockClock
) -> None:
    stream, peer = duplex(9)
    _reader, writer = split(stream)
    layer = Ended(writer)
    layers = {"the layer": layer, "the stream": stream}
    await layer.write_all(b"hello")
    reports: list[CloseReport] = []

    async def close() -> None:
        reports.append(await close_gracefully(layers[closes]))

    async with trio.open_nursery() as nursery:
        await begin(nursery, close)
        assert layer.trailer == b"end"
        await run_cancelled(layers[hurries].aclose)

    assert reports[0].outcome is CloseOutcome.BROKEN
    assert isinstance(reports[0].error, trio.ClosedResourceError)
    stays_open = not stream.closed
    assert stays_open is (closes == hurries == "the layer")
    report, received = await gracefully_read(stream, peer)
    assert received == "hellothe  cut"
    assert report.outcome is (CloseOutcome.TRUNCATED if stays_open else CloseOutcome.BROKEN)


async def test_an_epilogue_that_was_cut_short_is_warned_of_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream, peer = duplex(3)
    layer = Ended(BufWriter(stream, 1))
    with resource_warnings() as messages, trio.move_on_after(1) as scope:
        await layer.aclose()
    assert scope.cancelled_caught
    assert messages == ["<Ended> was closed: the epilogue of <Ended> is missing"]
    assert await read(peer) == "the cut"


async def test_an_epilogue_that_was_passed_on_is_not_cut_short(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What is below has it, stays open, and sends it."""
    stream, peer = duplex(3)
    below = BufWriter(stream, 100)
    layer = Ended(below.by_ref())
    with trio.move_on_after(1) as scope:
        await layer.aclose()
    assert scope.cancelled_caught
    assert below.held_bytes == len("the end") - 3
    report, received = await gracefully_read(below, peer)

    assert report.outcome is CloseOutcome.CLEAN
    assert received == "the end."


# ---- None of it --------------------------------------------------------------------------------


WAYS: dict[str, Any] = {
    "a cancelled aclose": trio.aclose_forcefully,
    "an exception": raise_in_the_block,
    "abort": abort,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("over", ["a half", "a handle"])
async def test_a_stream_that_stays_open_below_a_lost_epilogue_ends_truncated(
    way: Callable[[AsyncWrite], Awaitable[object]],
    over: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream, peer = duplex(100)
    reader, writer = split(stream)
    layer = Ended(writer if over == "a half" else stream.by_ref())
    await layer.send_all(b"hello")
    await way(layer)

    assert not stream.closed
    with pytest.raises(trio.BrokenResourceError, match="torn"):
        await stream.write(b"x")
    report, received = await gracefully_read(stream, peer)
    assert report.outcome is CloseOutcome.TRUNCATED
    assert received == "hello cut"
    assert reader.closed


@pytest.mark.parametrize("has_session", [True, False])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_a_stream_below_tls_without_close_notify_ends_truncated(
    way: Callable[[AsyncWrite], Awaitable[object]],
    autojump_clock: trio.testing.MockClock,
    *,
    has_session: bool,
) -> None:
    """Where there is no session, there is nothing to end."""
    stream, far = duplex(10_000)
    reader, writer = split(stream)
    client = TlsStream(
        ReadWritePair(reader, stream.by_ref()), client_context(), server_hostname=HOST
    )
    server = TlsStream(far, server_context(), server_side=True)
    if has_session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.do_handshake)
    await way(client)
    assert client.closed
    assert not writer.closed

    report, received = await gracefully_read(stream, server if has_session else far)
    assert report.outcome is (CloseOutcome.TRUNCATED if has_session else CloseOutcome.CLEAN)
    assert received == (" cut" if has_session else ".")


async def test_a_close_below_does_not_end_what_a_close_above_delivers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Though that one, of a handle, is not at its end yet."""

    class Unacknowledged(Ended):
        @property
        def unacknowledged_bytes(self) -> int:
            return 5 if trio.current_time() < 2 else 0

    stream, peer = duplex(100)
    reports: list[CloseReport] = []

    async def raise_in_graceful() -> None:
        with contextlib.suppress(KeyError):
            async with graceful(Unacknowledged(stream.by_ref()), linger=3) as ending:
                await ending.stream.send_all(b"hello")
                raise KeyError
        reports.append(ending.report)

    async with trio.open_nursery() as nursery:
        await begin(nursery, raise_in_graceful)
        report, received = await gracefully_read(stream, peer)

    assert report.outcome is CloseOutcome.TRUNCATED
    assert received == "hello cut"
    assert reports[0].outcome is CloseOutcome.TRUNCATED
    assert reports[0].elapsed >= 2


# ---- A layer below ends first ------------------------------------------------------------------


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("deep", [True, False])
async def test_a_shutdown_below_a_layer_loses_its_epilogue(
    autojump_clock: trio.testing.MockClock, *, by_hand: bool, deep: bool
) -> None:
    for ends_gracefully in (True, False):
        stream, peer = duplex(100)
        layer: AsyncWrite = Ended(BufWriter(stream) if deep else stream)
        await layer.send_all(b"hello")
        if by_hand:
            stream.poll_shutdown()
        else:
            await stream.shutdown()
        with pytest.raises(trio.ClosedResourceError):
            await layer.write(b"x")
        after = Ended(stream)  # one that was never open has nothing to lose
        if ends_gracefully:
            report, _ = await gracefully_read(stream, peer)
            assert report.outcome is CloseOutcome.TRUNCATED
            continue
        with resource_warnings() as messages:
            await layer.aclose()
        assert after.closed
        assert messages == [
            "<Ended> was closed: a layer below was shut down before its epilogue was written"
        ]


async def test_a_layer_that_was_never_open_has_no_epilogue(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream, peer = duplex(100)
    await stream.shutdown()
    report, received = await gracefully_read(Ended(stream), peer)
    assert report.outcome is CloseOutcome.CLEAN
    assert received == "."
    late = Ended(stream)
    await late.aclose()


async def test_nothing_is_shut_down_below_half_of_an_epilogue(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream, peer = duplex(3)
    layer = Ended(stream)
    with trio.move_on_after(1):
        await layer.shutdown()
    with pytest.raises(ValueError, match="the shutdown of <Ended> has begun: complete it first"):
        await stream.shutdown()
    report, received = await gracefully_read(stream, peer)

    assert report.outcome is CloseOutcome.CLEAN
    assert received == "the end."


async def test_layers_that_poll_each_other_lose_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The end of the stream comes by a shutdown of both."""
    stream, peer = duplex(100)
    layer = Ended(Ended(stream))
    await layer.shutdown()
    report, received = await gracefully_read(layer, peer)

    assert report.outcome is CloseOutcome.CLEAN
    assert received == "the endthe end."


@pytest.mark.parametrize("gracefully", [True, False])
async def test_the_epilogue_of_a_side_is_missed(
    autojump_clock: trio.testing.MockClock, *, gracefully: bool
) -> None:
    """Of a layer over two streams, of which one is closed; what it holds is sent, and told once."""
    reader, _ = duplex(100)
    stream, peer = duplex(3)
    both = Both(reader, BufWriter(stream))
    await both.write_all(b"hello")
    with resource_warnings() as messages:
        if gracefully:
            report, received = await gracefully_read(stream, peer)
            assert report.outcome is CloseOutcome.TRUNCATED
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.aclose)
                received = await read(peer)
        assert not both.closed
        await both.aclose()

    assert received == "hello cut"
    assert reader.closed
    assert len(messages) == (not gracefully)


async def test_an_epilogue_that_cannot_be_told_is_data(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Untold(Ended):
        @property
        def epilogue(self) -> Epilogue:
            raise ZeroDivisionError

    stream, peer = duplex(100)
    await trio.aclose_forcefully(Untold(stream.by_ref()))
    report, received = await gracefully_read(stream, peer)

    assert report.outcome is CloseOutcome.TRUNCATED
    assert received == " cut"


# ---- With a close that is not ours -------------------------------------------------------------


class OverAFile(AsyncWrite):
    """As a user writes it: what it is over says its end when it is closed, which takes a while."""

    epilogue = Epilogue.WITH_CLOSE

    def __init__(self) -> None:
        self.log: list[str] = []

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.log.append(bytes(data).decode())
        return len(data)

    def poll_close(self) -> None:
        if "closing" not in self.log:
            self.log.append("closing")
            raise NotReady(trio.lowlevel.checkpoint)
        self.log.append("closed")

    async def release(self, *, clean: bool) -> None:
        self.log.append(f"release {clean}")


@pytest.mark.parametrize("shut_down_before", [False, True])
async def test_a_clean_close_polls_the_close_last(*, shut_down_before: bool) -> None:
    file = OverAFile()
    writer = BufWriter(file)
    await writer.write(b"data")
    if shut_down_before:
        await writer.shutdown()
    await writer.aclose()

    assert file.log == ["data", "closing", "closed", "release True"]


async def test_a_cancelled_close_does_not_poll_it() -> None:
    file = OverAFile()
    await file.write(b"data")
    await trio.aclose_forcefully(file)

    assert file.log == ["data", "release True"]
