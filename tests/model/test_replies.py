"""Answers against what is allowed: what is accepted and learned from it, and every way in which an answer can be wrong."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from states import DIRECT, only, store

from snapspec.model import ops, replies
from snapspec.model.ops import Operation
from snapspec.model.replies import (
    SLACK,
    Accepted,
    Changed,
    Failed,
    Mismatch,
    Outcome,
    Reading,
    Refused,
    Returned,
    Value,
    describe,
    describe_value,
    judge,
    least_size,
    lower_directories,
    most_usage,
    writable_places,
)
from snapspec.model.state import Measure, Snapshot, Span, State
from snapspec.model.tree import EMPTY, Change, Link, MakeDirectory, MakeFile, Tree, WriteAt, outcomes_of
from snapspec.model.values import ErrorClass, Info, Kind, Mount, Usage

KIB = 1024
OVERLAY = Mount("overlay", "overlay", ("lowerdir=/2:/1", "upperdir=/3/fs", "workdir=/3/work"))
BIND = Mount("bind", "/4/fs", ("rbind", "rw"))


def changed(tree: Tree, *changes: Change) -> Tree:
    for change in changes:
        tree = outcomes_of(EMPTY, tree, change)[0].tree
    return tree


BELOW = changed(EMPTY, MakeFile("f", b"x" * 5000), MakeFile("g", b"y" * 5000), Link("h", "g"))
OWN = changed(BELOW, MakeDirectory("d"), MakeFile("d/x", b"z" * 2000), WriteAt("f", 0, b"new"))
TOUCHED = frozenset({"", "d", "d/x", "f"})

#: A chain of two, an active on top of it that nothing is known of, another one whose list was told, a view.
STATE = store(
    one=Snapshot(Kind.COMMITTED, "", (("a", "1"),), Span(10, 20), None, BELOW),
    two=Snapshot(Kind.COMMITTED, "one", (), Span(30, 40), Span(50, 60), BELOW, frozenset({""})),
    k=Snapshot(Kind.ACTIVE, "two", (("containerd.io/snapshot/mine", "1"),), Span(70, 80), None, OWN, TOUCHED),
    known=Snapshot(Kind.ACTIVE, "", (), Span(1, 1), Span(2, 2), EMPTY, frozenset(), (BIND,), None),
    told=Snapshot(Kind.COMMITTED, "", (), Span(1, 1), None, OWN, TOUCHED, None, Usage(12 * KIB, 4)),
    mixed=Snapshot(Kind.COMMITTED, "", (), Span(5, 9), Span(7, 20)),
    v=Snapshot(Kind.VIEW, "two", (), Span(90, 99), None, BELOW),
)
K = Info("k", "two", Kind.ACTIVE, (("containerd.io/snapshot/mine", "1"),), 75, 75)
TWO = Info("two", "one", Kind.COMMITTED, (), 35, 55)
MEASURED = Usage(16 * KIB, 4)


def verdict(op: Operation, value: Value, state: State = STATE) -> Accepted | Mismatch:
    return judge(only(state, op), Returned(value))


def accepted(op: Operation, value: Value, state: State = STATE) -> Accepted:
    found = verdict(op, value, state)
    assert isinstance(found, Accepted), found
    return found


# --- records


def test_a_record_is_learned_and_holds_from_then_on() -> None:
    """SNAP-TIME-1, SNAP-TIME-4: a time within the call the first time, that time ever after."""
    found = accepted(ops.Stat("two"), TWO)
    assert found.learned == (("two", replace(STATE.snapshots["two"], created=Span(35, 35), updated=Span(55, 55))),)
    known = STATE.put(*found.learned[0])
    assert accepted(ops.Stat("two"), TWO, known).learned == ()
    for other in (replace(TWO, created=36), replace(TWO, updated=56)):
        moved = verdict(ops.Stat("two"), other, known)
        assert isinstance(moved, Mismatch)
        assert moved.clause == "SNAP-TIME-4"
        assert "as told before" in moved.expected


@pytest.mark.parametrize("created", [69, 81])
def test_a_time_outside_the_call_is_wrong(created: int) -> None:
    """SNAP-TIME-1: both ends of the span belong to it."""
    for edge in (70, 80):
        accepted(ops.Stat("k"), replace(K, created=edge, updated=edge))
    wrong = verdict(ops.Stat("k"), replace(K, created=created, updated=created))
    assert wrong == Mismatch("SNAP-TIME-1", "created within the call: 70 to 80", f"created {created}")


PRIVATE = ("containerd.io/snapshot/overlay.upperdir", "/x")


@pytest.mark.parametrize(
    ("labels", "fits"),
    [
        ((("containerd.io/snapshot/mine", "1"),), True),
        ((("containerd.io/snapshot/mine", "1"), PRIVATE), True),
        ((PRIVATE,), False),
        ((("containerd.io/snapshot/mine", "2"),), False),
        ((("a", "1"), ("containerd.io/snapshot/mine", "1")), False),
        ((("containerd.io/snapshot.ref", "1"), ("containerd.io/snapshot/mine", "1")), False),
        ((("containerd.io/snapshot/mine", "1"), ("empty", "")), False),
        ((), False),
    ],
)
def test_a_driver_may_add_labels_of_its_own_prefix_only(labels: tuple[tuple[str, str], ...], fits: bool) -> None:
    """SNAP-LABEL-1, SNAP-LABEL-2, SNAP-LABEL-3: what a caller gave is there as it was given."""
    found = verdict(ops.Stat("k"), replace(K, labels=labels))
    assert isinstance(found, Accepted) if fits else found.clause == "SNAP-LABEL-1"  # type: ignore[union-attr]


def test_a_list_of_records_is_learned_whole_and_in_any_order() -> None:
    """SNAP-WALK-1, SNAP-WALK-6."""
    infos = (K, TWO)
    state = store(**{key: STATE.snapshots[key] for key in ("one", "two", "k")})
    op = ops.Walk(("name==k", "name==two"))
    for came in (infos, infos[::-1]):
        found = accepted(op, came, state)
        assert [key for key, _ in found.learned] == [info.name for info in came]
        assert found.clauses == ("SNAP-WALK-2", "SNAP-WALK-6")


# --- mounts


def test_a_mount_list_is_learned_and_holds_from_then_on() -> None:
    """SNAP-MOUNTS-3: the order of options counts for nothing, that of lower directories does."""
    found = accepted(ops.Mounts("k"), (OVERLAY,))
    known = STATE.put(*found.learned[0])
    shuffled = replace(OVERLAY, options=OVERLAY.options[::-1])
    assert accepted(ops.Mounts("k"), (shuffled,), known).learned == ()
    swapped = replace(OVERLAY, options=("lowerdir=/1:/2", *OVERLAY.options[1:]))
    for wrong in ((swapped,), (), (OVERLAY, OVERLAY), (replace(OVERLAY, target="x"),)):
        found_wrong = verdict(ops.Mounts("k"), wrong, known)
        assert isinstance(found_wrong, Mismatch)
        assert found_wrong.clause == "SNAP-MOUNTS-3"


@pytest.mark.parametrize(
    "lowers",
    ["lowerdir=/2", "lowerdir=/2:/1:/0", "lowerdir=/2:/2", "lowerdir=/2:/3/fs", "lowerdir=", "nothing"],
)
def test_an_overlay_has_one_lower_directory_for_each_ancestor(lowers: str) -> None:
    """SNAP-MOUNTS-6: none missing, none too many, none twice, none the upper one."""
    found = verdict(ops.Mounts("k"), (replace(OVERLAY, options=(lowers, *OVERLAY.options[1:])),))
    assert isinstance(found, Mismatch)
    assert found.clause == "SNAP-MOUNTS-6"


def test_only_the_overlay_of_a_list_is_counted_and_no_template() -> None:
    """SNAP-MOUNTS-6: other types say nothing of layers; a type with a slash is for a mount manager to fill in."""
    template = Mount("format/mkdir/overlay", "overlay", ("lowerdir={{ overlay 0 1 }}",))
    for mounts in ((replace(BIND, source="/9"),), (template,)):
        accepted(ops.Mounts("k"), mounts)
    accepted(ops.Mounts("k"), (replace(BIND, source="/9"), replace(OVERLAY, type="fuse3.fuse-overlayfs")))
    assert lower_directories(OVERLAY) == ("/2", "/1")
    assert lower_directories(BIND) == ()


@pytest.mark.parametrize(
    ("mount", "shared"),
    [
        (BIND, True),
        (replace(BIND, options=("rbind", "ro")), False),
        (replace(BIND, type="btrfs"), False),
        (Mount("overlay", "overlay", ("lowerdir=/2:/1", "upperdir=/4/fs", "workdir=/9")), True),
        (Mount("overlay", "overlay", ("lowerdir=/2:/1", "upperdir=/9", "workdir=/4/fs")), True),
        (Mount("overlay", "overlay", ("lowerdir=/4/fs:/1", "upperdir=/9", "workdir=/8")), False),
    ],
)
def test_no_two_snapshots_write_to_one_place(mount: Mount, shared: bool) -> None:
    """SNAP-MOUNTS-8: an upper or work directory or a writable bind; reading the same place is no fault."""
    found = verdict(ops.Mounts("k"), (mount,))
    assert (isinstance(found, Mismatch) and found.clause == "SNAP-MOUNTS-8") is shared
    assert writable_places((OVERLAY, BIND, replace(BIND, options=("ro",), source="/r"))) == {"/3/fs", "/3/work", "/4/fs"}


# --- usage


def test_the_usage_of_a_committed_snapshot_is_learned_and_holds_from_then_on() -> None:
    """SNAP-USAGE-3; that of an active one may change at any time."""
    reading = Reading(Usage(8 * KIB, 1))
    found = accepted(ops.Usage("two"), reading)
    assert found.learned == (("two", replace(STATE.snapshots["two"], usage=reading.usage)),)
    assert accepted(ops.Usage("two"), reading, STATE.put(*found.learned[0])).clauses[-1] == "SNAP-USAGE-3"
    wrong = verdict(ops.Usage("two"), Reading(Usage(4 * KIB, 1)), STATE.put(*found.learned[0]))
    assert wrong == Mismatch("SNAP-USAGE-3", "8192 bytes in 1 inodes, as told before", "4096 bytes in 1 inodes")
    assert accepted(ops.Usage("k"), Reading(MEASURED)).learned == ()


#: What was told, what was measured, and the clause that each measure of a driver names; "" where it is right.
USAGE: list[tuple[Usage, Usage | None, dict[Measure, str]]] = [
    (Usage(16 * KIB, 4), Usage(16 * KIB, 4), {}),
    (Usage(16 * KIB, 4), None, {}),
    (Usage(16 * KIB, 4), Usage(12 * KIB, 4), {Measure.LAYER: "SNAP-USAGE-5", Measure.COPY: "SNAP-USAGE-5"}),
    (Usage(16 * KIB, 4), Usage(16 * KIB, 5), {Measure.LAYER: "SNAP-USAGE-5", Measure.COPY: "SNAP-USAGE-5"}),
    # Data of four blocks at the most, and room for five inodes; with a full copy also g, h and their data.
    (Usage(12 * KIB + 5 * SLACK, 5), None, {}),
    (Usage(12 * KIB + 5 * SLACK + 1, 5), None, {Measure.LAYER: "SNAP-USAGE-6", Measure.DELTA: "SNAP-USAGE-6"}),
    (Usage(12 * KIB, 6), None, {Measure.LAYER: "SNAP-USAGE-6", Measure.DELTA: "SNAP-USAGE-6"}),
    (Usage(20 * KIB + 7 * SLACK, 7), None, {Measure.LAYER: "SNAP-USAGE-6", Measure.DELTA: "SNAP-USAGE-6"}),
    (Usage(20 * KIB, 8), None, dict.fromkeys((Measure.LAYER, Measure.COPY, Measure.DELTA), "SNAP-USAGE-6")),
    # d/x has 2000 bytes of which three sectors are whole, f has nine and three of another block.
    (Usage(12 * 512, 4), None, {}),
    (Usage(12 * 512 - 1, 4), None, {Measure.LAYER: "SNAP-USAGE-7", Measure.COPY: "SNAP-USAGE-7"}),
    (Usage(0, 0), None, {Measure.LAYER: "SNAP-USAGE-7", Measure.COPY: "SNAP-USAGE-7"}),
    (
        Usage(1 << 50, 9),
        Usage(0, 0),
        {Measure.LAYER: "SNAP-USAGE-5", Measure.COPY: "SNAP-USAGE-5", Measure.DELTA: "SNAP-USAGE-6"},
    ),
    (Usage(-1, 0), None, dict.fromkeys(Measure, "SNAP-USAGE-4")),
    (Usage(0, -1), None, dict.fromkeys(Measure, "SNAP-USAGE-4")),
]


@pytest.mark.parametrize("measure", Measure)
@pytest.mark.parametrize(("usage", "measured", "wrong"), USAGE)
def test_usage_is_what_the_driver_declares(
    usage: Usage, measured: Usage | None, wrong: dict[Measure, str], measure: Measure
) -> None:
    """SNAP-USAGE-4 to SNAP-USAGE-7: equal to what was measured, not below the layer's own data, not above what it touched."""
    state = State(STATE.snapshots, replace(DIRECT, usage=measure))
    found = verdict(ops.Usage("k"), Reading(usage, measured), state)
    assert (found.clause if isinstance(found, Mismatch) else "") == wrong.get(measure, "")


