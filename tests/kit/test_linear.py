"""The checker of recorded histories: against labelled ones of other systems, and against all orders of small ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from porcupine import DATA, Register, load

from snapspec.conformance import linear
from snapspec.conformance.linear import Call, Search, Verdict, check


@pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the labelled histories in {DATA}: lay them there")
@pytest.mark.parametrize("most", [60_000, pytest.param(400_000, marks=pytest.mark.deep)])
def test_the_verdicts_on_labelled_histories_are_their_labels(most: int) -> None:
    """Of those of at most so many bytes: all but two, and all."""
    every = json.loads((DATA / "labels.json").read_text())
    labels = {name: label for name, label in every.items() if (DATA / name).stat().st_size <= most}
    assert len(labels) == (106 if most < 100_000 else 108)
    verdicts = {name: check(load(DATA / name)).verdict for name in labels}
    assert {name: verdict is Verdict.LEGAL for name, verdict in verdicts.items()} == labels
    assert Verdict.UNKNOWN not in verdicts.values()


# --- against every order


CALLS = st.sampled_from([("read",), ("write", "1"), ("write", "2"), ("cas", "1", "2"), ("cas", "2", "1")])


@st.composite
def histories(draw: st.DrawFn) -> list[Call]:
    """Up to five calls at any times, with any outcomes."""
    calls = []
    for _ in range(draw(st.integers(1, 5))):
        operation = draw(CALLS)
        possible: dict[str, list[Any]] = {"read": ["nil", "1", "2"], "cas": [True, False], "write": [None]}
        began = draw(st.integers(0, 9))
        ended = draw(st.none() | st.integers(began + 1, 12))
        calls.append(Call(operation, None if ended is None else draw(st.sampled_from(possible[operation[0]])), began, ended))
    return calls


def orders(calls: list[Call]) -> Iterator[tuple[Call, ...]]:
    """Every order of the answered calls and of any of the others in which no call stands before one that had ended before it."""
    for length in range(sum(call.ended is not None for call in calls), len(calls) + 1):
        for order in permutations(calls, length):
            there = {id(call) for call in order}
            if all(id(call) in there for call in calls if call.ended is not None) and not any(
                later.ended is not None and later.ended < earlier.began
                for at, earlier in enumerate(order)
                for later in order[at + 1 :]
            ):
                yield order


def legal(order: tuple[Call, ...]) -> bool:
    states: set[str] = {Register.initial}
    for call in order:
        states = {after for state in states for after in Register().step(state, call.operation, call.outcome)}
    return bool(states)


@given(histories())
def test_a_history_is_legal_when_one_of_its_orders_is(calls: list[Call]) -> None:
    judged = check([(Register(), calls)])
    assert (judged.verdict is Verdict.LEGAL) == any(legal(order) for order in orders(calls))
    assert judged.verdict is not Verdict.UNKNOWN
    assert legal(tuple(calls[n] for n in judged.order))


# --- unanswered, undecided, bounded


def test_a_call_without_an_answer_may_have_happened_or_not() -> None:
    lost = Call(("write", "1"), None, 0, None)
    for value in ("nil", "1"):
        assert check([(Register(), [lost, Call(("read",), value, 1, 2)])]).verdict is Verdict.LEGAL
    before = Call(("read",), "1", 0, 1)
    assert check([(Register(), [before, Call(("write", "1"), None, 2, None)])]).verdict is Verdict.ILLEGAL


def test_the_longest_legal_order_and_what_has_no_place_in_it() -> None:
    calls = [Call(("write", "1"), None, 0, 1), Call(("read",), "1", 2, 3), Call(("read",), "nil", 4, 5)]
    judged = check([(Register(), calls)])
    assert (judged.verdict, judged.order, judged.stuck, judged.state) == (Verdict.ILLEGAL, (0, 1), 2, "1")


def hard(size: int) -> list[Call]:
    """So many writes at once, and a read of what none of them wrote: every order fails."""
    writes = [Call(("write", str(n)), None, 0, 100 + n) for n in range(size)]
    return [*writes, Call(("read",), "none", 200, 201)]


def test_what_is_too_hard_is_unknown_and_does_not_keep_others_from_their_verdict() -> None:
    assert check([(Register(), hard(20))], budget=20_000).verdict is Verdict.UNKNOWN
    illegal = [Call(("read",), "5", 0, 1)]
    judged = check([(Register(), hard(20)), (Register(), illegal)], budget=20_000)
    assert (judged.verdict, judged.part) == (Verdict.ILLEGAL, 1)
    assert check([(Register(), hard(20)), (Register(), [])], budget=20_000).part == 0


def test_all_that_legal_orders_lead_to_and_on_from_there() -> None:
    calls = [Call(("write", "1"), None, 0, 2), Call(("write", "2"), None, 1, 3), Call(("read",), "1", 4, 5)]
    search = Search(Register(), calls, until=2)
    search.advance(100)
    assert (search.verdict, search.ends) == (Verdict.LEGAL, {(frozenset({0, 1}), "1"), (frozenset({0, 1}), "2")})
    for start, verdict in ((("1"), Verdict.LEGAL), (("2"), Verdict.ILLEGAL)):
        search = Search(Register(), calls, [(frozenset({0, 1}), start)])
        search.advance(100)
        assert search.verdict is verdict


def test_what_is_remembered_is_bounded_and_forgetting_changes_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "REMEMBERED", 64)
    search = Search(Register(), hard(6))
    while search.verdict is None:
        search.advance(100)
        assert len(search._seen) <= 64
    assert search.verdict is Verdict.ILLEGAL
