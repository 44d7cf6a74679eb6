"""Files through the shell: whole, resumable, and a begun one stands in the way."""

from __future__ import annotations

import errno
import gc
import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_asyncwrite import AsyncWrite, Buf, BufWriter, Cursor, FilePart, Sink, WriteZeroError
from trio_asyncwrite._core import _file_part, _page_cache

from .._disk import CONTENT, STATUS, overwrite, path, raising
from .._streams import assert_leaves_no_cycle
from ._fakes import (
    CLAIMS,
    ENDS,
    WRITES,
    Encoding,
    Layer,
    Upper,
    Wire,
    begin,
    cut_short,
    each,
    resource_warnings,
    run_cancelled,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ._fakes import Operation

__all__ = ("path",)

SIZE = len(CONTENT)


@pytest.fixture
def file(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        yield file


# ---- Whole ---------------------------------------------------------------------------------------


async def test_it_writes_a_part_and_moves_it(file: Any) -> None:
    wire = Wire(math.inf)
    part = FilePart(file, 5, 200_000)
    with trio.testing.assert_checkpoints():
        await wire.write_all_file(part)
    assert wire.sent == CONTENT[5:200_005]
    assert (part.offset, part.remaining, bool(part)) == (200_005, 0, False)
    await wire.write_all_file(part)  # it is finished
    assert len(wire.sent) == 200_000


async def test_without_a_count_it_goes_to_the_end_as_found_then(file: Any, path: Path) -> None:
    wire = Wire(math.inf)
    part = FilePart(file)
    with path.open("ab") as growing:
        growing.write(b"more")
    await wire.write_all_file(part)
    assert wire.sent == CONTENT + b"more"
    with path.open("ab") as growing:
        growing.write(b"too late")
    await wire.write_all_file(part)
    assert wire.sent == CONTENT + b"more"


@pytest.mark.parametrize("offset", [SIZE, SIZE + 1, 2**62])
async def test_at_or_beyond_the_end_it_writes_nothing(file: Any, offset: int) -> None:
    """cpython PR 22040: Solaris says EINVAL."""
    wire = Wire()
    await wire.write_all_file(FilePart(file, offset))
    await wire.write_all_file(FilePart(file, offset, 0))
    assert wire.log == []
    with pytest.raises(EOFError, match="the file ends 3 bytes too early"):
        await wire.write_all_file(FilePart(file, offset, 3))
    assert wire.lifecycle.refusal is None


async def test_a_file_that_was_truncated_is_an_error_and_the_position_is_exact(
    file: Any, path: Path
) -> None:
    """sendfile then gives 0 for ever."""
    wire = Wire(10)
    part = FilePart(file, 0, SIZE)
    await cut_short(partial(wire.write_all_file, part))
    assert part.offset == 10
    os.truncate(path, 1000)
    wire.give(math.inf)
    with pytest.raises(EOFError) as caught:
        await wire.write_all_file(part)
    # What was read before is sent.
    assert part.offset == len(wire.sent) == _page_cache.PIECE
    assert wire.sent == CONTENT[: part.offset]
    assert f"the file ends {part.remaining} bytes too early" in str(caught.value)
    assert str(part) in str(caught.value)
    # It may grow again, and until then nothing else may be written.
    with pytest.raises(trio.BrokenResourceError, match="finish the FilePart first"):
        await wire.write(b"x")
    overwrite(path, CONTENT)
    await wire.write_all_file(part)
    assert wire.sent == CONTENT
    await wire.write(b"x")


@pytest.mark.skipif(not STATUS.exists(), reason="Linux only")
async def test_a_file_of_unknown_size_goes_to_its_end() -> None:
    """Of /proc/self/status the size is 0, and sendfile says EINVAL."""
    wire = Wire(math.inf)
    with STATUS.open("rb") as file:
        part = FilePart(file)
        assert part.remaining == 0
        assert part
        await wire.send_file(file)
    assert wire.sent.startswith(b"Name:")
    assert wire.sent.endswith(b"\n")


# ---- Wrong arguments and answers -----------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, b"abc", "path", Buf(b"abc"), 7, [1]])
async def test_what_is_no_part_is_refused_and_breaks_nothing(file: Any, wrong: Any) -> None:
    wire = Wire(math.inf)
    for layer in (wire, Layer(wire), wire.by_ref(), BufWriter(wire)):
        with pytest.raises(TypeError, match="expected a FilePart, got"):
            await layer.write_all_file(wrong)
        with pytest.raises(TypeError, match="expected a FilePart, got"):
            layer.poll_write_file(wrong, 1)
        if wrong != 7:
            with pytest.raises(TypeError):
                await layer.send_file(wrong)
        with pytest.raises(TypeError, match="got a FilePart: use write_all_file"):
            await layer.send_file(FilePart(file, 3, 4))  # type: ignore[arg-type]
        await layer.send_all(b"x")


@pytest.mark.parametrize("method", ["write_buf", "write_all_buf"])
async def test_a_part_is_no_buf(file: Any, method: str) -> None:
    wire = Wire(math.inf)
    with pytest.raises(TypeError, match="expected a Buf, got FilePart"):
        await getattr(wire, method)(FilePart(file))
    await wire.write(b"x")


@pytest.mark.parametrize("method", ["write", "write_all", "send_all", "write_vectored"])
async def test_a_part_is_no_bytes(file: Any, method: str) -> None:
    wire = Wire(math.inf)
    with pytest.raises(TypeError, match="got FilePart: it goes to write_all_file"):
        await getattr(wire, method)(FilePart(file))
    await wire.write(b"x")


@pytest.mark.parametrize(
    ("limit", "error"),
    [(0, ValueError), (-1, ValueError), ("1", TypeError), (1.0, TypeError), (True, TypeError)],
)
def test_a_wrong_limit_is_refused(file: Any, limit: Any, error: type[Exception]) -> None:
    wire = Wire(math.inf)
    for layer in (wire, Layer(wire), wire.by_ref(), BufWriter(wire)):
        with pytest.raises(error, match="limit must be"):
            layer.poll_write_file(FilePart(file), limit)
    assert wire.log == []

    class Number(int):
        pass

    assert wire.poll_write_file(FilePart(file), Number(1)) == 1


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (None, TypeError, "must return how many bytes it accepted, it returned None"),
        (True, TypeError, "must return how many bytes it accepted, it returned True"),
        (11, RuntimeError, "claims to have accepted 11 of 10 bytes"),
        (-1, RuntimeError, "claims to have accepted -1 of 10 bytes"),
    ],
)
async def test_a_wrong_answer_names_the_class_and_the_method(
    file: Any, answer: Any, error: type[Exception], text: str
) -> None:
    class Wrong(AsyncWrite):
        def poll_write_file(self, part: FilePart, limit: int, /) -> int:
            return answer  # type: ignore[no-any-return]

    part = FilePart(file, 0, 10)
    with pytest.raises(error, match=f"poll_write_file.. of Wrong {text}"):
        await Wrong().write_all_file(part)
    assert part.offset == 0


