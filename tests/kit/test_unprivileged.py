"""The kit as a user without rights runs it: it takes what the machine permits, and says so."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from snapspec.conformance.machine import survey
from snapspec.impl.mounts import mounted
from snapspec.model.values import Mount

pytestmark = pytest.mark.root  # to be another user

NOBODY = 65534


@dataclass(frozen=True)
class Nobody:
    """A user who can read the kit and its Python, and write one directory."""

    python: str
    environment: dict[str, str]
    home: Path

    def start(self, *arguments: str, within: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """`snapspec` as this user, started by the command `within`."""
        return subprocess.Popen(
            [*within, self.python, "-m", "snapspec.conformance", *arguments],
            env=self.environment,
            cwd=self.home,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, within: tuple[str, ...] = ()) -> tuple[int, str, str]:
        """The same to its end: its status and what it printed."""
        process = self.start(*arguments, within=within)
        output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors

    def runs(self) -> list[Path]:
        """The run directories that are left."""
        return sorted(self.home.glob("snapspec-*/run-*"))


@pytest.fixture
def nobody(workdir: Path) -> Iterator[Nobody]:
    """The rooms are copied for it; the Python of the tests, which may be root's alone, is shown to it in another place."""
    for directory in (workdir.parent, workdir):
        directory.chmod(0o711)
    for room in ("impl", "model", "conformance"):
        source = Path(sys.modules[f"snapspec.{room}"].__path__[0])
        shutil.copytree(source, workdir / "lib" / "snapspec" / room, ignore=shutil.ignore_patterns("__pycache__"))
    python, packages, home = (workdir / name for name in ("python", "packages", "home"))
    for directory in (python, packages, home):
        directory.mkdir()
    os.chown(home, NOBODY, NOBODY)
    program = python / Path(sys.executable).resolve().relative_to(Path(sys.base_prefix).resolve())
    environment = {
        "PATH": os.defpath,
        "PYTHONHOME": str(python),
        "PYTHONPATH": os.pathsep.join([str(workdir / "lib"), str(packages)]),
        "TMPDIR": str(home),
    }
    with (
        mounted([Mount("bind", sys.base_prefix, ("rbind", "ro"))], str(python)),
        mounted([Mount("bind", sysconfig.get_path("purelib"), ("rbind", "ro"))], str(packages)),
    ):
        yield Nobody(str(program), environment, home)


def test_it_takes_a_user_namespace_and_says_so(nobody: Nobody) -> None:
    if not survey().user_namespaces.yes:
        pytest.skip("needs user namespaces: " + survey().user_namespaces.why)
    status, output, errors = nobody.run("check", "ref:overlay", "--examples", "3", "--seed", "1", "--budget", "1s")
    assert (status, errors) == (2, ""), output
    assert (
        f"  on overlay on a plain directory, for there are no loop devices: does not run as root, but as user {NOBODY}" in output
    )
    assert "entered a user and mount namespace" in output
    assert output.splitlines()[-1].startswith("NOT DECIDED: ref:overlay: "), "by three histories"
    assert "not permitted on this machine: files of other owners, device nodes, trusted attributes" in output
    assert nobody.runs() == []


def test_without_user_namespaces_it_takes_plain_copies_and_says_so(nobody: Nobody) -> None:
    """In a user namespace that permits no other one."""
    if not survey().user_namespaces.yes:
        pytest.skip("needs user namespaces: " + survey().user_namespaces.why)
    refusing = 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"'
    within = ("unshare", "--user", "--map-root-user", "sh", "-c", refusing, "sh")
    status, output, errors = nobody.run("smoke", "ref:overlay", within=within)
    assert (status, errors) == (0, ""), output
    assert "  on plain copies, for overlay mounts are refused: is root of a user namespace only" in output
    assert "ENOSPC" in output
    assert nobody.runs() == []


def test_a_socket_of_somebody_else_is_refused(nobody: Nobody, workdir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(workdir / "s"))
        (workdir / "s").chmod(0o600)
        server.listen()
        for subject in (f"containerd:{workdir / 's'}?snapshotter=overlayfs", f"plugin:{workdir / 's'}"):
            status, _, errors = nobody.run("smoke", subject)
            assert (status, len(errors.splitlines())) == (2, 1)
            assert "no permission" in errors
            assert "run as root" in errors


def test_its_processes_end_with_the_first_one_too(nobody: Nobody) -> None:
    """In a user namespace as well the kernel tells them of its death."""
    process = nobody.start("check", "ref:overlay", "--examples", "100000", "--seed", "1")
    deadline = time.monotonic() + 30
    while not list(nobody.home.glob("snapspec-*/run-*/store-*/s/1")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.kill()
    process.communicate()
    while nobody.runs():
        assert time.monotonic() < deadline
        time.sleep(0.05)
