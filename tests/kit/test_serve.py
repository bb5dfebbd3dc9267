"""`snapspec serve`: its socket, its end, and what hostile clients get."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest
from aio import asynchronous
from served import Server, served

from snapspec.conformance.cli import main
from snapspec.conformance.proto import snapshots_pb2 as pb
from snapspec.conformance.proto import snapshots_pb2_grpc
from snapspec.conformance.service import LISTS, MESSAGE_BYTES, NAME, OPTIONS, PAGE_RECORDS, Service, pages
from snapspec.conformance.subjects.remote import RemoteSnapshotter
from snapspec.conformance.wire import ERROR_CLASSES, STATUS
from snapspec.impl.mounts import mounted, mountpoints_below
from snapspec.impl.overlay import open_overlay
from snapspec.model.values import ErrorClass, Info, Kind, Mount

_stub: Callable[[grpc.aio.Channel], Any] = snapshots_pb2_grpc.SnapshotsStub  # generated without types

T = TypeVar("T")

#: Seconds in which a call that nothing hinders has answered, on a busy machine too.
SOON = 10.0


def test_each_class_has_a_status_of_its_own() -> None:
    """What the client reads is what the server wrote."""
    assert set(STATUS) == set(ErrorClass)
    assert all(ERROR_CLASSES[STATUS[error]] is error for error in ErrorClass)


# --- the process


def refused(capsys: pytest.CaptureFixture[str], subject: str, listen: Path, root: Path) -> str:
    """What `serve` says when it cannot: one sentence, and status 2."""
    assert main(["serve", subject, "--listen", str(listen), "--root", str(root)]) == 2
    said, problems = capsys.readouterr()
    assert (said, problems.count("\n")) == ("", 1)
    return problems


def asked(server: Server, call: Callable[[RemoteSnapshotter], Awaitable[T]]) -> T:
    """What a client is answered."""

    async def connected_once() -> T:
        remote = RemoteSnapshotter(server.address, "snapspec")
        try:
            return await call(remote)
        finally:
            await remote.close()

    return asyncio.run(connected_once())


async def two_layers(remote: RemoteSnapshotter) -> Sequence[Mount]:
    """The mount list of the snapshot `k` on two layers, the upper one with labels."""
    for number, parent in ((1, ""), (2, "layer1")):
        await remote.prepare("k", parent)
        await remote.commit(f"layer{number}", "k", {"number": str(number)})
    return await remote.prepare("k", "layer2")


@pytest.mark.root
def test_a_store_outlives_its_server(workdir: Path) -> None:
    """The socket is root's alone; what ends the server leaves nothing mounted; SIGKILL is made good at the next start."""
    with served(workdir) as server:
        assert stat.S_IMODE(server.socket.lstat().st_mode) == 0o600
        assert "overlay on a pool of its own" in server.said
        asked(server, two_layers)
        before = asked(server, lambda remote: remote.stat("layer2"))
        assert (before.kind, before.parent, before.labels) == (Kind.COMMITTED, "layer1", (("number", "2"),))
        assert mountpoints_below(str(workdir)) == [str(server.root / "mnt")]
        assert server.end(signal.SIGINT) == 0
        assert mountpoints_below(str(workdir)) == []
        assert not server.socket.exists()
        server.start()
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        assert server.socket.is_socket(), "left behind, and nobody answers there"
        server.start()
        assert asked(server, lambda remote: remote.stat("layer2")) == before
    assert mountpoints_below(str(workdir)) == []


