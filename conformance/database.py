"""Findings that runs keep for each other, on one machine or on several: in an example database of Hypothesis.

Where it lies is said in words: a directory, a Redis server, or the artifacts of a repository's workflows on GitHub. All are used
by what Hypothesis promises of them, to save, fetch and delete bytes under a key.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from hypothesis.database import (
    DirectoryBasedExampleDatabase,
    ExampleDatabase,
    GitHubArtifactDatabase,
    MultiplexedDatabase,
    ReadOnlyDatabase,
)
from hypothesis.errors import HypothesisWarning

from snapspec.conformance import ref_history, search
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import FORMAT, Finding, decode_finding, encode_finding
from snapspec.conformance.ref_history import RefFinding
from snapspec.conformance.subjects.address import REFS, parse

T = TypeVar("T")

#: How a database is named, for help texts.
FORMS = "DIR, redis://HOST:PORT/DB, github:OWNER/REPO"

#: How long a Redis server keeps what nobody has fetched or saved.
KEPT_FOR = timedelta(days=60)

#: Seconds that a Redis server may take to answer.
PATIENCE = 5.0

#: The directory of `github:`, in the current one, and the name of the artifact that a workflow makes of it.
LOCAL = "snapspec-findings"


class SharedDatabase(ExampleDatabase):
    """A database whose failures end no check: with the first it is given up, and `note` says why, in one sentence."""

    def __init__(self, inner: ExampleDatabase, place: str) -> None:
        super().__init__()
        self.inner = inner
        self.place = place
        self.note = ""
        self._given_up = False

    def save(self, key: bytes, value: bytes) -> None:
        """See `ExampleDatabase`."""
        self._tried(lambda: self.inner.save(key, value), None)

    def fetch(self, key: bytes) -> Iterable[bytes]:
        """See `ExampleDatabase`. All at once, for each value that comes may be one that fails."""
        return self._tried(lambda: tuple(self.inner.fetch(key)), ())

    def delete(self, key: bytes, value: bytes) -> None:
        """See `ExampleDatabase`."""
        self._tried(lambda: self.inner.delete(key, value), None)

    def _tried(self, action: Callable[[], T], otherwise: T) -> T:
        if self._given_up:
            return otherwise
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always", HypothesisWarning)
                done = action()
        except Exception as error:  # noqa: BLE001  # a client of a server may raise anything, and a check goes on without it
            self._given_up = True
            self._tell(_told(error))
            return otherwise
        for warning in warned:
            self._tell(str(warning.message))
        return done

    def _tell(self, why: str) -> None:
        """Once: what else goes wrong comes of the same."""
        self.note = self.note or f"findings are not shared through {self.place}: {why}"


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# --- where it lies


def open_database(words: str) -> SharedDatabase:
    """The database that the words name, see FORMS. CannotRun, with the remedy, when there is none or it cannot be reached."""
    kind, colon, rest = words.partition(":")
    if colon and kind in ("redis", "rediss"):
        return _redis(words)
    if colon and kind == "github":
        return _github(rest)
    if not words or (colon and re.fullmatch("[a-z]+", kind)):
        raise CannotRun(f"{words!r} is no database of findings: write {FORMS}")
    return SharedDatabase(DirectoryBasedExampleDatabase(_directory(Path(words), f"mkdir -p {words}")), words)


def _directory(path: Path, remedy: str) -> Path:
    if not path.is_dir():
        raise CannotRun(f"{path} is no directory for findings: make it first, {remedy}")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise CannotRun(f"{path} cannot be written: name another directory for findings")
    return path


def _redis(words: str) -> SharedDatabase:
    try:
        from hypothesis.extra.redis import RedisExampleDatabase
        from redis import Redis, RedisError
    except ImportError:
        raise CannotRun("a Redis database of findings needs the package redis: pip install snapspec[redis]") from None
    place = _without_secret(words)
    try:
        client = Redis.from_url(words, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
        client.ping()
    except ValueError as error:
        raise CannotRun(f"{place} is no address of a Redis server, {error}: write redis://HOST:PORT/DB") from None
    except (RedisError, OSError) as error:
        raise CannotRun(f"the Redis server at {place} does not answer, {_told(error)}: start it, or name another") from None
    return SharedDatabase(RedisExampleDatabase(client, expire_after=KEPT_FOR, key_prefix=b"snapspec:"), place)


def _without_secret(words: str) -> str:
    """The address without user and password: it is printed."""
    parts = urlsplit(words)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _github(rest: str) -> SharedDatabase:
    """What the workflow's last run has left as artifact is read; what is found goes into LOCAL, which the workflow uploads."""
    found = re.fullmatch(r"([\w.-]+)/([\w.-]+)", rest)
    if found is None:
        raise CannotRun(f"{rest!r} is no repository on GitHub: write github:OWNER/REPO")
    local = Path(LOCAL)
    try:
        local.mkdir(exist_ok=True)
    except OSError as error:
        raise CannotRun(f"{local} cannot be made, {error.strerror}: go to a directory that can be written") from None
    cache = Path(f"{LOCAL}-cache")
    artifact = GitHubArtifactDatabase(found[1], found[2], artifact_name=LOCAL, path=cache)
    written = DirectoryBasedExampleDatabase(_directory(local, f"mkdir {local}"))
    return SharedDatabase(MultiplexedDatabase(written, ReadOnlyDatabase(artifact)), f"github:{rest}")


