"""What a driver has done whose answer was wrong: taken up as far as the model can tell; where it cannot, nothing is claimed."""

from __future__ import annotations

from dataclasses import replace

import icontract
import pytest
from driver import Driver
from hypothesis import given
from hypothesis import strategies as st
from states import DIRECT, METADATA, ONE_OF_EACH, store
from strategies import changes, trees

from snapspec.model import ops
from snapspec.model.adopt import MOST, adopt, adopted
from snapspec.model.frozen import Map
from snapspec.model.linear import World
from snapspec.model.ops import Operation
from snapspec.model.oracle import Belief, begin, perform
from snapspec.model.replies import Failed, Reading, Returned, Value
from snapspec.model.state import Profile, Snapshot, Span, State, well_formed
from snapspec.model.tree import EMPTY, MakeFile, Tree, Unlink, outcomes_of
from snapspec.model.values import ErrorClass, Info, Kind, Mount, Usage

FILE: Tree = outcomes_of(EMPTY, EMPTY, MakeFile("f", b"x"))[0].tree
STORE = store()
LIST = (Mount("bind", "/told", ("rw", "rbind")),)


def told(name: str, created: int = 3, updated: int = 5, **more: str) -> Info:
    return Info(name, "", Kind.ACTIVE, tuple(more.items()), created, updated)


def taken_up(op: Operation, value: Value = None) -> State | None:
    """The store with one of each kind after that success, which was wrong, in the only way there is; None where there is none."""
    ways = adopted(STORE, op, Returned(value))
    assert len(ways) <= 1
    return next(iter(ways), None)


def with_(key: str, **more: object) -> State:
    """The store in which that snapshot alone is another."""
    return STORE.put(key, replace(STORE.snapshots[key], **more))  # type: ignore[arg-type]  # the test says which


# --- errors


EVERY: tuple[Operation, ...] = (
    *(ops.Prepare("new", "base"), ops.View("new", "base"), ops.Commit("new", "active"), ops.Remove("leaf"), ops.Mounts("view")),
    *(ops.Stat("base"), ops.Update("base"), ops.Usage("leaf"), ops.Walk(), ops.Cleanup(), ops.Reopen(), ops.Collect()),
    *(ops.Nowhere(ops.Walk()), ops.Write("active", (MakeFile("f"),)), ops.Read("active")),
)


@pytest.mark.parametrize("op", EVERY, ids=lambda op: type(op).__name__)
def test_an_error_has_changed_nothing(op: Operation) -> None:
    assert adopted(STORE, op, Failed(ErrorClass.UNKNOWN, "no")) == (STORE,)


# --- what was made


@pytest.mark.parametrize(("op", "kind"), [(ops.Prepare("new", "base"), Kind.ACTIVE), (ops.View("new", "base"), Kind.VIEW)])
@pytest.mark.parametrize("value", [LIST, (), (told("new"),)])
def test_a_snapshot_with_a_wrong_list_is_there_and_its_list_and_times_are_to_be_told(
    op: Operation, kind: Kind, value: Value
) -> None:
    after = taken_up(op, value)
    assert after is not None
    assert after.snapshots.without("new") == STORE.snapshots
    made = after.snapshots["new"]
    assert (made.kind, made.parent, made.mounts) == (kind, "base", None)
    assert made.created.earliest <= 0 < 1 << 62 < made.created.latest


@pytest.mark.parametrize("value", [None, told("new"), FILE, Reading(Usage(1, 1))])
def test_of_one_whose_answer_is_no_list_at_all_nothing_is_known(value: Value) -> None:
    assert taken_up(ops.Prepare("new"), value) is None


@pytest.mark.parametrize(
    "op",
    [
        *(
            ops.Prepare("active"),
            ops.Prepare("base"),
            ops.Prepare("new", "absent"),
            ops.Prepare("new", "active"),
            ops.Prepare(""),
        ),
        *(ops.View("view"), ops.View("new", "absent"), ops.View("new", "view"), ops.View("")),
    ],
)
def test_after_one_that_was_to_be_refused_nothing_is_known(op: Operation) -> None:
    assert taken_up(op, LIST) is None


@pytest.mark.parametrize(
    "op", [ops.Commit("new", "active"), ops.Commit("leaf", "active"), ops.Commit("new", "absent"), ops.Reopen(), ops.Collect()]
)
def test_after_a_wrong_commit_reopen_or_collection_nothing_is_known(op: Operation) -> None:
    assert taken_up(op, LIST) is None


