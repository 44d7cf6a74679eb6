from __future__ import annotations

import errno
import os
import random
import socket as stdlib_socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    Buf,
    BufWriter,
    NotReady,
    TcpStream,
    open_tcp_stream,
    open_unix_stream,
)
from trio_asyncwrite.testing import Sweep, cancel_everywhere, check_async_write

from .._patience import wait_all_tasks_blocked
from .._streams import (
    clog,
    clogged,
    clogged_both_ways,
    connected,
    drain,
    drain_while,
    reset,
    tcp_pair,
    unix_pair,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

Pair = tuple[TcpStream, TcpStream]


@pytest.fixture
async def tcp() -> AsyncIterator[Pair]:
    async with connected(tcp_pair) as ends:
        yield ends


@pytest.fixture
async def unix() -> AsyncIterator[Pair]:
    async with connected(unix_pair) as ends:
        yield ends


@pytest.fixture(params=[tcp_pair, unix_pair])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """Two ends, of each kind."""
    async with connected(request.param) as ends:
        yield ends


# ---- Trio's contract, and ours ---------------------------------------------------------------


@pytest.mark.outer
@pytest.mark.parametrize("maker", [tcp_pair, unix_pair])
async def test_it_keeps_the_contract(maker: Callable[[], Awaitable[Pair]]) -> None:
    await trio.testing.check_half_closeable_stream(maker, clogged_both_ways(maker))
    await check_async_write(maker, clogged(maker))


async def test_no_cancellation_loses_a_byte() -> None:
    """Wherever it strikes, while a slow peer reads from small buffers."""
    data = random.Random(0).randbytes(200_000)

    async def scenario(sweep: Sweep) -> None:
        async with connected(tcp_pair) as (stream, peer):
            bufs = [Buf(data[:90_000], data[90_000:]), Buf(b"the end")]
            received = bytearray()

            async def receive() -> None:
                while chunk := await peer.receive_some(30_000):
                    received.extend(chunk)

            async def write() -> None:
                for buf in bufs:
                    await stream.write_all_buf(buf)
                await stream.flush()
                await stream.shutdown()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                with sweep:
                    await write()
                for buf in bufs:
                    if buf.remaining:
                        await stream.write_all_buf(buf)
                await stream.shutdown()
            assert received == data + b"the end"

    assert await cancel_everywhere(scenario) > 5


# ---- What it is made of ----------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["socket", None, 7, b"", object()])
async def test_only_streams_and_trio_sockets_are_taken(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"trio\.SocketStream"):
        TcpStream(wrong)


async def test_a_standard_library_socket_is_refused() -> None:
    with stdlib_socket.socket() as sock, pytest.raises(TypeError, match="Trio socket"):
        TcpStream(sock)  # type: ignore[arg-type]


async def test_a_stream_and_its_socket_are_taken_over(tcp: Pair) -> None:
    plain = trio.SocketStream(tcp[0].socket)
    stream = TcpStream(plain)
    await stream.aclose()

    assert plain.socket.fileno() == -1
    assert await drain(tcp[1]) == b""


async def test_a_bare_socket_gets_the_options_of_a_stream(tcp: Pair) -> None:
    """Small messages leave at once: the one who buffers is BufWriter."""
    stream, _ = tcp

    assert stream.getsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY) == 1
    stream.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 0)
    assert stream.getsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY) == 0
    raw = stream.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, 8)
    assert raw == struct.pack("ii", 0, 0)


async def test_an_option_may_be_a_null_pointer_of_some_length(tcp: Pair) -> None:
    stream, _ = tcp

    with pytest.raises(OSError, match="(?i)invalid|bad address"):
        stream.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, None, 8)
    for value, length in ((None, None), (1, 8), (b"12345678", 8)):
        with pytest.raises(TypeError, match=f"got the value {value!r} and the length {length}"):
            stream.setsockopt(1, 2, value, length)  # type: ignore[call-overload]


async def test_it_names_its_descriptor_and_itself(tcp: Pair) -> None:
    stream, _ = tcp

    assert stream.fileno() == stream.socket.fileno() >= 0
    assert repr(stream) == f"<TcpStream over {stream.socket!r}>"
    await stream.aclose()
    assert stream.fileno() == -1
    assert "TcpStream" in repr(stream)


# ---- Faults ----------------------------------------------------------------------------------


async def test_a_socket_that_was_never_connected() -> None:
    async with TcpStream(trio.socket.socket()) as stream:
        with pytest.raises(trio.BrokenResourceError):
            await stream.write_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await stream.write_all(b"x")


