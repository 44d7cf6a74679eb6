"""Checks of what callers hand in, and of what they raise."""

from __future__ import annotations

import contextlib
import operator
import socket as stdlib_socket
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import trio
import trio.abc

from ._errors import WriteZeroError

if TYPE_CHECKING:
    from typing_extensions import Buffer, TypeIs

T = TypeVar("T")

B = TypeVar("B", bound="Buffer")

#: How many bytes to receive at once, if the caller does not say: as Trio's streams do.
RECEIVE_SIZE: Final = 65536


def inherits(thing: object, kind: type[T]) -> TypeIs[T]:
    """Whether ``thing`` is of a class of Trio's, and not of one that only claims it.

    ``isinstance`` would believe what :mod:`trio_asyncwrite.compat` tells other libraries.
    """
    return kind in type(thing).__mro__


#: What is passed on in most cases; isinstance() of an abstract class is slow.
_SEQUENCES: Final = (list, tuple)

#: What to do with these, by the names of their classes.
_INSTEAD: Final = {
    "str": ": encode it first",
    "list": ": several buffers go to write_vectored() or write_all_vectored()",
    "tuple": ": several buffers go to write_vectored() or write_all_vectored()",
    "Buf": ": it goes to write_buf() or write_all_buf()",
    "FilePart": ": it goes to write_all_file()",
}


def byte_view(data: Buffer) -> memoryview:
    """A flat view of the bytes of ``data``, whatever its item format.

    Raises:
        TypeError: if ``data`` is not bytes-like.
        BufferError: if ``data`` is a view with gaps between its bytes.
    """
    try:
        view = memoryview(data)
    except TypeError:
        name = type(data).__name__
        text = f"expected a bytes-like object, got {name}{_INSTEAD.get(name, '')}"
        raise TypeError(text) from None
    if not view.c_contiguous:
        view.release()
        raise BufferError("the bytes-like object is not contiguous: pass bytes(data)")
    if view.ndim == 1 and view.format == "B":
        return view
    with view:
        # cast() refuses a shape with a zero in it.
        return view.cast("B") if view.nbytes else memoryview(b"")


def _is_bytes_like(thing: object) -> bool:
    try:
        memoryview(thing).release()  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def writable_view(buffer: Buffer) -> memoryview:
    """A flat view to read into.

    Raises:
        TypeError: if ``buffer`` is not a writable bytes-like object.
        BufferError: if ``buffer`` is a view with gaps between its bytes.
        ValueError: if ``buffer`` is empty.
    """
    view = byte_view(buffer)
    if view.readonly:
        view.release()
        raise TypeError("expected a writable bytes-like object, got a read-only one")
    if not view:
        view.release()
        raise ValueError("the length of buffer must be an integer of at least 1, got 0")
    return view


def checked_buffers(buffers: Sequence[B]) -> Sequence[B]:
    """``buffers``, if it is a sequence of buffers, and not one buffer.

    Raises:
        TypeError: if it is bytes-like itself, a string, or nothing that can be iterated over.
    """
    if type(buffers) in _SEQUENCES:
        return buffers
    name = type(buffers).__name__
    text = f"expected a sequence of bytes-like objects, got {name}"
    if isinstance(buffers, str):
        raise TypeError(f"{text}: encode it, and give [data]")
    if _is_bytes_like(buffers):
        raise TypeError(f"{text}: give [data]")
    if not isinstance(buffers, Iterable):
        raise TypeError(text + _INSTEAD.get(name, ""))
    return buffers


def check_data(data: Buffer) -> None:
    """For a poll that passes ``data`` on: refuse a wrong argument before it can break a layer.

    Raises:
        TypeError: if ``data`` is not bytes-like.
        BufferError: if ``data`` is a view with gaps between its bytes.
    """
    if type(data) is not bytes and (type(data) is not memoryview or not data.c_contiguous):
        byte_view(data).release()


def check_buffers(buffers: Sequence[Buffer]) -> None:
    """For a poll that passes ``buffers`` on: refuse a wrong argument before it can break a layer.

    Raises:
        TypeError: if it is not a sequence of bytes-like objects.
        BufferError: if one of them is a view with gaps between its bytes.
    """
    if type(buffers) not in _SEQUENCES and not isinstance(checked_buffers(buffers), Sequence):
        name = type(buffers).__name__
        raise TypeError(f"expected a sequence of bytes-like objects, got {name}")
    for data in buffers:
        if type(data) is not memoryview or not data.c_contiguous:
            byte_view(data).release()


def accepted(count: int, size: int, writer: object) -> int:
    """``count``, if it is what a poll may answer to a write of ``size`` bytes.

    Raises:
        WriteZeroError: if 0 bytes of a write that was not empty were accepted.
        TypeError: if the answer is no integer.
        RuntimeError: if the writer claims more than it was given, or less than nothing.
    """
    if type(count) is int:
        if 0 < count <= size or count == size:
            return count
        if count == 0:
            raise WriteZeroError(f"{writer!r} accepted 0 of {size} bytes")
        raise RuntimeError(
            f"poll_write() or poll_write_vectored() of {type(writer).__name__} claims to have "
            f"accepted {count} of {size} bytes"
        )
    raise TypeError(
        f"poll_write() or poll_write_vectored() of {type(writer).__name__} must return how many "
        f"bytes it accepted, it returned {describe_answer(count)}"
    )


