"""Level `durable`: the driver ends in the midst of a history and begins again on the same store.

Here are the steps that such a history has besides the calls.
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


@dataclass(frozen=True, slots=True)
class Together(ops.Reopen):
    """The `calls` begin together, and each has answered before the next step. Nothing is opened again."""

    calls: tuple[InFlight, ...] = ()


#: What can be under way when the power fails.
UnderWay = InFlight | ops.Write | ops.Read | ops.Cleanup | ops.Reopen


@dataclass(frozen=True, slots=True)
class PowerCut(ops.Reopen):
    """The power fails, and the store is opened again on what the disk holds. `during` are the calls that began together before.

    The rest says which image it is: the disk was told `told` things since those calls began, or since the last answer; of the
    `open` pieces of `grain` bytes that it does not owe, `bits` says which are on it, a bit for each, and `how` in a word.
    """

    during: tuple[UnderWay, ...] = ()
    told: int = 0
    how: str = "all"
    grain: int = 4096
    open: int = 0
    bits: bytes = b""

    @property
    def kept(self) -> int:
        """How many pieces are on the disk."""
        return int.from_bytes(self.bits, "little").bit_count()
