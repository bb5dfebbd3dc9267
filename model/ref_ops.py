"""The operations on refs: one frozen value for each call that a history can hold.

Ids of records and names of handles that a call makes stand in the call: the model has no source of them. Where a call may give a
handle on a record that is there already, the id that it names for a new one goes unused.
"""

from __future__ import annotations

from dataclasses import dataclass

from snapspec.model.tree import Change


@dataclass(frozen=True, slots=True)
class New:
    """new over the handle `parent`, or over nothing: the record `record`, and `handle` on it."""

    record: str
    handle: str
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Get:
    """get of `record`: `handle` on it, or on its E; `fresh` is the id of the E that this call makes where there is none."""

    record: str
    handle: str
    fresh: str


@dataclass(frozen=True, slots=True)
class GetMutable:
    """get_mutable of `record`: `handle` on it."""

    record: str
    handle: str


@dataclass(frozen=True, slots=True)
class Commit:
    """commit of the mutable `handle`: the record `fresh`, and the handle `given` on it."""

    handle: str
    fresh: str
    given: str


@dataclass(frozen=True, slots=True)
class Finalize:
    """finalize of the immutable `handle`."""

    handle: str


@dataclass(frozen=True, slots=True)
class Release:
    """release of `handle`, open or not."""

    handle: str


@dataclass(frozen=True, slots=True)
class Size:
    """size of `handle`."""

    handle: str


@dataclass(frozen=True, slots=True)
class Parent:
    """parent of `handle`: the handle `given` on it."""

    handle: str
    given: str


@dataclass(frozen=True, slots=True)
class Mount:
    """mount of `handle`; the list is used by the next `Write` and `Read` of that handle."""

    handle: str
    readonly: bool


@dataclass(frozen=True, slots=True)
class Write:
    """Mount `handle` and make `changes` through the list: mount(readonly=False), mount it, change, unmount."""

    handle: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """Mount `handle` read-only and read the whole tree."""

    handle: str


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """disk_usage."""


@dataclass(frozen=True, slots=True)
class Prune:
    """prune."""


@dataclass(frozen=True, slots=True)
class Close:
    """close: later calls are refused until the store is opened again."""


@dataclass(frozen=True, slots=True)
class Restart:
    """A new manager on the same store, after close or after a crash."""


# --- what is left of a call that has taken effect in part; no history holds these


@dataclass(frozen=True, slots=True)
class MakeOver:
    """new, once its parent `over` is final and claimed."""

    record: str
    handle: str
    over: str


@dataclass(frozen=True, slots=True)
class ListFinal:
    """mount, write or read of an immutable handle, once its record is final."""

    op: Mount | Write | Read


@dataclass(frozen=True, slots=True)
class PruneOn:
    """prune, after some removals. `idle` holds what was idle at the start, `handles` all that had been given by then."""

    removed: tuple[tuple[frozenset[str], int | None], ...]
    idle: tuple[str, ...]
    handles: frozenset[str]


RefStep = MakeOver | ListFinal | PruneOn

RefOperation = (
    New
    | Get
    | GetMutable
    | Commit
    | Finalize
    | Release
    | Size
    | Parent
    | Mount
    | Write
    | Read
    | DiskUsage
    | Prune
    | Close
    | Restart
)
