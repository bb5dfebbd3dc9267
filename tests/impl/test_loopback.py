"""The pool on real loop devices and file systems: data, crashes, interrupts, full disks, second openers, neighbours."""

from __future__ import annotations

import errno
import fcntl
import inspect
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from snapspec.impl import loopback, mounts, syscalls
from snapspec.impl.loopback import Pool, PoolBusy, PoolError, ToolMissing, open_pool

TOOLS = f"{os.environ['PATH']}:/usr/sbin:/sbin"
MKFS = shutil.which("mkfs.ext4", path=TOOLS)

pytestmark = [pytest.mark.root, pytest.mark.skipif(MKFS is None, reason="needs mkfs.ext4: install e2fsprogs")]

MIB = 1 << 20
SIZES = {"ext4": 24 * MIB, "xfs": 300 * MIB, "btrfs": 112 * MIB}
WRAPPERS = [name for name, f in inspect.getmembers(syscalls, inspect.isfunction) if not name.startswith(("_", "enter_"))]


@pytest.fixture(params=list(SIZES))
def kind(request: pytest.FixtureRequest) -> str:
    """A file system that this machine can make and mount."""
    name = str(request.param)
    if shutil.which(f"mkfs.{name}", path=TOOLS) is None:
        pytest.skip(f"needs mkfs.{name}: install {loopback._FILE_SYSTEMS[name].package}")
    modprobe = shutil.which("modprobe", path=TOOLS)
    if modprobe is not None:
        subprocess.run([modprobe, "-q", name], check=False)
    if name not in Path("/proc/filesystems").read_text().split():
        pytest.skip(f"this kernel has no {name}")
    return name


def attached(directory: Path) -> list[str]:
    """The loop devices on files below `directory`, by a look that the code under test has no part in."""
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if file.read_text().startswith(f"{directory}/"):
                found.append(file.parent.parent.name)
    return sorted(found)


def mounted_at(directory: Path) -> list[str]:
    points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point == str(directory) or point.startswith(f"{directory}/")]


def assert_gone(directory: Path) -> None:
    assert mounted_at(directory) == []
    assert attached(directory) == []


