"""What kind a finding is of: so that one finding does not end a check, nor hide the others.

A finding whose kind is known is set aside: the oracle takes up what the driver has done (`model.adopt`), or, where it cannot, the
history ends there. What shows anew in that history counts all the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from snapspec.conformance.faults import Faulted
from snapspec.conformance.history import Finding
from snapspec.conformance.kind import Kind
from snapspec.conformance.overlap import AtOnce
from snapspec.conformance.ref_history import RefFinding
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.ref_ops import RefOperation
from snapspec.model.replies import Failed, Mismatch, Response


def kind_of(found: Finding | RefFinding) -> Kind:
    """The kind of that finding."""
    first = found.mismatches[0]
    if isinstance(found, RefFinding):
        return Kind(found.clause, found.call, shape=_error(first.came))
    last = found.steps[-1]
    if isinstance(last.op, AtOnce):
        misplaced = next((bar.call for bar in found.bars if bar.mark), "")
        return Kind(found.clause, misplaced.partition("(")[0], shape=_error(first.came))
    return Kind(found.clause, call_name(last.op), found.cause, _shape(last.response, first))


def call_name(op: Operation | RefOperation) -> str:
    """The name of the call; of one under which something fails, and how."""
    if isinstance(op, ops.Nowhere):
        return call_name(op.call)
    if isinstance(op, Faulted):
        return f"{call_name(op.call)} under a fault"
    return type(op).__name__.lower()


def covered(kind: Kind, known: Collection[Kind]) -> bool:
    """Whether all that is wrong in that finding is known: the same clause at the same call, in ways that were all seen.

    What the call shows without a cause it shows after any.
    """
    alike = [other for other in known if (other.clause, other.call) == (kind.clause, kind.call)]
    same = [other.shape for other in alike if other.cause in ("", kind.cause)]
    # To answer at all where an error is owed is another thing than the wrong error.
    return set(kind.shape) <= {way for shape in same for way in shape} if kind.shape else () in same


def _shape(response: Response, mismatch: Mismatch) -> tuple[str, ...]:
    if isinstance(response, Failed):
        return (response.error.value,)
    if mismatch.clause == "SNAP-CONTENT-1":
        return ways(mismatch.came)
    return ()


def _error(came: str) -> tuple[str, ...]:
    """The class of the error that came, where one did."""
    found = re.match(r"([A-Z][A-Za-z]+)(?::|$)", came)
    return (found[1],) if found else ()


#: What `model.layers.differences` says of a path whose entry is another: the rest of that line may follow from it.
_ENTRY = re.compile(r": (?:missing|unexpected) \(|[:;] (?:type expected|size expected|content differs) ")
_ATTRIBUTE = re.compile(r"[:;] (mode|owner|xattrs|target|device|names) expected ")


def ways(differences: str) -> tuple[str, ...]:
    """In which ways two trees differ: in entries and their data, or, if in none of these, in which attributes."""
    if _ENTRY.search(differences):
        return ("entries",)
    return tuple(sorted(set(_ATTRIBUTE.findall(differences))))