class Answering(Wire):
    """Answers for a file what it is told to, and then what is right, ten bytes at most."""

    def __init__(self, *answers: int, then: Callable[[], object] | None = None) -> None:
        super().__init__(math.inf)
        self.answers = list(answers)
        self.then = then

    def poll_write_file(self, part: FilePart, limit: int, /) -> int:
        if not self.answers:
            return super().poll_write_file(part, min(limit, 10))
        if self.then is not None:
            self.then()
        return self.answers.pop(0)


@pytest.mark.parametrize("count", [None, 20])
@pytest.mark.parametrize("sends", [False, True])
async def test_to_accept_nothing_of_a_file_that_has_more_is_an_error(
    file: Any, count: int | None, *, sends: bool
) -> None:
    """It was taken for the end of the file."""
    writer = Answering(0)
    part = FilePart(file, 5, count)
    with pytest.raises(WriteZeroError, match=r"poll_write_file.. of Answering accepted 0 bytes of"):
        await (writer.send_file(file, 5, count) if sends else writer.write_all_file(part))
    assert part.offset == 5
    with pytest.raises(trio.BrokenResourceError, match="has failed before"):
        await writer.write(b"x")


@pytest.mark.parametrize("answers", [(0,), (0, 0)])
async def test_a_file_that_grows_during_a_poll_is_asked_for_again(
    file: Any, path: Path, answers: tuple[int, ...]
) -> None:
    """The answer 0 was right when it was given; a second one is not."""

    def grow() -> None:
        overwrite(path, CONTENT + b"more")

    writer = Answering(*answers, then=grow)
    part = FilePart(file, SIZE)
    if len(answers) > 1:
        with pytest.raises(WriteZeroError):
            await writer.write_all_file(part)
    else:
        await writer.write_all_file(part)
        assert writer.sent == b"more"