@pytest.mark.parametrize("measure", Measure)
def test_the_usage_of_a_view_is_nothing(measure: Measure) -> None:
    """SNAP-USAGE-2, whatever the driver counts."""
    state = State(STATE.snapshots, replace(DIRECT, usage=measure))
    assert accepted(ops.Usage("v"), Reading(Usage(0, 0)), state).learned == ()
    for usage in (Usage(4096, 0), Usage(0, 1)):
        found = verdict(ops.Usage("v"), Reading(usage), state)
        assert found == Mismatch("SNAP-USAGE-2", "0 bytes in 0 inodes", f"{usage.size} bytes in {usage.inodes} inodes")


def test_hard_links_count_once_and_holes_may_be_filled() -> None:
    """SNAP-USAGE-6, SNAP-USAGE-7: one inode under two names; holes are not owed, but copying a file up may fill them."""
    tree = changed(EMPTY, MakeFile("f", b"x" * 4096), Link("g", "f"), WriteAt("f", 1 << 20, b"y" * 4096))
    snapshot = Snapshot(Kind.ACTIVE, tree=tree, touched=frozenset({"", "f", "g"}))
    state = store(k=snapshot)
    assert most_usage(state, snapshot) == Usage((1 << 20) + 4096 + 4 * SLACK, 4)
    assert least_size(state, snapshot) == 2 * 4096


