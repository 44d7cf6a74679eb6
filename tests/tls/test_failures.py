"""A transport that fails under TlsStream: in a poll, or in a wait."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import AsyncReadWrite, Buf, BufWriter, NotReady, TlsStream, duplex
from trio_asyncwrite._core._errors import BusyRefusal, ClosedRefusal
from trio_asyncwrite._core._stack import fail

from .._patience import wait_all_tasks_blocked
from .._tls_helpers import (
    HOST,
    TLS13,
    VERSIONS,
    client_context,
    engine_pair,
    established,
    find_hangs,
    handmade_peer,
    server_context,
    shake_hands,
    take,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio_asyncwrite._tls._engine import TlsEngine

    from .._tls_helpers import HandmadePeer

    Tls = TlsStream[Any]

both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])

RECORD = 16384
TEXT = bytes(i % 251 for i in range(4 * RECORD))


class TransportError(Exception):
    """What Trio knows nothing of."""


#: All kinds of exceptions: Trio's, one's own, and those that are no Exception.
ERRORS: tuple[type[BaseException], ...] = (
    trio.BrokenResourceError,
    TransportError,
    OSError,
    KeyboardInterrupt,
)
all_errors = pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)


class Transport(AsyncReadWrite):
    """A transport in memory that does as it is told."""

    def __init__(self) -> None:
        self.sent = bytearray()
        #: How many more bytes it takes.
        self.room = 1 << 60
        #: Raised by a poll once there is no room; without it, there is something to wait for.
        self.poll_error: BaseException | None = None
        self.wait: Callable[[], Awaitable[object]] = trio.sleep_forever
        self.polls = 0
        #: What is received, or raised.
        self.incoming: deque[bytes | BaseException] = deque()
        self.arrived = trio.Event()

    def poll_write(self, data: Any, /) -> int:
        self.polls += 1
        if not self.room:
            if self.poll_error is not None:
                raise self.poll_error
            raise NotReady(self.wait)
        part = bytes(data[: self.room])
        self.sent += part
        self.room -= len(part)
        return len(part)

    def arrive(self, *things: bytes | BaseException) -> None:
        self.incoming.extend(things)
        self.arrived.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.incoming:
            self.arrived = trio.Event()
            await self.arrived.wait()
        thing = self.incoming.popleft()
        if isinstance(thing, BaseException):
            raise thing
        return thing


def client_over(
    transport: Transport, version: ssl.TLSVersion = TLS13, **options: Any
) -> tuple[Tls, TlsEngine]:
    """A client that has shaken hands past its transport, and the server's engine."""
    stream: Tls = TlsStream(transport, client_context(version), server_hostname=HOST, **options)
    _, server = engine_pair(version)
    shake_hands(stream._engine, server)
    return stream, server


async def server_over(transport: Transport, tmp_path: Path) -> tuple[Tls, HandmadePeer]:
    """A server of TLS 1.3, and a client that can ask it for new keys."""
    stream: Tls = TlsStream(transport, server_context(TLS13), server_side=True)
    peer = handmade_peer(stream._engine, tmp_path / "keys")
    await stream.do_handshake()
    return stream, peer


def decrypted(peer: TlsEngine, transport: Transport) -> bytes:
    """All that the peer can make of what has gone."""
    if transport.sent:
        peer.feed(bytes(transport.sent))
        transport.sent.clear()
    received = bytearray()
    while data := peer.decrypt(1 << 20):
        received += data
    return bytes(received)


def told(error: type[BaseException]) -> type[BaseException]:
    """As which an error of a poll is raised: one of the operating system in Trio's words."""
    return trio.BrokenResourceError if issubclass(error, OSError) else error


def said(peer: TlsEngine, data: bytes) -> bytes:
    """The ciphertext of ``data``."""
    peer.encrypt([memoryview(data)])
    return take(peer)


# ---- A poll that fails ----------------------------------------------------------------------

#: How many bytes of ciphertext go before the failure: none, part of a record, whole records.
GONE = (0, 1, 100, 16500, 20000, 32900, 40000, 65536)


def write_one(stream: Tls) -> int:
    return stream.poll_write(TEXT)


def write_view(stream: Tls) -> int:
    return stream.poll_write(memoryview(bytearray(TEXT)))


def write_pieces(stream: Tls) -> int:
    """They make records of different lengths."""
    return stream.poll_write_vectored([TEXT[:100], b"", TEXT[100:20000], TEXT[20000:]])


