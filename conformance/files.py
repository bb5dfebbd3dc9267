"""Real files: read a mounted tree as a value, make one change below it, measure what a directory takes.

Everything goes through directory descriptors and follows no symlink, so nothing outside the tree is read or touched.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from snapspec.impl.syscalls import syncfs
from snapspec.model.frozen import Map
from snapspec.model.nodes import canonical, device_error, is_xattr
from snapspec.model.tree import (
    BLOCK,
    Change,
    Data,
    FileType,
    Link,
    MakeDevice,
    MakeDirectory,
    MakeFifo,
    MakeFile,
    MakeSymlink,
    Node,
    Path,
    RemoveDirectory,
    RemoveTree,
    RemoveXattr,
    Rename,
    SetMode,
    SetOwner,
    SetXattr,
    Tree,
    Truncate,
    Unlink,
    WriteAt,
    argument_error,
)
from snapspec.model.values import Usage

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 256 * BLOCK  # read at a time

_TYPES = {
    stat.S_IFREG: FileType.FILE,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFLNK: FileType.SYMLINK,
    stat.S_IFIFO: FileType.FIFO,
    stat.S_IFCHR: FileType.CHAR,
    stat.S_IFBLK: FileType.BLOCK_DEVICE,
    stat.S_IFSOCK: FileType.SOCKET,
}


@contextmanager
def _opened(name: str, flags: int, at: int | None = None) -> Iterator[int]:
    fd = os.open(name, flags, dir_fd=at)
    try:
        yield fd
    finally:
        os.close(fd)


# Reading


def scan(root: str) -> Tree:
    """The tree below the directory `root`, itself included: all that the model counts as content (SNAP-CONTENT-1).

    Names are one inode when device and inode number agree: overlay's link counts tell nothing. Attributes other than user.*,
    trusted.* and file capabilities are left out, and so are those that overlay keeps for itself. Raises OSError for what
    cannot be read.
    """
    found: dict[Path, Node] = {}
    inodes: dict[tuple[int, int], list[Path]] = {}
    with _opened(root, _DIRECTORY) as top:
        found[""] = _node(os.fstat(top), _xattrs(f"/proc/self/fd/{top}"))
        _scan_below(top, "", found, inodes)
    for names in inodes.values():
        if len(names) > 1:
            found.update((name, replace(found[name], links=tuple(sorted(names)))) for name in names)
    return Tree(Map(found))


def _scan_below(directory: int, prefix: str, found: dict[Path, Node], inodes: dict[tuple[int, int], list[Path]]) -> None:
    for name in os.listdir(directory):
        info, path = os.stat(name, dir_fd=directory, follow_symlinks=False), prefix + name
        node = _node(info, _xattrs(f"/proc/self/fd/{directory}/{name}"))
        if node.type is FileType.DIRECTORY:
            found[path] = node
            with _opened(name, _DIRECTORY, directory) as fd:
                _scan_below(fd, f"{path}/", found, inodes)
            continue
        inodes.setdefault((info.st_dev, info.st_ino), []).append(path)
        if node.type is FileType.FILE:
            with _opened(name, os.O_RDONLY | _FILE, directory) as fd:
                node = replace(node, data=_data(fd, info.st_size))
        elif node.type is FileType.SYMLINK:
            node = replace(node, target=os.readlink(name, dir_fd=directory))
        found[path] = node


def _node(info: os.stat_result, xattrs: tuple[tuple[str, bytes], ...]) -> Node:
    kind = _TYPES[stat.S_IFMT(info.st_mode)]
    is_device = kind in (FileType.CHAR, FileType.BLOCK_DEVICE)
    rdev = (os.major(info.st_rdev), os.minor(info.st_rdev)) if is_device else (0, 0)
    return Node(kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, xattrs, rdev=rdev)


def _xattrs(path: str) -> tuple[tuple[str, bytes], ...]:
    follow = path.rpartition("/")[0] == "/proc/self/fd"  # a descriptor is a link in /proc; what is below one may be a symlink
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return ()
        raise
    return tuple(sorted((name, os.getxattr(path, name, follow_symlinks=follow)) for name in names if is_xattr(name)))


def _data(fd: int, size: int) -> Data:
    blocks: dict[int, bytes] = {}
    for start, end in _segments(fd, size):
        for offset in range(start, end, _CHUNK):
            chunk = os.pread(fd, min(_CHUNK, end - offset), offset)
            blocks.update(((offset + at) // BLOCK, chunk[at : at + BLOCK]) for at in range(0, len(chunk), BLOCK))
    return Data(size, canonical(blocks))


def _segments(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no hole, widened to whole blocks."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        hole = os.lseek(fd, start, os.SEEK_HOLE)
        start, end = max(start // BLOCK * BLOCK, end), -(-hole // BLOCK) * BLOCK
        yield start, end


# Changing


def apply(root: str, change: Change) -> str:
    """Make one change below the directory `root`, whatever the umask is: "ok", or the name of the errno that refused it.

    The mode is kept where the kernel might clear set-id bits. Fifos and devices are never opened, and a whole tree is removed
    only when nothing is mounted in it (EXDEV). Raises OSError when `root` itself cannot be opened.
    """
    error = argument_error(change)
    if error:
        return error
    with _opened(root, _DIRECTORY) as top:
        try:
            _change(top, change)
        except OSError as refusal:
            return _name_of(refusal)
    return "ok"


def _name_of(error: OSError) -> str:
    if error.errno == errno.EOPNOTSUPP:  # Python calls it ENOTSUP, which is the same number
        return "EOPNOTSUPP"
    return errno.errorcode.get(error.errno or 0, f"errno {error.errno}")


def _refuse(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _change(top: int, change: Change) -> None:
    if isinstance(change, Link):
        _link(top, change)
    elif isinstance(change, Rename):
        _rename(top, change)
    else:
        with _parent(top, change.path) as (at, name):
            _change_entry(at, name, change)


def _change_entry(at: int, name: str, change: Change) -> None:
    match change:
        case MakeFile():
            _make_file(at, name, change)
        case MakeSymlink():
            os.symlink(change.target, name, dir_fd=at)
        case MakeDirectory() | MakeFifo() | MakeDevice():
            _make(at, name, change)
        case Unlink():
            os.unlink(name, dir_fd=at)
        case RemoveDirectory():
            os.rmdir(name, dir_fd=at)
        case RemoveTree():
            _remove_tree(at, name)
        case WriteAt() | Truncate():
            _write(at, name, change)
        case SetMode() | SetOwner() | SetXattr() | RemoveXattr():
            _set_attribute(at, name, change)


@contextmanager
def _parent(top: int, path: Path) -> Iterator[tuple[int, str]]:
    """The directory above `path` and the last name; the root is "." in itself."""
    *directories, name = path.split("/")
    at = os.dup(top)
    try:
        for part in directories:
            below = os.open(part, _DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        yield at, name or "."
    finally:
        os.close(at)


def _make(at: int, name: str, change: MakeDirectory | MakeFifo | MakeDevice) -> None:
    match change:
        case MakeDirectory():
            os.mkdir(name, 0o700, dir_fd=at)
        case MakeFifo():
            os.mkfifo(name, 0o600, dir_fd=at)
        case MakeDevice():
            _make_device(at, name, change)
    with _inode(at, name) as path:
        os.chmod(path, change.mode & 0o7777)


def _make_file(at: int, name: str, change: MakeFile) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=at)
    try:
        _write_all(fd, change.data, 0)
        os.fchmod(fd, change.mode & 0o7777)
    except OSError:
        os.unlink(name, dir_fd=at)  # a change that fails changes nothing, on a full disk too
        raise
    finally:
        os.close(fd)


def _make_device(at: int, name: str, change: MakeDevice) -> None:
    if device_error(change.type, change.major, change.minor):
        # Character device 0/0 is how overlay hides a name. Never made here; an existing name wins, as in mknod(2).
        with suppress(FileNotFoundError), _opened(name, os.O_PATH | _FILE, at):
            raise _refuse(errno.EEXIST)
        raise _refuse(errno.EPERM)
    kind = stat.S_IFCHR if change.type is FileType.CHAR else stat.S_IFBLK
    os.mknod(name, kind | 0o600, os.makedev(change.major, change.minor), dir_fd=at)


@contextmanager
def _inode(at: int, name: str) -> Iterator[str]:
    """A path to the inode itself, for calls that would follow a symlink and take no descriptor opened with O_PATH."""
    with _opened(name, os.O_PATH | _FILE, at) as fd:
        yield f"/proc/self/fd/{fd}"


def _link(top: int, change: Link) -> None:
    with _parent(top, change.to) as (at, name):
        os.stat(name, dir_fd=at, follow_symlinks=False)
        with _parent(top, change.path) as (to, new):
            os.link(name, new, src_dir_fd=at, dst_dir_fd=to, follow_symlinks=False)


def _rename(top: int, change: Rename) -> None:
    with _parent(top, change.source) as (at, name), _parent(top, change.path) as (to, new):
        try:
            os.rename(name, new, src_dir_fd=at, dst_dir_fd=to)
        except FileExistsError:  # XFS says of a directory that is not empty what POSIX allows as well
            raise _refuse(errno.ENOTEMPTY) from None


def _write(at: int, name: str, change: WriteAt | Truncate) -> None:
    info = os.stat(name, dir_fd=at, follow_symlinks=False)
    if not stat.S_ISREG(info.st_mode):
        codes = {stat.S_IFDIR: errno.EISDIR, stat.S_IFLNK: errno.ELOOP}
        raise _refuse(codes.get(stat.S_IFMT(info.st_mode), errno.EINVAL))
    with _opened(name, os.O_WRONLY | _FILE, at) as fd:
        if isinstance(change, WriteAt):
            _write_all(fd, change.data, change.offset)
        else:
            os.ftruncate(fd, change.size)
        if os.fstat(fd).st_mode != info.st_mode:
            os.fchmod(fd, stat.S_IMODE(info.st_mode))


def _write_all(fd: int, data: bytes, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


def _set_attribute(at: int, name: str, change: SetMode | SetOwner | SetXattr | RemoveXattr) -> None:
    info = os.stat(name, dir_fd=at, follow_symlinks=False)
    with _inode(at, name) as path:
        match change:
            case SetMode(mode=mode):
                if stat.S_ISLNK(info.st_mode):
                    raise _refuse(errno.EOPNOTSUPP)
                os.chmod(path, mode & 0o7777)
            case SetOwner(uid=uid, gid=gid):
                os.chown(path, uid, gid)
                if os.stat(path).st_mode != info.st_mode:
                    os.chmod(path, stat.S_IMODE(info.st_mode))
            case SetXattr(name=attribute, value=value):
                os.setxattr(path, attribute, value)
            case RemoveXattr(name=attribute):
                os.removexattr(path, attribute)


def _remove_tree(at: int, name: str) -> None:
    with _opened(name, _DIRECTORY, at) as fd:
        mount = _mount_of(at)
        _descend(fd, mount, remove=False)
        _descend(fd, mount, remove=True)
    os.rmdir(name, dir_fd=at)


def _descend(directory: int, mount: str, *, remove: bool) -> None:
    """Go through all below `directory`, removing it when asked; EXDEV when a directory belongs to another mount."""
    if _mount_of(directory) != mount:
        raise _refuse(errno.EXDEV)
    for name in os.listdir(directory):
        is_directory = stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
        if is_directory:
            with _opened(name, _DIRECTORY, directory) as fd:
                _descend(fd, mount, remove=remove)
        if remove:
            (os.rmdir if is_directory else os.unlink)(name, dir_fd=directory)


def _mount_of(fd: int) -> str:
    """The mount that an open directory belongs to; a bind mount has the same device as what is around it."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
        return next(line for line in lines if line.startswith("mnt_id:"))


