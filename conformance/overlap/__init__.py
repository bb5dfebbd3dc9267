"""Level `concurrent`: calls of several callers on a few shared keys overlap, and are judged as a recording is."""

from __future__ import annotations

from dataclasses import dataclass

from snapspec.conformance.durable import InFlight
from snapspec.model import ops

#: What a run may leave out: calls that overlap do not prepare or view over a parent, which others of them may take away.
PARENTS = "parents"


#: What can overlap: all that a driver is asked for.
Overlapping = InFlight | ops.Cleanup


@dataclass(frozen=True, slots=True)
class AtOnce(ops.Reopen):
    """The calls `first` one after another; then those of each lane one after another, all lanes at the same time.

    Nothing is opened again.
    """

    first: tuple[Overlapping, ...] = ()
    lanes: tuple[tuple[Overlapping, ...], ...] = ()
