"""Drivers with plain methods, which the kit calls in threads: one is right, others go wrong when calls overlap."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from driver import Driver

from snapspec.impl import errors
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Failed, Reading, Returned, Value
from snapspec.model.state import Measure, Profile, State
from snapspec.model.values import ErrorClass, Info, Mount, Usage

PROFILE = Profile(usage=Measure.OPAQUE)

_ERRORS = {
    ErrorClass.NOT_FOUND: errors.NotFound,
    ErrorClass.ALREADY_EXISTS: errors.AlreadyExists,
    ErrorClass.INVALID_ARGUMENT: errors.InvalidArgument,
    ErrorClass.FAILED_PRECONDITION: errors.FailedPrecondition,
}


class Right:
    """The model behind a lock."""

    profile = PROFILE

    def __init__(self, _: Path) -> None:
        self._driver = Driver(State(profile=PROFILE))
        self._lock = Lock()

    def _do(self, op: Operation) -> Value:
        with self._lock:
            self._driver.clock = time.time_ns()
            answer = self._driver.do(op)
        if isinstance(answer, Failed):
            raise _ERRORS.get(answer.error, errors.SnapshotError)("refused")
        assert isinstance(answer, Returned)
        return answer.value

    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        return self._do(ops.Prepare(key, parent, tuple((labels or {}).items())))  # type: ignore[return-value]

    def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        return self._do(ops.View(key, parent, tuple((labels or {}).items())))  # type: ignore[return-value]

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        self._do(ops.Commit(name, key, tuple((labels or {}).items()), parent))

    def remove(self, key: str) -> None:
        self._do(ops.Remove(key))

    def mounts(self, key: str) -> Sequence[Mount]:
        return self._do(ops.Mounts(key))  # type: ignore[return-value]

    def stat(self, key: str) -> Info:
        return self._do(ops.Stat(key))  # type: ignore[return-value]

    def update(self, info: Info, paths: Sequence[str] = ()) -> Info:
        return self._do(ops.Update(info.name, info.labels, tuple(paths)))  # type: ignore[return-value]

    def usage(self, key: str) -> Usage:
        reading = self._do(ops.Usage(key))
        assert isinstance(reading, Reading)
        return reading.usage

    def walk(self, filters: Sequence[str] = ()) -> Sequence[Info]:
        return self._do(ops.Walk(tuple(filters)))  # type: ignore[return-value]

    def cleanup(self) -> None:
        self._do(ops.Cleanup())

    def close(self) -> None:
        """Nothing."""


class LooksBeforeItLocks(Right):
    """Whether the key is free is asked first; the lock comes later, and then nobody asks again."""

    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        with suppress(errors.NotFound):
            self.stat(key)
            raise errors.AlreadyExists("it is there")
        time.sleep(0.001)
        with suppress(errors.NotFound):
            self.remove(key)
        return super().prepare(key, parent, labels)


class WalksInSteps(Right):
    """A walk asks for the names, and then for each record; what is gone by then is left out."""

    def walk(self, filters: Sequence[str] = ()) -> Sequence[Info]:
        found = []
        for info in super().walk(filters):
            time.sleep(0.001)
            with suppress(errors.NotFound):
                found.append(self.stat(info.name))
        return found


class BusyUnderOverlap(Right):
    """A call that another one meets is refused with Unavailable."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._one = Lock()

    def _do(self, op: Operation) -> Value:
        if not self._one.acquire(blocking=False):
            raise errors.Unavailable("busy")
        try:
            time.sleep(0.001)
            return super()._do(op)
        finally:
            self._one.release()


right = Right
looks_before_it_locks = LooksBeforeItLocks
walks_in_steps = WalksInSteps
busy_under_overlap = BusyUnderOverlap
