"""Answers of a manager: what came, and whether it is what an outcome allows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from snapspec.model.nodes import Tree
from snapspec.model.ref_changes import Removal
from snapspec.model.ref_faults import Broken
from snapspec.model.refs import (
    ChangedThrough,
    GivesHandle,
    GivesList,
    ListsRows,
    NoHandle,
    Pruned,
    RefDone,
    RefError,
    RefOutcome,
    RefRefused,
    RefState,
    Row,
    ShowsTree,
    TellsSize,
    content,
    snapshot_of,
)
from snapspec.model.replies import Mismatch, least_size, most_usage, option
from snapspec.model.state import Measure, State
from snapspec.model.tree import differences
from snapspec.model.values import Mount

# --- what came


@dataclass(frozen=True, slots=True)
class GotHandle:
    """A handle, on the record of this id."""

    record: str


@dataclass(frozen=True, slots=True)
class GotSize:
    """A size as told, and as measured in the layer's own directory where the mount list shows one."""

    size: int
    measured: int | None = None


@dataclass(frozen=True, slots=True)
class GotRows:
    """The rows of disk_usage; every size is known."""

    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class GotPruned:
    """For each snapshot that prune removed: its records' ids, its bytes where they were known; and how many errors there were."""

    removed: tuple[tuple[frozenset[str], int | None], ...]
    errors: int = 0


@dataclass(frozen=True, slots=True)
class GotWords:
    """One word for each change: `ok` or an error's name."""

    words: tuple[str, ...]


RefValue = None | GotHandle | GotSize | GotRows | GotPruned | GotWords | Tree | tuple[Mount, ...]


@dataclass(frozen=True, slots=True)
class RefReturned:
    """The call answered with a value."""

    value: RefValue = None


@dataclass(frozen=True, slots=True)
class RefFailed:
    """The call answered with an error."""

    error: RefError
    message: str = ""


@dataclass(frozen=True, slots=True)
class RefCancelled:
    """The caller was cancelled, and gets nothing."""


RefAnswer = RefReturned | RefFailed | RefCancelled


@dataclass(frozen=True, slots=True)
class RefAccepted:
    """The response fits; `learned` holds the sizes of immutable records that it told. `clauses` were looked at."""

    clauses: tuple[str, ...]
    learned: tuple[tuple[str, int], ...] = ()


RefJudgement = RefAccepted | Mismatch


def breaks_off(response: RefAnswer) -> str:
    """What must have disturbed a call that answers so: "cancel", "fault", or "" for an ordinary answer."""
    match response:
        case RefCancelled():
            return "cancel"
        case RefFailed(error=RefError.STORE | RefError.DRIVER):
            return "fault"
        case RefReturned(GotPruned(errors=errors)) if errors:
            return "fault"
        case _:
            return ""


def judge(outcome: RefOutcome | Broken, response: RefAnswer) -> RefJudgement:
    """Whether `response` is what `outcome` allows."""
    if isinstance(outcome, Broken):
        return _judge_broken(outcome, response)
    if isinstance(response, RefReturned):
        verdict = _judge_value(outcome, response.value)
        return Mismatch(outcome.clause, describe(outcome), _came(response)) if verdict is None else verdict
    if isinstance(response, RefFailed) and outcome.reply == RefRefused(response.error):
        return RefAccepted((outcome.clause, "REF-ERROR-1"))
    clause = outcome.clause
    if isinstance(outcome.reply, TellsSize):
        # A cancellation, or an error of the scan, in which this caller has no part; else an error of a race.
        clause = "REF-SIZE-5" if breaks_off(response) else "REF-SIZE-4"
    elif clause in ("REF-FINAL-1", "REF-FINAL-2", "REF-MOUNT-3", "REF-NEW-2") and breaks_off(response) == "fault":
        clause = "REF-FINAL-3"  # nothing has disturbed this one: it is a retry, or as good as one
    elif clause == "REF-USAGE-1" and breaks_off(response):
        clause = "REF-USAGE-3"
    return Mismatch(clause, describe(outcome), _came(response))


def _judge_broken(outcome: Broken, response: RefAnswer) -> RefJudgement:
    """A call that broke off answers nothing, or an error; a prune may tell what it has removed by then, with its errors."""
    if isinstance(response, RefReturned) and isinstance(response.value, GotPruned):
        return _judge_pruned_in_part(outcome, response.value)
    always = outcome.clause in ("REF-HANDLE-2", "REF-HANDLE-3")  # a release never fails
    if breaks_off(response) and not (always and isinstance(response, RefFailed)):
        return RefAccepted((outcome.clause,))
    return Mismatch(outcome.clause, describe(outcome), _came(response))


