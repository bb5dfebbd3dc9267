"""What the oracle believes of a manager: overlap, wrong answers, sizes, crashes, and all orders of short histories."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations_with_replacement, pairwise, product
from random import Random

import pytest
from ref_play import (
    CANCELLED,
    CHILD,
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
    agree,
    answer,
    answered,
    broken,
    held,
    on,
    overlapping,
    played,
    pruned,
    sized,
)

from snapspec.model import linear, refs
from snapspec.model.linear import Belief, Divergence
from snapspec.model.ref_ops import (
    Close,
    Commit,
    DiskUsage,
    Finalize,
    Get,
    GetMutable,
    Mount,
    New,
    Parent,
    Prune,
    Read,
    RefOperation,
    RefStep,
    Release,
    Restart,
    Size,
    Write,
)
from snapspec.model.ref_oracle import REFS, begin
from snapspec.model.ref_replies import GotPruned, GotRows, GotSize, RefAccepted, RefAnswer, RefReturned
from snapspec.model.refs import RefState, Row
from snapspec.model.tree import MakeFile

GET, AGAIN, MUTABLE = Get("m", "g", "x"), Get("m", "g2", "x2"), GetMutable("m", "hm2")
NEW, CHANGE = New("n", "hn", "he"), Write("hm", (MakeFile("g", b"y" * (1 << 17)),))
USED, UNUSED = Row("e", "", False, True, SIZE), Row("m", "", True, False, SIZE)


def rows(*shown: Row) -> RefReturned:
    return RefReturned(GotRows(shown))


# --- overlap, by hand

ALLOWED: list[tuple[str, RefState, tuple[RefOperation, ...], tuple[RefAnswer, ...]]] = [
    ("size at any moment of finalize", PAIR, (Size("he"), Finalize("he")), (sized(SIZE), DONE)),
    ("size, then release", PAIR, (Size("he"), Release("he"), MUTABLE), (sized(SIZE), DONE, on("m"))),
    ("size after release", PAIR, (Size("he"), Release("he"), MUTABLE), (INVALID, DONE, on("m"))),
    ("get_mutable before release", PAIR, (Size("he"), Release("he"), MUTABLE), (sized(SIZE), DONE, LOCKED)),
    ("get before commit", OPEN, (Commit("hm", "e", "he"), GET, MUTABLE), (on("e"), LOCKED, LOCKED)),
    ("get after commit", OPEN, (Commit("hm", "e", "he"), GET, MUTABLE), (on("e"), on("e"), LOCKED)),
    ("new keeps the parent", PAIR, (NEW, Release("he"), Prune()), (on("n"), DONE, pruned())),
    ("prune before new", PAIR, (NEW, Release("he"), Prune()), (INVALID, DONE, pruned("me"))),
    ("prune before release", PAIR, (NEW, Release("he"), Prune()), (INVALID, DONE, pruned())),
    ("the first prune", IDLE, (Prune(), Prune()), (pruned("me"), pruned())),
    ("the second prune", IDLE, (Prune(), Prune()), (pruned(), pruned("me"))),
    ("prunes that share a chain", played(Release("hn"), state=CHILD), (Prune(), Prune()), (pruned("n"), pruned("e"))),
    ("mount before release", PAIR, (Mount("he", False), Finalize("he"), Release("he")), (READ_ONLY, DONE, DONE)),
    ("mount after release", PAIR, (Mount("he", False), Finalize("he"), Release("he")), (INVALID, INVALID, DONE)),
    ("mount makes final, then release", PAIR, (Mount("he", False), Release("he"), GET), (READ_ONLY, DONE, NOT_FOUND)),
    ("rows beside finalize", PAIR, (DiskUsage(), Finalize("he")), (rows(USED), DONE)),
    ("rows before release", PAIR, (DiskUsage(), Release("he")), (rows(USED), DONE)),
    ("rows after release", PAIR, (DiskUsage(), Release("he")), (rows(UNUSED), DONE)),
    ("two gets share one E", LONE, (GET, AGAIN), (on("x"), on("x"))),
    ("two gets share the other E", LONE, (GET, AGAIN), (on("x2"), on("x2"))),
    ("get while E has a handle", LONE, (GET, AGAIN), (on("x"), LOCKED)),
    ("prune before get", IDLE, (Prune(), Get("e", "g", "x")), (pruned("me"), NOT_FOUND)),
    ("get before prune", IDLE, (Prune(), Get("e", "g", "x")), (pruned(), on("e"))),
    ("a size that is not known may be told by prune", IDLE, (Prune(), Prune()), (pruned("me", size=SIZE), pruned())),
]

FORBIDDEN: list[tuple[str, RefState, tuple[RefOperation, ...], tuple[RefAnswer, ...]]] = [
    ("the size race is an error", PAIR, (Size("he"), Finalize("he")), (NOT_FOUND, DONE)),
    ("the size race is a zero", PAIR, (Size("he"), Finalize("he")), (sized(0), DONE)),
    ("two sizes", PAIR, (Size("he"), Size("he"), Finalize("he")), (sized(SIZE), sized(SIZE - 512), DONE)),
    ("size and rows differ", PAIR, (Size("he"), DiskUsage(), Release("he")), (sized(SIZE - 512), rows(USED), DONE)),
    ("size is not found", PAIR, (Size("he"), Release("he"), MUTABLE), (NOT_FOUND, DONE, on("m"))),
    ("M is given out under E", PAIR, (Size("he"), Release("he"), MUTABLE), (sized(SIZE), DONE, NOT_FOUND)),
    ("get_mutable beside commit", OPEN, (Commit("hm", "e", "he"), GET, MUTABLE), (on("e"), LOCKED, on("m"))),
    ("a second E", OPEN, (Commit("hm", "e", "he"), GET, MUTABLE), (on("e"), on("x"), LOCKED)),
    ("the parent of a new record is pruned", PAIR, (NEW, Release("he"), Prune()), (on("n"), DONE, pruned("e"))),
    ("the pair under a new record is pruned", PAIR, (NEW, Release("he"), Prune()), (on("n"), DONE, pruned("me"))),
    ("a row in two prunes", IDLE, (Prune(), Prune()), (pruned("me"), pruned("me"))),
    ("an idle pair in no prune", IDLE, (Prune(), Prune()), (pruned(), pruned())),
    ("half of a pair is pruned", IDLE, (Prune(), Prune()), (pruned("m"), pruned())),
    ("a size below zero", IDLE, (Prune(), Prune()), (pruned("me", size=-1), pruned())),
    ("mount is not found", PAIR, (Mount("he", False), Finalize("he"), Release("he")), (NOT_FOUND, DONE, DONE)),
    ("M is there after E is final", PAIR, (Mount("he", False), Release("he"), GET), (READ_ONLY, DONE, on("m"))),
    ("rows of both halves", PAIR, (DiskUsage(), Release("he")), (rows(USED, UNUSED), DONE)),
    ("no row at all", PAIR, (DiskUsage(), Finalize("he")), (rows(), DONE)),
    ("two gets make two", LONE, (GET, AGAIN), (on("x"), on("x2"))),
    ("neither get succeeds", LONE, (GET, AGAIN), (LOCKED, LOCKED)),
    ("get of what is pruned", IDLE, (Prune(), Get("e", "g", "x")), (pruned("me"), on("e"))),
]


@pytest.mark.parametrize(("state", "calls", "answers"), [case[1:] for case in ALLOWED], ids=[case[0] for case in ALLOWED])
def test_answers_that_some_order_gives_are_allowed(
    state: RefState, calls: tuple[RefOperation, ...], answers: tuple[RefAnswer, ...]
) -> None:
    assert agree(state, calls, answers)


@pytest.mark.parametrize(("state", "calls", "answers"), [case[1:] for case in FORBIDDEN], ids=[case[0] for case in FORBIDDEN])
def test_answers_that_no_order_gives_diverge(
    state: RefState, calls: tuple[RefOperation, ...], answers: tuple[RefAnswer, ...]
) -> None:
    assert not agree(state, calls, answers)


# --- wrong answers, each with the clause that it breaks

WRONG: list[tuple[str, RefState, tuple[RefOperation, ...], RefAnswer, str]] = [
    ("a race of size is not found", PAIR, (Size("he"), Finalize("he")), NOT_FOUND, "REF-SIZE-4"),
    ("a zero is stored", PAIR, (Size("he"), Finalize("he")), sized(0), "REF-SIZE-4"),
    ("more than the layer holds", PAIR, (Size("he"),), sized(1 << 30), "REF-SIZE-4"),
    ("not what the directory holds", OPEN, (Size("hm"),), RefReturned(GotSize(SIZE, SIZE - 4096)), "REF-SIZE-6"),
    ("E after get_mutable", played(MUTABLE, state=IDLE), (Get("e", "g", "x"),), on("e"), "REF-ERROR-2"),
    ("M after finalize", FINAL, (GET,), on("m"), "REF-ERROR-2"),
    ("prune of what is in use", PAIR, (Prune(),), pruned("me"), "REF-PRUNE-1"),
    ("prune leaves what is idle", IDLE, (Prune(),), pruned(), "REF-PRUNE-1"),
    ("locked while idle", IDLE, (MUTABLE,), LOCKED, "REF-MUT-3"),
    ("locked by a call that runs", LONE, (MUTABLE, DiskUsage()), LOCKED, "REF-MUT-3"),
    ("an error of the store for nothing", PAIR, (Finalize("he"),), STORE, "REF-FINAL-3"),
    ("an error that others had", PAIR, (Size("he"), Size("he")), DRIVER, "REF-SIZE-5"),
    ("a cancellation that others had", PAIR, (Size("he"), Size("he")), CANCELLED, "REF-SIZE-5"),
    ("cancelled for nothing", PAIR, (NEW,), CANCELLED, "REF-NEW-2"),
    ("errors of prune for nothing", IDLE, (Prune(),), pruned(errors=1), "REF-PRUNE-1"),
    ("a writable list of E", PAIR, (Mount("he", True),), answer(refs.outcomes(OPEN, Mount("hm", False))[0]), "REF-MOUNT-1"),
    ("an idle row in use", IDLE, (DiskUsage(),), rows(USED), "REF-USAGE-1"),
    ("a wrong value", PAIR, (Finalize("he"),), on("e"), "REF-FINAL-1"),
]


@pytest.mark.parametrize(("state", "calls", "wrong", "clause"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_answer_names_the_clause(state: RefState, calls: tuple[RefOperation, ...], wrong: RefAnswer, clause: str) -> None:
    """The first of the calls gives the wrong answer, while the others run."""
    assert broken(answered(overlapping(state, *calls), (0, wrong))).clause == clause


# --- sizes


def test_a_size_told_is_the_size_for_ever() -> None:
    """REF-SIZE-1: by whoever asked, through finalize, restart, and in rows."""
    belief = after(begin(PAIR), (Size("he"), sized(SIZE - 512)), (Finalize("he"), DONE), (Close(), DONE), (Restart(), DONE))
    belief = after(belief, (Get("e", "g", "x"), on("e")))
    assert broken(linear.perform(belief, Size("g"), sized(SIZE))).clause == "REF-SIZE-1"
    assert broken(linear.perform(belief, DiskUsage(), rows(USED))).clause == "REF-USAGE-3"
    belief = after(belief, (Size("g"), sized(SIZE - 512)), (Release("g"), DONE))
    assert isinstance(linear.perform(belief, Prune(), pruned("e")), Divergence)
    assert isinstance(linear.perform(belief, Prune(), pruned("e", size=SIZE)), Divergence)
    assert isinstance(linear.perform(belief, Prune(), pruned("e", size=SIZE - 512)), Belief)


def test_a_size_told_counts_for_a_call_whose_record_is_gone() -> None:
    """REF-SIZE-1: both sizes were measured before the record went, and both are told afterwards."""
    calls = (Size("he"), Size("he"), Release("he"), MUTABLE)
    gone = held(answered(overlapping(PAIR, *calls), (2, DONE), (3, on("m")), (0, sized(SIZE))))
    assert isinstance(linear.respond(gone, 1, sized(SIZE - 512)), Divergence)
    assert isinstance(linear.respond(gone, 1, sized(SIZE)), Belief)


def test_a_size_told_counts_for_rows_that_were_taken_before() -> None:
    """REF-SIZE-1, REF-USAGE-3: the rows are of a moment before the release, and the size is the same in them."""
    calls = (DiskUsage(), Size("he"), Release("he"), MUTABLE)
    for first, second in ((SIZE, SIZE - 512), (SIZE - 512, SIZE)):
        belief = held(answered(overlapping(PAIR, *calls), (2, DONE), (3, on("m")), (1, sized(first))))
        row = Row("e", "", False, True, second)
        assert broken(linear.respond(belief, 0, rows(row))).clause in {"REF-USAGE-3", "REF-USAGE-1"}
        told = Row("e", "", False, True, first)
        assert isinstance(linear.respond(belief, 0, rows(told)), Belief)


def test_a_size_is_that_of_the_layer_over_its_parent() -> None:
    """REF-SIZE-1: also where the moment of the measurement is past when it is told."""
    over = played(Write("hn", (MakeFile("g", b"y" * 8192),)), Commit("hn", "c", "hc"), Get("e", "g", "x"), state=CHILD)
    calls = (Size("hc"), Size("g"), Finalize("hc"), Get("n", "gone", "x"))
    belief = held(answered(overlapping(over, *calls), (3, NOT_FOUND)))
    assert isinstance(answered(belief, (0, sized(12288)), (1, sized(SIZE)), (2, DONE)), Belief)
    assert broken(answered(belief, (0, sized(4096)))).clause == "REF-SIZE-4"
    rows = (Row("c", "e", False, True, 12288), Row("e", "", False, True, SIZE))
    looked = held(linear.respond(linear.invoke(belief, 4, DiskUsage()), 4, RefReturned(GotRows(rows))))
    assert isinstance(linear.respond(looked, 0, sized(12800)), Divergence)


def test_the_size_of_a_mutable_record_is_measured_each_time() -> None:
    """REF-SIZE-6."""
    after(begin(OPEN), (Size("hm"), sized(SIZE)), (Size("hm"), sized(SIZE - 512)), (Size("hm"), sized(SIZE)))


def test_what_was_told_is_told_once() -> None:
    """Telling again what is known changes nothing, and neither does a size of what is gone."""
    belief = after(begin(PAIR), (Size("he"), sized(SIZE)))
    (world,) = belief.worlds
    assert REFS.learn(world.state, world.state, RefAccepted((), (("e", SIZE), ("gone", 1)))) is world.state


# --- what is drawn by


def test_the_state_to_draw_by_is_sorted() -> None:
    state = played(New("b", "h2"), New("a", "h1"))
    shown = begin(played(New("c", "h3"), state=state)).state
    assert (list(shown.records), list(shown.handles), list(shown.driver.snapshots)) == (
        ["a", "b", "c"],
        ["h1", "h2", "h3"],
        list("abc"),
    )


def test_of_several_states_the_one_with_the_fewest_records_is_drawn_by() -> None:
    """Where content alone differs it decides."""
    belief = linear.crash(overlapping(LONE, GET, AGAIN))
    assert len(belief.worlds) > 1
    assert set(belief.state.records) == {"m"}
    writes = [Write("hm", (MakeFile(name, b"1"),)) for name in "ab"]
    belief = linear.crash(overlapping(OPEN, *writes))
    assert len(belief.worlds) == 4
    assert set(belief.state.driver.snapshots["m"].tree.nodes) == {"", "a", "b", "f"}


def test_what_is_allowed_is_told_in_words() -> None:
    """Of a call that takes effect in steps, its end."""
    belief = begin(PAIR)
    assert linear.allowed(belief, New("n", "hn", "he")) == (("REF-NEW-2", "a handle on 'n'"),)
    assert linear.allowed(belief, Prune()) == (("REF-PRUNE-3", "rows []"),)
    overlapped = held(answered(overlapping(LONE, GET, AGAIN), (0, on("x"))))
    assert linear.allowed(overlapped, MUTABLE) == (("REF-MUT-2", "Locked"),)


ORDER = """
from ref_play import OPEN, on, overlapping, answered, pruned, DONE
from snapspec.model import linear
from snapspec.model.ref_ops import *
from snapspec.model.ref_replies import GotWords, RefReturned
from snapspec.model.tree import MakeFile
writes = [Write("hm", (MakeFile(name, b"1"),)) for name in "ab"]
belief = answered(overlapping(OPEN, *writes, Commit("hm", "e", "he"), New("z", "hz"), New("y", "hy")), (2, on("e")), (3, on("z")))
print(len(belief.worlds), belief.state.records, belief.state.handles, sorted(belief.state.driver.snapshots["m"].tree.nodes))
for what in ("cancel", "fault"):
    belief = linear.disturb(belief, 0, what)