# --- content


def test_a_tree_is_as_the_model_has_it() -> None:
    """SNAP-CONTENT-1, SNAP-MOUNTS-7: a chain of two shows the order of its layers."""
    assert set(accepted(ops.Read("k"), OWN).clauses) == {"SNAP-CONTENT-1", "SNAP-CONTENT-5", "SNAP-MOUNTS-7"}
    assert set(accepted(ops.Read("known"), EMPTY).clauses) == {"SNAP-CONTENT-1", "SNAP-CONTENT-6"}
    found = verdict(ops.Read("k"), BELOW)
    assert isinstance(found, Mismatch)
    assert found.clause == "SNAP-CONTENT-1"
    assert "/d/x" in found.came


# --- every way to be wrong

WRONG: list[tuple[str, Operation, Value]] = [
    ("SNAP-STAT-3", ops.Stat("k"), replace(K, name="other")),
    ("SNAP-KIND-1", ops.Stat("k"), replace(K, kind=Kind.COMMITTED)),
    ("SNAP-PARENT-3", ops.Stat("k"), replace(K, parent="one")),
    ("SNAP-LABEL-1", ops.Stat("k"), replace(K, labels=())),
    ("SNAP-TIME-1", ops.Stat("k"), replace(K, created=1, updated=1)),
    ("SNAP-TIME-2", ops.Stat("k"), replace(K, updated=76)),
    ("SNAP-TIME-3", ops.Stat("mixed"), Info("mixed", "", Kind.COMMITTED, (), 9, 8)),
    ("SNAP-TIME-4", ops.Stat("known"), Info("known", "", Kind.ACTIVE, (), 1, 3)),
    ("SNAP-WALK-1", ops.Walk(), (K, TWO)),
    ("SNAP-WALK-2", ops.Walk(("name==k",)), (K, K)),
    ("SNAP-WALK-2", ops.Walk(("name==k",)), ()),
    ("SNAP-KIND-1", ops.Walk(("name==k",)), (replace(K, kind=Kind.VIEW),)),
    ("SNAP-MOUNTS-3", ops.Mounts("known"), (replace(BIND, source="/5"),)),
    ("SNAP-MOUNTS-4", ops.Mounts("k"), ()),
    ("SNAP-MOUNTS-6", ops.Mounts("k"), (replace(OVERLAY, options=("lowerdir=/1",)),)),
    ("SNAP-MOUNTS-8", ops.Mounts("k"), (BIND,)),
    ("SNAP-USAGE-2", ops.Usage("v"), Reading(Usage(1, 1))),
    ("SNAP-USAGE-3", ops.Usage("told"), Reading(Usage(0, 1))),
    ("SNAP-USAGE-4", ops.Usage("k"), Reading(Usage(-1, 1))),
    ("SNAP-USAGE-5", ops.Usage("k"), Reading(MEASURED, Usage(0, 1))),
    ("SNAP-USAGE-6", ops.Usage("k"), Reading(Usage(0, 99))),
    ("SNAP-USAGE-7", ops.Usage("k"), Reading(Usage(0, 1))),
    ("SNAP-CONTENT-1", ops.Read("k"), EMPTY),
    ("SNAP-CONTENT-2", ops.Write("k", (MakeFile("new", b""),)), ("EIO",)),
    ("SNAP-MOUNTS-5", ops.Write("k", (MakeFile("new", b""),)), ("EROFS",)),
    ("SNAP-MOUNTS-5", ops.Write("v", (MakeFile("new", b""),)), ("ok",)),
]