def counted(count: float, noun: str) -> str:
    """``count`` and a noun: "1 byte", "2 bytes"."""
    number = str(count) if isinstance(count, int) else f"{count:g}"
    return f"{number} {noun}{'' if number == '1' else 's'}"


def describe_answer(answer: Any) -> str:
    """A wrong answer of a poll, for an error message."""
    if hasattr(answer, "cr_frame"):
        answer.close()  # or Python warns that it was never awaited
        return "a coroutine (a poll is a plain function, without async)"
    return repr(answer)


def wrong_answer(writer: object, name: str, answer: object) -> NoReturn:
    """Raise for a poll that has not answered None.

    Raises:
        TypeError: names the class, the method and the answer.
    """
    raise TypeError(
        f"{type(writer).__name__}.{name}() must return None, it returned {describe_answer(answer)}"
    )


def positive_int(value: int, name: str) -> int:
    """``value``, if it is an integer of at least 1; see :func:`int_at_least`."""
    return int_at_least(1, value, name)


def int_at_least(minimum: int, value: int, name: str) -> int:
    """``value``, if it is an integer of at least ``minimum``.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is less.
    """
    if type(value) is int and value >= minimum:
        return value
    kind = f"an integer of at least {minimum}"
    number = integer(value, name, kind)
    if number < minimum:
        raise ValueError(f"{name} must be {kind}, got {number}")
    return number


def integer(value: int, name: str, kind: str = "an integer") -> int:
    """``value``, if it is an integer; True and False are an argument at a wrong place.

    Raises:
        TypeError: if it is not.
    """
    if not isinstance(value, bool):
        with contextlib.suppress(TypeError):
            return operator.index(value)
    raise TypeError(f"{name} must be {kind}, got {type(value).__name__}")


def int_between(minimum: int, value: int, maximum: int, name: str) -> int:
    """``value``, if it is an integer from ``minimum`` to ``maximum``.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is less or more.
    """
    kind = f"an integer from {minimum} to {maximum}"
    number = integer(value, name, kind)
    if not minimum <= number <= maximum:
        raise ValueError(f"{name} must be {kind}, got {number}")
    return number


def checked_buffer_size(value: int) -> int:
    """``buffer_size``, if it is one: all of it is allocated, and an absurd one would fail later.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is less than 1 or more than 1 GiB.
    """
    return int_between(1, value, 1 << 30, "buffer_size")


def consists_of(exc: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Whether ``exc`` is one of ``kinds``, or a group of nothing but these."""
    # By its attribute: Python 3.10 has no name for an exception group.
    members: tuple[BaseException, ...] | None = getattr(exc, "exceptions", None)
    if members is None:
        return isinstance(exc, kinds)
    return all(consists_of(member, kinds) for member in members)


def connection_advice(thing: object) -> str:
    """The end of an error message: how to wrap a socket, and that asyncio's streams cannot be."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        kinds = (asyncio.StreamReader, asyncio.StreamWriter, asyncio.BaseTransport)
        if isinstance(thing, kinds):
            return (
                ", which works under asyncio only and cannot be wrapped: open the connection "
                "with open_tcp_stream()"
            )
    if isinstance(thing, (trio.socket.SocketType, stdlib_socket.socket)):
        if sys.platform == "win32" or thing.type != trio.socket.SOCK_STREAM:
            return ""
        is_trios = isinstance(thing, trio.socket.SocketType)
        return f": use {'TcpStream' if is_trios else 'PollEvented'}(it)"
    return ""


def check_duplex(stream: object) -> None:
    """Refuse everything but a stream to read from and to write to.

    Raises:
        TypeError: if ``stream`` is not a :class:`trio.abc.Stream`.
    """
    if not isinstance(stream, trio.abc.Stream):
        instead = connection_advice(stream)
        if isinstance(stream, trio.abc.SendStream):
            instead = (
                ", which can only be written to: put it over what this returns, or make it duplex "
                "by ReadWritePair(reader, writer)"
            )
        raise TypeError(f"expected a trio.abc.Stream, got {type(stream).__name__}{instead}")


def not_negative(value: T, name: str) -> T:
    """``value``, if it is a number of at least 0.

    Raises:
        TypeError: if it is no number.
        ValueError: if it is negative, or not a number in the sense of NaN.
    """
    _check_number(value, name, ": math.inf for no limit" if value is None else "")
    if not value >= 0:  # type: ignore[operator]  # NaN is not, either
        raise ValueError(f"{name} must be a number of at least 0, got {value!r}")
    return value


def above_zero(value: T, name: str, instead: str) -> T:
    """``value``, if it is a number greater than 0.

    Args:
        value: the number.
        name: that of the argument.
        instead: what to use for no limit.

    Raises:
        TypeError: if it is no number.
        ValueError: if it is not greater, or not a number in the sense of NaN.
    """
    text = f"; {instead} for no limit"
    _check_number(value, name, text)
    if not value > 0:  # type: ignore[operator]  # NaN is not, either
        raise ValueError(f"{name} must be a number greater than 0, got {value!r}{text}")
    return value


def _check_number(value: object, name: str, instead: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}{instead}")
    try:
        float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large: use math.inf for no limit") from None
