"""The gRPC client and containerd's metadata layer, against a real containerd."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from secrets import token_hex
from typing import Any

import containerd as daemons
import pytest
from aio import asynchronous

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.subjects.remote import Containerd, RemoteSnapshotter, TransportLost, connect, probe, version
from snapspec.impl import errors
from snapspec.model.values import Info, Kind, Mount, Usage

containerd = daemons.containerd  # the fixture

pytestmark = pytest.mark.root  # containerd and the mounts of its snapshotters need it
each_snapshotter = pytest.mark.parametrize("name", daemons.SNAPSHOTTERS)


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


@each_snapshotter
@asynchronous
async def test_a_life_from_prepare_to_remove(containerd: daemons.Daemon, name: str) -> None:
    """Every call works, and what one tells agrees with what the others tell."""
    async with session(containerd, name) as (remote, _):
        before = time.time_ns()
        mounts = await remote.prepare("active", labels={"kept": "1", "empty": ""})
        assert mounts
        assert all(isinstance(mount, Mount) and mount.type and mount.source for mount in mounts)
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


@each_snapshotter
@asynchronous
async def test_errors_keep_their_class_and_message(containerd: daemons.Daemon, name: str) -> None:
    """One case of each class that containerd answers with."""
    async with session(containerd, name) as (remote, _):
        await remote.prepare("active")
        await remote.prepare("below")
        await remote.commit("base", "below")
        await remote.view("view", "base")
        base = await remote.stat("base")
        wrong: list[tuple[type[errors.SnapshotError], str, Callable[[], Coroutine[Any, Any, Any]]]] = [
            (errors.NotFound, "missing", lambda: remote.stat("missing")),
            (errors.NotFound, "missing", lambda: remote.prepare("new", "missing")),
            (errors.NotFound, "missing", lambda: remote.commit("new", "missing")),
            (errors.AlreadyExists, "active", lambda: remote.prepare("active")),
            (errors.AlreadyExists, "base", lambda: remote.commit("base", "active")),
            (errors.InvalidArgument, "not committed", lambda: remote.view("new", "active")),
            (errors.InvalidArgument, "parent", lambda: remote.update(base, ["parent"])),
            (errors.InvalidArgument, "4096", lambda: remote.prepare("new", labels={"long": "x" * 5000})),
            (errors.FailedPrecondition, "child", lambda: remote.remove("base")),
            (errors.FailedPrecondition, "not active or view", lambda: remote.mounts("base")),
            (errors.Unimplemented, "Cleanup", lambda: remote.cleanup()),
            (errors.SnapshotError, "required", lambda: remote.prepare("")),
        ]
        for kind, message, call in wrong:
            with pytest.raises(errors.SnapshotError, match=message) as caught:
                await call()
            assert type(caught.value) is kind
        with pytest.raises(errors.SnapshotError, match="filters"):
            await names(remote, "name==")
        assert await names(remote) == ["active", "base", "view"]


@each_snapshotter
@asynchronous
async def test_update_sends_its_mask(containerd: daemons.Daemon, name: str) -> None:
    """No mask replaces all labels, a mask touches what it names, and parent and kind count for nothing."""
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


@each_snapshotter
@asynchronous
async def test_walk_filters(containerd: daemons.Daemon, name: str) -> None:
    """Filters arrive as given: each narrows, several add up."""
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


@asynchronous
async def test_walk_streams_more_than_one_block(containerd: daemons.Daemon) -> None:
    """250 records arrive once each; left early, the call ends and the next one works."""
    async with session(containerd, "overlayfs") as (remote, _):
        keys = [f"key {number:03}" for number in range(250)]
        for start in range(0, 250, 25):
            await asyncio.gather(*(remote.view(key, labels={"number": key}) for key in keys[start : start + 25]))
        assert await names(remote) == keys
        async with contextlib.aclosing(remote.walk()) as walk:
            async for info in walk:
                assert info.labels == (("number", info.name),)
                break
        assert await names(remote, 'name=="key 007"') == ["key 007"]


# --- containerd: the metadata layer ----------------------------------------------------------------------------------------


@each_snapshotter
@asynchronous
async def test_a_lease_keeps_until_it_is_dropped(containerd: daemons.Daemon, name: str) -> None:
    """What a lease names, and its parents, outlive a collection; dropped from the lease they do not (DOOR-GC)."""
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


@asynchronous
async def test_two_namespaces_know_nothing_of_each_other(containerd: daemons.Daemon) -> None:
    """The same key is two snapshots, and a parent is not found across (DOOR-NS)."""
    async with (
        session(containerd, "overlayfs") as (left, left_layer),
        session(containerd, "overlayfs") as (right, right_layer),
    ):
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


@asynchronous
async def test_namespaces_can_be_made_alone(containerd: daemons.Daemon) -> None:
    """Made, listed, made again, deleted, deleted again."""
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


@asynchronous
async def test_a_missing_lease_is_not_found(containerd: daemons.Daemon) -> None:
    """The lease travels with the call: containerd refuses to make what an unknown lease should keep."""
    async with session(containerd, "overlayfs") as (remote, layer):
        other = RemoteSnapshotter(containerd.address, "overlayfs", layer.namespace, "unknown")
        with pytest.raises(errors.NotFound, match="lease"):
            await other.prepare("key")
        await other.close()
        assert await names(remote) == []


# --- opening and what can be wrong with it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "namespace", "message"),
    [
        ("overlayfs", None, "containerd's own socket"),
        ("unknown", "test", "has no snapshotter 'unknown'.*plugins ls"),
        ("", "test", "has no snapshotter ''.*plugins ls"),
        ("overlayfs", "white space", "refuses the namespace"),
    ],
)
@asynchronous
async def test_probe_says_what_is_wrong(containerd: daemons.Daemon, name: str, namespace: str | None, message: str) -> None:
    """No namespace, no such snapshotter, no such form of a namespace: one sentence each."""

    remote = RemoteSnapshotter(containerd.address, name, namespace)
    with pytest.raises(CannotRun, match=message):
        await probe(remote)
    await remote.close()


@asynchronous
async def test_without_a_namespace_is_a_failed_precondition(containerd: daemons.Daemon) -> None:
    """As the call itself answers it, before anything else (DOOR-NS)."""

    remote = RemoteSnapshotter(containerd.address, "overlayfs")
    with pytest.raises(errors.FailedPrecondition, match="namespace is required"):
        await remote.prepare("key", "missing", {"long": "x" * 5000})
    await remote.close()


# --- a containerd that stops, dies, or comes back --------------------------------------------------------------------------


@asynchronous
async def test_calls_to_a_containerd_that_stands_still(workdir: Path) -> None:
    """A call is cancelled with its task, or ends at its deadline; containerd goes on and the client with it."""
    with daemons.start_containerd(workdir) as daemon:
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


@asynchronous
async def test_a_killed_containerd_is_a_lost_transport(workdir: Path) -> None:
    """In the middle of a call, of a stream, and for the next call; started again it still has what it acknowledged."""
    with daemons.start_containerd(workdir) as daemon:
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
            await asyncio.wait_for(found_again(remote, layer), 5)


async def found_again(remote: RemoteSnapshotter, layer: Containerd) -> None:
    """Until clients from before a restart have connected again, which they try at least twice a second."""
    for call in (layer.list_leases, lambda: names(remote)):
        while True:
            try:
                assert await call()
                break
            except TransportLost:
                await asyncio.sleep(0.05)


@asynchronous
async def test_a_containerd_that_ends_in_order_is_a_lost_transport_too(workdir: Path) -> None:
    """It says goodbye before it closes the connection: that is no answer to a call."""
    with daemons.start_containerd(workdir) as daemon:
        remote = RemoteSnapshotter(daemon.address, "native", "test")
        await probe(remote)
        daemon.stop()
        with pytest.raises(TransportLost):
            await remote.stat("key")
        await remote.close()


def test_cancelled_calls_leave_nothing_for_the_next_loop(containerd: daemons.Daemon) -> None:
    """gRPC tells of the end of a call in its own time: told to a loop that is closed by then it would raise in the next one."""

    @asynchronous
    async def cancel_one() -> None:
        remote = RemoteSnapshotter(containerd.address, "overlayfs", "test")
        task = asyncio.create_task(names(remote))
        await asyncio.sleep(0.0005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # it may have ended already
            assert await task == []
        await remote.close()

    for _ in range(60):
        cancel_one()
