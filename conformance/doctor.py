"""`snapspec doctor`: what this machine permits, why, and what to do where it does not."""

from __future__ import annotations

from collections.abc import Iterator

from snapspec.conformance.machine import Answer, Machine

_DEBIAN = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}

_ROOT = "run it as root (sudo) for pools on loop devices and for checks through a containerd"
_LOOP = "load the module (modprobe loop); a container needs --privileged, or /dev/loop-control and loop devices passed in"
_OVERLAY = "load the module (modprobe overlay) and keep TMPDIR on a plain file system such as ext4, xfs, btrfs"
_USER = (
    "allow them: sysctl user.max_user_namespaces=10000; where these settings exist, also"
    " kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0"
)
_CONTAINERD = "apt-get install containerd runc"
_SOCKET = "start it (systemctl start containerd) and run as a user who may open the socket, or name another socket"


def report(machine: Machine) -> str:
    """The lines that `snapspec doctor` prints: each question with yes or no, why, and below a no the remedy."""
    return "\n".join(_lines(machine)) + "\n"


def _lines(machine: Machine) -> Iterator[str]:
    yield from _line("root", machine.root, _ROOT)
    yield from _line("loop devices", machine.loop, _LOOP if machine.root.yes else _ROOT)
    yield from _line("overlay mounts", machine.overlay, _overlay_remedy(machine))
    yield from _line("user namespaces", machine.user_namespaces, _USER)
    for kind, answer in machine.file_systems:
        yield from _line(f"mkfs.{kind}", answer, f"apt-get install {_DEBIAN[kind]}")
    yield from _line("containerd", machine.containerd, _CONTAINERD)
    yield from _line("its socket", machine.containerd_socket, _SOCKET if machine.containerd.yes else _CONTAINERD)
    yield f"{'so ref:overlay':16} {_reference(machine)}"


def _line(name: str, answer: Answer, remedy: str) -> Iterator[str]:
    yield f"{name:16} {'yes' if answer.yes else 'no ':3}  {answer.why}"
    if not answer.yes:
        yield f"{'':16} {'':3}  to change it: {remedy}"


def _overlay_remedy(machine: Machine) -> str:
    if machine.root.yes:
        return _OVERLAY
    return f"{_OVERLAY}; without root Linux 5.11 or later" if machine.user_namespaces.yes else _USER


def _reference(machine: Machine) -> str:
    if not machine.overlay.yes:
        return "can only copy plainly (ref:copy): overlay mounts are refused"
    if machine.root.yes and machine.loop.yes and dict(machine.file_systems)["ext4"].yes:
        return "runs on a pool: ext4 on a loop device"
    return "runs on a plain directory" + ("" if machine.root.yes else ", in a user namespace")
