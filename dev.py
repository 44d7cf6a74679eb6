#!/usr/bin/env python3
"""Run nox sessions on a machine that has nothing but Python 3.10+ with ``venv``.

    python3 dev.py                    list the sessions, and what may follow --
    python3 dev.py demo               run one
    python3 dev.py tests -- -k flush  what follows -- goes to the session

Makes ``.venv`` with nox in it at the first run; everything else is nox's work. Once a session has
run, it runs without the network, too (but for build and downstream).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
NOX = "nox[uv]>=2026.10.20"

WHAT_FOLLOWS = """
What follows -- goes to the session's program:
  python3 dev.py tests -- -x -k flush tests/wrappers    pytest's arguments
  python3 dev.py tests-3.12                             on one Python only
  python3 dev.py lint -- main                           is there a news fragment since main?
  python3 dev.py demo -- --help                         the demo's options
  python3 dev.py bench -- --help                        the benchmark's options
"""

NO_NOX = f"""
dev.py: pip could not install {NOX}, which needs the network once.
- Without the network: fetch its wheels elsewhere, by `python -m pip download "{NOX}"` on the same
  system and Python, and tell pip where they are: PIP_NO_INDEX=1 PIP_FIND_LINKS=DIRECTORY.
- Behind a proxy with certificates of its own: set SSL_CERT_FILE to the file of those that this
  machine trusts. dev.py hands it to pip, uv and Node.js.
"""

#: Where programs look for a file of the certificates to trust; the first is OpenSSL's and uv's.
CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


def with_certificates(env: Mapping[str, str]) -> dict[str, str]:
    """The environment, in which each program finds the file that one of them was told of."""
    named = [env[name] for name in CERTIFICATES if env.get(name)]
    return {**dict.fromkeys(CERTIFICATES, named[0]), **env} if named else dict(env)


def venv_python(env: Mapping[str, str]) -> str:
    """The interpreter of ``.venv``, with nox installed beside it."""
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    installed = VENV / "nox-is-installed"
    if not installed.exists():
        print(f"dev.py: making {VENV.name} with {NOX}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", NOX]
        if subprocess.run(pip, check=False, env=env).returncode:
            sys.exit(NO_NOX)
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
    if sys.argv[1:2] in (["-h"], ["--help"]):
        print(__doc__, WHAT_FOLLOWS, sep="")
        return 0
    selection = ["--session", *sys.argv[1:]] if sys.argv[1:] else ["--list"]
    path = os.pathsep.join([*pyenv_bins(), os.environ.get("PATH", os.defpath)])
    env = with_certificates({**os.environ, "PATH": path})
    code = subprocess.call([venv_python(env), "-m", "nox", *selection], cwd=HERE, env=env)
    if not sys.argv[1:]:
        print(WHAT_FOLLOWS, end="")
    return code


if __name__ == "__main__":
    sys.exit(main())
