"""What the tests of the manager share: real drivers and stores, wrappers that fail, hold or kill a call, looks from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from stores import Place, shown

from snapspec.impl.base import BaseSnapshotter
from snapspec.impl.errors import SnapshotError, Unavailable
from snapspec.impl.manager import Manager, open_manager
from snapspec.impl.metadata import Entry, SqliteStore, open_store
from snapspec.impl.mounts import mounted
from snapspec.impl.ref_errors import RefError, StoreError
from snapspec.impl.refs import ImmutableRef
from snapspec.model.values import Info, Mount, Usage

T = TypeVar("T")

DRIVERS = ("plain", "copy")


class Died(BaseException):
    """The process died at a call of a port."""


@dataclass
class Ports:
    """Every call of both ports, in order, and what becomes of it. Without a plan it is made.

    `plan`: for the call of this number, counted from 0, or of this name: "before" or "after" (it fails before or after its
    effect), "die before" or "die after" (the same with the process: from then on nothing has an effect).
    `holds`: for calls of a name, the event that they wait for before their effect; `late`: the same before their answer.
    """

    plan: dict[int | str, str] = field(default_factory=dict)
    holds: dict[str, asyncio.Event] = field(default_factory=dict)
    late: dict[str, asyncio.Event] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    failed: int = 0
    dead: bool = False
    watch: Callable[[int], None] | None = None

    def count(self, name: str) -> int:
        """How often a call was made: by its name, or by its name and its first argument."""
        return sum(line == name or line.split(" ")[0] == name for line in self.log)

    async def call(self, name: str, shown: str, effect: Callable[[], Awaitable[T]], error: type[Exception]) -> T:
        """One call."""
        if self.dead:
            raise Died
        number = len(self.log)
        self.log.append(f"{name} {shown}")
        if self.watch is not None:
            self.watch(number)
        verdict = self.plan.get(number) or self.plan.get(name, "")
        await _held(self.holds.get(name))
        if verdict.endswith("before"):
            self._end(verdict, name, error)
        answer = await effect()
        await _held(self.late.get(name))
        if verdict.endswith("after"):
            self._end(verdict, name, error)
        return answer

    def _end(self, verdict: str, name: str, error: type[Exception]) -> None:
        self.failed += 1
        if verdict.startswith("die"):
            self.dead = True
            raise Died
        raise error(f"{name} is to fail")


async def _held(event: asyncio.Event | None) -> None:
    """Wait for the event; a cancellation is kept until then, as ports do."""
    cancelled = None
    while event is not None and not event.is_set():
        try:
            await event.wait()
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


class Driver:
    """A driver whose calls go through `Ports`."""

    def __init__(self, driver: BaseSnapshotter, ports: Ports) -> None:
        self._driver = driver
        self._ports = ports

    async def _do(self, name: str, key: str, effect: Callable[[], Awaitable[T]]) -> T:
        return await self._ports.call(name, key, effect, Unavailable)

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        return await self._do("prepare", key, lambda: self._driver.prepare(key, parent, labels))

    async def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        return await self._do("view", key, lambda: self._driver.view(key, parent, labels))

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        await self._do("commit", name, lambda: self._driver.commit(name, key, labels, parent))

    async def remove(self, key: str) -> None:
        await self._do("remove", key, lambda: self._driver.remove(key))

    async def mounts(self, key: str) -> Sequence[Mount]:
        return await self._do("mounts", key, lambda: self._driver.mounts(key))

    async def stat(self, key: str) -> Info:
        return await self._do("stat", key, lambda: self._driver.stat(key))

    async def usage(self, key: str) -> Usage:
        return await self._do("usage", key, lambda: self._driver.usage(key))

    async def update(self, info: Info, paths: Sequence[str] = ()) -> Info:
        return await self._driver.update(info, paths)

    def walk(self, filters: Sequence[str] = ()) -> AsyncIterator[Info]:
        return self._driver.walk(filters)

    async def cleanup(self) -> None:
        await self._driver.cleanup()

    async def close(self) -> None:
        await self._driver.close()


class Metadata:
    """A store whose calls go through `Ports`."""

    def __init__(self, store: SqliteStore, ports: Ports) -> None:
        self._store = store
        self._ports = ports

    async def load(self) -> dict[str, dict[str, str]]:
        return await self._ports.call("load", "", self._store.load, StoreError)

    async def read(self, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        return await self._ports.call("read", ",".join(ids), lambda: self._store.read(ids), StoreError)

    async def write(self, changes: Mapping[str, Entry | None]) -> None:
        shown = ",".join(f"{id}={'' if entry is None else entry['kind']}" for id, entry in changes.items())
        await self._ports.call("write", shown, lambda: self._store.write(changes), StoreError)

    async def close(self) -> None:
        await self._ports.call("close", "", self._store.close, StoreError)


@dataclass
class World:
    """One machine: a driver that stays, a store, and one manager after another, each with ports of its own."""

    place: Place
    driver: BaseSnapshotter
    ports: Ports = field(default_factory=Ports)
    ids: int = 0
    keeps_lists: bool = True
    store: SqliteStore | None = None

    @property
    def path(self) -> str:
        """The file of the store."""
        return str(self.place.directory / "metadata.db")

    def new_id(self) -> str:
        """An id, never the same."""
        self.ids += 1
        return f"r{self.ids}"

    async def manager(self, dying: int | None = None, **plan: str) -> Manager:
        """A manager on the store, opened again, over new ports with this plan; `dying`: after that call of its start."""
        if self.store is not None:
            await self.store.close()
        self.store = await open_store(self.path)
        self.ports = Ports(plan=dict(plan) if dying is None else {dying: "die after"})
        return await open_manager(
            Driver(self.driver, self.ports),
            Metadata(self.store, self.ports),
            new_id=self.new_id,
            commit_keeps_lists=self.keeps_lists,
        )

    async def keys(self) -> dict[str, str]:
        """The snapshots in the driver and their kinds."""
        return {info.name: info.kind.value async for info in self.driver.walk()}

    async def entries(self) -> dict[str, dict[str, str]]:
        """The metadata."""
        assert self.store is not None
        return await self.store.load()

    def write(self, mounts: Sequence[Mount], **files: str) -> None:
        """Write these files through a list."""
        with mounted(mounts, self.place.target) as root:
            for name, text in files.items():
                Path(root, name).write_text(text)

    def shown(self, mounts: Sequence[Mount]) -> dict[str, str]:
        """The files that a list shows."""
        return shown(mounts, self.place)

    def refuses_writes(self, mounts: Sequence[Mount]) -> bool:
        """Whether a list names nothing that could be written, and refuses when it is tried (REF-MOUNT-1)."""
        options = [option for mount in mounts for option in mount.options]
        with mounted(mounts, self.place.target) as root, suppress(OSError):
            Path(root, "refused").write_text("x")
            return False
        return not any(option == "rw" or option.startswith(("upperdir=", "workdir=")) for option in options)

    async def nothing_left(self, manager: Manager) -> None:
        """All handles are released: after a prune without an error nothing is left anywhere (REF-LEAK-1)."""
        pruned = await manager.prune()
        assert pruned.errors == ()
        assert manager.records() == ()
        assert await manager.disk_usage() == ()
        assert await self.entries() == {}
        assert await self.keys() == {}


@asynccontextmanager
async def world(place: Place) -> AsyncIterator[World]:
    """A machine for the length of a block; afterwards its store is free and the driver is closed."""
    driver = await place.open()
    there = World(place, driver)
    try:
        yield there
    finally:
        for event in (*there.ports.holds.values(), *there.ports.late.values()):
            event.set()  # a test that fails ends too
        if there.store is not None:
            await there.store.close()
        await driver.close()


async def refused(call: Awaitable[object], error: type[Exception]) -> Exception:
    """The error of a call that must give one of exactly this class, with words."""
    with pytest.raises(error) as caught:
        await call
    assert type(caught.value) is error
    assert str(caught.value)
    return caught.value


async def committed(manager: Manager, world: World, parent: ImmutableRef | None = None, **files: str) -> ImmutableRef:
    """A handle on a new E with these files; its M's handle is consumed, its parent's stays."""
    mutable = await manager.new(parent)
    world.write(await mutable.mount(), **files)
    return await mutable.commit()


async def final(manager: Manager, w: World, parent: ImmutableRef | None = None, **files: str) -> ImmutableRef:
    """The same, final."""
    snap = await committed(manager, w, parent, **files)
    await snap.finalize()
    return snap


async def in_use(manager: Manager) -> dict[str, bool]:
    """For each row of disk_usage whether it is in use."""
    return {row.id: row.in_use for row in await manager.disk_usage()}


async def outcome(call: Awaitable[object]) -> object:
    """What a call gives, or its error."""
    try:
        return await call
    except (RefError, SnapshotError) as error:
        return error


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until it is so."""
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it does not become so")


def handles(manager: Manager) -> dict[str, int]:
    """The records and their open handles."""
    return {known.id: known.handles for known in manager.records()}


@contextmanager
def fast(workdir: Path, kind: str) -> Iterator[Place]:
    """A place in memory, where nothing waits for a disk; all else is real."""
    directory = workdir / "fast"
    directory.mkdir()
    with mounted([Mount("tmpfs", "tmpfs", ())], str(directory)):
        yield Place(kind, directory)


@pytest.fixture(params=DRIVERS)
def place(request: pytest.FixtureRequest, workdir: Path) -> Iterator[Place]:
    """Each driver in turn, on what is fast."""
    with fast(workdir, request.param) as there:
        yield there


@pytest.fixture
def plain(workdir: Path) -> Iterator[Place]:
    """The overlay on a plain directory."""
    with fast(workdir, "plain") as there:
        yield there
