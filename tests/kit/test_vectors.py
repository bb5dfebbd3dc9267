"""Vectors: the same bytes for the same seed, of the schema, about every clause that they can be about; readers run them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from languages import LANGUAGES
from test_cli import refused, snapspec

from snapspec.conformance.clauses import clauses
from snapspec.conformance.vectors import concurrent, make
from snapspec.model import ops, snapshots
from snapspec.model.replies import Gives, Refused
from snapspec.model.state import State

HERE = Path(__file__).parent / "adapters"
SCHEMA = json.loads((resources.files("snapspec.conformance") / "vectors/schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

READERS = {"python": [sys.executable, str(HERE / "run_vectors.py")], "perl": ["perl", str(HERE / "run_vectors.pl")]}


@cache
def made(level: str, count: int) -> dict[str, Any]:
    return concurrent.document(count, 0) if level == "concurrent" else make.document(level, count, 0)


@pytest.mark.parametrize(("level", "count"), [("snapshots", 6), ("refs", 50), ("concurrent", 12)])
def test_they_are_of_the_schema(level: str, count: int) -> None:
    VALIDATOR.check_schema(SCHEMA)
    document = made(level, count)
    assert len(document["histories"]) == count
    VALIDATOR.validate(document)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate({**document, "level": "snapshots" if level == "concurrent" else "concurrent"})


@pytest.mark.deep
def test_the_same_seed_gives_the_same_bytes_in_every_process() -> None:
    code = (
        "from snapspec.conformance.vectors import concurrent, make\n"
        "made = [make.document('snapshots', 6, 0), make.document('refs', 50, 0), concurrent.document(12, 0)]\n"
        "print(''.join(map(make.spelled, made)), end='')"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "7"}
    elsewhere = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    here = [made("snapshots", 6), made("refs", 50), made("concurrent", 12)]
    assert elsewhere == "".join(map(make.spelled, here))
    assert make.document("snapshots", 6, 1) != here[0]


# --- the clauses

#: Why no vector is about these: what it takes to see them. A name without a number stands for the whole group.
ELSEWHERE = {
    "it shows in later calls, which name clauses of their own": ["SNAP-KEY-3", "SNAP-FAIL-1", "SNAP-LIVE-1", "SNAP-HOLD-1"],
    "a chain of 128 is too long for a vector": ["SNAP-PARENT-2"],
    "an implementation chooses its times, lists and labels": [
        "SNAP-TIME",
        "SNAP-MOUNTS-4",
        "SNAP-MOUNTS-6",
        "SNAP-MOUNTS-8",
        "SNAP-LABEL-3",
    ],
    "an implementation measures by itself": ["SNAP-USAGE-3", "SNAP-USAGE-5", "SNAP-USAGE-7", "REF-SIZE-2"],
    "no driver with this profile, or at its own door, owes it": ["SNAP-WALK-8", "SNAP-CLEANUP-1"],
    "nothing fails, dies or is cancelled": [
        *("SNAP-FAULT", "SNAP-DURABLE", "SNAP-POWER", "REF-POWER", "REF-FINAL-3", "REF-FINAL-4", "REF-FINAL-5"),
        *("REF-COMMIT-4", "REF-OPEN-2", "REF-OPEN-3", "REF-OPEN-4", "REF-OPEN-5", "REF-POINT", "REF-SIZE-5"),
    ],
    "nothing overlaps, or only in those of level concurrent": [
        *("SNAP-FAIL-2", "REF-ERROR-5", "REF-NEW-4", "REF-SIZE-3", "REF-SIZE-4", "REF-PRUNE-1", "REF-MOUNT-7", "REF-CLOSE-2"),
    ],
    "it shows in what later calls on refs answer, or in the records": [
        *(
            "REF-HANDLE-1",
            "REF-HANDLE-5",
            "REF-HANDLE-6",
            "REF-ERROR-3",
            "REF-ERROR-4",
            "REF-COMMIT-2",
            "REF-PAIR-1",
            "REF-PAIR-2",
        ),
        *("REF-MOUNT-6", "REF-PRUNE-2", "REF-PRUNE-4", "REF-NOTE-1", "REF-LEAK-1"),
    ],
}


def reached(document: dict[str, Any]) -> set[str]:
    return {c for history in document["histories"] for entry in history for answer in entry["either"] for c in answer["clauses"]}


def test_every_clause_is_reached_or_it_is_said_why_not() -> None:
    got = reached(made("snapshots", 40)) | reached(made("refs", 90))
    known = [clause for clause in clauses() if not clause.startswith("DOOR-")]  # vectors are of the direct door
    excused = {
        clause for names in ELSEWHERE.values() for name in names for clause in known if f"{clause}-".startswith(f"{name}-")
    }
    assert [clause for clause in known if clause not in got | excused] == []
    assert sorted(got & excused) == [], "what is reached needs no reason"


def test_where_the_spec_leaves_latitude_there_are_several_answers() -> None:
    several = [entry for history in made("snapshots", 6)["histories"] for entry in history if len(entry["either"]) > 1]
    words = [answer["words"] for entry in several for answer in entry["either"] if "words" in answer]
    assert [["EXDEV"]] in words
    assert all(len(entry["goes_on"]) < len(entry["either"]) for entry in several)


# --- calls that overlap


def test_some_are_legal_and_some_are_not() -> None:
    labels = [history["legal"] for history in made("concurrent", 60)["histories"]]
    assert all(labels[n] for n in range(60) if n % 4 < 2), "those took place"
    assert labels.count(False) > 15


def _legal(state: State, events: Sequence[concurrent.Event]) -> bool:
    """By every order of the calls there is."""
    answers = {number: what for event, number, what in events if event == "answer"}

    def go_on(at: int, state: State, begun: dict[int, ops.Operation]) -> bool:
        while at < len(events) and (events[at][0] == "call" or events[at][1] not in begun):
            event, number, what = events[at]
            begun = {**begun, number: what} if event == "call" else begun
            at += 1
        if at == len(events):
            return True
        for number, op in begun.items():
            rest = {other: each for other, each in begun.items() if other != number}
            for outcome in snapshots.outcomes(state, op):
                told = concurrent._snapshot_answer(outcome)
                same = told == answers[number] if isinstance(outcome.reply, Refused) else type(told) is type(answers[number])
                assert isinstance(outcome.reply, Refused | Gives) or told.value is None
                if same and go_on(at, outcome.state, rest):
                    return True
        return False

    return go_on(0, state, {})


def test_the_labels_of_snapshots_are_those_that_all_orders_give() -> None:
    for number in range(0, 60, 2):
        chance = random.Random(f"0 concurrent {number}")
        events = concurrent.events(concurrent.SNAPSHOTS, chance, wrong=number % 4 > 1)
        expected = made("concurrent", 60)["histories"][number]["legal"]
        assert _legal(State(profile=make.PROFILE), events) is expected, events


# --- readers


def run_reader(language: str, file: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*READERS[language], str(file), *more], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("level", "count"), [("snapshots", 40), pytest.param("refs", 90, marks=pytest.mark.deep)])
def test_readers_run_them(level: str, count: int, language: str, workdir: Path) -> None:
    file = workdir / "vectors.json"
    file.write_text(make.spelled(made(level, count)))
    run = run_reader(language, file)
    assert (run.returncode, run.stderr, run.stdout) == (0, "", f"{count} histories, 0 wrong\n")
    broken = run_reader(language, file, "--broken")
    if (language, level) == ("python", "refs"):
        return  # what is broken there shows only where calls overlap
    assert (broken.returncode, broken.stderr) == (1, "this is the broken twin\n")
    assert ", not [{" in broken.stdout


@pytest.mark.parametrize("name", ["run_vectors.py", "run_vectors.pl"])
def test_readers_are_short(name: str) -> None:
    assert len((HERE / name).read_text().splitlines()) < 100


@pytest.mark.deep
def test_the_command_writes_them(workdir: Path) -> None:
    out = workdir / "v.json"
    run = snapspec("vectors", str(out), "--level", "refs", "--count", "50")
    assert (run.returncode, run.stderr) == (0, "")
    assert out.read_text() == make.spelled(made("refs", 50))
    assert "name a file in a directory that is there" in refused("vectors", str(workdir / "absent" / "v.json"))
