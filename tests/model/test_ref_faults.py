"""What disturbed calls may leave: each way in which a call breaks off, what others see of it, and what is no such way."""

from __future__ import annotations

import pytest
from ref_play import (
    CANCELLED,
    CHILD,
    CLOSED,
    DONE,
    DRIVER,
    FINAL,
    IDLE,
    INVALID,
    LOCKED,
    LONE,
    NOT_FOUND,
    OPEN,
    PAIR,
    READ_ONLY,
    SIZE,
    STORE,
    after,
    answered,
    broken,
    held,
    on,
    overlapping,
    played,
    pruned,
    sized,
)

from snapspec.model import linear, ref_faults, refs
from snapspec.model.linear import Belief, Divergence
from snapspec.model.ref_ops import (
    Close,
    Commit,
    DiskUsage,
    Finalize,
    Get,
    GetMutable,
    ListFinal,
    Mount,
    New,
    Parent,
    Prune,
    PruneOn,
    Read,
    RefOperation,
    Release,
    Restart,
    Size,
    Write,
)
from snapspec.model.ref_replies import GotRows, RefAnswer, RefReturned
from snapspec.model.refs import Declared, RefState, Row
from snapspec.model.tree import MakeFile

GET, NEW = Get("m", "g", "x"), New("n", "hn", "he")
COMMIT, MUTABLE = Commit("hm", "e", "he"), GetMutable("m", "hm2")
TWO = played(Release("hn"), state=CHILD)


def cancelled(state: RefState, op: RefOperation) -> Belief:
    """The belief after `op` alone was cancelled, and answered nothing."""
    return held(linear.respond(linear.disturb(overlapping(state, op), 0, "cancel"), 0, CANCELLED))


def failed(state: RefState, op: RefOperation) -> Belief:
    """The belief after `op` alone has failed."""
    return held(linear.respond(linear.disturb(overlapping(state, op), 0, "fault"), 0, DRIVER))


#: A call that breaks off in a state, a later call, what that may answer, and what it may not.
LEFT: list[tuple[RefState, RefOperation, RefOperation, tuple[RefAnswer, ...], tuple[RefAnswer, ...]]] = [
    (PAIR, Finalize("he"), GET, (on("e"), NOT_FOUND), (on("m"), CLOSED)),
    (PAIR, NEW, GET, (on("e"), NOT_FOUND), (on("n"),)),
    (PAIR, NEW, GetMutable("n", "g"), (NOT_FOUND,), (on("n"), LOCKED)),
    (PAIR, NEW, Size("hn"), (INVALID,), (sized(0),)),
    (PAIR, Mount("he", False), GET, (on("e"), NOT_FOUND), ()),
    (PAIR, Mount("he", True), GET, (on("e"),), (NOT_FOUND,)),
    (PAIR, Write("he", (MakeFile("g", b""),)), GET, (on("e"), NOT_FOUND), ()),
    (PAIR, Read("he"), GET, (on("e"),), (NOT_FOUND,)),
    (FINAL, NEW, Size("he"), (sized(SIZE), sized(SIZE - 512)), (sized(0),)),
    (LONE, GET, Get("m", "g2", "x2"), (on("x"), on("x2")), (LOCKED,)),
    (LONE, GET, MUTABLE, (on("m"),), (LOCKED,)),
    (LONE, GET, Prune(), (pruned("m"), pruned("mx")), (pruned(), pruned("x"))),
    (OPEN, COMMIT, Size("hm"), (sized(SIZE),), (INVALID,)),
    (OPEN, COMMIT, Get("e", "g", "x"), (NOT_FOUND,), (on("e"),)),
    (IDLE, MUTABLE, Get("e", "g", "x"), (on("e"),), (NOT_FOUND,)),
    (IDLE, MUTABLE, GetMutable("m", "g"), (on("m"),), (LOCKED,)),
    (CHILD, Parent("hn", "p"), Size("p"), (INVALID,), (sized(SIZE),)),
    (PAIR, Size("he"), Size("he"), (sized(SIZE), sized(SIZE - 512)), (sized(0), NOT_FOUND)),
    (IDLE, DiskUsage(), MUTABLE, (on("m"),), (LOCKED,)),
    (TWO, Prune(), Get("e", "g", "x"), (on("e"), NOT_FOUND), (LOCKED,)),
    (PAIR, Close(), Size("he"), (sized(SIZE), CLOSED), (INVALID,)),
    (PAIR, Close(), Close(), (DONE,), (CLOSED,)),
    (played(Close(), state=PAIR), Restart(), GET, (CLOSED, on("e")), (NOT_FOUND,)),
    (PAIR, Restart(), GET, (on("e"), CLOSED), (NOT_FOUND,)),
]


