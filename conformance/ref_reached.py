"""Which clauses an answer, or the records at rest, have put to the test, beside those that the oracle names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from snapspec.conformance.gates import Gate, Verdict
from snapspec.conformance.schedule import Cancelled, Choice
from snapspec.model import ref_ops
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_replies import RefFailed, RefReturned
from snapspec.model.refs import Record, RefError


def by_answer(op: RefOperation, answer: object, *, together: bool) -> Iterator[str]:
    """`answer` came to `op`, which others may have overlapped with when they were played `together`."""
    broken = isinstance(answer, Cancelled) or (
        isinstance(answer, RefFailed) and answer.error in (RefError.STORE, RefError.DRIVER)
    )
    if broken:
        yield "REF-POINT-1"
    elif isinstance(answer, RefFailed):
        yield "REF-ERROR-4"
    if together:
        yield "REF-ERROR-5"
    match op:
        case ref_ops.Size() if broken:
            yield "REF-SIZE-5"
        case ref_ops.Size() if together:
            yield "REF-SIZE-4"
        case ref_ops.Commit() if broken:
            yield "REF-COMMIT-4"
        case ref_ops.Prune() if isinstance(answer, RefReturned):
            yield "REF-PRUNE-1"
        case ref_ops.New(parent=str()) if isinstance(answer, RefReturned):
            yield "REF-NEW-4"


def by_records(records: Iterable[tuple[Record, int]]) -> Iterator[str]:
    """The records, each with the number of its open handles, were those that the model allows."""
    for record, handles in records:
        if record.equal:
            yield "REF-PAIR-1"
        if record.parent:
            yield "REF-PAIR-2"
        if record.equal and record.parent:
            yield "REF-COMMIT-2"
        if record.mutable and handles:
            yield "REF-HANDLE-6"


def by_choice(choice: Choice) -> Iterator[str]:
    """What the schedule made happen, and came to a right end."""
    match choice:
        case Choice(what=Verdict.FAIL_BEFORE | Verdict.FAIL_AFTER, gate=Gate(port="driver", name="commit")):
            yield "REF-FINAL-4"
        case Choice(what=Verdict.GO, gate=Gate(port="driver", name="usage")):
            yield "REF-SIZE-3"
