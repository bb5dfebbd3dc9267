"""The museum: bugs that real builders and drivers had, each re-created as the smallest change of the reference.

An exhibit is addressed as `mutant:NAME` and checked like any other subject. Nothing that draws or searches knows of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snapspec.conformance.subjects.refs import Opens
from snapspec.impl.base import BaseSnapshotter
from snapspec.impl.manager import Manager, open_manager
from snapspec.impl.metadata import Store
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.impl.ports import Snapshotter
from snapspec.impl.refs import Ledger


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A bug. `clauses` are those of which one has to be cited for it; `level` is the level that has to find it, `power` by cuts.

    `where` says where it was real. It is of the `driver`, or, where `over` names a driver's address, of a manager of refs over
    that, which `manager` opens.
    """

    name: str
    wrong: str
    where: str
    clauses: tuple[str, ...]
    level: str = "core"
    power: bool = False
    driver: type[BaseSnapshotter] = OverlaySnapshotter
    over: str = ""
    manager: Opens = open_manager

    @property
    def address(self) -> str:
        """How the exhibit is named where a subject is."""
        return f"mutant:{self.name}"


@dataclass(frozen=True, slots=True)
class Managers:
    """Opens managers of these kinds, as `open_manager` opens the reference's."""

    ledger: type[Ledger] = Ledger
    manager: type[Manager] = Manager

    async def __call__(
        self, snapshotter: Snapshotter, store: Store, *, new_id: Callable[[], str], commit_keeps_lists: bool = True
    ) -> Manager:
        made = self.manager(self.ledger(snapshotter, store, new_id, commit_keeps_lists))
        await made.start()
        return made
