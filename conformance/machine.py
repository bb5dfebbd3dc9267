"""What this machine permits, found out by trying, and the namespaces that a run puts itself into."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from snapspec.impl import syscalls
from snapspec.impl.mounts import MountError, attached_loop, remove_tree

#: Where containerd listens unless told otherwise.
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"

#: The file systems that a pool can have, the default first.
FILE_SYSTEMS = ("ext4", "xfs", "btrfs")

# Programs that make file systems lie here, which a user's path often lacks.
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"

_CHILD_SECONDS = 30.0

_ALL_UIDS = 2**32 - 1

How = Literal["root", "user namespace", "none"]


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether the machine permits something, and what the trial showed."""

    yes: bool
    why: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the process runs from now on: what it entered, why that and nothing better, and whether overlay mounts work there."""

    how: How
    reason: str
    overlay: Answer


@dataclass(frozen=True, slots=True)
class Machine:
    """What `survey` found. `overlay` is what a run would have, `user_namespaces` what a run without root would have."""

    root: Answer
    loop: Answer
    overlay: Answer
    user_namespaces: Answer
    file_systems: tuple[tuple[str, Answer], ...]
    containerd: Answer
    containerd_socket: Answer


def enter() -> Surroundings:
    """Put the process where its mounts reach nobody else, and say where that is. To be called once, before any thread is started.

    As root: a private mount namespace. Without root, or where that is refused: a user namespace with a mount namespace of its
    own. Where that is refused too: none, and the process is as it was.
    """
    refused = _not_root()
    if not refused:
        try:
            syscalls.enter_private_namespace()
        except OSError as error:
            refused = f"a private mount namespace is refused: {_text(error)}"
        else:
            return Surroundings("root", "runs as root: entered a private mount namespace", _try_overlay(user=False))
    return _enter_user(refused)


def _enter_user(refused: str) -> Surroundings:
    try:
        syscalls.enter_user_namespace()
    except OSError as error:
        reason = f"{refused}; a user namespace is refused: {_text(error)}"
        return Surroundings("none", reason, Answer(False, "needs root or a user namespace"))
    return Surroundings("user namespace", f"{refused}: entered a user and mount namespace", _try_overlay(user=True))


def _not_root() -> str:
    """Why the process counts as not being root; empty when it is. Root of a user namespace is not: it has no loop devices."""
    if os.geteuid() != 0:
        return f"does not run as root, but as user {os.geteuid()}"
    return "" if _uid_map()[0] == (0, 0, _ALL_UIDS) else "is root of a user namespace only"


def outer_uid() -> int:
    """The user id of the process as the namespace around its user namespace sees it: it stays the same when `enter` makes one."""
    uid = os.geteuid()
    return next((outside + uid - inside for inside, outside, count in _uid_map() if inside <= uid < inside + count), uid)


def _uid_map() -> list[tuple[int, int, int]]:
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
    except OSError:  # a kernel without user namespaces
        return [(0, 0, _ALL_UIDS)]
    return [(int(inside), int(outside), int(count)) for inside, outside, count in map(str.split, lines)] or [(0, 0, 0)]


def _text(error: OSError) -> str:
    return f"{error.strerror} ({errno.errorcode.get(error.errno or 0, 'no errno')})"


def _try_overlay(user: bool) -> Answer:
    """Remove and make again through an overlay mount, which takes whiteouts and the mark of an opaque directory."""
    try:
        directory = Path(tempfile.mkdtemp(prefix="snapspec-try-"))
    except OSError as error:
        return Answer(False, f"no temporary directory: {_text(error)}")
    try:
        _overlay_on(directory, "userxattr" if user else "")
        return Answer(True, f"mounted below {directory.parent}" + (" with userxattr" if user else ""))
    except OSError as error:
        if user:
            return Answer(False, f"an overlay mount below {directory.parent} with userxattr failed: {_text(error)}")
        return _try_overlay_on_tmpfs(directory, f"not below {directory.parent}: {_text(error)}")
    finally:
        # What cannot be removed is still mounted, in a namespace that goes with this process: leave it.
        with contextlib.suppress(OSError, MountError):
            remove_tree(str(directory))


def _try_overlay_on_tmpfs(directory: Path, above: str) -> Answer:
    # The temporary directory may itself lie on an overlay, as in a container; a pool has a file system of its own.
    place = directory / "tmpfs"
    try:
        place.mkdir()
        syscalls.mount("tmpfs", str(place), "tmpfs")
    except OSError as error:
        return Answer(False, f"{above}; no tmpfs either: {_text(error)}")
    try:
        _overlay_on(place, "")
        return Answer(True, f"mounted on a tmpfs, but {above}")
    except OSError as error:
        return Answer(False, f"an overlay mount on a tmpfs failed: {_text(error)}; {above}")
    finally:
        syscalls.umount2(str(place))


def _overlay_on(place: Path, options: str) -> None:
    lower, upper, work, target = (place / name for name in ("lower", "upper", "work", "target"))
    for directory in (lower, upper, work, target, lower / "opaque"):
        directory.mkdir()
    (lower / "whiteout").touch()
    data = ",".join(filter(None, (f"lowerdir={lower},upperdir={upper},workdir={work}", options)))
    syscalls.mount("overlay", str(target), "overlay", 0, data)
    try:
        (target / "whiteout").unlink()
        (target / "opaque").rmdir()
        (target / "opaque").mkdir()
    finally:
        syscalls.umount2(str(target))


def survey() -> Machine:
    """Try everything, each in a child process where it would change this one. Never raises: a refusal is an answer."""
    not_root = _not_root()
    here, user = _in_child("run"), _in_child("user")
    return Machine(
        root=Answer(not not_root, not_root or "runs as root"),
        loop=_answer(_try_loop),
        overlay=here.overlay,
        user_namespaces=Answer(user.how == "user namespace", f"{user.reason}; overlay there: {user.overlay.why}"),
        file_systems=tuple((kind, _find(f"mkfs.{kind}")) for kind in FILE_SYSTEMS),
        containerd=_answer(_try_containerd),
        containerd_socket=_answer(_try_socket),
    )


def _answer(trial: Callable[[], str]) -> Answer:
    try:
        return Answer(True, trial())
    except OSError as error:
        return Answer(False, f"{error.filename}: {_text(error)}" if error.filename else _text(error))
    except subprocess.SubprocessError as error:
        return Answer(False, str(error))


def _find(program: str) -> Answer:
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}")
    return Answer(True, found) if found else Answer(False, f"{program} is not on the path")


def _try_loop() -> str:
    with tempfile.NamedTemporaryFile(prefix="snapspec-try-") as image:
        image.truncate(1 << 20)
        with attached_loop(image.name) as device:
            return f"attached a file to {device} and detached it"


def _try_containerd() -> str:
    found = _find("containerd")
    if not found.yes:
        raise FileNotFoundError(errno.ENOENT, "is not on the path", "containerd")
    told = subprocess.run([found.why, "--version"], capture_output=True, text=True, timeout=_CHILD_SECONDS, check=True)
    return f"{found.why}, {' '.join(told.stdout.split()[2:3])}"


def _try_socket() -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(CONTAINERD_SOCKET)
        except OSError as error:
            raise OSError(error.errno or errno.ETIMEDOUT, error.strerror or "no answer", CONTAINERD_SOCKET) from error
    return f"{CONTAINERD_SOCKET} answers"


def _in_child(mode: Literal["run", "user"]) -> Surroundings:
    """What `enter`, or the way it takes without root, gives in a process of its own."""
    command = [sys.executable, "-P", "-m", __name__, mode]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_CHILD_SECONDS, check=False)
        if told.returncode != 0:
            raise ChildProcessError(f"status {told.returncode}: {' '.join(told.stderr.split()[-20:])}")
        found = json.loads(told.stdout)
        return Surroundings(found["how"], found["reason"], Answer(**found["overlay"]))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        reason = f"the trial in a child process failed: {error}"
        return Surroundings("none", reason, Answer(False, reason))


def main() -> None:
    """The child of `survey`: enters as the one argument says, and prints what came of it as JSON."""
    found = enter() if sys.argv[1:] == ["run"] else _enter_user("as without root")
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