@pytest.mark.skipif(not STATUS.exists(), reason="Linux only")
async def test_to_accept_nothing_of_a_file_of_unknown_size_is_an_error() -> None:
    with STATUS.open("rb") as file:
        with pytest.raises(WriteZeroError):
            await Answering(0, 0).write_all_file(FilePart(file))
        with pytest.raises(WriteZeroError):
            await Answering(0, 0).write_all_file(FilePart(file, 0, 10))


async def test_a_writer_may_take_nothing_of_a_file_that_is_too_short(file: Any) -> None:
    """As a SharedWriter does."""
    writer = Answering(0)
    with pytest.raises(EOFError, match="the file ends 1 byte too early"):
        await writer.write_all_file(FilePart(file, 0, SIZE + 1))
    await writer.write(b"x")


async def test_a_file_that_cannot_be_asked_breaks_no_writer(
    file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Answering(0)
    with monkeypatch.context() as patch:
        patch.setattr(_file_part, "pread", raising(OSError(errno.EIO, "bad sector")))
        with pytest.raises(OSError, match="bad sector"):
            await writer.write_all_file(FilePart(file))
    await writer.write(b"x")


async def test_a_claim_of_more_than_the_file_has_is_an_error(file: Any) -> None:
    part = FilePart(file, SIZE - 3)
    with pytest.raises(RuntimeError, match="of Answering claims to have accepted 4 of 3 bytes"):
        await Answering(4).write_all_file(part)
    assert part.offset == SIZE - 3


@pytest.mark.parametrize("how", ["grown", "truncated"])
async def test_the_size_that_counts_is_that_of_the_poll(file: Any, path: Path, how: str) -> None:
    def change() -> None:
        if how == "grown":
            overwrite(path, CONTENT + b"more")
        else:
            os.truncate(path, 3)

    writer = Answering(7, then=change)
    part = FilePart(file, SIZE - 3 if how == "grown" else 0)
    await writer.write_all_file(part)
    assert part.offset == (SIZE + 4 if how == "grown" else 7)


# ---- A part that somebody else moves -------------------------------------------------------------


@pytest.mark.parametrize("accepted", [0, 10])
@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("how", ["moved", "moved to its end"])
async def test_a_part_that_somebody_else_moves_is_not_said_to_be_written(
    file: Any, how: str, accepted: int, *, goes_on: bool
) -> None:
    wire = Wire(5 if goes_on else 0)
    part = FilePart(file, 0, 100)
    if goes_on:
        await cut_short(partial(wire.write_all_file, part))
    wire.give(accepted)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write_all_file, part))
        part.advance(1 if how == "moved" else part.remaining)
        wire.give(math.inf)
    assert run.outcome == "BrokenResourceError"
    assert len(wire.sent) == accepted + 5 * goes_on
    with resource_warnings() as messages:
        if accepted or goes_on:
            text = f"moved by somebody else after {accepted} bytes of it had been accepted"
            with pytest.raises(trio.BrokenResourceError, match=text):
                await wire.write(b"x")
            with pytest.raises(trio.BrokenResourceError, match=text):
                await wire.write_all_file(part)
        else:
            await wire.write(b"x")  # nothing was begun
        await wire.aclose()
    assert wire.releases == [f"release {not (accepted or goes_on)}"]
    assert len(messages) == bool(accepted or goes_on)


