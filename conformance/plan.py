"""What one process of a run is to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from snapspec.conformance.session import DEADLINE


@dataclass(frozen=True, slots=True)
class Plan:
    """The share of one process. `budget` is in seconds, 0 for none; `file` is the history of a replay, `without` names
    what is left out, `deadline` is how many seconds a call may take; `start`, `kill`, `power` are for level durable, and `stop`
    and `kill_command` end what `start` began, in place of signals. `memory` is how many bytes the process may take, 0 for any
    number. With `first` the first finding ends the search.

    Where it takes up what another process has left: `aside` are the kinds of finding that are known, in the form of
    `aside.encode_kinds`, `drawn` is how many histories have been made, and `hangs` how many calls did not answer.
    `kept` is a file of findings of earlier runs, a line each, which are looked for first."""

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
    stop: str = ""
    kill: bool = False
    kill_command: str = ""
    power: bool = False
    memory: int = 0
    first: bool = False
    aside: tuple[Any, ...] = ()
    drawn: int = 0
    hangs: int = 0
    kept: str = ""
