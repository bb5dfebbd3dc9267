"""Level durable: the driver ends in the midst of histories, and what it then loses, or leaves in the way, is found."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_cli import refused
from verdicts import nothing_wrong, saved

from snapspec.conformance.contents import Contents
from snapspec.conformance.draw import Limits
from snapspec.conformance.durable import Restart
from snapspec.conformance.durable.process import Process
from snapspec.conformance.durable.reference import KilledReference
from snapspec.conformance.durable.restart import RestartSession, replay_often
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.files import permits
from snapspec.conformance.history import Finding, Step, call_text, decode_finding, encode_finding, line, load, save
from snapspec.conformance.owed import owed
from snapspec.conformance.search import Search, scenario, simpler
from snapspec.conformance.subjects.address import parse, require_process
from snapspec.conformance.subjects.reference import Ground
from snapspec.impl.mounts import mountpoints_below
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Mismatch, Returned
from snapspec.model.state import Profile
from snapspec.model.tree import MakeFile

PROGRAM = Path(__file__).with_name("broken_plugin.py")

POOL = Ground("overlay", True, False, "a pool")
PLAIN = Ground("overlay", False, False, "a plain directory")

#: Drivers of `broken_plugin.py`, each with a clause that its finding names.
BROKEN = {
    "memory-ahead": "SNAP-WALK-1",
    "staging-left": "SNAP-PREPARE-6",
    "view-left": "SNAP-WALK-1",
    "commit-in-two": "SNAP-KIND-1",
}


class Broken(KilledReference):
    """A driver of `broken_plugin.py`, named by its variant, in a process as the reference's own."""

    def _on(self, directory: Path) -> Process:
        return Process((sys.executable, str(PROGRAM), str(directory), self.name), directory.with_suffix(".log"))


@contextmanager
def opened(kind: type[KilledReference], name: str, directory: Path, ground: Ground = PLAIN) -> Iterator[RestartSession]:
    """A session with a driver whose process is killed."""
    for place in ("mnt", "store"):
        (directory / place).mkdir(parents=True)
    subject = kind(name, Contents(directory / "mnt"), directory / "store", ground, 64 << 20, "ext4")
    with asyncio.Runner() as runner:
        session = RestartSession(subject, runner)
        with session.started():
            yield session


def search(session: RestartSession, directory: Path, seconds: float = 60.0) -> Search:
    return Search(session, Limits(permits(str(directory))), time.monotonic() + seconds, lambda: None, first=True)


# --- what is broken


@pytest.mark.root
@pytest.mark.parametrize(("name", "clause"), BROKEN.items())
def test_what_a_kill_shows_is_found(name: str, clause: str, workdir: Path) -> None:
    with opened(Broken, name, workdir) as session:
        seeking = search(session, workdir)
        for _ in range(3):  # each time it takes a moment of some milliseconds, which a busy machine may miss
            seeking.run_scenarios()
        assert seeking.best is not None, f"{name} was not found in {session.restarts} restarts"
        clauses = [mismatch.clause for mismatch in seeking.best.mismatches]
        assert clause in clauses
        assert any(shown.startswith("SNAP-DURABLE-") for shown in clauses)


@pytest.mark.deep
@pytest.mark.root
@pytest.mark.parametrize(("name", "clause"), BROKEN.items())
def test_what_is_found_is_made_short_and_replays(name: str, clause: str, workdir: Path) -> None:
    with opened(Broken, name, workdir / "broken") as session:
        seeking = search(session, workdir)
        seeking.run_scenarios()
        seeking.settle()
        finding = seeking.best
        assert finding is not None
        print(name, *map(line, finding.calls), sep="\n   ")
        assert clause in [mismatch.clause for mismatch in finding.mismatches]
        assert len(finding.calls) <= 4
        assert isinstance(finding.calls[-2].op, Restart), "what is wrong shows right after the restart"
        save(workdir / "f.json", finding, "ref:overlay")
        saved = load(workdir / "f.json")
        assert saved == finding
        assert isinstance(saved, Finding)
        session.aside = frozenset()  # what was found is looked for again
        again = replay_often(session, saved.steps)
        assert again is not None
        assert again.clause == finding.clause
    with opened(KilledReference, "ref:overlay", workdir / "right") as session:
        assert replay_often(session, saved.steps) is None


