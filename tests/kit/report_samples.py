"""Findings of broken drivers, made in a moment and in memory, and reports of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import broken_overlap
from ref_sessions import in_memory

from snapspec.conformance.clauses import clauses
from snapspec.conformance.contents import Contents
from snapspec.conformance.history import Finding, Step
from snapspec.conformance.mutants.hall import find
from snapspec.conformance.overlap import AtOnce
from snapspec.conformance.overlap.session import OverlapSession, replay_plan
from snapspec.conformance.ref_history import Burst, RefFinding
from snapspec.conformance.ref_session import play_again
from snapspec.conformance.report.document import LEVELS, Clause, Expected, Level, Report, Verdict
from snapspec.conformance.report.found import found
from snapspec.conformance.schedule import Budget
from snapspec.conformance.session import Session, replay
from snapspec.conformance.subjects.python import PythonSubject
from snapspec.impl.errors import FailedPrecondition
from snapspec.model import ops, ref_ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Lost, Mismatch, Returned
from snapspec.model.values import Info

#: What nobody wants in a page: an end of its script, an escape, a change of direction, a lone surrogate, markup, and no end.
HOSTILE = (
    "</script></code><img src=x onerror=alert(1)>\x1b[31m\u202egnp\x00\ud800 |`````| **b** @me [l](javascript:x) " + "w" * 10_000
)


class RemovesParents(broken_overlap.Right):
    """A snapshot with children is said to be removed."""

    def remove(self, key: str) -> None:
        try:
            super().remove(key)
        except FailedPrecondition:
            return


class WalksWithout(broken_overlap.Right):
    """A walk leaves committed snapshots out."""

    def walk(self, filters: Sequence[str] = ()) -> Sequence[Info]:
        return [info for info in super().walk(filters) if info.kind.value != "committed"]


class KeepsLabels(broken_overlap.Right):
    """An update tells of the labels that were."""

    def update(self, info: Info, paths: Sequence[str] = ()) -> Info:
        before = self.stat(info.name)
        return replace(super().update(info, paths), labels=before.labels)


class HostileWords(broken_overlap.Right):
    """A refusal says what no page should hold."""

    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[object]:  # type: ignore[override]
        if parent:
            raise RuntimeError(HOSTILE)
        return super().prepare(key, parent, labels)


@contextmanager
def _session(factory: type[broken_overlap.Right], kind: type[Session]) -> Iterator[Session]:
    with TemporaryDirectory() as place, asyncio.Runner() as runner:
        directory = Path(place)
        for name in ("mnt", "store"):
            (directory / name).mkdir()
        contents = Contents(directory / "mnt", mounts=False, root=False)
        session = kind(PythonSubject("py:", contents, directory / "store", factory, factory.profile), runner)
        with session.started():
            yield session


def shown(factory: type[broken_overlap.Right], *calls: Operation) -> Finding:
    """What the calls show of the driver."""
    with _session(factory, Session) as session:
        finding = replay(session, tuple(Step(op, Returned()) for op in calls))
    assert finding is not None
    return finding


LAYER = (ops.Prepare("a"), ops.Commit("b", "a"))


@cache
def removed() -> Finding:
    """Of a remove that is to be refused, and is not."""
    return shown(RemovesParents, *LAYER, ops.Prepare("c", "b"), ops.Remove("b"))


@cache
def walked() -> Finding:
    """Of a walk that shows too little."""
    return shown(WalksWithout, *LAYER, ops.Prepare("c", "b"), ops.Walk())


@cache
def updated() -> Finding:
    """Of an update whose answer shows labels that are gone."""
    return shown(KeepsLabels, ops.Prepare("a", labels=(("l", "1"),)), ops.Update("a", (("l", "2"),)))


@cache
def hostile() -> Finding:
    """Of a driver whose words are no driver's."""
    return shown(HostileWords, *LAYER, ops.Prepare("c", "b"))


@cache
def overlapping() -> Finding:
    """Of calls that have no order."""
    plan = AtOnce(first=(), lanes=((ops.Prepare("a"),), (ops.Prepare("a"),), (ops.Stat("a"),)))
    with _session(broken_overlap.LooksBeforeItLocks, OverlapSession) as session:
        assert isinstance(session, OverlapSession)
        finding = replay_plan(session, (Step(plan, Returned()),))
    assert finding is not None
    return finding


