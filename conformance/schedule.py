"""Schedules: calls that overlap, and at each quiet moment one choice of what happens next.

A run starts calls, lets those that wait at a gate go on, disturbs them as far as its budget goes, and tells an observer what was
called and answered. All that is open is asked of one function, the chooser: the same choices give the same run. The simplest
choice comes first, so that a history made of zeros is one call after the other, undisturbed.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from snapspec.conformance.gates import CALL, Gate, Gates, Verdict
from snapspec.conformance.loop import GatedLoop, NeverQuiet

T = TypeVar("T")
Op = TypeVar("Op")
Op_contra = TypeVar("Op_contra", contravariant=True)
Answer = TypeVar("Answer")
Answer_contra = TypeVar("Answer_contra", contravariant=True)


class Unsound(Exception):
    """What a run shows without any oracle: a call that waits for ever, something left over, an error that is no answer."""

    def __init__(self, clause: str, text: str) -> None:
        super().__init__(f"{clause}: {text}")
        self.clause = clause


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The answer of a call that was cancelled: none."""


CANCELLED = Cancelled()


class Observer(Protocol[Op_contra, Answer_contra]):
    """Whoever is told what happens, in the order in which it happens. What it raises ends the run."""

    def invoke(self, call: int, op: Op_contra) -> None:
        """The call begins."""

    def respond(self, call: int, answer: Answer_contra | Cancelled) -> None:
        """The call answers."""

    def disturb(self, call: int, what: str) -> None:
        """Before it is: the call is cancelled, or a call of a port that is made for it fails."""

    def crash(self) -> None:
        """The process dies: none of the calls that have not answered ever will."""

    def quiet(self) -> None:
        """Nothing moves until the next choice."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How often calls may be disturbed between their starts and the last answer, and whether the process may die meanwhile.

    `cancel_at`: after so many callbacks of the loop a call is cancelled, beside those that are cancelled when all is quiet.
    """

    faults: int = 0
    cancels: int = 0
    holds: int = 0
    crash: bool = False
    cancel_at: int | None = None


class Move(Enum):
    """A choice that is not about a gate."""

    START = "start"
    FIRE = "let the next timer go off"
    CANCEL = "cancel"
    CRASH = "crash"


class Choice(NamedTuple):
    """What may happen next: the start or the cancellation of a call, a timer, or the verdict on a gate."""

    what: Move | Verdict
    call: int = 0
    gate: Gate | None = None
    landed: bool = False


class Answered(NamedTuple):
    """What a call answered."""

    call: int
    answer: object


#: Given the choices, at least two and the simplest first, it says which one it is to be.
Choose = Callable[[Sequence[Choice]], int]


