"""Both directions: what the end, a failure and a silence of one mean for the other."""

from __future__ import annotations

import math
import socket as stdlib_socket
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.abc
import trio.testing

from trio_asyncwrite import (
    BufReader,
    BufWriter,
    LaneOutcome,
    ReadWritePair,
    Relay,
    SharedWriter,
    TcpStream,
    TimeoutWriter,
    abort,
    copy_bidirectional,
    duplex,
    simplex,
)
from trio_asyncwrite.testing import Sweep, cancel_everywhere

from .._patience import wait_all_tasks_blocked
from .._streams import assert_leaves_no_cycle, connected, drain, reset, tcp_pair, unix_pair
from .._tls_helpers import open_tls
from ._fakes import Both, foreign

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RUNNING, ENDED = LaneOutcome.RUNNING, LaneOutcome.ENDED
READ_FAILED, WRITE_FAILED = LaneOutcome.READ_FAILED, LaneOutcome.WRITE_FAILED
TIMED_OUT = LaneOutcome.TIMED_OUT

TEXT = bytes(i % 251 for i in range(3000))
ANSWER = bytes(i % 241 for i in range(2000))


def outcomes(relay: Relay) -> tuple[LaneOutcome, LaneOutcome]:
    return relay.a_to_b.outcome, relay.b_to_a.outcome


def counts(relay: Relay) -> tuple[int, int]:
    return relay.a_to_b.bytes, relay.b_to_a.bytes


# ---- What goes through ---------------------------------------------------------------------------


async def memory_pair() -> Any:
    return duplex(100)


async def foreign_memory_pair() -> Any:
    return trio.testing.memory_stream_pair()


async def tls_pair() -> Any:
    return await open_tls()


async def buffered_pair() -> Any:
    left, right = await unix_pair()
    return left, ReadWritePair(BufReader(right, 100), BufWriter(right, 100))


async def limited_pair() -> Any:
    left, right = duplex(50)
    return left, ReadWritePair(right, TimeoutWriter(right, idle=60))


async def shared_pair() -> Any:
    left, right = duplex(50)
    return left, ReadWritePair(right, SharedWriter(right))


MAKERS: dict[str, Callable[[], Awaitable[Any]]] = {
    "memory": memory_pair,
    "foreign": foreign_memory_pair,
    "TCP": tcp_pair,
    "Unix": unix_pair,
    "TLS": tls_pair,
    "buffered": buffered_pair,
    "TimeoutWriter": limited_pair,
    "SharedWriter": shared_pair,
}


async def close_both(*streams: trio.abc.AsyncResource) -> None:
    for stream in streams:
        await stream.aclose()


@pytest.mark.parametrize(
    ("one", "other", "buffer_size"),
    [
        pytest.param(MAKERS[one], MAKERS[other], size, id=f"{one}, {other}, {size}")
        for one in MAKERS
        for other, size in (("memory", 100), ("TCP", 1000), ("TLS", 262144), ("foreign", 262144))
    ],
)
async def test_any_two_streams_are_joined(one: Any, other: Any, buffer_size: int) -> None:
    client, a = await one()
    server, b = await other()
    relay = Relay(a, b, buffer_size=buffer_size)

    async def ask() -> None:
        await client.send_all(TEXT)
        if one is not foreign_memory_pair:
            await client.send_eof()

    async def answer() -> None:
        received = bytearray()
        while len(received) < len(TEXT):
            received += await server.receive_some()
        assert received == TEXT
        await server.send_all(ANSWER)
        await server.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        nursery.start_soon(ask)
        nursery.start_soon(answer)
        if one is foreign_memory_pair:
            # Nobody can half-close it.
            received = bytearray()
            while len(received) < len(ANSWER):
                received += await client.receive_some()
            await client.aclose()
        else:
            received = bytearray(await drain(client))
    assert received == ANSWER
    assert outcomes(relay) == (ENDED, ENDED)
    assert counts(relay) == (len(TEXT), len(ANSWER))
    assert relay.a_to_b.error is None
    await close_both(client, a, b)


async def test_the_short_form_returns_the_relay() -> None:
    a, b = Both(b"ask", b""), Both(b"answer", b"")
    relay = await copy_bidirectional(a, b, half_open=1, buffer_size=2)
    assert (a.taken, b.taken) == (b"answer", b"ask")
    assert counts(relay) == (3, 6)
    assert repr(relay) == "<Relay between <Both> and <Both>>"
    assert repr(relay.a_to_b) == "<Lane: 3 bytes, ended>"
    await relay.run()
    assert a.log == ["flush 6", "shutdown"]


