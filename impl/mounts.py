"""Mount lists: mounted in order on a directory, unmounted, made read-only; and trees deleted without crossing a mount.

No process is started. A target is a directory with no mount at or below it, so all that is found there afterwards
is of the list: that is what `unmount` takes away, also when an interrupt came between a call and its record.
"""

from __future__ import annotations

import _thread
import errno
import mmap
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from snapspec.impl import syscalls
from snapspec.model.values import Mount

#: Seconds that an unmount waits for the last user of a mount to go away.
PATIENCE = 2.0

#: Flags that an option sets, and flags that it takes away.
_FLAGS: dict[str, tuple[int, int]] = {
    "defaults": (0, 0),
    "ro": (syscalls.MS_RDONLY, 0),
    "rw": (0, syscalls.MS_RDONLY),
    "nosuid": (syscalls.MS_NOSUID, 0),
    "suid": (0, syscalls.MS_NOSUID),
    "nodev": (syscalls.MS_NODEV, 0),
    "dev": (0, syscalls.MS_NODEV),
    "noexec": (syscalls.MS_NOEXEC, 0),
    "exec": (0, syscalls.MS_NOEXEC),
    "noatime": (syscalls.MS_NOATIME, 0),
    "atime": (0, syscalls.MS_NOATIME),
    "nodiratime": (syscalls.MS_NODIRATIME, 0),
    "diratime": (0, syscalls.MS_NODIRATIME),
    "relatime": (syscalls.MS_RELATIME, 0),
    "norelatime": (0, syscalls.MS_RELATIME),
    "strictatime": (syscalls.MS_STRICTATIME, 0),
}

_BIND = {"bind": syscalls.MS_BIND, "rbind": syscalls.MS_BIND | syscalls.MS_REC}

#: Flags of a file system that a bind mount of it keeps, unless told otherwise: a user namespace may not drop them.
_KEPT = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC

#: What fsmount calls the flags whose numbers differ from those of mount(2).
_ATTRIBUTES = {
    syscalls.MS_NOATIME: syscalls.MOUNT_ATTR_NOATIME,
    syscalls.MS_NODIRATIME: syscalls.MOUNT_ATTR_NODIRATIME,
    syscalls.MS_STRICTATIME: syscalls.MOUNT_ATTR_STRICTATIME,
}

_LAYERS = 500  # the kernel's own limit of lower directories (OVL_MAX_STACK)


class MountError(Exception):
    """A mount list, a target or a tree that is refused before anything is done to it; the message names the remedy."""


# --- what is mounted ---


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of the mount table: where, which file system, of what."""

    point: str
    type: str
    source: str


def _decoded(field: bytes) -> str:
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), field))


def _encoded(path: str) -> bytes:
    return re.sub(rb"[ \t\n\\]", lambda m: b"\\%03o" % m[0][0], os.fsencode(path))


def _canonical(directory: str) -> str:
    """The path of `directory` as the mount table has it. Raises OSError when it is no directory, or a symlink to one.

    No fd is opened: one that an interrupt loses would keep a mount busy.
    """
    path = directory.rstrip("/") or "/"
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory itself; give the directory", directory)
    return os.path.realpath(path)


def mount_table(directory: str) -> list[Mounted]:
    """The mounts at and below `directory` in this thread's mount namespace, each after those that it stands on."""
    return _table(_canonical(directory))


def _table(place: str) -> list[Mounted]:
    here = _encoded(place)
    below = here.rstrip(b"/") + b"/"
    with open("/proc/thread-self/mountinfo", "rb") as table:
        text = table.read()
    if b" " + here not in text:
        return []
    found = []
    for line in text.splitlines():
        fields = line.split(b" ")
        if fields[4] == here or fields[4].startswith(below):
            kind, source = fields[fields.index(b"-") + 1 :][:2]
            found.append(Mounted(_decoded(fields[4]), _decoded(kind), _decoded(source)))
    return found


def mountpoints_below(directory: str) -> list[str]:
    """The paths at and below `directory` that are mounted on, in the order of mounting, one for each mount."""
    return [mounted.point for mounted in mount_table(directory)]


# --- what a list asks for ---


