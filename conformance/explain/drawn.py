"""Examples that chance finds: histories drawn on the model and made shorter, the last answer altered until the oracle objects."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from snapspec.conformance import ref_draw
from snapspec.conformance.draw import ODD, Limits, Pick, Scope
from snapspec.conformance.explain.altered import wrong_answers, wrong_ref_answers
from snapspec.conformance.explain.events import TICK, Answers, Begins, Event, Example, judge, judge_each
from snapspec.conformance.files import Permits
from snapspec.conformance.history import call_text
from snapspec.conformance.machines import OPERATIONS
from snapspec.conformance.ref_draw import RefScope
from snapspec.conformance.shorten import fewer, with_less
from snapspec.conformance.subjects.abstract import ModelSubject
from snapspec.conformance.vectors.forms import ref_response
from snapspec.model import ops, snapshots
from snapspec.model.guards import Door, Rebase
from snapspec.model.oracle import SNAPSHOTS
from snapspec.model.ref_oracle import REFS
from snapspec.model.ref_replies import GotRows, GotSize, RefAccepted, RefReturned
from snapspec.model.refs import GivesList, ListsRows, RefState, TellsSize, snapshot_of
from snapspec.model.replies import Accepted, Failed, Refused, least_size
from snapspec.model.replies import judge as judge_answer
from snapspec.model.state import NOW, Measure, Profile, RootMetadata, Span, State
from snapspec.model.values import ErrorClass, Mount

T = TypeVar("T")

#: The profiles of drivers that histories are drawn for; an example is of the first in which it can be given.
PROFILES = (
    Profile(),
    Profile(door=Door.METADATA),
    Profile(cleanup=False, wire=True),
    Profile(rebase=Rebase.MERGED, root=RootMetadata.OWNER, usage=Measure.DELTA),
)

#: Histories that are drawn for each, and how many calls they have.
HISTORIES, LENGTHS = 1200, (3, 6, 12)

#: How many of the histories that put a clause to the test are tried for an illegal answer.
TRIES = 40

_LIMITS = Limits(Permits(True, True, True, True), frozenset({"links"}))


@dataclass(frozen=True, slots=True)
class Pair:
    """A clause's legal example and its illegal one, which is the same but for its last answer; None where none was found."""

    legal: Example
    illegal: Example | None


@dataclass(frozen=True, slots=True)
class Kind:
    """How histories of a driver, or of a manager, are drawn and answered."""

    refs: bool
    profile: Profile
    drawn: Callable[[random.Random, Any, int], Any]
    begin: Callable[[], Any]
    answered: Callable[[ModelSubject, Any, Any, int], tuple[Any, Any]]
    wrong: Callable[[Any, Any], Iterator[Any]]


def pairs(kind: Kind, seed: int, wanted: Collection[str]) -> dict[str, Pair]:
    """By clause, what is found of the wanted ones in drawn histories: the shortest."""
    found: dict[str, Pair] = {}
    for clause, tried in _reaching(kind, seed).items():
        if clause not in wanted:
            continue
        calls = next((calls for calls in tried[:TRIES] if _pair(kind, clause, calls, whole=True)), None)
        whole = calls is not None
        pair = _pair(kind, clause, shortest(kind, clause, calls or tried[0], whole), whole)
        assert pair is not None
        found[clause] = pair
    return found


def _reaching(kind: Kind, seed: int) -> dict[str, list[tuple[Any, ...]]]:
    """The histories whose last call puts a clause to the test, by clause, short ones first."""
    reached: dict[str, dict[tuple[Any, ...], None]] = {}
    for number in range(HISTORIES):
        calls = _drawn(kind, random.Random(f"{seed} {kind.refs} {number}"), LENGTHS[number % len(LENGTHS)])
        for length in range(1, len(calls) + 1):
            for clause in judge(played(kind, calls[:length])).clauses:
                reached.setdefault(clause, {})[calls[:length]] = None
    return {clause: sorted(histories, key=_size) for clause, histories in sorted(reached.items())}


def _drawn(kind: Kind, chance: random.Random, length: int) -> tuple[Any, ...]:
    state, subject = kind.begin(), ModelSubject("model:", kind.profile)
    calls: list[Any] = []
    for number in range(length):
        calls.append(kind.drawn(chance, state, number + 1))
        state, _ = kind.answered(subject, state, calls[-1], number)
    return tuple(calls)


def played(kind: Kind, calls: Sequence[Any]) -> Example:
    """The calls, each answered as the model does it."""
    state, subject = kind.begin(), ModelSubject("model:", kind.profile)
    events: list[Event] = []
    for number, op in enumerate(calls):
        state, response = kind.answered(subject, state, op, number)
        events += [Begins(number + 1, op), Answers(number + 1, response)]
    return Example(tuple(events), kind.profile, kind.refs)


def _pair(kind: Kind, clause: str, calls: tuple[Any, ...], whole: bool) -> Pair | None:
    """The examples that these calls give: the last one puts the clause to the test and, where `whole`, can break it."""
    legal = played(kind, calls)
    if not calls or clause not in judge(legal).clauses:
        return None
    illegal = _illegal(kind, legal, clause, calls[-1]) if whole else None
    return None if whole and illegal is None else Pair(legal, illegal)


