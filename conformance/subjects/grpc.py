"""`containerd:SOCKET` and `plugin:SOCKET`: a snapshotter behind a socket, through containerd's metadata layer or directly."""

from __future__ import annotations

import asyncio
import datetime
import socket
import time
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Literal

import grpc.aio

from snapspec.conformance.contents import Contents
from snapspec.conformance.durable.process import Process, drop_mounts
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.subjects.base import PortSubject, clear_prefix
from snapspec.conformance.subjects.remote import Containerd, RemoteSnapshotter, TransportLost, connect, probe, socket_path
from snapspec.conformance.workspace import Note, Workspace
from snapspec.impl.errors import AlreadyExists, NotFound, SnapshotError
from snapspec.impl.ports import Snapshotter
from snapspec.model.state import Profile
from snapspec.model.values import Info, Kind

#: Seconds until a server that the kit has started must take connections.
READY = 30.0

#: Stands in a command and in an address for a new, empty directory of the run.
DIRECTORY = "{dir}"


class PluginSubject(PortSubject):
    """A snapshotter's own socket. The kit cannot reopen its store; it touches names with the run's prefix only.

    With a command the kit itself starts the server, and at the end of the run ends it. Where the command and the address name
    DIRECTORY, the store is the run's own: a new directory stands there in its place.
    """

    reopens = False
    process: Process | None = None
    _words: tuple[str, ...] = ()
    _stop: tuple[str, ...] = ()
    _kill: tuple[str, ...] = ()
    _place: Path | None = None

    def __init__(
        self,
        name: str,
        contents: Contents,
        workspace: Workspace,
        address: str,
        snapshotter: str,
        profile: Profile,
        deadline: float,
    ) -> None:
        super().__init__(contents)
        self.name = name
        self.note = f"snapshotter {snapshotter} at {address}"
        self.profile = profile
        self.workspace = workspace
        self.address = address
        self.snapshotter = snapshotter
        self.deadline = deadline
        self.run_prefix = f"snapspec-{token_hex(6)}/"
        self.channel: grpc.aio.Channel | None = None
        self.remotes: list[RemoteSnapshotter] = []
        self.noted: Note | None = None

    def history_prefix(self, number: int) -> str:
        """Names of this run and of no other."""
        return f"{self.run_prefix}{number}/"

    def driver(self, space: int) -> Snapshotter:
        """The connection of the namespace numbered `space`."""
        return self.remotes[space]

    async def start(self) -> None:
        """Connect and find the snapshotter. CannotRun with the remedy when there is none."""
        await self.begin_process()
        await self._open()
        await probe(self.remotes[0])
        self._note({"kind": "plugin", "address": self.address, "snapshotter": self.snapshotter, "prefix": self.run_prefix})

    def restarted(
        self, words: tuple[str, ...], how: Literal["stop", "kill"], stop: tuple[str, ...] = (), kill: tuple[str, ...] = ()
    ) -> None:
        """Before the start: let the server be that command, which the kit ends and starts in each history, `how` it says.

        `stop` and `kill` are the commands for that, in place of SIGTERM and SIGKILL.
        """
        self._words, self.restarts, self._template = words, how, self.address
        self._stop, self._kill = stop, kill
        self.fresh = DIRECTORY in self.address

    async def begin_process(self) -> None:
        """Start the server, where that is the kit's to do. CannotRun when there is one already: that is somebody else's."""
        if not self._words:
            return
        scratch = self.workspace.scratch("driver")
        if self.fresh:
            self._place = scratch
            self.address = self._template.replace(DIRECTORY, str(scratch))
        words, stop, kill = (
            [word.replace(DIRECTORY, str(scratch)) for word in command] for command in (self._words, self._stop, self._kill)
        )
        self.process = Process(words, scratch / "log", stop, kill)
        if _is_served(self.address):
            raise CannotRun(f"somebody serves {socket_path(self.address)} already: end that, or name a socket that --start makes")
        self.process.start()

    async def renew(self) -> bool:
        """End the server and start it on an empty store, where the store is the run's own; gives whether it is."""
        if self.fresh:
            await self._abandon(kill=True)
            await self.start()
        return self.fresh

    async def _abandon(self, kill: bool) -> None:
        """Disconnect and end the server, where the kit has started it."""
        await self._disconnect()
        if self.process is not None:
            await asyncio.to_thread(self.process.end, kill)
        if self._place is not None:
            drop_mounts(self._place)

    async def again(self) -> None:
        """Start the server once more, after it was ended, and connect. CannotRun when it does not serve."""
        assert self.process is not None, "the kit starts it"
        await self._disconnect()
        self.process.start()
        await self._open()

    async def _open(self) -> None:
        await self._connect((None,))

    async def _connect(self, namespaces: tuple[str | None, ...], lease: str | None = None) -> None:
        self.channel = await (connect(self.address) if self.process is None else _connect_to(self.process, self.address))
        for namespace in namespaces:
            self.remotes.append(RemoteSnapshotter(self.address, self.snapshotter, namespace, lease, self.deadline))

    def _note(self, note: Note) -> None:
        """Let a later run clean up, should this one be killed. A store of the run goes with the run."""
        if not self.fresh:
            self.noted = note
            self.workspace.note(note)

    async def reopen(self, close_twice: bool) -> None:
        """Never called: `reopens` is False."""
        raise CannotRun("a store behind a socket cannot be reopened: check it in its own process instead")

    async def clear(self) -> None:
        """As the other. On a server that is gone nothing can be removed: that is left to `stop` and to the next run."""
        with suppress(TransportLost):
            await super().clear()

    async def stop(self) -> None:
        """Remove what bears the run's prefix and disconnect. What cannot be removed stays noted for the next run."""
        if self.noted is not None and self.channel is not None:
            with suppress(TransportLost):
                if await undo(self.remotes, self._layers(), self.noted) == 0:
                    self.workspace.strike(self.noted)
                    self.noted = None
        await self._abandon(kill=False)

    async def _disconnect(self) -> None:
        for remote in self.remotes:
            await remote.close()
        self.remotes.clear()
        if self.channel is not None:
            await self.channel.close()
            self.channel = None

    def _layers(self) -> list[Containerd]:
        """containerd's metadata layer in each namespace, where there is one."""
        return []


