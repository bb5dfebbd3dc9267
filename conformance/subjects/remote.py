"""Snapshotters behind a gRPC socket: containerd's own (its metadata layer) and a proxy plugin's (the driver itself).

Everything here belongs to the event loop that it was opened in. One call is one attempt: gRPC's own retries are off, because a
history must hold each call that reached the server.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from secrets import token_hex
from typing import Any, NoReturn
from urllib.parse import quote

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.proto import (
    leases_pb2,
    leases_pb2_grpc,
    namespaces_pb2,
    namespaces_pb2_grpc,
    snapshots_pb2,
    snapshots_pb2_grpc,
    version_pb2,
    version_pb2_grpc,
)
from snapspec.conformance.wire import ERROR_CLASSES, KINDS_TO_WIRE, info_from_wire, mounts_from_wire
from snapspec.impl import errors
from snapspec.model.values import ErrorClass, Info, Mount, Usage

#: Seconds that a call may take when nothing else is said.
DEADLINE = 10.0

#: Seconds that gRPC may take to tell the event loop of the end of a cancelled call; told to a closed loop it raises in the next.
SETTLING = 0.02

SCHEME = "unix://"

CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of one's own: closing it really closes it
    ("grpc.default_authority", "localhost"),  # some servers refuse the authority that is made from a socket's path
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", -1),
    # An error message can hold a key of tens of kilobytes, and messages travel as metadata.
    ("grpc.max_metadata_size", 4 << 20),
    ("grpc.absolute_max_metadata_size", 4 << 20),
]


class TransportLost(ConnectionError):
    """The connection ended under a call, or none could be made: the server said nothing, and the outcome is to be found out."""


# The stubs are generated without types: this is the one place where an untyped name is given a type.
_snapshots: Callable[[grpc.aio.Channel], Any] = snapshots_pb2_grpc.SnapshotsStub
_leases: Callable[[grpc.aio.Channel], Any] = leases_pb2_grpc.LeasesStub
_namespaces: Callable[[grpc.aio.Channel], Any] = namespaces_pb2_grpc.NamespacesStub
_version: Callable[[grpc.aio.Channel], Any] = version_pb2_grpc.VersionStub


def socket_path(address: str) -> str:
    """The path in `unix:///path`. Raises CannotRun for any other form."""
    path = address.removeprefix(SCHEME)
    if path == address or not path.startswith("/"):
        raise CannotRun(f"{address!r} is no address of a socket: write unix:// and an absolute path, as in unix:///run/x.sock")
    return path


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to `address` that connects at its first call. It needs a running event loop, and the caller closes it."""
    # gRPC reads the path as part of a URI, where % ? and # mean something.
    return grpc.aio.insecure_channel(SCHEME + quote(socket_path(address)), options=CHANNEL_OPTIONS)


async def connect(address: str, timeout: float = 3.0) -> grpc.aio.Channel:
    """An open channel to the gRPC server that listens on `address` (`unix:///path`); the caller closes it.

    Raises CannotRun when there is no socket, no permission, no listener, or no gRPC server within `timeout` seconds.
    """
    await _knock(socket_path(address), timeout)
    channel = open_channel(address)
    try:
        async with asyncio.timeout(timeout):
            # Not channel_ready(): when it is given up it leaves an event behind, which may come when the loop is closed.
            while True:
                if channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
                    return channel
                await asyncio.sleep(0.005)
    except TimeoutError:
        await channel.close()
        raise CannotRun(
            f"{socket_path(address)} takes connections but no gRPC server answers within {timeout:g} s: name a gRPC socket "
            "(not the .ttrpc one beside it), or restart the server if it hangs"
        ) from None
    except BaseException:
        await channel.close()
        raise


async def _knock(path: str, timeout: float) -> None:
    """Connect once without gRPC, whose own failures do not say why."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise CannotRun(f"{path} is not a socket: name the socket that the snapshotter or containerd listens on")
        with socket.socket(socket.AF_UNIX) as knock:
            knock.setblocking(False)
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(knock, path), timeout)
    except (FileNotFoundError, NotADirectoryError):
        raise CannotRun(f"there is no socket at {path}: start the server that makes it, or name another path") from None
    except PermissionError:
        raise CannotRun(f"no permission to connect to {path}: run as root, or as a user who may write to the socket") from None
    except ConnectionRefusedError:
        raise CannotRun(f"nobody listens on {path}: the server that made it has ended, start it again") from None
    except TimeoutError:
        raise CannotRun(f"{path} takes no connection within {timeout:g} s: restart the server that listens there") from None
    except OSError as error:
        raise CannotRun(f"cannot connect to {path} ({error}): name a socket with a path of at most 107 bytes") from None


def _failure(error: grpc.aio.AioRpcError, channel: grpc.aio.Channel) -> Exception:
    """What a failed call raises: the server's answer as its error class, or TransportLost when no server answered."""
    message = error.details() or ""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        # A server may answer Unavailable itself; gRPC does not say who did. After an answer the connection stands; the texts
        # are gRPC's own, for the case that another call has connected again by now.
        ready = channel.get_state() is grpc.ChannelConnectivity.READY
        if not ready or message.startswith(("Stream removed", "failed to connect to all addresses")):
            return TransportLost(message)
    return errors.BY_CLASS[ERROR_CLASSES.get(error.code(), ErrorClass.UNKNOWN)](message)


