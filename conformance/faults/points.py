"""Fault points: every place where a driver in this process asks the system to change something.

Those are the functions of the module `os`, files opened to be written, ioctl, the system calls of `impl.syscalls`, and the
statements of sqlite. In a block of `watched` others stand in their places, which pass everything on. While a `Window` is open,
which is while a call of the driver is under way, they also count it, and let one of it fail. The kit asks for nothing meanwhile.
What sqlite writes is not seen here: its statements are.
"""

from __future__ import annotations

import asyncio
import builtins
import ctypes
import errno
import fcntl
import io
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial, wraps
from typing import Any, TypeVar
from unittest.mock import patch

from snapspec.conformance.durable.child import Gone
from snapspec.conformance.faults import Faulted, How
from snapspec.impl import syscalls

T = TypeVar("T")

#: The functions of `os` that change something.
_OS = (
    *("mkdir", "rmdir", "rename", "replace", "unlink", "remove", "link", "symlink", "mknod", "mkfifo"),
    *("chmod", "fchmod", "chown", "fchown", "lchown", "utime", "setxattr", "removexattr"),
    *("write", "writev", "pwrite", "pwritev", "sendfile", "copy_file_range", "splice", "truncate", "ftruncate"),
    *("posix_fallocate", "fsync", "fdatasync", "sync"),
)

#: What makes an open one that changes something.
_MAKES = os.O_CREAT | os.O_TRUNC | getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY

#: The calls of the C library, and of those by number: loop devices, mounts and trims. Others only look, or open to look.
_LIBC = ("mount", "umount2", "syncfs")
_BY_NUMBER = {429: "move_mount", 431: "fsconfig", 432: "fsmount"}
_LOOKS_ONLY = frozenset({syscalls._LOOP_GET_STATUS64})

#: The statements of sqlite that change something. A rollback does not ask the disk for anything.
_SQL = (
    "INSERT",
    "UPDATE",
    "DELETE",
    "REPLACE",
    "BEGIN",
    "COMMIT",
    "END",
    "CREATE",
    "DROP",
    "ALTER",
    "VACUUM",
    "SAVEPOINT",
    "RELEASE",
)

#: How long, in seconds, a task is waited for that the driver has begun and leaves to itself, and a cancellation to arrive.
PATIENCE = 0.2

#: The commit of a transaction.
COMMIT = "sqlite COMMIT"


class Canceled(Gone):
    """The call was cancelled, and has ended so."""


class _Injected(Exception):
    """A call of the C library is to fail with this errno."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Window:
    """One call of the driver: `seen` counts the points that it came to, `fault` is what is to fail, `fired` whether that came.

    `number` picks the point by its number instead of its name; then `fault` is what it turned out to be.
    """

    def __init__(self, fault: Faulted | None = None, number: int = 0) -> None:
        self.fault = fault
        self.number = number
        self.fired = False
        self.seen: list[str] = []
        self.task: asyncio.Task[Any] | None = None
        self._futures: list[Future[Any]] = []
        self._lock = threading.Lock()

    def reach(self, name: str, effect: Callable[[], T], error: Callable[[int], BaseException], undo: Callable[[T], None]) -> T:
        """What `effect` gives; raises `error` where this is the point that fails. `undo`: of what the caller then never gets."""
        fault = self._meant(name)
        if fault is None:
            return effect()
        if fault.how is How.CANCEL:
            self._cancel()
            return effect()
        if fault.how is How.AFTER:
            undo(effect())
        raise error(getattr(errno, fault.error))

    def _meant(self, name: str) -> Faulted | None:
        """The fault, if this point is the one."""
        with self._lock:
            self.seen.append(name)
            fault = self.fault
            if fault is None or self.fired:
                return None
            if self.number:
                self.fired = len(self.seen) == self.number
                if self.fired:
                    fault = self.fault = named(fault, self.seen)
            else:
                self.fired = fault.at == name and fault.nth == self.seen.count(name)
            return fault if self.fired else None

    def _cancel(self) -> None:
        """Cancel the call, and wait until it has heard of that."""
        assert self.task is not None, "a window is open while a call is under way"
        loop, arrived = self.task.get_loop(), threading.Event()
        if getattr(loop, "_thread_id", None) == threading.get_ident():
            self.task.cancel()
            return

        def cancel() -> None:
            assert self.task is not None
            self.task.cancel()
            loop.call_soon(loop.call_soon, arrived.set)

        loop.call_soon_threadsafe(cancel)
        arrived.wait(PATIENCE)

    async def run(self, call: Callable[[], Any]) -> Any:
        """What the driver's call gives, once all that it has begun has ended. Raises Canceled when the call ended so."""
        before = asyncio.all_tasks()
        task = self.task = asyncio.ensure_future(call())
        with _opened(self):
            await asyncio.wait({task})
            await self._settled(before | {task})
        self.task = None  # its error would hold what the driver is to let go of
        if task.cancelled():
            raise Canceled("the call was cancelled, and ended so")
        return task.result()

    async def _settled(self, others: set[asyncio.Task[Any]]) -> None:
        """Wait for what the call has left to threads, and a while for tasks."""
        while True:
            futures, self._futures = [future for future in self._futures if not future.done()], []
            if futures:
                await asyncio.wait([asyncio.ensure_future(_ended(future)) for future in futures])
            elif tasks := asyncio.all_tasks() - others:
                await asyncio.wait(tasks, timeout=PATIENCE)
                others |= tasks
            else:
                return

    def submitted(self, future: Future[Any]) -> None:
        """The driver has left something to a thread."""
        self._futures.append(future)


