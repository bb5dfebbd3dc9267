"""Drivers in memory with faults that are named: each is the model, and some of its answers are other ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from snapspec.conformance.draw import Limits
from snapspec.conformance.files import Permits
from snapspec.conformance.search import Search
from snapspec.conformance.session import Session
from snapspec.conformance.subjects.abstract import ModelSubject
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Failed, Reading, Response, Returned
from snapspec.model.state import Profile, State
from snapspec.model.values import ErrorClass, Info, Kind, Mount, Usage

PERMITS = Permits(devices=True, other_owners=True, user_xattrs=True, trusted_xattrs=True)

#: What a store that was in a state and was asked for an operation answers in the place of its right answer.
Fault = Callable[["Faulty", State, Operation, Response], Response]


class Faulty(ModelSubject):
    """The model, whose answers pass through the faults. A fault may put `state` in the place of what the call has left."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("model:", Profile())
        self.faults = faults
        self.calls: list[Operation] = []

    @property
    def state(self) -> State:
        return self._states[0]

    @state.setter
    def state(self, state: State) -> None:
        self._states[0] = state

    async def perform(self, space: int, op: Operation) -> Response:
        self.calls.append(op)
        before, response = self.state, await super().perform(space, op)
        for fault in self.faults:
            response = fault(self, before, op, response)
        return response


def stat_without_labels(_: Faulty, before: State, op: Operation, response: Response) -> Response:
    """SNAP-LABEL-1."""
    if isinstance(op, ops.Stat) and isinstance(response, Returned) and isinstance(response.value, Info):
        return Returned(replace(response.value, labels=()))
    return response


def views_take_room(_: Faulty, before: State, op: Operation, response: Response) -> Response:
    """SNAP-USAGE-2."""
    if isinstance(op, ops.Usage) and (found := before.get(op.key)) is not None and found.kind is Kind.VIEW:
        return Returned(Reading(Usage(4096, 1)))
    return response


def mounts_elsewhere(_: Faulty, before: State, op: Operation, response: Response) -> Response:
    """SNAP-MOUNTS-3."""
    if isinstance(op, ops.Mounts) and isinstance(response, Returned):
        return Returned((Mount("bind", "/elsewhere", ("rbind", "rw")),))
    return response


def removes_nothing_gladly(_: Faulty, before: State, op: Operation, response: Response) -> Response:
    """SNAP-REMOVE-1."""
    return Returned(None) if isinstance(op, ops.Remove) and op.key and op.key not in before.snapshots else response


def removes_nothing(subject: Faulty, before: State, op: Operation, response: Response) -> Response:
    """SNAP-REMOVE-3."""
    if isinstance(op, ops.Remove) and isinstance(response, Returned):
        subject.state = before
        return Failed(ErrorClass.UNKNOWN, "busy")
    return response


def commits_what_is_there(subject: Faulty, before: State, op: Operation, response: Response) -> Response:
    """SNAP-COMMIT-2, in a way after which nothing is known."""
    taken = isinstance(op, ops.Commit) and op.name in before.snapshots and op.key in before.snapshots and op.name != op.key
    return Returned(None) if taken and isinstance(response, Failed) else response


@contextmanager
def opened(*faults: Fault) -> Iterator[Session]:
    """A session with the driver that has these faults."""
    with asyncio.Runner() as runner:
        session = Session(Faulty(*faults), runner, 5.0)
        with session.started():
            session.begin()
            yield session


def searched(session: Session, enough: int, most: int = 500, number: int = 1) -> Search:
    """A search of drawn histories alone, which has made findings enough, or most histories."""
    search = Search(session, Limits(PERMITS), float("inf"), lambda: None)
    batch = 0
    while len(search.findings) < enough and session.histories < most:
        search.run_batch(25, number * 1000 + batch, batch)
        search.settle()
        batch += 1
    return search
