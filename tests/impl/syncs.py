"""A disk that refuses to sync, and what a crash would leave of the files of a store."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import subprocess
from itertools import starmap
from pathlib import Path

import pytest

#: The numbers of fsync and fdatasync.
SYNCS = {"x86_64": (74, 75), "aarch64": (82, 83)}

needs_numbers = pytest.mark.skipif(
    platform.machine() not in SYNCS, reason="the numbers of the calls are known for x86_64 and aarch64 alone"
)


def copy_of(path: str, directory: Path) -> str:
    """A copy, in a new directory, of a store's files as they are now.

    Another process makes it: when a process closes a file, all the locks that it has on it go.
    """
    directory.mkdir()
    subprocess.run(["cp", path, f"{path}-wal", str(directory)], check=True)
    return str(directory / Path(path).name)


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def refuse_syncs() -> None:
    """From now on the kernel refuses every sync of this thread, and of no other, with EIO, as of a disk that fails."""
    fsync, fdatasync = SYNCS[platform.machine()]
    instructions = (
        (0x20, 0, 0, 0),  # load the number of the call
        (0x15, 1, 0, fsync),
        (0x15, 0, 1, fdatasync),
        (0x06, 0, 0, 0x0005_0000 | errno.EIO),
        (0x06, 0, 0, 0x7FFF_0000),  # allow
    )
    program = _Program(len(instructions), (_Instruction * len(instructions))(*starmap(_Instruction, instructions)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((38, 1, 0, 0, 0), (22, 2, ctypes.byref(program), 0, 0)):  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
        if libc.prctl(*arguments) != 0:
            pytest.skip(f"this machine lets no thread have a filter of its own: {os.strerror(ctypes.get_errno())}")