print(linear.crash(belief).state.records, len(linear.crash(belief).worlds))
print(linear.respond(belief, 4, pruned("z")).mismatches)
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


# --- crash


def test_a_call_that_dies_leaves_what_it_had_done() -> None:
    """REF-POINT-1, REF-OPEN-1: new died before the record was made, or after."""
    belief = after(linear.crash(overlapping(PAIR, NEW)), (Restart(), DONE))
    assert {tuple(sorted(w.state.records)) for w in belief.worlds} == {("e", "m"), ("e",), ("e", "n")}
    for removed in (("me",), ("e",), ("n", "e")):
        assert isinstance(linear.perform(belief, Prune(), pruned(*removed)), Belief), "a claim has died with its call"


def test_a_crash_leaves_each_removal_done_or_not() -> None:
    """REF-PRUNE-2: children first."""
    belief = after(linear.crash(overlapping(played(Release("hn"), state=CHILD), Prune())), (Restart(), DONE))
    for answers, fits in (((on("n"), on("e")), True), ((NOT_FOUND, on("e")), True), ((on("n"), NOT_FOUND), False)):
        found = linear.perform(belief, GetMutable("n", "g1"), answers[0])
        again = linear.perform(held(found), Get("e", "g2", "x"), answers[1])
        assert isinstance(again, Belief) is fits


