"""The main job: it proves what arrived, and it can find fault."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import random
import runpy
import signal
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.abc
import trio.testing

from trio_asyncwrite import TcpStream, __main__ as command_line, duplex
from trio_asyncwrite._demo import job, sender, source
from trio_asyncwrite._demo.cancellations import Cancellations, draw_places
from trio_asyncwrite._demo.progress import show_progress
from trio_asyncwrite._demo.tape import Tape
from trio_asyncwrite._demo.transport import TCP, connect_tcp
from trio_asyncwrite._demo.wire import END_PAYLOAD, HEADER, Kind, Parser
from trio_asyncwrite._version import __version__

from .._streams import reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_asyncwrite._demo.transport import Connect

RECORD = source.RECORD_SIZE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """More than the kernel's buffers hold, in records that are whole, cut, and empty."""
    content = random.Random(0).randbytes(3 * RECORD)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "large").write_bytes(content + b"rest")
    (tmp_path / "sub" / "whole").write_bytes(content[:RECORD])
    (tmp_path / "empty").touch()
    (tmp_path / os.fsdecode(b"odd \xff name")).write_bytes(b"x" * 100)
    return tmp_path


def rows(output: str, title: str = "over TCP") -> dict[str, list[str]]:
    """The table of that title in the output: label -> one cell for each way."""
    lines = output.partition(f"\n{title}  ")[2].partition("\n\n")[0].splitlines()[2:]
    return {
        line[:26].strip(): [line[at : at + 17].strip() for at in (26, 43, 60)] for line in lines
    }


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


# ---- The job as a whole -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_every_byte_arrives_and_send_all_loses_some(
    seed: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = command_line.main(
        ["demo", str(folder), "--cancels=12", f"--seed={seed}", "--answers=0"]
    )

    table = rows(capsys.readouterr().out)
    assert status == 0
    assert table["arrived whole"] == ["yes", "NO", "NO"]
    # The last ones miss when the rest of the stream fits into the kernel's buffers.
    assert table["cancellations that hit"][0] in {f"{hits} of 12" for hits in range(6, 13)}
    assert table["files with right SHA-256"][0] == "4 of 4"
    assert table["bytes received"][0] == table["bytes to be sent"][0]
    assert table["messages in step"][0] == "17 of 17"
    assert table["first wrong byte"][0] == "none"
    missing, too_many = table["bytes missing"], table["bytes too many"]
    assert [number(cell) > 0 for cell in missing] == [False, False, True]
    assert [number(cell) > 0 for cell in too_many] == [False, True, False]
    assert table["ended"] == ["clean", "unknown", "unknown"]
    for count in ("unsent", "unacknowledged", "discarded"):
        assert table[f"bytes {count}"] == ["0", "unknown", "unknown"]
    assert "peer's close_notify" not in table