async def test_shutting_down_what_is_not_connected() -> None:
    """ENOTCONN; here, aclose is the first to find out, and says so after it has closed."""
    stream = TcpStream(trio.socket.socket())
    with pytest.raises(trio.BrokenResourceError) as info:
        await stream.aclose()

    assert isinstance(info.value.__cause__, OSError)
    assert info.value.__cause__.errno == errno.ENOTCONN
    assert stream.fileno() == -1


async def test_a_socket_closed_behind_our_back(tcp: Pair) -> None:
    """No failure of the transport, but a mistake on this side."""
    stream, _ = tcp
    clog(stream)
    with pytest.raises(NotReady) as info:
        stream.poll_write(b"x")
    stream.socket.close()

    for poll in (
        lambda: stream.poll_write(b"x"),
        lambda: stream.poll_write_vectored([b"x", b"y"]),
    ):
        with pytest.raises(trio.ClosedResourceError):
            poll()
    for call in (
        lambda: stream.write_all(b"x"),
        lambda: stream.write_all_vectored([b"x", b"y"]),
        stream.wait_send_all_might_not_block,
        stream.receive_some,
        info.value.wait,
        stream.shutdown,
    ):
        with pytest.raises(trio.ClosedResourceError):
            await call()
    with pytest.raises(trio.ClosedResourceError):
        await stream.aclose()
    await stream.aclose()


async def test_a_peer_that_resets_in_the_middle(tcp: Pair) -> None:
    """The waiting write learns of it; the cursor stays behind what the kernel had taken."""
    stream, peer = tcp
    buf = Buf(bytes(10_000_000))

    async def write() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.write_all_buf(buf)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        reset(peer)

    assert 0 < buf.remaining < 10_000_000
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await stream.write_all_buf(buf)


async def test_a_reset_that_a_write_came_upon_is_no_end_of_file(tcp: Pair) -> None:
    """The kernel tells it once only; a read that comes later must not mistake it for an end."""
    stream, peer = tcp
    await peer.send_all(b"truncat")
    reset(peer)
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await stream.write_all(b"x")

    received = b""
    with pytest.raises(trio.BrokenResourceError):
        while chunk := await stream.receive_some(3):
            received += chunk
    assert received in {b"", b"truncat"}  # a reset may destroy what was not read yet


async def test_a_reset_that_a_read_came_upon_is_told_once(tcp: Pair) -> None:
    """It ends both directions; aclose says nothing new, where Trio's says nothing either."""
    stream, peer = tcp
    reset(peer)
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError, match="failed before"):
        await stream.write_all(b"x")

    await stream.aclose()
    assert stream.fileno() == -1


async def test_a_reset_after_our_own_end_stays_one(tcp: Pair) -> None:
    """Or an answer that is cut off would look complete to whoever reads next."""
    stream, peer = tcp
    await stream.send_all(b"request")
    await stream.shutdown()
    reset(peer)
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    await stream.aclose()


async def test_an_end_of_file_before_the_reset_is_one(tcp: Pair) -> None:
    """The peer has said all, and reads no more: the answer is whole, only the upload is not."""
    stream, peer = tcp
    await peer.send_all(b"answer")
    await peer.aclose()
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await stream.write_all(b"x")

    assert await drain(stream) == b"answer"


async def test_a_reset_that_aclose_is_the_first_to_see(tcp: Pair) -> None:
    stream, peer = tcp
    await stream.write_all(b"x")
    reset(peer)

    with pytest.raises(trio.BrokenResourceError):
        await stream.aclose()
    assert stream.fileno() == -1
    await stream.aclose()


async def test_a_peer_that_never_reads(pair: Pair, autojump_clock: MockClock) -> None:
    """A write waits for it, and can be given up and gone on with at the very byte."""
    stream, peer = pair
    data = os.urandom(3_000_000)
    buf = Buf(data)
    for _ in range(3):
        with trio.move_on_after(60) as scope:
            await stream.write_all_buf(buf)
        assert scope.cancelled_caught
        assert 0 < buf.remaining < len(data)

    async def go_on() -> None:
        await stream.write_all_buf(buf)
        await stream.aclose()

    assert await drain_while(peer, go_on) == data