def test_handles_do_not_survive_a_crash() -> None:
    """REF-OPEN-1."""
    belief = after(linear.crash(overlapping(PAIR, Finalize("he"))), (Restart(), DONE), (Size("he"), INVALID))
    for come in (on("e"), NOT_FOUND):
        assert isinstance(linear.perform(belief, GET, come), Belief), "final or not"


# --- all orders of short histories, against a search that knows no laziness

Everyone = tuple[RefState, tuple[RefOperation | RefStep | None, ...], tuple[RefAnswer | None, ...]]


def every_end(state: RefState, calls: tuple[RefOperation, ...]) -> set[tuple[RefAnswer | None, ...]]:
    """The answers of all calls, for every order of their steps."""
    todo: list[Everyone] = [(state, calls, (None,) * len(calls))]
    seen: set[Everyone] = set(todo)
    ends = set()
    while todo:
        now, left, told = todo.pop()
        if None not in told:
            ends.add(told)
        for at, op in enumerate(left):
            for after_ in _stepped(now, left, told, at) if op is not None else ():
                if after_ not in seen:
                    seen.add(after_)
                    todo.append(after_)
    return ends


def _stepped(
    state: RefState, left: tuple[RefOperation | RefStep | None, ...], told: tuple[RefAnswer | None, ...], at: int
) -> Iterator[Everyone]:
    op = left[at]
    assert op is not None
    for outcome in refs.steps(state, op):
        came = None if outcome.rest is not None else answer(outcome)
        after_ = outcome.state if came is None else known(outcome.state, came, outcome.reply)
        yield after_, (*left[:at], outcome.rest, *left[at + 1 :]), (*told[:at], came, *told[at + 1 :])


