"""What a crash and a power cut leave: answered calls, calls under way whole or not, and of uncommitted content nothing new."""

from __future__ import annotations

import icontract
import pytest
from states import store

from snapspec.model import durable, ops
from snapspec.model.durable import Layers, newer, settle
from snapspec.model.frozen import Map
from snapspec.model.nodes import EMPTY, FileType, Node, Tree, data_of
from snapspec.model.oracle import Divergence
from snapspec.model.replies import Failed, Mismatch, Response, Returned
from snapspec.model.state import Snapshot, State
from snapspec.model.tree import MakeFile, MakeSymlink, Rename, Unlink, WriteAt
from snapspec.model.values import ErrorClass, Kind, Mount

LIST = Returned((Mount("bind", "/1", ("rbind", "rw")),))
DONE = Returned(None)


def tree(**files: bytes) -> Tree:
    nodes = {path: Node(FileType.FILE, 0o644, data=data_of(data)) for path, data in files.items()}
    return Tree(Map({"": EMPTY.nodes[""], **nodes}))


def held(layers: Layers | Divergence) -> Layers:
    assert isinstance(layers, Layers), layers
    return layers


def after(
    *calls: tuple[ops.Operation, Response], under_way: tuple[ops.Operation, ...] = (), state: State | None = None
) -> Layers:
    """The layers after answered calls, with some more under way."""
    layers = durable.begin(state or State())
    for op, response in calls:
        layers = held(durable.respond(durable.invoke(layers, 1, op), 1, response))
    for number, op in enumerate(under_way, 1):
        layers = durable.invoke(layers, number, op)
    return layers


PREPARED = (ops.Prepare("a"), LIST)
FILLED = (ops.Write("a", (MakeFile("f", b"hello"),)), Returned(("ok",)))
COMMITTED = (ops.Commit("layer", "a"), DONE)


def stores(layers: Layers) -> set[frozenset[tuple[str, Kind]]]:
    """What may be there: the keys and kinds of each allowed state."""
    return {frozenset((key, s.kind) for key, s in w.state.snapshots.items()) for w in layers.belief.worlds}


ACTIVE, LAYER = frozenset({("a", Kind.ACTIVE)}), frozenset({("layer", Kind.COMMITTED)})
FILE = tree(f=b"hello")


# --- a crash


def test_after_a_crash_what_was_answered_is_there_with_its_content() -> None:
    left = durable.crash(after(PREPARED, FILLED))
    assert stores(left) == {ACTIVE}
    assert left.belief.state.snapshots["a"].tree == FILE
    assert not left.unsettled


def test_after_a_crash_a_call_under_way_has_happened_or_not() -> None:
    left = durable.crash(after(PREPARED, FILLED, under_way=(ops.Commit("layer", "a"),)))
    assert stores(left) == {ACTIVE, LAYER}
    assert not left.belief.calls


def test_an_answer_that_is_wrong_is_a_divergence_here_too() -> None:
    wrong = durable.respond(durable.invoke(after(), 1, ops.Remove("a")), 1, DONE)
    assert isinstance(wrong, Divergence)
    assert wrong.clause == "SNAP-REMOVE-1"


# --- a power cut


def test_after_a_power_cut_what_was_answered_is_there_but_uncommitted_content_is_open() -> None:
    left = durable.power_cut(after(PREPARED, FILLED))
    assert stores(left) == {ACTIVE}
    assert set(left.unsettled) == {"a"}
    for came in (EMPTY, FILE, tree(f=b""), tree(f=b"hel"), tree(f=b"\0\0llo")):
        assert held_settled(left, "a", came).belief.state.snapshots["a"].tree == came


def held_settled(layers: Layers, key: str, came: Tree) -> Layers:
    settled = settle(layers, key, came)
    assert isinstance(settled, Layers), settled
    return settled


@pytest.mark.parametrize("came", [tree(g=b""), tree(f=b"hellO"), tree(f=b"hello!"), tree(f=b"ehllo")])
def test_what_was_never_written_is_not_there(came: Tree) -> None:
    settled = settle(durable.power_cut(after(PREPARED, FILLED)), "a", came)
    assert isinstance(settled, Mismatch)
    assert settled.clause == "SNAP-POWER-4"


def test_a_committed_snapshot_keeps_its_content() -> None:
    left = durable.power_cut(after(PREPARED, FILLED, COMMITTED))
    assert stores(left) == {LAYER}
    assert left.belief.state.snapshots["layer"].tree == FILE
    assert not left.unsettled


