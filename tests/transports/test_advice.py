"""A constructor that refuses an object names one that takes it, or none."""

from __future__ import annotations

import codecs
import io
import socket as stdlib_socket
import tempfile
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import Mock

import pytest
import trio
import trio.testing

import trio_asyncwrite
from trio_asyncwrite import AllowStdIo, AsyncWrite, BufWriter, Sink, duplex, wrap_stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class ForeignAsyncFile:
    """As anyio's."""

    def __init__(self, wrapped: object) -> None:
        self.wrapped = wrapped

    async def write(self, data: bytes) -> int:
        raise AssertionError

    async def flush(self) -> None:
        raise AssertionError


def connected_socket(module: Any) -> Any:
    left, right = module.socketpair()
    right.close()
    return left


def read_only(path: Path) -> Any:
    path.touch()
    return path.open("rb")


def closed(path: Path) -> Any:
    with path.open("wb") as file:
        return file


def with_encoding(path: Path) -> Any:
    """The result of codecs.open(), which Python 3.14 deprecates."""
    info = codecs.lookup("utf-8")
    file = codecs.StreamReaderWriter(path.open("wb"), info.streamreader, info.streamwriter)
    cast("Any", file).encoding = "utf-8"
    return file


#: Objects, and the expression that makes a writer of each.
TAKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "writer": (lambda _: Sink(), "wrap_stream(it)"),
    "send stream": (lambda _: trio.testing.memory_stream_pair()[0], "wrap_stream(it)"),
    "receive stream": (
        lambda _: trio.testing.memory_stream_one_way_pair()[1],
        "ReadWritePair(it, writer)",
    ),
    "Trio socket": (lambda _: connected_socket(trio.socket), "TcpStream(it)"),
    "socket": (lambda _: connected_socket(stdlib_socket), "PollEvented(it)"),
    "file": (lambda path: path.open("wb"), "AllowStdIo(it)"),
    "memory": (lambda _: io.BytesIO(), "AllowStdIo(it)"),
    "path": (lambda path: path, 'AllowStdIo(open(it, "wb"))'),
    "path as text": (str, 'AllowStdIo(open(it, "wb"))'),
    "text file": (lambda path: path.open("w"), "AllowStdIo(it.buffer)"),
    "temporary text file": (
        lambda _: tempfile.NamedTemporaryFile("w"),  # noqa: SIM115
        "AllowStdIo(it.buffer)",
    ),
    "codecs' file": (with_encoding, "AllowStdIo(it.stream)"),
    "Trio's file": (lambda path: trio.wrap_file(path.open("wb")), "AllowStdIo(it.wrapped)"),
    "Trio's text file": (
        lambda path: trio.wrap_file(path.open("w")),
        "AllowStdIo(it.wrapped.buffer)",
    ),
    "foreign async file": (
        lambda path: ForeignAsyncFile(path.open("wb")),
        "AllowStdIo(it.wrapped)",
    ),
}

#: Objects that no constructor takes.
LEFT: dict[str, Callable[[Path], Any]] = {
    "None": lambda _: None,
    "class": lambda _: Sink,
    "class of files": lambda _: io.BytesIO,
    "text in memory": lambda _: io.StringIO(),
    "closed": closed,
    "read-only": read_only,
    "Trio's read-only file": lambda path: trio.wrap_file(read_only(path)),
    "datagrams": lambda _: trio.socket.socket(type=trio.socket.SOCK_DGRAM),
    "channel": lambda _: trio.open_memory_channel[bytes](0)[0],
    "mock of a text file": lambda _: Mock(),
}


constructors = pytest.mark.parametrize("constructor", [AllowStdIo, wrap_stream, BufWriter])


@constructors
@pytest.mark.parametrize(("make", "expression"), TAKEN.values(), ids=TAKEN)
async def test_the_advice_works_for_the_very_object(
    constructor: Callable[[Any], AsyncWrite],
    make: Callable[[Path], Any],
    expression: str,
    tmp_path: Path,
) -> None:
    it = make(tmp_path / "file")
    try:
        writer = constructor(it)
    except TypeError as exc:
        message = str(exc)
        writer = eval(expression, {**vars(trio_asyncwrite), "it": it, "writer": Sink()})
    else:
        message = f"it is taken: use {expression}"

    assert message.endswith(f": use {expression}")
    assert isinstance(writer, AsyncWrite)
    await writer.aclose()


@constructors
@pytest.mark.parametrize("make", LEFT.values(), ids=LEFT)
async def test_where_nothing_works_nothing_is_recommended(
    constructor: Callable[[Any], AsyncWrite], make: Callable[[Path], Any], tmp_path: Path
) -> None:
    it = make(tmp_path / "file")
    with pytest.raises((TypeError, ValueError)) as error:
        constructor(it)
    assert "use " not in str(error.value)
    if isinstance(it, (io.IOBase, trio.socket.SocketType)):
        it.close()
    elif isinstance(it, trio.abc.AsyncResource):
        await it.aclose()


def test_an_asynchronous_stream_is_no_file() -> None:
    with pytest.raises(TypeError, match=r"is asynchronous: use wrap_stream\(it\)$"):
        AllowStdIo(cast("Any", duplex(10)[0]))


def test_a_text_file_is_named_as_one() -> None:
    with pytest.raises(TypeError, match=r"StringIO .* is a text file$"):
        AllowStdIo(cast("Any", io.StringIO()))
