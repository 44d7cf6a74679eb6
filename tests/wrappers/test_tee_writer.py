from __future__ import annotations

import contextlib
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import (
    AllowStdIo,
    AsyncWrite,
    Buf,
    BufWriter,
    CloseOutcome,
    Cursor,
    Epilogue,
    FilePart,
    NotReady,
    SharedWriter,
    Sink,
    TeeWriter,
    abort,
    close_gracefully,
    duplex,
    simplex,
)
from trio_asyncwrite.testing import (
    NeverReadyTwiceWriter,
    OneByteWriter,
    Sweep,
    cancel_everywhere,
)

from .._patience import wait_all_tasks_blocked
from .._streams import assert_leaves_no_cycle, connected, drain, pipe_pair, tcp_pair
from ..core._fakes import (
    Encoding,
    Script,
    Wire,
    begin,
    cut_short,
    resource_warnings,
    run_cancelled,
)
from ._buffered import Inner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

MODES: Any = pytest.mark.parametrize("on_failure", ["raise", "detach"])


def tee(copy: Any, on_failure: Any = "raise", inner: Any = None) -> TeeWriter[Any]:
    return TeeWriter(inner or Cursor(), copy, on_failure=on_failure)


@MODES
async def test_both_get_everything(on_failure: str) -> None:
    one, other = Inner(), Inner()
    writer = tee(other, on_failure, one)
    await writer.write_all(b"abc")
    await writer.write_all(bytearray(b"def"))
    await writer.write_all_vectored([b"head", b"body"])
    await writer.flush()
    assert one.offers == other.offers == [[b"abc"], [b"def"], [b"head", b"body"]]
    assert one.flushes == other.flushes == 1
    await writer.aclose()
    assert one.shutdowns == other.shutdowns == 1
    assert writer.copy is other
    assert writer.copy_failure is None
    assert other.closed
    assert repr(writer).startswith("<TeeWriter over <")


@MODES
async def test_it_accepts_what_the_first_one_does(on_failure: str) -> None:
    wire = Wire(4)
    copy = Cursor()
    writer = tee(copy, on_failure, wire)
    buf = Buf(b"abc", b"def")
    await cut_short(partial(writer.write_all_buf, buf))
    assert buf.remaining == 2
    assert (wire.sent, copy.getvalue()) == (b"abcd", b"abcd")
    wire.give(10)
    await writer.write_all_buf(buf)
    assert (wire.sent, copy.getvalue()) == (b"abcdef", b"abcdef")


@MODES
async def test_the_slow_one_sets_the_pace(on_failure: str) -> None:
    """And no more than 64 KiB are kept for it."""
    copy = Wire(10)
    cursor = Cursor()
    writer = tee(copy, on_failure, cursor)
    buf = Buf(bytes(1 << 20))
    await cut_short(partial(writer.write_all_buf, buf))
    assert cursor.position == (1 << 20) - buf.remaining == 65536
    assert writer.held_bytes == writer.unsent_bytes == 65526
    assert writer.spare_capacity == 0
    with pytest.raises(NotReady):
        writer.poll_flush()
    copy.give(math.inf)
    await writer.write_all_buf(buf)
    await writer.flush()
    assert copy.sent == cursor.getvalue() == bytes(1 << 20)
    assert writer.held_bytes == 0
    await writer.aclose()


async def test_nothing_is_accepted_while_something_is_kept() -> None:
    copy = Wire(2)
    writer = tee(copy)
    await writer.wait_send_all_might_not_block()
    assert writer.poll_write(b"") == 0
    assert writer.poll_write(b"abc") == 3
    for poll in (writer.poll_ready, partial(writer.poll_write, b"x")):
        with pytest.raises(NotReady):
            poll()
    copy.give(2)
    assert writer.poll_write(b"x") == 1
    assert writer.inner.getvalue() == copy.sent == b"abcx"


async def test_a_flush_of_one_does_not_wait_for_the_other_one() -> None:
    for slow_is_copy in (True, False):
        slow, quick = Wire(0), Inner()
        quick.dirty = True
        writer = tee(slow, inner=quick) if slow_is_copy else tee(quick, inner=slow)
        with pytest.raises(NotReady):
            writer.poll_flush()
        assert quick.flushes == 1


