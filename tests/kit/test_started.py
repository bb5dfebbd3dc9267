"""A driver that the kit starts for a run: it serves inside, it is gone afterwards, and what it said is told when it does not."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import served

from snapspec.conformance.durable import process
from snapspec.conformance.durable.process import Process
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.plan import Plan
from snapspec.conformance.run import execute
from snapspec.conformance.started import driver_started
from snapspec.conformance.subjects.address import parse, require_process
from snapspec.conformance.workspace import default_base

SUBJECT = "plugin:{dir}/x.sock?usage=copy"
START = shlex.join(served.command("ref:copy", Path("{dir}/x.sock"), Path("{dir}/root")))


@pytest.fixture(autouse=True)
def _the_same_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", served.environment()["PYTHONPATH"])


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def left() -> list[Path]:
    """Run directories that are still there."""
    return sorted(default_base().glob("run-*"))


def test_a_driver_serves_a_run_and_is_gone_with_it() -> None:
    before = left()
    with driver_started(SUBJECT, START) as started:
        pid = started.process.pid
        assert parse(started.subject).place.endswith("/driver-1/x.sock")
        run = execute([Plan("smoke", started.subject)], lambda _: None)
        assert (run.trouble, run.fault, run.finding) == ("", "", None)
        assert run.calls > 3
        assert started.ended() == ""
        assert started.last_lines()[0].startswith("serves ref:copy on ")
        with pytest.raises(CannotRun, match=r"somebody serves .* already"), driver_started(started.subject, "sleep 600"):
            pass
        assert lives(pid)
    assert not lives(pid)
    assert left() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_however_the_run_ends(error: type[BaseException]) -> None:
    before, pids = left(), []

    def run() -> None:
        with driver_started(SUBJECT, listener()) as started:
            pids.append(started.process.pid)
            assert lives(pids[0])
            raise error

    with pytest.raises(error):
        run()
    assert not lives(pids[0])
    assert left() == before


def listener(more: str = "") -> str:
    """A command that takes connections on {dir}/x.sock, and does no more."""
    code = f"import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); {more}time.sleep(600)"
    return shlex.join([sys.executable, "-I", "-S", "-c", code, "{dir}/x.sock"])


def test_it_is_ended_by_its_command(workdir: Path) -> None:
    """The command gets the directory of the run, and SIGTERM is not sent."""
    more = f"import signal; signal.signal(signal.SIGTERM, lambda *_: open({str(workdir / 'term')!r}, 'w')); "
    stop = f"sh -c 'test -S {{dir}}/x.sock && touch {workdir}/stop && read pid < {workdir}/pid && kill -INT $pid'"
    with driver_started(SUBJECT, listener(more), stop) as started:
        pid = started.process.pid
        (workdir / "pid").write_text(f"{pid}\n")
    assert not lives(pid)
    assert sorted(path.name for path in workdir.iterdir()) == ["pid", "stop"]


def test_one_whose_command_fails_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.2)
    said = r'the command "sh -c .*" ends with status 3, and the driver goes on: no such driver; correct it'
    before, stop = left(), "sh -c 'echo no such driver; exit 3'"
    with pytest.raises(CannotRun, match=said), driver_started(SUBJECT, listener(), stop) as started:
        pid = started.process.pid
    assert not lives(pid)
    assert left() == before


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("sh -c 'echo one; echo the disk {dir} is full >&2; exit 3'", "by itself: one / the disk .*driver-1 is full; mend"),
        ("sh -c 'exit 3 # {dir}'", "it has ended by itself: it has written nothing; mend the command"),
        ("sh -c 'echo waiting; exec sleep 600 # {dir}'", "it does not within 0.3 s: waiting; mend the command or the address"),
        ("/absent/driver {dir}", "names no program that is here"),
        ("sleep 600", "write it in --start and at the beginning"),
    ],
)
def test_one_that_does_not_serve_is_told_with_its_last_words(start: str, said: str) -> None:
    before = left()
    with pytest.raises(CannotRun, match=said), driver_started(SUBJECT, start, deadline=0.3):
        pass
    assert left() == before


def test_only_a_driver_behind_a_socket_is_started() -> None:
    with pytest.raises(CannotRun, match="the kit starts model: by itself"), driver_started("model:", "sleep 600"):
        pass


@pytest.mark.root
def test_what_it_has_mounted_in_its_directory_goes(workdir: Path) -> None:
    start = f"sh -c {shlex.quote('mkdir {dir}/m && mount -t tmpfs none {dir}/m && exec ' + listener())}"
    before = left()
    with driver_started(SUBJECT, start) as started:
        here = Path(parse(started.subject).place).parent
        assert os.path.ismount(here / "m")
    assert left() == before


def test_it_goes_with_the_kit_even_by_sigkill(workdir: Path) -> None:
    code = (
        "import sys, time; from snapspec.conformance.started import driver_started\n"
        "with driver_started(*sys.argv[1:3]) as started: print(started.process.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, SUBJECT, listener()]
    environment = {**os.environ, "TMPDIR": str(workdir)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as kit:
        assert kit.stdout is not None
        pid = int(kit.stdout.readline())
        assert lives(pid)
        kit.send_signal(signal.SIGKILL)
        kit.wait()
    until = time.monotonic() + 20
    while lives(pid):
        assert time.monotonic() < until, "it is still there"
        time.sleep(0.01)


# --- at level durable: commands in place of signals


def marked(workdir: Path) -> Process:
    """A process that can be told to end by commands of its own, each leaving a file of its name."""
    stop, kill = ((f"sh -c 'touch {workdir}/{name}; kill -INT $(cat {workdir}/pid)'") for name in ("stop", "kill"))
    made = Process(("sleep", "600"), workdir / "log", shlex.split(stop), shlex.split(kill))
    made.start()
    (workdir / "pid").write_text(str(made.pid))
    return made


@pytest.mark.parametrize(("kill", "name"), [(False, "stop"), (True, "kill")])
def test_the_commands_end_it_in_place_of_signals(kill: bool, name: str, workdir: Path) -> None:
    made = marked(workdir)
    pid = made.pid
    made.end(kill)
    assert not lives(pid)
    assert {path.name for path in workdir.iterdir()} - {"pid", "log"} == {name}


def test_one_that_has_ended_already_is_told_nothing(workdir: Path) -> None:
    made = Process(("true",), workdir / "log", ("false",), ("false",))
    made.start()
    while not made.ended():
        time.sleep(0.01)
    made.end(kill=False)
    assert made.pid == 0


def test_a_command_that_does_not_end_is_ended(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.2)
    made = Process(("sleep", "600"), workdir / "log", kill=("sh", "-c", f"echo $$ > {workdir}/pid; exec sleep 600"))
    made.start()
    pid = made.pid
    with pytest.raises(CannotRun, match=r"does not end in 0\.2 s, and the driver goes on"):
        made.end(kill=True)
    assert not lives(pid)
    assert not lives(int((workdir / "pid").read_text()))


@pytest.mark.deep
@pytest.mark.parametrize("kill", [False, True])
def test_a_check_at_level_durable_ends_the_driver_by_commands(kill: bool, workdir: Path) -> None:
    start = f"sh -c {shlex.quote('echo $$ > {dir}/pid; exec ' + START)}"
    stop, killed = (f"sh -c 'echo x >> {workdir}/{name}; kill -{name} $(cat {{dir}}/pid)'" for name in ("TERM", "KILL"))
    require_process(parse(SUBJECT), start, kill)
    plan = Plan("check", SUBJECT, budget=8.0, examples=5, level="durable", start=start, kill=kill, stop=stop, kill_command=killed)
    run = execute([plan], lambda _: None)
    assert (run.trouble, run.fault, run.finding) == ("", "", None)
    assert run.restarts > 3
    used = {path.name: len(path.read_text().split()) for path in workdir.iterdir()}
    assert used["KILL" if kill else "TERM"] >= run.restarts
