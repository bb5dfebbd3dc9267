"""What the machine permits is found out by trying, and a run enters the best that it permits, or says why not."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from snapspec.conformance import doctor, machine
from snapspec.conformance.machine import Answer, Machine, survey

NOBODY = 65534

# Enters, and tells what came of it and what the process can do then.
ENTER = """
import json, os
from dataclasses import asdict
from snapspec.conformance.machine import enter
before = os.readlink("/proc/self/ns/mnt")
uid = os.geteuid()
found = asdict(enter())
print(json.dumps({**found, "moved": os.readlink("/proc/self/ns/mnt") != before, "became": [uid, os.geteuid()]}))
"""

# The same where the kernel refuses to make another user namespace: in one whose own limit is none.
REFUSED = """
from snapspec.impl.syscalls import enter_user_namespace
enter_user_namespace()
with open("/proc/sys/user/max_user_namespaces", "w") as limit:
    limit.write("0")
"""

SURVEY = """
import json
from dataclasses import asdict
from snapspec.conformance.machine import survey
print(json.dumps(asdict(survey())))
"""


@dataclasses.dataclass(frozen=True)
class Nobody:
    """A way to run Python as a user without rights."""

    python: str
    environment: dict[str, str]
    cwd: Path

    def run(self, code: str) -> Any:
        return told([self.python, "-c", code], user=NOBODY, group=NOBODY, extra_groups=[], env=self.environment, cwd=self.cwd)


def told(command: list[str], **how: Any) -> Any:
    """What a Python program printed as JSON."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False, **how)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture
def nobody(workdir: Path) -> Nobody:
    """Runs as a user who may read a copy of the rooms and write one directory. The Python of the tests may be for root alone."""
    for directory in (workdir.parent, workdir):
        directory.chmod(0o711)
    package, home = workdir / "lib" / "snapspec", workdir / "home"
    for room in ("impl", "model", "conformance"):
        source = Path(sys.modules[f"snapspec.{room}"].__path__[0])
        shutil.copytree(source, package / room, ignore=shutil.ignore_patterns("__pycache__", "*.md"))
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    environment = {"PATH": os.defpath, "PYTHONPATH": str(package.parent), "TMPDIR": str(home)}
    for python in (sys.executable, "/usr/bin/python3"):
        nobody = Nobody(python, environment, home)
        try:
            nobody.run("import sys, snapspec.conformance.machine; print(int(sys.version_info >= (3, 11)))")
        except (OSError, AssertionError):
            continue
        return nobody
    pytest.skip("needs a Python 3.11 that other users may start: install python3")


def test_tests_run_in_a_mount_namespace_of_their_own() -> None:
    """So do the threads that they start: a namespace belongs to a thread, not to a process."""
    if os.geteuid() != 0:
        pytest.skip("needs root: run the tests as root")

    def namespace() -> str:
        return os.readlink("/proc/thread-self/ns/mnt")

    seen = []
    thread = threading.Thread(target=lambda: seen.append(namespace()))
    thread.start()
    thread.join()
    seen.append(asyncio.run(asyncio.to_thread(namespace)))
    seen.append(os.readlink("/proc/self/ns/mnt"))
    assert seen == [namespace()] * 3
    assert namespace() != os.readlink(f"/proc/{os.getppid()}/ns/mnt")
    root = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split(" ")[4] == "/")
    assert "shared:" not in root


@pytest.mark.root
def test_root_enters_a_private_mount_namespace() -> None:
    found = told([sys.executable, "-c", ENTER])
    assert (found["how"], found["moved"], found["became"]) == ("root", True, [0, 0])
    assert found["overlay"]["yes"], found


@pytest.mark.root
def test_another_user_enters_a_user_namespace(nobody: Nobody) -> None:
    if not survey().user_namespaces.yes:
        pytest.skip("needs user namespaces: " + survey().user_namespaces.why)
    found = nobody.run(ENTER)
    assert (found["how"], found["moved"], found["became"]) == ("user namespace", True, [NOBODY, 0])
    assert found["overlay"]["yes"], found
    assert "userxattr" in found["overlay"]["why"]
    assert f"user {NOBODY}" in found["reason"]
    assert list(nobody.cwd.iterdir()) == []


@pytest.mark.root
def test_another_user_is_told_what_is_refused(nobody: Nobody) -> None:
    found = nobody.run(SURVEY)
    assert not found["root"]["yes"]
    assert not found["loop"]["yes"]
    assert "Permission denied" in found["loop"]["why"]
    assert found["user_namespaces"]["yes"] is survey().user_namespaces.yes
    assert found["overlay"]["yes"] is found["user_namespaces"]["yes"]
    assert list(nobody.cwd.iterdir()) == []


