r"""Lines: ends, the last line, limits; "\r" is a part of an end only before "\n" or the end."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st

from trio_asyncwrite.codecs import Frame, LinesCodec


def test_a_line_ends_with_lf_or_crlf() -> None:
    """Tokio's LinesCodec."""
    codec = LinesCodec()
    assert codec.locate(b"ab\ncd", 0) == Frame(0, 2, 3)
    assert codec.locate(b"ab\r\ncd", 0) == Frame(0, 2, 4)
    assert codec.locate(b"\n", 0) == Frame(0, 0, 1)
    assert codec.locate(b"\r\n", 0) == Frame(0, 0, 2)
    assert codec.locate(b"a\rb\n", 0) == Frame(0, 3, 4)
    assert codec.locate(b"", 0) == 1
    assert codec.locate(b"ab\r", 0) == 4
    assert codec.locate(b"ab\r\n", 3) == Frame(0, 2, 4)


def test_the_last_line_need_not_end() -> None:
    r"""Tokio's decode_eof (#2331): a lone "\r" is no line."""
    codec = LinesCodec()
    assert codec.locate_eof(b"ab", 0) == Frame(0, 2, 2)
    assert codec.locate_eof(b"ab\r", 0) == Frame(0, 2, 3)
    assert codec.locate_eof(b"\r", 0) is None


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_limit_does_not_count_the_end(end: bytes) -> None:
    """Tokio's new_with_max_length."""
    codec = LinesCodec(max_size=3)
    assert codec.max_size == 3
    assert codec.locate(b"abc" + end, 0) == Frame(0, 3, 3 + len(end))
    assert codec.locate(b"abc\r", 0) == 5
    for data in (b"abcd" + end, b"abcd", b"abcd\r", b"abc\rd"):
        with pytest.raises(trio.BrokenResourceError, match="longer than max_size, 3 bytes"):
            codec.locate(data, 0)
    with pytest.raises(trio.BrokenResourceError, match="longer than max_size"):
        codec.locate_eof(b"abcd", 0)


def test_it_writes_lf_and_does_not_copy() -> None:
    line = b"ab"
    codec = LinesCodec()
    assert codec.encode(line) == (b"ab", b"\n")
    assert codec.encode(line)[0] is line
    assert codec.encode_whole(line) == b"ab\n"
    assert b"".join(codec.encode(memoryview(b""))) == b"\n"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"a\nb", "contains b'.n': send each line by itself"),
        (b"ab\r", "ends with b'.r', which a reader would drop"),
        (b"abcd", "4 bytes is longer than max_size, 3"),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(kind: Any, line: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        LinesCodec(max_size=3).encode(kind(line))
    with pytest.raises(ValueError, match=text):
        LinesCodec(max_size=3).encode_whole(line)


@pytest.mark.parametrize(("wrong", "error"), [("1", TypeError), (-1, ValueError)])
def test_the_limit_is_a_number(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_size must be an integer of at least 0"):
        LinesCodec(wrong)


def test_it_says_what_it_is() -> None:
    assert repr(LinesCodec(7)) == "<LinesCodec: max_size=7>"


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"bcd"]), max_size=30), st.integers(0, 5))
def test_many_at_once_are_those_that_come_one_by_one(parts: list[bytes], max_size: int) -> None:
    wire = b"".join(parts)
    codec = LinesCodec(max_size)
    lines, size = codec.locate_all(wire)
    start = 0
    for line in lines:
        found = codec.locate(wire[start:], 0)
        assert isinstance(found, Frame)
        assert wire[start:][found.begin : found.end] == line
        assert codec.size_of_first(bytearray(wire[start:])) == found.next
        start += found.next
    assert start == size
    with contextlib.suppress(trio.BrokenResourceError):
        assert isinstance(codec.locate(wire[start:], 0), int)