@pytest.mark.deep
@pytest.mark.root
def test_drawn_histories_find_it_too(workdir: Path) -> None:
    with opened(Broken, "memory-ahead", workdir) as session:
        seeking = search(session, workdir)
        seeking.run_batch(25, 1)
        assert seeking.best is not None
        assert any(isinstance(step.op, Restart) and step.op.kill for step in seeking.best.steps)


# --- what is right


CUT: tuple[Operation, ...] = (
    ops.Prepare("a"),
    ops.Write("a", (MakeFile("f", b"never synced"),)),
    Restart(kill=True, during=(ops.Commit("b", "a"), ops.Prepare("a"), ops.View("v", "b")), after=2_000),
    ops.Commit("b", "a"),
    Restart(kill=True, during=(ops.Remove("v"), ops.Remove("b")), after=1_000),
)


@pytest.mark.root
@pytest.mark.parametrize("ground", [POOL, PLAIN, Ground("copy", False, False, "copies")])
def test_the_reference_is_killed_and_loses_nothing(ground: Ground, workdir: Path) -> None:
    """On a pool too, which the next process takes over as it was left; in the end nothing is mounted, and no process is left."""
    with opened(KilledReference, "ref:overlay", workdir, ground) as session:
        assert session.shows(scenario(session, iter(CUT))) is None
        pid = session.subject.process.pid
        assert (session.restarts, session.histories) == (2, 1)
        assert session.reached["SNAP-DURABLE-1"] > 0
        assert pid
    assert mountpoints_below(str(workdir)) == []
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.root
def test_a_process_that_does_not_come_up_again_is_a_finding(workdir: Path) -> None:
    with opened(KilledReference, "ref:overlay", workdir) as session:
        session.begin()
        session.subject.process.words = ("sh", "-c", "echo the store is damaged")
        found = session.shows(scenario(session, iter([Restart(kill=True)])))
        assert found is not None
        assert found.clause == "SNAP-LIVE-1"
        assert "the store is damaged" in found.mismatches[0].came
        assert session.stuck, "there is nothing to clear up on: the kit's process then simply ends"
        session.subject.process.end(kill=True)


@pytest.mark.deep
@pytest.mark.root
def test_the_reference_is_killed_for_a_minute(workdir: Path) -> None:
    run = check(workdir, "ref:overlay", "--seed", "5", "--budget", "60s", "--examples", "10000")
    nothing_wrong(run)
    assert int(run.stdout.rpartition(" restarts")[0].rpartition(" ")[2]) > 50


# --- the command


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`snapspec`, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "snapspec.conformance", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROGRAM.parent), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        timeout=300,
    )


