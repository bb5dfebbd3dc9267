"""The command cuts the power: what it says, what it refuses, and that it leaves nothing and touches no neighbour."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import test_harmless as harmless
from test_cli import refused, snapspec
from test_power import loops, processes, requires_recorder
from verdicts import nothing_wrong

from snapspec.conformance.durable import PowerCut
from snapspec.conformance.durable.recorder import recording
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import Finding, Step, load, save
from snapspec.conformance.machine import Answer, Surroundings
from snapspec.conformance.ref_history import Burst, RefFinding
from snapspec.conformance.subjects.address import parse, powered, require_image
from snapspec.conformance.workspace import default_base
from snapspec.impl.loopback import open_pool
from snapspec.impl.mounts import attached_loop, mounted, mountpoints_below
from snapspec.model import ops, ref_ops
from snapspec.model.replies import Mismatch, Returned
from snapspec.model.values import Mount

POWER = ("--level", "durable", "--power")

HISTORY = Finding(
    (Step(ops.Prepare("a"), Returned()), Step(PowerCut(during=(ops.Commit("b", "a"),), told=2), Returned(("no answer",)))),
    (Mismatch("SNAP-POWER-2", "", ""),),
)


@pytest.mark.root
@requires_recorder
def test_a_check_tells_what_it_has_done(workdir: Path) -> None:
    run = snapspec("check", "ref:overlay", *POWER, "--examples", "16", "--seed", "1", "--out", str(workdir / "report"))
    nothing_wrong(run)
    told = re.search(r"(\d+) power-cut images of (\d+) histories \((\d+) calls, (\d+) writes and (\d+) flushes", run.stdout)
    assert told is not None, run.stdout
    images, *others = map(int, told.groups())
    assert images == 16
    assert all(others)
    assert "0 divergences" in run.stdout
    for title in ("the disk kept", "under way"):
        found = re.search(rf"{title}: (.*)", run.stdout)
        assert found is not None
        assert sum(int(count.rsplit(" ", 1)[1]) for count in re.split("[;,] (?!as )", found[1])) == 16
    assert "5 of 5 clauses put to the test" in run.stdout
    assert not (workdir / "f.json").exists()


@pytest.mark.deep
@pytest.mark.root
@requires_recorder
def test_a_budget_ends_it() -> None:
    run = snapspec("check", "ref:overlay", *POWER, "--examples", "100000", "--budget", "2s")
    nothing_wrong(run)
    assert "power-cut images" in run.stdout


@pytest.mark.root
@requires_recorder
def test_a_saved_power_cut_is_replayed(workdir: Path) -> None:
    save(workdir / "f.json", HISTORY, "ref:overlay")
    run = snapspec("replay", str(workdir / "f.json"), "ref:overlay")
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert "power cut during [commit('b', 'a')]: the disk has flushed all" in run.stdout
    assert "The history of SNAP-POWER-2" in run.stdout


#: A manager's history, of which the power cut is in its last call or after it.
OF_REFS = RefFinding(
    (Burst((ref_ops.New("m", "hm"),)), Burst((ref_ops.Commit("hm", "e", "he"),))),
    (),
    (Mismatch("REF-POWER-1", "", ""),),
    free=True,
    power=True,
)


@pytest.mark.root
@requires_recorder
def test_power_cuts_of_refs_are_counted_and_replayed(workdir: Path) -> None:
    run = snapspec("check", "refs:overlay", *POWER, "--examples", "4", "--seed", "3", "--jobs", "1")
    verdict = nothing_wrong(run)
    assert "  4 power-cut images of " in run.stdout
    assert verdict.endswith(" of 4 clauses put to the test")
    save(workdir / "f.json", OF_REFS, "refs:overlay")
    assert load(workdir / "f.json") == OF_REFS
    again = snapspec("replay", str(workdir / "f.json"), "refs:overlay")
    assert (again.returncode, again.stderr) == (0, ""), again.stdout
    assert "The history of REF-POWER-1" in again.stdout
    assert "replay it on refs:" in refused("replay", str(workdir / "f.json"), "ref:overlay")
    save(workdir / "g.json", HISTORY, "ref:overlay")
    assert "replay it on the driver's address alone" in refused("replay", str(workdir / "g.json"), "refs:overlay")


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ("ref:overlay?plain=yes", "stands on a plain directory, which has no image"),
        ("ref:overlay?size=1g", "leave size= out"),
        ("model:", "where the kit has no image of it"),
        ("py:a:b", "where the kit has no image of it"),
        ("containerd:/x/s?snapshotter=overlayfs", "where the kit has no image of it"),
        ("plugin:/x/s", "where the kit has no image of it"),
        ("refs:model:", "where the kit has no image of it"),
    ],
)
def test_what_has_no_image_is_refused(subject: str, said: str) -> None:
    with pytest.raises(CannotRun, match=re.escape(said)):
        require_image(parse(subject), "", False)


def test_the_command_refuses_it_too(workdir: Path) -> None:
    assert "where the kit has no image of it" in refused("check", "model:", *POWER)
    save(workdir / "f.json", HISTORY, "ref:overlay")
    assert "where the kit has no image of it" in refused("replay", str(workdir / "f.json"), "model:")


@pytest.mark.root
def test_without_a_library_the_remedy_is_named(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workdir / "mfusepy.py").write_text("raise OSError('no libfuse3')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(workdir), *filter(None, sys.path)]))
    assert "install the Debian package fuse3" in refused("check", "ref:overlay", *POWER, "--jobs", "1")
    assert harmless.runs() == []


def test_without_a_pool_the_remedy_is_named() -> None:
    surroundings = Surroundings("none", "you are not root", Answer(False, "refused"))
    with pytest.raises(CannotRun, match="run as root, see snapspec doctor"):
        powered(parse("ref:overlay"), surroundings)


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--power",), "add --level durable"), ((*POWER, "--kill"), "leave --start and --kill out")],
)
def test_options_that_do_not_go_together_are_refused(options: tuple[str, ...], said: str) -> None:
    assert said in refused("check", "ref:overlay", *options)


# --- nothing is left


def attached() -> list[str]:
    """Loop devices on images of runs here; where no living namespace has one mounted any more, its path is `/`."""
    return [entry for entry in loops() if str(default_base()) in entry or entry.endswith(" /")]


def recorders() -> list[int]:
    """The recorders of runs here."""
    return processes(default_base())


def working() -> subprocess.Popen[str]:
    """A check that has come as far as recording, in two processes."""
    process = harmless.start("check", "ref:overlay", *POWER, "--examples", "100000", "--jobs", "2")
    deadline = time.monotonic() + 30
    while len(recorders()) < 2 or not attached():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def assert_nothing_left() -> None:
    for what in (harmless.running, recorders, attached, harmless.runs):
        harmless.await_none(what)


@contextmanager
def neighbours(workdir: Path) -> Iterator[None]:
    """A loop device on an image of the same name, a pool, a mount, a recorder and files of somebody else: whole afterwards."""
    for name in ("mine", "shown", "image"):
        (workdir / name).mkdir()
    image = workdir / "image" / "pool.img"
    image.write_bytes(b"kept" * 1000)
    with (
        attached_loop(str(image)) as device,
        mounted([Mount("bind", str(workdir / "mine"), ("rbind", "rw"))], str(workdir / "shown")),
        open_pool(str(workdir / "pool"), size=16 << 20) as pool,
        recording(workdir / "theirs") as theirs,
    ):
        files = (Path(pool.root, "file"), theirs.served / "x", workdir / "shown" / "file")
        for file in (Path(pool.root, "file"), theirs.backing / "x", workdir / "mine" / "file"):
            file.write_text("kept")
        before = set(mountpoints_below("/")), {entry for entry in loops() if str(workdir) in entry}
        yield
        assert set(mountpoints_below("/")) == before[0]
        assert {entry for entry in loops() if str(workdir) in entry} == before[1]
        assert any(entry.startswith(f"{Path(device).name} ") for entry in before[1])
        assert [file.read_text() for file in files] == ["kept"] * 3
        assert image.read_bytes() == b"kept" * 1000
        assert theirs.process.ended() == ""


@pytest.mark.root
@requires_recorder
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.deep)])
def test_an_interrupted_check_leaves_nothing_and_neighbours_as_they_were(number: signal.Signals, workdir: Path) -> None:
    with neighbours(workdir):
        process = working()
        os.killpg(process.pid, number)
        process.communicate(timeout=60)
        assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM)
        assert_nothing_left()


@pytest.mark.root
@requires_recorder
def test_a_check_whose_recorder_is_killed_says_so_and_leaves_nothing(workdir: Path) -> None:
    with neighbours(workdir):
        process = working()
        for pid in recorders():
            os.kill(pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2, errors
        assert "the recorder of writes" in errors
        assert "Traceback" not in errors
        assert_nothing_left()


@pytest.mark.deep
@pytest.mark.root
@requires_recorder
def test_what_a_killed_check_leaves_goes_with_the_next_run(workdir: Path) -> None:
    with neighbours(workdir):
        process = working()
        harmless.kill_all(process)
        harmless.await_none(recorders)
        harmless.await_none(attached)
        assert harmless.finish(harmless.start("smoke", "model:")) == (0, "")
        assert_nothing_left()
