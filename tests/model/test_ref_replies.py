"""What came from a manager, held against one outcome: each reply, right and wrong, and in words."""

from __future__ import annotations

from dataclasses import replace

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
    NOT_FOUND,
    OPEN,
    PAIR,
    SIZE,
    STORE,
    answer,
    on,
    played,
    pruned,
    sized,
)

from snapspec.model import ref_faults, refs
from snapspec.model.nodes import Tree
from snapspec.model.ref_ops import (
    Close,
    DiskUsage,
    Finalize,
    Get,
    GetMutable,
    Parent,
    Prune,
    Read,
    RefOperation,
    Release,
    Size,
    Write,
)
from snapspec.model.ref_ops import Mount as MountOf
from snapspec.model.ref_replies import (
    GotPruned,
    GotRows,
    GotSize,
    GotWords,
    RefAccepted,
    RefAnswer,
    RefFailed,
    RefReturned,
    breaks_off,
    describe,
    judge,
)
from snapspec.model.refs import RefError, RefOutcome, RefState, Row
from snapspec.model.replies import Mismatch
from snapspec.model.state import Measure, Profile, State
from snapspec.model.tree import EMPTY, MakeFile
from snapspec.model.values import Mount

ALL = [
    (PAIR, Get("e", "g", "x"), "a handle on 'e'"),
    (OPEN, Get("m", "g", "x"), "Locked"),
    (PAIR, Finalize("he"), "success"),
    (PAIR, Parent("he", "p"), "nothing"),
    (CHILD, Parent("hn", "p"), "a handle on 'e'"),
    (PAIR, Size("he"), "the size of 'e'"),
    (OPEN, MountOf("hm", False), "a writable list of 'm'"),
    (PAIR, MountOf("he", True), "a read-only list of 'e'"),
    (OPEN, Write("hm", (MakeFile("g", b""),)), "the changes to 'm'"),
    (PAIR, Read("he"), "the tree of 'e'"),
    (PAIR, DiskUsage(), "'e' immutable over '' in use"),
    (IDLE, DiskUsage(), "'m' mutable over ''"),
    (RefState(), DiskUsage(), "no rows"),
    (IDLE, Prune(), "rows [(['e', 'm'], None)]"),
]


def outcome(state: RefState, op: RefOperation) -> RefOutcome:
    return refs.outcomes(state, op)[0]


@pytest.mark.parametrize(("state", "op", "words"), ALL, ids=[words for _, _, words in ALL])
def test_the_answer_of_an_outcome_fits_it_and_an_answer_of_another_form_does_not(
    state: RefState, op: RefOperation, words: str
) -> None:
    expected = outcome(state, op)
    assert isinstance(judge(expected, answer(expected)), RefAccepted)
    for came in (RefReturned(GotSize(-1)), CANCELLED, RefFailed(RefError.CLOSED, "why"), DRIVER):
        assert isinstance(judge(expected, came), Mismatch)
    assert describe(expected) == words


def test_a_mismatch_says_what_came() -> None:
    expected = outcome(PAIR, Finalize("he"))
    words: list[tuple[RefAnswer, str]] = [
        (RefFailed(RefError.STORE, "full"), "StoreError: full"),
        (LOCKED, "Locked"),
        (CANCELLED, "cancelled, without an answer"),
        (on("e"), "success, GotHandle"),
    ]
    for came, said in words:
        broken = "REF-FINAL-3" if breaks_off(came) == "fault" else "REF-FINAL-1"
        assert judge(expected, came) == Mismatch(broken, "success", said)


@pytest.mark.parametrize(
    ("came", "disturbance"),
    [
        (DONE, ""),
        (INVALID, ""),
        (pruned("m"), ""),
        (pruned("m", errors=1), "fault"),
        (STORE, "fault"),
        (DRIVER, "fault"),
        (CANCELLED, "cancel"),
    ],
)
def test_some_answers_need_a_disturbance(came: RefAnswer, disturbance: str) -> None:
    assert breaks_off(came) == disturbance


# --- one reply after the other


def clause(state: RefState, op: RefOperation, came: RefAnswer) -> str:
    """The clause that the answer breaks, "" for none."""
    verdict = judge(outcome(state, op), came)
    return verdict.clause if isinstance(verdict, Mismatch) else ""


def test_a_handle_is_on_the_right_record() -> None:
    assert clause(PAIR, Get("e", "g", "x"), on("m")) == "REF-GET-1"
    assert clause(PAIR, Get("m", "g", "x"), on("e")) == ""
    assert clause(IDLE, GetMutable("m", "g"), on("e")) == "REF-MUT-3"


