"""A run of refs in words: one line for a call that nothing overlaps, one for each event of those that overlap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from snapspec.conformance.gates import Verdict
from snapspec.conformance.history import call_text, in_one_line, value_text
from snapspec.conformance.schedule import Answered, Cancelled, Choice, Move
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_replies import GotHandle, GotPruned, GotRows, GotSize, GotWords, RefFailed, RefReturned
from snapspec.model.refs import Row

_VERDICTS = {
    Verdict.GO: "goes on",
    Verdict.FAIL_BEFORE: "fails without effect",
    Verdict.FAIL_AFTER: "takes effect and fails",
    Verdict.HOLD: "takes effect, its answer waits",
    Verdict.GIVE_UP: "gives up, for its caller is cancelled",
}


def told(events: Sequence[Choice | Answered], operations: Mapping[int, RefOperation]) -> Iterator[str]:
    """The lines that tell the events; `operations` are the calls by number."""
    before: Choice | Answered | None = None
    for event in events:
        if before is not None and not _joined(before, event):
            yield _line(before, operations)
            before = event
        elif before is not None:
            assert isinstance(event, Answered)
            yield f"{event.call:3}  {call_text(operations[event.call])} -> {answer_text(event.answer)}"
            before = None
        else:
            before = event
    if before is not None:
        yield _line(before, operations)


def _joined(before: Choice | Answered, event: Choice | Answered) -> bool:
    """Whether the two are a call and its answer, with nothing between."""
    started = isinstance(before, Choice) and before.what is Move.START
    return started and isinstance(event, Answered) and event.call == before.call


def _line(event: Choice | Answered, operations: Mapping[int, RefOperation]) -> str:
    if isinstance(event, Answered):
        return f"{event.call:3}  -> {answer_text(event.answer)}"
    match event.what:
        case Move.START:
            return f"{event.call:3}  {call_text(operations[event.call])} begins"
        case Move.CANCEL:
            return f"{event.call:3}  is cancelled"
        case Move.FIRE:
            return "     a timer goes off"
        case Move.CRASH:
            return "     the process dies"
    assert event.gate is not None
    what = "goes on with its answer" if event.landed else _VERDICTS[event.what]
    return f"     {event.gate.port} {event.gate.name}{_arguments(event.gate.arguments)}, for call {event.call}, {what}"


def _arguments(arguments: tuple[object, ...]) -> str:
    return f"({', '.join(map(repr, arguments))})"


def answer_text(answer: object) -> str:
    """An answer in few words."""
    match answer:
        case RefFailed(error, message):
            return f"{error.value}: {in_one_line(message)}" if message else error.value
        case RefReturned(value):
            return _value_text(value)
        case Cancelled():
            return "cancelled"
        case _:
            return repr(answer)


def _value_text(value: object) -> str:
    match value:
        case GotHandle(record):
            return f"a handle on {record!r}"
        case GotSize(size):
            return f"{size} bytes"
        case GotWords(words):
            return ", ".join(words)
        case GotRows(rows):
            return "; ".join(map(_row_text, rows)) or "no rows"
        case GotPruned(removed, errors):
            gone = "; ".join(_removed_text(ids, size) for ids, size in removed) or "no rows"
            return f"{gone}, {errors} errors" if errors else gone
        case _:
            return value_text(value)


def _row_text(row: Row) -> str:
    kind = "mutable" if row.mutable else "immutable"
    over = f" over {row.parent!r}" if row.parent else ""
    return f"{row.record!r} {kind}{over}{' in use' if row.in_use else ''}, {row.size} bytes"


def _removed_text(ids: frozenset[str], size: int | None) -> str:
    return f"{' and '.join(map(repr, sorted(ids)))} of {'unknown size' if size is None else f'{size} bytes'}"
