"""The gRPC client against servers of these tests: what containerd never sends, and sockets where nothing is to be had."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio
import pytest
from aio import asynchronous
from google.protobuf.empty_pb2 import Empty

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.proto import mount_pb2, snapshots_pb2, snapshots_pb2_grpc
from snapspec.conformance.subjects.remote import RemoteSnapshotter, TransportLost, connect, probe
from snapspec.impl import errors
from snapspec.model.values import Info, Kind, Mount, Usage

# Generated without types.
add_to_server: Callable[[snapshots_pb2_grpc.SnapshotsServicer, grpc.aio.Server], None] = (
    snapshots_pb2_grpc.add_SnapshotsServicer_to_server
)

# --- opening ---------------------------------------------------------------------------------------------------------------


def _nothing(_path: Path) -> None:
    return None


def _file(path: Path) -> None:
    path.write_text("")


def _dead(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    ("make", "message"), [(_nothing, "there is no socket"), (_file, "is not a socket"), (_dead, "nobody listens on")]
)
def test_connect_says_what_is_wrong(workdir: Path, make: Callable[[Path], None], message: str) -> None:
    """No file, a plain file, the socket of a server that has ended."""
    make(workdir / "s")
    with pytest.raises(CannotRun, match=f"{message}.*: "):
        asyncio.run(connect(f"unix://{workdir}/s"))


@pytest.mark.parametrize("address", ["/run/x.sock", "unix://x.sock", "unix:///dev/null/x"])
def test_connect_refuses_what_is_no_address(address: str) -> None:
    """No scheme, no absolute path, a path through a file."""
    with pytest.raises(CannotRun, match=": "):
        asyncio.run(connect(address))


def test_connect_says_when_the_path_is_too_long(workdir: Path) -> None:
    """The socket is there, but the kernel takes only 107 bytes of a path to it."""
    (workdir / ("x" * 110)).mkdir()
    directory = os.open(workdir / ("x" * 110), os.O_PATH | os.O_DIRECTORY)
    _dead(Path(f"/proc/self/fd/{directory}/s"))
    os.close(directory)
    with pytest.raises(CannotRun, match="at most 107 bytes"):
        asyncio.run(connect(f"unix://{workdir}/{'x' * 110}/s"))


def test_connect_says_when_permission_is_lacking(workdir: Path) -> None:
    """A socket that another user may not write to."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(workdir / "s"))
        listener.listen()
        (workdir / "s").chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(CannotRun, match="no permission to connect"):
                asyncio.run(connect(f"unix://{workdir}/s"))
        finally:
            os.seteuid(user)