CALLS: tuple[RefOperation, ...] = (
    New("n1", "h1"),
    New("n2", "h2", "he"),
    GET,
    Get("e", "g3", "x3"),
    MUTABLE,
    Commit("hm", "c", "hc"),
    Finalize("he"),
    Release("he"),
    Release("hm"),
    Size("he"),
    Size("hm"),
    Parent("he", "p"),
    Mount("he", True),
    Mount("he", False),
    CHANGE,
    Read("he"),
    DiskUsage(),
    Prune(),
    Close(),
)


def named_apart(calls: tuple[RefOperation, ...]) -> bool:
    """Each call names what it makes by names of its own; two of these would not."""
    return not any(a == b and isinstance(a, New | Get | GetMutable | Commit | Parent) for a, b in pairwise(calls))


def judged(state: RefState, calls: tuple[RefOperation, ...], draw: Random) -> None:
    """The oracle allows those answers that some order gives, in a drawn order of answering, and no other mixture of them."""
    right = every_end(state, calls)
    single = [sorted({told[at] for told in right}, key=repr) for at in range(len(calls))]
    for answers in product(*single):
        order = draw.sample(range(len(calls)), len(calls))
        came = [(at, told) for at in order if (told := answers[at]) is not None]
        found = answered(overlapping(state, *calls), *came)
        if any(all(map(same, told, answers)) for told in right):
            assert isinstance(found, Belief), (calls, answers, order)
        elif not any(all(map(alike, told, answers)) for told in right):
            assert isinstance(found, Divergence), (calls, answers, order)