# Measuring


def measure(directory: str) -> Usage:
    """What `directory`, itself included, takes once all is on disk: allocated bytes and number of distinct inodes (SNAP-USAGE-5).

    What is mounted in it from another file system is left out. Raises OSError for what cannot be read.
    """
    with _opened(directory, _DIRECTORY) as top:
        syncfs(top, directory)
        root = os.fstat(top)
        inodes = {root.st_ino: root.st_blocks * 512}
        _measure_below(top, root.st_dev, inodes)
    return Usage(sum(inodes.values()), len(inodes))


def _measure_below(directory: int, device: int, inodes: dict[int, int]) -> None:
    for name in os.listdir(directory):
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if info.st_dev != device:
            continue
        inodes[info.st_ino] = info.st_blocks * 512
        if stat.S_ISDIR(info.st_mode):
            with _opened(name, _DIRECTORY, directory) as fd:
                _measure_below(fd, device, inodes)


# What the environment permits


@dataclass(frozen=True, slots=True)
class Permits:
    """Which content may be made in a place: files of other owners, device nodes, trusted.* and user.* attributes."""

    other_owners: bool
    devices: bool
    trusted_xattrs: bool
    user_xattrs: bool

    @property
    def lacks(self) -> list[str]:
        """What of it may not be made, in words."""
        words = ("files of other owners", "device nodes", "trusted attributes", "user attributes")
        may = (self.other_owners, self.devices, self.trusted_xattrs, self.user_xattrs)
        return [word for word, permitted in zip(words, may, strict=True) if not permitted]


def permits(directory: str) -> Permits:
    """What may be made in `directory`, tried out in a directory of its own that is removed again."""
    scratch = tempfile.mkdtemp(prefix="permits-", dir=directory)
    try:
        return Permits(
            other_owners=_works(lambda: os.chown(scratch, 54321, 54321)),
            devices=_works(lambda: os.mknod(f"{scratch}/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))),
            trusted_xattrs=_works(lambda: os.setxattr(scratch, "trusted.snapspec", b"1")),
            user_xattrs=_works(lambda: os.setxattr(scratch, "user.snapspec", b"1")),
        )
    finally:
        shutil.rmtree(scratch)


def _works(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True
