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

    def looks(self, operation: Any, outcome: Any) -> bool:
        """Whether with that outcome it changes nothing in any state. It may tell something, so that less is possible later."""
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
    """The verdict on a part of a history. `order` is the longest legal order that was found, up to the answer of `stuck`, the
    call that has no place; `state` is where it ends."""

    verdict: Verdict
    part: int
    order: tuple[int, ...] = ()
    stuck: int | None = None
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
    """The calls that can be next, each with the state afterwards."""


#: Where a search may begin: calls that are in order already, and the state after them.
Start = tuple[frozenset[int], Any]


class Search:
    """The search over one history, in turns. Calls are known by their place in `calls`.

    It begins at one of `starts`; without them, before the first call. With `until` it goes through all legal orders of what has
    to come before that answer, the first being 0: `ends` are then all that they lead to, as starts from there.
    """

    def __init__(self, model: Model, calls: Sequence[Call], starts: Iterable[Start] = (), until: int | None = None) -> None:
        self.model = model
        self.calls = calls
        self.ends: set[Start] = set()
        self.verdict: Verdict | None = None
        self._answered = sorted((n for n, call in enumerate(calls) if call.ended is not None), key=lambda n: calls[n].ended or 0)
        self._unanswered = sorted((n for n, call in enumerate(calls) if call.ended is None), key=lambda n: calls[n].began)
        self._open = _overlapping(calls, self._answered)
        self._every = until is not None
        self._until = len(self._answered) if until is None else until
        self._seen: dict[tuple[int, frozenset[int], Hashable], None] = {}
        self._steps = 0
        self._forgotten = False
        """Whether there were ways back that are not known any more."""
        self._stack: list[_Frame] = []
        for done, state in tuple(starts) or ((frozenset(), model.initial),):
            frame = _Frame(0, done, state, None, 0)
            self._settle(frame)
            self._look(frame)
            self._stack.append(frame)
        self._best = self._stack[-1]

    def advance(self, steps: int) -> int:
        """Search on for about that many steps, or until there is a verdict; gives how many it took."""
        before = self._steps
        while self.verdict is None and self._steps - before < steps:
            frame = self._stack[-1]
            if frame.base >= self._until:
                self._best = frame
                self.ends.add((frame.ahead.union(self._answered[: frame.base]), frame.state))
                if not self._every:
                    self.verdict = Verdict.LEGAL
                    break
                self._drop()
                continue
            following = next(frame.todo, None)
            if following is not None:
                self._descend(frame, *following)
                continue
            self._drop()
        return self._steps - before

    def _drop(self) -> None:
        """Go back; when there is no way back, that is the verdict."""
        self._stack.pop()
        if not self._stack and self.ends:
            self.verdict = Verdict.LEGAL
        elif not self._stack:
            self.verdict = Verdict.UNKNOWN if self._forgotten else Verdict.ILLEGAL

    def judged(self, part: int = 0) -> Judged:
        """What the search has come to so far."""
        best = self._best
        order = tuple(_unwound(best.order))
        stuck = self._answered[best.base] if best.base < len(self._answered) else None
        return Judged(self.verdict or Verdict.UNKNOWN, part, order, stuck, best.state)

    def _descend(self, frame: _Frame, number: int, state: Any) -> None:
        after = _Frame(frame.base, frame.ahead, state, frame.order, frame.length)
        self._put(after, number)
        self._look(after)
        if (after.base, after.length) > (self._best.base, self._best.length):
            self._best = after
        known = (after.base, after.ahead, state)
        if known in self._seen:
            return
        if len(self._seen) >= REMEMBERED:
            self._seen = dict.fromkeys(list(self._seen)[REMEMBERED // 2 :])
        self._seen[known] = None
        if len(self._stack) >= REMEMBERED:
            self._stack = self._stack[REMEMBERED // 2 :]
            self._forgotten = True
        self._stack.append(after)

    def _put(self, frame: _Frame, number: int) -> None:
        """The call is next in order."""
        frame.ahead, frame.order, frame.length = frame.ahead | {number}, (number, frame.order), frame.length + 1
        self._settle(frame)

    def _settle(self, frame: _Frame) -> None:
        """Count the answers up to the first that is not in order yet."""
        base, ahead = frame.base, frame.ahead
        while base < len(self._answered) and self._answered[base] in ahead:
            ahead -= {self._answered[base]}
            base += 1
        frame.base, frame.ahead = base, ahead

    def _look(self, frame: _Frame) -> None:
        """Put in order what only looks and tells nothing new: no order is lost by that. Then find what else can be next."""
        after: dict[int, list[Any]] = {}
        looked = True
        while looked and frame.base < self._until:
            looked = False
            for number in [n for n in self._open[frame.base] if n not in frame.ahead and n not in after]:
                after[number] = self._after(frame.state, number)
                call = self.calls[number]
                if frame.state in after[number] and self.model.looks(call.operation, call.outcome):
                    self._put(frame, number)
                    looked = True
        if frame.base < self._until:
            possible = ((n, state) for n in self._open[frame.base] if n not in frame.ahead for state in after[n])
            frame.todo = chain(possible, self._unheard(frame))

    def _after(self, state: Any, number: int) -> list[Any]:
        self._steps += 1
        return list(self.model.step(state, self.calls[number].operation, self.calls[number].outcome))

    def _unheard(self, frame: _Frame) -> Iterator[tuple[int, Any]]:
        """What calls without an answer can do. Of such a one an effect is all there is to see."""
        ended = self.calls[self._answered[frame.base]].ended or 0
        for number in self._unanswered:
            if self.calls[number].began < ended and number not in frame.ahead:
                yield from ((number, state) for state in self._after(frame.state, number) if state != frame.state)


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
