"""Drivers that lose something when the power fails: each is the reference with one fault, found, and shown by a short history."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from test_power import requires_recorder

from snapspec.conformance.durable import power
from snapspec.conformance.durable.place import Opener, place
from snapspec.conformance.history import Finding
from snapspec.conformance.report.text import finding_lines
from snapspec.impl.base import BaseSnapshotter, Build
from snapspec.impl.loopback import Pool
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.impl.ports import Snapshotter
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.tree import MakeFile
from snapspec.model.values import Kind, Labels, Mount, labels_of

pytestmark = [pytest.mark.root, requires_recorder]


class MetadataFirst(OverlaySnapshotter):
    """The record of a snapshot is on the disk before its directory is made, and nobody makes it good when the store is opened."""

    def _insert(self, kind: Kind, key: str, parent: str, labels: Labels, build: Build) -> tuple[Mount, ...]:
        with self._records.write():
            record = self._records.add(kind, key, self._check_new(key, parent, labels), labels)
        self._layout.put(build(record), record.id)
        return self._mount_list(record)

    def _mend(self) -> None:
        """Not done."""


class CommitUnsynced(OverlaySnapshotter):
    """A commit records what it has not brought to the disk."""

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        wanted = labels_of(labels or {})
        with self._call():
            record = await self._in_order(self._check_commit, name, key, wanted, parent)
            await self._in_order(self._commit, name, key, wanted, parent, record.id)


class RecordsUnsynced(OverlaySnapshotter):
    """The records are written, but left to the system to bring to the disk."""

    def _load(self) -> None:
        super()._load()
        self._records._opened().execute("PRAGMA synchronous = OFF")


def opener(driver: type[BaseSnapshotter]) -> Opener:
    async def opened(pool: Pool) -> Snapshotter:
        snapshotter = driver(pool.root, pool)
        await snapshotter.open()
        return snapshotter

    return opened


#: Each with the clause that its finding names first, and a history that shows it.
BROKEN: dict[type[BaseSnapshotter], tuple[str, tuple[Operation, ...]]] = {
    MetadataFirst: ("SNAP-POWER-3", (ops.Prepare("a"),)),
    CommitUnsynced: (
        "SNAP-POWER-2",
        (ops.Prepare("a"), ops.Write("a", (MakeFile("f", b"hello"),)), ops.Commit("b", "a")),
    ),
    RecordsUnsynced: ("SNAP-POWER-1", (ops.Prepare("a"),)),
}


@pytest.mark.parametrize("driver", BROKEN)
def test_what_is_lost_is_found(driver: type[BaseSnapshotter], workdir: Path) -> None:
    clause, calls = BROKEN[driver]
    with place(workdir, opener(driver)) as here:
        found = power.try_each(here, calls)
    assert found is not None
    assert found.clause == clause, "\n".join(finding_lines(found))


@pytest.mark.deep
@pytest.mark.parametrize("driver", BROKEN)
def test_a_drawn_run_finds_it_and_makes_it_short(driver: type[BaseSnapshotter], workdir: Path) -> None:
    clause, calls = BROKEN[driver]
    with place(workdir, opener(driver)) as here:
        done = power.run(here, 1000, seed=1)
    found = done.finding
    assert isinstance(found, Finding)
    print("\n".join(finding_lines(found)))
    assert found.clause == clause
    assert len(power.calls_of(found)) <= len(calls)
