"""The pages and their examples. `nox -s docs` executes what stands in `testcode`."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest

import trio_asyncwrite

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.rst"))
LITERAL_BLOCK = re.compile(r"::\n\n((?: {4,}.*\n|\n)+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_is_in_the_index(page: Path) -> None:
    index = (DOCS / "index.rst").read_text().split(".. toctree::")[1].split()

    assert page.stem == "index" or page.stem in index


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_on_a_page_is_executed(page: Path) -> None:
    assert not re.search(r"\.\. (?:code|code-block|sourcecode):: *(?:python|$)", page.read_text())


def test_every_recipe_is_on_its_page() -> None:
    page = (DOCS / "recipes.rst").read_text()
    included = re.findall(r"^\.\. literalinclude:: (recipes/\w+\.py)$", page, re.MULTILINE)

    assert sorted(included) == sorted(f"recipes/{p.name}" for p in DOCS.glob("recipes/*.py"))


def test_every_example_program_is_shown() -> None:
    page = (DOCS / "examples.rst").read_text()
    included = re.findall(r"^\.\. literalinclude:: (examples/\w+\.py)$", page, re.MULTILINE)

    assert sorted(included) == sorted(f"examples/{p.name}" for p in DOCS.glob("examples/*.py"))


def test_fragments_in_docstrings_are_python() -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
    for file in Path(trio_asyncwrite.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                doc = f"{ast.get_docstring(node) or ''}\n"
                for block in LITERAL_BLOCK.findall(doc):
                    compile(textwrap.dedent(block), file.name, "exec", flags=flags)
