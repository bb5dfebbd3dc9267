"""The processes of a run: whatever a driver does in the one that holds it, the verdict is of what was seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from snapspec.conformance.workspace import default_base

pytestmark = pytest.mark.root  # the drivers stand on pools


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`snapspec` in a process of its own, which finds the drivers beside this file."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.run(
        [sys.executable, "-m", "snapspec.conformance", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


def runs() -> list[Path]:
    base = default_base()
    return sorted(base.glob("run-*")) if base.is_dir() else []


def test_what_a_driver_prints_is_not_taken_for_the_kits_words() -> None:
    run = command("smoke", "py:unruly:talkative")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[-1].startswith("CONFORMS: py:unruly:talkative: 1 histories, 8 calls")


def test_a_driver_that_ends_the_process_is_no_green_run() -> None:
    before = runs()
    run = command("check", "py:unruly:leaving", "--examples", "4", "--seed", "1")
    assert run.returncode == 2
    assert "ended with 1" in run.stderr
    assert "CONFORMS" not in run.stdout
    assert runs() == before


@pytest.mark.parametrize(("name", "said"), [("not_closing", "the last straw"), ("never_closing", "does not answer")])
def test_a_driver_that_cannot_be_closed_is_no_green_run(name: str, said: str) -> None:
    before = runs()
    run = command("smoke", f"py:unruly:{name}", "--deadline", "1s")
    assert run.returncode == 2, run.stdout
    assert said in run.stderr
    assert "mend" in run.stderr
    assert "Traceback" not in run.stderr
    assert "CONFORMS" not in run.stdout
    assert runs() == before


def test_without_a_pool_there_is_no_run(workdir: Path) -> None:
    """The file system's program is hidden in a namespace of its own."""
    shell = (
        'for d in /usr/local/sbin /usr/sbin /sbin /usr/bin /bin; do test ! -e "$d/mkfs.xfs" || '
        'test ! -x "$d/mkfs.xfs" || mount --bind /dev/null "$d/mkfs.xfs"; done; exec "$@"'
    )
    run = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            shell,
            "sh",
            sys.executable,
            "-m",
            "snapspec.conformance",
            "smoke",
            "ref:overlay?fs=xfs",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2, run.stdout
    assert "mkfs.xfs" in run.stderr
    assert "xfsprogs" in run.stderr
    assert len(run.stderr.splitlines()) == 1
