"""Law 9: whatever order the collector finalises a stack and its exceptions in, all are quiet."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import random
import sys
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import (
    AllowStdIo,
    AsyncReadWrite,
    AsyncWrite,
    Buf,
    BufWriter,
    FilePart,
    ReadWritePair,
    Relay,
    duplex,
    write_from_thread,
)
from trio_asyncwrite.compression import CompressWriter, gzip_compressor

from ._streams import socket_pair, tcp_pair, unix_pair
from ._tls_helpers import established
from ._writers import LAYERS_ABOVE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence
    from pathlib import Path

#: So many orders are tried where there are more.
MOST_ORDERS = 24


class Failing(AsyncReadWrite):
    """It takes one byte, and then fails. Its exceptions keep views of what it was given alive."""

    def __init__(self) -> None:
        self.exceptions: list[BaseException] = []
        self.left = 1

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        part = data[:1]
        exports = [memoryview(data), memoryview(part)]
        assert exports
        self.left -= 1
        if self.left >= 0:
            return 1
        raise ZeroDivisionError

    def poll_flush(self) -> None:
        if self.left < 0:
            raise ZeroDivisionError

    def poll_read(self, size: int, /) -> bytes:
        raise ZeroDivisionError


async def fail_at(writer: Any, keeper: list[BaseException]) -> None:
    """Call every method that writes, and keep what they raise."""
    for call in (
        partial(writer.write, b"data"),
        partial(writer.write_all, bytearray(b"line\nline")),
        partial(writer.write_all_buf, Buf(b"more", b"data")),
        partial(writer.write_all_vectored, [b"more", bytes(100)]),
        writer.flush,
        writer.shutdown,
    ):
        try:
            with trio.move_on_after(0):
                await call()
        except Exception as exc:  # noqa: BLE001 - it is kept
            keeper.append(exc)


def over_failing(layer: Callable[[Any], AsyncWrite]) -> Callable[[Path], Awaitable[object]]:
    async def stack(_path: Path) -> object:
        failing = Failing()
        writer = layer(failing)
        await fail_at(writer, failing.exceptions)
        return writer

    return stack


def over_peer(
    make: Callable[[], Awaitable[tuple[Any, Any]]],
) -> Callable[[Path], Awaitable[object]]:
    async def stack(_path: Path) -> object:
        stream, peer = await make()
        writer = BufWriter(stream)
        await writer.write(b"data")
        await trio.aclose_forcefully(peer)
        exceptions: list[BaseException] = []
        await fail_at(writer, exceptions)
        stream.exceptions = exceptions
        return writer

    return stack


async def tls(_path: Path) -> object:
    failing = Failing()
    stream, _ = established((failing, duplex(10)[0]))
    writer = BufWriter(stream)
    await writer.write(bytes(100))
    await fail_at(writer, failing.exceptions)
    return writer


async def file(path: Path) -> object:
    target = io.BufferedWriter(io.FileIO(path / "file", "wb"))
    writer = BufWriter(AllowStdIo(target))
    await writer.write(b"data")
    failing = Failing()
    await fail_at(writer, failing.exceptions)
    writer.inner.exceptions = failing.exceptions  # type: ignore[attr-defined]
    return writer


async def file_part(path: Path) -> object:
    (path / "file").write_bytes(bytes(100_000))
    failing = Failing()
    writer = BufWriter(failing)
    await writer.write(b"data")
    with (path / "file").open("rb") as source:
        part = FilePart(source)
        for _ in range(2):
            try:
                await writer.write_all_file(part)
            except Exception as exc:  # noqa: BLE001 - it is kept
                failing.exceptions.append(exc)
    return writer, part


async def thread(_path: Path) -> object:
    failing = Failing()
    writer = BufWriter(failing)

    def write(file: io.BufferedWriter) -> None:
        file.write(bytes(100))
        failing.files = [file, io.TextIOWrapper(file)]  # type: ignore[attr-defined]
        file.flush()

    try:
        await write_from_thread(writer, write, buffer_size=10)
    except Exception as exc:  # noqa: BLE001 - it is kept
        failing.exceptions.append(exc)
    return writer


async def relay(_path: Path) -> object:
    failing = Failing()
    left, right = duplex(100)
    await right.send_all(b"data")
    moving = Relay(left, ReadWritePair(failing, BufWriter(failing, 1)))
    try:
        await moving.run()
    except BaseException as exc:  # noqa: BLE001 - it is kept
        failing.exceptions.append(exc)
    return moving


STACKS: dict[str, Callable[[Path], Awaitable[object]]] = {
    **{name: over_failing(layer) for name, layer in LAYERS_ABOVE.items()},
    "two buffers": over_failing(lambda writer: BufWriter(BufWriter(writer, 5), 7)),
    "a large buffer": over_failing(BufWriter),
    "compressed": over_failing(lambda writer: CompressWriter(writer, gzip_compressor())),
    "TCP": over_peer(tcp_pair),
    "Unix": over_peer(unix_pair),
    "PollEvented": over_peer(socket_pair),
    "TLS": tls,
    "file": file,
    "file part": file_part,
    "thread": thread,
    "relay": relay,
}

every_stack = pytest.mark.parametrize("make", STACKS.values(), ids=STACKS)


@contextlib.contextmanager
def nothing_unraisable() -> Generator[None, None, None]:
    """Without the collector, which comes when the block calls it; and it must be quiet."""
    seen: list[str] = []
    before = sys.unraisablehook
    gc.collect()
    gc.disable()
    sys.unraisablehook = lambda args: seen.append(f"{args.object!r}: {args.exc_value!r}")
    try:
        with warnings.catch_warnings():
            # To record one would keep its source.
            warnings.simplefilter("ignore", ResourceWarning)
            yield
            gc.collect()
    finally:
        sys.unraisablehook = before
        gc.enable()
    assert not seen


@every_stack
def test_a_stack_and_its_exceptions_are_collected_quietly(
    make: Callable[[Path], Awaitable[object]], tmp_path: Path
) -> None:
    with nothing_unraisable():
        trio.run(make, tmp_path)


@every_stack
def test_finalisers_are_quiet_in_any_order(
    make: Callable[[Path], Awaitable[object]], tmp_path: Path
) -> None:
    """As the collector may call them: all objects are there still, and some were finalised."""
    for number in itertools.count():
        with nothing_unraisable():
            known = {id(one) for one in gc.get_objects()}
            stack = trio.run(make, tmp_path)
            having = [
                one
                for one in gc.get_objects()
                if id(one) not in known and hasattr(type(one), "__del__")
            ]
            orders = some_orders(len(having))
            if number < len(orders):
                for index in orders[number]:
                    type(having[index]).__del__(having[index])
            del having, stack
        if number >= len(orders) - 1:
            break


def some_orders(count: int) -> list[Sequence[int]]:
    """All orders of so many objects, or the same number of random ones."""
    orders: list[Sequence[int]] = list(
        itertools.islice(itertools.permutations(range(count)), MOST_ORDERS + 1)
    )
    if len(orders) <= MOST_ORDERS:
        return orders
    source = random.Random(count)
    return [source.sample(range(count), count) for _ in range(MOST_ORDERS)]