async def test_a_peer_that_reads_a_byte_a_second(unix: Pair, autojump_clock: MockClock) -> None:
    """It gets every byte, from a write that is given up and taken up again all the time."""
    stream, peer = unix
    prefix = clog(stream)
    buf = Buf(b"slow and steady")
    received = bytearray()
    cancelled = 0

    async def read() -> None:
        await peer.receive_some(prefix - 30)  # so that only the last bytes are read slowly
        while len(received) < 45:
            await trio.sleep(1)
            received.extend(await peer.receive_some(1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        while buf.remaining:
            with trio.move_on_after(0.7) as scope:
                await stream.write_all_buf(buf)
            cancelled += scope.cancelled_caught

    assert received == bytes(30) + b"slow and steady"


# ---- How it ends -----------------------------------------------------------------------------


async def test_a_half_closed_stream_still_receives(pair: Pair) -> None:
    stream, peer = pair
    await stream.send_all(b"request")
    await stream.send_eof()
    assert await drain(peer) == b"request"
    await peer.send_all(b"answer")
    await peer.send_eof()

    assert await drain(stream) == b"answer"


async def test_shutting_down_is_idempotent(pair: Pair) -> None:
    stream, peer = pair
    for _ in range(2):
        stream.poll_shutdown()
        await stream.shutdown()
        await stream.send_eof()
        await stream.flush()
        stream.poll_flush()

    assert await drain(peer) == b""


async def test_a_completed_shutdown_stays_complete(tcp: Pair) -> None:
    """Also where the kernel would say by now that there is no connection."""
    stream, peer = tcp
    stream.poll_shutdown()
    reset(peer)

    stream.poll_shutdown()
    await stream.shutdown()
    await stream.aclose()


async def test_a_cancelled_close_with_unsent_bytes_resets(tcp: Pair) -> None:
    """The peer reads what came and then an error: never an end-of-file."""
    stream, peer = tcp
    writer = BufWriter(stream)
    clog(writer)
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.warns(ResourceWarning, match=f"{writer.unsent_bytes} bytes"):
            await writer.aclose()

    assert stream.fileno() == -1
    with pytest.raises(trio.BrokenResourceError):
        await drain(peer)


async def test_a_cancelled_close_without_unsent_bytes_is_an_end(pair: Pair) -> None:
    stream, peer = pair
    writer = BufWriter(stream)
    await writer.write_all(b"all of it")
    await trio.aclose_forcefully(writer)

    assert await drain(peer) == b"all of it"


async def test_a_cancelled_close_with_unsent_bytes_on_a_unix_socket(unix: Pair) -> None:
    """There is no reset to send: it is the warning that tells."""
    stream, peer = unix
    writer = BufWriter(stream)
    clog(writer)
    with pytest.warns(ResourceWarning, match=f"{writer.unsent_bytes} bytes"):
        await trio.aclose_forcefully(writer)

    assert stream.fileno() == -1
    assert len(await drain(peer)) > 0


async def test_closing_ends_a_wait_to_receive(pair: Pair) -> None:
    stream, _ = pair

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await stream.aclose()


async def test_the_number_of_a_closed_socket_is_somebody_elses(tcp: Pair, tmp_path: Path) -> None:
    """Whatever is done to a closed stream, the new owner of its number notices nothing."""
    stream, _ = tcp
    clog(stream)
    with pytest.raises(NotReady) as info:
        stream.poll_write(b"x")
    number = stream.fileno()
    await trio.aclose_forcefully(stream)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        os.dup2(file.fileno(), number)
        try:
            for poll in (
                lambda: stream.poll_write(b"x"),
                lambda: stream.poll_write_vectored([b"x", b"y"]),
                stream.poll_flush,
                stream.poll_shutdown,
            ):
                with pytest.raises(trio.ClosedResourceError):
                    poll()
            for call in (info.value.wait, lambda: stream.send_all(b"x"), stream.receive_some):
                with pytest.raises(trio.ClosedResourceError):
                    await call()
            await stream.aclose()
            await stream.release(clean=False)

            assert os.get_blocking(number)
            assert os.write(number, b"mine") == 4
        finally:
            os.close(number)
    assert (tmp_path / "file").read_bytes() == b"mine"


# ---- Connecting ------------------------------------------------------------------------------


async def test_open_tcp_stream_connects() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        stream = await open_tcp_stream("127.0.0.1", port, local_address="127.0.0.1")
        async with stream, await listener.accept() as peer:
            assert type(stream) is TcpStream
            await stream.send_all(b"hello")
            assert await peer.receive_some() == b"hello"


async def test_open_tcp_stream_says_that_nobody_listens() -> None:
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(OSError, match="connect"):
            await open_tcp_stream("127.0.0.1", port, happy_eyeballs_delay=None)


async def test_open_unix_stream_connects(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with trio.socket.socket(stdlib_socket.AF_UNIX) as listener:
        await listener.bind(str(path))
        listener.listen()
        stream = await open_unix_stream(path)
        async with stream, TcpStream((await listener.accept())[0]) as peer:
            assert type(stream) is TcpStream
            await stream.send_all(b"hello")
            assert await peer.receive_some() == b"hello"


async def test_open_unix_stream_says_that_there_is_no_socket(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await open_unix_stream(tmp_path / "socket")
