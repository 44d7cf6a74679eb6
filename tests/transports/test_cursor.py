"""The writer into memory: growing, fixed, and with its position set."""

from __future__ import annotations

import array
import ctypes
import gc
import io
import pickle
import sys
from typing import TYPE_CHECKING, Any

import hypothesis
import hypothesis.strategies as st
import pytest
import trio
import trio.testing

from trio_asyncwrite._core._budget import current_budget
from trio_asyncwrite._core._buf import Buf
from trio_asyncwrite._core._errors import WriteZeroError
from trio_asyncwrite._transports._cursor import Cursor
from trio_asyncwrite.testing import check_async_write

if TYPE_CHECKING:
    from collections.abc import Callable


def fixed(kind: str, size: int) -> tuple[bytearray, Cursor]:
    """A buffer of ``size`` dots, and a cursor over it that cannot grow it."""
    buffer = bytearray(b"." * size)
    if kind == "memoryview":
        return buffer, Cursor(memoryview(buffer))
    return buffer, Cursor(buffer, growable=False)


both_fixed = pytest.mark.parametrize("kind", ["memoryview", "bytearray"])


@pytest.mark.parametrize("kind", ["growing", "memoryview", "bytearray"])
async def test_it_keeps_the_contract(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    async def make() -> tuple[Cursor, Callable[[], bytes]]:
        cursor = Cursor() if kind == "growing" else fixed(kind, 2 * 1024 * 1024)[1]
        return cursor, lambda: cursor.getvalue()[: cursor.position]

    await check_async_write(make)


async def test_a_growing_cursor_collects_what_is_written() -> None:
    async with Cursor() as cursor:
        assert await cursor.write(b"hello ") == 6
        await cursor.write_all(bytearray(b"wor"))
        await cursor.send_all(memoryview(b"ld"))
        assert cursor.position == 11
        assert cursor.unsent_bytes == 0
    assert cursor.getvalue() == b"hello world"


async def test_a_bytearray_is_shared_not_copied() -> None:
    buffer = bytearray(b"header")
    cursor = Cursor(buffer)
    cursor.position = 6
    await cursor.write_all(b" body")
    assert buffer == b"header body"
    buffer += b"!"
    assert cursor.getvalue() == b"header body!"


async def test_writing_overwrites_and_then_grows() -> None:
    buffer = bytearray(b"abcdef")
    cursor = Cursor(buffer)
    cursor.position = 4
    assert cursor.poll_write(b"WXYZ") == 4
    assert buffer == b"abcdWXYZ"
    cursor.position = 1
    assert cursor.poll_write(b"..") == 2
    assert buffer == b"a..dWXYZ"
    assert cursor.position == 3


async def test_a_gap_is_filled_with_zeros_at_the_next_write_and_not_before() -> None:
    buffer = bytearray(b"ab")
    cursor = Cursor(buffer)
    cursor.position = 5
    assert cursor.poll_write(b"") == 0
    assert buffer == b"ab"
    assert cursor.poll_write(b"c") == 1
    assert buffer == b"ab\0\0\0c"
    assert cursor.position == 6


@both_fixed
async def test_a_fixed_cursor_takes_a_part_at_its_end_and_then_nothing(kind: str) -> None:
    buffer, cursor = fixed(kind, 5)
    assert await cursor.write(b"abc") == 3
    assert await cursor.write(b"defg") == 2
    assert buffer == b"abcde"
    assert cursor.poll_write(b"") == 0
    for _ in range(2):
        with pytest.raises(WriteZeroError, match="accepted 0 of 1 bytes"):
            cursor.poll_write(b"x")
        with pytest.raises(WriteZeroError):
            await cursor.write(b"x")
    assert cursor.getvalue() == buffer == b"abcde"


@both_fixed
async def test_a_full_cursor_is_not_broken_and_goes_on_where_it_is_set(kind: str) -> None:
    buffer, cursor = fixed(kind, 4)
    buf = Buf(b"abcdef")
    with pytest.raises(WriteZeroError):
        await cursor.write_all_buf(buf)
    assert buf.remaining == 2
    cursor.position = 1
    await cursor.write_all_buf(buf)
    await cursor.flush()
    await cursor.shutdown()
    await cursor.aclose()
    assert buffer == b"aefd"


@both_fixed
async def test_a_fixed_cursor_has_no_room_beyond_its_end(kind: str) -> None:
    buffer, cursor = fixed(kind, 4)
    cursor.position = 9
    with pytest.raises(WriteZeroError):
        cursor.poll_write(b"x")
    assert cursor.position == 9
    assert buffer == b"...."


async def test_a_buffer_that_the_caller_shortens_is_full_sooner() -> None:
    buffer, cursor = fixed("bytearray", 4)
    cursor.position = 3
    del buffer[2:]
    with pytest.raises(WriteZeroError):
        cursor.poll_write(b"x")


async def test_growing_under_somebodys_view_accepts_nothing_and_is_not_sticky() -> None:
    buffer = bytearray(b"ab")
    cursor = Cursor(buffer)
    for position in (0, 1, 2, 5):
        cursor.position = position
        with memoryview(buffer):
            with pytest.raises(BufferError):
                cursor.poll_write(b"xyz")
            with pytest.raises(BufferError):
                await cursor.write(b"xyz")
        assert cursor.position == position
        assert buffer == b"ab"
    cursor.position = 0
    with memoryview(buffer):
        assert cursor.poll_write(b"AB") == 2  # needs no room
    assert await cursor.write(b"c") == 1
    assert buffer == b"ABc"


async def test_a_gap_that_no_memory_can_hold_is_not_sticky_either() -> None:
    cursor = Cursor()
    cursor.position = sys.maxsize // 2
    with pytest.raises(MemoryError):
        await cursor.write(b"x")
    cursor.position = 0
    await cursor.write(b"x")
    assert cursor.getvalue() == b"x"


async def test_views_of_other_items_and_shapes_are_their_bytes() -> None:
    numbers = array.array("H", [0, 0])
    cursor = Cursor(memoryview(numbers))
    await cursor.write_all(array.array("H", [258, 772]))
    assert numbers.tolist() == [258, 772]
    number = ctypes.c_uint16.__ctype_be__()
    await Cursor(memoryview(number)).write_all(b"\1\2")
    assert number.value == 258
    matrix = bytearray(4)
    await Cursor(memoryview(matrix).cast("B", (2, 2))).write_all(b"abcd")
    assert matrix == b"abcd"
    assert Cursor(memoryview(bytearray())).getvalue() == b""


async def test_the_callers_view_can_be_released() -> None:
    buffer = bytearray(2)
    with memoryview(buffer) as view:
        cursor = Cursor(view)
    await cursor.write_all(b"ab")
    assert buffer == b"ab"


async def test_data_is_not_kept() -> None:
    data = bytearray(b"abc")
    cursor = Cursor()
    await cursor.write_all(data)
    cursor.poll_write(data)
    data.clear()
    assert cursor.getvalue() == b"abcabc"


@both_fixed
async def test_what_overlaps_the_buffer_is_written_as_it_was(kind: str) -> None:
    buffer, cursor = fixed(kind, 6)
    buffer[:] = b"abcdef"
    cursor.position = 2
    assert cursor.poll_write(memoryview(buffer)[:4]) == 4
    assert buffer == b"ababcd"


@pytest.mark.parametrize(
    ("buffer", "named"),
    [(b"abc", "bytes"), ("abc", "str"), (memoryview(b"abc"), "read-only"), (7, "int")],
)
def test_a_buffer_that_cannot_be_written_to_is_refused_by_name(buffer: Any, named: str) -> None:
    with pytest.raises(TypeError, match=f"writable memoryview, got .*{named}"):
        Cursor(buffer)


def test_a_view_cannot_be_growable_or_have_gaps() -> None:
    with pytest.raises(ValueError, match="cannot grow"):
        Cursor(memoryview(bytearray(3)), growable=True)
    with pytest.raises(BufferError, match="gaps"):
        Cursor(memoryview(bytearray(4))[::2])


def test_a_refused_view_is_not_held() -> None:
    buffer = bytearray(4)
    with pytest.raises(BufferError):
        Cursor(memoryview(buffer)[::2])
    gc.collect()
    buffer += b"x"


@pytest.mark.parametrize("position", ["1", 1.0, None])
def test_position_must_be_an_integer(position: Any) -> None:
    cursor = Cursor()
    cursor.position = 3
    with pytest.raises(TypeError, match=f"got {type(position).__name__}"):
        cursor.position = position
    assert cursor.position == 3


def test_position_must_not_be_negative() -> None:
    cursor = Cursor()
    with pytest.raises(ValueError, match="at least 0, got -1"):
        cursor.position = -1
    assert cursor.position == 0


@pytest.mark.parametrize("data", ["text", None, [1]])
async def test_only_bytes_are_accepted(data: Any) -> None:
    cursor = Cursor()
    with pytest.raises(TypeError, match="bytes-like"):
        cursor.poll_write(data)
    with pytest.raises(TypeError, match="bytes-like"):
        await cursor.write_all(data)
    assert cursor.getvalue() == b""


async def test_after_shutdown_or_close_nothing_is_written_but_the_value_stays() -> None:
    cursor = Cursor()
    await cursor.write_all(b"abc")
    await cursor.shutdown()
    with pytest.raises(trio.ClosedResourceError):
        await cursor.write(b"x")
    await cursor.aclose()
    with pytest.raises(trio.ClosedResourceError):
        cursor.poll_write(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await cursor.flush()
    assert cursor.getvalue() == b"abc"


async def test_a_cancelled_write_accepts_nothing() -> None:
    cursor = Cursor()
    current_budget().left = 0
    with trio.CancelScope() as scope:
        scope.cancel()
        await cursor.write_all(b"abc")
    assert cursor.getvalue() == b""
    await cursor.write_all(b"abc")
    assert cursor.getvalue() == b"abc"


def test_it_says_where_it_is() -> None:
    cursor = Cursor(bytearray(5))
    cursor.position = 2
    assert repr(cursor) == "<Cursor at 2 of 5 bytes>"


@hypothesis.given(
    size=st.integers(0, 8),
    growable=st.booleans(),
    steps=st.lists(st.tuples(st.none() | st.integers(0, 12), st.binary(max_size=6))),
)
def test_any_writes_at_any_positions_equal_the_model(
    *, size: int, growable: bool, steps: list[tuple[int | None, bytes]]
) -> None:
    """As BytesIO does, cut off at the size if the buffer cannot grow."""
    cursor = Cursor(bytearray(size), growable=growable)
    model = io.BytesIO(bytes(size))
    for position, data in steps:
        if position is not None:
            cursor.position = position
            model.seek(position)
        room = len(data) if growable else max(min(len(data), size - model.tell()), 0)
        if data and not room:
            with pytest.raises(WriteZeroError):
                cursor.poll_write(data)
        else:
            assert cursor.poll_write(data) == room
            model.write(data[:room])
        assert cursor.position == model.tell()
        assert cursor.getvalue() == model.getvalue()


async def test_its_errors_can_be_pickled() -> None:
    """As those of Python, which they are: another process need not know the library."""
    buffer = bytearray()
    writer = Cursor(buffer)
    with memoryview(buffer), pytest.raises(BufferError) as info:
        await writer.write(b"x")
    copy = pickle.loads(pickle.dumps(info.value))
    assert type(copy) is BufferError
    assert copy.args == info.value.args
    writer.position = 2**62
    with pytest.raises(MemoryError) as no_memory:
        await writer.write(b"x")
    assert type(pickle.loads(pickle.dumps(no_memory.value))) is MemoryError
    writer.position = 0
    await writer.write_all(b"x")

    assert writer.getvalue() == b"x"
