"""Histories on a pool whose image records what it is told: how they are made and drawn, and what the caller knows when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from snapspec.conformance import draw
from snapspec.conformance.draw import Limits, Scope
from snapspec.conformance.durable import InFlight, Together, images
from snapspec.conformance.durable.place import Place, PoweredSubject
from snapspec.conformance.durable.recorder import Event, read_log
from snapspec.conformance.history import Step, answer_text, finding
from snapspec.conformance.machines import OPERATIONS
from snapspec.conformance.session import DEADLINE, Diverged, Session
from snapspec.model import durable, oracle
from snapspec.model.durable import Layers
from snapspec.model.ops import Operation
from snapspec.model.oracle import Divergence
from snapspec.model.replies import Lost, Response, Returned
from snapspec.model.state import State

#: Calls of a drawn history at most.
CALLS = 12

#: Which calls are begun together: those of the driver that change something, and one that may write down what it measures.
_TOGETHER = (draw.prepare, draw.commit, draw.commit, draw.remove, draw.view, draw.update, draw.usage)


@dataclass(frozen=True, slots=True)
class Happening:
    """A call of the step numbered `step` begins, or answers with `response`; `position` is how long the log was then."""

    step: int
    call: int
    op: Operation
    time: int
    position: int
    response: Response | None = None


class RecordedSession(Session):
    """A session that notes where in the log of the image each call began and answered."""

    subject: PoweredSubject

    def __init__(
        self, subject: PoweredSubject, runner: asyncio.Runner, position: Callable[[], int], signals: Sequence[int] = ()
    ) -> None:
        super().__init__(subject, runner, DEADLINE, signals)
        self.position = position
        self.happenings: list[Happening] = []

    def do(self, op: Operation, space: int = 0, *, check: bool = False) -> Response:
        """Make the call, or several together, and judge what comes. Raises Diverged."""
        return self._together(op) if isinstance(op, Together) else super().do(op, space, check=check)

    async def _with_deadline(self, space: int, op: Operation) -> Response:
        return await self._marked(1, op)

    async def _marked(self, call: int, op: Operation) -> Response:
        self._happens(call, op, None)
        response = await super()._with_deadline(0, op)
        self._happens(call, op, response)
        return response

    def _happens(self, call: int, op: Operation, response: Response | None) -> None:
        self.happenings.append(Happening(len(self.steps), call, op, time.time_ns(), self.position(), response))

    def _together(self, op: Together) -> Response:
        self.heed_signals()
        self.subject.overlapping = True
        answers = self.runner.run(self._gathered(op.calls))
        self.subject.overlapping = False
        self.calls += len(op.calls)
        self.subject.forget_places(op.calls)
        self.steps.append(Step(op, Returned(tuple(map(answer_text, answers)))))
        if any(isinstance(answer, Lost) for answer in answers):
            raise self._diverged("SNAP-LIVE-1", "an answer of each", "none")
        begun = len(self.happenings) - 2 * len(op.calls)
        for happening in self.happenings[begun:]:
            self._judge(happening)
        self._observe(0, [])
        return self.steps[-1].response

    async def _gathered(self, calls: Sequence[InFlight]) -> list[Response]:
        return await asyncio.gather(*(self._marked(number, call) for number, call in enumerate(calls, 1)))

    def _judge(self, happening: Happening) -> None:
        if happening.response is None:
            self.beliefs[0] = oracle.invoke(self.beliefs[0], happening.call, happening.op, happening.time)
            return
        belief = oracle.respond(self.beliefs[0], happening.call, happening.response, happening.time)
        if isinstance(belief, Divergence):
            raise Diverged(finding(self.steps, belief))
        self.beliefs[0] = belief
        self.reached.update(belief.clauses)


@dataclass(frozen=True, slots=True)
class Known:
    """What the caller knows at a moment: the steps that are done, the one that is under way, if any, with the answers so far."""

    done: int
    layers: Layers
    now: int
    during: tuple[Operation, ...] = ()
    answers: tuple[Response, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A history as the caller and as the disk saw it; `layers` holds what was allowed before each happening, and at the end."""

    steps: tuple[Step, ...]
    happenings: tuple[Happening, ...]
    layers: tuple[Layers, ...]
    events: tuple[Event, ...]

    def known(self, moment: int) -> Known:
        """What the caller knew when the disk had been told `moment` things.

        A call that began when it had been told all of them has not begun; one that answered then, has answered.
        """
        position = self.events[moment - 1].end if moment else 0
        happened = 0
        for number, h in enumerate(self.happenings, 1):
            if h.position < position or (h.position == position and h.response is not None):
                happened = number
        layers, before = self.layers[happened], self.happenings[:happened]
        now = self.happenings[min(happened, len(self.happenings) - 1)].time if self.happenings else 0
        if not layers.belief.calls:
            return Known(before[-1].step + 1 if before else 0, layers, now)
        step = before[-1].step
        op = self.steps[step].op
        during = op.calls if isinstance(op, Together) else (op,)
        given = {h.call: h.response for h in before if h.step == step and h.response is not None}
        answers = tuple(given.get(number, Lost("the power failed")) for number in self._calls(step))
        return Known(step, layers, now, during, answers)

    def _calls(self, step: int) -> list[int]:
        return [h.call for h in self.happenings if h.step == step and h.response is None]

    def base(self, step: int, begun: bool) -> int:
        """How many things the disk had been told when that step began; when it had not `begun`, when the last call answered."""
        positions = [h.position for h in self.happenings if h.step == step] if begun else []
        answered = [h.position for h in self.happenings if h.step < step]
        return images.moment_of(self.events, positions[0] if positions else answered[-1]) if positions or answered else 0

    def spans(self) -> list[range]:
        """The moments of each step that the disk was told something of."""
        spans = []
        for step in range(len(self.steps)):
            positions = [h.position for h in self.happenings if h.step == step]
            begin, end = (images.moment_of(self.events, position) for position in (positions[0], positions[-1]))
            spans += [range(begin, end + 1)] if end > begin else []
        return spans