@all_errors
@both_versions
@pytest.mark.parametrize("write", [write_one, write_view, write_pieces])
@pytest.mark.parametrize("gone", GONE)
def test_a_write_has_accepted_what_the_peer_can_read(
    write: Callable[[Tls], int], gone: int, version: ssl.TLSVersion, error: type[BaseException]
) -> None:
    """Law 1: who goes on behind it over another connection repeats nothing, and leaves no hole."""
    transport = Transport()
    stream, peer = client_over(transport, version)
    transport.room = gone
    transport.poll_error = failure = error("gone")
    accepted = 0
    with pytest.raises(told(error)) as caught:
        accepted = write(stream)
        assert accepted
        write(stream)
    assert failure in (caught.value, caught.value.__cause__)
    assert decrypted(peer, transport) == TEXT[:accepted]
    assert accepted >= gone - 16600
    assert stream.unsent_bytes == 0
    # It stays broken, and the transport is left alone, whatever that would say now.
    transport.room, polls = 1 << 60, transport.polls
    with pytest.raises(trio.BrokenResourceError):
        write(stream)
    assert transport.polls == polls


NEXT: dict[str, Callable[[Tls], Awaitable[object]]] = {
    "write": lambda stream: stream.write(b"x"),
    "send_all": lambda stream: stream.send_all(b"x"),
    "flush": lambda stream: stream.flush(),
    "wait": lambda stream: stream.wait_send_all_might_not_block(),
    "shutdown": lambda stream: stream.shutdown(),
    "aclose": lambda stream: stream.aclose(),
}


@pytest.mark.parametrize("operation", NEXT)
async def test_the_next_operation_raises_the_failure(operation: str) -> None:
    """Reading is not such an operation: it goes on, and has an answer of its own dropped."""
    transport = Transport()
    stream, peer = client_over(transport)
    transport.room = 20000
    transport.poll_error = failure = TransportError("gone")
    assert await stream.write(TEXT) == RECORD
    transport.arrive(said(peer, b"news"))
    assert await stream.receive_some() == b"news"
    with pytest.raises(TransportError) as caught:
        await NEXT[operation](stream)
    assert caught.value is failure
    await stream.aclose()
    assert stream.unsent_bytes == 0


@pytest.mark.parametrize("layer", [lambda tls: tls, BufWriter], ids=["bare", "buffered"])
async def test_a_cursor_is_exact_when_the_writer_fails(layer: Callable[[Any], Any]) -> None:
    """A layer above counts what it still holds; together they know of every byte."""
    transport = Transport()
    stream, peer = client_over(transport)
    writer = layer(stream)
    transport.room = 20000
    transport.poll_error = TransportError("gone")
    buf = Buf(TEXT)
    with pytest.raises(TransportError):
        await writer.write_all_buf(buf)
        await writer.flush()
    held = writer.unsent_bytes
    assert decrypted(peer, transport) == TEXT[: len(TEXT) - buf.remaining - held]
    await writer.aclose()


async def test_what_was_queued_before_the_failure_is_lost_and_counted() -> None:
    """What was accepted by an earlier write is no longer the caller's."""
    transport = Transport()
    stream, peer = client_over(transport)
    transport.room = 20000
    assert await stream.write(TEXT) == len(TEXT)
    transport.room, transport.poll_error = 0, TransportError("gone")
    transport.arrive(said(peer, b"news"))
    assert await stream.receive_some() == b"news"
    lost = stream.unsent_bytes
    assert len(TEXT) - 20000 <= lost < len(TEXT)
    with pytest.raises(TransportError):
        await stream.aclose()
    assert stream.unsent_bytes == lost


@pytest.mark.parametrize("refusal", [BusyRefusal, ClosedRefusal])
async def test_a_refusal_is_no_failure(refusal: type[Exception]) -> None:
    """Of the library's own. What was encrypted at that time is queued, and goes later, once."""
    transport = Transport()
    stream, peer = client_over(transport)
    transport.room, transport.poll_error = 100, refusal()
    assert await stream.write(TEXT[:5000]) == 5000
    transport.arrive(said(peer, b"news"))
    assert await stream.receive_some() == b"news"
    assert stream.unsent_bytes > 4000
    with pytest.raises(refusal):
        await stream.flush()
    transport.room = 1 << 60
    await stream.flush()
    assert decrypted(peer, transport) == TEXT[:5000]
    await trio.aclose_forcefully(stream)


