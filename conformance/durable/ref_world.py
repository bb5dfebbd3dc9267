"""`refs:overlay` and `refs:copy` at level durable: the manager, its driver and its store in a process that is killed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from snapspec.conformance.durable.child import Gone, path_of
from snapspec.conformance.durable.forks import Forked, Forks
from snapspec.conformance.durable.process import drop_mounts
from snapspec.conformance.durable.ref_child import Asked, Place, RefsChild, connect
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.refs_subject import Contents, RefResponse, RefsAdapter
from snapspec.conformance.schedule import Unsound
from snapspec.conformance.subjects.prefixed import Prefixed
from snapspec.conformance.subjects.reference import ReferenceSubject
from snapspec.conformance.subjects.refs import RefsSubject, RefWorld, stored
from snapspec.impl.errors import SnapshotError
from snapspec.impl.manager import Manager, open_manager
from snapspec.impl.metadata import Store
from snapspec.impl.mounts import MountError
from snapspec.impl.ports import Snapshotter
from snapspec.model import ref_ops, refs
from snapspec.model.nodes import Tree
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_replies import GotHandle, GotWords, RefFailed, RefReturned
from snapspec.model.refs import Declared, Record
from snapspec.model.values import Mount


class KilledRefs(RefsSubject):
    """The manager over the reference `under`, which is opened nowhere but in the process.

    `opens` is the module and the name of what opens the manager there. `fresh`: an empty store is had at any time.
    """

    fresh = True
    under: ReferenceSubject

    def __init__(
        self,
        name: str,
        under: ReferenceSubject,
        stores: Path,
        declared: Declared,
        opens: tuple[str, str] = ("snapspec.impl.manager", "open_manager"),
    ) -> None:
        super().__init__(name, under, stores, declared)
        self.directory = under.directory
        self._opens = opens
        self._renewed = 0
        self._forks = Forks("snapspec.conformance.durable.ref_child", under.directory.with_suffix(".log"))
        self._forked: Forked | None = None
        self._child: RefsChild | None = None

    @property
    def note(self) -> str:
        """What the manager stands on."""
        return f"{super().note}, in a process that is killed"

    @property
    def child(self) -> RefsChild:
        """The process that answers; one that has ended raises Gone."""
        assert self._child is not None, "start comes first"
        return self._child

    async def start(self) -> None:
        """Make the process that forks, and one that serves. CannotRun with the remedy."""
        self._forks.start()
        await self._serve_first()

    async def serve(self) -> None:
        """One more process on the same store, after the one before it has ended. SnapshotError when the store does not open."""
        ours, theirs = socket.socketpair()
        ground = self.under.ground
        pool = self.under.size if ground.pool else 0
        how = (path_of(self.under.kind), str(self.directory), ground.userxattr, pool, self.under.file_system)
        with theirs:
            self._forked = self._forks.fork(theirs, Asked(how, *self._opens))
        self._child = await connect(ours)
        why = await self._child.ready
        if why:
            said = self._forks.process.last_words() if isinstance(why, Gone) else why
            raise SnapshotError(f"the reference cannot be opened: {said}")

    async def _serve_first(self) -> None:
        try:
            await self.serve()
        except SnapshotError as error:
            raise CannotRun(str(error)) from None

    async def begin(self) -> KilledGround:
        """The ground of a new history."""
        await self.under.begin()
        self._histories += 1
        return KilledGround(self, self.under.prefix, self.stores / f"store-{self._histories}")

    async def kill(self, after: float = 0.0) -> None:
        """In `after` seconds end the process by SIGKILL."""
        assert self._forked is not None, "start comes first"
        await asyncio.to_thread(self._forked.kill, after)

    async def gone(self) -> None:
        """Give up what is left here of the process that was killed."""
        if self._child is not None:
            await self._child.close()
        if self._forked is not None:
            self._forked.forget()
        self._child = self._forked = None

    async def clear(self) -> None:
        """Kill the process, and serve an empty store: what is wrong with this one is not known."""
        await self.kill()
        await self.gone()
        drop_mounts(self.directory)
        self._renewed += 1
        self.directory = self.under.directory.with_name(f"{self.under.directory.name}.{self._renewed}")
        self.directory.mkdir(0o700)
        await self._serve_first()

    async def stop(self) -> None:
        """Let the process close the store and end; its directory is the run's to remove."""
        if self._child is not None and self._forked is not None:
            await self._child.close()
            if not await asyncio.to_thread(self._forked.ended, 10.0):
                await self.kill()
            self._forked.forget()
            self._child = self._forked = None
        await asyncio.to_thread(self._forks.end)
        drop_mounts(self.directory)


