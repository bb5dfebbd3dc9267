"""What a call may answer and leave when the system fails under it, or when it is cancelled."""

from __future__ import annotations

import icontract
import pytest

from snapspec.model import ops
from snapspec.model.faults import TELLING, Trouble, disturbed
from snapspec.model.frozen import Map
from snapspec.model.oracle import Belief, Divergence, begin, invoke
from snapspec.model.replies import Failed, Lost, Returned
from snapspec.model.state import Snapshot, State
from snapspec.model.values import ErrorClass, Kind, Mount

EMPTY = State()
ACTIVE = State(Map({"a": Snapshot(Kind.ACTIVE)}))
NO_ROOM = Failed(ErrorClass.RESOURCE_EXHAUSTED, "no room")
MOUNTS = (Mount("bind", "/x", ("rw", "rbind")),)


def keys(belief: Belief | Divergence) -> list[list[str]]:
    assert isinstance(belief, Belief)
    assert not belief.calls
    return sorted(sorted(world.state.snapshots) for world in belief.worlds)


def test_a_call_that_returns_has_happened() -> None:
    for trouble in Trouble:
        assert keys(disturbed(begin(EMPTY), ops.Prepare("a"), trouble, Returned(MOUNTS))) == [["a"]]


def test_a_call_that_is_refused_has_changed_nothing() -> None:
    belief = begin(ACTIVE)
    for op in (ops.Prepare("b"), ops.Commit("b", "a"), ops.Remove("a"), ops.Reopen(), ops.Walk()):
        assert disturbed(belief, op, Trouble.FAILED, NO_ROOM) == belief


def test_a_write_that_failed_last_leaves_it_open() -> None:
    after = disturbed(begin(ACTIVE), ops.Commit("b", "a"), Trouble.UNDECIDED, NO_ROOM)
    assert keys(after) == [["a"], ["b"]]
    assert keys(disturbed(begin(ACTIVE), ops.Prepare("a"), Trouble.UNDECIDED, NO_ROOM)) == [["a"]], "it was never to happen"


def test_a_cancelled_call_has_happened_or_not() -> None:
    for response in (Lost("cancelled"), Failed(ErrorClass.CANCELED)):
        assert keys(disturbed(begin(ACTIVE), ops.Remove("a"), Trouble.CANCELED, response)) == [[], ["a"]]


@pytest.mark.parametrize("error", TELLING)
def test_an_error_that_tells_what_the_store_holds_is_a_wrong_answer(error: ErrorClass) -> None:
    for trouble in (Trouble.FAILED, Trouble.UNDECIDED):
        wrong = disturbed(begin(ACTIVE), ops.Remove("a"), trouble, Failed(error, "so"))
        assert isinstance(wrong, Divergence)
        assert wrong.clause == "SNAP-FAULT-1"
        assert [m.clause for m in wrong.mismatches] == ["SNAP-FAULT-1", "SNAP-REMOVE-3"]


def test_the_same_is_right_where_it_is_so() -> None:
    belief = begin(ACTIVE)
    right = disturbed(belief, ops.Prepare("a"), Trouble.FAILED, Failed(ErrorClass.ALREADY_EXISTS))
    assert isinstance(right, Belief)
    assert right.worlds == belief.worlds
    assert "SNAP-PREPARE-3" in right.clauses


def test_a_wrong_value_is_wrong_with_a_fault_too() -> None:
    wrong = disturbed(begin(ACTIVE), ops.Mounts("a"), Trouble.FAILED, Returned(()))
    assert isinstance(wrong, Divergence)
    assert wrong.clause == "SNAP-MOUNTS-4"


def test_an_answer_is_lost_by_a_cancellation_only_and_nothing_else_is_under_way() -> None:
    with pytest.raises(icontract.ViolationError, match="it has answered"):
        disturbed(begin(EMPTY), ops.Prepare("a"), Trouble.FAILED, Lost("gone"))
    with pytest.raises(icontract.ViolationError, match="nothing else is under way"):
        disturbed(invoke(begin(EMPTY), 7, ops.Walk()), ops.Prepare("a"), Trouble.FAILED, NO_ROOM)
