"""What a finding of refs has to be drawn: the calls that overlapped last, and the states around what no clause allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from snapspec.conformance.history import call_text
from snapspec.conformance.ref_words import answer_text
from snapspec.conformance.report.document import Bar, Picture
from snapspec.conformance.report.pictures import entitled, of_records, of_ref_state
from snapspec.conformance.schedule import Answered, Choice, Move
from snapspec.model import refs
from snapspec.model.linear import Divergence
from snapspec.model.ref_ops import RefOperation
from snapspec.model.refs import Record, RefRefused, RefState

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


def around(state: RefState, divergence: Divergence | None) -> tuple[Picture, ...]:
    """The state before what `divergence` is of, and one that is allowed after it; at rest, what the manager has instead.

    Without a divergence of the model the state alone, which is the last that is known.
    """
    if divergence is None:
        return (of_ref_state(state, "The last state that the history allows"),)
    if isinstance(divergence.op, RefOperation):
        return _around_call(state, divergence.op)
    allowed = of_ref_state(state, "What the history allows")
    return (allowed, of_records(divergence.response, "What the manager has")) if _records(divergence.response) else (allowed,)


def _records(response: object) -> bool:
    """Whether these are a manager's records, each with the number of its open handles."""
    return isinstance(response, Mapping) and all(
        isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], Record) for value in response.values()
    )


def _around_call(state: RefState, op: RefOperation) -> tuple[Picture, ...]:
    text = call_text(op)
    before = of_ref_state(state, f"Before the end of {text}")
    outcomes = refs.outcomes(state, op)
    ends = list(dict.fromkeys(of_ref_state(outcome.state, "") for outcome in outcomes))
    others = [end for end in ends if end != entitled(before, "")]
    if not others:
        what = "be refused" if all(isinstance(outcome.reply, RefRefused) for outcome in outcomes) else "change nothing drawn here"
        return (entitled(before, f"{before.title}, and after it: it is to {what}"),)
    which = f", as one of {len(ends)} allowed ends leaves it" if len(ends) > 1 else ", as it is to be"
    return before, entitled(others[0], f"After {text}{which}")
