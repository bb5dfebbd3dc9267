"""`refs:SUBJECT`: the reference manager over any driver that another address names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from snapspec.conformance.gates import GatedSnapshotter, GatedStore, Gates, Outside, beside
from snapspec.conformance.memory import Disk, MemorySnapshotter, MemoryStore
from snapspec.conformance.refs_subject import Contents, RefsAdapter
from snapspec.conformance.subjects.base import PortSubject, Subject
from snapspec.conformance.subjects.prefixed import Prefixed
from snapspec.impl.manager import Manager, open_manager
from snapspec.impl.metadata import Store, open_store
from snapspec.impl.ports import Snapshotter
from snapspec.impl.ref_errors import RefError
from snapspec.model.nodes import Tree
from snapspec.model.refs import Declared, Record
from snapspec.model.state import Profile
from snapspec.model.tree import Change
from snapspec.model.values import Mount

#: A snapshot of somebody else, in the driver from the beginning to the end of each history (REF-PRUNE-4).
NEIGHBOUR = "neighbour"

#: Opens the manager under test, as `open_manager` opens the reference's.
Opens = Callable[..., Awaitable[Manager]]


class Ground(Protocol):
    """What a manager stands on, for one history: a driver that holds nothing of another history, and a store that is empty."""

    @property
    def driver(self) -> Snapshotter:
        """The driver."""
        ...

    @property
    def contents(self) -> Contents:
        """What changes and reads content."""
        ...

    async def open_store(self) -> Store:
        """The store, opened: for the first time, or again after it was closed or let go."""
        ...

    async def let_go(self) -> None:
        """The process that had the store open has died."""
        ...

    async def reopen_driver(self) -> None:
        """The driver was in that process too: it begins again with what is durable, where it can."""
        ...

    async def entries(self) -> set[str]:
        """The ids that the store holds; it is closed."""
        ...


class MemoryGround:
    """The model as a driver, and a store in memory."""

    def __init__(self, profile: Profile) -> None:
        self.driver = self.contents = MemorySnapshotter(profile)
        self._disk = Disk()

    async def open_store(self) -> Store:
        """See `Ground`."""
        return MemoryStore(self._disk)

    async def let_go(self) -> None:
        """See `Ground`."""
        self._disk.held = False

    async def reopen_driver(self) -> None:
        """See `Ground`: all of the model is as durable as anything."""

    async def entries(self) -> set[str]:
        """See `Ground`."""
        return set(self._disk.entries)

    def unnoted(self) -> set[str]:
        """The snapshots of the driver that the store does not name (REF-NOTE-1)."""
        return set(self.driver.state.snapshots) - set(self._disk.entries) - {NEIGHBOUR}


async def stored(path: Path) -> set[str]:
    """The ids that the store in the file holds, which nobody has open."""
    store = await open_store(str(path))
    try:
        return set(await store.load())
    finally:
        await store.close()


class RealGround:
    """A real driver, of which a history sees the names with its prefix only, and a store in the file `path`."""

    def __init__(self, subject: PortSubject, path: Path) -> None:
        self.driver: Snapshotter = Prefixed(subject.driver(0), subject.prefix)
        self.contents: Contents = subject.contents
        self._subject = subject
        self._path = path
        self._store: Store | None = None

    async def open_store(self) -> Store:
        """See `Ground`."""
        self._store = await open_store(str(self._path))
        return self._store

    async def let_go(self) -> None:
        """What is durable is in the file; to close it adds nothing to that."""
        if self._store is not None:
            await self._store.close()

    async def reopen_driver(self) -> None:
        """See `Ground`."""
        if self._subject.reopens:
            await self._subject.reopen(close_twice=False)
            self.driver = Prefixed(self._subject.driver(0), self._subject.prefix)

    async def entries(self) -> set[str]:
        """See `Ground`."""
        return await stored(self._path)


class RefsSubject:
    """The manager that `open_with` opens, over the driver of another subject. Every method may raise CannotRun.

    `stores` is a directory for its stores. Over the model all but the manager is in memory: every schedule can be run.
    """

    def __init__(
        self,
        name: str,
        under: Subject,
        stores: Path,
        declared: Declared,
        open_with: Opens = open_manager,
    ) -> None:
        self.name = name
        self.under = under
        self.stores = stores
        self.declared = declared
        self.open_with = open_with
        self.in_memory = not isinstance(under, PortSubject)
        self._histories = 0

    @property
    def note(self) -> str:
        """What the manager stands on."""
        return f"the reference manager over {self.under.note}"

    @property
    def profile(self) -> Profile:
        """What the driver declares."""
        return self.under.profile

    async def start(self) -> None:
        """Make the driver ready, once, before the first history."""
        await self.under.start()

    async def begin(self) -> Ground:
        """The ground of a new history."""
        await self.under.begin()
        self._histories += 1
        if not isinstance(self.under, PortSubject):
            return MemoryGround(self.profile)
        return RealGround(self.under, self.stores / f"store-{self._histories}")

    async def clear(self) -> None:
        """Remove what a history that went wrong has left in the driver."""
        await self.under.clear()

    async def stop(self) -> None:
        """End for good; nothing that was made here is left."""
        await self.under.stop()


@dataclass(frozen=True, slots=True)
class OutsideContents:
    """Contents that are reached on the driver's own loop."""

    outside: Outside
    contents: Contents

    async def write(self, mounts: Sequence[Mount], changes: Sequence[Change]) -> tuple[str, ...]:
        """See `Contents`."""
        return beside(self.outside, self.contents.write(mounts, changes))

    async def read(self, mounts: Sequence[Mount]) -> Tree:
        """See `Contents`."""
        return beside(self.outside, self.contents.read(mounts))


