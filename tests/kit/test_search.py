"""Findings are made shorter, whatever they began with, and what is left still shows the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from snapspec.conformance.draw import PLAIN
from snapspec.conformance.history import Finding, Step, call_text
from snapspec.conformance.search import shorten, simpler, size
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Failed, Mismatch, Returned
from snapspec.model.tree import MakeDirectory, MakeFifo, MakeFile
from snapspec.model.values import ErrorClass

ODD = "x" * 300

#: A long history: layers upon each other, calls that matter to nothing, odd names.
LONG: tuple[Operation, ...] = (
    ops.Prepare("a", labels=(("k", "1"), ("l", "2"))),
    ops.Write("a", (MakeDirectory("d"), MakeFile("f", b"x"), MakeFifo("p"), MakeFile("g"))),
    ops.Commit("b", "a"),
    ops.Walk(("name==a", "kind==view")),
    ops.Prepare(ODD, "b"),
    ops.Write(ODD, (MakeFile("h"), MakeFifo("q")), held=True),
    ops.Commit("with space", ODD, (("k", "1"),)),
    ops.Stat("b"),
    ops.Prepare("c", "with space"),
    ops.Update("c", (("k", "1"),), ("labels.k", "labels"), "b"),
    ops.Commit("d", "c"),
    ops.View("e", "d"),
    ops.Collect(("e", "b")),
    ops.Reopen(close_twice=True),
    ops.Nowhere(ops.Prepare("f", "b", (("k", "1"),))),
    ops.Read("e", held=True),
)


def steps(calls: tuple[Operation, ...]) -> tuple[Step, ...]:
    return tuple(Step(op, Returned()) for op in calls)


def judge(wrong: Callable[[list[Operation]], bool]) -> Callable[[tuple[Step, ...]], Finding | None]:
    """A replay that breaks the clause where `wrong` says so of the calls up to there."""

    def again(made: tuple[Step, ...]) -> Finding | None:
        assert made, "an empty history is none"
        for end in range(1, len(made) + 1):
            if wrong([step.op for step in made[:end]]):
                return Finding(made[:end], (Mismatch("SNAP-CONTENT-1", "", ""),))
        return None

    return again


def shortened(calls: tuple[Operation, ...], wrong: Callable[[list[Operation]], bool]) -> list[Operation]:
    again = judge(wrong)
    first = again(steps(calls))
    assert first is not None
    best = shorten(first, again, lambda: True)
    assert size(best) <= size(first)
    assert again(best.steps) == best
    return [step.op for step in best.steps]


@pytest.mark.parametrize("op", LONG, ids=call_text)
def test_a_call_that_alone_is_wrong_stays_alone_and_simple(op: Operation) -> None:
    (left,) = shortened(LONG, lambda calls: any(type(call) is type(op) for call in calls))
    assert type(left) is type(op)
    assert list(simpler(left)) == []


def test_a_pair_of_calls_that_belong_together_is_left() -> None:
    def wrong(calls: list[Operation]) -> bool:
        made = [call.key for call in calls if isinstance(call, ops.Prepare)]
        return any(isinstance(call, ops.Commit) and call.key in made for call in calls)

    made, commit = shortened(LONG, wrong)
    assert isinstance(made, ops.Prepare)
    assert isinstance(commit, ops.Commit)
    assert (made.parent, made.labels, commit.labels) == ("", (), ())


def test_layers_that_matter_to_nothing_are_left_out() -> None:
    """What is read stands on the layer that holds the file, directly."""

    def wrong(calls: list[Operation]) -> bool:
        shows: dict[str, bool] = {"": False}
        for call in calls:
            match call:
                case ops.Prepare(key, parent) | ops.View(key, parent) if parent in shows:
                    shows[key] = shows[parent]
                case ops.Write(key, changes) if key in shows and MakeFile("f", b"x") in changes:
                    shows[key] = True
                case ops.Commit(name, key) if key in shows:
                    shows[name] = shows.pop(key)
                case ops.Read(key):
                    return shows.get(key, False)
        return False

    calls = shortened(LONG, wrong)
    made = (ops.Prepare("a"), ops.Write("a", (MakeFile("f", b"x"),)), ops.Commit("b", "a"))
    assert calls == [*made, ops.View("e", "b"), ops.Read("e")]


def test_odd_names_become_plain_ones() -> None:
    calls = shortened(LONG, lambda made: sum(isinstance(call, ops.Commit) for call in made) == 2)
    for call in calls:
        assert isinstance(call, ops.Commit)
        assert {call.key, call.name} <= {*PLAIN, ""}


def test_what_only_a_look_has_shown_is_there_without_the_call_before_it() -> None:
    """The look becomes a call of the history, when it shows the same without what it followed."""
    look = Step(ops.Walk(), Returned(()), check=True)
    found = Finding((*steps((ops.Prepare("a"), ops.Remove("absent"))), look), (Mismatch("SNAP-CONTENT-1", "", ""),))
    best = shorten(found, judge(lambda calls: ops.Walk() in calls and ops.Prepare("a") in calls), lambda: True)
    assert [step.op for step in best.steps] == [ops.Prepare("a"), ops.Walk()]


def test_no_history_is_tried_twice() -> None:
    made: list[tuple[Operation, ...]] = []

    def again(tried: tuple[Step, ...]) -> Finding | None:
        made.append(tuple(step.op for step in tried))
        return judge(lambda calls: sum(isinstance(call, ops.Commit) for call in calls) == 2)(tried)

    found = again(steps(LONG))
    assert found is not None
    made.clear()
    shorten(found, again, lambda: True)
    assert len(made) == len(set(made)) > 0


def test_what_made_the_named_snapshot_is_tried_first() -> None:
    """However much lies between: calls on others, and refused ones and earlier lives of the same names."""
    base = (ops.Prepare("making"), ops.Write("making", (MakeFile("f"),)), ops.Commit("base", "making"))
    others = [op for n in range(50) for op in (ops.Prepare(f"other{n}"), ops.Stat(f"other{n}"), ops.Remove(f"other{n}"))]
    refused = Step(ops.Prepare("top", "base"), Failed(ErrorClass.ALREADY_EXISTS, ""))
    top = (ops.Prepare("making", "base"), ops.Commit("top", "making"), ops.View("seen", "top"))
    whole = (
        *steps((ops.Prepare("making"), ops.Remove("making"), *base, *others, *top, *others)),
        refused,
        *steps((ops.Read("seen"),)),
    )
    found = Finding(whole, (Mismatch("SNAP-CONTENT-1", "", ""),))
    made: list[int] = []

    def again(tried: tuple[Step, ...]) -> Finding | None:
        made.append(len(tried))
        return judge(lambda calls: {*base, *top, ops.Read("seen")} <= {*calls})(tried)

    assert len(shorten(found, again, lambda: True).steps) == 7
    assert made[0] == 7


def test_another_clause_is_another_finding() -> None:
    found = Finding(steps(LONG[:3]), (Mismatch("SNAP-STAT-1", "", ""),))
    assert shorten(found, judge(lambda _: True), lambda: True) is found


def test_when_time_is_up_the_shortest_so_far_is_given() -> None:
    tries = iter(range(3))
    found = Finding(steps(LONG), (Mismatch("SNAP-CONTENT-1", "", ""),))
    best = shorten(found, judge(lambda calls: isinstance(calls[-1], ops.Read)), lambda: next(tries, None) is not None)
    assert 1 <= len(best.steps) < len(LONG)
