"""Libraries that write to a file: their whole output is one message."""

from __future__ import annotations

import contextvars
import csv
import gc
import gzip
import io
import json
import pickle
import signal
import tarfile
import threading
import zipfile
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AllowStdIo,
    BufWriter,
    Cursor,
    SharedWriter,
    TcpStream,
    close_gracefully,
    duplex,
    graceful,
    simplex,
    wrap_stream,
    write_from_thread,
)
from trio_asyncwrite.testing import BrokenAfterWriter, Sweep, cancel_everywhere

from .._patience import wait_all_tasks_blocked
from .._streams import assert_leaves_no_cycle, tcp_pair
from .._tls_helpers import open_tls
from ..core._fakes import Layer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio_asyncwrite import AsyncWrite

TEXT = b"".join(b"%07d\n" % number for number in range(5000))
ROWS = [[str(number), "x" * 20] for number in range(3000)]

# From Python 3.13 on, a text file that is collected says what has failed.
finaliser_tells = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

# The warning of a stack that was closed torn; what its close says is tested with the close.
torn_is_told = pytest.mark.filterwarnings(
    "ignore:.*write_from_thread.. was cut short:ResourceWarning"
)


def write_zip(file: io.BufferedWriter) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "abc":
            archive.writestr(zipfile.ZipInfo(name), TEXT)


def write_tar(file: io.BufferedWriter) -> None:
    with tarfile.open(fileobj=file, mode="w|") as archive:
        member = tarfile.TarInfo("a")
        member.size = len(TEXT)
        archive.addfile(member, io.BytesIO(TEXT))


def write_csv(file: io.BufferedWriter) -> None:
    with io.TextIOWrapper(file, "utf-8", newline="") as text:
        csv.writer(text).writerows(ROWS)


def write_csv_and_leave_the_rest_to_the_collector(file: io.BufferedWriter) -> None:
    csv.writer(io.TextIOWrapper(file, "utf-8", newline="")).writerows(ROWS)


def write_json(file: io.BufferedWriter) -> None:
    text = io.TextIOWrapper(file, "utf-8", write_through=True)
    json.dump(ROWS, text)
    text.detach()


def write_gzip(file: io.BufferedWriter) -> None:
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as compressed:
        compressed.write(TEXT)


def write_pickle(file: io.BufferedWriter) -> None:
    pickle.dump(ROWS, file)


async def read_slowly(reader: trio.abc.ReceiveStream, into: bytearray) -> None:
    """To the end, or until it fails."""
    try:
        while chunk := await reader.receive_some(500):
            into += chunk
    except trio.BrokenResourceError:
        into += b"<cut short>"


@pytest.mark.parametrize("buffer_size", [1000, 262144])
@pytest.mark.parametrize(
    "write",
    [
        write_zip,
        write_tar,
        write_csv,
        write_csv_and_leave_the_rest_to_the_collector,
        write_json,
        write_gzip,
        write_pickle,
    ],
)
async def test_the_library_writes_to_the_writer_what_it_writes_to_a_file(
    write: Callable[[io.BufferedWriter], None], buffer_size: int
) -> None:
    expected = bytearray()

    class Unseekable(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            expected.extend(data)
            return len(data)

    with io.BufferedWriter(Unseekable()) as file:
        write(file)
    writer, reader = simplex(1000)
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly, reader, received)
        await write_from_thread(writer, write, buffer_size=buffer_size)
        await writer.aclose()

    assert received == expected


async def test_it_passes_arguments_and_returns_what_the_function_returns() -> None:
    variable = contextvars.ContextVar[str]("variable")
    variable.set("seen")
    cursor = Cursor()

    def write(file: io.BufferedWriter, number: int, text: str) -> tuple[object, ...]:
        assert threading.current_thread() is not main
        return file.write(b"abc"), number, text, variable.get()

    main = threading.current_thread()
    assert await write_from_thread(cursor, write, 1, "two") == (3, 1, "two", "seen")
    assert cursor.getvalue() == b"abc"


