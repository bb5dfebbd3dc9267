"""What a disk may hold after a power cut, from what it was told: no more than was written, no less than was flushed."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from snapspec.conformance.durable import images
from snapspec.conformance.durable.images import Cut, Disk
from snapspec.conformance.durable.recorder import Event, Told

BLOCK = 4096
SIZE = 8 * BLOCK


def told(*what: tuple[int, bytes] | None) -> tuple[Event, ...]:
    """Writes, and for None flushes. The log is one longer after each."""
    events = []
    for end, each in enumerate(what, 1):
        offset, data = each or (0, b"")
        events.append(Event(Told.FLUSH if each is None else Told.WRITE, offset, len(data), data, end))
    return tuple(events)


def disk(directory: Path, events: tuple[Event, ...]) -> Disk:
    empty = directory / "empty"
    with empty.open("wb") as file:
        file.truncate(SIZE)
    return Disk(empty, events, directory / "disk")


def blocks(path: Path) -> str:
    """The first byte of each block; a dot for zero."""
    data = path.read_bytes()
    assert len(data) == SIZE
    return "".join(chr(data[at]) if data[at] else "." for at in range(0, SIZE, BLOCK))


def block(number: int, letter: str, count: int = 1) -> tuple[int, bytes]:
    return number * BLOCK, letter.encode() * BLOCK * count


def everything(events: tuple[Event, ...], moment: int, grain: int = BLOCK) -> frozenset[tuple[int, int]]:
    return frozenset(images.pieces(events, moment, grain))


EVENTS = told(block(1, "a"), None, block(2, "b", 2), block(1, "c"), None, block(4, "d"))


def test_what_was_flushed_is_there_and_of_the_rest_what_the_disk_kept(tmp_path: Path) -> None:
    here = disk(tmp_path, EVENTS)
    shown = []
    for moment in range(len(EVENTS) + 1):
        for kept in (frozenset(), everything(EVENTS, moment)):
            here.cut(Cut(moment, "some", BLOCK, kept), tmp_path / "image")
            shown.append(blocks(tmp_path / "image"))
    none, all_ = shown[::2], shown[1::2]
    assert none == ["........", "........", ".a......", ".a......", ".a......", ".cbb....", ".cbb...."]
    assert all_ == ["........", ".a......", ".a......", ".abb....", ".cbb....", ".cbb....", ".cbbd..."]


def test_a_later_write_may_be_there_without_an_earlier_one_and_a_write_in_part(tmp_path: Path) -> None:
    here = disk(tmp_path, EVENTS)
    here.cut(Cut(4, "last", BLOCK, frozenset({(3, 0)})), tmp_path / "image")
    assert blocks(tmp_path / "image") == ".c......"
    here.cut(Cut(4, "torn", BLOCK, frozenset({(2, 1)})), tmp_path / "image")
    assert blocks(tmp_path / "image") == ".a.b...."


def test_of_two_writes_to_one_place_the_later_one_wins_where_both_are_kept(tmp_path: Path) -> None:
    events = told(block(1, "a"), block(1, "b"))
    here = disk(tmp_path, events)
    for kept, shown in ((frozenset({(0, 0)}), "a"), (frozenset({(1, 0)}), "b"), (everything(events, 2), "b")):
        here.cut(Cut(2, "some", BLOCK, kept), tmp_path / "image")
        assert blocks(tmp_path / "image")[1] == shown


def test_sectors_of_512_bytes_come_apart(tmp_path: Path) -> None:
    events = told(block(1, "a"))
    disk(tmp_path, events).cut(Cut(1, "torn", 512, frozenset({(0, 1), (0, 7)})), tmp_path / "image")
    data = (tmp_path / "image").read_bytes()[BLOCK : 2 * BLOCK]
    assert [n for n in range(8) if data[512 * n] == ord("a")] == [1, 7]
    assert data.count(b"a") == 1024


def test_sectors_are_those_of_the_disk_wherever_a_write_begins(tmp_path: Path) -> None:
    events = told((BLOCK - 512, b"a" * 1024))
    assert images.pieces(events, 1, BLOCK) == ((0, 0), (0, 1))
    disk(tmp_path, events).cut(Cut(1, "torn", BLOCK, frozenset({(0, 1)})), tmp_path / "image")
    data = (tmp_path / "image").read_bytes()
    assert data == b"\0" * BLOCK + b"a" * 512 + b"\0" * (SIZE - BLOCK - 512)


def test_the_same_pieces_are_kept_of_another_recording_as_far_as_it_has_them() -> None:
    events = told(block(1, "a"), block(2, "b"), block(3, "c"))
    assert images.like(events, 3, "some", BLOCK, b"\x05").kept == {(0, 0), (2, 0)}
    assert images.like(events[:2], 2, "some", BLOCK, b"\x05").kept == {(0, 0)}
    assert images.like(events, 3, "all", BLOCK, b"\x01").kept == everything(events, 3)
    assert images.like(events, 3, "none", BLOCK, b"\x07").kept == frozenset()


def test_a_copy_may_leave_zeros_out(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"\0" * (1 << 20) + b"data" + b"\0" * (1 << 20))
    images.copy_sparse(source, target, zeros=False)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 <= 2 * BLOCK


def test_zeros_are_told_too(tmp_path: Path) -> None:
    events = (*told(block(1, "a", 3), None), Event(Told.ZERO, 2 * BLOCK, BLOCK, b"", 3))
    here = disk(tmp_path, events)
    here.cut(Cut(3, "none", BLOCK, frozenset()), tmp_path / "image")
    assert blocks(tmp_path / "image") == ".aaa...."
    here.cut(Cut(3, "all", BLOCK, everything(events, 3)), tmp_path / "image")
    assert blocks(tmp_path / "image") == ".a.a...."


@pytest.mark.parametrize("seed", range(30))
def test_what_is_drawn_is_open_at_its_moment(seed: int) -> None:
    events = told(block(0, "s", 2), block(3, "a"), None, block(0, "t", 2), block(5, "b", 2), block(3, "c"))
    random = Random(seed)
    moment = random.randint(0, len(events))
    cut = images.draw(random, events, moment, whole=(0,))
    assert cut.kept <= everything(events, moment, cut.grain)
    count, bits = images.bits(cut, events)
    assert (count, int.from_bytes(bits).bit_count()) == (len(everything(events, moment, cut.grain)), len(cut.kept))
    assert images.like(events, moment, cut.how, cut.grain, bits, whole=(0,)) == cut
    if cut.grain == 512:
        for write in (0, 3):
            of_the_superblock = {piece for piece in everything(events, moment, 512) if piece[0] == write and piece[1] < 8}
            assert cut.kept & of_the_superblock in (set(), of_the_superblock), "the first block comes whole"


def test_every_way_is_drawn() -> None:
    events = told(block(1, "a", 2), block(3, "b", 2), block(5, "c", 2))
    drawn = [images.draw(Random(seed), events, 3) for seed in range(300)]
    assert {cut.how for cut in drawn} == set(images.HOWS)
    assert {cut.grain for cut in drawn} == set(images.GRAINS)
    torn = [cut for cut in drawn if cut.how == "torn" and cut.grain == 4096]
    assert any(((0, 0) in cut.kept) != ((0, 1) in cut.kept) for cut in torn), "a write in part"
    assert any((0, 0) not in cut.kept and (2, 0) in cut.kept for cut in drawn if cut.how == "some"), "a later without an earlier"


def test_the_plainest_cuts_are_before_each_flush_with_none_and_with_all_and_at_the_end() -> None:
    cuts = images.each((*EVENTS, *told(None)))
    assert [(cut.moment, cut.how, len(cut.kept)) for cut in cuts] == [
        (1, "none", 0),
        (1, "all", 1),
        (4, "none", 0),
        (4, "all", 3),
        (6, "none", 0),
        (6, "all", 1),
        (7, "none", 0),
        (7, "all", 0),
    ]


def test_a_position_of_the_log_is_a_number_of_events() -> None:
    assert [images.moment_of(EVENTS, position) for position in (0, 1, 3, 99)] == [0, 1, 3, 6]


def test_cuts_come_in_order(tmp_path: Path) -> None:
    here = disk(tmp_path, EVENTS)
    here.cut(Cut(5, "none", BLOCK, frozenset()), tmp_path / "image")
    with pytest.raises(AssertionError, match="in the order of their moments"):
        here.cut(Cut(1, "none", BLOCK, frozenset()), tmp_path / "image")


def test_a_copy_keeps_holes_and_data(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(64 << 20)
        file.seek(10 << 20)
        file.write(b"data" * 3000)
    target.write_bytes(b"old" * 99999)
    images.copy_sparse(source, target)
    assert target.stat().st_size == 64 << 20
    assert target.stat().st_blocks * 512 < 1 << 20
    assert target.read_bytes() == source.read_bytes()
