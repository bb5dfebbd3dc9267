"""What a search has come to: told to another worker as JSON, and joined with what others have made."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_database import DRIVER, FAULTS, OVERLAP, REFS

from snapspec.conformance.base_search import Entry
from snapspec.conformance.durable.power import Powered
from snapspec.conformance.history import Step
from snapspec.conformance.outcome import Outcome, decode_outcome, encode_outcome, joined
from snapspec.model import ops
from snapspec.model.guards import Door, Rebase
from snapspec.model.replies import Returned
from snapspec.model.state import Measure, Profile, RootMetadata

text, number = st.text(max_size=5), st.integers(0, 1 << 40)
counts = st.dictionaries(text, st.integers(1, 1 << 40), max_size=3)
texts = st.lists(text, max_size=3).map(tuple)
seconds = st.floats(0, 1e6)
profiles = st.builds(
    Profile, st.sampled_from(Door), st.booleans(), st.booleans(), *map(st.sampled_from, (Rebase, Measure, RootMetadata))
)
entries = st.builds(Entry, st.sampled_from((DRIVER, FAULTS, OVERLAP, REFS)), st.tuples(number, seconds))
outcomes = st.builds(
    Outcome,
    *(text, st.none() | profiles, st.booleans(), text, number, number, number, seconds, counts, counts, st.just({})),
    st.lists(entries, max_size=3).map(tuple),
    *(texts, texts, texts, texts, text, text),
)


@settings(max_examples=30)
@given(outcomes)
def test_an_outcome_comes_back_from_json_as_it_was(outcome: Outcome) -> None:
    assert decode_outcome(json.loads(json.dumps(encode_outcome(outcome)))) == outcome


def test_power_cuts_come_back_too() -> None:
    outcome = Outcome(power=Powered(images=3, histories=2, calls=5).numbers())
    again = decode_outcome(json.loads(json.dumps(encode_outcome(outcome))))
    assert again == outcome
    assert again.powered.images == 3
    whole = joined([outcome, Outcome(), outcome])
    assert whole.powered.images == 6
    assert joined([Outcome()]).power == {}


LONGER = replace(DRIVER, steps=(Step(ops.Walk(), Returned(())), *DRIVER.steps))

ONE = Outcome(
    *("overlay", Profile(), False, "", 10, 100, 1, 3.0, {"A": 1, "B": 2}, {"x": 1}),
    found=(Entry(LONGER, (5, 1.0)), Entry(FAULTS, (7, 2.0))),
    lines=("one", "both"),
    lacks=("devices",),
)
TWO = Outcome(
    *("copy", Profile(cleanup=False), True, "SNAP-", 20, 200, 2, 2.0, {"B": 3, "C": 4}, {"x": 2, "y": 1}),
    found=(Entry(DRIVER, (9, 3.0)),),
    lines=("both", "two"),
    left=("a place",),
    hung=("usage",),
    trouble="nothing can be mounted",
)


def test_parts_add_up() -> None:
    whole = joined([ONE, TWO])
    assert (whole.histories, whole.calls, whole.restarts, whole.seconds) == (30, 300, 3, 3.0)
    assert whole.reached == {"A": 1, "B": 5, "C": 4}
    assert whole.disturbed == {"x": 3, "y": 1}
    assert (whole.lines, whole.left, whole.lacks, whole.hung) == (("one", "both", "two"), ("a place",), ("devices",), ("usage",))
    assert (whole.trouble, whole.fault) == ("nothing can be mounted", "")
    assert (whole.note, whole.profile, whole.refs, whole.promise) == ("overlay", Profile(), False, "")


def test_of_one_kind_the_shortest_stays_with_what_it_took() -> None:
    for parts in ([ONE, TWO], [TWO, ONE]):
        assert {(entry.finding.clause, entry.after) for entry in joined(parts).found} == {
            (DRIVER.clause, (9, 3.0)),
            (FAULTS.clause, (7, 2.0)),
        }
        assert len(joined(parts).found) == 2


def test_what_it_is_about_is_what_a_part_says_that_has_begun() -> None:
    assert joined([Outcome(trouble="no"), ONE]).note == "overlay"
    assert joined([Outcome(trouble="no"), Outcome(trouble="never")]).trouble == "no"
    assert joined([ONE]) == ONE


@settings(max_examples=15)
@given(st.lists(outcomes, min_size=1, max_size=3))
def test_what_is_joined_once_is_joined(parts: list[Outcome]) -> None:
    whole = joined(parts)
    assert joined([whole]) == whole
    assert whole.histories == sum(part.histories for part in parts)


@pytest.mark.parametrize("name", ["histories", "found", "lines", "fault"])
def test_a_form_that_lacks_something_is_noticed(name: str) -> None:
    document = encode_outcome(ONE)
    del document[name]
    with pytest.raises(KeyError):
        decode_outcome(document)
