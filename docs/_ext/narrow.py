"""What a narrow page needs to show tables and programs without scrolling; its style is pages.css.

- A table becomes a list there, so each of its cells carries the name of its column.
- A line of code that does not fit goes on below, indented further than it began. So it carries its
  indentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes
from pygments.formatters import HtmlFormatter
from sphinx.highlighting import PygmentsBridge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx


def label_cells(_app: Sphinx, doctree: nodes.document) -> None:
    """Put the head of each column before its cells, but for the first."""
    for table in doctree.findall(nodes.table):
        heads = [
            entry.astext() for head in table.findall(nodes.thead) for entry in head.children[0]
        ]
        for body in table.findall(nodes.tbody):
            for row in body.children:
                for head, cell in zip(heads[1:], row.children[1:], strict=False):
                    for paragraph in cell.children[:1]:
                        paragraph.insert(0, nodes.inline(text=f"{head}: ", classes=["label"]))


class Lines(HtmlFormatter):  # type: ignore[type-arg]
    """Each line of code in an element with its indentation, in characters."""

    def wrap(self, source: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        """Called by Pygments with each line as HTML."""
        return super().wrap(
            (kind, f'<span class="line" style="--by:{self.indentation(line)}ch">{line}</span>')
            for kind, line in source
        )

    @staticmethod
    def indentation(line: str) -> int:
        """How many spaces it begins with: Pygments gives them an element of their own."""
        text = line.replace('<span class="w">', "").replace("<span></span>", "")
        return len(text) - len(text.lstrip(" "))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("doctree-read", label_cells)
    PygmentsBridge.html_formatter = Lines
    return {"parallel_read_safe": True}
