from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_asyncwrite import Buf, BufWriter, NotReady, WriteZeroError
from trio_asyncwrite.testing import ScriptedWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


# ---- Steps ---------------------------------------------------------------------------------


async def test_accept_takes_so_many_bytes_in_however_many_polls() -> None:
    writer = ScriptedWriter().accept(3).not_ready().accept(2)

    assert writer.poll_write(b"ab") == 2
    assert writer.poll_write(b"cdef") == 1
    with pytest.raises(NotReady):
        writer.poll_write(b"def")
    assert writer.poll_write(b"def") == 2
    assert writer.received == b"abcde"
    writer.assert_done()


async def test_accept_without_a_count_takes_the_whole_write() -> None:
    writer = ScriptedWriter().accept().accept(1)

    assert writer.poll_write(bytes(100_000)) == 100_000
    assert writer.poll_write(b"ab") == 1
    writer.assert_done()


async def test_accept_nothing_is_a_writer_that_is_full() -> None:
    writer = ScriptedWriter().accept(1).accept(0)

    with pytest.raises(WriteZeroError):
        await writer.write_all(b"ab")
    assert writer.received == b"a"
    writer.assert_done()


async def test_expect_takes_its_bytes_and_no_more() -> None:
    writer = ScriptedWriter().expect(b"hello ").expect(bytearray(b"world"))

    assert writer.poll_write(b"hel") == 3
    assert writer.poll_write(b"lo world") == 3
    await writer.write_all(b"world")
    assert writer.received == b"hello world"
    writer.assert_done()


async def test_a_gathered_write_is_one_write() -> None:
    writer = ScriptedWriter().accept().expect(b"header, bo").not_ready().expect(b"dy")
    buf = Buf(b"header, ", b"", b"body")

    assert await writer.write_vectored([b"one", b"", b"two"]) == 6
    assert await writer.write_buf(buf) == 10
    await writer.write_all_buf(buf)
    assert writer.received == b"onetwoheader, body"
    writer.assert_done()


async def test_a_write_of_nothing_takes_no_step() -> None:
    writer = ScriptedWriter().not_ready()

    assert writer.poll_write(b"") == 0
    assert await writer.write_vectored([b"", b""]) == 0
    with pytest.raises(AssertionError, match="left over"):
        writer.assert_done()


async def test_not_ready_is_for_the_next_poll_of_whatever_kind() -> None:
    writer = ScriptedWriter().not_ready().not_ready().accept(1).not_ready()

    for poll in (lambda: writer.poll_write(b"x"), writer.poll_flush):
        with pytest.raises(NotReady) as not_ready:
            poll()
        await not_ready.value.wait()
    assert writer.poll_write(b"x") == 1
    with pytest.raises(NotReady):
        writer.poll_shutdown()
    writer.poll_shutdown()
    writer.assert_done()


async def test_wait_is_not_ready_until_the_time_has_passed(autojump_clock: MockClock) -> None:
    writer = ScriptedWriter().wait(2.5).expect(b"x").wait(0).expect(b"y")
    start = trio.current_time()

    with pytest.raises(NotReady) as first:
        writer.poll_write(b"x")
    await trio.sleep(1)
    with pytest.raises(NotReady) as second:
        writer.poll_write(b"x")
    await second.value.wait()
    assert trio.current_time() == start + 2.5
    await first.value.wait()
    await writer.write_all(b"xy")
    assert trio.current_time() == start + 2.5
    writer.assert_done()


async def test_wait_may_be_cancelled_and_goes_on(autojump_clock: MockClock) -> None:
    writer = ScriptedWriter().wait(5).accept()
    start = trio.current_time()

    with trio.move_on_after(2) as scope:
        await writer.write(b"x")
    assert scope.cancelled_caught
    await writer.write(b"x")

    assert trio.current_time() == start + 5


async def test_a_wait_may_be_for_ever(autojump_clock: MockClock) -> None:
    writer = ScriptedWriter().wait(math.inf)

    with trio.move_on_after(10**6) as scope:
        await writer.flush()

    assert scope.cancelled_caught


@pytest.mark.parametrize("name", ["write", "flush", "shutdown"])
async def test_fail_is_for_the_next_call_and_all_after_it(name: str) -> None:
    error = OSError("the cable is cut")
    writer = ScriptedWriter().fail(error)
    calls: dict[str, Callable[[], Any]] = {
        "write": lambda: writer.write(b"x"),
        "flush": writer.flush,
        "shutdown": writer.shutdown,
    }

    for again in (name, *calls):
        with pytest.raises(trio.BrokenResourceError) as caught:
            await calls[again]()
        assert caught.value.__cause__ is error
    writer.assert_done()


async def test_fail_raises_what_is_no_oserror_as_it_is() -> None:
    error = ValueError("a bug")
    writer = ScriptedWriter().fail(error)

    with pytest.raises(ValueError) as caught:
        await writer.write(b"x")
    assert caught.value is error
    with pytest.raises(trio.BrokenResourceError):
        await writer.write(b"x")


async def test_flushes_and_a_shutdown_need_no_mention() -> None:
    async with ScriptedWriter().expect(b"ab") as writer:
        await writer.write(b"a")
        await writer.flush()
        await writer.send_all(b"b")
        await writer.shutdown()

    assert writer.received == b"ab"
    assert writer.unsent_bytes == 0


async def test_a_flush_and_a_shutdown_that_are_expected_come() -> None:
    writer = (
        ScriptedWriter().accept().expect_flush().accept().not_ready().expect_flush()
        .not_ready().expect_shutdown()
    )  # fmt: skip

    async with BufWriter(writer) as buffered:
        await buffered.send_all(b"first")
        await buffered.write(b"second")

    assert writer.received == b"firstsecond"
    writer.assert_done()


