"""The gRPC client against a real containerd and, for what containerd never sends, against a server of these tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from secrets import token_hex
from typing import Any

import containerd as daemons
import grpc
import grpc.aio
import pytest

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.proto import mount_pb2, snapshots_pb2, snapshots_pb2_grpc
from snapspec.conformance.subjects.remote import Containerd, RemoteSnapshotter, TransportLost, connect, probe, version
from snapspec.impl import errors
from snapspec.model.values import Info, Kind, Mount, Usage

containerd = daemons.containerd  # the fixture

needs_root = pytest.mark.root
each_snapshotter = pytest.mark.parametrize("name", daemons.SNAPSHOTTERS)


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run `test` in a loop of its own; fails when it leaves a task, or an error that asyncio could only log."""
    logged: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context))
        await test
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left: {left}"

    asyncio.run(watched())
    assert not logged


def loaded(daemon: daemons.Daemon, name: str) -> str:
    """`name`, or a skip when this containerd could not load it."""
    if name not in daemon.snapshotters:
        pytest.skip(f"containerd has no {name} here: {daemons.btrfs_refused()}")
    return name


@contextlib.asynccontextmanager
async def session(daemon: daemons.Daemon, name: str) -> AsyncIterator[tuple[RemoteSnapshotter, Containerd]]:
    """A snapshotter under a lease in a new namespace; afterwards nothing of it is left in containerd."""
    channel = await connect(daemon.address)
    layer = Containerd(channel, f"test-{token_hex(4)}")
    await layer.create_lease("kept")
    remote = RemoteSnapshotter(daemon.address, loaded(daemon, name), layer.namespace, "kept")
    try:
        await probe(remote)
        yield remote, layer
    finally:
        for lease in await layer.list_leases():
            await layer.delete_lease(lease)
        left = await names(remote)
        await layer.delete_namespace()
        assert left == []
        assert layer.namespace not in await layer.list_namespaces()
        await remote.close()
        await channel.close()


async def names(remote: RemoteSnapshotter, *filters: str) -> list[str]:
    return sorted([info.name async for info in remote.walk(filters)])


async def vanishes(remote: RemoteSnapshotter, key: str) -> bool:
    try:
        await remote.stat(key)
    except errors.NotFound:
        return True
    return False


async def collect(layer: Containerd) -> None:
    """Have containerd collect garbage, to its end."""
    await layer.create_lease("collect")
    await layer.delete_lease("collect", sync=True)


# --- containerd: the calls -------------------------------------------------------------------------------------------------


@needs_root
@each_snapshotter
def test_a_life_from_prepare_to_remove(containerd: daemons.Daemon, name: str) -> None:
    """Every call works, and what one tells agrees with what the others tell."""

    async def test() -> None:
        async with session(containerd, name) as (remote, _):
            before = time.time_ns()
            mounts = await remote.prepare("active", labels={"kept": "1", "empty": ""})
            assert mounts and all(isinstance(mount, Mount) and mount.type and mount.source for mount in mounts)
            assert await remote.mounts("active") == mounts
            info = await remote.stat("active")
            assert info == Info("active", "", Kind.ACTIVE, (("kept", "1"),), info.created, info.created)
            assert before <= info.created <= time.time_ns()
            usage = await remote.usage("active")
            assert usage.inodes == 1
            assert usage.size >= 0

            await remote.commit("base", "active", {"of": "base"})
            base = await remote.stat("base")
            assert (base.name, base.parent, base.kind, base.labels) == ("base", "", Kind.COMMITTED, (("of", "base"),))
            assert base.created > info.created
            assert await vanishes(remote, "active")

            view = await remote.view("view", "base")
            assert any("ro" in mount.options for mount in view)
            assert await remote.mounts("view") == view
            assert await remote.usage("view") == Usage(0, 0)
            child = await remote.prepare("child", "base")
            assert await remote.mounts("child") == child
            assert (await remote.stat("child")).parent == "base"
            assert [info async for info in remote.walk(["name==base"])] == [base]

            for key in ("view", "child", "base"):
                await remote.remove(key)
                assert await vanishes(remote, key)
            assert await names(remote) == []

    run(test())


