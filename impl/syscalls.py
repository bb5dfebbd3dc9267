"""The system calls that Python does not offer, one plain function each.

Every function raises `OSError` with the errno, the call's name and the path it was about. The numbers of the
newer calls are the same on x86_64 and aarch64; the older calls go through the C library.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import time
from dataclasses import dataclass

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000

UMOUNT_NOFOLLOW = 0x8

CLONE_FS = 0x200
CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000

MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80

RESOLVE_NO_XDEV = 0x1
RESOLVE_NO_SYMLINKS = 0x4

LO_FLAGS_READ_ONLY = 0x1
LO_FLAGS_AUTOCLEAR = 0x4

_AT_FDCWD = -100
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_OPENAT2 = 437
_FLAG_CLOEXEC = 1  # FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC

_LOOP_CLR_FD = 0x4C01
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_SET_CAPACITY = 0x4C07
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_FITRIM = 0xC0185879
_XFS_IOC_FREE_EOFBLOCKS = 0x8080583A

# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt_type, encrypt_key_size, flags;
# file_name, crypt_name, encrypt_key, init. struct loop_config puts fd and block_size before it, eight words after.
_LOOP_INFO = struct.Struct("=5Q4I64s64s32s2Q")
_LOOP_CONFIG = struct.Struct("=2I5Q4I64s64s32s2Q64x")
_OPEN_HOW = struct.Struct("=3Q")
_XFS_EOFBLOCKS = struct.Struct("=2I120x")  # version 1; flag 1: wait until it is done
_TRIM_RANGE = struct.Struct("=3Q")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.syncfs.argtypes = (ctypes.c_int,)
_libc.statfs.argtypes = (ctypes.c_char_p, ctypes.c_void_p)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, call: str, path: str | None = None) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}", path)
    return result


def _syscall(number: int, call: str, path: str | None, *arguments: int | bytes | None) -> int:
    words = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    return _check(int(_libc.syscall(ctypes.c_long(number), *words)), call, path)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2) of `source` on `target` as file system `kind`. `data` longer than a page is refused: the kernel cuts it off."""
    options = os.fsencode(data) if data else None
    if options and len(options) >= mmap.PAGESIZE:
        raise OSError(errno.E2BIG, f"mount {kind} {source}: options longer than a page", target)
    done = _libc.mount(os.fsencode(source), os.fsencode(target), os.fsencode(kind), flags, options)
    _check(done, f"mount {kind} {source}", target)


def umount2(target: str, flags: int = UMOUNT_NOFOLLOW) -> None:
    """umount2(2) of what is topmost at `target`."""
    _check(_libc.umount2(os.fsencode(target), flags), "umount", target)


def unshare(flags: int) -> None:
    """unshare(2) for the calling thread."""
    _check(_libc.unshare(flags), "unshare")


def syncfs(fd: int, path: str | None = None) -> None:
    """Writes all that is dirty in the file system of `fd` to its device."""
    _check(_libc.syncfs(fd), "syncfs", path)


def file_system_magic(path: str) -> int:
    """The number by which the kernel knows the kind of file system that `path` is on."""
    told = (ctypes.c_long * 32)()  # struct statfs: the number comes first, and all of it is shorter
    _check(_libc.statfs(os.fsencode(path), told), "statfs", path)
    return told[0]


def fsopen(kind: str) -> int:
    """A context to make a file system of type `kind` in (Linux 5.2)."""
    return _syscall(_SYS_FSOPEN, f"fsopen {kind}", None, os.fsencode(kind), _FLAG_CLOEXEC)


def fsconfig_flag(context: int, key: str) -> None:
    """Sets the option `key`, which takes no value."""
    _syscall(_SYS_FSCONFIG, f"fsconfig {key}", None, context, _FSCONFIG_SET_FLAG, os.fsencode(key), None, 0)


def fsconfig_string(context: int, key: str, value: str) -> None:
    """Sets the option `key` to `value`, which the kernel takes up to 255 bytes of length."""
    _syscall(_SYS_FSCONFIG, f"fsconfig {key}", value, context, _FSCONFIG_SET_STRING, os.fsencode(key), os.fsencode(value), 0)


def fsconfig_create(context: int) -> None:
    """Makes the file system from the options that were set."""
    _syscall(_SYS_FSCONFIG, "fsconfig create", None, context, _FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(context: int, attributes: int = 0) -> int:
    """A mount of the made file system, attached nowhere yet; `attributes` are MOUNT_ATTR flags."""
    return _syscall(_SYS_FSMOUNT, "fsmount", None, context, _FLAG_CLOEXEC, attributes)


def move_mount(detached: int, target: str) -> None:
    """Attaches a mount made by `fsmount` on the directory `target`."""
    place = os.fsencode(target)
    _syscall(_SYS_MOVE_MOUNT, "move_mount", target, detached, b"", _AT_FDCWD, place, _MOVE_MOUNT_F_EMPTY_PATH)


def openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    """Opens `path` from the directory fd `directory`, within what the RESOLVE flags `resolve` allow (Linux 5.6)."""
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, resolve)
    return _syscall(_SYS_OPENAT2, "openat2", path, directory, os.fsencode(path), how, len(how))


