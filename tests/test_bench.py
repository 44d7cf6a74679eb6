"""The benchmark still runs. What it measures is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

RUN = Path(__file__).parents[1] / "bench" / "run.py"
WORKLOADS = ["64 B", "1 KiB", "16 KiB", "64 KiB", "1 MiB", "24 B + 64 KiB"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="TcpStream is not for Windows")


def run_bench(*options: str | Path) -> str:
    """What it prints. Peers that are not installed are left out; warnings are errors."""
    command = [sys.executable, "-W", "error", RUN, "--smoke", *options]
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return process.stdout


def test_every_peer_sends_every_workload_it_is_made_for(tmp_path: Path) -> None:
    """Ours and those that need no other package are there, in the JSON and in the chart."""
    json_path, svg_path = tmp_path / "bench.json", tmp_path / "bench.svg"

    printed = run_bench("--json", json_path, "--svg", svg_path)

    found = json.loads(json_path.read_text(encoding="utf-8"))
    measured: dict[str, list[str]] = {}
    for series in found["series"]:
        assert series["messages_per_second"] > 0
        measured.setdefault(series["peer"], []).append(series["workload"])
    assert measured.pop("BufWriter.poll_write") == WORKLOADS[:3]
    assert all(workloads == WORKLOADS for workloads in measured.values())
    assert {
        "BufWriter.write",
        "TcpStream.write_all",
        "trio send_all",
        "asyncio write+drain",
        "socket sendall",
        "C io.BufferedWriter",
    } <= set(measured)
    texts = [element.text for element in ET.parse(svg_path).iter() if element.text]
    assert all(name in printed and name in texts for name in (*measured, *WORKLOADS))


def test_one_workload_can_be_chosen_and_what_a_target_needs_is_measured(tmp_path: Path) -> None:
    """Targets of other workloads are left out, those of this one are judged."""
    json_path = tmp_path / "bench.json"

    run_bench("--workload", "64 KiB", "--rounds", "2", "--json", json_path)

    found = json.loads(json_path.read_text(encoding="utf-8"))
    assert {series["workload"] for series in found["series"]} == {"64 KiB"}
    assert {len(series["rounds"]) for series in found["series"]} == {2}
    judged = [check["what"].partition(" / ")[0] for check in found["checks"]]
    assert judged == ["64 KiB: TcpStream.write_all", "small writes between two checkpoints"]


def test_an_idle_buf_writer_holds_less_than_an_asyncio_stream_writer(tmp_path: Path) -> None:
    """These figures do not depend on the clock: an idle BufWriter has no buffer."""
    json_path = tmp_path / "bench.json"

    run_bench("--workload", "64 B", "--json", json_path)

    found = json.loads(json_path.read_text(encoding="utf-8"))
    idle = found["idle_bytes_per_connection"]
    assert idle["BufWriter over TcpStream"] < min(2048, idle["asyncio StreamWriter"])
    assert found["fairness"]["small writes between two checkpoints"] <= 128
