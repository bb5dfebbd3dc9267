"""The state machine of refs: bursts of any calls, right or wrong, in any order that the gates permit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from snapspec.conformance import draw, ref_draw
from snapspec.conformance.draw import Limits, Pick
from snapspec.conformance.ref_draw import RefScope
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.ref_session import RefDivergence, RefSession
from snapspec.conformance.schedule import Budget, Choice
from snapspec.conformance.session import SetAside
from snapspec.model.linear import TooManyStates
from snapspec.model.ref_ops import RefOperation, Restart
from snapspec.model.refs import RefState

#: How many calls begin together.
SIZES = (1, 1, 1, 2, 2, 3, 4, 5)


def draw_ops(pick: Pick, session: RefSession, limits: Limits) -> list[RefOperation]:
    """Calls for the state that the model believes in, two of three to succeed; all of them are drawn before any is made."""
    count = 1 if session.state.closed else pick(SIZES)
    about = draw_pair(pick, session.state) if count > 1 else frozenset()
    kinds = ref_draw.choices(session.state, limits, alone=count == 1)
    if about:
        # What is rare among all calls is frequent among few kinds of them.
        kinds = [pick(kinds) for _ in range(pick((2, 3, 4)))]
    found = []
    for _ in range(count):
        scope = RefScope(pick, session.state, limits, session.named(), careful=pick((True, True, False)), about=about)
        found.append(pick(kinds)(scope))
    return found


def draw_pair(pick: Pick, state: RefState) -> frozenset[str]:
    """Mostly one record with its other half, for calls that overlap have most to do with each other there; or none."""
    if not state.records or not pick((True, True, False)):
        return frozenset()
    record = pick(tuple(state.records))
    return frozenset({record, state.records[record].equal} - {""})


def draw_budget(pick: Pick, ops: Sequence[RefOperation]) -> Budget:
    """Mostly nothing disturbs a burst; alone a call meets a fault, a cancellation or a crash more rarely, a start faults only."""
    if pick((False,) * (1 if len(ops) > 1 else 3) + (True,)):
        match "fault" if isinstance(ops[0], Restart) else pick(("cancel", "cancels", "hold", "fault", "crash")):
            case "cancel":
                return Budget(cancels=1)
            case "cancels":
                return Budget(cancels=2)
            case "hold":
                return Budget(holds=1)
            case "fault":
                return Budget(faults=1)
            case _:
                return Budget(crash=True)
    return Budget()


def play_burst(pick: Pick, session: RefSession, limits: Limits) -> None:
    """Draw a burst and play it, choice by choice. Raises RefDivergence."""

    def choose(choices: Sequence[Choice]) -> int:
        return pick(range(len(choices)))

    ops = draw_ops(pick, session, limits)
    session.play(ops, draw_budget(pick, ops), choose)


class RefMachine(RuleBasedStateMachine):
    """One history. It is made by a function that binds the session: Hypothesis gives it no arguments.

    `wanted` says whether another history is still wanted; when it says no, the rules do nothing. `found` is told of findings.
    """

    def __init__(
        self, session: RefSession, limits: Limits, wanted: Callable[[], bool], found: Callable[[RefFinding], None]
    ) -> None:
        super().__init__()
        self.session = session
        self.limits = limits
        self.found = found
        self.running = wanted()
        if self.running:
            self._guarded(session.begin)

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """Mostly there is something to begin with, and some kinds of calls are left out: what is rare among all then comes up."""
        if self.running:
            pick = draw.picker(data)
            self.limits = ref_draw.fewer_kinds(pick, self.limits)
            for op in ref_draw.prelude(pick):
                self._guarded(lambda op=op: self.session.play((op,), Budget(), lambda _: 0))  # type: ignore[misc]  # bound by default

    @rule(data=st.data())
    def burst(self, data: st.DataObject) -> None:
        """One burst."""
        if self.running:
            self._guarded(lambda: play_burst(draw.picker(data), self.session, self.limits))

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except TooManyStates:
            # So much overlaps that the oracle cannot tell any more: what has been judged was right.
            self.running = False
            self.session.clear()
        except SetAside:
            self.running = False
            self.session.clear()
        except RefDivergence as diverged:
            self.running = False
            self.session.clear()
            self.found(diverged.finding)
            raise
        except BaseException:
            # Hypothesis has no more to draw from, in the midst of a burst: there is nothing to judge.
            self.running = False
            self.session.clear()
            raise

    def teardown(self) -> None:
        """At the end all is released and pruned, and that is judged too."""
        if self.running and not self.session.over:
            self._guarded(self.session.end)
