"""Histories of the manager's model for the tests of its oracle: states by the calls that lead there, and answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

from snapspec.model import linear, ref_ops, refs
from snapspec.model.linear import Belief, Divergence
from snapspec.model.ref_oracle import begin
from snapspec.model.ref_replies import (
    GotHandle,
    GotPruned,
    GotRows,
    GotSize,
    GotWords,
    RefAnswer,
    RefCancelled,
    RefFailed,
    RefReturned,
    RefValue,
)
from snapspec.model.refs import (
    ChangedThrough,
    GivesHandle,
    GivesList,
    ListsRows,
    Pruned,
    RefError,
    RefOutcome,
    RefRefused,
    RefState,
    ShowsTree,
    TellsSize,
    content,
    snapshot_of,
)
from snapspec.model.replies import most_usage
from snapspec.model.tree import MakeFile
from snapspec.model.values import Mount

DONE = RefReturned()
CANCELLED = RefCancelled()
CLOSED, INVALID = RefFailed(RefError.CLOSED), RefFailed(RefError.INVALID)
NOT_FOUND, LOCKED = RefFailed(RefError.NOT_FOUND), RefFailed(RefError.LOCKED)
STORE, DRIVER = RefFailed(RefError.STORE), RefFailed(RefError.DRIVER)
READ_ONLY = RefReturned((Mount("bind", "/1", ("rbind", "ro")),))


def on(record: str) -> RefReturned:
    """A handle on this record."""
    return RefReturned(GotHandle(record))


def sized(size: int) -> RefReturned:
    return RefReturned(GotSize(size))


def pruned(*ids: str, errors: int = 0, size: int | None = None) -> RefReturned:
    """A row for each word: its letters are the ids."""
    return RefReturned(GotPruned(tuple((frozenset(word), size) for word in ids), errors))


def played(*calls: ref_ops.RefOperation, state: RefState | None = None) -> RefState:
    """The state after these calls, which all take effect in the first way that is allowed."""
    state = RefState() if state is None else state
    for op in calls:
        state = refs.outcomes(state, op)[0].state
    return state


#: M with an open handle and four blocks of content; the equal pair with a handle on E, and without; E final; E under a child.
OPEN = played(ref_ops.New("m", "hm"), ref_ops.Write("hm", (MakeFile("f", b"x" * 4096),)))
PAIR = played(ref_ops.Commit("hm", "e", "he"), state=OPEN)
IDLE = played(ref_ops.Release("he"), state=PAIR)
FINAL = played(ref_ops.Finalize("he"), state=PAIR)
CHILD = played(ref_ops.New("n", "hn", "he"), ref_ops.Release("he"), state=PAIR)
LONE = played(ref_ops.Release("hm"), state=OPEN)

#: What every layer of these states may measure.
SIZE = 8192


def true_size(state: RefState, record: str) -> int:
    """The size that is told in these tests: as large as it may be, the same for ever while nothing is written."""
    known = state.records[record].size
    return most_usage(state.driver, state.driver.snapshots[snapshot_of(state, record)]).size if known is None else known


def answer(outcome: RefOutcome) -> RefAnswer:
    """The answer of a manager in which this outcome came about."""
    reply = outcome.reply
    if isinstance(reply, RefRefused):
        return RefFailed(reply.error)
    return RefReturned(_value(outcome.state, outcome))


def _value(state: RefState, outcome: RefOutcome) -> RefValue:
    match outcome.reply:
        case GivesHandle(record=record):
            return GotHandle(record)
        case TellsSize(record):
            return GotSize(true_size(state, record))
        case GivesList(writable=writable):
            return (Mount("bind", "/1", ("rbind", "rw" if writable else "ro")),)
        case ChangedThrough(results=results):
            return GotWords(tuple(min(words) for words in results))
        case ShowsTree(record):
            return content(state, record)
        case ListsRows(rows):
            rows = tuple(sorted(rows, key=lambda row: row.record))
            return GotRows(tuple(replace(row, size=true_size(state, row.record)) if row.size is None else row for row in rows))
        case Pruned(removed):
            return GotPruned(removed)
        case _:
            return None


def held(belief: Belief | Divergence) -> Belief:
    assert isinstance(belief, Belief), belief
    return belief


def broken(belief: Belief | Divergence) -> Divergence:
    assert isinstance(belief, Divergence)
    return belief


def after(belief: Belief, *steps: tuple[ref_ops.RefOperation, RefAnswer]) -> Belief:
    """The belief after calls one after another."""
    for op, came in steps:
        belief = held(linear.perform(belief, op, came))
    return belief


def overlapping(state: RefState, *calls: ref_ops.RefOperation) -> Belief:
    """All `calls`, numbered from 0, have begun and none has answered."""
    belief = begin(state)
    for number, op in enumerate(calls):
        belief = linear.invoke(belief, number, op)
    return belief


def answered(belief: Belief, *answers: tuple[int, RefAnswer]) -> Belief | Divergence:
    """The belief after these answers in this order, or the first divergence."""
    for number, came in answers:
        found = linear.respond(belief, number, came)
        if isinstance(found, Divergence):
            return found
        belief = found
    return belief


def agree(state: RefState, calls: tuple[ref_ops.RefOperation, ...], answers: tuple[RefAnswer, ...]) -> bool:
    """Whether these answers are allowed when all calls overlap. The order in which they come must not matter."""
    orders = permutations(enumerate(answers))
    verdicts = {isinstance(answered(overlapping(state, *calls), *order), Belief) for order in orders}
    (verdict,) = verdicts
    return verdict
