"""The benchmark still runs. What it measures is nobody's business here."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import trio_asyncwrite

HERE = Path(__file__).resolve().parents[1]
RUN = HERE / "bench" / "run.py"
TCP = ["64 B", "1 KiB", "16 KiB", "64 KiB", "1 MiB", "24 B + 64 KiB"]
TLS = ["TLS 64 B", "TLS 4 KiB", "TLS 64 KiB", "TLS 1 MiB"]
PING = ["ping", "TLS ping"]
LAYERS = ["write + flush", "make + drop", "aclose", "by_ref"]
#: Ours, and the peers that need no other package.
ALWAYS = {
    "tcp": {
        "BufWriter.write",
        "BufWriter.poll_write",
        "BufWriter.write+flush",
        "TcpStream.write_all",
        "TcpStream, mark of 16 KiB",
        "TcpStream, no mark",
        "trio send_all",
        "asyncio write",
        "asyncio write+drain",
        "socket sendall",
        "C io.BufferedWriter",
    },
    "tls": {
        "BufWriter over TlsStream",
        "TLS BufWriter.write+flush",
        "TlsStream.write_all",
        "TlsStream.send_all",
        "trio.SSLStream send_all",
        "asyncio write",
        "asyncio write+drain",
        "ssl.SSLSocket sendall",
    },
    "ping": {"TcpStream, TlsStream", "trio send_all", "asyncio write+drain", "socket sendall"},
    "handshakes": {"TlsStream", "trio.SSLStream", "asyncio", "ssl.SSLSocket"},
    "closing": {"close_all_gracefully", "trio aclose in a nursery", "asyncio close"},
    "files": {
        "TcpStream.write_all_file",
        "trio read in thread, 64 KiB",
        "trio read in thread, 1 MiB",
        "asyncio loop.sendfile",
        "socket sendfile",
    },
    "layers": {"BufWriter over Sink", "BufWriter over duplex", "TimeoutWriter + BufWriter"},
}
#: Only this library's. A checkout is compared by these.
OURS = {
    **ALWAYS,
    "tcp": {one for one in ALWAYS["tcp"] if one.startswith(("BufWriter", "TcpStream"))},
    "tls": {one for one in ALWAYS["tls"] if one.startswith(("BufWriter", "TlsStream", "TLS"))},
    "ping": {"TcpStream, TlsStream"},
    "handshakes": {"TlsStream"},
    "closing": {"close_all_gracefully"},
    "files": {"TcpStream.write_all_file"},
}

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform == "win32", reason="TcpStream is not for Windows"),
]


def run_bench(json_path: Path, *options: str | Path) -> tuple[str, dict[str, Any]]:
    """What it prints, and what it writes. Peers that are not installed are left out.

    Warnings are errors. The benchmark itself sees to it that everything arrives.
    """
    command = [sys.executable, "-W", "error", RUN, "--smoke", "--json", json_path, *options]
    environment = dict(os.environ)
    if "--checkout" in options:
        # A copy of the library would be taken for the library itself.
        for name in [name for name in environment if name.startswith("COVERAGE_PROCESS")]:
            del environment[name]
    process = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return process.stdout, json.loads(json_path.read_text(encoding="utf-8"))


# Slow: every workload with every peer takes longer than the longest test of the library.
@pytest.mark.slow
def test_every_peer_does_every_workload_it_is_made_for(tmp_path: Path) -> None:
    """Ours and those that need no other package are there, in the JSON and in the chart."""
    svg_path = tmp_path / "bench.svg"

    printed, found = run_bench(tmp_path / "bench.json", "--svg", svg_path)

    measured: dict[str, dict[str, list[str]]] = {}
    for series in found["series"]:
        assert series["units_per_second"] > 0
        family = measured.setdefault(series["family"], {})
        family.setdefault(series["peer"], []).append(series["workload"])
    assert measured.keys() == ALWAYS.keys()
    assert all(ALWAYS[family] <= peers.keys() for family, peers in measured.items())
    assert measured["tcp"].pop("BufWriter.poll_write") == TCP[:3]
    assert measured["tcp"].pop("BufWriter.write+flush") == TCP[:2]
    assert measured["tcp"].pop("TcpStream, mark of 16 KiB") == TCP[3:]
    assert measured["tcp"].pop("TcpStream, no mark") == TCP[3:]
    assert measured["tls"].pop("TLS BufWriter.write+flush") == TLS[:2]
    assert all(workloads == TCP for workloads in measured["tcp"].values())
    assert all(workloads == TLS for workloads in measured["tls"].values())
    assert all(workloads == PING for workloads in measured["ping"].values())
    assert all(workloads == LAYERS for workloads in measured["layers"].values())
    assert found["closing_bytes_per_connection"].keys() == measured["closing"].keys()
    shown = {element.text for element in ET.parse(svg_path).iter()}
    for peers in measured.values():
        assert all(name in printed and name in shown for name in peers)
    for name in (*TCP, *TLS):
        assert name in printed
        assert f"{name} (messages)" in shown


def test_one_workload_can_be_chosen_and_what_a_target_needs_is_measured(tmp_path: Path) -> None:
    """Targets of other workloads are left out, those of this one are judged."""
    _, found = run_bench(tmp_path / "bench.json", "--workload", "64 KiB", "--rounds", "2")

    assert {series["workload"] for series in found["series"]} == {"64 KiB"}
    assert {len(series["rounds"]) for series in found["series"]} == {2}
    judged = [check["what"].partition(" / ")[0] for check in found["checks"]]
    assert judged == ["64 KiB: TcpStream.write_all", "small writes between two checkpoints"]


def test_the_latency_of_round_trips_and_the_send_queue_have_figures(tmp_path: Path) -> None:
    printed, found = run_bench(tmp_path / "bench.json", "--workload", "ping")

    for series in found["series"]:
        assert 0 < series["p50_us"] <= series["p99_us"]
        assert f"ping, {series['peer']}, p99" in printed
        assert series["cpu_us_per_unit"] > 0
    if sys.platform == "linux":
        assert found["most_unsent_bytes"].keys() == {"adapted mark", "mark of 16 KiB", "no mark"}


def test_files_are_measured_with_the_processor_time_that_they_take(tmp_path: Path) -> None:
    printed, found = run_bench(tmp_path / "bench.json", "--only", "files")

    assert {series["peer"] for series in found["series"]} == ALWAYS["files"]
    assert all(series["cpu_us_per_unit"] > 0 for series in found["series"])
    assert "CPU seconds per GiB" in printed
    judged = [check["what"] for check in found["checks"]]
    assert judged[:2] == [
        "file, 16 MiB: TcpStream.write_all_file / asyncio loop.sendfile",
        "file, 16 MiB: CPU of TcpStream.write_all_file / asyncio loop.sendfile",
    ]


# Slow: thirty measurements of TLS.
@pytest.mark.slow
def test_tls_can_be_measured_alone(tmp_path: Path) -> None:
    """Then its targets are judged, and no others but the one that is independent of the clock."""
    options = ("--only", "tls", "--only", "handshakes")

    _, found = run_bench(tmp_path / "bench.json", *options)

    workloads = [series["workload"] for series in found["series"]]
    assert list(dict.fromkeys(workloads)) == [*TLS, "TLS handshake"]
    judged = [check["what"] for check in found["checks"]]
    # More, if the other peers are installed.
    assert len(judged) >= 4
    assert all(what.startswith("TLS") for what in judged[:-1])


def test_an_idle_buf_writer_holds_less_than_an_asyncio_stream_writer(tmp_path: Path) -> None:
    """These figures do not depend on the clock: an idle BufWriter has no buffer."""
    _, found = run_bench(tmp_path / "bench.json", "--workload", "64 B")

    idle = found["idle_bytes_per_connection"]
    assert idle["BufWriter over TcpStream"] < idle["asyncio StreamWriter"]
    # No layer keeps the buffer that it needs when it is not idle.
    assert max(idle.values()) < 16384
    for name in ("FramedWriter", "FramedReader", "stdout()", "offload", "write_from_thread", "Tee"):
        assert any(name in row for row in idle), name
    assert found["fairness"]["small writes between two checkpoints"] <= 128


# Slow: six programs are started.
@pytest.mark.slow
def test_relays_and_reading_are_measured() -> None:
    """Ours and the peers that need no other package."""
    command = [sys.executable, "-W", "error", RUN.with_name("moving.py"), "--smoke"]

    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)

    for name in (
        "copy_bidirectional",
        "copy_bidirectional, blocks",
        "trio send_all",
        "asyncio streams",
        "BufReader.receive_until",
        "BufReader.poll_fill",
        "trio receive_some",
        "memory of 5 idle relays",
    ):
        assert f"\n{name} " in process.stdout


@pytest.mark.slow
def test_threads_and_standard_output_are_measured() -> None:
    command = [sys.executable, "-W", "error", RUN.with_name("threads.py"), "--smoke"]

    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)

    for name in ("zip of 1 MiB, stored", "10 writes of 100 B", "stdout().write_all"):
        assert f"\n{name} " in process.stdout


@pytest.mark.slow
def test_frames_are_measured() -> None:
    """The verdicts of so few frames are noise."""
    command = [sys.executable, "-W", "error", RUN.with_name("frames.py"), "--smoke"]

    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)

    for name in ("FramedWriter over BufWriter", "FramedReader.receive", "asyncio, mixed sizes"):
        assert f"\n{name} " in process.stdout
    assert "\nFramedReader.receive is " in process.stdout


# ---- Comparing two checkouts ---------------------------------------------------------------


@pytest.fixture
def other_checkout(tmp_path: Path) -> Path:
    """A checkout whose folders have other names; it tells when its library is imported."""
    checkout = tmp_path / "other"
    package = checkout / "trio_asyncwrite"
    # Not from beside this file: the tests of a wheel have none there.
    library = Path(trio_asyncwrite.__file__).parent
    shutil.copytree(library, package, ignore=shutil.ignore_patterns("*.pyc"))
    (package / "_core").rename(package / "_renamed")
    for module in package.rglob("*.py"):
        text = module.read_text(encoding="utf-8")
        for start in ("trio_asyncwrite.", "from ."):
            text = text.replace(f"{start}_core.", f"{start}_renamed.")
        module.write_text(text, encoding="utf-8")
    with (package / "__init__.py").open("a", encoding="utf-8") as file:
        file.write("from pathlib import Path\nPath(__file__).with_name('imported').touch()\n")
    return checkout


# In two parts: every row has new processes.
@pytest.mark.parametrize(
    "families", [("tcp", "ping", "closing"), ("tls", "handshakes", "layers", "files")]
)
def test_another_checkout_is_imported_and_every_row_of_ours_is_compared(
    tmp_path: Path, other_checkout: Path, families: tuple[str, ...]
) -> None:
    """No peer is measured, and both times, wall and CPU, of every round are there."""
    only = [option for family in families for option in ("--only", family)]
    options = ("--checkout", other_checkout, "--rounds", "2", *only)

    printed, found = run_bench(tmp_path / "bench.json", *options)

    assert (other_checkout / "trio_asyncwrite" / "imported").exists()
    assert found["before"] == str(other_checkout)
    assert found["after"] == str(HERE)
    compared: dict[str, set[str]] = {}
    for row in found["rows"]:
        compared.setdefault(row["family"], set()).add(row["peer"])
        assert f"{row['workload']}, {row['peer']}" in printed
        for times in (row["time"], row["cpu"]):
            assert len(times["rounds_us"]) == 2
            assert all(before > 0 and after > 0 for before, after in times["rounds_us"])
    assert compared == {family: OURS[family] for family in families}
    assert all(
        before > 0 and after > 0 for before, after in found["idle_bytes_per_connection"].values()
    )


def test_a_comparison_can_be_of_chosen_workloads(tmp_path: Path, other_checkout: Path) -> None:
    """``--only`` and ``--workload`` mean the same as without a checkout."""
    options = ("--checkout", other_checkout, "--only", "layers", "--workload", "by_ref")

    _, found = run_bench(tmp_path / "bench.json", *options)

    assert {row["workload"] for row in found["rows"]} == {"by_ref"}
    assert {row["peer"] for row in found["rows"]} == OURS["layers"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--checkout", "."), "no trio_asyncwrite in ."),
        (("--checkout", HERE, "--svg", "bench.svg"), "no chart of a comparison"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused_before_anything_is_measured(
    tmp_path: Path, options: tuple[str | Path, ...], complaint: str
) -> None:
    command = [sys.executable, RUN, "--smoke", *options]

    process = subprocess.run(command, cwd=tmp_path, check=False, stderr=subprocess.PIPE, text=True)

    assert process.returncode == 2
    assert complaint in process.stderr


def test_compression_is_measured() -> None:
    command = [sys.executable, "-W", "error", HERE / "bench" / "compression.py", "--smoke"]

    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    rows = [line for line in printed.splitlines() if "x" in line and not line.startswith(" ")]
    assert len(rows) == 5


@pytest.mark.parametrize(
    ("before", "ratio", "verdict"),
    [
        # From a microsecond on: 5 %.
        (1e-6, 1.06, "SLOWER"),
        (1e-6, 1.04, ""),
        (1e-6, 0.96, ""),
        (1e-6, 0.94, "FASTER"),
        # Below: 10 %, which is more than 20 ns here ...
        (0.9e-6, 1.11, "SLOWER"),
        (0.9e-6, 1.09, ""),
        (0.9e-6, 0.89, "FASTER"),
        # ... and less than that here.
        (0.1e-6, 1.19, ""),
        (0.1e-6, 1.21, "SLOWER"),
        (0.1e-6, 0.81, ""),
        (0.1e-6, 0.79, "FASTER"),
    ],
)
def test_a_difference_counts_if_it_is_more_than_noise(
    monkeypatch: pytest.MonkeyPatch, before: float, ratio: float, verdict: str
) -> None:
    monkeypatch.syspath_prepend(RUN.parent)
    compare = importlib.import_module("compare")

    assert compare.verdict(before, ratio) == verdict


def test_drains_are_measured_against_trios_cancelled_nursery() -> None:
    command = [sys.executable, "-W", "error", RUN.with_name("drains.py")]
    run = subprocess.run(
        [*command, "--count", "3", "--rounds", "1"], capture_output=True, text=True, check=True
    )

    rows = [line.split()[:3] for line in run.stdout.splitlines() if " us" in line]
    assert rows == [
        [kind, "3", name] for kind in ("TCP", "TLS") for name in ("trio_asyncwrite", "trio")
    ]
