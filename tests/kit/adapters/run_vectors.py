"""Runs vectors against `adapter.py`: python run_vectors.py FILE. Status 1, with a line each, for mismatches."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import adapter


def without(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in names}


def spelled(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def in_any_order(entries: list[Any]) -> list[str]:
    return sorted(map(spelled, entries))


def tree(entries: list[dict[str, Any]]) -> list[str]:
    """The entries by path, the numbers of their inodes in that order."""
    ordered = sorted(entries, key=lambda entry: spelled(entry["path"]))
    numbers: dict[int, int] = {}
    told = []
    for entry in ordered:
        number = numbers.setdefault(entry["inode"], len(numbers))
        told.append(spelled({**entry, "inode": number, "blocks": sorted(entry["blocks"], key=lambda block: block[0])}))
    return told


def fits(expected: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Whether the answer is the one that is expected."""
    if "errors" in expected or "error" in answer:
        return answer.get("error") in expected.get("errors", ())
    value = answer["value"]
    match expected:
        case {"value": wanted}:
            return bool(value == wanted)
        case {"list": _}:
            return value is None
        case {"record": wanted}:
            return without(value, "created", "updated") == wanted
        case {"records": wanted}:
            return in_any_order([without(record, "created", "updated") for record in value]) == in_any_order(wanted)
        case {"usage": limits}:
            return all(limits[name][0] <= value[name] <= limits[name][1] for name in ("size", "inodes"))
        case {"size": [least, most]}:
            return bool(least <= value <= most)
        case {"words": wanted}:
            return len(value) == len(wanted) and all(word in words for word, words in zip(value, wanted, strict=True))
        case {"tree": wanted}:
            return tree(value) == tree(wanted)
        case {"rows": wanted}:
            return in_any_order([without(row, "size") for row in value]) == in_any_order(wanted)
        case {"pruned": wanted}:
            return (
                in_any_order([sorted(row["records"]) for row in value["removed"]]) == in_any_order(wanted) and not value["errors"]
            )
    raise ValueError(f"this reader does not know {expected}")


async def answer(store: Any, call: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"value": await getattr(store, call["call"])(**without(call, "call"))}
    except adapter.Refused as refused:
        return {"error": refused.args[0]}


async def run(document: dict[str, Any]) -> int:
    """Make all histories; gives how many went wrong."""
    wrong = 0
    for number, history in enumerate(document["histories"]):
        store = adapter.Snapshots() if document["level"] == "snapshots" else adapter.Refs()
        for at, entry in enumerate(history):
            came = await answer(store, entry["call"])
            fitting = [index for index, expected in enumerate(entry["either"]) if fits(expected, came)]
            if not fitting:
                wrong += 1
                print(
                    f"history {number}, call {at}: {spelled(entry['call'])} gave {spelled(came)}, not {spelled(entry['either'])}"
                )
            if not set(fitting) & set(entry["goes_on"]):
                break
    print(f"{len(document['histories'])} histories, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    adapter.WORK = 0
    with open(sys.argv[1]) as file:
        sys.exit(asyncio.run(run(json.load(file))) > 0)
