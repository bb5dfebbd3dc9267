"""The operations: one frozen value for each call that a history can hold.

The first twelve are the contract's own calls. `Write` and `Read` are what a caller does with a mount list;
`Reopen` is close and open again on the same store.
"""

from __future__ import annotations

from dataclasses import dataclass

from snapspec.model.tree import Change
from snapspec.model.values import Kind, Labels


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make the active snapshot `key` over the committed `parent`, or over nothing when `parent` is empty."""

    key: str
    parent: str = ""
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class View:
    """Make the read-only snapshot `key` over the committed `parent`, or over nothing when `parent` is empty."""

    key: str
    parent: str = ""
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """Turn the active `key` into the committed `name`; `parent`, when given, is the one asked for at commit."""

    name: str
    key: str
    labels: Labels = ()
    parent: str = ""


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the snapshot `key`, which has no children."""

    key: str


@dataclass(frozen=True, slots=True)
class Mounts:
    """Ask again for the mount list of an active snapshot or a view."""

    key: str


@dataclass(frozen=True, slots=True)
class Stat:
    """Ask for the record of `key`."""

    key: str


@dataclass(frozen=True, slots=True)
class Update:
    """Change the labels of `name`. An empty mask replaces all; `parent` and `kind` are sent along and count for nothing."""

    name: str
    labels: Labels = ()
    mask: tuple[str, ...] = ()
    parent: str = ""
    kind: Kind = Kind.COMMITTED


@dataclass(frozen=True, slots=True)
class Usage:
    """Ask what `key` takes for itself."""

    key: str


@dataclass(frozen=True, slots=True)
class Walk:
    """Ask for the records that match any of `filters`, or for all when there is none."""

    filters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cleanup:
    """Free what removed snapshots still hold."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """Close (twice when asked) and open again on the same store."""

    close_twice: bool = False


@dataclass(frozen=True, slots=True)
class Collect:
    """Give up the protection of `dropped` and let the garbage collector of containerd's metadata layer run to its end.

    What has survived is protected again.
    """

    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Write:
    """Mount the list of `key`, make `changes` in order, unmount. `held` mounts the list first given, not a fresh one."""

    key: str
    changes: tuple[Change, ...]
    held: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """Mount the list of `key`, read the whole tree, unmount. `held` mounts the list first given, not a fresh one."""

    key: str
    held: bool = False


#: The calls that name a namespace, where there are any.
Nameable = Prepare | View | Commit | Remove | Mounts | Stat | Update | Usage | Walk


@dataclass(frozen=True, slots=True)
class Nowhere:
    """A call through containerd's metadata layer that names no namespace."""

    call: Nameable


Operation = (
    Prepare | View | Commit | Remove | Mounts | Stat | Update | Usage | Walk | Cleanup | Reopen | Collect | Nowhere | Write | Read
)
