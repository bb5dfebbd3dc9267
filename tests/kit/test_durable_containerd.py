"""Debian's containerd, ended and started by the kit in the midst of histories: what it loses when a call is cut short."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from containerd import CONFIG, TASKS
from verdicts import nothing_wrong

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("containerd") is None, reason="needs containerd: apt-get install containerd"),
]

#: What is left out, since it is known to be wrong: conformance/drivers.md.
KNOWN = {"overlayfs": "collect,cut", "native": "collect,links,view,cut"}

SEEN = ("--seed", "1", "--examples", "2000")


def check(workdir: Path, snapshotter: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run on containerds with roots, states and sockets of their own; all but their plugins is told on the command line."""
    config = workdir / "config.toml"
    # Its places are told on the command line; without one for temporary files it takes the test's.
    kept = [
        line
        for line in CONFIG.replace("{without_tasks}", TASKS).split("[grpc]")[0].splitlines()
        if not line.startswith(("root", "state", "temp"))
    ]
    config.write_text("\n".join(kept))
    start = f"containerd --config {config} --root {{dir}}/root --state {{dir}}/state --address {{dir}}/s"
    subject = f"containerd:{{dir}}/s?snapshotter={snapshotter}"
    command = ("check", subject, "--level", "durable", "--start", start, "--out", str(workdir / "report"), *arguments)
    return subprocess.run(
        [sys.executable, "-m", "snapspec.conformance", *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("snapshotter", ["overlayfs", pytest.param("native", marks=pytest.mark.deep)])
def test_between_calls_it_may_be_killed(snapshotter: str, workdir: Path) -> None:
    run = check(workdir, snapshotter, "--kill", "--without", KNOWN[snapshotter], "--budget", "1s", *SEEN)
    nothing_wrong(run)
    assert " restarts, " in run.stdout


@pytest.mark.deep
@pytest.mark.parametrize("snapshotter", KNOWN)
@pytest.mark.parametrize("how", [["--kill"], []])
def test_between_calls_it_may_be_ended_for_long(snapshotter: str, how: list[str], workdir: Path) -> None:
    run = check(workdir, snapshotter, *how, "--without", KNOWN[snapshotter], "--budget", "30s", *SEEN)
    nothing_wrong(run)


@pytest.mark.deep
@pytest.mark.parametrize("snapshotter", KNOWN)
@pytest.mark.parametrize("how", [["--kill"], []])
def test_in_the_midst_of_a_call_it_loses_what_it_had(snapshotter: str, how: list[str], workdir: Path) -> None:
    run = check(
        workdir, snapshotter, *how, "--without", KNOWN[snapshotter].removesuffix(",cut"), "--budget", "60s", "--first", *SEEN
    )
    assert (run.returncode, run.stderr) == (1, ""), run.stdout
    assert "SNAP-DURABLE-2" in run.stdout
