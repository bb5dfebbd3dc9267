"""Power cuts on the reference: recorded, imaged, mounted for real and judged; and nothing but the run's own things is touched."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snapspec.conformance.durable import PowerCut, Together, images, power, recorder
from snapspec.conformance.durable.place import place
from snapspec.conformance.durable.recorded import record, written
from snapspec.conformance.durable.recorder import Told, read_log, recording
from snapspec.conformance.durable.survivor import judge
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import Finding, call_text
from snapspec.conformance.report.text import finding_lines
from snapspec.conformance.session import Session
from snapspec.impl.loopback import open_pool
from snapspec.impl.mounts import attached_loop, mounted, mountpoints_below
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.tree import MakeFile
from snapspec.model.values import Mount

#: Why writes cannot be recorded here, if they cannot.
LACKING = recorder.lacking()

requires_recorder = pytest.mark.skipif(bool(LACKING), reason=LACKING)


def requires_file_system(kind: str) -> pytest.MarkDecorator:
    """A mark that skips where the kernel or the tools of the file system are not there."""
    package = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}[kind]
    known = any(line.split()[-1] == kind for line in Path("/proc/filesystems").read_text().splitlines())
    made = shutil.which(f"mkfs.{kind}", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is not None
    return pytest.mark.skipif(not (known and made), reason=f"needs {kind}: modprobe {kind}, and the Debian package {package}")


pytestmark = [pytest.mark.root, requires_recorder]

LAYERS = (
    ops.Prepare("a", labels=(("k", "1"),)),
    ops.Write("a", (MakeFile("f", b"hello"),)),
    ops.Commit("b", "a"),
    ops.Prepare("c", "b"),
    ops.Write("c", (MakeFile("g", b"x" * 5000),)),
    ops.Update("b", (("k", "2"),)),
    ops.View("v", "b"),
    ops.Remove("v"),
)


def loops() -> set[str]:
    """The loop devices in use and what they are on."""
    found = set()
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.add(f"{entry.parent.parent.name} {entry.read_text().strip()}")
        except OSError:  # detached since it was listed
            continue
    return found


def ours(directory: Path) -> set[str]:
    """Those on files below the directory: on a machine that others use too the rest comes and goes."""
    return {entry for entry in loops() if str(directory) in entry}


def processes(directory: Path) -> list[int]:
    """The processes whose command names the directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(directory).encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:  # it has ended since
            continue
    return found


def left(directory: Path) -> list[str]:
    """What a run in the directory has left. A file of the recorder that no living namespace has mounted is named `/`."""
    attached = [entry for entry in loops() if str(directory) in entry or entry.endswith(" /")]
    return [*mountpoints_below(str(directory)), *attached, *map(str, processes(directory))]


def assert_nothing_left(directory: Path) -> None:
    deadline = time.monotonic() + 20
    while there := left(directory):
        assert time.monotonic() < deadline, f"left: {there}"
        time.sleep(0.05)
    assert list(directory.iterdir()) == []


# --- the recorder


def test_every_write_and_flush_is_recorded_in_order(workdir: Path) -> None:
    with recording(workdir / "r") as here:
        name = here.name()
        (here.backing / name).write_bytes(b"\0" * 8192)
        image = workdir / "image"
        image.touch()
        with here.under(image, name):
            fd = os.open(image, os.O_RDWR)
            os.pwrite(fd, b"one", 10)
            first = here.position(name)
            os.fsync(fd)
            os.pwrite(fd, b"two", 4096)
            os.close(fd)
            assert image.read_bytes()[10:13] == b"one"
        events = read_log(here.log(name))
        assert [(e.told, e.offset, e.data) for e in events] == [
            (Told.WRITE, 10, b"one"),
            (Told.FLUSH, 0, b""),
            (Told.WRITE, 4096, b"two"),
        ]
        assert first == events[0].end
        assert image.read_bytes() == b"", "the file itself is as it was"
        here.forget(name)
        assert list(here.backing.iterdir()) == []
        assert here.name() != name


