"""What a finding shows: the states around its last call, its rows, and the calls that overlap."""

from __future__ import annotations

import json

import pytest
from report_samples import hostile, lost, overlapping, pruned, removed, unlocked, updated, walked

from snapspec.conformance.durable import PowerCut, Restart, Together
from snapspec.conformance.faults import Faulted, How
from snapspec.conformance.history import Finding, Step, decode_finding, encode_finding
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.report.document import Arrow, Bar, Box, Picture, Row, Verdict
from snapspec.conformance.report.drawing import drawings, lanes
from snapspec.conformance.report.found import found, of_finding, rows_of
from snapspec.conformance.report.pictures import MOST, of_records, of_ref_state, of_state
from snapspec.model import ops
from snapspec.model.frozen import Map
from snapspec.model.nodes import FileType, Node, Tree
from snapspec.model.refs import Handle, Record, RefState
from snapspec.model.replies import Failed, Mismatch, Response, Returned
from snapspec.model.state import Snapshot, State
from snapspec.model.tree import EMPTY
from snapspec.model.values import ErrorClass, Info, Kind, Mount, Usage

COMMITTED = Snapshot(Kind.COMMITTED, labels=(("l", "1"),), usage=Usage(4096, 1))


def chain(length: int) -> State:
    """A chain of committed snapshots."""
    return State(Map((f"c{n}", Snapshot(Kind.COMMITTED, f"c{n - 1}" if n else "")) for n in range(length)))


# --- pictures


def test_a_store_is_drawn_with_parents_labels_and_usage() -> None:
    picture = of_state(State(Map({"b": COMMITTED, "a": Snapshot(Kind.ACTIVE, "b")})), "now")
    assert picture.boxes == (Box("b", "committed", ("label l=1", "4096 bytes, 1 inode")), Box("a", "active"))
    assert picture.arrows == (Arrow("a", "b", "parent"),)


def test_a_manager_is_drawn_with_handles_pairs_and_parents() -> None:
    records = Map(
        {
            "m": Record(mutable=True, parent="p", equal="e"),
            "e": Record(mutable=False, parent="p", equal="m"),
            "p": Record(mutable=False, size=512),
        }
    )
    handles = Map({"h": Handle("e", mutable=False), "old": Handle("p", mutable=False, open=False)})
    driver = State(Map({"m": Snapshot(Kind.ACTIVE, "p"), "p": Snapshot(Kind.COMMITTED), "v": Snapshot(Kind.VIEW, "p")}))
    picture = of_ref_state(RefState(records, handles, driver), "now")
    assert {(box.name, box.kind, box.lines) for box in picture.boxes} == {
        ("h", "handle", ()),
        ("m", "mutable", ("no open handle",)),
        ("e", "immutable", ()),
        ("p", "immutable", ("512 bytes", "no open handle")),
        ("v (snapshot)", "view", ()),
    }
    expected = {Arrow("h", "e", "holds"), Arrow("m", "e", "pair"), Arrow("m", "p", "parent"), Arrow("e", "p", "parent")}
    assert set(picture.arrows) == expected


def test_a_handle_and_a_record_of_one_name_are_two_boxes() -> None:
    state = RefState(Map({"x": Record(mutable=True)}), Map({"x": Handle("x", mutable=True)}))
    picture = of_ref_state(state, "now")
    assert [box.name for box in picture.boxes] == ["handle x", "x"]
    assert picture.arrows == (Arrow("handle x", "x", "holds"),)


def test_what_a_manager_has_is_drawn_with_its_open_handles() -> None:
    picture = of_records({"m": (Record(mutable=True, size=5), 2)}, "now")
    assert picture.boxes == (Box("m", "mutable", ("5 bytes", "2 open handles")),)


def test_a_picture_has_so_many_boxes_and_says_how_many_it_leaves_out() -> None:
    picture = of_state(chain(128), "now")
    assert len(picture.boxes) == MOST
    assert picture.title == f"now ({128 - MOST} more are not drawn)"
    assert len(picture.arrows) == MOST - 1


# --- findings


def test_a_call_that_is_to_be_refused_has_one_state() -> None:
    (picture,) = of_finding(removed())
    assert picture.title == "Before remove('b'), and after it: it is to be refused"
    assert {box.name for box in picture.boxes} == {"b", "c"}


def test_a_call_that_is_to_change_something_has_the_states_before_and_after() -> None:
    before, after = of_finding(hostile())
    assert [box.name for box in before.boxes] == ["b"]
    assert [box.name for box in after.boxes] == ["b", "c"]
    assert after.arrows == (Arrow("c", "b", "parent"),)


def test_a_walk_is_drawn_beside_what_is_allowed() -> None:
    allowed, came = of_finding(walked())
    assert allowed.title == "What is allowed at walk()"
    assert [box.name for box in came.boxes] == ["c"]
    assert came.arrows == ()


def test_an_answer_that_tells_of_a_snapshot_stands_in_its_box() -> None:
    _, after = of_finding(updated())
    assert after.boxes == (Box("a", "active", ("label l=2", "told: active", "told: label l=1")),)


