"""The oracle of the snapshotter's model: which states the history so far allows.

It is told that a call began (`invoke`), what it answered (`respond`), that the process died (`crash`). What is here is what the
snapshotter adds to the general search for an order of overlapping calls.
"""

from __future__ import annotations

from dataclasses import replace

from snapspec.model import ops, replies, snapshots
from snapspec.model.frozen import Map
from snapspec.model.linear import (
    Belief,
    Call,
    Divergence,
    TooManyStates,
    World,
    allowed,
    crash,
    invoke,
    perform,
    respond,
)
from snapspec.model.linear import begin as begin_with
from snapspec.model.replies import Accepted, Changed, Done, Gives, Judgement, Lists, Measures, Outcome, Refused, Response, Tells
from snapspec.model.state import Snapshot, Span, State, ancestors
from snapspec.model.tree import EMPTY
from snapspec.model.values import Kind

__all__ = [
    "SNAPSHOTS",
    "Belief",
    "Call",
    "Divergence",
    "TooManyStates",
    "World",
    "allowed",
    "begin",
    "crash",
    "invoke",
    "perform",
    "respond",
]


class Snapshots:
    """The snapshotter's model, in the form that the search takes."""

    def outcomes(self, state: State, op: ops.Operation, at: Span) -> tuple[Outcome, ...]:
        """See `snapshots.outcomes`."""
        return snapshots.outcomes(state, op, at)

    def steps(self, state: State, op: ops.Operation, at: Span) -> tuple[Outcome, ...]:
        """The same: each call takes effect at one instant (SNAP-FAIL-2)."""
        return snapshots.outcomes(state, op, at)

    def judge(self, outcome: Outcome, response: Response) -> Judgement:
        """See `replies.judge`."""
        assert not isinstance(response, replies.Lost)
        return replies.judge(outcome, response)

    def describe(self, outcome: Outcome) -> str:
        """See `replies.describe`."""
        return replies.describe(outcome.reply)

    def breaks_off(self, response: Response) -> str:
        """No answer of a driver tells of a disturbance: an error that the model does not allow is a divergence."""
        return ""

    def disturbed(self, state: State, op: ops.Operation) -> tuple[Outcome, ...]:
        """None: see `breaks_off`."""
        return ()

    def broken_off(self, outcome: Outcome, state: State) -> Outcome | None:
        """None: see `breaks_off`."""
        return None

    def learn(self, state: State, judged: State, verdict: Accepted) -> State:
        """The state with what the answer told; a snapshot that a later call has changed since keeps what it is."""
        for key, snapshot in verdict.learned:
            if state.get(key) == judged.get(key):
                state = state.put(key, snapshot)
        return state

    def told(self, outcome: Outcome, verdict: Accepted) -> Outcome:
        """The outcome: what was told is in the state, where `as_now` finds it."""
        return outcome

    def marked(self, outcome: Outcome, op: ops.Operation, call: int) -> State:
        """The state after `outcome`, with the life that it begins, if any, marked by the call."""
        match op:
            case ops.Prepare(key=key) | ops.View(key=key) | ops.Commit(name=key) if not isinstance(outcome.reply, Refused):
                return outcome.state.put(key, replace(outcome.state.snapshots[key], life=call))
            case ops.Nowhere(call=named):
                return self.marked(outcome, named, call)
        return outcome.state

    def unmarked(self, state: State) -> State:
        """The state in which no life is marked."""
        if all(snapshot.life is None for snapshot in state.snapshots.values()):
            return state
        return State(Map((key, replace(snapshot, life=None)) for key, snapshot in state.snapshots.items()), state.profile)

    def pending(self, outcome: Outcome, state: State) -> Outcome:
        """What the answer will be held against: the snapshot that it speaks of, and its chain of parents."""
        match outcome.reply:
            case Refused() | Done() | Changed():
                return replace(outcome, state=State(profile=state.profile))
            case Lists():
                return replace(outcome, state=state)
            case reply:
                key = reply.name if isinstance(reply, Tells) else reply.key
                chain = Map((name, state.snapshots[name]) for name in (key, *ancestors(state, key)))
                return replace(outcome, state=State(chain, state.profile))

    def as_now(self, outcome: Outcome, state: State) -> Outcome:
        """The outcome as it is to be judged when its answer comes.

        A mount list and the usage of a committed snapshot belong to a life, not to an instant: all that is known by now counts.
        """
        match outcome.reply:
            case Gives(key) | Measures(key):
                then, now = outcome.state.snapshots[key], state.get(key)
                same = now is not None and (now.kind, now.life) == (then.kind, then.life)
                if same and (isinstance(outcome.reply, Gives) or then.kind is Kind.COMMITTED):
                    # The chain of parents is the same as then: a parent stays as long as its child.
                    return replace(outcome, state=state)
        return outcome

    def order(self, state: State) -> tuple[int, str]:
        """Fewest snapshots first, then by a text that is the same for equal states, in every process."""
        return len(state.snapshots), repr([(key, _spelled(snapshot)) for key, snapshot in sorted(state.snapshots.items())])

    def presented(self, state: State) -> State:
        """Older snapshots first."""
        return State(Map(sorted(state.snapshots.items(), key=lambda item: (item[1].created, item[0]))), state.profile)


def _spelled(snapshot: Snapshot) -> tuple[Snapshot, list[str], list[str]]:
    nodes = [f"{path!r}: {node!r}" for path, node in sorted(snapshot.tree.nodes.items())]
    return replace(snapshot, tree=EMPTY, touched=frozenset()), sorted(snapshot.touched), nodes


SNAPSHOTS = Snapshots()


def begin(state: State) -> Belief:
    """The belief of somebody who knows the state of the snapshotter."""
    return begin_with(SNAPSHOTS, state)
