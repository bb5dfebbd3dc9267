"""What the oracle believes: narrowed by each answer, kept open by what overlaps or is lost, settled by a crash."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import permutations

import icontract
import pytest
from states import DIRECT, ONE_OF_EACH, store

from snapspec.model import linear, ops
from snapspec.model.frozen import Map
from snapspec.model.guards import Rebase
from snapspec.model.ops import Operation
from snapspec.model.oracle import (
    SNAPSHOTS,
    Belief,
    Divergence,
    TooManyStates,
    World,
    allowed,
    begin,
    crash,
    invoke,
    perform,
    respond,
)
from snapspec.model.replies import Failed, Lost, Mismatch, Reading, Response, Returned
from snapspec.model.snapshots import outcomes
from snapspec.model.state import Snapshot, Span, State
from snapspec.model.tree import EMPTY, MakeFile
from snapspec.model.values import ErrorClass, Info, Kind, Mount, Usage

DONE = Returned(None)
NOT_FOUND = Failed(ErrorClass.NOT_FOUND)
TAKEN = Failed(ErrorClass.ALREADY_EXISTS)
PRECONDITION = Failed(ErrorClass.FAILED_PRECONDITION)
EMPTY_STORE = State()


def listed(place: str) -> Returned:
    """The mount list of an active snapshot of its own."""
    return Returned((Mount("bind", place, ("rbind", "rw")),))


def record(key: str, created: int = 0, updated: int | None = None, labels: tuple[tuple[str, str], ...] = ()) -> Returned:
    return Returned(Info(key, "", Kind.ACTIVE, labels, created, created if updated is None else updated))


def held(belief: Belief | Divergence) -> Belief:
    assert isinstance(belief, Belief), belief
    return belief


def broken(belief: Belief | Divergence) -> Divergence:
    assert isinstance(belief, Divergence)
    return belief


def after(belief: Belief, *steps: tuple[Operation, Response]) -> Belief:
    """The belief after calls one after another."""
    for op, response in steps:
        belief = held(perform(belief, op, response))
    return belief


def overlapping(state: State, *calls: Operation) -> Belief:
    """All `calls`, numbered from 0, have begun and none has answered."""
    belief = begin(state)
    for number, op in enumerate(calls):
        belief = invoke(belief, number, op)
    return belief


def answered(belief: Belief, *answers: tuple[int, Response]) -> Belief | Divergence:
    """The belief after these answers in this order, or the first divergence."""
    for number, response in answers:
        found = respond(belief, number, response)
        if isinstance(found, Divergence):
            return found
        belief = found
    return belief


def agree(state: State, calls: tuple[Operation, ...], answers: tuple[Response, ...]) -> bool:
    """Whether these answers are allowed when all calls overlap. The order in which they come must not matter."""
    orders = permutations(enumerate(answers))
    verdicts = {isinstance(answered(overlapping(state, *calls), *order), Belief) for order in orders}
    (verdict,) = verdicts
    return verdict


# --- one after another


def test_a_history_without_overlap_has_one_state() -> None:
    """Each answer is judged in the state that the last one left, and the facts that it told are kept."""
    belief = after(
        begin(EMPTY_STORE),
        (ops.Prepare("k"), listed("/1")),
        (ops.Mounts("k"), listed("/1")),
        (ops.Commit("n", "k"), DONE),
        (ops.View("v", "n"), Returned((Mount("bind", "/1", ("rbind", "ro")),))),
        (ops.Stat("k"), NOT_FOUND),
    )
    assert len(belief.worlds) == 1
    assert list(belief.state.snapshots) == ["n", "v"]
    assert belief.clauses == ("SNAP-STAT-2",)
    assert isinstance(perform(belief, ops.Mounts("v"), listed("/2")), Divergence)


def test_a_divergence_tells_what_was_allowed_and_what_came() -> None:
    found = broken(perform(begin(EMPTY_STORE), ops.Prepare("k", "absent"), TAKEN))
    assert found == Divergence(ops.Prepare("k", "absent"), TAKEN, (Mismatch("SNAP-PREPARE-1", "NotFound", "AlreadyExists"),))
    assert found.clause == "SNAP-PREPARE-1"


def test_the_nearest_outcome_comes_first_and_each_mismatch_once() -> None:
    """A record that is nearly right says more than "a refusal was allowed"; two worlds that say the same say it once."""
    belief = after(begin(EMPTY_STORE), (ops.Prepare("k"), Lost()), (ops.Prepare("other"), listed("/1")))
    found = broken(perform(belief, ops.Stat("k"), Returned(Info("k", "", Kind.VIEW, (), 0, 0))))
    assert found.mismatches == (
        Mismatch("SNAP-KIND-1", "kind active", "kind view"),
        Mismatch("SNAP-STAT-2", "NotFound", "success, the record of 'k'"),
    )


def test_what_is_allowed_is_told_in_words() -> None:
    belief = after(begin(EMPTY_STORE), (ops.Prepare("k"), Lost()))
    assert allowed(belief, ops.Prepare("k")) == (("SNAP-PREPARE-6", "the mount list of 'k'"),)
    belief = after(belief, (ops.Walk(), Returned((Info("k", "", Kind.ACTIVE, (), 0, 0),))))
    assert allowed(belief, ops.Prepare("k")) == (("SNAP-PREPARE-3", "AlreadyExists"),)


# --- overlap


def test_of_two_prepares_of_one_key_exactly_one_succeeds() -> None:
    """SNAP-PREPARE-3, SNAP-FAIL-2."""
    calls = (ops.Prepare("k"), ops.Prepare("k"))
    assert agree(EMPTY_STORE, calls, (listed("/1"), TAKEN))
    assert agree(EMPTY_STORE, calls, (TAKEN, listed("/1")))
    assert not agree(EMPTY_STORE, calls, (listed("/1"), listed("/2")))
    assert not agree(EMPTY_STORE, calls, (TAKEN, TAKEN))


def test_of_many_prepares_of_one_key_exactly_one_succeeds() -> None:
    """SNAP-PREPARE-3: and the belief stays small."""
    belief = overlapping(EMPTY_STORE, *(ops.Prepare("k") for _ in range(8)))
    for number in range(7):
        belief = held(respond(belief, number, TAKEN))
        assert len(belief.worlds) <= 8 << 7
    assert isinstance(respond(belief, 7, TAKEN), Divergence)
    assert held(respond(belief, 7, listed("/1"))).state.snapshots["k"].mounts is not None


def test_a_child_and_the_removal_of_its_parent() -> None:
    """SNAP-PREPARE-1, SNAP-REMOVE-2: never both succeed, never both fail."""
    state = store(p=Snapshot(Kind.COMMITTED))
    calls = (ops.Prepare("k", "p"), ops.Remove("p"))
    assert agree(state, calls, (listed("/1"), PRECONDITION))
    assert agree(state, calls, (NOT_FOUND, DONE))
    assert not agree(state, calls, (listed("/1"), DONE))
    assert not agree(state, calls, (NOT_FOUND, PRECONDITION))


def test_of_two_commits_to_one_name_one_succeeds_and_the_other_key_stays() -> None:
    """SNAP-COMMIT-2, SNAP-FAIL-1."""
    state = store(a=Snapshot(Kind.ACTIVE), b=Snapshot(Kind.ACTIVE))
    calls = (ops.Commit("n", "a"), ops.Commit("n", "b"))
    assert agree(state, calls, (DONE, TAKEN))
    assert not agree(state, calls, (DONE, DONE))
    assert not agree(state, calls, (TAKEN, TAKEN))
    belief = held(answered(overlapping(state, *calls), (1, TAKEN), (0, DONE)))
    assert sorted((key, s.kind) for key, s in belief.state.snapshots.items() if key != "x") == [
        ("b", Kind.ACTIVE),
        ("n", Kind.COMMITTED),
    ]


def test_of_two_commits_of_one_key_one_finds_it_gone() -> None:
    """SNAP-COMMIT-1."""
    state = store(a=Snapshot(Kind.ACTIVE))
    calls = (ops.Commit("n", "a"), ops.Commit("m", "a"))
    assert agree(state, calls, (DONE, NOT_FOUND))
    assert not agree(state, calls, (DONE, DONE))


def test_a_call_takes_effect_between_its_beginning_and_its_answer() -> None:
    """SNAP-FAIL-2: what had answered before it began came before it."""
    belief = invoke(begin(EMPTY_STORE), 0, ops.Prepare("k"))
    belief = held(respond(belief, 0, listed("/1")))
    assert isinstance(perform(belief, ops.Stat("k"), NOT_FOUND), Divergence)
    belief = invoke(begin(EMPTY_STORE), 0, ops.Prepare("k"))
    for response in (NOT_FOUND, record("k")):
        assert isinstance(perform(belief, ops.Stat("k"), response), Belief)
    seen = held(perform(belief, ops.Stat("k"), record("k")))
    assert isinstance(perform(seen, ops.Stat("k"), NOT_FOUND), Divergence)


def test_a_time_lies_within_the_call_that_set_it_when_calls_overlap() -> None:
    """SNAP-TIME-1: from the beginning of the call, until it was seen or answered."""
    belief = invoke(begin(EMPTY_STORE), 1, ops.Prepare("k"), 10)
    belief = invoke(belief, 2, ops.Stat("k"), 20)
    for created, fits in ((9, False), (10, True), (30, True), (31, False)):
        assert isinstance(respond(belief, 2, record("k", created), 30), Belief) is fits
    answered_later = held(respond(held(respond(belief, 2, NOT_FOUND, 30)), 1, listed("/1"), 40))
    for created, fits in ((9, False), (10, True), (40, True), (41, False)):
        assert isinstance(perform(answered_later, ops.Stat("k"), record("k", created), 50, 60), Belief) is fits


def test_the_time_of_an_update_that_overlaps_is_no_earlier_than_its_snapshot() -> None:
    """SNAP-TIME-3."""
    belief = invoke(begin(EMPTY_STORE), 1, ops.Prepare("k"), 10)
    belief = invoke(belief, 2, ops.Update("k"), 10)
    belief = held(respond(belief, 2, record("k", 15, 18), 20))
    assert isinstance(respond(belief, 1, listed("/1"), 30), Belief)
    again = invoke(invoke(begin(EMPTY_STORE), 1, ops.Prepare("k"), 10), 2, ops.Update("k"), 10)
    assert broken(respond(again, 2, record("k", 18, 15), 20)).clause == "SNAP-TIME-3"


def test_a_clock_that_steps_back_is_no_error() -> None:
    """The span of a call never ends before it begins."""
    belief = held(perform(begin(EMPTY_STORE), ops.Prepare("k"), listed("/1"), 10, 5))
    assert belief.state.snapshots["k"].created == Span(10, 10)


# --- facts under overlap


def test_two_prepares_that_overlap_write_to_two_places() -> None:
    """SNAP-MOUNTS-8: though neither list was known when the other call took effect."""
    calls = (ops.Prepare("a"), ops.Prepare("b"))
    assert agree(EMPTY_STORE, calls, (listed("/1"), listed("/2")))
    assert not agree(EMPTY_STORE, calls, (listed("/1"), listed("/1")))


def test_two_calls_that_overlap_are_told_one_mount_list() -> None:
    """SNAP-MOUNTS-3."""
    calls = (ops.Mounts("k"), ops.Mounts("k"))
    state = store(k=Snapshot(Kind.ACTIVE))
    assert agree(state, calls, (listed("/1"), listed("/1")))
    assert not agree(state, calls, (listed("/1"), listed("/2")))


def test_two_calls_that_overlap_are_told_one_usage_of_a_committed_snapshot() -> None:
    """SNAP-USAGE-3; that of an active one may differ between two instants."""
    calls = (ops.Usage("k"), ops.Usage("k"))
    small, large = Returned(Reading(Usage(0, 1))), Returned(Reading(Usage(4096, 1)))
    assert not agree(store(k=Snapshot(Kind.COMMITTED)), calls, (small, large))
    assert agree(store(k=Snapshot(Kind.COMMITTED)), calls, (large, large))
    assert agree(store(k=Snapshot(Kind.ACTIVE)), calls, (small, large))


def test_a_list_told_while_its_snapshot_is_removed_binds_no_later_life() -> None:
    """SNAP-KEY-3: the two lives of a key that overlap are kept apart, and each of them may be the one that is left."""
    calls = (ops.Prepare("k"), ops.Remove("k"), ops.Prepare("k"))
    for order in permutations(((0, listed("/1")), (1, DONE), (2, listed("/2")))):
        belief = held(answered(overlapping(EMPTY_STORE, *calls), *order))
        assert isinstance(perform(belief, ops.Mounts("k"), listed("/1")), Belief)
        assert isinstance(perform(belief, ops.Mounts("k"), listed("/2")), Belief)
        assert isinstance(perform(belief, ops.Mounts("k"), listed("/3")), Divergence)


def test_an_observer_that_answers_first_decides_which_life_is_left() -> None:
    """SNAP-KEY-3, SNAP-MOUNTS-3: with all four calls open, the later list belongs to the later life."""
    calls = (ops.Prepare("k"), ops.Remove("k"), ops.Prepare("k"), ops.Mounts("k"))
    belief = held(respond(overlapping(EMPTY_STORE, *calls), 3, listed("/2")))
    belief = held(answered(belief, (0, listed("/1")), (1, DONE), (2, listed("/2"))))
    assert isinstance(perform(belief, ops.Mounts("k"), listed("/3")), Divergence)


def test_what_changed_since_keeps_what_it_is() -> None:
    """A record that was seen before an update tells nothing of the labels after it."""
    state = store(k=Snapshot(Kind.ACTIVE))
    belief = overlapping(state, ops.Stat("k"), ops.Update("k", (("a", "1"),)))
    belief = held(answered(belief, (1, record("k", labels=(("a", "1"),))), (0, record("k"))))
    assert belief.state.snapshots["k"].labels == (("a", "1"),)


def test_a_write_that_overlaps_with_a_read_is_seen_or_not() -> None:
    """SNAP-FAIL-2."""
    state = store(k=Snapshot(Kind.ACTIVE))
    write = ops.Write("k", (MakeFile("f", b""),))
    full = held(perform(begin(state), write, Returned(("ok",)))).state.snapshots["k"].tree
    for tree in (EMPTY, full):
        assert agree(state, (write, ops.Read("k")), (Returned(("ok",)), Returned(tree)))


def test_a_call_without_a_namespace_overlaps_like_any_other() -> None:
    """At the direct door it is the call itself."""
    calls = (ops.Nowhere(ops.Prepare("k")), ops.Prepare("k"))
    assert agree(EMPTY_STORE, calls, (listed("/1"), TAKEN))
    assert not agree(EMPTY_STORE, calls, (listed("/1"), listed("/2")))


# --- lost answers


def test_a_lost_answer_leaves_both_worlds_until_an_observation_narrows() -> None:
    """SNAP-FAIL-2."""
    belief = after(begin(EMPTY_STORE), (ops.Prepare("k"), Lost("gone")))
    there = held(perform(belief, ops.Stat("k"), record("k")))
    assert len(there.worlds) == 1
    assert not there.calls
    assert list(there.state.snapshots) == ["k"]
    assert isinstance(perform(there, ops.Stat("k"), NOT_FOUND), Divergence)
    absent = held(perform(belief, ops.Stat("k"), NOT_FOUND))
    assert list(absent.state.snapshots) == []
    assert isinstance(perform(absent, ops.Stat("k"), record("k")), Belief), "it may take effect later"


def test_a_lost_call_takes_effect_once_at_the_most() -> None:
    """SNAP-FAIL-2: removed after it was seen, the snapshot does not come again."""
    belief = after(begin(EMPTY_STORE), (ops.Prepare("k"), Lost()), (ops.Stat("k"), record("k")), (ops.Remove("k"), DONE))
    assert isinstance(perform(belief, ops.Stat("k"), record("k")), Divergence)
    assert isinstance(perform(belief, ops.Stat("k"), NOT_FOUND), Belief)


def test_a_lost_call_may_have_taken_effect_and_been_undone() -> None:
    """Prepare of the same key again: it works, or finds the first one there, or came before a later effect of the first."""
    belief = after(begin(EMPTY_STORE), (ops.Prepare("k"), Lost()))
    assert isinstance(perform(belief, ops.Prepare("k"), TAKEN), Belief)
    again = held(perform(belief, ops.Prepare("k"), listed("/1")))
    assert isinstance(perform(again, ops.Remove("k"), DONE), Belief)
    late = after(again, (ops.Remove("k"), DONE))
    assert isinstance(perform(late, ops.Stat("k"), record("k")), Belief)


def test_a_second_lost_call_does_not_hide_the_first() -> None:
    """Both may still take effect, in either order, or neither."""
    belief = after(begin(EMPTY_STORE), (ops.Prepare("a"), Lost()), (ops.Prepare("b"), Lost()))
    infos = {key: Info(key, "", Kind.ACTIVE, (), 0, 0) for key in "ab"}
    for keys in ("", "a", "b", "ab"):
        seen = held(perform(belief, ops.Walk(), Returned(tuple(infos[key] for key in keys))))
        assert len(seen.calls) == 2 - len(keys)


def test_a_call_that_was_seen_to_take_effect_may_still_lose_its_answer() -> None:
    """What it would have answered counts for nothing then."""
    belief = overlapping(EMPTY_STORE, ops.Prepare("k"), ops.Stat("k"))
    belief = held(answered(belief, (1, record("k")), (0, Lost())))
    assert not belief.calls
    assert {w.landed for w in belief.worlds} == {Map()}


def test_a_lost_look_costs_nothing() -> None:
    """Without an effect there is nothing to wait for: the belief does not grow with the history."""
    belief = after(begin(store(k=Snapshot(Kind.ACTIVE))), (ops.Stat("k"), Lost()), (ops.Remove("absent"), Lost()))
    for number in range(20):
        belief = after(belief, (ops.Prepare(f"n{number}"), listed(f"/{number}")))
    assert len(belief.worlds) == 1


def test_a_lost_call_is_kept_while_it_is_in_doubt() -> None:
    """It may take effect at any later instant, and its time tells when: until it is seen, each of them is kept."""
    belief = held(perform(begin(EMPTY_STORE), ops.Prepare("k"), Lost(), 1, 2))
    for time in range(10, 20):
        belief = held(perform(belief, ops.Prepare(f"n{time}"), listed(f"/{time}"), time, time))
    assert isinstance(perform(belief, ops.Stat("k"), record("k", 15), 30, 30), Belief)
    settled = held(perform(belief, ops.Stat("k"), record("k", 5), 30, 30))
    assert len(settled.worlds) == 1
    assert not settled.calls


# --- disturbances


def test_a_call_of_a_driver_never_breaks_off() -> None:
    """The kit fails no call of a driver under it: an answer is what the model allows, or a divergence."""
    belief = linear.disturb(overlapping(EMPTY_STORE, ops.Prepare("k"), ops.Stat("k")), 0, "fault")
    assert isinstance(answered(belief, (1, record("k")), (0, listed("/1"))), Belief)
    assert broken(linear.respond(belief, 0, NOT_FOUND)).clause == "SNAP-PREPARE-6"
    assert SNAPSHOTS.broken_off(outcomes(EMPTY_STORE, ops.Walk(), Span(0, 0))[0], EMPTY_STORE) is None


# --- crash


def test_after_a_crash_each_open_call_has_taken_effect_or_never_will() -> None:
    """SNAP-FAIL-2."""
    belief = crash(overlapping(EMPTY_STORE, ops.Prepare("a"), ops.Prepare("b")))
    infos = {key: Info(key, "", Kind.ACTIVE, (), 0, 0) for key in "ab"}
    for keys in ("", "a", "b", "ab"):
        seen = held(perform(belief, ops.Walk(), Returned(tuple(infos[key] for key in keys))))
        assert "".join(seen.state.snapshots) == keys
        assert len(seen.worlds) == 1
        assert isinstance(perform(seen, ops.Prepare("a"), listed("/1")), Belief) is ("a" not in keys)


def test_a_crash_settles_lost_calls_too() -> None:
    belief = crash(after(begin(EMPTY_STORE), (ops.Prepare("k"), Lost())))
    absent = held(perform(belief, ops.Stat("k"), NOT_FOUND))
    assert isinstance(perform(absent, ops.Stat("k"), record("k")), Divergence)


def test_what_a_call_did_before_the_crash_is_no_news_after_it() -> None:
    """A call that was seen to take effect stays so; whether it would have answered counts for nothing."""
    belief = held(answered(overlapping(EMPTY_STORE, ops.Prepare("k"), ops.Stat("k")), (1, record("k"))))
    belief = crash(belief)
    assert len(belief.worlds) == 1
    assert belief.state.snapshots["k"].life is None


# --- limits and order


def test_too_much_overlap_fails_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates of one key can end in many ways: no verdict at all is better than a wrong one."""
    monkeypatch.setattr(linear, "LIMIT", 50)
    updates = tuple(ops.Update("k", (("l", str(number)),)) for number in range(6))
    belief = overlapping(store(k=Snapshot(Kind.ACTIVE)), *updates)
    with pytest.raises(TooManyStates, match="fewer calls may overlap"):
        respond(belief, 0, record("k", labels=(("l", "0"),)))
    with pytest.raises(TooManyStates):
        crash(belief)


