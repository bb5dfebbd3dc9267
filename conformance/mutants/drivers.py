"""Exhibits of drivers: the reference with one fault each."""

from __future__ import annotations

from snapspec.conformance.mutants import Exhibit
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.impl.records import Record
from snapspec.model.values import Kind, Labels


class CommitTakesViews(OverlaySnapshotter):
    """A view can be committed."""

    def _check_commit(self, name: str, key: str, labels: Labels, parent: str) -> Record:
        record = self._records.find(key)
        if record is not None and record.kind is Kind.VIEW and name and self._records.find(name) is None:
            return record
        return super()._check_commit(name, key, labels, parent)


DRIVERS: tuple[Exhibit, ...] = (
    Exhibit(
        "s05",
        "commit takes a view",
        "several third-party drivers",
        ("SNAP-COMMIT-4",),
        driver=CommitTakesViews,
    ),
)