def _illegal(kind: Kind, legal: Example, clause: str, op: Any) -> Example | None:
    """The example with another last answer, by which this clause is broken and no other."""
    last = legal.events[-1]
    assert isinstance(last, Answers)
    for response, judged in judge_each(legal, kind.wrong(op, last.response)):
        if {mismatch.clause for mismatch in judged.mismatches} == {clause}:
            return legal.with_last(response)
    return None


def shortest(kind: Kind, clause: str, calls: tuple[Any, ...], whole: bool) -> tuple[Any, ...]:
    """The calls after as many as can be were left out or made simpler."""
    less: tuple[Any, ...] | None = calls
    while less is not None:
        calls = less
        tries = (tried for tried in _shorter(calls) if _size(tried) < _size(calls))
        less = next((tried for tried in tries if _pair(kind, clause, tried, whole)), None)
    return calls


def _shorter(calls: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield from fewer(calls)
    for at, op in enumerate(calls):
        yield from ((*calls[:at], less, *calls[at + 1 :]) for less in with_less(op))


def _size(calls: Sequence[Any]) -> tuple[int, int, str]:
    """Fewer calls first, but rather one more than an empty name, which teaches little; then less to read."""
    texts = [call_text(op) for op in calls]
    nameless = sum("''" in text for text in texts)
    return len(texts) + 2 * nameless, sum(map(len, texts)), repr(texts)


# --- drivers


def drivers(profile: Profile) -> Kind:
    """Histories of a driver with this profile."""
    return Kind(False, profile, _driver_call, partial(State, profile=profile), _driver_answer, wrong_answers)


def _plain(chance: random.Random) -> Pick:
    """Draws, of names, those that are easy to read."""

    def pick(choices: Sequence[T], /) -> T:
        return chance.choice([choice for choice in choices if choice not in ODD] or choices)

    return pick


def _driver_call(chance: random.Random, state: State, _: int) -> ops.Operation:
    containerd = state.profile.door is Door.METADATA
    left_out = ("stop", "kill", *(() if containerd else ("collect", "nowhere")))
    entries = [e for e in OPERATIONS if e.name not in left_out for _ in range(e.weight)]
    scope = Scope(_plain(chance), SNAPSHOTS.presented(state), _LIMITS, ("a", "b"), careful=chance.random() < 0.6)
    op = chance.choice(entries).drawn(scope)
    return replace(op, held=False) if isinstance(op, ops.Write | ops.Read) else op


def _driver_answer(subject: ModelSubject, state: State, op: ops.Operation, number: int) -> tuple[State, Any]:
    """The state afterwards and the answer, which tells a time in the midst of the call."""
    now = (2 * number + 1) * TICK + TICK // 2
    outcome = snapshots.outcomes(state, op, Span(now, now))[0]
    response = subject.answer(outcome)
    if isinstance(outcome.reply, Refused):
        response = Failed(min(outcome.reply.errors, key=lambda error: (error is not ErrorClass.INVALID_ARGUMENT, error.value)))
    verdict = judge_answer(outcome, response)
    assert isinstance(verdict, Accepted), "it is the model's own answer"
    after = outcome.state
    for key, snapshot in verdict.learned:
        after = after.put(key, snapshot)
    return after, response


# --- managers


def managers() -> Kind:
    """Histories of a manager, whose calls do not overlap."""
    return Kind(True, Profile(), _manager_call, RefState, _manager_answer, wrong_ref_answers)


def _manager_call(chance: random.Random, state: RefState, number: int) -> Any:
    kinds = ref_draw.choices(state, _LIMITS, alone=True)
    scope = RefScope(chance.choice, REFS.presented(state), _LIMITS, number, careful=chance.random() < 0.7)
    return chance.choice(kinds)(scope)


def _manager_answer(_: ModelSubject, state: RefState, op: Any, __: int) -> tuple[RefState, Any]:
    outcome = REFS.outcomes(state, op, NOW)[0]
    response = ref_response(outcome)
    match outcome.reply, response:
        case GivesList(record, writable), _:
            response = RefReturned((Mount("bind", f"/{record}", ("rbind", "rw" if writable else "ro")),))
        case TellsSize(record), _:
            response = RefReturned(GotSize(_true_size(outcome.state, record)))
        case ListsRows(expected), RefReturned(GotRows(rows)):
            unknown = {row.record for row in expected if row.size is None}
            sized = (replace(r, size=_true_size(outcome.state, r.record)) if r.record in unknown else r for r in rows)
            response = RefReturned(GotRows(tuple(sized)))
    verdict = REFS.judge(outcome, response)
    assert isinstance(verdict, RefAccepted), "it is the model's own answer"
    return REFS.learn(outcome.state, outcome.state, verdict), response


def _true_size(state: RefState, record: str) -> int:
    known = state.records[record].size
    if known is not None:
        return known
    return least_size(state.driver, state.driver.snapshots[snapshot_of(state, record)]) + 4096