#: Makes the calls of a history.
Calls = Callable[[Session], None]


def record(here: Place, calls: Calls, signals: Sequence[int] = ()) -> Recorded:
    """Make the calls on a new store whose image is recorded, and close it. Raises Diverged for what is wrong without a cut."""
    name = here.recorder.name()
    images.copy_sparse(here.template, here.recorder.backing / name)
    try:
        with here.recorder.under(here.image, name):
            session = RecordedSession(here.subject(), here.runner, lambda: here.recorder.position(name), signals)
            with session.started():
                session.begin()
                calls(session)
        events = read_log(here.recorder.log(name))
    except Exception:
        here.recorder.require()  # without it every call fails, and that is no fault of the driver
        raise
    finally:
        here.recorder.forget(name)
    happenings = tuple(session.happenings)
    return Recorded(tuple(session.steps), happenings, _layers(State(profile=session.subject.profile), happenings), events)


def _layers(state: State, happenings: Sequence[Happening]) -> tuple[Layers, ...]:
    found = [durable.begin(state)]
    for h in happenings:
        if h.response is None:
            found.append(durable.invoke(found[-1], h.call, h.op, h.time))
        else:
            after = durable.respond(found[-1], h.call, h.response, h.time)
            assert not isinstance(after, Divergence), "the session has judged it already"
            found.append(after)
    return tuple(found)


def drawn(random: Random, limits: Limits, length: int = CALLS) -> Calls:
    """A history of calls that are to succeed mostly, as the state machine of the kit draws them; some of them together."""

    def make(session: Session) -> None:
        entries = [e for e in OPERATIONS if e.possible(session.subject) and e.name not in limits.without for _ in range(e.weight)]
        if random.random() < 0.3:
            for op in draw.prelude(limits):
                session.do(op)
        for _ in range(random.randint(1, length)):
            scope = Scope(random.choice, session.state(), limits, careful=random.random() < 0.9)
            together = random.random() < 0.2
            session.do(_drawn_together(random, scope) if together else random.choice(entries).drawn(scope))

    return make


def _drawn_together(random: Random, scope: Scope) -> Together:
    """Two or three calls, which may be at odds with each other."""
    calls = [random.choice(_TOGETHER)(scope) for _ in range(random.choice((2, 2, 3)))]
    return Together(calls=tuple(call for call in calls if isinstance(call, InFlight)))


def written(calls: Sequence[Operation]) -> Calls:
    """A history that is given."""

    def make(session: Session) -> None:
        for op in calls:
            session.do(op)

    return make