@pytest.mark.parametrize("how", ["moved", "moved to its end"])
async def test_a_part_that_was_moved_cannot_be_gone_on_with_after_a_cancellation(
    file: Any, how: str
) -> None:
    wire = Wire(10)
    part = FilePart(file, 0, 100)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write_all_file, part))
        part.advance(1 if how == "moved" else part.remaining)
        run.scope.cancel()
    assert run.outcome == "cancelled"
    wire.give(math.inf)
    with pytest.raises(trio.BrokenResourceError, match="moved by somebody else after 10 bytes"):
        await wire.write_all_file(part)
    with resource_warnings():
        await wire.aclose()
    assert wire.releases == ["release False"]


async def test_a_part_that_is_being_written_is_refused_elsewhere(file: Any) -> None:
    """Each peer got some of it, and a proper end."""
    wire, other = Wire(10), Wire(math.inf)
    part = FilePart(file, 0, 100)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write_all_file, part))
        for writer in (other, wire):
            with pytest.raises(trio.BusyResourceError, match="one part goes to one writer at a"):
                await writer.write_all_file(part)
        await other.write_all(b"x")
        run.scope.cancel()
    # It goes on elsewhere when nobody writes it.
    await other.write_all_file(part)
    assert other.sent == b"x" + CONTENT[10:100]
    with resource_warnings():
        await wire.aclose()


@pytest.mark.parametrize("sends", [False, True])
async def test_a_layer_that_moves_the_part_itself_is_noticed(file: Any, *, sends: bool) -> None:
    class Moving(Wire):
        def poll_write_file(self, part: FilePart, limit: int, /) -> int:
            count = super().poll_write_file(part, min(limit, 10))
            part.advance(count)
            return count

    wire = Moving(math.inf)
    with pytest.raises(trio.BrokenResourceError, match="moved by somebody else"):
        await (wire.send_file(file, 0, 20) if sends else wire.write_all_file(FilePart(file, 0, 20)))
    with pytest.raises(trio.BrokenResourceError, match="moved by somebody else"):
        await wire.write(b"x")
    with resource_warnings():
        await wire.aclose()


async def test_a_full_writer_says_so_and_the_part_goes_on_elsewhere(file: Any) -> None:
    cursor = Cursor(bytearray(10), growable=False)
    part = FilePart(file, 0, 20)
    with pytest.raises(WriteZeroError):
        await cursor.write_all_file(part)
    assert part.offset == 10
    cursor.position = 0
    await cursor.write_all_file(part)
    assert cursor.getvalue() == CONTENT[10:20]


# ---- Layers --------------------------------------------------------------------------------------


async def test_a_layer_that_changes_bytes_sees_them(file: Any) -> None:
    wire = Wire(math.inf)
    await Upper(wire).write_all_file(FilePart(file))
    assert wire.sent == CONTENT.upper()
    encoded = Wire(math.inf)
    await Encoding(encoded).send_file(file, 0, 20)
    assert encoded.sent == CONTENT[:20].upper()


