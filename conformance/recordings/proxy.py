"""The recorder: it stands between clients and a driver's socket, passes every byte on unchanged, and takes down the calls.

Of services other than snapshots nothing is taken down, but that a lease gives something up. An answer goes to the client only
when its line is written.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import grpc
import grpc.aio

from snapspec.conformance.errors import CannotRun
from snapspec.conformance.listening import bind, free_place
from snapspec.conformance.recordings.recording import Store, Taker, Unwritable, create
from snapspec.conformance.recordings.wire import SERVICE, UNARY, Said, answered, failed, said
from snapspec.conformance.subjects.remote import (
    CHANNEL_OPTIONS,
    SCHEME,
    RemoteSnapshotter,
    TransportLost,
    connect,
    socket_path,
    version,
)
from snapspec.impl.errors import SnapshotError
from snapspec.model import ops
from snapspec.model.replies import Lost, Response
from snapspec.model.values import ErrorClass, Info

#: What takes things out of a lease.
RELEASES = ("/containerd.services.leases.v1.Leases/Delete", "/containerd.services.leases.v1.Leases/DeleteResource")

#: An end of a call that tells nothing of its effect: it was given up, or the way to the server is broken.
_UNHEARD = (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)

#: Metadata that belong to one connection: gRPC makes them anew for the next.
_CONNECTION = ("user-agent", "te", "content-type", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding")

#: How long calls that run may go on when the recorder is told to end.
GRACE = 5.0

Metadata = tuple[tuple[str, str | bytes], ...]


def _kept(metadata: Any) -> Metadata:
    return tuple((key, value) for key, value in metadata or () if key not in _CONNECTION)


class Recorder(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc comes without types
    """Handles every method of every service. `metadata_layer`: the upstream is containerd itself, where keys belong to a
    namespace. `broken` holds the error once a line cannot be written."""

    def __init__(self, upstream: str, channel: grpc.aio.Channel, taker: Taker, metadata_layer: bool) -> None:
        self.upstream = upstream
        self.channel = channel
        self.taker = taker
        self.metadata_layer = metadata_layer
        self.broken: asyncio.Future[Unwritable] = asyncio.get_running_loop().create_future()
        self._methods: dict[str, Any] = {}
        self._stores: dict[tuple[str | None, str], asyncio.Task[int]] = {}

    def service(self, details: Any) -> Any:
        """The handler of a method: bytes in, bytes out; any number of messages each way where the method may have them."""
        method: str = details.method
        service, _, name = method.removeprefix("/").partition("/")
        if service == SERVICE and name in UNARY:
            return grpc.unary_unary_rpc_method_handler(partial(self._unary, method, name))
        return grpc.stream_stream_rpc_method_handler(partial(self._stream, method, name if service == SERVICE else ""))

    async def _unary(self, method: str, name: str, request: bytes, context: Any) -> bytes:
        """A call of the snapshots service with one reply."""
        with self._writing():
            metadata = context.invocation_metadata()
            asked = said(name, request)
            number = None if asked is None else await self._begin(asked, dict(metadata))
            told: Response = Lost("the client gave it up")
            call = self._made(method)(request, metadata=_kept(metadata), timeout=context.time_remaining())
            try:
                reply: bytes = await call
                told = answered(asked, [reply]) if asked is not None else told
            except grpc.aio.AioRpcError as error:
                told = self._told(error.code(), error.details())
                failure = error
            else:
                failure = None
            finally:
                call.cancel()
                if number is not None:
                    self.taker.answer(number, told)
            if failure is not None:
                await self._fail(context, failure)
            await _send_first(context, call)
            context.set_trailing_metadata(_kept(await call.trailing_metadata()))
            return reply
        return await self._refuse(context)

    def _made(self, method: str) -> Any:
        """What makes calls of a method with one reply; made once, for that takes time."""
        if method not in self._methods:
            self._methods[method] = self.channel.unary_unary(method)
        return self._methods[method]

    async def _stream(self, method: str, name: str, requests: AsyncIterator[bytes], context: Any) -> None:
        """A walk, which is held back until its line is written, or any other call, of which every message goes on at once."""
        with self._writing():
            if method in RELEASES:
                self.taker.release(method)
            if name:
                messages = [message async for message in requests]
                asked = said(name, messages[0]) if len(messages) == 1 else None
                await self._pass(method, _again(messages), context, asked)
            else:
                await self._pass(method, requests, context, None)
            return
        await self._refuse(context)

    async def _pass(self, method: str, requests: AsyncIterator[bytes], context: Any, asked: Said | None) -> None:
        metadata = context.invocation_metadata()
        number = None if asked is None else await self._begin(asked, dict(metadata))
        told: Response = Lost("the client gave it up")
        held: list[bytes] = []
        failure: grpc.aio.AioRpcError | None = None
        call = self.channel.stream_stream(method)(requests, metadata=_kept(metadata), timeout=context.time_remaining())
        try:
            await _send_first(context, call)
            async for reply in call:
                if asked is None:
                    await context.write(reply)
                else:
                    held.append(reply)
            told = answered(asked, held) if asked is not None else told
        except grpc.aio.AioRpcError as error:
            told = self._told(error.code(), error.details())
            failure = error
        finally:
            call.cancel()
            if number is not None:
                self.taker.answer(number, told)
        for reply in held:
            await context.write(reply)
        if failure is not None:
            await self._fail(context, failure)
        context.set_trailing_metadata(_kept(await call.trailing_metadata()))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What is done with lines that can be written; when one cannot be, the block is left, and that is the end."""
        try:
            yield
        except Unwritable as error:
            if not self.broken.done():
                self.broken.set_result(error)

    async def _refuse(self, context: Any) -> NoReturn:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the recording cannot be written, and the recorder ends")
        raise AssertionError("abort raises")

    def _told(self, code: grpc.StatusCode, details: str | None) -> Response:
        return Lost(f"{code.name}: {details}") if code in _UNHEARD else failed(code, details)

    async def _fail(self, context: Any, error: grpc.aio.AioRpcError) -> NoReturn:
        """End the client's call as the one upstream ended."""
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.UNAVAILABLE:
            details = f"no answer from {socket_path(self.upstream)}; whether the call had an effect is not known: {details}"
        await context.abort(code, details, _kept(error.trailing_metadata()))
        raise AssertionError("abort raises")

    async def _begin(self, asked: Said, headers: dict[str, str | bytes]) -> int:
        namespace = str(headers.get("containerd-namespace", ""))
        store = await self._store(namespace if self.metadata_layer else None, asked.snapshotter)
        op = asked.op
        if self.metadata_layer and not namespace and isinstance(op, ops.Nameable):
            op = ops.Nowhere(op)
        return self.taker.begin(op, store, "containerd-lease" in headers)

    async def _store(self, namespace: str | None, snapshotter: str) -> int:
        """The number of the store. At its first call, before that goes on, the records are asked for."""
        known = (namespace, snapshotter)
        if known not in self._stores:
            self._stores[known] = asyncio.ensure_future(self._met(namespace, snapshotter))
        return await asyncio.shield(self._stores[known])

    async def _met(self, namespace: str | None, snapshotter: str) -> int:
        if namespace == "":  # nothing is there (DOOR-NS-1)
            return self.taker.store(Store(snapshotter, namespace))
        remote = RemoteSnapshotter(self.upstream, snapshotter, namespace)
        records: tuple[Info, ...] | None = None
        why = ""
        try:
            records = tuple([info async for info in remote.walk()])
        except SnapshotError as error:
            # A store that was never written may say so (SNAP-WALK-7, SNAP-WALK-8).
            never = error.error in (ErrorClass.NOT_FOUND, ErrorClass.UNKNOWN)
            records, why = (() if never else None), str(error)
        except TransportLost as error:
            why = str(error)
        await remote.close()
        return self.taker.store(Store(snapshotter, namespace, records, None, why))


