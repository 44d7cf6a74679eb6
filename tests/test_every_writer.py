"""Every writer of the library against the whole of the contract: a table to be extended.

A writer's own file tests what it does; here is what all of them do. Each row is held to
``check_async_write``, to Trio's own stream checks where the other end is a stream, and to a
sweep that cancels it anywhere while it sends more than all buffers hold to a slow reader.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_asyncwrite import Buf
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write

from ._streams import clogged_both_ways
from ._writers import IN_MEMORY, ROWS, Row


@pytest.fixture
def clock(row: Row) -> trio.testing.MockClock | None:
    """In memory, a clock that finds a hang at once; else Trio's own."""
    if row.maker in IN_MEMORY:
        return trio.testing.MockClock(autojump_threshold=0)
    return None


# The whole checker a byte at a time takes seconds; a capacity of 7 and one hostile writer do the
# same every day.
BYTE_BY_BYTE = {
    "simplex, 1",
    "BufWriter, 1, over simplex",
    "BufWriter over OneByteWriter over simplex",
    "BufWriter over NeverReady over simplex",
    "BufWriter over ReadyAfter over simplex",
}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=name, marks=[pytest.mark.slow] if name in BYTE_BY_BYTE else [])
        for name, row in ROWS.items()
    ],
)
async def test_it_keeps_the_contract(row: Row, clock: trio.testing.MockClock | None) -> None:
    await check_async_write(row.maker, row.clogged_maker, exclusive=row.exclusive)


# They close clogged streams forcefully, and what is lost by that is reported.
@pytest.mark.filterwarnings("ignore:.*never sent:ResourceWarning")
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=name)
        for name, row in ROWS.items()
        if row.exclusive and not name.startswith(("AllowStdIo", "Cursor", "Sink", "by_ref"))
    ],
)
async def test_it_is_a_stream_by_trio_s_own_checks(
    row: Row, clock: trio.testing.MockClock | None
) -> None:
    if row.symmetric:
        await trio.testing.check_half_closeable_stream(row.maker, clogged_both_ways(row.maker))
    else:
        await trio.testing.check_one_way_stream(row.maker, row.clogged_maker)


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=name) for name, row in ROWS.items() if row.swept]
)
async def test_cancelled_anywhere_and_resumed_it_delivers_every_byte_once(
    row: Row, clock: trio.testing.MockClock | None
) -> None:
    """... of a payload that goes only as fast as a slow reader reads."""
    payload = b"".join(b"%07d\n" % number for number in range(row.swept // 8 + 1))[: row.swept]

    async def scenario(sweep: Sweep) -> None:
        writer, reader = await row.maker()
        received = bytearray()

        async def read() -> None:
            while chunk := await reader.receive_some(max(row.swept // 20, 1)):
                received.extend(chunk)

        buf = Buf(payload[:1], payload[1 : row.swept // 2], payload[row.swept // 2 :])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with sweep:
                await writer.write_all_buf(buf)
                await writer.flush()
                await writer.shutdown()
            if buf.remaining:
                await writer.write_all_buf(buf)
            await writer.flush()
            await writer.shutdown()
            await writer.aclose()
        await reader.aclose()

        assert received == payload

    assert await cancel_everywhere(scenario) > 8