async def _ended(future: Future[Any]) -> None:
    """Wait until what a thread does is done, whatever comes of it."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    future.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
    await ended.wait()


def named(fault: Faulted, seen: list[str]) -> Faulted:
    """The fault, at the last of the points that were seen."""
    possible = errors(seen[-1], fault.how)
    error = "" if fault.how is How.CANCEL else fault.error if fault.error in possible else possible[0]
    return replace(fault, at=seen[-1], nth=seen.count(seen[-1]), error=error)


def errors(name: str, how: How = How.BEFORE) -> tuple[str, ...]:
    """What the kernel may answer at such a point, besides doing it, or though it has done it."""
    if how is How.AFTER:
        return ("EIO",) if name == COMMIT else ("ENOSPC", "EIO")  # sqlite finds no room for a commit only where none is made
    return ("ENOSPC", "EIO", "EBUSY") if name in ("rmdir", "rename", "replace", "umount2") else ("ENOSPC", "EIO")


def points(seen: list[str]) -> list[tuple[str, int]]:
    """The points in their order: each with its name, and its number among those of that name."""
    counts: Counter[str] = Counter()
    found = []
    for name in seen:
        counts[name] += 1
        found.append((name, counts[name]))
    return found


# --- while a call is under way

_window: Window | None = None


@contextmanager
def _opened(window: Window) -> Iterator[None]:
    global _window
    _window = window
    try:
        yield
    finally:
        _window = None


def _nothing(_: object) -> None:
    """There is nothing to undo: the effect is the fault's."""


# --- in place of what a driver calls


@contextmanager
def watched() -> Iterator[None]:
    """For as long as the block lasts, all that changes something can be seen by a window. Drivers are to be imported in it."""
    with ExitStack() as stack:
        for name in _OS:
            if hasattr(os, name):
                stack.enter_context(patch.object(os, name, _counted(name, getattr(os, name))))
        stack.enter_context(patch.object(os, "open", _counted_open(os.open)))
        for module in (builtins, io):
            stack.enter_context(patch.object(module, "open", _counted_file(module.open)))
        stack.enter_context(patch.object(fcntl, "ioctl", _counted_ioctl(fcntl.ioctl)))
        stack.enter_context(patch.object(syscalls, "_libc", _Library(syscalls._libc)))
        stack.enter_context(patch.object(sqlite3, "connect", _counted_connect(sqlite3.connect)))
        stack.enter_context(patch.object(ThreadPoolExecutor, "submit", _seen_submit(ThreadPoolExecutor.submit)))
        yield


def _os_error(path: object) -> Callable[[int], OSError]:
    named = (path,) if isinstance(path, str | bytes) else ()
    return lambda code: OSError(code, os.strerror(code), *named)


def _counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(real)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _window is None:
            return real(*args, **kwargs)
        return _window.reach(name, lambda: real(*args, **kwargs), _os_error(args[0] if args else None), _nothing)

    return call


