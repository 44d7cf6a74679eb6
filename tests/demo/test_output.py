"""The demo's closing line, and standard output that does not take it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.abc
import trio.testing

from trio_asyncwrite import __main__ as command_line, duplex
from trio_asyncwrite._demo import job
from trio_asyncwrite._demo.progress import show_progress
from trio_asyncwrite._demo.transport import TCP

FULL = Path("/dev/full")
SUCCESS = "Everything arrived whole through this library, and every ending was clean."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small file to send."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


# ---- The closing line -------------------------------------------------------------------------


def test_the_last_line_says_the_result(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["demo", str(path), "--cancels=0", "--answers=1"]) == 0
    assert capsys.readouterr().out.endswith(f"\n\n{SUCCESS}\n")


class Deaf(trio.abc.Stream):
    """Breaks when it is to receive."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise trio.BrokenResourceError("deaf")

    async def aclose(self) -> None:
        await self.stream.aclose()


async def connect_in_memory() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return duplex(65536)


async def connect_deafly() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    client, server = duplex(65536)
    return client, Deaf(server)


MEMORY = dataclasses.replace(
    TCP,
    name="memory",
    connect=connect_in_memory,
    connect_server=connect_in_memory,
    connect_plain=connect_in_memory,
)


@pytest.mark.parametrize(
    ("changes", "bad"),
    [
        ({"connect": connect_deafly}, "over memory, a file over memory, a relay over memory"),
        ({"connect_server": connect_deafly}, "answers over memory"),
        (
            {"connect": connect_deafly, "connect_server": connect_deafly},
            "over memory, a file over memory, a relay over memory, answers over memory",
        ),
    ],
)
def test_the_last_line_names_every_table_with_a_fault(
    changes: dict[str, Any], bad: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transports = [MEMORY, dataclasses.replace(MEMORY, **changes)]
    assert job.run_demo(path, cancels=0, seed=0, answers=1, transports=transports) == 1
    assert capsys.readouterr().out.endswith(f"\nFAILED: bytes or endings are wrong: {bad}.\n")


# ---- Standard output that does not take it ----------------------------------------------------


class Faulty(io.StringIO):
    """Takes some texts, and then raises an error."""

    def __init__(self, error: Exception, takes: int) -> None:
        super().__init__()
        self.error = error
        self.takes = takes
        self.attempts = 0

    def write(self, text: str) -> int:
        self.attempts += 1
        if self.attempts > self.takes:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("takes", range(5))
@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BrokenPipeError(), 141, ""),
        (OSError("no space"), 3, "cannot write to standard output: no space\n"),
        (ValueError("closed file"), 3, "cannot write to standard output: closed file\n"),
    ],
    ids=["the reader left", "full", "closed"],
)
def test_it_ends_at_once_and_its_status_tells(
    error: Exception,
    status: int,
    said: str,
    takes: int,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = Faulty(error, takes)
    monkeypatch.setattr(sys, "stdout", out)
    arguments = ["demo", str(path), "--cancels=0", "--answers=1", "--transport=tcp"]
    assert command_line.main(arguments) == status
    assert out.attempts == takes + 1
    assert SUCCESS not in out.getvalue()
    assert capsys.readouterr().err.endswith(said)


async def test_a_terminal_that_has_gone_ends_the_progress_quietly(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Terminal(Faulty):
        def isatty(self) -> bool:
            return True

    out = Terminal(OSError("hung up"), takes=1)
    await show_progress(out, lambda: "text")
    assert out.attempts == 3


def run(arguments: list[str], **options: Any) -> tuple[int, str]:
    """Run the command in a process by itself; return its status and standard error."""
    command = [sys.executable, "-m", "trio_asyncwrite", *arguments]
    # Without a buffer argparse meets the error of --help, and hides it.
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        command, stderr=subprocess.PIPE, text=True, check=False, env=environment, **options
    )
    return done.returncode, done.stderr


@contextlib.contextmanager
def unread_pipe() -> Any:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


@pytest.mark.parametrize("arguments", [["demo"], ["--help"]])
def test_a_reader_that_has_left_ends_it_without_a_word(arguments: list[str]) -> None:
    with unread_pipe() as out:
        assert run(arguments, stdout=out) == (141, "")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["demo"], ["--version"]])
def test_a_full_disk_is_an_error_in_one_line(arguments: list[str]) -> None:
    with FULL.open("w") as out:
        status, said = run(arguments, stdout=out)
    assert status == 3
    assert said.startswith("trio_asyncwrite: cannot write to standard output: ")
    assert said.endswith("No space left on device\n")
    assert said.count("\n") == 1


def test_a_closed_output_is_an_error_in_one_line() -> None:
    status, said = run(["demo"], preexec_fn=lambda: os.close(1))
    assert status == 3
    assert said == "trio_asyncwrite: cannot write to standard output: it is closed\n"


def test_help_without_an_output_goes_to_standard_error() -> None:
    status, said = run(["--help"], preexec_fn=lambda: os.close(1))
    assert status == 0
    assert said.startswith("usage: ")


def test_nobody_hears_anything_if_standard_error_is_full_as_well() -> None:
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "trio_asyncwrite", "demo"]
        done = subprocess.run(command, stdout=full, stderr=full, check=False)
    assert done.returncode == 3
