"""The README's commands and its example."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^    python3 dev\.py (\w+)$", README, re.MULTILINE)


def test_the_readme_has_one_command_to_see_it_and_one_to_test_it() -> None:
    assert COMMANDS == ["demo", "tests"]


@pytest.mark.parametrize("session", COMMANDS)
def test_ci_runs_what_the_readme_says(session: str) -> None:
    ci = (ROOT / ".ci/run").read_text()
    sessions = re.findall(r"^check (.+)$", ci, re.MULTILINE)

    assert 'python3 dev.py "$@"' in ci
    assert session in " ".join(sessions).split()


@pytest.mark.parametrize("session", COMMANDS)
def test_the_commands_name_sessions(session: str) -> None:
    assert f"def {session}(session: nox.Session)" in (ROOT / "noxfile.py").read_text()


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https:)([^)]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_every_recipe_is_listed() -> None:
    recipes = re.findall(r"\]\((docs/recipes/\w+\.py)\)", README)

    assert sorted(recipes) == sorted(
        str(path.relative_to(ROOT)) for path in ROOT.glob("docs/recipes/*.py")
    )


def test_the_example_prints_what_it_says() -> None:
    (example,) = re.findall(r"^```python\n(.+?)^```$", README, re.DOTALL | re.MULTILINE)
    (promised,) = re.findall(r"print\(.+\)  # (.+)$", example, re.MULTILINE)

    run = subprocess.run(
        [sys.executable, "-c", example], check=True, stdout=subprocess.PIPE, text=True
    )

    assert run.stdout.strip() == promised
