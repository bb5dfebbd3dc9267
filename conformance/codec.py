"""The values of the model as JSON, and back: what histories are saved in.

A value of the model becomes an object that names its class; fields that have their default are left out.
"""

from __future__ import annotations

import base64
import re
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import ModuleType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from snapspec.conformance import durable, faults, overlap, schedule
from snapspec.conformance.errors import CannotRun
from snapspec.conformance.report import document as report
from snapspec.model import guards, nodes, ops, ref_ops, ref_outcomes, ref_replies, replies, state, tree, values
from snapspec.model.frozen import Map

#: Two surrogates that would be one character, were they not two.
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")

_MODULES: dict[str, ModuleType] = {
    m.__name__.rsplit(".", 1)[1]: m
    for m in (
        ops,
        ref_ops,
        ref_outcomes,
        ref_replies,
        values,
        replies,
        tree,
        nodes,
        state,
        guards,
        schedule,
        durable,
        faults,
        overlap,
        report,
    )
}


def encode(value: object) -> Any:
    """The JSON form of a value made of the model's frozen values, tuples, bytes and scalars."""
    match value:
        case str() if _PAIR.search(value):
            # JSON would read the two as one character.
            return {"is": "text", "base64": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()}
        case None | bool() | int() | str():
            return value
        case bytes():
            return {"is": "bytes", "base64": base64.b64encode(value).decode()}
        case Enum():
            return {"is": _tag(value), "name": value.name}
        case Map():
            return {"is": "map", "items": [[encode(k), encode(v)] for k, v in value.items()]}
        case tuple() | list():
            return [encode(item) for item in value]
        case frozenset():
            return {"is": "set", "items": [encode(item) for item in sorted(value)]}
        case _ if is_dataclass(value) and not isinstance(value, type):
            shown = {f.name: encode(getattr(value, f.name)) for f in fields(value) if getattr(value, f.name) != _default(f)}
            return {"is": _tag(value), **shown}
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")


def decode(document: Any) -> Any:
    """The value that `encode` gave `document` for; tuples for arrays. Raises CannotRun for anything that it never gives."""
    match document:
        case None | bool() | int() | str():
            return document
        case list():
            return tuple(decode(item) for item in document)
        case {"is": "bytes", "base64": str(text)}:
            return _bytes(text)
        case {"is": "text", "base64": str(text)}:
            return _text(text)
        case {"is": "map", "items": list(items)} if all(isinstance(item, list) and len(item) == 2 for item in items):
            return Map((decode(k), decode(v)) for k, v in items)
        case {"is": "set", "items": list(items)} if all(isinstance(item, str) for item in items):
            return frozenset(items)
        case {"is": str(tag), **rest}:
            return _made(tag, {str(key): item for key, item in rest.items()})
        case _:
            raise CannotRun(f"{document!r:.80} is no value of a history: give a file that snapspec has saved")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise CannotRun(f"{text!r:.80} is not base64: give a file that snapspec has saved") from None


def _text(text: str) -> str:
    try:
        return _bytes(text).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise CannotRun(f"{text!r:.80} is no text: give a file that snapspec has saved") from None


def _tag(value: object) -> str:
    return f"{type(value).__module__.rsplit('.', 1)[1]}.{type(value).__name__}"


def _default(field: Field[Any]) -> object:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _made(tag: str, rest: dict[str, Any]) -> Any:
    module, _, name = tag.partition(".")
    cls = getattr(_MODULES.get(module), name, None)
    try:
        if isinstance(cls, type) and issubclass(cls, Enum):
            return cls[rest["name"]]
        if isinstance(cls, type) and is_dataclass(cls):
            values = {key: decode(item) for key, item in rest.items()}
            if all(_fits(value, _hints(cls)[key]) for key, value in values.items()):
                return cls(**values)
    except (KeyError, TypeError):
        pass
    raise CannotRun(f"{tag!r} with {sorted(rest)} is no value of a history: give a file that this version of snapspec has saved")


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _fits(value: object, hint: Any) -> bool:
    """Whether the value is of the type that a field has."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is not tuple:
        return isinstance(value, origin or hint)
    if not isinstance(value, tuple):
        return False
    if arguments[-1] is Ellipsis:
        return all(_fits(item, arguments[0]) for item in value)
    return len(value) == len(arguments) and all(map(_fits, value, arguments))