async def test_what_both_take_at_once_takes_the_fast_path() -> None:
    writer = tee(BufWriter(Cursor(), 10), inner=BufWriter(Cursor(), 20))
    assert writer.spare_capacity == 10
    assert tee(Cursor(), inner=BufWriter(Cursor())).spare_capacity == 0
    assert tee(BufWriter(Sink(), 10**6), inner=BufWriter(Cursor(), 10**6)).spare_capacity == 65537


@MODES
async def test_cancelled_anywhere_both_get_every_byte_once(
    on_failure: str, autojump_clock: trio.testing.MockClock
) -> None:
    payload = bytes(range(50))

    async def scenario(sweep: Sweep) -> None:
        left, right = duplex(7)
        pipe, reader = simplex(5)
        writer = tee(NeverReadyTwiceWriter(pipe), on_failure, left)
        received = [bytearray(), bytearray()]

        async def read(stream: trio.abc.ReceiveStream, into: bytearray, size: int) -> None:
            while chunk := await stream.receive_some(size):
                into.extend(chunk)

        buf = Buf(payload[:20], payload[20:])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, right, received[0], 20)
            nursery.start_soon(read, reader, received[1], 13)
            with sweep:
                await writer.write_all_buf(buf)
                await writer.flush()
                await writer.shutdown()
            if buf.remaining:
                await writer.write_all_buf(buf)
            await writer.aclose()
        await right.aclose()
        assert received == [payload, payload]

    assert await cancel_everywhere(scenario) > 8


async def test_a_file_is_read_for_both(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 500)
    copy = Cursor()
    async with connected(pipe_pair) as (pipe, other):
        writer = TeeWriter(pipe, copy)

        async def write() -> None:
            with path.open("rb") as file:
                await writer.write_all_file(FilePart(file))
            await writer.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            assert await drain(other) == path.read_bytes()
    assert copy.getvalue() == path.read_bytes()


async def test_over_tcp_with_a_copy_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "copy"
    payload = bytes(range(256)) * 2000
    async with connected(tcp_pair) as (stream, other):
        writer = TeeWriter(stream, BufWriter(AllowStdIo(path.open("wb"))), on_failure="detach")

        async def write() -> None:
            await writer.send_all(payload)
            await writer.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            assert await drain(other) == payload
    assert path.read_bytes() == payload


# ---- The copy fails: "raise" ---------------------------------------------------------------------


class Failing(Wire):
    """Fails when it is to take more than it has room for."""

    def need_room(self, poll: str) -> None:
        if not self.room:
            self.error = OSError("disk full")
        super().need_room(poll)


async def test_a_failure_after_accepting_is_raised_by_the_next_operation() -> None:
    """Law 1: the first one has accepted those bytes."""
    cursor = Cursor()
    writer = tee(Failing(0), inner=cursor)
    assert await writer.write(b"abc") == 3
    assert cursor.getvalue() == b"abc"
    for operation in (partial(writer.write, b"d"), writer.flush, writer.shutdown):
        with pytest.raises(trio.BrokenResourceError, match="disk full") as caught:
            await operation()
        assert isinstance(caught.value.__cause__, OSError)
    assert cursor.getvalue() == b"abc"
    assert writer.held_bytes == 3
    with resource_warnings():
        await writer.aclose()
    assert cursor.closed


async def test_a_failure_while_it_pushes_is_raised_at_once() -> None:
    copy = Failing(1)
    writer = tee(copy)
    await writer.write(b"abc")
    with pytest.raises(trio.BrokenResourceError, match="disk full"):
        await writer.write(b"d")
    with resource_warnings():
        await writer.aclose()


async def test_a_failure_that_nobody_was_told_is_raised_by_the_close() -> None:
    left, right = duplex(100)
    writer = tee(Failing(0), inner=left)
    await writer.write_all(b"abc")
    with resource_warnings(), pytest.raises(trio.BrokenResourceError, match="disk full"):
        await writer.aclose()
    assert left.closed
    with pytest.raises(trio.BrokenResourceError):
        assert await drain(right) != b"abc"


async def test_a_failing_shutdown_of_the_copy_is_raised() -> None:
    copy = Wire(10)
    writer = tee(copy)
    await writer.write_all(b"abc")
    copy.error = OSError("disk full")
    with pytest.raises(trio.BrokenResourceError, match="disk full"):
        await writer.aclose()
    assert writer.inner.closed
    assert copy.closed


