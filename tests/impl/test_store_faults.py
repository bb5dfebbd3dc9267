"""The snapshotters when things go wrong: full, interrupted, killed, at the same time, and what is left afterwards."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stores import KINDS, MEBIBYTE, Place, asynchronous, layer, names, records, refusal, refused, shown, source, state

from snapspec.impl.base import BaseSnapshotter
from snapspec.impl.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted, SnapshotError
from snapspec.impl.mounts import mount, unmount
from snapspec.model.values import Info, Kind

pytestmark = pytest.mark.root

EMPTY: dict[str, list[str]] = {"s": [], "new": [], "trash": []}


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, workdir: Path) -> Place:
    return Place(request.param, workdir)


async def deleted(store: BaseSnapshotter) -> None:
    """Wait until what was removed so far is deleted."""
    await asyncio.wrap_future(store._deleter.submit(lambda: None))


# --- what is left ---


@asynchronous
async def test_nothing_is_left_when_all_is_removed(place: Place) -> None:
    async with place.opened() as store:
        for number in range(5):
            await layer(store, f"layer{number}", f"layer{number - 1}" if number else "", file="x")
            await store.prepare(f"key{number}", f"layer{number}")
            await store.view(f"view{number}", f"layer{number}")
        for name in [*(f"{kind}{n}" for kind in ("key", "view") for n in range(5)), *(f"layer{n}" for n in range(4, -1, -1))]:
            await store.remove(name)
        await deleted(store)
        assert place.left() == EMPTY, "without a cleanup"
        await store.cleanup()
        await store.cleanup()
        assert place.left() == EMPTY
        assert store._records is not None
        assert await store._in_order(store._records.trash) == []
    async with place.opened() as store:
        assert await names(store) == []


@asynchronous
async def test_cleanup_takes_strays_and_nothing_else(place: Place) -> None:
    async with place.opened() as store:
        await layer(store, "one", file="x")
        await store.prepare("key", "one")
        before = await state(store)
        neighbour = place.root / "s" / "not a number"
        for stray in ("s/99/fs/deep", "new/stray/fs", "trash/7/fs", "trash/8-1/work/work"):
            (place.root / stray).mkdir(parents=True)
        neighbour.mkdir()
        os.chmod(place.root / "trash/8-1/work/work", 0)
        await store.cleanup()
        assert place.left() == {"s": ["1", "2", neighbour.name], "new": [], "trash": []}
        assert await state(store) == before
        assert shown(await store.mounts("key"), place) == {"file": "x"}


@asynchronous
async def test_opening_deletes_what_a_crash_left(place: Place) -> None:
    async with place.opened() as store:
        await layer(store, "one", file="x")
        for stray in ("s/99/fs", "new/stray/fs", "trash/7/fs"):
            (place.root / stray).mkdir(parents=True)
    async with place.opened() as store:
        await deleted(store)
        assert place.left() == {"s": ["1"], "new": [], "trash": []}
        assert await names(store) == ["one"]


@asynchronous
async def test_what_is_mounted_stays_in_the_trash_until_a_cleanup_finds_it_free(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with place.opened() as store:
        directory = source(await store.prepare("key"))
        (directory / "inside").mkdir()
        (directory / "file").write_text("precious")
        mount(await store.view("other"), str(directory / "inside"))
        with caplog.at_level(logging.WARNING):
            await store.remove("key")
            await deleted(store)
        assert "left for cleanup" in caplog.text
        assert await names(store) == ["other"]
        moved = place.root / "trash" / directory.parent.name / "fs"
        assert (moved / "file").read_text() == "precious"
        assert "unmount it" in str(await refused(store.cleanup(), FailedPrecondition))
        assert (moved / "file").read_text() == "precious"
        assert await store._in_order(store._records.trash) == [int(directory.parent.name)]
        unmount(str(moved / "inside"))
        await store.cleanup()
        assert place.left()["trash"] == []
        assert await store._in_order(store._records.trash) == []


@asynchronous
async def test_a_directory_of_an_id_that_was_not_kept_is_never_trusted(place: Place) -> None:
    async with place.opened() as store:
        await store.prepare("first")
        stale = place.root / "s" / "2" / "fs"
        stale.mkdir(parents=True)
        (stale / "old").write_text("of another life")
        mounts = await store.prepare("key")
        assert source(mounts) == stale
        assert shown(mounts, place) == {}
        await deleted(store)
        assert place.left() == {"s": ["1", "2"], "new": [], "trash": []}


@asynchronous
async def test_directories_that_a_power_failure_took_are_made_again(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """The record of a prepare can reach the disk without its directory; a commit's cannot."""
    async with place.opened() as store:
        await layer(store, "one", file="x")
        await store.prepare("key", "one")
        await store.view("view", "one")
        await store.prepare("bare")
        before = await records(store)
        for number in (2, 3, 4):
            (place.root / "s" / str(number)).rename(place.root / f"lost{number}")
    async with place.opened() as store:
        assert await records(store) == before
        assert shown(await store.mounts("key"), place) == shown(await store.mounts("view"), place) == {"file": "x"}
        assert shown(await store.mounts("bare"), place) == {}
        (place.root / "s" / "1").rename(place.root / "lost1")
        (place.root / "s" / "2").rename(place.root / "lost2'")
    async with place.opened() as store:
        assert "the committed snapshot 'one' is gone" in caplog.text
        assert await names(store) == ["bare", "key", "one", "view"]
        for name in ("key", "view", "one"):
            await store.remove(name)


