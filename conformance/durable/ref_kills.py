"""The search with kills for what departs from the spec of refs: written histories, drawn ones, and the shortest form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from hypothesis import strategies as st
from hypothesis.stateful import rule

from snapspec.conformance import draw
from snapspec.conformance.draw import Limits, Pick
from snapspec.conformance.durable.ref_kill import RefKillSession, make_once, make_surely
from snapspec.conformance.ref_history import Burst, RefFinding, size
from snapspec.conformance.ref_machine import RefMachine, draw_ops
from snapspec.conformance.ref_search import Bursts, RefSearch, shorter
from snapspec.conformance.ref_session import RefSession
from snapspec.conformance.shorten import shortest
from snapspec.model import ref_ops
from snapspec.model.ref_ops import RefOperation
from snapspec.model.refs import RefState, held
from snapspec.model.tree import MakeFile

#: Up to how many microseconds after the beginning the kill comes: some calls are done sooner than others.
_MOMENTS = (1_000, 4_000, 16_000)

#: So many idle records there are at most: a prune that is cut short may have removed any of them.
CROWD = 5


class RefKillSearch(RefSearch):
    """The search on a manager whose process is killed."""

    session: RefKillSession
    steps = 12

    def run_scenarios(self, number: int = 0, workers: int = 1, chance: int = 0) -> None:
        """See `BaseSearch`; nothing but the moments is left to chance."""
        for bursts in scenarios(self.limits)[number::workers]:
            if self.wanted():
                found = make_once(self.session, bursts)
                if found is not None:
                    self.found(found)
                    self.settle()

    def machine(self) -> RefMachine:
        """See `BaseSearch`."""
        return RefKillMachine(self.session, self.limits, self.wanted, self.found)

    def shortest(self, best: RefFinding, wanted: Callable[[], bool]) -> RefFinding:
        """See `BaseSearch`."""
        return shortest(best, _tries, self.again, size, wanted)

    def again(self, found: RefFinding) -> RefFinding | None:
        """See `BaseSearch`."""
        return make_surely(self.session, found.bursts)


# --- drawn


class RefKillMachine(RefMachine):
    """One history of bursts that overlap as the driver lets them, in some of which the process is killed."""

    session: RefKillSession

    @rule(data=st.data())
    def burst(self, data: st.DataObject) -> None:
        """One burst."""
        if self.running:
            self._guarded(lambda: self.session.make(draw_burst(draw.picker(data), self.session, self.limits)))


def draw_burst(pick: Pick, session: RefKillSession, limits: Limits) -> Burst:
    """Calls that overlap, and as often as not the moment at which the process is killed."""
    ops = draw_calls(pick, session, limits)
    if isinstance(ops[0], ref_ops.Restart) or not pick((False, True)):
        return Burst(tuple(ops))
    longest = pick(_MOMENTS)
    return Burst(tuple(ops), kill=pick(range(0, longest, longest // 40)))


def draw_calls(pick: Pick, session: RefSession, limits: Limits) -> list[RefOperation]:
    """Calls that overlap, such that each answer can be judged; where there are many idle records, a prune alone."""
    idle = [name for name in session.state.records if not held(session.state, name)]
    if len(idle) > CROWD and "prune" not in limits.without:
        return [ref_ops.Prune()]
    return untangled(session.state, draw_ops(pick, session, limits))


def untangled(state: RefState, ops: Sequence[RefOperation]) -> list[RefOperation]:
    """The calls without those that nothing is promised about when they overlap with one before them.

    What is read while another writes (REF-MOUNT-7), and what a list shows whose handle is given up meanwhile (REF-MOUNT-6).
    """
    kept: list[RefOperation] = []
    for op in ops:
        if not any(_tangled(state, op, other) or _tangled(state, other, op) for other in kept):
            kept.append(op)
    return kept


def _tangled(state: RefState, looks: RefOperation, other: RefOperation) -> bool:
    """Whether the one goes through a mount list and the other meddles with that."""
    if not isinstance(looks, ref_ops.Read | ref_ops.Write):
        return False
    if isinstance(other, ref_ops.Close | ref_ops.Restart):
        return True
    meddles = isinstance(other, ref_ops.Write | ref_ops.Release | ref_ops.Commit)
    looks_too = isinstance(looks, ref_ops.Write) and isinstance(other, ref_ops.Read | ref_ops.Size)
    return (meddles or looks_too) and bool(_pair(state, looks.handle) & _pair(state, getattr(other, "handle", "")))


def _pair(state: RefState, handle: str) -> set[str]:
    """The record of the handle, and its other half."""
    known = state.handles.get(handle)
    record = state.records.get(known.record) if known is not None else None
    return set() if known is None else {known.record, record.equal if record is not None else ""} - {""}


# --- written down

_FILE = (MakeFile("f", b"x" * 600),)
_MUTABLE: tuple[RefOperation, ...] = (ref_ops.New("m", "hm"), ref_ops.Write("hm", _FILE))
_PAIR: tuple[RefOperation, ...] = (*_MUTABLE, ref_ops.Commit("hm", "e", "he"))
_FINAL: tuple[RefOperation, ...] = (*_PAIR, ref_ops.Finalize("he"))
_IDLE_PAIR: tuple[RefOperation, ...] = (*_PAIR, ref_ops.Release("he"))
_VIEWED: tuple[RefOperation, ...] = (*_FINAL, ref_ops.Mount("he", readonly=True))

#: What was done before, and the call that is cut short.
_CUT: tuple[tuple[tuple[RefOperation, ...], RefOperation], ...] = (
    ((), ref_ops.New("m", "hm")),
    (_PAIR, ref_ops.New("n", "hn", "he")),
    (_MUTABLE, ref_ops.Commit("hm", "e", "he")),
    (_PAIR, ref_ops.Finalize("he")),
    (_PAIR, ref_ops.Size("he")),
    (_FINAL, ref_ops.Mount("he", readonly=True)),
    (_PAIR, ref_ops.Mount("he", readonly=False)),
    (_VIEWED, ref_ops.Release("he")),
    ((*_MUTABLE, ref_ops.Release("hm")), ref_ops.Get("m", "hg", "e")),
    (_IDLE_PAIR, ref_ops.GetMutable("m", "hx")),
    (_IDLE_PAIR, ref_ops.Prune()),
    ((*_VIEWED, ref_ops.New("n", "hn", "he"), ref_ops.Release("hn"), ref_ops.Release("he")), ref_ops.Prune()),
    (_PAIR, ref_ops.DiskUsage()),
    (_VIEWED, ref_ops.Close()),
)

#: Microseconds after the beginning of the call.
_AFTER = (1_000, 300, 3_000, 0, 6_000, 2_000)


def scenarios(limits: Limits) -> tuple[Bursts, ...]:
    """Each call is cut short, at one moment after another; then the process is killed with nothing under way."""
    return tuple(
        (*(Burst((op,)) for op in before), Burst((op,), kill=after), Burst((ref_ops.DiskUsage(),), kill=0))
        for after in _AFTER
        for before, op in _CUT
        if not limits.without & {_name(one) for one in (*before, op)}
    )


def _name(op: RefOperation) -> str:
    """What a run calls it that leaves it out."""
    return {ref_ops.GetMutable: "get_mutable", ref_ops.DiskUsage: "disk_usage"}.get(type(op), type(op).__name__.lower())


# --- the shortest form


def _tries(best: RefFinding) -> Iterator[RefFinding]:
    return (replace(best, bursts=bursts) for bursts in chain(_unkilled(best.bursts), shorter(best.bursts)) if bursts)


def _unkilled(bursts: Bursts) -> Iterator[Bursts]:
    """With one kill less."""
    for at, burst in enumerate(bursts):
        if burst.kill is not None:
            yield (*bursts[:at], replace(burst, kill=None), *bursts[at + 1 :])
