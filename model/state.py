"""The abstract store: what a subject declares, one record for each snapshot, and what makes a store well formed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from snapspec.model.frozen import Map
from snapspec.model.guards import Door, Named, Rebase
from snapspec.model.tree import EMPTY, Path, Tree
from snapspec.model.values import Kind, Labels, Mount, Usage


class Measure(Enum):
    """What a driver counts as usage (SNAP-USAGE-5)."""

    LAYER = "layer"
    """The allocated blocks of the layer's own directory, hard links once, the root included."""
    COPY = "copy"
    """The same over a full copy, parents included."""
    DELTA = "delta"
    """What differs from the parent, by the file system's own account."""
    OPAQUE = "opaque"
    """Anything that is not negative."""


class RootMetadata(Enum):
    """What the root directory of an active snapshot takes from its parent (SNAP-CONTENT-5)."""

    FULL = "full"
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a subject declares of itself: the door, and one alternative wherever drivers may rightly differ."""

    door: Door = Door.DIRECT
    wire: bool = False
    """Errors come over gRPC, where an error of walk may have lost its class (SNAP-WALK-8)."""
    cleanup: bool = True
    rebase: Rebase = Rebase.REFUSED
    usage: Measure = Measure.LAYER
    root: RootMetadata = RootMetadata.FULL


class Span(NamedTuple):
    """A time that is known to lie between two others, both included. A known time is a span of no length."""

    earliest: int
    latest: int


NOW = Span(0, 0)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One record and its content. `mounts` and `usage` are None until the driver has told them; then they are facts."""

    kind: Kind
    parent: str = ""
    labels: Labels = ()
    created: Span = NOW
    updated: Span | None = None
    """None: the same instant as `created`."""
    tree: Tree = EMPTY
    touched: frozenset[Path] = frozenset()
    """The paths that this layer's changes may have copied up or made."""
    mounts: tuple[Mount, ...] | None = None
    usage: Usage | None = None
    life: int | None = None
    """While calls overlap: the number of the call that made the snapshot. It keeps two lives of one key apart."""


@dataclass(frozen=True, slots=True)
class State:
    """A whole store: every snapshot by its key or name, in one space (SNAP-KEY-1)."""

    snapshots: Map[str, Snapshot] = field(default_factory=Map)
    profile: Profile = Profile()

    def get(self, key: str) -> Snapshot | None:
        """The snapshot that `key` names."""
        return self.snapshots.get(key)

    def put(self, key: str, snapshot: Snapshot) -> State:
        """The store with `key` naming `snapshot`."""
        return State(self.snapshots.set(key, snapshot), self.profile)

    def drop(self, *keys: str) -> State:
        """The store without `keys`."""
        return State(self.snapshots.without(*keys), self.profile)


_NAMED = {Kind.ACTIVE: Named.ACTIVE, Kind.VIEW: Named.VIEW, Kind.COMMITTED: Named.COMMITTED}


def named(state: State, key: str) -> Named:
    """What `key` stands for in the store; the empty key stands for nothing that is there."""
    snapshot = state.snapshots.get(key)
    return Named.ABSENT if snapshot is None else _NAMED[snapshot.kind]


def given(state: State, key: str) -> Named:
    """The same for an optional name: the empty one was not given."""
    return Named.NOTHING if key == "" else named(state, key)


def children(state: State, key: str) -> tuple[str, ...]:
    """The keys of the snapshots, of any kind, whose parent is `key`."""
    return tuple(k for k, s in state.snapshots.items() if s.parent == key)


def ancestors(state: State, key: str) -> tuple[str, ...]:
    """The names of the chain above `key`, nearest first."""
    chain = []
    parent = state.snapshots[key].parent
    while parent:
        chain.append(parent)
        parent = state.snapshots[parent].parent
    return tuple(chain)


def lower_tree(state: State, snapshot: Snapshot) -> Tree:
    """The content that the snapshot began with: its parent's, or nothing."""
    return state.snapshots[snapshot.parent].tree if snapshot.parent else EMPTY


def keys_well_formed(state: State) -> bool:
    """No key is empty (SNAP-KEY-2)."""
    return "" not in state.snapshots


def labels_well_formed(state: State) -> bool:
    """No label has an empty value (SNAP-LABEL-2)."""
    return all(value != "" for s in state.snapshots.values() for _, value in s.labels)


def times_well_formed(state: State) -> bool:
    """No snapshot was certainly updated before it was created (SNAP-TIME-3)."""
    return all(s.updated is None or s.updated.latest >= s.created.earliest for s in state.snapshots.values())


def parents_well_formed(state: State) -> bool:
    """Every parent exists and is committed, and every chain of parents ends (SNAP-PARENT-1)."""
    return all(_rooted(state, s.parent) for s in state.snapshots.values())


def _rooted(state: State, parent: str) -> bool:
    """Whether the chain from `parent` on is of committed snapshots and ends: a cycle would be longer than the store."""
    for _ in range(len(state.snapshots) + 1):
        if parent == "":
            return True
        above = state.snapshots.get(parent)
        if above is None or above.kind is not Kind.COMMITTED:
            return False
        parent = above.parent
    return False


def well_formed(state: State) -> bool:
    """Everything that holds of a store at every moment."""
    return keys_well_formed(state) and labels_well_formed(state) and times_well_formed(state) and parents_well_formed(state)
