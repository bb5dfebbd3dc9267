"""The driver's process: it is started and ended by the kit, goes with the kit, and no other process is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snapspec.conformance.durable import process
from snapspec.conformance.durable.process import Process, command
from snapspec.conformance.errors import CannotRun

#: Seconds for what takes a moment.
PATIENCE = 20.0


def lives(pid: int) -> bool:
    """Whether the process is there and not only waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait(until: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def number_in(file: Path) -> int:
    """The number that a process has written to the file."""
    wait(lambda: file.exists() and file.read_text().endswith("\n"))
    return int(file.read_text())


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """A process like those that the tests end, which is nobody's to end but ours."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        assert process.poll() is None, "a process that is not the kit's was ended"
        process.kill()


@pytest.mark.parametrize("kill", [False, True])
def test_a_process_and_its_group_are_ended_and_no_other(kill: bool, tmp_path: Path, neighbour: subprocess.Popen[bytes]) -> None:
    child = tmp_path / "child"
    made = Process(command(f"sh -c 'sleep 600 & echo $! > {child}; wait'"), tmp_path / "log")
    for _ in range(2):
        made.start()
        leader, other = made.pid, number_in(child)
        assert os.getpgid(leader) == os.getpgid(other) == leader
        assert lives(leader)
        assert made.ended() == ""
        made.end(kill)
        wait(lambda pid=other: not lives(pid))
        assert not lives(leader)
        child.unlink()
    made.end(kill)  # nothing runs


def test_one_that_does_not_obey_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.2)
    made = Process(("sh", "-c", f"trap '' TERM; echo 1 > {tmp_path}/ready; while :; do sleep 0.05; done"), tmp_path / "log")
    made.start()
    pid = made.pid
    number_in(tmp_path / "ready")
    made.end(kill=False)
    assert not lives(pid)


def test_one_that_is_told_to_end_can_do_so_in_its_own_way(tmp_path: Path) -> None:
    made = Process(
        ("sh", "-c", f"trap 'echo 2 > {tmp_path}/undone; exit' TERM; echo 1 > {tmp_path}/ready; sleep 600 & wait"),
        tmp_path / "log",
    )
    made.start()
    number_in(tmp_path / "ready")
    made.end(kill=False)
    assert number_in(tmp_path / "undone") == 2


def test_the_last_words_of_one_that_ends_by_itself_are_told(tmp_path: Path) -> None:
    made = Process(("sh", "-c", "echo first; echo the disk is full >&2; exit 3"), tmp_path / "log")
    made.start()
    wait(made.ended)
    assert made.ended() == "it has ended by itself: the disk is full"
    made.end(kill=True)
    made.start()
    wait(made.ended)
    made.end(kill=False)


def test_the_end_comes_after_the_time_that_was_drawn(tmp_path: Path) -> None:
    made = Process(("sleep", "600"), tmp_path / "log")
    made.start()
    began = time.monotonic()
    made.end(kill=True, after=0.2)
    assert 0.2 <= time.monotonic() - began < 5


def test_it_goes_with_the_kit_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from snapspec.conformance.durable.process import Process\n"
        "made = Process(('sleep', '600'), Path(sys.argv[1])); made.start(); print(made.pid, flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log")], env=environment, stdout=subprocess.PIPE, text=True
    ) as kit:
        assert kit.stdout is not None
        pid = int(kit.stdout.readline())
        wait(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
        kit.send_signal(signal.SIGKILL)
        kit.wait()
    wait(lambda: not lives(pid))


@pytest.mark.parametrize(
    ("text", "said"), [("'", "correct its quotes"), ("", "names no program"), ("/absent/driver --x", "names no program")]
)
def test_a_command_that_cannot_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(CannotRun, match=said):
        command(text)
    assert command("sh -c 'a b'") == ("sh", "-c", "a b")