@pytest.mark.parametrize(("clause", "op", "value"), WRONG)
def test_a_wrong_answer_names_its_clause(clause: str, op: Operation, value: Value) -> None:
    found = verdict(op, value)
    assert isinstance(found, Mismatch)
    assert found.clause == clause
    assert found.expected
    assert found.came


def mismatch_clauses() -> set[str]:
    """Every clause that replies.py names in a mismatch: as its first argument, or in the variable that is."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(replies))):
        match node:
            case ast.Call(func=ast.Name(id="Mismatch"), args=[ast.Constant(value=str(clause)), *_]):
                found.add(clause)
            case ast.Assign(targets=[ast.Name(id="clause")], value=value):
                texts = {str(n.value) for n in ast.walk(value) if isinstance(n, ast.Constant)}
                found |= {text for text in texts if re.fullmatch("SNAP-[A-Z]+-[0-9]+", text)}
    return found


def test_a_mount_list_is_written_out() -> None:
    """So that a reader of the divergence can mount it."""
    found = verdict(ops.Mounts("known"), (OVERLAY, replace(BIND, options=())))
    assert isinstance(found, Mismatch)
    assert found.expected == "the list as first given, bind /4/fs rbind,rw"
    assert found.came == "overlay overlay lowerdir=/2:/1,upperdir=/3/fs,workdir=/3/work; bind /4/fs"
    empty = verdict(ops.Mounts("known"), ())
    assert isinstance(empty, Mismatch)
    assert empty.came == "an empty list"


def test_the_change_that_went_wrong_is_counted_from_one() -> None:
    found = verdict(ops.Write("k", (MakeFile("new", b""), MakeFile("new", b""))), ("ok", "ok"))
    assert found == Mismatch("SNAP-CONTENT-2", "change 2: EEXIST", "ok")


def test_every_mismatch_is_shown_above() -> None:
    """The list is complete: what replies.py can name, and the two clauses of walk that it takes from the outcome."""
    assert {clause for clause, _, _ in WRONG} == mismatch_clauses() | {"SNAP-WALK-1", "SNAP-WALK-2"}


# --- forms

VALUES: dict[str, tuple[Operation, Value]] = {
    "done": (ops.Remove("k"), None),
    "mounts": (ops.Mounts("k"), (OVERLAY,)),
    "record": (ops.Stat("k"), K),
    "records": (ops.Walk(("name==k",)), (K,)),
    "usage": (ops.Usage("k"), Reading(MEASURED)),
    "words": (ops.Write("k", (MakeFile("new", b""), MakeFile("new", b""))), ("ok", "EEXIST")),
    "tree": (ops.Read("k"), OWN),
}


@pytest.mark.parametrize("expected", VALUES)
@pytest.mark.parametrize("came", VALUES)
def test_a_value_of_another_form_fits_nothing(expected: str, came: str) -> None:
    """Each form is accepted where it belongs and told in words elsewhere."""
    op, value = VALUES[expected][0], VALUES[came][1]
    outcome = only(STATE, op)
    found = judge(outcome, Returned(value))
    if expected == came:
        assert isinstance(found, Accepted)
    else:
        assert found == Mismatch(outcome.clause, describe(outcome.reply), describe_value(value))


@pytest.mark.parametrize("words", [(), ("ok",), ("ok", "EEXIST", "ok"), ("ok", None), (K, K)])
def test_a_write_answers_one_word_for_each_change(words: tuple[str, ...]) -> None:
    op, _ = VALUES["words"]
    found = verdict(op, words)
    assert isinstance(found, Mismatch)
    assert found.clause == "SNAP-CONTENT-2"


@pytest.mark.parametrize(
    ("op", "words"),
    [
        (ops.Remove("one"), "FailedPrecondition"),
        (ops.Prepare(""), "any error"),
        (ops.Nowhere(ops.Walk(("==",))), "InvalidArgument"),
        (ops.Remove("k"), "success"),
        (ops.Mounts("k"), "the mount list of 'k'"),
        (ops.Stat("k"), "the record of 'k'"),
        (ops.Walk(("name==k", "name==one")), "the records ['k', 'one']"),
        (ops.Usage("k"), "the usage of 'k'"),
        (ops.Read("k"), "the tree of 'k'"),
        (ops.Write("k", ()), "the changes made"),
    ],
)
def test_what_is_expected_is_told_in_words(op: Operation, words: str) -> None:
    assert describe(only(STATE, op).reply) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "success"),
        (K, "success, the record of 'k'"),
        (Reading(MEASURED), "success, 16384 bytes in 4 inodes"),
        (OWN, "success, a tree"),
        ((OVERLAY, BIND), "success, 2 entries"),
    ],
)
def test_what_came_is_told_in_words(value: Value, words: str) -> None:
    assert describe_value(value) == words


@given(st.frozensets(st.sampled_from(ErrorClass), min_size=1), st.sampled_from(ErrorClass), st.text(max_size=3))
def test_an_error_fits_by_its_class_alone(errors: frozenset[ErrorClass], error: ErrorClass, message: str) -> None:
    """The message counts for nothing; an error where none is allowed, and success where one is, do not fit."""
    refused = Outcome("SNAP-STAT-2", Refused(errors), STATE)
    assert (judge(refused, Failed(error, message)) == Accepted(("SNAP-STAT-2",))) is (error in errors)
    assert isinstance(judge(refused, Returned(None)), Mismatch)
    unexpected = judge(Outcome("SNAP-CONTENT-2", Changed(()), STATE), Failed(error, message))
    assert isinstance(unexpected, Mismatch)
    assert unexpected.came.startswith(error.value)
