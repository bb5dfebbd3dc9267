"""The pool: a file system in a sparse image file, on a loop device, mounted; what a snapshotter keeps its layers in.

A pool's directory holds `pool.img`, the file `lock` and the mount point `mnt`. One function takes a pool apart, whoever left
it: a close, a failed or interrupted open, a crashed process. It goes by the identity of the image (device and inode), never by
the number of a loop device, so it finds what no record tells of and touches nothing else. The kernel detaches the device with
its last user, so a process killed in a mount namespace of its own leaves nothing at all.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType

from snapspec.impl import syscalls
from snapspec.impl.mounts import attached_loop, mount_table, open_loop, undisturbed, unmount_top

#: Seconds that closing and recovering wait for the kernel to let go of a loop device.
PATIENCE = 5.0

#: The same for opening one that may be taken over: what a process that has just died used is free in much less.
SETTLING = 1.0

BALLAST = 1 << 20

_IMAGE = "pool.img"
_NEW = "pool.img.new-"
_PAGE = 4096

_CAP_SYS_ADMIN = 21
_CAP_SYS_RESOURCE = 24


class PoolError(Exception):
    """The pool cannot be opened, grown, trimmed or closed; the message names the remedy."""


class PoolBusy(PoolError):
    """Somebody else uses the pool, or what stands on it is still in use."""


class ToolMissing(PoolError):
    """A program that makes, checks or grows the file system is not installed."""


@dataclass(frozen=True, slots=True)
class _FileSystem:
    """How a file system is made, known, checked, mounted and grown; `{}` stands for what the program is run on."""

    package: str
    minimum: int
    make: tuple[str, ...]
    magic: tuple[int, bytes]
    grow: tuple[str, ...]
    grow_capability: int = _CAP_SYS_ADMIN
    grow_minimum: int = 0
    check: tuple[str, ...] = ()
    options: str = ""


# Blocks of 4096 bytes whatever the size, so that usage is the same in every pool; no blocks kept for root: root is the user.
# btrfs keeps data and metadata together: apart, a pool of this size that was once full has no room for metadata ever after. It
# would discard by itself, at any time: here `trim` alone does.
_FILE_SYSTEMS = {
    "ext4": _FileSystem(
        package="e2fsprogs",
        minimum=16 << 20,
        make=("mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "{}"),
        magic=(0x438, b"\x53\xef"),
        grow=("resize2fs", "{device}"),
        grow_capability=_CAP_SYS_RESOURCE,
        check=("e2fsck", "-p", "{}"),
    ),
    "xfs": _FileSystem(
        package="xfsprogs",
        minimum=300 << 20,
        make=("mkfs.xfs", "-q", "-f", "{}"),
        magic=(0, b"XFSB"),
        grow=("xfs_growfs", "{root}"),
    ),
    "btrfs": _FileSystem(
        package="btrfs-progs",
        minimum=112 << 20,
        make=("mkfs.btrfs", "-q", "-f", "--mixed", "{}"),
        magic=(0x10040, b"_BHRfS_M"),
        grow=("btrfs", "filesystem", "resize", "max", "{root}"),
        grow_minimum=256 << 20,
        options="nodiscard",
    ),
}


#: The device and the inode of an image: what it is known by.
Identity = tuple[int, int]


# --- opening ---


def open_pool(directory: str, *, size: int = 256 << 20, file_system: str = "ext4", take_over: bool = False) -> Pool:
    """The pool in `directory`, mounted; made first, with `size` bytes, where there is none. `size` counts for nothing later.

    `directory` is made when only its parent is there. What a crashed process left of this pool is taken away, and of this pool
    only; with `take_over` what still stands on it goes on, and the pool is mounted beside it. Raises PoolBusy when another
    process has it open or something still stands on it, PoolError with the remedy for what can be foreseen, OSError for the
    rest. After an error or an interrupt nothing more is mounted or attached than before, and nothing is half made.
    """
    kind = _FILE_SYSTEMS.get(file_system)
    if kind is None:
        raise PoolError(f"a pool cannot be made with {file_system!r}; take one of {', '.join(_FILE_SYSTEMS)}")
    _require_loop()
    made = _own_directory(directory)
    pool = Pool(os.path.realpath(directory), file_system)
    try:
        undisturbed(lambda: pool._open(kind, size, take_over))
    except BaseException:
        undisturbed(lambda: pool._abandon(made))
        raise
    return pool


def _own_directory(directory: str) -> bool:
    """Makes the directory, which nobody else may reach into: layers hold setuid files. Whether it is new."""
    try:
        os.mkdir(directory, 0o700)
        return True
    except FileExistsError:
        status = os.stat(directory)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise PoolError(
                f"others can write to {directory!r}; chown it to yourself and chmod go-w it, or take another"
            ) from None
        return False


class Pool:
    """An open pool. `root` is the directory to use; all else of it belongs to the pool."""

    _identity: Identity | None = None  # of the image, as soon as it may be attached or mounted by us

    def __init__(self, directory: str, file_system: str) -> None:
        """A pool that is not open yet: `open_pool` makes one that is."""
        self.directory = directory
        self.file_system = file_system
        self.root = os.path.join(directory, "mnt")
        self._image = os.path.join(directory, _IMAGE)
        self._lock_file = os.path.join(directory, "lock")
        self._ballast = os.path.join(self.root, "ballast")
        self._lock = -1
        self._opener = os.getpid()
        self._fresh = False  # this open makes the image

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        """Closes a pool that an interrupt lost, between open_pool and its `with` or between that and close."""
        if self._identity is not None and os.getpid() == self._opener:  # a forked child has a copy, but not the pool
            with suppress(PoolError, OSError):
                self._close()

    # The steps of opening. Each may fail: it is noted before it is taken, and `_abandon` looks at what is there.

    def _open(self, kind: _FileSystem, size: int, take_over: bool) -> None:
        self._take_lock()
        with suppress(FileExistsError):
            os.mkdir(self.root, 0o700)
        self._delete_unfinished()
        if not os.path.lexists(self._image):
            self._make_image(kind, size)
        identity = self._know_image()
        try:
            _take_apart(identity, self.root, SETTLING if take_over else PATIENCE)
        except PoolBusy:
            if not take_over:
                raise
            self._take_over(kind, identity)
        else:
            if kind.check:
                _check(kind, self._image)
            self._identity = identity
            with _refusals_explained(self.file_system), attached_loop(self._image) as device:
                syscalls.mount(device, self.root, self.file_system, syscalls.MS_NOATIME, kind.options)
        self.restore_ballast()

    def _take_over(self, kind: _FileSystem, identity: Identity) -> None:
        """Mount the file system where it is in use: from the same loop device it is the same one, and needs no recovery."""
        numbers = [number for number in _candidates() if _ask(number, identity)]
        mounts = mount_table(self.root)
        if len(numbers) != 1 or (mounts and (len(mounts) > 1 or _device_number(mounts[0].source) != numbers[0])):
            raise PoolBusy(f"{self._image!r} is in use by others than its users; unmount what stands in {self.root!r}, try again")
        with _opened_loop(numbers[0]) as device:  # open here, it stays on the image
            if not _is_on(device, identity):
                raise PoolBusy(f"what stood on {self._image!r} has just ended; try again")
            self._identity = identity
            if not mounts:
                syscalls.mount(f"/dev/loop{numbers[0]}", self.root, self.file_system, syscalls.MS_NOATIME, kind.options)

    def _take_lock(self) -> None:
        """Locks the pool. A lock file that an opener who failed has deleted meanwhile locks nothing: then it is made again."""
        while self._lock < 0:
            fd = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(fd), os.lstat(self._lock_file)):
                        self._lock = fd
            except BlockingIOError:
                raise PoolBusy(f"the pool {self.directory!r} is open already; close it there or take another directory") from None
            finally:
                if self._lock != fd:
                    os.close(fd)

    def _unlock(self) -> None:
        lock, self._lock, self._identity = self._lock, -1, None
        if lock >= 0:
            os.close(lock)

    def _delete_unfinished(self) -> None:
        """Deletes the images that were not finished: only a finished one has its name, so none is ever taken for whole."""
        for name in os.listdir(self.directory):
            if name.startswith(_NEW):
                os.unlink(os.path.join(self.directory, name))

    def _make_image(self, kind: _FileSystem, size: int) -> None:
        if size < kind.minimum:
            raise PoolError(f"{size} bytes are too small a pool for {self.file_system}; give {kind.minimum} or more")
        # A new name each time: a mkfs that outlived its killed opener may still write to the old one.
        new = os.path.join(self.directory, _NEW + secrets.token_hex(4))
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(fd, _whole_pages(size))
            _run(kind, kind.make, new)
            os.fsync(fd)
        finally:
            os.close(fd)
        self._fresh = True
        os.rename(new, self._image)
        _sync_directory(self.directory)

    def _know_image(self) -> Identity:
        """Refuses an image that is not a file system of the kind asked for."""
        with _opened(self._image) as fd:
            found = [name for name, kind in _FILE_SYSTEMS.items() if os.pread(fd, 8, kind.magic[0]).startswith(kind.magic[1])]
            if found != [self.file_system]:
                held = found[0] if found else "no file system that a pool can have"
                raise PoolError(f"{self._image!r} holds {held}, not {self.file_system}; open it as what it is, or delete it")
            return _identity(fd)

    def _abandon(self, made: bool) -> None:
        """Undoes an open that failed. Without the lock all that is there is somebody else's."""
        if self._lock < 0:
            return
        try:
            if self._identity:
                _take_apart(self._identity, self.root)
            self._delete_unfinished()
            if self._fresh:
                with suppress(FileNotFoundError):
                    os.unlink(self._image)
            if not os.path.lexists(self._image):  # no pool has been here: the rest is of this open alone
                self._delete_empty(made)
        finally:
            self._unlock()

    def _delete_empty(self, made: bool) -> None:
        with suppress(OSError):  # not there, or not empty and so not ours
            os.rmdir(self.root)
        os.unlink(self._lock_file)
        if made:
            with suppress(OSError):
                os.rmdir(self.directory)

    # What an open pool offers.

    def close(self) -> None:
        """Unmounts, detaches, unlocks; a second close does nothing.

        Raises PoolBusy when something in the pool is still in use: then the pool stays open and can be closed again.
        An interrupt on the way is raised when all is done.
        """
        undisturbed(self._close)

    def _close(self) -> None:
        if self._identity is not None:
            _take_apart(self._identity, self.root)
            self._unlock()

    def sync(self) -> None:
        """Writes all that is dirty in the pool to its image."""
        self._require_open()
        with _opened(self.root) as fd:
            syscalls.syncfs(fd, self.root)

    def trim(self) -> int:
        """Gives what is free in the pool back to the file system below the image; the bytes that were told to be free."""
        self._require_open()
        with _opened(self.root) as fd:
            if self.file_system == "xfs":
                syscalls.xfs_finish_deletions(fd, self.root)
            syscalls.syncfs(fd, self.root)  # what was deleted is free when that is on disk
            try:
                told = syscalls.fitrim(fd, self.root)
            except OSError as error:
                if error.errno == errno.EOPNOTSUPP:
                    raise PoolError(
                        f"no holes can be punched in {self._image!r}; keep it on ext4, xfs, btrfs or tmpfs"
                    ) from error
                raise
        _wait_until_idle(self._device())
        return told

    def grow(self, size: int) -> None:
        """Makes the pool `size` bytes large while it is in use. A grow that was interrupted is completed by the next.

        Raises PoolError before anything is done when that is smaller than it is or a capability is lacking, and when the file
        system does not follow: then the pool stays as it was for its users.
        """
        self._require_open()
        kind, pages = _FILE_SYSTEMS[self.file_system], _whole_pages(size)
        if not _capable(kind.grow_capability):
            raise PoolError(
                f"{self.file_system} grows on line for a process with CAP_SYS_RESOURCE only; give it that, or take xfs or btrfs"
            )
        number = self._device()
        with _opened(self._image, os.O_RDWR) as image, _opened_loop(number) as device:
            now = os.fstat(image).st_size
            if pages < (least := max(now, kind.grow_minimum)):
                raise PoolError(f"a pool of {self.file_system} only grows, and to {least} bytes or more here; give that")
            if self._identity != _identity(image) or not _is_on(device, _identity(image)):
                raise PoolError(f"{self._image!r} is not the image that the pool was opened with; put that one back")
            os.ftruncate(image, pages)
            syscalls.loop_set_capacity(device)
        _run(kind, tuple(word.format(device=f"/dev/loop{number}", root=self.root) for word in kind.grow))

    def _device(self) -> int:
        mounts = mount_table(self.root)
        number = _device_number(mounts[0].source) if mounts else -1
        if number < 0:
            raise PoolError(f"{self.root!r} was unmounted by somebody else; close the pool and open it again")
        return number

    def release_ballast(self) -> None:
        """Frees a little room in a pool that is full, so that a removal can be recorded."""
        self._require_open()
        with _opened(self.root) as fd:
            with suppress(FileNotFoundError):
                os.unlink(self._ballast)
            with suppress(OSError):  # freed blocks count when that is on disk; where it fails, the caller's next write tells
                syscalls.syncfs(fd, self.root)

    def restore_ballast(self) -> bool:
        """Takes that room again; False when the pool is too full."""
        self._require_open()
        with suppress(FileNotFoundError):
            if os.stat(self._ballast).st_blocks * 512 >= BALLAST:
                return True
        try:
            with _opened(self._ballast, os.O_RDWR | os.O_CREAT) as fd:
                os.posix_fallocate(fd, 0, BALLAST)
            return True
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        with suppress(FileNotFoundError):
            os.unlink(self._ballast)
        return False

    def _require_open(self) -> None:
        if self._identity is None:
            raise PoolError(f"the pool {self.directory!r} is closed; open it again")