def _judge_pruned_in_part(outcome: Broken, came: GotPruned) -> RefJudgement:
    """Each error may hide one removal: its mark was durable although the write reported an error (REF-PRUNE-2)."""
    told, there = dict(came.removed), dict(outcome.removed)
    true = len(told) == len(came.removed) and all(ids in there and _size_fits(there[ids], told[ids]) for ids in told)
    return _equal(
        outcome,
        f"rows {_ids(outcome.removed)}, those of {came.errors} errors left out or not",
        f"rows {_ids(came.removed)}, {came.errors} errors",
        true and len(there) - len(told) <= came.errors and came.errors > 0,
    )


def _size_fits(known: int | None, came: int | None) -> bool:
    """A size that was stored and never told is not known to the model (REF-SIZE-2)."""
    return came == known or (known is None and came is not None and came >= 0)


def _came(response: RefAnswer) -> str:
    match response:
        case RefReturned(value):
            return f"success, {type(value).__name__}"
        case RefFailed(error, message):
            return f"{error.value}: {message}".rstrip(": ")
    return "cancelled, without an answer"


def _judge_value(outcome: RefOutcome, value: RefValue) -> RefJudgement | None:
    """None: the value is not even of the expected form."""
    state = outcome.state
    match outcome.reply, value:
        case ((RefDone() | NoHandle()), None):
            return RefAccepted((outcome.clause,))
        case GivesHandle(record=record), GotHandle(came):
            return _equal(outcome, f"a handle on {record!r}", f"a handle on {came!r}", record == came)
        case TellsSize(record), GotSize():
            return _judge_size(outcome, record, value)
        case GivesList(writable=writable), tuple():
            return _judge_list(outcome, writable, value)
        case ChangedThrough(results=results), GotWords(words):
            right = len(words) == len(results) and all(w in allowed for w, allowed in zip(words, results, strict=True))
            return _equal(outcome, _words(results), ", ".join(words), right)
        case ShowsTree(record), Tree():
            expected = content(state, record)
            return _equal(outcome, "the tree of the model", "; ".join(differences(expected, value)), expected == value)
        case ListsRows(rows), GotRows(came_rows):
            return _judge_rows(outcome, rows, came_rows)
        case Pruned(removed), GotPruned(came_removed, errors):
            there, told = dict(removed), dict(came_removed)
            fit = there.keys() == told.keys() and all(_size_fits(there[ids], size) for ids, size in told.items())
            right = errors == 0 and len(told) == len(came_removed) and fit
            came = f"rows {_ids(came_removed)}, {errors} errors"
            return _equal(
                outcome, f"rows {_ids(removed)}, no errors", came, right, _prune_clause(outcome, removed, came_removed, errors)
            )
        case _:
            return None


def _equal(outcome: RefOutcome | Broken, expected: str, came: str, right: bool, otherwise: str = "") -> RefJudgement:
    """`otherwise` is the clause that is broken where it is not the outcome's own."""
    return RefAccepted((outcome.clause,)) if right else Mismatch(otherwise or outcome.clause, expected, came)


def _prune_clause(outcome: RefOutcome, expected: tuple[Removal, ...], came: tuple[Removal, ...], errors: int) -> str:
    """REF-PRUNE-1 where something is gone that is in use, or there that is not, or cannot go; else the report is wrong."""
    gone = {name for ids, _ in came for name in ids}
    wrong = errors or not all(ids & gone for ids, _ in expected) or gone & outcome.state.records.keys()
    return "REF-PRUNE-1" if wrong else outcome.clause


def _words(results: tuple[frozenset[str], ...]) -> str:
    return ", ".join(" or ".join(sorted(words)) for words in results)


def _ids(removed: tuple[tuple[frozenset[str], int | None], ...]) -> str:
    return str(sorted((sorted(ids), size) for ids, size in removed))


def _judge_list(outcome: RefOutcome, writable: bool, mounts: tuple[Mount, ...]) -> RefJudgement:
    """A read-only list names no place that could be written, and never says rw (REF-MOUNT-1)."""
    wrong = [m for m in mounts if option(m, "upperdir") or option(m, "workdir") or "rw" in m.options]
    if not mounts:
        return Mismatch(outcome.clause, "at least one mount", "an empty list")
    if wrong and not writable:
        return Mismatch("REF-MOUNT-1", "no upper or work directory, no rw", f"{wrong[0].type} {','.join(wrong[0].options)}")
    return RefAccepted((outcome.clause, "REF-MOUNT-1"))


