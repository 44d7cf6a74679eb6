#!/usr/bin/env python3
"""Run nox sessions on a machine that has nothing but Python 3.10+ with ``venv``.

    python3 dev.py                    list the sessions
    python3 dev.py demo               run one
    python3 dev.py tests -- -k flush  what follows -- goes to the session

Makes ``.venv`` with nox in it at the first run; everything else is nox's work.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
NOX = "nox[uv]>=2026.10.20"


def venv_python() -> str:
    """The interpreter of ``.venv``, with nox installed beside it."""
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    installed = VENV / "nox-is-installed"
    if not installed.exists():
        print(f"dev.py: making {VENV.name} with {NOX}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", NOX], check=True)
        installed.touch()
    return str(python)


def pyenv_bins() -> list[str]:
    """Where pyenv keeps its interpreters: its shims answer for the selected versions only."""
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        return []
    root = subprocess.run([pyenv, "root"], check=True, stdout=subprocess.PIPE, text=True)
    versions = Path(root.stdout.strip(), "versions").glob("3.*")
    newest_first = sorted(versions, key=version_number, reverse=True)
    return [str(path / "bin") for path in newest_first]


def version_number(path: Path) -> list[int]:
    """``[3, 12, 1]`` for ``.../3.12.1``."""
    return [int(digits) for digits in re.findall(r"\d+", path.name)]


def main() -> int:
    """Hand the arguments over to nox."""
    if sys.version_info < (3, 10):
        print("dev.py: needs Python 3.10 or newer, this is", sys.version.split()[0])
        return 2
    selection = ["--session", *sys.argv[1:]] if sys.argv[1:] else ["--list"]
    path = os.pathsep.join([*pyenv_bins(), os.environ.get("PATH", os.defpath)])
    command = [venv_python(), "-m", "nox", *selection]
    return subprocess.call(command, cwd=HERE, env={**os.environ, "PATH": path})


if __name__ == "__main__":
    sys.exit(main())
