"""Level `durable`: the driver ends in the midst of a history and begins again on the same store.

Here is the step that such a history has besides the calls.
"""

from __future__ import annotations

from dataclasses import dataclass

from snapspec.model import ops

#: The calls that can be under way when the driver ends: what a mount list shows is the kernel's and needs no driver.
InFlight = ops.Prepare | ops.View | ops.Commit | ops.Remove | ops.Update | ops.Mounts | ops.Stat | ops.Usage | ops.Walk


@dataclass(frozen=True, slots=True)
class Restart(ops.Reopen):
    """End the driver's process, by SIGTERM or with `kill` by SIGKILL, and start it again on the same store.

    The calls `during` begin together before that, and `after` microseconds later the process is told to end.
    """

    kill: bool = False
    during: tuple[InFlight, ...] = ()
    after: int = 0