# --- refusals of the system ---


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@asynchronous
async def test_a_prepare_that_the_system_refuses_leaves_nothing(code: int, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each system call of a prepare in turn is refused."""
    async with place.opened() as store:
        await layer(store, "one", file="x")
        before, left = await state(store), place.left()
        calls = 0
        for call, number in itertools.product(("mkdir", "chmod", "chown", "utime", "rename", "listxattr"), range(1, 9)):
            real, seen = getattr(os, call), 0

            def refuse(*args: Any, real: Callable[..., Any] = real, number: int = number, call: str = call, **kwargs: Any) -> Any:
                nonlocal seen
                seen += 1
                if seen == number:
                    raise OSError(code, "refused by the test", call)
                return real(*args, **kwargs)

            with monkeypatch.context() as patch:
                patch.setattr(os, call, refuse)
                error = await refusal(store.prepare("key", "one"))
            if seen < number:
                assert error == ""
                await store.remove("key")
            else:
                calls += 1
                assert error == ("Unknown" if code == errno.EIO else "ResourceExhausted"), (call, number)
            await deleted(store)
            assert await state(store) == before, (call, number)
            assert place.left() == left, (call, number)
        assert calls >= 8
        assert shown(await store.prepare("key", "one"), place) == {"file": "x"}


@asynchronous
async def test_an_error_of_the_system_is_the_cause_of_the_answer(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Place("plain", workdir).opened() as store:
        await store.prepare("key")

        def refuse(*_: object) -> None:
            raise OSError(errno.EIO, "refused by the test")

        monkeypatch.setattr("snapspec.impl.base.syncfs", refuse)
        for call in (store.commit("one", "key"), store.usage("key")):
            error = await refused(call, SnapshotError)
            assert isinstance(error.__cause__, OSError)
            assert error.__cause__.errno == errno.EIO
        monkeypatch.undo()
        await store.commit("one", "key")


def fill_up(directory: Path) -> None:
    """Write until there is no room for one more byte, or one more directory."""

    def write() -> None:
        with open(directory / "big", "ab", buffering=0) as file:
            while file.write(b"x" * MEBIBYTE) == MEBIBYTE:
                pass
            os.fsync(file.fileno())
            while True:
                file.write(b"x" * 512)

    def make_directories() -> None:
        for number in itertools.count():
            (directory / f"small{number}").mkdir()

    for fill in (write, make_directories):
        with pytest.raises(OSError, match="No space"):
            fill()


@pytest.mark.parametrize("file_system", ["ext4", "xfs", "btrfs"])
@asynchronous
async def test_a_full_pool_refuses_and_a_removal_makes_room(file_system: str, workdir: Path) -> None:
    place = Place("pool", workdir, file_system, {"ext4": 16, "xfs": 300, "btrfs": 112}[file_system] * MEBIBYTE)
    async with place.opened() as store:
        await layer(store, "one", file="x")
        await store.prepare("small", "one")
        fill_up(source(await store.prepare("big", "one")))
        before, left = await state(store), place.left()
        for number in range(3):
            await refused(store.prepare("key", "one"), ResourceExhausted)
            await refused(store.view("key"), ResourceExhausted)
            await deleted(store)
            assert await state(store) == before
            assert place.left() == left, number
        # Labels grow until the records have no room either: the last answer is that of a full pool.
        for size in itertools.count(1):
            info = Info("small", "one", Kind.ACTIVE, (("a", "x" * (size << 12)),), 0, 0)
            error = await refusal(store.update(info))
            if error:
                break
            before = await state(store)
        assert error == "ResourceExhausted"
        assert await state(store) == before
        await store.remove("big")
        await deleted(store)
        assert "big" not in await names(store)
        assert shown(await store.prepare("key", "one"), place) == {"file": "x"}
        await store.cleanup()
        assert (place.root / "ballast").stat().st_blocks * 512 >= MEBIBYTE
        (source(await store.mounts("key")) / "new").write_text("y")
        await store.commit("two", "key")
    async with place.opened() as store:
        assert shown(await store.view("view", "two"), place) == {"file": "x", "new": "y"}


@asynchronous
async def test_without_room_to_rename_what_goes_is_deleted_where_it_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.opened() as store:
        await layer(store, "one", file="x")
        await store.prepare("key", "one")
        real = os.rename

        def refuse(source: str, target: str) -> None:
            if "/trash/" in target:
                raise OSError(errno.ENOSPC, "refused by the test")
            real(source, target)

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "refused by the test")

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", refuse)
            await store.remove("key")
            await deleted(store)
            assert place.left() == {"s": ["1"], "new": [], "trash": []}
            with monkeypatch.context() as inner:
                inner.setattr(type(store), "_mount_list", fail)
                await refused(store.prepare("key", "one"), SnapshotError)
            assert place.left() == {"s": ["1"], "new": [], "trash": []}
            (place.root / "new/stray/fs").mkdir(parents=True)
            (place.root / "s/99/fs").mkdir(parents=True)
            await store.cleanup()
            assert place.left() == {"s": ["1", "99"], "new": [], "trash": []}
        await store.cleanup()
        assert place.left() == {"s": ["1"], "new": [], "trash": []}
        assert shown(await store.prepare("key", "one"), place) == {"file": "x"}


@asynchronous
async def test_a_full_pool_opens(workdir: Path) -> None:
    place = Place("pool", workdir, size=16 * MEBIBYTE)
    async with place.opened() as store:
        fill_up(source(await store.prepare("big")))
        before = await state(store)
    async with place.opened() as store:
        assert await state(store) == before
        await store.remove("big")
        await store.cleanup()
        await store.prepare("key")


@asynchronous
async def test_a_copy_that_finds_no_room_leaves_nothing(workdir: Path) -> None:
    """A copying snapshotter on a small file system of its own."""
    pool = Place("pool", workdir, size=16 * MEBIBYTE)
    async with pool.opened():
        place = Place("copy", pool.root)
        async with place.opened() as store:
            directory = source(await store.prepare("key"))
            (directory / "big").write_bytes(b"x" * 8 * MEBIBYTE)
            await store.commit("one", "key")
            before = await state(store)
            await refused(store.prepare("key", "one"), ResourceExhausted)
            await deleted(store)
            assert place.left() == {"s": ["1"], "new": [], "trash": []}
            assert await state(store) == before
            await store.remove("one")


# --- cancellation ---


class SlowScan:
    """Makes each directory take a while to read, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = 0
        self._fifth = threading.Event()
        self._scandir = os.scandir
        monkeypatch.setattr(os, "scandir", self._slowly)

    def _slowly(self, directory: Any) -> Any:
        self.read += 1
        if self.read == 5:
            self._fifth.set()
        time.sleep(0.003)
        return self._scandir(directory)

    async def under_way(self) -> None:
        """Wait until five directories are read."""
        assert await asyncio.to_thread(self._fifth.wait, 10)


async def many_directories(store: BaseSnapshotter) -> None:
    directory = source(await store.prepare("key"))
    for number in range(100):
        (directory / str(number)).mkdir()


@asynchronous
async def test_a_cancelled_usage_ends_soon(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.opened() as store:
        await many_directories(store)
        expected = await store.usage("key")
        with monkeypatch.context() as patch:
            scan = SlowScan(patch)
            call = asyncio.create_task(store.usage("key"))
            await scan.under_way()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            read = scan.read
            assert read < 50
            await asyncio.sleep(0.03)
            assert scan.read == read, "the scan has ended, not only the call"
        assert await store.usage("key") == expected


@pytest.mark.parametrize("afterwards", ["nothing", "the key again", "committed"])
@asynchronous
async def test_a_snapshot_that_goes_under_its_scan_is_not_found(
    afterwards: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.opened() as store:
        await many_directories(store)
        if afterwards == "committed":
            await store.commit("one", "key")
        key = "one" if afterwards == "committed" else "key"
        scan = SlowScan(monkeypatch)
        call = asyncio.create_task(store.usage(key))
        await scan.under_way()
        await store.remove(key)
        if afterwards == "the key again":
            await store.prepare("key")
        await refused(call, NotFound)


@asynchronous
async def test_a_cancelled_call_is_decided_when_it_ends(place: Place) -> None:
    async with place.opened() as store:
        await layer(store, "one", file="x")
        effects = {}
        for number in range(36):
            key = f"key{number}"
            await store.prepare(f"base {key}", "one")
            call = asyncio.create_task(
                store.prepare(key, "one")
                if number % 3 == 0
                else store.commit(key, f"base {key}")
                if number % 3 == 1
                else store.remove(f"base {key}")
            )
            await asyncio.sleep(number * 0.0001)
            call.cancel()
            try:
                await call
                effects[key] = "done"
            except asyncio.CancelledError:
                effects[key] = "cancelled"
            before = await names(store)
            await asyncio.sleep(0.002)
            assert await names(store) == before
            assert store._recorder._work_queue.empty()
        assert "cancelled" in effects.values()
        await store.cleanup()
        assert len(place.left()["s"]) == len(await names(store))
        assert place.left() == {**EMPTY, "s": place.left()["s"]}


@asynchronous
async def test_close_waits_for_running_calls(place: Place) -> None:
    store = await place.open()
    await layer(store, "one", file="x")
    await store.prepare("key0", "one")
    calls = [asyncio.create_task(store.prepare(f"key{number}", "one")) for number in range(1, 20)]
    commit = asyncio.create_task(store.commit("two", "key0"))
    await asyncio.sleep(0)
    closes = [asyncio.create_task(store.close()) for _ in range(3)]
    await asyncio.sleep(0)
    await refused(store.stat("one"), FailedPrecondition)
    await asyncio.gather(*calls, commit, *closes)
    async with place.opened() as store:
        assert await names(store) == sorted(["one", "two", *(f"key{number}" for number in range(1, 20))])


@asynchronous
async def test_a_cancelled_close_closes(place: Place) -> None:
    store = await place.open()
    call = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with place.opened():
        pass
    await store.close()


@asynchronous
async def test_a_pool_in_use_can_be_closed_later(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapspec.impl.loopback.PATIENCE", 0.2)
    place = Place("pool", workdir)
    store = await place.open()
    held = os.open(source(await store.prepare("key")), os.O_RDONLY)
    assert "in use" in str(await refused(store.close(), FailedPrecondition))
    await refused(store.stat("key"), FailedPrecondition)
    os.close(held)
    await store.close()
    await store.close()
    async with place.opened() as store:
        assert await names(store) == ["key"]


# --- at the same time ---


@asynchronous
async def test_of_many_calls_for_one_name_one_wins(place: Place) -> None:
    async with place.opened() as store:
        await layer(store, "one", file="x")
        answers = await asyncio.gather(*(refusal(store.prepare("key", "one")) for _ in range(10)))
        assert sorted(answers) == ["", *["AlreadyExists"] * 9]
        for number in range(10):
            await store.prepare(f"key{number}", "one")
        answers = await asyncio.gather(*(refusal(store.commit("two", f"key{number}")) for number in range(10)))
        assert sorted(answers) == ["", *["AlreadyExists"] * 9]
        left = [info.name async for info in store.walk(["kind==active,name!=key"])]
        assert left == [f"key{number}" for number, answer in enumerate(answers) if answer]
        for key in left:
            await refused(store.commit("two", key), AlreadyExists)


@asynchronous
async def test_a_parent_is_not_removed_under_its_child(place: Place) -> None:
    async with place.opened() as store:
        seen = set()
        for number in range(30):
            await layer(store, "parent", file="x")
            calls = [refusal(store.prepare("child", "parent")), refusal(store.remove("parent"))]
            if number % 2:
                calls.reverse()
            answers = await asyncio.gather(*calls)
            prepared, removed = reversed(answers) if number % 2 else answers
            assert (prepared, removed) in (("", "FailedPrecondition"), ("NotFound", ""))
            seen.add(prepared)
            if not prepared:
                assert shown(await store.mounts("child"), place) == {"file": "x"}
                await store.remove("child")
                await store.remove("parent")
        assert "NotFound" in seen
        await store.cleanup()
        assert place.left() == EMPTY


@asynchronous
async def test_cleanup_spares_what_is_being_made(place: Place) -> None:
    async with place.opened() as store:
        await layer(store, "one", **{f"file{number}": "x" for number in range(30)})

        async def churn(lane: int) -> None:
            for number in range(15):
                key = f"key{lane}.{number}"
                await store.prepare(key, "one")
                if number % 2:
                    await store.remove(key)

        async def clean() -> None:
            for _ in range(8):
                await store.cleanup()

        await asyncio.gather(*(churn(lane) for lane in range(4)), clean())
        for key in await names(store):
            if key.startswith("key"):
                assert len(shown(await store.mounts(key), place)) == 30
        await store.cleanup()
        assert len(place.left()["s"]) == 1 + 4 * 8


@asynchronous
async def test_one_scan_does_not_hold_up_the_others(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.opened() as store:
        await many_directories(store)
        scan = SlowScan(monkeypatch)
        call = asyncio.create_task(store.usage("key"))
        await scan.under_way()
        await layer(store, "one")
        await store.stat("one")
        await store.remove("one")
        assert scan.read < 100
        assert not call.done()
        await call


# --- statements that fail though they have had their effect ---


def fails_afterwards(store: BaseSnapshotter, word: str) -> None:
    """The next statement that begins with `word` has its effect, and fails."""
    db = store._records._opened()

    class Once:
        def __getattr__(self, name: str) -> Any:
            return getattr(db, name)

        def execute(self, sql: str, *args: Any) -> Any:
            result = db.execute(sql, *args)
            if sql.startswith(word) and store._records._db is self:
                store._records._db = db
                raise sqlite3.OperationalError("disk I/O error")
            return result

    store._records._db = Once()  # type: ignore[assignment]


@asynchronous
async def test_a_transaction_that_could_not_be_begun_is_not_left_open(place: Place) -> None:
    async with place.opened() as store:
        await store._in_order(fails_afterwards, store, "BEGIN")
        assert "disk I/O error" in str(await refused(store.prepare("key"), SnapshotError))
        await store.prepare("key")
        assert await names(store) == ["key"]


@asynchronous
async def test_a_prepare_whose_commit_failed_afterwards_has_happened_whole(place: Place) -> None:
    """The record is there, and so is the directory that it names: to delete that would leave half a snapshot."""
    async with place.opened() as store:
        await layer(store, "one", file="x")
        await store._in_order(fails_afterwards, store, "COMMIT")
        assert "disk I/O error" in str(await refused(store.prepare("key", "one"), SnapshotError))
        assert await names(store) == ["key", "one"]
        assert shown(await store.mounts("key"), place) == {"file": "x"}
        await store.cleanup()
        assert shown(await store.mounts("key"), place) == {"file": "x"}
