"""Every writer of the library against the whole of the contract: a table to be extended.

A writer's own file tests what it does; here is what all of them do. Each row is held to
``check_async_write``, to Trio's own stream checks where the other end is a stream, and to two
sweeps that cancel it anywhere while it sends more than all buffers hold to a slow reader: bytes,
and a file. A file goes through every one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_asyncwrite import Buf, FilePart
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write

from ._disk import SYSTEMS, on
from ._streams import clogged_both_ways
from ._tls_helpers import open_tls
from ._writers import IN_MEMORY, ROWS, Row

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.outer

TLS = {"TlsStream over duplex": Row(open_tls, swept=20_000)}


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


#: Of these the other end is no stream, or does not end properly when both ends close at once: the
#: peer of a CompressWriter may have missed its trailer, which Trio's checks do not bear.
WRITE_ONLY = ("AllowStdIo", "CompressWriter", "Cursor", "Sink", "by_ref", "stdout, file")


# They close clogged streams forcefully, and what is lost by that is reported.
@pytest.mark.filterwarnings("ignore:.*never sent:ResourceWarning")
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=name)
        for name, row in ROWS.items()
        if row.exclusive and not name.startswith(WRITE_ONLY)
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


def payload_of(size: int) -> bytes:
    return b"".join(b"%07d\n" % number for number in range(size // 8 + 1))[:size]


@pytest.mark.parametrize("system", ["as it is", "nothing in memory", "no sendfile"])
@pytest.mark.parametrize(
    "row", [pytest.param(row, id=name) for name, row in {**ROWS, **TLS}.items()]
)
async def test_a_file_goes_through(
    row: Row, clock: trio.testing.MockClock | None, tmp_path: Path, system: str
) -> None:
    """Between other writes, and the same whatever the system knows or refuses."""
    payload = payload_of(row.swept or 5000)
    path = tmp_path / "file"
    path.write_bytes(payload)
    expected = b"head" + payload + payload[3:10] + b"tail"
    writer, other = await row.maker()
    received = bytearray()

    async def read() -> None:
        async for chunk in other:
            received.extend(chunk)

    async def write() -> None:
        with on(system), path.open("rb") as file:
            part = FilePart(file)
            await writer.write_all(b"head")
            await writer.write_all_file(part)
            assert part.offset == len(payload)
            assert not part
            await writer.send_file(file, 3, 7)
            await writer.send_all(b"tail")
        await writer.aclose()

    if isinstance(other, trio.abc.ReceiveStream):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await write()
        await trio.aclose_forcefully(other)
    else:
        await write()
        received += expected if other is None else other()  # nobody sees what a Sink gets
    assert received == expected


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=name)
        for name, row in {**ROWS, **TLS}.items()
        if name
        in (
            "TcpStream",
            "TlsStream over duplex",
            "PollEvented, pipe",
            "duplex, 512",
            "BufWriter, 4096, over TcpStream",
            "SharedWriter over TcpStream",
        )
    ],
)
async def test_a_file_cancelled_anywhere_and_resumed_is_delivered_once(
    row: Row, clock: trio.testing.MockClock | None, tmp_path: Path, system: str
) -> None:
    """... to a slow reader, and every byte of it."""
    payload = payload_of(row.swept)
    path = tmp_path / "file"
    path.write_bytes(payload)

    async def scenario(sweep: Sweep) -> None:
        writer, reader = await row.maker()
        received = bytearray()

        async def read() -> None:
            while chunk := await reader.receive_some(row.swept // 10):
                received.extend(chunk)

        with path.open("rb") as file:
            part = FilePart(file)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                with sweep:
                    await writer.write_all_file(part)
                    await writer.flush()
                while part:
                    await writer.write_all_file(part)
                await writer.flush()
                await writer.shutdown()
                await writer.aclose()
        await trio.aclose_forcefully(reader)

        assert received == payload

    with on(system):
        assert await cancel_everywhere(scenario) > 3