@pytest.mark.parametrize(
    ("mounts", "broken"),
    [
        ((), "REF-MOUNT-4"),
        ((Mount("bind", "/1", ("rbind", "ro")),), ""),
        ((Mount("bind", "/1", ("rbind", "rw")),), "REF-MOUNT-1"),
        ((Mount("overlay", "overlay", ("lowerdir=/1:/2",)),), ""),
        ((Mount("overlay", "overlay", ("lowerdir=/1", "upperdir=/2", "workdir=/3")),), "REF-MOUNT-1"),
        ((Mount("overlay", "overlay", ("lowerdir=/1", "workdir=/3")),), "REF-MOUNT-1"),
    ],
)
def test_no_part_of_a_read_only_list_can_be_written(mounts: tuple[Mount, ...], broken: str) -> None:
    """REF-MOUNT-1."""
    assert clause(PAIR, MountOf("he", True), RefReturned(mounts)) == broken
    if mounts:
        assert clause(OPEN, MountOf("hm", False), RefReturned(mounts)) == "", "a writable list may be of any form"


def test_each_change_answers_with_a_word_that_is_allowed() -> None:
    write = Write("hm", (MakeFile("g", b""), MakeFile("no/g", b"")))
    assert clause(OPEN, write, RefReturned(GotWords(("ok", "ENOENT")))) == ""
    for words in ((), ("ok",), ("ok", "ok"), ("EROFS", "ENOENT")):
        assert clause(OPEN, write, RefReturned(GotWords(words))) == "REF-MOUNT-1"
    assert clause(PAIR, Write("he", (MakeFile("g", b""),)), RefReturned(GotWords(("EROFS",)))) == ""
    assert clause(PAIR, Write("he", (MakeFile("g", b""),)), RefReturned(GotWords(("ok",)))) == "REF-MOUNT-2"


def test_a_tree_is_that_of_the_model() -> None:
    tree = refs.content(PAIR, "e")
    assert clause(PAIR, Read("he"), RefReturned(tree)) == ""
    assert clause(PAIR, Read("he"), RefReturned(EMPTY)) == "REF-COMMIT-3"
    assert isinstance(tree, Tree)


# --- sizes


def measuring(state: RefState, measure: Measure) -> RefState:
    return replace(state, driver=State(state.driver.snapshots, Profile(usage=measure)))


def test_a_size_lies_between_what_the_layer_holds_and_what_it_may_take() -> None:
    """REF-SIZE-4; as far as the driver says what it counts."""
    for measure, least, most in ((Measure.LAYER, 4096, 1 << 16), (Measure.DELTA, 0, 1 << 16), (Measure.OPAQUE, 0, 1 << 40)):
        state = measuring(PAIR, measure)
        assert clause(state, Size("he"), sized(least)) == ""
        assert clause(state, Size("he"), sized(least - 1)) == "REF-SIZE-4"
        assert (clause(state, Size("he"), sized(most)) == "") is (measure is Measure.OPAQUE)


def test_a_size_is_that_of_its_directory_where_the_driver_counts_it_so() -> None:
    """REF-SIZE-1, REF-SIZE-6."""
    came = RefReturned(GotSize(SIZE, 4096))
    assert clause(PAIR, Size("he"), came) == "REF-SIZE-1"
    assert clause(OPEN, Size("hm"), came) == "REF-SIZE-6"
    assert clause(measuring(PAIR, Measure.DELTA), Size("he"), came) == ""
    assert clause(PAIR, Size("he"), RefReturned(GotSize(SIZE, SIZE))) == ""


def test_a_size_that_was_told_is_told_again() -> None:
    """REF-SIZE-1; what was told is learned, of immutable records only."""
    verdict = judge(outcome(PAIR, Size("he")), sized(SIZE))
    assert verdict == RefAccepted(("REF-SIZE-1",), (("e", SIZE),))
    assert judge(outcome(OPEN, Size("hm")), sized(SIZE)) == RefAccepted(("REF-SIZE-6",))
    told = replace(PAIR, records=PAIR.records.set("e", replace(PAIR.records["e"], size=SIZE)))
    assert clause(told, Size("he"), sized(SIZE)) == ""
    assert clause(told, Size("he"), sized(SIZE - 512)) == "REF-SIZE-1"
    assert clause(told, Size("he"), RefReturned(GotSize(SIZE, 4096))) == "", "what the directory takes by now does not count"


@pytest.mark.parametrize(
    ("came", "broken"), [(NOT_FOUND, "REF-SIZE-4"), (STORE, "REF-SIZE-5"), (DRIVER, "REF-SIZE-5"), (CANCELLED, "REF-SIZE-5")]
)
def test_an_error_in_place_of_a_size_is_that_of_a_race_or_of_others(came: RefAnswer, broken: str) -> None:
    assert clause(PAIR, Size("he"), came) == broken


# --- rows


def told(*rows: Row) -> RefReturned:
    return RefReturned(GotRows(rows))


USED = Row("e", "", False, True, SIZE)


