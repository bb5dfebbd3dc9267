"""The manager of refs in a process that is killed: what is made, how it is judged, and that nothing is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from killed_refs import killed
from test_cli import refused, snapspec
from test_durable_process import lives, wait
from test_power import left
from verdicts import nothing_wrong

from snapspec.conformance.draw import Limits
from snapspec.conformance.durable import ref_kills
from snapspec.conformance.durable.ref_kill import RefKillSession, make_often, make_once, make_surely
from snapspec.conformance.durable.ref_kills import RefKillSearch, draw_burst, scenarios, untangled
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.files import permits
from snapspec.conformance.history import load, save
from snapspec.conformance.ref_history import Burst, RefFinding, decode_ref_finding, encode_ref_finding, length
from snapspec.conformance.ref_session import RefDivergence
from snapspec.conformance.report.text import finding_lines
from snapspec.conformance.subjects.address import parse, require_process
from snapspec.model import ref_ops
from snapspec.model.frozen import Map
from snapspec.model.linear import TooManyStates
from snapspec.model.ref_ops import RefOperation
from snapspec.model.refs import Handle, Record, RefState
from snapspec.model.replies import Mismatch
from snapspec.model.tree import MakeFile

pytestmark = pytest.mark.root

FILE = (MakeFile("f", b"x" * 600),)
PAIR: tuple[RefOperation, ...] = (ref_ops.New("m", "hm"), ref_ops.Write("hm", FILE), ref_ops.Commit("hm", "e", "he"))
USAGE = ref_ops.DiskUsage()
HERE = Limits(frozenset())


def one_by_one(*ops: RefOperation) -> list[Burst]:
    return [Burst((op,)) for op in ops]


def shown(found: RefFinding | None) -> str:
    return "" if found is None else "\n".join(finding_lines(found))


def lines(session: RefKillSession) -> str:
    return "\n".join(session.told())


# --- one history


@pytest.mark.parametrize("driver", ["overlay", "copy"])
def test_what_was_answered_is_there_after_a_kill(driver: str, workdir: Path) -> None:
    bursts = [*one_by_one(*PAIR, ref_ops.Finalize("he"), ref_ops.Size("he")), Burst((USAGE,), kill=0)]
    with killed(workdir, driver) as session:
        found = make_once(session, [*bursts, *one_by_one(ref_ops.Size("he"), ref_ops.Get("e", "hg", "x"), ref_ops.Size("hg"))])
        assert found is None, shown(found)
        text = lines(session)
        assert (session.restarts, session.histories) == (1, 1)
    assert "the process dies" in text
    assert "size('he') -> Invalid" in text, "a handle does not survive"
    assert "read('look 1') -> 1 entries" in text
    assert {"REF-OPEN-1", "REF-OPEN-5", "REF-LEAK-1", "SNAP-LIVE-1"} <= session.reached.keys()
    assert left(workdir) == []


def test_calls_that_are_cut_short_are_counted_and_have_happened_or_not(workdir: Path) -> None:
    makes = Burst((ref_ops.New("m", "hm"), ref_ops.New("n", "hn"), USAGE), kill=0)
    with killed(workdir) as session:
        assert make_once(session, [makes]) is None
        assert sum(session.cut.values()) > 0
        assert session.cut.keys() <= {"new", "diskusage"}
        late = replace(makes, kill=300_000)
        before = session.cut.total()
        assert make_once(session, [late]) is None
        assert session.cut.total() == before, "all have answered by then"
        assert {"r1"}.isdisjoint(session.state.records)


def test_a_manager_that_is_closed_and_one_that_is_opened_again_are_killed_too(workdir: Path) -> None:
    with killed(workdir) as session:
        bursts = [
            *one_by_one(*PAIR, ref_ops.Close()),
            Burst((ref_ops.Size("he"),), kill=0),
            *one_by_one(ref_ops.Restart(), USAGE),
        ]
        found = make_once(session, bursts)
        assert found is None, shown(found)


def test_a_list_that_was_given_shows_what_it_showed_until_its_process_dies(workdir: Path) -> None:
    ops = (*PAIR, ref_ops.Mount("he", readonly=False), ref_ops.Read("he"), ref_ops.Write("he", (MakeFile("g"),)))
    with killed(workdir, "overlay") as session:
        assert make_once(session, [*one_by_one(*ops), Burst((ref_ops.Read("he"),), kill=5_000)]) is None
        assert "-> EROFS" in lines(session)


# --- what is wrong is found


def test_a_process_that_ends_by_itself_is_a_finding(workdir: Path) -> None:
    with killed(workdir) as session:
        session.begin()
        session.runner.run(session.subject.kill())
        with pytest.raises(RefDivergence, match="SNAP-LIVE-1"):
            session.make(Burst((ref_ops.New("m", "hm"),)))
        session.clear()
        assert make_once(session, one_by_one(*PAIR)) is None, "another store is served"


def test_a_store_that_cannot_be_opened_again_is_a_finding(workdir: Path) -> None:
    with killed(workdir, "overlay") as session:
        session.begin()
        session.make(Burst((ref_ops.New("m", "hm"),)))
        for store in (workdir / "stores").iterdir():
            store.write_bytes(b"this is no store" * 512)
        with pytest.raises(RefDivergence) as diverged:
            session.make(Burst((USAGE,), kill=0))
        assert "restart() -> StoreError" in shown(diverged.value.finding)
        session.clear()
        session.begin()
        (workdir / "driver.1" / "pool.img").write_bytes(b"")
        with pytest.raises(RefDivergence, match="SNAP-LIVE-1") as diverged:
            session.make(Burst((USAGE,), kill=0))
        assert "no driver serves again" in shown(diverged.value.finding)
        session.clear()
        assert not session.over
    assert left(workdir) == []


# --- written and drawn histories


def test_each_call_is_cut_short_at_a_moment(workdir: Path) -> None:
    every = scenarios(HERE)
    assert len(every) % len(ref_kills._AFTER) == 0
    with killed(workdir, "overlay") as session:
        for bursts in every[: len(every) // len(ref_kills._AFTER)]:
            found = make_once(session, bursts)
            assert found is None, shown(found)
        assert len(session.cut) > 4, session.cut
    assert left(workdir) == []


def test_what_is_left_out_is_in_no_written_history() -> None:
    calls = {
        type(op) for bursts in scenarios(Limits(frozenset(), frozenset({"prune", "get_mutable"}))) for b in bursts for op in b.ops
    }
    assert not calls & {ref_ops.Prune, ref_ops.GetMutable}
    assert ref_ops.Finalize in calls


@pytest.mark.deep
@pytest.mark.parametrize("driver", ["overlay", "copy"])
def test_drawn_histories(driver: str, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn, crowded = random.Random(driver), 0
    with killed(workdir, driver) as session:
        limits = Limits(permits(str(workdir)))
        while session.restarts < 120:
            session.begin()
            try:
                for _ in range(drawn.randint(1, 10)):
                    session.make(draw_burst(drawn.choice, session, limits))
                session.end()
            except TooManyStates:
                crowded += 1
                session.clear()
        with capsys.disabled():
            print(f"\n{driver}: {session.histories} histories, {session.restarts} kills, {session.calls} calls; {session.cut}")
        assert crowded < session.histories / 4
        assert len(session.cut) > 3
    assert left(workdir) == []


def test_a_drawn_run_ends_in_time_and_draws_no_tangle(workdir: Path) -> None:
    with killed(workdir) as session:
        search = RefKillSearch(session, Limits(permits(str(workdir))), time.monotonic() + 3, lambda: None)
        search.run_batch(1, 1)
        assert (search.best, session.histories > 0) == (None, True)


def test_calls_are_drawn_that_something_is_promised_about() -> None:
    records = Map({"m": Record(mutable=True, equal="e"), "e": Record(mutable=False, equal="m"), "o": Record(mutable=True)})
    handles = Map({"he": Handle("e", mutable=False), "ho": Handle("o", mutable=True)})
    state = RefState(records, handles)
    read, write, release = ref_ops.Read("he"), ref_ops.Write("ho", FILE), ref_ops.Release("he")
    assert untangled(state, [read, write, USAGE, ref_ops.Finalize("he")]) == [read, write, USAGE, ref_ops.Finalize("he")]
    assert untangled(state, [read, release]) == [read]
    assert untangled(state, [release, read]) == [release]
    assert untangled(state, [write, ref_ops.Commit("ho", "x", "hx"), ref_ops.Size("ho"), ref_ops.Mount("ho", readonly=True)]) == [
        write,
        ref_ops.Mount("ho", readonly=True),
    ]
    assert untangled(state, [ref_ops.Close(), read, release]) == [ref_ops.Close(), release]


# --- again


def test_a_finding_keeps_the_moments_of_its_kills(tmp_path: Path) -> None:
    bursts = (Burst((USAGE,)), Burst((USAGE, ref_ops.Prune()), kill=250))
    found = RefFinding(bursts, ("told",), (Mismatch("REF-OPEN-5", "", ""),), free=True)
    assert decode_ref_finding(encode_ref_finding(found)) == found
    assert length(bursts) == 4
    save(tmp_path / "f.json", found, "refs:copy")
    assert load(tmp_path / "f.json") == found
    wrong = encode_ref_finding(found)
    wrong["bursts"][1]["kill"] = "soon"
    with pytest.raises(CannotRun, match="no moment of a history"):
        decode_ref_finding(wrong)


def test_what_a_moment_decides_is_made_often_and_only_what_shows_again_is_sure(workdir: Path) -> None:
    viewed = one_by_one(*PAIR, ref_ops.Mount("he", readonly=False))
    with killed(workdir, opens=("broken_durable_refs", "VIEW_UNNOTED.open")) as session:
        for make in (make_often, make_surely):
            found = make(session, [*viewed, Burst((USAGE,), kill=0)])
            assert found is not None
            assert found.clause == "REF-OPEN-5"
            assert make(session, viewed) is None
        assert session.histories == 1 + 1 + 2 + 2


# --- from the command line


def test_the_command_kills_and_counts(tmp_path: Path) -> None:
    run = snapspec("check", "refs:copy", "--level", "durable", "--kill", "--jobs", "1", "--budget", "3s", "--out", str(tmp_path))
    words = nothing_wrong(run).split()
    assert "in a process that is killed" in run.stdout
    assert int(words[words.index("restarts,") - 1]) > 1


@pytest.mark.parametrize(
    ("text", "start", "said"),
    [
        ("refs:model:", "", "level durable is for refs:overlay and refs:copy"),
        ("refs:containerd:/run/x.sock?snapshotter=native", "true", "level durable is for refs:overlay and refs:copy"),
        ("refs:py:a.b:c", "", "level durable is for refs:overlay and refs:copy"),
        ("refs:overlay", "true", "leave --start out"),
    ],
)
def test_other_subjects_are_refused_in_one_sentence(text: str, start: str, said: str) -> None:
    with pytest.raises(CannotRun, match=said):
        require_process(parse(text), start, kill=True)


def test_the_command_refuses_them() -> None:
    assert "has no process of its own to end" in refused("check", "refs:model:", "--level", "durable", "--kill")


# --- no process stays


def test_all_processes_go_with_the_kit_however_that_ends(workdir: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from killed_refs import killed\n"
        "with killed(Path(sys.argv[1])) as session: print(session.subject._forks.process.pid, flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    with subprocess.Popen([sys.executable, "-c", code, str(workdir)], env=environment, stdout=subprocess.PIPE, text=True) as kit:
        assert kit.stdout is not None
        forks = int(kit.stdout.readline())
        others = [int(child) for child in Path(f"/proc/{forks}/task/{forks}/children").read_text().split()]
        assert len(others) == 1
        kit.send_signal(signal.SIGKILL)
        kit.wait()
    wait(lambda: not any(lives(pid) for pid in (forks, *others)))
