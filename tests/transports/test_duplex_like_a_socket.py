"""A stream in memory ends as a Unix socket does: also if its peer has not read everything."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio

from trio_asyncwrite import (
    BufWriter,
    CloseOutcome,
    DuplexStream,
    close_gracefully,
    duplex,
    simplex,
    split,
)

from .._patience import wait_all_tasks_blocked
from .._streams import clog, unix_pair
from ..core._fakes import resource_warnings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from trio.testing import MockClock

    Pair = tuple[Any, Any]

SENT, ANSWER = b"abc", b"hello"


async def memory_pair() -> tuple[DuplexStream, DuplexStream]:
    return duplex(1 << 20)


class Case(NamedTuple):
    """What happens before the peer closes, and when it does."""

    sent: bytes
    answer: bytes
    #: How many bytes of ``sent`` the peer reads.
    read: int
    we_half_close: bool
    peer_half_closes: bool
    #: Whether the peer closes before our call, or as soon as that waits.
    closes_before: bool

    def __str__(self) -> str:
        words = [f"{self.read} of {len(self.sent)} read"]
        words += ["answered"] * bool(self.answer)
        words += ["we half-close"] * self.we_half_close
        words += ["it half-closes"] * self.peer_half_closes
        words += ["it closes before" if self.closes_before else "it closes meanwhile"]
        return ", ".join(words)


def cases() -> Generator[Case, None, None]:
    yes_no = (False, True)
    for sent, answer in itertools.product((b"", SENT), (b"", ANSWER)):
        for read in sorted({0, min(1, len(sent)), len(sent)}):
            for flags in itertools.product(yes_no, yes_no, yes_no):
                yield Case(sent, answer, read, *flags)


async def outcome(call: Callable[[], Awaitable[object]]) -> object:
    try:
        return await call()
    except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        return type(exc).__name__


async def read(stream: Any) -> list[object]:
    return [await outcome(lambda: stream.receive_some(100)) for _ in range(4)]


async def write(stream: Any) -> list[object]:
    """Not what the first one says: TCP takes it, and a Unix socket refuses it."""
    return [await outcome(lambda: stream.write(b"x")) for _ in range(2)]


async def read_then_write(stream: Any) -> list[object]:
    return await read(stream) + await write(stream)


async def write_then_read(stream: Any) -> list[object]:
    return await write(stream) + await read(stream)


async def flush(stream: Any) -> object:
    return await outcome(stream.flush)


async def send_eof(stream: Any) -> object:
    return await outcome(stream.send_eof)


async def aclose(stream: Any) -> object:
    return await outcome(stream.aclose)


async def by_halves(stream: Any) -> list[object]:
    reader, writer = split(stream)
    return [*await read(reader), await outcome(writer.aclose), await outcome(reader.aclose)]


async def gracefully(stream: Any) -> list[object]:
    report = await close_gracefully(stream)
    return [
        report.outcome.name,
        type(report.error).__name__,
        report.peer_closed,
        report.discarded_bytes,
        report.unsent_bytes,
    ]


USES: dict[str, Callable[[Any], Awaitable[object]]] = {
    "read, then write": read_then_write,
    "write, then read": write_then_read,
    "flush": flush,
    "send_eof": send_eof,
    "aclose": aclose,
    "by halves": by_halves,
    "close_gracefully": gracefully,
    "a buffer above": lambda stream: gracefully(BufWriter(stream)),
}


async def play(
    make: Callable[[], Awaitable[Pair]], case: Case, use: Callable[[Any], Awaitable[object]]
) -> object:
    """Use one end of a pair whose other one is closed; what came of it."""
    stream, peer = await make()
    await stream.send_all(case.sent)
    await peer.send_all(case.answer)
    if case.we_half_close:
        await stream.send_eof()
    if case.peer_half_closes:
        await peer.send_eof()
    if case.read:
        await peer.receive_some(case.read)
    result: list[object] = []

    async def use_it() -> None:
        result.append(await use(stream))

    async with trio.open_nursery() as nursery:
        if not case.closes_before:
            nursery.start_soon(use_it)
            await wait_all_tasks_blocked()
        await peer.aclose()
        if case.closes_before:
            nursery.start_soon(use_it)
    with resource_warnings():
        await trio.aclose_forcefully(stream)
    return result[0]


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("case", list(cases()), ids=str)
async def test_it_ends_as_a_unix_socket_does(
    case: Case, use: Callable[[Any], Awaitable[object]], autojump_clock: MockClock
) -> None:
    ours = await play(memory_pair, case, use)
    assert ours == await play(unix_pair, case, use)
    is_clean = isinstance(ours, list) and ours[0] == "CLEAN"
    has_ended = case.peer_half_closes and not case.closes_before
    assert not (is_clean and case.read < len(case.sent)) or has_ended


@pytest.mark.parametrize("make", [memory_pair, unix_pair])
async def test_a_flush_that_waits_learns_of_it(make: Callable[[], Awaitable[Pair]]) -> None:
    stream, peer = await make()
    clog(stream)
    writer = BufWriter(stream)
    await writer.write(SENT)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await writer.flush()

        await wait_all_tasks_blocked()
        await peer.aclose()
    assert (await close_gracefully(writer)).outcome is CloseOutcome.BROKEN


async def test_it_is_known_even_if_the_end_was_read_before() -> None:
    """Nobody reads any more, so no read can tell."""
    stream, peer = duplex(100)
    await stream.send_all(SENT)
    await peer.send_eof()
    assert await stream.receive_some() == b""
    await peer.aclose()
    report = await close_gracefully(stream)
    assert report.outcome is CloseOutcome.BROKEN
    assert not report.peer_closed


async def test_one_way_nobody_can_tell() -> None:
    """As with a pipe: never CLEAN."""
    writer, reader = simplex(100)
    await writer.send_all(SENT)
    await reader.aclose()
    assert (await close_gracefully(writer)).outcome is CloseOutcome.PEER_SILENT