class MarksItself(Transport):
    """A transport that is broken as soon as its poll has failed, as sockets are."""

    def poll_write(self, data: Any, /) -> int:
        try:
            return super().poll_write(data)
        except BaseException as exc:
            fail(self, exc)
            raise


async def broken_and_unheard(
    met_by: str,
    tmp_path: Path,
    make: type[Transport] = MarksItself,
    error: type[BaseException] = TransportError,
) -> Tls:
    """A stream whose transport has failed in a call that had something else to tell."""
    transport = make()
    stream, peer = await server_over(transport, tmp_path)
    transport.room = 20000 if met_by == "write" else 0
    transport.poll_error = error("gone")
    if met_by == "write":
        assert 0 < await stream.write(TEXT) < len(TEXT)
    else:
        transport.arrive(peer.key_update() + peer.key_update() + peer.data(b"news"))
        assert await stream.receive_some() == b"news"
    return stream


@pytest.mark.parametrize("error", [TransportError, OSError])
@pytest.mark.parametrize("make", [Transport, MarksItself])
@pytest.mark.parametrize("met_by", ["write", "reader"])
async def test_a_failure_that_nobody_was_told_of_is_raised_by_aclose(
    met_by: str, make: type[Transport], error: type[BaseException], tmp_path: Path
) -> None:
    """A write that had a count to return, or a reader with an answer of its own, has met it."""
    stream = await broken_and_unheard(met_by, tmp_path, make, error)
    with pytest.raises(told(error), match="gone"):
        await stream.aclose()


@pytest.mark.parametrize("layer", [lambda tls: tls, BufWriter], ids=["bare", "buffered"])
@pytest.mark.parametrize("met_by", ["write", "reader"])
async def test_a_failure_is_told_once(
    met_by: str, layer: Callable[[Any], Any], tmp_path: Path
) -> None:
    """Also through a layer above; unchanged, as every mistake in a user's layer."""
    stream = await broken_and_unheard(met_by, tmp_path)
    with pytest.raises(TransportError, match="gone"):
        await layer(stream).write(b"x")
    with pytest.raises(trio.BrokenResourceError, match="gone"):
        await stream.write(b"x")
    await stream.aclose()


async def test_a_mistake_in_a_transport_is_no_reason_to_wait_for_the_peer_s() -> None:
    """A handshake that cannot be sent waits for an alert; not if the transport itself is wrong."""
    transport = Transport()
    stream: Tls = TlsStream(transport, client_context(), server_hostname=HOST)
    transport.room, transport.poll_error = 0, TransportError("gone")
    with pytest.raises(TransportError):
        await stream.do_handshake()
    assert trio.current_time() < 1
    await stream.aclose()


async def test_a_peer_that_does_not_take_our_last_flight_may_say_why() -> None:
    """The handshake is complete by then as far as OpenSSL is concerned."""
    transport = Transport()
    stream: Tls = TlsStream(transport, client_context(), server_hostname=HOST)
    _, server = engine_pair()
    async with trio.open_nursery() as nursery:

        async def shake() -> None:
            with pytest.raises(trio.BrokenResourceError, match="the peer closed the connection"):
                await stream.do_handshake()

        nursery.start_soon(shake)
        await wait_all_tasks_blocked()
        server.feed(bytes(transport.sent))
        server.handshake()
        transport.room, transport.poll_error = 0, trio.BrokenResourceError("gone")
        transport.arrive(take(server), b"")
    await stream.aclose()


class Trickle(Transport):
    """It gives what has arrived byte by byte, and has some more at any time."""

    def poll_read(self, size: int, /) -> bytes:
        if not self.incoming:
            raise NotReady(trio.sleep_forever)
        thing = self.incoming.popleft()
        assert isinstance(thing, bytes)
        if thing[1:]:
            self.incoming.appendleft(thing[1:])
        return thing[:1]


async def test_a_reader_of_a_trickle_lets_other_tasks_run() -> None:
    transport = Trickle()
    stream, peer = client_over(transport)
    transport.arrive(said(peer, TEXT[:1000]))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        assert await stream.receive_some() == TEXT[:1000]
        nursery.cancel_scope.cancel()
    assert turns > 30
    await stream.aclose()


# ---- A wait that fails ----------------------------------------------------------------------