@asynchronous
async def test_connect_says_when_no_grpc_server_answers(workdir: Path) -> None:
    """Somebody takes the connection and says nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(workdir / "s"))
        listener.listen()
        with pytest.raises(CannotRun, match=r"no gRPC server answers within 0\.3 s"):
            await connect(f"unix://{workdir}/s", timeout=0.3)


@asynchronous
async def test_what_cannot_be_a_header_is_refused() -> None:
    """A namespace and a lease travel as headers."""
    with pytest.raises(CannotRun, match="cannot be a namespace"):
        RemoteSnapshotter("unix:///x", "overlayfs", "naïve")
    with pytest.raises(CannotRun, match="cannot be a lease"):
        RemoteSnapshotter("unix:///x", "overlayfs", "test", "a\nb")


# --- replies ---------------------------------------------------------------------------------------------------------------


class Server(snapshots_pb2_grpc.SnapshotsServicer):
    """Answers as the key of the request says, and keeps the requests and the headers."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.hanging = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.answer_all = ""

    def _keep(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.headers.append(dict(context.invocation_metadata()))

    async def Stat(self, request: Any, context: Any) -> Any:
        self._keep(request, context)
        status = self.answer_all or request.key
        if status in grpc.StatusCode.__members__:
            await context.abort(grpc.StatusCode[status], "the server's own words")
        if request.key == "long message":
            await context.abort(grpc.StatusCode.NOT_FOUND, "x" * 100_000)
        if request.key == "hang":
            self.hanging.set()
            await asyncio.sleep(30)
        info = snapshots_pb2.Info(name=request.key, labels={"b": "", "a": "1"})
        if request.key == "future kind":
            info.kind = 77  # type: ignore[assignment]  # a number that no kind has is the point
        if request.key == "view":
            info.kind = snapshots_pb2.VIEW
            info.created_at.FromNanoseconds(1_700_000_000_123_456_789)
            info.updated_at.FromNanoseconds(1_700_000_001_000_000_001)
        return snapshots_pb2.StatSnapshotResponse(info=info)

    async def Mounts(self, request: Any, context: Any) -> Any:
        self._keep(request, context)
        mount = mount_pb2.Mount(type="bind", source="/source", target="sub/path", options=["b", "a", "b"])
        return snapshots_pb2.MountsResponse(mounts=[mount, mount_pb2.Mount()])

    async def Update(self, request: Any, context: Any) -> Any:
        self._keep(request, context)
        return snapshots_pb2.UpdateSnapshotResponse()

    async def Commit(self, request: Any, context: Any) -> Any:
        self._keep(request, context)
        return Empty()

    async def Usage(self, request: Any, context: Any) -> Any:
        self._keep(request, context)
        return snapshots_pb2.UsageResponse(size=1 << 40, inodes=-1)

    async def List(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._keep(request, context)
        yield snapshots_pb2.ListSnapshotsResponse(info=[snapshots_pb2.Info(name="first"), snapshots_pb2.Info(name="second")])
        if request.filters:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server's own words")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@contextlib.asynccontextmanager
async def serving(workdir: Path, server: grpc.aio.Server) -> AsyncIterator[RemoteSnapshotter]:
    """A client of `server`, which listens below `workdir`."""
    address = f"unix://{workdir}/s p%41?#"  # a path that is not itself when it is read as a URI
    server.add_insecure_port("unix:" + quote(address.removeprefix("unix:")))
    await server.start()
    remote = RemoteSnapshotter(address, "driver", "the-namespace", "the-lease", deadline=5)
    try:
        await (await connect(address)).close()
        yield remote
    finally:
        await remote.close()
        await server.stop(0)


@contextlib.asynccontextmanager
async def served(workdir: Path) -> AsyncIterator[tuple[RemoteSnapshotter, Server]]:
    servicer, server = Server(), grpc.aio.server()
    add_to_server(servicer, server)
    async with serving(workdir, server) as remote:
        yield remote, servicer


@asynchronous
async def test_requests_hold_what_was_given(workdir: Path) -> None:
    """Name before key, the parent at commit, the mask always there, the record's times never, the headers on each call."""
    async with served(workdir) as (remote, server):
        await remote.commit("name", "key", {"empty": ""}, "parent")
        await remote.update(Info("name", "parent", Kind.VIEW, (("a", "1"), ("b", "")), 5, 6))
        commit, update = server.requests
        assert (commit.snapshotter, commit.name, commit.key, commit.parent) == ("driver", "name", "key", "parent")
        assert dict(commit.labels) == {"empty": ""}
        assert update.HasField("update_mask")
        assert not update.info.HasField("created_at")
        assert (update.info.parent, update.info.kind, dict(update.info.labels)) == (
            "parent",
            snapshots_pb2.VIEW,
            {"a": "1", "b": ""},
        )
        for headers in server.headers:
            assert (headers["containerd-namespace"], headers["containerd-lease"]) == ("the-namespace", "the-lease")


@asynchronous
async def test_replies_are_decoded_as_they_are(workdir: Path) -> None:
    """Unknown kinds are committed, missing times the epoch; empty labels, order, repeats and negative counts stay to be seen."""
    async with served(workdir) as (remote, _):
        labels = (("a", "1"), ("b", ""))
        assert await remote.stat("no kind") == Info("no kind", "", Kind.COMMITTED, labels, 0, 0)
        assert (await remote.stat("future kind")).kind is Kind.COMMITTED
        times = (1_700_000_000_123_456_789, 1_700_000_001_000_000_001)
        assert await remote.stat("view") == Info("view", "", Kind.VIEW, labels, *times)
        assert await remote.mounts("key") == (Mount("bind", "/source", ("b", "a", "b"), "sub/path"), Mount("", "", (), ""))
        assert await remote.usage("key") == Usage(1 << 40, -1)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("NOT_FOUND", errors.NotFound),
        ("ALREADY_EXISTS", errors.AlreadyExists),
        ("INVALID_ARGUMENT", errors.InvalidArgument),
        ("FAILED_PRECONDITION", errors.FailedPrecondition),
        ("UNIMPLEMENTED", errors.Unimplemented),
        ("UNAVAILABLE", errors.Unavailable),
        ("RESOURCE_EXHAUSTED", errors.ResourceExhausted),
        ("CANCELLED", errors.Canceled),
        ("DEADLINE_EXCEEDED", errors.DeadlineExceeded),
        ("UNKNOWN", errors.SnapshotError),
        ("INTERNAL", errors.SnapshotError),
        ("DATA_LOSS", errors.SnapshotError),
        ("PERMISSION_DENIED", errors.SnapshotError),
    ],
)
@asynchronous
async def test_each_status_has_its_class(workdir: Path, status: str, kind: type[errors.SnapshotError]) -> None:
    """An Unavailable or Canceled that the server itself answers is an answer, no lost transport and no cancelled task."""
    async with served(workdir) as (remote, _):
        with pytest.raises(errors.SnapshotError, match="the server's own words") as caught:
            await remote.stat(status)
        assert type(caught.value) is kind


