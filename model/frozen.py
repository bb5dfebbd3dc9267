"""An immutable mapping with a cached hash: the container that every state of the model is built from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


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