# ---- Complaints ----------------------------------------------------------------------------


async def write(writer: ScriptedWriter) -> None:
    await writer.write_all(b"hello")


COMPLAINTS = {
    "wrong bytes": (
        ScriptedWriter().accept(1).expect(b"elLo"),
        write,
        "at step 2, expect(b'elLo'): there came b'ello' for b'elLo', and byte 2 differs",
    ),
    "too much": (
        ScriptedWriter().expect(b"hell"),
        write,
        "at the end after 1 step: there came b'o'",
    ),
    "a write instead of a flush": (
        ScriptedWriter().expect(b"he").expect_flush().expect(b"llo"),
        write,
        "at step 2, expect_flush(): there came b'llo'",
    ),
    "a write instead of a shutdown": (
        ScriptedWriter().expect_shutdown(),
        write,
        "at step 1, expect_shutdown(): there came b'hello'",
    ),
    "a shutdown instead of a write": (
        ScriptedWriter().expect(b"hello"),
        ScriptedWriter.shutdown,
        "at step 1, expect(b'hello'): there came a shutdown",
    ),
    "a shutdown too early": (
        ScriptedWriter().expect_flush().accept(1).expect_shutdown(),
        ScriptedWriter.shutdown,
        "at step 2, accept(1): there came a shutdown",
    ),
}


@pytest.mark.parametrize(("script", "act", "complaint"), COMPLAINTS.values(), ids=COMPLAINTS)
async def test_what_the_script_does_not_say_is_complained_about(
    script: ScriptedWriter, act: Callable[[ScriptedWriter], Any], complaint: str
) -> None:
    """... at once, and at the end once more, for code that swallows it."""
    with pytest.raises(AssertionError) as caught:
        await act(script)
    assert str(caught.value) == f"ScriptedWriter, {complaint}"
    assert b"hello".startswith(script.received)

    with pytest.raises(trio.BrokenResourceError):
        await script.write(b"x")
    with pytest.raises(AssertionError) as again:
        script.assert_done()
    assert str(again.value) == str(caught.value)


async def test_a_long_write_is_abridged_in_the_complaint() -> None:
    writer = ScriptedWriter().expect(b"y" * 10_000)

    with pytest.raises(AssertionError, match=r"b'xxx+\.\.\.xxx+'") as caught:
        await writer.write(b"x" * 10_000)

    assert len(str(caught.value)) < 400


async def test_steps_left_over_are_named() -> None:
    writer = ScriptedWriter().accept(1).accept(1).expect(b"x").expect_shutdown()
    await writer.write_all(b"ab")

    with pytest.raises(AssertionError) as caught:
        writer.assert_done()

    assert str(caught.value) == (
        "ScriptedWriter: 2 of 4 steps are left over: expect(b'x'), expect_shutdown()"
    )
    assert repr(writer) == "<ScriptedWriter: 2 of 4 steps to come>"


async def test_leaving_the_block_complains_of_steps_left_over() -> None:
    with pytest.raises(AssertionError, match=r"at step 1, accept\(1\): there came a shutdown"):
        async with ScriptedWriter().accept(1):
            pass


async def test_a_failure_that_nothing_met_before_is_met_by_the_close() -> None:
    with pytest.raises(trio.BrokenResourceError):
        async with ScriptedWriter().fail(OSError("at the shutdown, then")):
            pass


async def test_leaving_the_block_repeats_a_swallowed_complaint() -> None:
    with pytest.raises(AssertionError, match="at the end after 0 steps"):
        async with ScriptedWriter() as writer:
            with contextlib.suppress(AssertionError):
                await writer.write(b"x")


async def test_leaving_the_block_with_an_error_raises_that_one() -> None:
    with pytest.raises(KeyError):
        async with ScriptedWriter().accept(1):
            raise KeyError


async def test_a_forceful_close_leaves_the_steps_to_assert_done() -> None:
    writer = ScriptedWriter().accept(1)

    await trio.aclose_forcefully(writer)

    with pytest.raises(AssertionError, match=r"left over: accept\(1\)"):
        writer.assert_done()


# ---- Writing a script ----------------------------------------------------------------------


SENSELESS: dict[str, tuple[Callable[[Any], object], type[Exception]]] = {
    "fewer than no bytes": (lambda script: script.accept(-1), ValueError),
    "a count that is none": (lambda script: script.accept("1"), TypeError),
    "to expect nothing": (lambda script: script.expect(b""), ValueError),
    "to expect text": (lambda script: script.expect("text"), TypeError),
    "a view with gaps": (lambda script: script.expect(memoryview(b"abcd")[::2]), BufferError),
    "a negative time": (lambda script: script.wait(-1), ValueError),
    "no time at all": (lambda script: script.wait(math.nan), ValueError),
    "more after a failure": (lambda script: script.fail(OSError()).accept(1), ValueError),
    "more after the end": (lambda script: script.expect_shutdown().not_ready(), ValueError),
}


@pytest.mark.parametrize(("add", "error"), SENSELESS.values(), ids=SENSELESS)
def test_a_senseless_step_is_refused(
    add: Callable[[ScriptedWriter], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        add(ScriptedWriter())


def test_a_script_can_be_written_on() -> None:
    writer = ScriptedWriter().accept(1)
    assert writer.poll_write(b"ab") == 1
    writer.accept(1)
    assert writer.poll_write(b"b") == 1
    writer.assert_done()


def test_a_shutdown_that_is_polled_again_takes_no_more_steps() -> None:
    writer = ScriptedWriter().expect_shutdown()
    writer.poll_shutdown()
    writer.poll_shutdown()
    writer.assert_done()
