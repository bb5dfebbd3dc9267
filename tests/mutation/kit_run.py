"""Whether the kit notices that something is wrong with the tree it is run in: the cheapest check first, to the first that does.

    python kit_run.py CHECKS [TIMES]

CHECKS names a row of `CHECKS`, whose budgets are taken TIMES as long. One JSON object is printed: `how` it was noticed
(`finding`, `error`, `hang`, or `none`), by which `check`, `why` (the clause, or the last line of the error), the `seconds`.
Each check is one worker of `snapspec check`, under a fixed seed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

#: A subject, a level (`power` is durable with the power cut), and the seconds that it may search.
Check = tuple[str, str, float]

_DRIVER: tuple[Check, ...] = (("ref:overlay", "core", 5), ("ref:overlay", "faults", 4), ("ref:overlay", "durable", 3))
_REFS: tuple[Check, ...] = (("refs:model:", "core", 7), ("refs:model:", "faults", 7), ("refs:overlay", "core", 3))
_REFS_END: tuple[Check, ...] = (("refs:overlay", "durable", 4), ("refs:overlay", "power", 3))

#: What is run for a file: first what is cheap, last what shows things of one kind only.
CHECKS: dict[str, tuple[Check, ...]] = {
    "driver": (*_DRIVER, ("ref:overlay", "power", 3), ("refs:overlay", "core", 2), ("ref:copy", "core", 3)),
    "layout": (*_DRIVER, ("ref:overlay", "power", 3), ("ref:overlay?fs=btrfs", "power", 4)),
    "copy": (
        ("ref:copy", "core", 7),
        ("ref:copy", "faults", 5),
        ("refs:copy", "core", 3),
        ("refs:copy", "durable", 3),
        ("ref:copy", "power", 3),
    ),
    "refs": (*_REFS, ("refs:overlay", "faults", 3), *_REFS_END),
    "store": (("refs:overlay", "core", 4), ("refs:overlay", "faults", 3), *_REFS_END),
    "both": (*_DRIVER, ("refs:overlay", "core", 3), ("refs:overlay", "faults", 3), ("ref:overlay", "power", 3), *_REFS_END),
    "model": (*_DRIVER, ("ref:copy", "core", 3), ("ref:overlay", "power", 3)),
    "ref model": (*_REFS, *_REFS_END),
    "oracle": (*_DRIVER, *_REFS),
}

SEED = 1

#: Seconds that a check may go on after its search, for what it has to undo; one that does not end is a hang.
GRACE = 40.0

#: Seconds that a call may take: far more than any does, on a busy machine too.
DEADLINE = 20.0

#: Bytes of memory that a check may take.
MEMORY = 6 << 30


def main(checks: str, times: float = 1) -> int:
    """Run the checks of that name."""
    began = time.monotonic()
    for subject, level, budget in CHECKS[checks]:
        noticed = run((subject, level, budget * times))
        if noticed is not None:
            break
    else:
        noticed = {"how": "none"}
    print(json.dumps({**noticed, "seconds": round(time.monotonic() - began, 1)}))
    return 0


def run(check: Check) -> dict[str, str] | None:
    """What one check has noticed, if anything."""
    subject, level, budget = check
    budget *= _slowness()
    plan = {
        "task": "check",
        "subject": subject,
        "level": "durable" if level == "power" else level,
        "power": level == "power",
        "examples": 1_000_000,
        "budget": budget,
        "seed": SEED,
        "deadline": DEADLINE,
    }
    command = [sys.executable, __file__, "worker", json.dumps(plan), str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0) as worker:
        try:
            output, errors = worker.communicate(timeout=budget + GRACE)
            noticed = _noticed(output, errors, worker.returncode)
        except subprocess.TimeoutExpired:
            noticed = {"how": "hang", "why": "it does not end"}
        finally:
            _kill(worker)
    return {**noticed, "check": " ".join((subject, level))} if noticed else None


def _slowness() -> float:
    """How many others share a core: a search counts seconds, and is to do the same on a busy machine."""
    return min(2.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


def _kill(worker: subprocess.Popen[bytes]) -> None:
    """End what is left of the worker's own group; its mounts and devices go with it."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)


def _noticed(output: bytes, errors: bytes, status: int) -> dict[str, str] | None:
    told = [json.loads(line) for line in output.splitlines()]
    said: dict[str, Any] = {each["kind"]: each for each in told}
    if "finding" in said:
        return {"how": "finding", "why": _clause(said["finding"]["finding"])}
    if "cannot" in said:
        return {"how": "error", "why": said["cannot"]["why"]}
    if "error" in said:
        return {"how": "error", "why": said["error"]["trace"].strip().splitlines()[-1]}
    if status != 0 or not {"done", "stuck"} & said.keys():
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        return {"how": "error", "why": "".join(last) or f"it ended with {status}"}
    return None


def _clause(finding: dict[str, Any]) -> str:
    from snapspec.conformance.history import decode_finding

    return decode_finding(finding).clause


def worker() -> None:
    """One worker of the kit, as `snapspec check` starts it, but that nothing is made shorter: one finding is enough."""
    from snapspec.conformance import worker as kit
    from snapspec.conformance.base_search import BaseSearch

    BaseSearch.shorten = lambda _: None  # type: ignore[method-assign]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.argv[1:] = sys.argv[2:]
    kit.main()


def _ours() -> None:
    """The tree of this file is what is run, not one that is installed."""
    import snapspec.model

    here = Path(__file__).resolve().parents[2]
    if not Path(snapspec.model.__file__ or "").resolve().is_relative_to(here):
        raise SystemExit(f"{snapspec.model.__file__} is not of {here}: set PYTHONPATH to its build/farm")


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        worker()
    else:
        _ours()
        raise SystemExit(main(sys.argv[1], *map(float, sys.argv[2:])))
