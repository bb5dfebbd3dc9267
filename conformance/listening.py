"""Where a server of this package listens: a socket that is its user's alone, and that takes nobody else's place."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import grpc.aio

from snapspec.conformance.errors import CannotRun

_LONGEST = 107  # bytes of a socket's path


def bind(server: grpc.aio.Server, listen: Path) -> None:
    """Listen, on a socket that is nobody else's from its first moment."""
    before = os.umask(0o177)
    try:
        server.add_insecure_port("unix:" + quote(str(listen)))  # read as a URI
    except RuntimeError as error:
        raise CannotRun(f"cannot listen on {listen} ({error}): name another path with --listen") from None
    finally:
        os.umask(before)


@contextmanager
def free_place(listen: Path) -> Iterator[None]:
    """Inside, nothing is at `listen`, and no other start of this command puts anything there. CannotRun when it is served."""
    if len(os.fsencode(listen)) > _LONGEST:
        raise CannotRun(f"{listen} is longer than {_LONGEST} bytes, too long for a socket: name a shorter path with --listen")
    try:
        directory = os.open(listen.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CannotRun(f"no socket can be made in {listen.parent} ({error.strerror}): name another path with --listen") from None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        _remove_stale(listen)
        yield
    finally:
        os.close(directory)


def _remove_stale(listen: Path) -> None:
    """Remove a socket that nobody answers; CannotRun for anything else that is there."""
    try:
        is_socket = stat.S_ISSOCK(os.lstat(listen).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise CannotRun(f"{listen} is there and is no socket: name another path with --listen")
    with socket.socket(socket.AF_UNIX) as knock:
        knock.setblocking(False)
        try:
            knock.connect(str(listen))
        except ConnectionRefusedError:
            listen.unlink()
            return
        except BlockingIOError:
            pass  # somebody is there, with more callers than he can take
        except OSError as error:
            raise CannotRun(f"{listen} cannot be asked whether it is used ({error.strerror}): name another path") from None
    raise CannotRun(f"{listen} is served already: end that server, or name another path with --listen")
