"""Recordings of callers that overlap, made from the model: each call takes effect at one instant, and so they are legal."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from snapspec.conformance.codec import encode
from snapspec.conformance.recordings.recording import FORMAT, Made, Recording, Store
from snapspec.conformance.subjects.abstract import ModelSubject
from snapspec.model import ops
from snapspec.model.ops import Operation
from snapspec.model.replies import Lost
from snapspec.model.state import Profile


def recording(calls: int, callers: int, seed: int, *, keys: int = 12, lost: int = 0) -> Recording:
    """So many calls of so many callers on a few keys; `lost` of thousand were never answered."""
    chance, clock = random.Random(seed), count(1)
    made: list[Made] = []
    subject = ModelSubject("model:", Profile())
    running: list[int | None] = [None] * callers
    landed: dict[int, bool] = {}

    async def play() -> None:
        await subject.begin()
        while len(made) < calls or any(number is not None for number in running):
            caller = chance.randrange(callers)
            number = running[caller]
            if number is None:
                if len(made) < calls:
                    running[caller] = len(made)
                    landed[len(made)] = False
                    made.append(_begun(drawn(chance, keys), caller, next(clock)))
            elif not landed[number]:
                landed[number] = True
                made[number] = replace(made[number], response=await subject.perform(0, made[number].op))
            else:
                running[caller] = None
                gone = chance.randrange(1000) < lost
                made[number] = _ended(made[number], next(clock), gone)

    asyncio.run(play())
    return Recording((Store(profile=Profile()),), tuple(made))


def _begun(op: Operation, caller: int, moment: int) -> Made:
    return Made(op, Lost(), 0, caller, moment)


def _ended(made: Made, moment: int, lost: bool) -> Made:
    far = 1 << 62  # the model takes its times from the real clock
    if lost:
        return replace(made, response=Lost(), clock_ended=far)
    return replace(made, ended=moment, clock_ended=far)


def drawn(chance: random.Random, keys: int) -> Operation:
    """A call on one of the keys, of the names that such keys are committed to, or of both."""
    key, name = f"k{chance.randrange(keys)}", f"n{chance.randrange(keys)}"
    parent = chance.choice(("", name))
    other = chance.choice((key, name))
    return chance.choices(
        (
            ops.Prepare(key, parent),
            ops.View(key, parent),
            ops.Commit(name, key),
            ops.Remove(other),
            ops.Stat(other),
            ops.Mounts(key),
            ops.Usage(other),
            ops.Update(other, (("l", key),)),
            ops.Walk(),
        ),
        (6, 2, 4, 5, 4, 3, 2, 2, 0.2),
    )[0]


def broken(whole: Recording, seed: int) -> Recording:
    """The same with one answer late in it that another call of its kind has given: mostly one that no order gives."""
    chance = random.Random(seed)
    calls = list(whole.calls)
    places = [n for n in range(len(calls) * 9 // 10, len(calls)) if isinstance(calls[n].op, ops.Stat) and calls[n].ended]
    number = chance.choice(places)
    others = [c.response for c in calls if isinstance(c.op, ops.Stat) and type(c.response) is not type(calls[number].response)]
    calls[number] = replace(calls[number], response=chance.choice(others))
    return replace(whole, calls=tuple(calls))


def write(whole: Recording, path: Path) -> None:
    """The recording as a file."""
    lines: list[dict[str, Any]] = [{"format": FORMAT, "clock": 0}]
    for number, store in enumerate(whole.stores):
        told = {"snapshotter": store.snapshotter, "namespace": store.namespace, "why": store.why}
        lines.append({"store": number, **told, "records": encode(store.records), "profile": encode(store.profile)})
    events: list[tuple[int, dict[str, Any]]] = []
    for number, made in enumerate(whole.calls):
        said = {"call": number, "store": made.store, "caller": made.caller, "clock": made.clock_began, "op": encode(made.op)}
        events.append((made.began, said))
        if made.ended is not None:
            events.append((made.ended, {"answer": number, "clock": made.clock_ended, "response": encode(made.response)}))
    lines += [said for _, said in sorted(events, key=lambda event: event[0])]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    write(recording(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), keys=int(sys.argv[4])), Path(sys.argv[5]))
