"""The copying snapshotter: an active snapshot is a full copy of its parent. It needs no overlay and no privilege."""

from __future__ import annotations

from functools import partial
from threading import Event

from snapspec.impl.base import BaseSnapshotter
from snapspec.impl.filetree import copy_tree
from snapspec.impl.layout import make_directory
from snapspec.impl.loopback import Pool
from snapspec.impl.records import Record
from snapspec.impl.syscalls import syncfs
from snapspec.model.values import Kind, Labels, Mount


async def open_copy(root: str, *, pool: Pool | None = None) -> CopySnapshotter:
    """The copying snapshotter over the directory `root`, new or as it was left. It closes `pool`, which holds `root`, at its end.

    Raises FailedPrecondition when `root` is open elsewhere, of a newer version, or holds directories without records;
    ResourceExhausted when it is full; SnapshotError for what the system refuses. Then `pool` stays open.
    """
    snapshotter = CopySnapshotter(root, pool)
    await snapshotter.open()
    return snapshotter


class _Replaced(Exception):
    """The parent that was copied is not the one that now has its name."""


class CopySnapshotter(BaseSnapshotter):
    """Full copies in directories; a mount list is one bind, and a view's is that of its parent's directory."""

    async def _create(self, kind: Kind, key: str, parent: str, labels: Labels) -> tuple[Mount, ...]:
        """Copy beside the other calls; the parent may go meanwhile, so all is checked again when the record is made."""
        if kind is not Kind.ACTIVE or not parent:
            return await super()._create(kind, key, parent, labels)
        while True:
            started: list[str] = []
            try:
                above = await self._in_order(self._begin, key, parent, labels, started)
                if await self._copied(above, started[0], key, parent, labels):
                    return await self._in_order(
                        self._insert, kind, key, parent, labels, partial(self._adopt, started[0], above.id)
                    )
            except _Replaced:
                pass
            finally:
                await self._in_order(self._end, started)

    async def _copied(self, above: Record, path: str, key: str, parent: str, labels: Labels) -> bool:
        """False when the parent went under the copy and another came; raises what the call answers when none did."""
        try:
            await self._stoppable(partial(self._copy, path), above)
        except OSError:
            now = await self._in_order(self._check_new, key, parent, labels)
            if now is None or now.id == above.id:
                raise
            return False
        return True

    def _begin(self, key: str, parent: str, labels: Labels, started: list[str]) -> Record:
        """The parent's record; the directory to copy to is put into `started`, where a cancelled call finds it too."""
        above = self._check_new(key, parent, labels)
        assert above is not None, "a parent is given"
        started.append(self._layout.start())
        self._making.update(started)
        return above

    def _copy(self, path: str, above: Record, stop: Event) -> None:
        make_directory(f"{path}/fs", 0o755)
        copy_tree(self._layout.fs(above.id), f"{path}/fs", stop)
        # An acknowledged copy is whole, also after a power failure.
        syncfs(self._root, self._layout.root)

    def _adopt(self, path: str, copied: int, record: Record) -> str:
        if record.parent_id != copied:
            raise _Replaced
        return path

    def _end(self, started: list[str]) -> None:
        """What did not become a snapshot goes; what did is no longer there."""
        self._making.difference_update(started)
        for path in started:
            self._discard(path)

    def _inherit(self, path: str, parent: int) -> None:
        copy_tree(self._layout.fs(parent), f"{path}/fs", Event())

    def _mount_list(self, record: Record) -> tuple[Mount, ...]:
        if record.kind is Kind.ACTIVE:
            return self._bind(record.id, "rw")
        return self._bind(record.parent_id or record.id, "ro")
