"""How often the thread stops: small pieces are kept for the next trip, and not lost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import BufReader, Cursor, simplex, write_from_thread

if TYPE_CHECKING:
    import io


async def test_small_pieces_go_with_the_next_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header with its member, what is flushed with its flush, and the rest at last."""
    trips = 0
    run = trio.from_thread.run

    def counting(*args: Any) -> Any:
        nonlocal trips
        trips += 1
        return run(*args)

    monkeypatch.setattr(trio.from_thread, "run", counting)
    cursor = Cursor()

    def write(file: io.BufferedWriter) -> None:
        for number in range(3):
            file.write(b"header %d " % number)
            file.write(b"x" * 1000)
        assert trips == 3
        file.write(b"flushed ")
        file.flush()
        assert trips == 4
        assert cursor.getvalue().endswith(b"flushed ")
        file.write(b"rest")

    await write_from_thread(cursor, write, buffer_size=500)
    assert trips == 4
    members = b"".join(b"header %d " % number + b"x" * 1000 for number in range(3))
    assert cursor.getvalue() == members + b"flushed rest"

    await write_from_thread(cursor, lambda file: file.write(b" small"))
    assert trips == 4
    assert cursor.getvalue().endswith(b"flushed rest small")


async def test_what_is_kept_for_the_next_trip_is_bounded() -> None:
    writer, reader = simplex(10)
    written = 0

    def write(file: io.BufferedWriter) -> None:
        nonlocal written
        for _ in range(100):
            file.raw.write(bytes(30))
            written += 30

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(write_from_thread, writer, write, buffer_size=1000))
        while not writer.lifecycle.waits:
            await trio.lowlevel.checkpoint()
        assert written == 480  # the next one would make it more than half of the buffer
        assert len(await BufReader(reader).receive_exactly(3000)) == 3000


async def test_what_was_kept_for_the_next_trip_is_dropped_with_the_buffer() -> None:
    cursor = Cursor()
    kept = 0

    def write(file: io.BufferedWriter) -> None:
        nonlocal kept
        kept = file.raw.write(b"header")  # type: ignore[assignment]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_from_thread(cursor, write)
    assert kept == 6
    await cursor.write_all(b"whole")
    assert cursor.getvalue() == b"whole"
