"""What every state of the model is built from: an immutable mapping, and frozen values that work out their hash once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Hashed:
    """Base of a frozen dataclass that says `__hash__ = Hashed.__hash__`: its hash is worked out once."""

    __slots__ = ("_hash",)
    __match_args__: ClassVar[tuple[str, ...]] = ()
    _hash: int

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            known = hash(tuple([getattr(self, name) for name in self.__match_args__]))
            object.__setattr__(self, "_hash", known)
            return known


class Map(Mapping[K, V], Generic[K, V]):
    """A mapping that never changes. `set` and `without` give a new one; equal contents hash alike in any order."""

    __slots__ = ("_dict", "_hash")

    def __init__(self, items: Mapping[K, V] | Iterable[tuple[K, V]] = ()) -> None:
        self._dict: dict[K, V] = dict(items)
        self._hash: int | None = None

    def __getitem__(self, key: K) -> V:
        return self._dict[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._dict)

    def __len__(self) -> int:
        return len(self._dict)

    def __contains__(self, key: object) -> bool:
        return key in self._dict

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Map):
            return self._dict == other._dict
        return NotImplemented

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._dict.items()))
        return self._hash

    def __reduce__(self) -> tuple[type[Map[K, V]], tuple[dict[K, V]]]:
        """Without the hash: in another process the same contents have another one."""
        return Map, (self._dict,)

    def __repr__(self) -> str:
        return f"Map({self._dict!r})"

    def set(self, key: K, value: V) -> Map[K, V]:
        """The same mapping with `key` bound to `value`."""
        changed = dict(self._dict)
        changed[key] = value
        return Map(changed)

    def without(self, *keys: K) -> Map[K, V]:
        """The same mapping without `keys`; a key that is not there is no error."""
        return Map({k: v for k, v in self._dict.items() if k not in keys})