class RefWorld:
    """The manager of one history. Behind `gates` a schedule decides what its calls do; without them the driver does."""

    def __init__(
        self,
        ground: Ground,
        gates: Gates | None,
        outside: Outside,
        declared: Declared,
        open_with: Opens,
    ) -> None:
        self.ground = ground
        self.outside = outside
        self.gates = gates
        self.declared = declared
        apart = gates is not None and gates.outside is not None
        self.adapter = RefsAdapter(self._open, OutsideContents(outside, ground.contents) if apart else ground.contents)
        self._open_with = open_with

    async def _open(self, new_id: Callable[[], str]) -> Manager:
        self.ports = driver, store = await self._ports()
        try:
            return await self._open_with(driver, store, new_id=new_id, commit_keeps_lists=self.declared.commit_keeps_lists)
        except BaseException:
            await store.close()  # who cannot open a manager has the store to give back
            raise

    async def _ports(self) -> tuple[Snapshotter, Store]:
        if self.gates is None:
            return self.ground.driver, await self.ground.open_store()
        apart = self.gates.outside is not None
        store = beside(self.outside, self.ground.open_store()) if apart else await self.ground.open_store()
        return GatedSnapshotter(self.gates, self.ground.driver), GatedStore(self.gates, store)

    async def names(self) -> set[str]:
        """The names of all snapshots that the driver holds."""
        return {info.name async for info in self.ground.driver.walk()}

    def unnoted(self) -> set[str]:
        """The snapshots that no entry of the store names, where that can be seen at any moment (REF-NOTE-1)."""
        return self.ground.unnoted() if isinstance(self.ground, MemoryGround) else set()

    async def second(self) -> str:
        """What becomes of a second manager on the same store (REF-CLOSE-2): the name of its error, "" when there is none."""
        driver, store = self.ports
        try:
            await self._open_with(driver, store, new_id=self.adapter.new_id, commit_keeps_lists=self.declared.commit_keeps_lists)
        except RefError as error:
            return type(error).__name__
        return ""

    async def crashed(self) -> None:
        """The process of the manager has died (after `Run.crash`): the next call is Restart."""
        self.adapter.crashed()
        await self.ground.let_go()
        await self.ground.reopen_driver()

    def records(self) -> dict[str, tuple[Record, int]]:
        """The manager's records in the model's form, each with the number of its open handles."""
        return self.adapter.records()