def test_a_commit_under_way_that_has_happened_has_its_content() -> None:
    left = durable.power_cut(after(PREPARED, FILLED, under_way=(ops.Commit("layer", "a"),)))
    assert stores(left) == {ACTIVE, LAYER}
    [committed] = [w.state for w in left.belief.worlds if "layer" in w.state.snapshots]
    assert committed.snapshots["layer"].tree == FILE
    assert set(left.unsettled) == {"a"}, "where it has not happened, the content is open"
    settled = held_settled(left, "a", EMPTY)
    assert stores(settled) == {ACTIVE, LAYER}, "the look at one key says nothing of the store without it"
    assert committed in {w.state for w in settled.belief.worlds}


def test_a_write_under_way_may_be_there_in_part() -> None:
    op = ops.Write("a", (MakeFile("f", b"one"), Rename("f", "g"), WriteAt("g", 0, b"two"), Unlink("g")))
    left = durable.power_cut(after(PREPARED, under_way=(op,)))
    for came in (EMPTY, tree(f=b"one"), tree(g=b"one"), tree(g=b"two"), tree(g=b"twe")):
        held_settled(left, "a", came)
    assert isinstance(settle(left, "a", tree(h=b"one")), Mismatch)


def test_what_the_parent_shows_may_be_there_again() -> None:
    state = store(base=Snapshot(Kind.COMMITTED, tree=FILE))
    calls = ((ops.Prepare("a", "base"), LIST), (ops.Write("a", (Unlink("f"),)), Returned(("ok",))))
    left = durable.power_cut(after(*calls, state=state))
    held_settled(left, "a", FILE)
    held_settled(left, "a", EMPTY)


def test_what_a_key_has_shown_in_an_earlier_life_does_not_count() -> None:
    left = durable.power_cut(after(PREPARED, FILLED, (ops.Remove("a"), DONE), PREPARED))
    assert isinstance(settle(left, "a", FILE), Mismatch)
    left = durable.power_cut(after(PREPARED, FILLED, COMMITTED, PREPARED))
    assert isinstance(settle(left, "a", FILE), Mismatch)


def test_a_refused_call_ends_no_life() -> None:
    refused = (ops.Prepare("a"), Failed(ErrorClass.ALREADY_EXISTS))
    held_settled(durable.power_cut(after(PREPARED, FILLED, refused)), "a", FILE)


def test_a_write_to_what_is_not_active_shows_nothing() -> None:
    state = store(base=Snapshot(Kind.COMMITTED))
    for key in ("base", "absent"):
        assert after(under_way=(ops.Write(key, (MakeFile("f"),)),), state=state).shown[key] == ()


def test_a_second_power_cut_may_bring_what_the_first_left_open() -> None:
    once = held_settled(durable.power_cut(after(PREPARED, FILLED)), "a", tree(f=b""))
    held_settled(durable.power_cut(once), "a", FILE)


def test_only_what_is_open_is_settled() -> None:
    with pytest.raises(icontract.ViolationError):
        settle(after(PREPARED), "a", EMPTY)


# --- what is newer than written


def test_a_type_or_a_target_that_was_never_there_is_newer() -> None:
    link = Tree(Map({**EMPTY.nodes, "f": Node(FileType.SYMLINK, 0o777, target="x")}))
    other = Tree(Map({**EMPTY.nodes, "f": Node(FileType.SYMLINK, 0o777, target="y")}))
    assert newer(link, (FILE,)) == "a symlink at 'f'"
    assert newer(other, (FILE, link)) == "a symlink at 'f' to 'y'"
    assert newer(link, (FILE, link)) == ""
    op = ops.Write("a", (MakeSymlink("f", "x"),))
    held_settled(durable.power_cut(after(PREPARED, under_way=(op,))), "a", link)


def test_data_may_come_from_any_file_at_its_own_place_only() -> None:
    shown = (tree(f=b"a" * 5000, g=b"b" * 9000),)
    assert newer(tree(f=b"b" * 9000), shown) == ""
    assert newer(tree(f=b"a" * 4500 + b"b" * 4500), shown) == ""
    assert newer(tree(f=b"a" * 5001), shown) != ""


def test_what_no_change_has_touched_is_not_lost() -> None:
    began, written = tree(f=b"1", g=b"2"), tree(f=b"1", g=b"3", h=b"4")
    shown = (began, written)
    assert durable.lost(tree(f=b"1"), shown) == "", "g was written, h was made"
    assert durable.lost(tree(f=b"1", g=b"\0"), shown) == ""
    assert durable.lost(tree(g=b"2"), shown) == "/f: missing (file)"
    assert durable.lost(tree(f=b"\0", g=b"2"), shown) == "/f: content differs from byte 0"
