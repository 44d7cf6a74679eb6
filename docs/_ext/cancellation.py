"""``.. cancellation-table::``: what a cancelled call has done, by the docstrings.

One row for each public coroutine function or method, grouped as the reference is.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from public_names import PACKAGE, ROLES
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docutils import nodes
    from sphinx.application import Sphinx

WORDS = ("nothing happened", "resumable", "lost")
#: The library calls it, and shields it: the base's row is enough.
ONLY_AT_THE_BASE = ("release",)


def promise(value: object) -> tuple[str, str]:
    """The word of a docstring's section Cancellation, and the rest of that section."""
    doc = inspect.getdoc(value) or ""
    found = re.search(r"^Cancellation: *((?:.+\n?)(?:^[ \t]+.+\n?)*)", doc, re.MULTILINE)
    text = " ".join(found[1].split()) if found else ""
    for word in WORDS:
        if text.startswith(word):
            rest = re.sub(r"^[;:,.]?\s*", "", text.removeprefix(word))
            return word, rest.removesuffix(".")
    raise ValueError(f"begins with none of the three words: {text!r}")


def own_coroutines(cls: type) -> Iterator[str]:
    """The public coroutine methods of a class that promise something other than its bases do."""
    for name, member in vars(cls).items():
        if name.startswith("_") or not inspect.iscoroutinefunction(member):
            continue
        inherited = [getattr(base, name) for base in cls.__mro__[1:] if hasattr(base, name)]
        # Trio's abstract classes promise nothing in our words.
        ours = [one for one in inherited if one.__module__.startswith(PACKAGE)]
        if ours and (name in ONLY_AT_THE_BASE or promise(ours[0]) == promise(getattr(cls, name))):
            continue
        yield name


def qualified(text: str, cls: type | None) -> str:
    """A docstring's text with its references to members of its own class spelt in full."""

    def spell(found: re.Match[str]) -> str:
        role, name = found[1], found[2]
        owner, _, last = name.rpartition(".")
        holder = getattr(importlib.import_module(PACKAGE), owner, None) if owner else cls
        if holder is not None and hasattr(holder, last):
            return f":{role}:`~{holder.__module__}.{holder.__name__}.{last}`"
        return f":{role}:`~{PACKAGE}.{name}`" if "." not in name else found[0]

    return re.sub(r":(meth|attr|func|class):`([\w.]+)`", spell, text)


class CancellationTable(SphinxDirective):
    """A table for each page of the reference that has coroutines."""

    def run(self) -> list[nodes.Node]:
        """Write the tables as a page would, and parse that."""
        self.env.note_reread()
        lines: list[str] = []
        source = Path(self.env.srcdir)
        contents = (source / "reference.rst").read_text()
        pages = re.findall(r"^   (reference/\w+)$", contents, re.MULTILINE)
        for page in pages:
            text = (source / f"{page}.rst").read_text()
            rows: list[str] = []
            for module, names in re.findall(
                r"^\.\. public-names:: (\S+)\n\n((?:   .+\n)+)", text, re.MULTILINE
            ):
                for name in re.findall(r"^   (\w+)", names, re.MULTILINE):
                    rows += self.rows(module, name, getattr(importlib.import_module(module), name))
            if rows:
                lines += [f".. rubric:: {text.splitlines()[0]}", ""]
                lines += [".. list-table::", "   :header-rows: 1", "   :widths: 40 18 42"]
                lines += ["   :class: calls", "", "   * - call", "     - cancelled"]
                lines += ["     - more", *rows, ""]
        return self.parse_text_to_nodes("\n".join(lines))

    def rows(self, module: str, name: str, value: Any) -> Iterator[str]:
        """The rows of a public name: its own if it is a function, else its methods'."""
        if inspect.isclass(value):
            calls = [
                (f"{name}.{one}", "meth", getattr(value, one)) for one in own_coroutines(value)
            ]
        else:
            calls = [(name, ROLES["function"], value)] if inspect.iscoroutinefunction(value) else []
        for title, role, call in calls:
            try:
                word, rest = promise(call)
            except ValueError as error:
                raise self.error(f"{module}.{title}: Cancellation {error}") from error
            yield f"   * - :{role}:`{title}() <{module}.{title}>`"
            yield f"     - {word}"
            cls = value if inspect.isclass(value) else None
            yield f"     - {qualified(rest, cls)}".rstrip()


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("cancellation-table", CancellationTable)
    return {"parallel_read_safe": True}