def _metadata(namespace: str | None, lease: str | None = None) -> tuple[tuple[str, str], ...]:
    """The headers that containerd reads. Raises CannotRun for what cannot stand in a header."""
    given = (("namespace", namespace), ("lease", lease))
    for name, value in given:
        if value is not None and not (value.isascii() and value.isprintable()):
            raise CannotRun(f"{value!r} cannot be a {name}: use letters, digits and the signs . _ - between them")
    return tuple((f"containerd-{name}", value) for name, value in given if value is not None)


class _Caller:
    """Calls over one channel, with the same metadata and deadline for each."""

    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...], deadline: float) -> None:
        self.channel = channel
        self.metadata = metadata
        self.deadline = deadline
        self._running = 0
        self._cancelled = -SETTLING

    async def close(self) -> None:
        """Close the channel and end the calls that run, so far that their event loop can be closed."""
        running = self._running
        await self.channel.close()
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(SETTLING if running else max(0.0, self._cancelled + SETTLING - now))

    @contextmanager
    def _watch(self) -> Iterator[None]:
        self._running += 1
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self._cancelled = asyncio.get_running_loop().time()
            raise
        finally:
            self._running -= 1

    async def call(self, method: Callable[..., Any], request: object) -> Any:
        """One unary call: its reply. Raises SnapshotError or TransportLost; cancelling the task cancels the call."""
        try:
            with self._watch():
                reply = await method(request, metadata=self.metadata, timeout=self.deadline)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.CancelledError) as error:
            self._raise(error)
        return _decoded(reply)

    async def stream(self, method: Callable[..., Any], request: object) -> AsyncGenerator[Any, None]:
        """The replies of one streaming call. Closing the generator early cancels the call."""
        try:
            call = method(request, metadata=self.metadata, timeout=self.deadline)
        except grpc.aio.UsageError as error:
            self._raise(error)
        try:
            with self._watch():
                while (reply := await call.read()) is not grpc.aio.EOF:
                    yield _decoded(reply)
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            self._raise(error)
        finally:
            call.cancel()

    def _raise(self, error: BaseException) -> NoReturn:
        if isinstance(error, grpc.aio.AioRpcError):
            raise _failure(error, self.channel) from None
        if isinstance(error, grpc.aio.UsageError):
            raise errors.FailedPrecondition("the connection is closed: open another") from None
        task = asyncio.current_task()
        closed = self.channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
        if closed and task is not None and not task.cancelling():
            # Closing a channel cancels its calls, and gRPC then raises CancelledError in a task that nobody cancelled.
            raise TransportLost("the connection was closed during the call") from None
        raise error


def _decoded(reply: Any) -> Any:
    """The reply, unless gRPC could not decode it: then it has logged why and gives None."""
    if reply is None:
        raise errors.SnapshotError("the server's reply cannot be decoded")
    return reply