def same(told: RefAnswer | None, came: RefAnswer | None) -> bool:
    """Whether these are one answer, but for sizes of what prune removed: one that is not known may have been stored untold."""
    return told == came or (alike(told, came) and all(size in (None, dict(rows_of(came))[ids]) for ids, size in rows_of(told)))


def alike(told: RefAnswer | None, came: RefAnswer | None) -> bool:
    """Whether they are so when no size counts: one that is told after its record is gone is known too late for its row."""
    rows, others = rows_of(told), rows_of(came)
    return told == came or (0 < len(rows) == len(others) and dict(rows).keys() == dict(others).keys())


def rows_of(came: RefAnswer | None) -> tuple[tuple[frozenset[str], int | None], ...]:
    return came.value.removed if isinstance(came, RefReturned) and isinstance(came.value, GotPruned) else ()


@pytest.mark.parametrize("state", [OPEN, PAIR, IDLE, CHILD], ids=["open", "pair", "idle", "child"])
def test_of_every_two_calls_the_oracle_allows_what_some_order_gives(state: RefState) -> None:
    draw = Random(1)
    for calls in combinations_with_replacement(CALLS, 2):
        if named_apart(calls):
            judged(state, calls, draw)


@pytest.mark.parametrize(("count", "tries"), [(3, 150), pytest.param(4, 400, marks=pytest.mark.deep)])
def test_of_more_calls_the_oracle_allows_what_some_order_gives(count: int, tries: int) -> None:
    draw = Random(2)
    for _ in range(tries):
        calls = tuple(draw.sample(CALLS, count))
        judged(draw.choice((OPEN, PAIR, IDLE, CHILD, LONE, FINAL)), calls, draw)