async def test_the_thread_is_stopped_while_nobody_reads() -> None:
    """Back-pressure: no more is held than the pipe, one piece and the buffer."""
    writer, reader = simplex(100)
    counts = []

    def write(file: io.BufferedWriter) -> None:
        for _ in range(100):
            file.write(bytes(100))
            counts.append(100)

    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(write_from_thread, writer, write, buffer_size=1000))
        while len(received) < 2000:
            received += await reader.receive_some(100)
        assert sum(counts) <= len(received) + 100 + 1000 + 1100
        while len(received) < 10_000:
            received += await reader.receive_some(100)


async def test_what_is_written_at_once_goes_in_pieces() -> None:
    pieces: list[int] = []

    class Pieces(io.BytesIO):
        def write(self, data: Any) -> int:
            pieces.append(len(data))
            return super().write(data)

    writer = AllowStdIo(Pieces())
    await write_from_thread(writer, lambda file: file.write(bytes(2_200_000)), buffer_size=10)
    await writer.aclose()

    assert pieces == [1 << 20, 1 << 20, 2_200_000 - (2 << 20)]


# ---- The file ----------------------------------------------------------------------------------


async def test_the_file_is_binary_and_cannot_seek() -> None:
    def write(file: io.BufferedWriter) -> None:
        assert (file.writable(), file.readable(), file.seekable()) == (True, False, False)
        assert file.mode == "wb"  # type: ignore[attr-defined]
        for method in (file.tell, file.fileno, file.read, file.detach, partial(file.seek, 0)):
            with pytest.raises(io.UnsupportedOperation):
                method()
        assert file.write(b"") == file.raw.write(b"") == 0
        assert file.raw.write(memoryview(b"abcd").cast("H")) == 4

    cursor = Cursor()
    await write_from_thread(cursor, write)
    assert cursor.getvalue() == b"abcd"


async def test_its_flush_flushes_the_writer_and_so_does_its_close() -> None:
    seen = []
    cursor = Cursor()

    def write(file: io.BufferedWriter) -> None:
        for end in (file.flush, file.close):
            file.write(b"abc")
            seen.append(cursor.getvalue())
            end()
            seen.append(cursor.getvalue())

    await write_from_thread(BufWriter(cursor), write)
    assert seen == [b"", b"abc", b"abc", b"abcabc"]


async def test_in_the_end_the_writer_is_flushed_and_left_open() -> None:
    cursor = Cursor()
    writer = BufWriter(cursor)
    await writer.write_all(b"before ")
    await write_from_thread(writer, lambda file: file.write(b"it "))
    assert cursor.getvalue() == b"before it "
    await writer.write_all(b"after")
    await writer.aclose()
    assert cursor.getvalue() == b"before it after"


async def test_nothing_can_be_written_after_the_function_has_returned() -> None:
    cursor = Cursor()
    file = await write_from_thread(cursor, lambda file: file)
    with (
        pytest.warns(ResourceWarning, match="3 bytes were written .* and are lost") as warned,
        pytest.raises(ValueError, match="after its function had returned"),
    ):
        file.write(b"abc")
    assert len(warned) == 1
    file.flush()
    file.close()
    assert cursor.getvalue() == b""


@finaliser_tells
async def test_a_text_file_that_was_not_flushed_is_warned_about() -> None:
    """The collector finds it later, and before Python 3.13 drops its text in silence."""
    cursor = Cursor()
    texts = []

    def write(file: io.BufferedWriter) -> None:
        texts.append(io.TextIOWrapper(file, "utf-8"))
        texts[0].write("abc")

    await write_from_thread(cursor, write)
    with pytest.warns(ResourceWarning, match="3 bytes were written .* flush in the function"):
        texts.clear()
    assert cursor.getvalue() == b""


async def test_other_threads_cannot_write() -> None:
    def write(file: io.BufferedWriter) -> None:
        def write_too() -> None:
            file.write(b"not this")
            try:
                file.flush()
            except RuntimeError as exc:
                errors.append(exc)

        thread = threading.Thread(target=write_too)
        thread.start()
        thread.join()

    errors: list[RuntimeError] = []
    await write_from_thread(Cursor(), write)
    assert "wasn't created by Trio" in str(errors[0])


