"""The metadata store: several ids in one write, whole or not at all, whatever the disk, a kill or a cancellation does to it."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from io import RawIOBase
from pathlib import Path

import pytest
from stores import asynchronous
from syncs import copy_of, needs_numbers, refuse_syncs

from snapspec.impl.loopback import open_pool
from snapspec.impl.metadata import VERSION, Entry, SqliteStore, Store, open_store
from snapspec.impl.ref_errors import Closed, Locked, StoreError

ODD = ("a/b c:d\ne", "\udcff\udc80", "\ud83d\ude00", "\U0001f600", "nul\0in", "'; DROP TABLE entries; --", "", "k" * 5000)

OLD = {"v": "old"}
NEW = {"v": "new"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "metadata.db")


@asynccontextmanager
async def opened(path: str) -> AsyncIterator[SqliteStore]:
    store = await open_store(path)
    try:
        yield store
    finally:
        await store.close()


def threads() -> list[str]:
    """The threads of stores that have not ended; those of closed ones get a moment to do so."""
    found = [thread for thread in threading.enumerate() if thread.name.startswith("snapspec-metadata")]
    for thread in found:
        thread.join(1)
    return [thread.name for thread in found if thread.is_alive()]


# --- what is kept


@asynchronous
async def test_a_write_puts_changes_and_removes_several_ids(path: str) -> None:
    async with opened(path) as store:
        held: Store = store
        assert await held.load() == {}
        await held.write({"b": OLD, "a": {"x": "1", "y": ""}})
        await held.write({"c": NEW, "b": NEW, "a": None, "absent": None})
        await held.write({})
        assert list(await held.load()) == ["b", "c"]
        assert await held.read(["c", "a", "b", "c"]) == {"c": NEW, "b": NEW}
        assert await held.read([]) == {}
    async with opened(path) as store:
        assert await store.load() == {"b": NEW, "c": NEW}


@asynchronous
async def test_any_text_is_an_id_a_key_and_a_value(path: str) -> None:
    changes = {text: {text: text, "all": "".join(ODD)} for text in ODD}
    async with opened(path) as store:
        await store.write(changes)
    async with opened(path) as store:
        assert await store.load() == await store.read(ODD) == changes


@asynchronous
async def test_an_empty_entry_is_refused_and_nothing_of_the_write_is_done(path: str) -> None:
    async with opened(path) as store:
        await store.write({"a": OLD})
        with pytest.raises(ValueError, match="None"):
            await store.write({"a": NEW, "b": {}})
        assert await store.load() == {"a": OLD}


@asynchronous
async def test_calls_take_place_in_their_order_and_see_what_was_asked_for(path: str) -> None:
    """Changes and ids are taken when the call starts; what becomes of the caller's own objects later does not count."""
    async with opened(path) as store:
        changes = {"a": dict(OLD)}
        ids = ["a"]
        calls = [store.write({"a": {"v": str(number)}}) for number in range(100)]
        tasks = [*map(asyncio.ensure_future, calls), asyncio.ensure_future(store.write(changes))]
        reading = asyncio.ensure_future(store.read(ids))
        await asyncio.sleep(0)
        changes["a"]["v"] = "later"
        ids.clear()
        await asyncio.gather(*tasks)
        assert await reading == {"a": OLD}


# --- one owner


@asynchronous
async def test_a_second_opener_is_refused_and_the_first_is_undisturbed(path: str) -> None:
    """One in this process and one in another, in turns: the kernel's locks go with any file of the process that closes."""
    async with opened(path) as store:
        for number in range(3):
            await store.write({f"a{number}": NEW})
            with pytest.raises(Locked, match="close it there first") as caught:
                await open_store(path)
            assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
            assert "Locked" in _opened_elsewhere(path)
        assert list(await store.load()) == ["a0", "a1", "a2"]
    assert threads() == []
    assert _opened_elsewhere(path) == ""


def _opened_elsewhere(path: str) -> str:
    program = (
        "import asyncio, sys; from snapspec.impl.metadata import open_store\n"
        "async def main(): await (await open_store(sys.argv[1])).close()\n"
        "asyncio.run(main())"
    )
    return subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False).stderr


@asynchronous
async def test_of_openers_at_the_same_time_one_at_most_gets_the_store(path: str) -> None:
    """Also when there is no file yet."""
    for life in range(20):
        outcomes = await asyncio.gather(*(open_store(path) for _ in range(4)), return_exceptions=True)
        stores = [outcome for outcome in outcomes if isinstance(outcome, SqliteStore)]
        assert len(stores) <= 1
        assert {type(outcome) for outcome in outcomes} <= {SqliteStore, Locked}
        for store in stores:
            await store.write({str(life): NEW})
            await store.close()
    async with opened(path) as store:
        assert set(await store.load()) <= {str(life) for life in range(20)}