def _judge_size(outcome: RefOutcome, record: str, came: GotSize) -> RefJudgement:
    """An immutable record's size is told once and for ever; a mutable one's is measured each time (REF-SIZE-1, REF-SIZE-6)."""
    state = outcome.state
    known = state.records[record]
    if known.size is not None and came.size != known.size:
        return Mismatch("REF-SIZE-1", f"{known.size}, as told before", str(came.size))
    if known.size is None:
        exact = state.driver.profile.usage in (Measure.LAYER, Measure.COPY)
        if exact and came.measured is not None and came.size != came.measured:
            return Mismatch(outcome.clause, f"{came.measured}, as measured in its directory", str(came.size))
        wrong = _impossible(state, record, came.size)
        if wrong is not None:
            return wrong
    return RefAccepted((outcome.clause,), () if known.mutable else ((record, came.size),))


def _impossible(state: RefState, record: str, size: int) -> Mismatch | None:
    """What no true size of the layer can be (REF-SIZE-4)."""
    least, most = _limits(state.driver, snapshot_of(state, record))
    if least <= size and (most is None or size <= most):
        return None
    return Mismatch("REF-SIZE-4", f"a size from {least} to {most}", str(size))


@lru_cache(1 << 12)
def _limits(driver: State, key: str) -> tuple[int, int | None]:
    """Bounds that hold of every true size of a layer, as far as the driver says what it counts (SNAP-USAGE-6, SNAP-USAGE-7)."""
    snapshot, measure = driver.snapshots[key], driver.profile.usage
    if measure is Measure.OPAQUE:
        return 0, None
    return 0 if measure is Measure.DELTA else least_size(driver, snapshot), most_usage(driver, snapshot).size


def _judge_rows(outcome: RefOutcome, expected: tuple[Row, ...], came: tuple[Row, ...]) -> RefJudgement:
    if _sizeless(came) != _sizeless(expected):
        used = [row[:3] for row in _sizeless(came)] == [row[:3] for row in _sizeless(expected)]
        return Mismatch("REF-USAGE-2" if used else outcome.clause, _rows(expected), _rows(came))
    sizes = {row.record: row.size for row in came}
    learned: list[tuple[str, int]] = []
    for row in expected:
        size = sizes[row.record]
        if size is None or (row.size is not None and size != row.size):
            return Mismatch("REF-USAGE-3", f"{row.record!r} of {row.size} bytes", f"{size}")
        wrong = _impossible(outcome.state, row.record, size) if row.size is None else None
        if wrong is not None:
            return replace(wrong, clause="REF-USAGE-3")
        if not row.mutable:
            learned.append((row.record, size))
    return RefAccepted((outcome.clause, "REF-USAGE-2", "REF-USAGE-3", "REF-PAIR-3"), tuple(learned))


def _sizeless(rows: tuple[Row, ...]) -> list[tuple[str, str, bool, bool]]:
    return sorted((row.record, row.parent, row.mutable, row.in_use) for row in rows)


def _rows(rows: tuple[Row, ...]) -> str:
    return "; ".join(sorted(_row(row) for row in rows)) or "no rows"


def _row(row: Row) -> str:
    kind = "mutable" if row.mutable else "immutable"
    return f"{row.record!r} {kind} over {row.parent!r}{' in use' if row.in_use else ''}"


def describe(outcome: RefOutcome | Broken) -> str:
    """What the outcome answers, in a few words."""
    if isinstance(outcome, Broken):
        return "no answer, or an error of the store or the driver"
    reply = outcome.reply
    match reply:
        case RefRefused(error):
            return error.value
        case RefDone():
            return "success"
        case NoHandle():
            return "nothing"
        case GivesHandle(record=record):
            return f"a handle on {record!r}"
        case TellsSize(record):
            return f"the size of {record!r}"
        case GivesList(record, writable):
            return f"a {'writable' if writable else 'read-only'} list of {record!r}"
        case ChangedThrough(record=record):
            return f"the changes to {record!r}"
        case ShowsTree(record):
            return f"the tree of {record!r}"
        case ListsRows(rows):
            return _rows(rows)
    return f"rows {_ids(reply.removed)}"