@pytest.mark.parametrize(
    ("rows", "broken"),
    [
        ((USED,), ""),
        ((), "REF-USAGE-1"),
        ((USED, USED), "REF-USAGE-1"),
        ((replace(USED, record="m", mutable=True),), "REF-USAGE-1"),
        ((replace(USED, in_use=False),), "REF-USAGE-2"),
        ((replace(USED, parent="p"),), "REF-USAGE-1"),
        ((replace(USED, size=0),), "REF-USAGE-3"),
        ((replace(USED, size=None),), "REF-USAGE-3"),
    ],
)
def test_rows_are_those_of_one_moment(rows: tuple[Row, ...], broken: str) -> None:
    assert clause(PAIR, DiskUsage(), told(*rows)) == broken


def test_a_row_of_a_mutable_record_in_use_is_not_measured() -> None:
    """REF-USAGE-3; an idle one is, each time."""
    row = Row("m", "", True, True, 0)
    assert clause(OPEN, DiskUsage(), told(row)) == ""
    assert clause(OPEN, DiskUsage(), told(replace(row, size=SIZE))) == "REF-USAGE-3"
    verdict = judge(outcome(IDLE, DiskUsage()), told(Row("m", "", True, False, SIZE)))
    assert isinstance(verdict, RefAccepted)
    assert verdict.learned == ()


def test_rows_come_in_any_order_and_tell_sizes() -> None:
    rows = (Row("n", "e", True, True, 0), USED)
    for order in (rows, rows[::-1]):
        verdict = judge(outcome(CHILD, DiskUsage()), told(*order))
        assert isinstance(verdict, RefAccepted)
        assert verdict.learned == (("e", SIZE),)


# --- prune


@pytest.mark.parametrize(
    ("came", "fits"),
    [
        (pruned("me"), True),
        (pruned("me", size=SIZE), True),
        (pruned("me", size=-1), False),
        (pruned(), False),
        (pruned("m"), False),
        (pruned("m", "e"), False),
        (pruned("me", "me"), False),
        (pruned("me", errors=1), False),
    ],
)
def test_prune_reports_both_halves_in_one_row(came: RefAnswer, fits: bool) -> None:
    """REF-PRUNE-3; where something is left or there is an error for nothing, REF-PRUNE-1."""
    left = came in (pruned(), pruned("me", errors=1))
    assert clause(IDLE, Prune(), came) == ("" if fits else "REF-PRUNE-1" if left else "REF-PRUNE-3")


def test_bytes_that_are_known_are_reported() -> None:
    """REF-PRUNE-3."""
    state = played(Release("he"), state=FINAL)
    known = replace(state, records=state.records.set("e", replace(state.records["e"], size=SIZE)))
    assert clause(known, Prune(), pruned("e", size=SIZE)) == ""
    assert clause(known, Prune(), pruned("e", size=SIZE - 512)) == "REF-PRUNE-3"
    assert clause(known, Prune(), pruned("e")) == "REF-PRUNE-3"


# --- calls that broke off


def test_a_call_that_broke_off_answers_nothing_or_an_error() -> None:
    end = ref_faults.disturbed(PAIR, Close())[0]
    breaking: tuple[RefAnswer, ...] = (CANCELLED, STORE, DRIVER)
    ordinary: tuple[RefAnswer, ...] = (DONE, INVALID, pruned())
    for came in breaking:
        assert judge(end, came) == RefAccepted(("REF-CLOSE-1",))
    for came in ordinary:
        assert isinstance(judge(end, came), Mismatch)
    assert describe(end) == "no answer, or an error of the store or the driver"


def test_a_release_that_broke_off_has_no_error() -> None:
    """REF-HANDLE-2, REF-HANDLE-3."""
    for state in (PAIR, IDLE):
        (end,) = ref_faults.disturbed(state, Release("he"))
        assert isinstance(judge(end, CANCELLED), RefAccepted)
        assert judge(end, STORE) == Mismatch("REF-HANDLE-2", describe(end), "StoreError")


def test_what_a_prune_that_broke_off_tells_is_true() -> None:
    """REF-PRUNE-3: as many rows as there were errors may be missing."""
    two = (frozenset("n"), SIZE), (frozenset("e"), None)
    end = ref_faults.Broken("REF-PRUNE-3", RefState(), two)
    right = [two, two[:1], two[1:], ((frozenset("e"), SIZE),), two[::-1]]
    wrong = [(), (*two, two[0]), ((frozenset("n"), None),), ((frozenset("m"), None),)]
    for rows in right:
        assert isinstance(judge(end, RefReturned(GotPruned(rows, 1))), RefAccepted), rows
    for rows in wrong:
        assert isinstance(judge(end, RefReturned(GotPruned(rows, 1))), Mismatch), rows
    assert isinstance(judge(end, RefReturned(GotPruned((), 2))), RefAccepted)
    assert isinstance(judge(end, RefReturned(GotPruned(two))), Mismatch)
