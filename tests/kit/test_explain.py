"""`snapspec explain`: every clause has examples that the oracle judges as they are told, and is printed to be read."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ref_sessions import in_memory

from snapspec.conformance import clauses as spec
from snapspec.conformance.clauses import clauses, families, parted
from snapspec.conformance.cli import main
from snapspec.conformance.explain import events, examples, explain, written, written_refs
from snapspec.conformance.explain.drawn import drivers, managers, pairs
from snapspec.conformance.explain.events import Answers, Begins, Ends, Example, decode_example, encode_example, judge, lines
from snapspec.conformance.explain.examples import LACKING, Entry
from snapspec.conformance.explain.explain import explained
from snapspec.conformance.explain.places import Place, places
from snapspec.conformance.mutants.hall import find
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.ref_session import play_again
from snapspec.model import ops
from snapspec.model.replies import Failed, Returned
from snapspec.model.state import Profile
from snapspec.model.values import ErrorClass

EXAMPLES = examples.examples()
SHOWN = [(c, e.legal, e.illegal) for c, e in EXAMPLES.items() if e.legal is not None and isinstance(e.illegal, Example)]
VISITED = [(clause, entry) for clause, entry in EXAMPLES.items() if isinstance(entry.illegal, RefFinding)]

#: Clauses that the oracle names nowhere in their examples: what they ask for shows in what other clauses say of later calls.
_SEEN_LATER = {
    *("SNAP-KEY-3", "SNAP-PARENT-2", "SNAP-FAIL-1", "SNAP-FAIL-2", "DOOR-NS-2"),
    *("SNAP-DURABLE-1", "SNAP-DURABLE-2", "SNAP-DURABLE-3"),
    *("SNAP-POWER-1", "SNAP-POWER-2", "SNAP-POWER-3", "SNAP-POWER-5", "SNAP-FAULT-2", "SNAP-FAULT-3", "SNAP-FAULT-4"),
    *("REF-HANDLE-1", "REF-HANDLE-6", "REF-ERROR-3", "REF-ERROR-4", "REF-NEW-4", "REF-COMMIT-2", "REF-PAIR-1", "REF-PAIR-2"),
    *("REF-FINAL-4", "REF-FINAL-5", "REF-MOUNT-6", "REF-SIZE-2", "REF-PRUNE-2", "REF-PRUNE-4", "REF-OPEN-2", "REF-OPEN-5"),
    *("REF-POWER-1", "REF-POWER-2", "REF-POWER-4", "REF-POINT-3", "REF-LEAK-1"),
}


def answers(example: Example) -> int:
    return sum(isinstance(event, Answers) for event in example.events)


# --- the examples


def test_every_clause_of_the_spec_has_an_entry_and_no_other() -> None:
    assert list(EXAMPLES) == list(clauses())


def test_what_has_no_illegal_example_is_named_with_its_reason() -> None:
    lacking = {clause: entry.why for clause, entry in EXAMPLES.items() if entry.illegal is None or entry.legal is None}
    assert lacking == LACKING
    assert len(lacking) <= 8, "find an example instead"
    assert [clause for clause, entry in EXAMPLES.items() if entry.legal is None] == ["REF-OPEN-3"]


# Hundreds of examples are as quick as one: they stand in one test each, which names all that are wrong.


def test_of_a_legal_example_the_oracle_allows_every_answer() -> None:
    judged = {clause: (entry.legal, judge(entry.legal)) for clause, entry in EXAMPLES.items() if entry.legal is not None}
    assert {clause: seen.mismatches for clause, (_, seen) in judged.items() if seen.mismatches} == {}
    assert [clause for clause, (legal, seen) in judged.items() if not seen.answers == answers(legal) > 0] == []


def test_of_an_illegal_example_the_oracle_refuses_the_last_answer_alone() -> None:
    judged = {clause: judge(illegal) for clause, _, illegal in SHOWN}
    assert [clause for clause, seen in judged.items() if not seen.mismatches] == []
    assert [clause for clause, _, illegal in SHOWN if judged[clause].answers != answers(illegal) - 1] == []
    assert [clause for clause, legal, illegal in SHOWN if legal.events[:-1] != illegal.events[:-1]] == []


def test_an_illegal_example_is_of_its_clause() -> None:
    """The oracle names it, or it is among what the calls of the legal one put to the test, or it is seen in what follows."""
    stray = set()
    for clause, legal, illegal in SHOWN:
        met = {name for length in range(1, len(legal.events) + 1) for name in judge(_first(legal, length)).clauses}
        met |= {mismatch.clause for mismatch in judge(illegal).mismatches}
        stray |= {clause} - met
    assert stray == _SEEN_LATER


def _first(example: Example, length: int) -> Example:
    return Example(example.events[:length], example.profile, example.refs)


@pytest.mark.parametrize(("clause", "entry"), VISITED, ids=str)
def test_what_an_exhibit_shows_it_shows_again_and_the_reference_does_not(clause: str, entry: Entry) -> None:
    assert isinstance(entry.illegal, RefFinding)
    found = play_again(in_memory(find(entry.exhibit).manager), entry.illegal)
    assert found is not None
    assert found.clause == clause == entry.illegal.clause
    assert play_again(in_memory(), entry.illegal) is None


def test_the_file_is_the_one_that_is_made_of_written_examples() -> None:
    """A written example that was changed, and not made anew, is found here."""
    made = {clause: entry for kind, scripts in examples._written() for clause, entry in examples._entries(kind, scripts)}
    differing = [clause for clause, entry in made.items() if entry.legal != EXAMPLES[clause].legal]
    differing += [
        clause for clause, entry in made.items() if entry.illegal is not None and entry.illegal != EXAMPLES[clause].illegal
    ]
    assert differing == [], "run make examples"
    assert len(made) > 100


def test_the_file_is_spelled_as_it_is_made() -> None:
    path = Path(examples.__file__).with_name("examples.json")
    assert path.read_text("ascii") == examples.spelled(EXAMPLES)


def test_no_clause_is_written_twice() -> None:
    names = [script.clause for _, scripts in written.SCRIPTS for script in scripts]
    names += [script.clause for script in written_refs.SCRIPTS]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("kind", [drivers(Profile()), managers()], ids=["driver", "manager"])
def test_what_is_drawn_breaks_its_clause_and_no_other(kind: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapspec.conformance.explain.drawn.HISTORIES", 3)
    found = pairs(kind, 1, list(clauses())[::2])  # type: ignore[arg-type]  # it is one
    assert found
    for clause, pair in found.items():
        assert clause in judge(pair.legal).clauses
        if pair.illegal is not None:
            assert {mismatch.clause for mismatch in judge(pair.illegal).mismatches} == {clause}


@pytest.mark.deep
def test_making_them_again_gives_the_same_bytes() -> None:
    assert examples.spelled(examples.made()) == examples.spelled(EXAMPLES)


def test_an_answer_after_a_wrong_one_is_not_looked_at() -> None:
    wrong = Failed(ErrorClass.NOT_FOUND)
    example = Example((Begins(1, ops.Cleanup()), Answers(1, wrong), Begins(2, ops.Cleanup()), Answers(2, Returned())))
    judged = judge(example)
    assert [mismatch.clause for mismatch in judged.mismatches] == ["SNAP-CLEANUP-2"]
    assert judged.answers == 0


def test_an_example_comes_back_from_its_form() -> None:
    told = [events.Befalls(1, "fault"), Ends(), Ends(power=True)]
    example = Example((Begins(1, ops.Stat("a"), 1), *told, Answers(1, Failed(ErrorClass.UNKNOWN))), Profile(wire=True), refs=True)
    assert decode_example(encode_example(example)) == example


# --- where the model keeps a clause


def test_a_place_is_where_it_says_it_is() -> None:
    rooms = Path(spec.__file__).parents[1]
    found = {clause: places(clause) for clause in clauses()}
    assert [clause for clause in clauses() if not found[clause]] == ["REF-FINAL-5", "REF-MOUNT-7", "REF-OPEN-3"]
    texts = {place.path: (rooms / place.path).read_text("utf-8").splitlines() for held in found.values() for place in held}
    assert [p for held in found.values() for p in held if texts[p.path][p.line - 1].strip() != p.lines[0].strip()] == []
    silent = [clause for clause, held in found.items() if held and not any(_names(place, clause) for place in held)]
    assert silent == []


def _names(place: Place, clause: str) -> bool:
    return clause in " ".join(place.lines) or place.lines[-1] == "..."


@pytest.mark.parametrize(
    ("clause", "path", "text"),
    [
        ("SNAP-COMMIT-5", "model/guards.py", "key is Named.ABSENT"),
        ("SNAP-COMMIT-4", "model/guards.py", "Reason.NOT_ACTIVE"),
        ("SNAP-TIME-2", "model/replies.py", "updated = created"),
        ("REF-MUT-2", "model/ref_guards.py", "Rule.LOCKED"),
        ("SNAP-HOLD-1", "conformance/session.py", "every result as it was given"),
    ],
)
def test_contracts_judgements_and_guards_are_found(clause: str, path: str, text: str) -> None:
    assert [place for place in places(clause) if place.path == path and text in " ".join(place.lines)]


# --- rules and notes


def test_a_note_stands_apart_from_its_rule() -> None:
    known = parted()["SNAP-PREPARE-5"]
    assert known.rule.endswith("a missing parent over a taken key, for one.")
    assert known.note == "The metadata layer looks at the key first, see DOOR-ORDER-1."
    assert known.section == "Prepare and view"
    assert parted()["SNAP-KEY-1"].note == ""


def test_rule_and_note_are_the_whole_text() -> None:
    for clause, text in clauses().items():
        known = parted()[clause]
        whole = f"{known.rule} Note: {known.note}" if known.note else known.rule
        assert whole.lower() == text.lower()
    assert sum(bool(known.note) for known in parted().values()) == sum("Note: " in text for text in clauses().values()) > 10


# --- what is printed


@pytest.mark.parametrize("width", [80, 110])
def test_every_line_fits(width: int) -> None:
    """But for a word that is longer than the line."""
    for words in ("", *families(), *clauses()):
        long = [text for text, _ in explained(words, width) if len(text) > width and " " in text[:width].strip()]
        assert [text for text in long if len(text.split()[-1]) < width // 2] == []


def test_a_clause_is_printed_with_all_its_parts() -> None:
    for clause in clauses():
        printed = [text for text, _ in explained(clause)]
        assert printed[0].startswith(f"{clause}  (")
        text = " ".join("\n".join(printed).split())
        wanted = [parted()[clause].rule, " in the ", *([f"why: {parted()[clause].note}"] if parted()[clause].note else [])]
        wanted += [LACKING[clause]] if clause in LACKING else [" legal", " illegal", " allowed ", " came "]
        assert [part for part in wanted if part not in text] == [], clause


def test_the_two_examples_do_not_read_the_same() -> None:
    alike = [clause for clause, legal, illegal in SHOWN if [*lines(legal, whole=True)] == [*lines(illegal, whole=True)]]
    assert alike == []


def test_families_and_clauses_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    printed = capsys.readouterr().out
    assert [family for family in families() if f"\n{family} " not in f"\n{printed}"] == []
    assert main(["explain", "snap-commit"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()] == list(families()["SNAP-COMMIT"])
    assert max(map(len, printed.splitlines())) <= explain.WIDTH


def test_lower_case_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "snap-commit-4"]) == 0
    assert capsys.readouterr().out.startswith("SNAP-COMMIT-4  (Commit)\n")


@pytest.mark.parametrize(
    ("words", "near"),
    [("SNAP-COMMIT-4".replace("MM", "M"), "SNAP-COMMIT-4"), ("ref-prunes", "REF-PRUNE"), (f"SNAP-COMMIT-{99}", "SNAP-COMMIT-9")],
)
def test_a_wrong_id_is_answered_with_the_nearest(words: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", words]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert near in sentence
    assert sentence.endswith("`snapspec explain` names all families")


def test_what_is_near_to_nothing_is_answered_without_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "zzzz"]) == 2
    assert "is it" not in capsys.readouterr().err


def on_a_terminal(*arguments: str) -> bytes:
    """What the command shows on a terminal."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm", "COLUMNS": "80"}
    env.pop("NO_COLOR", None)
    outer, inner = pty.openpty()
    command = [sys.executable, "-m", "snapspec.conformance", *arguments]
    with subprocess.Popen(command, env=env, stdin=inner, stdout=inner, stderr=inner) as process:
        os.close(inner)
        shown = b""
        try:
            while chunk := os.read(outer, 1 << 16):
                shown += chunk
        except OSError:  # the other end is closed
            pass
        finally:
            os.close(outer)
    assert process.returncode == 0
    return shown


def test_it_is_coloured_on_a_terminal_and_plain_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    coloured = on_a_terminal("explain", "SNAP-COMMIT-4").decode()
    assert "\x1b[" in coloured
    assert main(["explain", "SNAP-COMMIT-4"]) == 0
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured).split() == plain.split()