# --- taking apart ---


def _take_apart(image: Identity, root: str, patience: float = PATIENCE) -> None:
    """Unmounts `root` if it is mounted from `image`, and waits until no loop device is on `image`. All may be gone already."""
    deadline = time.monotonic() + patience
    while mounts := mount_table(root):
        top = mounts[-1]
        if top.point != root or not _ask(_device_number(top.source), image):
            raise PoolBusy(f"{top.point!r} is mounted in the pool and is not the pool's; unmount it, then try again")
        try:
            unmount_top(root, deadline - time.monotonic())
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise PoolBusy(f"{root!r} is still in use; close the files in it (fuser -vm {root}), then try again") from error
    _detach(image, deadline)


def _detach(image: Identity, deadline: float) -> None:
    """Detaches the loop devices on `image`. One that is still mounted elsewhere stays: a second mount would destroy the data."""
    pause = 0.001
    while numbers := [number for number in _candidates() if _ask(number, image, detach=True)]:
        if time.monotonic() >= deadline:
            names = ", ".join(f"/dev/loop{number}" for number in numbers)
            raise PoolBusy(f"{names} is still in use; unmount what stands on it, in every mount namespace, then try again")
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def _candidates() -> list[int]:
    """The loop devices on a file with an image's name: the others are somebody else's and are not even opened."""
    with os.scandir("/sys/block") as entries:
        names = [entry.name for entry in entries if _device_number(f"/dev/{entry.name}") >= 0]
    numbers = []
    for name in names:
        with suppress(OSError), open(f"/sys/block/{name}/loop/backing_file", "rb") as file:  # gone when it is on no file
            path = file.read().rstrip(b"\n").removesuffix(b" (deleted)")
            if os.path.basename(path) == os.fsencode(_IMAGE):
                numbers.append(_device_number(f"/dev/{name}"))
    return numbers


