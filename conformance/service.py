"""The service `containerd.services.snapshots.v1.Snapshots` over any driver behind the snapshotter port.

Each call is one call of the driver. When its client goes away, or its deadline passes, the driver's call is cancelled, and by the
port it then stays until its effect is decided. List takes the records first and sends them afterwards, so that nothing of the
driver waits for a client that does not read.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from snapspec.conformance.proto import snapshots_pb2 as pb
from snapspec.conformance.wire import KINDS_FROM_WIRE, STATUS, info_to_wire, mounts_to_wire
from snapspec.impl.errors import InvalidArgument, ResourceExhausted, SnapshotError
from snapspec.impl.ports import Snapshotter
from snapspec.model.values import Info, Kind

NAME = "containerd.services.snapshots.v1.Snapshots"

#: What a page of List holds at most, unless one record alone is larger: records, and bytes, a quarter of what clients take.
PAGE_RECORDS, PAGE_BYTES = 100, 1 << 20

#: How many Lists may have records waiting for their clients at one time, and the seconds that a client may let a page wait.
LISTS, PATIENCE = 64, 30.0

#: The bytes of an error's message: it travels in a header, and a client takes 8 KiB of headers, in which a byte may take three.
MESSAGE_BYTES = 1024

#: For the server: no message is larger than what clients take by default, and one connection cannot open streams without end.
OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.max_concurrent_streams", 1000),
]

_log = logging.getLogger(__name__)

Context = Any  # grpc.aio has no type for it
Answer = Callable[[Any], Awaitable[Message]]


class Service:
    """The calls, each from a request to a reply or a SnapshotError. The field `snapshotter` counts for nothing: there is one.

    `patience`: the seconds that a client of List may let a page wait.
    """

    def __init__(self, driver: Snapshotter, patience: float = PATIENCE) -> None:
        self.driver = driver
        self.patience = patience
        self._lists = 0

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server is given."""
        calls: dict[str, tuple[type[Message], Answer]] = {
            "Prepare": (pb.PrepareSnapshotRequest, self.prepare),
            "View": (pb.ViewSnapshotRequest, self.view),
            "Mounts": (pb.MountsRequest, self.mounts),
            "Commit": (pb.CommitSnapshotRequest, self.commit),
            "Remove": (pb.RemoveSnapshotRequest, self.remove),
            "Stat": (pb.StatSnapshotRequest, self.stat),
            "Update": (pb.UpdateSnapshotRequest, self.update),
            "Usage": (pb.UsageRequest, self.usage),
            "Cleanup": (pb.CleanupRequest, self.cleanup),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(_answering(call), _decoder(kind), _encoded)
            for name, (kind, call) in calls.items()
        }
        handlers["List"] = grpc.unary_stream_rpc_method_handler(self._list, _decoder(pb.ListSnapshotsRequest), _encoded)
        return grpc.method_handlers_generic_handler(NAME, handlers)

    async def prepare(self, request: pb.PrepareSnapshotRequest) -> Message:
        """SNAP-PREPARE."""
        given = await self.driver.prepare(request.key, request.parent, dict(request.labels))
        return pb.PrepareSnapshotResponse(mounts=mounts_to_wire(given))

    async def view(self, request: pb.ViewSnapshotRequest) -> Message:
        """SNAP-VIEW."""
        given = await self.driver.view(request.key, request.parent, dict(request.labels))
        return pb.ViewSnapshotResponse(mounts=mounts_to_wire(given))

    async def mounts(self, request: pb.MountsRequest) -> Message:
        """SNAP-MOUNTS."""
        return pb.MountsResponse(mounts=mounts_to_wire(await self.driver.mounts(request.key)))

    async def commit(self, request: pb.CommitSnapshotRequest) -> Message:
        """SNAP-COMMIT. The parent is passed on: what becomes of it is the driver's (SNAP-COMMIT-7)."""
        await self.driver.commit(request.name, request.key, dict(request.labels), request.parent)
        return Empty()

    async def remove(self, request: pb.RemoveSnapshotRequest) -> Message:
        """SNAP-REMOVE."""
        await self.driver.remove(request.key)
        return Empty()

    async def stat(self, request: pb.StatSnapshotRequest) -> Message:
        """SNAP-STAT."""
        return pb.StatSnapshotResponse(info=info_to_wire(await self.driver.stat(request.key)))

    async def update(self, request: pb.UpdateSnapshotRequest) -> Message:
        """SNAP-UPDATE. Parent and kind are passed on, the times are the driver's."""
        if not request.HasField("info"):
            raise InvalidArgument("the request holds no info: give one, with the name of the snapshot")
        given = request.info
        kind = KINDS_FROM_WIRE.get(given.kind, Kind.COMMITTED)
        info = Info(given.name, given.parent, kind, tuple(sorted(given.labels.items())), 0, 0)
        after = await self.driver.update(info, tuple(request.update_mask.paths))
        return pb.UpdateSnapshotResponse(info=info_to_wire(after))

    async def usage(self, request: pb.UsageRequest) -> Message:
        """SNAP-USAGE."""
        usage = await self.driver.usage(request.key)
        return pb.UsageResponse(size=usage.size, inodes=usage.inodes)

    async def cleanup(self, request: pb.CleanupRequest) -> Message:
        """SNAP-CLEANUP."""
        await self.driver.cleanup()
        return Empty()

    async def _list(self, request: Message | None, context: Context) -> None:
        """SNAP-WALK, in pages. ResourceExhausted for a client that lets one wait too long, and for one client too many."""
        try:
            if self._lists >= LISTS:
                raise ResourceExhausted(f"{LISTS} Lists are being read: end one of them")
            self._lists += 1
            try:
                waiting = await self._send(_decoded(request), context)
            finally:
                self._lists -= 1
            if waiting is not None:
                # gRPC takes no status while a page waits. Until the client reads it, or goes, the call holds this page alone.
                await waiting
                raise ResourceExhausted(f"the records were not read for {self.patience:g} s: list them again, and read")
        except Exception as error:  # noqa: BLE001
            await _refuse(context, error)

    async def _send(self, request: pb.ListSnapshotsRequest, context: Context) -> asyncio.Task[None] | None:
        """Send all pages; gives the sending of one that waits for longer than patience allows, and then no other is sent."""
        infos = [info_to_wire(info) async for info in self.driver.walk(tuple(request.filters))]
        for page in pages(infos):
            sending = asyncio.create_task(context.write(pb.ListSnapshotsResponse(info=page)))
            try:
                await asyncio.wait([sending], timeout=self.patience)
            except asyncio.CancelledError:
                sending.cancel()
                raise
            if not sending.done():
                return sending
            sending.result()
        return None


