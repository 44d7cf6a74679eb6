"""Sphinx configuration. No page needs the network to build."""

from __future__ import annotations

import pkgutil
import re
import sys
import zlib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, get_origin

import sphinx.util.logging

from trio_asyncwrite._core._answer import answer
from trio_asyncwrite._version import __version__

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
logger = sphinx.util.logging.getLogger(__name__)

project = "trio_asyncwrite"
author = project_copyright = "The trio_asyncwrite contributors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "public_names",
    "cancellation",
    "narrow",
    "recipes",
]
exclude_patterns = ["_build"]
source_suffix = {".rst": "restructuredtext"}
nitpicky = True
default_role = "any"
# CHANGELOG.md, included under the title of its page, begins with headings of the second level.
suppress_warnings = ["myst.header"]
html_theme = "furo"
html_title = "trio_asyncwrite"
html_static_path = ["_static"]
html_css_files = ["pages.css"]

# What the library's own parts tell each other: classes of layers, and a drain its servers.
NOT_SHOWN = (
    "append", "encode_whole", "locate_all", "size_of_first", "tokens",  # our layers
    "announces_held_bytes", "holds_nothing", "inherits_new", "lifecycle", "limits",
    "overrides_held_bytes", "overrides_inner", "overrides_keeps_messages",
    "overrides_layers_below", "overrides_owns_below", "overrides_poll_close",
    "overrides_poll_flush_side", "overrides_poll_shutdown", "overrides_poll_write",
    "overrides_release", "release_waits", "started_at",
)  # fmt: skip
names_not_shown = NOT_SHOWN

autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "show-inheritance": True,
    "exclude-members": ", ".join(NOT_SHOWN),
}
autodoc_member_order = "bysource"
napoleon_use_rtype = False

# The session `bench` makes the chart; a checkout may be without.
if (HERE / "_static/bench.svg").exists():
    rst_epilog = ".. |chart| image:: /_static/bench.svg"
else:
    rst_epilog = ".. |chart| replace:: This checkout has no chart yet."

# ---- Names of other projects ------------------------------------------------------------------


def write_inventories(names: Path, to: Path) -> dict[str, tuple[str, str]]:
    """Make intersphinx's inventories (version 2) of our own list, as theirs need the network."""
    entries: dict[str, list[str]] = {"python": [], "trio": []}
    for line in names.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        title, role, page, name, *short = line.split()
        if title == "trio":
            pkgutil.resolve_name(name)
        anchor = f"module-{name}" if role == "module" else name
        entries[title] += [f"{n} py:{role} 1 {page}#{anchor} {n}" for n in (name, *short)]
    to.mkdir(parents=True, exist_ok=True)
    for title, lines in entries.items():
        head = f"# Sphinx inventory version 2\n# Project: {title}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        body = zlib.compress("\n".join([*lines, ""]).encode())
        (to / f"{title}.inv").write_bytes(head.encode() + body)
    return {
        "python": ("https://docs.python.org/3/", str(to / "python.inv")),
        "trio": ("https://trio.readthedocs.io/en/stable/", str(to / "trio.inv")),
    }


intersphinx_mapping = write_inventories(HERE / "outside_names.txt", HERE / "_build/inventories")

# An alias of testing.check_async_write's annotations; its docstring says what it stands for.
nitpick_ignore = [("py:class", "Maker")]
nitpick_ignore_regex = [
    # What stands in a private module is not for users: type variables, protocols.
    ("py:(class|obj)", r"trio_asyncwrite(\.\w+)*\._.*"),
    # Type variables, in annotations that autodoc shows as they are written.
    ("py:class", "[A-Z]|Ts"),
]

# ---- Docstrings -------------------------------------------------------------------------------


#: napoleon does not know all of these, and takes a colon in Returns for the end of a type.
FIELDS = {name: name for name in ("Cancellation", "Checkpoints", "Source")} | {"Returns": "returns"}


#: Stands for a colon while napoleon looks at a docstring.
COLON = "\ue000"


def process_docstring(
    _app: Sphinx, what: str, name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Warn of what has no docstring; turn sections into fields, where napoleon would not."""
    if not any(lines) and what != "module":
        logger.warning("no docstring: %s", name, type="autodoc")
    if lines and what in {"attribute", "property"}:
        # Napoleon takes a colon in the first line for the end of a type.
        lines[0] = lines[0].replace(":", COLON)
    for number, line in enumerate(lines):
        # A page is named from the root, because the reference's pages are in a folder.
        line = lines[number] = re.sub(r":doc:`(?=\w+`)", ":doc:`/", line)
        heading, colon, text = line.partition(":")
        if colon and heading in FIELDS:
            lines[number] = f":{FIELDS[heading]}:{text}"


def restore_colons(
    _app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Put back what :func:`process_docstring` has hidden from napoleon."""
    lines[:] = [line.replace(COLON, ":") for line in lines]


#: The public bases: what these document, their subclasses do not repeat.
TRAITS = ("AsyncWrite", "AsyncRead", "AsyncReadWrite", "Layer")


def show_answer(cls: type, name: str, *default: object) -> object:
    """For autodoc: an attribute of a class, with an ``answer`` as the property that it acts as."""
    value = getattr(cls, name, *default)
    return property(value.fget) if isinstance(value, answer) else value


def look_in_package(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element
) -> nodes.Element | None:
    """Resolve bare names: the package's in ``testing``, the traits' in their subclasses."""
    if node["refdomain"] != "py":
        return None
    resolve = env.domains.python_domain.resolve_xref
    where, kind, target = node["refdoc"], node["reftype"], node["reftarget"]
    # What a trait inherits is documented once, at its base.
    bare = re.sub(rf"^({project}\.)?({'|'.join(TRAITS)})\.", "", target)
    names = (f"{place}.{bare}" for place in (project, *(f"{project}.{one}" for one in TRAITS)))
    found = (resolve(env, where, app.builder, kind, name, node, contnode) for name in names)
    return next(filter(None, found), None)


def show_public_bases(
    _app: Sphinx, _name: str, _obj: object, _options: object, bases: list[type]
) -> None:
    """Name the public ancestor of a private base; leave out a private base that has none."""
    public_bases: list[type] = []
    for base in bases:
        public = base
        while "._" in getattr(public, "__module__", ""):
            public = (get_origin(public) or public).__bases__[0]
        if public is base or public is not object:
            public_bases.append(public)
    bases[:] = public_bases or [object]


def setup(app: Sphinx) -> None:
    """Connect the handlers above; the first must come before napoleon's, the second after it."""
    app.connect("autodoc-process-docstring", process_docstring, priority=400)
    app.connect("autodoc-process-docstring", restore_colons, priority=600)
    app.connect("autodoc-process-bases", show_public_bases)
    app.add_autodoc_attrgetter(type, show_answer)
    import_module("public_names").read_sources(HERE.parent / project)
    app.connect("missing-reference", look_in_package)
