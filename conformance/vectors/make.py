"""Vectors of calls one after the other. The same seed and count give the same bytes in every process."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from snapspec.conformance import draw, ref_draw
from snapspec.conformance.draw import Limits, Pick, Scope
from snapspec.conformance.files import Permits
from snapspec.conformance.machines import OPERATIONS
from snapspec.conformance.ref_draw import RefScope
from snapspec.conformance.ref_scenarios import SCENARIOS
from snapspec.conformance.scenarios import refusals, smoke
from snapspec.conformance.subjects.abstract import ModelSubject
from snapspec.conformance.vectors.forms import LIMITS, Form, answer_form, call_forms, ref_answer_form, ref_response
from snapspec.model import ops, ref_replies, replies, snapshots
from snapspec.model.oracle import SNAPSHOTS
from snapspec.model.ref_oracle import REFS
from snapspec.model.refs import RefState
from snapspec.model.state import NOW, Measure, Profile, State
from snapspec.model.tree import Rename, SetMode

FORMAT = "snapspec vectors 1"

#: Calls of one drawn history.
LENGTH = 25

#: What the implementations are taken to declare.
PROFILE = Profile(usage=Measure.DELTA)

_LIMITS = Limits(Permits(True, True, True, True))

#: The operations that are not those of every driver at its own door.
_LEFT_OUT = ("stop", "kill", "collect", "nowhere")


@dataclass(frozen=True, slots=True)
class Level:
    """How histories of one level are begun, drawn, and told."""

    begin: Callable[[], Any]
    drawn: Callable[[Pick, Any, int], Any]
    written: tuple[tuple[Any, ...], ...]
    outcomes: Callable[[Any, Any], Iterable[Any]]
    answer: Callable[[Any], Form]
    compared: Callable[[Any], set[str]]
    order: Callable[[Any], Any]


def document(level: str, count: int, seed: int) -> dict[str, Any]:
    """The vectors: written histories first, then drawn ones, `count` in all."""
    how = LEVELS[level]
    written = [history(how, iter(calls)) for calls in how.written[:count]]
    drawn = [history(how, None, random.Random(f"{seed} {level} {n}")) for n in range(count - len(written))]
    return {"format": FORMAT, "level": level, "seed": seed, "profile": {"usage": "delta"}, "histories": [*written, *drawn]}


def spelled(document: dict[str, Any]) -> str:
    """Canonical JSON: members sorted, no white space, ASCII, one new line at the end."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n"


def history(how: Level, calls: Iterator[Any] | None, chance: random.Random | None = None) -> list[Form]:
    """One history: the calls that are given, or drawn by chance. All states that the answers gone on with allow are followed."""
    states = [how.begin()]
    entries: list[Form] = []
    given = calls if calls is not None else iter(range(1, LENGTH + 1))
    for each in given:
        op = each if calls is not None else how.drawn(_picker(chance), states[0], each)
        more, states = _entries(how, op, states)
        entries += more
    return entries


def _picker(chance: random.Random | None) -> Pick:
    assert chance is not None, "histories that are not given are drawn"
    return lambda choices: choices[chance.randrange(len(choices))]


def _entries(how: Level, op: Any, states: list[Any]) -> tuple[list[Form], list[Any]]:
    """The entries of the call, and the states after it: those that allow the first answer, by which the history goes on."""
    found = [(how.answer(o), o) for state in states for o in how.outcomes(state, op)]
    clauses: dict[str, set[str]] = {}
    for form, outcome in found:
        clauses.setdefault(_key(form), set()).update((outcome.clause, *how.compared(outcome)))
    chosen = found[0][0]
    # Where limits are all that is known of an answer, it does not tell which of the states it came from.
    goes_on = [key for key in clauses if key == _key(chosen) or chosen.keys() & set(LIMITS)]
    after = {how.order(o.state): o.state for form, o in found if _key(form) in goes_on}
    either = [{**json.loads(key), "clauses": sorted(clauses[key])} for key in clauses]
    *before, last = call_forms(op)
    entries = [
        {"call": form, "either": [{"clauses": sorted(clauses[_key(chosen)]), "value": None}], "goes_on": [0]} for form in before
    ]
    entries.append({"call": last, "either": either, "goes_on": [at for at, key in enumerate(clauses) if key in goes_on]})
    return entries, [after[order] for order in sorted(after)] if len(after) > 1 else list(after.values())


def _key(form: Form) -> str:
    return json.dumps(form, sort_keys=True)


#: Of times, mount lists, and of a usage beyond its limits, a vector says nothing.
_NOT_COMPARED = re.compile("SNAP-TIME-.*|SNAP-MOUNTS-[3468]|SNAP-USAGE-[357]|SNAP-LABEL-3")


def _held(verdict: Any) -> set[str]:
    """The clauses that an answer was held against, as far as a vector holds it against them."""
    return {clause for clause in verdict.clauses if not _NOT_COMPARED.fullmatch(clause)}


# --- the levels


#: A directory of the parent's may refuse to be renamed (SNAP-CONTENT-4), and a copy-up may break links (SNAP-CONTENT-3).
_LATITUDE = (
    *draw.prelude(_LIMITS),
    ops.Write("c", (Rename("e", "h"),)),
    ops.Read("c"),
    ops.Commit("d", "c"),
    ops.Prepare("f", "d"),
    ops.Read("f"),
    ops.Prepare("g", "b"),
    ops.Write("g", (SetMode("f", 0o600),)),
    ops.Read("g"),
    ops.Prepare("g", "absent"),
    ops.Usage("b"),
)


def _drawn_call(pick: Pick, state: State, _: int) -> ops.Operation:
    entries = [e for e in OPERATIONS if e.name not in _LEFT_OUT for _ in range(e.weight)]
    scope = Scope(pick, SNAPSHOTS.presented(state), _LIMITS, tuple(draw.PLAIN[:2]), careful=pick((True, True, False)))
    op = pick(entries).drawn(scope)
    return replace(op, held=False) if isinstance(op, ops.Write | ops.Read) else op


def _drawn_ref_call(pick: Pick, state: RefState, number: int) -> Any:
    kinds = ref_draw.choices(state, _LIMITS, alone=True)
    return pick(kinds)(RefScope(pick, REFS.presented(state), _LIMITS, number, careful=pick((True, True, False))))


LEVELS = {
    "snapshots": Level(
        begin=lambda: State(profile=PROFILE),
        drawn=_drawn_call,
        written=(tuple(smoke()), tuple(refusals()), _LATITUDE),
        outcomes=lambda state, op: snapshots.outcomes(state, op, NOW),
        answer=answer_form,
        compared=lambda outcome: _held(replies.judge(outcome, ModelSubject("model:", PROFILE).answer(outcome))),
        order=SNAPSHOTS.order,
    ),
    "refs": Level(
        begin=lambda: RefState(driver=State(profile=PROFILE)),
        drawn=_drawn_ref_call,
        written=tuple((*scenario.setup, *scenario.calls) for scenario in SCENARIOS),
        outcomes=lambda state, op: REFS.outcomes(state, op, NOW),
        answer=ref_answer_form,
        compared=lambda outcome: _held(ref_replies.judge(outcome, ref_response(outcome))),
        order=REFS.order,
    ),
}
