"""Histories of refs as files and in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.gates import Gate, Verdict
from snapspec.conformance.history import FORMAT, load, save
from snapspec.conformance.ref_history import Burst, RefFinding, length
from snapspec.conformance.ref_words import answer_text, told
from snapspec.conformance.schedule import CANCELLED, Answered, Budget, Choice, Move
from snapspec.model import ref_ops
from snapspec.model.ref_replies import GotHandle, GotPruned, GotRows, GotSize, GotWords, RefFailed, RefReturned
from snapspec.model.refs import RefError, Row
from snapspec.model.replies import Mismatch
from snapspec.model.tree import MakeFile

EVERY = (
    ref_ops.New("m", "hm"),
    ref_ops.New("n", "hn", "he"),
    ref_ops.Get("m", "h", "e"),
    ref_ops.GetMutable("m", "h"),
    ref_ops.Commit("hm", "e", "he"),
    ref_ops.Finalize("he"),
    ref_ops.Release("he"),
    ref_ops.Size("he"),
    ref_ops.Parent("he", "hp"),
    ref_ops.Mount("he", readonly=False),
    ref_ops.Write("hm", (MakeFile("f", b"\0x"),)),
    ref_ops.Read("hm"),
    ref_ops.DiskUsage(),
    ref_ops.Prune(),
    ref_ops.Close(),
    ref_ops.Restart(),
)
FOUND = RefFinding(
    (Burst((ref_ops.New("m", "hm"),)), Burst(EVERY, (0, 3, 1), Budget(faults=1, cancel_at=7))),
    ("1  new('m', 'hm') -> a handle on 'm'",),
    (Mismatch("REF-SIZE-4", "a size", "NotFound"),),
    free=True,
)


def test_a_finding_comes_back_from_its_file(tmp_path: Path) -> None:
    save(tmp_path / "f.json", FOUND, "refs:overlay")
    assert load(tmp_path / "f.json") == FOUND
    assert length(FOUND.bursts) == 1 + len(EVERY) + 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"bursts": []},
        {"mismatches": []},
        {"told": [1]},
        {"free": 1},
        {"bursts": [{"ops": [], "choices": [], "budget": None}]},
        {"bursts": [{"ops": [{"is": "ops.Walk"}], "choices": [], "budget": {"is": "schedule.Budget"}}]},
        {"bursts": [{"ops": [{"is": "ref_ops.Prune"}], "choices": [-1], "budget": {"is": "schedule.Budget"}}]},
        {"bursts": [{"ops": [{"is": "ref_ops.Prune"}], "choices": [True], "budget": {"is": "schedule.Budget"}}]},
        {"bursts": [{"ops": [{"is": "ref_ops.Prune"}], "choices": [], "budget": {"is": "ref_ops.Prune"}}]},
        {"bursts": [{"ops": [{"is": "ref_ops.Size"}], "choices": [], "budget": {"is": "schedule.Budget"}}]},
        {"bursts": [{"ops": [{"is": "ref_ops.Size", "handle": 1}], "choices": [], "budget": {"is": "schedule.Budget"}}]},
        {"bursts": 1},
    ],
)
def test_what_is_no_finding_is_refused_with_the_remedy(tmp_path: Path, wrong: dict[str, object]) -> None:
    path = tmp_path / "f.json"
    save(path, FOUND, "refs:overlay")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": FORMAT, **wrong}))
    with pytest.raises(CannotRun, match=r"snapspec .*saved"):
        load(path)


def test_calls_that_nothing_overlaps_stand_on_one_line() -> None:
    gate = Gate(2, "driver", "usage", ("m",), False)
    events = [
        Choice(Move.START, 1),
        Answered(1, RefReturned(GotHandle("m"))),
        Choice(Move.START, 2),
        Choice(Move.START, 3),
        Answered(3, RefReturned()),
        Choice(Verdict.HOLD, 2, gate),
        Choice(Verdict.GO, 2, gate, landed=True),
        Choice(Move.CANCEL, 2),
        Answered(2, CANCELLED),
        Choice(Move.CRASH),
    ]
    operations = {1: ref_ops.New("m", "h"), 2: ref_ops.Size("h"), 3: ref_ops.Release("h")}
    assert list(told(events, operations)) == [
        "  1  new('m', 'h') -> a handle on 'm'",
        "  2  size('h') begins",
        "  3  release('h') -> done",
        "     driver usage('m'), for call 2, takes effect, its answer waits",
        "     driver usage('m'), for call 2, goes on with its answer",
        "  2  is cancelled",
        "  2  -> cancelled",
        "     the process dies",
    ]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (RefReturned(GotSize(4096)), "4096 bytes"),
        (RefReturned(GotWords(("ok", "EROFS"))), "ok, EROFS"),
        (RefReturned(GotRows(())), "no rows"),
        (RefReturned(GotRows((Row("e", "p", False, True, 7),))), "'e' immutable over 'p' in use, 7 bytes"),
        (RefReturned(GotPruned(())), "no rows"),
        (
            RefReturned(GotPruned(((frozenset({"m", "e"}), None), (frozenset({"n"}), 5)), 1)),
            "'e' and 'm' of unknown size; 'n' of 5 bytes, 1 errors",
        ),
        (RefFailed(RefError.LOCKED, "held:\n release it"), "Locked: held: release it"),
        (RefFailed(RefError.INVALID), "Invalid"),
    ],
)
def test_answers_in_few_words(answer: object, text: str) -> None:
    assert answer_text(answer) == text
