"""Level faults: every point is seen, each fault comes where it is to, and the reference stands all of them."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_cli import refused
from test_run import command
from verdicts import nothing_wrong

from snapspec.conformance.contents import Contents
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.faults import Faulted, How
from snapspec.conformance.faults.leaks import entries, held, leaked, mount_of
from snapspec.conformance.faults.points import COMMIT, Canceled, Window, errors, watched
from snapspec.conformance.faults.real import befallen
from snapspec.conformance.faults.search import WRITTEN, every_fault, single_faults
from snapspec.conformance.faults.session import FaultSession
from snapspec.conformance.faults.subject import FaultedReference, into_memory, out_of_memory
from snapspec.conformance.history import call_text, decode_finding, encode_finding
from snapspec.conformance.subjects.address import parse, require_in_process
from snapspec.conformance.subjects.reference import Ground
from snapspec.impl import syscalls
from snapspec.impl.mounts import mountpoints_below
from snapspec.model import ops

pytestmark = pytest.mark.root

TRACED = Path(__file__).parent / "traced.py"


@contextmanager
def opened(directory: Path, driver: str = "overlay", *, pool: bool = False) -> Iterator[FaultSession]:
    for place in ("mnt", "store"):
        (directory / place).mkdir(parents=True)
    into_memory(directory / "store")
    ground = Ground(driver, pool, False, "as the test asks")
    with watched(), asyncio.Runner() as runner:
        subject = FaultedReference("ref:", Contents(directory / "mnt"), directory / "store", ground, 64 << 20, "ext4")
        session = FaultSession(subject, runner)
        with session.started():
            yield session


# --- every point is seen


#: What changes something, as strace names it.
CHANGES = re.compile(
    r"(mkdir|rmdir|rename|unlink|link|symlink|mknod|f?chmod|[fl]?chown|futimesat|utimens|l?f?setxattr|l?f?removexattr|p?writev?|pwrite64"
    r"|f?truncate|fallocate|f?sync|fdatasync|syncfs|mount|umount2|move_mount|fsmount|fsconfig|copy_file_range|sendfile|splice)(at)?2?$"
)
LINE = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed)(.*)")


def missed(trace: str) -> tuple[list[str], Counter[str]]:
    """The lines of a trace that change something in a call of the driver without a point, and all that did with one, counted."""
    programs = {line.split(" ", 1)[0] for line in trace.splitlines() if " execve(" in line}
    first = trace.split(" ", 1)[0]
    inside: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    wrong, window = [], False
    for line in trace.splitlines():
        found = LINE.match(line)
        if found is None or " resumed" in line:
            continue
        process, call, arguments = found.groups()
        if "/mark/" in arguments:
            word = arguments.partition("/mark/")[2].partition('"')[0]
            window = {"open": True, "close": False}.get(word, window)
            inside[process] += {"in": 1, "out": -1}.get(word, 0)
        elif window and _changes(call, arguments) and not (process in programs and process != first):
            counted[call] += 1
            if not inside[process]:
                wrong.append(line)
    return wrong, counted


def _changes(call: str, arguments: str) -> bool:
    if call in ("open", "openat"):
        return "O_CREAT" in arguments or "O_TRUNC" in arguments
    if call == "ioctl":
        return not any(looks in arguments for looks in ("TCGETS", "LOOP_GET_STATUS64"))
    return CHANGES.match(call) is not None and not arguments.startswith(("1,", "2,"))


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: apt-get install strace")
@pytest.mark.parametrize(("driver", "ground"), [("overlay", "pool"), ("copy", "plain")])
def test_no_system_call_that_changes_something_is_missed(driver: str, ground: str, workdir: Path) -> None:
    out = workdir / "trace"
    words = ["strace", "-f", "-qq", "-o", str(out), "-e", "trace=file,desc,mount,umount2,syncfs,fsync,fsconfig,fsmount,process"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([*words, sys.executable, str(TRACED), str(workdir), driver, ground], env=environment, check=False)
    assert done.returncode == 0
    wrong, counted = missed(out.read_text(errors="replace"))
    assert wrong == []
    assert {"mkdir", "chmod", "rename", "unlinkat", "pwrite64", "fsync", "syncfs"} <= set(counted), "the search would find some"
    assert sum(counted.values()) > 100


def test_a_call_without_a_point_is_missed() -> None:
    trace = (
        '10 execve("python") = 0\n10 mkdir("/before", 0700) = 0\n10 lstat("/mark/open", 0x1) = -1 ENOENT\n'
        '11 lstat("/mark/in", 0x1) = -1\n11 mkdir("/seen", 0700) = 0\n12 openat(AT_FDCWD, "/x", O_RDWR|O_CREAT, 0600) = 3\n'
        '12 pwrite64(3, "x" <unfinished ...>\n11 lstat("/mark/out", 0x1) = -1\n12 <... pwrite64 resumed>) = 1\n'
        '11 rmdir("/seen") = 0\n'
        '13 execve("e2fsck") = 0\n13 pwrite64(3, "x", 1) = 1\n10 lstat("/mark/close", 0x1) = -1 ENOENT\n10 rmdir("/after") = 0\n'
    )
    wrong, counted = missed(trace)
    assert [line.split(" ")[1].partition("(")[0] for line in wrong] == ["openat", "pwrite64", "rmdir"]
    assert counted == {"mkdir": 1, "openat": 1, "pwrite64": 1, "rmdir": 1}


# --- each fault comes where it is to


def run(window: Window, call: Callable[[], Awaitable[Any]]) -> Any:
    with watched():
        return asyncio.run(window.run(call))


def in_thread(job: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    return lambda: asyncio.to_thread(job)


def test_nothing_is_counted_outside_of_a_call(tmp_path: Path) -> None:
    window = Window()

    def job() -> None:
        os.mkdir(tmp_path / "a")

    with watched():
        asyncio.run(window.run(in_thread(job)))
        os.mkdir(tmp_path / "b")
        sqlite3.connect(tmp_path / "db").execute("CREATE TABLE t (x)").connection.close()
    assert window.seen == ["mkdir"]
    assert os.mkdir.__module__ == "posix", "all is as it was"


def test_a_fault_is_before_or_after_the_effect(tmp_path: Path) -> None:
    for how, made in ((How.BEFORE, False), (How.AFTER, True)):
        with pytest.raises(OSError, match="No space") as raised:
            run(Window(Faulted(how=how, at="mkdir", nth=3, error="ENOSPC")), in_thread(partial(_three, tmp_path / how.value)))
        assert raised.value.errno == errno.ENOSPC
        assert (tmp_path / how.value / "a").exists()
        assert (tmp_path / how.value / "a" / "b").exists() is made


def _three(place: Path) -> None:
    os.mkdir(place)
    os.makedirs(place / "a")
    os.mkdir(place / "a" / "b")


def test_a_file_that_is_opened_and_fails_is_no_leak(tmp_path: Path) -> None:
    before = held(tmp_path)
    for name in ("open", "write", "fsync"):
        for how in (How.BEFORE, How.AFTER):
            window = Window(Faulted(how=how, at=name, error="EIO"))
            with pytest.raises(OSError, match="Input/output"):
                run(window, in_thread(lambda: _written(tmp_path / "f")))
            assert window.fired
    assert leaked(tmp_path, before) == ""


def _written(path: Path) -> None:
    with open(path, "w") as file:
        file.write("x")
        file.flush()
        os.fsync(file.fileno())
    with path.open("ab") as binary:
        binary.write(b"y")


def test_files_are_written_as_ever(tmp_path: Path) -> None:
    window = Window()
    run(window, in_thread(lambda: _written(tmp_path / "f")))
    assert (tmp_path / "f").read_text() == "xy"
    assert window.seen == ["open", "write", "fsync", "open", "write"]


def test_system_calls_fail_as_those_of_c_do(workdir: Path) -> None:
    (workdir / "mnt").mkdir()

    def job() -> None:
        syscalls.mount("none", str(workdir / "mnt"), "tmpfs")

    with pytest.raises(OSError, match="mount tmpfs none") as raised:
        run(Window(Faulted(at="mount", error="EIO")), in_thread(job))
    assert raised.value.errno == errno.EIO
    assert mountpoints_below(str(workdir)) == []
    with pytest.raises(OSError, match="mount tmpfs none"):
        run(Window(Faulted(how=How.AFTER, at="mount", error="EIO")), in_thread(job))
    assert mountpoints_below(str(workdir)) == [str(workdir / "mnt")]
    syscalls.umount2(str(workdir / "mnt"))


def _transaction(path: Path) -> list[Any]:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("CREATE TABLE IF NOT EXISTS t (x)")
        db.execute("BEGIN")
        try:
            db.cursor().execute("INSERT INTO t VALUES (1)")
            db.execute("COMMIT")
        except sqlite3.Error as error:
            return [error.sqlite_errorcode, db.in_transaction, len(db.execute("SELECT * FROM t").fetchall())]
        return []
    finally:
        db.close()


@pytest.mark.parametrize(
    ("at", "how", "error", "left"),
    [
        (COMMIT, How.BEFORE, "ENOSPC", [sqlite3.SQLITE_FULL, True, 1]),
        (COMMIT, How.AFTER, "EIO", [sqlite3.SQLITE_IOERR, False, 1]),
        ("sqlite INSERT", How.BEFORE, "EIO", [sqlite3.SQLITE_IOERR, True, 0]),
        ("sqlite INSERT", How.AFTER, "EIO", [sqlite3.SQLITE_IOERR, True, 1]),
        ("sqlite BEGIN", How.CANCEL, "", []),
    ],
)
def test_a_statement_fails(at: str, how: How, error: str, left: list[Any], tmp_path: Path) -> None:
    window = Window(Faulted(how=how, at=at, error=error))
    try:
        assert run(window, in_thread(lambda: _transaction(tmp_path / "db"))) == left
    except Canceled:
        assert how is How.CANCEL
    assert window.fired
    assert window.seen[:4] == ["sqlite open", "sqlite CREATE", "sqlite BEGIN", "sqlite INSERT"]


def test_a_call_is_cancelled_while_the_point_waits(tmp_path: Path) -> None:
    heard: list[bool] = []

    async def call() -> None:
        try:
            await asyncio.to_thread(os.mkdir, tmp_path / "made")
        except asyncio.CancelledError:
            heard.append((tmp_path / "made").exists())
            raise

    with pytest.raises(Canceled):
        run(Window(Faulted(how=How.CANCEL, at="mkdir")), call)
    assert heard == [False], "before the effect"
    assert (tmp_path / "made").exists(), "what a thread has begun comes to its end"


def test_what_a_call_leaves_to_threads_and_tasks_belongs_to_it(tmp_path: Path) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def call() -> None:
        tasks.append(asyncio.create_task(asyncio.to_thread(os.mkdir, tmp_path / "late")))
        asyncio.get_running_loop().run_in_executor(None, os.mkdir, tmp_path / "later")

    window = Window()
    run(window, call)
    assert window.seen == ["mkdir", "mkdir"]


def test_a_point_may_be_given_by_its_number(tmp_path: Path) -> None:
    window = Window(Faulted(nth=2, error="EBUSY"), number=2)
    with pytest.raises(OSError, match="No space"):
        run(window, in_thread(lambda: _three(tmp_path / "x")))
    assert window.fault == Faulted(at="mkdir", nth=2, error="ENOSPC"), "with an error that a mkdir may have"


def test_single_faults_are_all_there_are() -> None:
    faults = list(single_faults(ops.Remove("a"), ["sqlite COMMIT", "rename", "rename"], (How.FULL,)))
    assert len(faults) == len(set(faults)) == 4 + 6 + 6 + 1
    assert [fault.text for fault in faults][:5] == [
        "ENOSPC before sqlite COMMIT",
        "EIO before sqlite COMMIT",
        "EIO after sqlite COMMIT",
        "cancelled at sqlite COMMIT",
        "ENOSPC before rename",
    ]
    assert faults[10].text == "ENOSPC before rename number 2"
    assert errors("umount2")[-1] == "EBUSY"


# --- for real


def test_a_file_system_is_full_to_the_last_block_and_free_again(workdir: Path) -> None:
    into_memory(workdir)
    free = os.statvfs(workdir).f_bavail
    with befallen(How.FULL, mount_of(str(workdir))):
        assert os.statvfs(workdir).f_bavail == 0
        with pytest.raises(OSError, match="No space"):
            (workdir / "file").write_bytes(b"x")
    (workdir / "file").unlink()
    assert os.statvfs(workdir).f_bavail == free
    assert os.listdir(workdir) == []
    out_of_memory(workdir)


def test_a_file_system_is_read_only_under_a_file_that_is_open(workdir: Path) -> None:
    into_memory(workdir)
    with open(workdir / "open", "wb", buffering=0) as file:
        with befallen(How.READ_ONLY, mount_of(str(workdir))):
            file.write(b"x")
            with pytest.raises(OSError, match="Read-only"):
                (workdir / "file").write_bytes(b"x")
        (workdir / "file").write_bytes(b"x")
    out_of_memory(workdir)


def test_what_is_left_in_a_directory_is_seen(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    before = entries(tmp_path)
    (tmp_path / "new" / "left").mkdir()
    (tmp_path / "records.db-wal").touch()
    (tmp_path / "new" / "left" / "file").touch()
    assert entries(tmp_path, {str(tmp_path / "new" / "left")}) - before == {"new": 1}
    assert entries(tmp_path) - before == {"new": 1, "new/left": 1}


def test_nothing_befalls_a_file_system_that_is_not_the_kits(workdir: Path) -> None:
    """A directory without a file system of its own stands on the machine's, and only a pool can be given up."""
    with opened(workdir) as session:
        session.begin()
        assert session.real() == (How.FULL, How.READ_ONLY)
        with pytest.raises(CannotRun, match="replay it on ref:overlay"):
            session.do(Faulted(call=ops.Prepare("a"), how=How.BROKEN))
        session._place = mount_of("/")
        assert session.real() == ()
        for how in (How.FULL, How.READ_ONLY):
            with pytest.raises(CannotRun, match="replay it on ref:overlay"):
                session.do(Faulted(call=ops.Prepare("a"), how=how))


