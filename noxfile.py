"""The project's chores. Groups and versions of Python are read from pyproject.toml."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path

import nox
import nox.command

nox.needs_version = ">=2026.10.20"  # parallel sessions
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.reuse_venv = "yes"
nox.options.allow_parallel = True

HERE = Path(__file__).parent
PACKAGE = "trio_asyncwrite"
PYPROJECT = nox.project.load_toml(HERE / "pyproject.toml")
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SUPPORTED = nox.project.python_versions(PYPROJECT)
# On a machine that has only a newer Python, the tests run with that one.
PYTHONS = [*SUPPORTED, *({THIS_PYTHON} - set(SUPPORTED))]


def group(name: str) -> tuple[str, ...]:
    """The requirements of a dependency group."""
    return nox.project.dependency_groups(PYPROJECT, name)


def install(session: nox.Session, *args: str) -> None:
    """Install, without the network where this environment has had the same before."""
    stamp = Path(session.virtualenv.location, "installed-by-nox")
    wanted = "\n".join([*args, (HERE / "pyproject.toml").read_text()])
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        try:
            session.install(*args, env={"UV_OFFLINE": "1"}, silent=True)
        except nox.command.CommandFailed:
            session.log("uv's cache does not have all of it: asking the index")
        else:
            return
    session.install(*args)
    stamp.write_text(digest)


def run_all(session: nox.Session, *commands: tuple[str, ...]) -> None:
    """Run every command, and then fail if one of them has failed."""
    failed = []
    for command in commands:
        try:
            session.run(*command, silent=command[0] == "towncrier")
        except nox.command.CommandFailed:
            failed.append(" ".join(command[:2]))
    if failed:
        session.error("failed: " + ", ".join(failed))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests; the oldest Python must cover every branch by itself. `--`: for pytest."""
    install(session, "--editable", ".[demo]", *group("test"))
    if session.posargs:
        session.run("pytest", *session.posargs)
    elif session.python == SUPPORTED[0]:
        cover(session, "not (slow or once or outer)")
        # Coverage would more than double the time of these, and they reach no further branch.
        session.run("pytest", "-m", "outer and not slow")
    else:
        left_out = "slow" if session.python == PYTHONS[-1] else "slow or once or outer"
        session.run("pytest", "-m", f"not ({left_out})")


def cover(session: nox.Session, selection: str) -> None:
    """Run tests, and fail if they do not reach every branch of the package."""
    data = Path(session.create_tmp(), "coverage").resolve()
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    runs_on = "|".join(re.escape(word) for word in (str(session.python), sys.platform))
    session.env.update(COVERAGE_FILE=str(data / "data"), COVERAGE_RUNS_ON=runs_on)
    session.run("coverage", "run", "-m", "pytest", "-m", selection)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(default=False)
def slow(session: nox.Session) -> None:
    """Run the tests that are too slow for every day. `--`: for pytest."""
    install(session, "--editable", ".[demo]", *group("test"))
    session.run("pytest", "-m", "slow", "-o", "faulthandler_timeout=900", *session.posargs)


@nox.session(python=SUPPORTED[0], venv_backend="uv", default=False)
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest direct dependencies that we admit. `--`: for pytest."""
    install(session, "--resolution=lowest-direct", "--editable", ".[demo]", *group("test"))
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, async rules and news fragments; `-- REV`: is there news since REV?"""
    install(session, *group("lint"))
    # ASYNC910 (a checkpoint on every path) contradicts the contract, which is finer; the tests
    # hold each method to its own promise.
    sources = map(str, sorted(Path(PACKAGE).rglob("*.py")))
    names = "serve_listeners,serve_tcp,serve_tls_over_tcp,start_on_signal"
    startable = f"--startable-in-context-manager={names}"
    news = [("towncrier", "check", f"--compare-with={rev}") for rev in session.posargs[:1]]
    run_all(
        session,
        ("ruff", "check"),
        ("ruff", "format", "--check"),
        ("flake8-async", "--enable=ASYNC", "--disable=ASYNC910", startable, *sources),
        ("towncrier", "build", "--draft", "--version=next"),
        # As an index renders it.
        ("python", "-m", "readme_renderer", "README.md", "-o", os.devnull),
        *news,
    )


