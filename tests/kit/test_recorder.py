"""The recorder before a real driver: what passes, what is taken down, and what becomes of it when somebody dies."""

from __future__ import annotations

import asyncio
import signal
import stat
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import containerd as daemons
import grpc
import grpc.aio
import pytest
from recorder import Recorded, recorded, recorder
from test_run import command
from verdicts import nothing_wrong

from snapspec.conformance.cli import main
from snapspec.conformance.linear import Verdict
from snapspec.conformance.recordings.judge import judge
from snapspec.conformance.recordings.lanes import drawn
from snapspec.conformance.recordings.recording import load
from snapspec.conformance.subjects.remote import RemoteSnapshotter, TransportLost, open_channel
from snapspec.impl.errors import NotFound, SnapshotError
from snapspec.model import ops
from snapspec.model.replies import Failed, Lost

containerd = daemons.containerd

Client = Callable[[RemoteSnapshotter], Awaitable[None]]


def through(there: Recorded, client: Client, *, direct: bool = False) -> None:
    """Let a client call through the recorder, or past it."""

    async def run() -> None:
        remote = RemoteSnapshotter(f"unix://{there.plugin if direct else there.socket}", "snapspec")
        try:
            await client(remote)
        finally:
            await remote.close()

    asyncio.run(run())