async def test_the_function_may_come_back_to_trio() -> None:
    async def ask(text: str) -> str:
        await trio.lowlevel.checkpoint()
        return text + "!"

    def write(file: io.BufferedWriter) -> None:
        for text in "ab":
            file.write(trio.from_thread.run(ask, text).encode())
            file.flush()

    cursor = Cursor()
    await write_from_thread(cursor, write)
    assert cursor.getvalue() == b"a!b!"


# ---- One message -------------------------------------------------------------------------------


def pausing(writes: Callable[[io.BufferedWriter], object]) -> Any:
    """A function that first calls ``writes``, and then waits for an event that it also returns."""
    begun, go_on = trio.Event(), threading.Event()

    def write(file: io.BufferedWriter) -> None:
        writes(file)
        trio.from_thread.run_sync(begun.set)
        go_on.wait()
        file.write(b"end")

    return write, begun, go_on


async def test_another_task_is_refused_meanwhile() -> None:
    cursor = Cursor()
    write, begun, go_on = pausing(lambda file: file.write(b"begin "))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_from_thread, cursor, write)
        await begun.wait()
        for call in (
            partial(cursor.write_all, b"no"),
            cursor.flush,
            partial(write_from_thread, cursor, write),
        ):
            with pytest.raises(trio.BusyResourceError, match="SharedWriter"):
                await call()
        go_on.set()
    await cursor.write_all(b".")
    assert cursor.getvalue() == b"begin end."


async def test_another_task_waits_for_a_shared_writer() -> None:
    cursor = Cursor()
    shared = SharedWriter(BufWriter(cursor))
    write, begun, go_on = pausing(lambda file: file.write(b"2 "))
    async with trio.open_nursery() as nursery:
        await shared.write_all(b"1 ")
        nursery.start_soon(write_from_thread, shared, write)
        await begun.wait()
        nursery.start_soon(shared.write_all, b" 3")
        await wait_all_tasks_blocked()
        nursery.start_soon(write_from_thread, shared, lambda file: file.write(b" 4"))
        await wait_all_tasks_blocked()
        with trio.move_on_after(0) as scope:
            await write_from_thread(shared, lambda file: file.write(b"withdrawn"))
        assert scope.cancelled_caught
        go_on.set()
    await shared.aclose()
    assert cursor.getvalue() == b"1 2 end 3 4"


@pytest.mark.parametrize("layer", [lambda s: s, SharedWriter], ids=["plain", "SharedWriter"])
async def test_the_function_does_not_wait_for_itself(layer: Callable[[Any], AsyncWrite]) -> None:
    """It would wait in line behind its own message, for ever."""
    cursor = Cursor()
    writer = layer(cursor)

    def write(file: io.BufferedWriter) -> None:
        file.write(b"abc")
        for call in (
            partial(writer.write_all, b"no"),
            writer.flush,
            partial(write_from_thread, writer, write),
        ):
            with pytest.raises(trio.BusyResourceError):
                trio.from_thread.run(call)

    await write_from_thread(writer, write)
    assert cursor.getvalue() == b"abc"
    await writer.write_all(b".")
    await writer.flush()
    assert cursor.getvalue() == b"abc."


def fails(before: int) -> Any:
    def write(file: io.BufferedWriter) -> None:
        file.write(bytes(before))
        raise KeyError("mine")

    return write


