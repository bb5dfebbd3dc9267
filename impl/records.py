"""The durable records of a snapshotter: one row for each snapshot, in sqlite, inside the root that holds the data too.

Everything here is to be used from the one thread that opened the store, but for `recall`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from snapspec.impl.errors import FailedPrecondition, ResourceExhausted, SnapshotError
from snapspec.impl.sqlite import Database, connect, decided, from_blob, is_full, is_held, to_blob, transaction
from snapspec.model.values import Info, Kind, Labels, Usage

VERSION = 1

_SCHEMA = (
    """
    CREATE TABLE snapshots (
        id      INTEGER PRIMARY KEY AUTOINCREMENT,
        name    BLOB NOT NULL UNIQUE,
        kind    TEXT NOT NULL CHECK (kind IN ('active', 'view', 'committed')),
        parent  INTEGER REFERENCES snapshots (id),
        labels  BLOB NOT NULL,
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL CHECK (updated >= created),
        size    INTEGER,
        inodes  INTEGER
    )
    """,
    "CREATE INDEX children ON snapshots (parent)",
    # The snapshots that are removed, but whose directories may still be there.
    "CREATE TABLE trash (id INTEGER PRIMARY KEY)",
    f"PRAGMA user_version = {VERSION}",
)

_RECORDS = """
    SELECT s.id, s.name, s.kind, s.parent, p.name, s.labels, s.created, s.updated, s.size, s.inodes
    FROM snapshots AS s LEFT JOIN snapshots AS p ON p.id = s.parent
"""

# Nearest ancestor first; the depth keeps the order, which the recursion alone does not promise.
_ANCESTORS = """
    WITH RECURSIVE chain (id, depth) AS (
        SELECT parent, 1 FROM snapshots WHERE id = ? AND parent IS NOT NULL
        UNION ALL
        SELECT s.parent, c.depth + 1 FROM snapshots AS s JOIN chain AS c ON s.id = c.id WHERE s.parent IS NOT NULL
    )
    SELECT id FROM chain ORDER BY depth
"""

_KEEP_USAGE = "UPDATE snapshots SET size = ?, inodes = ? WHERE id = ? AND size IS NULL"

_CLOSED = "the records are closed: open the snapshotter again"

Value = int | str | bytes | None
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One snapshot. `id` names its directory and is never used again; `usage` is None until it was measured and kept."""

    id: int
    name: str
    kind: Kind
    parent_id: int | None
    parent: str
    labels: Labels
    created: int
    updated: int
    usage: Usage | None = None

    @property
    def info(self) -> Info:
        """The record as stat, update and walk tell it."""
        return Info(self.name, self.parent, self.kind, self.labels, self.created, self.updated)