# ---- The table of NEXT.md, section 2 -------------------------------------------------------------


async def test_an_end_is_passed_on_and_the_other_direction_goes_on() -> None:
    """tokio #3876, bore PR 165; a select truncates replies (bitchat PR 1495)."""
    a, b = Both(b"ask", b""), Both()
    relay = Relay(a, b)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await wait_all_tasks_blocked()
        assert b.log == ["flush 3", "shutdown"]
        assert outcomes(relay) == (ENDED, RUNNING)
        b.feed(b"late ", b"answer", b"")
    assert a.taken == b"late answer"
    assert outcomes(relay) == (ENDED, ENDED)
    assert (a.closed, b.closed) == (False, False)


@pytest.mark.parametrize("half_open", [None, math.inf])
async def test_an_open_tunnel_is_never_reaped_nor_a_half_open_one_without_a_limit(
    half_open: float | None, autojump_clock: trio.testing.MockClock
) -> None:
    """tokio #4556, tuic PR 139, meow-rs PR 242."""
    a, b = Both(), Both()
    relay = Relay(a, b, half_open=half_open)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await trio.sleep(80_000)
        a.feed(b"")
        await trio.sleep(80_000)
        assert outcomes(relay) == (ENDED, RUNNING)
        b.feed(b"x", b"")
    assert outcomes(relay) == (ENDED, ENDED)