@torn_is_told
@pytest.mark.parametrize(
    "layer",
    [
        lambda s: s,
        lambda s: s.by_ref(),
        BufWriter,
        SharedWriter,
        lambda s: SharedWriter(BufWriter(s, 7)),
    ],
    ids=["plain", "by_ref", "BufWriter", "SharedWriter", "SharedWriter over a buffer"],
)
async def test_a_failure_after_a_part_was_accepted_tears(
    layer: Callable[[Any], AsyncWrite],
) -> None:
    below, reader = simplex(1 << 20)
    writer = layer(below)
    with pytest.raises(KeyError, match="mine"):
        await write_from_thread(writer, fails(250), buffer_size=100)
    for call in (
        partial(writer.write_all, b"more"),
        writer.shutdown,
        partial(write_from_thread, writer, write_tar),
    ):
        with pytest.raises(trio.BrokenResourceError, match=r"write_from_thread\(\) was cut short"):
            await call()
    await writer.flush()
    await below.aclose()
    received = bytearray()
    await read_slowly(reader, received)

    # Of what was still in the file's buffer nothing was written.
    assert received == bytes(250) + b"<cut short>"


async def test_a_failure_before_that_leaves_the_writer_whole() -> None:
    """What was in the file's buffer is dropped, also by the collector."""
    writer, reader = simplex(1000)
    files = []

    def write(file: io.BufferedWriter) -> None:
        files.append(file)
        file.write(b"never written")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await write_from_thread(writer, write)
    assert files[0].closed
    with pytest.raises(ValueError, match="closed file"):
        files[0].write(b"more")
    files.clear()
    gc.collect()
    buffered = BufWriter(writer)
    await buffered.write_all(b"before ")
    with pytest.raises(KeyError, match="mine"):
        await write_from_thread(buffered, fails(10))
    await buffered.write_all(b"after")
    await buffered.aclose()
    assert await reader.receive_some() == b"before after"
    assert await reader.receive_some() == b""


@torn_is_told
@pytest.mark.parametrize("library", [zipfile, gzip])
async def test_a_valid_end_that_an_exception_has_written_is_not_the_end(
    library: Any, autojump_clock: object
) -> None:
    """zipfile and gzip write it while the exception passes through their ``with``."""

    def write(file: io.BufferedWriter) -> None:
        if library is zipfile:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("a", TEXT)
                raise KeyError("mine")
        with gzip.GzipFile(fileobj=file, mode="wb") as compressed:
            compressed.write(TEXT)
            file.flush()
            raise KeyError("mine")

    writer, reader = duplex(1000)
    received = bytearray()

    async def read() -> None:
        await read_slowly(reader, received)
        await reader.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        with pytest.raises(KeyError, match="mine"):
            async with graceful(writer):
                await write_from_thread(writer, write)
    data = bytes(received).removesuffix(b"<cut short>")

    assert data != received
    if library is zipfile:
        assert zipfile.ZipFile(io.BytesIO(data)).read("a") == TEXT


@torn_is_told
async def test_over_tcp_its_end_is_a_reset_however_it_is_closed() -> None:
    closes: tuple[Any, ...] = (TcpStream.aclose, close_gracefully, trio.aclose_forcefully)
    for close in closes:
        left, right = await tcp_pair()
        with pytest.raises(KeyError):
            await write_from_thread(left, fails(1000), buffer_size=100)
        await close(left)
        with pytest.raises(trio.BrokenResourceError):
            while await right.receive_some():
                pass
        await right.aclose()


@torn_is_told
async def test_over_tls_the_close_notify_is_missing() -> None:
    client, server = await open_tls()
    with pytest.raises(KeyError):
        await write_from_thread(client, fails(1000), buffer_size=100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.aclose)
        with pytest.raises(trio.BrokenResourceError):
            while await server.receive_some():
                pass
    await trio.aclose_forcefully(server)


# ---- Cancelled ---------------------------------------------------------------------------------