def told(*steps: tuple[ops.Operation, Response]) -> Finding:
    return Finding(tuple(Step(op, response) for op, response in steps), (Mismatch("SNAP-FAIL-1", "x", "y"),))


MADE = Returned((Mount("bind", "/x", ("rw", "rbind")),))
BUSY = Failed(ErrorClass.UNKNOWN, "no room")


@pytest.mark.parametrize(
    ("step", "response", "names"),
    [
        (Faulted(call=ops.Prepare("x"), how=How.BEFORE, at="mkdir", error="EIO"), BUSY, [{"a"}, {"a", "x"}]),
        (ops.Reopen(), BUSY, [{"a"}]),
        (Restart(kill=True, during=(ops.Prepare("x"),)), Returned(("no answer",)), [{"a"}]),
        (PowerCut(during=(ops.Prepare("x"),)), Returned(None), [{"a"}]),
        (Together((ops.Prepare("x"),)), Returned(("done",)), [{"a"}]),
        (ops.Stat("a"), Returned(Info("a", "b", Kind.ACTIVE, (), 0, 0)), [{"a"}, {"a"}]),
        (ops.Usage("a"), BUSY, [{"a"}]),
    ],
)
def test_steps_of_other_levels_are_drawn_as_far_as_the_model_can_tell(
    step: ops.Operation, response: Response, names: list[set[str]]
) -> None:
    pictures = of_finding(told((ops.Prepare("a"), MADE), (step, response)))
    assert [{box.name for box in picture.boxes} for picture in pictures] == names


@pytest.mark.parametrize(
    ("step", "response"),
    [
        (Restart(kill=True, during=(ops.Prepare("x"),)), Returned(("no answer",))),
        (PowerCut(during=(ops.Prepare("x"),)), Returned(None)),
        (Faulted(call=ops.Prepare("x"), how=How.AFTER, at="rename", error="EIO"), BUSY),
    ],
)
def test_a_later_look_tells_what_became_of_a_call_that_was_cut_short(step: ops.Operation, response: Response) -> None:
    """The history allows two states until a walk shows which it was."""
    walk = (Info("x", "", Kind.ACTIVE, (), 5, 5),)
    open_ = of_finding(told((step, response), (ops.Prepare(""), MADE)))
    assert "one of 2 that the history allows" in open_[0].title
    settled = of_finding(told((step, response), (ops.Walk(), Returned(walk)), (ops.Prepare(""), MADE)))
    assert "one of" not in settled[0].title
    assert [box.name for box in settled[0].boxes] == ["x"]


def test_an_answer_that_is_another_finding_changes_nothing() -> None:
    wrong = (ops.Remove("nothing"), Returned(None))
    pictures = of_finding(told((ops.Prepare("a"), MADE), wrong, (ops.Commit("b", "a"), BUSY)))
    assert [{box.name for box in picture.boxes} for picture in pictures] == [{"a"}, {"b"}]


def test_calls_that_overlap_are_bars_with_the_one_that_has_no_place() -> None:
    finding = overlapping()
    assert {bar.caller for bar in finding.bars} == {"caller 1", "caller 2"}
    assert [bar.call for bar in finding.bars] == ["prepare('a')"] * 2
    assert [bar.mark for bar in finding.bars].count("broken") == 1
    first, second = finding.bars
    assert second.began < (first.ended or 0), "they overlap"
    assert rows_of(finding) == tuple(Row(bar.call, bar.answer, bar.caller, bar.mark) for bar in finding.bars)


def test_bursts_of_refs_are_bars_and_their_states_stand_in_the_finding() -> None:
    finding = pruned()
    prune, get = finding.bars
    assert (prune.call, prune.mark, get.call, get.mark) == ("prune()", "broken", "get('d', 'hg', 'x')", "")
    assert prune.began < get.began < (get.ended or 0) < (prune.ended or 0)
    allowed, has = finding.pictures
    assert {box.name for box in allowed.boxes} == {"c", "d", "e"}
    assert (has.title, [box.name for box in has.boxes]) == ("What the manager has", ["e"])
    refused, has = unlocked().pictures
    assert refused.title.endswith("it is to be refused")
    assert refused.arrows == (Arrow("m", "e", "pair"),)
    assert (len(has.boxes), has.arrows) == (1, ())
    assert unlocked().bars == (), "nothing overlaps in it"


@pytest.mark.parametrize("finding", [removed, overlapping, pruned, unlocked])
def test_what_is_drawn_stands_in_the_file_and_is_not_needed_there(finding: object) -> None:
    assert callable(finding)
    one: Finding | RefFinding = finding()
    document = json.loads(json.dumps(encode_finding(one)))
    assert decode_finding(document) == one
    older = {name: value for name, value in document.items() if name not in ("bars", "pictures")}
    old = decode_finding(older)
    assert old.pictures == ()
    assert old.mismatches == one.mismatches


# --- rows and the whole


