"""The read cursor."""

from __future__ import annotations

import gc
import sys
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from trio_asyncwrite import Buf


def contents(buf: Buf) -> bytes:
    """The bytes ahead of the cursor."""
    return b"".join(buf.chunks())


def test_parts_are_one_after_the_other_and_empty_ones_are_skipped() -> None:
    buf = Buf(b"", b"ab", bytearray(), memoryview(b"cde"), b"")

    assert buf.remaining == len(buf) == 5
    assert buf.chunk() == b"ab"
    assert buf.chunks() == [b"ab", b"cde"]
    assert buf.chunks(1) == [b"ab"]
    assert buf.chunks(3) == [b"ab", b"cde"]
    assert not buf.is_contiguous()
    assert repr(buf) == "<Buf: 5 bytes remaining>"


@pytest.mark.parametrize("parts", [(), (b"",), (b"", memoryview(b""))], ids=len)
def test_without_bytes_it_is_at_its_end(parts: tuple[bytes, ...]) -> None:
    buf = Buf(*parts)
    buf.advance(0)

    assert not buf
    assert buf.remaining == 0
    assert buf.chunk() == b""
    assert buf.chunks() == []
    assert buf.is_contiguous()


def test_advance_goes_through_the_parts() -> None:
    buf = Buf(b"abc", b"de", b"f")
    seen = []
    for count in (0, 1, 2, 1, 2):
        buf.advance(count)
        seen.append((buf.remaining, bytes(buf.chunk()), len(buf.chunks()), buf.is_contiguous()))

    assert seen == [
        (6, b"abc", 3, False),
        (5, b"bc", 3, False),
        (3, b"de", 2, False),
        (2, b"e", 2, False),
        (0, b"", 0, True),
    ]


@hypothesis.given(
    parts=st.lists(st.binary(max_size=5), max_size=6), fractions=st.lists(st.floats(0, 1))
)
def test_any_advances_through_any_parts(parts: list[bytes], fractions: list[float]) -> None:
    whole = b"".join(parts)
    buf = Buf(*parts)
    for fraction in fractions:
        count = int(buf.remaining * fraction)
        buf.advance(count)
        whole = whole[count:]
        assert contents(buf) == whole
        assert buf.remaining == len(whole)
        assert all(buf.chunks())
        assert bytes(buf.chunk()) == bytes(b"".join(buf.chunks()[:1]))


@pytest.mark.parametrize(
    ("count", "error"),
    [(-1, ValueError), (7, ValueError), (2.0, TypeError), ("2", TypeError), (None, TypeError)],
    ids=repr,
)
def test_the_cursor_stays_if_it_cannot_advance(count: Any, error: type[Exception]) -> None:
    buf = Buf(b"abc", b"def")
    buf.advance(1)
    with pytest.raises(error):
        buf.advance(count)

    assert contents(buf) == b"bcdef"
    assert buf.remaining == 5


def test_nothing_is_copied() -> None:
    data = bytearray(b"abcdef")
    buf = Buf(data)
    buf.advance(2)
    data[2:4] = b"XY"

    assert contents(buf) == b"XYef"
    assert buf.chunk().obj is data


def test_parts_are_held_until_they_are_passed() -> None:
    first, second = bytearray(b"abc"), bytearray(b"def")
    buf = Buf(first, second)
    for part in (first, second):
        buf.advance(2)
        with pytest.raises(BufferError):
            part.append(0)
        buf.advance(1)
        part.append(0)


def test_chunks_are_valid_until_the_cursor_moves() -> None:
    buf = Buf(b"abc", b"def")
    chunk, (_, second) = buf.chunk(), buf.chunks()
    buf.advance(1)

    with pytest.raises(ValueError, match="released"):
        bytes(chunk)
    assert bytes(second) == b"def"


def test_release_lets_go_of_all_parts() -> None:
    first, second = bytearray(b"abc"), bytearray(b"def")
    buf = Buf(first, second)
    buf.advance(1)
    for _ in range(2):
        buf.release()
        first.append(0)
        second.append(0)

    assert buf.remaining == 0
    assert not buf.chunks()


def test_a_forgotten_cursor_lets_go_of_its_parts() -> None:
    data = bytearray(b"abc")
    gc.disable()
    try:
        Buf(data)
        data.append(0)
    finally:
        gc.enable()


@pytest.mark.parametrize("bad", ["text", memoryview(b"abcd")[::2]], ids=type)
def test_what_is_not_bytes_is_refused_and_the_other_parts_are_let_go(bad: Any) -> None:
    """Also while the exception is alive, whose traceback refers to the cursor."""
    first, empty, last = bytearray(b"abc"), bytearray(), bytearray(b"def")
    with pytest.raises((TypeError, BufferError), match="bytes-like") as caught:
        Buf(first, empty, bad, last)

    assert caught.tb
    for part in (first, empty, last):
        part.append(0)


def test_the_bytes_of_other_items_are_counted() -> None:
    buf = Buf(memoryview(b"abcdef").cast("H"), memoryview(b"abcdef").cast("B", (2, 3)))
    buf.advance(5)

    assert contents(buf) == b"fabcdef"


def test_many_parts_are_passed_in_linear_time() -> None:
    """A deque, not a list, lets go of its first element at once."""
    buf = Buf(*[b"x"] * 100_000)
    buf.advance(99_999)

    assert buf.chunks() == [b"x"]
    assert sys.getsizeof(buf) < 100
