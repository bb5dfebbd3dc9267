"""What the port's values are on the wire of the snapshots API: one table for both directions, for clients and for the server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from snapspec.conformance.proto import mount_pb2, snapshots_pb2
from snapspec.model.values import ErrorClass, Info, Kind, Mount

#: The status of each error class: the names are gRPC's own, but one that is spelled in another way.
STATUS = {error: grpc.StatusCode[error.name.replace("CANCELED", "CANCELLED")] for error in ErrorClass}
ERROR_CLASSES = {status: error for error, status in STATUS.items()}

KINDS_TO_WIRE = {Kind.VIEW: snapshots_pb2.VIEW, Kind.ACTIVE: snapshots_pb2.ACTIVE, Kind.COMMITTED: snapshots_pb2.COMMITTED}
KINDS_FROM_WIRE = {number: kind for kind, number in KINDS_TO_WIRE.items()}


def info_to_wire(info: Info) -> snapshots_pb2.Info:
    """The record as it is sent. Raises ValueError for names and labels that are no text of UTF-8."""
    return snapshots_pb2.Info(
        name=info.name,
        parent=info.parent,
        kind=KINDS_TO_WIRE[info.kind],
        created_at=_time(info.created),
        updated_at=_time(info.updated),
        labels=dict(info.labels),
    )


def _time(nanoseconds: int) -> Timestamp:
    seconds, nanos = divmod(nanoseconds, 10**9)
    return Timestamp(seconds=seconds, nanos=nanos)


def info_from_wire(info: snapshots_pb2.Info) -> Info:
    """The record as sent. An unknown kind is read as committed, a missing time as the epoch; an empty label stays to be seen."""
    return Info(
        name=info.name,
        parent=info.parent,
        kind=KINDS_FROM_WIRE.get(info.kind, Kind.COMMITTED),
        labels=tuple(sorted(info.labels.items())),
        created=info.created_at.seconds * 10**9 + info.created_at.nanos,
        updated=info.updated_at.seconds * 10**9 + info.updated_at.nanos,
    )


def mounts_to_wire(mounts: Iterable[Mount]) -> list[mount_pb2.Mount]:
    """The list as it is sent."""
    return [mount_pb2.Mount(type=m.type, source=m.source, target=m.target, options=m.options) for m in mounts]


def mounts_from_wire(reply: Any) -> tuple[Mount, ...]:
    """The list that a reply holds."""
    return tuple(Mount(mount.type, mount.source, tuple(mount.options), mount.target) for mount in reply.mounts)
