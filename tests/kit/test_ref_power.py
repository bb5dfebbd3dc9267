"""Power cuts on the manager of refs: its store and the snapshots on one image, recorded, cut, opened again and judged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from broken_refs import BROKEN
from test_power import assert_nothing_left, requires_recorder
from test_power_broken import CommitUnsynced

from snapspec.conformance.durable import images, power, ref_power
from snapspec.conformance.durable.images import Disk
from snapspec.conformance.durable.place import Place, place
from snapspec.conformance.durable.ref_power import Recorded, Survivor, judge, record, under_way, written
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.ref_history import Burst, RefFinding
from snapspec.conformance.ref_session import RefDivergence
from snapspec.conformance.report.text import finding_lines
from snapspec.model import ref_durable, ref_ops
from snapspec.model.ref_ops import RefOperation
from snapspec.model.tree import MakeFile

pytestmark = [pytest.mark.root, requires_recorder]

FILE = (MakeFile("f", b"x" * 600),)

#: A layer that is final and has a view, one over it that is a pair, and one that is written.
LAYERS: tuple[RefOperation, ...] = (
    ref_ops.New("m", "hm"),
    ref_ops.Write("hm", FILE),
    ref_ops.Commit("hm", "e", "he"),
    ref_ops.Size("he"),
    ref_ops.New("n", "hn", "he"),
    ref_ops.Mount("he", readonly=True),
    ref_ops.Write("hn", (MakeFile("g", b"y" * 5000),)),
    ref_ops.Commit("hn", "d", "hd"),
    ref_ops.New("o", "ho", "he"),
    ref_ops.Write("ho", FILE),
    ref_ops.Release("hd"),
)
BURSTS = (*(Burst((op,)) for op in LAYERS), Burst((ref_ops.Prune(), ref_ops.Get("n", "hg", "x"), ref_ops.DiskUsage())))


def shown(found: RefFinding | None) -> str:
    return "" if found is None else "\n".join(finding_lines(found))


def judged(here: Place, recorded: Recorded, number: int, seed: int) -> set[str]:
    """So many drawn cuts are judged, and allowed; gives what was under way at them."""
    drawn, during = random.Random(seed), set()
    disk = Disk(here.template, recorded.events, here.directory / "disk.img")
    for cut in power.draw_cuts(drawn, recorded.events, recorded.spans(), number, here.whole):
        found = judge(here, recorded, disk, cut, kernel=drawn.random() < 0.5)
        assert found is None, shown(found)
        during.update(under_way(recorded, cut))
    return during


def test_what_calls_returned_for_is_there_after_a_cut(workdir: Path) -> None:
    with place(workdir) as here:
        recorded = record(here, written(BURSTS))
        assert len(recorded.operations) == len(LAYERS) + 3
        assert judged(here, recorded, 12, 1)
        disk = Disk(here.template, recorded.events, here.directory / "disk.img")
        found = judge(here, recorded, disk, images.each(recorded.events)[-2])
        assert found is None, shown(found)
    assert_nothing_left(workdir)


def test_a_call_is_under_way_from_its_begin_to_its_answer(workdir: Path) -> None:
    with place(workdir) as here:
        recorded = record(here, written(BURSTS))
    seen = [under_way(recorded, images.Cut(moment, "none", 512, frozenset())) for moment in range(len(recorded.events) + 1)]
    assert seen[0] == seen[-1] == ()
    alone = [names for names in dict.fromkeys(seen) if len(names) == 1]
    assert {("new",), ("commit",), ("size",), ("mount",)} <= set(alone)
    first, last = seen.index(("new",)), len(seen) - seen[::-1].index(("size",))
    assert first < seen.index(("commit",)) < last
    layers = recorded.layers[-1].belief
    assert len(layers.calls) == 0


def test_the_content_of_what_is_not_final_may_be_lost_and_that_of_what_is_final_not(workdir: Path) -> None:
    """Nobody brings to the disk what is written into a mutable over nothing, but for a later end of all."""
    ops = (*LAYERS[:3], ref_ops.Finalize("he"), ref_ops.New("n", "hn"), ref_ops.Write("hn", FILE))
    bursts = tuple(Burst((op,)) for op in ops)
    with place(workdir) as here:
        recorded = record(here, written(bursts))
        moments = (images.moment_of(recorded.events, recorded.tells[-1].position), len(recorded.events))
        disk = Disk(here.template, recorded.events, here.directory / "disk.img")
        told = []
        for moment in moments:
            disk.cut(images.Cut(moment, "none", 4096, frozenset()), here.image)
            layers = ref_durable.power_cut(recorded.layers[-1])
            assert set(layers.unsettled) == {"n"}
            survivor = Survivor(ref_power.subject(here), here.runner, layers)
            assert survivor.found() is None
            told.append([line[5:] for line in survivor.lines() if "read('look" in line])
    mutable, final = "read('look 1')", "read('look 2')"
    assert told == [[f"{mutable} -> 0 entries", f"{final} -> 1 entries"], [f"{mutable} -> 1 entries", f"{final} -> 1 entries"]]


def test_a_driver_that_loses_a_final_layer_is_found_under_the_manager(workdir: Path) -> None:
    with place(workdir, CommitUnsynced) as here:
        found = ref_power.try_last(here, tuple(Burst((op,)) for op in (*LAYERS[:3], ref_ops.Finalize("he"))))
    assert found is not None
    assert found.clause == "REF-POWER-2", shown(found)
    assert "the power is cut" in shown(found)


def test_what_is_wrong_without_a_cut_is_a_finding_too(workdir: Path) -> None:
    (broken,) = [one for one in BROKEN if one.name == "get_mutable leaves E"]
    ops = (*LAYERS[:3], ref_ops.Release("he"), ref_ops.GetMutable("m", "hx"))
    bursts = tuple(Burst((op,)) for op in ops)
    with place(workdir) as here:
        with pytest.raises(RefDivergence, match="REF-MUT-3"):
            record(here, written(bursts), broken.open)
        for tried in (ref_power.uncut, ref_power.try_each, ref_power.try_last):
            found = tried(here, bursts, broken.open)
            assert found is not None
            assert found.clause == "REF-MUT-3"
        assert ref_power.uncut(here, bursts) is None
    assert_nothing_left(workdir)


@pytest.mark.deep
def test_a_drawn_run_finds_what_is_wrong_without_a_cut_and_makes_it_short(workdir: Path) -> None:
    (broken,) = [one for one in BROKEN if one.name == "handle valid after commit"]
    with place(workdir) as here:
        done = ref_power.run(here, 500, 1, broken.open)
    assert done.found is not None
    assert len(done.found.bursts) <= 3, shown(done.found)


def test_a_recorder_that_is_gone_is_not_the_managers_fault(workdir: Path) -> None:
    def ends_the_recorder(session: ref_power.PowerSession) -> None:
        here.recorder.process.end(kill=True)
        session.make((ref_ops.New("m", "hm"),))

    with place(workdir) as here, pytest.raises(CannotRun, match="the recorder of writes is gone"):
        record(here, ends_the_recorder)
    assert_nothing_left(workdir)


@pytest.mark.deep
def test_a_drawn_run(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with place(workdir) as here:
        done = ref_power.run(here, 300, seed=3)
    assert done.found is None, shown(done.found)
    assert (done.images, done.divergences) == (300, 0)
    assert set(images.HOWS) <= set(done.hows)
    assert len(done.during) > 6
    with capsys.disabled():
        print(f"\n{done.text()}; {done.crowded} histories overlapped too much to be judged")
