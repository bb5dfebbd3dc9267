"""A file that keeps a record of every write and every flush that reaches it: what a disk would have been told, in that order.

A process of the kit serves a directory of files through FUSE. A loop device on such a file, and a file system on that, tell it
all that they would tell a disk. Each image has a log beside it, which is written before a write or a flush is answered: the
length of the log, taken after a call has answered, counts all that the disk was told before that.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from snapspec.conformance.durable.process import Process
from snapspec.conformance.errors import CannotRun
from snapspec.impl import syscalls
from snapspec.impl.mounts import mount_table, mountpoints_below, unmount_top

#: Seconds that the process has to serve its first file.
PATIENCE = 10.0

_HEADER = struct.Struct("<BQQ")
_MNT_DETACH = 0x2
_KEEP_SIZE, _PUNCH, _ZERO = 0x1, 0x2, 0x10  # FALLOC_FL_...


class Told(IntEnum):
    """What a disk is told."""

    WRITE = 1
    ZERO = 2
    FLUSH = 3


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that the disk was told; `end` is the length of the log when it was in it. `data` is empty but for a write."""

    told: Told
    offset: int
    length: int
    data: bytes
    end: int


def read_log(path: Path) -> tuple[Event, ...]:
    """All events of a log, in order. One whose record is not whole was not answered, and is left out."""
    raw = path.read_bytes()
    events, at = [], 0
    while at + _HEADER.size <= len(raw):
        told, offset, length = _HEADER.unpack_from(raw, at)
        begin = at + _HEADER.size
        at = begin + (length if told == Told.WRITE else 0)
        if at <= len(raw):
            events.append(Event(Told(told), offset, length, raw[begin:at], at))
    return tuple(events)


def lacking() -> str:
    """Why nothing can be recorded here, with the remedy; empty where it can."""
    if not os.path.exists("/dev/fuse"):
        return "power cuts need FUSE: load it (modprobe fuse)"
    if importlib.util.find_spec("mfusepy") is None:
        return "power cuts need the Python package mfusepy: install snapspec[power]"
    try:
        importlib.import_module("mfusepy")
    except OSError as error:
        return f"power cuts need libfuse3: install the Debian package fuse3 ({error})"
    return ""


class Recorder:
    """The process that serves. `backing` holds the images and their logs, `served` shows the images through FUSE."""

    def __init__(self, directory: Path, process: Process) -> None:
        self.backing = directory / "backing"
        self.served = directory / "served"
        self.process = process
        self._count = 0

    def name(self) -> str:
        """A name for an image that none has had: the kernel and the process remember what was under a name."""
        self._count += 1
        return f"{self._count}.img"

    def log(self, name: str) -> Path:
        """The log of the image `name`."""
        return self.backing / f"{name}.log"

    def position(self, name: str) -> int:
        """How long the log of the image `name` is by now."""
        return self.log(name).stat().st_size

    @contextmanager
    def under(self, image: Path, name: str) -> Iterator[None]:
        """For as long as the block lasts, what is written to the file `image` goes through the recorder to the image `name`."""
        self.log(name).touch()
        syscalls.mount(str(self.served / name), str(image), "none", syscalls.MS_BIND)
        try:
            yield
        finally:
            unmount_top(str(image))

    def require(self) -> None:
        """CannotRun when the process has ended, or is about to: what it served is gone first."""
        try:
            os.listdir(self.served)
        except OSError as error:
            raise CannotRun(f"the recorder of writes is gone ({error.strerror}): run again") from error

    def forget(self, name: str) -> None:
        """Delete the image `name` and its log."""
        self.log(name).unlink(missing_ok=True)
        (self.backing / name).unlink(missing_ok=True)


@contextmanager
def recording(directory: Path) -> Iterator[Recorder]:
    """A recorder in the new directory `directory`, for as long as the block lasts. CannotRun, with the remedy, where none can be.

    Afterwards its process has ended and its mount is gone, however the block ends, and also when the process has ended before.
    """
    why = lacking()
    if why:
        raise CannotRun(why)
    directory.mkdir(0o700)
    words = (sys.executable, "-m", "snapspec.conformance.durable.recorder", str(directory / "backing"), str(directory / "served"))
    recorder = Recorder(directory, Process(words, directory / "recorder.log"))
    recorder.backing.mkdir(0o700)
    recorder.served.mkdir(0o700)
    try:
        recorder.process.start()
        _wait(recorder)
        yield recorder
    finally:
        _end(recorder)