def failing_once(error: BaseException) -> Callable[[], Awaitable[None]]:
    errors = [error]

    async def wait() -> None:
        if not errors:
            await trio.sleep_forever()
        await wait_all_tasks_blocked()
        raise errors.pop()

    return wait


async def drive(poll: Callable[[], Any]) -> Any:
    """What the shell does, and nothing else."""
    while True:
        try:
            return poll()
        except NotReady as not_ready:
            wait = not_ready.wait
        await wait()


ALL_ERRORS = (*ERRORS, trio.TooSlowError, trio.BusyResourceError)


@pytest.mark.parametrize("error", ALL_ERRORS, ids=lambda error: error.__name__)
async def test_a_wait_to_send_that_fails_changes_nothing(error: type[BaseException]) -> None:
    """Law 2: it goes to the task that waits, whatever its type. The others poll again."""
    transport = Transport()
    stream, peer = client_over(transport)
    transport.room = 0
    assert stream.poll_write(TEXT) == len(TEXT)
    failure = error()
    transport.wait = failing_once(failure)
    waits = []
    for _ in range(2):
        with pytest.raises(NotReady) as not_ready:
            stream.poll_flush()
        waits.append(not_ready.value.wait)
    polled_again = trio.Event()

    async def second() -> None:
        await waits[1]()
        polled_again.set()

    async with trio.open_nursery() as nursery:
        with pytest.raises(error) as caught:
            nursery.start_soon(second)
            await waits[0]()
        assert caught.value is failure
        await polled_again.wait()
    assert stream.unsent_bytes == len(TEXT)
    transport.room = 1 << 60
    await stream.flush()
    assert decrypted(peer, transport) == TEXT
    await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("error", ALL_ERRORS, ids=lambda error: error.__name__)
async def test_a_reader_whose_answer_cannot_go_is_told_and_may_call_again(
    error: type[BaseException], tmp_path: Path
) -> None:
    """The answer to a key update is its own business; it stays queued, and so do later records."""
    transport = Transport()
    stream, peer = await server_over(transport, tmp_path)
    transport.sent.clear()
    transport.room = 0
    transport.wait = failing_once(error())
    transport.arrive(peer.key_update() + peer.key_update())
    with pytest.raises(error):
        await drive(lambda: stream.poll_read(10))
    transport.arrive(peer.data(b"data"))
    assert await stream.receive_some() == b"data"
    transport.room = 1 << 60
    assert await stream.write(b"new keys") == 8
    assert (23, b"new keys") in peer.read(bytes(transport.sent))
    await trio.aclose_forcefully(stream)


