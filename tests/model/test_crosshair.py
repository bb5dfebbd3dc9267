"""What CrossHair says of the guards, the lemmas and the canaries, against a committed list of what it is expected to say.

Its exit status is 0 where it has confirmed nothing and where no argument meets a precondition, so only its full report counts. A
verdict that changes fails, whether for the worse or for the better; so does a function that the list or the report leaves out.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
EXPECTED: dict[str, dict[str, str]] = json.loads((HERE / "crosshair.json").read_text("utf-8"))
CANARIES = os.path.realpath(HERE / "canaries.py")
GUARDS, REF_GUARDS = "snapspec.model.guards", "snapspec.model.ref_guards"
LEMMAS, REF_LEMMAS = "snapspec.model.lemmas", "snapspec.model.ref_lemmas"

pytestmark = pytest.mark.xdist_group("crosshair")


@dataclass(frozen=True)
class Run:
    """One run of CrossHair over `targets`, with so many seconds for each condition; `bare` is Python with -O."""

    targets: tuple[str, ...]
    seconds: int
    bare: bool = False


def quick_lemmas(module: str) -> tuple[str, ...]:
    """The lemmas that are checked in each test run."""
    return tuple(name for name in EXPECTED["quick"] if name.startswith(f"{module}."))


#: The longest ones first, so that two processes end together.
QUICK = [
    Run(quick_lemmas(LEMMAS)[::2], 30, bare=True),
    Run(quick_lemmas(LEMMAS)[1::2], 30, bare=True),
    Run(quick_lemmas(REF_LEMMAS), 30, bare=True),
    Run((CANARIES,), 3, bare=True),
    Run((CANARIES,), 3),
    Run((GUARDS, REF_GUARDS), 30),
]


@cache
def farm() -> str:
    """A directory with the package as plain folders: CrossHair cannot read it through the finder of an editable install."""
    made = Path(tempfile.mkdtemp())
    (made / "snapspec").mkdir()
    (made / "snapspec" / "model").symlink_to(Path(source_of(GUARDS)).resolve().parent)
    return str(made)


def check(run: Run, timeout: int = 300) -> str:
    """The full report of one run."""
    command = [sys.executable, "-P", "-S", *(["-O"] if run.bare else []), "-m", "crosshair", "check", *run.targets]
    command += ["--analysis_kind=icontract", "--report_all", f"--per_condition_timeout={run.seconds}"]
    environment = {"PYTHONPATH": ":".join([farm(), *(entry for entry in sys.path if entry)]), "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


# --- the report


MESSAGE = re.compile(r"^(?P<path>[^\n]*?\.py):(?P<line>\d+): (?P<level>info|error): (?P<text>.*)$", re.MULTILINE)


def verdict_of(level: str, text: str) -> str:
    """The verdict on one condition. Whatever is neither a confirmation nor a counterexample is unknown."""
    if level == "error":
        return "refuted"
    return "confirmed" if text == "Confirmed over all paths." else "unknown"


def verdicts(report: str, functions: dict[tuple[str, int], tuple[str, int]]) -> dict[str, str]:
    """The verdict on each function of a report: refuted by one condition, confirmed by all of them, else unknown.

    `functions` gives the function's name and the number of its conditions for each line of a file that belongs to it.
    """
    told: dict[str, list[str]] = defaultdict(list)
    numbers = dict(functions.values())
    for message in MESSAGE.finditer(report):
        place = message["path"] if message["path"] == os.path.basename(message["path"]) else os.path.realpath(message["path"])
        name, _ = functions[place, int(message["line"])]
        told[name].append(verdict_of(message["level"], message["text"]))
    return {name: _joined(found, numbers[name]) for name, found in told.items()}


def _joined(found: list[str], conditions: int) -> str:
    if "refuted" in found:
        return "refuted"
    return "confirmed" if found == ["confirmed"] * conditions else "unknown"


def lines_of(path: str, module: str) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """For each line of a function with postconditions: the function's full name, and how many of them it has."""
    for node in ast.parse(Path(path).read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            conditions = sum(ast.unparse(decorator).startswith("icontract.ensure(") for decorator in node.decorator_list)
            for line in range(min(d.lineno for d in node.decorator_list), (node.end_lineno or 0) + 1) if conditions else ():
                yield (path, line), (f"{module}.{node.name}", conditions)


def source_of(module: str) -> str:
    found = find_spec(module)
    assert found is not None
    assert found.origin is not None
    return os.path.realpath(found.origin)


FUNCTIONS = dict(
    [found for module in (GUARDS, REF_GUARDS, LEMMAS, REF_LEMMAS) for found in lines_of(source_of(module), module)]
    + [*lines_of(CANARIES, "canaries")],
)


def together(reports: Iterable[str]) -> dict[str, str]:
    """The verdicts of several reports; a canary has two, which must be one."""
    found: dict[str, set[str]] = defaultdict(set)
    for report in reports:
        for name, verdict in verdicts(report, FUNCTIONS).items():
            found[name].add(verdict)
    return {name: " and ".join(sorted(told)) for name, told in found.items()}


# --- the tests


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    """The verdicts of the quick runs, two processes at a time."""
    with ThreadPoolExecutor(2) as pool:
        return together(pool.map(check, QUICK))


def test_the_verdicts_are_those_expected(told: dict[str, str]) -> None:
    """Both ways: what is no longer confirmed, what is suddenly confirmed, what is missing, what nobody expects."""
    assert told == EXPECTED["quick"]


def test_every_guard_is_confirmed(told: dict[str, str]) -> None:
    """Whatever the list says."""
    guards = {name: verdict for name, verdict in told.items() if name.startswith((f"{GUARDS}.", f"{REF_GUARDS}."))}
    assert guards
    assert set(guards.values()) == {"confirmed"}


def test_its_group_is_on_one_worker(request: pytest.FixtureRequest) -> None:
    """A pytest that no longer takes the group from xdist would run the whole report in each worker."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@crosshair")


def test_the_list_names_every_function_with_a_contract_and_no_other() -> None:
    names = {name for name, _ in FUNCTIONS.values()}
    assert names == {*EXPECTED["quick"], *EXPECTED["deep"]}
    assert not EXPECTED["quick"].keys() & EXPECTED["deep"].keys()


def test_there_are_canaries_of_each_kind() -> None:
    canaries = {name: verdict for name, verdict in EXPECTED["quick"].items() if name.startswith("canaries.")}
    for kind, verdict in (("false", "refuted"), ("true", "confirmed"), ("unknown", "unknown"), ("confirmed", "confirmed")):
        found = {name: told for name, told in canaries.items() if name.startswith(f"canaries.{kind}_")}
        assert found
        assert set(found.values()) == {verdict}


@pytest.mark.deep
@pytest.mark.parametrize("name", EXPECTED["deep"])
def test_a_slow_lemma(name: str) -> None:
    """Minutes for some of them; what the checker cannot confirm is given half a minute."""
    seconds = 30 if EXPECTED["deep"][name] == "unknown" else 900
    assert together([check(Run((name,), seconds, bare=True), timeout=1200)]) == {name: EXPECTED["deep"][name]}


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        ("f.py:1: info: Confirmed over all paths.\nf.py:2: info: Confirmed over all paths.\n", "confirmed"),
        ("f.py:1: info: Confirmed over all paths.\n", "unknown"),
        ("f.py:1: info: Confirmed over all paths.\nf.py:2: info: Not confirmed.\n", "unknown"),
        ("f.py:1: info: Unable to meet precondition.\nf.py:2: info: Unable to meet precondition.\n", "unknown"),
        ("f.py:1: info: Confirmed over all paths.\nf.py:2: error: false when calling f(1)\n", "refuted"),
        ("f.py:2: error: IndexError:  when calling f(-4)\n", "refuted"),
        ("noise\n/x: info: y\nf.py:1: info: Something new.\nf.py:2: info: Confirmed over all paths.\n", "unknown"),
    ],
)
def test_a_report_is_read_with_care(report: str, verdict: str) -> None:
    """A function is confirmed when each of its conditions is, and never because a message is missing or not understood."""
    assert verdicts(report, {("f.py", 1): ("f", 2), ("f.py", 2): ("f", 2)}) == {"f": verdict}


def test_a_message_about_an_unknown_line_is_an_error() -> None:
    with pytest.raises(KeyError):
        verdicts("f.py:9: info: Confirmed over all paths.\n", {("f.py", 1): ("f", 1)})
