"""The README's commands and its example."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
INDEX = (ROOT / "docs/index.rst").read_text()
COMMANDS = re.findall(r"`python3 dev\.py (\w+)`", README)


def test_the_readme_has_a_command_to_see_it_one_to_read_it_and_one_to_test_it() -> None:
    assert COMMANDS == ["demo", "docs", "tests"]


@pytest.mark.parametrize("session", COMMANDS)
def test_ci_runs_what_the_readme_says(session: str) -> None:
    ci = (ROOT / ".ci/run").read_text()
    sessions = re.findall(r"^check (.+)$", ci, re.MULTILINE)

    assert 'python3 dev.py "$@"' in ci
    assert session in " ".join(sessions).split()


@pytest.mark.parametrize("session", COMMANDS)
def test_the_commands_name_sessions(session: str) -> None:
    assert f"def {session}(session: nox.Session)" in (ROOT / "noxfile.py").read_text()


def test_the_readme_has_no_links_that_an_index_page_would_break() -> None:
    assert not re.findall(r"\]\((?!https://)", README)


@pytest.mark.parametrize("path", re.findall(r"`((?:docs/|LICENSE|CONTRIBUTING)[\w./]*)`", README))
def test_the_files_that_it_names_exist(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_example_prints_what_it_says() -> None:
    (example,) = re.findall(r"^```python\n(.+?)^```$", README, re.DOTALL | re.MULTILINE)
    (promised,) = re.findall(r"^```text\n(.+?)^```$", README, re.DOTALL | re.MULTILINE)

    run = subprocess.run(
        [sys.executable, "-c", example], check=True, stdout=subprocess.PIPE, text=True
    )

    assert run.stdout == promised
    # The landing page has the same.
    assert textwrap.indent(example, "   ") in INDEX
    assert textwrap.indent(promised, "   ") in INDEX