@asynchronous
async def test_streams_fail_and_end_early(workdir: Path) -> None:
    """A failure after records is raised after them; leaving early cancels the call on the server's side too."""
    async with served(workdir) as (remote, server):
        walk = remote.walk(["fail"])
        assert [(await anext(walk)).name, (await anext(walk)).name] == ["first", "second"]
        with pytest.raises(errors.Unavailable):
            await anext(walk)
        async with contextlib.aclosing(remote.walk()) as walk:
            assert (await anext(walk)).name == "first"
        await asyncio.wait_for(server.cancelled.wait(), 5)


@asynchronous
async def test_long_messages_and_replies_that_are_none(workdir: Path) -> None:
    """A message of 100 kB arrives whole; bytes that are no reply are an error of the server."""

    async def garbage(_request: bytes, _context: Any) -> bytes:
        return b"\xff\xff\xff\xff"

    async with served(workdir) as (remote, _):
        with pytest.raises(errors.NotFound, match=r"^x{100000}$"):
            await remote.stat("long message")
    server = grpc.aio.server()
    handlers = {"Stat": grpc.unary_unary_rpc_method_handler(garbage)}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("containerd.services.snapshots.v1.Snapshots", handlers)]
    )
    async with serving(workdir, server) as remote:
        with pytest.raises(errors.SnapshotError, match="cannot be decoded"):
            await remote.stat("key")


@asynchronous
async def test_probe_knows_a_server_without_snapshots(workdir: Path) -> None:
    """It is a gRPC server, but another one."""
    async with serving(workdir, grpc.aio.server()) as remote:
        with pytest.raises(CannotRun, match="does not serve the snapshots API"):
            await probe(remote)


@pytest.mark.parametrize("status", ["UNKNOWN", "INVALID_ARGUMENT", "FAILED_PRECONDITION"])
@asynchronous
async def test_probe_leaves_wrong_answers_to_the_check(workdir: Path, status: str) -> None:
    """A driver that answers wrongly, or knows every key, is there and is to be checked."""
    async with served(workdir) as (remote, server):
        await probe(remote)
        server.answer_all = status
        await probe(remote)
        assert len(server.requests) == 2


@asynchronous
async def test_closing_during_a_call(workdir: Path) -> None:
    """It ends the call, without cancelling the task that waits; later calls say that the connection is closed."""
    async with served(workdir) as (remote, server):
        task = asyncio.create_task(remote.stat("hang"))
        await asyncio.wait_for(server.hanging.wait(), 5)
        await remote.close()
        with pytest.raises(TransportLost, match="closed during the call"):
            await task
        await remote.close()
        with pytest.raises(errors.FailedPrecondition, match="connection is closed"):
            await remote.stat("key")
        with pytest.raises(errors.FailedPrecondition, match="connection is closed"):
            await anext(remote.walk())
