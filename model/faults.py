"""What a call may answer, and what it may leave, when the system fails under it or when it is cancelled.

In general such a call has changed nothing, or it has completed. Two ends leave open which of the two it was: that of a cancelled
call, and that of a call whose last step failed, the write by which the change begins to last.
"""

from __future__ import annotations

from enum import Enum

import icontract

from snapspec.model import oracle
from snapspec.model.ops import Operation
from snapspec.model.oracle import Belief, Divergence
from snapspec.model.replies import Failed, Lost, Mismatch, Response, Returned
from snapspec.model.values import ErrorClass


class Trouble(Enum):
    """What befell a call."""

    FAILED = "failed"
    """Something failed that the call can undo."""
    UNDECIDED = "undecided"
    """The write failed by which the change begins to last: whether it took place is not known."""
    CANCELED = "canceled"
    """The call was cancelled."""


#: Errors that tell what the store holds. A failing system is no reason to give them.
TELLING = (ErrorClass.NOT_FOUND, ErrorClass.ALREADY_EXISTS)


@icontract.require(lambda belief: len(belief.calls) == 0, "nothing else is under way")
@icontract.require(lambda trouble, response: trouble is Trouble.CANCELED or not isinstance(response, Lost), "it has answered")
@icontract.ensure(
    lambda belief, op, response, began, ended, result: (
        not isinstance(response, Returned) or result == oracle.perform(belief, op, response, began, ended)
    ),
    "SNAP-FAULT-1",
)
@icontract.ensure(
    lambda belief, trouble, response, result: (
        isinstance(response, Returned) or isinstance(result, Divergence) or _as_it_was(belief, trouble, result)
    ),
    "SNAP-FAULT-2",
)
@icontract.ensure(
    lambda belief, trouble, response, result: (
        trouble is not Trouble.CANCELED or isinstance(response, Returned) or belief.worlds <= result.worlds
    ),
    "SNAP-FAULT-3",
)
def disturbed(
    belief: Belief, op: Operation, trouble: Trouble, response: Response, began: int = 0, ended: int = 0
) -> Belief | Divergence:
    """All that the history allows after `op`, which met with `trouble`, has answered or, cancelled, has ended without an answer.

    An answer is the one that it would have given without (SNAP-FAULT-1). A refusal changes nothing unless it is `UNDECIDED`
    (SNAP-FAULT-2); of a call that was cancelled nothing else is known than that it has happened or not (SNAP-FAULT-3).
    """
    begun = oracle.invoke(belief, 1, op, began)
    if trouble is not Trouble.CANCELED or isinstance(response, Returned):
        usual = oracle.respond(begun, 1, response, ended)
        if isinstance(usual, Belief) or isinstance(response, Returned):
            return usual
        if isinstance(response, Failed) and response.error in TELLING:
            return Divergence(op, response, (_telling(response), *usual.mismatches))
    return belief if trouble is Trouble.FAILED else oracle.crash(begun, ended)


def _as_it_was(belief: Belief, trouble: Trouble, after: Belief) -> bool:
    """Whether nothing else is allowed than was before, or, where that is not known, whether it still is."""
    return after.worlds <= belief.worlds if trouble is Trouble.FAILED else bool(after.worlds & belief.worlds)


def _telling(response: Failed) -> Mismatch:
    expected = "what it answers without the failure, or an error that does not tell what the store holds"
    return Mismatch("SNAP-FAULT-1", expected, f"{response.error.value}: {response.message}".rstrip(": "))
