"""Run other projects' tests with our streams in place of Trio's.

python downstream/suites.py FOLDER

Their source distributions are unpacked in FOLDER. Each suite runs twice, with Trio's own streams
and with ours. No test may fail that passes with Trio's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent

#: Each project, and what pytest needs to be told for its tests.
SUITES = {
    "httpcore": ["-p", "no:asyncio"],
    "hypercorn": ["-o", "addopts=", "-o", "asyncio_default_fixture_loop_scope=function"],
    # It has no settings of its own, and ours are not meant for it.
    "trio_websocket": [
        *("--config-file", os.devnull, "-o", "trio_mode=true"),
        *("-p", "no:asyncio", "-p", "no:anyio"),
    ],
}


def unpacked(project: str, folder: Path) -> Path:
    """The source distribution of the version that is installed."""
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


def outcomes(project: Path, arguments: list[str], report: Path) -> tuple[dict[str, str], str]:
    """What became of each test, and all that pytest said."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*pytest, *arguments, f"--junitxml={report}", "tests"],
        cwd=project,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env={"PATH": "", "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    if not report.exists():
        raise SystemExit(f"pytest has not run the tests of {project.name}:\n{run.stdout}")
    return {
        f"{case.get('classname')}.{case.get('name')}": next(iter(case)).tag
        if len(case)
        else "passed"
        for case in ET.parse(report).iter("testcase")
    }, run.stdout


def compare(project: str, folder: Path) -> bool:
    """Run a suite both ways, and say what is worse with our streams; whether nothing is."""
    source = unpacked(project, folder)
    arguments = SUITES[project]
    baseline, _ = outcomes(source, arguments, folder / f"{project}-trio.xml")
    here = ["-p", "in_place_of_trio", *arguments]
    ours, text = outcomes(source, here, folder / f"{project}-ours.xml")
    passed = {name for name, outcome in baseline.items() if outcome == "passed"}
    worse = sorted(name for name in passed if ours.get(name) != "passed")
    made = re.search(r"^(\d+) streams were ours$", text, re.MULTILINE)
    count = int(made[1]) if made else 0
    print(
        f"{source.name}: {len(passed)} of {len(baseline)} tests pass with Trio's streams; "
        f"{len(worse)} of these fail with ours, {count} of which were made"
    )
    if worse or not (passed and count):
        print(*worse, text, sep="\n")
        return False
    return True


def main() -> int:
    """Compare all suites."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return 0 if all([compare(project, folder) for project in SUITES]) else 1  # noqa: C419


if __name__ == "__main__":
    sys.exit(main())
