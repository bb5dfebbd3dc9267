"""Crash images: what may be on a disk when its power is cut.

A disk owes what it was told before the last flush that it answered. Of each sector written since, it may hold what it held before
or what any of those writes put there: writes come in any order, some never, and one of several sectors may come in part.

Sectors are of 512 bytes, what the block layer promises, or of 4096, what most disks keep.

One exception is made: the superblock that a file system writes in place, several sectors of 512 bytes under one checksum, comes
whole. Where a disk tears it neither the kernel nor the checker opens the file system, and no driver can help that.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from snapspec.conformance.durable.recorder import Event, Told, punch_hole

#: What a disk writes whole: its logical sector, or the physical one of most disks, which is a block of the file system.
GRAINS = (512, 4096)

#: The blocks of 4096 bytes that hold such a superblock, by file system: where they begin. That of xfs is one sector.
WHOLE: dict[str, tuple[int, ...]] = {"ext4": (0,), "xfs": (), "btrfs": (64 << 10, 64 << 20)}

#: Which of the unflushed writes are on the disk: none, all, those before or after one, all but one, some; sectors of them.
How = Literal["none", "all", "first", "last", "one missing", "some", "torn"]
HOWS: tuple[How, ...] = ("none", "all", "first", "last", "one missing", "some", "torn")


@dataclass(frozen=True, slots=True)
class Cut:
    """A power cut after `moment` events. `kept` holds what of the unflushed ones is on the disk: events and grains of them."""

    moment: int
    how: How
    grain: int
    kept: frozenset[tuple[int, int]]


def flushed(events: Sequence[Event], moment: int) -> int:
    """How many of the first `moment` events the disk owes: those before the last flush, it included."""
    return next((n for n in range(moment, 0, -1) if events[n - 1].told is Told.FLUSH), 0)


def pieces(events: Sequence[Event], moment: int, grain: int) -> tuple[tuple[int, int], ...]:
    """What the disk may do or leave at a power cut after `moment` events: of each unflushed one the sectors of `grain` bytes."""
    indices = range(flushed(events, moment), moment)
    return tuple((index, piece) for index in indices for piece in range(_count(events[index], grain)))


def _count(event: Event, grain: int) -> int:
    return -(-(event.offset % grain + event.length) // grain) if event.length else 0


def draw(random: Random, events: Sequence[Event], moment: int, whole: tuple[int, ...] = ()) -> Cut:
    """One of the images that a power cut after `moment` events may leave; the blocks that begin at `whole` are not torn."""
    how, grain = random.choice(HOWS), random.choice(GRAINS)
    unflushed = pieces(events, moment, grain)
    kept = frozenset(_kept(random, unflushed, how))
    return Cut(moment, how, grain, frozenset(p for p in unflushed if _decides(events, p, grain, whole) in kept))


def bits(cut: Cut, events: Sequence[Event]) -> tuple[int, bytes]:
    """How many pieces were unflushed, and which of them are kept, a bit for each, the first one lowest."""
    unflushed = pieces(events, cut.moment, cut.grain)
    kept = sum(1 << number for number, piece in enumerate(unflushed) if piece in cut.kept)
    return len(unflushed), kept.to_bytes(-(-len(unflushed) // 8), "little")


def like(events: Sequence[Event], moment: int, how: How, grain: int, kept: bytes, whole: tuple[int, ...] = ()) -> Cut:
    """The cut after `moment` events, of another recording maybe, that keeps the pieces of these bits; none and all stay that."""
    unflushed, number = pieces(events, moment, grain), int.from_bytes(kept, "little")
    chosen = frozenset({"none": (), "all": unflushed}.get(how, [p for at, p in enumerate(unflushed) if number >> at & 1]))
    return Cut(moment, how, grain, frozenset(p for p in unflushed if _decides(events, p, grain, whole) in chosen))


def _decides(events: Sequence[Event], piece: tuple[int, int], grain: int, whole: tuple[int, ...]) -> tuple[int, int]:
    """The piece that decides whether this one is kept: itself, or the first one of its write in a block that comes whole."""
    index, number = piece
    start = events[index].offset // grain * grain
    block = (start + number * grain) // GRAINS[-1] * GRAINS[-1]
    return (index, max(0, (block - start) // grain)) if block in whole else piece


def _kept(random: Random, unflushed: tuple[tuple[int, int], ...], how: How) -> list[tuple[int, int]]:
    writes = sorted({event for event, _ in unflushed})
    if how == "none" or not writes:
        return []
    if how == "torn":
        return [piece for piece in unflushed if random.random() < 0.5]
    one = random.choice(writes)
    chosen = {
        "all": set(writes),
        "first": {event for event in writes if event < one},
        "last": {event for event in writes if event >= one},
        "one missing": set(writes) - {one},
        "some": {event for event in writes if random.random() < 0.5},
    }[how]
    return [piece for piece in unflushed if piece[0] in chosen]


def each(events: Sequence[Event]) -> tuple[Cut, ...]:
    """The plainest images: at each flush, before it, with none and with all of what it was to make safe; and at the end."""
    moments = [n for n, event in enumerate(events) if event.told is Told.FLUSH and flushed(events, n) < n]
    cuts = []
    for moment in [*moments, len(events)]:
        cuts.append(Cut(moment, "none", GRAINS[-1], frozenset()))
        cuts.append(Cut(moment, "all", GRAINS[-1], frozenset(pieces(events, moment, GRAINS[-1]))))
    return tuple(cuts)


def moment_of(events: Sequence[Event], position: int) -> int:
    """How many events a log of this length holds."""
    return bisect_right([event.end for event in events], position)


class Disk:
    """What a disk owes, as a file: it begins as a copy of `image` and goes on with each cut, whose moments must not go back."""

    def __init__(self, image: Path, events: Sequence[Event], file: Path) -> None:
        self.file = file
        self._events = events
        self._owed = 0
        copy_sparse(image, file)

    def cut(self, cut: Cut, place: Path) -> None:
        """Make the file `place` the image that the cut leaves."""
        owed = flushed(self._events, cut.moment)
        assert owed >= self._owed, "cuts come in the order of their moments"
        with open(self.file, "r+b", buffering=0) as file:
            for event in self._events[self._owed : owed]:
                _apply(file.fileno(), event, 0, event.length)
        self._owed = owed
        copy_sparse(self.file, place)
        with open(place, "r+b", buffering=0) as file:
            for index, piece in sorted(cut.kept):
                event = self._events[index]
                begin = piece * cut.grain - event.offset % cut.grain
                _apply(file.fileno(), event, max(0, begin), min(begin + cut.grain, event.length))


def _apply(fd: int, event: Event, begin: int, end: int) -> None:
    if event.told is Told.WRITE:
        os.pwrite(fd, event.data[begin:end], event.offset + begin)
    elif event.told is Told.ZERO:
        punch_hole(fd, event.offset + begin, end - begin)


def copy_sparse(source: Path, target: Path, *, zeros: bool = True) -> None:
    """Make the file `target` a copy of `source`, with its holes. `target` may be there already: it stays the same inode.

    Without `zeros` blocks that hold nothing else become holes as well.
    """
    with open(source, "rb", buffering=0) as old, open(target, "wb", buffering=0) as new:
        size = os.fstat(old.fileno()).st_size
        os.truncate(new.fileno(), size)
        for begin, end in _data(old.fileno(), size):
            (_copy_range if zeros else _copy_data)(old.fileno(), new.fileno(), begin, end)


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file holds data, and no hole."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data beyond
                return
            raise
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin, end


def _copy_range(source: int, target: int, begin: int, end: int) -> None:
    os.lseek(target, begin, os.SEEK_SET)
    while begin < end:
        begin += os.sendfile(target, source, begin, end - begin)


def _copy_data(source: int, target: int, begin: int, end: int) -> None:
    for at in range(begin, end, GRAINS[-1]):
        data = os.pread(source, min(GRAINS[-1], end - at), at)
        if data.count(0) < len(data):
            os.pwrite(target, data, at)