def test_answers_pass_unchanged_and_are_taken_down(workdir: Path) -> None:
    async def before(remote: RemoteSnapshotter) -> None:
        await remote.prepare("old")

    async def client(remote: RemoteSnapshotter) -> None:
        given = await remote.prepare("a", labels={"l": "1"})
        assert await remote.mounts("a") == given
        with pytest.raises(NotFound, match="nowhere"):
            await remote.stat("nowhere")
        assert {info.name async for info in remote.walk()} == {"old", "a"}
        await asyncio.gather(*(remote.stat("a") for _ in range(8)))
        await remote.commit("n", "a")

    with recorded(workdir) as there:
        assert stat.S_IMODE(there.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(there.out.stat().st_mode) == 0o600
        through(there, before, direct=True)
        through(there, client)
        assert there.end()[0] == 0
        assert not there.socket.exists()
        recording = load(there.out)
    assert [info.name for info in recording.stores[0].records or ()] == ["old"]
    assert [type(made.op) for made in recording.calls[:4]] == [ops.Prepare, ops.Mounts, ops.Stat, ops.Walk]
    assert recording.calls[0].op == ops.Prepare("a", "", (("l", "1"),))
    assert isinstance(recording.calls[2].response, Failed)
    assert max(made.caller for made in recording.calls) > 0, "calls that overlap are of several callers"
    assert judge(recording).verdict is Verdict.LEGAL
    assert main(["audit", str(there.out)]) == 0


@pytest.mark.deep
def test_a_method_that_nobody_knows_passes_too(workdir: Path) -> None:
    """gRPC's own client says Internal where a server ends a call before it has taken the request, and so may the recorder."""

    async def call(socket: Path) -> tuple[grpc.StatusCode, str]:
        channel = open_channel(f"unix://{socket}")
        try:
            await channel.unary_unary("/some.Service/Method")(b"anything")
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        finally:
            await channel.close()
        raise AssertionError("it is not there")

    with recorded(workdir) as there:
        direct = asyncio.run(call(there.plugin))
        passed = [asyncio.run(call(there.socket)) for _ in range(8)]
    assert direct[0] is grpc.StatusCode.UNIMPLEMENTED
    assert direct in passed
    assert set(passed) <= {direct, (grpc.StatusCode.INTERNAL, "Internal error from Core")}


@pytest.mark.deep
def test_a_driver_that_dies_is_told_of_and_its_call_is_open(workdir: Path) -> None:
    async def client(remote: RemoteSnapshotter) -> None:
        await remote.prepare("a")
        there.driver.kill()
        there.driver.wait()
        with pytest.raises((TransportLost, SnapshotError), match="no answer from"):
            await remote.prepare("b")

    with recorded(workdir) as there:
        through(there, client)
        assert there.end()[0] == 0
        last = load(there.out).calls[-1]
    assert (last.op, last.ended) == (ops.Prepare("b"), None)
    assert isinstance(last.response, Lost)
    assert judge(load(there.out)).verdict is Verdict.LEGAL


@pytest.mark.deep
def test_a_client_that_goes_away_leaves_an_open_call(workdir: Path) -> None:
    async def client(remote: RemoteSnapshotter) -> None:
        await remote.prepare("a")
        there.driver.send_signal(signal.SIGSTOP)
        call = asyncio.create_task(remote.prepare("b"))
        await asyncio.sleep(0.2)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.sleep(0.2)
        there.driver.send_signal(signal.SIGCONT)
        await remote.stat("a")

    with recorded(workdir) as there:
        through(there, client)
        assert there.end()[0] == 0
        calls = load(there.out).calls
    assert [(call.op, isinstance(call.response, Lost)) for call in calls[1:]] == [
        (ops.Prepare("b"), True),
        (ops.Stat("a"), False),
    ]


def test_no_line_that_was_acknowledged_is_lost_when_the_recorder_is_killed(workdir: Path) -> None:
    async def client(remote: RemoteSnapshotter) -> None:
        async def keep_on(caller: int) -> None:
            for number in range(1000):
                try:
                    await remote.prepare(f"{caller}-{number}")
                except (TransportLost, SnapshotError):
                    return
                answered.add(f"{caller}-{number}")

        callers = [asyncio.create_task(keep_on(caller)) for caller in range(4)]
        await asyncio.sleep(0.4)
        there.recorder.kill()
        await asyncio.gather(*callers)

    answered: set[str] = set()
    with recorded(workdir) as there:
        through(there, client)
        recording = load(there.out)
    assert answered
    assert answered <= {made.op.key for made in recording.calls if isinstance(made.op, ops.Prepare) and made.response != Lost()}
    assert judge(recording).verdict is Verdict.LEGAL


@pytest.mark.deep
def test_a_driver_that_says_done_and_has_not_is_found(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def client(remote: RemoteSnapshotter) -> None:
        await remote.prepare("other")
        await remote.prepare("a")
        await remote.commit("n", "a")
        await remote.prepare("b", "n")
        await remote.remove("n")
        await remote.stat("n")

    with recorded(workdir, "remove-says-done") as there:
        through(there, client)
        assert there.end()[0] == 0
        assert main(["audit", str(there.out)]) == 1
    text = capsys.readouterr().out
    assert "SNAP-REMOVE-2" in text
    assert "no place for:" in text
    assert "'other'" not in text


@pytest.mark.deep
def test_a_place_that_is_taken_is_refused(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with recorded(workdir) as there:
        arguments = ["record", "--listen", str(there.socket), "--upstream", str(there.plugin), "--out"]
        assert main([*arguments, str(workdir / "other")]) == 2
        assert "is served already: end that server, or name another path" in capsys.readouterr().err
        arguments[2] = str(workdir / "free.sock")
        assert main([*arguments, str(there.out)]) == 2
        assert "is there already" in capsys.readouterr().err
        arguments[4] = str(workdir / "nowhere.sock")
        assert main([*arguments, str(workdir / "other")]) == 2
    assert not (workdir / "other").exists()


@pytest.mark.deep
@pytest.mark.root
def test_containerd_under_the_kit_is_recorded_and_legal(containerd: daemons.Daemon, workdir: Path) -> None:
    """Namespaces, leases, content and the collector pass too; calls overlap at the second level."""
    socket, out = workdir / "r.sock", workdir / "recording"
    subject = f"containerd:{socket}?snapshotter=overlayfs"
    with recorder(containerd.socket, socket, out) as process:
        done = command("check", subject, "--examples", "4", "--jobs", "1", "--without", "collect", "--seed", "1")
        nothing_wrong(done)
        without = ("--without", "walk,parents")
        done = command("check", subject, "--level", "concurrent", "--examples", "4", "--jobs", "1", *without)
        nothing_wrong(done)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0
    recording = load(out)
    assert len(recording.stores) >= 2
    assert len(recording.calls) > 500
    opinion = judge(recording)
    assert opinion.verdict is Verdict.LEGAL, list(drawn(opinion.shown)) if opinion.shown else opinion


@pytest.mark.deep
@pytest.mark.root
def test_a_recording_that_cannot_be_written_ends_with_the_remedy(workdir: Path) -> None:
    """The client is told, and what was acknowledged before stands in the file."""

    async def client(remote: RemoteSnapshotter) -> None:
        try:
            for number in range(1000):
                await remote.prepare(f"{number:04}")
                answered.append(f"{number:04}")
        except (TransportLost, SnapshotError) as error:
            refused.append(str(error))

    answered: list[str] = []
    refused: list[str] = []
    small = workdir / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=True)
    try:
        with recorded(workdir, out=small / "recording") as there:
            through(there, client)
            _, errors = there.recorder.communicate(timeout=30)
            assert there.recorder.returncode == 2
        assert "make room" in errors
        assert answered
        assert refused
        known = {made.op.key for made in load(small / "recording").calls if isinstance(made.op, ops.Prepare) and made.ended}
        assert set(answered) <= known
    finally:
        subprocess.run(["umount", str(small)], check=True)
