"""The files around the code agree with each other."""

from __future__ import annotations

import inspect
import re
import runpy
import sys
from pathlib import Path

import pytest

import trio_asyncwrite
from trio_asyncwrite import AsyncWrite, compression

ROOT = Path(__file__).parent.parent
CI = (ROOT / ".ci/run").read_text()
WORKFLOW = (ROOT / ".github/workflows/ci.yml").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PYTHONS = re.findall(r"Python :: (3\.\d+)", PYPROJECT)
NOXFILE = (ROOT / "noxfile.py").read_text()
SESSIONS = re.findall(r"^@nox\.session(?:.|\n)*?^def (\w+)", NOXFILE, re.MULTILINE)
DEV = runpy.run_path(str(ROOT / "dev.py"))


def test_the_hosted_workflow_runs_the_sessions_of_our_own_ci() -> None:
    ours = set(" ".join(re.findall(r"^check (.+)$", CI, re.MULTILINE)).split())
    (listed,) = re.findall(r"session: \[(.+)\]", WORKFLOW)

    assert {"tests", *listed.split(", ")} >= ours
    for session in listed.split(", "):
        assert session in SESSIONS


def test_the_hosted_workflow_tests_every_python_on_linux_and_macos() -> None:
    (pythons,) = re.findall(r"python: \[(.+)\]", WORKFLOW)
    (systems,) = re.findall(r"system: \[(.+)\]", WORKFLOW)

    assert re.findall(r"[\d.]+", pythons) == PYTHONS
    assert systems == "ubuntu-latest, macos-latest"


def test_both_install_the_programs_that_tests_ask_for() -> None:
    tests = " ".join(path.read_text() for path in ROOT.glob("tests/*/*.py"))
    packages = dict(re.findall(r"\[([\w-]+)\]=([\w-]+)", CI))
    (installed,) = re.findall(
        r"apt-get install -qq --no-install-recommends ((?:\\\n|.)+)", WORKFLOW
    )

    # The same package has both of GnuTLS's; and every system has gzip.
    assert set(re.findall(r'find_peer\("([\w-]+)"\)', tests)) == {*packages, "gnutls-serv", "gzip"}
    assert {*installed.split()} - {"\\"} == {*packages.values()}


def test_the_hook_before_a_commit_has_the_linter_of_the_session() -> None:
    (pinned,) = re.findall(r"ruff~=([\d.]+)", PYPROJECT)

    assert f"rev: v{pinned}\n" in (ROOT / ".pre-commit-config.yaml").read_text()


@pytest.mark.parametrize("session", SESSIONS)
def test_contributing_has_every_session(session: str) -> None:
    assert f"`{session}`" in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("page", ["CONTRIBUTING", "SECURITY", "RELEASING", "CODE_OF_CONDUCT"])
def test_the_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / f"{page}.md").read_text()

    for path in re.findall(r"`((?:docs|tests|\.ci|trio_asyncwrite)/[a-z_/.]+|[A-Z_]+\.md)`", text):
        assert (ROOT / path).exists()
    for module, names in re.findall(r"^\| (`\w+`.*?) \| `(_\w+/\w+\.py)` \|", text, re.MULTILINE):
        source = (ROOT / "trio_asyncwrite" / names).read_text()
        for name in re.findall(r"`(\w+)`", module):
            assert re.search(rf"\b(?:class|def) {name}\b|\bclass Lifecycle\b", source)


#: Every writer is in these tables; the wrappers, and what ``compression`` has, in more.
OF_A_WRITER = ("tests/_writers.py", "tests/typing/where_trio_takes_a_stream.py")
OF_A_WRAPPER = (
    "tests/_model.py",
    "tests/wrappers/test_answers.py",
    "tests/wrappers/test_memory.py",
)

#: How the tables make those that have no public constructor.
MADE_BY = {"ByRef": "by_ref", "DuplexStream": "duplex", "SimplexWriter": "simplex"} | {
    "WriteHalf": "split"
}

#: Its tables are those of tests/tls; and its own file of tests has its answers and its memory.
ELSEWHERE = {"TlsStream": {"tests/_writers.py"}, "CompressWriter": {*OF_A_WRAPPER[1:]}}

WRITERS = {
    name: value
    for module in (trio_asyncwrite, compression)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, AsyncWrite) and not name.startswith("Async")
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_public_writer_is_in_the_tables_of_the_checklist(name: str) -> None:
    file = Path(inspect.getsourcefile(WRITERS[name]) or "")
    is_wrapper = file.parent.name in {"_wrappers", "compression"}
    checklist = (ROOT / "CONTRIBUTING.md").read_text()

    for table in {*OF_A_WRITER, *(OF_A_WRAPPER if is_wrapper else ())} - ELSEWHERE.get(name, set()):
        assert f"`{table}`" in checklist
        text = (ROOT / table).read_text()
        assert re.search(rf"\b({name}|{MADE_BY.get(name, name)})\b", text), f"no {name} in {table}"
    if file.parent.name in {"_wrappers", "_transports"}:
        tests = Path(file.parent.name.strip("_"), f"test{file.name}")
        assert (ROOT / "tests" / tests).exists()


def test_a_sdist_has_what_its_tests_read() -> None:
    assert {f"/{path.name}" for path in ROOT.glob("*.md")} - {"/README.md"} <= set(
        re.findall(r'"(/[\w.-]+)"', PYPROJECT)
    )


# ---- dev.py ----------------------------------------------------------------------------------


def test_every_program_learns_which_certificates_one_was_told_of() -> None:
    env = DEV["with_certificates"]({"SSL_CERT_FILE": "a.pem", "PIP_CERT": "b.pem", "X": "y"})

    assert env == {
        "SSL_CERT_FILE": "a.pem",
        "PIP_CERT": "b.pem",
        "REQUESTS_CA_BUNDLE": "a.pem",
        "NODE_EXTRA_CA_CERTS": "a.pem",
        "X": "y",
    }
    assert DEV["with_certificates"]({"X": "y"}) == {"X": "y"}


def test_a_machine_without_the_network_is_told_what_to_fetch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failed = type("Failed", (), {"returncode": 1})
    monkeypatch.setitem(DEV["venv_python"].__globals__, "VENV", tmp_path)
    monkeypatch.setattr(DEV["subprocess"], "run", lambda *args, **kwargs: failed)

    with pytest.raises(SystemExit, match=r'pip download "nox\[uv\]'):
        DEV["venv_python"]({})
    assert not (tmp_path / "nox-is-installed").exists()


def test_help_says_what_may_follow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dev.py", "--help"])

    assert DEV["main"]() == 0
    assert "pytest's arguments" in capsys.readouterr().out
