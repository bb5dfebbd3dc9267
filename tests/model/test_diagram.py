"""The parts of the spec that are made from the model: they are in spec.md as the model makes them now."""

from __future__ import annotations

import re
from functools import cache

import pytest
from spec import SPEC, clauses, marked, with_marked
from write_diagrams import PARTS

from snapspec.model import diagram
from snapspec.model.diagram import PLACES, answers
from snapspec.model.guards import Door

pytestmark = pytest.mark.xdist_group("diagram")
STALE = "spec.md is stale: run `python tests/write_diagrams.py`"


@cache
def life_of_a_key() -> str:
    return diagram.life_of_a_key()


def test_the_spec_shows_the_life_of_a_key_as_it_is() -> None:
    assert marked("life of a key") == life_of_a_key(), STALE


def test_the_spec_shows_what_each_call_answers_now() -> None:
    assert marked("answers") == answers(), STALE


def test_the_life_of_a_key() -> None:
    """SNAP-KIND-1: no arrow leads from one kind to another; committed ones appear by commit alone."""
    arrows = dict(re.findall(r"^    (\w+ --> \w+): (.*)$", life_of_a_key(), re.MULTILINE))
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
