"""Histories in which the driver's process ends and begins again: how they are drawn, made and judged.

A call that was answered has happened (SNAP-DURABLE-1), and one that was cut short has happened or not (SNAP-DURABLE-2). What was
written through a mount is the kernel's: the end of a process takes nothing of it away, synced or not (SNAP-DURABLE-3).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from snapspec.conformance import draw
from snapspec.conformance.draw import Limits, Scope
from snapspec.conformance.durable import InFlight, Restart
from snapspec.conformance.durable.process import Process
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import Finding, Step, answer_text
from snapspec.conformance.session import SPARE, Session, again, replay
from snapspec.conformance.subjects.address import Restarted
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.oracle import Divergence, crash, invoke, respond
from snapspec.model.replies import Failed, Lost, Response, Returned
from snapspec.model.tree import MakeFile
from snapspec.model.values import ErrorClass, Kind

#: How a server that is ending may answer what it does not do any more: its caller then knows nothing of the outcome.
_ENDING = (ErrorClass.UNAVAILABLE, ErrorClass.CANCELED)

#: How often a history is made again in which the moment decides, until it shows what it is to show.
TRIES = 10


class RestartSession(Session):
    """A session with a subject whose process can be ended. `restarts` counts how often it was, over all histories."""

    subject: Restarted
    repeats = False

    def do(self, op: Operation, space: int = 0, *, check: bool = False) -> Response:
        """Make the call, or end and start the driver, and judge what comes. Raises Diverged."""
        return self._restart(op, space) if isinstance(op, Restart) else super().do(op, space, check=check)

    def _restart(self, op: Restart, space: int) -> Response:
        """End the process under the calls, start it again, and look at everything."""
        self.heed_signals()
        answers, wrong = self.runner.run(self._ended_under(op, space))
        now = time.time_ns()
        self.beliefs = [crash(belief, now) for belief in self.beliefs]
        self.calls += len(op.during)
        self.restarts += 1
        for call, answer in zip(op.during, answers, strict=True):
            if isinstance(answer, Lost):
                for key in {getattr(call, "key", ""), getattr(call, "name", "")}:
                    self.subject.forget(space, key)
        response = Returned(tuple("no answer" if isinstance(a, Lost) else answer_text(a) for a in answers) or None)
        self.steps.append(Step(op, response, space))
        self._begin_again()
        if wrong is not None:
            raise self._wrong(wrong)
        cut_short = any(isinstance(answer, Lost) for answer in answers)
        for each in range(self.subject.spaces):
            self._look(each, "SNAP-DURABLE-2" if cut_short else "SNAP-DURABLE-1")
        if not op.kill and not op.during:
            self.reached["SNAP-OPEN-1"] += 1
        return response

    async def _ended_under(self, op: Restart, space: int) -> tuple[list[Response], Divergence | None]:
        """Begin the calls and end the process; gives what each has answered, and what no clause allows of that."""
        wrong: list[Divergence] = []
        calls = [asyncio.create_task(self._in_flight(space, n, call, wrong)) for n, call in enumerate(op.during, 1)]
        await asyncio.sleep(0)  # until each is on its way
        await asyncio.to_thread(self._process().end, op.kill, op.after / 1e6)
        for _, late in [await asyncio.wait(calls, timeout=self.deadline)] if calls else []:
            for call in late:
                call.cancel()
        given = await asyncio.gather(*calls, return_exceptions=True)
        answers = [Lost("it did not end with the process") if isinstance(a, asyncio.CancelledError) else a for a in given]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [a for a in answers if not isinstance(a, BaseException)], next(iter(wrong), None)

    async def _in_flight(self, space: int, number: int, call: InFlight, wrong: list[Divergence]) -> Response:
        self.beliefs[space] = invoke(self.beliefs[space], number, call, time.time_ns())
        response = await self.subject.perform(space, call)
        if isinstance(response, Failed) and response.error in _ENDING:
            response = Lost(response.message)
        if not isinstance(response, Lost):
            belief = respond(self.beliefs[space], number, response, time.time_ns())
            if isinstance(belief, Divergence):
                wrong.append(belief)
            else:
                self.beliefs[space] = belief
                self.reached.update(belief.clauses)
        return response

    def _process(self) -> Process:
        process = self.subject.process
        assert process is not None, "the kit starts it"
        return process

    def _begin_again(self) -> None:
        """Start the process; one that does not come up cannot be used again, nor cleared up after."""
        try:
            self.runner.run(self.subject.again())
        except CannotRun as error:
            self.steps[-1] = replace(self.steps[-1], response=Lost(str(error)))
            self.stuck = self.over = True
            raise self._diverged("SNAP-LIVE-1", "a driver that serves again", f"none: {error}") from None

    def clear(self) -> None:
        """After a divergence: an empty store of the run, for what is wrong with this one is not known.

        A store that is somebody else's is cleared, and used again only if it then serves.
        """
        if self.over:
            return
        try:
            if not self.runner.run(self.subject.renew()):
                if self._process().ended():
                    self._process().end(kill=True)
                    self.runner.run(self.subject.again())
                super().clear()
                self.over = self.over or not self.runner.run(self._serves())
        except CannotRun:
            self.stuck = self.over = True

    async def _serves(self) -> bool:
        """Whether the store makes and removes a snapshot, and has nothing of this history."""
        for space in range(self.subject.spaces):
            calls = (ops.Prepare(SPARE), ops.Remove(SPARE), ops.Walk())
            made, removed, left = [await self.subject.perform(space, call) for call in calls]
            if not isinstance(made, Returned) or removed != Returned() or left != Returned(()):
                return False
        return True

    # --- what is looked at

    def _look(self, space: int, clause: str) -> None:
        """Every record, mount list and content is as the history says, and nothing that is left prevents the next call.

        What is wrong breaks `clause` besides its own, or the one of what was written and of what is left behind.
        """
        active = [key for key, s in self.state(space).snapshots.items() if s.kind is not Kind.COMMITTED]
        self._under(clause, partial(self._observe, space, []))
        self._under("SNAP-DURABLE-3", partial(self._read_all, space))
        self._under(clause, partial(self._view_all, space))
        self._under("SNAP-DURABLE-2", partial(self._make_one, space))
        self.reached.update({"SNAP-DURABLE-1", clause} | ({"SNAP-DURABLE-3"} if active else set()))

    def _under(self, clause: str, step: Callable[[], None]) -> None:
        with self.looking(clause, "the store as the answered calls left it", "a restart"):
            step()


# --- again


def replay_often(session: Session, steps: tuple[Step, ...]) -> Finding | None:
    """As `replay`; a history in which the moment of a restart decides is made again and again, until it shows something."""
    return session.often(again(session, steps), TRIES if _by_moment(steps) else 1)


def replay_surely(session: Session, steps: tuple[Step, ...]) -> Finding | None:
    """As `replay`; where the moment decides, only what shows two times of three."""
    return session.surely(again(session, steps)) if _by_moment(steps) else replay(session, steps)


def _by_moment(steps: tuple[Step, ...]) -> bool:
    return any(isinstance(step.op, Restart) and step.op.during for step in steps)


# --- drawn

#: Which calls are cut short: those that change something, and one that may make something for the while of it.
_CUT = (draw.prepare, draw.commit, draw.remove, draw.view, draw.update, draw.usage)

#: The name of such calls, where a run leaves them out: the driver then ends between two calls only.
CUT = "cut"

#: Up to how many microseconds later the end comes: some calls are done sooner than others, and the shorter times matter most.
_MOMENTS = (2_000, 8_000, 32_000)


def stop(scope: Scope) -> Operation:
    """The driver is told to end, and started again."""
    return _drawn(scope, kill=False)


def kill(scope: Scope) -> Operation:
    """The driver is killed, and started again."""
    return _drawn(scope, kill=True)


def _drawn(scope: Scope, kill: bool) -> Operation:
    """With nothing under way, or with up to three calls, which may be at odds with each other."""
    calls = 0 if CUT in scope.limits.without else scope.pick((0, 1, 1, 2, 3))
    during = [scope.pick(_CUT)(scope) for _ in range(calls)]
    after = scope.pick(range(0, longest := scope.pick(_MOMENTS), longest // 40)) if during else 0
    return Restart(kill=kill, during=tuple(call for call in during if isinstance(call, InFlight)), after=after)


# --- written down


def scenarios(kill: bool, limits: Limits) -> tuple[Callable[[], Iterator[Operation]], ...]:
    """The driver ends between calls; then each kind of call is cut short, at one moment after another."""
    between = partial(_cut_short, (), kill, 0)
    if CUT in limits.without:
        return (between,)
    moments = (5_000, 1_000, 12_000, 0, 2_000, 30_000, 3_000, 500)
    return (between, *(partial(_cut_short, (call,), kill, after) for after in moments for call in _ONE_OF_EACH))


_ONE_OF_EACH: tuple[InFlight, ...] = (
    ops.Prepare("b", "layer"),
    ops.Commit("b", "a", (("k", "1"),)),
    ops.View("b", "layer"),
    ops.Remove("a"),
    ops.Update("layer", (("k", "1"),)),
    ops.Usage("layer"),
)


def _cut_short(calls: tuple[InFlight, ...], kill: bool, after: int) -> Iterator[Operation]:
    """Whatever has come of the calls, the next ones meet nothing of it that they should not."""
    yield ops.Prepare("a")
    yield ops.Write("a", (MakeFile("f", b"of the layer"),))
    yield ops.Commit("layer", "a")
    yield ops.Prepare("a", "layer")
    yield ops.Write("a", (MakeFile("g", b"not yet committed"),))
    yield Restart(kill=kill, during=calls, after=after)
    yield from calls  # each does now what it did not do then, or is refused
    yield Restart(kill=kill)
