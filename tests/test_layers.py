"""The layer rules: folders are the layers.

The table is policy: do not edit it to get green. A file imports from its own folder and from the
folders above it in the table; inside a folder there is no circle. A new file edits nothing here.
"""

from __future__ import annotations

import ast
import graphlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import trio_asyncwrite

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Folder, and what is in it; a folder imports only from those before it.
LAYERS = {
    "_version": "the version, for the build and for ``--version``",
    "_core": "the trait: three polls and the await shell. Start here",
    "_transports": "innermost writers: where bytes leave the process; any stream as a writer",
    "_wrappers": "writers over writers",
    "_tls": "TLS over any stream",
    "_relay": "bytes from one stream to another",
    "codecs": "whole messages over a stream: frames",
    "compression": "encoders, and the writer over them",
    "_closing": "endings that lose nothing, and their reports",
    "_serving": "servers that end like that",
    "": "the public face",
    "testing": "for people who write their own writers",
    "compat": "for libraries that ask for Trio's own classes",
    "_demo": "the main job",
    "__main__": "``python -m trio_asyncwrite``",
}

#: What may be imported from outside the package and the standard library, and where.
OUTSIDE = {
    "trio": "everywhere",
    "idna": "_tls",  # Trio depends on it
    "trustme": "_demo",
    "backports": "compression",  # an extra
    "brotli": "compression",  # an extra
    "compression": "compression",  # the standard library's, from Python 3.14 on
    "typing_extensions": "type checking",
}

#: Imports inside functions: (module, imported) -> why it cannot stand at the top.
LATE = {
    ("compression", "backports"): "an extra; the function that needs it says so",
    ("compression", "brotli"): "an extra; the function that needs it says so",
    ("compression", "compression"): "in the standard library from Python 3.14 on",
    ("_demo", "trustme"): "an extra; the demo says how to install it",
    ("_tls", "ipaddress"): "on Python 3.10, Trio does not import it",
    ("__main__", "trio_asyncwrite._demo"): "not for --help and --version",
}

PACKAGE = Path(trio_asyncwrite.__file__).parent


class Import(NamedTuple):
    """One import statement's target, seen from the package."""

    importer: str
    target: str
    type_checking: bool
    late: bool


def unit(path: Path) -> str:
    """The layer of a file: its folder's name, its own at the top, or "" for the package."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def unit_of(dotted: str) -> str:
    """The layer of a module of the package, by its dotted name."""
    return ".".join(dotted.split(".")[1:2])


def imports_of(path: Path) -> Iterator[Import]:
    """Every import in a file, in whatever block it stands."""
    package = ["trio_asyncwrite", *path.relative_to(PACKAGE).parts[:-1]]

    def visit(node: ast.AST, *, type_checking: bool, late: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            for target in targets(child):
                yield Import(unit(path), target, type_checking, late)
            yield from visit(
                child,
                type_checking=type_checking
                or (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"),
                late=late or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)),
            )

    def targets(node: ast.AST) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if not isinstance(node, ast.ImportFrom):
            return []
        base = package[: len(package) - node.level + 1] if node.level else []
        origin = ".".join([*base, *([node.module] if node.module else [])])
        # `from . import _x` names modules; elsewhere the names are a module's contents.
        return [
            f"{origin}.{alias.name}" if is_module(f"{origin}.{alias.name}") else origin
            for alias in node.names
        ]

    yield from visit(ast.parse(path.read_text()), type_checking=False, late=False)


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = ["trio_asyncwrite", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(dotted: str) -> bool:
    """Whether a dotted name is a module of the package."""
    path = PACKAGE.parent.joinpath(*dotted.split("."))
    return dotted.startswith("trio_asyncwrite.") and (
        path.with_suffix(".py").exists() or (path / "__init__.py").exists()
    )


FILES = sorted(PACKAGE.rglob("*.py"))
IMPORTS = [found for path in FILES for found in imports_of(path)]
ROW = {name: number for number, name in enumerate(LAYERS)}


def test_every_folder_has_one_row() -> None:
    assert {unit(path) for path in FILES} == set(ROW)


@pytest.mark.parametrize("importer", sorted(ROW))
def test_imports_go_to_rows_above_only(importer: str) -> None:
    wrong = {
        found.target
        for found in IMPORTS
        if found.importer == importer
        and found.target.split(".")[0] == "trio_asyncwrite"
        and unit_of(found.target) != importer
        and ROW[unit_of(found.target)] >= ROW[importer]
    }

    assert not wrong


@pytest.mark.parametrize("folder", sorted(ROW))
def test_a_folder_has_no_circle(folder: str) -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        if unit(path) == folder:
            graph[module_name(path)] = {
                found.target
                for found in imports_of(path)
                if not found.type_checking and unit_of(found.target) == folder
            }

    # static_order raises CycleError, which names the circle.
    assert set(graph) <= set(graphlib.TopologicalSorter(graph).static_order())


def test_the_outside_is_trio_and_the_standard_library() -> None:
    used = {
        (
            top,
            "type checking" if found.type_checking else found.importer,
        )
        for found in IMPORTS
        for top in [found.target.split(".")[0]]
        if top not in sys.stdlib_module_names and top != "trio_asyncwrite"
    }

    for top, where in used:
        assert OUTSIDE.get(top) in ("everywhere", where), f"{where} imports {top}"


def test_imports_stand_at_the_top() -> None:
    late = {(found.importer, found.target) for found in IMPORTS if found.late}

    assert late == set(LATE), "a late import needs a reason; a reason without one has expired"
