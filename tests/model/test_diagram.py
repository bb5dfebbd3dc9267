"""The parts of the spec that are made from the model: they are in spec.md as the model makes them now."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
from spec import CLAUSE, SPEC, clauses, marked, with_marked
from write_diagrams import PARTS

from snapspec.model import diagram
from snapspec.model.diagram import HANDLE_PLACES, PAIR_PLACES, PLACES, RECORD_PLACES, answers, ref_call, ref_steps
from snapspec.model.guards import Door
from snapspec.model.ref_faults import disturbed
from snapspec.model.refs import Declared, RefRefused, steps

pytestmark = pytest.mark.xdist_group("diagram")
STALE = "spec.md is stale: run `python tests/write_diagrams.py`"


@cache
def life_of_a_key() -> str:
    return diagram.life_of_a_key()


@pytest.mark.parametrize("name", PARTS)
def test_the_spec_shows_it_as_the_model_makes_it_now(name: str) -> None:
    made = life_of_a_key() if PARTS[name] is diagram.life_of_a_key else PARTS[name]()
    assert marked(name) == made, STALE


def arrows_of(text: str) -> dict[str, str]:
    return dict(re.findall(r"^    (\w+ --> \w+): (.*)$", text, re.MULTILINE))


def test_the_life_of_a_key() -> None:
    """SNAP-KIND-1: no arrow leads from one kind to another; committed ones appear by commit alone."""
    arrows = arrows_of(life_of_a_key())
    assert arrows == {
        "absent --> active": "prepare",
        "absent --> view": "view",
        "absent --> committed": "commit to it",
        "active --> absent": "collection<br/>commit of it<br/>remove",
        "view --> absent": "collection<br/>remove",
        "committed --> absent": "collection<br/>remove",
        "active --> active": "mounts<br/>read<br/>stat<br/>update<br/>usage<br/>write",
        "view --> view": "mounts<br/>read<br/>stat<br/>update<br/>usage",
        "committed --> committed": "prepare over it<br/>stat<br/>update<br/>usage<br/>view over it",
    }
    assert {place for arrow in arrows for place in arrow.split(" --> ")} == set(PLACES)


def test_both_doors_answer_alike_where_one_thing_is_wrong() -> None:
    """As spec.md says above the table."""
    assert answers(Door.DIRECT) == answers(Door.METADATA)


def test_every_cell_names_a_clause_of_the_spec() -> None:
    known = {clause for clause, _ in clauses()}
    rows = answers().splitlines()[2:]
    assert len(rows) == 13
    for row in rows:
        cells = row.strip("| ").split(" | ")[1:]
        assert len(cells) == 5
        assert all(re.search(r"\(([A-Z0-9-]+)\)$", cell) for cell in cells)
        assert set(re.findall(r"\(([A-Z0-9-]+)\)", row)) <= known


def test_a_part_is_written_between_its_markers_and_nothing_else_changes() -> None:
    text = SPEC.read_text("utf-8")
    for name in PARTS:
        changed = with_marked(name, "new\n", text)
        assert marked(name, changed) == "new\n"
        assert with_marked(name, marked(name, text), changed) == text
    with pytest.raises(AssertionError, match="no diagram named"):
        marked("absent", text)
    with pytest.raises(AssertionError, match="has no end"):
        marked("x", "<!-- diagram: x -->\n")


# --- refs: the lives


def test_the_life_of_a_record() -> None:
    """REF-PAIR-2, REF-FINAL-1: what is final only goes; no half of a pair has a child; only prune takes what nobody gave up."""
    arrows = arrows_of(diagram.life_of_a_record())
    assert {place for arrow in arrows for place in arrow.split(" --> ")} == set(RECORD_PLACES)
    assert [arrow for arrow, calls in arrows.items() if "parent of a child" in calls] == ["final_E --> final_E"]
    assert [arrow for arrow in arrows if arrow.startswith("final_E -->")] == ["final_E --> absent", "final_E --> final_E"]
    assert arrows["final_E --> absent"] == "prune"
    assert arrows["E_of_a_pair --> absent"] == "get_mutable of its M<br/>prune"
    assert arrows["idle_M --> absent"] == "prune"
    assert "open_M --> absent" not in arrows


def test_the_life_of_a_pair() -> None:
    """REF-PAIR-1, REF-MUT-2: a held pair ends by becoming final, an idle one by get_mutable or prune too."""
    arrows = arrows_of(diagram.life_of_a_pair())
    assert {place for arrow in arrows for place in arrow.split(" --> ")} == set(PAIR_PLACES)
    inside = {"pair_held --> pair_held": arrows["pair_held --> pair_held"]}
    assert arrows == inside | {
        "M_alone --> pair_held": "commit<br/>get of M",
        "pair_held --> pair_idle": "close<br/>release<br/>restart",
        "pair_held --> E_alone": "finalize<br/>mount to write<br/>new over E",
        "pair_idle --> M_alone": "get_mutable",
        "pair_idle --> pair_held": "get of E<br/>get of M",
        "pair_idle --> none": "prune",
    }


def test_the_life_of_a_handle() -> None:
    """REF-HANDLE-1, REF-HANDLE-3, REF-COMMIT-1: what is not open stays so."""
    arrows = arrows_of(diagram.life_of_a_handle())
    assert {place for arrow in arrows for place in arrow.split(" --> ")} == set(HANDLE_PLACES)
    assert {arrow: calls for arrow, calls in arrows.items() if "not_" in arrow} == {
        "not_given --> on_M": "get_mutable<br/>new",
        "not_given --> on_E_of_a_pair": "commit<br/>get",
        "not_given --> on_final_E": "get<br/>parent",
        "on_M --> not_open": "close<br/>commit<br/>release<br/>restart",
        "on_E_of_a_pair --> not_open": "close<br/>release<br/>restart",
        "on_final_E --> not_open": "close<br/>release<br/>restart",
        "not_open --> not_open": "release",
    }


# --- refs: what each call answers

HANDLE_CALLS = ("new over it", "commit", "parent", "finalize", "size", "mount to read", "mount to write")
THROUGH_A_LIST = ("reading through its list", "writing through its list")

#: The errors that each call has of its own, beside those of the store and the driver.
ERRORS = {
    "new": {"Closed"},
    "get": {"Closed", "NotFound", "Locked"},
    "get_mutable": {"Closed", "NotFound", "Invalid", "Locked"},
    "disk_usage": {"Closed"},
    "prune": {"Closed"},
    "release": set[str](),
    "close": set[str](),
    "restart": set[str](),
    **{call: {"Closed", "Invalid"} for call in (*HANDLE_CALLS, *THROUGH_A_LIST)},
}


def table_rows(text: str) -> dict[str, list[str]]:
    """The cells of a markdown table by the first one of their row."""
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


def ref_rows() -> dict[str, list[str]]:
    tables = [table_rows(marked(f"answers by {what}")) for what in ("record", "handle", "manager")]
    assert sum(map(len, tables)) == len(set().union(*tables)), "a call stands in one table only"
    return {call: row for table in tables for call, row in table.items()}


def answers_in(cell: str) -> Iterator[tuple[str, list[str]]]:
    """Each answer of a cell, with its clauses."""
    for part in cell.split(" or "):
        found = re.fullmatch(r"(.*) \((.*)\)", part)
        assert found, f"{part!r} has no clause"
        yield found[1], found[2].split(", ")


def test_the_tables_have_every_call_and_its_errors() -> None:
    """As they stand in the spec, and as the model makes them, without the way from one to the other."""
    written = {call: {w for cell in row for w, _ in answers_in(cell) if w[0].isupper()} for call, row in ref_rows().items()}
    assert written == ERRORS
    met: dict[str, set[str]] = defaultdict(set)
    for step in ref_steps(2, 2):
        reply = step.outcome.reply
        met[ref_call(step.op)] |= {reply.error.value} if isinstance(reply, RefRefused) else set()
    assert met == ERRORS


def test_a_clause_beside_an_error_names_the_error() -> None:
    texts = dict(clauses())
    for row in ref_rows().values():
        for answer, named in (found for cell in row for found in answers_in(cell)):
            assert set(named) <= texts.keys()
            assert all(answer in texts[clause] for clause in named) or not answer[0].isupper(), (answer, named)


@pytest.mark.parametrize(("records", "handles"), [(2, 3), pytest.param(4, 1, marks=pytest.mark.deep)])
def test_a_wider_look_finds_no_other_answer(records: int, handles: int) -> None:
    """With more handles, or one more record, the calls answer what the tables say."""
    said = {(call, answer) for call, row in ref_rows().items() for cell in row for answer, _ in answers_in(cell)}
    for step in ref_steps(records, handles):
        if isinstance(step.outcome.reply, RefRefused):
            assert (ref_call(step.op), step.outcome.reply.error.value) in said


# --- refs: disturbed calls, and the appendices


def section(title: str) -> str:
    """The text below a heading, to the next one."""
    _, found, rest = SPEC.read_text("utf-8").partition(f"\n{title}\n")
    assert found, title
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def test_disturbed_calls_may_have_done_what_the_table_says() -> None:
    """REF-POINT-2: each call has a row with the model's clause; `nothing` stands where the model has no trace either."""
    rows = table_rows(section("## Disturbed calls"))
    assert rows.keys() == ERRORS.keys() - set(THROUGH_A_LIST)
    named: dict[str, set[str]] = defaultdict(set)
    left = {"size", "disk_usage"}  # a size that was stored and not told is no part of a state
    for step in ref_steps():
        for before in (step.before, replace(step.before, declared=Declared(commit_keeps_lists=False))):
            call, ends = ref_call(step.op), disturbed(before, step.op)
            named[call] |= {end.clause for end in ends}
            if any(end.state != before for end in ends) or (call == "prune" and any(o.rest for o in steps(before, step.op))):
                left.add(call)
    assert {call: row[-1] for call, row in rows.items()} == {call: ", ".join(sorted(named[call])) for call in rows}
    assert {call for call, row in rows.items() if not row[1].startswith("nothing")} == left - set(THROUGH_A_LIST)


def test_every_line_of_the_seed_has_a_verdict_and_a_clause() -> None:
    lines = section("# Appendix A: the seed, line by line").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| \d", line)]
    spans = [(int(first), int(last or first)) for first, _, last in (row[0].partition("-") for row in rows)]
    assert set().union(*(range(first, last + 1) for first, last in spans)) == set(range(8, 259))
    assert [first for first, _ in spans] == sorted(first for first, _ in spans)
    assert {row[2] for row in rows} == {"kept", "made precise", "wrong"}
    assert sum(row[2] == "wrong" for row in rows) > 15
    known = {clause for clause, _ in clauses()}
    assert all(row[3] or row[2] == "kept" for row in rows), "a departure says what it is"
    assert all(set(row[4].split(", ")) <= known for row in rows)


def test_every_clause_of_refs_is_held_against_what_came_later() -> None:
    rows = table_rows(section("# Appendix B: BuildKit after the seed"))
    assert list(rows) == [clause for clause, _ in clauses() if clause.startswith("REF-")]
    assert all(row[0] for row in rows.values())
    assert all(CLAUSE.fullmatch(clause) for clause in rows)
