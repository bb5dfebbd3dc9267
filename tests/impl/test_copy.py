"""The copying snapshotter: whole copies of every kind of file, parents that go under the copy, no privilege."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from stores import Place, asynchronous, du, layer, names, refused, source

from snapspec.impl import filetree
from snapspec.impl.errors import NotFound
from snapspec.impl.filetree import copy_tree
from snapspec.impl.scan import Stopped
from snapspec.model.values import Mount, Usage


@pytest.fixture
def place(workdir: Path) -> Place:
    return Place("copy", workdir)


def fill(directory: Path) -> None:
    """Every kind of file, with every kind of metadata."""
    (directory / "deep/er").mkdir(parents=True)
    (directory / "empty").touch()
    (directory / "big").write_bytes(os.urandom(3_000_001))
    with open(directory / "holes", "wb") as file:
        file.truncate(1 << 34)
        for offset in (0, 1 << 20, 1 << 33):
            file.seek(offset)
            file.write(b"data" * 1024)
    os.link(directory / "big", directory / "deep/link")
    os.link(directory / "big", directory / "deep/er/link")
    os.symlink("../nowhere", directory / "deep/symlink")
    os.link(directory / "deep/symlink", directory / "deep/er/symlink", follow_symlinks=False)
    os.symlink("/etc/passwd", directory / "absolute")
    os.mkfifo(directory / "fifo")
    os.mknod(directory / "socket", stat.S_IFSOCK | 0o600)
    os.mknod(directory / "deep/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(directory / "deep/disk", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    (directory / "name with \n, \\ and ü").touch()
    Path(os.fsdecode(os.fsencode(directory) + b"/\xff\xfe")).write_text("not text")
    os.setxattr(directory / "big", "user.a", b"\0binary\xff")
    os.setxattr(directory / "big", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(directory / "deep", "trusted.b", b"x" * 500)
    os.setxattr(directory / "absolute", "trusted.c", b"link", follow_symlinks=False)
    for number, path in enumerate(("empty", "deep/er", "absolute", "fifo", "deep/null", "deep/symlink")):
        os.chown(directory / path, 1000 + number, 2000 + number, follow_symlinks=False)
    for path, mode in (
        ("empty", 0o6751),
        ("deep/er", 0o1700),
        ("fifo", 0o0),
        ("deep", 0o2575),
        ("name with \n, \\ and ü", 0o4000),
    ):
        os.chmod(directory / path, mode)
    for path in ("empty", "absolute", "fifo", "deep/er", "deep", "big", "."):
        os.utime(directory / path, ns=(10**18 + 1, 10**18 - 123_456_789), follow_symlinks=False)


def listing(directory: Path) -> dict[str, tuple[Any, ...]]:
    """All that can be told of each file below a directory; files of several links by the first name of their inode."""
    first: dict[int, str] = {}
    found = {}
    for path in sorted([directory, *directory.rglob("*")]):
        info, name = os.lstat(path), str(path.relative_to(directory))
        own = {n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)}
        same = first.setdefault(info.st_ino, name)
        text = os.readlink(path) if path.is_symlink() else ""
        small = path.read_bytes() if stat.S_ISREG(info.st_mode) and info.st_size < 1 << 30 else b""
        size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
        found[name] = (info.st_mode, info.st_uid, info.st_gid, info.st_rdev, info.st_mtime_ns, size, same, text, small, own)
    return found


def data(path: Path) -> list[tuple[int, int]]:
    """The stretches of a file that are no holes."""
    found, at = [], 0
    with open(path, "rb") as file:
        while at < os.fstat(file.fileno()).st_size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            found.append((at, end))
            at = end
    return found


@asynchronous
async def test_a_child_is_its_parent_to_the_last_attribute(place: Place) -> None:
    async with place.opened() as store:
        parent = source(await store.prepare("key"))
        fill(parent)
        await store.commit("one", "key")
        child = source(await store.prepare("child", "one"))
        expected = listing(parent)
        assert len(expected) == 17
        assert listing(child) == expected
        assert data(child / "holes") == data(parent / "holes")
        assert await store.usage("child") == await store.usage("one") == du(parent) == du(child)
        (child / "big").write_text("changed")
        assert listing(parent) == expected


@asynchronous
async def test_mount_lists_are_one_bind_each(place: Place) -> None:
    async with place.opened() as store:
        s = f"{place.root}/s"
        await layer(store, "one")
        await layer(store, "two", "one")
        assert await store.prepare("active0") == (Mount("bind", f"{s}/3/fs", ("rw", "rbind")),)
        assert await store.prepare("active2", "two") == (Mount("bind", f"{s}/4/fs", ("rw", "rbind")),)
        assert await store.view("view0") == (Mount("bind", f"{s}/5/fs", ("ro", "rbind")),)
        assert await store.view("view2", "two") == (Mount("bind", f"{s}/2/fs", ("ro", "rbind")),)
        assert await store.usage("view2") == Usage(0, 0)


@pytest.mark.parametrize("again", [False, True])
@asynchronous
async def test_a_parent_that_goes_under_the_copy(again: bool, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is that of the store as it is when the copy ends: the new parent's content, or none."""
    async with place.opened() as store:
        await layer(store, "one", **{f"old{number}": "old" for number in range(20)})
        started, go = threading.Event(), threading.Event()
        real = filetree.copy_metadata

        def wait(*args: Any) -> None:
            started.set()
            go.wait(10)
            real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(filetree, "copy_metadata", wait)
            call = asyncio.create_task(store.prepare("child", "one"))
            await asyncio.to_thread(started.wait, 10)
            await store.remove("one")
            if again:
                await layer(store, "one", new="new")
            go.set()
            if again:
                assert os.listdir(source(await call)) == ["new"]
            else:
                await refused(call, NotFound)
        assert await names(store) == (["child", "one"] if again else [])
        await store.cleanup()
        left = place.left()
        assert left["new"] == left["trash"] == []
        assert len(left["s"]) == len(await names(store))


