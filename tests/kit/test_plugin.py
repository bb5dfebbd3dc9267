"""`plugin:SOCKET`: runs of the kit against a proxy plugin in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from aio import asynchronous

from snapspec.conformance.history import Finding, Step, save
from snapspec.conformance.proto import snapshots_pb2, snapshots_pb2_grpc
from snapspec.conformance.subjects.remote import RemoteSnapshotter
from snapspec.impl import errors
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Mismatch, Returned
from snapspec.model.tree import MakeFile, SetMode
from snapspec.model.values import Info, Kind

pytestmark = pytest.mark.root  # what the plugin hands out has to be mounted

_snapshots: Callable[[grpc.aio.Channel], Any] = snapshots_pb2_grpc.SnapshotsStub  # generated without types

PROGRAM = Path(__file__).with_name("plugin.py")

#: Seconds that a program may take for what takes it one or two.
PATIENCE = 60.0


class Plugin:
    """The program `plugin.py` below one directory. It ends with the process that started it."""

    def __init__(self, directory: Path, variant: str = "right") -> None:
        self.socket = directory / "s"
        self.address = f"unix://{self.socket}"
        self.store = directory / "store"
        self.variant = variant
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it serves."""
        command = [sys.executable, str(PROGRAM), str(self.socket), str(self.store), self.variant]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def end(self, *, kill: bool = False) -> None:
        """Let it close its store, or kill it at once; nothing happens when it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == (-signal.SIGKILL if kill else 0)

    def names(self) -> list[str]:
        """The names of all its snapshots."""
        return [info.name for info in self.infos()]

    def infos(self) -> list[Info]:
        """All its snapshots, sorted by name."""
        return asyncio.run(self._infos())

    async def _infos(self) -> list[Info]:
        remote = RemoteSnapshotter(self.address, "any")
        try:
            return sorted([info async for info in remote.walk()], key=lambda info: info.name)
        finally:
            await remote.close()


@contextlib.contextmanager
def served(directory: Path, variant: str = "right") -> Iterator[Plugin]:
    """A plugin below `directory`, ended afterwards in any case."""
    plugin = Plugin(directory, variant)
    plugin.start()
    try:
        yield plugin
    finally:
        plugin.end()


@pytest.fixture
def plugin(workdir: Path) -> Iterator[Plugin]:
    with served(workdir) as plugin:
        yield plugin


def begin(workdir: Path, *arguments: object) -> subprocess.Popen[str]:
    """Begin a run of the kit whose run directories lie below `workdir`."""
    command = [sys.executable, "-m", "snapspec.conformance", *map(str, arguments)]
    environment = os.environ | {"TMPDIR": str(workdir)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(run: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The status of a run, once it has ended, and what it has told on the two streams. It has never failed itself."""
    try:
        output, problems = run.communicate(timeout=PATIENCE)
    finally:
        run.kill()
    assert "Traceback" not in problems, problems
    return run.returncode, output, problems


def check(workdir: Path, subject: str, examples: int = 25) -> subprocess.Popen[str]:
    return begin(workdir, "check", subject, "--examples", examples, "--seed", 1, "--first", "--out", workdir / "report")


@contextlib.contextmanager
def checked_for_long(plugin: Plugin, workdir: Path) -> Iterator[subprocess.Popen[str]]:
    """A check that has made some snapshots and goes on; it does not outlast the test."""
    run = check(workdir, f"plugin:{plugin.socket}", examples=10_000)
    try:
        deadline = time.monotonic() + PATIENCE
        while len(plugin.names()) < 10:
            assert time.monotonic() < deadline, "the run makes no snapshots"
            time.sleep(0.02)
        yield run
    finally:
        run.kill()
        run.communicate(timeout=PATIENCE)


def run_directories(workdir: Path) -> list[Path]:
    return list(workdir.glob("snapspec-*/run-*"))


# --- verdicts


def test_a_right_plugin_conforms(plugin: Plugin, workdir: Path) -> None:
    """By smoke and by check; neither leaves anything, there or here."""
    status, output, problems = told(begin(workdir, "smoke", f"plugin:{plugin.socket}"))
    assert (status, problems) == (0, "")
    assert "CONFORMS" in output
    assert plugin.names() == []
    status, output, problems = told(check(workdir, f"plugin:{plugin.socket}?snapshotter=any&rebase=refused", examples=4))
    assert (status in (0, 2), problems) == (True, ""), output
    assert "finding" not in output
    assert f"on snapshotter any at {plugin.address}" in output
    assert plugin.names() == []
    assert run_directories(workdir) == []


def test_kinds_that_are_not_set_are_found(workdir: Path) -> None:
    """Then every snapshot reads as committed."""
    with served(workdir, "without-kinds") as plugin:
        status, output, _ = told(check(workdir, f"plugin:{plugin.socket}"))
        assert status == 1
        assert "DIVERGES from SNAP-KIND-1" in output
        assert plugin.names() == []


def write_history(workdir: Path, *calls: Operation) -> Path:
    """A file that replays `calls`."""
    steps = tuple(Step(call, Returned(None)) for call in calls)
    path = workdir / "history"
    save(path, Finding(steps, (Mismatch("SNAP-LIVE-1", "to be found out", ""),)), "plugin:")
    return path


def test_a_removal_that_is_none_is_found(workdir: Path) -> None:
    """Success for a parent that has a child."""
    calls = (ops.Prepare("a"), ops.Commit("b", "a"), ops.View("c", "b"), ops.Remove("b"))
    history = write_history(workdir, *calls)
    with served(workdir, "remove-says-done") as plugin:
        status, output, _ = told(begin(workdir, "replay", history, f"plugin:{plugin.socket}"))
        assert status == 1
        assert "DIVERGES from SNAP-REMOVE-2, with 4 calls" in output
        assert plugin.names() == []


