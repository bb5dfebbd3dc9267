"""A finding as what a report shows of it: its rows, the states around its last call, what was allowed and what came."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from snapspec.conformance.durable import PowerCut, Restart, Together
from snapspec.conformance.faults import Faulted
from snapspec.conformance.history import FORMAT, Finding, Step, answer_text, call_text, encode_finding
from snapspec.conformance.overlap import AtOnce
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.report.document import Found, Gap, Picture, Row
from snapspec.conformance.report.pictures import entitled, of_infos, of_state, told_lines
from snapspec.model import ops, snapshots
from snapspec.model.faults import Trouble, disturbed
from snapspec.model.guards import Door, Rebase
from snapspec.model.ops import Operation
from snapspec.model.oracle import Belief, Divergence, TooManyStates, begin, crash, invoke, perform
from snapspec.model.replies import Failed, Refused, Returned
from snapspec.model.state import NOW, Measure, Profile, RootMetadata, State
from snapspec.model.values import Info

#: A history does not say when its calls were made: each took place at some time up to here.
_FAR = 1 << 64

#: Steps in which calls end without an answer, or together: what each of them did is not in the history.
_UNTOLD = Restart | Together | PowerCut

#: Calls that change nothing: what they show is another state than the one that is right.
_LOOKS = ops.Walk | ops.Stat | ops.Usage | ops.Read | ops.Mounts

#: A line of a history of refs: the number of the call, if it is one's, and what happened.
_TOLD = re.compile(r"\s*(\d*)  (.*)", re.DOTALL)


def found(
    number: int, level: str, finding: Finding | RefFinding, at: str = "", *, subject: str = "", profile: Profile | None = None
) -> Found:
    """The finding as the report's `number`-th, seen at `level` when `at` was done; without `at`, at its last call.

    `subject` stands in the file that replays it; `profile` is what the subject declares, without it the one that fits is taken.
    """
    last = finding.steps[-1] if isinstance(finding, Finding) else None
    overlap = last is not None and isinstance(last.op, AtOnce) and isinstance(last.response, Returned)
    return Found(
        number,
        level,
        finding.clause,
        at or _at(finding),
        tuple(Gap(m.clause, m.expected, m.came) for m in finding.mismatches),
        rows_of(finding),
        tuple(map(str, _lines(last))) if last is not None and overlap else (),
        finding.bars,
        of_finding(finding, profile),
        file=f"findings/{number}-{finding.clause}.json",
        history={"format": FORMAT, "subject": subject, **encode_finding(finding)},
    )


def _lines(step: Step) -> tuple[object, ...]:
    """The lanes in lines of text."""
    value = step.response.value if isinstance(step.response, Returned) else None
    return value if isinstance(value, tuple) else ()


def _at(finding: Finding | RefFinding) -> str:
    if isinstance(finding, Finding) and not isinstance(finding.steps[-1].op, AtOnce):
        return call_text(finding.steps[-1].op)
    stuck = next((bar for bar in finding.bars if bar.mark), None)
    if stuck is not None:
        return stuck.call
    rows = rows_of(finding)
    return rows[-1].call.removesuffix(" ends") if rows else ""


# --- rows


def rows_of(finding: Finding | RefFinding) -> tuple[Row, ...]:
    """The history of a finding, a row for each call; of refs one for each event. What no clause allows is marked."""
    if isinstance(finding, RefFinding):
        return _marked(_told_rows(finding.told))
    last = finding.steps[-1].op
    if isinstance(last, AtOnce):
        return tuple(_overlap_rows(finding, last))
    several = any(step.space for step in finding.calls)
    return _marked(
        [Row(call_text(s.op), answer_text(s.response), f"namespace {s.space}" if several else "") for s in finding.calls]
    )


def _marked(rows: list[Row]) -> tuple[Row, ...]:
    """The last one is where it showed."""
    return (*rows[:-1], *(Row(row.call, row.answer, row.where, "broken") for row in rows[-1:]))


def _told_rows(told: Sequence[str]) -> list[Row]:
    """One for each line; an answer that came later stands beside what had begun."""
    rows, begun = list(map(_told_row, told)), dict[str, str]()
    for at, row in enumerate(rows):
        if row.call.endswith(" begins"):
            begun[row.where] = row.call.removesuffix(" begins")
        elif not row.call and row.where in begun:
            rows[at] = Row(f"{begun[row.where]} ends", row.answer, row.where)
    return rows


def _told_row(line: str) -> Row:
    """A call and its answer, or either of them, or what else happened."""
    parts = _TOLD.fullmatch(line)
    number, text = (parts[1], parts[2].strip()) if parts is not None else ("", line)
    call, arrow, answer = f" {text}".partition(" -> ")
    return Row(call.strip(), answer if arrow else "", f"call {number}" if number else "")


def _overlap_rows(finding: Finding, plan: AtOnce) -> Iterator[Row]:
    """The calls that have no order; where it is not known which those are, all that were made."""
    if finding.bars:
        yield from (Row(bar.call, bar.answer, bar.caller, bar.mark) for bar in finding.bars)
        return
    yield from (Row(call_text(op), "", "first") for op in plan.first)
    lanes = [(number, op) for number, lane in enumerate(plan.lanes, 1) for op in lane]
    yield from (Row(call_text(op), "", f"caller {number}") for number, op in lanes)
    yield Row("all of them together", answer_text(finding.steps[-1].response), "", "broken")


# --- states


def of_finding(finding: Finding | RefFinding, profile: Profile | None = None) -> tuple[Picture, ...]:
    """The states before and after the call that no clause allows, as far as the model can tell; none where it cannot.

    The state after a call is one that is allowed; after a look, which changes nothing, it is what the subject has shown.
    """
    if isinstance(finding, RefFinding) or isinstance(finding.steps[-1].op, AtOnce):
        return finding.pictures
    last = finding.steps[-1]
    steps = [step for step in finding.steps[:-1] if step.space == last.space]
    return tuple(_around(_believed(steps, profile), last))


def _around(belief: Belief, last: Step) -> Iterator[Picture]:
    state: State = belief.state
    call = last.op.call if isinstance(last.op, Faulted | ops.Nowhere) else last.op
    text = call_text(last.op)
    several = f", one of {len(belief.worlds)} that the history allows" if len(belief.worlds) > 1 else ""
    before = of_state(state, f"Before {text}{several}")
    if isinstance(call, _LOOKS):
        shown = _shown(state, call, last)
        yield before if shown is None else entitled(before, f"What is allowed at {text}{several}")
        yield from [] if shown is None else [shown]
    elif isinstance(call, _UNTOLD):
        yield before
    else:
        yield from _changed(before, state, call, last)


def _changed(before: Picture, state: State, call: Operation, last: Step) -> Iterator[Picture]:
    """The state before, and the first that is allowed after; one picture where the call is to change nothing.

    Where the answer tells of a snapshot, that stands in its box.
    """
    outcomes = snapshots.outcomes(state, call, NOW)
    refused = all(isinstance(outcome.reply, Refused) for outcome in outcomes)
    ends = list(dict.fromkeys(of_state(outcome.state, "") for outcome in outcomes))
    if ends == [entitled(before, "")]:
        yield entitled(
            before, f"{before.title}, and after it: it is to {'be refused' if refused else 'change nothing drawn here'}"
        )
        return
    yield before
    after = next(o.state for o in outcomes if len(ends) == 1 or of_state(o.state, "") != entitled(before, ""))
    which = f", as one of {len(ends)} allowed ends leaves it" if len(ends) > 1 else ", as it is to be"
    value = last.response.value if isinstance(last.response, Returned) else None
    told = {value.name: told_lines(value)} if isinstance(value, Info) else {}
    yield of_state(after, f"After {call_text(last.op)}{which}", told)


def _shown(state: State, call: Operation, last: Step) -> Picture | None:
    """What the subject's answer shows of the store, if anything."""
    value = last.response.value if isinstance(last.response, Returned) else None
    title = f"What {call_text(last.op)} has shown"
    if isinstance(call, ops.Walk) and isinstance(value, tuple):
        return of_infos([info for info in value if isinstance(info, Info)], title)
    lines, key = told_lines(value), getattr(call, "key", "")
    return of_state(state, title, {key: lines}) if lines and state.get(key) is not None else None


