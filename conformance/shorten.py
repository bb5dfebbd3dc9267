"""How a finding is made shorter: try what is left of its history, and keep what still shows the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any, Protocol, TypeVar

from snapspec.model.replies import Mismatch

T = TypeVar("T")
C = TypeVar("C")


class Shows(Protocol):
    """A finding, of a driver or of a manager."""

    @property
    def clause(self) -> str:
        """The clause that is broken."""
        ...

    @property
    def mismatches(self) -> Sequence[Mismatch]:
        """What was allowed, each by its clause, and what came."""
        ...


F = TypeVar("F", bound=Shows)


def shortest(
    best: F,
    shorter: Callable[[F], Iterable[C]],
    again: Callable[[C], F | None],
    size: Callable[[F], tuple[int, ...]],
    wanted: Callable[[], bool],
    vague: str = "",
) -> F:
    """The finding after the tries that `shorter` gives, each made `again`, as long as the same clause breaks in a smaller `size`.

    So may one that was broken beside it: the answer of calls that overlap may break one or another. `wanted` is asked before each
    try. `vague` is a clause that is named for want of a better one: any other may take its place.
    """

    def better(best: F) -> F | None:
        for tried in shorter(best):
            if not wanted():
                break
            found = again(tried)
            same = found is not None and (best.clause == vague or found.clause in {m.clause for m in best.mismatches})
            if found is not None and same and size(found) < size(best):
                return found
        return None

    less: F | None = best
    while less is not None:
        best, less = less, better(less)
    return best


def fewer(items: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """The items without half of them, without a quarter, and so on down to a single one. Of calls the last ones matter most."""
    length = len(items) // 2
    while length:
        for start in range(0, len(items), length):
            yield items[:start] + items[start + length :]
        length //= 2


def with_less(call: T) -> Iterator[T]:
    """The same call with one thing less: an argument left out, or one item of an argument that has several."""
    shown: Any = call
    for field in fields(shown):
        value = getattr(call, field.name)
        if field.default is not MISSING and value != field.default:
            yield changed(call, field.name, field.default)
        if isinstance(value, tuple) and len(value) > 1:
            yield from (changed(call, field.name, less) for less in fewer(value))


def changed(call: T, field: str, value: object) -> T:
    """The call with another value in that field."""
    change: Callable[..., T] = replace
    return change(call, **{field: value})
