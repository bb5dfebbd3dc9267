"""A manager, the driver under it and its store in a process that can be killed: the model's operations go to it.

Ids of records and names of handles come with the operations, so they are the kit's. What is written and read through mount lists
is the kernel's affair, not the manager's: the kit does that itself, and it outlives the process.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from snapspec.conformance.durable.child import Child, How, opened, serve
from snapspec.conformance.durable.forks import serve_forks
from snapspec.conformance.refs_subject import RefResponse, RefsAdapter
from snapspec.conformance.subjects.prefixed import Prefixed
from snapspec.conformance.subjects.refs import Opens
from snapspec.impl.manager import Manager
from snapspec.impl.metadata import open_store
from snapspec.impl.ports import Snapshotter
from snapspec.model.ref_ops import RefOperation, Restart
from snapspec.model.refs import Record

#: Views of one process are numbered from here on in the next: no id is ever used twice in a store (REF-ERROR-3).
VIEWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What a process is to open: the driver, and the manager by the module and the name of what opens it."""

    how: How
    module: str = "snapspec.impl.manager"
    name: str = "open_manager"


@dataclass(frozen=True, slots=True)
class Place:
    """What one history's manager stands on: names of the driver with `prefix`, and a store in the file `store`.

    `starts` counts the processes that it has had before; `commit_keeps_lists` is what it declares.
    """

    prefix: str
    store: str
    starts: int
    commit_keeps_lists: bool


# --- in the kit


class RefsChild(Child):
    """The manager and the driver of the process at the other end. Raises Gone where no answer comes."""

    async def begin(self, place: Place) -> RefResponse:
        """Open the manager there; gives what that has answered."""
        response: RefResponse = await self.ask("begin", place)
        return response

    async def perform(self, op: RefOperation) -> RefResponse:
        """Make the call."""
        response: RefResponse = await self.ask("perform", op)
        return response

    async def records(self) -> dict[str, tuple[Record, int]]:
        """The manager's records, as `RefWorld.records` gives them."""
        records: dict[str, tuple[Record, int]] = await self.ask("records")
        return records


async def connect(ours: socket.socket) -> RefsChild:
    """The process at the other end of the pair."""
    return RefsChild(*await asyncio.open_connection(sock=ours))


# --- in the process


class Managed:
    """The calls of a driver, and those of the manager over it."""

    def __init__(self, driver: Snapshotter, opens: Opens) -> None:
        self._driver = driver
        self._opens = opens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    async def begin(self, place: Place) -> RefResponse:
        """Open a manager at the place, after the one before it was closed."""
        opening = partial(_open, self._driver, self._opens, place)
        self._adapter = RefsAdapter(opening, None, place.starts * VIEWS)
        return await self._adapter.perform(Restart())

    async def perform(self, op: RefOperation) -> RefResponse:
        """Make the call."""
        return await self._adapter.perform(op)

    async def records(self) -> dict[str, tuple[Record, int]]:
        """See `RefsChild`."""
        return self._adapter.records()


async def _open(driver: Snapshotter, opens: Opens, place: Place, new_id: Callable[[], str]) -> Manager:
    store = await open_store(place.store)
    try:
        manager = opens(Prefixed(driver, place.prefix), store, new_id=new_id, commit_keeps_lists=place.commit_keeps_lists)
        return await manager
    except BaseException:
        await store.close()
        raise


async def _managed(asked: Asked) -> Managed:
    opens = attrgetter(asked.name)(importlib.import_module(asked.module))
    return Managed(await opened(asked.how), opens)


def main(theirs: socket.socket, asked: object) -> None:
    """Serve what is asked, until the kit closes its end."""
    assert isinstance(asked, Asked)
    asyncio.run(serve(_managed(asked), theirs))


if __name__ == "__main__":
    # What the kit asks is of the module by its own name, which is not that of the one that runs.
    from snapspec.conformance.durable.ref_child import main as asked_main

    with socket.socket(fileno=int(sys.argv[1])) as channel:
        serve_forks(channel, asked_main)
