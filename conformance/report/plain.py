"""Texts of others, made fit to be shown: nothing invisible, nothing endless; and how two texts differ."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher

#: What is not seen, or turns round what is: controls but for tab and line feed, marks of direction, zero widths, lone surrogates.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff0-\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)

#: A text in a report has so many characters at most.
MOST = 2000

#: What is compared as one: a word or a single sign.
_WORD = re.compile(r"\w+|\s+|[^\w\s]")


def visible(text: str) -> str:
    """The text with all that is not seen spelled out, as Python does, and cut off where it becomes too much."""
    shown = _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text[:MOST])
    return shown if len(text) <= MOST else f"{shown}… ({len(text) - MOST} characters more)"


def differing(one: str, other: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Both texts in pieces, each with whether it differs from the other text. Texts that have little in common differ whole."""
    first, second = _WORD.findall(one[:MOST]), _WORD.findall(other[:MOST])
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    if matcher.ratio() < 0.4:
        return [(one, True)], [(other, True)]
    return list(_pieces(first, matcher, 1, one[MOST:])), list(_pieces(second, matcher, 3, other[MOST:]))


def _pieces(words: list[str], matcher: SequenceMatcher[str], at: int, rest: str) -> Iterator[tuple[str, bool]]:
    for code in matcher.get_opcodes():
        start, end = (code[1], code[2]) if at == 1 else (code[3], code[4])
        if start < end:
            yield "".join(words[start:end]), code[0] != "equal"
    if rest:
        yield f"… ({len(rest)} characters more)", False


def duration(seconds: float) -> str:
    """A time in words: 0.4 s, 12 s, 3 min 5 s, 2 h 4 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(count: int, one: str, several: str = "") -> str:
    """A number and what it counts."""
    return f"{count} {one if count == 1 else several or one + 's'}"