@torn_is_told
@pytest.mark.parametrize("layer", [lambda s: s, SharedWriter], ids=["plain", "SharedWriter"])
@pytest.mark.parametrize("accepted", [0, 1000])
async def test_cancelled_is_raised_in_the_thread_at_its_next_write(
    layer: Callable[[Any], AsyncWrite], accepted: int
) -> None:
    writer, reader = simplex(1 << 20)
    target = layer(writer)
    seen: list[BaseException] = []
    begun, go_on = trio.Event(), threading.Event()

    def write(file: io.BufferedWriter) -> None:
        file.write(bytes(accepted))
        trio.from_thread.run_sync(begun.set)
        go_on.wait()
        for _ in range(2):
            try:
                file.write(bytes(300))
                file.flush()
            except BaseException as exc:  # noqa: BLE001 - what a function might do
                seen.append(exc)
        raise seen[0]

    async def send() -> None:
        await write_from_thread(target, write, buffer_size=100)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await begun.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()  # the thread is waited for
            go_on.set()
    assert [type(exc) for exc in seen] == [trio.Cancelled, trio.Cancelled]
    await target.aclose()
    received = bytearray()
    await read_slowly(reader, received)
    assert received == (bytes(accepted) + b"<cut short>" if accepted else b"")


async def until_it_waits(writer: AsyncWrite) -> None:
    """A thread that is at work is no blocked task, so this looks for the wait itself."""
    while not writer.lifecycle.waits:
        await trio.lowlevel.checkpoint()


@torn_is_told
async def test_cancelled_while_the_writer_waits() -> None:
    writer, reader = simplex(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(write_from_thread, writer, lambda file: file.write(TEXT), buffer_size=10)
        )
        await until_it_waits(writer)
        nursery.cancel_scope.cancel()
    await writer.aclose()
    received = bytearray()
    await read_slowly(reader, received)
    assert received == TEXT[:100] + b"<cut short>"


@torn_is_told
async def test_a_function_that_swallows_the_cancellation_writes_nothing_twice() -> None:
    """A BufferedWriter offers again what it could not write, and its function goes on."""
    writer, reader = simplex(100)
    begun = trio.Event()

    def write(file: io.BufferedWriter) -> str:
        trio.from_thread.run_sync(begun.set)
        try:
            file.write(TEXT[:1000])
        except trio.Cancelled:
            return "as if nothing had happened"
        raise AssertionError

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(write_from_thread, writer, write, buffer_size=500))
        await begun.wait()
        await until_it_waits(writer)
        nursery.cancel_scope.cancel()
    received = bytearray()
    await writer.aclose()
    await read_slowly(reader, received)
    assert received == TEXT[:100] + b"<cut short>"


async def test_cancelled_before_the_thread_begins() -> None:
    cursor = Cursor()
    limiter = trio.CapacityLimiter(1)
    with trio.move_on_after(0):
        await write_from_thread(cursor, write_tar)
    async with limiter, trio.open_nursery() as nursery:
        nursery.start_soon(partial(write_from_thread, cursor, write_tar, limiter=limiter))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await cursor.write_all(b"whole")
    assert cursor.getvalue() == b"whole"


async def test_cancelled_in_the_last_flush_it_is_abandoned() -> None:
    """All was accepted, so nothing is torn; but a later clean close must not wait for ever."""
    below, reader = simplex(10)
    writer = BufWriter(below, 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_from_thread, writer, lambda file: file.write(bytes(100)))
        await until_it_waits(writer)
        nursery.cancel_scope.cancel()
    await writer.write_all(b"whole")
    with pytest.warns(ResourceWarning, match="95 bytes"):
        await writer.aclose()
    await reader.aclose()


def in_one_piece(file: io.BufferedWriter) -> None:
    file.write(TEXT[:350])


def in_pieces(file: io.BufferedWriter) -> None:
    """Some of them are kept for the next trip, for a flush, and for the end."""
    file.write(TEXT[:40])
    file.write(TEXT[40:260])
    file.write(TEXT[260:300])
    file.flush()
    file.write(TEXT[300:350])


@torn_is_told
@pytest.mark.parametrize("write", [in_one_piece, in_pieces])
async def test_cancelled_anywhere_it_is_whole_or_cut_short(
    write: Callable[[io.BufferedWriter], None], autojump_clock: object
) -> None:
    async def scenario(sweep: Sweep) -> None:
        writer, reader = simplex(100)
        received = bytearray()
        done = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_slowly, reader, received)
            with sweep:
                await write_from_thread(writer, write, buffer_size=200)
                done = True
            await writer.aclose()
        if done or received in (b"", TEXT[:350]):
            assert received == TEXT[:350] or not (done or received)
        else:
            assert received.endswith(b"<cut short>")
            assert TEXT.startswith(received.removesuffix(b"<cut short>"))

    assert await cancel_everywhere(scenario) > 8


