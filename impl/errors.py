"""The errors of the snapshotter port, one class for each error class of the contract."""

from __future__ import annotations

from typing import ClassVar

from snapspec.model.values import ErrorClass


class SnapshotError(Exception):
    """An answer of the contract. The message says what is wrong and, where there is one, the remedy."""

    error: ClassVar[ErrorClass] = ErrorClass.UNKNOWN


class NotFound(SnapshotError):
    """A key or a parent is not there."""

    error = ErrorClass.NOT_FOUND


class AlreadyExists(SnapshotError):
    """The key or name is taken, by a snapshot of any kind."""

    error = ErrorClass.ALREADY_EXISTS


class InvalidArgument(SnapshotError):
    """An argument can never be right here: a parent that is not committed, a field that cannot be changed."""

    error = ErrorClass.INVALID_ARGUMENT


class FailedPrecondition(SnapshotError):
    """The snapshot is of the wrong kind or still has children; or the store is closed."""

    error = ErrorClass.FAILED_PRECONDITION


class Unimplemented(SnapshotError):
    """The driver does not offer the call."""

    error = ErrorClass.UNIMPLEMENTED


class Unavailable(SnapshotError):
    """The driver cannot answer now."""

    error = ErrorClass.UNAVAILABLE


class ResourceExhausted(SnapshotError):
    """The pool or the file system is full."""

    error = ErrorClass.RESOURCE_EXHAUSTED


class Canceled(SnapshotError):
    """The call was cancelled on the way; its outcome is to be found out."""

    error = ErrorClass.CANCELED


class DeadlineExceeded(SnapshotError):
    """The call did not answer in time; its outcome is to be found out."""

    error = ErrorClass.DEADLINE_EXCEEDED


BY_CLASS: dict[ErrorClass, type[SnapshotError]] = {
    cls.error: cls
    for cls in (
        SnapshotError,
        NotFound,
        AlreadyExists,
        InvalidArgument,
        FailedPrecondition,
        Unimplemented,
        Unavailable,
        ResourceExhausted,
        Canceled,
        DeadlineExceeded,
    )
}