@asynchronous
async def test_a_file_of_something_else_is_refused_and_left_as_it_is(path: str) -> None:
    for statement in (f"PRAGMA user_version = {VERSION}", "CREATE TABLE mine (x)", "PRAGMA application_id = 1"):
        with sqlite3.connect(path) as db:
            db.execute(statement)
        db.close()
        before = Path(path).read_bytes()
        with pytest.raises(StoreError, match="another path"):
            await open_store(path)
        assert os.listdir(Path(path).parent) == ["metadata.db"]
        assert Path(path).read_bytes() == before
        os.unlink(path)
    Path(path).write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        await open_store(path)
    assert threads() == []


@asynchronous
async def test_a_newer_version_is_refused_and_left_as_it_is(path: str) -> None:
    async with opened(path) as store:
        await store.write({"a": OLD})
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    before = Path(path).read_bytes()
    with pytest.raises(StoreError, match="use the program that wrote it"):
        await open_store(path)
    assert Path(path).read_bytes() == before


@asynchronous
async def test_a_path_that_cannot_be_opened_is_an_error_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open") as caught:
        await open_store(str(tmp_path / "absent" / "metadata.db"))
    assert isinstance(caught.value.__cause__, sqlite3.Error)
    assert threads() == []


@asynchronous
async def test_a_closed_store_says_so_and_a_second_close_does_nothing(path: str) -> None:
    store = await open_store(path)
    writing = asyncio.ensure_future(store.write({"a": NEW}))
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), store.close())
    await writing
    await store.close()
    calls: list[Callable[[], Awaitable[object]]] = [store.load, lambda: store.read(["a"]), lambda: store.write({"a": None})]
    for call in calls:
        with pytest.raises(Closed, match="open it again"):
            await call()
    assert threads() == []
    assert os.listdir(Path(path).parent) == ["metadata.db"], "the log is in the file"
    async with opened(path) as again:
        assert await again.load() == {"a": NEW}


# --- cancellation


@asynchronous
async def test_a_cancelled_call_stays_until_its_effect_is_decided(path: str) -> None:
    async with opened(path) as store:
        busy = threading.Event()
        store._thread.submit(busy.wait)
        calls = [asyncio.ensure_future(store.write({"a": NEW})), asyncio.ensure_future(store.read(["a"]))]
        try:
            for _ in range(3):
                await asyncio.sleep(0.01)
                for call in calls:
                    call.cancel()
            assert not any(call.done() for call in calls)
        finally:
            busy.set()
        await asyncio.wait(calls)
        assert all(call.cancelled() for call in calls)
        assert await store.load() == {"a": NEW}


@asynchronous
async def test_a_write_that_fails_after_its_cancellation_is_cancelled(path: str) -> None:
    async with opened(path) as store:
        await store.write({"a": OLD})
        await store._in_order(_limit, store, 0)
        call = asyncio.ensure_future(store.write({"a": NEW, "b": {"v": "x" * 100_000}}))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert await store.load() == {"a": OLD}


@asynchronous
async def test_an_opener_that_is_cancelled_lets_go_of_the_store(path: str) -> None:
    for yields in range(4):
        opening = asyncio.ensure_future(open_store(path))
        for _ in range(yields):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()
        assert threads() == []
    async with opened(path) as store:
        assert await store.load() == {}


# --- a disk that fails


def _limit(store: SqliteStore, more: int) -> None:
    assert store._db is not None
    [(pages,)] = store._db.execute("PRAGMA page_count")
    store._db.execute(f"PRAGMA max_page_count = {pages + more}")


@asynchronous
async def test_a_write_that_does_not_fit_is_undone_whole_and_the_next_one_works(path: str) -> None:
    async with opened(path) as store:
        await store.write({"a": OLD, "b": OLD})
        await store._in_order(_limit, store, 0)
        for _ in range(3):
            with pytest.raises(StoreError, match="enlarge the pool"):
                await store.write({"a": NEW, "b": None, "big": {"v": "x" * 100_000}})
            assert await store.load() == {"a": OLD, "b": OLD}
        await store._in_order(_limit, store, 100)
        await store.write({"a": NEW, "b": None, "big": {"v": "x" * 100_000}})
        assert list(await store.load()) == ["a", "big"]


def fill(directory: str) -> Path:
    """A file that takes all the room there is."""
    filler = Path(directory) / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with pytest.raises(OSError, match="No space left"):
                write_for_ever(file, b"x" * size)
    return filler


def write_for_ever(file: RawIOBase, data: bytes) -> None:
    while True:
        file.write(data)


async def attempt(store: Store, changes: dict[str, Entry | None]) -> StoreError | None:
    """What the write fails with, if it does."""
    try:
        await store.write(changes)
    except StoreError as error:
        return error
    return None


