"""Gates: each call through a port waits until the schedule decides what becomes of it.

A call that is cancelled stays at its gate until its effect is decided, and raises then: the rule that every port keeps.
"""

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeVar

from snapspec.conformance.loop import GatedLoop
from snapspec.impl.errors import SnapshotError
from snapspec.impl.metadata import Entry, Store
from snapspec.impl.ports import Snapshotter
from snapspec.impl.ref_errors import StoreError
from snapspec.model.values import Info, Mount, Usage

T = TypeVar("T")

#: The number of the call of the history on whose behalf code runs; tasks that it starts inherit it.
CALL: ContextVar[int] = ContextVar("call", default=0)


class Verdict(Enum):
    """What becomes of a call that waits at its gate."""

    GO = "go"
    """The effect and the answer; at a gate of an answer that is held: the answer."""
    GIVE_UP = "give up"
    """No effect; only for a call that was cancelled."""
    HOLD = "hold"
    """The effect now; the answer waits at the gate once more."""
    FAIL_BEFORE = "fail before"
    """An error, without the effect."""
    FAIL_AFTER = "fail after"
    """The effect, then an error."""
    DIE = "die"
    """The process has died: an error, without an effect that has not happened yet."""


_WITHOUT_EFFECT = (Verdict.FAIL_BEFORE, Verdict.GIVE_UP, Verdict.DIE)


@dataclass(slots=True, eq=False)
class Gate:
    """A call at its gate. `call` is the number of the history's call that it is made for; `changes`: it can change something.

    `landed`: the effect has happened, and what waits is the answer. `cancelled`: whoever made the call was cancelled meanwhile.
    """

    call: int
    port: str
    name: str
    arguments: tuple[object, ...]
    changes: bool
    waiter: asyncio.Future[None] | None = None
    landed: bool = False
    cancelled: bool = False
    verdict: Verdict | None = None

    @property
    def text(self) -> str:
        """The call in words."""
        return f"{self.port} {self.name}({', '.join(map(repr, self.arguments))}) for call {self.call}"

    def __str__(self) -> str:
        return f"the answer of {self.text}" if self.landed else self.text


class Outside(Protocol):
    """What runs work to its end on another loop, as `asyncio.Runner.run` does."""

    def __call__(self, work: Coroutine[Any, Any, T], /) -> T: ...