def write(path: Path, data: bytes | str) -> None:
    with open(path, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        os.fsync(file.fileno())


def blocks(directory: Path) -> int:
    return (directory / "pool.img").stat().st_blocks * 512


@contextmanager
def running(script: str, *arguments: object, path: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that runs `script` and has said that it is ready; killed at the end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PATH": path + os.environ["PATH"]}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


# --- the ordinary life of a pool ---


def test_data_survives_close_and_open(workdir: Path, kind: str) -> None:
    with open_pool(str(workdir / "p"), size=SIZES[kind], file_system=kind) as pool:
        assert pool.root == str(workdir / "p" / "mnt")
        assert len(attached(workdir)) == 1
        Path(pool.root, "file").write_text("kept")
    assert_gone(workdir)
    with open_pool(str(workdir / "p"), file_system=kind) as pool:
        assert Path(pool.root, "file").read_text() == "kept"
        assert len(attached(workdir)) == 1
    assert_gone(workdir)


def test_what_a_pool_is_made_of(workdir: Path, kind: str) -> None:
    directory = workdir / "p"
    with open_pool(str(directory), size=SIZES[kind], file_system=kind) as pool:
        assert sorted(os.listdir(directory)) == ["lock", "mnt", "pool.img"]
        assert (directory / "pool.img").stat().st_size == SIZES[kind]
        assert blocks(directory) < SIZES[kind] / 2, "the image is sparse"
        assert directory.stat().st_mode & 0o777 == 0o700, "setuid files in layers are out of others' reach"
        assert os.statvfs(pool.root).f_flag & os.ST_NOATIME
        assert os.statvfs(pool.root).f_bsize == 4096
        assert Path(pool.root, "ballast").stat().st_blocks * 512 >= MIB
    assert sorted(os.listdir(directory)) == ["lock", "mnt", "pool.img"]
    assert os.listdir(directory / "mnt") == []


def test_close_twice_and_use_after_close(workdir: Path) -> None:
    pool = open_pool(str(workdir / "p"), size=SIZES["ext4"])
    pool.close()
    pool.close()
    for use in (pool.sync, pool.trim, pool.release_ballast, pool.restore_ballast, lambda: pool.grow(64 * MIB)):
        with pytest.raises(PoolError, match="closed; open it again"):
            use()
    assert os.listdir(workdir / "p" / "mnt") == []


def test_a_second_opener_is_refused_and_the_first_undisturbed(workdir: Path) -> None:
    with open_pool(str(workdir / "p"), size=SIZES["ext4"]) as first:
        write(Path(first.root, "file"), "1")
        with open(Path(first.root, "file"), "a") as file:
            before = attached(workdir), mounted_at(workdir)
            with pytest.raises(PoolBusy, match="open already; close it there"):
                open_pool(str(workdir / "p"))
            assert (attached(workdir), mounted_at(workdir)) == before
            file.write("2")
        assert Path(first.root, "file").read_text() == "12"
    with open_pool(str(workdir / "p")) as again:
        assert Path(again.root, "file").read_text() == "12"


HOLD = """
import sys
from snapspec.impl.loopback import open_pool
pool = open_pool(sys.argv[1], file_system=sys.argv[2], size=int(sys.argv[3]))
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_second_opener_in_another_process_is_refused(workdir: Path) -> None:
    with running(HOLD, workdir / "p", "ext4", SIZES["ext4"]):
        with pytest.raises(PoolBusy, match="open already"):
            open_pool(str(workdir / "p"))
        assert mounted_at(workdir) == [str(workdir / "p" / "mnt")]
    open_pool(str(workdir / "p")).close()


def test_a_lock_on_a_deleted_file_is_no_lock(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An opener who fails deletes what it made, the lock file too: who holds that one must lock the next."""
    lock_file, flock = workdir / "p" / "lock", fcntl.flock
    locked: list[int] = []

    def lose(fd: int, operation: int) -> None:
        flock(fd, operation)
        if not locked:
            lock_file.unlink()
        locked.append(fd)

    monkeypatch.setattr(fcntl, "flock", lose)
    with open_pool(str(workdir / "p"), size=SIZES["ext4"]):
        assert len(locked) == 2
        with pytest.raises(PoolBusy, match="open already"):
            open_pool(str(workdir / "p"))


def test_a_pool_that_is_lost_is_closed_but_not_by_a_forked_child(workdir: Path) -> None:
    pool = open_pool(str(workdir / "p"), size=SIZES["ext4"])
    child = os.fork()
    if child == 0:
        pool.__del__()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(mounted_at(workdir)) == 1
    del pool
    assert_gone(workdir)


# --- growing, trimming, full ---


def test_a_pool_grows_while_a_file_is_open(workdir: Path, kind: str) -> None:
    if kind == "ext4" and not loopback._capable(24):
        pytest.skip("ext4 is resized on line by a process with CAP_SYS_RESOURCE only; this one lacks it")
    directory, larger = workdir / "p", 2 * max(SIZES[kind], 128 * MIB)
    with open_pool(str(directory), size=SIZES[kind], file_system=kind) as pool:
        with open(Path(pool.root, "open"), "w") as file:
            file.write("before ")
            total = os.statvfs(pool.root)
            pool.grow(larger)
            grown = os.statvfs(pool.root)
            assert grown.f_blocks * grown.f_frsize > total.f_blocks * total.f_frsize + (larger - SIZES[kind]) * 0.8
            file.write("after")
            os.posix_fallocate(file.fileno(), 0, SIZES[kind] + 8 * MIB)
            os.truncate(file.fileno(), len("before after"))
        assert (directory / "pool.img").stat().st_size == larger
        with pytest.raises(PoolError, match="only grows"):
            pool.grow(SIZES[kind])
        pool.grow(larger)  # the same again completes what was interrupted
    with open_pool(str(directory), file_system=kind) as pool:
        assert Path(pool.root, "open").read_text() == "before after"
        total = os.statvfs(pool.root)
        assert total.f_blocks * total.f_frsize > larger * 0.75


def test_growing_without_the_capability_is_refused_before_anything_is_done(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = replace(loopback._FILE_SYSTEMS["ext4"], grow_capability=63)  # a capability that nobody has
    monkeypatch.setitem(loopback._FILE_SYSTEMS, "ext4", kind)
    with open_pool(str(workdir / "p"), size=SIZES["ext4"]) as pool:
        with pytest.raises(PoolError, match="CAP_SYS_RESOURCE"):
            pool.grow(64 * MIB)
        assert (workdir / "p" / "pool.img").stat().st_size == SIZES["ext4"]


def test_removed_data_leaves_the_image_when_trimmed(workdir: Path, kind: str) -> None:
    directory = workdir / "p"
    with open_pool(str(directory), size=SIZES[kind], file_system=kind) as pool:
        pool.trim()
        empty = blocks(directory)
        write(Path(pool.root, "big"), random.Random(1).randbytes(8 * MIB))
        pool.sync()
        full = blocks(directory)
        assert full >= empty + 7 * MIB
        Path(pool.root, "big").unlink()
        assert pool.trim() >= 8 * MIB
        assert blocks(directory) <= full - 7 * MIB
        write(Path(pool.root, "after"), "usable")


def fill(root: str) -> None:
    """Write until nothing more goes in, large files first."""
    for step in (32 * MIB, 4 * MIB, MIB, 64 << 10, 4096):
        for number in range(1 << 20):
            fd = os.open(f"{root}/fill-{step}-{number}", os.O_WRONLY | os.O_CREAT)
            try:
                os.posix_fallocate(fd, 0, step)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                break
            finally:
                os.close(fd)


def test_a_full_pool_gives_enospc_and_closes_and_the_ballast_helps(workdir: Path, kind: str) -> None:
    with open_pool(str(workdir / "p"), size=SIZES[kind], file_system=kind) as pool:
        root = Path(pool.root)
        with suppress(OSError):
            fill(pool.root)
        with pytest.raises(OSError, match="No space") as full:
            write(root / "more", b"x" * (4 * MIB))
        assert full.value.errno == errno.ENOSPC
        pool.release_ballast()
        assert not (root / "ballast").exists()
        write(root / "record", b"r" * (256 << 10))
        restored = pool.restore_ballast()
        assert restored is (root / "ballast").exists()
        assert not restored or kind == "btrfs"  # which keeps some room back and may find it for the ballast
    assert_gone(workdir)
    with open_pool(str(workdir / "p"), file_system=kind) as pool:
        assert (root / "record").read_bytes() == b"r" * (256 << 10)
        for path in root.glob("fill-*"):
            path.unlink()
        pool.sync()
        assert pool.restore_ballast() is True
        assert pool.restore_ballast() is True
        assert (root / "ballast").stat().st_blocks * 512 >= MIB


# --- crashes ---

CRASH = """
import os, sys
from pathlib import Path
from snapspec.impl import syscalls
from snapspec.impl.loopback import open_pool
directory, kind, size, namespace = sys.argv[1:]
if namespace == "private":
    syscalls.enter_private_namespace()
pool = open_pool(directory, file_system=kind, size=int(size))
for name, flush in (("synced", True), ("loose", False)):
    with open(os.path.join(pool.root, name), "w") as file:
        file.write(name * 1000)
        if flush:
            file.flush()
            os.fsync(file.fileno())
print("ready", flush=True)
sys.stdin.read()
"""


def crash(directory: Path, kind: str, namespace: str) -> None:
    """A process opens the pool, writes into it, and is killed."""
    with running(CRASH, directory, kind, SIZES[kind], namespace) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("namespace", ["private", "shared"])
def test_a_killed_process_leaves_a_pool_that_opens_with_its_data(workdir: Path, kind: str, namespace: str) -> None:
    directory = workdir / "p"
    crash(directory, kind, namespace)
    left = [str(directory / "mnt")] if namespace == "shared" else []
    assert mounted_at(workdir) == left
    with open_pool(str(directory), file_system=kind) as pool:
        assert Path(pool.root, "synced").read_text() == "synced" * 1000
        assert len(attached(workdir)) == 1
        assert len(mounted_at(workdir)) == 1
        write(Path(pool.root, "new"), "writable")
    assert_gone(workdir)


def test_an_image_that_stayed_attached_without_a_mount_is_detached(workdir: Path) -> None:
    open_pool(str(workdir / "p"), size=SIZES["ext4"]).close()
    with mounts.attached_loop(str(workdir / "p" / "pool.img")) as device:
        number = int(device.removeprefix("/dev/loop"))
        fd = mounts.open_loop(number, os.O_RDWR)
        status = bytearray(232)
        fcntl.ioctl(fd, 0x4C05, status)
        status[52:56] = bytes(4)  # no autoclear: nobody but us will ever detach it
        fcntl.ioctl(fd, 0x4C04, status)
        os.close(fd)
    assert attached(workdir) == [f"loop{number}"]
    with open_pool(str(workdir / "p")):
        assert len(attached(workdir)) == 1
    assert_gone(workdir)


SLOW_MKFS = """#!/bin/sh
echo half made >"$(eval echo \\${$#})"
echo $$ >"$MKFS_STARTED.new"
mv "$MKFS_STARTED.new" "$MKFS_STARTED"
exec sleep 60
"""

OPEN_SLOWLY = """
import sys
print("ready", flush=True)
from snapspec.impl.loopback import open_pool
open_pool(sys.argv[1], size=int(sys.argv[2]))
"""


def test_a_half_made_image_is_never_trusted(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The opener is killed while mkfs runs; mkfs lives on."""
    tools, started, directory = workdir / "bin", workdir / "started", workdir / "p"
    program(tools / "mkfs.ext4", SLOW_MKFS)
    monkeypatch.setenv("MKFS_STARTED", str(started))
    with running(OPEN_SLOWLY, directory, SIZES["ext4"], path=f"{tools}:") as process:
        wait_for(started.exists)
        process.send_signal(signal.SIGKILL)
        process.wait()
    try:
        assert any(name.startswith("pool.img.new-") for name in os.listdir(directory))
        assert not (directory / "pool.img").exists()
        with open_pool(str(directory), size=SIZES["ext4"]) as pool:
            write(Path(pool.root, "file"), "works")
        assert sorted(os.listdir(directory)) == ["lock", "mnt", "pool.img"]
    finally:
        os.kill(int(started.read_text()), signal.SIGKILL)


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- what is refused ---


@pytest.mark.parametrize(("file_system", "size"), [("ext4", 4 * MIB), ("xfs", 64 * MIB), ("btrfs", 64 * MIB), ("zfs", 512 * MIB)])
def test_what_no_pool_can_be_is_refused_and_nothing_made(workdir: Path, file_system: str, size: int) -> None:
    with pytest.raises(PoolError, match=r"give \d+ or more|take one of ext4, xfs, btrfs"):
        open_pool(str(workdir / "p"), size=size, file_system=file_system)
    assert os.listdir(workdir) == []


@pytest.mark.parametrize("existing", [False, True])
def test_a_failing_mkfs_leaves_nothing(workdir: Path, existing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    program(workdir / "bin" / "mkfs.ext4", "#!/bin/sh\necho it cannot be\nexit 3\n")
    monkeypatch.setenv("PATH", f"{workdir / 'bin'}:{os.environ['PATH']}")
    if existing:
        (workdir / "p").mkdir()
    with pytest.raises(PoolError, match=r"mkfs\.ext4 failed with status 3: it cannot be"):
        open_pool(str(workdir / "p"))
    assert sorted(os.listdir(workdir)) == (["bin", "p"] if existing else ["bin"])
    assert not existing or os.listdir(workdir / "p") == []
    assert_gone(workdir)


@pytest.mark.parametrize("step", ["make", "check"])
def test_a_missing_tool_is_named_with_its_package(workdir: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(loopback._FILE_SYSTEMS["ext4"], **{step: ("no-such-tool", "{}")})  # type: ignore[arg-type]  # one of two tuples
    monkeypatch.setitem(loopback._FILE_SYSTEMS, "ext4", absent)
    with pytest.raises(ToolMissing, match="no-such-tool is not installed; install the Debian package e2fsprogs"):
        open_pool(str(workdir / "p"))
    assert os.listdir(workdir) == []


def test_an_image_of_another_file_system_is_refused_and_kept(workdir: Path) -> None:
    directory = workdir / "p"
    with open_pool(str(directory), size=SIZES["ext4"]) as pool:
        write(Path(pool.root, "file"), "kept")
    with pytest.raises(PoolError, match="holds ext4, not xfs; open it as what it is"):
        open_pool(str(directory), size=SIZES["xfs"], file_system="xfs")
    assert_gone(workdir)
    with open_pool(str(directory)) as pool:
        assert Path(pool.root, "file").read_text() == "kept"


def test_an_image_that_is_no_file_system_is_refused_and_kept(workdir: Path) -> None:
    directory = workdir / "p"
    directory.mkdir(0o700)
    (directory / "pool.img").write_text("somebody's diary")
    with pytest.raises(PoolError, match="no file system that a pool can have"):
        open_pool(str(directory))
    assert (directory / "pool.img").read_text() == "somebody's diary"
    assert_gone(workdir)


def test_a_damaged_image_is_refused(workdir: Path) -> None:
    directory = workdir / "p"
    open_pool(str(directory), size=SIZES["ext4"]).close()
    with open(directory / "pool.img", "r+b") as image:
        image.seek(1024 + 4)
        image.write(b"\xff" * 40)  # the counts of the superblock, not its magic
    with pytest.raises(PoolError, match="is damaged; mend it with e2fsck -f, or delete it"):
        open_pool(str(directory))
    assert_gone(workdir)


def test_a_directory_that_others_write_to_is_refused(workdir: Path) -> None:
    (workdir / "p").mkdir()
    (workdir / "p").chmod(0o777)
    with pytest.raises(PoolError, match="chown it to yourself and chmod go-w"):
        open_pool(str(workdir / "p"))
    assert os.listdir(workdir / "p") == []


NOBODY = """
import os, sys
from snapspec.impl.loopback import PoolError, open_pool
os.chown(sys.argv[1], 65534, 65534)
os.chdir(sys.argv[1])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    open_pool("p")
except PoolError as error:
    print(error, os.listdir("."))
"""


def test_without_root_a_pool_is_refused_and_nothing_made(workdir: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    (workdir / "theirs").mkdir()
    command = [sys.executable, "-c", NOBODY, str(workdir / "theirs")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "a pool needs root and loop devices" in done.stdout, done.stderr
    assert done.stdout.endswith("[]\n")


# --- in use ---


def test_a_pool_in_use_stays_open_and_closes_later(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback, "PATIENCE", 0.05)
    pool = open_pool(str(workdir / "p"), size=SIZES["ext4"])
    with open(Path(pool.root, "file"), "w"):
        with pytest.raises(PoolBusy, match="still in use; close the files in it"):
            pool.close()
        pool.sync()
        with pytest.raises(PoolBusy, match="open already"):
            open_pool(str(workdir / "p"))
    pool.close()
    assert_gone(workdir)


STAY = """
import sys
from snapspec.impl import syscalls
syscalls.enter_private_namespace()
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_pool_that_another_namespace_holds_is_not_mounted_twice(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mounts of one image through two devices would destroy it."""
    monkeypatch.setattr(loopback, "PATIENCE", 0.05)
    pool = open_pool(str(workdir / "p"), size=SIZES["ext4"])
    write(Path(pool.root, "file"), "kept")
    with running(STAY):
        with pytest.raises(PoolBusy, match="in every mount namespace"):
            pool.close()
        assert mounted_at(workdir) == []
        os.close(pool._lock)  # as if this process had been killed, and another came
        with pytest.raises(PoolBusy, match="in every mount namespace"):
            open_pool(str(workdir / "p"))
        assert mounted_at(workdir) == []
        assert len(attached(workdir)) == 1
    monkeypatch.setattr(loopback, "PATIENCE", 5)
    with open_pool(str(workdir / "p")) as again:
        assert Path(again.root, "file").read_text() == "kept"


@pytest.mark.parametrize("where", ["mnt", "mnt/inside"])
def test_a_foreign_mount_in_the_pool_is_left_alone(workdir: Path, where: str) -> None:
    directory = workdir / "p"
    with open_pool(str(directory), size=SIZES["ext4"]) as pool:
        Path(pool.root, "inside").mkdir()
    crash(directory, "ext4", "shared")
    syscalls.mount("tmpfs", str(directory / where), "tmpfs")
    (directory / where / "foreign").touch()
    before = mounted_at(workdir), attached(workdir)
    with pytest.raises(PoolBusy, match="is not the pool's; unmount it"):
        open_pool(str(directory))
    assert (mounted_at(workdir), attached(workdir)) == before
    assert (directory / where / "foreign").exists()
    syscalls.umount2(str(directory / where))
    open_pool(str(directory)).close()
    assert_gone(workdir)


@contextmanager
def neighbours(workdir: Path) -> Iterator[Callable[[], None]]:
    """Things beside the pool that look much like it: images of the same name, mounted and only attached, and a directory."""
    mounted, loose, beside = workdir / "other", workdir / "loose", workdir / "p" / "beside"
    for directory in (mounted / "mnt", loose, beside):
        directory.mkdir(parents=True)
    (workdir / "p").chmod(0o700)
    (beside / "file").write_text("1")
    for directory in (mounted, loose):
        (directory / "pool.img").touch()
        os.truncate(directory / "pool.img", SIZES["ext4"])
        subprocess.run([str(MKFS), "-q", directory / "pool.img"], check=True)
    with mounts.attached_loop(str(loose / "pool.img")) as device:
        with mounts.attached_loop(str(mounted / "pool.img")) as other:
            syscalls.mount(other, str(mounted / "mnt"), "ext4")
        write(mounted / "mnt" / "file", "2")
        expected = {directory: attached(directory) for directory in (mounted, loose)}
        assert expected[loose] == [device.removeprefix("/dev/")]

        def whole() -> None:
            assert {directory: attached(directory) for directory in (mounted, loose)} == expected
            assert mounted_at(mounted) == [str(mounted / "mnt")]
            assert (mounted / "mnt" / "file").read_text() == "2"
            assert (beside / "file").read_text() == "1"

        try:
            yield whole
        finally:
            syscalls.umount2(str(mounted / "mnt"))


def test_neighbours_stay_whole(workdir: Path) -> None:
    with neighbours(workdir) as whole:
        with open_pool(str(workdir / "p"), size=SIZES["ext4"]) as pool:
            pool.trim()
        whole()
        crash(workdir / "p", "ext4", "shared")
        whole()
        open_pool(str(workdir / "p")).close()
        whole()
        assert_gone(workdir / "p")


BARE_DEV = """
import os, stat, sys
from pathlib import Path
from snapspec.impl import syscalls
from snapspec.impl.loopback import open_pool
syscalls.enter_private_namespace()
syscalls.mount("tmpfs", "/dev", "tmpfs")
os.mknod("/dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
os.mknod("/dev/loop-control", stat.S_IFCHR | 0o600, os.makedev(10, 237))
with open_pool(sys.argv[1], size=int(sys.argv[2])) as pool:
    print(sorted(os.listdir("/dev")))
"""


def test_a_missing_device_node_is_made(workdir: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", BARE_DEV, str(workdir / "p"), str(SIZES["ext4"])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\['loop-control'(, 'loop\d+')+, 'null'\]\n", done.stdout)
    assert_gone(workdir)


# --- interrupts ---


def interrupt(patch: pytest.MonkeyPatch, at: int, after: bool) -> Callable[[], bool]:
    """Raise KeyboardInterrupt at system call number `at`, before or after its effect; tells whether it came to that."""
    count = 0

    def wrapped(name: str) -> Callable[..., object]:
        call = getattr(syscalls, name)

        def counting(*arguments: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count == at and not after:
                raise KeyboardInterrupt
            reached = count == at
            try:
                return call(*arguments, **named)
            finally:
                if reached:
                    raise KeyboardInterrupt

        return counting

    for name in WRAPPERS:
        patch.setattr(syscalls, name, wrapped(name))
    return lambda: count >= at


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("start", ["new", "closed", "crashed"])
def test_an_interrupt_at_any_call_of_open_leaves_nothing(
    workdir: Path, start: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, reached = workdir / "p", 0
    if start != "new":
        open_pool(str(directory), size=SIZES["ext4"]).close()
    while True:
        if start == "crashed":
            crash_here(directory)
        with monkeypatch.context() as patch:
            interrupted = interrupt(patch, reached + 1, after)
            try:
                pool: Pool | None = open_pool(str(directory), size=SIZES["ext4"])
            except KeyboardInterrupt:
                pool = None
            if not interrupted():
                break
        assert pool is None
        if start == "crashed":  # what the crash left may be there still: the next open takes it
            open_pool(str(directory)).close()
        assert_gone(workdir)
        assert start != "new" or not directory.exists()
        reached += 1
    assert pool is not None
    pool.close()
    assert_gone(workdir)
    assert reached >= 3


def crash_here(directory: Path) -> None:
    """What a process leaves that is killed in this namespace: a mount on a device that only the mount holds."""
    with mounts.attached_loop(str(directory / "pool.img")) as device:
        syscalls.mount(device, str(directory / "mnt"), "ext4")


def test_a_real_interrupt_at_any_time_leaves_nothing(workdir: Path) -> None:
    """A signal comes at drawn times while a pool is opened, used and closed."""
    directory, draw, came, span = workdir / "p", random.Random(2), 0, 0.0

    def raise_interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def use() -> None:
        with open_pool(str(directory), size=SIZES["ext4"]) as pool:
            os.mkdir(f"{pool.root}/{secrets.token_hex(4)}")  # no file: an interrupt may come between its open and its close
        signal.setitimer(signal.ITIMER_REAL, 0)

    for _ in range(2):  # how long that takes on this machine, the second time
        begin = time.monotonic()
        use()
        span = time.monotonic() - begin
    before = signal.signal(signal.SIGALRM, raise_interrupt)
    try:
        for _ in range(30):
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.0001, span))
                use()
            except KeyboardInterrupt:
                came += 1
            assert_gone(workdir)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert came > 5
