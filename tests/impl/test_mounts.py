"""Mount lists on real mounts: what they show, what they refuse, and that nothing stays behind, nor is anything else touched."""

from __future__ import annotations

import errno
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapspec.impl import mounts, syscalls
from snapspec.impl.mounts import MountError
from snapspec.model.values import Mount

needs_root = pytest.mark.root
WRAPPERS = [name for name, f in inspect.getmembers(syscalls, inspect.isfunction) if not name.startswith(("_", "enter_"))]


def interrupt(patch: pytest.MonkeyPatch, at: int, after: bool) -> Callable[[], bool]:
    """Raise KeyboardInterrupt at system call number `at` of the main thread, before or after its effect; tells whether it was."""
    count = 0

    def wrapped(name: str) -> Callable[..., object]:
        call = getattr(syscalls, name)

        def counting(*arguments: object, **named: object) -> object:
            nonlocal count
            if threading.current_thread() is not threading.main_thread():
                return call(*arguments, **named)  # Python raises it in the main thread alone
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


def mounted_at(directory: Path) -> list[str]:
    """What is mounted at or below `directory`, by a reading of the mount table that the code under test has no part in."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split(" ")[4] for line in lines]
    return [point for point in points if point == str(directory) or point.startswith(f"{directory}/")]


def child(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `script` in a process of its own, to its end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)


def directory(path: Path, **files: str) -> Path:
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def layers(base: Path, count: int) -> list[Path]:
    """Layers, nearest first: each has a file of its own, and all have `nearest`."""
    return [directory(base / f"layer-{i:03}", **{f"own{i}": str(i), "nearest": str(i)}) for i in range(count)]


def overlay(base: Path, lower: list[Path], *options: str) -> Mount:
    upper, work = directory(base / "upper"), directory(base / "work")
    lowerdir = ":".join(mounts.escape_layer(str(path)) for path in lower)
    named = (f"upperdir={mounts.escape_layer(str(upper))}", f"workdir={mounts.escape_layer(str(work))}")
    return Mount("overlay", "overlay", (*options, f"lowerdir={lowerdir}", *named))


def refuses_writes(path: Path) -> bool:
    with pytest.raises(OSError, match="Read-only file system"):
        (path / "new").touch()
    return True


@pytest.fixture
def workdir(workdir: Path) -> Iterator[Path]:
    """The same in memory: many small files are made and deleted here, which some disks take long to do."""
    if os.geteuid() != 0:
        yield workdir
        return
    syscalls.mount("tmpfs", str(workdir), "tmpfs")
    try:
        yield directory(workdir / "w")
        assert mounted_at(workdir) == [str(workdir)]
    finally:
        mounts.unmount(str(workdir))


@pytest.fixture
def target(workdir: Path) -> Path:
    return directory(workdir / "target")


# --- what a list shows ---


@needs_root
def test_a_bind_mount_shows_its_source_and_writes_to_it(workdir: Path, target: Path) -> None:
    source = directory(workdir / "source", here="1")
    with mounts.mounted([Mount("bind", str(source), ("rbind", "rw"))], str(target)) as place:
        assert (target / "here").read_text() == "1"
        Path(place, "new").write_text("2")
    assert (source / "new").read_text() == "2"
    assert not mounted_at(target)
    assert os.listdir(target) == []


@needs_root
@pytest.mark.parametrize("options", [("rbind", "ro"), ("ro", "bind"), ("ro",)])
def test_a_read_only_bind_mount_refuses_writes(workdir: Path, target: Path, options: tuple[str, ...]) -> None:
    source = directory(workdir / "source", here="1")
    with mounts.mounted([Mount("bind", str(source), options)], str(target)):
        assert refuses_writes(target)
        (source / "beside").write_text("the source itself stays writable")
        assert (target / "beside").exists()


@needs_root
def test_flags_reach_the_kernel(workdir: Path, target: Path) -> None:
    source = directory(workdir / "source")
    options = ("rbind", "nosuid", "nodev", "noexec", "noatime")
    with mounts.mounted([Mount("bind", str(source), options)], str(target)):
        flags = os.statvfs(target).f_flag
        assert flags & os.ST_NOSUID
        assert flags & os.ST_NODEV
        assert flags & os.ST_NOEXEC
        assert flags & os.ST_NOATIME
        assert not flags & os.ST_RDONLY


@needs_root
def test_a_read_only_bind_mount_keeps_the_flags_of_its_source(workdir: Path, target: Path) -> None:
    source = directory(workdir / "source")
    with (
        mounts.mounted([Mount("tmpfs", "tmpfs", ("nosuid", "nodev", "size=64k"))], str(source)),
        mounts.mounted([Mount("bind", str(source), ("bind", "ro", "dev"))], str(target)),
    ):
        flags = os.statvfs(target).f_flag
        assert (flags & os.ST_RDONLY, flags & os.ST_NOSUID, flags & os.ST_NODEV) == (os.ST_RDONLY, os.ST_NOSUID, 0)


@needs_root
@pytest.mark.parametrize("old_kernel", [False, True])
@pytest.mark.parametrize("count", [1, 2, 200])
def test_an_overlay_shows_its_layers_nearest_first(
    workdir: Path, target: Path, count: int, old_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 layers do not fit a page: they are added one by one, and on old kernels named from the directory that they share."""
    if old_kernel:
        monkeypatch.setattr(syscalls, "fsopen", lambda _: _raise(errno.ENOSYS))
    before = os.getcwd()
    mount = overlay(workdir, layers(workdir, count))
    with mounts.mounted([mount], str(target)):
        assert (target / "nearest").read_text() == "0"
        assert sorted(os.listdir(target)) == sorted(["nearest", *(f"own{i}" for i in range(count))])
        (target / "nearest").write_text("changed")
    assert (workdir / "upper" / "nearest").read_text() == "changed"
    assert (workdir / "layer-000" / "nearest").read_text() == "0"
    assert os.getcwd() == before
    assert not mounted_at(workdir)