def pages(infos: Iterable[pb.Info]) -> Iterator[list[pb.Info]]:
    """The records in groups of at most PAGE_RECORDS and PAGE_BYTES, at least one in each."""
    page: list[pb.Info] = []
    size = 0
    for info in infos:
        length = info.ByteSize()
        if page and (len(page) == PAGE_RECORDS or size + length > PAGE_BYTES):
            yield page
            page, size = [], 0
        page.append(info)
        size += length
    if page:
        yield page


def _answering(call: Answer) -> Callable[[Message | None, Context], Awaitable[Message]]:
    async def answer(request: Message | None, context: Context) -> Message:
        try:
            return await call(_decoded(request))
        except Exception as error:  # noqa: BLE001
            await _refuse(context, error)

    return answer


def _decoded(request: Any) -> Any:
    if request is None:
        raise InvalidArgument("the request cannot be decoded: send the message of this call, with all text in UTF-8")
    return request


async def _refuse(context: Context, error: Exception) -> NoReturn:
    """End the call with the status of the error's class; what is no answer of the port is told to the log too."""
    if isinstance(error, SnapshotError):
        status, message = STATUS[error.error], str(error)
    else:
        trace = "".join(traceback.format_exception(error))
        _log.error("a call failed: %s", trace.encode("utf-8", "backslashreplace").decode())  # a log takes text alone
        status, message = grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}"
    await context.abort(status, short(message))
    raise AssertionError("abort raises")


def short(message: str) -> str:
    """The message as text of UTF-8 of at most MESSAGE_BYTES, the middle left out where it is longer."""
    encoded = message.encode("utf-8", "backslashreplace")
    if len(encoded) > MESSAGE_BYTES:
        half = MESSAGE_BYTES // 2 - 2
        encoded = encoded[:half] + "…".encode() + encoded[-half:]
    return encoded.decode("utf-8", "ignore")


def _decoder(kind: type[Message]) -> Callable[[bytes], Message | None]:
    """gRPC would answer Internal for what cannot be decoded; here the call itself answers."""

    def decode(data: bytes) -> Message | None:
        try:
            return kind.FromString(data)
        except DecodeError:
            return None

    return decode


def _encoded(reply: Message) -> bytes:
    return reply.SerializeToString()
