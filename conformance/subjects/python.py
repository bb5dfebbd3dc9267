"""`py:package.module:factory`: a driver written in Python, in this process."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from snapspec.conformance.contents import Contents
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.subjects.base import PortSubject
from snapspec.impl.errors import SnapshotError
from snapspec.impl.ports import Snapshotter
from snapspec.model.state import Profile
from snapspec.model.values import Info, Mount, Usage

#: The methods of the port.
METHODS = ("prepare", "view", "commit", "remove", "mounts", "stat", "update", "usage", "walk", "cleanup", "close")


def find_factory(where: str) -> Callable[[Path], Any]:
    """The factory that `package.module:name` names. CannotRun, saying what is missing, when there is none."""
    module, _, name = where.partition(":")
    if not module or not name:
        raise CannotRun(f"py:{where} names no factory: write py:package.module:factory")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # as `python -m` has it, and a command that was installed has not
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise CannotRun(f"py:{where} cannot be imported ({error}): install it, go to where it is, or set PYTHONPATH") from None
    except Exception as error:
        raise CannotRun(f"py:{where} cannot be imported ({type(error).__name__}: {error}): mend it first") from error
    if found is None:
        raise CannotRun(f"the module {module} has no {name!r}: name a function that takes a directory and gives a driver")
    if not callable(found):
        raise CannotRun(f"{name!r} in {module} cannot be called: name a function that takes a directory and gives a driver")
    factory: Callable[[Path], Any] = found
    return factory


class PythonSubject(PortSubject):
    """A driver that `factory(directory)` opens, with the methods of the snapshotter port, each plain or async.

    To reopen, the driver is closed and the factory is called again with the same directory.
    """

    reopens = True

    def __init__(self, name: str, contents: Contents, directory: Path, factory: Callable[[Path], Any], profile: Profile) -> None:
        super().__init__(contents)
        self.name = name
        self.note = "a driver in this process"
        self.profile = profile
        self.directory = directory
        self.factory = factory
        self._driver: Snapshotter | None = None

    def driver(self, space: int) -> Snapshotter:
        """The driver; it has one namespace."""
        if self._driver is None:
            raise CannotRun("the driver was not started: start the subject first")
        return self._driver

    async def start(self) -> None:
        """Call the factory. CannotRun when it fails, or gives something that lacks a method."""
        try:
            made = await self._made()
        except Exception as error:
            raise CannotRun(f"the factory of {self.name} failed ({type(error).__name__}: {error}): mend it first") from error
        lacking = [name for name in METHODS if not callable(getattr(made, name, None))]
        self._driver = None if "close" in lacking else Threaded(made)
        if lacking:
            kind = type(made).__name__
            raise CannotRun(f"the {kind} that {self.name} gives lacks {', '.join(lacking)}: give it all methods of a driver")

    async def _made(self) -> Any:
        made = self.factory(self.directory)
        return await made if inspect.isawaitable(made) else made

    async def _clear(self, driver: Snapshotter) -> None:
        """What a driver does not remove stays: no other history names it, and its directory goes at the end."""
        with suppress(SnapshotError):
            await super()._clear(driver)

    async def reopen(self, close_twice: bool) -> None:
        """Close, twice when asked, and call the factory again with the same directory."""
        await self.driver(0).close()
        if close_twice:
            await self.driver(0).close()
        self._driver = Threaded(await self._made())

    async def stop(self) -> None:
        """Close the driver; its directory is the run's to remove. CannotRun when the driver cannot be closed."""
        if self._driver is not None:
            try:
                await self._driver.close()
            except Exception as error:
                raise CannotRun(f"{self.name} cannot be closed ({type(error).__name__}: {error}): mend that first") from error


class Threaded:
    """A driver whose methods may be plain: those run in a thread, so that one that hangs is seen to hang.

    What it raises that is no `SnapshotError` is an error of no class, Unknown.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    async def _call(self, name: str, *arguments: object) -> Any:
        with _unknown():
            return await self._called(name, *arguments)

    async def _called(self, name: str, *arguments: object) -> Any:
        method = getattr(self._driver, name)
        if inspect.iscoroutinefunction(method):
            return await method(*arguments)
        result = await asyncio.to_thread(method, *arguments)
        return await result if inspect.isawaitable(result) else result

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """See the port."""
        mounts: Sequence[Mount] = await self._call("prepare", key, parent, labels)
        return mounts

    async def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """See the port."""
        mounts: Sequence[Mount] = await self._call("view", key, parent, labels)
        return mounts

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        """See the port."""
        await self._call("commit", name, key, labels, parent)

    async def remove(self, key: str) -> None:
        """See the port."""
        await self._call("remove", key)

    async def mounts(self, key: str) -> Sequence[Mount]:
        """See the port."""
        mounts: Sequence[Mount] = await self._call("mounts", key)
        return mounts

    async def stat(self, key: str) -> Info:
        """See the port."""
        info: Info = await self._call("stat", key)
        return info

    async def update(self, info: Info, paths: Sequence[str] = ()) -> Info:
        """See the port."""
        after: Info = await self._call("update", info, paths)
        return after

    async def usage(self, key: str) -> Usage:
        """See the port."""
        usage: Usage = await self._call("usage", key)
        return usage

    async def walk(self, filters: Sequence[str] = ()) -> AsyncIterator[Info]:
        """See the port; a plain walk gives any iterable."""
        with _unknown():
            found = [self._info(info) async for info in self._walked(filters)]
        for info in found:
            yield info

    async def _walked(self, filters: Sequence[str]) -> AsyncIterator[object]:
        is_async = inspect.isasyncgenfunction(self._driver.walk)
        found = self._driver.walk(filters) if is_async else await self._called("walk", filters)
        if hasattr(found, "__aiter__"):
            async for info in found:
                yield info
            return
        for info in await asyncio.to_thread(list, found):
            yield info

    def _info(self, given: object) -> Info:
        if not isinstance(given, Info):
            raise TypeError(f"walk gave {given!r:.60}, which is no Info")
        return given

    async def cleanup(self) -> None:
        """See the port."""
        await self._call("cleanup")

    async def close(self) -> None:
        """See the port."""
        await self._called("close")


@contextmanager
def _unknown() -> Iterator[None]:
    """A driver in this process may raise anything; that is its answer."""
    try:
        yield
    except SnapshotError:
        raise
    except Exception as error:
        raise SnapshotError(f"{type(error).__name__}: {error}") from error
