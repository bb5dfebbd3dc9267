"""`snapspec check` at a terminal and in a pipe: what it shows, how it ends, what it heeds of its surroundings and what not."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_cli import snapspec
from test_plugin_pytest import PATH, left
from test_report_json import VALIDATOR
from test_run import command

from snapspec.conformance.report.document import Verdict, load

ESCAPE = "\x1b["

#: A check that is soon done, and finds one thing.
BROKEN = ("check", "py:three:one", "--examples", "10", "--seed", "3", "--first", "--jobs", "1")

#: One that finds nothing, and one that has too few histories to decide.
RIGHT = ("check", "model:", "--level", "concurrent", "--examples", "3", "--jobs", "1")


def on_a_terminal(*words: str, errors: bool = True) -> tuple[int, str]:
    """The exit status, and what a terminal shows, of standard error too."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": PATH, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    environment.pop("NO_COLOR", None)
    line = [sys.executable, "-m", "snapspec.conformance", *words]
    with subprocess.Popen(line, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    os.close(ours)
    return process.returncode, shown.decode(errors="replace")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side is closed
        return b""


# --- what is shown


@pytest.mark.deep
def test_a_pipe_gets_no_colours_and_no_progress_and_all_that_was_found(tmp_path: Path) -> None:
    run = command(*BROKEN, "--out", str(tmp_path))
    assert (run.returncode, run.stderr) == (1, "")
    assert ESCAPE not in run.stdout
    assert "s left" not in run.stdout
    first, *_, place, last = run.stdout.splitlines()
    assert first.startswith("snapspec check py:three:one --seed 3 ")
    assert place == f"  the report: {tmp_path / 'report.html'}"
    assert last.startswith("DIVERGES: py:three:one: 1 finding, ")
    assert "finding, level labels: SNAP-LABEL-1 at stat" in run.stdout
    for name in ("report.json", "report.html", "summary.md", "junit.xml", "findings/1-SNAP-LABEL-1.json"):
        assert (tmp_path / name).is_file()


@pytest.mark.deep
def test_quiet_is_the_verdict_alone(tmp_path: Path) -> None:
    run = command(*BROKEN, "--quiet", "--out", str(tmp_path))
    assert (run.returncode, run.stderr) == (1, "")
    (line,) = run.stdout.splitlines()
    assert line.startswith("DIVERGES: py:three:one: 1 finding, ")


@pytest.mark.deep
def test_json_is_the_report_and_nothing_else(tmp_path: Path) -> None:
    run = command(*BROKEN, "--json", "--out", str(tmp_path))
    assert (run.returncode, run.stderr) == (1, "")
    shown = json.loads(run.stdout)
    VALIDATOR.validate(shown)
    assert shown == json.loads((tmp_path / "report.json").read_text())
    assert load(tmp_path / "report.json").verdict is Verdict.FAILED


@pytest.mark.deep
def test_a_terminal_has_colours_progress_and_what_differs_stands_out(tmp_path: Path) -> None:
    status, shown = on_a_terminal(
        "check", "py:three:one", "--examples", "60", "--seed", "3", "--jobs", "1", "--out", str(tmp_path)
    )
    assert status == 1
    assert re.search(r"\d+ calls, \d+ of \d+ clauses, \d+ of 60 histories", shown)
    assert re.search(r"\d+ s left", shown)
    gaps = [line for line in shown.splitlines() if re.match(r" {6}(allowed|came)", re.sub(r"\x1b\[[\d;]*m", "", line))]
    assert len(gaps) == 2, shown
    allowed, came = gaps
    assert "\x1b[1;32m" in allowed
    assert "\x1b[1;31m" in came
    assert "\x1b[1;32mlabels" not in allowed, "the words that both have are plain"


@pytest.mark.deep
def test_who_wants_no_colours_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    run = snapspec(*RIGHT, "--out", str(tmp_path))
    assert ESCAPE not in run.stdout


@pytest.mark.deep
def test_the_first_finding_is_enough_where_that_is_asked_for(tmp_path: Path) -> None:
    words = ("check", "py:three:three", "--examples", "200", "--seed", "1", "--out", str(tmp_path), "--first", "--json")
    run = command(*words)
    report = json.loads(run.stdout)
    assert run.returncode == 1
    assert 1 <= len(report["findings"]) <= 2, "each of two processes may have had one"
    assert report["levels"][0]["histories"] < 200


# --- how it ends


@pytest.mark.deep
def test_exit_statuses(tmp_path: Path) -> None:
    out = ("--out", str(tmp_path))
    passed = snapspec(*RIGHT, *out)
    assert (passed.returncode, passed.stdout.splitlines()[-1].split(":")[0]) == (0, "CONFORMS")
    undecided = snapspec("check", "model:", "--examples", "1", "--seed", "1", "--without", "walk", "--budget", "1s", *out)
    assert (undecided.returncode, undecided.stdout.splitlines()[-1].split(":")[0]) == (2, "NOT DECIDED")
    assert "give more --examples" in undecided.stdout
    error = snapspec("check", "py:json:loads", *out)
    assert error.returncode == 2
    assert len(error.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "where", ["not to be written", *(pytest.param(w, marks=pytest.mark.deep) for w in ("a file", "below a file"))]
)
def test_a_place_for_the_report_that_is_none_is_seen_at_once(where: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "out", "not to be written": Path("/proc/out")}[where]
    before = time.monotonic()
    run = snapspec("check", "model:", "--examples", "100000", "--out", str(out))
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("snapspec: cannot run: ")
    assert "--out" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert time.monotonic() - before < 60


@pytest.mark.deep
@pytest.mark.root
def test_after_ctrl_c_the_status_says_so_and_nothing_is_left(tmp_path: Path) -> None:
    before = left()
    environment = {**os.environ, "PYTHONPATH": PATH}
    words = [sys.executable, "-m", "snapspec.conformance", "check", "ref:overlay", "--examples", "100000", "--out", str(tmp_path)]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not [place for place in left() - before if place.name.startswith("run-")]:
            time.sleep(0.1)
            assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said == "snapspec: interrupted; all that it made is removed\n"
    assert left() <= before


# --- what it heeds


@pytest.mark.deep
def test_what_pytest_is_told_elsewhere_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the environment nor by files of the working directory."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "conftest.py").write_text("raise SystemExit('never')\n")
    (here / "pytest.ini").write_text("[pytest]\naddopts = --collect-only -k nothing --maxfail=0 --strange\n")
    (here / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '--strange'\n")
    (here / "test_mine.py").write_text("def test_mine():\n    assert False\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only -k nothing --strange")
    monkeypatch.setenv("PYTEST_PLUGINS", "not_there")
    monkeypatch.chdir(here)
    run = snapspec(*RIGHT, "--out", str(tmp_path / "out"))
    assert (run.returncode, run.stderr) == (0, "")
    assert "CONFORMS: model:" in run.stdout
    assert sorted(path.name for path in here.iterdir()) == ["conftest.py", "pyproject.toml", "pytest.ini", "test_mine.py"]


# --- what a driver is known to fail at

EXPECTED = """\
[driver]
subject = "py:three:{driver}"
[run]
levels = ["usage"]
examples = 20
jobs = 1
[[expected]]
clause = "{clause}"
reason = "views are counted"
link = "https://example.org/1"
"""


@pytest.mark.deep
@pytest.mark.parametrize(
    ("driver", "clause", "status", "verdict", "said"),
    [
        ("views", "SNAP-USAGE-2", 0, "partial", "expected: views are counted  https://example.org/1"),
        ("views", "SNAP-USAGE-1", 1, "failed", "SNAP-USAGE-1 is expected to fail (views are counted), and does not"),
        ("right", "SNAP-USAGE-2", 1, "unexpected pass", "SNAP-USAGE-2 is expected to fail (views are counted), and does not"),
        ("right", "SNAP-DURABLE-1", 1, "unexpected pass", "matches nothing: no level that was run has this clause"),
    ],
)
def test_expected_failures(
    driver: str, clause: str, status: int, verdict: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "snapspec.toml").write_text(EXPECTED.format(driver=driver, clause=clause))
    run = command("check", "--seed", "3")
    report = load(tmp_path / "snapspec-report" / "report.json")
    assert (run.returncode, report.verdict.value) == (status, verdict), run.stdout + run.stderr
    assert said in run.stdout


@pytest.mark.deep
def test_the_working_directory_gets_the_report_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYPOTHESIS_STORAGE_DIRECTORY")
    monkeypatch.chdir(tmp_path)
    command("check", "model:", "--examples", "2", "--budget", "1s")
    assert [path.name for path in tmp_path.iterdir()] == ["snapspec-report"]