# --- what was removed, or is only asked for


@pytest.mark.parametrize("key", ["base", "leaf", "active"])
def test_of_what_was_wrongly_removed_nothing_is_known(key: str) -> None:
    assert taken_up(ops.Remove(key), LIST) is None


def test_what_was_not_there_is_not_there_after_a_remove_that_works() -> None:
    assert taken_up(ops.Remove("absent")) == STORE


@pytest.mark.parametrize("op", [ops.Walk(), ops.Walk(("kind==active",)), ops.Cleanup()])
@pytest.mark.parametrize("value", [None, (), (told("absent"),), LIST])
def test_a_wrong_walk_or_cleanup_changes_nothing(op: Operation, value: Value) -> None:
    assert taken_up(op, value) == STORE


@pytest.mark.parametrize(
    ("call", "same"),
    [
        *((call, True) for call in (ops.Mounts("active"), ops.Stat("active"), ops.Usage("leaf"), ops.Walk())),
        *((call, False) for call in (ops.Prepare("new"), ops.View("new"), ops.Commit("new", "active"))),
        *((call, False) for call in (ops.Remove("leaf"), ops.Remove("absent"), ops.Update("leaf"))),
    ],
)
@pytest.mark.parametrize("value", [None, LIST, told("active"), Reading(Usage(9, 9))])
def test_what_has_no_namespace_may_have_changed_any_and_tells_of_none(call: ops.Nameable, same: bool, value: Value) -> None:
    assert taken_up(ops.Nowhere(call), value) == (STORE if same else None)


@pytest.mark.parametrize(
    "op",
    [*(ops.Stat("absent"), ops.Mounts("absent"), ops.Usage("absent")), ops.Read("absent"), ops.Write("absent", (MakeFile("f"),))],
)
@pytest.mark.parametrize("value", [None, LIST, told("absent"), Reading(Usage(1, 1)), FILE, ("ok",)])
def test_what_is_told_of_nothing_is_of_nothing(op: Operation, value: Value) -> None:
    assert taken_up(op, value) == STORE


# --- what is told


@pytest.mark.parametrize(
    ("op", "value"),
    [
        (ops.Stat("base"), told("base", l="1")),
        (ops.Stat("base"), None),
        (ops.Mounts("active"), LIST),
        (ops.Mounts("active"), ()),
        (ops.Usage("leaf"), Reading(Usage(7, 3))),
        (ops.Usage("active"), Reading(Usage(7, 3), Usage(8, 4))),
    ],
)
def test_of_what_a_driver_tells_the_words_are_wrong(op: Operation, value: Value) -> None:
    assert taken_up(op, value) == STORE


def test_an_update_was_made_or_as_it_was_told_or_not_at_all() -> None:
    op, info = ops.Update("base", (("l", "2"),)), replace(told("base", l="1"), parent="leaf")
    made, as_told, not_at_all = adopted(STORE, op, Returned(info))
    assert made.snapshots["base"].labels == (("l", "2"),)
    assert made.snapshots["base"].updated is not None
    assert made.snapshots["base"].updated.latest > 1 << 62, "when that was is not known"
    assert as_told == with_("base", labels=(("l", "1"),), created=Span(3, 3), updated=Span(5, 5)), "kind and parent stay"
    assert not_at_all == STORE


@pytest.mark.parametrize("value", [None, (), LIST, FILE, told("base", created=5, updated=3), told("base", l="")])
def test_of_an_update_that_tells_no_record_that_there_can_be_the_rest_is_believed(value: Value) -> None:
    made, not_at_all = adopted(STORE, ops.Update("base", (("l", "2"),)), Returned(value))
    assert made.snapshots["base"].labels == (("l", "2"),)
    assert not_at_all == STORE


@pytest.mark.parametrize("op", [ops.Update("absent"), ops.Update("base", (("l", "1"),), ("name",))])
def test_an_update_that_was_to_be_refused_was_not_made(op: ops.Update) -> None:
    ways = adopted(STORE, op, Returned(told(op.name)))
    assert STORE in ways
    assert all(way.snapshots.without(op.name) == STORE.snapshots.without(op.name) for way in ways)
    assert all(not way.snapshots[op.name].labels for way in ways if op.name in way.snapshots)


