"""Usage, told exactly to the block whatever carries the layers, and a commit that costs nothing for what it holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stores import KINDS, Place, asynchronous, du, layer, source

from snapspec.impl.mounts import mounted
from snapspec.model.values import Usage

pytestmark = pytest.mark.root


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, workdir: Path) -> Place:
    return Place(request.param, workdir)


@pytest.fixture(params=["plain", "pool"])
def overlay(request: pytest.FixtureRequest, workdir: Path) -> Place:
    return Place(request.param, workdir)


def fill(directory: Path) -> None:
    """Files of many kinds: odd sizes, hard links over directories, holes, preallocated room, links, a device, deep paths."""
    (directory / "deep/er").mkdir(parents=True)
    for number, size in enumerate((0, 1, 59, 60, 511, 4095, 4096, 4097, 1_000_001)):
        (directory / f"size{number}").write_bytes(os.urandom(size))
    for number in range(5):
        os.link(directory / "size8", directory / "deep" / f"link{number}")
    with open(directory / "holes", "wb") as file:
        for block in range(0, 200, 2):
            file.seek(block * 65536)
            file.write(b"x" * 4096)
        file.truncate(1 << 34)
    with open(directory / "deep/preallocated", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 300_000)
    os.symlink("x" * 40, directory / "short")
    os.symlink("x" * 900, directory / "long")
    os.mkfifo(directory / "deep/er/fifo")
    os.mknod(directory / "deep/er/null", 0o20666, os.makedev(1, 3))
    os.setxattr(directory / "size0", "user.large", b"x" * 2000)
    for number in range(300):
        (directory / "deep/er" / f"{'many' * 20}{number}").touch()
    below = directory
    for _ in range(20):
        below = below / ("d" * 200)
        below.mkdir()


@asynchronous
async def test_usage_is_what_du_says(place: Place) -> None:
    async with place.opened() as store:
        empty = source(await store.prepare("empty"))
        assert await store.usage("empty") == du(empty)
        directory = source(await store.prepare("key"))
        fill(directory)
        active = await store.usage("key")
        assert active == du(directory)
        await store.commit("one", "key")
        assert await store.usage("one") == du(directory) == active
        (directory / "late").write_text("x" * 10_000)
        assert await store.usage("one") == active, "what was told once stays"
        assert await store.usage("one") != du(directory)
        (directory / "late").unlink()
        child = source(await store.prepare("child", "one"))
        (child / "mine").write_text("x" * 10_000)
        assert await store.usage("child") == du(child)
        assert (await store.usage("child")).inodes == (active.inodes + 1 if place.kind == "copy" else 2)
        for view, parent in (("view", "one"), ("bare view", "")):
            await store.view(view, parent)
            assert await store.usage(view) == Usage(0, 0)
    async with place.opened() as store:
        assert await store.usage("one") == active
        assert await store.usage("child") == du(child)


@asynchronous
async def test_usage_of_a_mounted_active_is_live(overlay: Place) -> None:
    async with overlay.opened() as store:
        await layer(store, "one", **{f"file{number}": "x" * 5000 for number in range(10)})
        mounts = await store.prepare("key", "one")
        with mounted(mounts, overlay.target) as root:
            for number in range(5):
                Path(root, f"file{number}").unlink()
            Path(root, "file9").write_text("y" * 50_000)
            assert await store.usage("key") == du(source(mounts))
        assert await store.usage("key") == du(source(mounts))


@asynchronous
async def test_commit_looks_at_no_file(overlay: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with overlay.opened() as store:
        directory = source(await store.prepare("key"))
        for number in range(500):
            (directory / f"file{number}").touch()

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("commit walks")

        with monkeypatch.context() as patch:
            for call in ("scandir", "listdir", "stat", "lstat", "walk", "fwalk"):
                patch.setattr(os, call, refuse)
            await store.commit("one", "key")
        assert (await store.usage("one")).inodes == 501


@pytest.mark.parametrize("file_system", ["xfs", "btrfs"])
@asynchronous
async def test_other_file_systems_carry_it_too(file_system: str, workdir: Path) -> None:
    place = Place("pool", workdir, file_system, 320 << 20)
    async with place.opened() as store:
        directory = source(await store.prepare("key", labels={"a": "1"}))
        fill(directory)
        assert await store.usage("key") == du(directory)
        await store.commit("one", "key")
        assert await store.usage("one") == du(directory)
        with mounted(await store.prepare("key", "one"), place.target) as root:
            Path(root, "size8").unlink()
            Path(root, "new").write_text("new")
        await store.commit("two", "key")
        with mounted(await store.view("view", "two"), place.target) as root:
            assert not Path(root, "size8").exists()
            assert Path(root, "deep", "link0").read_bytes() == (directory / "size8").read_bytes()
            assert Path(root, "new").read_text() == "new"
        await store.remove("view")
        await store.remove("two")
        await store.cleanup()
        assert place.left() == {"s": ["1"], "new": [], "trash": []}


@asynchronous
async def test_what_xfs_holds_ready_beyond_the_end_of_a_file_is_not_counted_for_a_committed_layer(workdir: Path) -> None:
    """It goes when the file system is unmounted, and what was told would then be more than what is there (SNAP-USAGE-5)."""
    place = Place("pool", workdir, "xfs", 320 << 20)
    async with place.opened() as store:
        (source(await store.prepare("key")) / "file").write_bytes(bytes(5000))
        await store.commit("lower", "key")
        with mounted(await store.prepare("key", "lower"), place.target) as root:
            file = os.open(Path(root, "file"), os.O_WRONLY)
            os.pwrite(file, b"hello", 4096)
            os.close(file)
        await store.commit("upper", "key")
        upper = place.root / "s" / "2" / "fs"
        told = await store.usage("upper")
        assert told == du(upper)
    async with place.opened() as store:
        assert await store.usage("upper") == told == du(upper)