@dataclass(frozen=True, slots=True)
class _Request:
    """A mount with its options sorted out."""

    mount: Mount
    bind: int
    flags: int
    cleared: int
    loop: bool
    data: tuple[str, ...]


def _refuse_foreign(mount: Mount) -> None:
    """Refuses what a mount(2) client cannot do."""
    words = (mount.type, mount.source, mount.target, *mount.options)
    if "/" in mount.type or any("{{" in word or word.startswith("X-containerd.") for word in words):
        raise MountError(f"mount type {mount.type!r} needs containerd's mount manager; activate the list there first")
    if "." in mount.type:
        raise MountError(f"mount type {mount.type!r} needs a mount helper program; mount it with mount(8)")
    if "remount" in mount.options:
        raise MountError(f"option 'remount' of {mount.source!r} changes a mount; a list may only make new ones")


def _requests(mounts: Sequence[Mount]) -> list[_Request]:
    """The list, understood. An empty one is refused: what is written to its target would reach no snapshot."""
    if not mounts:
        raise MountError("the mount list is empty; ask the snapshotter for it again")
    return [_request(mount) for mount in mounts]


def _request(mount: Mount) -> _Request:
    _refuse_foreign(mount)
    bind = syscalls.MS_BIND if mount.type == "bind" else 0
    flags = cleared = 0
    data = []
    for option in mount.options:
        if option in _FLAGS:
            on, off = _FLAGS[option]
            flags, cleared = flags & ~off | on, cleared & ~on | off
        elif option in _BIND:
            bind |= _BIND[option]
        elif option not in ("", "loop"):
            data.append(option)
    if bind and data:
        raise MountError(f"a bind mount takes no option {data[0]!r}; leave it out of the mount of {mount.source!r}")
    return _Request(mount, bind, flags, cleared, "loop" in mount.options, tuple(data))


def _free(target: str) -> str:
    """The canonical path of `target`, which must be a directory without mounts."""
    place = _canonical(target)
    taken = _table(place)
    if taken:
        raise MountError(f"{taken[-1].point!r} is mounted already; unmount it first or take another target than {target!r}")
    return place


def _inside(target: str, path: str) -> str:
    """The directory `path` of what is now mounted at `target`; a leading slash stands for `target`."""
    place = os.path.realpath(os.path.join(target, path.lstrip("/")))
    if place != target and not place.startswith(target.rstrip("/") + "/"):
        raise MountError(f"target {path!r} leaves the directory {target!r}; give a path inside it")
    return place


# --- mounting ---


def mount(mounts: Sequence[Mount], target: str) -> None:
    """Mounts the list on the directory `target`, in order, as a caller of the contract does (SNAP-MOUNTS).

    `target` has no mount at or below it. On any failure nothing stays mounted. Raises MountError when the list or the
    target cannot be right, before anything is done, and OSError when the kernel refuses.
    """
    place, requests = _free(target), _requests(mounts)
    try:
        _mount_all(requests, place)
    except BaseException:
        unmount(place)
        raise


@contextmanager
def mounted(mounts: Sequence[Mount], target: str) -> Iterator[str]:
    """The path of `target` with the list mounted on it; unmounted on every way out. Raises as `mount` and `unmount` do."""
    place, requests = _free(target), _requests(mounts)
    try:
        _mount_all(requests, place)
        yield place
    finally:
        try:
            unmount(place)
        except KeyboardInterrupt:  # it may have come before unmount began
            unmount(place)
            raise


def _mount_all(requests: list[_Request], place: str) -> None:
    for request in requests:
        _mount_one(request, _inside(place, request.mount.target) if request.mount.target else place)


def _mount_one(request: _Request, place: str) -> None:
    mount = request.mount
    if request.bind:
        _bind(request, place)
    elif request.loop:
        with attached_loop(mount.source, read_only=bool(request.flags & syscalls.MS_RDONLY)) as device:
            syscalls.mount(device, place, mount.type, request.flags, ",".join(request.data))
    elif mount.type == "overlay":
        _overlay(request, place)
    else:
        syscalls.mount(mount.source, place, mount.type, request.flags, ",".join(request.data))


