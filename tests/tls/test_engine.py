"""TLS without input or output: every interleaving, every split, every lie."""

from __future__ import annotations

import itertools
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings, strategies as st

from trio_asyncwrite._tls._engine import RECORD_SIZE, TlsEngine

from .._tls_helpers import (
    CLOSE_NOTIFY,
    INTERNAL_ERROR,
    KEY_UPDATED,
    MESSAGES,
    TLS12,
    TLS13,
    VERSIONS,
    carry,
    damages,
    engine_pair,
    established_pair,
    handmade,
    hello_request,
    new_client_context,
    new_server_context,
    say_messages,
    shake_hands,
    take,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Pair = tuple[TlsEngine, TlsEngine]

both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
both_sides = pytest.mark.parametrize("reverse", [False, True], ids=["client", "server"])


def write(engine: TlsEngine, *pieces: bytes) -> int:
    return engine.encrypt([memoryview(piece) for piece in pieces])


def read_all(engine: TlsEngine) -> tuple[bytes, bool]:
    """The plaintext that can be had, and whether it is the end."""
    received = b""
    while data := engine.decrypt(RECORD_SIZE):
        received += data
    return received, data is not None


# ---- Handshake ------------------------------------------------------------------------------


@both_versions
def test_handshake_byte_by_byte(version: ssl.TLSVersion) -> None:
    """However the ciphertext is cut up, the handshake comes to its end."""
    client, server = engine_pair(version)
    for source, target in itertools.cycle([(client, server), (server, client)]):
        done = source.handshake()
        for byte in take(source):
            target.handshake()
            target.feed(bytes([byte]))
        if done and target.handshake():
            break
    write(server, b"x" * 20000)
    carry(server, client)
    assert read_all(client) == (b"x" * 20000, False)


def test_a_handshake_that_is_complete_stays_so() -> None:
    client, server = established_pair()
    assert client.handshake()
    assert server.handshake()
    assert not client.out


@both_versions
def test_a_failed_handshake_fails_again_and_leaves_one_alert(version: ssl.TLSVersion) -> None:
    """OpenSSL tells the reason once; the engine keeps it."""
    client, server = engine_pair(version, client=ssl.create_default_context())
    client.handshake()
    carry(client, server)
    server.handshake()
    carry(server, client)
    for _ in range(2):
        with pytest.raises(ssl.SSLCertVerificationError):
            client.handshake()
    alert = take(client)
    assert alert
    server.feed(alert)
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match="(?i)unknown ca"):
            server.handshake()


@both_versions
def test_the_transport_ends_during_the_handshake(version: ssl.TLSVersion) -> None:
    client, server = engine_pair(version)
    client.feed(b"")
    with pytest.raises(ssl.SSLEOFError, match="during the handshake"):
        client.handshake()
    carry(client, server)
    server.feed(b"")
    with pytest.raises(ssl.SSLEOFError, match="during the handshake"):
        server.handshake()


def test_tickets_wait_for_the_first_write() -> None:
    """A TLS 1.3 server says nothing after the handshake before it has something to say."""
    client, server = established_pair()
    assert not server.out
    assert read_all(server) == (b"", False)
    assert not server.out
    write(server, b"x")
    assert len(server.out) > 200
    carry(server, client)
    assert read_all(client) == (b"x", False)


def test_tickets_go_before_a_close_notify() -> None:
    client, server = established_pair()
    server.close_notify()
    assert len(server.out) > 200
    carry(server, client)
    assert read_all(client) == (b"", True)


@both_versions
def test_session_resumption(version: ssl.TLSVersion) -> None:
    """With TLS 1.3 the session is complete once the ticket was read."""
    client, server = established_pair(version)
    write(server, b"x")
    carry(server, client)
    assert read_all(client) == (b"x", False)
    assert not client.ssl_object.session_reused

    again, server = engine_pair(version)
    again.ssl_object.session = client.ssl_object.session
    shake_hands(again, server)
    assert again.ssl_object.session_reused


# ---- Plaintext and ciphertext ---------------------------------------------------------------


@both_versions
def test_pieces_are_encrypted_in_order_and_empty_ones_skipped(version: ssl.TLSVersion) -> None:
    client, server = established_pair(version)
    assert write(client, b"", b"one", b"", b"two", b"x" * 40000, b"") == 40006
    assert write(client) == write(client, b"") == 0
    carry(client, server)
    assert read_all(server)[0] == b"onetwo" + b"x" * 40000