@pytest.mark.deep  # for the seconds that closing waits
@pytest.mark.root
def test_what_stands_on_the_store_outlives_its_server(workdir: Path) -> None:
    """A server that is ended under a container leaves it what it needs, and the next one goes on beside it."""
    server, target = Server(workdir), workdir / "m"
    target.mkdir()
    server.start()
    try:
        with mounted(asked(server, two_layers), str(target)) as directory:
            Path(directory, "before").write_text("x")
            assert server.end() == 0
            assert "the store stays open for those who use it" in server.log.read_text()
            Path(directory, "between").write_text("y")
            server.start()
            Path(directory, "after").write_text("z")
        asked(server, lambda remote: remote.commit("layer3", "k"))
        with mounted(asked(server, lambda remote: remote.view("v", "layer3")), str(target)) as directory:
            assert sorted(os.listdir(directory)) == ["after", "before", "between"]
    finally:
        assert server.end() == 0
    assert mountpoints_below(str(workdir)) == []
    assert not [path for path in Path("/sys/block").glob("loop*/loop/backing_file") if str(workdir) in path.read_text()]


def test_what_is_no_place_for_a_socket_is_refused(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is made, and with whatever is there left as it was."""
    file, taken = workdir / "file", workdir / "taken"
    file.write_text("mine")
    root = workdir / "root"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(taken))
        listening.listen(0)
        assert f"{taken} is served already: end that server, or" in refused(capsys, "ref:copy", taken, root)
        assert taken.is_socket()
    assert f"{file} is there and is no socket: name another path" in refused(capsys, "ref:copy", file, root)
    assert f"no socket can be made in {file}" in refused(capsys, "ref:copy", file / "s", root)
    assert "too long for a socket: name a shorter path" in refused(capsys, "ref:copy", workdir / ("s" * 108), root)
    assert "is no driver of this process: serve ref:overlay" in refused(capsys, "model:", workdir / "s", root)
    assert f"{file / 'root'} cannot be made" in refused(capsys, "ref:copy", workdir / "s", file / "root")
    assert file.read_text() == "mine"
    assert sorted(path.name for path in workdir.iterdir()) == ["file", "taken"]


def test_a_store_that_is_open_is_refused(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A driver of any kind is served; a second server of the same store, on another socket, is not."""
    with served(workdir, "ref:copy") as server:
        assert "is open elsewhere: close it there first" in refused(capsys, "ref:copy", workdir / "other", server.root)
        assert not (workdir / "other").exists()


# --- the service


class Crowd:
    """A driver that has very many snapshots, and answers one call at a time; `prepare` lasts until it is told to end."""

    def __init__(self, records: int = 0) -> None:
        self.records = records
        self.walking = 0
        self.one = asyncio.Lock()
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def walk(self, filters: Sequence[str] = ()) -> AsyncIterator[Info]:
        async with self.one:
            self.walking += 1
            for number in range(self.records):
                yield Info(f"key {number:06}", "", Kind.ACTIVE, (("l", "x" * 5000),), 1, 1)
            self.walking -= 1

    async def stat(self, key: str) -> Info:
        async with self.one:
            return Info(key, "", Kind.ACTIVE, (), 1, 1)

    async def usage(self, key: str) -> object:
        raise RuntimeError("\udc80 is no text, and this no answer of the port: " + key)

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
        async with self.one:
            self.began.set()
            try:
                await self.ended.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return ()


@asynccontextmanager
async def serving(directory: Path, driver: Any, patience: float = 30.0) -> AsyncIterator[str]:
    """The address of the service over `driver`, in this process."""
    address = f"unix:{directory}/s"
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((Service(driver, patience).handler(),))
    server.add_insecure_port(address)
    await server.start()
    try:
        yield address
    finally:
        await server.stop(None)


def connected(address: str) -> grpc.aio.Channel:
    """A client that takes no more of what it does not read than it must."""
    few = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16)]
    return grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1), *few])


async def code(call: Awaitable[object]) -> grpc.StatusCode:
    """The status that refuses the call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so."""
    async with asyncio.timeout(SOON):
        while not await condition():  # noqa: ASYNC110  # it is asked over gRPC
            await asyncio.sleep(0.01)  # what is asked is in another process, or in gRPC


