"""The layer rules.

This table is policy: do not edit it to get green. A module imports only from rows above its
own; a new module gets a row, and the review of that row is the review of the design.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import trio_asyncwrite

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYERS = (
    # Words, and what knows of no other module: the TLS protocol without any I/O, the kernel's
    # count of unacknowledged bytes.
    {"_close_report", "_errors", "_outq", "_phase", "_tls_engine", "_version"},
    {"_util", "_budget"},
    {"_buf"},
    # The trait.
    {"_abc"},
    # Transports: the innermost writers.
    {"_fd"},
    {"_allow_stdio", "_cursor", "_duplex", "_poll_evented", "_send_stream", "_sink", "_tcp"},
    # Which transport fits a foreign stream.
    {"_wrap"},
    # Wrappers: writers over writers.
    {"_buf_writer", "_read_write_pair", "_shared_writer", "_split", "_timeout_writer", "_tls"},
    {"_close_engine", "_tls_over_tcp"},
    {"_close"},
    {"_serve"},
    # The public faces.
    {""},
    {"testing"},
    {"_demo"},
    {"__main__"},
)

#: What may be imported from outside the package and the standard library, and where.
OUTSIDE = {
    "trio": "everywhere",
    "idna": "_tls",  # Trio depends on it
    "trustme": "_demo",
    "typing_extensions": "type checking",
}

#: Imports inside functions: (module, imported) -> why it cannot stand at the top.
LATE = {
    ("_demo", "trustme"): "an extra; the demo says how to install it",
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
    """The row entry of a file: a module's name, a subpackage's, or "" for the package."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def unit_of(dotted: str) -> str:
    """The row entry of a module of the package, by its dotted name."""
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


def is_module(dotted: str) -> bool:
    """Whether a dotted name is a module of the package."""
    path = PACKAGE.parent.joinpath(*dotted.split("."))
    return dotted.startswith("trio_asyncwrite.") and (
        path.with_suffix(".py").exists() or (path / "__init__.py").exists()
    )


FILES = sorted(PACKAGE.rglob("*.py"))
IMPORTS = [found for path in FILES for found in imports_of(path)]
ROW = {name: number for number, row in enumerate(LAYERS) for name in row}


def test_every_module_has_one_row() -> None:
    assert len(ROW) == sum(map(len, LAYERS))
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
