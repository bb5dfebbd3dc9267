"""`exec:./adapter`: a driver behind an adapter, as a subject."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from snapspec.conformance.adapter import wire
from snapspec.conformance.adapter.client import Adapter, Hello, Refusal
from snapspec.conformance.adapter.wire import WrongForm, sent
from snapspec.conformance.contents import Contents
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.subjects.base import PortSubject
from snapspec.conformance.workspace import Workspace
from snapspec.impl.errors import BY_CLASS
from snapspec.impl.ports import Snapshotter
from snapspec.model.nodes import Tree
from snapspec.model.state import Profile
from snapspec.model.tree import Change
from snapspec.model.values import ErrorClass, Info, Mount, Usage

T = TypeVar("T")

#: The type of a mount that stands for a snapshot whose content goes by calls.
BY_CALLS = "snapspec"


def read(call: str, form: Callable[[Any], T], value: Any) -> T:
    """The value of the call, in its form. CannotRun, with the remedy, when it is of another."""
    try:
        return form(value)
    except WrongForm as wrong:
        raise CannotRun(f"the adapter has answered {call}, and {wrong}") from None


class ExecDriver:
    """The snapshotter port, over an adapter. Without mounts a list of the kit's own stands for each snapshot."""

    def __init__(self, adapter: Adapter, mounts: bool) -> None:
        self._adapter = adapter
        self._mounts = mounts

    async def _ask(self, call: str, form: Callable[[Any], T], **arguments: object) -> T:
        answer = await self._adapter.ask(call, **{name: sent(value) for name, value in arguments.items()})
        if isinstance(answer, Refusal):
            raise BY_CLASS[ErrorClass(answer.error)](answer.message)
        return read(call, form, answer)

    async def _list(self, call: str, key: str, **arguments: object) -> Sequence[Mount]:
        if self._mounts:
            return await self._ask(call, wire.mounts, key=key, **arguments)
        await self._ask(call, wire.nothing, key=key, **arguments)
        return [Mount(BY_CALLS, key)]

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """See the port."""
        return await self._list("prepare", key, parent=parent, labels=labels or {})

    async def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """See the port."""
        return await self._list("view", key, parent=parent, labels=labels or {})

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        """See the port."""
        await self._ask("commit", wire.nothing, name=name, key=key, labels=labels or {}, parent=parent)

    async def remove(self, key: str) -> None:
        """See the port."""
        await self._ask("remove", wire.nothing, key=key)

    async def mounts(self, key: str) -> Sequence[Mount]:
        """See the port."""
        return await self._list("mounts", key)

    async def stat(self, key: str) -> Info:
        """See the port."""
        return await self._ask("stat", wire.info, key=key)

    async def update(self, info: Info, paths: Sequence[str] = ()) -> Info:
        """See the port."""
        return await self._ask("update", wire.info, name=info.name, labels=dict(info.labels), mask=tuple(paths))

    async def usage(self, key: str) -> Usage:
        """See the port."""
        return await self._ask("usage", wire.usage, key=key)

    async def walk(self, filters: Sequence[str] = ()) -> AsyncIterator[Info]:
        """See the port."""
        for info in await self._ask("walk", wire.infos, filters=tuple(filters)):
            yield info

    async def cleanup(self) -> None:
        """See the port."""
        await self._ask("cleanup", wire.nothing)

    async def close(self) -> None:
        """See the port."""
        await self._ask("close", wire.nothing)

    async def open(self) -> None:
        """Open the store again that was closed."""
        await self._ask("open", wire.nothing)

    # --- content by calls

    async def write(self, mounts: Sequence[Mount], changes: Sequence[Change]) -> tuple[str, ...]:
        """As `Contents.write`."""
        return await self._ask("write", wire.results, key=mounts[0].source, changes=tuple(changes))

    async def read(self, mounts: Sequence[Mount]) -> Tree:
        """As `Contents.read`."""
        return await self._ask("read", wire.tree, key=mounts[0].source)


class ByCalls(Contents):
    """Content that goes by calls of the driver."""

    def __init__(self, driver: Callable[[], ExecDriver]) -> None:
        super().__init__(Path(), mounts=False)
        self._driver = driver

    async def write(self, mounts: Sequence[Mount], changes: Sequence[Change]) -> tuple[str, ...]:
        """See `Contents`."""
        return await self._driver().write(mounts, changes)

    async def read(self, mounts: Sequence[Mount]) -> Tree:
        """See `Contents`."""
        return await self._driver().read(mounts)


class Attended:
    """What goes on as long as its adapter does. `patience` is as `Adapter` has it."""

    adapter: Adapter | None = None
    patience: float | None = None

    async def clear(self) -> None:
        """After a history that went wrong: what is wrong with this store is not known."""
        if self.adapter is not None:
            await self.adapter.kill()

    async def stop(self) -> None:
        """Close the input of the adapter, so that it ends; kill one that does not."""
        if self.adapter is not None and self.adapter.alive:
            await self.adapter.end()

    def said(self, lines: int) -> list[str]:
        """The last lines that the adapter has written on standard error."""
        return self.adapter.last_words(lines) if self.adapter is not None else []


class ExecSubject(Attended, PortSubject):
    """A driver behind an adapter, started by the command `words`; one that has ended is started anew, on an empty store."""

    fresh = True

    def __init__(self, name: str, contents: Contents, workspace: Workspace, words: Sequence[str]) -> None:
        super().__init__(contents)
        self.name = name
        self.note = f"the adapter {' '.join(words)}"
        self.profile = Profile()
        self.words = tuple(words)
        self.log = workspace.directory / "adapter.log"
        self._workspace = workspace
        self._driver: ExecDriver | None = None

    def driver(self, space: int) -> Snapshotter:
        """The driver; it has one namespace."""
        return self.opened

    @property
    def opened(self) -> ExecDriver:
        """The driver, with what the port has not."""
        if self._driver is None:
            raise CannotRun("the adapter was not started: start the subject first")
        return self._driver

    async def start(self) -> None:
        """Start the adapter, and learn what it declares. CannotRun with the remedy."""
        hello = await self._serve()
        self.note = f"{hello.name}, through the adapter {' '.join(self.words)}"
        self.profile, self.reopens = hello.profile, hello.reopens
        if not hello.mounts:
            self.contents = ByCalls(lambda: self.opened)

    async def _serve(self) -> Hello:
        self.adapter = Adapter(self.words, self.log, self.patience)
        hello = await self.adapter.start("snapshots", self._workspace.scratch("adapter"))
        self._driver = ExecDriver(self.adapter, hello.mounts)
        return hello

    async def begin(self) -> None:
        """See `Subject`."""
        await super().begin()
        if self.adapter is not None and not self.adapter.alive:
            await self._serve()

    async def reopen(self, close_twice: bool) -> None:
        """Close, twice when asked, and open again on the same store."""
        await self.opened.close()
        if close_twice:
            await self.opened.close()
        await self.opened.open()