class Records:
    """The store in the file `path`, to be opened first.

    Every method may raise ResourceExhausted when the file system is full, FailedPrecondition when the store is not open, and
    SnapshotError for any other failure; after each of them the store goes on.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._db: Database | None = None
        # Records as they are in the store, and their names by id. What a transaction changes is taken out before it is durable
        # and put in after it, so that what stands here is never older than what was told.
        self._recalled: dict[str, Record] = {}
        self._names: dict[int, str] = {}
        self._changed: list[Record] = []
        self._usages: dict[int, Usage] = {}  # that the store does not have yet

    def open(self) -> None:
        """Open the store, or make it. Raises FailedPrecondition when it is open elsewhere or of a newer version."""
        with _translated(self._path):
            self._db = connect(self._path, self._set_up)

    def _set_up(self, db: Database) -> None:
        [(version,)] = db.execute("PRAGMA user_version")
        if version not in (0, VERSION):
            raise FailedPrecondition(
                f"{self._path} is of version {version}, this program knows {VERSION}: use the program that wrote it"
            )
        if version == 0:
            for statement in _SCHEMA:
                db.execute(statement)

    def close(self) -> None:
        """Move what the log holds into the file and close it; a second close does nothing."""
        if self._db is not None and self._usages:
            with suppress(SnapshotError), self.write():
                pass  # a usage that does not reach the disk is measured again
        db, self._db = self._db, None
        self._recalled.clear()
        if db is not None:
            with _translated(self._path):
                db.close()

    @contextmanager
    def write(self) -> Iterator[None]:
        """One transaction: durable when the block ends, undone when anything at all is raised in it."""
        self._changed.clear()
        with _translated(self._path), transaction(self._opened()):
            yield
            for number, usage in self._usages.items():
                self._change(_KEEP_USAGE, usage.size, usage.inodes, number)
        self._usages.clear()
        for record in self._changed:
            self._keep(record)

    def find(self, name: str) -> Record | None:
        """The record of `name`, or None."""
        found = self._first(self._all(_RECORDS + "WHERE s.name = ?", to_blob(name)))
        if found is not None and not self._opened().in_transaction:
            self._keep(found)
        return found

    def recall(self, name: str) -> Record | None:
        """The record of `name`, if it can be told from memory: then it is what `find` gives. For any thread."""
        return self._recalled.get(name)

    def _keep(self, record: Record) -> None:
        self._recalled[record.name] = record
        self._names[record.id] = record.name

    def _drop(self, number: int) -> None:
        self._recalled.pop(self._names.pop(number, ""), None)

    def get(self, number: int) -> Record | None:
        """The record of the id `number`, or None."""
        return self._first(self._all(_RECORDS + "WHERE s.id = ?", number))

    def all(self) -> list[Record]:
        """Every record at one point in time, sorted by name."""
        return [_record(row) for row in self._all(_RECORDS + "ORDER BY s.name")]

    def has_children(self, number: int) -> bool:
        """Whether a snapshot of any kind has the id `number` as its parent."""
        return bool(self._all("SELECT 1 FROM snapshots WHERE parent = ? LIMIT 1", number))

    def ancestors(self, number: int) -> list[int]:
        """The ids of all ancestors of the id `number`, the nearest first."""
        return [number for (number,) in self._all(_ANCESTORS, number)]

    def add(self, kind: Kind, name: str, parent: Record | None, labels: Labels) -> Record:
        """A new record, made now, over `parent`."""
        now = time.time_ns()
        self._change(
            "INSERT INTO snapshots (name, kind, parent, labels, created, updated) VALUES (?, ?, ?, ?, ?, ?)",
            to_blob(name),
            kind.value,
            parent.id if parent else None,
            _to_json(labels),
            now,
            now,
        )
        [(number,)] = self._all("SELECT last_insert_rowid()")
        made = Record(number, name, kind, parent.id if parent else None, parent.name if parent else "", labels, now, now)
        self._changed.append(made)
        return made

    def commit(self, number: int, name: str, labels: Labels) -> None:
        """Make the id `number` the committed `name`, born now."""
        self._drop(number)
        now = time.time_ns()
        self._change(
            "UPDATE snapshots SET kind = ?, name = ?, labels = ?, created = ?, updated = ? WHERE id = ?",
            Kind.COMMITTED.value,
            to_blob(name),
            _to_json(labels),
            now,
            now,
            number,
        )

    def relabel(self, record: Record, labels: Labels) -> Record:
        """Give `record` these labels now; the record as it then is."""
        self._drop(record.id)
        updated = max(time.time_ns(), record.created)  # a clock that was set back does not break updated >= created
        self._change("UPDATE snapshots SET labels = ?, updated = ? WHERE id = ?", _to_json(labels), updated, record.id)
        changed = replace(record, labels=labels, updated=updated)
        self._changed.append(changed)
        return changed

    def keep_usage(self, number: int, usage: Usage) -> None:
        """Keep what the committed id `number` was measured to take; the first measurement stays for ever.

        It is told from now on, and is on the disk with the next change or when the store is closed: nobody waits for that, since
        measured again it is the same.
        """
        self._drop(number)
        self._usages.setdefault(number, usage)

    def remove(self, number: int) -> None:
        """Take the record of the id `number` away; its directory is trash from now on."""
        self._drop(number)
        self._usages.pop(number, None)
        self._change("DELETE FROM snapshots WHERE id = ?", number)
        self._change("INSERT INTO trash (id) VALUES (?)", number)

    def trash(self) -> list[int]:
        """The ids whose directories may still have to be deleted."""
        return [number for (number,) in self._all("SELECT id FROM trash ORDER BY id")]

    def forget(self, numbers: Iterable[int]) -> None:
        """The directories of these removed ids are gone."""
        for number in numbers:
            self._change("DELETE FROM trash WHERE id = ?", number)

    def _first(self, rows: list[Row]) -> Record | None:
        if not rows:
            return None
        found = _record(rows[0])
        return replace(found, usage=self._usages.get(found.id)) if found.usage is None else found

    def _opened(self) -> Database:
        if self._db is None:
            raise FailedPrecondition(_CLOSED)
        return self._db if self._db.in_transaction else decided(self._db)

    def _all(self, sql: str, *values: Value) -> list[Row]:
        with _translated(self._path):
            return self._opened().execute(sql, values).fetchall()

    def _change(self, sql: str, *values: Value) -> None:
        assert self._opened().in_transaction, "records change inside write() alone"
        self._all(sql, *values)


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """Turn what sqlite raises into the errors of the port."""
    try:
        yield
    except sqlite3.Error as error:
        if is_full(error):
            raise ResourceExhausted(f"no room left for the records {path}: remove snapshots or enlarge the pool") from error
        if is_held(error):
            raise FailedPrecondition(f"{path} is open elsewhere: close it there first") from error
        raise SnapshotError(f"the records {path} cannot be used: {error}") from error


def _record(row: Row) -> Record:
    number, name, kind, parent_id, parent, labels, created, updated, size, inodes = row
    return Record(
        number,
        from_blob(name),
        Kind(kind),
        parent_id,
        "" if parent is None else from_blob(parent),
        _from_json(labels),
        created,
        updated,
        None if size is None else Usage(size, inodes),
    )


def _to_json(labels: Labels) -> bytes:
    # Not escaped to ASCII: json would read two escaped surrogates back as one character.
    return to_blob(json.dumps(labels, ensure_ascii=False))


def _from_json(blob: bytes) -> Labels:
    return tuple((key, value) for key, value in json.loads(from_blob(blob)))
