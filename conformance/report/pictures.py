"""Pictures of states: snapshots, records and handles as boxes, with arrows for parents, pairs and what is held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from snapspec.conformance.history import in_one_line
from snapspec.conformance.report.document import Arrow, Box, Picture
from snapspec.model.nodes import Tree
from snapspec.model.refs import Record, RefState, held, snapshot_of
from snapspec.model.replies import Reading
from snapspec.model.state import Snapshot, State
from snapspec.model.values import Info, Labels, Usage

#: So many boxes stand in a picture at most: with more nobody sees anything.
MOST = 24

#: So many paths of a tree are named.
_PATHS = 4


# --- drivers


def of_state(state: State, title: str, told: Mapping[str, tuple[str, ...]] | None = None) -> Picture:
    """The picture of a store: a box for each snapshot, an arrow to each parent. `told` are further lines, by key."""
    boxes = (Box(key, s.kind.value, (*_snapshot_lines(s), *(told or {}).get(key, ()))) for key, s in state.snapshots.items())
    arrows = (Arrow(key, s.parent, "parent") for key, s in state.snapshots.items() if s.parent)
    return _picture(title, boxes, arrows)


def of_infos(infos: Iterable[Info], title: str) -> Picture:
    """The picture of what a walk told. A name that came twice is drawn as it came last."""
    told = {info.name: info for info in infos}
    boxes = (Box(info.name, info.kind.value, _label_lines(info.labels)) for info in told.values())
    return _picture(title, boxes, (Arrow(i.name, i.parent, "parent") for i in told.values() if i.parent))


def told_lines(value: object) -> tuple[str, ...]:
    """What the subject told of one snapshot, as lines of its box; none where nothing is to be shown."""
    match value:
        case Info():
            over = f" over {value.parent!r}" if value.parent else ""
            return (f"told: {value.kind.value}{over}", *(f"told: {line}" for line in _label_lines(value.labels)))
        case Reading(usage=usage):
            return (f"told: {_usage(usage)}",)
        case Tree():
            return (f"showed: {_tree(value) or 'nothing'}",)
        case _:
            return ()


def _snapshot_lines(snapshot: Snapshot) -> tuple[str, ...]:
    usage = () if snapshot.usage is None else (_usage(snapshot.usage),)
    tree = _tree(snapshot.tree)
    return (*_label_lines(snapshot.labels), *usage, *([tree] if tree else []))


def _label_lines(labels: Labels) -> tuple[str, ...]:
    return tuple(in_one_line(f"label {name}={value}") for name, value in labels)


def _usage(usage: Usage) -> str:
    return f"{usage.size} bytes, {usage.inodes} inode{'' if usage.inodes == 1 else 's'}"


def _tree(tree: Tree) -> str:
    """What is in the tree, in few words; "" for nothing."""
    paths = sorted(path for path in tree.nodes if path)
    more = f" and {len(paths) - _PATHS} more" if len(paths) > _PATHS else ""
    return in_one_line(f"holds {', '.join(map(_name, paths[:_PATHS]))}{more}") if paths else ""


def _name(path: str) -> str:
    return path if len(path) <= 40 else f"{path[:20]}... ({len(path)} characters)"


# --- managers


def of_ref_state(state: RefState, title: str) -> Picture:
    """The picture of a manager: records, the open handles on them, pairs, parents; a driver's snapshot that is no record's."""
    names = _unique([*state.records, *(name for name, handle in state.handles.items() if handle.open)])
    handles = {name: handle for name, handle in state.handles.items() if handle.open}
    boxes = [
        *(Box(f"handle {name}" if name in names else name, "handle") for name in handles),
        *(_record_box(name, record, _content(state, name)) for name, record in state.records.items()),
        *_others(state),
    ]
    holds = [Arrow(f"handle {n}" if n in names else n, h.record, "holds") for n, h in handles.items()]
    return _picture(title, boxes, (*holds, *_record_arrows(state.records)))


def of_records(records: Mapping[str, tuple[Record, int]], title: str) -> Picture:
    """The picture of what a manager itself has: records by id, each with the number of its open handles."""
    boxes = (
        _record_box(name, record, (f"{handles} open handle{'' if handles == 1 else 's'}",))
        for name, (record, handles) in records.items()
    )
    return _picture(title, boxes, _record_arrows({name: record for name, (record, _) in records.items()}))


def _unique(names: list[str]) -> set[str]:
    """The names that stand for two things."""
    return {name for name in names if names.count(name) > 1}


def _record_box(name: str, record: Record, lines: tuple[str, ...]) -> Box:
    size = () if record.size is None else (f"{record.size} bytes",)
    return Box(name, "mutable" if record.mutable else "immutable", (*size, *lines))


def _content(state: RefState, name: str) -> tuple[str, ...]:
    """What the record's snapshot holds, and whether the record is idle."""
    snapshot = state.driver.get(snapshot_of(state, name))
    tree = "" if snapshot is None else _tree(snapshot.tree)
    return (*([tree] if tree else []), *(() if held(state, name) else ("no open handle",)))


def _record_arrows(records: Mapping[str, Record]) -> Iterator[Arrow]:
    """Parents; and of each pair one arrow, from M to E."""
    yield from (Arrow(name, record.parent, "parent") for name, record in records.items() if record.parent)
    yield from (Arrow(name, record.equal, "pair") for name, record in records.items() if record.equal and record.mutable)


def _others(state: RefState) -> Iterator[Box]:
    """Snapshots of the driver that are no record's: shared views, and what was left behind."""
    known = {snapshot_of(state, name) for name in state.records} | state.records.keys()
    for key, snapshot in state.driver.snapshots.items():
        if key not in known:
            yield Box(f"{key} (snapshot)", snapshot.kind.value, _snapshot_lines(snapshot))


# --- both


def _picture(title: str, boxes: Iterable[Box], arrows: Iterable[Arrow]) -> Picture:
    """With the last MOST boxes, and the arrows between those."""
    every = tuple(boxes)
    kept = every[-MOST:]
    names = {box.name for box in kept}
    if len(every) > len(kept):
        title = f"{title} ({len(every) - len(kept)} more are not drawn)"
    between = tuple(arrow for arrow in arrows if arrow.start in names and arrow.end in names)
    return Picture(title, kept, between)


def entitled(picture: Picture, title: str) -> Picture:
    """The same under another title."""
    return replace(picture, title=title)
