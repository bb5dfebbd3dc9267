"""`snapspec serve SUBJECT --listen SOCKET`: a driver as a proxy plugin of containerd, until the process is told to end.

It stands in conformance, not in impl, for it serves any driver that the kit can name, with the kit's own stubs. Other than
a check it works in the machine's mount namespace: containerd mounts what it is given, and has to see the pool.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import grpc.aio

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.listening import bind, free_place
from snapspec.conformance.service import OPTIONS, Service
from snapspec.conformance.subjects.address import Served, make_served, parse
from snapspec.impl.errors import SnapshotError

#: Where the store lies unless something else is said.
ROOT = Path("/var/lib/snapspec")

#: Seconds that calls have to end when the process is told to; then they are cancelled.
GRACE = 5.0


def serve(text: str, listen: Path, root: Path) -> int:
    """Serve the subject `text` on the socket `listen`, its store in `root`; gives the exit status when told to end.

    CannotRun when the socket is taken, or the subject cannot be opened.
    """
    subject = make_served(parse(text), root.absolute())
    logging.basicConfig(format="snapspec: %(message)s", stream=sys.stderr)
    return asyncio.run(_serve(subject, listen.absolute()))


def _make_store(root: Path) -> None:
    """Make the directory where it is missing."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotRun(f"{root} cannot be made ({error.strerror}): name a directory with --root") from None


async def _serve(subject: Served, listen: Path) -> int:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    with free_place(listen):  # before anything else: where the socket is taken, nothing is made or opened
        _make_store(subject.directory)
    await subject.start()
    try:
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((Service(subject.driver(0)).handler(),))
        with free_place(listen):
            bind(server, listen)
        await server.start()
        print(f"serves {subject.name} on {listen}: {subject.note}, in {subject.directory}", flush=True)
        _tell_systemd("READY=1")
        await ended.wait()
        _tell_systemd("STOPPING=1")
        await server.stop(GRACE)
    finally:
        status = await _closed(subject)
    return status


async def _closed(subject: Served) -> int:
    """Close the store. What stands on it may go on: then it stays mounted, and the next start takes it over."""
    try:
        await subject.stop()
    except SnapshotError as error:
        print(f"snapspec: the store stays open for those who use it: {error}", file=sys.stderr)
    return 0


def _tell_systemd(word: str) -> None:
    """Tell a service manager that waits for it how far the process is."""
    where = os.environ.get("NOTIFY_SOCKET", "")
    if not where:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        try:
            notify.sendto(word.encode(), where.replace("@", "\0", 1) if where.startswith("@") else where)
        except OSError as error:
            logging.getLogger(__name__).warning("the service manager at %s is not told: %s", where, error)