# ---- Failures of the writer, and its close -----------------------------------------------------


async def test_an_error_of_the_writer_reaches_the_function_as_it_is() -> None:
    writer = BrokenAfterWriter(Cursor(), limit=1000)
    seen = []

    def write(file: io.BufferedWriter) -> str:
        try:
            file.write(bytes(2000))
            file.flush()
        except trio.BrokenResourceError as exc:
            seen.append(exc)
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="has failed before"):
                file.flush()
        return "as if nothing had happened"

    with pytest.raises(trio.BrokenResourceError) as caught:
        await write_from_thread(writer, write)
    assert caught.value is seen[0]


@finaliser_tells
@torn_is_told
async def test_the_failure_of_a_text_file_that_is_collected_is_not_lost() -> None:
    """Before Python 3.13, its finaliser drops all errors."""
    writer, reader = simplex(100)
    await reader.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await write_from_thread(writer, write_csv_and_leave_the_rest_to_the_collector)


async def test_a_full_writer() -> None:
    cursor = Cursor(bytearray(1000), growable=False)
    with pytest.raises(trio.BrokenResourceError, match="no room"):
        await write_from_thread(cursor, lambda file: file.write(bytes(2000)))
    assert cursor.position == 1000
    cursor.position = 0
    await write_from_thread(cursor, lambda file: file.write(b"again"))  # it is never torn


@torn_is_told
@pytest.mark.parametrize("layer", [lambda s: s, SharedWriter], ids=["plain", "SharedWriter"])
async def test_another_task_closes_the_writer_while_the_thread_is_at_work(
    layer: Callable[[Any], AsyncWrite],
) -> None:
    below, reader = simplex(1 << 20)
    writer = layer(below)
    write, begun, go_on = pausing(lambda file: (file.write(bytes(300)), file.flush()))

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await write_from_thread(writer, write)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await begun.wait()
        await writer.aclose()
        received = bytearray()
        await read_slowly(reader, received)
        assert received == bytes(300) + b"<cut short>"
        go_on.set()


@torn_is_told
async def test_another_task_closes_the_writer_while_it_waits() -> None:
    writer, reader = simplex(100)

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError, match="another task closed"):
            await write_from_thread(writer, lambda file: file.write(bytes(1000)), buffer_size=10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await until_it_waits(writer)
        await writer.aclose()
    received = bytearray()
    await read_slowly(reader, received)
    assert received == bytes(100) + b"<cut short>"


@torn_is_told
async def test_it_is_closed_between_the_last_byte_and_the_end_of_the_function() -> None:
    """Nobody knew that it was the last one, so the call cannot have succeeded."""

    class Careless(Layer):
        def poll_flush(self) -> None:
            """It does not look whether it is closed."""

    below, reader = simplex(1000)
    writer = Careless(below)
    begun, go_on = trio.Event(), threading.Event()

    def write(file: io.BufferedWriter) -> None:
        file.write(b"all of it")
        file.flush()
        trio.from_thread.run_sync(begun.set)
        go_on.wait()

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await write_from_thread(writer, write)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await begun.wait()
        await writer.aclose()
        go_on.set()
    received = bytearray()
    await read_slowly(reader, received)
    assert received == b"all of it<cut short>"


async def test_a_closed_writer_is_refused() -> None:
    writer, reader = simplex(100)
    await writer.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await write_from_thread(writer, write_tar)
    await reader.aclose()


def test_ctrl_c_is_raised_in_the_function_at_its_next_write() -> None:
    main_thread = threading.main_thread().ident
    seen = []

    def write(file: io.BufferedWriter) -> None:
        signal.pthread_kill(main_thread or 0, signal.SIGINT)
        try:
            file.flush()
        except BaseException as exc:
            seen.append(type(exc))
            raise

    with pytest.raises(KeyboardInterrupt):
        trio.run(write_from_thread, Cursor(), write)
    assert seen == [KeyboardInterrupt]


# ---- What is refused ---------------------------------------------------------------------------


async def nothing(file: object) -> None:
    raise AssertionError


class Nothing:
    async def __call__(self, file: object) -> None:
        raise AssertionError


@pytest.mark.parametrize("function", [None, nothing, Nothing(), partial(nothing)])
async def test_what_is_no_plain_function(function: Any) -> None:
    cursor = Cursor()
    with pytest.raises(TypeError, match="expected a plain function, which is called in a thread"):
        await write_from_thread(cursor, function)
    await cursor.write_all(b"as before")
    assert cursor.getvalue() == b"as before"


async def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match=r"use AllowStdIo\(it\)"):
        await write_from_thread(io.BytesIO(), write_tar)  # type: ignore[arg-type]
    for size, kind in ((0, ValueError), ("1", TypeError)):
        with pytest.raises(kind, match="buffer_size must be"):
            await write_from_thread(Cursor(), write_tar, buffer_size=size)  # type: ignore[arg-type]


