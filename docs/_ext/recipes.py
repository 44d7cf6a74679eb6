"""Recipes on their page: a recipe's docstring becomes the prose above its code.

It takes the place of ``.. literalinclude:: recipes/NAME.py``, so that the text stands in one place,
the file, and a page shows it as text.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.directives.code import LiteralInclude

import trio_asyncwrite

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx


def linked(text: str) -> str:
    """Make links of the public names that a docstring has in double backquotes."""

    def link(found: re.Match[str]) -> str:
        name = found[1]
        value = getattr(trio_asyncwrite, name, None) if name in trio_asyncwrite.__all__ else None
        role = "class" if isinstance(value, type) else "func"
        return found[0] if value is None else f":{role}:`~trio_asyncwrite.{name}`"

    return re.sub(r"``(\w+)``", link, text)


class Recipe(LiteralInclude):
    """``literalinclude``, which shows a recipe's docstring and output apart from its code."""

    def run(self) -> list[nodes.Node]:
        """Write what a page would say by hand, and parse that."""
        if not self.arguments[0].startswith("recipes/"):
            return super().run()
        relative, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(relative)
        source = Path(path).read_text(encoding="utf-8")
        tree = ast.parse(source)
        prose, _, output = (ast.get_docstring(tree) or "").partition("\nPrints::\n\n")
        code = "\n".join(source.splitlines()[tree.body[0].end_lineno :]).strip()
        indented = [textwrap.indent(text, "   ") for text in (code, textwrap.dedent(output))]
        page = f"{linked(prose)}\n\n.. code-block:: python\n\n{indented[0]}\n"
        if output:
            page += f"\nIt prints:\n\n.. code-block:: text\n\n{indented[1]}\n"
        return self.parse_text_to_nodes(page)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("literalinclude", Recipe, override=True)
    return {"parallel_read_safe": True}