def test_pieces_that_were_encrypted_before_a_renegotiation_are_counted() -> None:
    """Law 1, also when the transport has ended: the first call counts them, the next one fails."""

    class Renegotiating:
        def __init__(self) -> None:
            self.answers: list[Any] = [3, ssl.SSLWantReadError()]

        def write(self, _data: object) -> int:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return int(answer)

    engine, _ = established_pair(TLS12)
    engine.feed(b"")
    engine.ssl_object = Renegotiating()  # type: ignore[assignment]
    assert write(engine, b"abc", b"def") == 3
    engine.ssl_object = Renegotiating()  # type: ignore[assignment]
    engine.ssl_object.write(b"")
    with pytest.raises(ssl.SSLEOFError):
        write(engine, b"def")


@both_versions
def test_decrypt_returns_what_was_asked_for_at_most(version: ssl.TLSVersion) -> None:
    """Several small records come together; a large one is cut."""
    client, server = established_pair(version)
    for word in (b"one", b"two", b"three"):
        write(client, word)
    carry(client, server)
    assert server.decrypt(4) == b"onet"
    assert server.pending() == 2
    assert server.decrypt(1 << 60) == b"wothree"
    assert server.decrypt(1) is None
    write(client, bytes(2 * RECORD_SIZE))
    carry(client, server)
    assert server.decrypt(RECORD_SIZE + 1) == bytes(RECORD_SIZE + 1)
    assert server.decrypt(RECORD_SIZE) == bytes(RECORD_SIZE - 1)


@both_versions
def test_it_is_known_when_decrypt_would_be_in_vain(version: ssl.TLSVersion) -> None:
    client, server = established_pair(version)
    carry(server, client)
    read_all(client)
    assert client.needs_ciphertext()
    write(server, b"one")
    record = take(server)
    client.feed(record[:-1])
    assert not client.needs_ciphertext()  # OpenSSL has not seen it yet
    assert client.decrypt(3) is None
    assert client.needs_ciphertext()
    client.feed(record[-1:])
    assert client.decrypt(2) == b"on"
    assert not client.needs_ciphertext()
    assert client.decrypt(2) == b"e"
    assert client.needs_ciphertext()
    client.unread(b"e")
    assert not client.needs_ciphertext()
    assert client.decrypt(2) == b"e"
    client.feed(b"")
    assert not client.needs_ciphertext()  # it is truncated
    server.close_notify()
    client.feed(take(server))
    assert client.decrypt(2) == b""
    assert not client.needs_ciphertext()  # it is at its end


def test_after_a_failure_decrypt_has_that_to_tell() -> None:
    client, _ = established_pair()
    client.feed(b"this is no TLS")
    with pytest.raises(ssl.SSLError):
        client.decrypt(1)
    assert not client.needs_ciphertext()


def test_unread_puts_back() -> None:
    client, server = established_pair()
    write(client, b"one two")
    carry(client, server)
    server.unread(server.decrypt(3) or b"")
    server.unread(b"")
    assert server.pending() == 7
    assert server.decrypt(2) == b"on"
    assert read_all(server) == (b"e two", False)


def test_ciphertext_that_has_gone_is_not_kept() -> None:
    """A slice of nothing would still keep all of what it was sliced from."""
    client, _ = established_pair()
    write(client, bytes(RECORD_SIZE))
    client.sent(10)
    assert len(client.out) > RECORD_SIZE
    client.sent(len(client.out))
    assert type(client.out) is bytes
    assert not client.out


@both_versions
def test_what_is_not_sent_stays_in_order(version: ssl.TLSVersion) -> None:
    client, server = established_pair(version)
    for word in (b"one", b"two", b"three"):
        write(client, word)
        server.feed(bytes(client.out[:7]))
        client.sent(7)
    carry(client, server)
    assert read_all(server)[0] == b"onetwothree"


# ---- Half-close -----------------------------------------------------------------------------


