"""Several calls under way when the power fails: what is known at each moment, and that all of them are judged as open."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_power import assert_nothing_left, requires_recorder

from snapspec.conformance.durable import PowerCut, Together, images, power
from snapspec.conformance.durable.place import place
from snapspec.conformance.durable.recorded import Happening, Recorded, record, written
from snapspec.conformance.durable.recorder import Event, Told
from snapspec.conformance.durable.survivor import judge
from snapspec.conformance.history import Step, line
from snapspec.conformance.report.text import finding_lines
from snapspec.model import durable, ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Failed, Lost, Response, Returned
from snapspec.model.state import State
from snapspec.model.tree import MakeFile
from snapspec.model.values import ErrorClass

LOST = Lost("the power failed")
DONE = Returned()
REMOVES = Together(calls=(ops.Remove("a"), ops.Remove("b")))

#: Three things that the disk is told: before the calls, by the first one of them, and after that has answered.
EVENTS = tuple(Event(Told.WRITE, 0, 512, b"\0" * 512, end) for end in (10, 20, 30))


def happening(call: int, position: int, response: Response | None = None) -> Happening:
    return Happening(0, call, REMOVES.calls[call - 1], call, position, response)


def two_removes() -> Recorded:
    """Both begin when the log has a length of 10; the first one answers at 20, the second one at 30."""
    refused = Failed(ErrorClass.NOT_FOUND, "")
    happenings = (happening(1, 10), happening(2, 10), happening(1, 20, refused), happening(2, 30, refused))
    layers = [durable.begin(State())]
    for h in happenings:
        if h.response is None:
            layers.append(durable.invoke(layers[-1], h.call, h.op, h.time))
        else:
            after = durable.respond(layers[-1], h.call, h.response, h.time)
            assert isinstance(after, durable.Layers)
            layers.append(after)
    return Recorded((Step(REMOVES, DONE),), happenings, tuple(layers), EVENTS)


def test_what_had_answered_is_known_and_what_had_not_is_open() -> None:
    recorded = two_removes()
    before, first, second, after = [recorded.known(moment) for moment in range(4)]
    for none in (before, recorded.known(1)):
        assert (none.done, none.during, len(none.layers.belief.calls)) == (0, (), 0), "at 10 nothing is told of them"
    assert first.during == ()
    refused = Failed(ErrorClass.NOT_FOUND, "")
    assert (second.done, second.during, second.answers) == (0, REMOVES.calls, (refused, LOST))
    assert set(second.layers.belief.calls) == {2}
    assert (after.done, after.during, len(after.layers.belief.calls)) == (1, (), 0)


def test_both_are_open_between_their_beginning_and_the_first_answer() -> None:
    recorded = two_removes()
    middle = Recorded(recorded.steps, recorded.happenings, recorded.layers, (*EVENTS[:1], Event(Told.FLUSH, 0, 0, b"", 15)))
    known = middle.known(2)
    assert (known.during, known.answers) == (REMOVES.calls, (LOST, LOST))
    assert set(known.layers.belief.calls) == {1, 2}
    assert middle.base(0, begun=True) == 1


OVERLAP: tuple[Operation, ...] = (
    ops.Prepare("a"),
    ops.Write("a", (MakeFile("f", b"hello"),)),
    ops.Prepare("c"),
    Together(calls=(ops.Commit("b", "a"), ops.Prepare("d"), ops.Remove("c"))),
)


@pytest.mark.root
@requires_recorder
def test_calls_that_overlap_are_recorded_and_judged_with_all_of_them_open(workdir: Path) -> None:
    with place(workdir) as here:
        recorded = record(here, written(OVERLAP))
        (moments,) = recorded.spans()[-1:]
        known = [recorded.known(moment) for moment in moments]
        open_ = [len(each.layers.belief.calls) for each in known]
        assert max(open_) == 3, "all three were under way together"
        moment = moments[open_.index(3)]
        disk = here.disk(recorded.events)
        for how in ("none", "all"):
            cut = images.like(recorded.events, moment, how, 4096, b"")
            assert judge(here, recorded, disk, cut) is None
    assert_nothing_left(workdir)


@pytest.mark.root
@requires_recorder
def test_no_image_of_calls_that_overlap_is_wrong(workdir: Path) -> None:
    with place(workdir) as here:
        found = power.try_each(here, OVERLAP, at_end=True)
    assert found is None, "\n".join(finding_lines(found))


@pytest.mark.root
@requires_recorder
def test_what_had_answered_among_them_must_be_there(workdir: Path) -> None:
    """The image of a moment at which one call is open, judged with what is known when it has answered."""
    with place(workdir) as here:
        recorded = record(here, written((ops.Prepare("a"), Together(calls=(ops.Remove("a"), ops.Prepare("b"))))))
        (*_, moments) = recorded.spans()
        late = Recorded(recorded.steps, tuple(early(h) for h in recorded.happenings), recorded.layers, recorded.events)
        found = judge(here, late, here.disk(late.events), images.like(late.events, moments[0], "none", 4096, b""))
        assert found is not None
        assert found.clause == "SNAP-POWER-1"
    assert_nothing_left(workdir)


def early(happening: Happening) -> Happening:
    """As if it had come before the disk was told anything."""
    return Happening(happening.step, happening.call, happening.op, happening.time, 0, happening.response)


def test_they_are_one_step_of_a_history() -> None:
    assert line(Step(REMOVES, Returned(("done", "done")))) == "together(calls=[remove('a'), remove('b')]) -> done, done"
    cut = Step(PowerCut(during=REMOVES.calls), Returned(("done", "no answer")))
    assert line(cut) == "power cut during [remove('a'), remove('b')]: the disk has flushed all -> done, no answer"


def test_a_history_is_made_shorter_in_them_too() -> None:
    together = Together(calls=(ops.Commit("b", "a", (("k", "1"),)), ops.Usage("a"), ops.Remove("c")))
    less = set(power._less((ops.Prepare("a"), together)))
    assert (together,) in less
    assert (ops.Prepare("a"), ops.Commit("b", "a", (("k", "1"),)), ops.Usage("a"), ops.Remove("c")) in less
    assert (ops.Prepare("a"), Together(calls=(ops.Usage("a"), ops.Remove("c")))) in less
    assert (ops.Prepare("a"), Together(calls=(ops.Commit("b", "a"), ops.Usage("a"), ops.Remove("c")))) in less
