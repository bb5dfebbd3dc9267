"""The run directory: what a killed run left is found and removed, and nothing else is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from snapspec.conformance import workspace
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.workspace import MARK, Leftover, Workspace, default_base, reclaim
from snapspec.impl import syscalls
from snapspec.impl.mounts import MountError, attached_loop

# A run that has made something elsewhere and has work in its scratch directory. It tells its directory, then waits for its end.
HOLDER = """
import sys, time
from pathlib import Path
from snapspec.conformance.workspace import Workspace
with Workspace.create(Path(sys.argv[1])) as run:
    run.note({"subject": "containerd:/x.sock", "prefix": "p-1", "namespace": "n", "lease": "l"})
    scratch = run.scratch("layers")
    (scratch / "deep").mkdir()
    (scratch / "deep" / "file").write_text("left")
    (scratch / "deep" / "link").symlink_to("/etc")
    print(run.directory, flush=True)
    time.sleep(60)
"""

# The same with an image, a loop device and a mounted file system of its own, in a mount namespace that goes with it.
MOUNTER = """
import subprocess, sys, time
from pathlib import Path
from snapspec.conformance.machine import enter
from snapspec.conformance.workspace import Workspace
from snapspec.impl import syscalls
from snapspec.impl.mounts import attached_loop
assert enter().how == "root"
with Workspace.create(Path(sys.argv[1])) as run:
    image = run.scratch("pool") / "image"
    image.touch()
    with image.open("r+b") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    target = run.scratch("mnt")
    with attached_loop(str(image)) as device:
        syscalls.mount(device, str(target), "ext4")
    (target / "inside").write_text("left")
    print(run.directory, flush=True)
    time.sleep(60)