class ContainerdSubject(PluginSubject):
    """A snapshotter through containerd's metadata layer: two namespaces, each with a lease that keeps what the kit makes.

    `namespace` is the user's own for the first of the two; empty: both are the run's, and go with it.
    """

    spaces = 2

    def __init__(
        self,
        name: str,
        contents: Contents,
        workspace: Workspace,
        address: str,
        snapshotter: str,
        profile: Profile,
        deadline: float,
        namespace: str = "",
    ) -> None:
        super().__init__(name, contents, workspace, address, snapshotter, profile, deadline)
        token = self.run_prefix.rstrip("/")
        self.lease = token
        self.namespaces = (namespace or f"{token}-0", f"{token}-1")
        self.own_namespaces = tuple(n for n in self.namespaces if n != namespace)
        self._nowhere: RemoteSnapshotter | None = None

    async def start(self) -> None:
        """Connect, find the snapshotter, make the leases. CannotRun with the remedy when that cannot be."""
        await self.begin_process()
        await self._open()
        await probe(self.remotes[0])
        self._note(
            {
                "kind": "containerd",
                "address": self.address,
                "snapshotter": self.snapshotter,
                "prefix": self.run_prefix,
                "lease": self.lease,
                "namespaces": " ".join(self.namespaces),
                "own": " ".join(self.own_namespaces),
            }
        )
        for containerd in self._layers():
            # Should nobody ever clean up after a killed run, containerd does so by itself.
            expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
            labels = {"containerd.io/gc.expire": expires.strftime("%Y-%m-%dT%H:%M:%SZ")}
            try:
                await containerd.create_lease(self.lease, labels)
            except SnapshotError as error:
                raise CannotRun(f"containerd refuses a lease ({error}): the kit needs one to keep what it makes") from error

    async def _open(self) -> None:
        await self._connect(self.namespaces, self.lease)
        self._nowhere = RemoteSnapshotter(self.address, self.snapshotter, None, None, self.deadline)

    def _layers(self) -> list[Containerd]:
        if self.channel is None:
            return []
        return [Containerd(self.channel, namespace, self.deadline) for namespace in self.namespaces]

    def nowhere(self) -> Snapshotter:
        """The connection that names no namespace."""
        if self._nowhere is None:
            raise CannotRun("the subject was not started: start it first")
        return self._nowhere

    async def collect(self, space: int, dropped: tuple[str, ...]) -> None:
        """Take `dropped` out of the lease, collect to the end, and put back what a child or a label has kept."""
        containerd = self._layers()[space]
        for key in dropped:
            await containerd.drop_from_lease(self.lease, self.snapshotter, key)
        await collect_garbage(containerd)
        for key in dropped:
            try:
                await self.driver(space).stat(key)
            except NotFound:
                self.forget(space, key.removeprefix(self.prefix))
            else:
                await containerd.add_to_lease(self.lease, self.snapshotter, key)

    async def _disconnect(self) -> None:
        await super()._disconnect()
        if self._nowhere is not None:
            await self._nowhere.close()
            self._nowhere = None


