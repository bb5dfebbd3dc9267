"""What a run leaves behind: nothing, and after SIGKILL only what the next run removes. Neighbours stay whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from snapspec.conformance.workspace import Workspace, default_base
from snapspec.impl.mounts import attached_loop, mounted, mountpoints_below
from snapspec.model.values import Mount

pytestmark = pytest.mark.root

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}


def start(*arguments: str) -> subprocess.Popen[str]:
    """`snapspec` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "snapspec.conformance", *arguments],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def running() -> Iterator[int]:
    """The processes of runs in our temporary directory: they carry it in their environment."""
    mark = f"TMPDIR={os.environ['TMPDIR']}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            worker = b"snapspec.conformance.worker" in (entry / "cmdline").read_bytes()
            if worker and mark in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)
        except OSError:  # ended since
            continue


def images() -> list[str]:
    """The files of runs in our temporary directory that a loop device is attached to."""
    found = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(entry.read_text().strip())
        except OSError:  # detached since
            continue
    return [image for image in found if image.startswith(f"{default_base()}/")]


def runs() -> list[Path]:
    base = default_base()
    return sorted(base.glob("run-*")) if base.is_dir() else []


def await_none(what: object) -> None:
    """Wait until the call gives nothing, for at most twenty seconds."""
    assert callable(what)
    deadline = time.monotonic() + 20
    while left := list(what()):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


def working() -> subprocess.Popen[str]:
    """A check of the reference that has come as far as its pools."""
    process = start("check", "ref:overlay", "--examples", "100000", "--seed", "1", "--out", os.devnull)
    deadline = time.monotonic() + 30
    while len(images()) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_what_a_killed_run_leaves_goes_with_the_next_one_and_nothing_else(workdir: Path) -> None:
    base = default_base()
    before = set(mountpoints_below("/"))
    image = workdir / "image"
    image.write_bytes(b"\0" * (1 << 20))
    for name in ("mine", "shown"):
        (workdir / name).mkdir()
    with (
        Workspace.create() as living,
        attached_loop(str(image)) as device,
        mounted([Mount("bind", str(workdir / "mine"), ("rbind", "rw"))], str(workdir / "shown")),
    ):
        (living.scratch("kept") / "file").write_text("kept")
        unmarked = base / "run-unmarked"
        unmarked.mkdir()
        (unmarked / "file").write_text("kept")
        (base / "run-link").symlink_to(workdir / "mine")
        (workdir / "shown" / "file").write_text("kept")
        neighbours = {living.directory, unmarked, base / "run-link"}

        process = working()
        for worker in list(running()):
            os.kill(worker, signal.SIGKILL)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        await_none(running)
        await_none(images)
        assert set(mountpoints_below("/")) - before == {str(workdir / "shown")}
        assert set(runs()) > neighbours, "a run that was killed so leaves its directories"

        assert finish(start("smoke", "model:")) == (0, "")
        assert set(runs()) == neighbours
        assert (living.directory / "kept-1" / "file").read_text() == "kept"
        assert (unmarked / "file").read_text() == (workdir / "mine" / "file").read_text() == "kept"
        assert device in [f"/dev/{e.parent.parent.name}" for e in Path("/sys/block").glob("loop*/loop/backing_file")]
        (base / "run-link").unlink()
        (unmarked / "file").unlink()
        unmarked.rmdir()


def test_when_the_first_process_is_killed_the_others_clean_up() -> None:
    before = runs()
    process = working()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    await_none(running)
    await_none(images)
    assert runs() == before


@pytest.mark.parametrize("moment", range(6))
def test_ctrl_c_leaves_nothing(moment: int) -> None:
    """At some moment between the first line and the middle of the work."""
    before = runs()
    process = start("check", "ref:overlay", "--examples", "100000", "--out", os.devnull)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(Random(moment).random() * 2)
    os.killpg(process.pid, signal.SIGINT)
    status, errors = finish(process)
    assert (status, "Traceback" in errors) == (130, False), errors
    assert not list(running())
    await_none(images)
    assert runs() == before