"""

# The same with a child of its own that outlives it.
PARENT = """
import subprocess, sys, time
from pathlib import Path
from snapspec.conformance.workspace import Workspace
run = Workspace.create(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, close_fds=False)
print(child.pid, flush=True)
time.sleep(60)
"""


@contextmanager
def running(script: str, base: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that runs `script` on `base`, and the line that it says when it is ready."""
    with subprocess.Popen([sys.executable, "-c", script, str(base)], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline().strip()
            assert line, "the child died before it was ready"
            yield child, line
        finally:
            child.kill()


def killed(script: str, base: Path) -> str:
    """What a run of `script` said before it was killed."""
    with running(script, base) as (child, line):
        child.kill()
        child.wait()
    return line


def whole(directory: Path) -> dict[str, tuple[int, str]]:
    """All below `directory`: mode, and content or where a symlink points."""
    found = {}
    for path in directory.rglob("*"):
        content = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
        found[str(path)] = (path.lstat().st_mode, content)
    return found


@pytest.fixture
def base(workdir: Path) -> Path:
    return workdir / "base"


def only(leftovers: list[Leftover]) -> Leftover:
    assert len(leftovers) == 1, leftovers
    return leftovers[0]


def test_a_run_leaves_nothing(base: Path) -> None:
    with Workspace.create(base) as run:
        assert run.directory.parent == base
        assert run.directory.stat().st_mode & 0o777 == 0o700
        assert run.scratch("a") != run.scratch("a")
        run.note({"subject": "x"})
        run.strike({"subject": "x"})
    run.close()
    assert list(base.iterdir()) == []


def test_a_run_that_fails_leaves_nothing(base: Path) -> None:
    def fail() -> None:
        with Workspace.create(base) as run:
            (run.scratch("a") / "file").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(base.iterdir()) == []


def test_ctrl_c_leaves_nothing_but_what_is_noted(base: Path) -> None:
    with running(HOLDER, base) as (child, directory):
        child.send_signal(signal.SIGINT)
        assert child.wait(10) != 0
    assert sorted(path.name for path in Path(directory).iterdir()) == ["lock", "run.json"]
    left = only(reclaim(base))
    assert [note["prefix"] for note in left.notes] == ["p-1"]
    assert left.discard() == ""
    assert list(base.iterdir()) == []


def test_a_killed_run_is_found_with_its_notes_and_removed(base: Path) -> None:
    directory = Path(killed(HOLDER, base))
    assert (directory / "layers-1/deep/file").read_text() == "left"
    left = only(reclaim(base))
    assert left.directory == directory
    assert left.notes == ({"subject": "containerd:/x.sock", "prefix": "p-1", "namespace": "n", "lease": "l"},)
    assert left.discard() == ""
    assert list(base.iterdir()) == []
    assert Path("/etc").is_dir()


@pytest.mark.root
def test_a_killed_run_with_a_mounted_pool_is_removed(base: Path) -> None:
    directory = killed(MOUNTER, base)
    assert only(reclaim(base)).discard() == ""
    assert list(base.iterdir()) == []
    backing = [entry.read_text() for entry in Path("/sys/block").glob("loop*/loop/backing_file")]
    assert not [path for path in backing if path.startswith(directory)]


def test_a_living_run_is_left_alone(base: Path) -> None:
    with running(HOLDER, base) as (child, line):
        before = whole(Path(line))
        dead = killed(HOLDER, base)
        left = only(reclaim(base))
        assert str(left.directory) == dead
        assert left.discard() == ""
        assert reclaim(base) == []
        assert whole(Path(line)) == before
        assert child.poll() is None
    assert str(only(reclaim(base)).directory) == line


def test_a_run_of_this_process_is_left_alone(base: Path) -> None:
    with Workspace.create(base) as run:
        assert reclaim(base) == []
        assert run.directory.is_dir()


def test_a_run_whose_child_lives_on_counts_as_dead(base: Path) -> None:
    orphan = int(killed(PARENT, base))
    try:
        assert only(reclaim(base)).discard() == ""
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_neighbours_stay_whole(base: Path, workdir: Path) -> None:
    directory = Path(killed(HOLDER, base))
    elsewhere = workdir / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").write_bytes(MARK)
    (elsewhere / "run.json").write_text("[]")
    (base / "file").write_text("not ours")
    (base / "run-file").write_text("not ours")
    (base / "run-link").symlink_to(elsewhere)
    (base / "run-empty").mkdir()
    for name, lock in (("run-unmarked", b""), ("run-other", MARK + b"and more"), ("other", MARK)):
        (base / name).mkdir()
        (base / name / "lock").write_bytes(lock)
        (base / name / "file").write_text("not ours")
    (base / "run-linked-lock").mkdir()
    (base / "run-linked-lock/lock").symlink_to(elsewhere / "lock")
    os.mkfifo(base / "run-empty" / "lock")
    before = {path: seen for path, seen in whole(workdir).items() if not path.startswith(str(directory))}
    left = only(reclaim(base))
    assert left.directory == directory
    assert left.discard() == ""
    assert whole(workdir) == before


@pytest.mark.parametrize("notes", ["[", "{}", '["x"]', '[{"prefix": 1}]'])
def test_a_run_whose_notes_are_damaged_is_left_alone(base: Path, notes: str) -> None:
    directory = Path(killed(HOLDER, base))
    (directory / "run.json").write_text(notes)
    before = whole(base)
    assert reclaim(base) == []
    assert whole(base) == before


def test_only_one_run_reclaims(base: Path) -> None:
    killed(HOLDER, base)
    first = only(reclaim(base))
    assert reclaim(base) == []
    first.keep()
    second = only(reclaim(base))
    assert second.notes == first.notes
    assert second.discard() == ""
    assert reclaim(base) == []


def test_no_base_no_leftovers(base: Path) -> None:
    assert reclaim(base) == []
    assert not base.exists()


def test_the_base_is_found_by_everyone_in_the_same_place(clean_session: Path) -> None:
    assert default_base() == clean_session / f"snapspec-{os.geteuid()}"


def link_base(base: Path) -> None:
    (base.parent / "real").mkdir(mode=0o700)
    base.symlink_to("real")


def open_base(base: Path) -> None:
    base.mkdir()
    base.chmod(0o770)


def foreign_base(base: Path) -> None:
    base.mkdir(mode=0o700)
    os.chown(base, 65534, 65534)


def file_base(base: Path) -> None:
    base.touch(mode=0o700)


@pytest.mark.parametrize("plant", [link_base, open_base, file_base, pytest.param(foreign_base, marks=pytest.mark.root)])
@pytest.mark.parametrize("use", [Workspace.create, reclaim])
def test_a_base_that_others_can_reach_is_refused(
    base: Path, plant: Callable[[Path], None], use: Callable[[Path], object]
) -> None:
    plant(base)
    before = whole(base.parent)
    with pytest.raises(CannotRun, match="TMPDIR"):
        use(base)
    assert whole(base.parent) == before


def test_a_base_that_cannot_be_made_is_refused(workdir: Path) -> None:
    with pytest.raises(CannotRun, match="TMPDIR"):
        Workspace.create(workdir / "missing" / "base")


@pytest.mark.root
def test_close_refuses_to_delete_through_a_mount(base: Path) -> None:
    run = Workspace.create(base)
    target = run.scratch("mnt")
    syscalls.mount("tmpfs", str(target), "tmpfs")
    (target / "precious").write_text("x")
    try:
        with pytest.raises(MountError):
            run.close()
        assert (target / "precious").read_text() == "x"
        assert reclaim(base) == []
    finally:
        syscalls.umount2(str(target))
    run.close()
    assert list(base.iterdir()) == []


@pytest.mark.root
def test_a_leftover_in_use_stays(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "_SETTLE_SECONDS", 0.1)
    scratch = Path(killed(HOLDER, base)) / "layers-1"
    image = scratch / "image"
    image.touch()
    os.truncate(image, 1 << 20)
    before = whole(base)
    syscalls.mount("tmpfs", str(scratch / "deep"), "tmpfs")
    try:
        assert "umount" in only(reclaim(base)).discard()
    finally:
        syscalls.umount2(str(scratch / "deep"))
    with attached_loop(str(image)):
        assert "losetup -d" in only(reclaim(base)).discard()
    assert whole(base) == before
    monkeypatch.undo()
    assert only(reclaim(base)).discard() == ""
    assert list(base.iterdir()) == []


@pytest.mark.root
def test_discard_waits_until_the_dead_have_let_go(base: Path) -> None:
    """The lock of a dead process is free before the kernel has taken its mounts down and detached its loop devices."""
    scratch = Path(killed(HOLDER, base)) / "layers-1"
    image = scratch / "image"
    image.touch()
    os.truncate(image, 1 << 20)
    with ExitStack() as held:
        held.enter_context(attached_loop(str(image)))
        timer = threading.Timer(0.3, held.close)
        timer.start()
        assert only(reclaim(base)).discard() == ""
        timer.join()
    assert list(base.iterdir()) == []
