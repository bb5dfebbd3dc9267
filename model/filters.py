"""The filter language of walk: parsed once, matched against a record, written back as text (SNAP-WALK-2 to SNAP-WALK-6).

filter   = selector *("," selector)            a conjunction
selector = path [operator value]               without an operator: the field is present
path     = field *("." field)
operator = "==" / "!=" / "~="
field    = identifier / quoted
value    = quoted / a run of printable characters other than white space and ",", the first none of . = ! ~ " / |
quoted   = characters in double quotes, a new line, a quote and a backslash only as an escape, \\n \\" \\\\

White space may stand before a field, an operator and a value, nowhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import icontract

from snapspec.model.values import Info

_IDENTIFIER = re.compile(r"[A-Za-z0-9_]+")
_ESCAPE = re.compile(r'\\(?:[abfnrtv\\"]|x[0-7][0-9a-fA-F]|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})')
_QUOTED = re.compile(rf'"(?:[^"\\\n\0]|{_ESCAPE.pattern})*"')
_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_OPERATOR = re.compile(r"==(?![=!~])|!=(?![=!~])|~=(?![=!~])")
_VALUE = re.compile(r"[^\s,.=!~\"/|][^\s,]*")
_BARE_VALUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")


@dataclass(frozen=True, slots=True)
class Selector:
    """One condition: the field's path, the operator ("" tests presence) and the value."""

    path: tuple[str, ...]
    operator: str = ""
    value: str = ""


#: The fields that every record has.
ALWAYS = (("name",), ("parent",), ("kind",))

#: A conjunction of selectors; the empty one matches everything.
Filter = tuple[Selector, ...]


class _Text:
    """A cursor over the filter's text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def take(self, pattern: re.Pattern[str], *, spaced: bool = True) -> str | None:
        """The text that `pattern` matches here, or after white space when it may be `spaced`; None leaves the cursor."""
        start = self.at
        while spaced and start < len(self.text) and self.text[start].isspace():
            start += 1
        found = pattern.match(self.text, start)
        if found is None:
            return None
        self.at = found.end()
        return found.group()

    @property
    def ended(self) -> bool:
        return self.at == len(self.text)


_DOT = re.compile(r"\.")
_COMMA = re.compile(r",")


def parse(text: str) -> Filter:
    """The conjunction that `text` stands for. Raises ValueError, saying where, when it is no filter (SNAP-WALK-5)."""
    cursor = _Text(text)
    if cursor.ended:
        return ()
    selectors = [_selector(cursor)]
    while not cursor.ended:
        if cursor.take(_COMMA, spaced=False) is None:
            raise _refused(cursor, "expected a comma")
        selectors.append(_selector(cursor))
    return tuple(selectors)


def _selector(cursor: _Text) -> Selector:
    path = [_field(cursor)]
    while cursor.take(_DOT, spaced=False) is not None:
        path.append(_field(cursor))
    operator = cursor.take(_OPERATOR)
    if operator is None:
        return Selector(tuple(path))
    return Selector(tuple(path), operator, _value(cursor))


def _field(cursor: _Text) -> str:
    quoted = cursor.take(_QUOTED)
    if quoted is not None:
        return _unquote(quoted)
    name = cursor.take(_IDENTIFIER)
    if name is None:
        raise _refused(cursor, "expected a field")
    return name


def _value(cursor: _Text) -> str:
    quoted = cursor.take(_QUOTED)
    if quoted is not None:
        return _unquote(quoted)
    bare = cursor.take(_VALUE)
    if bare is None or not bare.isprintable():
        raise _refused(cursor, "expected a value")
    return bare


def _unquote(text: str) -> str:
    return _ESCAPE.sub(_unescape, text[1:-1])


def _unescape(escape: re.Match[str]) -> str:
    letter, digits = escape.group()[1], escape.group()[2:]
    return chr(int(digits, 16)) if digits else _LETTERS[letter]


def _refused(cursor: _Text, what: str) -> ValueError:
    return ValueError(f"filter {cursor.text!r}: {what} at character {cursor.at + 1}")


def write(selectors: Filter) -> str:
    """The text of a filter; `parse` gives the same filter back."""
    return ",".join(_write_selector(s) for s in selectors)


def _write_selector(selector: Selector) -> str:
    path = ".".join(f if _IDENTIFIER.fullmatch(f) else _quote(f) for f in selector.path)
    if not selector.operator:
        return path
    bare = _BARE_VALUE.fullmatch(selector.value) is not None
    return path + selector.operator + (selector.value if bare else _quote(selector.value))


def _quote(text: str) -> str:
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(letter: str) -> str:
    if letter in ("\\", '"'):
        return "\\" + letter
    # U+FFFD is what Go reads where bytes are no UTF-8, and its parser cannot tell one from the other.
    return letter if letter.isprintable() and letter != "\ufffd" else f"\\U{ord(letter):08x}"


def matches(selectors: Filter, info: Info) -> bool:
    """Whether the record satisfies every selector (SNAP-WALK-2)."""
    return all(_holds(s, info) for s in selectors)


@icontract.ensure(
    lambda selector, info, result: selector.operator != "!=" or _lookup(selector.path, info) is not None or result, "SNAP-WALK-3"
)
def _holds(selector: Selector, info: Info) -> bool:
    value = _lookup(selector.path, info)
    match selector.operator:
        case "==":
            return value == selector.value
        case "!=":
            return value != selector.value
        case "~=":
            return value is not None and _found(selector.value, value)
        case _:
            return value is not None


def _lookup(path: tuple[str, ...], info: Info) -> str | None:
    """The field's value, or None where the record has no such field (SNAP-WALK-3)."""
    match path:
        case ("name",):
            return info.name
        case ("parent",):
            return info.parent
        case ("kind",):
            return info.kind.value
        case ("labels", *rest):
            return dict(info.labels).get(".".join(rest))
        case _:
            return None


@icontract.ensure(lambda pattern, result: not result or compiles(pattern), "SNAP-WALK-4")
def _found(pattern: str, value: str) -> bool:
    """Unanchored search; a pattern that does not compile finds nothing and is no error (SNAP-WALK-4)."""
    return compiles(pattern) and re.search(pattern, value) is not None


def compiles(pattern: str) -> bool:
    """Whether the text is a regular expression."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):  # the latter two: a repetition or a nesting beyond what Python takes
        return False
    return True