# --- what the address declares


@pytest.fixture(scope="module")
def other(clean_session: Path) -> Iterator[Plugin]:
    """A plugin that takes other alternatives than the kit supposes; it serves several tests, for a start takes a while."""
    with served(Path(tempfile.mkdtemp(dir=clean_session)), "other") as plugin:
        yield plugin


OTHER = {"root": "owner", "usage": "opaque", "cleanup": "no", "rebase": "ignored"}


@pytest.mark.parametrize(
    ("left_out", "clause"),
    [
        ("", ""),
        ("root", "SNAP-CONTENT-1"),
        ("usage", "SNAP-USAGE-5"),
        ("cleanup", "SNAP-CLEANUP-2"),
        ("rebase", "SNAP-COMMIT-6"),
    ],
)
def test_what_the_address_declares_is_held_to(other: Plugin, workdir: Path, left_out: str, clause: str) -> None:
    """A plugin with other alternatives conforms when all are declared; one that is not declared is a finding."""
    history = write_history(
        workdir,
        ops.Prepare("a"),
        ops.Write("a", (SetMode("", 0o700), MakeFile("f", b"data"))),
        ops.Commit("b", "a"),
        ops.Usage("b"),
        ops.Cleanup(),
        ops.Prepare("c", "b"),
        ops.Read("c"),
        ops.Prepare("d"),
        ops.Commit("e", "d", parent="b"),
    )
    options = "&".join(f"{name}={value}" for name, value in OTHER.items() if name != left_out)
    status, output, _ = told(begin(workdir, "replay", history, f"plugin:{other.socket}?{options}"))
    assert status == (1 if clause else 0), output
    assert (f"DIVERGES from {clause}," if clause else "CONFORMS") in output
    assert other.names() == []


# --- ends that nobody asked for


def test_a_plugin_that_dies_is_a_finding(plugin: Plugin, workdir: Path) -> None:
    """A call has no answer. What the run could not remove is removed by the next one."""
    with checked_for_long(plugin, workdir) as run:
        plugin.end(kill=True)
        status, output, problems = told(run)
    assert status == 1
    assert "DIVERGES from SNAP-LIVE-1" in output
    assert all(re.fullmatch(r"snapspec: note: .*nobody listens on .*: .*", line) for line in problems.splitlines()), problems
    plugin.start()
    assert plugin.names() != []
    status, _, problems = told(begin(workdir, "smoke", f"plugin:{plugin.socket}"))
    assert (status, problems) == (0, "")
    assert plugin.names() == []
    assert run_directories(workdir) == []


def children(process: int) -> list[int]:
    """The processes that `process` has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended since it was listed
            if entry.read_text().rpartition(")")[2].split()[1] == str(process):
                found.append(int(entry.parent.name))
    return found


def kill(run: subprocess.Popen[str]) -> None:
    """Kill a run with all its processes, so that none can clean up after another."""
    run.send_signal(signal.SIGSTOP)
    for worker in children(run.pid):
        os.kill(worker, signal.SIGKILL)
    run.kill()
    run.wait(PATIENCE)


async def plant(address: str, own: str, prefix: str) -> list[Info]:
    """Snapshots that look like those of a run; the last one stands on what the run has left."""
    remote = RemoteSnapshotter(address, "any")
    neighbours = (prefix[:-1], f"{prefix[:-1]}0/1/a", "snapspec-0123456789ab/1/a")
    try:
        for key in neighbours:
            await remote.prepare(key, labels={"whose": "mine"})
        await remote.view("mine", own)
        return [await remote.stat(key) for key in sorted((*neighbours, "mine"))]
    finally:
        await remote.close()


async def remove(address: str, key: str) -> None:
    remote = RemoteSnapshotter(address, "any")
    try:
        await remote.remove(key)
    finally:
        await remote.close()


def test_the_next_run_removes_what_a_killed_one_has_left(plugin: Plugin, workdir: Path) -> None:
    """That and no more; what it cannot remove it says, and leaves to a later run."""
    with checked_for_long(plugin, workdir) as run:
        kill(run)
    bottom = next(info.name for info in plugin.infos() if info.kind is Kind.COMMITTED and not info.parent)
    prefix = bottom[: bottom.index("/") + 1]
    mine = asyncio.run(plant(plugin.address, bottom, prefix))

    subject = f"plugin:{plugin.socket}"
    status, _, problems = told(begin(workdir, "smoke", subject))
    assert status == 0
    assert re.fullmatch(rf"snapspec: note: .*: remove {prefix}\*; .*\n", problems), problems
    assert plugin.names() == sorted([bottom, *(info.name for info in mine)])

    asyncio.run(remove(plugin.address, "mine"))
    assert told(begin(workdir, "smoke", subject))[::2] == (0, "")
    assert plugin.infos() == [info for info in mine if info.name != "mine"]
    assert run_directories(workdir) == []


# --- the service itself


@asynchronous
async def test_a_service_of_many_snapshots(plugin: Plugin) -> None:
    """List comes in blocks; a record without its message is refused, and the plugin lives on."""
    remote = RemoteSnapshotter(plugin.address, "any")
    names = [f"key {number:03}" for number in range(230)]
    for name in names:
        await remote.view(name)
    assert [info.name async for info in remote.walk()] == names
    assert [info.name async for info in remote.walk(["name~=7$"])] == names[7::10]
    with pytest.raises(errors.InvalidArgument):
        await anext(remote.walk(["name=="]))
    await remote.close()
    async with grpc.aio.insecure_channel(plugin.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _snapshots(channel).Update(snapshots_pb2.UpdateSnapshotRequest(snapshotter="any"))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
