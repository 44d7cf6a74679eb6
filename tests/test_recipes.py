"""Every recipe runs, and prints what it says."""

from __future__ import annotations

import inspect
import runpy
import textwrap
from pathlib import Path

import pytest
import trio

from ._patience import jumping_clock

RECIPES = sorted((Path(__file__).parent.parent / "docs" / "recipes").glob("*.py"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_prints_what_it_says(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = runpy.run_path(str(path))
    says = inspect.cleandoc(recipe["__doc__"]).partition("\nPrints::\n\n")[2]

    trio.run(recipe["main"], clock=jumping_clock())

    assert says
    assert capsys.readouterr().out == textwrap.dedent(says) + "\n"


def test_there_are_recipes() -> None:
    assert RECIPES
