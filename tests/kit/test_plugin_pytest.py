"""The plugin as users of pytest call it: what is chosen is run, workers share it, wrong words are a sentence, nothing is left."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from snapspec.conformance.outcome import Outcome
from snapspec.conformance.plan import Plan
from snapspec.conformance.spread import gathered, spread
from snapspec.conformance.workspace import default_base

PATH = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
#: From Python 3.12 on it warns of a fork where there are threads; none of them matters to the children here.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": PATH}
WORDS = ("-p", "snapspec.conformance.plugin", "-p", "no:cacheprovider", "--pyargs", "snapspec.conformance")


def started(directory: Path, *words: str) -> subprocess.Popen[str]:
    """pytest on the kit, in that directory, with these words besides."""
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}, **ALONE}
    command = [sys.executable, "-m", "pytest", *WORDS, *words]
    return subprocess.Popen(
        command, env=environment, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )


def ran(directory: Path, *words: str) -> tuple[int, str]:
    """How pytest has ended, and what it has said."""
    process = started(directory, *words)
    said, _ = process.communicate(timeout=300)
    return process.returncode, said


def verdicts(said: str) -> dict[str, str]:
    """What `pytest -v` says of each test."""
    lines = re.findall(
        r"(snapspec::\S+) (PASSED|FAILED|SKIPPED|XFAIL|ERROR)|(PASSED|FAILED|SKIPPED|XFAIL|ERROR) (snapspec::\S+)", said
    )
    return {one or other: word or last for one, word, last, other in lines}


def left() -> set[Path]:
    """What runs have left so far: their directories, and the places where workers meet."""
    import tempfile

    base = default_base()
    return {*(base.glob("run-*") if base.is_dir() else ()), *Path(tempfile.gettempdir()).glob("snapspec-*")} - {base}


# --- a plugin of every run of pytest


def test_it_is_light_for_those_who_check_nothing() -> None:
    code = (
        "import sys, pytest; import snapspec.conformance.plugin; "
        "print([name for name in ('hypothesis', 'grpc', 'rich', 'icontract', 'jinja2') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, **ALONE}, capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("[]\n", "")


def test_a_run_of_other_tests_is_as_without_it(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import sys\ndef test_mine():\n    assert not {'hypothesis', 'grpc', 'snapspec.model'} & set(sys.modules)\n"
    )
    words = [sys.executable, "-m", "pytest", "-p", "snapspec.conformance.plugin", "-p", "no:cacheprovider", "-q", "test_mine.py"]
    run = subprocess.run(words, env={**os.environ, **ALONE}, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout
    assert "1 passed" in run.stdout
    assert "snapspec:" not in run.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--snapspec", "nothing"), "write one of ref:overlay"),
        *(
            pytest.param(*each, marks=pytest.mark.deep)
            for each in (
                (("--snapspec", "model:", "--snapspec-level", "core,nothing"), "'nothing' is no level"),
                (("--snapspec", "model:", "--snapspec-level", "faults"), "level faults"),
                (("--snapspec", "model:", "--snapspec-examples", "0"), "no number of at least 1"),
                (("--snapspec", ""), "snapspec init"),
                (("--snapspec-file", "absent.toml"), "snapspec init"),
                (("--snapspec",), "expected one argument"),
            )
        ),
    ],
)
def test_wrong_words_are_one_sentence_and_pytests_own_status(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    status, told = ran(tmp_path, *words)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert said in told
    assert "Traceback" not in told
    assert "INTERNALERROR" not in told


@pytest.mark.deep
def test_without_a_subject_nothing_of_the_kit_is_a_test(tmp_path: Path) -> None:
    status, told = ran(tmp_path)
    assert status == pytest.ExitCode.NO_TESTS_COLLECTED, told


# --- what is chosen, and what is told of it


@pytest.mark.deep
def test_families_are_tests_and_junit_has_them_with_their_clauses(tmp_path: Path) -> None:
    words = ("--snapspec", "model:", "--snapspec-examples", "20", "--snapspec-seed", "1", "--snapspec-out", "out")
    status, told = ran(tmp_path, *words, "-k", "usage", "--junitxml", "j.xml", "-v")
    assert status == 0, told
    tests = verdicts(told)
    assert set(tests.values()) <= {"PASSED", "SKIPPED"}
    assert "snapspec::usage::SNAP-USAGE[usage]" in tests
    assert all("usage" in name.lower() for name in tests)
    cases = list(xml.parse(tmp_path / "j.xml").iter("testcase"))
    assert {case.get("name") for case in cases} == {name.rsplit("::", 1)[1] for name in tests}
    (case,) = [case for case in cases if case.get("name") == "SNAP-USAGE[usage]"]
    properties = {each.get("name"): each.get("value") for each in case.iter("property")}
    assert re.fullmatch(r"passed, [1-9]\d* times", properties["SNAP-USAGE-2"] or "")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [level["verdict"] for level in report["levels"] if level["name"] == "usage"] == ["passed"]


BROKEN = ("--snapspec", "py:three:three", "--snapspec-examples", "40", "--snapspec-seed=3", "--snapspec-level=usage", "-v")


@pytest.mark.deep
def test_workers_come_to_the_same_verdicts_as_one_process(tmp_path: Path) -> None:
    before = left()
    status, told = ran(tmp_path, *BROKEN)
    assert status == pytest.ExitCode.TESTS_FAILED, told
    tests = verdicts(told)
    assert tests == {"snapspec::usage::SNAP-USAGE[usage]": "FAILED", "snapspec::usage::other[usage]": "FAILED"}, told
    for clause in ("SNAP-USAGE-2", "SNAP-LABEL-1", "SNAP-REMOVE-1"):
        assert f"DIVERGES from {clause}, with " in told
    status, shared = ran(tmp_path, *BROKEN, "-p", "xdist", "-n", "2")
    assert status == pytest.ExitCode.TESTS_FAILED, shared
    assert verdicts(shared) == tests
    assert "DIVERGES: py:three:three: 3 findings, " in shared
    assert left() <= before


@pytest.mark.deep
@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "2")], ids=["alone", "workers"])
def test_after_ctrl_c_nothing_is_left(workers: tuple[str, ...], tmp_path: Path) -> None:
    before = left()
    process = started(tmp_path, "--snapspec", "ref:copy", "--snapspec-examples", "100000", *workers)
    deadline = time.monotonic() + 60
    while not [place for place in left() - before if place.name.startswith("run-")] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left() - before, "it has begun"
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    for _ in range(100):
        if left() <= before:
            break
        time.sleep(0.1)
    assert left() <= before
    mounted = Path("/proc/self/mountinfo").read_text()
    assert not [place for place in left() - before if str(place) in mounted]


# --- parts of a search


PLANS = [Plan("check", "model:", number=number, workers=3, examples=1) for number in range(3)]


def _made(plan: Plan) -> Outcome:
    return Outcome(histories=10**plan.number)


def _stuck(directory: Path) -> None:
    """A worker that is killed while it makes its first part."""

    def never(plan: Plan) -> Outcome:
        (directory / "begun").touch()
        time.sleep(60)
        return Outcome()

    spread(directory, "core", PLANS, never)


def _slow(directory: Path) -> None:
    def slowly(plan: Plan) -> Outcome:
        with (directory / "made").open("a") as file:
            file.write(f"{plan.number}\n")
        time.sleep(0.02)
        return _made(plan)

    assert spread(directory, "core", PLANS, slowly).histories == 111


def test_a_worker_that_is_killed_leaves_its_part_to_another(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    killed = fork.Process(target=_stuck, args=(tmp_path,), daemon=True)
    killed.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    other = fork.Process(target=_slow, args=(tmp_path,), daemon=True)
    other.start()
    time.sleep(0.3)
    assert other.is_alive(), "it waits for the part that is claimed"
    assert (tmp_path / "made").read_text() == "1\n2\n"
    killed.kill()
    killed.join()
    other.join(30)
    assert other.exitcode == 0
    assert (tmp_path / "made").read_text() == "1\n2\n0\n"
    whole = gathered(tmp_path, "core")
    assert whole is not None
    assert whole.histories == 111
    assert gathered(tmp_path, "refs") is None


def test_workers_that_begin_together_make_each_part_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_slow, args=(tmp_path,), daemon=True) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert sorted((tmp_path / "made").read_text().split()) == ["0", "1", "2"]


def test_a_part_that_cannot_be_made_is_for_others_to_make(tmp_path: Path) -> None:
    def fails(_: Plan) -> Outcome:
        raise RuntimeError("not now")

    with pytest.raises(RuntimeError, match="not now"):
        spread(tmp_path, "core", PLANS, fails)
    assert gathered(tmp_path, "core") is None
    assert spread(tmp_path, "core", PLANS, _made).histories == 111