def _is_served(address: str) -> bool:
    """Whether somebody takes connections at `address`."""
    with socket.socket(socket.AF_UNIX) as knock:
        try:
            knock.connect(socket_path(address))
        except OSError:
            return False
    return True


async def _connect_to(process: Process, address: str) -> grpc.aio.Channel:
    """A channel to the server that was just started. CannotRun when it ends, or does not serve in time."""
    until = time.monotonic() + READY
    while True:
        try:
            return await connect(address)
        except CannotRun:
            why = process.ended() or ("" if time.monotonic() < until else f"it does not within {READY:g} s")
            if why:
                raise CannotRun(
                    f"the command of --start does not serve {socket_path(address)}: {why}; mend the command or the address"
                ) from None
        await asyncio.sleep(0.01)


async def collect_garbage(containerd: Containerd) -> None:
    """Let containerd's garbage collector run once, to its end: the deletion of a lease can be told to wait for that."""
    trigger = f"snapspec-collect-{token_hex(4)}"
    with suppress(AlreadyExists):
        await containerd.create_lease(trigger)
    await containerd.delete_lease(trigger, sync=True)


async def undo(remotes: list[RemoteSnapshotter], layers: list[Containerd], note: Note) -> int:
    """Remove all that the note names, in every namespace; gives how many snapshots are still there."""
    for remote in remotes:
        for name in await clear_prefix(remote, note["prefix"]):
            with suppress(SnapshotError):  # what cannot be removed may still be collected, once no label protects it
                await remote.update(Info(name, "", Kind.COMMITTED, (), 0, 0))
    for containerd in layers:
        with suppress(NotFound):
            await containerd.delete_lease(note["lease"], sync=True)
    left = sum([len(await clear_prefix(remote, note["prefix"])) for remote in remotes])
    for containerd in layers:
        if left == 0 and containerd.namespace in note["own"].split():
            with suppress(NotFound):
                await containerd.delete_namespace()
    return left


async def clean_up_after(note: Note) -> int:
    """Remove what a killed run has left on a server, as its note says; gives how many snapshots could not be removed.

    Raises CannotRun when the server cannot be reached.
    """
    namespaces = note.get("namespaces", "").split()
    every: list[str | None] = [*namespaces] or [None]
    channel = await connect(note["address"])
    remotes = [RemoteSnapshotter(note["address"], note["snapshotter"], namespace) for namespace in every]
    try:
        return await undo(remotes, [Containerd(channel, namespace) for namespace in namespaces], note)
    finally:
        for remote in remotes:
            await remote.close()
        await channel.close()