class RemoteSnapshotter:
    """The snapshotter `snapshotter` behind the socket `address` (`unix:///path`), as the port of the same name.

    `namespace` is for containerd's own socket, None for a proxy plugin's. `lease` keeps from containerd's garbage collector what
    the calls make. Each call has `deadline` seconds. Made inside a running event loop, for that loop alone; `close` it.

    Calls raise a SnapshotError for an answer of the server, TransportLost when there was none. Unlike the port demands of a
    driver in this process, a cancelled call ends at once, and whether it had an effect is to be found out.
    """

    def __init__(
        self,
        address: str,
        snapshotter: str,
        namespace: str | None = None,
        lease: str | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        self.address = address
        self.snapshotter = snapshotter
        self.namespace = namespace
        self.lease = lease
        metadata = _metadata(namespace, lease)
        channel = open_channel(address)
        self._caller = _Caller(channel, metadata, deadline)
        self._stub = _snapshots(channel)

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """Make the active snapshot `key`; give its mount list (SNAP-PREPARE)."""
        request = snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=self.snapshotter, key=key, parent=parent, labels=dict(labels or {})
        )
        return mounts_from_wire(await self._caller.call(self._stub.Prepare, request))

    async def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        """Make the read-only snapshot `key`; give its mount list (SNAP-VIEW)."""
        request = snapshots_pb2.ViewSnapshotRequest(
            snapshotter=self.snapshotter, key=key, parent=parent, labels=dict(labels or {})
        )
        return mounts_from_wire(await self._caller.call(self._stub.View, request))

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        """Turn the active `key` into the committed `name` (SNAP-COMMIT)."""
        request = snapshots_pb2.CommitSnapshotRequest(
            snapshotter=self.snapshotter, name=name, key=key, labels=dict(labels or {}), parent=parent
        )
        await self._caller.call(self._stub.Commit, request)

    async def remove(self, key: str) -> None:
        """Remove `key` (SNAP-REMOVE)."""
        request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=self.snapshotter, key=key)
        await self._caller.call(self._stub.Remove, request)

    async def mounts(self, key: str) -> Sequence[Mount]:
        """The mount list of an active snapshot or a view (SNAP-MOUNTS)."""
        request = snapshots_pb2.MountsRequest(snapshotter=self.snapshotter, key=key)
        return mounts_from_wire(await self._caller.call(self._stub.Mounts, request))

    async def stat(self, key: str) -> Info:
        """The record of `key` (SNAP-STAT)."""
        request = snapshots_pb2.StatSnapshotRequest(snapshotter=self.snapshotter, key=key)
        reply: snapshots_pb2.StatSnapshotResponse = await self._caller.call(self._stub.Stat, request)
        return info_from_wire(reply.info)

    async def update(self, info: Info, paths: Sequence[str] = ()) -> Info:
        """Change the labels of `info.name`; its parent and kind are sent along, its times are not (SNAP-UPDATE)."""
        record = snapshots_pb2.Info(name=info.name, parent=info.parent, kind=KINDS_TO_WIRE[info.kind], labels=dict(info.labels))
        request = snapshots_pb2.UpdateSnapshotRequest(
            snapshotter=self.snapshotter, info=record, update_mask={"paths": list(paths)}
        )
        reply: snapshots_pb2.UpdateSnapshotResponse = await self._caller.call(self._stub.Update, request)
        return info_from_wire(reply.info)

    async def usage(self, key: str) -> Usage:
        """What `key` takes for itself (SNAP-USAGE)."""
        request = snapshots_pb2.UsageRequest(snapshotter=self.snapshotter, key=key)
        reply: snapshots_pb2.UsageResponse = await self._caller.call(self._stub.Usage, request)
        return Usage(size=reply.size, inodes=reply.inodes)

    async def walk(self, filters: Sequence[str] = ()) -> AsyncGenerator[Info, None]:
        """The records that match any of `filters` (SNAP-WALK). Leave early through `contextlib.aclosing`: it ends the call."""
        request = snapshots_pb2.ListSnapshotsRequest(snapshotter=self.snapshotter, filters=list(filters))
        async with aclosing(self._caller.stream(self._stub.List, request)) as replies:
            async for reply in replies:
                for info in reply.info:
                    yield info_from_wire(info)

    async def cleanup(self) -> None:
        """Free what removed snapshots still hold (SNAP-CLEANUP). Always Unimplemented through containerd."""
        await self._caller.call(self._stub.Cleanup, snapshots_pb2.CleanupRequest(snapshotter=self.snapshotter))

    async def close(self) -> None:
        """Close this connection, not the store: there is no call for that. A second close does nothing (SNAP-CLOSE)."""
        await self._caller.close()


async def probe(remote: RemoteSnapshotter) -> None:
    """Ask for a key that is not there, and raise CannotRun when the answer shows that there is no such snapshotter to check."""
    try:
        await remote.stat(f"snapspec-probe-{token_hex(8)}")
    except (errors.SnapshotError, TransportLost) as error:
        hindrance = _hindrance(remote, error)
        if hindrance:
            raise CannotRun(hindrance) from None
        # Otherwise there is a snapshotter; when it answers wrongly, that is for the check to find.


