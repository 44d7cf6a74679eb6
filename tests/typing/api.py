"""What type checkers must infer from the public API. Checked, never run."""

from __future__ import annotations

import io
import zlib
from collections.abc import Awaitable, Callable

import trio
import trio.abc
from typing_extensions import assert_type

import trio_asyncwrite as aw
from trio_asyncwrite import codecs
from trio_asyncwrite.compression import (
    Compressor,
    CompressWriter,
    gzip_compressor,
    zstd_compressor,
)


class Counting(aw.AsyncWrite):
    """A writer of one's own."""

    def __init__(self, inner: aw.AsyncWrite) -> None:
        self.inner = inner
        self.count = 0

    def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
        n = self.inner.poll_write(data)
        self.count += n
        return n


async def wrappers_know_what_they_wrap(stream: aw.TcpStream) -> None:
    writer = aw.BufWriter(stream)
    assert_type(writer, aw.BufWriter[aw.TcpStream])
    assert_type(writer.inner, aw.TcpStream)
    assert_type(writer.by_ref(), aw.ByRef[aw.BufWriter[aw.TcpStream]])
    assert_type(aw.BufWriter(writer).inner.inner, aw.TcpStream)

    compressing = CompressWriter(stream, gzip_compressor(zlib=zlib), offload=True)
    assert_type(compressing, CompressWriter[aw.TcpStream])
    assert_type(compressing.inner, aw.TcpStream)
    encoder: Compressor = zstd_compressor(3)
    assert_type(encoder.flush(), bytes)

    pair = aw.ReadWritePair(stream, writer)
    assert_type(pair, aw.ReadWritePair[aw.TcpStream, aw.BufWriter[aw.TcpStream]])

    reader, half = aw.split(stream)
    assert_type(reader, aw.ReadHalf[aw.TcpStream])
    assert_type(half, aw.WriteHalf[aw.TcpStream])
    assert_type(reader.unsplit(half), aw.TcpStream)


def small_wrappers_know_what_they_wrap(
    stream: aw.TcpStream, socket: trio.SocketStream, foreign: trio.abc.SendStream
) -> None:
    bucket = aw.TokenBucket(1e6, burst=1000)
    bucket.rate = 10
    assert_type(bucket.burst, float)
    assert_type(aw.ThrottledWriter(stream, bucket), aw.ThrottledWriter[aw.TcpStream])
    assert_type(aw.ThrottledWriter(foreign, bucket), aw.ThrottledWriter[aw.AsyncWrite])
    assert_type(aw.ThrottledWriter(socket, bucket).bucket, aw.TokenBucket)
    assert_type(aw.MeteredWriter(socket), aw.MeteredWriter[aw.TcpStream])
    assert_type(aw.MeteredWriter(foreign).inner, aw.AsyncWrite)
    assert_type(aw.MeteredWriter(stream).seconds_waited, float)
    assert_type(aw.InspectWriter(socket, bytes), aw.InspectWriter[aw.TcpStream])
    assert_type(aw.InspectWriter(stream, bytes), aw.InspectWriter[aw.TcpStream])
    assert_type(aw.InspectWriter(foreign, bytearray().extend), aw.InspectWriter[aw.AsyncWrite])
    assert_type(aw.LineWriter(socket), aw.LineWriter[aw.TcpStream])
    assert_type(aw.LineWriter(foreign, 10), aw.LineWriter[aw.AsyncWrite])
    assert_type(aw.TeeWriter(stream, foreign), aw.TeeWriter[aw.TcpStream])
    assert_type(aw.TeeWriter(socket, socket, on_failure="detach"), aw.TeeWriter[aw.TcpStream])
    assert_type(aw.TeeWriter(foreign, stream).copy_failure, Exception | None)


async def readers_know_what_they_wrap(
    stream: aw.TcpStream, socket: trio.SocketStream, foreign: trio.abc.ReceiveStream
) -> None:
    reader = aw.BufReader(stream)
    assert_type(reader, aw.BufReader[aw.TcpStream])
    assert_type(reader.inner, aw.TcpStream)
    assert_type(aw.BufReader(socket), aw.BufReader[aw.TcpStream])
    assert_type(aw.BufReader(foreign), aw.BufReader[aw.AsyncRead])
    assert_type(await reader.fill(), bool)
    assert_type(await reader.receive_exactly(1), bytes)
    assert_type(await reader.receive_until(b"", 1), bytes)
    reader.unread(memoryview(b""))