def test_the_output_says_what_was_done_and_why_send_all_loses(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dangling").symlink_to("nowhere")

    command_line.main(["demo", str(folder), "--cancels=12", "--seed=5", "--answers=2"])

    out = capsys.readouterr().out
    assert out.startswith(f"4 file(s), {4 * RECORD + 104:,} bytes: {folder}\n1 more left out")
    assert "12 cancellations for each sender, drawn from seed 5" in out
    assert "BufWriter, resumed: was cancelled while it waited" in out
    assert "BufWriter, resumed: ended clean after 0." in out
    assert "aclose, which ends send_all's, does not tell how it ended." in out
    assert "send_all, skipped: the receiver lost step: a message" in out
    assert "the caller has to guess" in out
    assert "\r" not in out
    assert max(map(len, out.splitlines()[1:])) < 80


@pytest.mark.parametrize("transport", ["TCP", "TLS"])
def test_one_file_arrives_by_its_hash_and_the_loop_loses_some(
    transport: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = f"--transport={transport.lower()}"
    status = command_line.main(["demo", str(folder), "--cancels=12", "--answers=0", kind])

    out = capsys.readouterr().out
    table = rows(out, f"one file over {transport}")
    size = f"{4 * RECORD + 104:,}"
    assert status == 0
    assert f"One file of {size} bytes" in out
    assert table["bytes to be sent"] == [size, size, ""]
    assert table["bytes received"][0] == size
    assert table["right SHA-256"] == ["yes", "NO", ""]
    assert table["bytes missing"][0] == "0"
    assert number(table["bytes missing"][1]) > 0
    assert number(table["cancellations that hit"][0].partition(" ")[0]) > 5


@pytest.mark.parametrize("transport", ["TCP", "TLS"])
def test_a_cancelled_relay_loses_nothing_and_the_loop_does(
    transport: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "large"
    path.write_bytes(random.Random(12).randbytes(2_000_000))
    kind = f"--transport={transport.lower()}"
    status = command_line.main(["demo", str(path), "--cancels=12", "--answers=0", kind])

    out = capsys.readouterr().out
    table = rows(out, f"a relay over {transport}")
    assert status == 0
    assert table["bytes to be sent"] == ["2,000,000", "2,000,000", ""]
    assert table["bytes received"][0] == "2,000,000"
    assert table["right SHA-256"] == ["yes", "NO", ""]
    assert number(table["bytes missing"][1]) > 0
    assert number(table["cancellations that hit"][0].partition(" ")[0]) > 5


def test_without_cancellations_the_loop_relays_all(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demo", str(folder), "--cancels=0", "--answers=0"]
    assert command_line.main(arguments) == 0
    out = capsys.readouterr().out
    for transport in ("TCP", "TLS"):
        assert rows(out, f"a relay over {transport}")["right SHA-256"] == ["yes", "yes", ""]


def test_the_default_goes_over_tls_as_well_where_send_all_dies(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = command_line.main(["demo", str(folder), "--cancels=12", "--answers=0"])

    out = capsys.readouterr().out
    table = rows(out, "over TLS")
    assert status == 0
    assert "over TCP" in out
    assert table["arrived whole"] == ["yes", "NO", "NO"]
    assert table["cancellations that hit"][1:] == ["1 of 12", "1 of 12"]
    assert table["ended"] == ["clean", "unknown", "unknown"]
    assert table["peer's close_notify"] == ["yes", "unknown", "unknown"]
    assert "the sender stopped: BrokenResourceError" in out
    assert "(python-trio/trio#198)" in out


@pytest.mark.parametrize(("chosen", "shown"), [("tcp", [True, False]), ("tls", [False, True])])
def test_a_transport_can_be_chosen(
    chosen: str, shown: list[bool], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demo", str(folder), "--cancels=0", "--answers=1", "--transport", chosen]
    assert command_line.main(arguments) == 0
    out = capsys.readouterr().out
    for table in ("over {}", "answers over {}"):
        assert [f"\n{table.format(name)} " in out for name in ("TCP", "TLS")] == shown


def test_without_trustme_it_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)

    with pytest.raises(SystemExit) as exits:
        command_line.main(["demo", str(folder)])

    assert exits.value.code == 2
    assert "trio_asyncwrite[demo]" in capsys.readouterr().err


def test_without_cancellations_nobody_loses_anything(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = command_line.main(
        ["demo", str(folder / "sub" / "whole"), "--cancels=0", "--answers=0"]
    )

    out = capsys.readouterr().out
    assert status == 0
    assert rows(out)["arrived whole"] == ["yes"] * 3
    assert rows(out)["messages in step"] == ["5 of 5"] * 3
    assert "was cancelled" not in out


def test_it_runs_as_a_program(folder: Path) -> None:
    program = [
        sys.executable,
        "-m",
        "trio_asyncwrite",
        "demo",
        folder,
        "--cancels=3",
        "--answers=3",
    ]
    done = subprocess.run(program, capture_output=True, text=True, check=True)

    assert rows(done.stdout)["arrived whole"][0] == "yes"
    assert rows(done.stdout, "answers over TLS")["answers received whole"][0] == "3 of 3"
    assert done.stderr == ""


def test_the_default_is_the_standard_library(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job, "standard_library", lambda: source.from_path(folder / "empty"))

    assert command_line.main(["demo", "--answers=0"]) == 0
    assert f"1 file(s), 0 bytes: {folder / 'empty'}" in capsys.readouterr().out


# ---- Early answers ----------------------------------------------------------------------------


def test_early_answers_are_whole_and_their_ends_are_known(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = command_line.main(["demo", str(folder / "empty"), "--answers=3"])

    out = capsys.readouterr().out
    assert status == 0
    assert "Early answers, 3 each way" in out
    for transport in ("TCP", "TLS"):
        table = rows(out, f"answers over {transport}")
        assert table["answers received whole"][0] == "3 of 3"
        assert table["bytes missing"][0] == "0"
        # How many of aclose's are whole is the kernel's business.
        assert table["ended"][:2] == ["3 of 3 clean", "unknown"]
        assert table["bytes unsent"][:2] == ["0", "unknown"]
        assert table["bytes unacknowledged"][:2] == ["0", "unknown"]
        assert table["bytes discarded"][:2] == ["599,997", "unknown"]
    assert table["peer's close_notify"][:2] == ["3 of 3", "unknown"]
    assert "BufWriter, close_gracefully: one ended clean after 0." in out


def test_a_single_answer_needs_no_count(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = command_line.main(["demo", str(folder / "empty"), "--answers=1"])

    table = rows(capsys.readouterr().out, "answers over TLS")
    assert status == 0
    assert table["answers received whole"][0] == "yes"
    assert table["ended"][:2] == ["clean", "unknown"]
    assert table["peer's close_notify"][0] == "yes"


def test_without_answers_there_is_no_such_table(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["demo", str(folder / "empty"), "--answers=0"]) == 0
    assert "answers over" not in capsys.readouterr().out


def test_what_the_system_does_not_tell_is_unknown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = dataclasses.replace(TCP, connect=connect_in_memory, connect_server=connect_in_memory)

    status = job.run_demo(folder, cancels=0, seed=0, answers=2, transports=[memory])

    out = capsys.readouterr().out
    assert status == 0
    for title in ("over TCP", "answers over TCP"):
        assert rows(out, title)["bytes unsent"][0] == "0"
        assert rows(out, title)["bytes unacknowledged"][0] == "unknown"


# ---- The command line -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["demonstrate"], "invalid choice: 'demonstrate'"),
        (["demo", "{tmp}/nowhere"], "no such file or folder: {tmp}/nowhere"),
        (["demo", "{tmp}"], "no files that can be read in {tmp}"),
        (["demo", "{tmp}/fifo"], "no files that can be read in {tmp}/fifo"),
        (["demo", "--cancels", "-1"], "--cancels: invalid whole number value: '-1'"),
        (["demo", "--cancels", "many"], "--cancels: invalid whole number value: 'many'"),
        (["demo", "--seed", "x"], "--seed: invalid int value: 'x'"),
        (["demo", "--answers", "few"], "--answers: invalid whole number value: 'few'"),
        (["demo", "--cancel", "3"], "unrecognized arguments: --cancel"),
    ],
)
def test_bad_arguments_are_named_and_the_status_is_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "fifo" in str(arguments):
        os.mkfifo(tmp_path / "fifo")

    with pytest.raises(SystemExit) as exits:
        command_line.main([text.format(tmp=tmp_path) for text in arguments])

    assert exits.value.code == 2
    assert message.format(tmp=tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "answer"),
    [("--version", f"trio_asyncwrite {__version__}\n"), ("--help", "usage: python -m trio_async")],
)
def test_questions_are_answered(
    argument: str,
    answer: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["trio_asyncwrite", argument])
    monkeypatch.delitem(sys.modules, "trio_asyncwrite.__main__")

    with pytest.raises(SystemExit) as exits:
        runpy.run_module("trio_asyncwrite", run_name="__main__")

    assert exits.value.code == 0
    assert capsys.readouterr().out.startswith(answer)


@pytest.mark.filterwarnings("ignore:.*was closed by a cancelled aclose:ResourceWarning")
def test_ctrl_c_ends_it_with_a_word(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupted(path: Path, offset: int) -> bytes:
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(sender, "read_record", interrupted)

    assert command_line.main(["demo", str(folder)]) == 130
    assert capsys.readouterr().out.endswith("Interrupted.\n")


# ---- It can find fault ------------------------------------------------------------------------


class Passing(trio.abc.Stream):
    """Passes everything on."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()


class BadLine(Passing):
    """Does something to the third piece of data that it is to send."""

    def __init__(self, stream: trio.SocketStream, fault: Callable[[bytes], bytes | None]) -> None:
        super().__init__(stream)
        self._fault = fault
        self._pieces = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._pieces += 1
        sent = self._fault(bytes(data)) if self._pieces == 3 else data
        if sent is None:
            await self.stream.aclose()
            raise trio.BrokenResourceError("cut")
        await self.stream.send_all(sent)


class BadEnd(Passing):
    """Breaks at once."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise trio.BrokenResourceError("deaf")


class Forgetting(Passing):
    """Loses a byte of what it receives at first."""

    _forgotten = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.stream.receive_some(max_bytes)
        lost = 0 if self._forgotten else 1
        self._forgotten = True
        return data[lost:]


class Resetting(Passing):
    """Ends by a reset, when it has received everything."""

    async def aclose(self) -> None:
        reset(TcpStream(self.stream))
        await self.stream.aclose()


async def connect_badly(
    fault: Callable[[bytes], bytes | None],
) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    client, server = await connect_tcp()
    return BadLine(client, fault), server


async def connect_deafly() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    client, server = await connect_tcp()
    return client, BadEnd(server)


async def connect_to_crash() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    client, server = await connect_tcp()
    return client, Resetting(server)


async def connect_forgetfully() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    client, server = await connect_tcp()
    return Forgetting(client), server


async def connect_from_crash() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    client, server = await connect_tcp()
    return Resetting(client), server


async def connect_in_memory() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return duplex(65536)


@pytest.mark.parametrize(
    ("fault", "what", "note"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "first wrong byte", "wrong SHA-256"),
        (lambda data: data[:-1], "bytes missing", "lost step"),
        (lambda data: data + data[-1:], "bytes too many", "lost step"),
        (lambda _: None, "bytes missing", "the sender stopped: BrokenResourceError"),
    ],
    ids=["a bit flipped", "a byte lost", "a byte twice", "cut off"],
)
def test_a_corrupted_transport_is_found_out(
    fault: Callable[[bytes], bytes | None],
    what: str,
    note: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = dataclasses.replace(TCP, connect=partial(connect_badly, fault))

    status = job.run_demo(folder, cancels=0, seed=0, answers=0, transports=[TCP, bad])

    out = capsys.readouterr().out
    last = out.split("\nover TCP ")[2]
    table = rows("\nover TCP " + last)
    assert status == 1
    title = "one file over TCP"
    of_file = rows(f"\n{title} " + out.split(f"\n{title} ")[2], title)
    assert of_file["right SHA-256"] == ["NO", "yes", ""]
    assert table["arrived whole"] == ["NO", "yes", "yes"]
    assert table[what][0] not in ("0", "none")
    assert table["first wrong byte"][0] != "none"
    assert note in " ".join(last.split())


def test_a_receiver_that_breaks_is_found_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deaf = dataclasses.replace(TCP, connect=connect_deafly)

    assert job.run_demo(folder, cancels=0, seed=0, answers=0, transports=[deaf]) == 1
    assert "the receiver stopped: BrokenResourceError('deaf')" in capsys.readouterr().out


def test_an_end_that_is_not_clean_is_no_success(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crashing = dataclasses.replace(TCP, connect=connect_to_crash)

    assert job.run_demo(folder, cancels=0, seed=0, answers=0, transports=[crashing]) == 1
    out = capsys.readouterr().out
    assert rows(out)["arrived whole"] == ["yes"] * 3
    assert rows(out)["ended"] == ["broken", "unknown", "unknown"]
    assert "BufWriter, resumed: ended broken after 0." in out


@pytest.mark.parametrize(
    ("connect", "whole", "missing", "ended", "note"),
    [
        (connect_forgetfully, "1 of 2", "1", "2 of 2 clean", "one ended clean after"),
        (connect_from_crash, "2 of 2", "0", "1 of 2 clean", "one ended broken after"),
        (connect_deafly, "1 of 2", "4,194,304", "1 of 2 clean", "the server stopped: Broken"),
    ],
    ids=["a byte lost", "crashed after all", "the server breaks"],
)
def test_a_bad_answer_is_found_out(
    connect: Connect,
    whole: str,
    missing: str,
    ended: str,
    note: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connects = iter([connect_tcp, connect])

    async def connect_next() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        return await next(connects)()

    one_bad = dataclasses.replace(TCP, connect_server=connect_next)

    status = job.run_demo(folder / "empty", cancels=0, seed=0, answers=2, transports=[one_bad])

    out = capsys.readouterr().out
    table = rows(out, "answers over TCP")
    assert status == 1
    assert rows(out)["ended"][0] == "clean"
    assert table["answers received whole"][0] == whole
    assert table["bytes missing"][0] == missing
    assert table["ended"][0] == ended
    assert f"BufWriter, close_gracefully: {note}" in out


def test_a_file_that_vanishes_is_no_success(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def vanished(path: Path, offset: int) -> bytes:
        (folder / "empty").unlink(missing_ok=True)
        return await source.read_record(path, offset)

    monkeypatch.setattr(sender, "read_record", vanished)

    assert job.run_demo(folder, cancels=0, seed=0, answers=0, transports=[TCP]) == 1
    out = capsys.readouterr().out
    assert "the sender stopped: FileNotFoundError" in out
    assert rows(out)["ended"] == ["truncated", "unknown", "unknown"]


# ---- The parts --------------------------------------------------------------------------------


def message(kind: int, payload: bytes) -> bytes:
    return struct.pack(HEADER, kind, len(payload)) + payload


FILE = message(Kind.FILE, b"name")
END = message(Kind.END, struct.pack(END_PAYLOAD, 0, 0))
GOOD = (
    FILE
    + message(Kind.RECORD, b"content")
    + message(Kind.DIGEST, hashlib.sha256(b"namecontent").digest())
    + message(Kind.END, struct.pack(END_PAYLOAD, 1, 7))
)


@pytest.mark.parametrize("size", [1, 3, len(GOOD)])
def test_the_parser_takes_a_stream_in_any_pieces(size: int) -> None:
    parser = Parser()

    for at in range(0, len(GOOD), size):
        assert not parser.is_whole
        parser.feed(GOOD[at : at + size])

    assert parser.is_whole
    assert (parser.messages, parser.files) == (4, 1)


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (message(Kind.RECORD, b""), "a message of kind 2 out of place"),
        (message(Kind.DIGEST, b""), "a message of kind 3 out of place"),
        (FILE + FILE, "a message of kind 1 out of place"),
        (FILE + END, "a message of kind 4 out of place"),
        (message(9, b""), "a message of kind 9 out of place"),
        (struct.pack(HEADER, Kind.FILE, RECORD + 1), f"a message of {RECORD + 1:,} bytes"),
        (FILE + message(Kind.DIGEST, bytes(32)), "a file with the wrong SHA-256"),
        (message(Kind.END, struct.pack(END_PAYLOAD, 1, 0)), "an end that counts other"),
        (END + END, "a message after the end"),
    ],
)
def test_the_parser_says_where_the_stream_makes_no_sense(stream: bytes, reason: str) -> None:
    parser = Parser()

    parser.feed(stream)
    parser.feed(GOOD)

    assert parser.lost_step is not None
    assert parser.lost_step.startswith(reason)
    assert not parser.is_whole


@pytest.mark.parametrize("left_over", [b"", END[:3]])
def test_a_stream_without_its_end_or_with_more_is_not_whole(left_over: bytes) -> None:
    parser = Parser()

    parser.feed(END + left_over)

    assert parser.is_whole == (not left_over)
    assert not Parser().is_whole


@pytest.mark.parametrize(
    ("received", "wrong_at"),
    [
        ([b"abcdef"], None),
        ([b"a", b"bcd", b"ef"], None),
        ([b"abXdef"], 2),
        ([b"ab", b"cdeX", b"f"], 5),
        ([b"abc"], 3),
        ([b"abcdef", b"g"], 6),
        ([b"abcdefg"], 6),
        ([], 0),
    ],
)
def test_the_tape_finds_the_first_wrong_byte(received: list[bytes], wrong_at: int | None) -> None:
    tape = Tape()
    tape.expect(b"abc")
    tape.expect(b"def")

    for data in received:
        tape.compare(data)
    tape.end()
    tape.expect(b"more")

    assert tape.wrong_at == wrong_at
    assert tape.received == len(b"".join(received))
    assert tape.expected == 10


def test_places_depend_on_the_seed_alone() -> None:
    assert draw_places(1000, 20, seed=1) == draw_places(1000, 20, seed=1)
    assert draw_places(1000, 20, seed=1) != draw_places(1000, 20, seed=2)
    assert draw_places(1000, 20, seed=1) == sorted(set(draw_places(1000, 20, seed=1)))


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 0), (4, 3)])
def test_there_are_no_more_places_than_bytes(size: int, count: int) -> None:
    assert len(draw_places(size, 50, seed=0)) == count


async def test_a_cancellation_waits_for_the_sender_to_be_in_an_operation() -> None:
    cancellations = Cancellations([10, 5000])
    outcome = []

    async def send() -> None:
        outcome.append(await cancellations.expose(trio.sleep_forever))
        outcome.append(await cancellations.expose(trio.lowlevel.checkpoint))

    await cancellations.strike_if_due(9)
    assert cancellations.read_size(0) == 1024
    await cancellations.strike_if_due(10)
    assert cancellations.total == 0
    assert cancellations.read_size(2000) == 1024

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await cancellations.strike_if_due(11)

    assert outcome == [False, True]
    assert cancellations.hits == {"sleep_forever": 1}
    assert cancellations.read_size(2000) == 3000


# ---- Progress ---------------------------------------------------------------------------------


async def test_progress_is_one_line_that_is_rewritten_and_cleared(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    texts = iter(["first", "second " * 4])
    out = Terminal()

    with trio.move_on_after(0.15):
        await show_progress(out, lambda: next(texts))

    assert out.getvalue().split("\r") == [
        "",
        "first".ljust(19),
        "second second secon",
        " " * 19,
        "",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_there_is_no_progress_where_it_cannot_be_rewritten() -> None:
    out = io.StringIO()

    await show_progress(out, lambda: "text")

    assert out.getvalue() == ""


def test_a_terminal_sees_progress(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, child_side = os.openpty()
    with os.fdopen(terminal, "rb") as reader, os.fdopen(child_side, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        command_line.main(["demo", str(folder / "empty"), "--transport=tcp", "--answers=1"])
        seen = ""
        while "answers whole" not in seen:  # a terminal gives out 4 KiB at once
            seen += reader.read1(65536).decode()

    assert "\rTCP, BufWriter, resumed: 0.0 of 0.0 MB, 0 cancellations" in seen
    assert "\rTCP, BufWriter, close_gracefully: 0 of 1 answers whole" in seen


# ---- What is sent -----------------------------------------------------------------------------


def test_a_folder_that_cannot_be_read_is_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def guarded(path: str) -> object:
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    found = source.from_path(folder)

    assert [file.name for file in found.files] == ["empty", os.fsdecode(b"odd \xff name")]
    assert found.skipped == 1


def test_the_standard_library_comes_without_tests_and_packages() -> None:
    names = {file.name for file in source.standard_library().files}

    assert {"abc.py", "asyncio/base_events.py"} <= names
    assert all(name.endswith(".py") for name in names)
    assert not [name for name in names if {"site-packages", "test"} & set(name.split("/"))]


def test_a_name_that_is_no_text_can_be_printed(folder: Path) -> None:
    found = source.from_path(folder / os.fsdecode(b"odd \xff name"))

    assert found.title == f"{folder}/odd \\xff name"


def test_a_python_without_sources_needs_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path / "lib.zip"))

    with pytest.raises(source.SourceError, match=r"no files that can be read in .*lib\.zip"):
        source.standard_library()