def test_the_rows_of_a_history_of_refs_tell_calls_and_what_happens_between() -> None:
    rows = rows_of(pruned())
    assert rows[0] == Row("new('m', 'hm')", "a handle on 'm'", "call 1")
    assert Row("prune() begins", "", "call 6") in rows
    assert rows[-1] == Row("prune() ends", "'c' and 'd' of unknown size", "call 6", "broken")


def test_the_rows_of_calls_name_their_namespace_where_there_are_several() -> None:
    steps = (Step(ops.Prepare("a"), MADE), Step(ops.Walk(), Returned(()), 1, check=True), Step(ops.Remove("a"), BUSY, 1))
    finding = Finding(steps, (Mismatch("SNAP-KEY-1", "x", "y"),))
    assert rows_of(finding) == (
        Row("prepare('a')", "bind mount", "namespace 0"),
        Row("remove('a')", "Unknown: no room", "namespace 1", "broken"),
    )


def test_a_finding_becomes_what_a_report_shows() -> None:
    shown_ = found(3, "core", removed(), subject="py:x")
    assert (shown_.number, shown_.level, shown_.clause, shown_.at) == (3, "core", "SNAP-REMOVE-2", "remove('b')")
    assert shown_.file == "findings/3-SNAP-REMOVE-2.json"
    assert shown_.history["format"] == "snapspec history 1"
    assert shown_.history["subject"] == "py:x"
    assert decode_finding(shown_.history) == removed()
    assert shown_.verdict is Verdict.FAILED
    assert found(1, "concurrent", overlapping()).lanes
    assert found(1, "refs", pruned()).at == "prune()"
    assert found(1, "core", lost()).rows[-1].answer == "no answer: nothing came within 20 s"


# --- where things stand


def overlaps(boxes: list[tuple[float, float, float, float]]) -> bool:
    return any(
        a != b and a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
        for a in boxes
        for b in boxes
    )


def test_no_box_covers_another_in_a_picture_of_twelve_and_more() -> None:
    wide = State(Map({"p": COMMITTED, **{f"a{n}": Snapshot(Kind.ACTIVE, "p", (("l", "x" * 60),)) for n in range(15)}}))
    records = Map(
        {f"m{n}": Record(mutable=True, equal=f"e{n}") for n in range(3)}
        | {f"e{n}": Record(mutable=False, equal=f"m{n}") for n in range(3)}
    )
    handles = Map({f"h{n}": Handle(f"e{n // 2}", mutable=False) for n in range(6)})
    pictures = [of_state(chain(12), ""), of_state(wide, ""), of_ref_state(RefState(records, handles), "")]
    for picture in pictures:
        (drawing,) = drawings([picture])
        assert len(drawing.boxes) == len(picture.boxes) >= 12
        assert not overlaps([(p.x, p.y, p.width, p.height) for p in drawing.boxes])
        assert all(p.x >= 0 and p.x + p.width <= drawing.width and p.y + p.height <= drawing.height for p in drawing.boxes)
        assert drawing.width < 1100


def test_a_parent_stands_above_what_is_built_on_it() -> None:
    (drawing,) = drawings([of_state(chain(5), "")])
    tops = [placed.y for placed in drawing.boxes]
    assert tops == sorted(set(tops))
    assert "committed c1 on c0" in drawing.told


def test_a_circle_of_parents_and_an_unknown_end_are_drawn_all_the_same() -> None:
    (came,) = of_finding(walked())[1:]
    odd = (Arrow("c", "c", "parent"), Arrow("c", "nowhere", "holds"))
    (drawing,) = drawings([Picture("t", came.boxes, odd)])
    assert [placed.box.name for placed in drawing.boxes] == ["c"]


def test_two_pictures_tell_what_differs() -> None:
    first, second = drawings(of_finding(hostile()))
    assert [p.mark for p in first.boxes] == [""]
    assert [p.mark for p in second.boxes] == ["", "only here"]
    before, after = drawings(of_finding(updated()))
    assert [p.mark for p in (*before.boxes, *after.boxes)] == ["differs", "differs"]


def test_a_name_is_cut_to_its_box_and_what_the_snapshot_holds_is_told() -> None:
    tree = Tree(EMPTY.nodes.set("f", Node(FileType.FILE, 0o644)))
    (drawing,) = drawings([of_state(State(Map({"k" * 300: Snapshot(Kind.ACTIVE, tree=tree)})), "")])
    assert drawing.boxes[0].width < 230
    assert drawing.boxes[0].name.endswith("…")
    assert drawing.boxes[0].lines == ("holds f",)


def test_a_call_without_an_answer_reaches_to_the_end() -> None:
    bars = (Bar(1, "prepare('a')", "done", 0, 1, "caller 1"), Bar(2, "walk()", "no answer", 0, None, "caller 2", "broken"))
    drawn = lanes(bars)
    one, two = drawn.strips
    assert two.open
    assert not one.open
    assert two.width > one.width
    assert drawn.names == ("caller 1", "caller 2")
    assert "walk() from moment 0 without an answer" in drawn.told
