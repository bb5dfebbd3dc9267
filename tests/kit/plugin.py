"""A proxy plugin: the reference on a plain directory behind a socket of its own, as containerd would be told to use one.

`python plugin.py SOCKET DIRECTORY [VARIANT]` says `ready` and serves until its standard input ends, so that it never outlives
who started it. A variant has a fault, or takes other alternatives of the spec.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from urllib.parse import quote

import grpc.aio
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from snapspec.conformance.proto import snapshots_pb2 as pb
from snapspec.conformance.service import OPTIONS, Service
from snapspec.impl.errors import FailedPrecondition, Unimplemented
from snapspec.impl.layout import make_directory
from snapspec.impl.overlay import OverlaySnapshotter
from snapspec.model.values import Kind


class WithoutKinds(Service):
    """Forgets to set `kind`, so that everything is read as committed."""

    async def stat(self, request: pb.StatSnapshotRequest) -> Message:
        reply = await super().stat(request)
        assert isinstance(reply, pb.StatSnapshotResponse)
        reply.info.ClearField("kind")
        return reply


class RemoveSaysDone(Service):
    """Says that it has removed what has children, and has not."""

    async def remove(self, request: pb.RemoveSnapshotRequest) -> Message:
        with suppress(FailedPrecondition):
            return await super().remove(request)
        return Empty()


class OwnerOnly(OverlaySnapshotter):
    """The root of an active snapshot takes its owner from the parent, and nothing else."""

    def _inherit(self, path: str, parent: int) -> None:
        root = os.lstat(self._layout.fs(parent))
        os.chown(f"{path}/fs", root.st_uid, root.st_gid)
        make_directory(f"{path}/work", 0o700)


class Other(Service):
    """Takes other alternatives: roots have the owner only, usage is opaque, cleanup is not offered, the parent is ignored."""

    async def commit(self, request: pb.CommitSnapshotRequest) -> Message:
        request.parent = ""
        return await super().commit(request)

    async def usage(self, request: pb.UsageRequest) -> Message:
        kind = (await self.driver.stat(request.key)).kind
        return pb.UsageResponse(size=0 if kind is Kind.VIEW else 1, inodes=0)

    async def cleanup(self, request: pb.CleanupRequest) -> Message:
        raise Unimplemented("this snapshotter has no cleanup")


VARIANTS: dict[str, tuple[type[Service], type[OverlaySnapshotter]]] = {
    "right": (Service, OverlaySnapshotter),
    "without-kinds": (WithoutKinds, OverlaySnapshotter),
    "remove-says-done": (RemoveSaysDone, OverlaySnapshotter),
    "other": (Other, OwnerOnly),
}


async def serve(socket: str, directory: str, variant: str) -> None:
    """Serve the snapshotter in `directory` on `socket` until the standard input ends; then close it."""
    service, snapshotter = VARIANTS[variant]
    driver = snapshotter(directory)
    await driver.open()
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((service(driver).handler(),))
    server.add_insecure_port("unix:" + quote(socket))  # read as a URI
    await server.start()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(grace=5)
    await driver.close()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:3], *(sys.argv[3:] or ("right",))))
