"""The lemmas on refs by plain counting: every manager with two slots, and every call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

import icontract
import pytest

from snapspec.model import ref_lemmas
from snapspec.model.explore import renamed
from snapspec.model.ref_state import well_formed

TWO = [numbers for numbers in product(range(7), range(7), (False, True)) if ref_lemmas.are_two(*numbers)]


def test_the_numbers_stand_for_managers_that_can_be() -> None:
    """All kinds beside all, and each over an E that is final; some are one but for their names."""
    managers = [ref_lemmas.two(*numbers) for numbers in TWO]
    assert all(map(well_formed, managers))
    assert len(managers) == 7 * 7 + 2 * 6
    assert len({renamed(manager) for manager in managers}) == 7 * 8 // 2 + 2 * 6


@pytest.mark.parametrize(
    ("lemma", "calls"),
    [
        (ref_lemmas.commit_makes_a_pair, [()]),
        (ref_lemmas.get_mutable_ends_a_pair, [()]),
        (ref_lemmas.get_makes_no_second_e, [()]),
        (ref_lemmas.finalize_is_once, [()]),
        (ref_lemmas.what_is_built_on_is_final, [()]),
        (ref_lemmas.prune_takes_what_is_not_in_use, [()]),
        (ref_lemmas.a_second_release_does_nothing, [()]),
        (ref_lemmas.a_mount_to_write_leaves_no_pair, product((False, True))),
        (ref_lemmas.a_refused_call_changes_nothing, product(range(6))),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_lemma_holds_of_two_slots(lemma: Callable[..., bool], calls: Iterable[tuple[int, ...]]) -> None:
    assert all(lemma(*numbers, *call) for call in calls for numbers in TWO)


def test_what_is_claimed_stays() -> None:
    final = [numbers for numbers in TWO if numbers[0] >= ref_lemmas.IDLE_E]
    assert len(final) == 26
    assert all(ref_lemmas.prune_leaves_what_is_claimed(*numbers) for numbers in final)


def test_a_lemma_speaks_of_managers_that_can_be_alone() -> None:
    assert not ref_lemmas.are_two(7, 0, False)
    assert not ref_lemmas.are_two(ref_lemmas.IDLE_PAIR, ref_lemmas.OPEN_M, True)
    with pytest.raises(icontract.ViolationError):
        ref_lemmas.commit_makes_a_pair(ref_lemmas.OPEN_M, ref_lemmas.OPEN_M, True)
