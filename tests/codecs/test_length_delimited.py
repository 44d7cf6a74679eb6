"""Lengths in front: Tokio's format, by hand and by ``struct``; limits, and their adjustment."""

from __future__ import annotations

import contextlib
import struct
from typing import Any, Literal

import pytest
import trio
from hypothesis import given, strategies as st

from trio_asyncwrite.codecs import Frame, LengthDelimitedCodec

MIB = 1 << 20


def test_it_is_tokio_s_format() -> None:
    """Tokio's LengthDelimitedCodec::new(), by hand."""
    codec = LengthDelimitedCodec()
    payload = b"Hello world"
    assert b"".join(codec.encode(payload)) == b"\x00\x00\x00\x0bHello world"
    assert codec.locate(b"\x00\x00\x00\x0bHello world\0", 0) == Frame(4, 15, 15)
    assert codec.max_size == 8 * MIB


def test_the_payload_is_not_copied() -> None:
    codec = LengthDelimitedCodec()
    payload = bytes(1000)
    assert codec.encode(payload)[1] is payload
    changing = bytearray(b"abc")
    _, view = codec.encode(changing)
    assert isinstance(view, memoryview)
    assert view.obj is changing


@pytest.mark.parametrize("order", ["big", "little"])
@pytest.mark.parametrize(("size", "letter"), [(1, "B"), (2, "H"), (4, "I"), (8, "Q")])
def test_the_field_is_as_struct_packs_it(size: int, letter: str, order: Any) -> None:
    codec = LengthDelimitedCodec(size, order)
    mark = ">" if order == "big" else "<"
    for length in (0, 1, 200):
        header, _ = codec.encode(bytes(length))
        assert header == struct.pack(mark + letter, length)
        assert codec.encode_whole(bytes(length)) == header + bytes(length)


@pytest.mark.parametrize("order", ["big", "little"])
@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("adjust", [0, 3, -1])
def test_what_it_encodes_it_locates(size: int, order: Any, adjust: int) -> None:
    codec = LengthDelimitedCodec(size, order, adjust=adjust)
    payload = bytes(range(200))
    data = b"".join(codec.encode(payload))
    assert len(data) == size + 200
    assert int.from_bytes(data[:size], order) == 200 - adjust
    for there in range(size + 200):
        wanted = codec.locate(data[:there], 0)
        assert wanted == (size if there < size else size + 200)
    assert codec.locate(data + b"more", 0) == (size, size + 200, size + 200)
    assert codec.locate_all(data + data + data[:-1]) == ([payload, payload], 2 * size + 400)
    assert codec.size_of_first(bytearray(data + data)) == size + 200


def test_a_length_that_counts_its_own_field() -> None:
    """Tokio #4815: the limit is that of the payload, after adjusting, both ways."""
    codec = LengthDelimitedCodec(4, max_size=10, adjust=-4)
    assert codec.encode(bytes(10)) == (b"\0\0\0\x0e", bytes(10))
    assert codec.locate(b"\0\0\0\x0e" + bytes(10), 0) == Frame(4, 14, 14)
    assert codec.locate(b"\0\0\0\x04", 0) == Frame(4, 4, 4)
    with pytest.raises(trio.BrokenResourceError, match="11 bytes is larger than max_size, 10"):
        codec.locate(b"\0\0\0\x0f", 0)
    with pytest.raises(ValueError, match="11 bytes is larger than max_size, 10"):
        codec.encode(bytes(11))
    with pytest.raises(trio.BrokenResourceError, match="is -1 bytes, with adjust=-4"):
        codec.locate(b"\0\0\0\x03", 0)
    assert codec.locate_all(b"\0\0\0\x03") == ([], 0)


def test_a_header_that_the_length_does_not_count() -> None:
    """Tokio #6604: what follows the field belongs to the frame, as in HTTP/2's nine bytes."""
    codec = LengthDelimitedCodec(3, max_size=100, adjust=6)
    assert codec.locate(b"\0\0\x02" + b"HEADERpl", 0) == Frame(3, 11, 11)
    assert codec.encode(b"HEADERpl")[0] == b"\0\0\x02"
    with pytest.raises(ValueError, match="with adjust=6, a frame of 5 bytes has no length"):
        codec.encode(b"HEADE")
    with pytest.raises(ValueError, match="has no length"):
        codec.encode_whole(b"HEADE")
    with pytest.raises(trio.BrokenResourceError, match="101 bytes is larger than max_size"):
        codec.locate(b"\0\0\x5f", 0)


@pytest.mark.parametrize(("size", "most"), [(1, 255), (2, 65535), (3, (1 << 24) - 1)])
def test_the_field_caps_the_size(size: int, most: int) -> None:
    """Tokio #5080: 6 MB went out behind a length of two bytes."""
    codec = LengthDelimitedCodec(size, max_size=1 << 40)
    assert codec.max_size == most
    assert LengthDelimitedCodec(size, max_size=1 << 40, adjust=-2).max_size == most - 2
    assert LengthDelimitedCodec(size, max_size=1 << 40, adjust=2).max_size == most + 2
    if size < 3:
        for encode in (codec.encode, codec.encode_whole):
            with pytest.raises(ValueError, match=f"larger than max_size, {most}"):
                encode(bytes(most + 1))


