"""Fixtures of the kit: a driver and a metadata store in memory, for runs in which nothing but the code under test is real.

The driver is the snapshotter's model, of which it takes the first outcome: it does what the contract asks and promises nothing
more. No claim is made about it. Both survive the process that uses them, as disks do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from snapspec.impl.errors import BY_CLASS, FailedPrecondition
from snapspec.impl.metadata import Entry
from snapspec.impl.ref_errors import Closed, Locked
from snapspec.model import ops
from snapspec.model.nodes import Tree
from snapspec.model.replies import Changed, Outcome, Refused, least_size, option
from snapspec.model.snapshots import outcomes
from snapspec.model.state import Profile, State, ancestors
from snapspec.model.tree import Change
from snapspec.model.values import Info, Kind, Labels, Mount, Usage, labels_of

#: In exhaustive search the same few states come again and again; the model's contracts are looked at once for each.
_outcomes = lru_cache(1 << 14)(outcomes)
_least_size = lru_cache(1 << 14)(lambda state, key: least_size(state, state.snapshots[key]))


class MemorySnapshotter:
    """A driver in memory (see `snapspec.impl.ports.Snapshotter`). `state` is all it holds.

    Its mount lists have the overlay reference's form, in directories that do not exist. A snapshot keeps its directory for life:
    that is what a list is known by, after a commit too (`key_of`).
    """

    def __init__(self, profile: Profile | None = None) -> None:
        self.state = State(profile=profile or Profile())
        self._lists: dict[str, tuple[Mount, ...]] = {}
        self._places: dict[str, str] = {}
        self._made = 0
        self._closed = False

    # --- content

    def key_of(self, mounts: Sequence[Mount]) -> str:
        """The key or name of the snapshot that a list shows, made read-only or not; "" when that is gone."""
        place = _place(mounts[0]) if mounts else ""
        return next((key for key, own in self._places.items() if own == place), "")

    async def write(self, mounts: Sequence[Mount], changes: Sequence[Change]) -> tuple[str, ...]:
        """What `Contents.write` gives for the list; ESTALE for each change when its snapshot is gone."""
        key = self.key_of(mounts)
        if not key:
            return ("ESTALE",) * len(changes)
        if not _writable(mounts[0]):
            return ("EROFS",) * len(changes)
        reply = self._do(ops.Write(key, tuple(changes))).reply
        assert isinstance(reply, Changed)
        return tuple(min(words) for words in reply.results)

    async def read(self, mounts: Sequence[Mount]) -> Tree:
        """What `Contents.read` gives for the list. Raises FileNotFoundError when its snapshot is gone."""
        key = self.key_of(mounts)
        if not key:
            raise FileNotFoundError(f"the snapshot that {mounts} shows is gone: mount before the last release")
        return self.state.snapshots[key].tree

    # --- the port

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """SNAP-PREPARE."""
        self._do(ops.Prepare(key, parent, _labels(labels)))
        return self._list(key, writable=True)

    async def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """SNAP-VIEW."""
        self._do(ops.View(key, parent, _labels(labels)))
        return self._list(key, writable=False)

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        """SNAP-COMMIT."""
        self._do(ops.Commit(name, key, _labels(labels), parent))
        self._places[name] = self._places.pop(key)
        del self._lists[key]

    async def remove(self, key: str) -> None:
        """SNAP-REMOVE."""
        self._do(ops.Remove(key))
        del self._places[key]
        self._lists.pop(key, None)

    async def mounts(self, key: str) -> Sequence[Mount]:
        """SNAP-MOUNTS."""
        self._do(ops.Mounts(key))
        return list(self._lists[key])

    async def stat(self, key: str) -> Info:
        """SNAP-STAT."""
        self._do(ops.Stat(key))
        return self._info(key)

    async def update(self, info: Info, paths: Sequence[str] = ()) -> Info:
        """SNAP-UPDATE."""
        self._do(ops.Update(info.name, info.labels, tuple(paths)))
        return self._info(info.name)

    async def usage(self, key: str) -> Usage:
        """SNAP-USAGE: the least that a true size can be."""
        self._do(ops.Usage(key))
        if self.state.snapshots[key].kind is Kind.VIEW:
            return Usage(0, 0)
        return Usage(_least_size(self.state, key), 1)

    async def walk(self, filters: Sequence[str] = ()) -> AsyncIterator[Info]:
        """SNAP-WALK, without filters."""
        assert not filters, "this fixture lists everything"
        for key in tuple(self.state.snapshots):
            yield self._info(key)

    async def cleanup(self) -> None:
        """SNAP-CLEANUP."""
        self._do(ops.Cleanup())

    async def close(self) -> None:
        """SNAP-CLOSE."""
        self._closed = True

    def reopen(self) -> None:
        """A new process opens the store: everything is there again."""
        self._closed = False

    # --- within

    def _do(self, op: ops.Operation) -> Outcome:
        if self._closed:
            raise FailedPrecondition("the driver is closed: open it again")
        outcome = _outcomes(self.state, op)[0]
        if isinstance(outcome.reply, Refused):
            raise BY_CLASS[min(outcome.reply.errors, key=lambda error: error.value)](f"{op}: {outcome.clause}")
        self.state = outcome.state
        return outcome

    def _list(self, key: str, *, writable: bool) -> list[Mount]:
        self._made += 1
        own = self._places[key] = f"/memory/{self._made}"
        lowers = ":".join(f"{own}/{depth}" for depth, _ in enumerate(ancestors(self.state, key), 1))
        if not lowers:
            given = Mount("bind", f"{own}/fs", ("rbind", "rw" if writable else "ro"))
        elif writable:
            given = Mount("overlay", "overlay", (f"workdir={own}/work", f"upperdir={own}/fs", f"lowerdir={lowers}"))
        else:
            given = Mount("overlay", "overlay", (f"lowerdir={lowers}",))
        self._lists[key] = (given,)
        return [given]

    def _info(self, key: str) -> Info:
        snapshot = self.state.snapshots[key]
        return Info(key, snapshot.parent, snapshot.kind, snapshot.labels, 0, 0 if snapshot.updated is None else 1)


def _labels(labels: Mapping[str, str] | None) -> Labels:
    return labels_of(labels) if labels else ()


def _place(mount: Mount) -> str:
    """The directory of the snapshot that a list belongs to: all that the list names is below it."""
    named = mount.source if mount.type == "bind" else option(mount, "upperdir") or option(mount, "lowerdir").partition(":")[0]
    return named.rpartition("/")[0]


def _writable(mount: Mount) -> bool:
    return "ro" not in mount.options and (mount.type == "bind" or option(mount, "upperdir") != "")


@dataclass(slots=True)
class Disk:
    """What a `MemoryStore` keeps, and whether a process holds it."""

    entries: dict[str, dict[str, str]] = field(default_factory=dict)
    held: bool = False


class MemoryStore:
    """A metadata store in memory (see `snapspec.impl.metadata.Store`): a write is durable at once, whole.

    Raises Locked when another holds the disk (REF-CLOSE-2).
    """

    def __init__(self, disk: Disk) -> None:
        if disk.held:
            raise Locked("the disk is held by another store: close it there first")
        disk.held = True
        self._disk = disk
        self._closed = False

    async def load(self) -> dict[str, dict[str, str]]:
        """Everything, sorted by id."""
        entries = self._entries()
        return {name: dict(entries[name]) for name in sorted(entries)}

    async def read(self, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """The entries of these ids that are there."""
        entries = self._entries()
        return {name: dict(entries[name]) for name in ids if name in entries}

    async def write(self, changes: Mapping[str, Entry | None]) -> None:
        """All changes at once; None removes the id. An empty entry is a ValueError."""
        entries = self._entries()
        if any(entry is not None and not entry for entry in changes.values()):
            raise ValueError("an entry is empty: give None to remove the id")
        for name, entry in changes.items():
            if entry is None:
                entries.pop(name, None)
            else:
                entries[name] = dict(entry)

    async def close(self) -> None:
        """Give the disk up; a second close does nothing."""
        if not self._closed:
            self._closed = True
            self._disk.held = False

    def _entries(self) -> dict[str, dict[str, str]]:
        if self._closed:
            raise Closed("the store is closed: open it again")
        return self._disk.entries
