"""A proxy plugin: the reference on a plain directory behind a socket of its own, as containerd would be told to use one.

`python plugin.py SOCKET DIRECTORY [VARIANT]` says `ready` and serves until its standard input ends, so that it never outlives
who started it. A variant has a fault, or takes other alternatives of the spec.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty

from snapspec.conformance.proto import mount_pb2, snapshots_pb2, snapshots_pb2_grpc
from snapspec.impl.errors import FailedPrecondition, SnapshotError
from snapspec.impl.layout import make_directory
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.model.values import ErrorClass, Info, Kind, Mount

# Generated without types.
add_to_server: Callable[[snapshots_pb2_grpc.SnapshotsServicer, grpc.aio.Server], None] = (
    snapshots_pb2_grpc.add_SnapshotsServicer_to_server
)

#: The status of each error class: all names are gRPC's own but one.
STATUS = {error: grpc.StatusCode[error.name.replace("CANCELED", "CANCELLED")] for error in ErrorClass}

KINDS = {Kind.VIEW: snapshots_pb2.VIEW, Kind.ACTIVE: snapshots_pb2.ACTIVE, Kind.COMMITTED: snapshots_pb2.COMMITTED}

#: The most records in one message of List.
BLOCK = 100


class Service(snapshots_pb2_grpc.SnapshotsServicer):
    """The snapshots service over one snapshotter. The field `snapshotter` of a request counts for nothing: there is only one."""

    snapshotter: type[OverlaySnapshotter] = OverlaySnapshotter

    def __init__(self, driver: OverlaySnapshotter) -> None:
        self.driver = driver

    async def Prepare(self, request: Any, context: Any) -> Any:
        async with answering(context):
            given = await self.driver.prepare(request.key, request.parent, request.labels)
            return snapshots_pb2.PrepareSnapshotResponse(mounts=to_mounts(given))

    async def View(self, request: Any, context: Any) -> Any:
        async with answering(context):
            given = await self.driver.view(request.key, request.parent, request.labels)
            return snapshots_pb2.ViewSnapshotResponse(mounts=to_mounts(given))

    async def Mounts(self, request: Any, context: Any) -> Any:
        async with answering(context):
            return snapshots_pb2.MountsResponse(mounts=to_mounts(await self.driver.mounts(request.key)))

    async def Commit(self, request: Any, context: Any) -> Any:
        """The parent given at commit is not passed on: most services are older than that field (SNAP-COMMIT-7, `ignored`)."""
        async with answering(context):
            await self.driver.commit(request.name, request.key, request.labels)
            return Empty()

    async def Remove(self, request: Any, context: Any) -> Any:
        async with answering(context):
            await self.driver.remove(request.key)
            return Empty()

    async def Stat(self, request: Any, context: Any) -> Any:
        async with answering(context):
            return snapshots_pb2.StatSnapshotResponse(info=self.to_info(await self.driver.stat(request.key)))

    async def Update(self, request: Any, context: Any) -> Any:
        if not request.HasField("info"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request holds no info: give one")
        async with answering(context):
            info = Info(request.info.name, "", Kind.COMMITTED, tuple(request.info.labels.items()), 0, 0)
            updated = await self.driver.update(info, tuple(request.update_mask.paths))
            return snapshots_pb2.UpdateSnapshotResponse(info=self.to_info(updated))

    async def List(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            infos = [self.to_info(info) async for info in self.driver.walk(tuple(request.filters))]
        except SnapshotError as error:  # its class is lost, as in the services of Go (SNAP-WALK-8)
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        for first in range(0, len(infos), BLOCK):
            yield snapshots_pb2.ListSnapshotsResponse(info=infos[first : first + BLOCK])

    async def Usage(self, request: Any, context: Any) -> Any:
        async with answering(context):
            usage = await self.driver.usage(request.key)
            return snapshots_pb2.UsageResponse(size=usage.size, inodes=usage.inodes)

    async def Cleanup(self, request: Any, context: Any) -> Any:
        async with answering(context):
            await self.driver.cleanup()
            return Empty()

    def to_info(self, info: Info) -> snapshots_pb2.Info:
        """The record as it is sent."""
        sent = snapshots_pb2.Info(name=info.name, parent=info.parent, kind=KINDS[info.kind], labels=dict(info.labels))
        sent.created_at.FromNanoseconds(info.created)
        sent.updated_at.FromNanoseconds(info.updated)
        return sent


@asynccontextmanager
async def answering(context: Any) -> AsyncIterator[None]:
    """Errors of the snapshotter travel as the status of their class."""
    try:
        yield
    except SnapshotError as error:
        await context.abort(STATUS[error.error], str(error))


def to_mounts(mounts: Iterable[Mount]) -> list[mount_pb2.Mount]:
    """The list as it is sent."""
    return [mount_pb2.Mount(type=m.type, source=m.source, target=m.target, options=m.options) for m in mounts]


# --- variants


class WithoutKinds(Service):
    """Forgets to set `kind`, so that everything is read as committed."""

    def to_info(self, info: Info) -> snapshots_pb2.Info:
        sent = super().to_info(info)
        sent.ClearField("kind")
        return sent


class RemoveSaysDone(Service):
    """Says that it has removed what has children, and has not."""

    async def Remove(self, request: Any, context: Any) -> Any:
        try:
            await self.driver.remove(request.key)
        except FailedPrecondition:
            pass
        except SnapshotError as error:
            await context.abort(STATUS[error.error], str(error))
        return Empty()


class OwnerOnly(OverlaySnapshotter):
    """The root of an active snapshot takes its owner from the parent, and nothing else."""

    def _inherit(self, path: str, parent: int) -> None:
        root = os.lstat(self._layout.fs(parent))
        os.chown(f"{path}/fs", root.st_uid, root.st_gid)
        make_directory(f"{path}/work", 0o700)


class Other(Service):
    """Takes other alternatives: roots have the owner only, usage is opaque, cleanup is not offered, another parent is refused."""

    snapshotter = OwnerOnly

    async def Commit(self, request: Any, context: Any) -> Any:
        async with answering(context):
            await self.driver.commit(request.name, request.key, request.labels, request.parent)
            return Empty()

    async def Usage(self, request: Any, context: Any) -> Any:
        async with answering(context):
            kind = (await self.driver.stat(request.key)).kind
            return snapshots_pb2.UsageResponse(size=0 if kind is Kind.VIEW else 1, inodes=0)

    async def Cleanup(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this snapshotter has no cleanup")


VARIANTS = {"right": Service, "without-kinds": WithoutKinds, "remove-says-done": RemoveSaysDone, "other": Other}


async def serve(socket: str, directory: str, variant: str) -> None:
    """Serve the snapshotter in `directory` on `socket` until the standard input ends; then close it."""
    service = VARIANTS[variant]
    driver = service.snapshotter(directory)
    await driver.open()
    server = grpc.aio.server()
    add_to_server(service(driver), server)
    server.add_insecure_port("unix:" + quote(socket))  # read as a URI
    await server.start()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(grace=5)
    await driver.close()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:3], *(sys.argv[3:] or ("right",))))