# --- content


def test_a_tree_that_is_shown_is_there_but_that_of_a_committed_snapshot_stays() -> None:
    assert taken_up(ops.Read("active"), FILE) == with_("active", tree=FILE)
    assert taken_up(ops.Read("window"), FILE) == with_("window", tree=FILE)
    assert taken_up(ops.Read("base"), FILE) == STORE
    assert taken_up(ops.Read("active"), ("ok",)) == STORE


# --- writes


def test_the_changes_that_were_answered_with_ok_were_made_and_no_others() -> None:
    op = ops.Write("active", (MakeFile("d"), MakeFile("f", b"x"), MakeFile("g")))
    after = taken_up(op, ("EIO", "ok", "EEXIST"))
    assert after == with_("active", tree=FILE, touched=frozenset({"", "f"}))


def test_ok_to_a_change_that_cannot_be_made_leaves_nothing_known() -> None:
    assert taken_up(ops.Write("active", (MakeFile("f"), Unlink("none"))), ("ok", "ok")) is None


@pytest.mark.parametrize("words", [(), ("ok",), ("ok", "EEXIST"), ("ok", "ENOENT", "ok", "ok")])
def test_words_too_few_or_too_many_are_words_as_far_as_there_are_changes(words: tuple[str, ...]) -> None:
    after = taken_up(ops.Write("active", (MakeFile("f", b"x"), MakeFile("f"))), words)
    assert after is not None
    assert (after.snapshots["active"].tree == FILE) is bool(words)


def test_what_is_written_on_a_layer_stands_on_what_was_there() -> None:
    more = outcomes_of(FILE, FILE, MakeFile("g"))[0].tree
    state = State(Map({"base": Snapshot(Kind.COMMITTED, tree=FILE), "child": Snapshot(Kind.ACTIVE, "base", tree=more)}))
    (after,) = adopted(state, ops.Write("child", (Unlink("g"),)), Returned(("ok",)))
    assert after.snapshots["child"].tree == FILE
    assert after.snapshots["base"] == state.snapshots["base"]


def test_committed_snapshots_are_never_written_to() -> None:
    assert taken_up(ops.Write("base", (MakeFile("f"),)), ("ok",)) == STORE
    assert taken_up(ops.Write("active", (MakeFile("f"),)), None) == STORE


# --- beliefs


def believed(*states: State) -> Belief:
    return replace(begin(states[0]), worlds=frozenset(map(World, states)), clauses=("SNAP-STAT-1",))


def test_each_world_takes_it_up_by_itself() -> None:
    one, other = with_("view", labels=(("w", "1"),)), with_("view", tree=FILE)
    after = adopt(believed(one, other), ops.Read("active"), Returned(FILE))
    assert after is not None
    read = replace(STORE.snapshots["active"], tree=FILE)
    assert {world.state for world in after.worlds} == {state.put("active", read) for state in (one, other)}


def test_of_many_worlds_each_goes_on_in_one_way_only() -> None:
    """An update leaves three for each, until there are too many."""
    many = [with_("view", labels=(("w", str(n)),)) for n in range(MOST)]
    few = adopt(believed(*many[:10]), ops.Update("base", (("l", "2"),)), Returned(told("base")))
    assert few is not None
    assert len(few.worlds) == 30
    after = adopt(believed(*many), ops.Update("base", (("l", "2"),)), Returned(told("base")))
    assert after is not None
    assert len(after.worlds) == MOST
    assert {world.state.snapshots["base"].labels for world in after.worlds} == {(("l", "2"),)}


def test_the_worlds_in_which_it_cannot_be_are_gone() -> None:
    """It is there in one of them only, where nothing is known of its remove."""
    after = adopt(believed(STORE, STORE.drop("active")), ops.Remove("active"), Returned(None))
    assert after is not None
    assert {world.state for world in after.worlds} == {STORE.drop("active")}


def test_where_nothing_is_known_in_any_world_there_is_no_belief() -> None:
    assert adopt(believed(STORE, STORE.drop("view")), ops.Commit("new", "active"), Returned(told("new"))) is None


def test_no_clause_was_put_to_the_test_by_what_is_taken_up() -> None:
    after = adopt(believed(STORE), ops.Walk(), Failed(ErrorClass.UNKNOWN))
    assert after is not None
    assert after.clauses == ()


