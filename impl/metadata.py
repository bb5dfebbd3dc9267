"""The metadata of records: the port, and a store in sqlite. One entry for each id, several changed in one atomic durable write.

The store keeps no copy in memory: what it tells is read from the file, and the file is the truth (REF-POINT-3).
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, Protocol, TypeVar

from snapspec.impl.ref_errors import Closed, Locked, StoreError
from snapspec.impl.sqlite import Database, connect, decided, from_blob, is_full, is_held, to_blob, transaction
from snapspec.impl.threads import settled

T = TypeVar("T")
P = ParamSpec("P")

#: What is kept of one id; never empty.
Entry = Mapping[str, str]

#: An id and its entry as they are stored; None removes the id.
Row = tuple[bytes, bytes | None]

VERSION = 1

#: Tells this store from another sqlite file that happens to have the same version.
APPLICATION = 0x534E5052

_SCHEMA = (
    "CREATE TABLE entries (id BLOB PRIMARY KEY, entry BLOB NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)


class Store(Protocol):
    """A durable map. Every call raises a `RefError` or answers; when it has done either, its effect is decided.

    A cancelled call stays until its effect is decided, then raises `asyncio.CancelledError`.
    """

    async def load(self) -> dict[str, dict[str, str]]:
        """Everything that is durable."""
        ...

    async def read(self, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """The durable entries of these ids; absent ones are left out."""
        ...

    async def write(self, changes: Mapping[str, Entry | None]) -> None:
        """Make all of `changes` durable or none of them; None removes the id."""
        ...

    async def close(self) -> None:
        """Let running calls end, then give the store up; a second close does nothing."""
        ...


async def open_store(path: str) -> SqliteStore:
    """The store in the file `path`, made where there is none.

    Raises Locked when another process or object holds it (REF-CLOSE-2), StoreError when it cannot be used. What is refused is
    left as it was.
    """
    store = SqliteStore(path)
    try:
        await store._in_order(store._open)
    except BaseException:
        await store.close()
        raise
    return store


class SqliteStore:
    """The store that `open_store` gives. One thread does all the work, in the order of the calls."""

    def __init__(self, path: str) -> None:
        """A store that is not open yet."""
        self._path = path
        self._thread = ThreadPoolExecutor(1, "snapspec-metadata")
        self._db: Database | None = None
        self._closed = False
        self._ended = False

    async def load(self) -> dict[str, dict[str, str]]:
        """Everything that is durable, sorted by id. Raises StoreError, Closed."""
        return await self._call(self._load)

    async def read(self, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """The durable entries of these ids, in that order; absent ones are left out. Raises StoreError, Closed."""
        return await self._call(self._read, tuple(map(to_blob, ids)))

    async def write(self, changes: Mapping[str, Entry | None]) -> None:
        """Make all of `changes`, as they are now, durable or none of them; None removes the id. Raises StoreError, Closed.

        After a StoreError what is durable is as before; or, when the disk did not tell, that is found out before the next
        answer. An empty entry is a ValueError.
        """
        await self._call(self._write, _rows(changes))

    async def close(self) -> None:
        """Let running calls end, then give the file up; a second close does nothing. It is given up after a StoreError too."""
        self._closed = True
        if self._ended:
            return
        try:
            await self._in_order(self._close)
        finally:
            self._ended = True
            self._thread.shutdown(wait=False)

    async def _call(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise Closed(f"the metadata store {self._path} is closed: open it again")
        return await self._in_order(job, *args, **kwargs)

    async def _in_order(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `job` in the thread, after all that was asked before."""
        with _translated(self._path):
            return await settled(asyncio.wrap_future(self._thread.submit(job, *args, **kwargs)))

    # --- in the thread

    def _open(self) -> None:
        try:
            self._db = connect(self._path, self._set_up)
        except sqlite3.Error as error:
            if is_held(error):
                raise Locked(f"the metadata store {self._path} is open elsewhere: close it there first") from error
            raise

    def _set_up(self, db: Database) -> None:
        [(application,)] = db.execute("PRAGMA application_id")
        [(version,)] = db.execute("PRAGMA user_version")
        [(things,)] = db.execute("SELECT count(*) FROM sqlite_master")
        if (application, version) == (APPLICATION, VERSION):
            return
        if application or version or things:
            raise StoreError(
                f"{self._path} is no metadata store of version {VERSION}: use the program that wrote it, or another path"
            )
        for statement in _SCHEMA:
            db.execute(statement)

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _load(self) -> dict[str, dict[str, str]]:
        return _entries(self._decided().execute("SELECT id, entry FROM entries ORDER BY id"))

    def _read(self, ids: tuple[bytes, ...]) -> dict[str, dict[str, str]]:
        db = self._decided()
        return _entries(row for name in ids for row in db.execute("SELECT id, entry FROM entries WHERE id = ?", (name,)))

    def _write(self, rows: Sequence[Row]) -> None:
        db = self._decided()
        with transaction(db):
            for name, entry in rows:
                if entry is None:
                    db.execute("DELETE FROM entries WHERE id = ?", (name,))
                else:
                    db.execute("INSERT OR REPLACE INTO entries (id, entry) VALUES (?, ?)", (name, entry))

    def _decided(self) -> Database:
        assert self._db is not None, "no call comes before open or after close"
        return decided(self._db)


def _rows(changes: Mapping[str, Entry | None]) -> list[Row]:
    if any(entry is not None and not entry for entry in changes.values()):
        raise ValueError("an entry is empty: give None to remove the id")
    # Not escaped to ASCII: json would read two escaped surrogates back as one character.
    return [
        (to_blob(name), None if entry is None else to_blob(json.dumps(dict(entry), ensure_ascii=False)))
        for name, entry in changes.items()
    ]


def _entries(rows: Iterable[tuple[bytes, bytes]]) -> dict[str, dict[str, str]]:
    return {from_blob(name): json.loads(from_blob(entry)) for name, entry in rows}


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """Turn what sqlite raises into the errors of the port."""
    try:
        yield
    except sqlite3.Error as error:
        if is_full(error):
            raise StoreError(
                f"no room left for the metadata store {path}: remove something beside it or enlarge the pool"
            ) from error
        raise StoreError(f"the metadata store {path} failed: {error}") from error
