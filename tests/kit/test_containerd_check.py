"""Debian's containerd under the kit: overlayfs, native and btrfs, what is wrong there, and that nothing is left."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import containerd as daemons
import pytest
from verdicts import nothing_wrong

from snapspec.conformance.history import Finding
from snapspec.conformance.machine import Answer, Surroundings
from snapspec.conformance.search import scenario
from snapspec.conformance.session import Session
from snapspec.conformance.subjects.address import make, parse
from snapspec.conformance.subjects.remote import Containerd, connect
from snapspec.conformance.workspace import Workspace
from snapspec.model import ops
from snapspec.model.nodes import FileType
from snapspec.model.ops import Operation
from snapspec.model.tree import Change, Link, MakeDevice, MakeFifo, MakeFile, MakeSymlink

pytestmark = pytest.mark.root

containerd = daemons.containerd

#: What is left out, since it is known to be wrong: conformance/drivers.md.
KNOWN = {"overlayfs": "collect", "native": "collect,links,view", "btrfs": "collect"}

HERE = Surroundings("root", "the tests run in a private mount namespace", Answer(True, "tried by others"))


def namespaces(daemon: daemons.Daemon) -> list[str]:
    """All namespaces of the daemon."""

    async def asked() -> list[str]:
        channel = await connect(daemon.address)
        try:
            return await Containerd(channel, "default").list_namespaces()
        finally:
            await channel.close()

    return asyncio.run(asked())


def check(daemon: daemons.Daemon, snapshotter: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    subject = f"containerd:{daemon.socket}?snapshotter={snapshotter}"
    return subprocess.run(
        [sys.executable, "-m", "snapspec.conformance", "check", subject, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=400,
    )


@contextmanager
def session(daemon: daemons.Daemon, snapshotter: str, workdir: Path) -> Iterator[Session]:
    with Workspace.create(workdir / "runs") as workspace, asyncio.Runner() as runner:
        subject = make(parse(f"containerd:{daemon.socket}?snapshotter={snapshotter}"), HERE, workspace)
        runner.run(subject.start())
        try:
            yield Session(subject, runner)
        finally:
            runner.run(subject.stop())


def shown(daemon: daemons.Daemon, snapshotter: str, workdir: Path, *calls: Operation) -> Finding | None:
    """What the oracle says of this history."""
    with session(daemon, snapshotter, workdir) as made:
        return made.shows(scenario(made, iter(calls)))


@pytest.mark.parametrize("snapshotter", ["overlayfs", *(pytest.param(s, marks=pytest.mark.deep) for s in ("native", "btrfs"))])
def test_a_driver_conforms_but_for_what_is_known(containerd: daemons.Daemon, snapshotter: str, workdir: Path) -> None:
    before = namespaces(containerd)
    run = check(containerd, snapshotter, "--without", KNOWN[snapshotter], "--examples", "2", "--seed", "3")
    nothing_wrong(run)
    assert f"left out: {', '.join(KNOWN[snapshotter].split(','))}" in run.stdout
    assert namespaces(containerd) == before


@pytest.mark.deep
@pytest.mark.parametrize("snapshotter", KNOWN)
def test_a_driver_conforms_for_long(containerd: daemons.Daemon, snapshotter: str) -> None:
    run = check(containerd, snapshotter, "--without", KNOWN[snapshotter], "--examples", "300", "--seed", "4")
    nothing_wrong(run)


@pytest.mark.parametrize("snapshotter", KNOWN)
def test_a_collected_child_keeps_its_parent(containerd: daemons.Daemon, snapshotter: str, workdir: Path) -> None:
    """A fault of the metadata layer, whatever is under it; what it leaves behind is cleaned up all the same."""
    before = namespaces(containerd)
    child = (ops.Prepare("c"), ops.Commit("a", "c"), ops.Prepare("f", "a"), ops.Collect(("f",)))
    found = shown(containerd, snapshotter, workdir, *child, ops.Remove("a"))
    assert found is not None
    assert (found.clause, len(found.calls)) == ("SNAP-REMOVE-3", 5)
    assert namespaces(containerd) == before


@pytest.mark.parametrize("made", [MakeDevice("f", FileType.BLOCK_DEVICE, 1, 3, 0o644), MakeSymlink("f", "t"), MakeFifo("f")])
def test_native_loses_links_but_those_of_regular_files(containerd: daemons.Daemon, made: Change, workdir: Path) -> None:
    nodes = ops.Write("a", (made, Link("g", "f"), MakeFile("h", b"x"), Link("i", "h")))
    calls = (ops.Prepare("a"), nodes, ops.Commit("b", "a"), ops.Prepare("c", "b"), ops.Read("c"))
    found = shown(containerd, "native", workdir, *calls)
    assert found is not None
    assert (found.clause, len(found.calls)) == ("SNAP-CONTENT-1", 5)
    assert "/h" not in found.mismatches[0].came
    (workdir / "again").mkdir()
    assert shown(containerd, "overlayfs", workdir / "again", *calls) is None


def test_native_does_not_know_what_to_say_of_a_view(containerd: daemons.Daemon, workdir: Path) -> None:
    """A view that has a parent has no directory of its own there, and commit looks for it before it looks at the kind."""
    calls = (ops.Prepare("a"), ops.Commit("b", "a"), ops.View("c", "b"), ops.Commit("d", "c"))
    found = shown(containerd, "native", workdir, *calls)
    assert found is not None
    assert (found.clause, len(found.calls)) == ("SNAP-COMMIT-4", 4)
    (workdir / "again").mkdir()
    assert shown(containerd, "overlayfs", workdir / "again", *calls) is None


def test_the_list_of_a_collected_snapshot_is_not_used_again(containerd: daemons.Daemon, workdir: Path) -> None:
    """Neither while its key is free nor in the key's next life; one that a label has kept is."""
    kept = ops.Prepare("k", labels=(("containerd.io/gc.root", "1"),))
    write = (MakeFile("f", b"x"),)
    calls = (
        ops.Prepare("a"),
        kept,
        ops.Collect(("a", "k")),
        ops.Write("k", write, held=True),
        ops.Write("a", write, held=True),
        ops.Prepare("b"),
        ops.Commit("a", "b"),
        ops.Write("a", write, held=True),
        ops.Usage("a"),
        ops.Remove("k"),
    )
    assert shown(containerd, "overlayfs", workdir, *calls) is None
