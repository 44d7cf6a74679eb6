"""How a stack with TLS ends, as an independent peer sees it: OpenSSL over a plain socket."""

from __future__ import annotations

import contextlib
import ssl
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AsyncReadWrite,
    Buf,
    BufWriter,
    CloseOutcome,
    CloseReport,
    TlsStream,
    abort,
    close_gracefully,
    duplex,
    start_tls,
)

from .._patience import wait_all_tasks_blocked
from .._streams import clog, drain, tcp_pair
from .._tls_helpers import (
    CLOSE_NOTIFY,
    HOST,
    KEY_UPDATED,
    TLS13,
    Clogged,
    alone,
    both,
    client_context,
    established,
    find_hangs,
    handmade_peer,
    lost,
    lost_on_purpose,
    open_tls,
    read_exactly,
    server_context,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Tls = TlsStream[Any]


class End(NamedTuple):
    """How a peer sees a stream end."""

    close_notify: bool
    reset: bool


COMPLETE = End(close_notify=True, reset=False)
PLAIN = End(close_notify=False, reset=False)
RESET = End(close_notify=False, reset=True)


class Peer:
    """A server that uses OpenSSL by itself, over a plain socket."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = server_context(TLS13).wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.received = bytearray()
        self._close_notify = False

    async def shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send()
                self._incoming.write(await self._socket.recv(65536))
            else:
                await self._send()
                return

    async def _send(self) -> None:
        data = self._outgoing.read()
        while data:
            data = data[await self._socket.send(data) :]

    async def read_to_the_end(self) -> End:
        while True:
            try:
                data = await self._socket.recv(65536)
            except ConnectionResetError:
                return End(self._close_notify, reset=True)
            if not data:
                return End(self._close_notify, reset=False)
            self._incoming.write(data)
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                while plaintext := self._tls.read(65536):
                    self.received += plaintext
            # OpenSSL says no more than this of a close_notify that was read.
            with contextlib.suppress(ssl.SSLWantReadError):
                try:
                    self._close_notify = self._tls.read(1) == b"" or self._close_notify
                except ssl.SSLZeroReturnError:
                    self._close_notify = True

    async def end(self, *, says_so: bool) -> None:
        if says_so:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            with contextlib.suppress(OSError):
                await self._send()
        self._socket.close()


async def connect(*, https: bool) -> tuple[Tls, Peer]:
    left, right = await tcp_pair()
    stream: Tls = TlsStream(
        left, client_context(TLS13), server_hostname=HOST, https_compatible=https
    )
    peer = Peer(right.socket)
    await both(stream.do_handshake, peer.shake_hands)
    return stream, peer


# ---- The states of a stack, and the ways in which it is ended -------------------------------

MESSAGE = text(3_000_000)


async def give_up(call: Awaitable[object]) -> None:
    with trio.move_on_after(1) as scope:
        await call
    assert scope.cancelled_caught


async def whole(stream: Tls) -> bytes:
    await stream.send_all(MESSAGE[:5000])
    return MESSAGE[:5000]


async def holding(stream: Tls) -> bytes:
    """In a buffer that nobody refers to any more."""
    await BufWriter(stream).write_all(MESSAGE[:5000])
    return MESSAGE[:5000]


async def abandoned(stream: Tls) -> bytes:
    """All of it was accepted, and not all of it has gone."""
    count = clog(stream)
    assert stream.held_bytes
    await give_up(stream.send_all(b""))
    return bytes(count)


async def torn(stream: Tls) -> bytes:
    await give_up(stream.send_all(MESSAGE))
    return MESSAGE


async def unfinished(stream: Tls) -> bytes:
    await give_up(stream.write_all_buf(Buf(MESSAGE)))
    return MESSAGE


async def leave(stream: Tls) -> CloseReport | None:
    await stream.aclose()
    return None


async def leave_cancelled(stream: Tls) -> CloseReport | None:
    await trio.aclose_forcefully(stream)
    return None


async def leave_by_an_exception(stream: Tls) -> CloseReport | None:
    with pytest.raises(ZeroDivisionError):
        async with stream:
            raise ZeroDivisionError
    return None


async def leave_gracefully(stream: Tls) -> CloseReport | None:
    return await close_gracefully(stream)


async def leave_by_abort(stream: Tls) -> CloseReport | None:
    return await abort(stream)


STATES = [whole, holding, abandoned, torn, unfinished]
ENDS = [leave, leave_cancelled, leave_by_an_exception, leave_gracefully, leave_by_abort]


def expected(state: object, end: object, *, https: bool) -> End:
    """The table of how stacks end."""
    truncated = RESET if https else PLAIN
    if end is leave_by_abort:
        return RESET
    complete = PLAIN if https else COMPLETE
    if state in (whole, holding):
        return complete if end in (leave, leave_gracefully) else PLAIN
    if state is abandoned:
        return complete if end is leave_gracefully else truncated
    return truncated


@lost_on_purpose
@pytest.mark.parametrize("https", [False, True], ids=["strict", "https"])
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_the_table_of_ends(
    state: Callable[[Tls], Awaitable[bytes]],
    end: Callable[[Tls], Awaitable[CloseReport | None]],
    https: bool,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Close_notify or none, FIN or reset; and what is warned of, or reported."""
    stream, peer = await connect(https=https)
    message = await state(stream)
    seen: list[End] = []

    async def read() -> None:
        seen.append(await peer.read_to_the_end())
        await peer.end(says_so=not https)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with trio.open_nursery() as nursery:
            if end is leave_gracefully:
                nursery.start_soon(read)
            report = await end(stream)
            if end is not leave_gracefully:
                nursery.start_soon(read)
    told = [str(warning.message) for warning in caught if "was closed" in str(warning.message)]
    sees = expected(state, end, https=https)
    assert seen == [sees]
    assert message.startswith(peer.received)
    is_short = state not in (whole, holding)
    if end is leave_gracefully:
        assert report is not None
        is_cut = state in (torn, unfinished)
        assert report.outcome is (CloseOutcome.TRUNCATED if is_cut else CloseOutcome.CLEAN)
        assert told == []
    elif end is not leave_by_abort:
        assert len(told) == is_short
    if not is_short and end is not leave_by_abort:
        assert peer.received == message


# ---- Laws -----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [trio.TooSlowError, KeyError, OSError, trio.BrokenResourceError])
@pytest.mark.parametrize("verb", ["flush", "send_all", "receive_some", "aclose"])
async def test_an_error_of_a_wait_breaks_nothing(error: type[Exception], verb: str) -> None:
    """Through the shell: the caller is told, and may call again. A close ends cut off."""

    async def fail() -> None:
        await wait_all_tasks_blocked()
        raise error

    left, right = duplex(1 << 16)
    transport = Clogged(left, room=100)
    transport.wait = fail
    stream, peer = established((transport, right))
    if verb != "send_all":
        assert await stream.write(text(1000)) == 1000
    if verb == "receive_some":
        await peer.send_all(b"news")
        assert await stream.receive_some() == b"news"
    else:
        arguments = (text(1000),) if verb == "send_all" else ()
        with pytest.raises(error):
            await getattr(stream, verb)(*arguments)
    transport.unclog()
    if verb == "aclose":
        assert stream.unsent_bytes > 0
        with pytest.raises(trio.BrokenResourceError):
            await drain(peer)
    else:
        await stream.flush()
        assert await read_exactly(peer, 1000) == text(1000)
        await stream.aclose()
    await trio.aclose_forcefully(peer)


async def test_a_torn_stream_still_answers_its_peer(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Records that were begun are finished, so the keys stay in step. No close_notify follows."""
    raw, transport = duplex(4096)
    stream = alone(transport)
    peer = handmade_peer(stream._engine, tmp_path / "keys")
    await stream.do_handshake()
    await give_up(stream.send_all(text(200_000)))
    for call in (stream.write(b"x"), stream.shutdown(), stream.unwrap()):
        with pytest.raises(trio.BrokenResourceError, match="torn"):
            await call
    heard: list[tuple[int, bytes]] = []

    async def listen() -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async for data in raw:
                heard.extend(peer.read(data))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await raw.send_all(peer.key_update() + peer.key_update() + peer.data(b"news"))
        assert await stream.receive_some() == b"news"
        await stream.flush()
        await wait_all_tasks_blocked()
        assert KEY_UPDATED in heard
        with lost():
            await stream.aclose()
    data = b"".join(content for kind, content in heard if kind == 23)
    assert data
    assert text(200_000).startswith(data)
    assert (21, CLOSE_NOTIFY) not in heard


async def test_nothing_is_encrypted_while_a_layer_above_holds_bytes() -> None:
    """Making a TLS stream, start_tls and unwrap refuse; nothing happens."""
    left, right = duplex(1 << 16)
    writer = BufWriter(left)
    await writer.write(b"plain")
    with pytest.raises(ValueError, match="flush it"):
        TlsStream(left, client_context(), server_hostname=HOST)
    with pytest.raises(ValueError, match="flush it"):
        await start_tls(left, client_context(), server_hostname=HOST)
    await writer.flush()
    assert await right.receive_some() == b"plain"

    client, server = established((left, right))
    upper = BufWriter(client)
    await upper.write(b"secret")
    with pytest.raises(ValueError, match="flush it"):
        await client.unwrap()
    await upper.flush()
    assert await server.receive_some() == b"secret"
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


async def test_a_layer_that_was_made_before_start_tls_is_closed() -> None:
    """It would send plain text past the session; its error says what to do."""
    left, right = duplex(1 << 16)
    older = BufWriter(left)
    uppermost = BufWriter(older)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await trio.aclose_forcefully(await start_tls(right, server_context(), server_side=True))

        nursery.start_soon(serve)
        tls = await start_tls(left, client_context(), server_hostname=HOST)
    for writer in (older, uppermost):
        with pytest.raises(trio.ClosedResourceError, match=r"before start_tls\(\): make a new"):
            await writer.write(b"x")
    await trio.aclose_forcefully(tls)


class LastWords(BufWriter[Any]):
    """A user's layer that says something in its release."""

    async def release(self, *, clean: bool) -> None:
        await self.inner.do_handshake()
        self.said = True


async def test_a_user_s_release_may_use_the_handshake_of_the_stream_below() -> None:
    """The task that runs the close may use what is closed with it; nobody else may."""
    client, server = await open_tls()
    upper = LastWords(client)
    await client.aclose()
    assert upper.said
    with pytest.raises(trio.ClosedResourceError):
        await client.do_handshake()
    await trio.aclose_forcefully(server)


# ---- Input that nobody has read, below a user's layer ---------------------------------------


class Awaited(AsyncReadWrite):
    """A user's layer that reads as Trio's streams do, by an await."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data: bytes = await self.inner.receive_some(max_bytes)
        return data


class Polled(AsyncReadWrite):
    """A user's layer that passes everything on."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner


@pytest.mark.parametrize("layer", [Awaited, Polled])
async def test_tickets_below_a_user_s_layer_are_read_before_the_end(
    layer: Callable[[Any], Any],
) -> None:
    left, right = await tcp_pair()
    client, server = await open_tls(lambda: _ready((layer(left), right)))
    await server.send_all(b"behind the tickets")
    await client.send_all(text(5000))
    await client.aclose()
    assert client.discarded_bytes == 18
    await wait_all_tasks_blocked()
    assert await drain(server) == text(5000)
    await server.aclose()


async def _ready(value: Any) -> Any:
    return value


find_hangs(globals())