async def test_a_layer_that_overrides_no_write_passes_the_file_on(file: Any) -> None:
    """Also one whose poll_write is of the object, and not of the class."""

    class Direct(Wire):
        def poll_write_file(self, part: FilePart, limit: int, /) -> int:
            self.log.append("file")
            return super().poll_write_file(part, limit)

    wire = Direct(math.inf)
    layer = Layer(Layer(wire))
    await layer.write_all_file(FilePart(file, 0, 10))
    assert wire.log == ["file", "write"]
    wire.log.clear()
    seen: list[bytes] = []

    def poll_write(data: bytes) -> int:
        seen.append(bytes(data))
        return wire.poll_write(data)

    layer.poll_write = poll_write  # type: ignore[method-assign]
    await layer.write_all_file(FilePart(file, 0, 10))
    assert wire.log == ["write"]
    assert seen == [CONTENT[:10]]


async def test_a_writer_without_a_write_says_so(file: Any) -> None:
    class Nothing(AsyncWrite):
        pass

    with pytest.raises(TypeError, match="Nothing must define poll_write"):
        await Nothing().write_all_file(FilePart(file))


async def test_a_limit_bounds_what_a_poll_takes(file: Any) -> None:
    wire = Wire(math.inf)
    part = FilePart(file)
    for layer in (wire, Layer(wire), wire.by_ref(), BufWriter(wire, 1)):
        before = len(wire.sent)
        assert layer.poll_write_file(part, 7) == 7
        part.advance(7)
        assert len(wire.sent) == before + 7
    assert wire.sent == CONTENT[:28]


async def test_a_long_call_lets_other_tasks_run(tmp_path: Path) -> None:
    """Though the writer is always ready."""
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 40 * _page_cache.PIECE)
    sink = Sink()
    order: list[str] = []

    async def send() -> None:
        with path.open("rb") as file:
            await sink.write_all_file(FilePart(file))
        order.append("sent")

    async def other() -> None:
        order.append("other")
        await trio.lowlevel.checkpoint()
        order.append("other again")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(other)
    assert order == ["other", "other again", "sent"]


# ---- Law 2: whose failure it is ------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
async def test_a_failure_of_the_file_breaks_no_writer(
    file: Any, monkeypatch: pytest.MonkeyPatch, *, begun: bool
) -> None:
    wire = Wire(10 if begun else 0)
    layer = Layer(wire)
    part = FilePart(file, 0, SIZE)
    if begun:
        await cut_short(partial(layer.write_all_file, part))
        part.advance(_page_cache.PIECE - 10)  # what was read is passed
    with monkeypatch.context() as patch:
        error = OSError(errno.EIO, "bad sector")
        patch.setattr(_file_part, "pread", raising(error))
        patch.setattr(_file_part.FilePart, "poll_cached", lambda *_: 0)
        if begun:
            part.advance(0)
            with pytest.raises(trio.BrokenResourceError, match="finish the FilePart first"):
                await layer.write_all_file(part)  # somebody has moved it
            wire.give(math.inf)
            with resource_warnings():
                await wire.aclose()
            return
        with pytest.raises(OSError, match="bad sector") as caught:
            await layer.write_all_file(part)
        assert not isinstance(caught.value, trio.BrokenResourceError)
    assert layer.lifecycle.refusal is None
    assert wire.lifecycle.refusal is None
    wire.give(math.inf)
    await layer.write_all_file(part)
    assert wire.sent == CONTENT


async def test_a_failure_of_the_writer_breaks_it_and_the_part_is_exact(file: Any) -> None:
    wire = Wire(10)
    part = FilePart(file)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write_all_file, part))
        wire.error = OSError("gone")
        wire.waiters.unpark_all()
    assert run.outcome == "BrokenResourceError"
    assert part.offset == 10
    with pytest.raises(trio.BrokenResourceError, match="gone"):
        await wire.write_all_file(part)
    other = Wire(math.inf)
    await other.write_all_file(part)
    assert other.sent == CONTENT[10:]


# ---- Law 3: a part that was begun ----------------------------------------------------------------


