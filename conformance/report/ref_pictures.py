"""What a finding of refs has to be drawn: the calls that overlapped last, and the states around what no clause allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from snapspec.conformance.history import call_text
from snapspec.conformance.ref_watch import Records
from snapspec.conformance.ref_words import answer_text
from snapspec.conformance.report.document import Bar, Picture
from snapspec.conformance.report.pictures import entitled, of_records, of_ref_state
from snapspec.conformance.schedule import Answered, Choice, Move
from snapspec.model import refs
from snapspec.model.linear import Belief, Divergence
from snapspec.model.ref_ops import RefOperation
from snapspec.model.refs import RefRefused, RefState

Events = Sequence[Choice | Answered]


# --- calls that overlap


def bars(events: Events, operations: Mapping[int, RefOperation], divergence: Divergence | None) -> tuple[Bar, ...]:
    """The last calls of a run that overlapped, as bars; none where no two did. The call that `divergence` is of is marked."""
    began, ended = _moments(events)
    deaths = [at for at, event in enumerate(events) if isinstance(event, Choice) and event.what is Move.CRASH]
    group = _overlapping(began, ended, deaths)
    moments = sorted({began[call] for call in group} | {ended[call] for call in group if call in ended})
    place = {moment: at for at, moment in enumerate(moments)}
    last = events[-1] if events else None
    broken = last.call if isinstance(last, Answered) and divergence is not None and last.call in group else 0
    if broken and divergence is not None and operations[broken] != divergence.op:
        broken = 0
    answers = {event.call: event.answer for event in events if isinstance(event, Answered)}
    return tuple(
        Bar(
            call,
            call_text(operations[call]),
            answer_text(answers[call]) if call in answers else "no answer",
            place[began[call]],
            place[ended[call]] if call in ended else None,
            mark="broken" if call == broken else "",
        )
        for call in group
    )


def _moments(events: Events) -> tuple[dict[int, int], dict[int, int]]:
    """When each call began, and when it ended: with its answer."""
    began = {e.call: at for at, e in enumerate(events) if isinstance(e, Choice) and e.what is Move.START}
    return began, {e.call: at for at, e in enumerate(events) if isinstance(e, Answered) and e.call in began}


def _overlapping(began: Mapping[int, int], ended: Mapping[int, int], deaths: Sequence[int]) -> list[int]:
    """The last calls of which each overlaps with one before it or after it, in the order in which they began.

    One without an answer was under way until the process died, or still is.
    """
    groups: list[list[int]] = []
    until = -1.0
    for call in sorted(began, key=lambda call: began[call]):
        if not groups or began[call] > until:
            groups.append([])
        groups[-1].append(call)
        until = max(until, ended.get(call, min((at for at in deaths if at > began[call]), default=float("inf"))))
    return next((group for group in reversed(groups) if len(group) > 1), [])


# --- states


def around(belief: Belief, divergence: Divergence | None, records: Records) -> tuple[Picture, ...]:
    """The state before what `divergence` is of, and one that is allowed after it; what the manager has, where that is another.

    `belief` is what the history allowed until then, `records` what the manager has, empty where that is not known. Without a
    divergence of the model the state alone, the last that is known.
    """
    if divergence is None:
        return (of_ref_state(belief.state, "The last state that the history allows"),)
    if isinstance(divergence.op, RefOperation):
        return _around_call(belief, divergence.op, records)
    looked_at = divergence.response if isinstance(divergence.response, Mapping) else records
    return _beside(belief.state, looked_at, "What the history allows")


def _beside(state: RefState, records: Records, title: str) -> tuple[Picture, ...]:
    """The records of the state and those of the manager, where they are not the same; else the whole state."""
    known = {
        name: (record, sum(handle.open and handle.record == name for handle in state.handles.values()))
        for name, record in state.records.items()
    }
    if not records or known == dict(records):
        return (of_ref_state(state, title),)
    return of_records(known, title), of_records(records, "What the manager has")


def _around_call(belief: Belief, op: RefOperation, records: Records) -> tuple[Picture, ...]:
    """Where the call has taken effect already, for others have seen it, one state: the one that it is to leave."""
    text = call_text(op)
    ahead = [world for world in belief.worlds if not any(belief.calls[number].op == op for number in world.landed)]
    if not ahead:
        return _beside(belief.state, records, f"At the end of {text}, as others have seen it")
    state = replace(belief, worlds=frozenset(ahead)).state
    before = of_ref_state(state, f"Before the end of {text}")
    outcomes = refs.outcomes(state, op)
    ends = list(dict.fromkeys(of_ref_state(outcome.state, "") for outcome in outcomes))
    others = [end for end in ends if end != entitled(before, "")]
    if not others:
        what = "be refused" if all(isinstance(outcome.reply, RefRefused) for outcome in outcomes) else "change nothing drawn here"
        return _beside(state, records, f"{before.title}, and after it: it is to {what}")
    which = f", as one of {len(ends)} allowed ends leaves it" if len(ends) > 1 else ", as it is to be"
    return before, entitled(others[0], f"After {text}{which}")
