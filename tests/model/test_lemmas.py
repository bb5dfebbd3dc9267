"""The lemmas by plain counting: every small store and every call, where the symbolic checker goes by paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

import icontract
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapspec.model import lemmas

TWO = [numbers for numbers in product(range(4), repeat=4) if lemmas.are_two(*numbers)]
THREE = [numbers for numbers in product(range(4), repeat=6) if lemmas.are_three(*numbers)]

times = st.integers(-5, 5) | st.integers()


def test_the_numbers_stand_for_every_store_that_can_be() -> None:
    """SNAP-PARENT-1: with all keys committed there are 3 and 16 more than calls can reach."""
    assert len(TWO) == 19 + 3
    assert len(THREE) == 165 + 16


@pytest.mark.parametrize(
    ("lemma", "numbers"),
    [
        (lemmas.prepare_keeps_the_store_whole, product(range(1, 4), range(4))),
        (lemmas.view_keeps_the_store_whole, product(range(1, 4), range(4))),
        (lemmas.remove_orphans_no_child, product(range(4))),
        (lemmas.commit_keeps_parents, product(range(1, 4), range(3))),
        (lemmas.a_merged_commit_makes_no_cycle, product(range(1, 3), range(4))),
        (lemmas.a_collection_keeps_chains, product(range(3))),
        (lemmas.a_refused_call_changes_nothing, product((False, True), range(6), (0, 1, 3), (0, 2, 3))),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_lemma_holds_of_two_slots(lemma: Callable[..., bool], numbers: Iterable[tuple[int, ...]]) -> None:
    calls = list(numbers)
    assert calls
    assert all(lemma(*store, *call) for store in TWO for call in calls)


def test_the_lemmas_hold_of_three_slots() -> None:
    remove: Callable[..., bool] = lemmas.remove_orphans_no_child_of_three
    merge: Callable[..., bool] = lemmas.a_merged_commit_makes_no_cycle_of_three
    # A part of them here: the checker and the exploration go through all.
    for store in THREE[::5]:
        assert all(remove(*store, key) for key in range(4))
        assert all(merge(*store, key, parent) for key in range(1, 4) for parent in range(5))


@given(times, times, times, times)
def test_an_update_is_no_earlier_than_its_snapshot(low: int, high: int, begun: int, ended: int) -> None:
    """SNAP-TIME-3."""
    low, high = sorted((low, high))
    begun, ended = sorted((begun, ended))
    assert lemmas.an_update_is_no_earlier_than_its_snapshot(low, high, begun, ended)


@given(times, times, times)
def test_a_time_is_learned_or_refused(low: int, high: int, told: int) -> None:
    """SNAP-TIME-1."""
    low, high = sorted((low, high))
    fits = lemmas.a_time_within_its_span_is_learned if low <= told <= high else lemmas.a_time_outside_its_span_is_refused
    assert fits(low, high, told)


@given(st.text())
def test_a_key_is_taken_once(key: str) -> None:
    """SNAP-KEY-1, SNAP-KEY-2."""
    assert lemmas.a_key_is_taken_once(key)


def test_a_lemma_speaks_of_stores_that_can_be_alone() -> None:
    assert not lemmas.are_two(4, 0, 0, 0)
    assert not lemmas.are_two(1, 0, 1, 4)
    with pytest.raises(icontract.ViolationError):
        lemmas.remove_orphans_no_child(1, 2, 1, 0, 1)
