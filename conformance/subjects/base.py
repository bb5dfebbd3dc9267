"""What the kit checks: a subject takes the model's operations and gives the model's answers."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from snapspec.conformance.contents import Contents, own_directory
from snapspec.conformance.durable.child import Gone
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.faults.watched import Through, Watched
from snapspec.conformance.files import measure
from snapspec.conformance.subjects.remote import TransportLost
from snapspec.impl.errors import SnapshotError
from snapspec.impl.mounts import MountError
from snapspec.impl.ports import Snapshotter
from snapspec.model import filters, ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Failed, Lost, Reading, Response, Returned, Value
from snapspec.model.state import Profile
from snapspec.model.values import ErrorClass, Info, Mount


class Subject(ABC):
    """A snapshotter under test. One history after another runs on it; each has names of its own.

    `spaces` is the number of namespaces that a history may use, `reopens` whether the store can be closed and opened again,
    `restarts` how its process ends in a history, if it does, and `fresh` whether an empty store can then be had, `note` says in
    a few words what was taken. Every method may raise CannotRun.
    """

    name: str
    note: str
    profile: Profile
    spaces: int = 1
    reopens: bool = False
    fresh: bool = False
    restarts: Literal["", "stop", "kill"] = ""

    @abstractmethod
    async def start(self) -> None:
        """Make ready, once, before the first history."""

    @abstractmethod
    async def begin(self) -> None:
        """A new history begins: names that it gives meet nothing of an earlier one."""

    @abstractmethod
    async def perform(self, space: int, op: Operation) -> Response:
        """Make the call in the namespace numbered `space`."""

    @abstractmethod
    async def clear(self) -> None:
        """Remove, whatever it takes, what the history has left: it has gone wrong and the model no longer knows what is there."""

    @abstractmethod
    async def stop(self) -> None:
        """End for good; nothing that was made here is left. Works after a failed start and a second time too."""

    def changed(self) -> str:
        """What has become of a result that was given earlier in this history; empty as long as all are as they were."""
        return ""


class PortSubject(Subject):
    """A subject behind the snapshotter port. Subclasses say how it is opened.

    Names are told apart by a prefix, one for each history: it is put before each key and taken off again.
    """

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.measures = True
        """Whether the layer that a usage tells of is measured too: not where others may change it at that moment."""
        self.prefix = ""
        self.through: Through | None = None
        """What each call of the driver is made through, if anything."""
        self._history = 0
        self._given: dict[tuple[int, str], tuple[Mount, ...]] = {}
        self._places: dict[tuple[int, str], str] = {}
        self._kept: list[tuple[Sequence[Mount], tuple[Mount, ...]]] = []

    @abstractmethod
    def driver(self, space: int) -> Snapshotter:
        """The driver, as seen from the namespace numbered `space`."""

    @abstractmethod
    async def reopen(self, close_twice: bool) -> None:
        """Close the store, twice when asked, and open it again."""

    async def collect(self, space: int, dropped: tuple[str, ...]) -> None:
        """Give up the protection of the keys `dropped`, which bear their prefix, and collect garbage to the end."""

    def nowhere(self) -> Snapshotter:
        """The driver without a namespace; only where there are namespaces."""
        return self.driver(0)

    def history_prefix(self, number: int) -> str:
        """The prefix of the names of one history."""
        return f"h{number}/"

    async def begin(self) -> None:
        """A new prefix, and nothing held."""
        self._history += 1
        self.prefix = self.history_prefix(self._history)
        self._given.clear()
        self._places.clear()
        self._kept.clear()

    async def perform(self, space: int, op: Operation) -> Response:
        """Make the call; whatever the driver raises becomes an answer. Raises CannotRun when it is the kit that cannot."""
        try:
            return Returned(await self._perform(space, op))
        except CannotRun:
            raise
        except SnapshotError as error:
            return Failed(error.error, str(error))
        except (TransportLost, Gone) as error:
            return Lost(str(error))
        except MountError as error:
            return Failed(ErrorClass.UNKNOWN, f"the list cannot be mounted: {error}")
        except Exception as error:  # noqa: BLE001  # a driver in this process may raise anything; that is its answer
            return Failed(ErrorClass.UNKNOWN, f"{type(error).__name__}: {error}")

    async def _perform(self, space: int, op: Operation) -> Value:
        match op:
            case ops.Nowhere(call):
                return await self._call(self.nowhere(), call, space)
            case ops.Reopen(close_twice):
                reopen = partial(self.reopen, close_twice)
                await (reopen() if self.through is None else self.through(reopen))
                return None
            case ops.Collect(dropped):
                await self.collect(space, tuple(self._key(key) for key in dropped))
                return None
            case ops.Write(key, changes, held):
                return await self.contents.write(await self._list(space, key, held), changes)
            case ops.Read(key, held):
                return await self.contents.read(await self._list(space, key, held))
            case _:
                driver = self.driver(space)
                return await self._call(driver if self.through is None else Watched(driver, self.through), op, space)

    async def _call(self, driver: Snapshotter, op: Operation, space: int) -> Value:
        """The calls that are the port's own."""
        match op:
            case ops.Prepare(key, parent, labels):
                return self._give(space, key, await driver.prepare(self._key(key), self._key(parent), dict(labels)))
            case ops.View(key, parent, labels):
                return self._give(space, key, await driver.view(self._key(key), self._key(parent), dict(labels)))
            case ops.Commit(name, key, labels, parent):
                await driver.commit(self._key(name), self._key(key), dict(labels), self._key(parent))
                # The list is no longer to be used; the directory that it showed is still the layer's own.
                self._places[space, name] = self._places.get((space, key), "")
                self.forget(space, key)
            case ops.Remove(key):
                await driver.remove(self._key(key))
                self.forget(space, key)
            case ops.Mounts(key):
                return self._keep(await driver.mounts(self._key(key)))
            case ops.Stat(key):
                return self._own(await driver.stat(self._key(key)))
            case ops.Update(name, labels, mask, parent, kind):
                info = Info(self._key(name), parent, kind, labels, 0, 0)
                return self._own(await driver.update(info, mask))
            case ops.Usage(key):
                return await self._usage(driver, space, key)
            case ops.Walk(texts):
                return await self._walk(driver, texts)
            case ops.Cleanup():
                await driver.cleanup()
        return None

    async def _walk(self, driver: Snapshotter, texts: tuple[str, ...]) -> tuple[Info, ...]:
        walk: AsyncIterator[Info] = driver.walk(tuple(self._filter(text) for text in texts))
        return tuple([self._own(info) async for info in walk if info.name.startswith(self.prefix)])

    async def _usage(self, driver: Snapshotter, space: int, key: str) -> Reading:
        """Measured first: the measurement syncs, and a driver may count what is on disk only."""
        place = self._places.get((space, key), "")
        measured = await asyncio.to_thread(measure, place) if self.measures and place and Path(place).is_dir() else None
        return Reading(await driver.usage(self._key(key)), measured)

    async def _list(self, space: int, key: str, held: bool) -> tuple[Mount, ...]:
        if held and (space, key) in self._given:
            return self._given[space, key]
        return tuple(await self.driver(space).mounts(self._key(key)))

    # --- results that are held

    def _keep(self, mounts: Sequence[Mount]) -> tuple[Mount, ...]:
        """The list as it is now; the one that was given is compared with it later. All other results cannot change."""
        kept = tuple(mounts)
        self._kept.append((mounts, kept))
        return kept

    def _give(self, space: int, key: str, mounts: Sequence[Mount]) -> tuple[Mount, ...]:
        given = self._given[space, key] = self._keep(mounts)
        self._places[space, key] = own_directory(given)
        return given

    def forget(self, space: int, key: str) -> None:
        """The snapshot is gone, or may be: its list is no longer to be used."""
        self._given.pop((space, key), None)
        self._places.pop((space, key), None)

    def changed(self) -> str:
        """SNAP-HOLD-1: compares each list with what it was when it was given."""
        changed = (f"{kept!r} has become {tuple(given)!r}" for given, kept in self._kept if tuple(given) != kept)
        return next(changed, "")

    # --- names

    def _key(self, key: str) -> str:
        return self.prefix + key if key else ""

    def _own(self, info: Info) -> Info:
        return replace(info, name=info.name.removeprefix(self.prefix), parent=info.parent.removeprefix(self.prefix))

    def _filter(self, text: str) -> str:
        """The filter with the names in it as the driver knows them; a text that is no filter stays as it is."""
        try:
            selectors = filters.parse(text)
        except ValueError:
            return text
        return filters.write(tuple(self._selector(s) for s in selectors))

    def _selector(self, selector: filters.Selector) -> filters.Selector:
        names = selector.path in (("name",), ("parent",)) and selector.operator in ("==", "!=") and selector.value
        return replace(selector, value=self.prefix + selector.value) if names else selector

    # --- the end of a history that went wrong

    async def clear(self) -> None:
        """Remove children before parents, as often as that removes anything."""
        for space in range(self.spaces):
            await self._clear(self.driver(space))

    async def _clear(self, driver: Snapshotter) -> None:
        await clear_prefix(driver, self.prefix)


async def clear_prefix(driver: Snapshotter, prefix: str) -> list[str]:
    """Remove every snapshot whose name begins with `prefix`, children first; gives those that could not be removed."""
    while True:
        names = await _names(driver, prefix)
        if not names or not any([await _removed(driver, name) for name in names]):
            return names


async def _names(driver: Snapshotter, prefix: str) -> list[str]:
    try:
        return [info.name async for info in driver.walk() if info.name.startswith(prefix)]
    except SnapshotError as error:
        if error.error not in (ErrorClass.NOT_FOUND, ErrorClass.UNKNOWN):
            raise
        return []  # a store that was never written may say so (SNAP-WALK-7, SNAP-WALK-8)


async def _removed(driver: Snapshotter, name: str) -> bool:
    try:
        await driver.remove(name)
    except SnapshotError:
        return False
    return True