def test_the_answer_itself_may_leave_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "LIMIT", 2)
    belief = overlapping(EMPTY_STORE, ops.Prepare("a"), ops.Prepare("b"))
    with pytest.raises(TooManyStates, match="more than 2"):
        crash(belief)


def test_calls_on_different_keys_do_not_multiply() -> None:
    """Their order makes no difference: as many worlds as sets of calls, not as orders of them."""
    belief = overlapping(EMPTY_STORE, *(ops.Prepare(f"k{number}") for number in range(8)))
    belief = held(respond(belief, 0, listed("/0")))
    assert len(belief.worlds) == 1 << 7


def test_a_number_is_given_to_one_open_call_only() -> None:
    belief = invoke(begin(EMPTY_STORE), 1, ops.Prepare("k"))
    with pytest.raises(icontract.ViolationError, match="one open call"):
        invoke(belief, 1, ops.Walk())
    closed = held(respond(belief, 1, listed("/1")))
    assert invoke(closed, 1, ops.Walk()).calls


def test_the_state_to_draw_by_has_the_older_snapshots_first() -> None:
    state = State(Map((("b", Snapshot(Kind.ACTIVE, created=Span(2, 3))), ("c", Snapshot(Kind.VIEW, created=Span(1, 1))))))
    state = state.put("a", Snapshot(Kind.ACTIVE, created=Span(2, 3)))
    assert list(begin(state).state.snapshots) == ["c", "a", "b"]


