"""Exhibits of managers of refs: the reference with one fault each."""

from __future__ import annotations

from snapspec.conformance.mutants import Exhibit, Managers
from snapspec.impl.errors import NotFound
from snapspec.impl.refs import Ledger, Record


class UsageOfTheKeyThatWas(Ledger):
    """The driver's key is read before the wait and used after it, and what is not there counts nothing."""

    async def usage(self, record: Record) -> int:
        try:
            return (await self.snapshotter.usage(record.halves[0].id)).size
        except NotFound:
            return 0


REFS: tuple[Exhibit, ...] = (
    Exhibit(
        "size-race",
        "size reads the driver's key before it waits and uses it after a finalize",
        "the seed, lines 70-92",
        ("REF-SIZE-4",),
        over="model:",
        manager=Managers(ledger=UsageOfTheKeyThatWas),
    ),
)