# --- drawn histories of the model itself


def drawn(state: RefState, draw: Random, number: int) -> RefOperation:
    """Any call, on records and handles that are there, or were."""
    handle = draw.choice([*state.handles, "none"])
    record = draw.choice([*state.records, "none"])
    new, e, h = f"n{number}", f"e{number}", f"h{number}"
    parent = draw.choice([None, handle])
    calls: tuple[RefOperation, ...] = (
        *(New(new, h, parent), Get(record, h, e), GetMutable(record, h), Commit(handle, e, h), Finalize(handle)),
        *(Release(handle), Size(handle), Parent(handle, h), Mount(handle, draw.random() < 0.5), Read(handle)),
        *(Write(handle, (MakeFile(new, b"x" * draw.randrange(9000)),)), DiskUsage(), Prune()),
    )
    return draw.choice((Close(), Restart()) if draw.random() < 0.05 or state.closed else calls)


@pytest.mark.parametrize("seed", range(4))
def test_what_the_model_allows_the_oracle_accepts(seed: int) -> None:
    """Histories without overlap, each answer that of some allowed outcome."""
    for number in range(12):
        draw = Random(f"{seed} {number}")
        state, belief = RefState(), begin(RefState())
        for at in range(25):
            op = drawn(state, draw, at)
            outcome = draw.choice(refs.outcomes(state, op))
            came = answer(outcome)
            belief = held(linear.perform(belief, op, came))
            state = known(outcome.state, came, outcome.reply)
        assert len(belief.worlds) == 1
        assert {w.state for w in belief.worlds} == {state}