class Byte:
    """A codec of one's own, which derives from nothing."""

    def encode(self, frame: bytes | memoryview) -> list[bytes | memoryview]:
        return [frame]

    def locate(self, buffer: bytearray, start: int) -> codecs.Frame | int:
        return codecs.Frame(0, 1, 1) if buffer else 1


async def frames_are_bytes(stream: aw.TcpStream, foreign: trio.abc.ReceiveStream) -> None:
    sending = codecs.FramedWriter(aw.BufWriter(stream), Byte())
    send_channel: trio.abc.SendChannel[bytes] = sending
    await send_channel.send(b"")
    await sending.send(memoryview(b""))
    assert_type(sending.writer, aw.SharedWriter[aw.AsyncWrite])
    for codec in (codecs.LengthDelimitedCodec(), codecs.LinesCodec(), codecs.DelimiterCodec(b"")):
        receiving = codecs.FramedReader(foreign, codec)
        receive_channel: trio.abc.ReceiveChannel[bytes] = receiving
        assert_type(await receive_channel.receive(), bytes)
        assert_type(receiving.reader, aw.BufReader[aw.AsyncRead])
        assert_type(receiving.receive_nowait(), bytes)


async def bytes_move(a: trio.SocketStream, b: aw.TlsStream[aw.TcpStream]) -> None:
    assert_type(await aw.copy(a, b), int)
    relay = await aw.copy_bidirectional(a, b, half_open=1)
    assert_type(relay, aw.Relay)
    assert_type(relay.a_to_b, aw.Lane)
    assert_type(relay.b_to_a.bytes, int)
    assert_type(relay.b_to_a.error, Exception | None)
    assert relay.b_to_a.outcome is aw.LaneOutcome.ENDED


def write_rows(file: io.BufferedWriter, count: int) -> str:
    return str(file.write(bytes(count)))


async def threads_and_standard_output(stream: trio.SocketStream, writer: aw.Sink) -> None:
    assert_type(await aw.write_from_thread(stream, write_rows, 1), str)
    assert_type(await aw.write_from_thread(writer, lambda file: file.write(b""), limiter=None), int)
    await aw.write_from_thread(writer, write_rows, "1")  # type: ignore[arg-type]
    assert_type(aw.stdout(), aw.AsyncWrite)
    async with aw.BufWriter(aw.stderr()) as err:
        await err.write_all(b"")


async def foreign_streams_become_writers(stream: trio.abc.SendStream) -> None:
    assert_type(aw.BufWriter(stream), aw.BufWriter[aw.AsyncWrite])
    writer: aw.AsyncWrite = aw.wrap_stream(stream)
    trio_stream: trio.abc.SendStream = writer
    await trio_stream.send_all(b"")


async def connections() -> None:
    assert_type(await aw.open_tcp_stream("localhost", 80), aw.TcpStream)
    assert_type(await aw.open_unix_stream("/socket"), aw.TcpStream)


async def every_write(writer: aw.AsyncWrite) -> None:
    assert_type(await writer.write(b""), int)
    assert_type(await writer.write(memoryview(b"")), int)
    assert_type(await writer.write_vectored([b"", bytearray()]), int)
    assert_type(await writer.write_buf(aw.Buf(b"", bytearray())), int)
    await writer.write_all(b"")
    await writer.write_all_buf(aw.Buf())
    with open("file", "rb") as file:  # noqa: ASYNC230, PTH123 - never run
        part = aw.FilePart(file, 0, count=None, offload=True)
        await writer.write_all_file(part)
        await writer.send_file(file.fileno(), 0, 10)
        assert_type(part.offset, int)
        assert_type(part.remaining, int)
    await writer.write_all_file(aw.FilePart(await trio.open_file("file", "rb")))
    await writer.write_all_vectored([b""])
    await writer.write_struct("!H", 1)
    await writer.flush()
    await writer.shutdown()
    assert_type(writer.unsent_bytes, int)
    async with writer as same:
        assert_type(same, aw.AsyncWrite)


def polls(writer: aw.AsyncWrite) -> None:
    try:
        assert_type(writer.poll_write(b""), int)
        assert_type(writer.poll_write_file(aw.FilePart(0), 1), int)
    except aw.NotReady as not_ready:
        assert_type(not_ready.wait, Callable[[], Awaitable[object]])


def half_closeable(stream: aw.AsyncReadWrite) -> trio.abc.HalfCloseableStream:
    return stream
