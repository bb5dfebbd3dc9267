"""Vectors of calls that overlap: histories of a few calls, each labelled legal or illegal by the model's own search."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from snapspec.conformance.vectors.forms import Form, call_forms, ref_response
from snapspec.conformance.vectors.make import FORMAT, PROFILE
from snapspec.model import linear, ops, oracle, ref_ops, ref_oracle
from snapspec.model.linear import Belief, Divergence
from snapspec.model.ref_replies import GotHandle, GotPruned, RefFailed, RefReturned
from snapspec.model.refs import RefError, RefState
from snapspec.model.replies import Failed, Gives, Refused, Returned
from snapspec.model.state import NOW, State
from snapspec.model.values import ErrorClass, Mount

#: Calls before those that overlap, and how many overlap at most.
BEFORE, TOGETHER = 4, 4

Answered = tuple[int, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """What the histories are of: how calls are drawn, what an outcome is answered with, and which other answers there are."""

    name: str
    begin: Callable[[], Belief]
    drawn: Callable[[random.Random, int], Any]
    answer: Callable[[Any], Any]
    told: Callable[[Any], Form]
    other: Callable[[random.Random, Any], Any]


def document(count: int, seed: int) -> dict[str, Any]:
    """The vectors, of snapshots and of refs in turn, legal and illegal ones."""
    histories = [
        _history((SNAPSHOTS, REFS)[n % 2], random.Random(f"{seed} concurrent {n}"), wrong=n % 4 > 1) for n in range(count)
    ]
    return {"format": FORMAT, "level": "concurrent", "seed": seed, "profile": {"usage": "delta"}, "histories": histories}


def _history(kind: Kind, chance: random.Random, wrong: bool) -> Form:
    came = events(kind, chance, wrong)
    told = [
        {"event": "call", "number": number, **call_forms(what)[0]}
        if event == "call"
        else {"event": event, "number": number, **kind.told(what)}
        for event, number, what in came
    ]
    return {"of": kind.name, "events": told, "legal": legal(kind.begin(), came)}


#: "call" or "answer", the number of the call, and the one or the other.
Event = tuple[str, int, Any]


def events(kind: Kind, chance: random.Random, wrong: bool) -> list[Event]:
    """A history that took place; where it is to be `wrong`, one answer is exchanged, which may leave it legal all the same."""
    came = _made(kind, chance)
    if wrong:
        at = chance.choice([at for at, event in enumerate(came) if event[0] == "answer" and event[1] > BEFORE])
        came[at] = ("answer", came[at][1], kind.other(chance, came[at][2]))
    return came


def _made(kind: Kind, chance: random.Random) -> list[Event]:
    """Calls that take effect in some order, each between its beginning and its answer."""
    state = next(iter(kind.begin().worlds)).state
    system, events, number = kind.begin().system, [], 0  # type: Any, list[Event], int
    for _ in range(BEFORE):
        number += 1
        op = kind.drawn(chance, number)
        outcome = chance.choice(system.outcomes(state, op, NOW))
        state = outcome.state
        events += [("call", number, op), ("answer", number, kind.answer(outcome))]
    together = list(range(number + 1, number + 1 + chance.randint(2, TOGETHER)))
    calls = {each: kind.drawn(chance, each) for each in together}
    moves = [(each, step) for each in together for step in ("call", "effect", "answer")]
    outcomes: dict[int, Any] = {}
    for each in _interleaved(chance, [each for each, _ in moves]):
        step = next(step for number, step in moves if number == each)
        moves.remove((each, step))
        if step == "effect":
            outcomes[each] = chance.choice(system.outcomes(state, calls[each], NOW))
            state = outcomes[each].state
        else:
            events.append((step, each, calls[each] if step == "call" else kind.answer(outcomes[each])))
    return events


def _interleaved(chance: random.Random, numbers: list[int]) -> list[int]:
    chance.shuffle(numbers)
    return numbers


def legal(belief: Belief, events: list[Event]) -> bool:
    """Whether there is an order of the calls in which each answers as it did."""
    for event, number, what in events:
        after = linear.invoke(belief, number, what) if event == "call" else linear.respond(belief, number, what)
        if isinstance(after, Divergence):
            return False
        belief = after
    return True


# --- snapshots: calls whose answers are nothing, or an error

_KEYS = ("a", "b", "c")


def _snapshot_call(chance: random.Random, number: int) -> ops.Operation:
    key, other = chance.choice(_KEYS), chance.choice(("", *_KEYS))
    return chance.choice(
        (
            *(ops.Prepare(key, other if chance.random() < 0.5 else ""), ops.View(key, other)),
            *(ops.Commit(chance.choice(_KEYS), key), ops.Remove(key)),
        )
    )


def _snapshot_answer(outcome: Any) -> Any:
    match outcome.reply:
        case Refused(errors):
            return Failed(min(errors, key=lambda error: error.value))
        case Gives(key):
            return Returned((Mount("bind", f"/{key}", ("rbind", "ro")),))
    return Returned()


def _snapshot_told(answer: Any) -> Form:
    return {"error": answer.error.value} if isinstance(answer, Failed) else {"value": None}


def _other_snapshot_answer(chance: random.Random, answer: Any) -> Any:
    errors = (ErrorClass.NOT_FOUND, ErrorClass.ALREADY_EXISTS, ErrorClass.FAILED_PRECONDITION, ErrorClass.INVALID_ARGUMENT)
    return Failed(chance.choice([error for error in errors if Failed(error) != answer]))


# --- refs: the same, and handles and the rows of a prune


def _ref_call(chance: random.Random, number: int) -> ref_ops.RefOperation:
    record, handle = f"r{chance.randint(1, 3)}", f"h{chance.randint(1, 3)}"
    made, given = f"r{number}", f"h{number}"
    if number == 1:
        return ref_ops.New(made, given, None)
    new = ref_ops.New(made, given, chance.choice((None, handle)))
    build = (new, ref_ops.Commit(handle, made, given), ref_ops.Finalize(handle))
    rest = (ref_ops.Get(record, given, made), ref_ops.GetMutable(record, given), ref_ops.Release(handle), ref_ops.Prune())
    return chance.choice((*build, *rest))


def _ref_told(answer: Any) -> Form:
    match answer:
        case RefFailed(error):
            return {"error": error.value}
        case RefReturned(GotHandle(record)):
            return {"value": {"record": record}}
        case RefReturned(GotPruned(removed)):
            return {"value": {"removed": sorted(sorted(ids) for ids, _ in removed)}}
    return {"value": None}


def _other_ref_answer(chance: random.Random, answer: Any) -> Any:
    errors = [RefError.INVALID, RefError.NOT_FOUND, RefError.LOCKED]
    if isinstance(answer, RefReturned) and isinstance(answer.value, GotPruned) and answer.value.removed:
        return RefReturned(replace(answer.value, removed=answer.value.removed[1:]))
    return RefFailed(chance.choice([error for error in errors if RefFailed(error) != answer]))


SNAPSHOTS = Kind(
    "snapshots",
    lambda: oracle.begin(State(profile=PROFILE)),
    _snapshot_call,
    _snapshot_answer,
    _snapshot_told,
    _other_snapshot_answer,
)
REFS = Kind(
    "refs",
    lambda: ref_oracle.begin(RefState(driver=State(profile=PROFILE))),
    _ref_call,
    ref_response,
    _ref_told,
    _other_ref_answer,
)
