"""What a power cut has left, judged: the image mounted for real, checked, and the driver opened on it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from snapspec.conformance.durable import PowerCut, UnderWay, images
from snapspec.conformance.durable.images import Cut, Disk
from snapspec.conformance.durable.place import Place, PoweredSubject
from snapspec.conformance.durable.recorded import Known, Recorded
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import Finding, Step, answer_text
from snapspec.conformance.session import DEADLINE, SPARE, Diverged, Session
from snapspec.model import durable, ops
from snapspec.model.durable import Layers
from snapspec.model.replies import Mismatch, Returned
from snapspec.model.state import children
from snapspec.model.tree import MakeFile, Tree
from snapspec.model.values import Kind

#: The name of the layer that is written once more on each image.
_SPARE_LAYER = "spare layer"


def judge(
    here: Place,
    recorded: Recorded,
    disk: Disk,
    cut: Cut,
    *,
    kernel: bool = True,
    reached: Counter[str] | None = None,
    signals: Sequence[int] = (),
) -> Finding | None:
    """Make the image, mount it and open the driver on it; what the spec does not allow of what is there, or None.

    With `kernel` the file system is mounted and checked before the driver opens it, otherwise checked after the driver has closed
    it: then the pool itself had to recover it. `reached` counts the clauses that were put to the test.
    """
    disk.cut(cut, here.image)
    known = recorded.known(cut.moment)
    steps = [*recorded.steps[: known.done], _cut_step(recorded, cut, known)]
    wrong = here.replayed() if kernel else ""
    if wrong:
        return _unclean(steps, wrong)
    survivor = Survivor(here.subject(), here.runner, steps, durable.power_cut(known.layers, known.now), signals)
    found = _survived(survivor)
    if found is None and not kernel:
        wrong = here.checked()
        found = _unclean(steps, wrong) if wrong else None
    if reached is not None:
        reached.update(survivor.reached)
    return found


def _cut_step(recorded: Recorded, cut: Cut, known: Known) -> Step:
    """The power cut as a step, with what is needed to make the image again."""
    told = cut.moment - recorded.base(known.done, begun=bool(known.during))
    during = tuple(op for op in known.during if isinstance(op, UnderWay))
    unflushed, bits = images.bits(cut, recorded.events)
    answers = tuple(map(answer_text, known.answers)) or None
    return Step(PowerCut(during=during, told=told, how=cut.how, grain=cut.grain, open=unflushed, bits=bits), Returned(answers))


def _unclean(steps: list[Step], wrong: str) -> Finding:
    return Finding(tuple(steps), (Mismatch("SNAP-POWER-5", "a file system that is clean once it was mounted", wrong),))


def _survived(session: Survivor) -> Finding | None:
    try:
        with session.started():
            session.look()
    except Diverged as diverged:
        return diverged.finding
    except CannotRun as error:
        if session.began:
            raise
        return Finding(tuple(session.before), (Mismatch("SNAP-POWER-5", "a store that opens", str(error)),))
    return None


class Survivor(Session):
    """A session on what a power cut has left, after the `steps` that came before."""

    def __init__(
        self, subject: PoweredSubject, runner: asyncio.Runner, steps: list[Step], layers: Layers, signals: Sequence[int]
    ) -> None:
        super().__init__(subject, runner, DEADLINE, signals)
        self.before = steps
        self.layers = layers
        self.began = False
        """Whether the store was opened."""

    def look(self) -> None:
        """Everything that the power cut must have left, then calls of each kind that changes something. Raises Diverged."""
        self.begin()
        self.began = True
        self.steps = list(self.before)
        self.beliefs = [self.layers.belief]
        for clause, expected, step in (
            ("SNAP-POWER-1", "every call that had answered, and those under way whole or not at all", self._records),
            ("SNAP-POWER-3", "the whole snapshot of each record", self._active),
            ("SNAP-POWER-2", "the content of each committed snapshot as it was when its commit answered", self._committed),
            ("SNAP-POWER-5", "a store that works", self._works),
        ):
            self._under(clause, expected, step)

    def _under(self, clause: str, expected: str, step: Callable[[], None]) -> None:
        """What is wrong in this step breaks `clause`, besides the clause of the call that has shown it."""
        try:
            step()
            self.reached[clause] += 1
        except Diverged as diverged:
            shown = diverged.finding.mismatches
            cause = () if shown[0].clause == clause else (Mismatch(clause, expected, shown[0].came),)
            raise Diverged(replace(diverged.finding, mismatches=(*cause, *shown))) from None

    def _records(self) -> None:
        self.do(ops.Walk(), check=True)
        for key in self._keys(Kind.ACTIVE, Kind.VIEW):
            self.do(ops.Mounts(key), check=True)

    def _active(self) -> None:
        """The first look settles what an active snapshot holds."""
        for key in self._keys(Kind.VIEW):
            self.do(ops.Read(key), check=True)
        layers = replace(self.layers, belief=self.beliefs[0])
        for key in self._keys(Kind.ACTIVE):
            response = self._answer(0, ops.Read(key))
            self.steps.append(Step(ops.Read(key), response, check=True))
            if not isinstance(response, Returned) or not isinstance(response.value, Tree):
                raise self._diverged("SNAP-POWER-3", "a snapshot that can be mounted", answer_text(response))
            settled = durable.settle(layers, key, response.value)
            if isinstance(settled, Mismatch):
                raise Diverged(Finding(tuple(self.steps), (settled,)))
            layers = settled
            self.reached["SNAP-POWER-4"] += 1
        self.beliefs = [layers.belief]

    def _committed(self) -> None:
        state = self.state()
        for key in self._keys(Kind.COMMITTED):
            if state.snapshots[key].usage is not None:
                self.do(ops.Usage(key), check=True)
            if not children(state, key) or state.snapshots[key].touched:
                self._view_one(0, key)

    def _works(self) -> None:
        """A layer is made, committed and built on; then everything can be removed."""
        self.do(ops.Prepare(SPARE), check=True)
        self.do(ops.Write(SPARE, (MakeFile("f", b"after the cut"),)), check=True)
        self.do(ops.Commit(_SPARE_LAYER, SPARE), check=True)
        self.do(ops.Prepare(SPARE, _SPARE_LAYER), check=True)
        self.do(ops.Read(SPARE), check=True)
        self.end()

    def _keys(self, *kinds: Kind) -> list[str]:
        return [key for key, snapshot in self.state().snapshots.items() if snapshot.kind in kinds]
