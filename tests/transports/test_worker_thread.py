"""Calls of a file in a worker thread, which belong to no run."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_asyncwrite._core._errors import NotReady
from trio_asyncwrite._transports._allow_stdio import AllowStdIo
from trio_asyncwrite._transports._std_file import StdFile
from trio_asyncwrite._transports._worker_thread import Job

from .._files import Gated, Scripted
from .._patience import wait_all_tasks_blocked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def test_a_run_may_end_while_the_thread_works(capsys: pytest.CaptureFixture[str]) -> None:
    file = Gated()

    async def main() -> AllowStdIo:
        writer = AllowStdIo(file, offload=True)
        await writer.write(b"abc")
        return writer

    writer = trio.run(main)
    job = writer._job
    assert job is not None
    file.gate.set()
    assert job.ended.wait(60)
    assert file.written == b"abc"
    assert writer.unsent_bytes == 3  # since nobody has flushed the file
    trio.run(writer.aclose)
    assert writer.unsent_bytes == 0
    assert capsys.readouterr().err == ""


async def begin(file: Gated) -> AllowStdIo:
    """Begin a write that goes on until the gate is open."""
    writer = AllowStdIo(file, offload=True)
    await writer.write(b"abc")
    return writer


#: All that may have to wait for the thread.
OPERATIONS: dict[str, Callable[[AllowStdIo], Awaitable[object]]] = {
    "write": lambda writer: writer.write(b"d"),
    "write_all": lambda writer: writer.write_all(b"d"),
    "send_all": lambda writer: writer.send_all(b"d"),
    "flush": AllowStdIo.flush,
    "shutdown": AllowStdIo.shutdown,
    "aclose": AllowStdIo.aclose,
    "wait": AllowStdIo.wait_send_all_might_not_block,
}
every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


@every_operation
@pytest.mark.parametrize("ends", ["before the wait", "during the wait"])
def test_a_call_that_began_in_one_run_is_waited_for_in_another(
    operation: Callable[[AllowStdIo], Awaitable[object]], ends: str
) -> None:
    file = Gated()

    async def go_on(writer: AllowStdIo) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(operation, writer)
            await wait_all_tasks_blocked()
            file.gate.set()
        await writer.aclose()

    writer = trio.run(begin, file)
    if ends == "before the wait":
        file.gate.set()
    trio.run(go_on, writer)
    assert file.written.startswith(b"abc")
    assert writer.unsent_bytes == 0


def test_a_wait_that_a_poll_named_in_one_run_works_in_another() -> None:
    file = Gated()
    named: list[Callable[[], Awaitable[object]]] = []

    async def poll() -> AllowStdIo:
        writer = await begin(file)
        with pytest.raises(NotReady) as not_ready:
            writer.poll_flush()
        named.append(not_ready.value.wait)
        return writer

    async def wait_for(writer: AllowStdIo) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(named[0])
            await wait_all_tasks_blocked()
            file.gate.set()
        await writer.aclose()

    trio.run(wait_for, trio.run(poll))
    assert file.written == b"abc"


def test_tasks_of_two_runs_at_once_are_woken() -> None:
    gate = threading.Event()
    job = Job(StdFile(Scripted()))

    async def wait_here(is_waiting: threading.Event) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(job.wait)
            await wait_all_tasks_blocked()
            is_waiting.set()

    async def main() -> None:
        is_waiting = threading.Event()
        job.start(gate.wait)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, trio.run, wait_here, is_waiting)
            nursery.start_soon(job.wait)
            assert await trio.to_thread.run_sync(is_waiting.wait, 60)
            gate.set()

    trio.run(main)
    assert not job._waiting


async def test_a_call_that_ended_between_the_poll_and_the_wait_is_not_missed() -> None:
    file = Gated()
    writer = await begin(file)
    with pytest.raises(NotReady) as not_ready:
        writer.poll_flush()
    file.gate.set()
    assert writer._job is not None
    assert writer._job.ended.wait(60)
    with trio.testing.assert_checkpoints():
        await not_ready.value.wait()
    await writer.aclose()


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    gate = threading.Event()
    job = Job(StdFile(Scripted()))
    job.start(gate.wait)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(job.wait)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not job._waiting
    gate.set()
    await job.wait()


def test_a_run_that_has_ended_does_not_keep_the_others_from_being_woken() -> None:
    gate = threading.Event()
    job = Job(StdFile(Scripted()))

    async def end() -> None:
        job._waiting[trio.Event()] = trio.lowlevel.current_trio_token()

    async def wait_here() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(job.wait)
            await wait_all_tasks_blocked()
            gate.set()

    trio.run(end)
    job.start(gate.wait)  # type: ignore[arg-type]
    trio.run(wait_here)