@pytest.mark.root
@asynchronous
async def test_on_a_full_disk_a_write_fails_and_the_old_entries_stay(workdir: Path) -> None:
    with open_pool(str(workdir / "pool"), size=16 << 20) as pool:
        path = os.path.join(pool.root, "metadata.db")
        async with opened(path) as store:
            before = {f"id{number}": OLD for number in range(50)}
            await store.write(before)
            filler = fill(pool.root)
            failed = 0
            for number in range(200):
                big = {"v": "x" * 1000 * number}
                error = await attempt(store, {"id0": big, f"id{number + 1}": None})
                if error is None:
                    before["id0"] = big
                    before.pop(f"id{number + 1}", None)
                else:
                    failed += 1
                    assert "no room left" in str(error)
                    assert isinstance(error.__cause__, sqlite3.OperationalError)
                assert await store.load() == before
                assert await store.read(["id0"]) == {"id0": before["id0"]}
            assert failed > 10
            assert after_a_crash(path, workdir / "copy") == before
            filler.unlink()
            await store.write({"id0": NEW})
        async with opened(path) as store:
            assert await store.load() == {**before, "id0": NEW}


def after_a_crash(path: str, directory: Path) -> dict[str, dict[str, str]]:
    """What is found in a copy of the files as they are now."""
    copied = copy_of(path, directory)

    async def load() -> dict[str, dict[str, str]]:
        async with opened(copied) as copy:
            return await copy.load()

    with ThreadPoolExecutor(1) as thread:  # a loop is running here already
        return thread.submit(lambda: asyncio.run(load())).result()


@needs_numbers
@asynchronous
async def test_a_commit_that_could_not_be_synced_is_decided_before_the_next_answer(path: str, tmp_path: Path) -> None:
    """The log may hold it although it has failed, and a crash would bring it back: nobody must be told that it is not there."""
    async with opened(path) as store:
        await store.write({"a": OLD, "b": OLD})
        await store._in_order(refuse_syncs)
        with pytest.raises(StoreError, match="disk I/O error"):
            await store.write({"a": NEW, "b": None, "c": {"v": "x" * 20_000}})
        assert after_a_crash(path, tmp_path / "one").keys() == {"a", "c"}, "the danger is there"
        calls: list[Callable[[], Awaitable[object]]] = [store.load, lambda: store.read(["a"]), lambda: store.write({"d": NEW})]
        for call in calls:
            with pytest.raises(StoreError, match="disk I/O error"):
                await call()
        # The filter goes with its thread: the disk is well again.
        store._thread.shutdown()
        store._thread = ThreadPoolExecutor(1, "snapspec-metadata")
        assert await store.load() == {"a": OLD, "b": OLD}
        assert after_a_crash(path, tmp_path / "two") == {"a": OLD, "b": OLD}
        await store.write({"a": NEW})
        assert after_a_crash(path, tmp_path / "three") == {"a": NEW, "b": OLD}
    async with opened(path) as store:
        assert await store.load() == {"a": NEW, "b": OLD}


# --- a kill

CHILD = """
import asyncio, sys
from snapspec.impl.metadata import open_store

async def lane(store, lane):
    for turn in range(1_000_000):
        ids = [f"{lane}.{turn}.{part}" for part in range(3)]
        await store.write({**{id: {"turn": str(turn)} for id in ids}, f"{lane}.{turn - 5}.1": None})
        print(lane, turn, flush=True)

async def main():
    store = await open_store(sys.argv[1])
    await asyncio.gather(*(lane(store, number) for number in range(int(sys.argv[2]), int(sys.argv[2]) + 3)))

asyncio.run(main())
"""


def run_and_kill(path: str, first: int, lines: int) -> dict[int, int]:
    """Let three lanes write until `lines` writes were acknowledged, kill the process; the last acknowledged turn of each lane."""
    command = [sys.executable, "-c", CHILD, path, str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        told += child.stdout.read().splitlines(keepends=True)
    assert child.returncode == -signal.SIGKILL
    return {int(lane): int(turn) for lane, turn in (line.split() for line in told if line.endswith("\n"))}


def expected(lane: int, turn: int) -> set[str]:
    """The ids of a lane after that turn."""
    parts = {f"{lane}.{each}.{part}" for each in range(turn + 1) for part in range(3)}
    return parts - {f"{lane}.{each - 5}.1" for each in range(turn + 1)}


@asynchronous
async def test_what_was_acknowledged_survives_a_kill_and_the_rest_is_whole_or_absent(path: str) -> None:
    known: dict[str, dict[str, str]] = {}
    for life, lines in enumerate((1, 30, 300)):
        told = run_and_kill(path, life * 3, lines)
        async with opened(path) as store:
            found = await store.load()
            assert known.items() <= found.items()
            for lane in range(life * 3, life * 3 + 3):
                there = {name for name in found if name.startswith(f"{lane}.")}
                turn = told.get(lane, -1)
                assert there in (expected(lane, turn), expected(lane, turn + 1)), "at most the write that was not yet told"
            known = found
    assert len(known) > 300