def _device_number(path: str) -> int:
    """The number of the loop device `path`; -1 when it is none."""
    match = re.fullmatch(r"/dev/loop(\d+)", path)
    return int(match[1]) if match else -1


def _ask(number: int, image: Identity, *, detach: bool = False) -> bool:
    """Whether loop device `number` is on `image`; if so it is asked to go when `detach` says it.

    It is open here between the question and the demand, so it cannot come to be on another file meanwhile.
    """
    if number < 0:
        return False
    try:
        with _opened_loop(number) as device:
            ours = _is_on(device, image)
            if ours and detach:
                syscalls.loop_clr_fd(device)
            return ours
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO):  # it went by itself
            return False
        raise


def _wait_until_idle(number: int) -> None:
    """Waits until loop device `number` has nothing to do, but not for long: xfs does not wait for the holes that it asks for."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        with open(f"/sys/block/loop{number}/inflight") as file:
            if not any(map(int, file.read().split())):
                return
        time.sleep(0.001)


def _is_on(device: int, image: Identity) -> bool:
    status = syscalls.loop_status(device)
    return status is not None and (status.device, status.inode) == image


# --- programs and files ---


def _run(kind: _FileSystem, command: tuple[str, ...], image: str = "") -> None:
    code, output = _finish(kind, command, image)
    if code != 0:
        raise PoolError(f"{command[0]} failed with status {code}: {output or 'it gives no reason'}")


def _check(kind: _FileSystem, image: str) -> None:
    """Recovers a file system that was not unmounted. Status 1: faults were found and mended."""
    code, output = _finish(kind, kind.check, image)
    if code not in (0, 1):
        raise PoolError(f"{image!r} is damaged; mend it with {kind.check[0]} -f, or delete it; {kind.check[0]} says: {output}")


def _finish(kind: _FileSystem, command: tuple[str, ...], image: str) -> tuple[int, str]:
    """Runs a program of the file system to its end; status and output."""
    program = shutil.which(command[0], path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if program is None:
        raise ToolMissing(f"{command[0]} is not installed; install the Debian package {kind.package}")
    words = [program, *(image if word == "{}" else word for word in command[1:])]
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, check=False
    )
    return done.returncode, done.stdout.decode(errors="replace").strip()


def _capable(capability: int) -> bool:
    with open("/proc/thread-self/status") as file:
        held = re.search(r"^CapEff:\s*([0-9a-f]+)$", file.read(), re.MULTILINE)
    return held is not None and bool(int(held[1], 16) >> capability & 1)


def _require_loop() -> None:
    """Refuses, before anything is made, where loop devices are refused."""
    with _refusals_explained("loop"):
        os.close(os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC))


@contextmanager
def _refusals_explained(needed: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES) or error.filename == "/dev/loop-control":
            raise PoolError(
                f"a pool needs root and loop devices (modprobe loop); use a plain directory instead ({error})"
            ) from error
        if error.errno == errno.ENODEV:
            raise PoolError(f"this kernel has no {needed}; load it (modprobe {needed}) or take another file system") from error
        raise


@contextmanager
def _opened(path: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _opened_loop(number: int) -> Iterator[int]:
    device = open_loop(number, os.O_RDONLY)
    try:
        yield device
    finally:
        os.close(device)


def _identity(fd: int) -> Identity:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _sync_directory(directory: str) -> None:
    with _opened(directory) as fd:
        os.fsync(fd)