@both_versions
@both_sides
def test_half_close_at_any_split_of_what_arrives(version: ssl.TLSVersion, reverse: bool) -> None:
    """Undelivered plaintext, whole and partial records: all of it comes out after our end."""
    text = b"0123456789"
    for split in itertools.count():
        one, other = established_pair(version)
        if reverse:
            one, other = other, one
        write(other, text)
        first = take(other)
        write(other, text)
        second = take(other)
        if split == len(second):
            break
        one.feed(first + second[:split])
        assert one.decrypt(3) == text[:3]  # the rest of the record is decrypted already
        for _ in range(2):
            one.close_notify()
        assert one.sent_close_notify
        assert not one.received_close_notify
        assert one.pending() == 7
        one.feed(second[split:])
        carry(one, other)
        assert read_all(other) == (b"", True)
        write(other, text)  # the peer goes on
        carry(other, one)
        assert read_all(one) == (text[3:] + text + text, False)
        other.close_notify()
        carry(other, one)
        assert read_all(one) == (b"", True)
        assert one.received_close_notify


@both_versions
@both_sides
def test_close_notify_from_the_peer_first(version: ssl.TLSVersion, reverse: bool) -> None:
    one, other = established_pair(version)
    if reverse:
        one, other = other, one
    write(other, b"last words")
    other.close_notify()
    carry(other, one)
    assert read_all(one) == (b"last words", True)
    assert one.received_close_notify
    write(one, b"not mine")
    one.close_notify()
    carry(one, other)
    assert read_all(other) == (b"not mine", True)
    assert read_all(one) == (b"", True)


@both_versions
def test_both_close_at_the_same_time(version: ssl.TLSVersion) -> None:
    client, server = established_pair(version)
    for engine in (client, server):
        write(engine, b"words")
        engine.close_notify()
    carry(client, server)
    carry(server, client)
    for engine in (client, server):
        assert read_all(engine) == (b"words", True)


@both_versions
def test_close_notify_when_the_peers_has_been_read_completes_at_once(
    version: ssl.TLSVersion,
) -> None:
    client, server = established_pair(version)
    client.close_notify()
    carry(client, server)
    assert read_all(server) == (b"", True)
    server.close_notify()
    assert server.received_close_notify


@both_versions
def test_what_follows_the_end_is_left_alone(version: ssl.TLSVersion) -> None:
    client, server = established_pair(version)
    write(client, b"secret")
    client.close_notify()
    server.feed(take(client) + b"plain text")
    assert read_all(server) == (b"secret", True)
    server.close_notify()
    assert server.decrypt(10) == b""
    assert server.trailing() == b"plain text"


# ---- Ends that are none ---------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("option", [True, False], ids=["ignoring", "not ignoring"])
def test_truncation_at_every_byte(version: ssl.TLSVersion, option: bool) -> None:
    """Only a close_notify is an end, whatever OP_IGNORE_UNEXPECTED_EOF says."""
    context = new_server_context(version)
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    if not option:
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF

    def new_pair() -> tuple[TlsEngine, TlsEngine, list[bytes]]:
        client, server = engine_pair(version, server=context)
        shake_hands(client, server)
        write(client, b"one")
        first = take(client)
        write(client, b"two")
        client.close_notify()
        return client, server, [first, take(client)]

    _, _, (first, rest) = new_pair()
    whole = len(first + rest)
    for cut in range(whole + 1):
        _, server, (first, rest) = new_pair()
        server.feed((first + rest)[:cut])
        server.feed(b"")
        received = b""
        if cut == whole:
            assert read_all(server) == (b"onetwo", True)
            continue
        with pytest.raises(ssl.SSLEOFError, match="without a close_notify"):
            while True:
                received += server.decrypt(100) or b""
        assert b"onetwo".startswith(received)
        assert (b"one" in received) == (cut >= len(first))
        with pytest.raises(ssl.SSLEOFError):
            server.decrypt(100)
        assert not server.received_close_notify


