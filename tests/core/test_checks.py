"""Checks of what callers hand in."""

from __future__ import annotations

import array
import ctypes
import mmap
from typing import Any

import pytest

from trio_asyncwrite import WriteZeroError
from trio_asyncwrite._core._checks import (
    accepted,
    byte_view,
    check_buffers,
    consists_of,
    counted,
    positive_int,
)


class Record(ctypes.Structure):
    _fields_ = (("number", ctypes.c_uint16), ("letter", ctypes.c_char * 4))


def mapped() -> mmap.mmap:
    """Six bytes of anonymous memory."""
    memory = mmap.mmap(-1, 6)
    memory[:] = b"abcdef"
    return memory


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name)
        for name, make in {
            "bytes": lambda: b"abcdef",
            "bytearray": lambda: bytearray(b"abcdef"),
            "read-only view": lambda: memoryview(bytearray(b"abcdef")).toreadonly(),
            "slice": lambda: memoryview(b"--abcdef--")[2:-2],
            "signed bytes": lambda: memoryview(b"abcdef").cast("b"),
            "characters": lambda: memoryview(b"abcdef").cast("c"),
            "words": lambda: memoryview(b"abcdef").cast("H"),
            "matrix": lambda: memoryview(b"abcdef").cast("B", (2, 3)),
            "array": lambda: array.array("H", b"abcdef"),
            "ctypes array": lambda: (ctypes.c_uint16 * 3).from_buffer_copy(b"abcdef"),
            "ctypes matrix": lambda: ((ctypes.c_char * 2) * 3).from_buffer_copy(b"abcdef"),
            "ctypes scalars": lambda: ctypes.c_uint32.from_buffer_copy(b"abcd"),
            "ctypes structure": lambda: Record.from_buffer_copy(b"abcdef"),
            "mmap": mapped,
        }.items()
    ],
)
def test_a_byte_view_shows_the_bytes_of_anything_contiguous(make: Any) -> None:
    """Flat, and without a copy: it shows what becomes of them."""
    data = make()
    with byte_view(data) as view:
        assert bytes(view) == b"abcdef"[: len(view)]
        assert len(view) == memoryview(data).nbytes >= 4
        assert (view.ndim, view.format, view.itemsize) == (1, view.format, 1)
        assert view[0] == ord("a")
        if not view.readonly:
            view[0] = ord("X")
            assert bytes(memoryview(data).cast("B"))[:1] == b"X"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytearray(),
        array.array("H"),
        (ctypes.c_uint16 * 0)(),
        ((ctypes.c_uint16 * 0) * 3)(),
        ((ctypes.c_uint16 * 3) * 0)(),
    ],
    ids=["bytes", "bytearray", "array", "ctypes", "3 of nothing", "no threes"],
)
def test_a_byte_view_of_nothing_is_empty(data: Any) -> None:
    view = byte_view(data)

    assert len(view) == 0
    assert bytes(view) == b""


@pytest.mark.parametrize("data", ["text", None, 7, [1, 2], object()], ids=type)
def test_only_bytes_like_objects_have_a_byte_view(data: Any) -> None:
    with pytest.raises(TypeError, match=f"bytes-like object, got {type(data).__name__}"):
        byte_view(data)


@pytest.mark.parametrize(
    "make",
    [
        lambda data: memoryview(data)[::2],
        lambda data: memoryview(data)[::-1],
        lambda data: memoryview(data).cast("H")[::-2],
    ],
    ids=["every other", "backwards", "words"],
)
def test_a_view_with_gaps_has_no_byte_view_and_is_let_go(make: Any) -> None:
    data = bytearray(b"abcdef")
    with (
        make(data) as view,
        pytest.raises(BufferError, match=r"not contiguous: pass bytes\(data\)") as caught,
    ):
        byte_view(view)

    assert caught.tb  # it refers to all that byte_view held
    data.append(0)


def test_a_byte_view_of_other_items_lets_go_when_it_is_released() -> None:
    data = array.array("H", b"abcdef")
    byte_view(data).release()

    data.append(7)


@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 1), (1, 9), (9, 9)])
def test_a_right_count_is_passed_on(count: int, size: int) -> None:
    assert accepted(count, size, "writer") == count


@pytest.mark.parametrize(
    ("count", "size", "error", "message"),
    [
        (0, 3, WriteZeroError, "'writer' accepted 0 of 3 bytes"),
        (4, 3, RuntimeError, "poll_write.* of str claims to have accepted 4 of 3 bytes"),
        (-1, 3, RuntimeError, "poll_write.* of str claims to have accepted -1 of 3 bytes"),
        (1, 0, RuntimeError, "poll_write.* of str claims to have accepted 1 of 0 bytes"),
    ],
)
def test_a_wrong_count_is_an_error(
    count: int, size: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        accepted(count, size, "writer")


class Index:
    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize(("value", "number"), [(1, 1), (65536, 65536), (Index(), 7)])
def test_a_positive_int_is_what_counts_as_one(value: Any, number: int) -> None:
    assert positive_int(value, "size") == number


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "size must be an integer of at least 1, got 0"),
        (-3, ValueError, "size must be an integer of at least 1, got -3"),
        (1.0, TypeError, "size must be an integer of at least 1, got float"),
        (True, TypeError, "size must be an integer of at least 1, got bool"),
        ("1", TypeError, "size must be an integer of at least 1, got str"),
        (None, TypeError, "size must be an integer of at least 1, got NoneType"),
    ],
)
def test_anything_else_is_no_positive_int(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        positive_int(value, "size")


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1_000_001, "1000001 bytes"),
        (1.0, "1 byte"),
        (0.99999999, "1 byte"),
        (1.5, "1.5 bytes"),
    ],
)
def test_one_thing_is_counted_in_the_singular(count: float, words: str) -> None:
    assert counted(count, "byte") == words


class Group(Exception):
    """What Python 3.10 has no name for."""

    def __init__(self, *exceptions: BaseException) -> None:
        self.exceptions = exceptions


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (ValueError(), True),
        (KeyError(), False),
        (Group(ValueError(), Group(TypeError(), ValueError())), True),
        (Group(ValueError(), Group(KeyError())), False),
    ],
)
def test_a_group_consists_of_what_all_of_it_is(exc: BaseException, *, expected: bool) -> None:
    assert consists_of(exc, (ValueError, TypeError)) is expected


def test_a_poll_that_passes_buffers_on_refuses_an_iterator() -> None:
    """It would be used up by the first look."""
    with pytest.raises(TypeError, match="expected a sequence of bytes-like objects, got list_iter"):
        check_buffers(iter([b"a"]))  # type: ignore[arg-type]
    check_buffers((b"a", bytearray(b"b")))
