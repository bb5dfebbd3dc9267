"""All that small universes can reach. Always: no contract is broken on the way. Sometimes: nothing in the model is out of reach.

The contracts are evaluated as each outcome is made, so that an exploration which ends has shown that they hold.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import product
from math import comb
from multiprocessing import get_context

import pytest
from spec import CLAUSE, clauses

from snapspec.model import ops, snapshots
from snapspec.model.explore import Explored, Universe, explore, operations, transitions
from snapspec.model.guards import Door, Rebase
from snapspec.model.snapshots import LABEL_LIMIT
from snapspec.model.state import Profile, RootMetadata, State
from snapspec.model.tree import Link, MakeDirectory, MakeFile, Rename, Truncate
from snapspec.model.values import ErrorClass, Kind

#: One label that is not kept, and one that the metadata layer refuses.
ODD = (("e", ""), ("l", "x" * LABEL_LIMIT))
RECORDS = Universe(
    keys=("a", "b"),
    labels=((), ODD),
    masks=((), ("labels.l",), ("name",)),
    filters=("", "kind==active", "labels.l!=1", 'name~="("', "=="),
    rebases=True,
    collections=True,
)
#: A directory and a file with two names, which the snapshots above may copy up under one name or refuse to rename.
SHAPE = (MakeFile("f", b"1"), Link("g", "f"), MakeDirectory("d"))
CONTENT = Universe(keys=("a", "b"), changes=(SHAPE, (Truncate("f", 0), Rename("d", "e"))), rebases=True)
#: With a third key a snapshot over a parent can be committed, and another parent be asked for.
CHAINS = Universe(keys=("a", "b", "c"), rebases=True)
SMALL = Universe(keys=("a", "b"), rebases=True, collections=True)

BOTH = (False, True)
PROFILES = [
    Profile(door, wire, cleanup, rebase, root=root)
    for door, wire, cleanup, rebase, root in product(Door, BOTH, BOTH, Rebase, RootMetadata)
]
#: Both doors, each alternative for a parent at commit; the other alternatives by turns.
TURNS = [
    Profile(door, number % 2 == 0, number % 3 > 0, rebase, root=(RootMetadata.FULL, RootMetadata.OWNER)[number % 2])
    for number, (door, rebase) in enumerate(product(Door, Rebase))
]

#: What is explored more than once is explored by one worker, and so only once.
together = pytest.mark.xdist_group("explore")

Explore = Callable[[Universe, Profile], Explored]


@pytest.fixture(scope="module")
def explored() -> Iterator[Explore]:
    """Explores in a process of its own: where coverage is measured, this one is five times as slow."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield cache(lambda universe, profile: pool.submit(explore, universe, State(profile=profile)).result())


def stores(keys: int) -> int:
    """How many stores there are with so many keys: for each number of committed ones their forests, times what the others may be.

    Not all keys can be committed at once: commit needs a free name beside its key.
    """
    return sum(comb(keys, c) * (c + 1) ** max(c - 1, 0) * (2 * c + 3) ** (keys - c) for c in range(keys))


def test_four_keys_reach_every_store_that_there_is(explored: Explore) -> None:
    """No contract is broken in any of them, and none is out of reach."""
    found = explored(Universe(("a", "b", "c", "d")), Profile())
    assert found.states == stores(4) == 2039


@pytest.mark.deep
def test_five_keys_reach_every_store_that_there_is(explored: Explore) -> None:
    found = explored(Universe(("a", "b", "c", "d", "e")), Profile())
    assert found.states == stores(5) == 33493


@together
@pytest.mark.parametrize("profile", TURNS)
def test_labels_masks_filters_rebases_and_collections(explored: Explore, profile: Profile) -> None:
    """With a label over the limit there are fewer stores at the door that refuses it."""
    found = explored(RECORDS, profile)
    assert found.states == (217 if profile.door is Door.DIRECT else 61)


@together
@pytest.mark.parametrize("profile", TURNS)
def test_content(explored: Explore, profile: Profile) -> None:
    """What is written below is shown above, and every freedom of drivers is taken on the way."""
    found = explored(CONTENT, profile)
    assert {"SNAP-CONTENT-2", "SNAP-CONTENT-3", "SNAP-CONTENT-4", "SNAP-MOUNTS-5"} <= found.clauses.keys()


@together
@pytest.mark.parametrize("door", Door)
def test_another_parent_at_commit(explored: Explore, door: Door) -> None:
    """Whatever is asked for, a chain stays a chain."""
    assert explored(CHAINS, Profile(door, rebase=Rebase.MERGED)).states == stores(3) == 165


@pytest.mark.parametrize("profile", PROFILES)
def test_every_alternative_with_every_other(explored: Explore, profile: Profile) -> None:
    """All 48 profiles. What a driver declares changes what calls answer, not which stores there are."""
    assert explored(SMALL, profile).states == stores(2) == 19


@together
def test_every_outcome_is_reached(explored: Explore) -> None:
    """Sometimes: each clause that an outcome has or shows is met in one of the universes."""
    assert set().union(*(found.clauses for found in everything(explored))) == outcome_clauses()


@together
def test_every_error_that_a_clause_names_is_reached(explored: Explore) -> None:
    """Sometimes: and no other error is, but where any error will do."""
    texts = " ".join(text for _, text in clauses())
    named = {error.value for error in ErrorClass if re.search(rf"\b{error.value}\b", texts)}
    assert set().union(*(found.errors for found in everything(explored))) == named


@together
def test_every_kind_is_reached(explored: Explore) -> None:
    for found in everything(explored):
        assert found.kinds == set(Kind)


def everything(explored: Explore) -> list[Explored]:
    found = [explored(universe, profile) for universe in (RECORDS, CONTENT) for profile in TURNS]
    return [*found, *(explored(CHAINS, Profile(door, rebase=Rebase.MERGED)) for door in Door)]


def outcome_clauses() -> set[str]:
    """The clauses that snapshots.py names outside its contracts and texts: each is one that an outcome has or shows."""
    tree = ast.parse(inspect.getsource(snapshots))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
    texts = {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {text for text in texts if CLAUSE.fullmatch(text)}


def test_a_universe_names_every_kind_of_call() -> None:
    """Each operation of the model is among the calls of the universes above, but those that only a real mount has."""
    calls = {type(op) for universe in (RECORDS, CONTENT) for op in operations(universe)}
    assert calls == {*snapshots._STEPS}
    assert ops.Update not in {type(op) for op in operations(SMALL)}
    asked = {op.parent for op in operations(SMALL) if isinstance(op, ops.Commit)}
    assert asked == {"", "a", "b"}
    assert {op.parent for op in operations(replace(SMALL, rebases=False)) if isinstance(op, ops.Commit)} == {""}


def test_a_transition_leads_from_a_state_that_was_reached_before() -> None:
    """Breadth first, each state once."""
    start = State()
    reached = {start}
    order: list[State] = []
    for state, _, outcome in transitions(SMALL, start):
        assert state in reached
        reached.add(outcome.state)
        if not order or state is not order[-1]:
            order.append(state)
    assert len(order) == len(set(order)) == len(reached)
    sizes = [len(state.snapshots) for state in order]
    assert sizes[:3] == [0, 1, 1]


def test_a_model_that_forbids_everything_does_not_pass() -> None:
    """The properties above are no empty ones: a profile without a step beyond the empty store reaches next to nothing."""
    found = explore(replace(SMALL, keys=()), State())
    assert found.states == 1
    assert found.steps == sum(1 for _ in transitions(replace(SMALL, keys=()), State()))
    assert found.kinds == set()
    assert found.clauses.keys() < outcome_clauses()