async def test_a_failure_of_the_first_one_is_raised_and_the_copy_gets_nothing() -> None:
    copy = Cursor()
    wire = Wire(10)
    wire.error = OSError("gone")
    writer = tee(copy, "detach", wire)
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match="gone"):
            await writer.write_all_vectored([b"abc", b"def"])
    assert copy.getvalue() == b""


async def test_a_copy_that_is_full_can_be_given_room() -> None:
    """A WriteZeroError of a Cursor is not permanent."""
    copy = Cursor(bytearray(2), growable=False)
    writer = tee(copy)
    await writer.write_all(b"abc")
    with pytest.raises(trio.BrokenResourceError):
        await writer.write_all(b"d")
    copy.position = 0
    await writer.write_all(b"d")
    assert copy.getvalue() == b"cd"
    assert writer.inner.getvalue() == b"abcd"


async def test_a_copy_that_was_full_from_the_beginning_can_be_given_room() -> None:
    """What it has refused before is no failure that is raised later."""
    copy = Cursor(bytearray(2), growable=False)
    copy.position = 2
    writer = tee(copy)
    assert await writer.write(b"ab") == 2
    copy.position = 0
    await writer.flush()
    assert copy.getvalue() == b"ab"


@pytest.mark.parametrize("wrong", [None, True, -1, 100])
async def test_a_wrong_answer_of_the_copy_is_a_failure(wrong: Any) -> None:
    for write in (
        lambda writer: writer.write(b"abc"),
        lambda writer: writer.write_vectored([b"a", b"bc"]),
    ):
        writer = tee(Script(wrong))
        assert await write(writer) in (1, 3)
        for kind in ((TypeError, RuntimeError), trio.BrokenResourceError):
            with pytest.raises(kind, match="Script"):
                await writer.flush()
        with resource_warnings():
            await writer.aclose()


# ---- The copy fails: "detach" --------------------------------------------------------------------


async def test_a_copy_that_fails_is_detached_and_writing_goes_on() -> None:
    copy = Failing(2)
    writer = tee(copy, "detach")
    await writer.write_all(b"abc")
    assert writer.held_bytes == 1
    await writer.write_all(b"def")
    assert isinstance(writer.copy_failure, OSError)
    assert (writer.held_bytes, writer.lifecycle.holding) == (0, 0)
    await writer.send_all(b"ghi")
    with resource_warnings() as messages:
        await writer.aclose()
    assert writer.inner.getvalue() == b"abcdefghi"
    assert copy.sent == b"ab"
    assert copy.releases == ["release False"]
    assert messages == []


@pytest.mark.parametrize("when", ["write", "flush", "shutdown", "close"])
async def test_whenever_it_fails_the_first_one_ends_clean(when: str) -> None:
    """What a copy loses is no loss of the stream, and copy_failure tells it."""

    class Copy(Wire):
        epilogue = Epilogue.WITH_CLOSE

        def need_room(self, poll: str) -> None:
            if poll == when:
                self.error = OSError("disk full")
            super().need_room(poll)

        def poll_close(self) -> None:
            self.need_room("close")

    left, right = duplex(100)
    copy = Copy(100)
    writer = tee(BufWriter(copy, 2), "detach", left)
    await writer.write_all(b"abc")
    await writer.write_all(b"d")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            assert await drain(right) == b"abcd"
            await right.aclose()

        with resource_warnings() as messages:
            report = await close_gracefully(writer)
    assert report.outcome is CloseOutcome.CLEAN
    assert report.unsent_bytes == 0
    assert "disk full" in str(writer.copy_failure)
    assert messages == []
    assert copy.closed
    assert len(copy.releases) == 1


async def test_a_release_of_the_copy_that_fails_spoils_nothing() -> None:
    class Copy(AsyncWrite):
        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            return len(data)

        async def release(self, *, clean: bool) -> None:
            raise OSError("release")

    writer = tee(Copy(), "detach")
    await writer.write_all(b"abc")
    await writer.aclose()
    assert "release" in str(writer.copy_failure)


async def test_a_copy_that_somebody_else_closes_is_detached() -> None:
    copy = Cursor()
    writer = tee(copy, "detach")
    await writer.write_all(b"abc")
    await copy.aclose()
    await writer.write_all(b"def")
    assert isinstance(writer.copy_failure, trio.ClosedResourceError)
    await writer.aclose()
    assert (writer.inner.getvalue(), copy.getvalue()) == (b"abcdef", b"abc")