def _hindrance(remote: RemoteSnapshotter, error: Exception) -> str:
    """Why nothing can be checked after this answer, with the remedy; empty when something can."""
    path = socket_path(remote.address)
    match error:
        case TransportLost() | errors.DeadlineExceeded():
            return f"the server at {path} does not answer ({error}): restart it, and see its log"
        case errors.Unimplemented():
            return f"{path} does not serve the snapshots API ({error}): name the socket of containerd or of a snapshotter"
        case errors.FailedPrecondition() if remote.namespace is None and "namespace" in str(error):
            return f"{path} is containerd's own socket: name it with containerd: instead of plugin:"
        case errors.InvalidArgument() if remote.namespace is not None and "namespace" in str(error):
            return f"containerd at {path} refuses the namespace ({error}): name another one"
        case errors.InvalidArgument() | errors.NotFound() if "snapshotter" in str(error) and remote.namespace is not None:
            return (
                f"containerd at {path} has no snapshotter {remote.snapshotter!r} ({error}): "
                f"`ctr -a {path} plugins ls` lists what it has"
            )
        case _:
            return ""


async def version(channel: grpc.aio.Channel, deadline: float = DEADLINE) -> tuple[str, str]:
    """The version and the revision of the containerd behind `channel`. Unimplemented when it is another server."""
    reply: version_pb2.VersionResponse = await _Caller(channel, (), deadline).call(_version(channel).Version, Empty())
    return reply.version, reply.revision


class Containerd:
    """What containerd's metadata layer has beyond snapshots: leases and namespaces, as seen from one `namespace` (DOOR-NS).

    It uses `channel` and does not close it. Calls raise the same errors as those of RemoteSnapshotter.
    """

    def __init__(self, channel: grpc.aio.Channel, namespace: str, deadline: float = DEADLINE) -> None:
        self.namespace = namespace
        self._caller = _Caller(channel, _metadata(namespace), deadline)
        self._leases = _leases(channel)
        self._namespaces = _namespaces(channel)

    async def create_lease(self, lease: str, labels: Mapping[str, str] | None = None) -> None:
        """Make the lease `lease`, and the namespace with it. AlreadyExists when it is there."""
        await self._caller.call(self._leases.Create, leases_pb2.CreateRequest(id=lease, labels=dict(labels or {})))

    async def delete_lease(self, lease: str, sync: bool = True) -> None:
        """Delete the lease `lease`; with `sync` answer after a whole garbage collection. NotFound when it is not there."""
        await self._caller.call(self._leases.Delete, leases_pb2.DeleteRequest(id=lease, sync=sync))

    async def list_leases(self, filters: Sequence[str] = ()) -> dict[str, dict[str, str]]:
        """The ids of the leases of the namespace, each with its labels; `filters` as in walk."""
        reply: leases_pb2.ListResponse = await self._caller.call(self._leases.List, leases_pb2.ListRequest(filters=list(filters)))
        return {lease.id: dict(lease.labels) for lease in reply.leases}

    async def leased(self, lease: str) -> set[tuple[str, str]]:
        """What the lease `lease` keeps: pairs of a type (`snapshots/NAME` for a snapshot) and an id."""
        request = leases_pb2.ListResourcesRequest(id=lease)
        reply: leases_pb2.ListResourcesResponse = await self._caller.call(self._leases.ListResources, request)
        return {(resource.type, resource.id) for resource in reply.resources}

    async def add_to_lease(self, lease: str, snapshotter: str, key: str) -> None:
        """Let `lease` keep the snapshot `key` of `snapshotter`."""
        await self._caller.call(
            self._leases.AddResource, leases_pb2.AddResourceRequest(id=lease, resource=_snapshot(snapshotter, key))
        )

    async def drop_from_lease(self, lease: str, snapshotter: str, key: str) -> None:
        """Let `lease` keep the snapshot `key` of `snapshotter` no longer: the next garbage collection may remove it."""
        request = leases_pb2.DeleteResourceRequest(id=lease, resource=_snapshot(snapshotter, key))
        await self._caller.call(self._leases.DeleteResource, request)

    async def list_namespaces(self) -> list[str]:
        """The names of all namespaces of this containerd."""
        request = namespaces_pb2.ListNamespacesRequest()
        reply: namespaces_pb2.ListNamespacesResponse = await self._caller.call(self._namespaces.List, request)
        return sorted(namespace.name for namespace in reply.namespaces)

    async def create_namespace(self) -> None:
        """Make this namespace. AlreadyExists when it is there."""
        request = namespaces_pb2.CreateNamespaceRequest(namespace=namespaces_pb2.Namespace(name=self.namespace))
        await self._caller.call(self._namespaces.Create, request)

    async def delete_namespace(self) -> None:
        """Delete this namespace. FailedPrecondition while something is in it, NotFound when it is not there."""
        await self._caller.call(self._namespaces.Delete, namespaces_pb2.DeleteNamespaceRequest(name=self.namespace))


def _snapshot(snapshotter: str, key: str) -> leases_pb2.Resource:
    return leases_pb2.Resource(id=key, type=f"snapshots/{snapshotter}")
