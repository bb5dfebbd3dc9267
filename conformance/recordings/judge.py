"""The verdict on a recording, and of an illegal one the smallest part that is still illegal.

What is shown has to be illegal for its own sake. So it begins where all legal orders of what came before lead to the same, if
they do anywhere near, and tells what the store was then; and no call is left out that changed what a shown call names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from snapspec.conformance.linear import BUDGET, Call, Judged, Search, Start, Verdict, check
from snapspec.conformance.recordings.parts import profiles, split
from snapspec.conformance.recordings.recording import Made, Recording, Store
from snapspec.conformance.recordings.store import CHANGES, Part, StoreModel, names
from snapspec.conformance.shorten import fewer
from snapspec.model import ops
from snapspec.model.oracle import SNAPSHOTS
from snapspec.model.replies import Failed, Mismatch
from snapspec.model.state import State

#: Over how many answers before the one without a place the beginning is looked for.
BACK = 48

#: Steps of the search for all that the orders of what came before lead to.
CUTTING = 2_000_000

#: Steps of the search in each try to leave something out, and of all tries together.
TRYING = 50_000
SHORTENING = 2_000_000


@dataclass(frozen=True, slots=True)
class Window:
    """Calls that follow each other, and where their orders begin: which of them are done, and the state after those."""

    model: StoreModel
    calls: tuple[Call, ...]
    starts: tuple[Start, ...]

    def search(self, until: int | None = None) -> Search:
        """The search over it."""
        return Search(self.model, self.calls, self.starts, until)

    def only(self, kept: Sequence[int]) -> Window:
        """The same with those calls alone, by their places."""
        place = {number: at for at, number in enumerate(kept)}
        starts = ((frozenset(place[number] for number in done if number in place), state) for done, state in self.starts)
        return Window(self.model, tuple(self.calls[number] for number in kept), tuple(dict.fromkeys(starts)))

    def since(self, ends: set[Start]) -> Window:
        """The same from `ends` on, without what is done in all of them."""
        gone = frozenset.intersection(*(done for done, _ in ends))
        later = Window(self.model, self.calls, tuple(sorted(ends, key=lambda end: (sorted(end[0]), SNAPSHOTS.order(end[1])))))
        return later.only([number for number in range(len(self.calls)) if number not in gone])


@dataclass(frozen=True, slots=True)
class Shown:
    """An illegal part: what the store may have been before, the calls, the longest legal order of them, and the call that has no
    place in it."""

    before: tuple[State, ...]
    calls: tuple[Call, ...]
    order: tuple[int, ...]
    stuck: int
    mismatches: tuple[Mismatch, ...]


@dataclass(frozen=True, slots=True)
class Opinion:
    """The verdict on a recording of so many calls in so many parts, and what is illegal in it, if anything."""

    verdict: Verdict
    calls: int
    parts: int
    shown: Shown | None = None


def judge(recording: Recording, budget: int = BUDGET) -> Opinion:
    """Judge a recording. Raises CannotRun for one that nobody can judge: of a store whose beginning is not known."""
    made: dict[int, list[Made]] = defaultdict(list)
    for call in recording.calls:
        made[call.store].append(call)
    opinions = [_of_store(recording.stores[number], calls, recording.released, budget) for number, calls in made.items()]
    calls, parts = len(recording.calls), sum(opinion.parts for opinion in opinions)
    for verdict in (Verdict.ILLEGAL, Verdict.UNKNOWN):
        for opinion in opinions:
            if opinion.verdict is verdict:
                return Opinion(verdict, calls, parts, opinion.shown)
    return Opinion(Verdict.LEGAL, calls, parts)


def _of_store(store: Store, made: Sequence[Made], released: bool, budget: int) -> Opinion:
    """Legal when it is for any driver that the recording may be of; else the opinion for the first of them."""
    opinions = []
    for profile in profiles(store, made):
        parts = split(store, profile, made, released)
        judged = check([(part.model, part.calls) for part in parts], budget)
        if judged.verdict is Verdict.LEGAL:
            return Opinion(Verdict.LEGAL, len(made), len(parts))
        opinions.append((judged, parts))
    judged, parts = opinions[0]
    shown = shown_of(parts[judged.part], judged) if judged.verdict is Verdict.ILLEGAL else None
    return Opinion(judged.verdict, len(made), len(parts), shown)


def shown_of(part: Part, judged: Judged) -> Shown:
    """The smallest part that is found of an illegal one, with what is wrong in it."""
    assert judged.stuck is not None
    stuck = part.calls[judged.stuck]
    others = [call for call in part.calls if call is not stuck and _changes(call) and _overlap(stuck, call)]
    window = _least(_cut(part, judged, others))
    search = window.search()
    search.advance(BUDGET)
    judged = search.judged()
    assert judged.stuck is not None
    call = window.calls[judged.stuck]
    mismatches = window.model.mismatches(judged.state, call.operation, call.outcome)
    if others:
        alone = Mismatch("SNAP-FAIL-2", "one order of the calls in which each answer is right", "answers that no order gives")
        mismatches = (alone, *mismatches)
    before = tuple(dict.fromkeys(state for _, state in window.starts))
    return Shown(before, window.calls, judged.order, judged.stuck, mismatches)


def _overlap(one: Call, other: Call) -> bool:
    far = float("inf")
    return one.began < (far if other.ended is None else other.ended) and other.began < (far if one.ended is None else one.ended)


def _cut(part: Part, judged: Judged, others: Sequence[Call]) -> Window:
    """Without what began after the answer that has no place, and from where on the fewest beginnings are possible.

    None of the `others` is left behind, for it is with them that something went wrong.
    """
    assert judged.stuck is not None
    ended = part.calls[judged.stuck].ended or 0
    calls = tuple(call for call in part.calls if call.began < ended)
    whole = Window(part.model, calls, ((frozenset(), part.model.initial),))
    stuck = sum(call.ended is not None and call.ended < ended for call in calls)
    best = whole
    answers = max(0, stuck - BACK)
    window: Window | None = _after(whole, answers)
    while window is not None:
        if best is not whole and not all(any(call is other for call in window.calls) for other in others):
            break
        if best is whole or len(window.starts) <= len(best.starts):
            best = window
        answers += 1
        window = _after(window, 1 + _answered(window)) if answers <= stuck else None
    return best


def _after(window: Window, answers: int) -> Window | None:
    """The window from so many answers on; None when its beginnings cannot be found."""
    search = window.search(answers)
    search.advance(CUTTING)
    return window.since(search.ends) if search.verdict is Verdict.LEGAL else None


def _answered(window: Window) -> int:
    """How many answers, the first ones, are in order in every beginning."""
    answered = sorted(
        (n for n, call in enumerate(window.calls) if call.ended is not None), key=lambda n: window.calls[n].ended or 0
    )
    orders = [next((at for at, n in enumerate(answered) if n not in done), len(answered)) for done, _ in window.starts]
    return min(orders)


def _least(window: Window) -> Window:
    """With as few calls as still have no legal order."""
    left = SHORTENING
    shorter: Window | None = window
    while shorter is not None and left > 0:
        window, shorter = shorter, None
        for kept in chain(_connected(window), fewer(tuple(range(len(window.calls))))):
            if left <= 0 or not _may_stand_alone(window, kept):
                continue
            tried = window.only(kept)
            search = tried.search()
            left -= max(1, search.advance(TRYING))
            if search.verdict is Verdict.ILLEGAL:
                shorter = tried
                break
    return window


def _connected(window: Window) -> Iterator[tuple[int, ...]]:
    """The calls that name the same snapshots, directly or by others."""
    waiting = list(range(len(window.calls)))
    while waiting:
        named, found, before = set(names(window.calls[waiting[0]].operation.op)), [waiting[0]], 0
        while before < len(found):
            before = len(found)
            found = [n for n in waiting if n == waiting[0] or named.intersection(names(window.calls[n].operation.op))]
            named.update(name for n in found for name in names(window.calls[n].operation.op))
        waiting = [n for n in waiting if n not in found]
        if len(found) < len(window.calls):
            yield tuple(found)


def _may_stand_alone(window: Window, kept: Sequence[int]) -> bool:
    """Whether no call is left out that changes what a kept one tells of."""
    there = set(kept)
    looking = [window.calls[number].operation.op for number in kept]
    named = {name for op in looking for name in names(op)}
    left_out = [call.operation.op for n, call in enumerate(window.calls) if n not in there and _changes(call)]
    if any(isinstance(op, ops.Walk) for op in looking):
        return not left_out
    return not any(named.intersection(names(op)) for op in left_out)


def _changes(call: Call) -> bool:
    return isinstance(call.operation.op, CHANGES) and not isinstance(call.outcome, Failed)
