"""Histories of overlapping calls: made on a subject, taken down, judged; and looked after, one call after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import Finding, Step, call_text
from snapspec.conformance.linear import Verdict
from snapspec.conformance.overlap import AtOnce
from snapspec.conformance.recordings.judge import Shown, judge
from snapspec.conformance.recordings.lanes import bars, drawn
from snapspec.conformance.recordings.recording import Made, Store, Taker
from snapspec.conformance.report.pictures import of_state
from snapspec.conformance.session import Diverged, Session, late
from snapspec.conformance.subjects.base import PortSubject
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Lost, Mismatch, Response, Returned
from snapspec.model.values import Info, Kind

#: How often a history is made again until it shows what it is to show: the moments decide.
TRIES = 40

#: The same where a shorter one is tried: there are many to try, and what shows seldom is of no use.
FEWER_TRIES = 12

#: The caller of what comes before and after the calls that overlap.
LOOKS = "0"

#: Of what the store may have been before, so many are drawn.
MOST_BEFORE = 2

#: The most steps of the search for an order of one history. One that needs more is left undecided.
STEPS = 200_000


class OverlapSession(Session):
    """A session in which a history is one plan of overlapping calls."""

    repeats = False

    def begin(self) -> None:
        """See `Session`."""
        super().begin()
        if isinstance(self.subject, PortSubject):
            self.subject.measures = False

    def play(self, plan: AtOnce) -> None:
        """Make the calls, then look at everything and remove it, and judge all of that. Raises Diverged."""
        self.heed_signals()
        taker = Taker()
        taker.store(Store(profile=self.subject.profile))
        try:
            self.runner.run(self._play(plan, taker))
        except BaseException as error:
            self.over = True  # whether the calls took effect is not known
            self.hindrance = error if isinstance(error, CannotRun) else None
            raise
        recording = taker.recording()
        self.calls += len(recording.calls)
        lost = next((call.response.reason for call in recording.calls if isinstance(call.response, Lost)), "")
        if lost:
            raise self._none("SNAP-LIVE-1", plan, "an answer", f"none: {lost}")
        opinion = judge(recording, STEPS)
        if opinion.shown is not None:
            raise self.ends(Diverged(_finding(plan, opinion.shown, recording.calls)))
        if opinion.verdict is Verdict.LEGAL:
            self.reached.update(("SNAP-FAIL-2", "SNAP-LIVE-1"))
        changed = self.subject.changed()
        if changed:
            raise self._none("SNAP-HOLD-1", plan, "every result as it was given", changed)
        self.reached["SNAP-HOLD-1"] += 1

    def _none(self, clause: str, plan: AtOnce, expected: str, came: str) -> Exception:
        return self.ends(Diverged(Finding((Step(plan, Lost(came)),), (Mismatch(clause, expected, came),))))

    async def _play(self, plan: AtOnce, taker: Taker) -> None:
        for op in plan.first:
            await self._call(op, taker, 0)
        gate = asyncio.Event()
        lanes = [asyncio.create_task(self._lane(ops_, taker, n, gate)) for n, ops_ in enumerate(plan.lanes, 1)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*lanes)
        if not self.stuck:
            await self._look_and_remove(taker)

    async def _lane(self, calls: Sequence[Operation], taker: Taker, caller: int, gate: asyncio.Event) -> None:
        await gate.wait()
        for op in calls:
            await self._call(op, taker, caller)

    async def _call(self, op: Operation, taker: Taker, caller: int) -> Response:
        """One call; nothing more is called when one does not answer."""
        if self.stuck:
            return Lost("not made")
        number = taker.begin(op, 0, caller=caller)
        task = asyncio.ensure_future(self.subject.perform(0, op))
        done, _ = await asyncio.wait({task}, timeout=self.deadline)
        if not done:
            self.stuck = self.over = True
        response = task.result() if done else Lost(late(self.deadline))
        taker.answer(number, response)
        return response

    async def _look_and_remove(self, taker: Taker) -> None:
        """Every record, mount list and usage that there is; then remove all, children first, until a walk finds nothing."""
        before: tuple[Info, ...] | None = None
        while (infos := await self._walk(taker)) and infos != before:
            for info in infos if before is None else ():
                if info.kind is not Kind.COMMITTED:
                    await self._call(ops.Mounts(info.name), taker, 0)
                await self._call(ops.Usage(info.name), taker, 0)
            before = infos
            parents = {info.parent for info in infos}
            for info in infos:
                if info.name not in parents:
                    await self._call(ops.Remove(info.name), taker, 0)

    async def _walk(self, taker: Taker) -> tuple[Info, ...]:
        response = await self._call(ops.Walk(), taker, 0)
        value = response.value if isinstance(response, Returned) else ()
        return tuple(info for info in value if isinstance(info, Info)) if isinstance(value, tuple) else ()


def _finding(plan: AtOnce, shown: Shown, made: Sequence[Made]) -> Finding:
    """What is illegal; where only the look at the end shows it, after which calls."""
    lines, mismatches = tuple(drawn(shown)), shown.mismatches
    overlapped = [call for call in shown.calls if call.caller != LOOKS]
    also: list[Made] = []
    if not overlapped and any(plan.lanes):
        lines += ("", "seen after calls that overlapped:", *(f"  {', '.join(map(call_text, lane))}" for lane in plan.lanes))
        left = Mismatch("SNAP-FAIL-2", "the store as one order of the calls before leaves it", mismatches[0].came)
        mismatches = (left, *mismatches)
        also = [call for call in made if str(call.caller) != LOOKS]
    before = tuple(
        dict.fromkeys(of_state(state, "Before the call that is seen" if also else "Before these calls") for state in shown.before)
    )
    drawn_bars = tuple(replace(bar, caller="the kit") if bar.caller == f"caller {LOOKS}" else bar for bar in bars(shown, also))
    return Finding((Step(plan, Returned(lines)),), mismatches, bars=drawn_bars, pictures=before[:MOST_BEFORE])


def plan_again(session: OverlapSession, plan: AtOnce) -> Callable[[], None]:
    """What makes the calls again."""

    def history() -> None:
        session.begin()
        session.play(plan)

    return history


def replay_plan(session: OverlapSession, steps: Sequence[Step]) -> Finding | None:
    """Make a saved history again, up to TRIES times. Raises CannotRun for one that has no overlapping calls."""
    plan = steps[0].op
    if len(steps) != 1 or not isinstance(plan, AtOnce):
        raise CannotRun("the history has no overlapping calls: replay it without --level concurrent")
    return session.often(plan_again(session, plan), TRIES)
