"""`nox -s downstream` reads the results of other projects' tests as it says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

DOWNSTREAM = Path(__file__).parent.parent / "downstream"


@pytest.fixture
def suites(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(DOWNSTREAM))
    spec = importlib.util.spec_from_file_location("suites", DOWNSTREAM / "suites.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delitem(sys.modules, "trios_choices")
    return module


EXPECTED = "failure: KeyError: 'why'"


@pytest.mark.parametrize(
    ("ours", "unexplained", "stale"),
    [
        ({"a": "passed", "b[1]": EXPECTED, "b[2]": EXPECTED}, [], []),
        ({"a": "failure: KeyError", "b[1]": EXPECTED, "b[2]": EXPECTED}, ["a"], []),
        ({"a": "skipped: here", "b[1]": EXPECTED, "b[2]": EXPECTED}, ["a"], []),
        ({"b[1]": EXPECTED, "b[2]": EXPECTED}, ["a"], []),
        ({"a": "passed", "b[1]": EXPECTED, "b[2]": "error: OSError"}, ["b[2]"], []),
        ({"a": "passed", "b[1]": EXPECTED}, ["b[2]"], []),
        ({"a": "passed", "b[1]": EXPECTED, "b[2]": "passed"}, [], ["b"]),
        ({"a": "passed", "b[1]": "passed", "b[2]": "passed"}, [], ["b"]),
    ],
)
def test_what_is_worse_must_be_on_the_list_and_only_that(
    suites: Any, ours: dict[str, str], unexplained: list[str], stale: list[str]
) -> None:
    baseline = {"a": "passed", "b[1]": "passed", "b[2]": "passed", "c": "failure: of its own"}
    must_fail = {"b": suites.trios_choices.Choice("KeyError", "a reason")}
    assert suites.differences(baseline, ours, must_fail) == (unexplained, stale)


def test_a_test_that_is_gone_is_stale(suites: Any) -> None:
    must_fail = {"b": suites.trios_choices.Choice("KeyError", "a reason")}
    assert suites.differences({"a": "passed"}, {"a": "passed"}, must_fail) == ([], ["b"])


def test_every_listed_test_has_its_error_and_its_reason(suites: Any) -> None:
    for name, choice in suites.MUST_FAIL["trio"].items():
        assert name.startswith("trio._tests.test_")
        assert choice.error
        assert choice.reason.endswith(".")