def _ioctl(fd: int, request: int, argument: int | bytearray, call: str, path: str | None) -> int:
    try:
        return fcntl.ioctl(fd, request, argument)
    except OSError as error:
        raise OSError(error.errno, f"{call}: {error.strerror}", path) from None


def loop_get_free(control: int) -> int:
    """The number of a loop device that was free a moment ago, made by the kernel when there was none."""
    return _ioctl(control, _LOOP_CTL_GET_FREE, 0, "LOOP_CTL_GET_FREE", "/dev/loop-control")


def loop_configure(device: int, backing: int, flags: int, name: str) -> None:
    """Attaches the open file `backing` to the open loop device, in one step (Linux 5.8); EBUSY when it is taken."""
    label = os.fsencode(name)[:63]
    config = _LOOP_CONFIG.pack(backing, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags, label, b"", b"", 0, 0)
    _ioctl(device, _LOOP_CONFIGURE, bytearray(config), "LOOP_CONFIGURE", name)


def loop_clr_fd(device: int) -> None:
    """Detaches the loop device when its last user, the caller counted, has closed it."""
    _ioctl(device, _LOOP_CLR_FD, 0, "LOOP_CLR_FD", None)


def loop_set_capacity(device: int) -> None:
    """Makes the loop device as large as its file has become."""
    _ioctl(device, _LOOP_SET_CAPACITY, 0, "LOOP_SET_CAPACITY", None)


@dataclass(frozen=True, slots=True)
class LoopStatus:
    """What a loop device is attached to: device and inode of the file, as `os.stat` gives them; LO_FLAGS."""

    device: int
    inode: int
    flags: int


def loop_status(device: int) -> LoopStatus | None:
    """What the open loop device is attached to; None when to nothing."""
    raw = bytearray(_LOOP_INFO.size)
    try:
        _ioctl(device, _LOOP_GET_STATUS64, raw, "LOOP_GET_STATUS64", None)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    fields = _LOOP_INFO.unpack(raw)
    return LoopStatus(device=fields[0], inode=fields[1], flags=fields[8])


def fitrim(fd: int, path: str | None = None) -> int:
    """Tells the device of the file system of `fd` all that is free; the bytes that were told."""
    span = bytearray(_TRIM_RANGE.pack(0, (1 << 64) - 1, 0))
    _ioctl(fd, _FITRIM, span, "FITRIM", path)
    return int(_TRIM_RANGE.unpack(span)[1])


def xfs_finish_deletions(fd: int, path: str | None = None) -> None:
    """Frees in the xfs of `fd` the blocks of deleted files, which it does later by itself, and those beyond the ends of files."""
    _ioctl(fd, _XFS_IOC_FREE_EOFBLOCKS, bytearray(_XFS_EOFBLOCKS.pack(1, 1)), "XFS_IOC_FREE_EOFBLOCKS", path)


def release_blocks(fd: int) -> None:
    """Frees in the file system of `fd`, if it is an xfs, the blocks beyond the ends of files, as far as this process may."""
    try:
        xfs_finish_deletions(fd)
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES):
            raise


def enter_private_namespace() -> None:
    """Puts the calling thread, and what it starts from now on, in a mount namespace whose mounts reach nobody else.

    Threads that already run stay where they were. Raises OSError (EPERM without the privilege).
    """
    unshare(CLONE_NEWNS)
    mount("none", "/", "none", MS_REC | MS_PRIVATE)


def enter_user_namespace() -> None:
    """Makes the calling process root in a user and mount namespace of its own, with private mounts.

    The process must have one thread. Tried in a child first: where this raises OSError, the process is as it was.
    """
    deadline = time.monotonic() + 0.1  # a thread that was joined is not gone at once
    while len(os.listdir("/proc/self/task")) != 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    if len(os.listdir("/proc/self/task")) != 1:
        raise OSError(errno.EINVAL, "a user namespace is entered by a process with one thread; call this before threads start")
    refusal = _try_in_child()
    if refusal:
        raise OSError(refusal, f"a user namespace with mounts is refused here: {os.strerror(refusal)}")
    _become_root()


def _become_root() -> None:
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER | CLONE_NEWNS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    mount("none", "/", "none", MS_REC | MS_PRIVATE)


def _try_in_child() -> int:
    """The errno with which a forked child was refused, 0 when it became root in its own namespaces."""
    child = os.fork()
    if child == 0:
        code = errno.EIO
        try:
            _become_root()
            code = 0
        except OSError as error:
            code = error.errno or errno.EIO
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