async def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    cursor = Cursor()
    with monkeypatch.context() as patch:
        patch.setattr("trio._threads.start_thread_soon", start)
        with pytest.raises(RuntimeError, match="new thread"):
            await write_from_thread(cursor, write_tar)
    await write_from_thread(cursor, write_tar)


async def test_a_foreign_stream_will_do() -> None:
    sending, receiving = trio.testing.memory_stream_one_way_pair()
    assert await write_from_thread(sending, lambda file: file.write(b"abc")) == 3
    assert await receiving.receive_some() == b"abc"
    await wrap_stream(sending).aclose()


async def test_it_leaves_no_cycle() -> None:
    async def use() -> None:
        cursor = Cursor()
        await write_from_thread(SharedWriter(cursor), write_tar)
        with pytest.raises(KeyError):
            await write_from_thread(cursor, fails(1))

    await use()
    await assert_leaves_no_cycle(use)


def by_buffer(writer: SharedWriter[Any]) -> AsyncWrite:
    return BufWriter(writer)


@pytest.mark.parametrize(
    "above",
    [
        pytest.param(lambda shared: shared.by_ref(), id="a handle"),
        pytest.param(by_buffer, id="a buffer"),
        pytest.param(SharedWriter, id="a SharedWriter"),
    ],
)
@pytest.mark.parametrize("what", ["bytes", "parts", "file"])
async def test_nobody_above_a_shared_writer_comes_into_the_middle(
    above: Callable[[Any], AsyncWrite], what: str, tmp_path: Path
) -> None:
    """All of the output is one message, also for those who take no place in the line."""
    cursor = Cursor()
    shared = SharedWriter(cursor)
    is_half, go_on = trio.Event(), trio.Event()
    path = tmp_path / "file"
    path.write_bytes(b"C" * 200_000)

    def pack(file: Any) -> None:
        file.write(b"A" * 20)
        file.flush()
        trio.from_thread.run_sync(is_half.set)
        trio.from_thread.run(go_on.wait)
        file.write(b"B" * 20)

    async def intrude() -> None:
        writer = above(shared)
        if what == "bytes":
            await writer.send_all(b"C" * 200_000)
        elif what == "parts":
            await writer.write_all_vectored([b"C" * 100_000, b"C" * 100_000])
        else:
            with path.open("rb") as file:
                await writer.send_file(file)
        await writer.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_from_thread, shared, pack)
        await is_half.wait()
        with trio.CancelScope() as scope:
            scope.cancel()  # to wait there is to have done nothing
            await intrude()
        nursery.start_soon(intrude)
        await wait_all_tasks_blocked()
        assert cursor.getvalue() == b"A" * 20
        go_on.set()
    assert cursor.getvalue() == b"A" * 20 + b"B" * 20 + b"C" * 200_000
    await shared.aclose()