@nox.session
def typing(session: nox.Session) -> None:
    """Type-check the package and its public face, with mypy and pyright."""
    install(session, ".[demo]", *group("typing"))
    run_all(
        session,
        *(("mypy", f"--python-version={version}") for version in (SUPPORTED[0], SUPPORTED[-1])),
        ("pyright",),
        ("pyright", "--ignoreexternal", "--verifytypes", PACKAGE),
    )


@nox.session
@nox.parametrize(
    ("mypy", "config"),
    [
        nox.param("mypy>=2.4", "[mypy]\n", id="without-plugin"),
        # The plugin crashes every newer mypy.
        nox.param("mypy<1.11", "[mypy]\nplugins = trio_typing.plugin\n", id="with-plugin"),
    ],
)
def typing_trio_typing(session: nox.Session, mypy: str, config: str) -> None:
    """Type-check our API as those see it who still have trio-typing installed."""
    install(session, ".", mypy, *group("trio-typing"))
    tmp = Path(session.create_tmp()).resolve()
    (tmp / "mypy.ini").write_text(config)
    example = shutil.copy(HERE / "tests/typing/with_trio_typing.py", tmp)
    # Away from the checkout, so that mypy takes the installed package, as for a user.
    with session.chdir(tmp):
        session.run("mypy", "--strict", "--config-file=mypy.ini", example)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; run its examples. Every warning is an error."""
    install(session, ".", *group("docs"))
    for builder in ("html", "doctest"):
        session.run(
            "sphinx-build", "--nitpicky", "--fail-on-warning", "--keep-going", "--fresh-env",
            "--quiet", "--builder", builder, "docs", f"docs/_build/{builder}",
        )  # fmt: skip
    session.log(f"the pages: {(HERE / 'docs/_build/html/index.html').as_uri()}")


@nox.session(default=False, allow_parallel=False)
def bench(session: nox.Session) -> None:
    """Measure, with peers; without arguments, for the documentation. `-- --help` has more."""
    install(session, ".", *group("bench"))
    static = HERE / "docs" / "_static"
    static.mkdir(exist_ok=True)
    for_docs = [f"--json={static / 'bench.json'}", f"--svg={static / 'bench.svg'}"]
    session.run("python", "bench/run.py", *(session.posargs or for_docs))


@nox.session(default=False, allow_parallel=False)
def demo(session: nox.Session) -> None:
    """Send real files over loopback, cancel the sender, verify every byte. `-- --help` has more."""
    install(session, ".[demo]")
    session.run("python", "-m", PACKAGE, "demo", *session.posargs)


@nox.session(default=False)
def downstream(session: nox.Session) -> None:
    """Run Trio's and other projects' tests, and live programs, on our streams."""
    install(session, "--editable", ".", *group("downstream"))
    session.run("python", "downstream/suites.py", os.fspath(Path(session.create_tmp(), "suites")))
    live = ["--config-file=downstream/pytest.ini", "-p", "in_place_of_trio"]
    session.run("pytest", *live, "downstream", *session.posargs, env={"PYTHONPATH": "downstream"})


#: What runs on the wheel: the parts that read files of the package, and one of each layer.
IN_A_WHEEL = (
    "tests/core",
    "tests/demo",
    "tests/wrappers",
    "tests/test_exports.py",
)


@nox.session(reuse_venv=False)
def build(session: nox.Session) -> None:
    """Build the sdist, the wheel from it, and run tests of the sdist on the wheel.

    What is missing in a wheel is missed by any test; all run on every Python anyway.
    """
    session.install("build")
    dist = HERE / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", os.fspath(dist), silent=True)
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    session.install(f"{wheel}[demo]", *group("test"))

    unpacked = Path(session.create_tmp()).resolve() / "sdist"
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(sdist) as tar:
        tar.extractall(unpacked, filter="data")
    (tree,) = unpacked.iterdir()
    # What is not there cannot shadow the installed package.
    shutil.rmtree(tree / PACKAGE)
    with session.chdir(tree):
        session.run("pytest", *(session.posargs or IN_A_WHEEL))