@both_versions
@both_sides
def test_a_corrupt_record_is_an_error_for_ever(version: ssl.TLSVersion, reverse: bool) -> None:
    """What came before it is good; the peer is told; nothing that follows counts."""
    one, other = established_pair(version)
    if reverse:
        one, other = other, one
    write(other, b"good")
    good = take(other)
    write(other, b"evil")
    evil = bytearray(take(other))
    evil[-1] ^= 1
    write(other, b"more")
    other.close_notify()
    one.feed(good + evil + take(other))
    assert one.decrypt(100) == b"good"
    verbs: list[Callable[[], Any]] = [
        lambda: one.decrypt(100),
        lambda: write(one, b"x"),
        one.close_notify,
    ]
    for verb in verbs * 2:
        with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
            verb()
    assert not one.received_close_notify
    carry(one, other)
    for _ in range(3):  # asked again, OpenSSL calls it a clean end
        with pytest.raises(ssl.SSLError, match="(?i)alert bad record mac"):
            other.decrypt(100)
    assert not other.received_close_notify


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
def test_a_fatal_alert_is_no_end(server_side: bool, tmp_path: Path) -> None:
    engine, peer = handmade(tmp_path / "keys", server_side=server_side)
    engine.feed(peer.data(b"words") + peer.alert(INTERNAL_ERROR) + peer.alert(CLOSE_NOTIFY))
    assert engine.decrypt(100) == b"words"
    for _ in range(3):
        with pytest.raises(ssl.SSLError, match="(?i)alert internal error"):
            engine.decrypt(100)
        with pytest.raises(ssl.SSLError, match="(?i)alert internal error"):
            write(engine, b"x")
    assert not engine.received_close_notify


def test_an_error_met_in_writing_is_known_to_the_reader() -> None:
    """Whichever verb hears it: OpenSSL tells it once."""
    client, _ = established_pair()

    class FailedObject:
        def write(self, data: bytes) -> int:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the reason")

    client.ssl_object = FailedObject()  # type: ignore[assignment]
    with pytest.raises(ssl.SSLError, match="the reason"):
        write(client, b"x")
    with pytest.raises(ssl.SSLError, match="the reason"):
        client.decrypt(1)


# ---- After the handshake --------------------------------------------------------------------


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
def test_a_key_update_is_answered(server_side: bool, tmp_path: Path) -> None:
    """Both directions change their keys, whatever is under way; tickets go first."""
    engine, peer = handmade(tmp_path / "keys", server_side=server_side)
    engine.feed(peer.data(b"old") + peer.key_update() + peer.data(b"new"))
    assert engine.decrypt(100) == b"oldnew"
    write(engine, b"answer")
    assert peer.read(take(engine)) == [KEY_UPDATED, (23, b"answer")]
    engine.feed(peer.key_update(requested=False) + peer.data(b"newer"))
    assert engine.decrypt(100) == b"newer"
    assert not engine.out
    engine.feed(peer.key_update() + peer.alert(CLOSE_NOTIFY))
    assert engine.decrypt(100) == b""
    engine.close_notify()
    assert peer.read(take(engine))[-1] == (21, CLOSE_NOTIFY)


def test_a_key_update_after_our_end_is_understood(tmp_path: Path) -> None:
    engine, peer = handmade(tmp_path / "keys")
    engine.close_notify()
    assert peer.read(take(engine)) == [(21, CLOSE_NOTIFY)]
    engine.feed(peer.key_update() + peer.data(b"x") + peer.alert(CLOSE_NOTIFY))
    assert read_all(engine) == (b"x", True)
    assert not engine.out


def test_answers_are_no_longer_than_what_they_answer(tmp_path: Path) -> None:
    """What bounds the queue of a peer that makes us answer and does not read."""
    engine, peer = handmade(tmp_path / "keys", server_side=False)
    flood = b"".join(peer.key_update() for _ in range(500))
    engine.feed(flood)
    assert engine.decrypt(100) is None
    assert 400 * 27 < len(engine.out) <= len(flood)
    assert set(peer.read(take(engine))) == {KEY_UPDATED}


def test_a_renegotiation_holds_up_the_writer(tmp_path: Path) -> None:
    """TLS 1.2 only: nothing is accepted before it is through; it may fail, and never hang."""
    client, _ = engine_pair(TLS12)
    client.feed(hello_request(client, tmp_path / "keys"))
    assert client.decrypt(100) is None
    assert len(take(client)) > 100  # a ClientHello
    assert write(client, b"x") == 0
    assert not client.out
    client.feed(b"")
    with pytest.raises(ssl.SSLEOFError, match="during a renegotiation"):
        write(client, b"x")
    with pytest.raises(ssl.SSLError, match="(?i)in.init"):
        client.close_notify()


# ---- Hypothesis -----------------------------------------------------------------------------

