"""Calls that overlap as a real event loop and a real driver let them: nothing is held at gates, and no run is like another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from snapspec.conformance.schedule import Answered, Choice, Move, Observer

Op = TypeVar("Op")
Answer = TypeVar("Answer")


class FreeRun(Generic[Op, Answer]):
    """One run, on the loop that the driver lives in. `events` tell it, `operations` are the calls by number, from 1 on."""

    def __init__(self, perform: Callable[[Op], Awaitable[Answer]], observer: Observer[Op, Answer]) -> None:
        self.events: list[Choice | Answered] = []
        self.operations: dict[int, Op] = {}
        self._perform = perform
        self._observer = observer

    async def burst(self, ops: Sequence[Op]) -> None:
        """Begin the calls together, and wait for all of them. Raises what the observer raises, the first of several."""
        done = await asyncio.gather(*map(self._call, ops), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error
        self._observer.quiet()

    async def answer(self, op: Op, call: int) -> Answer:
        """What the call, whose number is `call`, answers."""
        return await self._perform(op)

    async def _call(self, op: Op) -> None:
        call = len(self.operations) + 1
        self.operations[call] = op
        self.events.append(Choice(Move.START, call))
        self._observer.invoke(call, op)
        answer = await self.answer(op, call)
        self.events.append(Answered(call, answer))
        self._observer.respond(call, answer)