def of_refs(name: str, *bursts: Burst) -> RefFinding:
    """What the bursts show of an exhibit."""
    logging.disable(logging.WARNING)
    try:
        finding = play_again(in_memory(find(name).manager), RefFinding(bursts, (), (Mismatch("", "", ""),)))
    finally:
        logging.disable(logging.NOTSET)
    assert finding is not None
    return finding


def single(*calls: ref_ops.RefOperation) -> tuple[Burst, ...]:
    """Bursts of one call each."""
    return tuple(Burst((op,)) for op in calls)


@cache
def pruned() -> RefFinding:
    """Of a prune that removes what is taken up meanwhile."""
    before = single(
        ref_ops.New("m", "hm"),
        ref_ops.Commit("hm", "e", "he"),
        ref_ops.New("c", "hc", "he"),
        ref_ops.Commit("hc", "d", "hd"),
        ref_ops.Release("hd"),
    )
    return of_refs("f05", *before, Burst((ref_ops.Prune(), ref_ops.Get("d", "hg", "x")), (0, 1)))


@cache
def unlocked() -> RefFinding:
    """Of a get_mutable of a record whose other half is held."""
    before = single(ref_ops.New("m", "hm"), ref_ops.Commit("hm", "e", "he"))
    return of_refs("a04", *before, Burst((ref_ops.GetMutable("m", "h"),), (0,), Budget(holds=1)))


def findings() -> list[tuple[str, Finding | RefFinding]]:
    """Each with its level."""
    return [
        ("core", removed()),
        ("core", hostile()),
        ("labels", walked()),
        ("labels", updated()),
        ("concurrent", overlapping()),
        ("refs", pruned()),
        ("refs", unlocked()),
    ]


def lost() -> Finding:
    """Of a call that does not answer."""
    return Finding((Step(ops.Prepare("a"), Lost("nothing came within 20 s")),), (Mismatch("SNAP-LIVE-1", "an answer", "none"),))


@cache
def sample() -> Report:
    """A report of all of them, with something of each verdict."""
    shown_ = [
        replace(
            found(n, level, finding, subject="py:broken:x"),
            histories=n,
            seconds=0.1 * n,
            again=f"snapspec replay {n}.json 'py:broken:x'",
        )
        for n, (level, finding) in enumerate(findings(), 1)
    ]
    shown_[1] = replace(shown_[1], verdict=Verdict.EXPECTED, reason=HOSTILE, link="javascript:alert(1)")
    shown_[2] = replace(shown_[2], after=("SNAP-REMOVE-2 remove",), lines=("its last words", HOSTILE))
    worst = list(Verdict)
    ids = list(clauses())
    levels = tuple(
        Level(
            name,
            Verdict.NOT_RUN if name == "durable" else (Verdict.FAILED, Verdict.PASSED, Verdict.EXPECTED, Verdict.HANG)[n % 4],
            f"why {name}",
            "on a pool",
            histories=5120 * n,
            calls=153600 * n,
            restarts=120 * n,
            images=400 * n,
            seconds=70.0 * n,
            clauses=()
            if name == "durable"
            else tuple(Clause(id_, worst[(k * n) % 9], k) for k, id_ in enumerate(ids[9 * n : 9 * n + 9])),
            lines=("fault points: prepare 3",),
        )
        for n, name in enumerate(LEVELS)
    )
    expected = (
        Expected("SNAP-USAGE-5", "counts the root twice", "https://example.org/issues/1", Verdict.EXPECTED),
        Expected("SNAP-COMMIT-6", HOSTILE, "javascript:alert(2)", Verdict.UNEXPECTED, "it passed: take it out of the file"),
    )
    return Report(
        "py:broken:x",
        Verdict.FAILED,
        levels,
        tuple(shown_),
        expected,
        name="a driver",
        version="1.2",
        profile="usage=layer",
        seed=7,
        shard="2/8",
        command="snapspec check 'py:broken:x' --seed 7",
        began="2026-01-02T03:04:05Z",
        seconds=192.0,
        versions={"snapspec": "1.0", "spec": "1", "kernel": HOSTILE},
        notes=("collect was left out",),
    )