class Run(Generic[Op, Answer]):
    """One run: `perform` makes the calls, in `loop` and behind `gates`.

    `chosen` are the choices made so far, which replay it; `events` tell it; `operations` are the calls by number, from 1 on.
    """

    def __init__(
        self, gates: Gates, perform: Callable[[Op], Awaitable[Answer]], observer: Observer[Op, Answer], choose: Choose
    ) -> None:
        self.gates = gates
        self.loop: GatedLoop = gates.loop
        self.observer = observer
        self.chosen: list[int] = []
        self.events: list[Choice | Answered] = []
        self.operations: dict[int, Op] = {}
        self.struck = False
        """Whether the last burst came as far as its `Budget.cancel_at`."""
        self.crashed = False
        """Whether the last burst ended with the death of the process."""
        self._perform = perform
        self._choose = choose
        self._pending: dict[int, asyncio.Task[None]] = {}
        self._begun: set[int] = set()
        self._cancelled: set[int] = set()
        self._answers: list[Answered] = []
        self._unsound: list[Unsound] = []
        self._todo: list[int] = []
        self._alike: dict[int, int] = {}
        self._strike_at: int | None = None

    # --- what a driver of runs calls

    def aside(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, which is no call of the history; no gate holds it up. Raises Unsound, and what it raises."""
        with self.gates.opened():
            task = self.loop.create_task(work)
            self._settle()
        if not task.done():
            raise Unsound("REF-ERROR-5", f"this waits for ever: {task}")
        return task.result()

    def sequence(self, ops: Iterable[Op]) -> None:
        """One call after the other; no gate holds them up. Raises Unsound, and what the observer raises."""
        with self.gates.opened():
            self._pump()
            task = self.loop.create_task(self._in_turn(ops))
            self._settle()
            if not task.done():
                raise self._stuck([len(self.operations)])
            task.result()
            self._pump()

    def burst(self, ops: Iterable[Op], budget: Budget | None = None) -> None:
        """Calls that may overlap in any way, until all have answered and nothing waits at a gate. Raises as `sequence` does."""
        left, self.crashed = budget or Budget(), False
        if left.cancel_at is not None:
            self._strike_at, self.struck = self.loop.steps + left.cancel_at, False
        self._todo = [self._number(op) for op in ops]
        self._alike = {call: next(c for c in self._todo if self.operations[c] == self.operations[call]) for call in self._todo}
        while onward := self._onward():
            left = self._move(self._chosen(onward + self._disturbances(left)), left)
            if self.crashed:
                break
            self._pump()
        self._strike_at = None
        if self._pending:
            raise self._stuck(self._pending)

    def crash(self) -> None:
        """The process dies: no call answers any more, the ports refuse everything until all is still. A new life may begin."""
        self.crashed = True
        self.gates.die()
        self.loop.cancel_all()
        self.gates.dead = False
        self._pending.clear()
        self._answers.clear()
        self._unsound.clear()
        self.loop.end()
        self.loop.errors.clear()  # what the dead have to say is not heard
        if self.loop.unfinished():
            raise Unsound("REF-CLOSE-1", f"these tasks cannot be cancelled: {self.loop.unfinished()}")

    # --- choices

    def _onward(self) -> list[Choice]:
        """What lets the run go on: a gate, the longest waiting first; a timer; a start; a cancelled call that gives up."""
        waiting = self.gates.waiting
        choices = [Choice(Verdict.GO, gate.call, gate, gate.landed) for gate in waiting]
        if self.loop.timers():
            choices.append(Choice(Move.FIRE))
        alike: set[int] = set()
        for call in self._todo:
            if self._alike[call] not in alike:  # of calls that are the same it makes no difference which starts first
                alike.add(self._alike[call])
                choices.append(Choice(Move.START, call))
        choices += [Choice(Verdict.GIVE_UP, gate.call, gate) for gate in waiting if gate.cancelled and not gate.landed]
        return choices

    def _disturbances(self, left: Budget) -> list[Choice]:
        choices: list[Choice] = []
        fresh = [gate for gate in self.gates.waiting if not (gate.landed or gate.cancelled)]
        if left.holds:
            choices += [Choice(Verdict.HOLD, gate.call, gate) for gate in fresh]
        if left.faults:
            # Whoever closes and is told of an error is rid of it all the same.
            choices += [Choice(Verdict.FAIL_BEFORE, gate.call, gate) for gate in fresh if gate.name != "close"]
            choices += [Choice(Verdict.FAIL_AFTER, gate.call, gate) for gate in fresh if gate.changes]
        if left.cancels:
            choices += [Choice(Move.CANCEL, call) for call in self._pending if call not in self._cancelled]
        if left.crash and self._pending:
            choices.append(Choice(Move.CRASH))
        return choices

    def _chosen(self, choices: list[Choice]) -> Choice:
        """The choice made; where there is only one, nobody is asked."""
        if len(choices) == 1:
            return choices[0]
        index = self._choose(choices)
        self.chosen.append(index)
        return choices[index]

    def _move(self, choice: Choice, left: Budget) -> Budget:
        """Make the choice come true. Gives what is left of the budget."""
        what, gate = choice.what, choice.gate
        self.events.append(choice)
        if what is Move.START:
            self._todo.remove(choice.call)
            self._start(choice.call)
        elif what is Move.FIRE:
            self.loop.fire()
        elif what is Move.CRASH:
            self.observer.crash()
            self.crash()
        elif what is Move.CANCEL:
            self._cancel(choice.call)
            return replace(left, cancels=left.cancels - 1)
        elif gate is not None and isinstance(what, Verdict):
            if what in (Verdict.FAIL_BEFORE, Verdict.FAIL_AFTER):
                self.observer.disturb(gate.call, what.value)
                left = replace(left, faults=left.faults - 1)
            elif what is Verdict.HOLD:
                left = replace(left, holds=left.holds - 1)
            self.gates.decide(gate, what)
        return left

    # --- calls

    def _number(self, op: Op) -> int:
        call = len(self.operations) + 1
        self.operations[call] = op
        return call

    def _start(self, call: int) -> None:
        self.observer.invoke(call, self.operations[call])
        self._pending[call] = self.loop.create_task(self._make(call))

    async def _make(self, call: int) -> None:
        self._begun.add(call)
        try:
            answer = await self._answer(call)
            self._answers.append(Answered(call, answer))
        except Unsound as error:
            self._unsound.append(error)  # told as soon as all is quiet

    async def _in_turn(self, ops: Iterable[Op]) -> None:
        for op in ops:
            call = self._number(op)
            self.events.append(Choice(Move.START, call))
            self.observer.invoke(call, op)
            self._tell(Answered(call, await self._answer(call)))

    async def _answer(self, call: int) -> Answer | Cancelled:
        CALL.set(call)
        try:
            return await self._perform(self.operations[call])
        except asyncio.CancelledError:
            if call not in self._cancelled:
                raise Unsound("REF-SIZE-5", f"call {call} was cancelled by nobody, and says that it was") from None
            return CANCELLED
        except Exception as error:
            raise Unsound("REF-ERROR-1", f"{type(error).__name__} is no answer: {error}") from error

    def _cancel(self, call: int) -> None:
        self.observer.disturb(call, "cancel")
        self._cancelled.add(call)
        self._pending[call].cancel()

    def _pump(self) -> None:
        """Run the loop until it is quiet, and tell what came of it."""
        if self._strike_at is not None and not self.loop.run_until_quiet(self._strike_at):
            self._strike_at, self.struck = None, True
            self._strike()
        self._settle()
        if self._unsound:
            raise self._unsound[0]
        answers, self._answers = self._answers, []
        for answered in answers:
            del self._pending[answered.call]
            self._tell(answered)
        self.observer.quiet()
        self._nobodys()

    def _settle(self) -> None:
        """Run the loop until it is quiet. What never is, answers nobody."""
        try:
            self.loop.run_until_quiet()
        except NeverQuiet as error:
            raise Unsound("REF-ERROR-5", str(error)) from None

    def _nobodys(self) -> None:
        """A scan goes on only as long as somebody waits for it (REF-SIZE-5)."""
        scans = [gate for gate in self.gates.waiting if gate.name == "usage" and not gate.cancelled]
        if scans and not self._pending:
            raise Unsound("REF-SIZE-5", f"all who waited have left, and this goes on: {scans[0]}")

    def _strike(self) -> None:
        """Cancel a call in the middle of things, once it has begun: before its first step the subject knows nothing of it."""
        over = self._cancelled.union(call for call, _ in self._answers)
        choices = [Choice(Move.CANCEL, call) for call in self._pending if call in self._begun and call not in over]
        if choices:
            choice = self._chosen(choices)
            self.events.append(choice)
            self._cancel(choice.call)

    def _tell(self, answered: Answered) -> None:
        self.events.append(answered)
        self.observer.respond(*answered)  # type: ignore[arg-type]  # a named tuple, for speed, which cannot be generic in 3.11's mypy

    def _stuck(self, calls: Iterable[int]) -> Unsound:
        shown = ", ".join(f"{call} ({self.operations[call]})" for call in sorted(calls))
        return Unsound("REF-ERROR-5", f"nothing can go on, and these calls wait for ever: {shown}")

    # --- the end

    def end(self) -> None:
        """All calls have answered and the subject is closed: nothing is left in the loop. Raises Unsound."""
        left = self.loop.unfinished()
        if left or self.gates.waiting:
            raise Unsound("REF-CLOSE-1", f"left over: {[*map(repr, left), *map(str, self.gates.waiting)]}")
        self.loop.end()
        if self.loop.errors:
            raise Unsound("REF-CLOSE-1", f"an error that nobody has looked at: {self.loop.errors[0]!r}") from self.loop.errors[0]

    def abandon(self) -> None:
        """End all tasks, whatever their state: the run has gone wrong."""
        with suppress(NeverQuiet, Unsound):
            self.crash()


# --- choosers, the random one aside: `random.Random(seed).randrange` of their number


def replay(chosen: Sequence[int]) -> Choose:
    """The chooser of a run that was recorded; where the record ends, or does not fit, the simplest."""
    given = iter(chosen)

    def choose(choices: Sequence[Choice]) -> int:
        index = next(given, 0)
        return index if index < len(choices) else 0

    return choose


def spelled(drawn: bytes) -> Choose:
    """The chooser that takes each choice from a byte, and the simplest after the last one.

    Of all that Hypothesis can draw a schedule from, bytes are drawn and shrunk fastest.
    """
    given = iter(drawn)
    return lambda choices: next(given, 0) % len(choices)


class Forked(Exception):
    """The same choices led to another run: something that is not chosen decides, the order of a set for instance."""


class Path:
    """The chooser that goes through every run in turn, depth first: `advance` moves it on to the next one."""

    def __init__(self) -> None:
        self._indices: list[int] = []
        self._widths: list[int] = []
        self._at = 0

    def __call__(self, choices: Sequence[Choice]) -> int:
        at, width = self._at, len(choices)
        self._at += 1
        if at == len(self._indices):
            self._indices.append(0)
            self._widths.append(width)
        elif self._widths[at] != width:
            raise Forked(f"{self._widths[at]} choices, then {width}, after {self._indices[:at]}")
        return self._indices[at]

    def advance(self) -> bool:
        """Whether there is another run."""
        if self._at != len(self._indices):
            raise Forked(f"the run ended after {self._at} choices, before it had {len(self._indices)}: {self._indices}")
        self._at = 0
        while self._indices and self._indices[-1] + 1 == self._widths[-1]:
            self._indices.pop()
            self._widths.pop()
        if self._indices:
            self._indices[-1] += 1
        return bool(self._indices)


def explore(once: Callable[[Choose], object]) -> int:
    """Call `once` for every schedule. Gives how many there are; what `once` raises ends it."""
    path, count = Path(), 1
    once(path)
    while path.advance():
        once(path)
        count += 1
    return count


#: The choices that disturb a call: none of them is ever the simplest.
DISTURBANCES = (Verdict.HOLD, Verdict.FAIL_BEFORE, Verdict.FAIL_AFTER, Move.CANCEL, Move.CRASH)


class Nth:
    """The chooser of the simplest run, disturbed once: by the disturbance numbered `number`, from 0 on, of all that it offers."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, choices: Sequence[Choice]) -> int:
        for index, choice in enumerate(choices):
            if choice.what in DISTURBANCES:
                self.left -= 1
                if self.left == -1:
                    return index
        return 0


def disturb_each(once: Callable[[Choose], object]) -> int:
    """Call `once` for the simplest schedule with each single disturbance at each point of it. Gives how many those were."""
    for number in itertools.count():
        choose = Nth(number)
        once(choose)
        if choose.left >= 0:
            return number
    raise AssertionError("a run ends")


def explore_strikes(once: Callable[[Choose, int], Run[Op, Answer]]) -> int:
    """`explore` with a call cancelled after 0 callbacks (`Budget.cancel_at`), then after 1, until no run comes so far.

    Gives how many runs came as far as that.
    """
    count = 0
    for at in itertools.count():
        struck = _struck(once, at)
        if not any(struck):
            break
        count += sum(struck)
    return count


def _struck(once: Callable[[Choose, int], Run[Op, Answer]], at: int) -> list[bool]:
    struck: list[bool] = []
    explore(lambda choose: struck.append(once(choose, at).struck))
    return struck