@pytest.mark.parametrize("closes_copy", [False, True])
async def test_a_failure_that_is_kept_refers_to_nobody(*, closes_copy: bool) -> None:
    """Also one that is met while another exception is on its way, whose frames refer to us."""

    async def scenario() -> None:
        main, peer = duplex(100)
        copy, far_end = duplex(100)
        writer = tee(copy, "detach", main)
        await (copy if closes_copy else far_end).aclose()
        try:
            int("no number")
        except ValueError:
            await writer.send_all(b"sorry")
        kinds = trio.BrokenResourceError, trio.ClosedResourceError
        assert isinstance(writer.copy_failure, kinds)
        await peer.receive_some()
        await writer.aclose()

    await assert_leaves_no_cycle(scenario)


async def test_a_detached_copy_keeps_no_reference_to_the_writer() -> None:
    copy = Failing(0)
    writer = tee(copy, "detach", BufWriter(Cursor(), 100))
    await writer.write_all(b"abc")
    assert writer.copy_failure is not None
    assert writer.copy_failure.__traceback__ is None
    assert writer.spare_capacity == 97
    await writer.aclose()


# ---- Ends ----------------------------------------------------------------------------------------


@MODES
async def test_a_clean_close_waits_for_both_and_ends_both(
    on_failure: str, autojump_clock: trio.testing.MockClock
) -> None:
    left, right = duplex(2)
    pipe, reader = simplex(2)
    writer = BufWriter(tee(Encoding(pipe), on_failure, Encoding(left)))
    await writer.write_all(b"abcdef")
    received: list[bytes] = []

    async def read(stream: trio.abc.ReceiveStream, pause: float) -> None:
        await trio.sleep(pause)
        received.append(await drain(stream))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, right, 1)
        nursery.start_soon(read, reader, 2)
        await writer.aclose()
    assert received == [b"ABCDEF.", b"ABCDEF."]


@MODES
async def test_a_message_that_was_cut_short_truncates_both(on_failure: str) -> None:
    left, right = duplex(5)
    pipe, reader = simplex(100)
    writer = tee(pipe, on_failure, left)
    await cut_short(partial(writer.write_all, b"0123456789"))
    with pytest.raises(trio.BrokenResourceError, match="only 5 of the 10 bytes"):
        await writer.write_all(b"x")
    with resource_warnings() as messages:
        await writer.aclose()
    assert len(messages) == 1
    assert pipe.closed
    for stream in (right, reader):
        assert await stream.receive_some() == b"01234"
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


@MODES
async def test_what_the_copy_lacks_is_told_and_its_end_is_truncated(on_failure: str) -> None:
    left, right = duplex(100)
    pipe, reader = simplex(4)
    writer = tee(pipe, on_failure, left)
    await writer.write_all(b"0123456789")
    with resource_warnings() as messages:
        assert (await run_cancelled(writer.aclose)).outcome == "cancelled"
    assert writer.held_bytes == 6
    assert len(messages) == 1
    assert "6 bytes" in messages[0]
    assert await reader.receive_some() == b"0123"
    with pytest.raises(trio.BrokenResourceError):
        await reader.receive_some()
    await right.aclose()


@MODES
async def test_a_close_that_is_out_of_time_is_not_clean(
    on_failure: str, autojump_clock: trio.testing.MockClock
) -> None:
    """A lost copy is a loss, unless it is detached."""
    left, right = duplex(100)
    pipe, _ = simplex(4)
    writer = tee(pipe, on_failure, left)
    await writer.write_all(b"0123456789")
    report = await close_gracefully(writer, timeout=2, linger=1)
    assert report.outcome is CloseOutcome.TIMED_OUT
    assert report.unsent_bytes == 6
    assert pipe.closed
    await right.aclose()


@MODES
async def test_an_abort_ends_both(on_failure: str) -> None:
    left, right = duplex(100)
    pipe, reader = simplex(100)
    writer = tee(pipe, on_failure, left)
    await writer.write_all(b"abc")
    await abort(writer)
    for stream in (right, reader):
        with pytest.raises(trio.BrokenResourceError):
            await drain(stream)


@MODES
async def test_a_cut_off_close_of_a_whole_stack_ends_both_plainly(on_failure: str) -> None:
    left, right = duplex(100)
    pipe, reader = simplex(100)
    writer = tee(BufWriter(pipe), on_failure, left)
    await writer.write_all(b"abc")
    with resource_warnings() as messages:
        assert (await run_cancelled(writer.aclose)).outcome == "cancelled"
    assert messages == []
    assert await drain(reader) == await drain(right) == b"abc"


