"""The immutable mapping: changes give new ones, contents decide equality, and the order of making counts for nothing."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import dataclass, replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from snapspec.model.frozen import Hashed, Map

small = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3))


@given(small, st.sampled_from("abcd"), st.integers(0, 3))
def test_set_gives_a_new_mapping_and_leaves_the_old_one(items: dict[str, int], key: str, value: int) -> None:
    before = Map(items)
    after = before.set(key, value)
    assert dict(after) == {**items, key: value}
    assert dict(before) == items


@given(small, st.lists(st.sampled_from("abcdx")))
def test_without_takes_keys_away_whether_they_are_there_or_not(items: dict[str, int], keys: list[str]) -> None:
    before = Map(items)
    assert dict(before.without(*keys)) == {k: v for k, v in items.items() if k not in keys}
    assert dict(before) == items


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), unique_by=lambda item: item[0]), st.randoms())
def test_equal_contents_are_equal_and_hash_alike_in_any_order(items: list[tuple[str, int]], random: Random) -> None:
    one = Map(items)
    random.shuffle(items)
    other = Map(items)
    assert one == other
    assert hash(one) == hash(other) == hash(one)
    assert {one: 1}[other] == 1


def test_a_mapping_reads_like_any_other() -> None:
    pairs = Map([("a", 1), ("b", 2)])
    assert pairs["a"] == 1
    assert list(pairs) == ["a", "b"]
    assert len(pairs) == 2
    assert "a" in pairs
    assert "c" not in pairs
    assert pairs.get("c") is None
    assert repr(pairs) == "Map({'a': 1, 'b': 2})"


def test_a_mapping_that_comes_from_another_process_is_like_one_of_this() -> None:
    """Strings hash differently there, and the hash is cached."""
    code = (
        "import pickle, sys; from snapspec.model.frozen import Map; pairs = Map({'a': 1, 'b': 2}); hash(pairs);"
        "sys.stdout.buffer.write(pickle.dumps(pairs))"
    )
    environment = {"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path)}
    pickled = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    assert pickle.loads(pickled) in {Map({"b": 2, "a": 1})}


def test_a_mapping_is_no_dict() -> None:
    """A dict can change, so equality with one would not last."""
    assert Map({"a": 1}) != {"a": 1}
    assert Map({"a": 1}) != Map({"a": 2})


@dataclass(frozen=True, slots=True)
class Pair(Hashed):
    first: object
    second: object = ()
    __hash__ = Hashed.__hash__


def test_a_hash_is_worked_out_once() -> None:
    counted = []

    class Costly:
        def __hash__(self) -> int:
            counted.append(1)
            return 7

    pair = Pair(Costly())
    assert hash(pair) == hash(pair)
    assert len(counted) == 1
    assert hash(replace(pair, second=1)) != hash(pair)


def test_equal_values_hash_alike_and_a_copy_works_its_hash_out_again() -> None:
    pair = Pair("a", Map({"b": 1}))
    assert hash(pair) == hash(Pair("a", Map({"b": 1})))
    copied = pickle.loads(pickle.dumps(pair))
    assert copied == pair
    assert not hasattr(copied, "_hash")