async def test_a_half_open_tunnel_ends_when_no_byte_moves(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """tokio #4556: the limit counts silence, after one end only."""
    a, b = Both(), Both()
    relay = Relay(a, b, half_open=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await trio.sleep(1000)
        a.feed(b"ask", b"")
        for _ in range(5):
            await trio.sleep(9)
            b.feed(b"part")
        await trio.sleep(9.9)
        assert outcomes(relay) == (ENDED, RUNNING)
        await trio.sleep(0.2)
        assert outcomes(relay) == (ENDED, TIMED_OUT)
    assert counts(relay) == (3, 20)
    assert relay.b_to_a.error is None
    # A truncated answer does not look complete.
    assert a.log[-1] == "aborted"
    assert not b.closed


async def test_a_slow_target_that_takes_a_byte_now_and_then_is_no_silence(
    autojump_clock: trio.testing.MockClock,
) -> None:
    a, b = Both(b"", room=0), Both(b"answer", b"")
    relay = Relay(a, b, half_open=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        for _ in range(6):
            await trio.sleep(9)
            a.give(1)
    assert a.taken == b"answer"
    assert outcomes(relay) == (ENDED, ENDED)


async def test_nor_is_a_flush_of_what_a_buffer_holds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    below = Both(b"", room=0)
    a, b = ReadWritePair(below, BufWriter(below, 10)), Both(b"answer", b"")
    relay = Relay(a, b, half_open=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        for _ in range(6):
            await trio.sleep(9)
            below.give(1)
    assert below.taken == b"answer"
    assert outcomes(relay) == (ENDED, ENDED)


async def test_a_shutdown_that_takes_too_long_times_out_as_well(
    autojump_clock: trio.testing.MockClock,
) -> None:
    below = Both(b"", room=0)
    a, b = ReadWritePair(below, BufWriter(below, 10)), Both(b"answer", b"")
    relay = Relay(a, b, half_open=10)
    await relay.run()
    assert outcomes(relay) == (ENDED, TIMED_OUT)
    assert below.log == ["aborted"]
    assert trio.current_time() == 10


async def test_a_write_that_fails_lets_the_answer_come_through() -> None:
    """An early reply: nodejs #54366, requests #2422."""
    a, b = Both(b"ask", b"more"), Both()
    b.error = OSError("odd")
    relay = Relay(a, b)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await wait_all_tasks_blocked()
        assert outcomes(relay) == (WRITE_FAILED, RUNNING)
        b.feed(b"answer", b"")
    assert outcomes(relay) == (WRITE_FAILED, ENDED)
    assert a.taken == b"answer"
    assert counts(relay) == (0, 6)
    assert isinstance(relay.a_to_b.error, trio.BrokenResourceError)
    assert relay.a_to_b.error.__traceback__ is None
    assert isinstance(relay.a_to_b.error.__cause__, OSError)
    assert "0 bytes, write failed: BrokenResourceError" in repr(relay.a_to_b)


async def test_but_not_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    a, b = Both(b"ask"), Both()
    b.error = OSError("odd")
    relay = Relay(a, b, half_open=5)
    await relay.run()
    assert outcomes(relay) == (WRITE_FAILED, TIMED_OUT)
    assert trio.current_time() == 5
    await trio.aclose_forcefully(b)


async def test_a_shutdown_that_fails_is_a_failed_write() -> None:
    class Failing(Both):
        def poll_shutdown(self) -> None:
            raise OSError("odd")

    a, b = Both(b"ask", b""), Failing(b"")
    relay = Relay(a, b)
    await relay.run()
    assert outcomes(relay) == (WRITE_FAILED, ENDED)
    assert counts(relay) == (3, 0)


async def test_a_truncated_source_never_ends_as_a_proper_end() -> None:
    """haproxy #2505 passed the end on with data still in the pipe."""
    a, b = Both(b"ask", OSError("odd")), Both()
    relay = Relay(a, b)
    await relay.run()
    assert b.taken == b"ask"
    assert b.log == ["flush 3", "aborted"]
    assert relay.a_to_b.outcome is READ_FAILED
    assert relay.a_to_b.bytes == 3
    assert "odd" in str(relay.a_to_b.error)
    # With b gone, there is no proper end for a, either.
    assert relay.b_to_a.outcome is READ_FAILED
    assert a.log == ["aborted"]


async def test_what_was_read_before_a_failure_is_written_first() -> None:
    """tokio's poll_copy drops it."""
    a, b = Both(b"ask", OSError("odd")), Both(room=1)
    relay = Relay(a, b)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await wait_all_tasks_blocked()
        assert b.taken == b"a"
        assert outcomes(relay) == (RUNNING, RUNNING)
        b.give(10)
    assert b.taken == b"ask"
    assert relay.a_to_b.outcome is READ_FAILED


async def test_and_what_the_target_buffers_too() -> None:
    below = Both(room=0)
    a, b = Both(b"ask", OSError("odd")), ReadWritePair(below, BufWriter(below, 10))
    relay = Relay(a, b)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await wait_all_tasks_blocked()
        assert outcomes(relay) == (RUNNING, RUNNING)
        nursery.cancel_scope.cancel()
    # Resumed, it does not ask the source again.
    a.feed(b"never")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await wait_all_tasks_blocked()
        below.give(10)
    assert below.taken == b"ask"
    assert below.log == ["flush 3", "aborted"]


async def test_a_reset_of_one_side_resets_the_other() -> None:
    client, a = await tcp_pair()
    server, b = await tcp_pair()
    relay = Relay(a, b)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await client.send_all(b"half a mess")
        assert await server.receive_some() == b"half a mess"
        await wait_all_tasks_blocked()
        reset(client)
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()
    assert relay.a_to_b.outcome is READ_FAILED
    await close_both(server, a, b)


async def test_counts_can_be_read_at_any_time() -> None:
    """realm PR 95, fast-socks5 #20: tokio has only the error."""
    a, b = Both(b"ask"), Both(room=2)
    relay = Relay(a, b)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            await wait_all_tasks_blocked()
            assert counts(relay) == (2, 0)
            scope.cancel()
    assert counts(relay) == (2, 0)
    assert outcomes(relay) == (RUNNING, RUNNING)
    b.give(1)
    a.feed(b"")
    b.feed(b"answer", b"")
    await relay.run()
    assert counts(relay) == (3, 6)


async def test_it_flushes_when_the_source_stalls() -> None:
    """tokio PR 4001, PR 8424; meow-rs #272."""
    below = Both()
    a, b = Both(b"ask"), ReadWritePair(below, BufWriter(below, 100))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Relay(a, b).run)
        await wait_all_tasks_blocked()
        assert below.taken == b"ask"
        nursery.cancel_scope.cancel()


# ---- Cancellation --------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "size"), [("bare", 14), ("foreign", 8), ("buffered", 12)])
async def test_cancelled_anywhere_and_resumed_it_delivers_every_byte_once(
    kind: str, size: int
) -> None:
    async def scenario(sweep: Sweep) -> None:
        client, a = duplex(5)
        server, b = duplex(4)
        sides: dict[str, Callable[[Any], Any]] = {
            "bare": lambda stream: stream,
            "foreign": foreign,
            "buffered": lambda s: ReadWritePair(BufReader(s, 3), BufWriter(s, 6)),
        }
        relay = Relay(sides[kind](a), sides[kind](b), buffer_size=8)
        received = {"client": bytearray(), "server": bytearray()}

        async def talk(name: str, stream: Any, data: bytes) -> None:
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    await stream.send_all(data)
                    await stream.send_eof()

                nursery.start_soon(send)
                while chunk := await stream.receive_some(3):
                    received[name] += chunk

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk, "client", client, TEXT[:size])
            nursery.start_soon(talk, "server", server, ANSWER[:size])
            with sweep:
                await relay.run()
            await relay.run()
            assert outcomes(relay) == (ENDED, ENDED)
        assert received == {"client": ANSWER[:size], "server": TEXT[:size]}
        assert counts(relay) == (size, size)
        for stream in (a, b, client, server):
            await trio.aclose_forcefully(stream)

    assert await cancel_everywhere(scenario) > 20


async def test_held_bytes_are_an_unfinished_message_of_the_target() -> None:
    """Law 3: nobody may write in between, and an end would be a truncated one."""
    a, b = Both(b"ask"), Both(room=0)
    relay = Relay(a, b)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            await wait_all_tasks_blocked()
            scope.cancel()
    with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
        await b.write(b"between")
    with pytest.raises(trio.BrokenResourceError, match="finish the Buf first"):
        await b.shutdown()
    b.give(100)
    a.feed(b"")
    b.feed(b"")
    await relay.run()
    assert b.taken == b"ask"
    assert b.log == ["flush 3", "shutdown"]


async def test_an_end_of_a_target_whose_bytes_are_held_is_a_truncated_one() -> None:
    a, b = Both(b"ask"), Both(room=0)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy_bidirectional, a, b)
            await wait_all_tasks_blocked()
            scope.cancel()
    with pytest.warns(ResourceWarning, match="a Buf was begun and not finished"):
        await b.aclose()
    assert b.log == ["aborted"]


async def test_over_a_shared_writer_a_block_that_has_not_begun_is_in_nobody_s_way() -> None:
    below = Both(room=0)
    shared = SharedWriter(below)
    a, b = Both(b"ask"), ReadWritePair(below, shared)
    relay = Relay(a, b)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            await wait_all_tasks_blocked()
            scope.cancel()
    below.give(100)
    await shared.send_all(b"between ")
    a.feed(b"")
    below.feed(b"")
    await relay.run()
    assert below.taken == b"between ask"


# ---- Who may use what meanwhile ------------------------------------------------------------------


async def test_no_other_task_may_receive_or_run_it() -> None:
    a, b = Both(), Both()
    relay = Relay(a, b)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="another task is running <Relay"):
            await relay.run()
        for stream in (a, b):
            with pytest.raises(trio.BusyResourceError):
                await stream.receive_some()
        await b.send_all(b"written beside it")
        nursery.cancel_scope.cancel()


