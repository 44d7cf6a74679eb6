"""The pages and their examples. `nox -s docs` executes what stands in `testcode`.

The same session fails if a public name's text is not in the reference: see docs/_ext/.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from pathlib import Path

import pytest

import trio_asyncwrite
from trio_asyncwrite import codecs, compression, testing

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted([*DOCS.glob("*.rst"), *DOCS.glob("reference/*.rst")])
LITERAL_BLOCK = re.compile(r"::\n\n((?: {4,}.*\n|\n)+)")


def name_of(page: Path) -> str:
    """A page as a toctree names it."""
    return page.relative_to(DOCS).with_suffix("").as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_page_is_in_the_index(page: Path) -> None:
    trees = [
        (DOCS / name).read_text().partition(".. toctree::")[2].split()
        for name in ("index.rst", "reference.rst")
    ]

    assert page.stem == "index" or any(name_of(page) in tree for tree in trees)


def test_the_reference_says_what_each_of_its_pages_is_about() -> None:
    described, tree = (DOCS / "reference.rst").read_text().split(".. toctree::")

    assert re.findall(r"^\* :doc:`(.+?)`: ", described, re.MULTILINE) == tree.split()[1:]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_on_a_page_is_executed(page: Path) -> None:
    assert not re.search(r"\.\. (?:code|code-block|sourcecode):: *(?:python|$)", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_program_on_a_page_stands_alone(page: Path) -> None:
    """Whoever copies one has its imports, too: it uses no name that an earlier one has made."""
    for block in re.findall(r"^\.\. testcode::\n((?:   .*\n|\n)+)", page.read_text(), re.MULTILINE):
        bound, used = set(dir(builtins)), set()
        for node in ast.walk(ast.parse(textwrap.dedent(block))):
            if isinstance(node, ast.Name):
                (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
            elif isinstance(node, ast.alias):
                bound.add((node.asname or node.name).partition(".")[0])
            elif isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                bound.add(node.name)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.ExceptHandler):
                bound.add(node.name or "")
        assert used <= bound


def test_the_table_from_tokio_has_every_public_name() -> None:
    page = (DOCS / "tokio.rst").read_text()
    named = set(re.findall(r":\w+:`~trio_asyncwrite\.(\w+)[\w.]*`", page))

    assert named >= set(trio_asyncwrite.__all__)


def test_the_news_tell_of_every_public_name() -> None:
    root = DOCS.parent
    news = [root / "CHANGELOG.md", *root.glob("newsfragments/[!R]*.md")]
    told = set(re.findall(r"\w+", " ".join(file.read_text() for file in news)))
    modules = (trio_asyncwrite, codecs, compression, testing)

    assert told >= {name for module in modules for name in module.__all__}


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
