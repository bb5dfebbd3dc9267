"""Level `faults`: what the driver asks of the system fails, one thing at a time, and what is wrong afterwards is found.

Here is the step that such a history has besides the calls.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from snapspec.model import ops

#: The calls that something can fail under: what a mount list shows is the kernel's and the kit's, and no call of the driver.
Faultable = (
    ops.Prepare
    | ops.View
    | ops.Commit
    | ops.Remove
    | ops.Update
    | ops.Mounts
    | ops.Stat
    | ops.Usage
    | ops.Walk
    | ops.Cleanup
    | ops.Reopen
)


class How(Enum):
    """How something fails."""

    BEFORE = "before"
    """It fails, and has no effect."""
    AFTER = "after"
    """It has its effect, and fails all the same."""
    CANCEL = "cancel"
    """It does not fail: the call of the driver is cancelled just then."""
    FULL = "full"
    """The file system has no room left, from the beginning of the call to its end."""
    READ_ONLY = "read-only"
    """The file system cannot be written to, from the beginning of the call to its end; files that are open can."""
    BROKEN = "broken"
    """The kernel gives the file system up; it works again when it was unmounted and mounted."""


#: What happens to the file system itself.
REAL = (How.FULL, How.READ_ONLY, How.BROKEN)


@dataclass(frozen=True, slots=True)
class Faulted(ops.Reopen):
    """Make the call, while something fails; then look at everything.

    `at` names what the call asks of the system, `nth` says which of those with that name, `error` is the name of the errno.
    """

    call: ops.Operation = field(default_factory=ops.Cleanup)
    how: How = How.BEFORE
    at: str = ""
    nth: int = 1
    error: str = ""

    @property
    def text(self) -> str:
        """What fails, in words."""
        match self.how:
            case How.FULL:
                return "no room left"
            case How.READ_ONLY:
                return "read-only"
            case How.BROKEN:
                return "file system given up"
        point = self.at if self.nth == 1 else f"{self.at} number {self.nth}"
        return f"cancelled at {point}" if self.how is How.CANCEL else f"{self.error} {self.how.value} {point}"
