"""Drivers that go wrong only when something fails under them: each is the reference with one error path that is not right."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from threading import Event

from snapspec.conformance.mutants import stores
from snapspec.impl.base import BaseSnapshotter, Build
from snapspec.impl.copy import CopySnapshotter
from snapspec.impl.errors import SnapshotError
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.impl.records import Record, Records, _translated
from snapspec.impl.scan import measure
from snapspec.model.state import Measure, Profile
from snapspec.model.values import Kind, Labels, Mount, Usage


class Factory:
    """Opens such a driver on a plain directory, new or as it was left."""

    def __init__(self, driver: type[BaseSnapshotter]) -> None:
        self._driver = driver
        self.profile = Profile(usage=Measure.COPY if issubclass(driver, CopySnapshotter) else Measure.LAYER)

    async def __call__(self, directory: Path) -> BaseSnapshotter:
        opened = self._driver(str(directory))
        await opened.open()
        return opened


class StagingReused(CopySnapshotter):
    """The directory below `new` bears the name of the key, and one that is there already is taken for a whole copy."""

    def _begin(self, key: str, parent: str, labels: Labels, started: list[str]) -> Record:
        above = self._check_new(key, parent, labels)
        assert above is not None
        started.append(f"{self._layout.root}/new/{sha256(key.encode()).hexdigest()}")
        self._making.update(started)
        return above

    def _copy(self, path: str, above: Record, stop: Event) -> None:
        if not os.path.isdir(path):
            os.mkdir(path, 0o700)
            super()._copy(path, above, stop)
        os.makedirs(f"{path}/fs", exist_ok=True)

    def _end(self, started: list[str]) -> None:
        """Not done."""


class _UnendedRecords(Records):
    @contextmanager
    def write(self) -> Iterator[None]:
        with _translated(self._path):
            db = self._opened()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except SnapshotError:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")


class TransactionLeftOpen(OverlaySnapshotter):
    """An error of the system leaves the transaction open in which it came."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._records = _UnendedRecords(self._layout.records)


class RecordKept(OverlaySnapshotter):
    """The record is written first, and stays when its directory cannot be made."""

    def _insert(self, kind: Kind, key: str, parent: str, labels: Labels, build: Build) -> tuple[Mount, ...]:
        with self._records.write():
            record = self._records.add(kind, key, self._check_new(key, parent, labels), labels)
        self._layout.put(build(record), record.id)
        return self._mount_list(record)


class CommitRenamesFirst(OverlaySnapshotter):
    """A commit gives the snapshot its new name before it is certain that it becomes a committed one."""

    def _commit(self, name: str, key: str, labels: Labels, parent: str, synced: int) -> bool:
        with self._records.write():
            record = self._check_commit(name, key, labels, parent)
            self._records._change("UPDATE snapshots SET name = ? WHERE id = ?", name.encode(), record.id)
        with self._records.write():
            self._records.commit(record.id, name, labels)
        return True


class DescriptorLeft(OverlaySnapshotter):
    """A usage that fails leaves the directory open that it was to measure."""

    def _measured(self, record: Record, usage: Usage) -> Usage:
        directory = os.open(self._layout.fs(record.id), os.O_RDONLY | os.O_DIRECTORY)
        usage = super()._measured(record, measure(self._layout.fs(record.id), Event()))
        os.close(directory)
        return usage


staging_left = Factory(stores.StagingLeft)
staging_reused = Factory(StagingReused)
transaction_left_open = Factory(TransactionLeftOpen)
record_kept = Factory(RecordKept)
commit_renames_first = Factory(CommitRenamesFirst)
descriptor_left = Factory(DescriptorLeft)