sides = st.sampled_from([0, 1])
operations = st.one_of(
    st.tuples(st.just("write"), sides, st.sampled_from([1, 5, 1000, RECORD_SIZE, 40000])),
    st.tuples(st.just("read"), sides, st.sampled_from([1, 7, 5000, 100000])),
    st.tuples(st.just("deliver"), sides, st.sampled_from([1, 4, 5, 100, 20000, 1 << 20])),
    st.tuples(st.just("close"), sides, st.just(0)),
)


class Model:
    """Two engines and the wire between them, and what ought to come out."""

    def __init__(self, version: ssl.TLSVersion) -> None:
        self.engines = engine_pair(version)
        self.wire = [b"", b""]  # what the other one has sent, for each
        self.written = [b"", b""]
        self.read = [b"", b""]
        self.closed = [False, False]
        self.ended = [False, False]

    def do(self, operation: str, side: int, size: int) -> None:
        engine = self.engines[side]
        if operation != "deliver" and not engine.handshake():
            pass
        elif operation == "write":
            if not self.closed[side]:
                start = len(self.written[side])
                text = bytes((start + i) % 251 for i in range(size))
                assert write(engine, text) == size
                self.written[side] += text
        elif operation == "read":
            in_vain = engine.needs_ciphertext()
            data = engine.decrypt(size)
            assert data is None or (len(data) <= size and not in_vain)
            self.ended[side] = data == b""
            self.read[side] += data or b""
        elif operation == "close":
            engine.close_notify()
            self.closed[side] = True
        elif self.wire[side]:
            engine.feed(self.wire[side][:size])
            self.wire[side] = self.wire[side][size:]
        self.wire[1 - side] += take(engine)
        self.check()

    def check(self) -> None:
        for side, other in ((0, 1), (1, 0)):
            assert self.written[other].startswith(self.read[side])
            if self.ended[side]:
                assert self.closed[other]
                assert self.read[side] == self.written[other]

    def finish(self) -> None:
        for _ in range(4):  # as many flights as the longest handshake has
            for side in (0, 1):
                self.do("deliver", side, 1 << 30)
                self.do("read", side, 1 << 30)
        for side, other in ((0, 1), (1, 0)):
            while not self.ended[side] and len(self.read[side]) < len(self.written[other]):
                self.do("read", side, 1 << 20)
            self.do("read", side, 1 << 20)
            assert self.read[side] == self.written[other]
            assert self.ended[side] == self.closed[other]


@pytest.mark.outer
@both_versions
@given(script=st.lists(operations, max_size=40))
@settings(max_examples=60)
def test_any_interleaving_equals_the_model(version: ssl.TLSVersion, script: list[Any]) -> None:
    """Writes, reads, ends and partial deliveries on both ends, in any order."""
    model = Model(version)
    for operation in script:
        model.do(*operation)
    model.finish()


@pytest.mark.slow
@both_versions
@given(script=st.lists(operations, max_size=120))
@settings(max_examples=3000)
def test_any_interleaving_equals_the_model_at_length(
    version: ssl.TLSVersion, script: list[Any]
) -> None:
    model = Model(version)
    for operation in script:
        model.do(*operation)
    model.finish()


def check_damaged(
    version: ssl.TLSVersion,
    reverse: bool,
    damage: Callable[[list[bytes]], bytes],
    chunk: int,
) -> None:
    reader, writer = established_pair(version)
    if reverse:
        reader, writer = writer, reader
    parts = say_messages(writer)
    ciphertext = damage(parts)
    if ciphertext.startswith(b"".join(parts)):
        return  # nothing was damaged, or what comes after the end
    received = b""
    with pytest.raises(ssl.SSLError):
        for start in range(0, len(ciphertext), chunk):
            reader.feed(ciphertext[start : start + chunk])
            received += reader.decrypt(100000) or b""
        reader.feed(b"")
        while (data := reader.decrypt(100000)) != b"":
            received += data or b""
    assert b"".join(MESSAGES).startswith(received)
    assert not reader.received_close_notify
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            reader.decrypt(1)


@pytest.mark.outer
@both_versions
@both_sides
@given(damage=damages(), chunk=st.sampled_from([1, 30, 1 << 20]))
@settings(max_examples=60)
def test_damage_is_an_error_and_never_wrong_plaintext(
    version: ssl.TLSVersion, reverse: bool, damage: Any, chunk: int
) -> None:
    """Corruption, truncation, loss, reordering, repetition, insertion."""
    check_damaged(version, reverse, damage, chunk)


