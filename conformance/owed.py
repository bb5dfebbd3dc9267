"""What a level asks of whom: the clauses that a subject owes, and which level decides about them."""

from __future__ import annotations

from snapspec.conformance.clauses import clauses
from snapspec.conformance.options import SEQUENTIAL
from snapspec.model.guards import Door, Rebase
from snapspec.model.state import Profile

#: What is owed where calls overlap: every answer is held against the model, and so it is that they have an order.
OVERLAPPING = "SNAP-FAIL-2"

#: What is promised of a manager that is held to its answers alone.
ANSWERS = "answers"

#: What is promised where the power is cut.
POWER = ("SNAP-POWER-", "REF-POWER-")

#: The families of clauses that a level other than core decides about.
FAMILIES = {
    "content": ("SNAP-CONTENT-",),
    "usage": ("SNAP-USAGE-",),
    "labels": ("SNAP-LABEL-", "SNAP-UPDATE-", "SNAP-WALK-", "DOOR-LABEL-"),
}

#: What the kills of a manager's process put to the test.
KILLED = ("REF-OPEN-", "REF-NOTE-", "REF-LEAK-")


def promise_of(level: str, *, refs: bool = False, power: bool = False) -> str:
    """How the clauses begin that the level asks for besides, or alone, as `owed` takes it; "" where it asks for no others."""
    if level == "durable" and power:
        return POWER[refs]
    return {"faults": "SNAP-FAULT-", "durable": "SNAP-DURABLE-", "concurrent": OVERLAPPING}.get(level, "")


#: What these histories cannot show: ids that the kit gives itself, power cuts, what is left undefined, snapshots that somebody
#: takes away, a start that fails.
_REFS_ELSEWHERE = {"REF-ERROR-3", "REF-FINAL-5", "REF-MOUNT-7", "REF-OPEN-3", "REF-OPEN-4"}


#: What shows only to those who look into a manager, its driver and its store, or make them fail.
_REFS_INSIDE = {
    *("REF-HANDLE-1", "REF-HANDLE-5", "REF-HANDLE-6", "REF-COMMIT-2", "REF-PAIR-1", "REF-PAIR-2", "REF-FINAL-3", "REF-FINAL-4"),
    *("REF-SIZE-3", "REF-PRUNE-4", "REF-OPEN-2", "REF-OPEN-5", "REF-CLOSE-2", "REF-POINT-3", "REF-NOTE-1"),
}


def owed(profile: Profile | None, refs: bool = False, promise: str = "") -> list[str]:
    """The clauses that a subject with this profile can be held to: a manager of refs, or a driver without overlap and crashes.

    `promise`: how those begin that a driver is held to besides under faults or kills, or, where its power is cut, alone.
    """
    if promise == OVERLAPPING:
        return ["SNAP-FAIL-2", "SNAP-LIVE-1", "SNAP-HOLD-1"]
    if promise in POWER:
        return [c for c in clauses() if c.startswith(promise)]
    if refs:
        elsewhere = _REFS_ELSEWHERE | {c for c in clauses() if c.startswith("REF-POWER-")}
        if promise == ANSWERS:
            elsewhere |= _REFS_INSIDE
        return [c for c in clauses() if c.startswith("REF-") and c not in elsewhere]
    profile = profile or Profile()
    through_containerd = profile.door is Door.METADATA
    # A driver need not have labels of its own, nor refuse to rename a directory; and nothing here overlaps or dies.
    left_out = {
        "SNAP-FAIL-2",
        "SNAP-LABEL-3",
        "SNAP-CONTENT-4",
        "SNAP-CLEANUP-1" if profile.cleanup else "SNAP-CLEANUP-2",
        "DOOR-GC-3",
    }
    levels = ("SNAP-FAULT-", "SNAP-DURABLE-", "SNAP-POWER-")
    left_out |= {c for c in clauses() if c.startswith(levels) and not (promise and c.startswith(promise))}
    if not profile.wire:
        left_out.add("SNAP-WALK-8")
    if through_containerd:
        left_out |= {"SNAP-PREPARE-5", "SNAP-COMMIT-5", "SNAP-CLEANUP-1", "SNAP-CLEANUP-2"}
    if profile.rebase is not Rebase.REFUSED and (through_containerd or profile.rebase is Rebase.IGNORED):
        left_out.add("SNAP-COMMIT-6")
    return [c for c in clauses() if c not in left_out and c.startswith(("SNAP-", "DOOR-") if through_containerd else "SNAP-")]


def level_of(clause: str) -> str:
    """The level of calls one after another that decides about the clause."""
    return next((level for level, families in FAMILIES.items() if clause.startswith(families)), "core")


def family(clause: str) -> str:
    """The id without its number."""
    return clause.rsplit("-", 1)[0]


def decides(level: str, clause: str, refs: bool, promise: str) -> bool:
    """Whether the level decides about that clause, which is owed. What a driver owes anyway, core and its like do, which put all
    of it to the test; at faults and durable it counts when it is broken.
    """
    if level in SEQUENTIAL:
        return level_of(clause) == level
    if refs:
        return level != "durable" or promise in POWER or clause.startswith(KILLED)
    return level not in ("faults", "durable") or clause.startswith(promise)
