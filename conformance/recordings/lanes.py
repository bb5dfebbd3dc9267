"""An illegal part of a recording as text: one lane a caller, the longest legal order, and the call that has no place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from snapspec.conformance.history import answer_text, call_text
from snapspec.conformance.linear import Call
from snapspec.conformance.recordings.judge import Shown
from snapspec.conformance.recordings.recording import Made
from snapspec.conformance.recordings.store import names
from snapspec.conformance.report.document import Bar
from snapspec.model.ops import Walk
from snapspec.model.replies import Lost
from snapspec.model.state import State

#: Columns that a call's number takes at most, with the room before the next.
_STEP = 3


def drawn(shown: Shown) -> Iterator[str]:
    """The lines."""
    calls = sorted(shown.calls, key=lambda call: call.began)
    numbers = {id(call): number for number, call in enumerate(calls, 1)}
    before = list(dict.fromkeys(_store(state, calls) for state in shown.before))
    yield from ([f"before: {before[0]}"] if len(before) == 1 else [f"before, perhaps: {text}" for text in before])
    yield ""
    yield from _lanes(calls)
    yield ""
    for number, call in enumerate(calls, 1):
        yield f"{number:3}  caller {call.caller}: {call_text(call.operation.op)} -> {_answer(call)}"
    yield ""
    order = " ".join(str(numbers[id(shown.calls[n])]) for n in shown.order)
    yield f"longest legal order: {order or 'none'}"
    stuck = shown.calls[shown.stuck]
    yield f"no place for:        {numbers[id(stuck)]}  {call_text(stuck.operation.op)}"


def bars(shown: Shown, also: Sequence[Made] = ()) -> tuple[Bar, ...]:
    """The same calls as bars, and `also` others, in the order in which they began; the one that has no place is marked."""
    others = (Call(m, None if isinstance(m.response, Lost) else m.response, m.began, m.ended, str(m.caller)) for m in also)
    calls = sorted((*shown.calls, *others), key=lambda call: call.began)
    place = {moment: at for at, moment in enumerate(_moments(calls))}
    return tuple(
        Bar(
            number,
            call_text(call.operation.op),
            _answer(call),
            place[call.began],
            None if call.ended is None else place[call.ended],
            f"caller {call.caller}",
            "broken" if call is shown.calls[shown.stuck] else "",
        )
        for number, call in enumerate(calls, 1)
    )


def _answer(call: Call) -> str:
    return answer_text(Lost("it was never answered") if call.outcome is None else call.outcome)


def _moments(calls: list[Call]) -> list[int]:
    """Every beginning and every answer, in order."""
    return sorted({call.began for call in calls} | {call.ended for call in calls if call.ended is not None})


def _store(state: State, calls: list[Call]) -> str:
    """What calls name of the snapshots, in few words."""
    asked = [call.operation.op for call in calls]
    named = {name for op in asked for name in names(op)}
    shown = {key: s for key, s in state.snapshots.items() if key in named or any(isinstance(op, Walk) for op in asked)}
    found = [f"{key!r} {s.kind.value}" + (f" over {s.parent!r}" if s.parent else "") for key, s in shown.items()]
    others = len(state.snapshots) - len(shown)
    return ", ".join([*found, *([f"{others} more"] if others else [])]) or "nothing"


def _lanes(calls: list[Call]) -> Iterator[str]:
    """One line a caller; a call reaches from its beginning to its answer, and on to the end where none came."""
    moments = _moments(calls)
    column = {moment: _STEP * at for at, moment in enumerate(moments)}
    width = _STEP * len(moments) + 1
    callers = sorted({call.caller for call in calls}, key=lambda caller: (len(caller), caller))
    for caller in callers:
        line = [" "] * width
        for number, call in enumerate(calls, 1):
            if call.caller == caller:
                _put(
                    line, number, column[call.began], width - 1 if call.ended is None else column[call.ended], call.ended is None
                )
        yield f"caller {caller:3} {''.join(line)}".rstrip()


def _put(line: list[str], number: int, start: int, end: int, unanswered: bool) -> None:
    line[start : end + 1] = ["├", *"─" * (end - start - 1), "…" if unanswered else "┤"]
    text = str(number)
    line[start + 1 : start + 1 + len(text)] = text
