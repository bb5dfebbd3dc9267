"""What befalls the file system that holds the layers, for real: it is full, it is read-only, the kernel has given it up."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from snapspec.conformance.faults import How
from snapspec.conformance.faults.leaks import MountPoint
from snapspec.impl import syscalls
from snapspec.impl.mounts import unmount_top

#: The file by which the kit fills a file system. It is the kit's own, and gone afterwards.
_FILLER = "snapspec-filler"

_BLOCK = 4096


@contextmanager
def befallen(how: How, place: MountPoint) -> Iterator[None]:
    """For as long as the block lasts, the file system mounted at `place`, the kit's own or the driver's pool, is as `how` says.

    One that was given up stays so until it is unmounted.
    """
    if how is How.FULL:
        with _full(place.point):
            yield
    elif how is How.READ_ONLY:
        with _read_only(place.point):
            yield
    else:
        _give_up(place)
        yield


@contextmanager
def _full(point: str) -> Iterator[None]:
    path = f"{point}/{_FILLER}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _fill(fd)
        yield
    finally:
        os.unlink(path)
        os.ftruncate(fd, 0)
        os.fsync(fd)
        os.close(fd)
        _synced(point)


def _fill(fd: int) -> None:
    """Take every block that is free, in ever smaller pieces; twice, for what was freed and not yet on the disk counts later."""
    size = 0
    for _ in range(2):
        piece = os.fstatvfs(fd).f_bavail * os.fstatvfs(fd).f_frsize + _BLOCK
        while piece >= _BLOCK:
            try:
                os.posix_fallocate(fd, size, piece)
                size += piece
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                piece //= 2
        os.fsync(fd)


@contextmanager
def _read_only(point: str) -> Iterator[None]:
    """A second mount of the same on top, which is read-only: the first cannot be so while files in it are open to be written."""
    syscalls.mount(point, point, "none", syscalls.MS_BIND)
    try:
        syscalls.mount("none", point, "none", syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY)
        yield
    finally:
        unmount_top(point)


def _give_up(place: MountPoint) -> None:
    """As the kernel does when its journal fails: from now on nothing reaches the disk. What came before does."""
    assert place.type == "ext4", "others cannot be told to"
    _synced(place.point)
    syscalls.mount("none", place.point, place.type, syscalls.MS_REMOUNT, "abort")


def _synced(point: str) -> None:
    fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(fd, point)
    finally:
        os.close(fd)