def test_of_several_states_the_one_with_the_fewest_snapshots_is_drawn_by() -> None:
    belief = after(begin(EMPTY_STORE), (ops.Prepare("k"), Lost()), (ops.Prepare("z"), listed("/1")))
    assert len(belief.worlds) == 2
    assert list(belief.state.snapshots) == ["z"]


ORDER = """
from snapspec.model import ops
from snapspec.model.oracle import begin, invoke, respond, perform
from snapspec.model.replies import Lost, Returned
from snapspec.model.state import State
from snapspec.model.tree import MakeFile, MakeDirectory
from snapspec.model.values import Mount
belief = begin(State())
for number, key in enumerate("dcab"):
    belief = invoke(belief, number, ops.Prepare(key, "", ((key, "1"),)))
belief = respond(belief, 2, Returned((Mount("bind", "/1"),)))
belief = respond(belief, 0, Returned((Mount("bind", "/2"),)))
for number, key in ((1, "c"), (3, "b")):
    belief = respond(belief, number, Lost())
belief = perform(belief, ops.Write("a", (MakeDirectory("x"), MakeFile("x/y", b"1"))), Lost())
belief = perform(belief, ops.Commit("n", "d"), Lost())
print(len(belief.worlds), list(belief.state.snapshots), sorted(belief.state.snapshots["a"].touched))
print(perform(belief, ops.Stat("a"), Returned(())).mismatches)
belief = perform(belief, ops.Stat("b"), Lost())
print(list(belief.state.snapshots), belief.state.snapshots)
"""


def test_the_state_and_the_divergence_are_the_same_for_the_same_history() -> None:
    """In every process: nothing that is drawn or reported hangs on the order of a set."""
    told = {
        subprocess.run(
            [sys.executable, "-c", ORDER],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1
    assert told.pop().count(b"\n") == 3


def test_equal_worlds_are_one() -> None:
    assert len({World(store()), World(State(Map(reversed(list(ONE_OF_EACH.items())))))}) == 1


def test_a_merging_driver_and_a_remover_of_the_parent() -> None:
    """SNAP-COMMIT-7, SNAP-REMOVE-2."""
    state = store(replace(DIRECT, rebase=Rebase.MERGED), k=Snapshot(Kind.ACTIVE), p=Snapshot(Kind.COMMITTED))
    calls = (ops.Commit("n", "k", (), "p"), ops.Remove("p"))
    assert agree(state, calls, (DONE, PRECONDITION))
    assert agree(state, calls, (NOT_FOUND, DONE))
    assert not agree(state, calls, (DONE, DONE))