async def test_cancelled_it_stands_where_it_goes_on(file: Any) -> None:
    wire = Wire()
    part = FilePart(file, 3, 30)
    for room in (0, 7, 1, 12):
        wire.give(room)
        before = part.offset
        await cut_short(partial(wire.write_all_file, part))
        assert part.offset == before + room
    wire.give(math.inf)
    await wire.write_all_file(part)
    assert wire.sent == CONTENT[3:33]
    await wire.write_all(b"!")


@each({**WRITES, "shutdown": ENDS["shutdown"]})
async def test_a_part_that_was_begun_stands_in_the_way(file: Any, operation: Operation) -> None:
    wire = Wire(10)
    layer, handle = Layer(wire), wire.by_ref()
    part = FilePart(file)
    await cut_short(partial(wire.write_all_file, part))
    wire.give(math.inf)
    # A handle may be shut down: that leaves the part to be gone on with.
    for writer in (wire,) if operation is ENDS["shutdown"] else (wire, handle):
        with pytest.raises(trio.BrokenResourceError, match="finish the FilePart first, by write_a"):
            await operation(writer)
    for other in (FilePart(file), FilePart(file, 10)):
        with pytest.raises(trio.BrokenResourceError, match="of the same FilePart"):
            await handle.write_all_file(other)
    with pytest.raises(trio.BrokenResourceError, match="finish the FilePart first"):
        await wire.send_file(file)
    await wire.flush()
    await handle.write_all_file(part)
    assert wire.sent == CONTENT
    await operation(wire)
    await layer.aclose()


async def test_a_part_in_a_handle_belongs_to_the_original(file: Any) -> None:
    wire = Wire(10)
    handle = wire.by_ref()
    part = FilePart(file)
    await cut_short(partial(handle.write_all_file, part))
    with pytest.raises(trio.BrokenResourceError, match="finish the FilePart first"):
        await wire.write(b"x")
    wire.give(math.inf)
    with resource_warnings():
        await handle.aclose()
    await wire.write_all_file(part)
    assert wire.sent == CONTENT
    await wire.aclose()
    assert wire.releases == ["release True"]


@pytest.mark.parametrize("how", ["dropped", "moved", "finished elsewhere"])
async def test_to_spoil_the_part_changes_nothing(file: Any, how: str) -> None:
    wire = Wire(10)
    part = FilePart(file)
    await cut_short(partial(wire.write_all_file, part))
    if how == "moved":
        part.advance(1)
    elif how == "finished elsewhere":
        await Wire(math.inf).write_all_file(part)
    else:
        del part
        gc.collect()
    with pytest.raises(trio.BrokenResourceError, match="finish the FilePart first"):
        await wire.write(b"x")
    if how != "dropped":
        with pytest.raises(trio.BrokenResourceError, match="finish the FilePart first"):
            await wire.write_all_file(part)
    with resource_warnings() as messages:
        await wire.aclose()
    assert wire.releases == ["release False"]
    assert messages == ["<Wire> was closed: a FilePart was begun and not finished"]


async def test_an_end_over_an_unfinished_part_is_truncated(file: Any) -> None:
    armed: list[bool] = []

    class Armed(Wire):
        def arm_reset(self, *, on: bool) -> None:
            armed.append(on)

    for finish in (True, False):
        armed.clear()
        wire = Armed(10)
        part = FilePart(file)
        await cut_short(partial(wire.write_all_file, part))
        assert armed == [True]
        wire.give(math.inf)
        if finish:
            await wire.write_all_file(part)
            assert armed == [True, False]
        with resource_warnings() as messages:
            await wire.aclose()
        assert wire.releases == [f"release {finish}"]
        assert len(messages) == (not finish)


async def test_what_was_not_begun_stands_in_nobody_s_way(file: Any) -> None:
    wire = Wire()
    for operation in (wire.write_all_file, lambda part: wire.send_file(part.fileno())):
        await cut_short(partial(operation, FilePart(file)))
        assert wire.lifecycle.refusal is None