@asynchronous
async def test_a_cancelled_copy_ends_soon_and_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.opened() as store:
        await layer(store, "one", **{f"file{number}": "x" for number in range(300)})
        started = threading.Event()
        real = filetree.copy_metadata
        copied: list[int] = []

        def slow(*args: Any) -> None:
            copied.append(1)
            if len(copied) == 5:
                started.set()
            time.sleep(0.002)
            real(*args)

        monkeypatch.setattr(filetree, "copy_metadata", slow)
        call = asyncio.create_task(store.prepare("child", "one"))
        await asyncio.to_thread(started.wait, 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert len(copied) < 250
        await store.cleanup()
        assert place.left() == {"s": ["1"], "new": [], "trash": []}
        assert await names(store) == ["one"]


def test_a_copy_stops_within_a_large_file(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "old/big").write_bytes(bytes(range(256)) * 40_000)
    stop = threading.Event()

    class Second(threading.Event):
        """Set when it is looked at for the third time."""

        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks > 2

    with pytest.raises(Stopped):
        copy_tree(str(tmp_path / "old"), str(tmp_path / "new"), Second())
    assert 0 < sum(end - at for at, end in data(tmp_path / "new/big")) < 10_000_000
    (tmp_path / "new/big").unlink()
    copy_tree(str(tmp_path / "old"), str(tmp_path / "new"), stop)
    assert listing(tmp_path / "new") == listing(tmp_path / "old")


UNPRIVILEGED = """
import asyncio, os, sys
from pathlib import Path
from snapspec.impl.copy import open_copy

async def main(root):
    store = await open_copy(root)
    [mount] = await store.prepare("key")
    directory = Path(mount.source)
    (directory / "tool").write_text("x")
    os.chmod(directory / "tool", 0o700)
    os.setxattr(directory / "tool", "user.a", b"1")
    os.chmod(directory / "tool", 0o4755)
    (directory / "closed").mkdir()
    (directory / "closed" / "file").write_text("y")
    os.chmod(directory / "closed", 0o555)
    os.link(directory / "tool", directory / "link")
    await store.commit("one", "key")
    [mount] = await store.prepare("child", "one")
    child = Path(mount.source)
    print(os.getxattr(child / "tool", "user.a"))
    print(oct((child / "tool").stat().st_mode), (child / "link").stat().st_nlink, (child / "closed" / "file").read_text())
    for name in ("child", "one"):
        await store.remove(name)
    await store.cleanup()
    print([os.listdir(os.path.join(root, name)) for name in ("s", "new", "trash")])
    await store.close()

os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.root
def test_it_works_for_an_ordinary_user(workdir: Path) -> None:
    os.chmod(workdir.parent, 0o755)
    os.chmod(workdir, 0o777)
    command = [sys.executable, "-c", UNPRIVILEGED, str(workdir / "s")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["b'1'", "0o104755 2 y", "[[], [], []]"]
