"""The public surface: names, docs, and what a docstring must say."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import trio_asyncwrite
import trio_asyncwrite.codecs
import trio_asyncwrite.compat
import trio_asyncwrite.compression
import trio_asyncwrite.testing

DOCS = Path(__file__).parent.parent / "docs"
MODULES = (
    trio_asyncwrite,
    trio_asyncwrite.codecs,
    trio_asyncwrite.compat,
    trio_asyncwrite.compression,
    trio_asyncwrite.testing,
)
SECTIONS = ("Args", "Returns", "Yields", "Raises", "Cancellation", "Checkpoints", "Source")
WORDS = ("nothing happened", "resumable", "lost")

#: Open classes other than exceptions, and how their docstring invites to subclass them.
MADE_FOR_SUBCLASSING = {
    "AsyncRead": "that you write",
    "AsyncReadWrite": "You write the polls",
    "AsyncWrite": "that you write",
    "Layer": "you subclass one or both",
}


def exported(module: ModuleType) -> dict[str, Any]:
    """The public objects of a module by name."""
    return {name: getattr(module, name) for name in module.__all__}


def is_property(member: object) -> bool:
    """Whether it is a property, or one that a plain attribute may override."""
    return hasattr(member, "fget")


PUBLIC = {f"{m.__name__}.{name}": value for m in MODULES for name, value in exported(m).items()}
CLASSES = {path: value for path, value in PUBLIC.items() if inspect.isclass(value)}
METHODS = {
    f"{path}.{name}": member
    for path, cls in CLASSES.items()
    for name, member in vars(cls).items()
    if not name.startswith("_") and (inspect.isroutine(member) or is_property(member))
}
CALLABLES = {p: v for p, v in {**PUBLIC, **METHODS}.items() if not is_property(v)}
# Before 3.11 typing.final leaves no trace at run time.
FINAL = {
    node.name
    for file in Path(trio_asyncwrite.__file__).parent.rglob("*.py")
    for node in ast.walk(ast.parse(file.read_text()))
    if isinstance(node, ast.ClassDef) and "final" in map(ast.unparse, node.decorator_list)
}
ASYNC = sorted(path for path, value in CALLABLES.items() if inspect.iscoroutinefunction(value))


def docstring(path: str) -> str:
    """The docstring of a public object; a method without one has its base's."""
    owner, _, name = path.rpartition(".")
    value = getattr(CLASSES[owner], name) if owner in CLASSES else PUBLIC[path]
    return inspect.getdoc(value) or ""


def sections(doc: str) -> dict[str, str]:
    """The sections of a docstring, in order: heading -> text."""
    parts = re.split(rf"^({'|'.join(SECTIONS)}):", doc, flags=re.MULTILINE)
    # A section ends where a line starts that is not indented.
    ends = (re.split(r"\n+(?=\S)", text, maxsplit=1)[0] for text in parts[2::2])
    return dict(zip(parts[1::2], ends, strict=True))


def promise(path: str) -> str | None:
    """Which of the three words a docstring promises for a cancelled call."""
    text = " ".join(sections(docstring(path)).get("Cancellation", "").split())
    return next((word for word in WORDS if text.startswith(word)), None)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_is_a_sorted_tuple_of_what_the_module_offers(module: ModuleType) -> None:
    offered = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }

    assert module.__all__ == tuple(sorted(module.__all__))
    assert set(module.__all__) == offered - {"annotations", "TYPE_CHECKING"}


def test_all_is_what_the_reference_documents() -> None:
    module, documented = "", []
    for page in sorted(DOCS.glob("reference/*.rst")):
        for line in page.read_text().splitlines():
            if found := re.match(r"\.\. public-names:: (\S+)$", line):
                module = found[1]
            elif found := re.match(r"   (\w+)(?: :.+)?$", line):
                documented.append(f"{module}.{found[1]}")

    assert sorted(documented) == sorted(PUBLIC)


@pytest.mark.parametrize("path", sorted(PUBLIC))
def test_a_name_says_that_it_is_public(path: str) -> None:
    assert f"{PUBLIC[path].__module__}.{PUBLIC[path].__qualname__}" == path


@pytest.mark.parametrize("path", sorted({**PUBLIC, **METHODS}))
def test_everything_public_has_a_docstring(path: str) -> None:
    summary = docstring(path).split("\n\n")[0]

    assert summary.endswith((".", "::"))


@pytest.mark.parametrize("path", sorted(CLASSES))
def test_a_class_is_final_or_invites_to_subclass_it(path: str) -> None:
    name = CLASSES[path].__name__
    # An exception is subclassed for the sake of its handlers, not for its behaviour.
    # A protocol is for type checkers.
    if issubclass(CLASSES[path], BaseException) or getattr(CLASSES[path], "_is_protocol", False):
        return
    invitation = MADE_FOR_SUBCLASSING.get(name)

    assert (name in FINAL) == (invitation is None)
    assert invitation is None or invitation in docstring(path)


@pytest.mark.parametrize("path", ASYNC)
def test_an_async_docstring_promises_one_of_the_three_words(path: str) -> None:
    assert promise(path) in WORDS


@pytest.mark.parametrize("path", sorted(CALLABLES))
def test_docstring_sections_are_in_order(path: str) -> None:
    found = list(sections(docstring(path)))

    assert found == [heading for heading in SECTIONS if heading in found]


@pytest.mark.parametrize("path", sorted(CALLABLES))
def test_raises_names_exceptions_and_says_when(path: str) -> None:
    entries = re.findall(
        r"^    (\S+?):[ \n]+(\S*)", sections(docstring(path)).get("Raises", ""), re.MULTILINE
    )
    text = sections(docstring(path)).get("Raises", "").strip()

    assert bool(entries) == bool(text)
    for name, when in entries:
        module, _, bare = name.rpartition(".")
        places = [importlib.import_module(module)] if module else [trio_asyncwrite, builtins]
        found = [getattr(place, bare) for place in places if hasattr(place, bare)]
        assert issubclass(found[0], BaseException)
        assert when
