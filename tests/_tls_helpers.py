"""Certificates, contexts, connected pairs, and a peer that writes its TLS records by hand."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import inspect
import ssl
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import trio
import trio.abc
import trio.testing
import trustme
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # what trustme is made of
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import strategies as st

from trio_asyncwrite import AsyncReadWrite, NotReady, TlsStream, duplex
from trio_asyncwrite._tls._engine import TlsEngine

from ._patience import wait_all_tasks_blocked
from ._streams import tcp_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    Pair = tuple[trio.abc.Stream, trio.abc.Stream]
    Maker = Callable[[], Awaitable[Pair]]

T = TypeVar("T", bound=trio.abc.Stream)

HOST = "server.example.org"
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = (TLS12, TLS13)


# ---- Running --------------------------------------------------------------------------------


def _run(
    main: Callable[[], Awaitable[object]], *, clock: trio.abc.Clock | None, instruments: Any
) -> None:
    async def guarded() -> None:
        with trio.fail_after(1_000_000):
            await main()

    # Loopback connections need a moment now and then, and a busy machine some seconds. A test in
    # which time has to pass asks for a clock that jumps at once.
    clock = clock or trio.testing.MockClock(autojump_threshold=10)
    trio.run(guarded, clock=clock, instruments=instruments)


def find_hangs(module: dict[str, Any]) -> None:
    """Run the module's tests with a clock that finds a hang: nothing else lets so much time pass.

    (A mark of the module would come after the one that pytest-trio's trio_mode puts on each test.)
    """
    for name, test in module.items():
        if name.startswith("test_") and inspect.iscoroutinefunction(test):
            pytest.mark.trio(run=_run)(test)


# ---- Contexts: each is made once and then shared, for they are slow to make ----------------


@functools.cache
def ca(name: str) -> trustme.CA:
    """A certificate authority: "ours", or a stranger."""
    return trustme.CA(organization_name=name)


@functools.cache
def certificate(host: str = HOST, issuer: str = "ours") -> trustme.LeafCert:
    return ca(issuer).issue_cert(host)


def new_server_context(version: ssl.TLSVersion = TLS13) -> ssl.SSLContext:
    """A context of one's own, to be changed."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = context.maximum_version = version
    certificate().configure_cert(context)
    return context


def new_client_context(version: ssl.TLSVersion = TLS13) -> ssl.SSLContext:
    """A context of one's own, to be changed."""
    # A default context that trusts nobody else, and so need not read all that the system trusts.
    context = ssl.create_default_context(cadata=ca("ours").cert_pem.bytes().decode())
    context.minimum_version = context.maximum_version = version
    return context


server_context = functools.cache(new_server_context)
client_context = functools.cache(new_client_context)


# ---- Engines --------------------------------------------------------------------------------


def engine_pair(
    version: ssl.TLSVersion = TLS13,
    *,
    client: ssl.SSLContext | None = None,
    server: ssl.SSLContext | None = None,
) -> tuple[TlsEngine, TlsEngine]:
    """A client's and a server's engine that have not spoken yet."""
    return (
        TlsEngine(client or client_context(version), server_side=False, server_hostname=HOST),
        TlsEngine(server or server_context(version), server_side=True, server_hostname=None),
    )


def take(engine: TlsEngine) -> bytes:
    """What the engine has to send."""
    ciphertext = bytes(engine.out)
    engine.sent(len(ciphertext))
    return ciphertext


def carry(source: TlsEngine, target: TlsEngine) -> bytes:
    """Give what one engine has to send to the other; what it was."""
    ciphertext = take(source)
    if ciphertext:
        target.feed(ciphertext)
    return ciphertext


def shake_hands(client: TlsEngine, server: TlsEngine) -> None:
    while not (client.handshake() and server.handshake()):
        carry(client, server)
        server.handshake()
        carry(server, client)


def established_pair(version: ssl.TLSVersion = TLS13) -> tuple[TlsEngine, TlsEngine]:
    client, server = engine_pair(version)
    shake_hands(client, server)
    return client, server


# ---- Streams --------------------------------------------------------------------------------


class SendAllOnly(trio.abc.Stream):
    """A stream that has nothing but what every stream must have."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def duplex_1() -> Pair:
    return duplex(1)


async def duplex_7() -> Pair:
    return duplex(7)


async def duplex_4096() -> Pair:
    return duplex(4096)


async def plain_pair() -> Pair:
    """Two streams whose cancelled sends lose count, over a connection that holds 4096 bytes."""
    left, right = duplex(4096)
    return SendAllOnly(left), SendAllOnly(right)


async def memory_pair() -> Pair:
    """Trio's own, which are never full."""
    return trio.testing.memory_stream_pair()


TRANSPORTS: tuple[Maker, ...] = (tcp_pair, duplex_1, duplex_7, duplex_4096, plain_pair)


def over(
    transports: tuple[T, T],
    version: ssl.TLSVersion = TLS13,
    *,
    client: ssl.SSLContext | None = None,
    server: ssl.SSLContext | None = None,
    kind: Callable[..., Any] = TlsStream,
    **options: Any,
) -> tuple[TlsStream[T], TlsStream[T]]:
    """A client's and a server's TLS stream over two connected transports."""
    left, right = transports
    return (
        kind(left, client or client_context(version), server_hostname=HOST, **options),
        kind(right, server or server_context(version), server_side=True, **options),
    )


def alone(transport: Any, *, server_side: bool = True, **options: Any) -> TlsStream[Any]:
    """One TLS stream, whose peer is something else."""
    if server_side:
        return TlsStream(transport, server_context(TLS13), server_side=True, **options)
    return TlsStream(transport, client_context(TLS13), server_hostname=HOST, **options)


async def both(
    left: Callable[[], Awaitable[object]], right: Callable[[], Awaitable[object]]
) -> None:
    """Run both at the same time."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left)
        nursery.start_soon(right)


async def open_tls(
    maker: Maker = duplex_4096, version: ssl.TLSVersion = TLS13, **options: Any
) -> tuple[TlsStream[Any], TlsStream[Any]]:
    """A client's and a server's TLS stream whose handshake is complete."""
    client, server = over(await maker(), version, **options)
    await both(client.do_handshake, server.do_handshake)
    return client, server


async def read_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        assert more, f"the stream ended after {len(data)} of {count} bytes"
        data += more
    return bytes(data)


# ---- Damage ---------------------------------------------------------------------------------

MESSAGES = (b"one", b"two" * 100, b"three")


def say_messages(engine: TlsEngine) -> list[bytes]:
    """All that an engine has to say: the messages and the end, record by record."""
    parts = []
    for message in MESSAGES:
        engine.encrypt([memoryview(message)])
        parts.append(take(engine))
    engine.close_notify()
    return [*parts, take(engine)]


@st.composite
def damages(draw: st.DrawFn) -> Callable[[list[bytes]], bytes]:
    """Ways to damage what is under way."""
    kind = draw(st.sampled_from(["flip", "replace", "cut", "drop", "swap", "repeat", "insert"]))
    # Fractions, since how long the ciphertext is, is not known yet.
    where = draw(st.integers(0, 9999))
    what = draw(st.binary(min_size=1, max_size=30))

    def damage(parts: list[bytes]) -> bytes:
        index = where * len(parts) // 10000
        whole = b"".join(parts)
        at = where * len(whole) // 10000
        if kind == "flip":
            return whole[:at] + bytes([whole[at] ^ (1 << what[0] % 8)]) + whole[at + 1 :]
        if kind == "replace":
            return whole[:at] + what + whole[at + len(what) :]
        if kind == "cut":
            return whole[:at]
        if kind == "drop":
            return b"".join(parts[:index] + parts[index + 1 :])
        if kind == "swap":
            return b"".join([*parts[:index], *parts[index + 1 :], parts[index]])
        if kind == "repeat":
            return b"".join([*parts[: index + 1], *parts[index:]])
        return whole[:at] + what + whole[at:]

    return damage


# ---- A peer that makes its records itself ---------------------------------------------------
#
# Python cannot make OpenSSL send a KeyUpdate or a HelloRequest, nor a fatal alert out of the
# blue. After a handshake that OpenSSL has done, this peer takes the keys from its key log and
# goes on by itself.

APPLICATION_DATA, HANDSHAKE, ALERT = 23, 22, 21
CLOSE_NOTIFY = b"\x01\x00"
INTERNAL_ERROR = b"\x02\x50"
HELLO_REQUEST = b"\x00\x00\x00\x00"


class _Direction:
    """The records of TLS 1.3 in one direction (RFC 8446, sections 5 and 7.2)."""

    def __init__(self, secret: bytes) -> None:
        self._use(secret)

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._aead = AESGCM(self._expand(b"key", 32))
        self._iv = int.from_bytes(self._expand(b"iv", 12), "big")
        self._count = 0

    def _expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
        return HKDFExpand(hashes.SHA384(), size, info).derive(self._secret)

    def update(self) -> None:
        self._use(self._expand(b"traffic upd", 48))

    def _nonce(self) -> bytes:
        nonce = self._iv ^ self._count
        self._count += 1
        return nonce.to_bytes(12, "big")

    def seal(self, kind: int, content: bytes) -> bytes:
        plaintext = content + bytes([kind])
        header = b"\x17\x03\x03" + (len(plaintext) + 16).to_bytes(2, "big")
        return header + self._aead.encrypt(self._nonce(), plaintext, header)

    def open(self, record: bytes) -> tuple[int, bytes]:
        plaintext = self._aead.decrypt(self._nonce(), record[5:], record[:5])
        return plaintext[-1], plaintext[:-1]


class HandmadePeer:
    """The other end of a TLS 1.3 connection, after the handshake."""

    def __init__(self, engine: TlsEngine, key_log: Path) -> None:
        cipher = engine.ssl_object.cipher()
        assert cipher is not None
        assert cipher[0] == "TLS_AES_256_GCM_SHA384"
        secrets = {}
        for line in key_log.read_text().splitlines()[-10:]:
            if not line.startswith("#"):
                name, _, secret = line.split()
                secrets[name] = bytes.fromhex(secret)
        ours, theirs = "CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"
        if engine.ssl_object.server_side:
            ours, theirs = theirs, ours
        self._sending = _Direction(secrets[ours])
        self._receiving = _Direction(secrets[theirs])
        self._partial = b""

    def data(self, plaintext: bytes) -> bytes:
        """A record of application data."""
        return self._sending.seal(APPLICATION_DATA, plaintext)

    def alert(self, alert: bytes) -> bytes:
        return self._sending.seal(ALERT, alert)

    def key_update(self, *, requested: bool = True) -> bytes:
        """A KeyUpdate, after which new keys are in use; perhaps one that wants to be answered."""
        record = self._sending.seal(HANDSHAKE, b"\x18\x00\x00\x01" + bytes([requested]))
        self._sending.update()
        return record

    def read(self, ciphertext: bytes) -> list[tuple[int, bytes]]:
        """The whole records in what has arrived; the tickets that a server sends are left out."""
        ciphertext = self._partial + ciphertext
        records = []
        while len(ciphertext) >= 5 and len(ciphertext) >= (
            end := 5 + int.from_bytes(ciphertext[3:5], "big")
        ):
            kind, content = self._receiving.open(ciphertext[:end])
            ciphertext = ciphertext[end:]
            if kind == HANDSHAKE and content[0] == 24:
                self._receiving.update()
            elif kind == HANDSHAKE and content[0] == 4:
                continue
            records.append((kind, content))
        self._partial = ciphertext
        return records


#: What an engine says to a KeyUpdate that was requested.
KEY_UPDATED = (HANDSHAKE, b"\x18\x00\x00\x01\x00")


def handmade(key_log: Path, *, server_side: bool = True) -> tuple[TlsEngine, HandmadePeer]:
    """An engine and its handmade peer, after the handshake."""
    engine = engine_pair()[server_side]
    return engine, handmade_peer(engine, key_log)


def handmade_peer(engine: TlsEngine, key_log: Path) -> HandmadePeer:
    """A handmade peer for an engine, which has no handshake behind it yet."""
    if engine.ssl_object.server_side:
        peer, _ = engine_pair(client=_logging_context(new_client_context, key_log))
        shake_hands(peer, engine)
    else:
        _, peer = engine_pair(server=_logging_context(new_server_context, key_log))
        shake_hands(engine, peer)
    return HandmadePeer(peer, key_log)


@functools.cache
def _logging_context(make: Callable[[], ssl.SSLContext], key_log: Path) -> ssl.SSLContext:
    context = make()
    context.keylog_filename = str(key_log)
    return context


def established(
    transports: tuple[T, T], version: ssl.TLSVersion = TLS13, **options: Any
) -> tuple[TlsStream[T], TlsStream[T]]:
    """A client's and a server's TLS stream whose engines have shaken hands past the transports."""
    client, server = over(transports, version, **options)
    shake_hands(client._engine, server._engine)
    return client, server


def hello_request(client: TlsEngine, key_log: Path) -> bytes:
    """The record by which a server asks a client of TLS 1.2, after their handshake, for another."""
    context = new_server_context(TLS12)
    context.set_ciphers("ECDHE+AES256+AESGCM")
    context.keylog_filename = str(key_log)
    _, server = engine_pair(TLS12, server=context)
    client.handshake()
    carry(client, server)
    server.handshake()
    server_random = carry(server, client)[11:43]  # from the ServerHello, which is not encrypted
    shake_hands(client, server)

    # RFC 5246, sections 5 and 6.3; RFC 5288 for AES-GCM.
    _, client_random, secret = key_log.read_text().split()[-3:]
    seed = b"key expansion" + server_random + bytes.fromhex(client_random)
    block, rolling = b"", seed
    while len(block) < 72:
        rolling = hmac.digest(bytes.fromhex(secret), rolling, hashlib.sha384)
        block += hmac.digest(bytes.fromhex(secret), rolling + seed, hashlib.sha384)
    key, salt = block[32:64], block[68:72]
    number = (1).to_bytes(8, "big")  # the server's Finished was number 0
    header = bytes([HANDSHAKE]) + b"\x03\x03"
    size = len(HELLO_REQUEST).to_bytes(2, "big")
    sealed = AESGCM(key).encrypt(salt + number, HELLO_REQUEST, number + header + size)
    return header + (len(number) + len(sealed)).to_bytes(2, "big") + number + sealed


# ---- What several modules of tests use -------------------------------------------------------

both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
both_sides = pytest.mark.parametrize("reverse", [False, True], ids=["client", "server"])
all_transports = pytest.mark.parametrize("maker", TRANSPORTS, ids=lambda maker: maker.__name__)
#: What is sent where the content does not matter; more than a record, and not a power of two.
TEXT = bytes(i % 251 for i in range(20000))


def text(size: int) -> bytes:
    return (TEXT * (size // len(TEXT) + 1))[:size]


class TransportError(Exception):
    """What no stream of ours raises."""


# A clogged stream that is closed forcefully loses what it has accepted, and says so.
lost_on_purpose = pytest.mark.filterwarnings("ignore:.*were never sent:ResourceWarning")


async def after_all_blocked(call: Callable[[], object]) -> None:
    await wait_all_tasks_blocked()
    call()


def spoilt(record: bytes) -> bytes:
    return record[:-1] + bytes([record[-1] ^ 1])


class Clogged(AsyncReadWrite):
    """A transport that takes some bytes, and no more until it is told to; or breaks."""

    def __init__(self, inner: Any, room: int) -> None:
        self.inner = inner
        self._left = room
        self._changed = trio.Event()
        self.wait: Callable[[], Awaitable[object]] = self._changed.wait
        self._error: Exception | None = None

    def poll_write(self, data: Any, /) -> int:
        if self._error is not None:
            raise self._error
        if not self._left:
            raise NotReady(self.wait)
        count: int = self.inner.poll_write(data[: self._left])
        self._left -= count
        return count

    def unclog(self) -> None:
        self._left = 1 << 60
        self._changed.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._changed.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes = await self.inner.receive_some(max_bytes)
        return data


@contextlib.contextmanager
def lost() -> Iterator[None]:
    """Something is lost on purpose here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(never sent|Buf was begun|accepted)", ResourceWarning)
        yield