@each(CLAIMS)
async def test_it_claims_the_writer(file: Any, operation: Operation) -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write_all_file, FilePart(file)))
        with pytest.raises(trio.BusyResourceError):
            await operation(wire)
        with pytest.raises(trio.BusyResourceError):
            await wire.send_file(file)
        wire.give(math.inf)
    assert run.outcome == "returned None"
    assert wire.sent == CONTENT


async def test_a_close_evicts_it_and_finds_the_part_unfinished(file: Any) -> None:
    wire = Wire(10)
    part = FilePart(file)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(wire.write_all_file, part))
        with resource_warnings() as messages:
            await wire.aclose()
    assert run.outcome == "ClosedResourceError"
    assert wire.releases == ["release False"]
    assert (part.offset, len(messages)) == (10, 1)
    with pytest.raises(trio.ClosedResourceError):
        await wire.write_all_file(part)


# ---- send_file -----------------------------------------------------------------------------------


async def test_the_one_line_form_writes_and_flushes(file: Any) -> None:
    wire = Wire(math.inf)
    await BufWriter(wire).send_file(file, 3, 10)
    assert wire.sent == CONTENT[3:13]
    assert wire.log[-1] == "flush"
    with pytest.raises(EOFError):
        await wire.send_file(file, SIZE, 1)
    with pytest.raises(ValueError, match="offset"):
        await wire.send_file(file, -1)
    assert wire.lifecycle.refusal is None


@pytest.mark.parametrize("count", [None, 100])
async def test_the_one_line_form_tears_when_a_part_was_accepted(
    file: Any, count: int | None
) -> None:
    wire = Wire(10)
    await cut_short(partial(wire.send_file, file, 0, count))
    size = SIZE if count is None else count
    with pytest.raises(trio.BrokenResourceError, match=f"only 10 of the {size} bytes of a message"):
        await wire.write(b"x")
    with resource_warnings():
        await wire.aclose()
    assert wire.releases == ["release False"]


async def test_the_one_line_form_tears_when_the_file_is_too_short(file: Any) -> None:
    wire = Wire(math.inf)
    with pytest.raises(EOFError, match="the file ends 1 byte too early"):
        await wire.send_file(file, SIZE - 3, 4)
    assert wire.sent == CONTENT[-3:]
    with pytest.raises(trio.BrokenResourceError, match="only 3 of the 4 bytes"):
        await wire.write(b"x")
    with resource_warnings():
        await wire.aclose()


async def test_a_cancelled_flush_of_the_one_line_form_abandons(file: Any) -> None:
    """As with send_all: generic code gets out of the close that follows."""
    wire = Wire()
    writer = BufWriter(wire, 100)
    await cut_short(partial(writer.send_file, file, 0, 99))
    assert writer.unsent_bytes == 99
    assert writer.lifecycle.abandoned
    with resource_warnings() as messages, trio.fail_after(5):
        await writer.aclose()
    assert len(messages) == 1
    assert (await run_cancelled(partial(writer.send_file, file))).outcome == "ClosedResourceError"


async def test_the_one_line_form_waits_for_its_flush(file: Any) -> None:
    wire = Wire()
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, partial(BufWriter(wire, 100).send_file, file, 0, 99))
        assert run.outcome == "returned not finished"
        wire.give(math.inf)
    assert run.outcome == "returned None"
    assert wire.sent == CONTENT[:99]


async def test_no_call_leaves_a_reference_cycle(file: Any) -> None:
    async def scenario() -> None:
        wire = Wire(10)
        part = FilePart(file, 0, SIZE + 1)
        await cut_short(partial(wire.write_all_file, part))
        wire.give(math.inf)
        with pytest.raises(EOFError):
            await wire.write_all_file(part)
        with resource_warnings():
            await wire.aclose()

    await assert_leaves_no_cycle(scenario)
