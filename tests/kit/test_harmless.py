"""What a run leaves behind: nothing, and after SIGKILL only what the next run removes. Neighbours stay whole."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import containerd as daemons
import pytest

from snapspec.conformance.subjects.remote import Containerd, RemoteSnapshotter, connect
from snapspec.conformance.workspace import Workspace, default_base
from snapspec.impl.mounts import attached_loop, mounted, mountpoints_below
from snapspec.model.values import Mount

pytestmark = pytest.mark.root

containerd = daemons.containerd

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
    process = start("check", "ref:overlay", "--examples", "100000", "--seed", "1")
    deadline = time.monotonic() + 30
    while len(images()) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def kill_all(process: subprocess.Popen[str]) -> None:
    """The first process and those that it started, before any can tell another."""
    for worker in list(running()):
        os.kill(worker, signal.SIGSTOP)
    os.kill(process.pid, signal.SIGKILL)
    for worker in list(running()):
        os.kill(worker, signal.SIGKILL)
    process.communicate()
    await_none(running)


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
        kill_all(process)
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


@pytest.mark.parametrize("moment", [*range(6), *(pytest.param(number, marks=pytest.mark.deep) for number in range(6, 40))])
def test_ctrl_c_leaves_nothing(moment: int) -> None:
    """At some moment between the first line and the middle of the work."""
    before = runs()
    process = start("check", "ref:overlay", "--examples", "100000")
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(Random(moment).random() * 2)
    os.killpg(process.pid, signal.SIGINT)
    status, errors = finish(process)
    assert (status, "Traceback" in errors) == (130, False), errors
    assert not list(running())
    await_none(images)
    assert runs() == before


def test_a_process_that_somebody_else_ends_is_no_green_run() -> None:
    before = runs()
    process = working()
    os.kill(next(running()), signal.SIGTERM)
    status, errors = finish(process)
    assert (status, "ended with 1" in errors) == (2, True), errors
    await_none(images)
    assert runs() == before


def test_a_second_ctrl_c_does_not_stop_the_cleaning() -> None:
    before = runs()
    process = working()
    for _ in range(5):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
    status, errors = finish(process)
    assert (status, "Traceback" in errors) == (130, False), errors
    await_none(running)
    await_none(images)
    assert runs() == before


@asynccontextmanager
async def somebody(daemon: daemons.Daemon, namespace: str) -> AsyncIterator[tuple[RemoteSnapshotter, Containerd]]:
    """Another client of containerd, with a lease that it has or is to make."""
    channel = await connect(daemon.address)
    remote = RemoteSnapshotter(daemon.address, "overlayfs", namespace, "snapspec-somebody")
    try:
        yield remote, Containerd(channel, namespace)
    finally:
        await remote.close()
        await channel.close()


async def plant(daemon: daemons.Daemon, namespace: str) -> None:
    async with somebody(daemon, namespace) as (remote, layer):
        await layer.create_lease("snapspec-somebody")
        await remote.prepare("snapspec-somebody/1/a")


async def uproot(daemon: daemons.Daemon, namespace: str) -> None:
    async with somebody(daemon, namespace) as (remote, layer):
        await remote.remove("snapspec-somebody/1/a")
        await layer.delete_lease("snapspec-somebody")
        await layer.delete_namespace()


async def held(daemon: daemons.Daemon) -> dict[str, tuple[int, list[str]]]:
    """For each namespace of containerd how many snapshots it holds, and its leases."""
    found = {}
    async with somebody(daemon, "default") as (_, layer):
        namespaces = await layer.list_namespaces()
    for namespace in namespaces:
        async with somebody(daemon, namespace) as (remote, layer):
            found[namespace] = (len([info async for info in remote.walk()]), sorted(await layer.list_leases()))
    return found


def test_what_a_killed_run_leaves_in_containerd_goes_with_the_next_one(containerd: daemons.Daemon) -> None:
    """Whatever the next one checks. What somebody else has in a namespace of a like name stays."""
    asyncio.run(plant(containerd, "snapspec-somebody-0"))
    before, known = asyncio.run(held(containerd)), runs()
    assert before["snapspec-somebody-0"] == (1, ["snapspec-somebody"])

    def new() -> dict[str, tuple[int, list[str]]]:
        now = asyncio.run(held(containerd))
        assert {name: now[name] for name in before} == before
        return {name: what for name, what in now.items() if name not in before}

    subject = f"containerd:{containerd.socket}?snapshotter=overlayfs"
    process = start("check", subject, "--without", "collect", "--examples", "100000", "--seed", "1")
    deadline = time.monotonic() + 30
    while sum(snapshots > 0 for snapshots, _ in new().values()) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
    kill_all(process)
    assert len([lease for _, leases in new().values() for lease in leases]) == 4, "two processes, two namespaces each"
    assert finish(start("smoke", "model:")) == (0, "")
    assert new() == {}
    assert runs() == known
    asyncio.run(uproot(containerd, "snapspec-somebody-0"))


def test_what_cannot_be_cleaned_now_is_told_and_kept(workdir: Path) -> None:
    """The server of a killed run is not there: the next runs say so, and go on."""
    gone = {"kind": "plugin", "address": f"unix://{workdir}/s", "snapshotter": "x", "prefix": "snapspec-gone/"}
    with Workspace.create() as workspace:
        workspace.note(gone)
    status, errors = finish(start("smoke", "model:"))
    assert (status, len(errors.splitlines())) == (0, 1)
    assert errors.startswith("snapspec: note: what an earlier run has left is not removed yet, there is no socket at")
    assert str(workspace.directory) in errors
    assert runs() == [workspace.directory]
    for file in workspace.directory.iterdir():
        file.unlink()
    workspace.directory.rmdir()