class KilledGround:
    """What the manager of one history stands on; see `Ground`. `starts` counts the processes that it has had before."""

    def __init__(self, subject: KilledRefs, prefix: str, path: Path) -> None:
        self.contents: Contents = subject.under.contents
        self.starts = 0
        self._subject = subject
        self._prefix = prefix
        self._path = path

    @property
    def driver(self) -> Snapshotter:
        """See `Ground`: the driver in the process that answers now."""
        return Prefixed(self._subject.child, self._prefix)

    @property
    def place(self) -> Place:
        """The same for the process."""
        return Place(self._prefix, str(self._path), self.starts, self._subject.declared.commit_keeps_lists)

    async def open_store(self) -> Store:
        """Never called: it is the process that opens the store."""
        raise CannotRun("the store is opened in the process that is killed: make this history at level core")

    async def let_go(self) -> None:
        """See `Ground`: nothing is held here."""

    async def reopen_driver(self) -> None:
        """See `Ground`: it begins again with the process."""

    async def entries(self) -> set[str]:
        """See `Ground`."""
        return await stored(self._path)


class KilledAdapter(RefsAdapter):
    """Makes the model's operations on the manager in the process; content is written and read here. Raises Gone."""

    def __init__(self, subject: KilledRefs, ground: KilledGround) -> None:
        super().__init__(self._never, ground.contents)
        self._subject = subject
        self._ground = ground
        self._began = False

    async def _never(self, _: Callable[[], str]) -> Manager:
        raise CannotRun("the manager is opened in the process that is killed")

    @property
    def serves(self) -> bool:
        """See `RefsAdapter`."""
        return self._began and not self.closed

    async def start(self) -> None:
        """Open the manager in the process. SnapshotError when it does not open."""
        answer = await self._subject.child.begin(self._ground.place)
        if isinstance(answer, RefFailed):
            raise SnapshotError(f"the manager cannot be opened: {answer.message}")
        self._began = True

    async def begin_again(self) -> RefResponse:
        """One more process on the same store, after one that was killed; what its manager has answered.

        Raises Unsound when the driver does not serve again.
        """
        await self._subject.gone()
        self._ground.starts += 1
        try:
            await self._subject.serve()
        except SnapshotError as error:
            raise Unsound("SNAP-LIVE-1", f"no driver serves again: {error}") from None
        answer = await self._subject.child.begin(self._ground.place)
        self._began, self.closed = isinstance(answer, RefReturned), False
        return answer

    def crashed(self) -> None:
        """See `RefsAdapter`."""
        super().crashed()
        self._began = False

    async def perform(self, op: RefOperation) -> RefResponse:
        """Make the call."""
        match op:
            case ref_ops.Restart() if not self._began:
                return await self.begin_again()
            case ref_ops.Write(handle):
                return await self._through(op, await self._listed(handle, readonly=False))
            case ref_ops.Read(handle):
                return await self._through(op, await self._listed(handle, readonly=True))
        self.closed = self.closed or isinstance(op, ref_ops.Close)
        answer = await self._subject.child.perform(op)
        match op, answer:
            case ref_ops.Restart(), RefReturned():
                self.closed = False
            case ref_ops.Mount(handle), RefReturned(tuple() as mounts):
                self.lists[handle] = mounts
            case _, RefReturned(GotHandle()):
                self.handles[getattr(op, "given", getattr(op, "handle", ""))] = None
        return answer

    async def _listed(self, handle: str, *, readonly: bool) -> RefResponse:
        return await self._subject.child.perform(ref_ops.Mount(handle, readonly))

    async def _through(self, op: ref_ops.Write | ref_ops.Read, answer: RefResponse) -> RefResponse:
        if isinstance(answer, RefFailed):
            return answer
        mounts: Sequence[Mount] = answer.value  # type: ignore[assignment]  # a mount gives a list
        try:
            return RefReturned(await self._content(op, mounts))
        except (MountError, FileNotFoundError) as error:
            return RefFailed(refs.RefError.DRIVER, f"the list cannot be mounted: {error}")

    async def _content(self, op: ref_ops.Write | ref_ops.Read, mounts: Sequence[Mount]) -> GotWords | Tree:
        if isinstance(op, ref_ops.Write):
            return GotWords(await self._contents.write(mounts, op.changes))
        return await self._contents.read(self.lists.get(op.handle, tuple(mounts)))


class KilledWorld(RefWorld):
    """The manager of one history, in the process. Its records are known as they were when `look` was last called."""

    adapter: KilledAdapter

    def __init__(self, subject: KilledRefs, ground: KilledGround, outside: Callable[..., object]) -> None:
        super().__init__(ground, None, outside, subject.declared, open_manager)  # type: ignore[arg-type]  # it runs what it is given
        self.adapter = KilledAdapter(subject, ground)
        self._subject = subject
        self._records: dict[str, tuple[Record, int]] = {}

    async def look(self) -> None:
        """Ask for the records. Raises Gone."""
        self._records = await self._subject.child.records() if self.adapter.serves else {}

    def records(self) -> dict[str, tuple[Record, int]]:
        """See `RefWorld`."""
        return self._records
