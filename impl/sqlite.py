"""What the durable stores share: an sqlite file that one connection holds, transactions that are undone whole, any text as it is.

WAL with synchronous=FULL: a change that was acknowledged survives the end of the process and of the machine. The connection
holds the file exclusively as long as it is open, so that a second opener is refused and no shared-memory file is needed.

When the disk refuses to sync a commit, sqlite undoes it, but the log may hold it all the same, and a crash would bring it back.
Nobody is to be told that it is not there before that is decided.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Database(sqlite3.Connection):
    """A connection. `in_doubt`: whether its last commit is in the log is not known."""

    in_doubt = False


def connect(path: str, set_up: Callable[[Database], None]) -> Database:
    """The file `path`, made where there is none, held exclusively until the connection is closed.

    `set_up` looks at what is in it, inside a transaction, and makes what is missing; what it refuses by raising is left as it
    was. The connection may be used from any one thread at a time. Raises sqlite3.Error: `is_held` tells whether another
    connection holds the file.
    """
    db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False, factory=Database)
    try:
        for pragma in ("locking_mode = EXCLUSIVE", "synchronous = FULL", "foreign_keys = ON"):
            db.execute(f"PRAGMA {pragma}")
        with transaction(db, "EXCLUSIVE"):
            set_up(db)
        db.execute("PRAGMA journal_mode = WAL")
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def transaction(db: Database, kind: str = "IMMEDIATE") -> Iterator[None]:
    """One transaction: durable when the block ends, undone when anything at all is raised in it."""
    try:
        db.execute(f"BEGIN {kind}")  # in here: one that fails may have begun all the same
        yield
        _commit(db)
    except BaseException:
        # Some failures (a full disk among them) have already undone it.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _commit(db: Database) -> None:
    try:
        db.execute("COMMIT")
    except sqlite3.Error as error:
        # The mark of a commit is the last thing to be written: without room for all, it is not there.
        db.in_doubt = not is_full(error)
        raise


def decided(db: Database) -> Database:
    """The connection, once it is sure what is durable; to be asked outside of transactions. Raises sqlite3.Error."""
    if db.in_doubt:
        # The next commit is written over the one in doubt: here one that writes a page and changes nothing.
        [(version,)] = db.execute("PRAGMA user_version")
        with transaction(db):
            db.execute(f"PRAGMA user_version = {version}")
        db.in_doubt = False
    return db


def is_full(error: sqlite3.Error) -> bool:
    """Whether there was no room on the disk."""
    return _primary(error) == sqlite3.SQLITE_FULL


def is_held(error: sqlite3.Error) -> bool:
    """Whether another connection holds the file."""
    return _primary(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _primary(error: sqlite3.Error) -> int:
    # The low byte is the primary code; errors of the Python layer itself carry none.
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def to_blob(text: str) -> bytes:
    """`text` as it is stored: any text, lone surrogates too, each apart and in the order of its code points."""
    return text.encode("utf-8", "surrogatepass")


def from_blob(blob: bytes) -> str:
    """The text that `to_blob` stored."""
    return blob.decode("utf-8", "surrogatepass")
