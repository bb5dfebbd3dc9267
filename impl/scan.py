"""What a directory takes on its file system: the blocks and inodes below it, each inode once (SNAP-USAGE)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from threading import Event

from snapspec.model.values import Usage

#: The unit of st_blocks, whatever the file system's own block is.
SECTOR = 512

# Room for the rest of a path in one system call, which takes no more than 4096 bytes.
_LONGEST_PATH = 4000


class Stopped(Exception):
    """The scan was told to stop."""


def measure(directory: str, stop: Event) -> Usage:
    """The allocated bytes and the distinct inodes of `directory`, itself included; other file systems in it are left out.

    What vanishes or moves during the scan is passed over. Raises Stopped soon after `stop` is set, OSError when
    `directory` itself is not there or something in it cannot be read.
    """
    top = open_directory(directory)
    try:
        root = os.fstat(top)
        # Only an inode with several links can come twice: the others need not be remembered.
        linked: set[int] = set()
        size, inodes = root.st_blocks * SECTOR, 1
        for info in _below(top, root.st_dev, stop):
            if info.st_nlink > 1 and not _is_directory(info):
                if info.st_ino in linked:
                    continue
                linked.add(info.st_ino)
            size += info.st_blocks * SECTOR
            inodes += 1
    finally:
        os.close(top)
    return Usage(size, inodes)


def _below(top: int, device: int, stop: Event) -> Iterator[os.stat_result]:
    """The status of everything below the directory `top` on `device`; a file of several links comes once for each."""
    waiting = [""]
    while waiting:
        if stop.is_set():
            raise Stopped
        path = waiting.pop()
        for name, info in _entries(top, path, stop):
            if info.st_dev != device:
                continue
            yield info
            if _is_directory(info):
                waiting.append(f"{path}/{name}" if path else name)


def _entries(top: int, path: str, stop: Event) -> Iterator[tuple[str, os.stat_result]]:
    """The entries of one directory; none when it is gone, or no directory any more."""
    try:
        directory = open_below(top, path)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if stop.is_set():
                    raise Stopped
                try:
                    yield entry.name, entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
    finally:
        os.close(directory)


def _is_directory(info: os.stat_result) -> bool:
    return info.st_mode & 0o170000 == 0o040000


def open_directory(path: str, parent: int | None = None) -> int:
    """A descriptor of the directory `path`, which is no symbolic link."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def open_below(top: int, path: str) -> int:
    """A descriptor of the directory `path` below `top` ("" for itself), however deep: no path is too long."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        return open_directory(path or ".", top)
    names = path.split("/")
    half = len(names) // 2
    above = open_below(top, "/".join(names[:half]))
    try:
        return open_below(above, "/".join(names[half:]))
    finally:
        os.close(above)
