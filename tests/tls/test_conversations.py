"""Random conversations, and random damage."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from trio_asyncwrite import (
    Buf,
    TlsStream,
    duplex,
)

from .._tls_helpers import (
    MESSAGES,
    SendAllOnly,
    both_sides,
    both_versions,
    damages,
    established,
    find_hangs,
    over,
    say_messages,
    text,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    Tls = TlsStream[Any]

patience = st.one_of(st.none(), st.integers(0, 20))
write_steps = st.one_of(
    st.tuples(st.just("write_all_buf"), st.sampled_from([0, 1, 10, 300]), patience),
    st.tuples(st.just("write_buf"), st.sampled_from([1, 10, 300]), patience),
    st.tuples(st.just("flush"), st.just(0), patience),
    st.tuples(st.just("shutdown"), st.just(0), patience),
)
read_steps = st.tuples(st.sampled_from([1, 7, 100, 10_000]), patience)


class Talker:
    """One end of a conversation: a task that writes and one that reads, interrupted at will."""

    def __init__(self, stream: Tls) -> None:
        self.stream = stream
        self.said = b""
        self.heard = b""
        self._ended = False

    async def write(self, steps: list[Any]) -> None:
        for verb, size, ticks in steps:
            if verb in {"flush", "shutdown"}:
                await impatiently(getattr(self.stream, verb), ticks)
                if verb == "shutdown":
                    break
            else:
                buf = Buf(text(len(self.said) + size)[len(self.said) :])
                await impatiently(partial(getattr(self.stream, verb), buf), ticks)
                self.said = text(len(self.said) + size - buf.remaining)
        await self.stream.shutdown()

    async def read(self, steps: list[Any]) -> None:
        for size, ticks in steps:
            await impatiently(partial(self._read_some, size), ticks)
        while not self._ended:
            await self._read_some(10_000)

    async def _read_some(self, size: int) -> None:
        data = await self.stream.receive_some(size)
        assert len(data) <= size
        self.heard += data
        self._ended = not data


async def impatiently(call: Callable[[], Awaitable[object]], ticks: int | None) -> None:
    """Cancel ``call`` after so many turns of the scheduler."""
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            if ticks is not None:
                nursery.start_soon(_cancel_after, scope, ticks)
            await call()
        nursery.cancel_scope.cancel()


async def _cancel_after(scope: trio.CancelScope, ticks: int) -> None:
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()
    scope.cancel()


def run_conversation(
    version: ssl.TLSVersion, capacity: int, steps: tuple[list[Any], ...], *, plain: bool = False
) -> None:
    async def main() -> None:
        left, right = duplex(capacity)
        transports: Any = (SendAllOnly(left), SendAllOnly(right)) if plain else (left, right)
        with trio.fail_after(1000):
            # A handshake byte by byte takes its time.
            streams = (established if capacity < 100 else over)(transports, version)
            client, server = map(Talker, streams)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.write, steps[0])
                nursery.start_soon(client.read, steps[1])
                nursery.start_soon(server.write, steps[2])
                nursery.start_soon(server.read, steps[3])
            assert client.heard == server.said
            assert server.heard == client.said
            for stream in streams:
                assert stream.unsent_bytes == 0
                await stream.aclose()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


conversations = st.tuples(
    *[st.lists(steps, max_size=8) for steps in (write_steps, read_steps, write_steps, read_steps)]
)


@both_versions
@given(steps=conversations, capacity=st.sampled_from([3, 60, 200, 4096]))
@settings(max_examples=20)
def test_any_conversation_equals_the_model(
    version: ssl.TLSVersion, steps: tuple[list[Any], ...], capacity: int
) -> None:
    """Writes, reads, flushes, ends and cancellations on both ends, in any order."""
    run_conversation(version, capacity, steps)


@pytest.mark.outer
@both_versions
@given(steps=conversations)
@settings(max_examples=10)
def test_any_conversation_over_plain_streams_equals_the_model(
    version: ssl.TLSVersion, steps: tuple[list[Any], ...]
) -> None:
    run_conversation(version, 200, steps, plain=True)


@pytest.mark.slow
@both_versions
@pytest.mark.parametrize("plain", [False, True], ids=["exact", "plain"])
@given(steps=conversations, capacity=st.sampled_from([1, 3, 60, 100, 200, 4096]))
@settings(max_examples=1000)
def test_any_conversation_equals_the_model_at_length(
    version: ssl.TLSVersion, plain: bool, steps: tuple[list[Any], ...], capacity: int
) -> None:
    run_conversation(version, capacity, steps, plain=plain)


@pytest.mark.outer
@both_versions
@both_sides
@given(damage=damages(), chunk=st.sampled_from([1, 30, 1000]), size=st.sampled_from([1, 10_000]))
@settings(max_examples=30)
def test_damage_is_a_broken_stream(
    version: ssl.TLSVersion, reverse: bool, damage: Any, chunk: int, size: int
) -> None:
    """Never wrong plaintext, a clean end, a hang or another error."""

    async def run() -> None:
        raw, transport = duplex(chunk)
        pair = established((transport, raw), version)
        stream, peer = pair[::-1] if reverse else pair
        if reverse:
            raw, transport = transport, raw
        parts = say_messages(peer._engine)
        ciphertext = damage(parts)
        if ciphertext.startswith(b"".join(parts)):
            return
        received = b""

        async def say() -> None:
            await raw.send_all(ciphertext)
            await raw.send_eof()

        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(say)
                with pytest.raises(trio.BrokenResourceError):
                    while data := await stream.receive_some(size):
                        received += data
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some(size)
                nursery.cancel_scope.cancel()
        assert b"".join(MESSAGES).startswith(received)
        # The peer does not read, so an end of ours would have to wait.
        await trio.aclose_forcefully(stream)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


find_hangs(globals())