async def _again(messages: list[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


async def _send_first(context: Any, call: Any) -> None:
    """The metadata that come before the first message."""
    first = _kept(await call.initial_metadata())
    if first:
        await context.send_initial_metadata(first)


# --- the command


def record(listen: Path, upstream: Path, out: Path, ready: Callable[[], None]) -> None:
    """Record until SIGINT or SIGTERM comes. Raises CannotRun when that cannot be, or when a line cannot be written."""
    asyncio.run(_serve(listen.absolute(), f"{SCHEME}{upstream.absolute()}", out, ready))


async def _serve(listen: Path, upstream: str, out: Path, ready: Callable[[], None]) -> None:
    with free_place(listen):  # before anything else: where the socket is taken, no file is made
        channel = await connect(upstream)
    file = create(out)
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    try:
        recorder = Recorder(upstream, channel, Taker(file), await _is_containerd(channel))
        server = grpc.aio.server(options=CHANNEL_OPTIONS, handlers=None)
        server.add_generic_rpc_handlers((recorder,))
        with free_place(listen):
            bind(server, listen)
        await server.start()
        ready()
        waiting: set[asyncio.Future[Any]] = {asyncio.ensure_future(told.wait()), recorder.broken}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await server.stop(GRACE if told.is_set() else 0)
        if recorder.broken.done():
            raise CannotRun(f"cannot write {out}: {recorder.broken.result()}; make room there, or name another place")
    finally:
        os.close(file)
        await channel.close()


async def _is_containerd(channel: grpc.aio.Channel) -> bool:
    """Whether the server has containerd's own services, and with them namespaces."""
    try:
        await version(channel)
    except (SnapshotError, TransportLost):
        return False
    return True
