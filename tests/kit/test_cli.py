"""What the command says and how it ends: the exit status, and one sentence with the remedy where it cannot run."""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import containerd as daemons
import pytest
from verdicts import nothing_wrong

from snapspec.conformance.cli import main

containerd = daemons.containerd


def snapspec(*arguments: str, path: str = "", timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if path:
        env["PATH"] = path
    command = [sys.executable, "-m", "snapspec.conformance", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)


def here(*arguments: str) -> tuple[int, str, str]:
    """The command in this process, which begins sooner: its status, and what it has printed."""
    with redirect_stdout(StringIO()) as said, redirect_stderr(StringIO()) as told:
        status = main(arguments)
    return status, said.getvalue(), told.getvalue()


def refused(*arguments: str, path: str = "") -> str:
    """The one sentence that says why the command cannot run."""
    if path:
        run = snapspec(*arguments, path=path)
        status, said, told = run.returncode, run.stdout, run.stderr
    else:
        status, said, told = here(*arguments)
    assert status == 2, said + told
    assert "Traceback" not in told
    (sentence,) = [line for line in told.splitlines() if not line.startswith("snapspec: note:")]
    assert sentence.startswith("snapspec: cannot run: ")
    return sentence


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "nothing"), "write one of ref:overlay"),
        (("check", "ref:native"), "write ref:overlay or ref:copy"),
        (("check", "ref:overlay?colour=red"), "it takes size, fs, plain"),
        (("check", "ref:overlay?fs=zfs"), "one of ext4, xfs, btrfs"),
        (("check", "ref:overlay?size=big"), "write a number with k, m or g"),
        (("check", "ref:overlay?size"), "of the form OPTION=VALUE"),
        (("check", "model:?usage=much"), "one of layer, copy, delta, opaque"),
        (("check", "containerd:/absent/c.sock?snapshotter=overlayfs"), "no socket"),
        (("check", "containerd:/absent/c.sock"), "add ?snapshotter=NAME"),
        (("check", "containerd:?snapshotter=overlayfs"), "names no socket"),
        (("smoke", "plugin:/absent/c.sock"), "no socket"),
        (("check", "py:absent_module:factory"), "set PYTHONPATH"),
        (("check", "py:json:absent"), "name a function"),
        (("check", "py:json"), "write py:package.module:factory"),
        (("check", "py:json:loads"), "mend it first"),
        (("check", "model:", "--examples", "0"), "no number of at least 1"),
        (("check", "model:", "--budget", "soon"), "write 90s, 5m or 1h"),
        (("check", "model:", "--level", "nope"), "invalid choice"),
        (("check", "model:", "--without", "prepare"), "cannot be left out"),
        (("check", "model:", "--out", "/dev/null"), "--out"),
        (("replay", "/absent/file", "model:"), "name a file that snapspec check has saved"),
        ((), "--help"),
        (("fly",), "invalid choice"),
    ],
)
def test_what_cannot_run_says_why(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(*arguments)


@pytest.mark.parametrize("text", ["", "garbage", "[]", '{"format": "another"}', '{"format": "snapspec history 1", "steps": [1]}'])
def test_a_file_that_is_no_history_is_refused(text: str, workdir: Path) -> None:
    file = workdir / "history.json"
    file.write_text(text)
    assert "snapspec check has saved" in refused("replay", str(file), "model:")


def test_what_is_no_server_is_refused(workdir: Path) -> None:
    plain = workdir / "plain"
    plain.touch()
    assert str(plain) in refused("check", f"containerd:{plain}?snapshotter=overlayfs")
    dead = workdir / "dead"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(dead))
    assert str(dead) in refused("check", f"containerd:{dead}?snapshotter=overlayfs")


@pytest.mark.root
def test_an_unknown_snapshotter_is_refused(containerd: daemons.Daemon) -> None:
    assert "plugins ls" in refused("check", f"containerd:{containerd.socket}?snapshotter=absent")


@pytest.mark.root
def test_a_pool_that_cannot_be_is_refused() -> None:
    assert "give" in refused("smoke", "ref:overlay?size=1m")


@pytest.mark.root
@pytest.mark.parametrize("subject", ["ref:overlay", "ref:copy", "ref:overlay?plain=yes", "model:", "containerd"])
def test_smoke_shows_its_calls_and_conforms(subject: str, request: pytest.FixtureRequest) -> None:
    if subject == "containerd":
        subject = f"containerd:{request.getfixturevalue('containerd').socket}?snapshotter=overlayfs"
    run = snapspec("smoke", subject)
    assert (run.returncode, run.stderr) == (0, "")
    for call in (
        "prepare('a')",
        "write('a'",
        "commit('b', 'a')",
        "view('c', parent='b')",
        "read('c') -> 2 entries",
        "remove('b')",
    ):
        assert call in run.stdout
    assert run.stdout.splitlines()[-1].startswith("CONFORMS")


def test_doctor_names_what_the_machine_permits() -> None:
    run = snapspec("doctor")
    assert run.returncode == 0
    for item in ("root", "loop devices", "overlay mounts", "user namespaces", "mkfs.ext4", "containerd", "so ref:overlay"):
        assert item in run.stdout


def test_a_budget_ends_a_run_and_what_ran_is_said() -> None:
    run = snapspec("check", "model:", "--budget", "1s", "--examples", "100000", "--seed", "1")
    histories = int(nothing_wrong(run).rsplit(": model:: ", 1)[1].split()[0])
    assert 2 < histories < 100000


def test_a_run_without_something_conforms_in_part() -> None:
    run = snapspec("check", "model:", "--without", "reopen,links", "--examples", "2", "--seed", "1", "--budget", "2s")
    nothing_wrong(run)
    assert "left out: reopen, links" in run.stdout
    assert not re.search("not put to the test.* SNAP-OPEN-1", run.stdout), "it was left out"


def test_a_terminal_is_shown_the_progress(workdir: Path) -> None:
    """And a pipe is not: see the empty standard error of the other tests."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-m", "snapspec.conformance", "check", "model:", "--budget", "3s", "--examples", "5000"]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # the other side is closed
                break
            if not chunk:
                break
            shown += chunk
    os.close(ours)
    assert process.returncode in (0, 2)
    for word in ("histories", "calls", "clauses", "s left"):
        assert word in shown.decode()
