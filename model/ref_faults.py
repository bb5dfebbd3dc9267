"""What a call of the manager may leave when it is cancelled, or when the store or the driver fails under it.

Such a call answers nothing, or an error. Either it has not come to its point of no return and changed nothing, or it has and
what it did stays (REF-POINT-1). What a call does before that point and leaves in place, a final E or one removal of a prune, is a
step of its own in `refs.steps`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from snapspec.model import ref_ops, refs
from snapspec.model.ref_changes import Removal, unclaimed, without_handle
from snapspec.model.ref_outcomes import ChangedThrough, GivesHandle, Pruned, RefOutcome
from snapspec.model.ref_state import RefState


@dataclass(frozen=True, slots=True)
class Broken:
    """An outcome without a reply of its own: no answer, or an error of the store or of the driver.

    `removed` is what a prune has removed by then, which it may report together with its errors (REF-PRUNE-3).
    """

    clause: str
    state: RefState
    removed: tuple[Removal, ...] = ()
    rest: None = None


#: The clauses on calls that break off, where they are other than REF-POINT-1.
_CLAUSES: dict[type, str] = {
    ref_ops.New: "REF-POINT-2",
    ref_ops.MakeOver: "REF-POINT-2",
    ref_ops.Get: "REF-POINT-2",
    ref_ops.Commit: "REF-COMMIT-4",
    ref_ops.Finalize: "REF-FINAL-3",
    ref_ops.Release: "REF-HANDLE-2",
    ref_ops.Size: "REF-SIZE-2",
    ref_ops.Mount: "REF-POINT-2",
    ref_ops.Write: "REF-POINT-2",
    ref_ops.Read: "REF-POINT-2",
    ref_ops.ListFinal: "REF-POINT-2",
    ref_ops.DiskUsage: "REF-USAGE-3",
    ref_ops.Prune: "REF-PRUNE-3",
    ref_ops.PruneOn: "REF-PRUNE-3",
    ref_ops.Close: "REF-CLOSE-1",
    ref_ops.Restart: "REF-OPEN-4",
}


def disturbed(state: RefState, op: ref_ops.RefOperation | ref_ops.RefStep) -> tuple[Broken, ...]:
    """Every way in which `op`, or what is left of it, may break off in `state`. Never empty.

    Of prune it is the end without a removal; each removal is a step, after which what is left may break off.
    """
    clause = _CLAUSES.get(type(op), "REF-POINT-1")
    match op:
        case ref_ops.MakeOver(over=over):
            return (Broken(clause, unclaimed(state, over)),)
        case ref_ops.PruneOn(removed=removed):
            return (Broken(clause, state, removed),)
        case ref_ops.Release():  # it takes effect at once
            return tuple(Broken(clause, o.state) for o in refs.outcomes(state, op))
        case _:
            return (Broken(clause, state), *(Broken(clause, left) for left in _left(state, op) if left != state))


def _left(state: RefState, op: ref_ops.RefOperation | ref_ops.RefStep) -> Iterator[RefState]:
    """The states that differ from `state` and that a call may leave although it does not come to its answer."""
    match op:
        case ref_ops.New() | ref_ops.Mount() | ref_ops.Write() | ref_ops.Read():
            for step in refs.steps(state, op):
                if step.rest is not None:
                    yield replace(step.state, claimed=state.claimed)
        case ref_ops.Get(handle=handle):
            for outcome in refs.outcomes(state, op):
                if outcome.clause == "REF-GET-4":
                    yield without_handle(outcome.state, handle)
        case ref_ops.Finalize():
            for outcome in refs.outcomes(state, op):
                if outcome.state is not state:
                    yield outcome.state
        case ref_ops.Close() | ref_ops.Restart():  # a start that fails leaves the store closed
            if not state.closed:
                yield refs.outcomes(state, ref_ops.Close())[0].state


def broken_off(outcome: RefOutcome | Broken, state: RefState) -> Broken | None:
    """The end of a call that breaks off after `outcome` took effect, when by now the state is `state`.

    None when such a call completes: what it gives, or wrote, was there for others to see (REF-POINT-2).
    """
    if isinstance(outcome, Broken):
        return replace(outcome, state=state)
    match outcome.reply:
        case GivesHandle(handle=handle) if outcome.clause == "REF-GET-4":
            return Broken("REF-POINT-2", without_handle(state, handle))
        case GivesHandle() | ChangedThrough():
            return None
        case Pruned(removed):
            return Broken("REF-PRUNE-3", state, removed)
        case _:
            return Broken(outcome.clause, state)
