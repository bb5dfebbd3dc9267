"""The oracle of the manager's model: what refs add to the general search for an order of overlapping calls."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from snapspec.model import ref_faults, ref_replies, refs
from snapspec.model.frozen import Map
from snapspec.model.linear import Belief
from snapspec.model.linear import begin as begin_with
from snapspec.model.oracle import SNAPSHOTS
from snapspec.model.ref_faults import Broken
from snapspec.model.ref_ops import RefOperation, RefStep
from snapspec.model.ref_replies import RefAccepted, RefAnswer, RefJudgement
from snapspec.model.refs import ListsRows, Pruned, Record, RefOutcome, RefState, ShowsTree, TellsSize, snapshot_of
from snapspec.model.state import Snapshot, Span, State
from snapspec.model.values import Kind

#: The answer to a call that was seen to take effect is held against this, where it needs no state.
NOTHING = RefState()


class Refs:
    """The manager's model, in the form that the search takes."""

    def outcomes(self, state: RefState, op: RefOperation, at: Span) -> tuple[RefOutcome, ...]:
        """See `refs.outcomes`; no call tells a time."""
        return _outcomes(state, op)

    def steps(self, state: RefState, op: RefOperation | RefStep, at: Span) -> tuple[RefOutcome, ...]:
        """See `refs.steps`. What a state allows is asked for many times, in every order of the calls that overlap."""
        return _steps(state, op)

    def judge(self, outcome: RefOutcome | Broken, response: RefAnswer) -> RefJudgement:
        """See `ref_replies.judge`."""
        return ref_replies.judge(outcome, response)

    def breaks_off(self, response: RefAnswer) -> str:
        """See `ref_replies.breaks_off`."""
        return ref_replies.breaks_off(response)

    def disturbed(self, state: RefState, op: RefOperation | RefStep) -> tuple[Broken, ...]:
        """See `ref_faults.disturbed`."""
        return _disturbed(state, op)

    def broken_off(self, outcome: RefOutcome | Broken, state: RefState) -> Broken | None:
        """See `ref_faults.broken_off`."""
        return ref_faults.broken_off(outcome, state)

    def describe(self, outcome: RefOutcome | Broken) -> str:
        """See `ref_replies.describe`."""
        return ref_replies.describe(outcome)

    def learn(self, state: RefState, judged: RefState, verdict: RefAccepted) -> RefState:
        """The sizes that were told, of records that are still there: an id is never used twice (REF-ERROR-3, REF-SIZE-1)."""
        records = state.records
        for name, size in verdict.learned:
            if name in records and records[name].size is None:
                records = records.set(name, replace(records[name], size=size))
        return state if records is state.records else replace(state, records=records)

    def told(self, outcome: RefOutcome | Broken, verdict: RefAccepted) -> RefOutcome | Broken:
        """Sizes that were told count for every call that has not answered, also when its record is gone (REF-SIZE-1)."""
        match outcome:
            case RefOutcome(reply=TellsSize()):
                state = self.learn(outcome.state, outcome.state, verdict)
                return outcome if state is outcome.state else replace(outcome, state=state)
            case RefOutcome(reply=ListsRows(rows)):
                sizes = dict(verdict.learned)
                if any(row.size is None and row.record in sizes for row in rows):
                    rows = tuple(row if row.size is not None else replace(row, size=sizes.get(row.record)) for row in rows)
                    return replace(outcome, reply=ListsRows(rows))
        return outcome

    def marked(self, outcome: RefOutcome, op: RefOperation, call: int) -> RefState:
        """Records and handles are named by the calls that make them: nothing needs a mark."""
        return outcome.state

    def unmarked(self, state: RefState) -> RefState:
        """The state without claims: no call has come as far as to hold one; those that did have answered, or died in a crash."""
        return replace(state, claimed=()) if state.claimed else state

    def pending(self, outcome: RefOutcome | Broken, state: RefState) -> RefOutcome | Broken:
        """With what its answer will be held against and no more, so that most orders make no difference."""
        if isinstance(outcome, Broken):
            return Broken(outcome.clause, NOTHING, outcome.removed)
        return _pending(outcome)

    def as_now(self, outcome: RefOutcome | Broken, state: RefState) -> RefOutcome | Broken:
        """The outcome: what became known since is in it (see `told`)."""
        return outcome

    def order(self, state: RefState) -> tuple[int, str]:
        """Fewest records first, then by a text that is the same for equal states, in every process."""
        beside = (sorted(state.handles.items()), state.closed, state.claimed, SNAPSHOTS.order(state.driver))
        return len(state.records), repr((sorted(state.records.items()), *beside))

    def presented(self, state: RefState) -> RefState:
        """Records, handles and snapshots by name."""
        records, handles = Map(sorted(state.records.items())), Map(sorted(state.handles.items()))
        return replace(state, records=records, handles=handles, driver=SNAPSHOTS.presented(state.driver))


# Histories repeat themselves: what the model allows is worked out once for each state and operation.


@lru_cache(1 << 14)
def _outcomes(state: RefState, op: RefOperation) -> tuple[RefOutcome, ...]:
    return refs.outcomes(state, op)


@lru_cache(1 << 14)
def _steps(state: RefState, op: RefOperation | RefStep) -> tuple[RefOutcome, ...]:
    return refs.steps(state, op)


@lru_cache(1 << 14)
def _disturbed(state: RefState, op: RefOperation | RefStep) -> tuple[Broken, ...]:
    return ref_faults.disturbed(state, op)


@lru_cache(1 << 14)
def _pending(outcome: RefOutcome) -> RefOutcome:
    match outcome.reply:
        case TellsSize(record) | ShowsTree(record):
            return RefOutcome(outcome.clause, outcome.reply, _about(outcome.state, (record,)))
        case ListsRows(rows):
            measured = tuple(row.record for row in rows if row.size is None)
            return RefOutcome(outcome.clause, outcome.reply, _about(outcome.state, measured))
        case Pruned():
            left = Map((name, Record(record.mutable)) for name, record in sorted(outcome.state.records.items()))
            return RefOutcome(outcome.clause, outcome.reply, RefState(left))
        case _:
            return RefOutcome(outcome.clause, outcome.reply, NOTHING)


def _about(state: RefState, names: tuple[str, ...]) -> RefState:
    """A state of these records alone: their kinds, sizes and content, the same before and after they become final."""
    records: dict[str, Record] = {}
    snapshots: dict[str, Snapshot] = {}
    for name in names:
        snapshot = state.driver.snapshots[snapshot_of(state, name)]
        records[name] = Record(state.records[name].mutable, size=state.records[name].size)
        snapshots[name] = Snapshot(Kind.COMMITTED, snapshot.parent, tree=snapshot.tree, touched=snapshot.touched)
        if snapshot.parent and snapshot.parent not in names:
            lower = state.driver.snapshots[snapshot.parent]
            snapshots[snapshot.parent] = Snapshot(Kind.COMMITTED, tree=lower.tree)
    return RefState(Map(records), driver=State(Map(snapshots), state.driver.profile))


REFS = Refs()


def begin(state: RefState) -> Belief:
    """The belief of somebody who knows the state of the manager."""
    return begin_with(REFS, state)