# --- the reference


@pytest.mark.parametrize(
    ("driver", "pool", "history", "at"),
    [("overlay", True, 4, 4), ("overlay", False, 2, 3), pytest.param("copy", False, 0, 3, marks=pytest.mark.deep)],
)
def test_the_reference_stands_every_fault_of_a_call(driver: str, pool: bool, history: int, at: int, workdir: Path) -> None:
    """Of a cleanup with nothing to do, of a prepare over a layer, and of one that copies it."""
    with opened(workdir, driver, pool=pool) as session:
        before = session.disturbed.total()
        assert session.shows(every_fault(session, WRITTEN[history], at, lambda: True)) is None
        planned = list(single_faults(WRITTEN[history][at], session.seen, session.real()))
        assert before < session.disturbed.total()
        for how in {fault.how for fault in planned} | set(session.real()):
            assert any(f" {how.value} " in what for what in session.disturbed), how
        assert {"SNAP-FAULT-1", "SNAP-FAULT-2", "SNAP-FAULT-3", "SNAP-FAULT-4", "SNAP-FAULT-5"} <= set(session.reached)
    assert mountpoints_below(str(workdir)) == []


def test_a_pool_that_cannot_be_opened_again_is_opened_the_next_time(workdir: Path) -> None:
    with opened(workdir, pool=True) as session:
        session.begin()
        session.do(ops.Prepare("a"))
        session.do(ops.Reopen())
        assert {"umount2", "mount", "ioctl"} <= set(session.seen)
        for at in ("umount2", "mount", "sqlite PRAGMA"):
            answer = session.do(Faulted(call=ops.Reopen(), at=at, error="EIO"))
            assert "Input/output" in str(answer) or "disk I/O error" in str(answer)
        session.end()