async def test_a_source_that_another_task_reads_stays_usable() -> None:
    a, b = Both(), Both()
    relay = Relay(a, b)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(b.receive_some)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await relay.run()
        b.feed(b"x")
    a.feed(b"")
    b.feed(b"")
    await relay.run()
    assert outcomes(relay) == (ENDED, ENDED)


async def test_a_target_that_another_task_uses_stays_usable_and_no_byte_is_lost() -> None:
    a, b = Both(b"ask"), Both(room=0)
    relay = Relay(a, b)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(b.write_all, b"first ")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await relay.run()
        assert outcomes(relay) == (RUNNING, RUNNING)
        b.give(100)
    a.feed(b"")
    b.feed(b"")
    await relay.run()
    assert b.taken == b"first ask"


@pytest.mark.parametrize("which", ["a", "b"])
async def test_a_close_by_another_task_is_an_outcome_and_no_proper_end(which: str) -> None:
    a, b = Both(), Both()
    relay = Relay(a, b)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        await wait_all_tasks_blocked()
        await {"a": a, "b": b}[which].aclose()
    assert outcomes(relay) == (READ_FAILED, READ_FAILED)
    assert isinstance(relay.a_to_b.error, trio.ClosedResourceError)
    assert (a if which == "b" else b).log == ["aborted"]


async def test_so_is_a_close_before_it_runs() -> None:
    a, b = Both(), Both()
    await a.aclose()
    relay = Relay(a, b)
    await relay.run()
    assert outcomes(relay) == (READ_FAILED, READ_FAILED)
    assert b.log == ["aborted"]


async def test_a_limit_of_the_target_is_a_failed_write(
    autojump_clock: trio.testing.MockClock,
) -> None:
    below = Both(b"", room=0)
    a, b = Both(b"ask"), ReadWritePair(below, TimeoutWriter(below, idle=7))
    relay = Relay(a, b)
    await relay.run()
    assert outcomes(relay) == (WRITE_FAILED, ENDED)
    assert isinstance(relay.a_to_b.error, trio.TooSlowError)
    with pytest.warns(ResourceWarning, match="not finished"):
        await b.aclose()


# ---- Mistakes ------------------------------------------------------------------------------------


