"""`import trio_asyncwrite` is cheap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

#: Small modules that Trio happens not to import.
OWN_IMPORTS = {"dataclasses", "termios"}

# A clock would measure the machine. Calls of Python functions are the same at every run.
_MEASURE = """
import json, sys

calls = 0

def count(frame, event, argument):
    global calls
    calls += event == "call"

def measure(name):
    global calls
    calls, before = 0, set(sys.modules)
    sys.setprofile(count)
    try:
        __import__(name)
    finally:
        sys.setprofile(None)
    return {"calls": calls, "modules": sorted(set(sys.modules) - before)}

print(json.dumps([measure("trio"), measure("trio_asyncwrite")]))
"""


@pytest.fixture(scope="module")
def costs() -> tuple[dict[str, Any], dict[str, Any]]:
    """The cost of importing Trio in a fresh interpreter, and of ours after it."""
    environ = {name: value for name, value in os.environ.items() if "COV" not in name}
    command = [sys.executable, "-c", _MEASURE]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environ).stdout
    trio, ours = json.loads(output)
    return trio, ours


def test_import_makes_fewer_calls_than_that_of_trio(
    costs: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    trio, ours = costs

    assert 0 < ours["calls"] < trio["calls"]


def test_import_loads_hardly_more_than_trio(costs: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, ours = costs
    added = {name for name in ours["modules"] if not name.startswith("trio_asyncwrite")}

    assert added <= OWN_IMPORTS
    assert "trio_asyncwrite" in ours["modules"]
    late = {"trio_asyncwrite.compression", "trio_asyncwrite.testing", "trio_asyncwrite._demo"}
    assert not late & set(ours["modules"])
