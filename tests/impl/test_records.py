"""The durable records: transactions that are undone whole, text of any kind, one opener, and what comes back after a kill."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from syncs import copy_of, needs_numbers, refuse_syncs

from snapspec.impl.errors import FailedPrecondition, ResourceExhausted, SnapshotError
from snapspec.impl.records import VERSION, Record, Records
from snapspec.model.values import Kind, Usage

ODD = ("a/b c:d\ne", "\udcff\udc80", "\ud83d\ude00", "\U0001f600", "nul\0in", "'; DROP TABLE snapshots; --", "k" * 5000)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "records.db")


@pytest.fixture
def records(path: str) -> Iterator[Records]:
    store = Records(path)
    store.open()
    yield store
    store.close()


def add(records: Records, name: str, parent: Record | None = None, kind: Kind = Kind.COMMITTED) -> Record:
    with records.write():
        return records.add(kind, name, parent, ())


def undone(records: Records, change: Callable[[], object]) -> None:
    """Make the change in a transaction that fails."""
    try:
        with records.write():
            change()
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass


def names(records: Records) -> list[str]:
    return [record.name for record in records.all()]


def test_a_record_comes_back_as_it_was_made(records: Records) -> None:
    base = add(records, "base")
    with records.write():
        made = records.add(Kind.ACTIVE, "top", base, (("a", "1"), ("ü", "\udcff")))
    assert records.find("top") == records.get(made.id) == made
    assert made.parent == "base"
    assert made.parent_id == base.id
    assert made.created == made.updated
    assert records.find("none") is None
    assert records.get(made.id + 1) is None


@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
def test_any_text_is_a_name_and_a_label(records: Records, path: str, name: str) -> None:
    for other in ODD:
        with records.write():
            records.add(Kind.ACTIVE, other, None, ((other, other),))
    records.close()
    records.open()
    found = records.find(name)
    assert found is not None
    assert found.name == name
    assert found.labels == ((name, name),)
    assert names(records) == sorted(ODD)


def test_commit_gives_a_new_birth_and_keeps_the_id(records: Records) -> None:
    made = add(records, "key", kind=Kind.ACTIVE)
    with records.write():
        records.commit(made.id, "name", (("a", "1"),))
    now = records.find("name")
    assert now is not None
    assert (now.id, now.kind, now.labels) == (made.id, Kind.COMMITTED, (("a", "1"),))
    assert now.created == now.updated > made.created
    assert records.find("key") is None


def test_relabelling_moves_updated_alone(records: Records) -> None:
    made = add(records, "key")
    with records.write():
        now = records.relabel(made, (("a", "1"),))
    assert records.find("key") == now
    assert now.created == made.created
    assert now.updated > made.updated


def test_a_clock_that_was_set_back_leaves_updated_no_earlier_than_created(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = add(records, "key")
    monkeypatch.setattr("time.time_ns", lambda: 1)
    with records.write():
        assert records.relabel(made, ()).updated == made.created


def test_ancestors_come_nearest_first(records: Records) -> None:
    above, numbers = None, []
    for depth in range(150):
        above = add(records, f"layer{depth}", above)
        numbers.append(above.id)
    assert above is not None
    assert records.ancestors(above.id) == numbers[-2::-1]
    assert records.ancestors(numbers[0]) == []


def test_a_parent_cannot_be_taken_from_its_children(records: Records) -> None:
    base = add(records, "base")
    assert not records.has_children(base.id)
    add(records, "child", base, Kind.VIEW)
    assert records.has_children(base.id)
    with pytest.raises(SnapshotError), records.write():
        records.remove(base.id)
    assert names(records) == ["base", "child"]
    assert records.trash() == []


def test_a_usage_is_told_at_once_and_kept_at_last(records: Records, path: str, tmp_path: Path) -> None:
    """The disk has it with the next change, or when the store is closed; what is undone on the way takes nothing with it."""

    copies = itertools.count()

    def on_disk() -> list[tuple[int | None]]:
        with closing(sqlite3.connect(copy_of(path, tmp_path / f"copy{next(copies)}"))) as database:
            return database.execute("SELECT size FROM snapshots ORDER BY id").fetchall()

    first, second = add(records, "first"), add(records, "second")
    records.keep_usage(first.id, Usage(4096, 1))
    assert [record.usage for record in (records.find("first"), records.recall("first")) if record] == [Usage(4096, 1)] * 2
    assert on_disk() == [(None,), (None,)]
    undone(records, lambda: records.remove(second.id))
    assert on_disk() == [(None,), (None,)]
    add(records, "third")
    assert on_disk() == [(4096,), (None,), (None,)]
    records.keep_usage(second.id, Usage(8192, 2))
    records.close()
    records.open()
    assert [record.usage for record in records.all()] == [Usage(4096, 1), Usage(8192, 2), None]


def test_what_is_recalled_is_what_is_found(records: Records) -> None:
    """After each kind of change, and after one that is undone; what is being changed is not recalled meanwhile."""
    base = add(records, "base")
    top = add(records, "top", base, Kind.ACTIVE)
    assert records.recall("top") == top
    with records.write():
        top = records.relabel(top, (("a", "1"),))
        assert records.recall("top") is None
    assert records.recall("top") == top == records.find("top")
    undone(records, lambda: records.remove(top.id))
    undone(records, lambda: records.add(Kind.ACTIVE, "other", base, ()))
    assert (records.recall("top"), records.recall("other")) == (None, None)
    assert records.find("top") == records.recall("top") == top
    with records.write():
        records.commit(top.id, "done", ())
    assert (records.recall("top"), records.recall("done")) == (None, None)
    assert records.find("done") == records.recall("done")
    with records.write():
        records.remove(top.id)
    assert records.recall("done") is records.find("done") is None


def test_the_first_usage_stays(records: Records) -> None:
    made = add(records, "layer")
    for usage in (Usage(4096, 1), Usage(8192, 2)):
        with records.write():
            records.keep_usage(made.id, usage)
    now = records.get(made.id)
    assert now is not None
    assert now.usage == Usage(4096, 1)


def test_a_removed_id_is_trash_until_it_is_forgotten_and_never_comes_again(records: Records) -> None:
    made = add(records, "key")
    with records.write():
        records.remove(made.id)
    assert records.trash() == [made.id]
    with records.write():
        records.forget([made.id, 99])
    assert records.trash() == []
    assert add(records, "key").id > made.id


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_whatever_is_raised_undoes_the_transaction_and_the_next_one_works(records: Records, error: type[BaseException]) -> None:
    kept = add(records, "kept")

    def change() -> None:
        with records.write():
            records.add(Kind.ACTIVE, "lost", None, ())
            records.remove(kept.id)
            raise error

    with pytest.raises(error):
        change()
    assert names(records) == ["kept"]
    assert records.trash() == []
    add(records, "next")
    assert names(records) == ["kept", "next"]


def test_what_sqlite_refuses_is_an_error_of_the_port_and_undone(records: Records) -> None:
    add(records, "taken")

    def change() -> None:
        with records.write():
            records.add(Kind.ACTIVE, "lost", None, ())
            records.add(Kind.ACTIVE, "taken", None, ())

    with pytest.raises(SnapshotError, match="UNIQUE") as caught:
        change()
    assert isinstance(caught.value.__cause__, sqlite3.IntegrityError)
    add(records, "next")
    assert names(records) == ["next", "taken"]


def test_a_full_store_refuses_and_goes_on(records: Records) -> None:
    add(records, "kept")
    [(pages,)] = records._all("PRAGMA page_count")
    records._all(f"PRAGMA max_page_count = {pages}")
    before = names(records)
    with pytest.raises(ResourceExhausted, match="enlarge"):
        add(records, "y" * 100_000)
    assert names(records) == before
    records._all(f"PRAGMA max_page_count = {pages + 100}")
    add(records, "next")
    assert names(records) == [*before, "next"]


def after_a_crash(path: str, directory: Path) -> list[str]:
    """What is found in a copy of the files as they are now."""
    copied = Records(copy_of(path, directory))
    copied.open()
    found = names(copied)
    copied.close()
    return found


@needs_numbers
def test_a_commit_that_could_not_be_synced_is_decided_before_the_next_answer(records: Records, path: str, tmp_path: Path) -> None:
    """The log may hold it although it has failed, and a crash would bring it back: nobody must be told that it is not there."""
    add(records, "old")
    with ThreadPoolExecutor(1) as thread:  # the disk fails for this thread, and is well again when that has ended
        thread.submit(refuse_syncs).result()
        with pytest.raises(SnapshotError, match="disk I/O error"):
            thread.submit(add, records, "new").result()
        assert after_a_crash(path, tmp_path / "one") == ["new", "old"], "the danger is there"
        calls: list[Callable[[], object]] = [records.all, partial(records.find, "new"), partial(add, records, "next")]
        for call in calls:
            with pytest.raises(SnapshotError, match="disk I/O error"):
                thread.submit(call).result()
    assert names(records) == ["old"]
    assert after_a_crash(path, tmp_path / "two") == ["old"]
    add(records, "next")
    assert after_a_crash(path, tmp_path / "three") == ["next", "old"]


def test_a_change_outside_a_transaction_is_a_mistake(records: Records) -> None:
    with pytest.raises(AssertionError):
        records.add(Kind.ACTIVE, "key", None, ())


def test_a_closed_store_says_so_and_opens_again(records: Records) -> None:
    add(records, "key")
    records.close()
    records.close()
    with pytest.raises(FailedPrecondition, match="closed"):
        records.all()
    with pytest.raises(FailedPrecondition, match="closed"), records.write():
        pass
    records.open()
    assert names(records) == ["key"]


def test_a_second_opener_is_refused(records: Records, path: str) -> None:
    program = "import sys; from snapspec.impl.records import Records; Records(sys.argv[1]).open()"
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FailedPrecondition" in done.stderr
    assert "open elsewhere" in done.stderr
    second = Records(path)
    with pytest.raises(FailedPrecondition, match="open elsewhere"):
        second.open()
    with pytest.raises(FailedPrecondition, match="closed"):
        second.all()
    add(records, "key")


def test_a_newer_version_is_refused_and_left_alone(records: Records, path: str) -> None:
    records._all(f"PRAGMA user_version = {VERSION + 1}")
    records.close()
    with pytest.raises(FailedPrecondition, match=f"version {VERSION + 1}"):
        records.open()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)
    db.close()


def test_a_file_that_is_no_store_is_refused(path: str) -> None:
    Path(path).write_bytes(os.urandom(8192))
    with pytest.raises(SnapshotError, match="not a database"):
        Records(path).open()


CHILD = """
import sys
from snapspec.impl.records import Records
from snapspec.model.values import Kind
records = Records(sys.argv[1])
records.open()
for number in range(1_000_000):
    with records.write():
        records.add(Kind.ACTIVE, f"{number}", None, ())
        records.add(Kind.VIEW, f"{number}'", None, ())
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(path: str) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD, path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == 200:
                child.send_signal(signal.SIGKILL)
                break
        rest = child.stdout.read().split()
    acknowledged = int(rest[-1]) if rest else 200
    records = Records(path)
    records.open()
    found = names(records)
    records.close()
    assert len(found) in (2 * acknowledged + 2, 2 * acknowledged + 4)
    assert set(found) == {f"{n}{kind}" for n in range(len(found) // 2) for kind in ("", "'")}