@pytest.mark.parametrize(
    ("error", "is_queued"),
    [(KeyboardInterrupt, False), (ZeroDivisionError, False), (ZeroDivisionError, True)],
)
async def test_an_answer_that_cannot_be_sent_costs_no_data(
    error: type[BaseException], tmp_path: Path, *, is_queued: bool
) -> None:
    """Ctrl-C, or a mistake in a layer below, comes out once; but data come first."""
    transport = Transport()
    stream, peer = await server_over(transport, tmp_path)
    transport.room = 0
    transport.arrive(peer.key_update() + peer.key_update() + peer.data(b"data"))
    if is_queued:  # the answer, by an earlier read
        assert await stream.receive_some() == b"data"
        transport.arrive(peer.data(b"data"))
    transport.poll_error = error()
    assert await stream.receive_some() == b"data"
    transport.arrive(peer.data(b"more"))
    assert await stream.receive_some() == b"more"
    with pytest.raises(error):
        await stream.write(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await stream.write(b"x")
    await trio.aclose_forcefully(stream)


async def test_without_data_the_reader_is_told_what_its_answer_has_met(tmp_path: Path) -> None:
    """Ctrl-C comes out at once, and not a second time."""
    transport = Transport()
    stream, peer = await server_over(transport, tmp_path)
    transport.room = 0
    transport.arrive(peer.key_update() + peer.key_update() + peer.data(b"data"))
    assert await stream.receive_some() == b"data"
    transport.poll_error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.write(b"x")
    await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("error", ALL_ERRORS[:-3] + ALL_ERRORS[-2:], ids=lambda e: e.__name__)
async def test_a_reader_is_not_told_what_a_writer_s_bytes_have_met(
    error: type[BaseException],
) -> None:
    """It only helps them along. What it waits for itself may come, and the bytes stay."""
    transport = Transport()
    stream, peer = client_over(transport)
    transport.room = 0
    assert stream.poll_write(TEXT) == len(TEXT)
    transport.wait = failing_once(error())
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await drive(lambda: stream.poll_read(10)) == b"news"

        if error is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                await drive(lambda: stream.poll_read(10))
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        transport.arrive(said(peer, b"news"))
    transport.room = 1 << 60
    await stream.flush()
    assert decrypted(peer, transport) == TEXT
    await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("error", ALL_ERRORS, ids=lambda error: error.__name__)
@pytest.mark.parametrize("queued", [False, True], ids=["idle", "queued"])
async def test_a_receive_that_fails_goes_to_the_caller_and_is_tried_again(
    error: type[BaseException], queued: bool
) -> None:
    """Law 2: the transport decides whether its next call works. Also while bytes are queued."""
    transport = Transport()
    stream, peer = client_over(transport)
    if queued:
        transport.room = 100
        assert stream.poll_write(TEXT) == len(TEXT)
    failure = error()
    transport.arrive(failure, said(peer, b"news"))
    with pytest.raises(error) as caught:
        await drive(lambda: stream.poll_read(10))
    assert caught.value is failure
    assert await drive(lambda: stream.poll_read(10)) == b"news"
    transport.room = 1 << 60
    await drive(stream.poll_flush)
    assert decrypted(peer, transport) == TEXT * queued
    await trio.aclose_forcefully(stream)


async def test_a_timeout_of_the_transport_does_not_end_reading() -> None:
    """With the public names: TooSlowError from its receive_some, and then data."""
    transport = Transport()
    stream, peer = client_over(transport)
    for word in (b"one", b"two"):
        transport.arrive(trio.TooSlowError(), said(peer, word))
        with pytest.raises(trio.TooSlowError):
            await stream.receive_some()
        assert await stream.receive_some() == word
    await stream.aclose()


async def test_when_both_waits_fail_nothing_is_lost() -> None:
    """The error of the receive is raised; the other one can be met again."""
    transport = Transport()
    stream, peer = client_over(transport)
    transport.room = 0
    assert stream.poll_write(TEXT) == len(TEXT)
    first, second = TransportError("receive"), TransportError("send")

    async def fail() -> None:
        await wait_all_tasks_blocked()
        raise second

    transport.wait = fail
    transport.arrive(first)
    with pytest.raises(TransportError) as caught:
        await drive(lambda: stream.poll_read(10))
    assert caught.value is first
    with pytest.raises(TransportError) as caught:
        await drive(stream.poll_flush)
    assert caught.value is second
    transport.room = 1 << 60
    await drive(stream.poll_flush)
    assert decrypted(peer, transport) == TEXT
    await trio.aclose_forcefully(stream)


async def test_a_task_that_waits_for_another_one_s_receive_polls_again() -> None:
    """Two tasks in a handshake: the one that receives is told, the other receives itself."""
    transport = Transport()
    stream: Tls = TlsStream(transport, client_context(), server_hostname=HOST)
    _, peer = engine_pair()
    told = []

    async def shake() -> None:
        try:
            await drive(stream._poll_handshake)
        except TransportError as exc:
            told.append(exc)

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(shake)
        await wait_all_tasks_blocked()
        peer.feed(bytes(transport.sent))
        peer.handshake()
        transport.arrive(TransportError(), take(peer))
    assert len(told) == 1
    assert stream.version() == "TLSv1.3"
    await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("cause", [None, ConnectionResetError()], ids=repr)
async def test_an_end_after_a_reset_is_none(cause: BaseException | None) -> None:
    """The kernel reports it once, and then an end-of-file, which would do for HTTPS."""
    transport = Transport()
    stream, peer = client_over(transport, https_compatible=True)
    failure = trio.BrokenResourceError("reset")
    failure.__cause__ = cause
    transport.arrive(failure, said(peer, b"news"), b"", b"")
    with pytest.raises(trio.BrokenResourceError) as caught:
        await stream.receive_some()
    assert caught.value is failure
    assert await stream.receive_some() == b"news"
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match="failed before") as caught:
            await stream.receive_some()
        assert caught.value.__cause__ is not None
    await trio.aclose_forcefully(stream)


# ---- A handshake that fails -----------------------------------------------------------------


def refused(transport: Transport) -> Tls:
    """A stream whose peer speaks no TLS; the alert about it cannot go."""
    transport.room = 0
    transport.arrive(b"GET / HTTP/1.1\r\n\r\n")
    return TlsStream(transport, server_context(), server_side=True)


