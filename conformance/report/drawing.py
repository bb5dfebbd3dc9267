"""Where the boxes, arrows and bars of a report stand: plain geometry, which the page turns into SVG.

Parents stand above what is built on them; a record stands between its handles, M of a pair beside E. Sizes are pixels.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from snapspec.conformance.report.document import Bar, Box, Picture

#: The size of a column of the fixed-width font, of a line, and of the room within a box and between boxes.
COLUMN, LINE, PAD, GAP, BETWEEN = 7.3, 16.0, 9.0, 26.0, 40.0

#: The room for the word on the link of a pair.
PAIR = 52.0

#: A line of a box has so many columns and goes over so many lines at most.
COLUMNS, LINES = 26, 3

#: A layer that is wider goes on below.
WIDEST = 860.0


@dataclass(frozen=True, slots=True)
class Placed:
    """A box in its place. `lines` are those of the box, wrapped; `mark` is what tells it from the other picture."""

    box: Box
    x: float
    y: float
    width: float
    height: float
    name: str
    lines: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """An arrow as the path of an SVG; `x` and `y` is where its word stands."""

    kind: str
    path: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture in its place, and in words."""

    title: str
    told: str
    width: float
    height: float
    boxes: tuple[Placed, ...]
    links: tuple[Link, ...]


def drawings(pictures: Sequence[Picture]) -> tuple[Drawing, ...]:
    """The pictures; of two, each box tells when it is not in the other, or is another there."""
    if len(pictures) != 2:
        return tuple(_drawing(picture, {}) for picture in pictures)
    first, second = pictures
    return _drawing(first, _marks(first, second)), _drawing(second, _marks(second, first))


def _marks(one: Picture, other: Picture) -> dict[str, str]:
    there = {box.name: box for box in other.boxes}
    marks = {box.name: "only here" if box.name not in there else "differs" for box in one.boxes if there.get(box.name) != box}
    for box in one.boxes:
        if box.name not in marks and _arrows(one, box.name) != _arrows(other, box.name):
            marks[box.name] = "differs"
    return marks


def _arrows(picture: Picture, name: str) -> set[tuple[str, str]]:
    return {(arrow.kind, arrow.end) for arrow in picture.arrows if arrow.start == name}


def _drawing(picture: Picture, marks: dict[str, str]) -> Drawing:
    placed = {p.box.name: p for p in _placed(picture, marks)}
    links = [
        _link(arrow.kind, placed[arrow.start], placed[arrow.end])
        for arrow in picture.arrows
        if arrow.start in placed and arrow.end in placed
    ]
    width = max((p.x + p.width for p in placed.values()), default=0.0)
    height = max((p.y + p.height for p in placed.values()), default=0.0)
    return Drawing(picture.title, _told(picture), width + 2, height + 2, tuple(placed.values()), tuple(links))


def _told(picture: Picture) -> str:
    """The picture in words."""
    words = {"parent": "on", "pair": "in a pair with", "holds": "on"}
    links: dict[str, list[str]] = defaultdict(list)
    for arrow in picture.arrows:
        links[arrow.start].append(f"{words.get(arrow.kind, arrow.kind)} {arrow.end}")
    told = (
        " ".join([f"{box.kind} {box.name}", *links[box.name]]) + "".join(f", {line}" for line in box.lines)
        for box in picture.boxes
    )
    return "; ".join(told) or "Nothing is there."


# --- boxes


def _box(box: Box, mark: str) -> Placed:
    """The box, with no place yet."""
    lines = tuple(piece for line in box.lines for piece in wrapped(line))
    name = clipped(box.name, COLUMNS)
    kind = f"{box.kind} {mark}" if mark else box.kind
    columns = max(8, *map(columns_of, (name, kind, *lines)))
    return Placed(box, 0, 0, columns * COLUMN + 2 * PAD, (2 + len(lines)) * LINE + 2 * PAD - 4, name, lines, mark)