def known(state: RefState, came: RefAnswer, reply: refs.RefReply) -> RefState:
    """The state with the sizes that the answer will tell: they are stored before (REF-SIZE-2)."""
    told: tuple[tuple[str, int], ...] = ()
    if isinstance(came, RefReturned) and isinstance(came.value, GotSize) and isinstance(reply, refs.TellsSize):
        told = ((reply.record, came.value.size),)
    if isinstance(came, RefReturned) and isinstance(came.value, GotRows):
        told = tuple((row.record, row.size) for row in came.value.rows if row.size is not None)
    told = tuple((name, size) for name, size in told if name in state.records and not state.records[name].mutable)
    return REFS.learn(state, state, RefAccepted((), told))


class Running:
    """A manager in which calls overlap: what happens next is drawn, and the oracle is told of it."""

    def __init__(self, draw: Random) -> None:
        self.draw = draw
        self.state = RefState()
        self.belief = begin(self.state)
        self.left: dict[int, RefOperation | RefStep] = {}
        self.answers: dict[int, RefAnswer] = {}
        self.marks: dict[int, str] = {}

    def go_on(self, number: int) -> None:
        """A call begins, takes effect, is disturbed, breaks off, or answers."""
        if self.answers and self.draw.random() < 0.5:
            call = self.draw.choice([*self.answers])
            self.belief = held(linear.respond(self.belief, call, self.answers.pop(call)))
        elif self.left and self.draw.random() < 0.6:
            self.move(self.draw.choice([*self.left]))
        elif len(self.left) + len(self.answers) < 3:
            self.left[number] = drawn(self.state, self.draw, number)
            self.belief = linear.invoke(self.belief, number, self.left[number])

    def move(self, call: int) -> None:
        if self.draw.random() < 0.1:
            self.marks[call] = self.draw.choice(("cancel", "fault"))
            self.belief = linear.disturb(self.belief, call, self.marks[call])
        op = self.left.pop(call)
        if call in self.marks and self.draw.random() < 0.7:
            end = self.draw.choice(REFS.disturbed(self.state, op))
            released = isinstance(op, Release)
            self.state = end.state
            self.answers[call] = (
                CANCELLED if self.marks[call] == "cancel" else DONE if released else self.draw.choice((STORE, DRIVER))
            )
            return
        outcome = self.draw.choice(refs.steps(self.state, op))
        if outcome.rest is not None:
            self.state, self.left[call] = outcome.state, outcome.rest
        else:
            self.answers[call] = answer(outcome)
            self.state = known(outcome.state, self.answers[call], outcome.reply)


@pytest.mark.parametrize("seed", range(4))
def test_what_overlapping_calls_of_the_model_answer_the_oracle_accepts(seed: int) -> None:
    """Disturbed ones too. At the end, with nothing open, the state of the model is one that is believed in."""
    for number in range(12):
        running = Running(Random(f"{seed} {number}"))
        for at in range(60):
            running.go_on(at)
        for call in [*running.left]:
            while call in running.left:
                running.move(call)
        for call, came in running.answers.items():
            running.belief = held(linear.respond(running.belief, call, came))
        assert running.state in {world.state for world in running.belief.worlds}