@asynchronous
async def test_clients_that_do_not_read_block_nobody(workdir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """So many records wait for them, and no more; the driver has nothing to do with them. Gone, they leave their place."""
    driver = Crowd(records=400)
    async with serving(workdir, driver) as address, connected(address) as other:
        async with connected(address) as idle:
            lists = [_stub(idle).List(pb.ListSnapshotsRequest()) for _ in range(LISTS)]
            for call in lists:
                assert len((await asyncio.wait_for(call.read(), SOON)).info) == PAGE_RECORDS
            assert driver.walking == 0
            await _stub(other).Stat(pb.StatSnapshotRequest(key="k"), timeout=SOON)
            assert await code(listed(other)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        await again(other, 400)
    assert caplog.text == ""


@asynchronous
async def test_clients_that_do_not_read_for_long_lose_their_place(workdir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Their connection stands, and others can list again."""
    driver = Crowd(records=400)
    async with serving(workdir, driver, patience=0.2) as address, connected(address) as idle, connected(address) as other:
        lists = [_stub(idle).List(pb.ListSnapshotsRequest()) for _ in range(LISTS)]
        await asyncio.wait_for(lists[0].read(), SOON)
        await again(other, 400)
        await asyncio.sleep(0.5)  # by now the time of each is over
        with pytest.raises(grpc.aio.AioRpcError, match=r"were not read for 0.2 s"):
            await read_all(lists[0])
        assert not any(call.done() for call in lists[1:])
    assert caplog.text == ""


async def read_all(call: Any) -> None:
    """Read what is left of the answer to List."""
    while await asyncio.wait_for(call.read(), SOON) is not grpc.aio.EOF:
        pass


async def listed(channel: grpc.aio.Channel) -> int:
    """How many records List gives."""
    return sum([len(page.info) async for page in _stub(channel).List(pb.ListSnapshotsRequest(), timeout=SOON)])


async def again(channel: grpc.aio.Channel, records: int) -> None:
    """List gives them all, as soon as there is a place."""

    async def tried() -> bool:
        with suppress(grpc.aio.AioRpcError):
            return await listed(channel) == records
        return False

    await until(tried)


def test_pages_are_bounded() -> None:
    """By records and by bytes; a record that alone is larger has its own."""
    infos = [
        pb.Info(name=f"{number}", labels={"l": "x" * (3 << 20 if number == 3 else number % 7 * 100_000)}) for number in range(50)
    ]
    made = list(pages(infos))
    assert [info for page in made for info in page] == infos
    assert all(len(page) == 1 or sum(info.ByteSize() for info in page) <= 1 << 20 for page in made)
    assert [len(page) for page in pages([pb.Info()] * 250)] == [100, 100, 50]
    assert list(pages([])) == []


@asynchronous
async def test_what_no_client_should_send_is_refused(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with a status that says whose fault it is; the service goes on."""
    store = await open_overlay(str(workdir / "store"))
    async with serving(workdir, store) as address, connected(address) as channel:
        stub = _stub(channel)
        assert await code(stub.Update(pb.UpdateSnapshotRequest())) is grpc.StatusCode.INVALID_ARGUMENT
        assert await code(stub.Stat(pb.StatSnapshotRequest())) is grpc.StatusCode.NOT_FOUND
        broken = b"\x12\x02\xff\xfe"  # a key that is no UTF-8
        for method in ("Stat", "Prepare", "Remove"):
            assert await code(channel.unary_unary(f"/{NAME}/{method}")(broken)) is grpc.StatusCode.INVALID_ARGUMENT
        assert await code(channel.unary_unary(f"/{NAME}/Nothing")(b"")) is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.aio.AioRpcError, match="cannot be decoded"):
            await channel.unary_stream(f"/{NAME}/List")(b"\xff").read()
        huge = pb.PrepareSnapshotRequest(key="huge", labels={"l": "x" * (5 << 20)})
        assert await code(stub.Prepare(huge)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        large = pb.PrepareSnapshotRequest(key="large", labels={f"l{n}": "x" * 4096 for n in range(900)})
        await stub.Prepare(large)
        assert (await stub.Stat(pb.StatSnapshotRequest(key="large"))).info.labels == large.labels
        with pytest.raises(grpc.aio.AioRpcError) as told:  # the key is in the message, which is a header
            await stub.Stat(pb.StatSnapshotRequest(key="ä" * (1 << 20)))
        assert told.value.code() is grpc.StatusCode.NOT_FOUND
        assert len((told.value.details() or "").encode()) <= MESSAGE_BYTES
        for name in ("\0", "../../etc", "\n\r\t", "\u202e", "a/" * 3000, "%s{}", "\U0010ffff"):
            await stub.Prepare(pb.PrepareSnapshotRequest(key=name))
            assert (await stub.Stat(pb.StatSnapshotRequest(key=name))).info.name == name
            await stub.Remove(pb.RemoveSnapshotRequest(key=name))
    await store.close()


@asynchronous
async def test_what_a_driver_should_not_raise_is_unknown(workdir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log has it all, the client a sentence."""
    async with serving(workdir, Crowd()) as address, connected(address) as channel:
        assert await code(_stub(channel).Usage(pb.UsageRequest(key="k" * 100_000))) is grpc.StatusCode.UNKNOWN
        assert "RuntimeError" in caplog.text
        assert caplog.text.encode(), "what is no text is written as such"


@asynchronous
async def test_thousands_of_streams_end_with_their_connection(workdir: Path) -> None:
    """Calls that wait, on one connection, hold up no other connection, and are cancelled when theirs is closed."""
    driver = Crowd()
    async with serving(workdir, driver) as address, connected(address) as other:
        async with connected(address) as channel:
            calls = [_stub(channel).Prepare(pb.PrepareSnapshotRequest(key=f"k{number}")) for number in range(3000)]
            await asyncio.wait_for(driver.began.wait(), SOON)
            assert await code(_stub(other).Usage(pb.UsageRequest(), timeout=SOON)) is grpc.StatusCode.UNKNOWN
        await asyncio.wait_for(_stub(other).Stat(pb.StatSnapshotRequest(key="k")), SOON)
        assert all(call.done() for call in calls)


@pytest.mark.parametrize("how", ["cancel", "deadline"])
@asynchronous
async def test_a_call_that_is_given_up_holds_nothing(how: str, workdir: Path) -> None:
    """The driver's call is cancelled; the next one goes through."""
    driver = Crowd()
    async with serving(workdir, driver) as address, connected(address) as channel:
        call = _stub(channel).Prepare(pb.PrepareSnapshotRequest(key="k"), timeout=0.5 if how == "deadline" else None)
        await asyncio.wait_for(driver.began.wait(), SOON)
        if how == "cancel":
            call.cancel()
        else:
            assert await code(call) is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(driver.cancelled.wait(), SOON)
        await _stub(channel).Stat(pb.StatSnapshotRequest(key="k"), timeout=SOON)


@asynchronous
async def test_calls_of_the_reference_that_are_given_up_hold_nothing(workdir: Path) -> None:
    """Whenever they are cancelled: each key is there or not, and a write goes through at once."""
    store = await open_overlay(str(workdir / "store"))
    async with serving(workdir, store) as address, connected(address) as channel:
        stub = _stub(channel)
        for number in range(60):
            calls = [stub.Prepare(pb.PrepareSnapshotRequest(key=f"{number}-{n}")) for n in range(4)]
            await asyncio.sleep(number * 0.0001)
            for call in calls:
                call.cancel()
        await stub.Prepare(pb.PrepareSnapshotRequest(key="last"), timeout=SOON)
        known = [info.name async for info in store.walk()]
        for name in known:
            await stub.Remove(pb.RemoveSnapshotRequest(key=name), timeout=SOON)
        await stub.Cleanup(pb.CleanupRequest(), timeout=SOON)
    await store.close()
    assert os.listdir(workdir / "store" / "s") == []
