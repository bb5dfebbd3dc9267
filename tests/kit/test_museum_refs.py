"""The exhibits of managers of refs are found, by a clause that they break and by a short history; the reference shows nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from ref_sessions import in_memory

from snapspec.conformance.draw import Limits
from snapspec.conformance.files import permits
from snapspec.conformance.mutants import Exhibit
from snapspec.conformance.mutants.museum import length, visit
from snapspec.conformance.mutants.refs import REFS
from snapspec.conformance.mutants.refs_durable import REFS_DURABLE
from snapspec.conformance.mutants.refs_size import REFS_SIZE
from snapspec.conformance.mutants.seed import SEED
from snapspec.conformance.ref_search import RefSearch, named_anew
from snapspec.conformance.ref_session import play_again
from snapspec.conformance.shorten import shortest
from snapspec.model import ref_ops
from snapspec.model.replies import Mismatch

ALL = {exhibit.name: exhibit for exhibit in (*SEED, *REFS, *REFS_SIZE, *REFS_DURABLE)}

#: Found by every seed within a second or so of one core; they are of each kind.
SOON = ("seed", "seed-noted", "a05", "b01", "c03", "d05", "e05", "f01", "h02", "i01")


def searched(exhibit: Exhibit, directory: Path, chance: int) -> RefSearch:
    """The search of one process, as `snapspec check` goes about it."""
    numbers = iter(range(chance, chance + 1000))
    search = RefSearch(
        in_memory(exhibit.manager), Limits(permits(str(directory))), time.monotonic() + 60, lambda: None, first=True
    )
    search.between = lambda: search.run_batch(25, next(numbers))
    search.run_scenarios(chance=chance)
    search.settle()
    return search


@pytest.mark.parametrize("name", SOON)
def test_an_exhibit_is_found_soon(name: str, tmp_path: Path) -> None:
    exhibit = ALL[name]
    best = searched(exhibit, tmp_path, chance=1).best
    assert best is not None
    assert best.clause in exhibit.clauses, best.told
    assert length(best) <= 8
    again = play_again(in_memory(exhibit.manager), best)
    assert again is not None
    assert again.clause == best.clause
    assert play_again(in_memory(), best) is None


@pytest.mark.deep
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", ALL)
def test_every_exhibit_is_found_by_a_clause_that_it_breaks(name: str, seed: int) -> None:
    seen = visit(ALL[name], seed, budget=60.0)
    assert not seen.trouble
    assert seen.right, seen.clause
    assert seen.length <= 8


def test_a_call_is_tried_again_under_other_names() -> None:
    """What a history makes has a name of its own, also the second time."""
    calls = (ref_ops.New("m", "h"), ref_ops.Get("m", "h", "e"), ref_ops.GetMutable("m", "h"), ref_ops.Commit("h", "e", "g"))
    assert [named_anew(call) for call in (*calls, ref_ops.Parent("h", "p"), ref_ops.Size("h"))] == [
        ref_ops.New("m again", "h again"),
        ref_ops.Get("m", "h again", "e again"),
        ref_ops.GetMutable("m", "h again"),
        ref_ops.Commit("h", "e again", "g again"),
        ref_ops.Parent("h", "p again"),
        ref_ops.Size("h"),
    ]


@dataclass(frozen=True)
class Shown:
    """A finding of so many calls."""

    mismatches: tuple[Mismatch, ...]
    calls: int

    @property
    def clause(self) -> str:
        return self.mismatches[0].clause


@pytest.mark.parametrize(
    ("first", "vague", "other", "taken"),
    [(("A", "B"), "", "B", True), (("A",), "", "B", False), (("A",), "A", "B", True), (("A",), "", "A", True)],
)
def test_a_shorter_history_may_show_a_clause_broken_beside_or_a_better_one(
    first: tuple[str, ...], vague: str, other: str, taken: bool
) -> None:
    long = Shown(tuple(Mismatch(clause, "", "") for clause in first), 3)
    short = Shown((Mismatch(other, "", ""),), 2)
    best = shortest(long, lambda _: (short,), lambda tried: tried, lambda shown: (shown.calls,), lambda: True, vague)
    assert (best is short) == taken


def test_an_exhibit_has_a_name_of_its_own_and_few_clauses() -> None:
    assert len(ALL) == len((*SEED, *REFS, *REFS_SIZE, *REFS_DURABLE))
    assert {len(exhibit.clauses) for exhibit in ALL.values()} <= {1, 2, 3}
    assert {exhibit.over for exhibit in ALL.values()} == {"model:"}