@pytest.mark.slow
@both_versions
@both_sides
@given(damage=damages(), chunk=st.integers(1, 2000))
@settings(max_examples=3000)
def test_damage_is_an_error_and_never_wrong_plaintext_at_length(
    version: ssl.TLSVersion, reverse: bool, damage: Any, chunk: int
) -> None:
    check_damaged(version, reverse, damage, chunk)


@both_versions
@given(garbage=st.binary(min_size=1, max_size=3000))
@settings(max_examples=50)
@example(garbage=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
@example(garbage=b"HTTP/1.1 400 Bad Request\r\n\r\n")
def test_garbage_instead_of_a_handshake(version: ssl.TLSVersion, garbage: bytes) -> None:
    for engine in engine_pair(version):
        engine.handshake()
        engine.feed(garbage)
        engine.feed(b"")
        for _ in range(2):
            with pytest.raises(ssl.SSLError):
                engine.handshake()
        assert not engine.established


def test_contexts_of_different_versions_do_not_agree() -> None:
    client, server = engine_pair(client=new_client_context(TLS12), server=new_server_context(TLS13))
    client.handshake()
    carry(client, server)
    with pytest.raises(ssl.SSLError, match=r"(?i)unsupported.protocol"):
        server.handshake()
    carry(server, client)
    with pytest.raises(ssl.SSLError, match="(?i)alert protocol version"):
        client.handshake()


# ---- How much of a write has gone ----------------------------------------------------------


@both_versions
@pytest.mark.parametrize("pieces", [[1], [RECORD_SIZE], [RECORD_SIZE + 1], [5, 40_000, 7, 16384]])
def test_plaintext_counts_record_by_record(version: ssl.TLSVersion, pieces: list[int]) -> None:
    """A server's tickets, which go first, carry none."""
    _, server = established_pair(version)
    assert server.encrypt([bytes(size) for size in pieces]) == sum(pieces)
    records = bytes(server.out)
    for gone in {*range(0, len(records), 997), *range(len(records) - 30, len(records) + 1)}:
        count = server.plaintext_in(records, gone)
        if gone >= len(records):
            assert count == sum(pieces)
        peer, sender = established_pair(version)
        sender.encrypt([bytes(size) for size in pieces])
        if cut := take(sender)[:gone]:
            peer.feed(cut)
        assert count == len(peer.decrypt(1 << 20) or b"")


def test_plaintext_counts_in_the_small_records_that_a_peer_has_asked_for() -> None:
    """By max_fragment_length, which Python's clients cannot ask for."""
    engine, _ = established_pair()
    engine._pieces = [1500, 10]
    records = b"".join(
        b"\x17\x03\x03" + (size + 17).to_bytes(2, "big") + bytes(size + 17)
        for size in (1024, 476, 10)
    )
    assert engine.plaintext_in(records, len(records)) == 1510
    assert engine.plaintext_in(records, len(records) - 1) == 1500
    assert engine.plaintext_in(records, 1024 + 22) == 1024
    assert engine.plaintext_in(records, 1024 + 21) == 0


def test_plaintext_in_records_of_an_unknown_kind_counts_as_gone() -> None:
    """With the first of them. Nothing is sent twice, then."""
    engine, _ = established_pair()
    engine._pieces = [100]
    empty = b"\x17\x03\x01\x00\x00"
    assert engine.plaintext_in(empty * 2, 4) == 0
    assert engine.plaintext_in(empty * 2, 5) == 100


@pytest.mark.parametrize("error", [ssl.SSLError, ssl.SSLWantReadError], ids=lambda e: e.__name__)
def test_what_was_encrypted_before_a_failure_counts(
    error: type[ssl.SSLError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that raises has encrypted nothing: the records of the first pieces will be sent."""
    client, server = established_pair()
    write = client.ssl_object.write
    left = 2

    def write_two(data: Any) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise error(1, "failed")
        return write(data)

    monkeypatch.setattr(client.ssl_object, "write", write_two)
    assert client.encrypt([b"one", b"two", b"three"]) == 6
    carry(client, server)
    assert server.decrypt(100) == b"onetwo"
    if error is ssl.SSLError:
        with pytest.raises(ssl.SSLError, match="failed"):
            client.encrypt([b"three"])
    else:
        assert client.encrypt([b"three"]) == 0
