"""What type checkers must infer of writers over writers, and refuse. Checked, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.abc
from typing_extensions import assert_type

from trio_asyncwrite import (
    AsyncWrite,
    BufWriter,
    ByRef,
    PollEvented,
    ReadHalf,
    ReadWritePair,
    Sink,
    TcpStream,
    WriteHalf,
    open_tcp_stream,
    open_unix_stream,
    split,
    wrap_stream,
)

if TYPE_CHECKING:
    import subprocess


def wrap_stream_says_what_it_picks(
    tcp: TcpStream,
    buffered: BufWriter[TcpStream],
    anything: AsyncWrite,
    sockets: trio.SocketStream,
    fds: trio.lowlevel.FdStream,
    tls: trio.SSLStream[trio.SocketStream],
    plain: trio.abc.SendStream,
) -> None:
    assert_type(wrap_stream(tcp), TcpStream)
    assert_type(wrap_stream(buffered), BufWriter[TcpStream])
    assert_type(wrap_stream(anything), AsyncWrite)
    assert_type(wrap_stream(sockets), TcpStream)
    assert_type(wrap_stream(fds), PollEvented)
    assert_type(wrap_stream(tls), AsyncWrite)
    assert_type(wrap_stream(plain, cancel_grace=0.5), AsyncWrite)
    wrap_stream("stream")  # type: ignore[call-overload]
    wrap_stream(plain, cancel_grace="1")  # type: ignore[call-overload]


def buf_writer_knows_its_inner_writer(
    tcp: TcpStream,
    sockets: trio.SocketStream,
    fds: trio.lowlevel.FdStream,
    plain: trio.abc.SendStream,
) -> None:
    assert_type(BufWriter(tcp).inner, TcpStream)
    assert_type(BufWriter(BufWriter(tcp), 10).inner.inner, TcpStream)
    assert_type(BufWriter(Sink(), capacity=4096), BufWriter[Sink])
    assert_type(BufWriter(sockets).inner, TcpStream)
    assert_type(BufWriter(fds).inner, PollEvented)
    assert_type(BufWriter(plain).inner, AsyncWrite)
    assert_type(BufWriter(tcp).by_ref(), ByRef[BufWriter[TcpStream]])
    assert_type(BufWriter(tcp).by_ref().inner.inner, TcpStream)
    BufWriter(tcp, "big")  # type: ignore[call-overload]
    BufWriter(7)  # type: ignore[call-overload]


async def tcp_stream_takes_trios_streams_and_sockets(
    sockets: trio.SocketStream, sock: trio.socket.SocketType
) -> None:
    TcpStream(sockets)
    TcpStream(sock)
    TcpStream(sockets.socket.fileno())  # type: ignore[arg-type]
    assert_type(await open_tcp_stream("localhost", 80), TcpStream)
    assert_type(await open_unix_stream("/socket"), TcpStream)


def poll_evented_takes_numbers_and_their_owners(
    process: subprocess.Popen[bytes], sock: trio.socket.SocketType, fds: trio.lowlevel.FdStream
) -> None:
    PollEvented(1)
    PollEvented(1, close=False)
    if process.stdin is not None:
        PollEvented(process.stdin)
    PollEvented(sock)
    PollEvented(fds)
    PollEvented("stdin")  # type: ignore[arg-type]


def pairs_and_halves_know_their_streams(
    tcp: TcpStream, reader: trio.abc.ReceiveStream, plain: trio.abc.Stream
) -> None:
    pair = ReadWritePair(tcp, BufWriter(tcp))
    assert_type(pair.reader, TcpStream)
    assert_type(pair.writer, BufWriter[TcpStream])
    assert_type(pair.inner.inner, TcpStream)
    assert_type(ReadWritePair(reader, plain), ReadWritePair[trio.abc.ReceiveStream, AsyncWrite])
    ReadWritePair(BufWriter(tcp), tcp)  # type: ignore[call-overload]

    read_half, write_half = split(pair)
    assert_type(read_half, ReadHalf[ReadWritePair[TcpStream, BufWriter[TcpStream]]])
    assert_type(write_half, WriteHalf[ReadWritePair[TcpStream, BufWriter[TcpStream]]])
    assert_type(read_half.unsplit(write_half).writer, BufWriter[TcpStream])
    _, other = split(plain)
    read_half.unsplit(other)  # type: ignore[arg-type]
    split(BufWriter(tcp))  # type: ignore[type-var]


def writers_go_wherever_trio_takes_a_stream(tcp: TcpStream) -> None:
    halfcloseable: trio.abc.HalfCloseableStream = tcp
    halfcloseable = ReadWritePair(tcp, BufWriter(tcp))
    send: trio.abc.SendStream = BufWriter(halfcloseable)
    send = split(tcp)[1]
    receive: trio.abc.ReceiveStream = split(tcp)[0]
    trio.StapledStream(send, receive)