@pytest.mark.parametrize(("state", "op", "later", "may", "may_not"), LEFT, ids=lambda value: type(value).__name__)
def test_a_call_that_breaks_off_leaves_nothing_or_a_whole_effect(
    state: RefState, op: RefOperation, later: RefOperation, may: tuple[RefAnswer, ...], may_not: tuple[RefAnswer, ...]
) -> None:
    for belief in (cancelled(state, op), failed(state, op)):
        for came in may:
            assert isinstance(linear.perform(belief, later, came), Belief), came
        for came in may_not:
            assert isinstance(linear.perform(belief, later, came), Divergence), came


def test_a_manager_whose_driver_keeps_no_lists_may_have_made_final_what_it_was_to_show() -> None:
    """REF-MOUNT-4."""
    state = played(New("m", "hm"), COMMIT, state=RefState(declared=Declared(commit_keeps_lists=False)))
    for op in (Mount("he", True), Read("he")):
        for came in (on("e"), NOT_FOUND):
            assert isinstance(linear.perform(cancelled(state, op), GET, came), Belief)


def test_release_takes_effect_at_once_and_never_fails() -> None:
    """REF-HANDLE-2."""
    belief = after(cancelled(PAIR, Release("he")), (Size("he"), INVALID), (Prune(), pruned("me")))
    assert len(belief.worlds) == 1
    found = broken(linear.respond(linear.disturb(overlapping(PAIR, Release("he")), 0, "fault"), 0, STORE))
    assert found.clause == "REF-HANDLE-2"
    after(cancelled(IDLE, Release("he")), (Prune(), pruned("me")))


# --- which answers need which disturbance

UNASKED: list[tuple[str, RefAnswer]] = [
    ("", CANCELLED),
    ("", STORE),
    ("", DRIVER),
    ("fault", CANCELLED),
    ("cancel", STORE),
    ("cancel", DRIVER),
]


@pytest.mark.parametrize(("mark", "came"), UNASKED)
@pytest.mark.parametrize("op", [Finalize("he"), Size("he"), NEW, Prune(), DiskUsage(), Close()], ids=repr)
def test_only_what_disturbed_a_call_may_end_it(op: RefOperation, mark: str, came: RefAnswer) -> None:
    belief = overlapping(PAIR, op)
    if mark:
        belief = linear.disturb(belief, 0, mark)
    assert isinstance(linear.respond(belief, 0, came), Divergence)


def test_a_fault_is_of_all_open_calls_and_a_cancellation_of_one() -> None:
    """REF-SIZE-5: those who waited share it, and nobody later."""
    belief = overlapping(PAIR, Size("he"), Size("he"))
    belief = linear.disturb(linear.disturb(belief, 0, "cancel"), 1, "fault")
    assert linear.disturb(belief, 0, "fault") is belief
    assert {call: begun.disturbed for call, begun in belief.calls.items()} == {0: {"cancel", "fault"}, 1: {"fault"}}
    belief = linear.invoke(belief, 2, Size("he"))
    for call, came, fits in (
        (0, CANCELLED, True),
        (0, STORE, True),
        (1, CANCELLED, False),
        (1, DRIVER, True),
        (2, DRIVER, False),
    ):
        assert isinstance(linear.respond(belief, call, came), Belief) is fits


def test_a_disturbed_call_may_answer_as_ever() -> None:
    """After the point of no return it completes (REF-POINT-1), and what it says is judged as ever."""
    for what in ("cancel", "fault"):
        belief = linear.disturb(overlapping(PAIR, Size("he"), Finalize("he")), 1, what)
        assert isinstance(answered(belief, (1, DONE), (0, sized(SIZE))), Belief)
        assert broken(linear.respond(belief, 1, INVALID)).clause == "REF-FINAL-1"


# --- what has been seen of a call that breaks off