async def test_closing_one_of_two_ends_that_side_and_the_own_close_the_rest() -> None:
    """Law 4, branches."""
    for closes_copy in (True, False):
        left, right = duplex(100)
        pipe, reader = simplex(100)
        writer = tee(BufWriter(pipe), inner=BufWriter(left))
        await writer.write_all(b"abc")
        first, far, near = (pipe, reader, left) if closes_copy else (left, right, pipe)
        await first.aclose()
        assert await drain(far) == b"abc"
        assert not writer.closed
        for operation in (partial(writer.write, b"x"), writer.wait_send_all_might_not_block):
            with pytest.raises(trio.ClosedResourceError):
                await operation()
        assert not near.closed
        await writer.aclose()
        assert near.closed
        assert await drain(right if closes_copy else reader) == b"abc"


@pytest.mark.parametrize("is_broken", [False, True])
@pytest.mark.parametrize(
    "close",
    [
        abort,
        trio.aclose_forcefully,
        partial(close_gracefully, timeout=0, linger=0),
        lambda stream: stream.aclose(),
    ],
)
async def test_with_detach_nobody_waits_for_a_task_that_lingers_over_the_copy(
    close: Callable[[Any], Awaitable[object]], autojump_clock: MockClock, *, is_broken: bool
) -> None:
    main, peer = duplex(100)
    copy, far_end = duplex(100)
    tee = TeeWriter(main, copy, on_failure="detach")
    await tee.send_all(b"hello")
    if is_broken:
        await peer.aclose()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(close_gracefully, copy, timeout=1, linger=60))
        await wait_all_tasks_blocked()
        began = trio.current_time()
        with contextlib.suppress(trio.BrokenResourceError):
            await close(main)
        assert trio.current_time() == began
        assert await far_end.receive_some() == b"hello"
        assert await far_end.receive_some() == b""
        await far_end.aclose()
    await peer.aclose()


async def test_with_detach_it_is_closed_with_the_first_one() -> None:
    left, right = duplex(100)
    pipe, reader = simplex(100)
    writer = tee(BufWriter(pipe), "detach", left)
    await writer.write_all(b"abc")
    await left.aclose()
    assert writer.closed
    assert pipe.closed
    assert await drain(reader) == await drain(right) == b"abc"


async def test_with_detach_the_copy_ends_properly_though_only_the_first_one_was_shut_down() -> None:
    left, _ = duplex(100)
    pipe, reader = simplex(100)
    writer = tee(Encoding(pipe), "detach", left)
    await writer.send_all(b"abc")
    await left.shutdown()
    await writer.aclose()
    assert await drain(reader) == b"ABC."


async def test_what_a_copy_lacks_whose_descriptor_was_closed_is_told() -> None:
    async with connected(pipe_pair) as (pipe, _):
        writer = tee(OneByteWriter(pipe))
        await writer.write_all(b"abc")
        pipe.close()
        with resource_warnings() as messages:
            await writer.aclose()
    assert any("2 bytes" in one for one in messages)


@MODES
async def test_a_shutdown_is_resumable(on_failure: str) -> None:
    copy, wire = Wire(3), Wire(3)
    writer = tee(copy, on_failure, wire)
    await writer.write_all(b"abc")
    for _ in range(2):
        await cut_short(writer.shutdown)
    copy.give(1)
    await cut_short(writer.shutdown)
    wire.give(1)
    await writer.shutdown()
    await writer.aclose()
    assert (wire.sent, copy.sent) == (b"abc", b"abc")
    assert wire.releases == copy.releases == ["release True"]


@MODES
async def test_a_close_evicts_who_waits_for_the_copy(on_failure: str) -> None:
    copy = Wire(0)
    writer = tee(copy, on_failure)
    await writer.write_all(b"abc")
    async with trio.open_nursery() as nursery:
        waiting = await begin(nursery, partial(writer.write_all, b"x"))
        with resource_warnings():
            await run_cancelled(writer.aclose)
    assert waiting.outcome == "ClosedResourceError"


