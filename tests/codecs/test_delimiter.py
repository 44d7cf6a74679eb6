"""Delimiters: of one byte and of several, that overlap themselves, and limits."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st

from trio_asyncwrite.codecs import DelimiterCodec, Frame


def test_a_frame_ends_before_its_delimiter() -> None:
    """Tokio's AnyDelimiterCodec; the end of the stream is none."""
    codec = DelimiterCodec(b"\r\n")
    assert codec.delimiter == b"\r\n"
    assert codec.locate(b"a\nb\r\nc", 0) == Frame(0, 3, 5)
    assert codec.locate(b"\r\n", 0) == Frame(0, 0, 2)
    assert codec.locate(b"ab\r", 0) == 4
    assert codec.locate(b"ab\r\n", 3) == Frame(0, 2, 4)
    assert not hasattr(codec, "locate_eof")
    payload = b"ab"
    assert codec.encode(payload)[0] is payload
    assert b"".join(codec.encode(payload)) == codec.encode_whole(payload) == b"ab\r\n"


def test_the_limit_does_not_count_the_delimiter() -> None:
    codec = DelimiterCodec(b"--", max_size=3)
    assert codec.max_size == 3
    assert codec.locate(b"abc--", 0) == Frame(0, 3, 5)
    assert codec.locate(b"abc-", 0) == 5
    for data in (b"abcd--", b"abcdef"):
        with pytest.raises(trio.BrokenResourceError, match="larger than max_size, 3 bytes"):
            codec.locate(data, 0)
    with pytest.raises(ValueError, match="4 bytes is larger than max_size, 3"):
        codec.encode(b"abcd")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize(
    ("delimiter", "frame", "text"),
    [
        (b"\0", b"a\0b", "contains the delimiter"),
        (b"--", b"a--b", "contains the delimiter"),
        # "ab" and "aba" behind it: a reader finds "aba" at once.
        (b"aba", b"xab", "ends with b'ab': with the delimiter, b'aba', behind it"),
        (b"--", b"x-", "ends with b'-'"),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(
    kind: Any, delimiter: bytes, frame: bytes, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        DelimiterCodec(delimiter).encode(kind(frame))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("\n",), TypeError, "bytes-like"),
        ((b"",), ValueError, "at least one byte"),
        ((b"\n", 1.5), TypeError, "max_size must be"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        DelimiterCodec(*arguments)


def test_it_says_what_it_is() -> None:
    assert repr(DelimiterCodec(bytearray(b"\0"), 7)) == r"<DelimiterCodec: b'\x00', max_size=7>"


@given(
    st.sampled_from([b"a", b"ab", b"aa", b"aba", b"aab"]),
    st.lists(st.text("ab", max_size=4).map(str.encode), max_size=8),
    st.integers(0, 5),
)
def test_what_it_encodes_is_read_back_one_by_one_and_at_once(
    delimiter: bytes, frames: list[bytes], max_size: int
) -> None:
    writing = DelimiterCodec(delimiter)
    sent = []
    for frame in frames:
        try:
            writing.encode(frame)
        except ValueError as exc:
            with pytest.raises(ValueError, match=re.escape(str(exc))):
                writing.encode_whole(frame)
        else:
            sent.append(frame)
    wire = b"".join(writing.encode_whole(frame) for frame in sent)
    assert writing.locate_all(wire) == (sent, len(wire))
    codec = DelimiterCodec(delimiter, max_size)
    found, size = codec.locate_all(wire)
    start = 0
    for frame in found:
        one = codec.locate(wire[start:], 0)
        assert isinstance(one, Frame)
        assert wire[start:][one.begin : one.end] == frame
        assert codec.size_of_first(bytearray(wire[start:])) == one.next
        start += one.next
    assert start == size
    if len(found) < len(sent):
        with pytest.raises(trio.BrokenResourceError):
            codec.locate(wire[start:], 0)