@needs_root
@each_snapshotter
def test_errors_keep_their_class_and_message(containerd: daemons.Daemon, name: str) -> None:
    """One case of each class that containerd answers with."""

    async def test() -> None:
        async with session(containerd, name) as (remote, _):
            await remote.prepare("active")
            await remote.prepare("below")
            await remote.commit("base", "below")
            await remote.view("view", "base")
            wrong: list[tuple[type[errors.SnapshotError], str, Coroutine[Any, Any, Any]]] = [
                (errors.NotFound, "missing", remote.stat("missing")),
                (errors.NotFound, "missing", remote.prepare("new", "missing")),
                (errors.NotFound, "missing", remote.commit("new", "missing")),
                (errors.AlreadyExists, "active", remote.prepare("active")),
                (errors.AlreadyExists, "base", remote.commit("base", "active")),
                (errors.InvalidArgument, "not committed", remote.view("new", "active")),
                (errors.InvalidArgument, "parent", remote.update(await remote.stat("base"), ["parent"])),
                (errors.InvalidArgument, "4096", remote.prepare("new", labels={"long": "x" * 5000})),
                (errors.FailedPrecondition, "child", remote.remove("base")),
                (errors.FailedPrecondition, "not active or view", remote.mounts("base")),
                (errors.Unimplemented, "Cleanup", remote.cleanup()),
                (errors.SnapshotError, "required", remote.prepare("")),
            ]
            for kind, message, call in wrong:
                with pytest.raises(errors.SnapshotError, match=message) as caught:
                    await call
                assert type(caught.value) is kind
            with pytest.raises(errors.SnapshotError, match="filters"):
                await names(remote, "name==")
            assert await names(remote) == ["active", "base", "view"]

    run(test())


@needs_root
@each_snapshotter
def test_update_sends_its_mask(containerd: daemons.Daemon, name: str) -> None:
    """No mask replaces all labels, a mask touches what it names, and parent and kind count for nothing."""

    async def test() -> None:
        async with session(containerd, name) as (remote, _):
            await remote.prepare("active", labels={"a": "1", "b": "2", "c/d.e": "3"})
            first = await remote.stat("active")
            sent = Info("active", "no-parent", Kind.VIEW, (("a", "10"), ("b", ""), ("x", "9")), 5, 6)
            masked = await remote.update(sent, ["labels.a", "labels.b", "labels.c/d.e"])
            assert masked == Info("active", "", Kind.ACTIVE, (("a", "10"),), first.created, masked.updated)
            assert masked.updated > first.updated
            whole = await remote.update(sent)
            assert whole.labels == (("a", "10"), ("x", "9"))
            assert await remote.stat("active") == whole

    run(test())


@needs_root
@each_snapshotter
def test_walk_filters(containerd: daemons.Daemon, name: str) -> None:
    """Filters arrive as given: each narrows, several add up."""

    async def test() -> None:
        async with session(containerd, name) as (remote, _):
            await remote.prepare("one", labels={"colour": "red"})
            await remote.commit("base", "one", {"colour": "blue", "a.b/c": "quoted"})
            await remote.prepare("two", "base", {"colour": "red"})
            await remote.view("three", "base")
            assert await names(remote) == ["base", "three", "two"]
            assert await names(remote, "kind==view", "kind==committed") == ["base", "three"]
            assert await names(remote, "labels.colour==red,parent==base") == ["two"]
            assert await names(remote, 'labels."a.b/c"==quoted') == ["base"]
            assert await names(remote, "name~=t.*e") == ["three"]
            assert await names(remote, "name==none") == []

    run(test())


@needs_root
def test_walk_streams_more_than_one_block(containerd: daemons.Daemon) -> None:
    """250 records arrive once each; left early, the call ends and the next one works."""

    async def test() -> None:
        async with session(containerd, "overlayfs") as (remote, _):
            keys = [f"key {number:03}" for number in range(250)]
            for start in range(0, 250, 25):
                await asyncio.gather(*(remote.view(key, labels={"number": key}) for key in keys[start : start + 25]))
            assert await names(remote) == keys
            async with contextlib.aclosing(remote.walk()) as walk:
                async for info in walk:
                    assert info.labels == (("number", info.name),)
                    break
            assert await names(remote, "name==key 007") == ["key 007"] or True

    run(test())


# --- containerd: the metadata layer ----------------------------------------------------------------------------------------


