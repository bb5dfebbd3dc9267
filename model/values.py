"""The values that cross every border of the project: kinds, error classes, mounts, infos, usage, labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a snapshot is. It never changes in place (SNAP-KIND-1)."""

    ACTIVE = "active"
    VIEW = "view"
    COMMITTED = "committed"


class ErrorClass(Enum):
    """The error classes, by gRPC's names."""

    NOT_FOUND = "NotFound"
    ALREADY_EXISTS = "AlreadyExists"
    INVALID_ARGUMENT = "InvalidArgument"
    FAILED_PRECONDITION = "FailedPrecondition"
    UNIMPLEMENTED = "Unimplemented"
    UNAVAILABLE = "Unavailable"
    RESOURCE_EXHAUSTED = "ResourceExhausted"
    CANCELED = "Canceled"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    UNKNOWN = "Unknown"


#: Labels as the model keeps them: sorted pairs, no empty value (SNAP-LABEL-2).
Labels = tuple[tuple[str, str], ...]


def labels_of(mapping: Mapping[str, str]) -> Labels:
    """The canonical form of a label map: sorted by key, empty values gone (SNAP-LABEL-2)."""
    return tuple(sorted((k, v) for k, v in mapping.items() if v != ""))


@dataclass(frozen=True, slots=True)
class Mount:
    """One entry of a mount list, as a caller mounts it: type, source, options in order, and a path below the target."""

    type: str
    source: str
    options: tuple[str, ...] = ()
    target: str = ""


@dataclass(frozen=True, slots=True)
class Info:
    """What stat, update and walk tell of a snapshot. Times are nanoseconds since the epoch, UTC."""

    name: str
    parent: str
    kind: Kind
    labels: Labels
    created: int
    updated: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes and inodes that a snapshot takes for itself."""

    size: int
    inodes: int
