"""What a power cut leaves of a manager: records as a crash leaves them, and of what is not final nothing that never was."""

from __future__ import annotations

import icontract
import pytest

from snapspec.model import ref_durable, ref_ops
from snapspec.model.frozen import Map
from snapspec.model.linear import Divergence
from snapspec.model.nodes import EMPTY, FileType, Node, Tree, data_of
from snapspec.model.ref_durable import RefLayers, settle
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_replies import GotHandle, GotSize, GotWords, RefAnswer, RefReturned
from snapspec.model.ref_state import RefState
from snapspec.model.replies import Mismatch
from snapspec.model.tree import MakeFile

#: A call and its answer.
Answered = tuple[RefOperation, RefAnswer]

NEW: Answered = (ref_ops.New("m", "hm"), RefReturned(GotHandle("m")))
WRITTEN: Answered = (ref_ops.Write("hm", (MakeFile("f", b"hello"), MakeFile("g", b"x"))), RefReturned(GotWords(("ok", "ok"))))
COMMITTED: Answered = (ref_ops.Commit("hm", "e", "he"), RefReturned(GotHandle("e")))
FINAL: Answered = (ref_ops.Finalize("he"), RefReturned())
RESTARTED: Answered = (ref_ops.Restart(), RefReturned())
PAIR = (NEW, WRITTEN, COMMITTED)


def tree(**files: bytes) -> Tree:
    nodes = {path: Node(FileType.FILE, 0o644, data=data_of(data)) for path, data in files.items()}
    return Tree(Map({"": EMPTY.nodes[""], **nodes}))


FULL = tree(f=b"hello", g=b"x")


def held(layers: RefLayers | Divergence) -> RefLayers:
    assert isinstance(layers, RefLayers), layers
    return layers


def on(layers: RefLayers, *calls: Answered) -> RefLayers:
    for op, answer in calls:
        layers = held(ref_durable.respond(ref_durable.invoke(layers, 1, op), 1, answer))
    return layers


def after(*calls: Answered, under_way: tuple[RefOperation, ...] = ()) -> RefLayers:
    """The layers after answered calls, with some more under way."""
    layers = on(ref_durable.begin(RefState()), *calls)
    for number, op in enumerate(under_way, 1):
        layers = ref_durable.invoke(layers, number, op)
    return layers


def records(layers: RefLayers) -> set[frozenset[str]]:
    """What may be there: the ids of each allowed state."""
    return {frozenset(world.state.records) for world in layers.belief.worlds}


def content(layers: RefLayers, key: str) -> set[Tree]:
    snapshots = [world.state.driver.snapshots.get(key) for world in layers.belief.worlds]
    return {snapshot.tree for snapshot in snapshots if snapshot is not None}


def test_what_was_answered_is_there_and_content_that_is_not_final_is_open() -> None:
    left = ref_durable.power_cut(after(*PAIR))
    assert records(left) == {frozenset({"m", "e"})}
    assert set(left.unsettled) == {"m"}
    assert set(left.unsettled["m"]) == {EMPTY, tree(f=b"hello"), FULL}


def test_what_is_final_is_whole() -> None:
    left = ref_durable.power_cut(after(*PAIR, FINAL))
    assert records(left) == {frozenset({"e"})}
    assert not left.unsettled
    assert content(left, "e") == {FULL}


def test_a_finalize_under_way_has_happened_with_all_the_content_or_not() -> None:
    left = ref_durable.power_cut(after(*PAIR, under_way=(ref_ops.Finalize("he"),)))
    assert records(left) == {frozenset({"m", "e"}), frozenset({"e"})}
    settled = settle(left, "m", tree(f=b"hello"))
    assert isinstance(settled, RefLayers)
    assert (content(settled, "m"), content(settled, "e")) == ({tree(f=b"hello")}, {FULL})


def test_calls_under_way_have_come_as_far_as_they_came() -> None:
    left = ref_durable.power_cut(after(*PAIR, under_way=(ref_ops.New("n", "hn", "he"), ref_ops.DiskUsage())))
    assert records(left) == {frozenset({"m", "e"}), frozenset({"e"}), frozenset({"e", "n"})}
    assert not left.belief.calls


def test_a_write_under_way_may_have_come_to_the_disk_in_part() -> None:
    op, _ = WRITTEN
    assert set(ref_durable.power_cut(after(NEW, under_way=(op,))).unsettled["m"]) == {EMPTY, tree(f=b"hello"), FULL}
    through_e = ref_ops.Write("he", (MakeFile("other", b"y"),))
    left = ref_durable.power_cut(after(*PAIR, under_way=(through_e, ref_ops.Write("none", (MakeFile("o", b""),)))))
    assert not {path for shown in left.unsettled["m"] for path in shown.nodes} & {"o"}


def test_the_first_look_settles_what_is_read_later() -> None:
    left = on(ref_durable.power_cut(after(*PAIR)), RESTARTED)
    settled = settle(left, "m", tree(f=b"hel\0o"))
    assert isinstance(settled, RefLayers)
    got: Answered = (ref_ops.Get("e", "h2", "x"), RefReturned(GotHandle("e")))
    again = on(settled, got, (ref_ops.Read("h2"), RefReturned(tree(f=b"hel\0o"))))
    assert not again.unsettled
    wrong = ref_durable.respond(ref_durable.invoke(again, 1, ref_ops.Read("h2")), 1, RefReturned(FULL))
    assert isinstance(wrong, Divergence)
    assert wrong.clause == "REF-COMMIT-3"
    with pytest.raises(icontract.ViolationError):
        settle(settled, "m", FULL)


@pytest.mark.parametrize("came", [tree(f=b"hello", never=b""), tree(f=b"jello"), tree(f=b"hello!")])
def test_what_was_never_written_is_not_there(came: Tree) -> None:
    wrong = settle(ref_durable.power_cut(after(*PAIR)), "m", came)
    assert isinstance(wrong, Mismatch)
    assert wrong.clause == "REF-POWER-3"


def test_a_size_that_was_told_stays_whatever_has_become_of_the_content() -> None:
    sized = (ref_ops.Size("he"), RefReturned(GotSize(8192)))
    left = settle(ref_durable.power_cut(after(*PAIR, sized)), "m", EMPTY)
    assert isinstance(left, RefLayers)
    got: Answered = (ref_ops.Get("e", "h2", "x"), RefReturned(GotHandle("e")))
    again = on(left, RESTARTED, got, (ref_ops.Size("h2"), RefReturned(GotSize(8192))))
    wrong = ref_durable.respond(ref_durable.invoke(again, 1, ref_ops.Size("h2")), 1, RefReturned(GotSize(4096)))
    assert isinstance(wrong, Divergence)
    assert wrong.clause == "REF-SIZE-1"


def test_an_answer_that_is_wrong_is_a_divergence_here_too() -> None:
    wrong = ref_durable.respond(ref_durable.invoke(after(), 1, ref_ops.Get("m", "h", "x")), 1, RefReturned(GotHandle("m")))
    assert isinstance(wrong, Divergence)
    assert wrong.clause == "REF-ERROR-2"
