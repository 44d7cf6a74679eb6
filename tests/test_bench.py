"""The benchmark still runs. What it measures is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

RUN = Path(__file__).parents[1] / "bench" / "run.py"
TCP = ["64 B", "1 KiB", "16 KiB", "64 KiB", "1 MiB", "24 B + 64 KiB"]
TLS = ["TLS 64 B", "TLS 4 KiB", "TLS 64 KiB", "TLS 1 MiB"]
#: Ours, and the peers that need no other package.
ALWAYS = {
    "tcp": {
        "BufWriter.write",
        "BufWriter.poll_write",
        "TcpStream.write_all",
        "trio send_all",
        "asyncio write",
        "asyncio write+drain",
        "socket sendall",
        "C io.BufferedWriter",
    },
    "tls": {
        "BufWriter over TlsStream",
        "TlsStream.write_all",
        "TlsStream.send_all",
        "trio.SSLStream send_all",
        "asyncio write",
        "asyncio write+drain",
        "ssl.SSLSocket sendall",
    },
    "handshakes": {"TlsStream", "trio.SSLStream", "asyncio", "ssl.SSLSocket"},
    "closing": {"close_all_gracefully", "trio aclose in a nursery", "asyncio close"},
}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="TcpStream is not for Windows")


def run_bench(json_path: Path, *options: str | Path) -> tuple[str, dict[str, Any]]:
    """What it prints, and what it writes. Peers that are not installed are left out.

    Warnings are errors. The benchmark itself sees to it that everything arrives.
    """
    command = [sys.executable, "-W", "error", RUN, "--smoke", "--json", json_path, *options]
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
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
    assert all(workloads == TCP for workloads in measured["tcp"].values())
    assert all(workloads == TLS for workloads in measured["tls"].values())
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


# Slow: thirty measurements of TLS.
@pytest.mark.slow
def test_tls_can_be_measured_alone(tmp_path: Path) -> None:
    """Then its targets are judged, and no others but the one that is independent of the clock."""
    options = ("--only", "tls", "--only", "handshakes")

    _, found = run_bench(tmp_path / "bench.json", *options)

    workloads = [series["workload"] for series in found["series"]]
    assert list(dict.fromkeys(workloads)) == [*TLS, "TLS handshake"]
    judged = [check["what"] for check in found["checks"]]
    assert len(judged) == 9
    assert all(what.startswith("TLS") for what in judged[:-1])


def test_an_idle_buf_writer_holds_less_than_an_asyncio_stream_writer(tmp_path: Path) -> None:
    """These figures do not depend on the clock: an idle BufWriter has no buffer."""
    _, found = run_bench(tmp_path / "bench.json", "--workload", "64 B")

    idle = found["idle_bytes_per_connection"]
    assert idle["BufWriter over TcpStream"] < min(2048, idle["asyncio StreamWriter"])
    assert found["fairness"]["small writes between two checkpoints"] <= 128
