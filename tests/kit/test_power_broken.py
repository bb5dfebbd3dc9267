"""Drivers that lose something when the power fails: each is the reference with one fault, found, and shown by a short history."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from test_power import requires_file_system, requires_recorder

from snapspec.conformance.durable import PowerCut, power
from snapspec.conformance.durable.place import place
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.history import Finding, Step, decode_finding, encode_finding, load, save
from snapspec.conformance.report.text import finding_lines
from snapspec.impl.base import BaseSnapshotter, Build
from snapspec.impl.copy import CopySnapshotter
from snapspec.impl.filetree import copy_tree
from snapspec.impl.layout import make_directory
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.impl.records import Record
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Mismatch, Returned
from snapspec.model.tree import MakeFile
from snapspec.model.values import Kind, Labels, Mount, labels_of

pytestmark = [pytest.mark.root, requires_recorder]


class MetadataFirst(OverlaySnapshotter):
    """The record of a snapshot is on the disk before its directory is made, and nobody makes it good when the store is opened."""

    def _insert(self, kind: Kind, key: str, parent: str, labels: Labels, build: Build) -> tuple[Mount, ...]:
        with self._records.write():
            record = self._records.add(kind, key, self._check_new(key, parent, labels), labels)
        self._layout.put(build(record), record.id)
        return self._mount_list(record)

    def _mend(self) -> None:
        """Not done."""


class CommitUnsynced(OverlaySnapshotter):
    """A commit records what it has not brought to the disk."""

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        wanted = labels_of(labels or {})
        with self._call():
            record = await self._in_order(self._check_commit, name, key, wanted, parent)
            await self._in_order(self._commit, name, key, wanted, parent, record.id)


class RecordsUnsynced(OverlaySnapshotter):
    """The records are written, but left to the system to bring to the disk."""

    def _load(self) -> None:
        super()._load()
        self._records._opened().execute("PRAGMA synchronous = OFF")


class CopyUnsynced(CopySnapshotter):
    """The copy of a parent is recorded before it is on the disk."""

    def _copy(self, path: str, above: Record, stop: Event) -> None:
        make_directory(f"{path}/fs", 0o755)
        copy_tree(self._layout.fs(above.id), f"{path}/fs", stop)


class DirectoriesUnsynced(OverlaySnapshotter):
    """A new directory is renamed into place, and neither it nor what is in it is synced before the record is: right on ext4 and
    xfs, whose journals keep the order."""

    def _load(self) -> None:
        super()._load()
        self._layout._ordered = True


COMMITTED = (ops.Prepare("a"), ops.Write("a", (MakeFile("f", b"hello"),)), ops.Commit("b", "a"))

#: Each with the file system that it loses something on, the clauses that a finding may name first (of the plainest images it is
#: the first one), and a history that shows it.
BROKEN: dict[type[BaseSnapshotter], tuple[str, tuple[str, ...], tuple[Operation, ...]]] = {
    MetadataFirst: ("ext4", ("SNAP-POWER-3",), (ops.Prepare("a"),)),
    CommitUnsynced: ("ext4", ("SNAP-POWER-2",), COMMITTED),
    # Where only some of the pages reach the disk the records cannot be read.
    RecordsUnsynced: ("ext4", ("SNAP-POWER-1", "SNAP-POWER-5"), (ops.Prepare("a"),)),
    CopyUnsynced: ("ext4", ("SNAP-POWER-3", "SNAP-POWER-4"), (*COMMITTED, ops.Prepare("c", "b"))),
    DirectoriesUnsynced: ("btrfs", ("SNAP-POWER-3",), (ops.Prepare("a"),)),
}

DRIVERS = [pytest.param(driver, marks=requires_file_system(kind), id=driver.__name__) for driver, (kind, _, _) in BROKEN.items()]


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_lost_is_found(driver: type[BaseSnapshotter], workdir: Path) -> None:
    kind, clauses, calls = BROKEN[driver]
    with place(workdir, driver, kind) as here:
        found = power.try_each(here, calls, at_end=True)
    assert found is not None
    assert found.clause == clauses[0], "\n".join(finding_lines(found))


@pytest.mark.deep
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_drawn_run_finds_it_and_makes_it_short(driver: type[BaseSnapshotter], seed: int, workdir: Path) -> None:
    kind, clauses, calls = BROKEN[driver]
    with place(workdir, driver, kind) as here:
        done = power.run(here, 300, seed)
    found = done.finding
    assert isinstance(found, Finding), done.text()
    print("\n".join(finding_lines(found)))
    assert found.clause in clauses
    assert len(power.calls_of(found)) <= len(calls) + 1


@pytest.mark.parametrize("driver", DRIVERS[1:2])
def test_what_is_found_is_told_saved_and_found_again(driver: type[BaseSnapshotter], workdir: Path) -> None:
    """On the driver that has the fault, and not on the reference."""
    _, _, calls = BROKEN[driver]
    run = workdir / "run"
    run.mkdir()
    with place(run, driver) as here:
        found = power.try_each(here, calls, at_end=True)
        assert found is not None
        save(workdir / "f.json", found, "ref:overlay")
        saved = load(workdir / "f.json")
        assert isinstance(saved, Finding)
        assert saved == found
        again = power.replay(here, saved)
        assert again is not None
        assert again.clause == found.clause
    told = list(finding_lines(found))
    assert told[2] == "   1  prepare('a') -> bind mount"
    assert told[4].startswith("   3  power cut during [commit('b', 'a')]: the disk keeps ")
    assert told[5].startswith("   4  read('spare') -> ")
    assert any("content differs from byte 0" in text for text in told)
    assert any(text.startswith("  SNAP-POWER-2: The content of a committed snapshot") for text in told)
    with place(run) as here:
        assert power.replay(here, saved) is None


CUT = PowerCut(during=(ops.Commit("b", "a"),), told=3, how="some", grain=512, open=9, bits=b"\x05\x01")
HISTORY = Finding(
    (Step(ops.Prepare("a"), Returned()), Step(CUT, Returned(("no answer",))), Step(ops.Walk(), Returned(()), check=True)),
    (Mismatch("SNAP-POWER-1", "", ""),),
)


def test_a_power_cut_is_a_step_of_a_history() -> None:
    assert decode_finding(json.loads(json.dumps(encode_finding(HISTORY)))) == HISTORY
    assert power._power_cut(HISTORY) == CUT
    assert power.calls_of(HISTORY) == (ops.Prepare("a"), ops.Commit("b", "a"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"told": "soon"},
        {"told": -1},
        {"grain": 100},
        {"how": "whatever"},
        {"bits": "AA"},
        {"open": -9},
        {"during": [{"is": "durable.PowerCut"}]},
        {"during": [{"is": "ops.Collect"}]},
        {"during": [1]},
        {"kept": 3},
    ],
)
def test_a_step_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    document = json.loads(json.dumps(encode_finding(HISTORY)))
    document["steps"][1]["op"] |= wrong
    with pytest.raises(CannotRun, match=": give a file that "):
        read(document)


def read(document: object) -> None:
    saved = decode_finding(document)
    assert isinstance(saved, Finding)
    power._power_cut(saved)


def test_a_history_with_two_power_cuts_is_refused() -> None:
    with pytest.raises(CannotRun, match="power cuts that cannot be made again here"):
        power._power_cut(replace(HISTORY, steps=(*HISTORY.steps, HISTORY.steps[1])))
