"""A real containerd for tests: its own root, state and socket, started here and ended here."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from snapspec.conformance.proto import snapshots_pb2, snapshots_pb2_grpc, version_pb2_grpc
from snapspec.impl.loopback import open_pool

#: The snapshotters that a test can ask for, as far as the machine permits.
SNAPSHOTTERS = ("overlayfs", "native", "btrfs")

#: Seconds until a containerd that was started must answer.
READY = 15.0

# Needless here, and some would reach outside the directory: cri and opt make directories elsewhere on the machine.
CONFIG = """\
version = 2
root = "{root}"
state = "{directory}/state"
temp = "{directory}/tmp"
oom_score = 0
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
{without_tasks}  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.restart",
  "io.containerd.internal.v1.tracing",
  "io.containerd.monitor.v1.cgroups",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = "{directory}/c.sock"

[ttrpc]
  address = "{directory}/c.sock.ttrpc"

[debug]
  level = "debug"
"""

# What runs containers: only where a test asks for it.
TASKS = """\
  "io.containerd.grpc.v1.tasks",
  "io.containerd.runtime.v1.linux",
  "io.containerd.runtime.v2.task",
  "io.containerd.service.v1.tasks-service",
"""

PROXY = """
[proxy_plugins.{name}]
  type = "snapshot"
  address = "{socket}"
"""

_snapshots: Callable[[grpc.Channel], Any] = snapshots_pb2_grpc.SnapshotsStub
_version: Callable[[grpc.Channel], Any] = version_pb2_grpc.VersionStub


class Daemon:
    """One containerd below one directory. It is killed when the process that started it dies."""

    def __init__(self, directory: Path, root: Path, program: str, proxies: Mapping[str, Path], tasks: bool) -> None:
        self.directory = directory
        self.socket = directory / "c.sock"
        self.log = directory / "log"
        self.snapshotters: tuple[str, ...] = ()
        self._config = directory / "config.toml"
        config = CONFIG.format(directory=directory, root=root, without_tasks="" if tasks else TASKS)
        self._config.write_text(config + "".join(PROXY.format(name=name, socket=path) for name, path in proxies.items()))
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The socket as an address of gRPC."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start it and wait until it answers; fails with the end of its log. For the main thread: it dies with its thread."""
        assert threading.current_thread() is threading.main_thread(), "containerd is killed when the thread that started it ends"
        assert self._process is None, "containerd runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", self._program, "--config", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait(self._process)

    def stop(self) -> None:
        """Ask it to end, and kill it when it does not."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it at once, as a crash does."""
        self._end(signal.SIGKILL)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It stands still inside: calls reach its socket and get no answer."""
        process = self._process
        assert process is not None, "containerd does not run"
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # until all its threads stand still
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)  # does nothing when it has been killed meanwhile

    def log_tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline and process.poll() is None:
            with grpc.insecure_channel(self.address) as channel:
                try:
                    _version(channel).Version(Empty(), timeout=1)
                except grpc.RpcError:
                    time.sleep(0.05)
                    continue
                self.snapshotters = tuple(name for name in SNAPSHOTTERS if _is_loaded(channel, name))
                return
        self.kill()
        raise RuntimeError(f"containerd does not answer (exit status {process.returncode}); its log ends:\n{self.log_tail()}")

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for attempt in (number, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):  # its group is its own: start_new_session
                os.killpg(process.pid, attempt)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
                return
        raise RuntimeError(f"containerd, process {process.pid}, cannot be killed")


def _is_loaded(channel: grpc.Channel, name: str) -> bool:
    request = snapshots_pb2.StatSnapshotRequest(snapshotter=name, key="none")
    try:
        _snapshots(channel).Stat(request, timeout=5, metadata=[("containerd-namespace", "snapspec-probe")])
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.NOT_FOUND
    return True


def btrfs_refused() -> str:
    """Why no btrfs can be made here, with the remedy; empty when one can."""
    if shutil.which("mkfs.btrfs") is None:
        return "needs mkfs.btrfs: apt-get install btrfs-progs"
    known = "\tbtrfs\n" in Path("/proc/filesystems").read_text()
    if not known and subprocess.run(["sh", "-c", "modprobe btrfs"], check=False, capture_output=True).returncode:
        return "needs btrfs in the kernel: modprobe btrfs"
    return ""


@contextlib.contextmanager
def _root(directory: Path, file_system: str | None) -> Iterator[Path]:
    """The directory for containerd's root: on a pool of 1 GiB with that file system, or below `directory` itself."""
    if file_system is None:
        yield directory / "root"
        return
    with open_pool(str(directory / "pool"), size=1 << 30, file_system=file_system) as pool:
        yield Path(pool.root) / "root"


@contextlib.contextmanager
def start_containerd(
    directory: Path,
    *,
    root_file_system: Literal["btrfs"] | None = None,
    proxies: Mapping[str, Path] | None = None,
    tasks: bool = False,
) -> Iterator[Daemon]:
    """A containerd below the empty `directory` (a short path: sockets have at most 107 bytes), ended afterwards in any case.

    With `root_file_system="btrfs"` its root lies on a loop-mounted btrfs, so that the btrfs snapshotter is loaded too. `proxies`:
    sockets of proxy plugins by the name of the snapshotter; `tasks`: it runs containers. Skips the test when the machine has no
    containerd, or no btrfs when that is asked for.
    """
    program = shutil.which("containerd")
    if program is None:
        pytest.skip("needs containerd: apt-get install containerd")
    if root_file_system and (refused := btrfs_refused()):
        pytest.skip(refused)
    with _root(directory, root_file_system) as root:
        daemon = Daemon(directory, root, program, proxies or {}, tasks)
        try:
            daemon.start()
            yield daemon
        finally:
            daemon.stop()


@pytest.fixture(scope="session")
def containerd(clean_session: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One containerd for the whole session, on a btrfs where the machine permits it, so that all SNAPSHOTTERS are loaded.

    Use a namespace of your own, and leave none behind. Its log is kept where pytest keeps the directories of tests.
    """
    directory = Path(tempfile.mkdtemp(prefix="sn-", dir=clean_session))
    with start_containerd(directory, root_file_system=None if btrfs_refused() else "btrfs") as daemon:
        try:
            yield daemon
        finally:
            shutil.copy(daemon.log, tmp_path_factory.mktemp("containerd"))
