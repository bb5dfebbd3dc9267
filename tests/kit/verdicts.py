"""What checks of few histories come to: most do not put every clause to the test, which is no pass."""

from __future__ import annotations

import subprocess
from pathlib import Path


def nothing_wrong(run: subprocess.CompletedProcess[str]) -> str:
    """The last line of a check that found nothing, be it for want of histories: status 0, or 2 where nothing was decided."""
    assert run.stderr == "", run.stderr
    verdict = run.stdout.splitlines()[-1]
    assert (run.returncode, verdict.split(" ")[0]) in ((0, "CONFORMS:"), (0, "CONFORMS"), (2, "NOT")), run.stdout
    return verdict


def saved(out: Path) -> Path:
    """The file of the only finding of a check that has written into `out`."""
    (file,) = (out / "findings").glob("*.json")
    return file
