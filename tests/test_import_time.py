"""`import trio_asyncwrite` is cheap."""

from __future__ import annotations

import os
import subprocess
import sys

#: Small modules that Trio happens not to import.
OWN_IMPORTS = {"dataclasses", "termios"}

_TIMED = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
_MODULES = "import sys, {}; print(*sys.modules)"


def run(code: str) -> str:
    """What a fresh interpreter prints, with nothing of the test run in its way."""
    environ = {name: value for name, value in os.environ.items() if "COV" not in name}
    return subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, env=environ
    ).stdout


def test_import_takes_less_than_twice_the_time_of_trio() -> None:
    times: dict[str, list[float]] = {"trio": [], "trio_asyncwrite": []}
    # The first round warms the caches; the minimum of the others is the least disturbed.
    for _ in range(7):
        for name, measured in times.items():
            measured.append(float(run(_TIMED.format(name))))
    trio, ours = (min(measured[1:]) for measured in times.values())

    assert ours < 2 * trio


def test_import_loads_hardly_more_than_trio() -> None:
    with_trio, with_ours = (
        set(run(_MODULES.format(name)).split()) for name in ("trio", "trio_asyncwrite")
    )
    added = {name for name in with_ours - with_trio if not name.startswith("trio_asyncwrite")}

    assert added <= OWN_IMPORTS
    assert not with_ours & {"trio_asyncwrite.testing", "trio_asyncwrite._demo"}