def seen(state: RefState, op: RefOperation, *looks: tuple[RefOperation, RefAnswer]) -> Belief:
    """The belief when `op` runs, and these calls, which began after it, have answered; then it is cancelled."""
    belief = overlapping(state, op)
    for number, (look, came) in enumerate(looks, 1):
        belief = held(linear.respond(linear.invoke(belief, number, look), number, came))
    return linear.disturb(belief, 0, "cancel")


def test_finalize_may_break_off_after_it_was_seen() -> None:
    """REF-FINAL-3: then it stays final."""
    belief = held(linear.respond(seen(PAIR, Finalize("he"), (GET, NOT_FOUND)), 0, CANCELLED))
    assert isinstance(linear.perform(belief, Get("m", "g2", "x2"), on("e")), Divergence)


def test_what_gives_a_handle_that_was_seen_returns_it() -> None:
    """REF-POINT-2."""
    for state, op, look, came in ((OPEN, COMMIT, Get("e", "g", "x"), on("e")), (IDLE, MUTABLE, Get("e", "g", "x"), NOT_FOUND)):
        belief = seen(state, op, (look, came))
        assert broken(linear.respond(belief, 0, CANCELLED)).clause.startswith(("REF-COMMIT", "REF-MUT"))
    row = Row("x", "", False, True, SIZE)
    belief = held(linear.respond(seen(LONE, GET, (DiskUsage(), RefReturned(GotRows((row,))))), 0, CANCELLED))
    after(belief, (Size("g"), INVALID), (MUTABLE, on("m"))), "a get that committed may give its handle back"


def test_new_that_breaks_off_lets_its_parent_go() -> None:
    """REF-POINT-2: also while other calls run."""
    belief = seen(PAIR, NEW, (GET, NOT_FOUND), (Release("he"), DONE))
    belief = held(answered(linear.invoke(belief, 9, Prune()), (0, CANCELLED)))
    assert isinstance(linear.respond(belief, 9, pruned("e")), Belief)
    assert isinstance(linear.respond(belief, 9, pruned()), Belief), "the parent was not idle when the prune began"
    assert isinstance(linear.perform(belief, Prune(), pruned()), Belief), "the other prune has taken it"
    alone = held(linear.respond(seen(PAIR, NEW, (GET, NOT_FOUND), (Release("he"), DONE)), 0, CANCELLED))
    assert isinstance(linear.perform(alone, Prune(), pruned()), Divergence)


def test_a_claim_may_end_before_its_call_has_answered() -> None:
    """The prune answers first: the new that was cancelled has not answered, but can come to nothing any more."""
    belief = seen(PAIR, NEW, (GET, NOT_FOUND), (Release("he"), DONE))
    belief = held(linear.perform(belief, Prune(), pruned("e")))
    assert isinstance(linear.respond(belief, 0, CANCELLED), Belief)
    assert isinstance(linear.respond(belief, 0, on("n")), Divergence)


def test_a_handle_leaked_by_a_new_that_was_cancelled_shows() -> None:
    """REF-POINT-2: by its row, and by a prune that leaves it."""
    belief = after(cancelled(RefState(), New("n", "hn")))
    row = Row("n", "", True, True, 0)
    assert broken(linear.perform(belief, DiskUsage(), RefReturned(GotRows((row,))))).clause == "REF-USAGE-1"
    assert broken(linear.perform(belief, Prune(), pruned("n"))).clause == "REF-PRUNE-3"


# --- prune


@pytest.mark.parametrize(
    ("came", "fits"),
    [
        (pruned("n", errors=1), True),
        (pruned("n", "e", errors=1), True),
        (pruned("n", "e", errors=2, size=SIZE), True),
        (pruned(errors=1), True),
        (pruned("n", "n", errors=1), False),
        (pruned("e", errors=1), True),
        (pruned("e", errors=1, size=-1), False),
        (pruned("m", errors=1), False),
        (pruned("n"), False),
        (STORE, True),
    ],
)
def test_a_prune_that_fails_reports_what_it_has_removed(came: RefAnswer, fits: bool) -> None:
    """REF-PRUNE-3: each error may hide a row, as the mark may be there although its write failed (REF-PRUNE-2)."""
    belief = linear.disturb(overlapping(TWO, Prune()), 0, "fault")
    assert isinstance(linear.respond(belief, 0, came), Belief) is fits