def wrapped(text: str) -> Iterator[str]:
    """The text in lines of COLUMNS columns, LINES of them at most."""
    rest = text
    pieces: list[str] = []
    while rest and len(pieces) < LINES:
        piece = _fitting(rest, COLUMNS)
        if len(piece) < len(rest) and " " in piece[8:]:
            piece = piece[: piece.rindex(" ") + 1]
        pieces.append(piece.strip())
        rest = rest[len(piece) :]
    if rest:
        pieces[-1] = clipped(pieces[-1] + " …" + rest, COLUMNS)
    yield from pieces


def clipped(text: str, columns: int) -> str:
    """The text, or as much of it as fits, and that something is left out."""
    return text if columns_of(text) <= columns else f"{_fitting(text, columns - 1)}…"


def _fitting(text: str, columns: int) -> str:
    taken = 0
    for at, character in enumerate(text):
        taken += columns_of(character)
        if taken > columns:
            return text[: max(at, 1)]
    return text


def columns_of(text: str) -> int:
    """How many columns the text takes in a fixed-width font."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


# --- places


def _placed(picture: Picture, marks: dict[str, str]) -> Iterator[Placed]:
    boxes = {box.name: _box(box, marks.get(box.name, "")) for box in picture.boxes}
    parents = {a.start: a.end for a in picture.arrows if a.kind == "parent" and {a.start, a.end} <= boxes.keys()}
    layers: dict[int, list[list[Placed]]] = defaultdict(list)
    for group in _groups(picture, boxes):
        layers[_depth(group[0].box.name, parents)].append([boxes[p.box.name] for p in group])
    top, centres = 1.0, dict[str, float]()
    handles = _handles(picture, boxes)
    for depth in sorted(layers):
        rows = _row(layers[depth], handles, parents, centres, top)
        yield from rows
        centres.update({p.box.name: p.x + p.width / 2 for p in rows})
        top = max(p.y + p.height for p in rows) + BETWEEN


def _groups(picture: Picture, boxes: dict[str, Placed]) -> list[list[Placed]]:
    """What stands side by side: a pair, or one; handles that hold something there stand with that."""
    pairs = {a.start: a.end for a in picture.arrows if a.kind == "pair" and {a.start, a.end} <= boxes.keys()}
    holding = {a.start for a in picture.arrows if a.kind == "holds" and a.end in boxes}
    second = set(pairs.values())
    single = [name for name in boxes if name not in holding and name not in second]
    return [[boxes[name], boxes[pairs[name]]] if name in pairs else [boxes[name]] for name in single]


def _handles(picture: Picture, boxes: dict[str, Placed]) -> dict[str, list[Placed]]:
    held: dict[str, list[Placed]] = defaultdict(list)
    for arrow in picture.arrows:
        if arrow.kind == "holds" and arrow.start in boxes:
            held[arrow.end].append(boxes[arrow.start])
    return held


def _depth(name: str, parents: dict[str, str]) -> int:
    """How many parents are above; a circle, which a subject may tell of, is cut where it closes."""
    seen = {name}
    while name in parents and parents[name] not in seen:
        name = parents[name]
        seen.add(name)
    return len(seen) - 1


def _row(
    groups: list[list[Placed]],
    handles: dict[str, list[Placed]],
    parents: dict[str, str],
    centres: dict[str, float],
    top: float,
) -> list[Placed]:
    """One layer from `top` on: each group as near below its parent as those before it let it."""

    def wanted(group: list[Placed]) -> float:
        return centres.get(parents.get(group[0].box.name, ""), 0.0)

    placed: list[Placed] = []
    left, below = 1.0, top
    for group in sorted(groups, key=wanted):
        standing, width = _side_by_side(group, handles)
        left = max(left, wanted(group) - width / 2)
        if left + width > WIDEST and left > 1.0:
            top, left = below + GAP, 1.0
        placed += [replace(p, x=p.x + left, y=p.y + top) for p in standing]
        left += width + GAP
        below = max(below, max(p.y + p.height for p in placed))
    return placed


def _side_by_side(group: list[Placed], handles: dict[str, list[Placed]]) -> tuple[list[Placed], float]:
    """A group with its handles, those of M to the left and those of E to the right of a pair; and how wide it is."""
    first, *others = group
    standing, left = _stacked(handles.get(first.box.name, []), 0.0)
    left += GAP if standing else 0.0
    standing.append(replace(first, x=left))
    left += first.width
    for other in others:
        standing.append(replace(other, x=left + PAIR))
        left += PAIR + other.width
        right, width = _stacked(handles.get(other.box.name, []), left + GAP)
        standing += right
        left = width if right else left
    return standing, left


def _stacked(boxes: list[Placed], left: float) -> tuple[list[Placed], float]:
    """The boxes one below another, and where they end on the right."""
    stacked, top = [], 0.0
    for box in boxes:
        stacked.append(replace(box, x=left, y=top))
        top += box.height + 8
    return stacked, max((box.x + box.width for box in stacked), default=left)


def _link(kind: str, start: Placed, end: Placed) -> Link:
    """From side to side where the two stand side by side, else from the upper edge to the lower one of what is above."""
    if kind == "parent":
        x1, y1, x2, y2 = start.x + start.width / 2, start.y, end.x + end.width / 2, end.y + end.height
        middle = (y1 + y2) / 2
        return Link(kind, f"M{x1:.1f} {y1:.1f}C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2 + 1:.1f}", x1, middle)
    leftwards = start.x > end.x
    x1 = start.x if leftwards else start.x + start.width
    x2 = end.x + end.width + 1 if leftwards else end.x - 1
    y1, y2 = start.y + min(start.height, end.height) / 2, end.y + min(start.height, end.height) / 2
    return Link(kind, f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", (x1 + x2) / 2, y2 - 5)


# --- lanes

#: The height of a lane, and how wide the name of its caller and a moment are.
LANE, CALLER, MOMENT, LONGEST = 46.0, 84.0, 64.0, 760.0


@dataclass(frozen=True, slots=True)
class Strip:
    """A bar in its place; `text` is as much of the call as there is room for. One that is `open` was never answered."""

    bar: Bar
    x: float
    y: float
    width: float
    text: str
    open: bool


@dataclass(frozen=True, slots=True)
class Lanes:
    """Calls that overlap, each caller on a lane of its own."""

    names: tuple[str, ...]
    strips: tuple[Strip, ...]
    width: float
    height: float
    told: str


def lanes(bars: Sequence[Bar]) -> Lanes:
    """The bars in their places: one lane for each caller, and for each call where callers have no names."""
    names = list(dict.fromkeys(_caller(bar) for bar in sorted(bars, key=_caller_order)))
    last = max((max(bar.began, bar.ended or 0) for bar in bars), default=0) + any(bar.ended is None for bar in bars)
    moment = max(MOMENT, min(150.0, LONGEST / (last + 1)))
    width = CALLER + last * moment + 40
    strips = tuple(_strip(bar, bars, names, last, moment, width) for bar in bars)
    return Lanes(tuple(names), strips, width, LANE * len(names) + 4, "; ".join(map(_bar_told, bars)))


def _caller(bar: Bar) -> str:
    return bar.caller or f"call {bar.number}"


def _caller_order(bar: Bar) -> tuple[int, str, int]:
    return len(bar.caller), bar.caller, bar.number


def _strip(bar: Bar, bars: Sequence[Bar], names: list[str], last: int, moment: float, width: float) -> Strip:
    end = last if bar.ended is None else bar.ended
    later = [other.began for other in bars if _caller(other) == _caller(bar) and other.began > bar.began]
    x = CALLER + bar.began * moment
    room = (CALLER + min(later) * moment if later else width) - x
    text = clipped(f"{bar.number}  {bar.call}", max(3, int(room / COLUMN) - 1))
    return Strip(bar, x, LANE * names.index(_caller(bar)), max(10.0, (end - bar.began) * moment), text, bar.ended is None)


def _bar_told(bar: Bar) -> str:
    until = "without an answer" if bar.ended is None else f"to moment {bar.ended}"
    place = ", which has no place in any order" if bar.mark else ""
    return f"{_caller(bar)}: {bar.call} from moment {bar.began} {until}, {bar.answer}{place}"
