"""Run Trio's and other projects' tests with our streams in place of Trio's.

python downstream/suites.py FOLDER

Trio's tests are in the installed package; the source distributions of the others are unpacked in
FOLDER. Each suite runs twice, with Trio's own streams and with ours. No test may fail that passes
with Trio's, except those that trios_choices.py lists; and these must fail as it says.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distribution, version
from pathlib import Path
from typing import TYPE_CHECKING

import trios_choices

if TYPE_CHECKING:
    from trios_choices import Choice

HERE = Path(__file__).parent

#: "passed", or what else it was and what it said, by the name of the test.
Outcomes = dict[str, str]

#: The modules of Trio's tests that are about streams, or use them.
ABOUT_STREAMS = (
    "highlevel_generic",
    "highlevel_open_tcp_listeners",
    "highlevel_open_tcp_stream",
    "highlevel_open_unix_stream",
    "highlevel_serve_listeners",
    "highlevel_socket",
    "highlevel_ssl_helpers",
    "repl",
    "socket",
    "ssl",
    "subprocess",
    "testing",
    "unix_pipes",
)

#: Each project, and what pytest needs to be told for its tests. The one that takes longest is
#: first, so that it runs beside all others.
SUITES = {
    "trio": [
        *(f"--config-file={os.devnull}", "--rootdir=.", "--run-slow"),
        *("-p", "trio._tests.pytest_plugin", "-p", "no:trio", "-p", "no:asyncio"),
        *("-p", "no:anyio", "-p", "no:httpbin"),
        # Trio's own setting; but tests that leave streams open are told so by ours.
        *("-W", "error", "-W", "ignore::ResourceWarning"),
        *(f"trio/_tests/test_{name}.py" for name in ABOUT_STREAMS),
    ],
    "httpcore": ["-p", "no:asyncio", "tests"],
    "hypercorn": ["-o", "addopts=", "-o", "asyncio_default_fixture_loop_scope=function", "tests"],
    # It has no settings of its own, and ours are not meant for it.
    "trio_websocket": [
        *("--config-file", os.devnull, "-o", "trio_mode=true"),
        *("-p", "no:asyncio", "-p", "no:anyio", "tests"),
    ],
}

#: What must fail with our streams, how, and why.
MUST_FAIL = {
    "trio": trios_choices.FAIL,
    "trio_websocket": trios_choices.FAIL_OF_WEBSOCKET,
}


def source_of(project: str, folder: Path) -> Path:
    """Where the tests of the installed version are run."""
    if project == "trio":  # its wheel has its tests
        return Path(str(distribution(project).locate_file("")))
    name = f"{project}-{version(project)}"
    target = folder / name
    if not target.exists():
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run(
            [*download, "--no-binary=:all:", f"--dest={folder}", f"{project}=={version(project)}"],
            check=True,
        )
        with tarfile.open(folder / f"{name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return target


def outcomes(project: str, source: Path, options: list[str], report: Path) -> tuple[Outcomes, str]:
    """What became of each test, and all that pytest said."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    report.unlink(missing_ok=True)
    run = subprocess.run(
        [*pytest, *options, *SUITES[project], f"--junitxml={report}"],
        cwd=source,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env={"PATH": os.defpath, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    if not report.exists():
        raise SystemExit(f"pytest has not run the tests of {project}:\n{run.stdout}{run.stderr}")
    return {
        f"{case.get('classname')}.{case.get('name')}": " ".join(
            f"{child.tag}: {child.get('message')}" for child in case
        )
        or "passed"
        for case in ET.parse(report).iter("testcase")
    }, run.stdout


def differences(
    baseline: Outcomes, ours: Outcomes, must_fail: dict[str, Choice]
) -> tuple[list[str], list[str]]:
    """The tests that fail otherwise than is said, and those that should fail and do not.

    Args:
        baseline: what became of each test with Trio's streams.
        ours: the same with ours.
        must_fail: how and why a test fails with ours, by its name without parameters.
    """
    passed = {name for name, outcome in baseline.items() if outcome == "passed"}
    worse = {name for name in passed if ours.get(name) != "passed"}
    explained = {
        name
        for name in worse
        if (choice := must_fail.get(name.partition("[")[0]))
        and choice.error in ours.get(name, "it did not run")
    }
    not_worse = {name.partition("[")[0] for name in passed - worse}
    failing = {name.partition("[")[0] for name in worse} - not_worse
    return sorted(worse - explained), sorted(must_fail.keys() - failing)


def compare(project: str, folder: Path) -> bool:
    """Run a suite both ways, and say what is worse with our streams; whether all is explained."""
    source = source_of(project, folder)
    baseline, _ = outcomes(project, source, [], folder / f"{project}-trio.xml")
    here = ["-p", "in_place_of_trio"]
    ours, text = outcomes(project, source, here, folder / f"{project}-ours.xml")
    must_fail = MUST_FAIL.get(project, {})
    unexplained, stale = differences(baseline, ours, must_fail)
    passed = sum(outcome == "passed" for outcome in baseline.values())
    made = re.search(r"^(\d+) streams were ours$", text, re.MULTILINE)
    count = int(made[1]) if made else 0
    print(
        f"{project} {version(project)}: {passed} of {len(baseline)} tests pass with Trio's "
        f"streams; with ours, {count} of which were made, these fail as well: "
        f"{len(must_fail) - len(stale)} for a reason, {len(unexplained)} for none",
        *(f"passes, and is on the list of those that fail: {name}" for name in stale),
        *(f"{name}: {ours.get(name, 'it did not run')}" for name in unexplained),
        *([text] if unexplained or not (passed and count) else ()),
        sep="\n",
        flush=True,
    )
    return bool(passed and count) and not (unexplained or stale)


def main() -> int:
    """Compare all suites, two at a time."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        return 0 if all(list(pool.map(lambda project: compare(project, folder), SUITES))) else 1


if __name__ == "__main__":
    sys.exit(main())
