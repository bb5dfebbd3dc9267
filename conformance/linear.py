"""Whether a recorded history of overlapping calls has a legal order, for any model of one small form.

The search is that of Wing and Gong with Lowe's memory: call after call is put in order, each between its beginning and its
answer, as the model permits; where none can be next it goes back. What it has tried is remembered as the set of calls in order
and the state. That set is kept as the first answer that is not in order yet and what is ahead of it, so that it stays small.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from typing import Any, Protocol


class Model(Protocol):
    """What is judged against. States are hashable, and equal when nothing can ever tell them apart."""

    @property
    def initial(self) -> Hashable:
        """The state before the first call."""
        ...

    def step(self, state: Any, operation: Any, outcome: Any) -> Iterable[Any]:
        """Every state after `operation` took effect in `state` with that outcome; None: nobody knows the outcome."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a history, with times of one clock. Without `ended` it was never answered: it may have happened or not."""

    operation: Any
    outcome: Any
    began: int
    ended: int | None
    caller: str = ""


class Verdict(Enum):
    """What the search came to; UNKNOWN when it was given up."""

    LEGAL = "legal"
    ILLEGAL = "illegal"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on a part of a history. `order` is the longest legal order that was found, `next` the calls that had to come
    next in it and could not; `state` is where it ends."""

    verdict: Verdict
    part: int
    order: tuple[int, ...] = ()
    next: tuple[int, ...] = ()
    state: Any = None


#: How many configurations a search remembers. Beyond that it forgets the older half, which costs time and no verdict.
REMEMBERED = 1 << 17

#: Steps that a part is given before the next one has its turn.
TURN = 5_000

#: Steps of all parts together, at most.
BUDGET = 20_000_000

#: An order of calls, the last one first.
Order = tuple[int, Any] | None


@dataclass(slots=True)
class _Frame:
    """A configuration: the answers up to `base` are in order and so is what is `ahead`; `todo` is still to be tried."""

    base: int
    ahead: frozenset[int]
    state: Any
    order: Order
    length: int
    todo: Iterator[tuple[int, Any]] = field(default_factory=lambda: iter(()))


class Search:
    """The search over one history, in turns. Calls are known by their place in `calls`."""

    def __init__(self, model: Model, calls: Sequence[Call]) -> None:
        self.model = model
        self.calls = calls
        self.verdict: Verdict | None = None
        self._answered = sorted((n for n, call in enumerate(calls) if call.ended is not None), key=lambda n: calls[n].ended or 0)
        self._unanswered = sorted((n for n, call in enumerate(calls) if call.ended is None), key=lambda n: calls[n].began)
        self._open = _overlapping(calls, self._answered)
        self._seen: dict[tuple[int, frozenset[int], Hashable], None] = {}
        self._stack = [self._entered(_Frame(0, frozenset(), model.initial, None, 0))]
        self._best = self._stack[0]

    def advance(self, steps: int) -> int:
        """Search on for about that many steps, or until there is a verdict; gives how many it took."""
        taken = 0
        while self.verdict is None and taken < steps:
            taken += 1
            frame = self._stack[-1]
            if frame.base == len(self._answered):
                self._best, self.verdict = frame, Verdict.LEGAL
                break
            following = next(frame.todo, None)
            if following is not None:
                self._descend(frame, *following)
                continue
            self._stack.pop()
            if not self._stack:
                self.verdict = Verdict.ILLEGAL
        return taken

    def judged(self, part: int = 0) -> Judged:
        """What the search has come to so far."""
        best = self._best
        order = tuple(_unwound(best.order))
        stuck = (
            () if self.verdict is Verdict.LEGAL else tuple(n for n in self._candidates(best) if self.calls[n].ended is not None)
        )
        return Judged(self.verdict or Verdict.UNKNOWN, part, order, stuck, best.state)

    def _descend(self, frame: _Frame, number: int, state: Any) -> None:
        base, ahead = frame.base, frame.ahead | {number}
        while base < len(self._answered) and self._answered[base] in ahead:
            ahead -= {self._answered[base]}
            base += 1
        known = (base, ahead, state)
        if known in self._seen:
            return
        if len(self._seen) >= REMEMBERED:
            self._seen = dict.fromkeys(list(self._seen)[REMEMBERED // 2 :])
        self._seen[known] = None
        after = self._entered(_Frame(base, ahead, state, (number, frame.order), frame.length + 1))
        self._stack.append(after)
        if (after.base, after.length) > (self._best.base, self._best.length):
            self._best = after

    def _entered(self, frame: _Frame) -> _Frame:
        if frame.base < len(self._answered):
            frame.todo = self._following(frame)
        return frame

    def _candidates(self, frame: _Frame) -> Iterator[int]:
        """The calls that may be next: begun before the first answer that is not in order; those that began first, first."""
        ended = self.calls[self._answered[frame.base]].ended or 0
        unanswered = (n for n in self._unanswered if self.calls[n].began < ended)
        return (n for n in chain(self._open[frame.base], unanswered) if n not in frame.ahead)

    def _following(self, frame: _Frame) -> Iterator[tuple[int, Any]]:
        for number in self._candidates(frame):
            call = self.calls[number]
            for state in self.model.step(frame.state, call.operation, call.outcome):
                if call.ended is not None or state != frame.state:  # of one without an answer, an effect is all there is to see
                    yield number, state


def _overlapping(calls: Sequence[Call], answered: Sequence[int]) -> list[tuple[int, ...]]:
    """For each answer in turn: the calls that were open when it came, its own among them, in the order in which they began."""
    begins = iter(sorted(answered, key=lambda n: calls[n].began))
    following = next(begins, None)
    open_now: dict[int, None] = {}
    overlapping = []
    for number in answered:
        while following is not None and calls[following].began < (calls[number].ended or 0):
            open_now[following] = None
            following = next(begins, None)
        overlapping.append(tuple(open_now))
        del open_now[number]
    return overlapping


def _unwound(order: Order) -> list[int]:
    calls = []
    while order is not None:
        number, order = order
        calls.append(number)
    return calls[::-1]


def check(parts: Sequence[tuple[Model, Sequence[Call]]], budget: int = BUDGET) -> Judged:
    """Judge a history that falls into parts which have nothing to do with each other: legal when each of them is.

    The parts take turns, so that none waits for one that is hard; the first that is illegal decides. Gives the judgement of
    that one, or of the first that was not decided within `budget` steps, or, where all are legal, of the last.
    """
    waiting = list(range(len(parts)))
    begun: dict[int, Search] = {}
    last = Judged(Verdict.LEGAL, 0)
    while waiting and budget > 0:
        undecided = []
        for number in waiting:
            search = begun.pop(number, None) or Search(*parts[number])
            budget -= search.advance(min(TURN, max(budget, 1)))
            if search.verdict is Verdict.ILLEGAL:
                return search.judged(number)
            if search.verdict is None:
                begun[number] = search
                undecided.append(number)
            else:
                last = search.judged(number)
        waiting = undecided
    return begun[waiting[0]].judged(waiting[0]) if waiting else last