def _wait(recorder: Recorder) -> None:
    deadline = time.monotonic() + PATIENCE
    while not _is_served(recorder):
        why = recorder.process.ended() or ("it serves nothing" if time.monotonic() > deadline else "")
        if why:
            raise CannotRun(f"the recorder of writes did not come up ({why}): install the Debian package fuse3")
        time.sleep(0.005)


def _is_served(recorder: Recorder) -> bool:
    return any(mount.point == str(recorder.served) for mount in mount_table(str(recorder.served.parent)))


def _end(recorder: Recorder) -> None:
    """The mount first: the process then ends by itself. One that is gone already has left a mount that answers nothing, not even
    what it is: it is looked for from above."""
    try:
        for point in reversed(mountpoints_below(str(recorder.served.parent))):
            unmount_top(point)
    finally:
        recorder.process.end(kill=True)


def punch_hole(fd: int, offset: int, size: int) -> None:
    """Zeros in a file, which take no room."""
    arguments = (ctypes.c_int(fd), ctypes.c_int(_KEEP_SIZE | _PUNCH), ctypes.c_int64(offset), ctypes.c_int64(size))
    if ctypes.CDLL(None, use_errno=True).fallocate64(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"fallocate: {os.strerror(code)}")


# --- in the process


class Files:
    """The calls of FUSE for a directory without directories: the files of `backing`, and a log for each that is written to."""

    use_ns = True

    def __init__(self, backing: str) -> None:
        self._backing = os.open(backing, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._logs: dict[str, int] = {}
        self._files: dict[str, int] = {}

    def init(self, _: str) -> None:
        """Once all is mounted, leave the namespace of whoever started this, and with it all that is mounted there.

        The last process in a namespace unmounts what is in it when it ends. If that were this one, the file system over its own
        file would wait for ever for an answer of a process that is ending.
        """
        syscalls.enter_private_namespace()
        for mount in reversed(mount_table("/")):
            if mount.point != "/":
                syscalls.umount2(mount.point, _MNT_DETACH)

    def getattr(self, path: str, _: int | None = None) -> dict[str, int]:
        """The attributes of a file, as stat tells them."""
        status = os.stat(_relative(path), dir_fd=self._backing)
        return {name: getattr(status, name) for name in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_mtime_ns")}

    def readdir(self, _: str, __: int) -> list[str]:
        """All names."""
        return [".", "..", *os.listdir(self._backing)]

    def open(self, path: str, _: int) -> int:
        """Open for reading and writing; each file has one descriptor, which stays open as long as the file is there."""
        if path not in self._files:
            name, log = _relative(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._files[path] = os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._backing)
            self._logs[path] = os.open(f"{name}.log", log, 0o600, dir_fd=self._backing)
            self._drop_deleted()
        return 0

    def _drop_deleted(self) -> None:
        for path in [path for path, fd in self._files.items() if os.fstat(fd).st_nlink == 0]:
            os.close(self._files.pop(path))
            os.close(self._logs.pop(path))

    def read(self, path: str, size: int, offset: int, _: int) -> bytes:
        """Some bytes."""
        return os.pread(self._files[path], size, offset)

    def write(self, path: str, data: bytes, offset: int, _: int) -> int:
        """Some bytes, and a record of them."""
        os.pwrite(self._files[path], data, offset)
        os.writev(self._logs[path], (_HEADER.pack(Told.WRITE, offset, len(data)), data))
        return len(data)

    def fallocate(self, path: str, mode: int, offset: int, size: int, _: int) -> int:
        """What a disk is told to discard or to fill with zeros reads as zeros afterwards."""
        if not mode & (_PUNCH | _ZERO):
            raise OSError(errno.EOPNOTSUPP, "room is not set aside")
        punch_hole(self._files[path], offset, size)
        os.write(self._logs[path], _HEADER.pack(Told.ZERO, offset, size))
        return 0

    def fsync(self, path: str, _: int, __: int) -> int:
        """A record of the flush. Nothing has to reach a disk here."""
        os.write(self._logs[path], _HEADER.pack(Told.FLUSH, 0, 0))
        return 0


def _relative(path: str) -> str:
    return path.lstrip("/") or "."


def serve(backing: str, served: str) -> None:
    """Serve `backing` at `served` until that is unmounted. One call at a time: the order of the log is that of the disk."""
    mfusepy: Any = importlib.import_module("mfusepy")
    mfusepy.FUSE(Files(backing), served, foreground=True, nothreads=True, fsname="snapspec-recorder")


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