def beside(outside: Outside, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives, which runs to its end on another loop while the gated one stands still."""
    gated = events._get_running_loop()
    events._set_running_loop(None)
    try:
        return outside(work)
    finally:
        events._set_running_loop(gated)


@dataclass(slots=True)
class Gates:
    """The gates of one life of a process. `waiting` are the calls at them, the longest waiting first.

    While they are `open`, calls pass without waiting. After `die` every call is refused. Effects run in `loop`, or, over a driver
    that needs threads, files or a network, by `outside`: to their end on the loop of that driver, while `loop` stands still.
    """

    loop: GatedLoop
    outside: Outside | None = None
    open: bool = False
    dead: bool = False
    waiting: list[Gate] = field(default_factory=list)

    async def call(
        self,
        port: str,
        name: str,
        arguments: tuple[object, ...],
        effect: Callable[[], Coroutine[Any, Any, T]],
        failure: Callable[[str], Exception],
        changes: bool = True,
    ) -> T:
        """Make the call `effect` when and as the schedule says; an error that the schedule wants is made by `failure`."""
        if self.dead:
            raise failure("the process has died")
        if self.open:
            return await (effect() if self.outside is None else self._outside(effect))
        gate = Gate(CALL.get(), port, name, arguments, changes)
        verdict = await self._decided(gate)
        if verdict in _WITHOUT_EFFECT:
            if gate.cancelled:
                raise asyncio.CancelledError
            raise failure(f"{verdict.value}, as the schedule wants it")
        try:
            return await (effect() if self.outside is None else self._outside(effect))
        finally:  # whatever the effect answers, an error too
            if verdict is Verdict.HOLD:
                gate.landed = True
                verdict = await self._decided(gate)
            if gate.cancelled:
                raise asyncio.CancelledError
            if verdict in (Verdict.FAIL_AFTER, Verdict.DIE):
                raise failure(f"{verdict.value}, as the schedule wants it")

    async def _outside(self, effect: Callable[[], Coroutine[Any, Any, T]]) -> T:
        assert self.outside is not None
        return beside(self.outside, effect())

    async def _decided(self, gate: Gate) -> Verdict:
        """Wait at the gate. A cancellation is kept for later: to leave now would leave the effect undecided."""
        gate.verdict = None
        self.waiting.append(gate)
        while gate.verdict is None:
            gate.waiter = self.loop.create_future()
            try:
                await gate.waiter
            except asyncio.CancelledError:
                gate.cancelled = True
        return gate.verdict

    def decide(self, gate: Gate, verdict: Verdict) -> None:
        """The verdict on a waiting call; it takes effect when the loop runs."""
        self.waiting.remove(gate)
        gate.verdict = verdict
        if gate.waiter is not None and not gate.waiter.done():
            gate.waiter.set_result(None)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The context in which nothing waits: what waited goes on, what comes passes."""
        self.open = True
        for gate in tuple(self.waiting):
            self.decide(gate, Verdict.GO)
        try:
            yield
        finally:
            self.open = False

    def die(self) -> None:
        """From now on no call of this life has an effect or an answer other than an error."""
        self.dead = True
        for gate in tuple(self.waiting):
            self.decide(gate, Verdict.DIE)


class GatedSnapshotter:
    """A driver behind gates (see `snapspec.impl.ports.Snapshotter`)."""

    def __init__(self, gates: Gates, driver: Snapshotter) -> None:
        self._gates = gates
        self._driver = driver

    def _change(self, name: str, arguments: tuple[object, ...], effect: Callable[[], Coroutine[Any, Any, T]]) -> Awaitable[T]:
        return self._gates.call("driver", name, arguments, effect, SnapshotError)

    def _look(self, name: str, arguments: tuple[object, ...], effect: Callable[[], Coroutine[Any, Any, T]]) -> Awaitable[T]:
        return self._gates.call("driver", name, arguments, effect, SnapshotError, changes=False)

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """The driver's prepare, at a gate."""
        return await self._change("prepare", (key, parent), lambda: self._driver.prepare(key, parent, labels))

    async def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """The driver's view, at a gate."""
        return await self._change("view", (key, parent), lambda: self._driver.view(key, parent, labels))

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        """The driver's commit, at a gate."""
        await self._change("commit", (name, key), lambda: self._driver.commit(name, key, labels, parent))

    async def remove(self, key: str) -> None:
        """The driver's remove, at a gate."""
        await self._change("remove", (key,), lambda: self._driver.remove(key))

    async def mounts(self, key: str) -> Sequence[Mount]:
        """The driver's mounts, at a gate."""
        return await self._look("mounts", (key,), lambda: self._driver.mounts(key))

    async def stat(self, key: str) -> Info:
        """The driver's stat, at a gate."""
        return await self._look("stat", (key,), lambda: self._driver.stat(key))

    async def update(self, info: Info, paths: Sequence[str] = ()) -> Info:
        """The driver's update, at a gate."""
        return await self._change("update", (info.name,), lambda: self._driver.update(info, paths))

    async def usage(self, key: str) -> Usage:
        """The driver's usage, at a gate."""
        return await self._look("usage", (key,), lambda: self._driver.usage(key))

    async def walk(self, filters: Sequence[str] = ()) -> AsyncIterator[Info]:
        """The driver's walk, at one gate: what it tells is all of one moment."""

        async def collected() -> list[Info]:
            return [info async for info in self._driver.walk(filters)]

        for info in await self._look("walk", tuple(filters), collected):
            yield info

    async def cleanup(self) -> None:
        """The driver's cleanup, at a gate."""
        await self._change("cleanup", (), self._driver.cleanup)

    async def close(self) -> None:
        """The driver's close, at a gate."""
        await self._change("close", (), self._driver.close)


class GatedStore:
    """A metadata store behind gates (see `snapspec.impl.metadata.Store`)."""

    def __init__(self, gates: Gates, store: Store) -> None:
        self._gates = gates
        self._store = store

    async def load(self) -> dict[str, dict[str, str]]:
        """The store's load, at a gate."""
        return await self._gates.call("store", "load", (), self._store.load, StoreError, changes=False)

    async def read(self, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """The store's read, at a gate."""
        return await self._gates.call("store", "read", tuple(ids), lambda: self._store.read(ids), StoreError, changes=False)

    async def write(self, changes: Mapping[str, Entry | None]) -> None:
        """The store's write, at a gate: of `changes` as they are now, as the port asks."""
        kept = {name: None if entry is None else dict(entry) for name, entry in changes.items()}
        shown = tuple(name if entry is not None else f"without {name}" for name, entry in kept.items())
        await self._gates.call("store", "write", shown, lambda: self._store.write(kept), StoreError)

    async def close(self) -> None:
        """The store's close, at a gate."""
        await self._gates.call("store", "close", (), self._store.close, StoreError)