def test_the_next_answer_tells_which_it_was() -> None:
    """After an update that told of the old labels: whether it was made or not, the oracle goes on with what a stat tells."""
    for labels in ((), (("l", "2"),)):
        belief = adopt(begin(STORE), ops.Update("base", (("l", "2"),)), Returned(told("base", l="3")))
        assert belief is not None
        info = Info("base", "", Kind.COMMITTED, labels, 0, 0 if not labels else 5)
        after = perform(belief, ops.Stat("base"), Returned(info))
        assert isinstance(after, Belief)
        assert {world.state.snapshots["base"].labels for world in after.worlds} == {labels}
        wrong = replace(info, labels=(("l", "9"),))
        assert not isinstance(perform(belief, ops.Stat("base"), Returned(wrong)), Belief)


# --- whatever it is

KEYS = ("a", "b", "c", "absent", "")
keys = st.sampled_from(KEYS)
labels = st.sampled_from(((), (("l", "1"),), (("l", ""),), (("containerd.io/gc.root", "x"),)))
times = st.integers(-2, 9)
mounts = st.builds(Mount, st.sampled_from(("bind", "overlay", "")), st.text(max_size=2), st.sampled_from(((), ("rw", "ro"))))
infos = st.builds(Info, keys, keys, st.sampled_from(Kind), labels, times, times)
usages = st.builds(Usage, st.integers(-1, 9), st.integers(-1, 9))
words = st.lists(st.sampled_from(("ok", "EEXIST", "", "EXDEV")), max_size=4).map(tuple)
lists = st.one_of(st.lists(mounts, max_size=2), st.lists(infos, max_size=2)).map(tuple)
responses = st.one_of(
    st.builds(Returned, st.one_of(st.none(), lists, infos, st.builds(Reading, usages), trees(), words)),
    st.builds(Failed, st.sampled_from(ErrorClass)),
)
nameable = st.one_of(
    *(st.builds(op, keys, keys, labels) for op in (ops.Prepare, ops.View)),
    st.builds(ops.Commit, keys, keys, labels, keys),
    *(st.builds(op, keys) for op in (ops.Remove, ops.Mounts, ops.Stat, ops.Usage)),
    st.builds(ops.Update, keys, labels, st.sampled_from(((), ("labels.l",), ("name",)))),
    st.builds(ops.Walk),
)


@st.composite
def calls(draw: st.DrawFn, state: State) -> Operation:
    """Any call, writes of what fits what is there among them."""
    if draw(st.integers(0, 3)) == 0:
        key = draw(keys)
        snapshot = state.get(key)
        return ops.Write(key, tuple(draw(st.lists(changes(snapshot.tree if snapshot else EMPTY), max_size=3))))
    others = st.sampled_from((ops.Cleanup(), ops.Reopen(), ops.Collect(("a",))))
    return draw(st.one_of(nameable, nameable, st.builds(ops.Read, keys), others, st.builds(ops.Nowhere, nameable)))


@given(st.data(), st.sampled_from((DIRECT, METADATA)))
def test_whatever_comes_the_store_stays_well_formed_and_nothing_is_raised(data: st.DataObject, profile: Profile) -> None:
    """One wrong answer upon another, each taken up where it can be: as in a history in which much is set aside."""
    belief = begin(Driver(State(profile=profile)).state)
    for key, parent in (("a", ""), ("b", "a"), ("c", "b")):
        driver = Driver(belief.state)
        driver.do(ops.Prepare("x", parent))
        driver.do(ops.Commit(key, "x") if data.draw(st.booleans()) else ops.Commit("x", "x"))
        belief = begin(driver.state.drop("x"))
    for _ in range(3):
        op, response = data.draw(calls(belief.state)), data.draw(responses)
        after = adopt(belief, op, response)
        assert after is None or all(well_formed(world.state) for world in after.worlds)
        if isinstance(response, Failed):
            assert after is not None
            assert after.worlds == belief.worlds
        belief = after or belief


def test_the_contract_holds_the_function_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapspec.model.adopt._adopted", lambda *_: (State(ONE_OF_EACH.without("base")),))
    assert taken_up(ops.Walk()) is None, "what is not well formed is not taken up"
    with pytest.raises(icontract.ViolationError, match="SNAP-PARENT-1"):
        adopted(State(ONE_OF_EACH.without("base")), ops.Walk(), Failed(ErrorClass.UNKNOWN))
