"""What one process of a run is to do."""

from __future__ import annotations

from dataclasses import dataclass

from snapspec.conformance.session import DEADLINE


@dataclass(frozen=True, slots=True)
class Plan:
    """The share of one process. `budget` is in seconds, 0 for none; `file` is the history of a replay, `without` names
    what is left out, `deadline` is how many seconds a call may take; `start`, `kill`, `power` are for level durable, and `stop`
    and `kill_command` end what `start` began, in place of signals. `memory` is how many bytes the process may take, 0 for any
    number."""

    task: str
    subject: str
    number: int = 0
    workers: int = 1
    examples: int = 0
    budget: float = 0.0
    seed: int = 0
    file: str = ""
    without: tuple[str, ...] = ()
    deadline: float = DEADLINE
    level: str = "core"
    start: str = ""
    kill: bool = False
    power: bool = False
    stop: str = ""
    kill_command: str = ""
    memory: int = 0