def test_the_record_makes_the_image_again(workdir: Path) -> None:
    """Applied to the image that it began with, the whole record of a file system at work gives the image as it then was."""
    with place(workdir) as here:
        name = here.recorder.name()
        images.copy_sparse(here.template, here.recorder.backing / name)
        with here.recorder.under(here.image, name), open_pool(str(here.image.parent)) as pool:
            for number in range(20):
                Path(pool.root, str(number)).write_bytes(os.urandom(9999))
                if number % 5 == 0:
                    pool.sync()
            os.unlink(f"{pool.root}/3")
            pool.trim()
        events = read_log(here.recorder.log(name))
        assert {event.told for event in events} == set(Told)
        disk = here.disk(events)
        whole = images.Cut(len(events), "all", 4096, frozenset(images.pieces(events, len(events), 4096)))
        disk.cut(whole, here.image)
        assert here.image.read_bytes() == (here.recorder.backing / name).read_bytes()
    assert_nothing_left(workdir)


def test_a_record_that_is_not_whole_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    whole = recorder._HEADER.pack(Told.WRITE, 0, 3) + b"abc"
    log.write_bytes(whole + recorder._HEADER.pack(Told.FLUSH, 0, 0) + whole[:-1])
    assert [event.told for event in read_log(log)] == [Told.WRITE, Told.FLUSH]


def test_without_the_package_the_remedy_is_named(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(CannotRun, match="install snapspec"), recording(workdir / "r"):
        pass
    assert list(workdir.iterdir()) == []


# --- the reference


@pytest.mark.parametrize("calls", [LAYERS[:3], pytest.param(LAYERS, marks=pytest.mark.deep)], ids=["layer", "layers"])
def test_the_reference_loses_nothing_at_any_flush_of_a_history(workdir: Path, calls: tuple[Operation, ...]) -> None:
    with place(workdir) as here:
        found = power.try_each(here, calls)
    assert found is None, "\n".join(finding_lines(found))
    assert_nothing_left(workdir)


def test_a_short_drawn_run_finds_nothing(workdir: Path) -> None:
    with place(workdir) as here:
        done = power.run(here, 20, seed=1)
    assert done.finding is None, "\n".join(finding_lines(done.finding))
    assert (done.images, done.divergences) == (20, 0)
    assert "20 power-cut images" in done.text()
    assert sum(done.hows.values()) == sum(done.during.values()) == 20


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=requires_file_system(kind)) for kind in ("xfs", "btrfs")])
def test_nor_does_one_on_another_file_system(workdir: Path, kind: str) -> None:
    with place(workdir, file_system=kind) as here:
        done = power.run(here, 12, seed=2)
    assert done.finding is None, "\n".join(finding_lines(done.finding))
    assert done.images == 12
    assert_nothing_left(workdir)


@pytest.mark.deep
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=requires_file_system(kind)) for kind in ("xfs", "btrfs")])
def test_a_long_run_on_another_file_system_finds_nothing(workdir: Path, kind: str) -> None:
    with place(workdir, file_system=kind) as here:
        done = power.run(here, 300, seed=3)
    print(done.text())
    assert done.finding is None, "\n".join(finding_lines(done.finding))


@pytest.mark.deep
@pytest.mark.parametrize("seed", [1, 2])
def test_a_long_run_finds_nothing(workdir: Path, seed: int) -> None:
    with place(workdir) as here:
        done = power.run(here, 1000, seed)
    print(done.text())
    assert done.finding is None, "\n".join(finding_lines(done.finding))
    assert done.images == 1000
    assert {"prepare", "view", "commit", "remove", "update", "none", "2 together", "3 together"} <= set(done.during)
    assert set(images.HOWS) <= set(done.hows)


def test_a_power_cut_is_told_in_words() -> None:
    cut = PowerCut(during=(ops.Remove("a"), ops.Usage("b")), told=3, how="some", grain=512, open=9, bits=b"\x05\x01")
    during = "power cut during [remove('a'), usage('b')]"
    assert call_text(cut) == f"{during}: the disk keeps 3 of 9 unflushed pieces of 512 bytes (some)"
    assert call_text(PowerCut()) == "power cut: the disk has flushed all"
    assert call_text(Together(calls=(ops.Remove("a"), ops.Usage("b")))) == "together(calls=[remove('a'), usage('b')])"


def test_what_is_damaged_is_found(workdir: Path) -> None:
    """The judgement of an image, on two that no power cut leaves: an inode of the file system gone, and other data in a file."""
    with place(workdir) as here:
        recorded = record(here, written(LAYERS[:3]))
        disk = here.disk(recorded.events)
        cut = images.each(recorded.events)[-1]
        assert judge(here, recorded, disk, cut) is None
        sound = disk.file.read_bytes()
        assert sound.count(b"hello") == 1
        disk.file.write_bytes(sound.replace(b"hello", b"hullo"))
        for kernel in (True, False):
            assert clause(judge(here, recorded, disk, cut, kernel=kernel)) == "SNAP-POWER-2"
        disk.file.write_bytes(sound)
        subprocess.run(["debugfs", "-w", "-R", "clri s/1/fs/f", disk.file], check=True, capture_output=True)
        for kernel in (True, False):
            assert clause(judge(here, recorded, disk, cut, kernel=kernel)).startswith("SNAP-POWER-")
    assert_nothing_left(workdir)