def _bind(request: _Request, place: str) -> None:
    syscalls.mount(request.mount.source, place, "none", request.bind)
    if request.flags:  # the first call takes no flags: the mount it made is changed
        kept = os.statvfs(place).f_flag & _KEPT & ~request.cleared
        syscalls.mount("none", place, "none", syscalls.MS_REMOUNT | syscalls.MS_BIND | kept | request.flags)


@contextmanager
def attached_loop(image: str, *, read_only: bool = False) -> Iterator[str]:
    """The path of a loop device on the file `image`. It is gone after the block, or when what was mounted of it is.

    Raises OSError where loop devices are refused.
    """
    flags = syscalls.LO_FLAGS_AUTOCLEAR | (syscalls.LO_FLAGS_READ_ONLY if read_only else 0)
    access = os.O_RDONLY if read_only else os.O_RDWR
    backing = device = control = -1
    try:
        backing = os.open(image, access | os.O_CLOEXEC)
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        deadline = time.monotonic() + PATIENCE
        while True:
            number = syscalls.loop_get_free(control)
            device = open_loop(number, access)
            try:
                syscalls.loop_configure(device, backing, flags, image)
                break
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                    raise
            os.close(device)  # another process took the number first: the next one is for us
            device = -1
            time.sleep(0.001)
        yield f"/dev/loop{number}"
    finally:
        for fd in (device, control, backing):
            if fd >= 0:
                os.close(fd)


def open_loop(number: int, access: int) -> int:
    """An fd of loop device `number`; its node is made when the system has none. Raises OSError when it is something else."""
    path = f"/dev/loop{number}"
    with open(f"/sys/block/loop{number}/dev") as file:
        major, minor = map(int, file.read().split(":"))
    identity = os.makedev(major, minor)
    if not os.path.lexists(path):
        with suppress(FileExistsError):  # the system made it meanwhile
            os.mknod(path, 0o600 | stat.S_IFBLK, identity)
    fd = os.open(path, access | os.O_CLOEXEC | os.O_NOFOLLOW)
    if os.fstat(fd).st_rdev != identity:
        os.close(fd)
        raise OSError(errno.ENXIO, f"not the block device {major}:{minor}; remove it", path)
    return fd


def undisturbed(work: Callable[[], None]) -> None:
    """Does `work` in a thread, which no interrupt reaches: one that comes is raised when the work is done."""
    begun, ended = _thread.allocate_lock(), _thread.allocate_lock()
    outcome: list[BaseException | None] = []

    def run() -> None:
        if begun.acquire(blocking=False):
            try:
                work()
                outcome.append(None)
            except BaseException as error:  # noqa: BLE001 - raised where the caller waits
                outcome.append(error)
            ended.release()

    # Bare threads and locks: an interrupt that comes inside those of `threading` can leave them locked or be lost in them.
    ended.acquire()
    try:
        _thread.start_new_thread(run, ())
        ended.acquire()
    except KeyboardInterrupt:
        _thread.start_new_thread(run, ())  # in case that was not reached; the thread that is late finds nothing to do
        while not outcome:
            time.sleep(0.001)
        raise
    if outcome[0] is not None:
        raise outcome[0]


# --- overlay ---


def split_layers(lowerdir: str) -> list[str]:
    """The paths in the value of `lowerdir`, nearest first, with its escapes undone."""
    return [_unescaped(path) for path in re.findall(r"(?:\\.|[^\\:])+", lowerdir, re.DOTALL)]


def _unescaped(path: str) -> str:
    return re.sub(r"\\(.)", r"\1", path, flags=re.DOTALL)


def escape_layer(path: str) -> str:
    r"""`path` as it stands in an option of an overlay mount: `\`, `:` and `,` each behind a backslash."""
    return re.sub(r"([\\:,])", r"\\\1", path)


def _overlay(request: _Request, place: str) -> None:
    data = ",".join(request.data)
    layers = [path for option in request.data if option.startswith("lowerdir=") for path in split_layers(option[9:])]
    if len(layers) > _LAYERS:
        raise MountError(f"{len(layers)} lower directories are more than the {_LAYERS} that overlay takes; merge some of them")
    if len(os.fsencode(data)) < mmap.PAGESIZE:
        syscalls.mount(request.mount.source, place, "overlay", request.flags, data)
        return
    # The working directory belongs to the whole process: a thread takes one of its own.
    undisturbed(lambda: _overlay_from_base(request, layers, place))


