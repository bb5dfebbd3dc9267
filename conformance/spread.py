"""A search spread over the workers of pytest-xdist: its parts are claimed one by one, in a directory that all of them see.

Each worker comes by with a test of its own. It makes what parts nobody has claimed, waits for the others, and then knows all.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from snapspec.conformance.outcome import Outcome, decode_outcome, encode_outcome, joined
from snapspec.conformance.plan import Plan

#: Seconds between two looks at what others do.
PAUSE = 0.05


def spread(directory: Path, name: str, plans: Sequence[Plan], make: Callable[[Plan], Outcome]) -> Outcome:
    """The outcome of all plans of the search `name`, of which this worker makes those that are left.

    A worker that died leaves its part to the next: a claim is a lock that ends with its process.
    """
    files = [directory / f"{name}-{number}.json" for number in range(len(plans))]
    (directory / f"{name}.parts").write_text(str(len(plans)), encoding="ascii")
    while True:
        for plan, file in zip(plans, files, strict=True):
            _make_one(plan, file, make)
        if all(file.exists() for file in files):
            return joined([_read(file) for file in files])
        time.sleep(PAUSE)


def gathered(directory: Path, name: str) -> Outcome | None:
    """The outcome of all parts that were made of the search; None when nobody has begun it. What is missing is a fault."""
    begun = directory / f"{name}.parts"
    if not begun.exists():
        return None
    parts, count = [_read(file) for file in sorted(directory.glob(f"{name}-*.json"))], int(begun.read_text(encoding="ascii"))
    whole = joined(parts) if parts else Outcome()
    if len(parts) == count:
        return whole
    return replace(whole, trouble=f"{count - len(parts)} of {count} parts of the search were not finished: run it again")


def _make_one(plan: Plan, file: Path, make: Callable[[Plan], Outcome]) -> None:
    """Make the part, unless it is made or somebody is at it."""
    if file.exists():
        return
    claim = os.open(file.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        with suppress(BlockingIOError):
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not file.exists():
                _write(file, make(plan))
    finally:
        os.close(claim)


def _write(file: Path, outcome: Outcome) -> None:
    """Whole or not at all: the others read it as soon as it is there."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps(encode_outcome(outcome)), encoding="utf-8")
    new.rename(file)


def _read(file: Path) -> Outcome:
    return decode_outcome(json.loads(file.read_text(encoding="utf-8")))