def clause(found: Finding | None) -> str:
    assert found is not None
    return found.clause


# --- nothing else is touched, and nothing is left


def test_a_recorder_that_dies_is_no_fault_of_the_driver_and_leaves_nothing(workdir: Path) -> None:
    def calls(session: Session) -> None:
        session.do(ops.Prepare("a"))
        os.kill(here.recorder.process.pid, signal.SIGKILL)
        for number in range(50):
            session.do(ops.Prepare(f"a{number}"))

    with pytest.raises(CannotRun, match="recorder of writes is gone"), place(workdir) as here:
        record(here, calls)
    assert_nothing_left(workdir)


def answers(path: Path) -> bool:
    try:
        os.lstat(path)
    except OSError:
        return False
    return True


def test_a_recorder_that_has_been_dead_for_a_while_leaves_nothing(workdir: Path) -> None:
    """Its mount does not even tell any more what it is."""
    with recording(workdir / "r") as here:
        os.kill(here.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while answers(here.served):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(CannotRun, match="recorder of writes is gone"):
            here.require()
    assert left(workdir) == []


def test_an_interrupted_history_leaves_nothing(workdir: Path) -> None:
    def calls(session: Session) -> None:
        session.do(ops.Prepare("a"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), place(workdir) as here:
        record(here, calls)
    assert_nothing_left(workdir)


def test_neighbours_are_left_alone(workdir: Path) -> None:
    """A loop device on an image of the same name, a pool, a mount, a recorder of somebody else: all work on afterwards."""
    for name in ("mine", "shown", "image", "run"):
        (workdir / name).mkdir()
    image = workdir / "image" / "pool.img"
    image.write_bytes(b"\0" * (1 << 20))
    bind = Mount("bind", str(workdir / "mine"), ("rbind", "rw"))
    with (
        attached_loop(str(image)) as device,
        mounted([bind], str(workdir / "shown")),
        open_pool(str(workdir / "pool"), size=16 << 20) as pool,
        recording(workdir / "theirs") as theirs,
    ):
        Path(pool.root, "file").write_text("kept")
        (theirs.backing / "x").write_text("kept")
        before = set(mountpoints_below("/")), ours(workdir)
        with place(workdir / "run") as here:
            assert power.run(here, 4, seed=3).images == 4
        assert (set(mountpoints_below("/")), ours(workdir)) == before
        assert any(entry.startswith(f"{Path(device).name} ") for entry in ours(workdir))
        assert Path(pool.root, "file").read_text() == (theirs.served / "x").read_text() == "kept"
        assert theirs.process.ended() == ""
    assert_nothing_left(workdir / "run")


_KILLED = """
import sys
from pathlib import Path
from snapspec.impl.syscalls import enter_private_namespace
enter_private_namespace()
from snapspec.conformance.durable.place import place
from snapspec.conformance.durable.recorded import record
from snapspec.model import ops
from snapspec.model.ops import Operation

def calls(session):
    session.do(ops.Prepare("a"))
    print("ready", flush=True)
    while True:
        session.do(ops.Prepare("b"))
        session.do(ops.Remove("b"))

with place(Path(sys.argv[1])) as here:
    record(here, calls)
"""


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.deep)])
@pytest.mark.parametrize("also", ["the recorder lives on", "the recorder is killed with it", "the recorder is killed before"])
def test_a_killed_run_leaves_nothing(workdir: Path, also: str, times: int) -> None:
    """Whichever process is the last, none waits for itself."""
    for _ in range(times):
        process = subprocess.Popen([sys.executable, "-c", _KILLED, str(workdir)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process:
            assert process.stdout.readline() == "ready\n"
            assert any(str(workdir) in entry for entry in loops())
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if also != "the recorder lives on":
                os.kill(process.pid, signal.SIGSTOP if "with" in also else signal.SIGCONT)
                for child in children:
                    os.kill(int(child), signal.SIGKILL)
            process.kill()
        assert children
        assert_nothing_left(workdir)