@pytest.mark.root
def test_where_all_is_refused_a_run_enters_nothing(workdir: Path) -> None:
    if not survey().user_namespaces.yes:
        pytest.skip("needs user namespaces: " + survey().user_namespaces.why)
    found = told([sys.executable, "-c", REFUSED + ENTER], env={**os.environ, "TMPDIR": str(workdir)})
    assert (found["how"], found["moved"], found["became"]) == ("none", False, [0, 0])
    assert "user namespace only" in found["reason"]
    assert "ENOSPC" in found["reason"]
    assert not found["overlay"]["yes"]
    surveyed = told([sys.executable, "-c", REFUSED + SURVEY], env={**os.environ, "TMPDIR": str(workdir)})
    assert [surveyed[name]["yes"] for name in ("root", "overlay", "user_namespaces")] == [False] * 3
    assert "ENOSPC" in surveyed["user_namespaces"]["why"]
    assert list(workdir.iterdir()) == []


def test_a_process_with_threads_is_not_put_into_a_user_namespace() -> None:
    code = f"import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\nimport os\n{REFUSED}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "thread" in ran.stderr


@pytest.mark.root
def test_a_survey_changes_nothing(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(workdir))
    monkeypatch.setenv("TMPDIR", str(workdir))

    def seen() -> list[str]:
        return [os.readlink("/proc/self/ns/mnt"), os.readlink("/proc/self/ns/user"), Path("/proc/self/mountinfo").read_text()]

    before = seen()
    found = survey()
    assert found.root.yes
    assert found.loop.yes, found.loop
    assert found.overlay.yes, found.overlay
    assert seen() == before
    assert list(workdir.iterdir()) == []


def test_a_program_or_file_system_that_is_missing_is_told(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(workdir))
    monkeypatch.setattr(machine, "_SYSTEM_PATH", str(workdir))
    (workdir / "mkfs.xfs").touch(mode=0o755)
    (workdir / "containerd").write_text("#!/bin/sh\nexit 3\n")
    (workdir / "containerd").chmod(0o755)
    found = survey()
    assert found.file_systems == (
        ("ext4", Answer(False, "mkfs.ext4 is not on the path")),
        ("xfs", Answer(True, str(workdir / "mkfs.xfs"))),
        ("btrfs", Answer(False, "mkfs.btrfs is not on the path")),
    )
    assert not found.containerd.yes
    assert "3" in found.containerd.why
    (workdir / "containerd").unlink()
    assert survey().containerd == Answer(False, "containerd: is not on the path (ENOENT)")


def test_a_socket_answers_or_not(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(workdir / "s")
    monkeypatch.setattr(machine, "CONTAINERD_SOCKET", path)
    assert "ENOENT" in survey().containerd_socket.why
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert "ECONNREFUSED" in survey().containerd_socket.why
        server.listen()
        assert survey().containerd_socket == Answer(True, f"{path} answers")


def test_without_a_temporary_directory_nothing_breaks() -> None:
    code = f"import tempfile\ntempfile.tempdir = '/nowhere'\n{ENTER}"
    assert "ENOENT" in told([sys.executable, "-c", code])["overlay"]["why"]


def test_an_interpreter_that_cannot_be_started_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    found = survey()
    assert not found.overlay.yes
    assert "/nowhere/python" in found.user_namespaces.why
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "status 1" in survey().overlay.why


YES, NO = Answer(True, "seen"), Answer(False, "refused because")


def a_machine(**changes: Any) -> Machine:
    kinds = tuple((kind, YES) for kind in machine.FILE_SYSTEMS)
    return dataclasses.replace(Machine(YES, YES, YES, YES, kinds, YES, YES), **changes)


def test_doctor_says_yes_and_why() -> None:
    lines = doctor.report(a_machine()).splitlines()
    assert [line for line in lines if "to change it" in line] == []
    assert sum("yes" in line and "seen" in line for line in lines) == 9
    assert lines[-1].endswith("runs on a pool: ext4 on a loop device")


@pytest.mark.parametrize("name", ["root", "loop", "overlay", "user_namespaces", "containerd", "containerd_socket"])
def test_doctor_names_the_remedy_of_each_no(name: str) -> None:
    lines = doctor.report(a_machine(**{name: NO})).splitlines()
    (at,) = (number for number, line in enumerate(lines) if "no " in line and "refused because" in line)
    assert "to change it: " in lines[at + 1]
    assert len(lines) == 11


def test_doctor_names_the_package_of_a_file_system() -> None:
    kinds = (("ext4", NO), ("xfs", NO), ("btrfs", NO))
    text = doctor.report(dataclasses.replace(a_machine(), file_systems=kinds))
    assert [name for name in ("e2fsprogs", "xfsprogs", "btrfs-progs") if f"apt-get install {name}" not in text] == []
    assert text.endswith("runs on a plain directory\n")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"root": NO, "loop": NO}, "runs on a plain directory, in a user namespace"),
        ({"root": NO, "loop": NO, "overlay": NO, "user_namespaces": NO}, "ref:copy"),
        ({"loop": NO}, "runs on a plain directory"),
    ],
)
def test_doctor_says_what_the_reference_runs_on(changes: dict[str, Answer], said: str) -> None:
    assert said in doctor.report(a_machine(**changes)).splitlines()[-1]