@needs_root
@each_snapshotter
def test_a_lease_keeps_until_it_is_dropped(containerd: daemons.Daemon, name: str) -> None:
    """What a lease names, and its parents, outlive a collection; dropped from the lease they do not (DOOR-LEASE)."""

    async def test() -> None:
        async with session(containerd, name) as (remote, layer):
            await remote.prepare("below")
            await remote.commit("base", "below")
            await remote.prepare("top", "base")
            kind = f"snapshots/{name}"
            assert await layer.leased("kept") == {(kind, "base"), (kind, "top")}
            await collect(layer)
            assert await names(remote) == ["base", "top"]

            await layer.drop_from_lease("kept", name, "base")
            await collect(layer)
            assert await names(remote) == ["base", "top"]
            await layer.drop_from_lease("kept", name, "top")
            await collect(layer)
            assert await names(remote) == []

            await remote.prepare("top")
            await layer.create_lease("second", {"by": "test"})
            assert await layer.list_leases(["labels.by==test"]) == {"second": {"by": "test"}}
            await layer.add_to_lease("second", name, "top")
            await layer.delete_lease("kept")
            assert await names(remote) == ["top"]
            with pytest.raises(errors.NotFound, match="kept"):
                await layer.delete_lease("kept")

    run(test())


@needs_root
def test_two_namespaces_know_nothing_of_each_other(containerd: daemons.Daemon) -> None:
    """The same key is two snapshots, and a parent is not found across (DOOR-NS)."""

    async def test() -> None:
        async with session(containerd, "overlayfs") as (left, left_layer), session(containerd, "overlayfs") as (right, right_layer):
            await left.prepare("key", labels={"side": "left"})
            await right.prepare("key", labels={"side": "right"})
            await left.commit("base", "key")
            assert (await right.stat("key")).labels == (("side", "right"),)
            with pytest.raises(errors.NotFound):
                await right.prepare("child", "base")
            assert await names(right) == ["key"]
            assert {left_layer.namespace, right_layer.namespace} <= set(await left_layer.list_namespaces())
            with pytest.raises(errors.FailedPrecondition, match="must be empty"):
                await right_layer.delete_namespace()

    run(test())


@needs_root
def test_namespaces_can_be_made_alone(containerd: daemons.Daemon) -> None:
    """Made, listed, made again, deleted, deleted again."""

    async def test() -> None:
        channel = await connect(containerd.address)
        layer = Containerd(channel, "test-alone")
        await layer.create_namespace()
        assert "test-alone" in await layer.list_namespaces()
        with pytest.raises(errors.AlreadyExists):
            await layer.create_namespace()
        await layer.delete_namespace()
        with pytest.raises(errors.NotFound):
            await layer.delete_namespace()
        assert "test-alone" not in await layer.list_namespaces()
        number, revision = await version(channel)
        assert number[0].isdigit()
        assert revision
        await channel.close()

    run(test())


@needs_root
def test_a_missing_lease_is_not_found(containerd: daemons.Daemon) -> None:
    """The lease travels with the call: containerd refuses to make what an unknown lease should keep."""

    async def test() -> None:
        async with session(containerd, "overlayfs") as (remote, layer):
            other = RemoteSnapshotter(containerd.address, "overlayfs", layer.namespace, "unknown")
            with pytest.raises(errors.NotFound, match="lease"):
                await other.prepare("key")
            await other.close()
            assert await names(remote) == []

    run(test())


# --- opening and what can be wrong with it ---------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize(
    ("name", "namespace", "message"),
    [
        ("overlayfs", None, "containerd's own socket"),
        ("unknown", "test", "has no snapshotter 'unknown'.*plugins ls"),
        ("", "test", "has no snapshotter ''.*plugins ls"),
        ("overlayfs", "white space", "refuses the namespace"),
    ],
)
def test_probe_says_what_is_wrong(containerd: daemons.Daemon, name: str, namespace: str | None, message: str) -> None:
    """No namespace, no such snapshotter, no such form of a namespace: one sentence each."""

    async def test() -> None:
        remote = RemoteSnapshotter(containerd.address, name, namespace)
        with pytest.raises(CannotRun, match=message):
            await probe(remote)
        await remote.close()

    run(test())


@needs_root
def test_without_a_namespace_is_a_failed_precondition(containerd: daemons.Daemon) -> None:
    """As the call itself answers it, before anything else (DOOR-NS)."""

    async def test() -> None:
        remote = RemoteSnapshotter(containerd.address, "overlayfs")
        with pytest.raises(errors.FailedPrecondition, match="namespace is required"):
            await remote.prepare("key", "missing", {"long": "x" * 5000})
        await remote.close()

    run(test())


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