async def test_a_mistake_in_a_stream_is_raised_and_the_other_lane_can_go_on() -> None:
    a, b = Both(ZeroDivisionError("odd")), Both()
    relay = Relay(a, b)
    with pytest.raises(ZeroDivisionError, match="odd"):
        await relay.run()
    assert relay.a_to_b.outcome is READ_FAILED
    assert isinstance(relay.a_to_b.error, ZeroDivisionError)
    assert b.log == ["aborted"]
    await relay.run()


async def test_an_interrupt_in_a_poll_loses_no_byte() -> None:
    class Interrupted(Both):
        def poll_read_into(self, buffer: bytearray | memoryview, /) -> int:
            data = self.poll_read(len(buffer))
            memoryview(buffer)[: len(data)] = data
            return len(data)

    a, b = Interrupted(b"ask", b""), Interrupted(b"", room=0)
    relay = Relay(a, b)

    def interrupt() -> None:
        raise KeyboardInterrupt

    a.poll_flush = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        await relay.run()
    del a.poll_flush
    b.give(10)
    # The block that the bytes lie in is nobody else's.
    other = Relay(Interrupted(b"other", b""), Interrupted(b""))
    await other.run()
    with pytest.raises(trio.BrokenResourceError):
        await a.flush()
    assert counts(other) == (5, 0)


@pytest.mark.parametrize("wrong", ["text", None, 7, simplex(1)[0], simplex(1)[1]])
def test_it_takes_duplex_streams(wrong: Any) -> None:
    for a, b in ((wrong, Both()), (Both(), wrong)):
        with pytest.raises(TypeError, match=r"expected a trio\.abc\.Stream, got .*ReadWritePair"):
            Relay(a, b)


def test_it_takes_two_streams() -> None:
    a = Both()
    with pytest.raises(ValueError, match="the same one twice"):
        Relay(a, a)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda stream: trio.SocketStream(stream.socket), id="Trio's stream"),
        pytest.param(lambda stream: TcpStream(stream.socket), id="another of ours"),
        pytest.param(lambda stream: ReadWritePair(stream, BufWriter(stream)), id="a layer above"),
    ],
)
async def test_one_transport_in_two_spellings_is_refused(other: Any) -> None:
    """Each byte would come back, for ever."""
    stream, peer = await tcp_pair()
    with pytest.raises(ValueError, match="are over one transport: to echo there is copy"):
        Relay(stream, other(stream))
    with pytest.raises(ValueError, match="are over one transport"):
        Relay(other(stream), stream)
    await abort(stream)
    await abort(peer)


@pytest.mark.parametrize("wrong", [0, -1, math.nan])
def test_half_open_is_above_0(wrong: float) -> None:
    with pytest.raises(ValueError, match="half_open must be a number greater than 0"):
        Relay(Both(), Both(), half_open=wrong)


@pytest.mark.parametrize(("wrong", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError)])
def test_buffer_size_is_at_least_1(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="buffer_size"):
        Relay(Both(), Both(), buffer_size=wrong)


# ---- Cost ----------------------------------------------------------------------------------------


async def test_it_leaves_no_cycle() -> None:
    async def scenario() -> None:
        async with connected(unix_pair) as (client, a), connected(unix_pair) as (server, b):
            relay = Relay(a, b)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay.run)
                await client.send_all(TEXT)
                await client.send_eof()
                assert await drain(server) == TEXT
                await server.aclose()
            assert outcomes(relay) == (ENDED, ENDED)

    await assert_leaves_no_cycle(scenario)


async def test_an_idle_relay_holds_no_block(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(unix_pair) as (client, a), connected(unix_pair) as (server, b):
        a.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_RCVBUF, 4096)
        relay = Relay(a, b)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            await client.send_all(TEXT)
            received = b""
            while len(received) < len(TEXT):
                received += await server.receive_some()
            await wait_all_tasks_blocked()
            assert all(run.pump._block is None for run in relay._runs)
            nursery.cancel_scope.cancel()


async def test_an_idle_relay_needs_little_memory() -> None:
    """At most 24 KiB in all, its tasks included; the frames of Python 3.10 are larger."""
    pairs = [await unix_pair() for _ in range(40)]
    relays = [Relay(pairs[i][0], pairs[i + 1][0]) for i in range(0, len(pairs), 2)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relays[0].run)  # what is made once only
        await wait_all_tasks_blocked()
        tracemalloc.start()
        for relay in relays[1:]:
            nursery.start_soon(relay.run)
        await wait_all_tasks_blocked()
        memory = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        nursery.cancel_scope.cancel()
    for pair in pairs:
        await close_both(*pair)
    limit = 24 if sys.version_info >= (3, 11) else 30
    assert memory / (len(relays) - 1) < limit * 1024
