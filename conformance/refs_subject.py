"""A manager of refs as the model's operations see it: plain coroutines, for the gated loop as for a real one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from snapspec.impl.errors import SnapshotError
from snapspec.impl.manager import Manager, Pruned, Row
from snapspec.impl.mounts import MountError
from snapspec.impl.ref_errors import Closed, Invalid, Locked, NotFound, RefError, StoreError
from snapspec.impl.refs import ImmutableRef, MutableRef, Ref
from snapspec.model import ref_ops, refs
from snapspec.model.nodes import Tree
from snapspec.model.ref_ops import RefOperation
from snapspec.model.ref_replies import GotHandle, GotPruned, GotRows, GotSize, GotWords, RefFailed, RefReturned, RefValue
from snapspec.model.tree import Change
from snapspec.model.values import Mount

K = TypeVar("K", MutableRef, ImmutableRef)

RefResponse = RefReturned | RefFailed

_CLASSES: dict[type[RefError], refs.RefError] = {
    Closed: refs.RefError.CLOSED,
    Invalid: refs.RefError.INVALID,
    NotFound: refs.RefError.NOT_FOUND,
    Locked: refs.RefError.LOCKED,
    StoreError: refs.RefError.STORE,
}


class Contents(Protocol):
    """What changes and reads content through mount lists: `snapspec.conformance.contents.Contents`, or the driver in memory."""

    async def write(self, mounts: Sequence[Mount], changes: Sequence[Change]) -> tuple[str, ...]:
        """Make the changes in order; gives `ok` or the name of the error for each."""
        ...

    async def read(self, mounts: Sequence[Mount]) -> Tree:
        """The whole tree that the list shows."""
        ...


@dataclass(slots=True)
class _Acting:
    """The operation on whose behalf code runs, and how many ids it has asked for."""

    op: RefOperation
    asked: int = 0


_ACTING: ContextVar[_Acting] = ContextVar("acting")


class RefsAdapter:
    """Makes the model's operations on a manager, and keeps its handles by their names in the model.

    `open_manager` opens the manager on its store; it is given the source of ids. The first id that a call asks for is the one
    that its operation names for what it makes, whatever task asks for it: context is inherited. Others, of views, are numbered,
    from `numbered` on. `contents` is None where nobody writes or reads.
    """

    def __init__(
        self, open_manager: Callable[[Callable[[], str]], Awaitable[Manager]], contents: Contents | None, numbered: int = 0
    ) -> None:
        self.manager: Manager | None = None
        self.handles: dict[str, Ref | None] = {}
        """By name; None for one whose process has died."""
        self.lists: dict[str, tuple[Mount, ...]] = {}
        """The last list that each handle gave; Read looks through it, for it stays true as long as its handle (REF-MOUNT-6)."""
        self._open = open_manager
        self._given = contents
        self._earlier: set[str] = set()
        self._numbered = numbered
        self.closed = False

    @property
    def _contents(self) -> Contents:
        assert self._given is not None, "content goes through lists in the kit's own process"
        return self._given

    def new_id(self) -> str:
        """The id of what the call on whose behalf this runs is making."""
        acting = _ACTING.get(None)
        if acting is not None:
            acting.asked += 1
            named = getattr(acting.op, "record" if isinstance(acting.op, ref_ops.New) else "fresh", "")
            if named and acting.asked == 1:
                return str(named)
        self._numbered += 1
        return f"view {self._numbered}"

    async def start(self) -> None:
        """Open the manager. Raises what opening it raises."""
        self.manager = await self._open(self.new_id)

    @property
    def serves(self) -> bool:
        """Whether there is a manager that answers."""
        return self.manager is not None and not self.closed

    def records(self) -> dict[str, tuple[refs.Record, int]]:
        """The manager's records in the model's form, each with the number of its open handles; none when it is not open."""
        known = self.manager.records() if self.manager is not None else ()
        return {r.id: (refs.Record(r.mutable, r.parent, r.equal, r.size), r.handles) for r in known}

    def crashed(self) -> None:
        """The process has died: the manager and its handles are gone, and nothing may touch what was theirs."""
        self.manager = None
        self.handles = dict.fromkeys(self.handles)
        self.lists.clear()

    async def perform(self, op: RefOperation) -> RefResponse:
        """Make the call; every error of the manager, the store or the driver becomes an answer, and no other."""
        _ACTING.set(_Acting(op))
        try:
            return RefReturned(await self._perform(op))
        except RefError as error:
            return RefFailed(self._class(op, error), str(error))
        except SnapshotError as error:
            return RefFailed(refs.RefError.DRIVER, str(error))
        except (MountError, FileNotFoundError) as error:
            return RefFailed(refs.RefError.DRIVER, f"the list cannot be mounted: {error}")

    def _class(self, op: RefOperation, error: RefError) -> refs.RefError:
        # A handle of an earlier manager knows that one only, which is closed; to this one it is a handle that is not open.
        if isinstance(error, Closed) and not self.closed and getattr(op, "handle", "") in self._earlier:
            return refs.RefError.INVALID
        return _CLASSES[type(error)]

    async def _perform(self, op: RefOperation) -> RefValue:
        match op:
            case ref_ops.Release(handle):
                ref = self.handles.get(handle)
                if ref is not None:
                    await ref.release()
            case ref_ops.Restart():
                await self._restart()
            case ref_ops.New(handle=handle, parent=parent):
                over = None if parent is None else cast(ImmutableRef, self._either(parent))  # a manager refuses any other
                return self._give(handle, await self._manager().new(over))
            case ref_ops.Get(record, handle, _):
                return self._give(handle, await self._manager().get(record))
            case ref_ops.GetMutable(record, handle):
                return self._give(handle, await self._manager().get_mutable(record))
            case ref_ops.DiskUsage():
                return _rows(await self._manager().disk_usage())
            case ref_ops.Prune():
                return _pruned(await self._manager().prune())
            case ref_ops.Close():
                self.closed = True
                if self.manager is not None:
                    await self.manager.close()
            case _:
                return await self._on_handle(op)
        return None

    async def _on_handle(
        self,
        op: ref_ops.Commit | ref_ops.Finalize | ref_ops.Size | ref_ops.Parent | ref_ops.Mount | ref_ops.Write | ref_ops.Read,
    ) -> RefValue:
        match op:
            case ref_ops.Commit(handle, _, given):
                return self._give(given, await self._ref(handle, MutableRef).commit())
            case ref_ops.Finalize(handle):
                await self._ref(handle, ImmutableRef).finalize()
                return None
            case ref_ops.Size(handle):
                return GotSize(await self._either(handle).size())
            case ref_ops.Parent(handle, given):
                above = await self._either(handle).parent()
                return None if above is None else self._give(given, above)
            case ref_ops.Mount(handle, readonly):
                mounts = self.lists[handle] = await self._either(handle).mount(readonly)
                return mounts
            case ref_ops.Write(handle, changes):
                return GotWords(await self._contents.write(await self._either(handle).mount(readonly=False), changes))
            case ref_ops.Read(handle):
                mounts = await self._either(handle).mount(readonly=True)
                return await self._contents.read(self.lists.get(handle, mounts))

    async def _restart(self) -> None:
        """Close what is still open, and open again. A start that fails leaves what was open closed."""
        closed, self.closed = self.closed, True
        if self.manager is not None:
            with suppress(RefError) if closed else nullcontext():  # to those who called close before it has told its error
                await self.manager.close()
        await self.start()
        self._earlier, self.closed = set(self.handles), False

    def _manager(self) -> Manager:
        """The manager. Raises Closed when there is none: its process has died, and the start after that has failed."""
        if self.manager is None:
            raise Closed("no manager is open")
        return self.manager

    def _give(self, name: str, ref: Ref) -> GotHandle:
        assert name not in self.handles, f"the handle {name} was given before: each call names its own"
        self.handles[name] = ref
        return GotHandle(ref.id)

    def _either(self, name: str) -> MutableRef | ImmutableRef:
        """The handle of this name. Raises Closed; Invalid when none was given, or its process has died."""
        ref = self.handles.get(name)
        if not isinstance(ref, MutableRef | ImmutableRef):
            raise self._refusal(f"there is no handle {name}")
        return ref

    def _ref(self, name: str, kind: type[K]) -> K:
        """The same for a call that handles of the other kind do not have: asking for it is refused too (REF-ERROR-1)."""
        ref = self._either(name)
        if not isinstance(ref, kind):
            raise self._refusal(f"the handle {name} is of the other kind")
        return ref

    def _refusal(self, text: str) -> RefError:
        return Closed("the manager is closed") if self.closed else Invalid(text)


def _rows(rows: Sequence[Row]) -> GotRows:
    return GotRows(tuple(refs.Row(row.id, row.parent, row.mutable, row.in_use, row.size) for row in rows))


def _pruned(pruned: Pruned) -> GotPruned:
    return GotPruned(tuple((frozenset(row.ids), row.size) for row in pruned.rows), len(pruned.errors))