async def test_a_copy_that_takes_a_byte_at_a_time_does_not_hold_up_the_run() -> None:
    writer = tee(OneByteWriter(Sink()))
    await writer.write_all(bytes(1000))
    with pytest.raises(NotReady):
        writer.poll_flush()
    assert writer.held_bytes == 1000 - 1 - 16
    await writer.flush()
    assert writer.held_bytes == 0
    await writer.write_all(bytes(1 + 16))
    writer.poll_flush()


async def test_under_a_shared_writer_messages_stay_whole() -> None:
    wire, copy = Wire(4), Cursor()
    writer = SharedWriter(tee(copy, inner=wire))
    await cut_short(partial(writer.write_all, b"message"))
    wire.give(100)
    await writer.write_all(b" next")
    assert wire.sent == copy.getvalue() == b"message next"


def test_polls_outside_of_any_run_work() -> None:
    writer = tee(Cursor())
    assert writer.poll_write(b"abc") == 3
    writer.poll_shutdown()
    assert writer.copy.getvalue() == b"abc"  # type: ignore[attr-defined]


async def test_it_waits_as_patiently_as_the_more_patient_one() -> None:
    slow: AsyncWrite = Cursor()
    slow.close_patience = 3.0  # type: ignore[method-assign]
    assert tee(slow).close_patience == 3
    assert tee(Cursor(), inner=slow).close_patience == 3


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (lambda c: TeeWriter(c, c), ValueError, "inner and copy are the same stream"),
        (lambda c: tee(c, "ignore"), ValueError, 'on_failure must be "raise" or "detach", got'),
        (lambda c: TeeWriter(c, "path"), TypeError, r"expected a trio\.abc\.SendStream, got str"),
        (lambda c: TeeWriter("path", c), TypeError, r"expected a trio\.abc\.SendStream, got str"),
    ],
    ids=range(4),
)
def test_what_is_wrong_is_refused(make: Callable[[Any], Any], kind: Any, text: str) -> None:
    with pytest.raises(kind, match=text):
        make(Cursor())


@pytest.mark.parametrize(
    ("on_failure", "kind"),
    [("raise", KeyboardInterrupt), ("raise", ValueError), ("detach", KeyboardInterrupt)],
)
@pytest.mark.parametrize("end", ["flush", "write", "aclose", "close_gracefully", "cancelled"])
async def test_what_the_copy_raises_is_raised_as_it_is(
    on_failure: str, kind: type[BaseException], end: str
) -> None:
    """Law 2, whatever it is: Ctrl-C, or a mistake in a writer."""

    class Raising(Sink):
        def poll_write(self, data: bytes | bytearray | memoryview, /) -> int:
            raise kind

    writer: TeeWriter[Cursor] = tee(Raising(), on_failure)
    assert await writer.write(b"data") == 4
    with resource_warnings():
        if kind is ValueError and end in {"close_gracefully", "cancelled"}:
            # The report has it; and who is cancelled is told by the cancellation.
            if end == "close_gracefully":
                report = await close_gracefully(writer)
                assert isinstance(report.error, ValueError)
            else:
                assert (await run_cancelled(writer.aclose)).outcome == "cancelled"
            return
        with pytest.raises(kind), trio.CancelScope() as scope:
            if end == "flush":
                await writer.flush()
            elif end == "write":
                await writer.write(b"more")
            elif end == "close_gracefully":
                await close_gracefully(writer)
            else:
                if end == "cancelled":
                    scope.cancel()
                await writer.aclose()
        await abort(writer)
    assert writer.inner.getvalue() == b"data"


@pytest.mark.parametrize("end", ["abort", "cancelled"])
@pytest.mark.parametrize("waits", [True, False])
async def test_bytes_kept_for_the_copy_survive_a_stream_that_is_cut_off(
    end: str, *, waits: bool
) -> None:
    """The copy ends by another close, later. If they do not go then, it must not look complete."""
    left, right = duplex(1000)
    pipe, reader = simplex(10)
    writer = TeeWriter(left, pipe)
    assert await writer.write(bytes(100)) == 100
    with resource_warnings(), trio.CancelScope() as scope:
        if end == "abort":
            await abort(left)
        else:
            scope.cancel()
            await left.aclose()
    assert not pipe.closed
    if waits:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.aclose)
            assert await drain(reader) == bytes(100)
    else:
        with resource_warnings() as messages:
            assert (await run_cancelled(writer.aclose)).outcome == "cancelled"
        assert ["90 bytes" in one for one in messages] == [True]
        with pytest.raises(trio.BrokenResourceError):
            await drain(reader)
    await abort(right)