def test_the_command_tells_its_numbers() -> None:
    done = command("check", "ref:overlay", "--level", "faults", "--budget", "3s", "--seed", "1", "--jobs", "1")
    verdict = nothing_wrong(done)
    assert re.search(r"fault points: .*prepare \d+", done.stdout)
    ways = r"disturbed: \d+ faults before the effect, \d+ faults after the effect, \d+ cancellations, \d+ with no room left"
    assert re.search(ways, done.stdout)
    assert re.search(r": ref:overlay: \d+ histories, \d+ calls, ", verdict)


@pytest.mark.deep
@pytest.mark.parametrize("subject", ["ref:overlay", "ref:overlay?fs=xfs", "ref:overlay?plain=yes", "ref:copy"])
def test_a_long_run_finds_nothing(subject: str) -> None:
    done = command("check", subject, "--level", "faults", "--budget", "40s", "--examples", "10000")
    nothing_wrong(done)


# --- in words, in a file


def test_a_fault_is_a_step_of_a_history() -> None:
    fault = Faulted(call=ops.Remove("a"), how=How.AFTER, at="rename", nth=2, error="EIO")
    assert call_text(fault) == "remove('a') [EIO after rename number 2]"
    assert call_text(Faulted(call=ops.Remove("a"), how=How.FULL)) == "remove('a') [no room left]"
    document = {
        "clause": "",
        "mismatches": [{"is": "replies.Mismatch", "clause": "SNAP-FAULT-1", "expected": "", "came": ""}],
        "steps": [{"op": {"is": "faults.Faulted"}, "answer": {"is": "replies.Returned"}, "space": 0, "check": False}],
    }
    found = decode_finding(document)
    again = decode_finding(encode_finding(found))
    assert again == found


@pytest.mark.parametrize("subject", ["containerd:/run/s?snapshotter=overlayfs", "plugin:/run/s"])
def test_what_cannot_be_made_to_fail_says_so(subject: str) -> None:
    with pytest.raises(CannotRun, match="level faults is for ref: and py:"):
        require_in_process(parse(subject))


def test_the_command_says_it_in_one_sentence() -> None:
    assert "level faults is for ref: and py:" in refused("check", "model:", "--level", "faults")
