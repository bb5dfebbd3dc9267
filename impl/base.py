"""What every snapshotter that keeps its own records shares: order of errors, transactions, threads, deletion, close.

All work on the records is done by one thread, in the order of the calls, so that each call is decided by one transaction.
Syncs, scans and deletions run beside it. A driver adds how a snapshot's directory is made and how it is mounted.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import ParamSpec, TypeVar

from snapspec.impl.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, SnapshotError
from snapspec.impl.layout import Layout, make_directory
from snapspec.impl.loopback import Pool, PoolBusy, PoolError
from snapspec.impl.mounts import MountError, remove_tree
from snapspec.impl.records import Record, Records
from snapspec.impl.scan import measure
from snapspec.impl.syscalls import release_blocks, syncfs
from snapspec.impl.threads import settled
from snapspec.model.filters import Filter, matches, parse
from snapspec.model.values import Info, Kind, Labels, Mount, Usage, labels_of

T = TypeVar("T")
P = ParamSpec("P")

#: Makes the directory of a new record below `new`; gives its path.
Build = Callable[[Record], str]

_log = logging.getLogger(__name__)

_CLOSED = "the snapshotter is closed: open it again"


class BaseSnapshotter(ABC):
    """The calls of the `Snapshotter` port over records and directories below `root`. Opened by `open`, once."""

    def __init__(self, root: str, pool: Pool | None = None) -> None:
        self._layout = Layout(root)
        self._records = Records(self._layout.records)
        self._pool = pool
        self._recorder = ThreadPoolExecutor(1, "snapspec-records")
        self._deleter = ThreadPoolExecutor(1, "snapspec-delete")
        self._workers = ThreadPoolExecutor(8, "snapspec-work")
        self._root = -1
        self._deleted: list[int] = []
        self._ballast_given = False
        self._making: set[str] = set()
        self._flushing = asyncio.Lock()
        self._next_flush: asyncio.Task[None] | None = None
        self._lists: dict[int, tuple[Mount, ...]] = {}  # of ids that are recorded: none of them ever changes
        self._calls = 0
        self._idle: asyncio.Event | None = None
        self._closing: asyncio.Task[None] | None = None

    @abstractmethod
    def _inherit(self, path: str, parent: int) -> None:
        """Give the new directory `path` of an active snapshot what it needs of the id `parent`."""

    @abstractmethod
    def _mount_list(self, record: Record) -> tuple[Mount, ...]:
        """The mount list of an active snapshot or a view."""

    # --- opening and closing

    async def open(self) -> None:
        """Open the records, make good what a crash left, start to delete what was removed.

        Raises FailedPrecondition when the root is open elsewhere, of a newer version, or holds directories without records.
        """
        try:
            with _answers():
                await self._in_order(self._start)
        except BaseException:
            await self._in_order(self._stop)
            self._end_threads()
            raise

    def _start(self) -> None:
        self._making_room(self._load)
        self._making_room(self._mend)
        self._deleter.submit(self._empty_trash, self._sweep())

    def _load(self) -> None:
        self._layout.set_up()
        if self._root < 0:
            self._root = os.open(self._layout.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._records.open()
        os.fsync(self._root)

    def _stop(self) -> None:
        if self._root >= 0:
            os.close(self._root)
            self._root = -1
        self._records.close()

    def _end_threads(self) -> None:
        for threads in (self._recorder, self._deleter, self._workers):
            threads.shutdown(wait=False)

    def _mend(self) -> None:
        """Make anew the directories that a power failure took: records reach the disk first, content only with a commit."""
        numbers = self._layout.numbers()
        for record in self._records.all():
            if record.id in numbers:
                continue
            if record.kind is Kind.COMMITTED:
                _log.error("the directory of the committed snapshot %r is gone: remove it and what stands on it", record.name)
                continue
            try:
                self._layout.keep(self._layout.put(self._build(record), record.id))
            except FileNotFoundError as error:
                _log.error("the directory of the snapshot %r cannot be made again: %s", record.name, error)

    async def close(self) -> None:
        """Let running calls and deletions end, then close the records and the pool; a second close does nothing (SNAP-CLOSE).

        Raises FailedPrecondition when something in the pool is still in use: then close once more.
        """
        if self._closing is None or _failed(self._closing):
            self._closing = asyncio.get_running_loop().create_task(self._shut())
        with _answers():
            await settled(self._closing)

    async def _shut(self) -> None:
        if self._calls:
            self._idle = asyncio.Event()
            await self._idle.wait()
        await settled(asyncio.wrap_future(self._deleter.submit(lambda: None)))
        try:
            await self._in_order(self._stop)
        finally:
            if self._pool is not None:
                await self._beside(self._pool.close)
        self._end_threads()

    # --- making

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """Make the active snapshot `key` over committed `parent` ("" for none); give its mount list (SNAP-PREPARE)."""
        with self._call():
            return await self._create(Kind.ACTIVE, key, parent, labels_of(labels or {}))

    async def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """Make the read-only snapshot `key` over committed `parent` ("" for none); give its mount list (SNAP-VIEW)."""
        with self._call():
            return await self._create(Kind.VIEW, key, parent, labels_of(labels or {}))

    async def _create(self, kind: Kind, key: str, parent: str, labels: Labels) -> tuple[Mount, ...]:
        return await self._in_order(self._insert, kind, key, parent, labels, self._build)

    def _insert(self, kind: Kind, key: str, parent: str, labels: Labels, build: Build) -> tuple[Mount, ...]:
        """The record and its directory, both or neither."""
        made, number = "", 0
        try:
            with self._records.write():
                record = self._records.add(kind, key, self._check_new(key, parent, labels), labels)
                number = record.id
                # One that is there comes from a life in which its id was not kept: it is never trusted.
                self._discard(self._layout.directory(record.id))
                made = build(record)
                made = self._layout.put(made, record.id)
                self._layout.keep(made)
                given = self._mount_list(record)
            self._lists[number] = given
            return given
        except BaseException:
            if made and not self._may_be_recorded(number):
                self._discard(made)
            raise

    def _may_be_recorded(self, number: int) -> bool:
        """Whether a write that failed has left the record all the same. If that cannot be told, cleanup will know."""
        try:
            return self._records.get(number) is not None
        except SnapshotError:
            return True

    def _build(self, record: Record) -> str:
        """Make the directory of `record` below `new`; its path. On failure there is none."""
        path = self._layout.start()
        try:
            make_directory(f"{path}/fs", 0o755)
            if record.parent_id is not None and record.kind is Kind.ACTIVE:
                self._inherit(path, record.parent_id)
        except BaseException:
            self._discard(path)
            raise
        return path

    def _check_new(self, key: str, parent: str, labels: Labels) -> Record | None:
        """The parent's record; raises what prepare and view answer, in their order of errors (SNAP-PREPARE-5)."""
        above = self._known(parent, "parent") if parent else None
        if above is not None and above.kind is not Kind.COMMITTED:
            raise InvalidArgument(f"parent {parent!r} is {above.kind.value}: commit it first")
        if self._records.find(key) is not None:
            raise AlreadyExists(f"snapshot {key!r} exists: remove it first or take another key")
        if not key:
            raise InvalidArgument("the key is empty: give one")
        _check_labels(labels)
        return above

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        """Turn the active `key` into the committed `name`; its files are on the disk before its record is (SNAP-COMMIT)."""
        wanted = labels_of(labels or {})
        with self._call():
            done = False
            while not done:
                record = await self._in_order(self._check_commit, name, key, wanted, parent)
                await self._flushed()
                done = await self._in_order(self._commit, name, key, wanted, parent, record.id)

    async def _flushed(self) -> None:
        """Wait for a flush that begins from now on. Those who wait while one runs share the next."""
        if self._next_flush is None:
            self._next_flush = asyncio.get_running_loop().create_task(self._flush_next())
        await settled(self._next_flush)

    async def _flush_next(self) -> None:
        async with self._flushing:
            self._next_flush = None
            await self._beside(self._flush)

    def _flush(self) -> None:
        """Everything is on the disk, and takes the blocks that it will take from now on (SNAP-USAGE)."""
        syncfs(self._root, self._layout.root)
        release_blocks(self._root)

    def _commit(self, name: str, key: str, labels: Labels, parent: str, synced: int) -> bool:
        """False when the key was removed and prepared again since the sync: then that one has to be synced."""
        with self._records.write():
            record = self._check_commit(name, key, labels, parent)
            if record.id == synced:
                self._records.commit(record.id, name, labels)
        if record.id == synced:
            self._lists.pop(synced, None)
        return record.id == synced

    def _check_commit(self, name: str, key: str, labels: Labels, parent: str) -> Record:
        """The key's record; raises what commit answers, in its order of errors (SNAP-COMMIT-5, SNAP-COMMIT-6)."""
        record = self._known(key)
        if self._records.find(name) is not None:
            raise AlreadyExists(f"snapshot {name!r} exists: remove it first or take another name")
        if not name:
            raise InvalidArgument("the name is empty: give one")
        if record.kind is not Kind.ACTIVE:
            raise FailedPrecondition(f"snapshot {key!r} is {record.kind.value}: only an active one can be committed")
        if parent not in ("", record.parent):
            raise InvalidArgument(f"snapshot {key!r} stands on {record.parent!r}: its parent does not change at commit")
        _check_labels(labels)
        return record

    # --- looking

    async def mounts(self, key: str) -> Sequence[Mount]:
        """The mount list of an active snapshot or a view (SNAP-MOUNTS)."""
        with self._call():
            record = self._records.recall(key)
            given = None if record is None else self._lists.get(record.id)
            return await self._in_order(self._mounts_of, key) if given is None else given

    def _mounts_of(self, key: str) -> tuple[Mount, ...]:
        record = self._known(key)
        if record.kind is Kind.COMMITTED:
            raise FailedPrecondition(f"snapshot {key!r} is committed: prepare or view one on top of it")
        given = self._lists[record.id] = self._mount_list(record)
        return given

    def _bind(self, number: int, access: str) -> tuple[Mount, ...]:
        return (Mount("bind", self._layout.fs(number), (access, "rbind")),)

    async def stat(self, key: str) -> Info:
        """The record of `key` (SNAP-STAT)."""
        with self._call():
            return (await self._told(key)).info

    async def _told(self, key: str) -> Record:
        """The record of `key`, at once where it can be recalled."""
        recalled = self._records.recall(key)
        return await self._in_order(self._known, key) if recalled is None else recalled

    def _known(self, key: str, what: str = "snapshot") -> Record:
        record = self._records.find(key)
        if record is None:
            raise NotFound(f"{what} {key!r} does not exist")
        return record

    async def walk(self, filters: Sequence[str] = ()) -> AsyncIterator[Info]:
        """The records that match any of `filters`, all without one, as they are at one moment, sorted by key (SNAP-WALK)."""
        with self._call():
            infos = await self._in_order(self._matching, _parsed(filters))
        for info in infos:
            yield info

    def _matching(self, filters: list[Filter]) -> list[Info]:
        infos = [record.info for record in self._records.all()]
        return [info for info in infos if not filters or any(matches(f, info) for f in filters)]

    async def usage(self, key: str) -> Usage:
        """The bytes and inodes that `key` takes for itself; those of a committed one never change (SNAP-USAGE)."""
        with self._call():
            record = await self._told(key)
            if record.kind is Kind.VIEW:
                return Usage(0, 0)
            if record.usage is not None:
                return record.usage
            try:
                usage = await self._stoppable(self._measure, record)
            except OSError:
                await self._in_order(self._still_there, record)
                raise
            if self._records.recall(key) == record and record.kind is Kind.ACTIVE:
                return usage
            return await self._in_order(self._measured, record, usage)

    def _measure(self, record: Record, stop: Event) -> Usage:
        # What is not yet written has no blocks yet. Commit has written all there is of a committed one.
        if record.kind is Kind.ACTIVE:
            syncfs(self._root, self._layout.root)
        return measure(self._layout.fs(record.id), stop)

    def _still_there(self, record: Record) -> Record:
        now = self._records.get(record.id)
        if now is None:
            raise NotFound(f"snapshot {record.name!r} was removed while it was measured")
        return now

    def _measured(self, record: Record, usage: Usage) -> Usage:
        now = self._still_there(record)
        if record.kind is not Kind.COMMITTED:
            return usage
        if now.usage is not None:  # a call at the same time was first
            return now.usage
        self._records.keep_usage(record.id, usage)
        return usage

    # --- changing

    async def update(self, info: Info, paths: Sequence[str] = ()) -> Info:
        """Change the labels of `info.name`: all of them, or the `paths` `labels` and `labels.KEY` (SNAP-UPDATE)."""
        with self._call():
            return await self._in_order(self._update, info, tuple(paths))

    def _update(self, info: Info, paths: tuple[str, ...]) -> Info:
        with self._records.write():
            record = self._known(info.name)
            return self._records.relabel(record, relabelled(record.labels, info.labels, paths)).info

    async def remove(self, key: str) -> None:
        """Remove `key`, which has no children; its directory is deleted afterwards (SNAP-REMOVE)."""
        with self._call():
            await self._in_order(self._remove, key)

    def _remove(self, key: str) -> None:
        number = self._making_room(lambda: self._unlist(key))
        self._discard(self._layout.directory(number), number)

    def _unlist(self, key: str) -> int:
        gone = self._deleted[:]
        with self._records.write():
            record = self._known(key)
            if self._records.has_children(record.id):
                raise FailedPrecondition(f"snapshot {key!r} has children: remove them first")
            self._records.remove(record.id)
            self._records.forget(gone)
        del self._deleted[: len(gone)]
        self._lists.pop(record.id, None)
        return record.id

    # --- deleting

    async def cleanup(self) -> None:
        """Delete all that no record names, then give the pool's free space back (SNAP-CLEANUP).

        Raises FailedPrecondition, when all else is deleted, for what is still mounted.
        """
        with self._call():
            stuck = await self._in_order(self._sweep)
            failures = await settled(asyncio.wrap_future(self._deleter.submit(self._empty_trash, stuck)))
            await self._in_order(self._settle_trash)
            await self._beside(self._trim)
            if failures:
                raise failures[0]

    def _trim(self) -> None:
        if self._pool is None:
            return
        try:
            self._pool.trim()
        except PoolError as error:  # it costs room outside; here all is done
            _log.warning("the pool is not trimmed: %s", error)

    def _sweep(self) -> list[str]:
        """Scrap the directories that no record names; gives those that have to be deleted where they are.

        It runs between transactions, so that none of them is being made.
        """
        removed = {self._layout.directory(number) for number in self._records.trash()}
        nameless = self._layout.numbers() - {record.id for record in self._records.all()}
        stray = self._layout.started() - self._making
        stuck = []
        for path in [*(self._layout.directory(number) for number in nameless), *stray]:
            try:
                self._scrap(path)
            except SnapshotError as error:
                _log.warning("%s cannot be moved to the trash: %s", path, error)
                if path in removed | stray:  # no new snapshot ever gets this path
                    stuck.append(path)
        return stuck

    def _settle_trash(self) -> None:
        """Forget the removed ids of which nothing is left; a pool that has room again gets its ballast."""
        left = self._layout.left()
        gone = [number for number in self._records.trash() if number not in left]
        if gone:
            self._making_room(lambda: self._forget(gone))
        self._restore_ballast()

    def _forget(self, numbers: list[int]) -> None:
        with self._records.write():
            self._records.forget(numbers)

    def _empty_trash(self, stuck: list[str]) -> list[Exception]:
        failures = []
        for path in stuck + self._layout.scrapped():
            failure = self._delete(path)
            if failure is not None:
                failures.append(failure)
        return failures

    def _discard(self, path: str, number: int | None = None) -> None:
        """Delete `path`, if it is there; what fails is left for cleanup. `number`: the removed id whose directory it is."""
        if not os.path.lexists(path):
            return
        try:
            place = self._scrap(path)
        except SnapshotError as error:
            # A full file system may have no room to rename, but will have some to delete.
            _log.warning("%s cannot be moved to the trash: %s", path, error)
            if number is None:  # then the path may be used again: it has to be free when this returns
                self._delete(path)
                return
            place = path
        self._deleter.submit(self._delete, place, number)

    def _scrap(self, path: str) -> str:
        with _answers():
            return self._making_room(lambda: self._layout.scrap(path))

    def _delete(self, path: str, number: int | None = None) -> Exception | None:
        """Delete one directory of the trash; gives what prevented it."""
        try:
            remove_tree(path)
        except FileNotFoundError:
            pass  # cleanup was first
        except MountError as error:
            _log.warning("%s is left for cleanup: %s", path, error)
            return FailedPrecondition(str(error))
        except OSError as error:
            _log.warning("%s is left for cleanup: %s", path, error)
            return error
        if number is not None:
            self._deleted.append(number)
        if self._ballast_given:
            self._sync_deletion()
            self._recorder.submit(self._restore_ballast)
        return None

    def _making_room(self, job: Callable[[], T]) -> T:
        """What frees space must work on a full pool: then the job is done once more, with the pool's ballast given up."""
        try:
            with _answers():
                return job()
        except ResourceExhausted:
            if self._pool is None:
                raise
        self._pool.release_ballast()
        self._ballast_given = True
        return job()

    def _sync_deletion(self) -> None:
        """What was deleted makes room when it is on the disk."""
        try:
            syncfs(self._root, self._layout.root)
        except OSError as error:
            _log.warning("a deletion is not on the disk: %s", error)

    def _restore_ballast(self) -> None:
        if self._pool is not None and self._ballast_given:
            try:
                self._ballast_given = not self._pool.restore_ballast()
            except OSError as error:
                _log.warning("the pool has no ballast: %s", error)

    # --- threads

    @contextmanager
    def _call(self) -> Iterator[None]:
        """One call of the port: counted, so that close waits for it, and with its errors as the port has them."""
        if self._closing is not None:
            raise FailedPrecondition(_CLOSED)
        self._calls += 1
        try:
            with _answers():
                yield
        finally:
            self._calls -= 1
            if self._calls == 0 and self._idle is not None:
                self._idle.set()

    async def _in_order(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `job` in the thread of the records, after all that was asked before."""
        return await settled(asyncio.wrap_future(self._recorder.submit(job, *args, **kwargs)))

    async def _beside(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `job` in a thread beside that of the records."""
        return await settled(asyncio.wrap_future(self._workers.submit(job, *args, **kwargs)))

    async def _stoppable(self, job: Callable[[Record, Event], T], record: Record) -> T:
        """Run `job` beside the records; when the call is cancelled the event is set, and the job raises Stopped."""
        stop = Event()
        return await settled(asyncio.wrap_future(self._workers.submit(job, record, stop)), stop)


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


@contextmanager
def _answers() -> Iterator[None]:
    """Turn what the system refuses into the errors of the port."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceExhausted(f"no room left: remove snapshots or enlarge the pool ({error})") from error
        raise SnapshotError(f"the system refused: {error}") from error
    except PoolError as error:
        kind = FailedPrecondition if isinstance(error, PoolBusy) else SnapshotError
        raise kind(str(error)) from error


def _check_labels(labels: Labels) -> None:
    if any(not key for key, _ in labels):
        raise InvalidArgument("a label has an empty key: give it one")


def _parsed(filters: Sequence[str]) -> list[Filter]:
    try:
        return [parse(text) for text in filters]
    except ValueError as error:
        raise InvalidArgument(str(error)) from error


def relabelled(labels: Labels, given: Labels, paths: Sequence[str]) -> Labels:
    """`labels` with what `paths` name taken from `given`, left to right; all of `given` without a path (SNAP-UPDATE-5).

    Raises InvalidArgument for any other path than `labels` and `labels.KEY`.
    """
    now, wanted = dict(labels), dict(given)
    for path in paths or ("labels",):
        field, _, key = path.partition(".")
        if path == "labels":
            now = dict(wanted)
        elif field == "labels" and key:
            now[key] = wanted.get(key, "")
        else:
            raise InvalidArgument(f"field {path!r} cannot be changed: give `labels` or `labels.KEY`")
    changed = labels_of(now)
    _check_labels(changed)
    return changed