def unheard(transport: Transport) -> Tls:
    """A stream whose peer takes nothing, and says nothing about it."""
    transport.room, transport.poll_error = 0, trio.BrokenResourceError("gone")
    return TlsStream(transport, client_context(), server_hostname=HOST)


REASONS = {refused: "(?i)http request", unheard: "gone"}
both_failures = pytest.mark.parametrize("make", REASONS)


@both_failures
@pytest.mark.parametrize("error", [TransportError, trio.TooSlowError, trio.BrokenResourceError])
async def test_the_reason_is_told_whatever_the_wait_about_it_meets(
    make: Callable[[Transport], Tls], error: type[Exception], autojump_clock: trio.testing.MockClock
) -> None:
    transport = Transport()
    stream = make(transport)
    transport.wait = failing_once(error())
    if make is unheard:
        transport.arrive(error())
    with pytest.raises(trio.BrokenResourceError, match=REASONS[make]):
        await stream.do_handshake()
    assert trio.current_time() == 0
    await stream.aclose()


@both_failures
def test_the_time_for_an_alert_ends_with_the_run(make: Callable[[Transport], Tls]) -> None:
    """Law 11: the next run has a clock of its own, by which the limit may be far away."""
    transport = Transport()
    stream = make(transport)

    async def give_up() -> None:
        await trio.sleep(1000)
        with trio.move_on_after(1) as scope:
            await drive(stream._poll_handshake)
        assert scope.cancelled_caught

    async def fail() -> None:
        with pytest.raises(trio.BrokenResourceError, match=REASONS[make]):
            await drive(stream._poll_handshake)
        assert trio.current_time() == 0
        await trio.aclose_forcefully(stream)

    for main in (give_up, fail):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@both_failures
async def test_the_time_for_an_alert_is_five_seconds(
    make: Callable[[Transport], Tls], autojump_clock: trio.testing.MockClock
) -> None:
    stream = make(Transport())
    with trio.move_on_after(2):
        await drive(stream._poll_handshake)
    with pytest.raises(trio.BrokenResourceError, match=REASONS[make]):
        await drive(stream._poll_handshake)
    assert trio.current_time() == 5
    await trio.aclose_forcefully(stream)


find_hangs(globals())


async def test_a_flush_of_the_transport_that_is_no_poll_is_told() -> None:
    class Wrong(AsyncReadWrite):
        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            return len(data)

        async def poll_flush(self) -> None:  # type: ignore[override]
            raise NotImplementedError

    tls = TlsStream(Wrong(), client_context(), server_hostname=HOST)
    with pytest.raises(TypeError, match=r"Wrong\.poll_flush\(\) must return None"):
        await tls.do_handshake()


# ---- Told once ------------------------------------------------------------------------------


class FailsToRead(AsyncReadWrite):
    """A layer of the user's, whose reading fails when it is told to."""

    fails = False

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def poll_read(self, size: int, /) -> bytes:
        if self.fails:
            raise OSError("gone")
        return bytes(self.inner.poll_read(size))


@pytest.mark.parametrize("is_told", [False, True])
@both_versions
async def test_a_close_tells_no_failure_of_reading_that_a_reader_was_told(
    version: ssl.TLSVersion, *, is_told: bool
) -> None:
    left, right = duplex(10_000)
    below = FailsToRead(left)
    client, server = established((below, right), version)
    below.fails = True
    if is_told:
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        await client.aclose()
    else:
        with pytest.raises(trio.BrokenResourceError):
            await client.aclose()
    await trio.aclose_forcefully(server)


@both_versions
async def test_a_close_tells_no_truncation_of_the_session_below_again(
    version: ssl.TLSVersion,
) -> None:
    left, right = duplex(100_000)
    outer, outer_server = established((left, right), version)
    inner, inner_server = established((outer, outer_server), version)
    await right.shutdown()  # without any close_notify
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await inner.receive_some()
    await inner.aclose()
    await trio.aclose_forcefully(inner_server)


async def test_an_end_that_the_peer_did_not_need_is_forgiven_for_good() -> None:
    transport = Transport()
    stream, peer = client_over(transport)
    peer.close_notify()
    transport.arrive(take(peer))
    assert await stream.receive_some() == b""
    transport.room, transport.poll_error = 0, OSError("gone")
    await stream.shutdown()
    await stream.shutdown()
    await stream.flush()
    await stream.aclose()