def check(workdir: Path, subject: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command("check", subject, "--level", "durable", "--out", str(workdir / "report"), *arguments)


def plugin(variant: str) -> str:
    """The command that starts a plugin on a store of the run."""
    return f"{sys.executable} {PROGRAM} {{dir}}/store {variant} {{dir}}/s"


@pytest.mark.root
@pytest.mark.parametrize("how", [["--kill"], pytest.param(["--jobs", "2"], marks=pytest.mark.deep)])
def test_a_right_plugin_conforms(how: list[str], workdir: Path) -> None:
    run = check(workdir, "plugin:{dir}/s", "--start", plugin("right"), *how, "--seed", "1", "--budget", "1s")
    nothing_wrong(run)
    assert " restarts, " in run.stdout


@pytest.mark.deep
@pytest.mark.root
def test_a_broken_plugin_is_found_by_the_command_and_replays(workdir: Path) -> None:
    run = check(workdir, "plugin:{dir}/s", "--start", plugin("staging-left"), "--kill", "--seed", "1", "--first")
    assert (run.returncode, run.stderr) == (1, ""), run.stdout
    assert "DIVERGES from SNAP-PREPARE-6, with 2 calls" in run.stdout
    assert "kill(during=[prepare('b')" in run.stdout
    file = saved(workdir / "report")
    assert json.loads(file.read_text())["steps"][0]["op"]["is"] == "durable.Restart"
    again = command("replay", str(file), "plugin:{dir}/s", "--start", plugin("staging-left"))
    assert again.returncode == 1, again.stderr
    assert "DIVERGES from SNAP-PREPARE-6" in again.stdout
    right = command("replay", str(file), "ref:overlay")
    assert (right.returncode, right.stderr) == (0, "")


@pytest.mark.root
def test_a_server_that_somebody_else_has_started_is_left_alone(workdir: Path) -> None:
    """It is not taken for the kit's own, and not ended."""
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(str(workdir / "s"))
        served.listen()
        run = check(workdir, f"plugin:{workdir}/s", "--start", "sleep 600", "--kill")
        assert run.returncode == 2
        assert "somebody serves" in run.stderr


@pytest.mark.root
def test_a_command_that_does_not_serve_says_why(workdir: Path) -> None:
    run = check(workdir, f"plugin:{workdir}/s", "--start", "sh -c 'echo no such option'")
    assert run.returncode == 2
    assert "it has ended by itself: no such option; mend the command or the address" in run.stderr


@pytest.mark.parametrize(
    ("subject", "start", "kill", "said"),
    [
        ("plugin:/x/s", "", False, "say how it is started, with --start"),
        ("containerd:/x/s?snapshotter=overlayfs", "", True, "say how it is started, with --start"),
        ("ref:overlay", "sleep 1", False, "leave --start and --kill out"),
        ("model:", "", False, "has no process of its own"),
        ("refs:model:", "", False, "has no process of its own"),
        ("plugin:/x/s", "/absent/driver", False, "names no program"),
        ("plugin:/x/s", "sleep {dir}", False, "stands for one directory"),
        ("plugin:{dir}/s", "sleep 1", False, "stands for one directory"),
    ],
)
def test_what_is_missing_is_said(subject: str, start: str, kill: bool, said: str) -> None:
    with pytest.raises(CannotRun, match=said):
        require_process(parse(subject), start, kill)


def test_the_command_says_it_in_one_sentence() -> None:
    assert "with --start" in refused("check", "plugin:/x/s", "--level", "durable")
    assert "does not serve /x/s" in refused("check", "plugin:/x/s", "--start", "sleep 1")


def test_a_history_with_a_restart_is_replayed_where_there_is_a_process_only(workdir: Path) -> None:
    save(workdir / "f.json", HISTORY, "plugin:/x/s")
    assert "has no process of its own" in refused("replay", str(workdir / "f.json"), "model:")


def test_the_level_owes_what_it_promises() -> None:
    plain, ended, cut = (owed(Profile(), promise=promise) for promise in ("", "SNAP-DURABLE-", "SNAP-POWER-"))
    assert [clause for clause in ended if clause not in plain] == ["SNAP-DURABLE-1", "SNAP-DURABLE-2", "SNAP-DURABLE-3"]
    assert cut == [f"SNAP-POWER-{number}" for number in range(1, 6)]


# --- in words, in a file, made simpler

RESTART = Restart(kill=True, during=(ops.Commit("b", "a", (("k", "1"),)), ops.Remove("c")), after=1_500)
HISTORY = Finding((Step(RESTART, Returned(("no answer", "done"))),), (Mismatch("SNAP-DURABLE-2", "", ""),))


def test_a_restart_is_a_step_of_a_history() -> None:
    assert (
        line(HISTORY.steps[0]) == "kill(during=[commit('b', 'a', labels={'k': '1'}), remove('c')], after=1500) -> no answer, done"
    )
    assert call_text(Restart()) == "stop()"
    assert decode_finding(json.loads(json.dumps(encode_finding(HISTORY)))) == HISTORY


@pytest.mark.parametrize("wrong", [{"kill": 1}, {"after": "soon"}, {"during": [{"is": "ops.Reopen"}]}, {"during": [1]}, {"x": 1}])
def test_a_step_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    document = json.loads(json.dumps(encode_finding(HISTORY)))
    document["steps"][0]["op"] |= wrong
    with pytest.raises(CannotRun):
        decode_finding(document)


def test_a_restart_is_made_simpler() -> None:
    simple = list(simpler(RESTART))
    assert Restart(kill=False, during=RESTART.during, after=1_500) in simple
    assert Restart(kill=True, during=RESTART.during) in simple
    assert Restart(kill=True, during=(ops.Remove("c"),), after=1_500) in simple
    assert Restart(kill=True, during=(ops.Commit("b", "a"), ops.Remove("c")), after=1_500) in simple
