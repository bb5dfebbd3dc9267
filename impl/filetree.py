"""Copies of directories and of their metadata, through descriptors, so that no path is too long and no link is followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

from snapspec.impl.scan import Stopped, open_below, open_directory

_CHUNK = 1 << 20


def copy_metadata(source: str, target: str, info: os.stat_result, without: tuple[str, ...] = ()) -> None:
    """Give `target` the owner, extended attributes, mode and times that `source` with the status `info` has.

    Attributes whose names begin with one of `without` are left out. What this process may not set is passed over: another
    owner, and attributes outside the user namespace. Symbolic links are not followed. Raises OSError.
    """
    mode = stat.S_IMODE(info.st_mode)
    # In this order: a new owner takes file capabilities and the set-id bits away, and the mode may forbid the attributes.
    if not _own(target, info):
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
    for name in os.listxattr(source, follow_symlinks=False):
        if not name.startswith(without):
            _copy_attribute(source, target, name)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(target, mode)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def _own(target: str, info: os.stat_result) -> bool:
    try:
        os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    except PermissionError:
        return False
    return True


def _copy_attribute(source: str, target: str, name: str) -> None:
    value = os.getxattr(source, name, follow_symlinks=False)
    try:
        os.setxattr(target, name, value, follow_symlinks=False)
    except OSError as error:
        if name.startswith("user.") or error.errno not in (errno.EPERM, errno.EACCES, errno.ENOTSUP):
            raise


def copy_tree(source: str, target: str, stop: Event) -> None:
    """Fill the empty directory `target` with everything below `source`, and give it the metadata of `source` too.

    Hard links stay links, holes stay holes. Raises Stopped soon after `stop` is set; OSError, then `target` is half filled.
    """
    old = open_directory(source)
    try:
        new = open_directory(target)
        try:
            _Copy(old, new, stop).run()
        finally:
            os.close(new)
    finally:
        os.close(old)


class _Copy:
    """One copy under way: the descriptors of both top directories, and where each file of several links was put."""

    def __init__(self, old: int, new: int, stop: Event) -> None:
        self.old = old
        self.new = new
        self.stop = stop
        self.links: dict[tuple[int, int], tuple[str, str]] = {}

    def run(self) -> None:
        """Copy level by level; then the metadata of the directories, the deepest first, for filling one changes its times."""
        paths = [""]
        for path in paths:  # grows on the way
            paths.extend(f"{path}/{name}" if path else name for name in self._fill(path))
        for path in reversed(paths):
            with self._opened(path) as (old, new):
                copy_metadata(f"/proc/self/fd/{old}/.", f"/proc/self/fd/{new}/.", os.fstat(old))

    @contextmanager
    def _opened(self, path: str) -> Iterator[tuple[int, int]]:
        """The old and the new directory of `path`."""
        old = open_below(self.old, path)
        try:
            new = open_below(self.new, path)
            try:
                yield old, new
            finally:
                os.close(new)
        finally:
            os.close(old)

    def _fill(self, path: str) -> list[str]:
        """Copy the entries of one directory; the names of the directories among them, which are made empty."""
        directories = []
        with self._opened(path) as (old, new), os.scandir(old) as entries:
            for entry in entries:
                if self.stop.is_set():
                    raise Stopped
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    os.mkdir(entry.name, 0o700, dir_fd=new)
                    os.chmod(entry.name, 0o700, dir_fd=new)  # whatever the umask: it is to be filled
                    directories.append(entry.name)
                elif info.st_nlink == 1 or not self._link(info, path, entry.name, new):
                    self._copy(old, new, entry.name, info)
        return directories

    def _link(self, info: os.stat_result, path: str, name: str, new: int) -> bool:
        """Make `name` a link to the copy that is there already; False, and remembered, when this is the first of its links."""
        first = self.links.setdefault((info.st_dev, info.st_ino), (path, name))
        if first == (path, name):
            return False
        directory = open_below(self.new, first[0])
        try:
            os.link(first[1], name, src_dir_fd=directory, dst_dir_fd=new, follow_symlinks=False)
        finally:
            os.close(directory)
        return True

    def _copy(self, old: int, new: int, name: str, info: os.stat_result) -> None:
        if stat.S_ISREG(info.st_mode):
            self._copy_file(old, new, name, info.st_size)
        elif stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=old), name, dir_fd=new)
        else:
            os.mknod(name, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev, dir_fd=new)
        copy_metadata(f"/proc/self/fd/{old}/{name}", f"/proc/self/fd/{new}/{name}", info)

    def _copy_file(self, old: int, new: int, name: str, size: int) -> None:
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=old)
        try:
            target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=new)
            try:
                os.ftruncate(target, size)
                self._copy_data(source, target)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _copy_data(self, source: int, target: int) -> None:
        """Copy what is data, so that holes stay holes."""
        end = 0
        while True:
            try:
                at = os.lseek(source, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # no more data
                    return
                raise
            end = os.lseek(source, at, os.SEEK_HOLE)
            while block := os.pread(source, min(_CHUNK, end - at), at):
                if self.stop.is_set():
                    raise Stopped
                at += os.pwrite(target, block, at)