def _overlay_from_base(request: _Request, layers: list[str], place: str) -> None:
    """Mounts an overlay with more options than a page holds, its paths made relative to the directory that they share."""
    own = {key: _unescaped(value) for key, _, value in map(_parted, request.data) if key in ("upperdir", "workdir")}
    base, paths = _relative([*layers, *own.values()])
    lower, named = paths[: len(layers)], dict(zip(own, paths[len(layers) :], strict=True))
    others = [option for option in request.data if _parted(option)[0] not in ("lowerdir", *own)]
    syscalls.unshare(syscalls.CLONE_FS)
    os.chdir(base)
    if _overlay_by_context(request, lower, named, others, place):
        return
    texts = [f"{key}={escape_layer(path)}" for key, path in named.items()]
    data = ",".join([*others, "lowerdir=" + ":".join(map(escape_layer, lower)), *texts])
    if len(os.fsencode(data)) >= mmap.PAGESIZE:
        raise MountError(f"{len(lower)} lower directories do not fit a page of options; use Linux 6.8 or shorter paths")
    syscalls.mount(request.mount.source, place, "overlay", request.flags, data)


def _parted(option: str) -> tuple[str, str, str]:
    return option.partition("=")


def _relative(paths: list[str]) -> tuple[str, list[str]]:
    """The deepest directory that all of `paths` are in, and the paths from there."""
    parts = [[part for part in os.path.join(os.getcwd(), path).split("/") if part not in ("", ".")] for path in paths]
    shared = 0
    while all(len(part) > shared and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    return "/" + "/".join(parts[0][:shared]), ["/".join(part[shared:]) or "." for part in parts]


def _overlay_by_context(request: _Request, lower: list[str], named: dict[str, str], others: list[str], place: str) -> bool:
    """Mounts an overlay with one call for each layer; False where the kernel knows no such calls."""
    try:
        context = syscalls.fsopen("overlay")
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):  # EPERM: a filter of system calls that is older than the call
            return False
        raise
    try:
        if not _set_layers(context, lower):
            return False
        _set_options(context, request, named, others)
        detached = syscalls.fsmount(context, _attributes(request.flags))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({_complaint(context)})", place) from error
    finally:
        os.close(context)
    try:
        syscalls.move_mount(detached, place)
    finally:
        os.close(detached)
    return True


def _set_layers(context: int, lower: list[str]) -> bool:
    """Adds the layers, nearest first; False where the kernel cannot add them one by one. They are taken as they stand."""
    for path in lower:
        try:
            syscalls.fsconfig_string(context, "lowerdir+", path)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            raise
    return True


def _set_options(context: int, request: _Request, named: dict[str, str], others: list[str]) -> None:
    """Sets the rest and makes the file system. Unlike lowerdir+, upperdir and workdir have their escapes undone."""
    syscalls.fsconfig_string(context, "source", request.mount.source or "overlay")
    for key, path in named.items():
        syscalls.fsconfig_string(context, key, escape_layer(path))
    for key, equals, value in map(_parted, others):
        if equals:
            syscalls.fsconfig_string(context, key, value)
        else:
            syscalls.fsconfig_flag(context, key)
    if request.flags & syscalls.MS_RDONLY:
        syscalls.fsconfig_flag(context, "ro")
    syscalls.fsconfig_create(context)


def _attributes(flags: int) -> int:
    same = flags & _KEPT  # these four have one number in both
    return same | sum(attribute for flag, attribute in _ATTRIBUTES.items() if flags & flag)


def _complaint(context: int) -> str:
    """What the kernel says of the failure, from the log of the context."""
    try:
        return os.read(context, 4096).decode(errors="replace").strip()
    except OSError:
        return "the kernel gives no reason"


# --- unmounting ---


def unmount(target: str, patience: float = PATIENCE) -> None:
    """Unmounts all that is mounted at and below `target`, last first; nothing there is no error.

    Never lazily: a mount that is still in use after `patience` seconds raises OSError (EBUSY). An interrupt on the way is
    raised when all is done.
    """
    try:
        _unmount_all(target, patience)
    except KeyboardInterrupt:
        _unmount_all(target, patience)
        raise