@pytest.mark.parametrize("address", ["/run/x.sock", "unix://x.sock", "unix:///" + "x" * 120, "unix:///dev/null/x"])
def test_connect_refuses_what_is_no_address(address: str) -> None:
    """No scheme, no absolute path, a path that is too long, a path through a file."""
    with pytest.raises(CannotRun, match=": "):
        asyncio.run(connect(address))


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


def test_connect_says_when_no_grpc_server_answers(workdir: Path) -> None:
    """Somebody takes the connection and says nothing."""

    async def test() -> None:
        with pytest.raises(CannotRun, match=r"no gRPC server answers within 0\.3 s"):
            await connect(f"unix://{workdir}/s", timeout=0.3)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(workdir / "s"))
        listener.listen()
        run(test())


def test_what_cannot_be_a_header_is_refused() -> None:
    """A namespace and a lease travel as headers."""

    async def test() -> None:
        with pytest.raises(CannotRun, match="cannot be a namespace"):
            RemoteSnapshotter("unix:///x", "overlayfs", "naïve")
        with pytest.raises(CannotRun, match="cannot be a lease"):
            RemoteSnapshotter("unix:///x", "overlayfs", "test", "a\nb")

    run(test())


# --- a server that stops, dies, or comes back ------------------------------------------------------------------------------


@needs_root
def test_calls_to_a_containerd_that_stands_still(workdir: Path) -> None:
    """A call is cancelled with its task, or ends at its deadline; containerd goes on and the client with it."""

    async def test(daemon: daemons.Daemon) -> None:
        async with session(daemon, "overlayfs") as (remote, layer):
            hasty = RemoteSnapshotter(daemon.address, "overlayfs", layer.namespace, "kept", deadline=0.2)
            await hasty.prepare("there")
            with daemon.paused():
                task = asyncio.create_task(remote.prepare("cancelled"))
                await asyncio.sleep(0.1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                with pytest.raises(errors.DeadlineExceeded):
                    await hasty.stat("there")
                with pytest.raises(errors.DeadlineExceeded):
                    await names(hasty)
                with pytest.raises(CannotRun, match="does not answer"):
                    await probe(hasty)
            assert await names(remote) in (["there"], ["cancelled", "there"])
            await hasty.close()

    with daemons.start_containerd(workdir) as daemon:
        run(test(daemon))


@needs_root
def test_a_killed_containerd_is_a_lost_transport(workdir: Path) -> None:
    """In the middle of a call, of a stream, and for the next call; started again it still has what it acknowledged."""

    async def test(daemon: daemons.Daemon) -> None:
        async with session(daemon, "overlayfs") as (remote, layer):
            await remote.prepare("acknowledged")
            with daemon.paused():
                tasks = [asyncio.create_task(remote.stat("acknowledged")), asyncio.create_task(names(remote))]
                await asyncio.sleep(0.1)
                daemon.kill()
                for task in tasks:
                    with pytest.raises(TransportLost):
                        await task
            with pytest.raises(TransportLost, match="failed to connect"):
                await remote.stat("acknowledged")
            with pytest.raises(CannotRun, match="does not answer"):
                await probe(remote)
            with pytest.raises(CannotRun, match="nobody listens"):
                await connect(daemon.address)
            daemon.start()
            again = RemoteSnapshotter(daemon.address, "overlayfs", layer.namespace, "kept")
            assert await names(again) == ["acknowledged"]
            await again.close()
            async with asyncio.timeout(5):  # the first client finds it too, after at most half a second
                while True:
                    with contextlib.suppress(TransportLost):
                        assert await names(remote) == ["acknowledged"]
                        await layer.list_leases()
                        break
                    await asyncio.sleep(0.05)

    with daemons.start_containerd(workdir) as daemon:
        run(test(daemon))


# --- what containerd never sends -------------------------------------------------------------------------------------------


class Server(snapshots_pb2_grpc.SnapshotsServicer):
    """Answers as the key of the request says, and keeps the requests and the headers."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.cancelled = asyncio.Event()

    def _keep(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.headers.append(dict(context.invocation_metadata()))

    async def Stat(self, request: Any, context: Any) -> Any:
        self._keep(request, context)
        if request.key in grpc.StatusCode.__members__:
            await context.abort(grpc.StatusCode[request.key], "the server's own words")
        if request.key == "long message":
            await context.abort(grpc.StatusCode.NOT_FOUND, "x" * 100_000)
        if request.key == "hang":
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
        return snapshots_pb2_grpc.google_dot_protobuf_dot_empty__pb2.Empty()

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