# --- what is in it


def name_of(subject: str) -> str:
    """The name that findings of a subject are kept under when its driver has given itself none. CannotRun as `parse`.

    Two runs are of one driver when what is named is the same: its kind, the package and factory, the snapshotter, what it
    declares. What differs from machine to machine is left out: where a socket lies, a namespace, the directories in an adapter's
    command. The size of a pool and its file system stay, for a finding may need them.
    """
    address = parse(subject)
    place = address.place
    if address.kind in ("containerd", "plugin"):
        place = ""
    elif address.kind == "exec":
        place = " ".join(word.rpartition("/")[2] for word in place.split())
    options = "&".join(f"{key}={value}" for key, value in sorted(address.options.items()) if key != "namespace")
    return f"{REFS if address.refs else ''}{address.kind}:{place}" + (f"?{options}" if options else "")


def keep(database: ExampleDatabase, name: str, level: str, found: Finding | RefFinding) -> None:
    """Save a finding of the driver `name` at that level, for later runs and for other machines."""
    database.save(_key(name, level), _value(found))


def kept(database: ExampleDatabase, name: str, level: str) -> list[Finding | RefFinding]:
    """The findings that runs have kept, the shortest first. What another version or nobody has written is passed over."""
    read = sorted({value: _finding(value) for value in database.fetch(_key(name, level))}.items())
    return sorted((found for _, found in read if found is not None), key=_length)


def drop(database: ExampleDatabase, name: str, level: str, found: Finding | RefFinding) -> None:
    """Delete a finding that is none any more."""
    database.delete(_key(name, level), _value(found))


def _key(name: str, level: str) -> bytes:
    return f"snapspec findings\n{name}\n{level}".encode("utf-8", "surrogatepass")


def _value(found: Finding | RefFinding) -> bytes:
    """The finding as a history file has it, on one line, spelled the same in every process."""
    return json.dumps({"format": FORMAT, **encode_finding(found)}, sort_keys=True, separators=(",", ":")).encode("ascii")


def _finding(value: bytes) -> Finding | RefFinding | None:
    try:
        document = json.loads(value)
        return decode_finding(document) if isinstance(document, dict) and document.get("format") == FORMAT else None
    except (CannotRun, ValueError, RecursionError):
        return None


def _length(found: Finding | RefFinding) -> tuple[int, ...]:
    return ref_history.size(found) if isinstance(found, RefFinding) else search.size(found)