def _unmount_all(target: str, patience: float) -> None:
    if not os.path.lexists(target):
        return
    deadline = time.monotonic() + patience
    for point in reversed(mountpoints_below(target)):
        unmount_top(point, deadline - time.monotonic())


def unmount_top(point: str, patience: float = PATIENCE) -> None:
    """Unmounts what is topmost at `point`, nothing else. Raises OSError: EBUSY after `patience` seconds, EINVAL with no mount."""
    deadline = time.monotonic() + patience
    pause = 0.001
    while True:
        try:
            syscalls.umount2(point)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


# --- read-only ---


def read_only(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """The same list, refusing writes: a bind mount gets `ro`, the upper directory of an overlay becomes its nearest lower one."""
    return tuple(replace(m, options=_read_only_options(m)) for m in mounts)


def _read_only_options(mount: Mount) -> tuple[str, ...]:
    options = [option for option in mount.options if option not in ("rw", "ro")]
    upper = [option[9:] for option in options if option.startswith("upperdir=")]
    if mount.type == "overlay" and upper:
        options = [option for option in options if _parted(option)[0] not in ("upperdir", "workdir", "volatile")]
        top = escape_layer(_unescaped(upper[0]))
        options = [f"lowerdir={top}:{option[9:]}" if option.startswith("lowerdir=") else option for option in options]
    return (*options, "ro")


# --- deleting ---


def remove_tree(directory: str) -> None:
    """Deletes the directory `directory` and all in it, never through a symlink or into another mount.

    Raises MountError, with nothing deleted, when something is mounted at or below it; OSError when it is not there or is
    no directory. What is mounted meanwhile is not entered: that raises OSError (EXDEV).
    """
    place = _canonical(directory)
    taken = _table(place)
    if taken:
        raise MountError(f"{taken[-1].point!r} is still mounted; unmount it, then delete {directory!r}")
    above, name = os.path.split(place)
    parent = os.open(above, os.O_PATH | os.O_DIRECTORY)
    try:
        _empty(_enter(parent, name))
        os.rmdir(name, dir_fd=parent)
    finally:
        os.close(parent)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _enter(directory: int, name: str) -> int:
    """An fd of the directory `name` in `directory`, on the same mount."""
    try:
        return _open_here(directory, name)
    except PermissionError:  # ours, but closed to us: an owner without privileges opens it up
        os.chmod(name, 0o700, dir_fd=directory)
        return _open_here(directory, name)


def _open_here(directory: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return syscalls.openat2(directory, name, flags, syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    fd = os.open(name, flags | os.O_CLOEXEC, dir_fd=directory)
    if os.fstat(fd).st_dev != os.fstat(directory).st_dev:
        os.close(fd)
        raise OSError(errno.EXDEV, "another file system is mounted here; unmount it", name)
    return fd


def _delete_files(fd: int) -> list[str]:
    """Deletes all in the directory `fd` but its directories; the names of those."""
    if os.geteuid() != 0:
        os.fchmod(fd, 0o700)
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=fd)
    return [name for name, is_directory in found if is_directory]


def _empty(fd: int) -> None:
    """Deletes all in the directory `fd`, and closes it. One fd at a time: a tree may be deeper than fds or recursion go.

    The way back up is `..`, and where it leads must be the directory that we came from.
    """
    here = fd
    try:
        trail = [(_identity(here), _delete_files(here))]
        while True:
            _, names = trail[-1]
            if names:
                here = _step(here, names[-1])
                trail.append((_identity(here), _delete_files(here)))
                continue
            trail.pop()
            if not trail:
                return
            here = _step(here, "..")
            above, names = trail[-1]
            if _identity(here) != above:
                raise OSError(errno.ESTALE, "the tree was moved while it was deleted; delete the rest again", names[-1])
            os.rmdir(names.pop(), dir_fd=here)
    finally:
        os.close(here)


def _step(here: int, name: str) -> int:
    there = _enter(here, name)
    os.close(here)
    return there