def _counted_open(real: Callable[..., int]) -> Callable[..., int]:
    @wraps(real)
    def call(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if _window is None or not flags & _MAKES:
            return real(path, flags, *args, **kwargs)
        return _window.reach("open", lambda: real(path, flags, *args, **kwargs), _os_error(path), os.close)

    return call


class _File(io.FileIO):
    """A file whose writes are points."""

    def write(self, data: Any, /) -> int:
        """See io."""
        return _through("write", lambda: io.FileIO.write(self, data), self.name)

    def truncate(self, size: int | None = None, /) -> int:
        """See io."""
        return _through("truncate", lambda: io.FileIO.truncate(self, size), self.name)


def _through(name: str, effect: Callable[[], T], path: object) -> T:
    return effect() if _window is None else _window.reach(name, effect, _os_error(path), _nothing)


def _counted_file(real: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(real)
    def call(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if _window is None or not set(mode) & set("wax+"):
            return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
        plain = "".join(c for c in mode if c in "rwax+")
        raw = _made_file(file, plain, closefd, opener)
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline, buffering == 1)

    return call


def _made_file(file: Any, mode: str, closefd: bool, opener: Any) -> _File:
    def effect() -> _File:
        return _File(file, mode, closefd, opener)

    makes = not isinstance(file, int) and opener is None and set(mode) & set("wax")
    return _window.reach("open", effect, _os_error(file), io.FileIO.close) if makes and _window is not None else effect()


def _counted_ioctl(real: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(real)
    def call(fd: Any, request: int, *args: Any) -> Any:
        if _window is None or request in _LOOKS_ONLY:
            return real(fd, request, *args)
        return _window.reach("ioctl", lambda: real(fd, request, *args), _os_error(None), _nothing)

    return call


class _Library:
    """The C library, as `impl.syscalls` calls it."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if _window is None or name not in (*_LIBC, "syscall"):
            return real

        def call(*args: Any) -> int:
            point = name if name in _LIBC else _BY_NUMBER.get(args[0].value, "")
            return _by_errno(point, lambda: real(*args)) if point else real(*args)

        return call


def _by_errno(name: str, effect: Callable[[], int]) -> int:
    """A call that fails as those of C do."""
    saved = [0]

    def real() -> int:
        result = effect()
        saved[0] = ctypes.get_errno()
        return result

    try:
        result = real() if _window is None else _window.reach(name, real, _Injected, lambda fd: os.close(fd) if fd > 0 else None)
    except _Injected as injected:
        ctypes.set_errno(injected.code)
        return -1
    ctypes.set_errno(saved[0])
    return result


def _seen_submit(real: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    @wraps(real)
    def submit(self: ThreadPoolExecutor, *args: Any, **kwargs: Any) -> Future[Any]:
        future = real(self, *args, **kwargs)
        if _window is not None:
            _window.submitted(future)
        return future

    return submit


# --- sqlite

_SQLITE_ERRORS = {errno.ENOSPC: ("database or disk is full", sqlite3.SQLITE_FULL)}


def _sqlite_error(code: int) -> sqlite3.Error:
    text, number = _SQLITE_ERRORS.get(code, ("disk I/O error", sqlite3.SQLITE_IOERR))
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = number
    return error


def _statement(sql: str) -> str:
    """The name of the point, empty for a statement that changes nothing."""
    word = sql.split(None, 1)[0].upper().rstrip(";") if sql.strip() else ""
    changes = word in _SQL or (word == "PRAGMA" and "=" in sql)
    return f"sqlite {'COMMIT' if word == 'END' else word}" if changes else ""


def _executed(sql: str, effect: Callable[[], T]) -> T:
    name = _statement(sql)
    return _window.reach(name, effect, _sqlite_error, _nothing) if name and _window is not None else effect()


class _Cursor(sqlite3.Cursor):
    """A cursor whose statements are points."""

    def execute(self, sql: str, *args: Any) -> Any:
        """See sqlite3."""
        return _executed(sql, lambda: sqlite3.Cursor.execute(self, sql, *args))

    def executemany(self, sql: str, *args: Any) -> Any:
        """See sqlite3."""
        return _executed(sql, lambda: sqlite3.Cursor.executemany(self, sql, *args))

    def executescript(self, sql: str) -> Any:
        """See sqlite3."""
        return _executed(sql, lambda: sqlite3.Cursor.executescript(self, sql))


def _of_its_own(cursor: sqlite3.Cursor, method: str, *args: Any) -> Any:
    """Execute on a cursor that the driver knows nothing of: where that fails, the frames of the error are not to keep it open."""
    try:
        return getattr(cursor, method)(*args)
    except BaseException:
        cursor.close()
        raise


def _counted_connect(real: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(real)
    def connect(*args: Any, **kwargs: Any) -> Any:
        counted = {**kwargs, "factory": _counted_connection(kwargs.get("factory", sqlite3.Connection))}
        if _window is None:
            return real(*args, **counted)
        return _window.reach("sqlite open", lambda: real(*args, **counted), _sqlite_error, lambda db: db.close())

    return connect


def _counted_connection(base: Any) -> Any:
    """The class of connections, with statements that are points."""

    class Counted(base):  # type: ignore[misc]  # the class that the driver asked for
        def execute(self, sql: str, *args: Any) -> Any:
            return _of_its_own(self.cursor(), "execute", sql, *args)

        def executemany(self, sql: str, *args: Any) -> Any:
            return _of_its_own(self.cursor(), "executemany", sql, *args)

        def executescript(self, sql: str) -> Any:
            return _of_its_own(self.cursor(), "executescript", sql)

        def cursor(self, factory: Any = _Cursor) -> Any:
            return base.cursor(self, factory)

        def commit(self) -> None:
            if self.in_transaction:
                _executed("COMMIT", partial(base.commit, self))

        def __exit__(self, kind: Any, *rest: Any) -> Any:
            if kind is None:
                self.commit()
                return False
            return base.__exit__(self, kind, *rest)

    return Counted
