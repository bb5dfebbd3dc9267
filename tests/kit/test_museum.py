"""The museum as a user meets it: the command, a visit of what does not end well, and the track record in its text."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import pytest
from test_run import command

from snapspec.conformance import mutants
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.mutants import museum
from snapspec.conformance.mutants.hall import EXHIBITS, find
from snapspec.conformance.mutants.museum import Seen

TEXT = Path(mutants.__file__).with_name("README.md")

#: Columns of the table, between the empty ones at the edges of a line.
NAME, WRONG, WHERE, LEVEL, CLAUSE, HISTORIES, SECONDS, CALLS, AGAIN = range(1, 10)


def record() -> list[list[str]]:
    """The lines of the track record, cell by cell."""
    table = TEXT.read_text("utf-8").partition(museum.BEGIN)[2].partition(museum.END)[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


def test_the_track_record_is_of_the_exhibits_that_there_are() -> None:
    shown = [(row[NAME], row[WRONG], row[WHERE], row[LEVEL]) for row in record()]
    assert shown == [(f"`{e.name}`", e.wrong, e.where, museum.level(e)) for e in EXHIBITS], "make museum writes it anew"


def test_every_exhibit_was_found_in_time_by_a_right_clause_and_a_short_history() -> None:
    for exhibit, row in zip(EXHIBITS, record(), strict=True):
        assert row[CLAUSE] in exhibit.clauses, row
        assert float(row[SECONDS]) < 60, row
        assert int(row[CALLS]) <= 8, row
        assert row[AGAIN] == f"`{Seen(exhibit, 1).command}`"
    assert statistics.median(float(row[SECONDS]) for row in record()) < 5


def test_the_command_lists_visits_and_writes(tmp_path: Path) -> None:
    listed = command("museum", "--list")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [exhibit.name for exhibit in EXHIBITS]
    text = tmp_path / "record.md"
    text.write_text(f"before\n{museum.BEGIN}\nold\n{museum.END}\nafter\n")
    visited = command("museum", "seed", "i01", "--seed", "1", "--write", str(text))
    assert visited.returncode == 0, visited.stdout + visited.stderr
    assert "2 of 2 exhibits found by the right clause" in visited.stdout
    written = text.read_text("utf-8")
    assert written.startswith(f"before\n{museum.BEGIN}\n")
    assert written.endswith(f"{museum.END}\nafter\n")
    assert "old" not in written
    assert "`snapspec check mutant:i01 --seed 1 --jobs 1 --deadline 5s`" in written


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("museum", "nothing"), "`snapspec museum --list` names them"),
        (("check", "mutant:nothing"), "`snapspec museum --list` names them"),
        (("check", "mutant:s08?size=1g"), "mutant: has no option 'size'"),
        (("check", "mutant:a01", "--level", "durable", "--power"), "power cuts are for ref:overlay, ref:copy"),
        (("museum", "--budget", "long"), "90s, 5m"),
        (("museum", "i01", "--write", "/nonexistent"), "cannot be written: No such file or directory; name a text"),
        (("museum", "i01", "--write", os.devnull), "has no place for the track record"),
    ],
)
def test_wrong_words_are_told_in_one_sentence(words: tuple[str, ...], remedy: str) -> None:
    told = command(*words)
    assert told.returncode == 2
    assert remedy in told.stderr
    assert "Traceback" not in told.stderr


def test_a_record_without_a_place_is_not_written(tmp_path: Path) -> None:
    text = tmp_path / "record.md"
    text.write_text("nothing marked\n")
    with pytest.raises(CannotRun, match="has no place for the track record"):
        museum.write(text, [])
    assert text.read_text("utf-8") == "nothing marked\n"


def test_what_eats_memory_is_told_and_the_next_is_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is set so low that the process of any exhibit over a pool reaches it."""
    monkeypatch.setattr(museum, "MEMORY", 1 << 20)
    seen = museum.visit_all([find("s08"), find("s11")], seed=1, budget=5.0, jobs=1)
    assert [one.exhibit.name for one in seen] == ["s08", "s11"]
    assert all(one.trouble and not one.right for one in seen)
    assert "NOT FOUND" in museum.line(seen[0])
    assert museum.summary(seen) == "none of 2 exhibits found"
