"""The messages of the snapshots service as the model's operations and answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from snapspec.conformance.proto import snapshots_pb2 as pb
from snapspec.conformance.wire import ERROR_CLASSES, KINDS_FROM_WIRE, info_from_wire, mounts_from_wire
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Failed, Reading, Response, Returned, Value
from snapspec.model.values import ErrorClass, Kind, Labels, Usage

SERVICE = "containerd.services.snapshots.v1.Snapshots"


@dataclass(frozen=True, slots=True)
class Said:
    """A request: the operation, the snapshotter that it names, and how the replies to it are read."""

    op: Operation
    snapshotter: str
    read: Callable[[Sequence[bytes]], Value]


def said(method: str, request: bytes) -> Said | None:
    """What a request asks for; None for a method, or a message, that this version does not know."""
    if method not in _METHODS:
        return None
    message, operation, read = _METHODS[method]
    try:
        asked = message.FromString(request)
    except DecodeError:
        return None
    return Said(operation(asked), asked.snapshotter, read)


def answered(asked: Said, replies: Sequence[bytes]) -> Response:
    """What a call that went well has answered."""
    try:
        return Returned(asked.read(replies))
    except (DecodeError, IndexError):
        return Failed(ErrorClass.UNKNOWN, "the reply cannot be decoded")


def failed(code: grpc.StatusCode, details: str | None) -> Failed:
    """What a call that did not has answered."""
    return Failed(ERROR_CLASSES.get(code, ErrorClass.UNKNOWN), details or "")


def _labels(labels: Any) -> Labels:
    return tuple(sorted(labels.items()))


def _update(asked: Any) -> ops.Update:
    info = asked.info
    kind = KINDS_FROM_WIRE.get(info.kind, Kind.COMMITTED)
    return ops.Update(info.name, _labels(info.labels), tuple(asked.update_mask.paths), info.parent, kind)


def _nothing(replies: Sequence[bytes]) -> None:
    return None


def _usage(replies: Sequence[bytes]) -> Reading:
    usage = pb.UsageResponse.FromString(replies[0])
    return Reading(Usage(usage.size, usage.inodes))


def _list(replies: Sequence[bytes]) -> Value:
    return tuple(info_from_wire(info) for reply in replies for info in pb.ListSnapshotsResponse.FromString(reply).info)


#: The message of each method, the operation that it asks for, and how its replies are read.
_METHODS: dict[str, tuple[Any, Callable[[Any], Operation], Callable[[Sequence[bytes]], Value]]] = {
    "Prepare": (
        pb.PrepareSnapshotRequest,
        lambda asked: ops.Prepare(asked.key, asked.parent, _labels(asked.labels)),
        lambda replies: mounts_from_wire(pb.PrepareSnapshotResponse.FromString(replies[0])),
    ),
    "View": (
        pb.ViewSnapshotRequest,
        lambda asked: ops.View(asked.key, asked.parent, _labels(asked.labels)),
        lambda replies: mounts_from_wire(pb.ViewSnapshotResponse.FromString(replies[0])),
    ),
    "Commit": (
        pb.CommitSnapshotRequest,
        lambda asked: ops.Commit(asked.name, asked.key, _labels(asked.labels), asked.parent),
        _nothing,
    ),
    "Remove": (pb.RemoveSnapshotRequest, lambda asked: ops.Remove(asked.key), _nothing),
    "Mounts": (
        pb.MountsRequest,
        lambda asked: ops.Mounts(asked.key),
        lambda replies: mounts_from_wire(pb.MountsResponse.FromString(replies[0])),
    ),
    "Stat": (
        pb.StatSnapshotRequest,
        lambda asked: ops.Stat(asked.key),
        lambda replies: info_from_wire(pb.StatSnapshotResponse.FromString(replies[0]).info),
    ),
    "Update": (
        pb.UpdateSnapshotRequest,
        _update,
        lambda replies: info_from_wire(pb.UpdateSnapshotResponse.FromString(replies[0]).info),
    ),
    "Usage": (pb.UsageRequest, lambda asked: ops.Usage(asked.key), _usage),
    "List": (pb.ListSnapshotsRequest, lambda asked: ops.Walk(tuple(asked.filters)), _list),
    "Cleanup": (pb.CleanupRequest, lambda asked: ops.Cleanup(), _nothing),
}

#: The methods that take one message and give one.
UNARY = frozenset(_METHODS) - {"List"}