def _raise(code: int) -> int:
    raise OSError(code, os.strerror(code))


@needs_root
@pytest.mark.parametrize("old_kernel", [False, True])
@pytest.mark.parametrize("count", [2, 100])
def test_an_overlay_takes_any_name_as_a_path(
    workdir: Path, target: Path, count: int, old_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if old_kernel:
        monkeypatch.setattr(syscalls, "fsopen", lambda _: _raise(errno.ENOSYS))
    strange = directory(workdir / "a:b,c\\d \\:e")
    lower = layers(strange, count)
    with mounts.mounted([overlay(strange / "x,y:z\\", lower)], str(target)):
        assert (target / f"own{count - 1}").read_text() == str(count - 1)
        (target / "new").touch()
    assert (strange / "x,y:z\\" / "upper" / "new").exists()


@needs_root
def test_an_overlay_of_many_layers_takes_flags_and_options(workdir: Path, target: Path) -> None:
    mount = overlay(workdir, layers(workdir, 150), "index=off", "userxattr", "nosuid", "noatime")
    with mounts.mounted([mount], str(target)):
        flags = os.statvfs(target).f_flag
        assert flags & os.ST_NOSUID
        assert flags & os.ST_NOATIME
        assert not flags & os.ST_RDONLY
        line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {target} " in line)
        assert "userxattr" in line


@needs_root
def test_an_overlay_of_many_layers_that_the_kernel_refuses_says_why(workdir: Path, target: Path) -> None:
    mount = overlay(workdir, layers(workdir, 150), "no-such-option=1")
    with pytest.raises(OSError, match="no-such-option") as refused:
        mounts.mount([mount], str(target))
    assert refused.value.errno == errno.EINVAL
    assert refused.value.filename == str(target)
    assert not mounted_at(workdir)


@needs_root
def test_too_many_layers_are_refused(workdir: Path, target: Path) -> None:
    mount = Mount("overlay", "overlay", ("lowerdir=" + ":".join(f"/l{i}" for i in range(501)),))
    with pytest.raises(MountError, match="merge some"):
        mounts.mount([mount], str(target))


@needs_root
def test_a_list_of_two_mounts_in_order(workdir: Path, target: Path) -> None:
    outer, inner = directory(workdir / "outer", outside="1"), directory(workdir / "inner", inside="2")
    (outer / "sub" / "deep").mkdir(parents=True)
    pair = [Mount("bind", str(outer), ("rbind", "rw")), Mount("bind", str(inner), ("rbind", "ro"), target="/sub/deep")]
    with mounts.mounted(pair, str(target)):
        assert (target / "outside").read_text() == "1"
        assert (target / "sub" / "deep" / "inside").read_text() == "2"
        assert refuses_writes(target / "sub" / "deep")
        assert mounts.mountpoints_below(str(target)) == [str(target), str(target / "sub" / "deep")]
    assert not mounted_at(workdir)


@needs_root
def test_a_list_stacked_on_one_directory_shows_the_last(workdir: Path, target: Path) -> None:
    first, second = directory(workdir / "first", one="1"), directory(workdir / "second", two="2")
    both = [Mount("bind", str(first), ("bind",)), Mount("bind", str(second), ("bind",))]
    mounts.mount(both, str(target))
    assert os.listdir(target) == ["two"]
    mounts.unmount(str(target))
    assert not mounted_at(workdir)


@needs_root
def test_a_file_is_mounted_through_a_loop_device_that_goes_with_it(workdir: Path, target: Path) -> None:
    image = workdir / "image"
    image.touch()
    os.truncate(image, 8 << 20)
    subprocess.run([shutil.which("mkfs.ext4") or pytest.skip("needs mkfs.ext4 (e2fsprogs)"), "-q", image], check=True)
    with mounts.mounted([Mount("ext4", str(image), ("loop", "rw", "noatime"))], str(target)):
        (target / "file").write_text("kept")
    with mounts.mounted([Mount("ext4", str(image), ("loop", "ro"))], str(target)):
        assert (target / "file").read_text() == "kept"
        assert refuses_writes(target)
    backing = [file.read_text() for file in Path("/sys/block").glob("loop*/loop/backing_file")]
    assert not [name for name in backing if name.startswith(str(workdir))]


@needs_root
def test_a_btrfs_subvolume_is_mounted_by_its_id(workdir: Path, target: Path) -> None:
    image = workdir / "image"
    image.touch()
    os.truncate(image, 112 << 20)
    subprocess.run([shutil.which("mkfs.btrfs") or pytest.skip("needs mkfs.btrfs (btrfs-progs)"), "-q", image], check=True)
    with mounts.attached_loop(str(image)) as device:
        with mounts.mounted([Mount("btrfs", device)], str(target)):
            subprocess.run(["btrfs", "-q", "subvolume", "create", target / "sub"], check=True, stdout=subprocess.DEVNULL)
            (target / "sub" / "file").write_text("in the subvolume")
        with mounts.mounted([Mount("btrfs", device, ("subvolid=256", "ro"))], str(target)):
            assert os.listdir(target) == ["file"]
            assert refuses_writes(target)


# --- what is refused, and that nothing stays ---


@needs_root
@pytest.mark.parametrize(
    ("mount", "sentence"),
    [
        (Mount("format/mkdir/overlay", "overlay"), "needs containerd's mount manager"),
        (Mount("overlay", "overlay", ("lowerdir={{ mount 0 }}",)), "needs containerd's mount manager"),
        (Mount("bind", "/", ("X-containerd.mkdir.path=/x",)), "needs containerd's mount manager"),
        (Mount("fuse3.fuse-overlayfs", "overlay"), "mount helper"),
        (Mount("bind", "/", ("rbind", "remount")), "may only make new ones"),
        (Mount("bind", "/", ("rbind", "uidmap=0:0:1")), "takes no option 'uidmap"),
    ],
)
def test_what_a_plain_client_cannot_mount_is_refused_before_anything_is_done(
    workdir: Path, target: Path, mount: Mount, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "mount", lambda *_: pytest.fail("mounted"))
    with pytest.raises(MountError, match=sentence):
        mounts.mount([Mount("bind", str(workdir), ("bind",)), mount], str(target))


@needs_root
def test_an_empty_list_is_refused(target: Path) -> None:
    with pytest.raises(MountError, match="empty"):
        mounts.mount([], str(target))


@needs_root
@pytest.mark.parametrize("path", ["../outside", "sub/../../outside", "link", "absolute"])
def test_a_path_that_leaves_the_target_is_refused(workdir: Path, target: Path, path: str) -> None:
    outside, outer = directory(workdir / "outside"), directory(workdir / "outer")
    (outer / "sub").mkdir()
    (outer / "link").symlink_to("../outside")
    (outer / "absolute").symlink_to(outside)
    pair = [Mount("bind", str(outer), ("bind",)), Mount("bind", str(outer), ("bind",), target=path)]
    with pytest.raises(MountError, match="leaves the directory"):
        mounts.mount(pair, str(target))
    assert not mounted_at(workdir)


@needs_root
def test_a_failing_second_mount_leaves_nothing(workdir: Path, target: Path) -> None:
    source = directory(workdir / "source")
    pair = [Mount("bind", str(source), ("bind", "ro")), Mount("bind", str(workdir / "missing"), ("bind",))]
    with pytest.raises(FileNotFoundError) as refused:
        mounts.mount(pair, str(target))
    assert refused.value.filename == str(target)
    assert not mounted_at(workdir)
    with pytest.raises(FileNotFoundError), mounts.mounted(pair, str(target)):
        pytest.fail("entered")
    assert not mounted_at(workdir)


@needs_root
@pytest.mark.parametrize("where", [".", "below"])
def test_a_target_that_is_mounted_already_is_refused_and_left_alone(workdir: Path, target: Path, where: str) -> None:
    """Else unmounting could not tell the list's own mounts from those of others."""
    foreign, source = directory(target / "below") if where == "below" else target, directory(workdir / "source")
    syscalls.mount("tmpfs", str(foreign), "tmpfs")
    try:
        with pytest.raises(MountError, match="mounted already"):
            mounts.mount([Mount("bind", str(source), ("bind",))], str(target))
        with (
            pytest.raises(MountError, match="mounted already"),
            mounts.mounted([Mount("bind", str(source), ("bind",))], str(target)),
        ):
            pytest.fail("entered")
        assert mounted_at(workdir) == [str(foreign)]
    finally:
        syscalls.umount2(str(foreign))


@needs_root
def test_a_symlink_is_no_target(workdir: Path, target: Path) -> None:
    link = workdir / "link"
    link.symlink_to(target)
    with pytest.raises(NotADirectoryError):
        mounts.mount([Mount("bind", str(workdir), ("bind",))], str(link))
    with pytest.raises(NotADirectoryError):
        mounts.unmount(str(link))


@needs_root
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("subject", ["pair", "loop", "many"])
def test_an_interrupt_at_any_call_leaves_nothing(
    workdir: Path, target: Path, subject: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one between the call and the record of it, and one while the mounts are taken away again."""
    source = directory(workdir / "source", here="1")
    (source / "sub").mkdir()
    bind = Mount("bind", str(source), ("rbind", "ro"))
    if subject == "pair":
        subjects = [bind, Mount("bind", str(source), ("rbind", "ro"), target="sub")]
    elif subject == "loop":
        image = workdir / "image"
        image.touch()
        os.truncate(image, 8 << 20)
        subprocess.run([shutil.which("mkfs.ext4") or pytest.skip("needs mkfs.ext4 (e2fsprogs)"), "-q", image], check=True)
        subjects = [bind, Mount("ext4", str(image), ("loop",))]
    else:
        subjects = [bind, overlay(workdir, layers(workdir, 150))]
    reached = 0
    while True:
        with monkeypatch.context() as patch:
            interrupted = interrupt(patch, reached + 1, after)
            try:
                with mounts.mounted(subjects, str(target)):
                    assert len(mounted_at(target)) == 2
            except KeyboardInterrupt:
                reached += 1
            assert not mounted_at(workdir)
            if not interrupted():
                break
    assert reached >= 4


# --- unmounting ---


@needs_root
def test_a_mount_in_use_is_not_taken_away_lazily(workdir: Path, target: Path) -> None:
    source = directory(workdir / "source", here="1")
    mounts.mount([Mount("bind", str(source), ("bind",))], str(target))
    with open(target / "here"):
        with pytest.raises(OSError, match="busy") as refused:
            mounts.unmount(str(target), patience=0.05)
        assert refused.value.errno == errno.EBUSY
        assert mounted_at(target) == [str(target)]
    mounts.unmount(str(target))
    assert not mounted_at(target)


@needs_root
def test_unmount_waits_for_the_last_user(workdir: Path, target: Path) -> None:
    source = directory(workdir / "source", here="1")
    mounts.mount([Mount("bind", str(source), ("bind",))], str(target))
    file = open(target / "here")  # noqa: SIM115 - closed by the timer, while unmount waits
    timer = threading.Timer(0.05, file.close)
    timer.start()
    mounts.unmount(str(target))
    timer.join()
    assert not mounted_at(target)


@needs_root
def test_unmount_of_nothing_is_no_error(target: Path) -> None:
    mounts.unmount(str(target))
    mounts.unmount(str(target / "missing"))


@needs_root
def test_neighbours_stay(workdir: Path, target: Path) -> None:
    """A mount whose path begins alike is not below."""
    neighbour, source = directory(workdir / "target-2"), directory(workdir / "source")
    syscalls.mount("tmpfs", str(neighbour), "tmpfs")
    try:
        (neighbour / "file").touch()
        with mounts.mounted([Mount("bind", str(source), ("bind",))], str(target)):
            assert mounts.mountpoints_below(str(target)) == [str(target)]
        assert mounted_at(workdir / "target-2") == [str(neighbour)]
        assert (neighbour / "file").exists()
    finally:
        syscalls.umount2(str(neighbour))


@needs_root
def test_mount_points_with_any_name_are_found(workdir: Path) -> None:
    names = ["with space", "with\nnewline", "with\ttab", "back\\slash", "\\040", "hash#", "ünï"]
    places = [directory(workdir / name) for name in names]
    try:
        for place in places:
            syscalls.mount("tmpfs", str(place), "tmpfs")
        assert mounts.mountpoints_below(str(workdir)) == list(map(str, places))
        for place in places:
            assert mounts.mountpoints_below(str(place)) == [str(place)]
    finally:
        mounts.unmount(str(workdir))
    assert mounts.mountpoints_below(str(workdir)) == []


# --- read-only ---


def test_read_only_gives_a_new_list() -> None:
    given_list = [
        Mount("bind", "/s", ("rbind", "rw")),
        Mount("overlay", "overlay", ("index=off", "workdir=/w", "upperdir=/u:1\\,2", "lowerdir=/a\\:b:/c"), target="x"),
        Mount("overlay", "overlay", ("lowerdir=/a:/b",)),
        Mount("btrfs", "/dev/x", ("subvolid=5",)),
        Mount("ext4", "/image", ("loop", "rw")),
    ]
    before = list(given_list)
    assert mounts.read_only(given_list) == (
        Mount("bind", "/s", ("rbind", "ro")),
        Mount("overlay", "overlay", ("index=off", "lowerdir=/u\\:1\\,2:/a\\:b:/c", "ro"), target="x"),
        Mount("overlay", "overlay", ("lowerdir=/a:/b", "ro")),
        Mount("btrfs", "/dev/x", ("subvolid=5", "ro")),
        Mount("ext4", "/image", ("loop", "ro")),
    )
    assert given_list == before


@needs_root
@pytest.mark.parametrize("count", [1, 120])
def test_a_read_only_overlay_shows_the_same_and_refuses_writes(workdir: Path, target: Path, count: int) -> None:
    base = directory(workdir / "odd:name,here")
    mount = overlay(base, layers(base, count))
    with mounts.mounted([mount], str(target)):
        (target / "own0").unlink()
        (target / "nearest").write_text("changed")
        (target / "new").write_text("new")
        shown = {path.name: path.read_text() for path in target.iterdir()}
    with mounts.mounted(mounts.read_only([mount]), str(target)):
        assert {path.name: path.read_text() for path in target.iterdir()} == shown
        assert "own0" not in shown
        assert refuses_writes(target)
        with pytest.raises(OSError, match="Read-only"):
            (target / "nearest").write_text("no")


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4))
def test_layer_paths_survive_escaping(paths: list[str]) -> None:
    assert mounts.split_layers(":".join(map(mounts.escape_layer, paths))) == paths


# --- deleting ---


def tree(path: Path) -> Path:
    directory(path / "a" / "b", file="1")
    (path / "a" / "link").symlink_to("b")
    (path / "fifo").touch()
    os.link(path / "a" / "b" / "file", path / "hard")
    return path


@pytest.mark.parametrize("old_kernel", [False, True])
def test_a_tree_is_deleted_and_no_symlink_followed(workdir: Path, old_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if old_kernel:
        monkeypatch.setattr(syscalls, "openat2", lambda *_: _raise(errno.ENOSYS))
    outside, ours = directory(workdir / "outside", file="1"), tree(workdir / "ours")
    (ours / "out").symlink_to(outside)
    (ours / "a" / "up").symlink_to("../..")
    mounts.remove_tree(str(ours))
    assert not ours.exists()
    assert os.listdir(outside) == ["file"]
    with pytest.raises(FileNotFoundError):
        mounts.remove_tree(str(ours))


def test_a_symlink_to_a_tree_is_refused(workdir: Path) -> None:
    ours, link = tree(workdir / "ours"), workdir / "link"
    link.symlink_to(ours)
    with pytest.raises(NotADirectoryError):
        mounts.remove_tree(str(link))
    assert (ours / "a" / "b" / "file").exists()


def test_a_tree_may_be_deeper_than_fds_and_paths_go(workdir: Path) -> None:
    ours = directory(workdir / "ours")
    here = os.open(ours, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=here)
        there = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(here)
    fds = os.listdir("/proc/self/fd")
    mounts.remove_tree(str(ours))
    assert not ours.exists()
    assert os.listdir("/proc/self/fd") == fds


def test_a_tree_that_is_moved_meanwhile_does_not_lead_out_of_itself(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way back up must end where the way down began."""
    ours, elsewhere, call = tree(workdir / "ours"), directory(workdir / "elsewhere", precious="1"), syscalls.openat2
    (elsewhere / "b").mkdir()

    def move(fd: int, name: str, flags: int, resolve: int) -> int:
        if name == ".." and (ours / "a" / "b").exists():
            (ours / "a" / "b").rename(elsewhere / "moved")
        return call(fd, name, flags, resolve)

    monkeypatch.setattr(syscalls, "openat2", move)
    with pytest.raises(OSError, match="moved while it was deleted"):
        mounts.remove_tree(str(ours))
    assert sorted(os.listdir(elsewhere)) == ["b", "moved", "precious"]


def contents(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


@needs_root
@pytest.mark.parametrize("where", [".", "a", "a/b"])
@pytest.mark.parametrize("what", ["tmpfs", "same device"])
def test_a_tree_with_a_mount_is_refused_and_nothing_deleted(workdir: Path, where: str, what: str) -> None:
    ours, source = tree(workdir / "ours"), directory(workdir / "source", precious="1")
    before = contents(ours)
    if what == "tmpfs":
        syscalls.mount("tmpfs", str(ours / where), "tmpfs")
    else:
        syscalls.mount(str(source), str(ours / where), "none", syscalls.MS_BIND)
    try:
        with pytest.raises(MountError, match="still mounted"):
            mounts.remove_tree(str(ours))
    finally:
        syscalls.umount2(str(ours / where))
    assert contents(ours) == before
    assert os.listdir(source) == ["precious"]


@needs_root
@pytest.mark.parametrize("what", ["same device", "other device on an old kernel"])
def test_a_mount_made_after_the_look_at_the_table_is_not_entered(
    workdir: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, source = tree(workdir / "ours"), directory(workdir / "source", precious="1")
    place = ours / "a" / "b"
    if what == "same device":
        syscalls.mount(str(source), str(place), "none", syscalls.MS_BIND)
    else:
        monkeypatch.setattr(syscalls, "openat2", lambda *_: _raise(errno.ENOSYS))
        syscalls.mount("tmpfs", str(place), "tmpfs")
        (place / "precious").touch()
    try:
        monkeypatch.setattr(mounts, "_table", lambda _: [])
        with pytest.raises(OSError, match=r"."):
            mounts.remove_tree(str(ours))
        assert os.listdir(place) == ["precious"]
    finally:
        syscalls.umount2(str(place))


def as_nobody(script: str, base: Path) -> str:
    """What `script` prints, run without privileges, with a directory of its own as its argument."""
    scratch = Path(tempfile.gettempdir())
    for above in [path for path in base.parents if path.is_relative_to(scratch)]:
        above.chmod(0o711)
    done = child(BECOME_NOBODY + script, directory(base))
    if done.stdout == "unreachable":
        pytest.skip("needs a temporary directory that others may pass through: set TMPDIR to one")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


BECOME_NOBODY = """
import ctypes, os, sys, threading
from snapspec.impl import mounts, syscalls
from snapspec.model.values import Mount
base = sys.argv[1]
os.chown(base, 65534, 65534)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as a process that was started by nobody is
if not os.access(base, os.X_OK):
    print("unreachable", end="")
    raise SystemExit(0)
"""

UNPRIVILEGED = """
ours = f"{base}/ours"
os.makedirs(f"{ours}/closed/inside"); os.mkdir(f"{ours}/fixed"); open(f"{ours}/fixed/file", "w").close()
os.chmod(f"{ours}/closed", 0); os.chmod(f"{ours}/fixed", 0o500); os.chmod(ours, 0o500)
mounts.remove_tree(ours)
print(os.path.lexists(ours))
"""


@needs_root
def test_an_owner_without_privileges_deletes_what_is_closed_to_writing(workdir: Path) -> None:
    assert as_nobody(UNPRIVILEGED, workdir / "theirs") == "False\n"


# --- namespaces ---

PRIVATE = """
import os, sys
from snapspec.impl import mounts, syscalls
from snapspec.model.values import Mount
syscalls.enter_private_namespace()
mounts.mount([Mount("tmpfs", "tmpfs")], sys.argv[1])
print(mounts.mountpoints_below(sys.argv[1]) == [sys.argv[1]], flush=True)
sys.stdin.read()
"""


@needs_root
def test_a_private_namespace_keeps_its_mounts_and_takes_them_along(target: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PRIVATE, str(target)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert not mounted_at(target)
        process.kill()
    mounts.remove_tree(str(target))


USER = """
waiting = threading.Event()
thread = threading.Thread(target=waiting.wait)
thread.start()
try:
    syscalls.enter_user_namespace()
except OSError as error:
    assert "one thread" in str(error), error
waiting.set()
thread.join()
before = os.readlink("/proc/self/ns/user")
try:
    syscalls.enter_user_namespace()
except OSError as error:
    assert os.readlink("/proc/self/ns/user") == before
    print("refused:", error)
    raise SystemExit(0)
assert (os.getuid(), os.getgid()) == (0, 0)
for name in ("lower", "upper", "work", "target"):
    os.mkdir(f"{base}/{name}")
options = ("userxattr", f"lowerdir={base}/lower", f"upperdir={base}/upper", f"workdir={base}/work")
with mounts.mounted([Mount("overlay", "overlay", options)], f"{base}/target"):
    open(f"{base}/target/file", "w").close()
with mounts.mounted([Mount("bind", f"{base}/lower", ("rbind", "ro"))], f"{base}/target"):
    try:
        open(f"{base}/target/file", "w").close()
    except OSError as error:
        print(os.listdir(f"{base}/upper"), error.strerror)
"""


@needs_root
def test_a_user_namespace_lets_the_unprivileged_mount(workdir: Path) -> None:
    told = as_nobody(USER, workdir / "theirs")
    if told.startswith("refused:"):
        pytest.skip(f"this machine gives the unprivileged no user namespace: {told.strip()}")
    assert told == "['file'] Read-only file system\n"
    assert (workdir / "theirs" / "upper" / "file").stat().st_uid == 65534


@needs_root
def test_options_longer_than_a_page_are_refused_not_cut_off(target: Path) -> None:
    with pytest.raises(OSError, match="longer than a page"):
        mounts.mount([Mount("tmpfs", "tmpfs", ("size=" + "0" * 70000 + "1m",))], str(target))