# --- the history again


@dataclass(frozen=True, slots=True)
class _Replay:
    """What a history allows, and how many of its answers no clause allows."""

    belief: Belief
    departures: int = 0


def _believed(steps: Sequence[Step], profile: Profile | None) -> Belief:
    """What the history allows by the profile; without one, by that which fits the answers best."""
    best: _Replay | None = None
    for each in [profile] if profile is not None else _profiles():
        replay = _replayed(steps, each)
        if best is None or replay.departures < best.departures:
            best = replay
        if not best.departures:
            break
    assert best is not None, "there is a profile"
    return best.belief


def _profiles() -> Iterator[Profile]:
    """All that a subject may declare, as far as it bears upon what is drawn."""
    for door, cleanup, rebase, root in product(Door, (True, False), Rebase, RootMetadata):
        yield Profile(door, True, cleanup, rebase, Measure.OPAQUE, root)


def _replayed(steps: Sequence[Step], profile: Profile) -> _Replay:
    """The history put to the oracle once more. An answer that is not allowed, known as another finding, changes nothing."""
    replay = _Replay(begin(State(profile=profile)))
    for step in steps:
        after = _after(replay.belief, step)
        wrong = isinstance(after, Divergence)
        replay = _Replay(replay.belief if isinstance(after, Divergence) else after, replay.departures + wrong)
    return replay


def _after(belief: Belief, step: Step) -> Belief | Divergence:
    """What is allowed after the step, at a time that is not known."""
    op, response = step.op, step.response
    try:
        if isinstance(op, _UNTOLD):
            return _cut_short(belief, op)
        if isinstance(op, Faulted) and not belief.calls:
            trouble = Trouble.UNDECIDED if isinstance(response, Failed) else Trouble.CANCELED
            return disturbed(belief, op.call, trouble, response, 0, _FAR)
        return perform(belief, op.call if isinstance(op, Faulted) else op, response, 0, _FAR)
    except TooManyStates:
        return belief


def _cut_short(belief: Belief, op: Restart | Together | PowerCut) -> Belief:
    """Each of the calls has happened or has not: their answers are in the history in words alone."""
    for number, call in enumerate(op.calls if isinstance(op, Together) else op.during, 1):
        belief = invoke(belief, number, call, 0)
    return crash(belief, _FAR)