def test_a_large_claim_is_refused_before_its_bytes_come() -> None:
    """Tokio PR 590, 632."""
    with pytest.raises(trio.BrokenResourceError, match="a frame of 4294967295 bytes is larger"):
        LengthDelimitedCodec().locate(b"\xff\xff\xff\xff", 0)
    assert LengthDelimitedCodec().locate_all(b"\xff\xff\xff\xff" + bytes(9)) == ([], 0)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"size": 0}, ValueError, "size must be an integer from 1 to 8, got 0"),
        ({"size": 9}, ValueError, "size must be an integer from 1 to 8, got 9"),
        ({"size": "4"}, TypeError, "size must be an integer"),
        ({"byteorder": "native"}, ValueError, "byteorder must be"),
        ({"max_size": -1}, ValueError, "max_size must be"),
        ({"adjust": 0.5}, TypeError, "adjust must be an integer"),
        ({"size": 1, "adjust": -256}, ValueError, "adjust must be an integer of at least -255"),
        ({"adjust": 11, "max_size": 10}, ValueError, "no payload has fewer than 11 bytes"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        LengthDelimitedCodec(**arguments)


@pytest.mark.parametrize("wrong", ["text", 7, None, [b"a"], memoryview(bytes(9))[::2]])
def test_a_frame_is_bytes_like(wrong: Any) -> None:
    with pytest.raises((TypeError, BufferError)):
        LengthDelimitedCodec().encode(wrong)


def test_it_says_what_it_is() -> None:
    text = "<LengthDelimitedCodec: 1 byte, little-endian, max_size=200, adjust=-1>"
    assert repr(LengthDelimitedCodec(1, "little", 200, -1)) == text


@st.composite
def streams(draw: st.DrawFn) -> tuple[LengthDelimitedCodec, bytes]:
    """A codec, and frames of it; then anything. Or frames of one size, and perhaps another one."""
    size = draw(st.integers(1, 8))
    adjust = draw(st.sampled_from([0, 0, -size, 3]))
    order: Literal["big", "little"] = draw(st.sampled_from(["big", "little"]))
    codec = LengthDelimitedCodec(size, order, draw(st.integers(3, 300)), adjust)
    payloads = st.binary(min_size=3, max_size=300)
    frames = draw(
        st.lists(payloads, max_size=6)
        | st.builds(lambda one, count: [one] * count, payloads, st.integers(6, 30))
    )
    place = draw(st.integers(0, len(frames)))
    frames[place:place] = draw(st.lists(payloads, max_size=1))
    wire = b"".join(
        (len(frame) - adjust).to_bytes(size, order) + frame
        for frame in frames
        if len(frame) - adjust < 256**size
    )
    return codec, wire[: draw(st.integers(0, 1 << 20)) % (len(wire) + 1)] + draw(
        st.just(b"") | st.binary(max_size=20)
    )


@given(streams())
def test_many_at_once_are_those_that_come_one_by_one(
    stream: tuple[LengthDelimitedCodec, bytes],
) -> None:
    codec, wire = stream
    frames, size = codec.locate_all(wire)
    start = 0
    for frame in frames:
        found = codec.locate(wire[start:], 0)
        assert isinstance(found, Frame)
        assert wire[start:][found.begin : found.end] == frame
        assert codec.size_of_first(bytearray(wire[start:])) == found.next
        start += found.next
    assert start == size
    # Of frames that all had one size, a smaller one may be left over behind them.
    is_alike = len(frames) >= 8 and len(set(map(len, frames))) == 1
    with contextlib.suppress(trio.BrokenResourceError):
        found = codec.locate(wire[start:], 0)
        assert isinstance(found, int) or (is_alike and found.next < size // len(frames))


@pytest.mark.parametrize("count", [7, 8, 16, 100])
@pytest.mark.parametrize("size", [0, 1, 64])
def test_frames_of_one_size_are_found_at_once(size: int, count: int) -> None:
    codec = LengthDelimitedCodec()
    frames = [bytes([number]) * size for number in range(count)]
    wire = b"".join(part for frame in frames for part in codec.encode(frame))
    for rest in (b"", b"\0", b"\0\0\0\2", b"\xff" * 40):
        assert codec.locate_all(wire + rest) == (frames, len(wire))


def test_one_field_that_says_something_else_among_frames_of_one_size() -> None:
    """At each place, and in each byte of the field."""
    codec = LengthDelimitedCodec(2)
    for place in range(1, 12):
        frames = [bytes(3)] * place + [bytes(3 + 256)] + [bytes(3)] * 12
        wire = b"".join(part for frame in frames for part in codec.encode(frame))
        assert codec.locate_all(wire) == (frames, len(wire))
        frames[place] = bytes(4)
        wire = b"".join(part for frame in frames for part in codec.encode(frame))
        assert codec.locate_all(wire) == (frames, len(wire))


@pytest.mark.parametrize("size", [3, 8])
def test_a_length_beyond_all_memory_ends_the_search(size: int) -> None:
    codec = LengthDelimitedCodec(size)
    wire = b"".join(codec.encode(b"ab"))
    assert codec.locate_all(wire * 2 + b"\xff" * 9) == ([b"ab"] * 2, 2 * len(wire))
    assert codec.locate_all(b"\xff" * 9) == ([], 0)
