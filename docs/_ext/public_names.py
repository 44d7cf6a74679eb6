"""The reference's directive, and the check that every public name's text is on its page.

``.. public-names:: MODULE`` lists names, one a line. The page gets a summary table, and an entry
for each of them. An option of the entry's directive may follow a name, as in
``TlsStream :inherited-members: AsyncReadWrite``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from typing import TYPE_CHECKING, Any

import sphinx.util.inspect
import sphinx.util.logging
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

import trio_asyncwrite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

logger = sphinx.util.logging.getLogger(__name__)

PACKAGE = trio_asyncwrite.__name__


def public_modules() -> list[str]:
    """The package, and each module below it that has no private part and says what it offers."""
    names = (one.name for one in pkgutil.walk_packages(trio_asyncwrite.__path__, f"{PACKAGE}."))
    public = (name for name in names if "._" not in name)
    return [PACKAGE, *(n for n in public if hasattr(importlib.import_module(n), "__all__"))]


def public_objects() -> dict[str, Any]:
    """Every public name with its object: ``trio_asyncwrite.Buf``."""
    return {
        f"{name}.{one}": getattr(module, one)
        for name in public_modules()
        for module in (importlib.import_module(name),)
        for one in module.__all__
    }


def kind(value: object) -> str:
    """Which of autodoc's directives shows it."""
    if not inspect.isclass(value):
        return "function" if callable(value) else "data"
    return "exception" if issubclass(value, BaseException) else "class"


ROLES = {"function": "func", "exception": "exc", "class": "class", "data": "data"}


def summary(value: object) -> str:
    """The first paragraph of its docstring, on one line."""
    first = (inspect.getdoc(value) or "").split("\n\n")[0]
    return " ".join(first.split()).removesuffix(" ::").removesuffix("::")


class PublicNames(SphinxDirective):
    """A summary table of public names, and their entries."""

    has_content = True
    required_arguments = 1
    option_spec = {"caption": directives.unchanged}  # noqa: RUF012 - docutils wants a plain dict

    def run(self) -> list[nodes.Node]:
        """Write what a page would say by hand, and parse that."""
        module = self.arguments[0]
        table = [".. list-table::", "   :widths: 30 70", "   :class: names", ""]
        entries = ["", f".. currentmodule:: {module}", ""]
        for line in self.content:
            name, _, option = line.partition(" ")
            if not name:
                continue
            value = getattr(importlib.import_module(module), name)
            # A bare name of a member means one of the object's own.
            text = re.sub(r":(?:attr|meth):`~?([\w.]+)`", r"``\1``", summary(value))
            table += [f"   * - :{ROLES[kind(value)]}:`~{module}.{name}`", f"     - {text}"]
            entries += [f".. auto{kind(value)}:: {name}", *([f"   {option}"] if option else []), ""]
        return self.parse_text_to_nodes("\n".join([*table, *entries]), allow_section_headings=True)


# ---- Where autodoc looks ----------------------------------------------------------------------


def read_sources(root: Path) -> None:
    """Give autodoc the ``#:`` comments and the source order of every public name.

    autodoc looks for both in the module that a class names. Ours name the public module, which only
    imports them. So each public module is given what the files of the package say of its names.
    """
    sources = []
    for file in sorted(root.rglob("*.py")):
        sources.append(ModuleAnalyzer.for_file(file, file.stem))
        sources[-1].analyze()
    for name in public_modules():
        public = importlib.import_module(name).__all__
        shown = ModuleAnalyzer.for_module(name)
        shown.analyze()
        for source in sources:
            for theirs, ours in (
                (source.attr_docs, shown.attr_docs),
                (source.annotations, shown.annotations),
            ):
                ours.update({key: v for key, v in theirs.items() if key[0] in public})
            first = len(shown.tagorder)
            for tag, number in source.tagorder.items():
                if tag.split(".")[0] in public:
                    shown.tagorder[tag] = first + number


def show_init(
    _app: Sphinx,
    what: str,
    _name: str,
    obj: Any,
    _options: object,
    args: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Show how a class is made: a layer's ``__new__`` takes anything, its ``__init__`` does not."""
    if what != "class":
        return args, returns
    if issubclass(obj, trio_asyncwrite.Layer):
        init = sphinx.util.inspect.signature(obj.__init__, bound_method=True)
        args = sphinx.util.inspect.stringify_signature(init, show_return_annotation=False)
        # Type variables.
        args = re.sub(rf"{PACKAGE}\.(?:\w+\.)*(\w+)", r"\1", args)
    made_by_the_library = re.search(r"\b(_[A-Z]\w+|LaneRun)\b", args or "")
    if (
        obj.__init__ is object.__init__
        or getattr(obj, "_is_protocol", False)
        or made_by_the_library
    ):
        return "", None
    return args, returns


# ---- The check --------------------------------------------------------------------------------


def expected_texts(hidden: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Each public name, member and commented attribute, with the text that its page must have."""
    for path, value in public_objects().items():
        yield path, summary(value)
        if inspect.isclass(value):
            for name, member in vars(value).items():
                documented = inspect.isroutine(member) or hasattr(member, "fget")
                if not documented or name.startswith("_") or name in hidden:
                    continue
                # A method without a docstring shows its base's.
                text = getattr(value, name)
                if ":meta private:" not in (inspect.getdoc(text) or ""):
                    yield f"{path}.{name}", summary(text)
    for name in public_modules():
        for (owner, attribute), lines in ModuleAnalyzer.for_module(name).attr_docs.items():
            # An attribute that only __init__ sets is shown where the class has an annotation.
            if owner and not attribute.startswith("_") and attribute not in hidden:
                yield f"{name}.{owner}.{attribute}", "\n".join(lines).split("\n\n")[0]


def words(text: str) -> list[str]:
    """The words of a text with or without markup: a role shows its target's last part."""
    text = re.sub(r":\w+:`~(?:\w+\.)*(\w+)`", r" \1 ", text)
    text = re.sub(r":\w+:`([^`<]+) <[^`>]+>`", r" \1 ", text)
    return re.findall(r"\w+", re.sub(r"(?<!\w):\w+:`", " ", text))


def check_pages(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each public name whose text is not on a page, and of members out of order."""
    hidden = app.config.names_not_shown
    shown: dict[str, str] = {}
    for page in sorted(env.found_docs):
        if page.startswith("reference/"):
            for entry in env.get_doctree(page).findall(addnodes.desc):
                for anchor in entry[0]["ids"]:
                    text = re.sub(r"\ABases: .*\n\n", "", entry[-1].astext())
                    shown.setdefault(anchor, text)
    for path, text in expected_texts(hidden):
        if path not in shown:
            logger.warning("not in the reference: %s", path)
        elif not words(text) or words(text) != words(shown[path])[: len(words(text))]:
            logger.warning("the reference lacks the text of %s: %r", path, text)
    order = {path: number for number, path in enumerate(shown)}
    for name in public_modules():
        last: dict[str, str] = {}
        tags = ModuleAnalyzer.for_module(name).tagorder
        for tag in sorted(tags, key=tags.__getitem__):
            owner, path = tag.rpartition(".")[0], f"{name}.{tag}"
            if owner and path in order:
                if order[path] < order[last.get(owner, path)]:
                    logger.warning("not in the order of the source: %s", path)
                last[owner] = path


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_config_value("names_not_shown", (), "env")
    app.add_directive("public-names", PublicNames)
    app.connect("autodoc-process-signature", show_init)
    app.connect("env-check-consistency", check_pages)
    return {"parallel_read_safe": True}