def test_one_error_hides_one_row() -> None:
    belief = linear.disturb(overlapping(TWO, Prune()), 0, "fault")
    gone = held(linear.respond(linear.invoke(belief, 1, Get("e", "g", "x")), 1, NOT_FOUND))
    assert isinstance(linear.respond(gone, 0, pruned("n", errors=1)), Belief)
    assert isinstance(linear.respond(gone, 0, pruned(errors=2)), Belief)
    assert broken(linear.respond(gone, 0, pruned(errors=1))).clause == "REF-PRUNE-3"


def test_a_prune_that_was_seen_to_the_end_may_still_fail() -> None:
    belief = seen(IDLE, Prune(), (GET, NOT_FOUND))
    assert isinstance(linear.respond(belief, 0, CANCELLED), Belief)
    assert isinstance(linear.respond(linear.disturb(belief, 0, "fault"), 0, pruned(errors=1)), Belief)


def test_what_a_failed_prune_told_has_to_be_gone() -> None:
    belief = held(linear.respond(linear.disturb(overlapping(TWO, Prune()), 0, "fault"), 0, pruned("n", errors=1)))
    assert isinstance(linear.perform(belief, GetMutable("n", "g"), on("n")), Divergence)
    for came in (on("e"), NOT_FOUND):
        assert isinstance(linear.perform(belief, Get("e", "g", "x"), came), Belief)


# --- crash, and answers that are lost


def test_what_was_disturbed_may_be_there_after_a_crash() -> None:
    """REF-OPEN-1: a get that was cancelled may have left the pair, whether it came to answer or not."""
    belief = linear.crash(linear.disturb(overlapping(LONE, GET), 0, "cancel"))
    belief = after(belief, (Restart(), DONE))
    for came in (on("x"), on("x2")):
        assert isinstance(linear.perform(belief, Get("m", "g2", "x2"), came), Belief)


# --- in itself


def test_the_first_way_to_break_off_is_without_an_effect() -> None:
    """Of every call, in every state here; and what is left of one leaves no more than the call itself."""
    ops: tuple[RefOperation, ...] = (NEW, GET, COMMIT, MUTABLE, Finalize("he"), Size("he"), Mount("he", False), Prune(), Close())
    for state in (OPEN, PAIR, IDLE, FINAL, CHILD, LONE):
        for op in ops:
            first, *others = ref_faults.disturbed(state, op)
            assert first.state is state
            assert all(refs.well_formed(end.state) and end.state != state for end in others)
    assert [end.state for end in ref_faults.disturbed(FINAL, ListFinal(Mount("he", False)))] == [FINAL]
    assert ref_faults.disturbed(FINAL, PruneOn((), (), frozenset()))[0].removed == ()


def test_what_has_taken_effect_stays_when_its_call_breaks_off() -> None:
    state = played(Finalize("he"), state=PAIR)
    for outcome in (refs.outcomes(PAIR, Finalize("he"))[0], refs.outcomes(PAIR, Size("he"))[0]):
        end = ref_faults.broken_off(outcome, state)
        assert end is not None
        assert end.state is state
    assert ref_faults.broken_off(refs.outcomes(OPEN, COMMIT)[0], PAIR) is None
    assert ref_faults.broken_off(refs.outcomes(OPEN, Write("hm", ()))[0], OPEN) is None
    assert ref_faults.broken_off(ref_faults.disturbed(PAIR, Size("he"))[0], state) == ref_faults.Broken("REF-SIZE-2", state)


def test_an_ordinary_list_is_no_end_of_a_call_that_broke_off() -> None:
    """The belief in which get left the pair and nothing more: a handle, or a list, does not fit any more."""
    belief = linear.disturb(overlapping(LONE, GET), 0, "cancel")
    other = linear.invoke(belief, 1, Get("m", "g2", "x2"))
    other = held(linear.respond(other, 1, on("x")))
    later = held(linear.perform(after(other, (Release("g2"), DONE)), MUTABLE, on("m")))
    assert isinstance(linear.respond(later, 0, CANCELLED), Belief)
    assert broken(linear.respond(later, 0, READ_ONLY)).clause == "REF-POINT-2"
