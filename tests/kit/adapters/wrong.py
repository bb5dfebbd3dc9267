"""An adapter that takes one wrong turn, which its argument names."""

from __future__ import annotations

import json
import sys
import time

HELLO = {"protocol": "snapspec adapter 1", "name": "wrong", "levels": ["snapshots"], "content": "calls"}
RECORD = {"name": "a", "parent": "", "kind": "active", "labels": {}, "created": 0, "updated": 0}

#: What hello is answered with instead, by the name of the turn.
HELLOS = {
    "old protocol": {**HELLO, "protocol": "snapspec adapter 0"},
    "no content": {name: value for name, value in HELLO.items() if name != "content"},
    "other level": {**HELLO, "levels": ["refs"]},
    "unknown level": {**HELLO, "levels": ["images"]},
    "profile": {**HELLO, "profile": {"colour": "red"}},
    "usage": {**HELLO, "profile": {"usage": ["layer"]}},
}

#: What stat is answered with, as a line.
STATS = {
    "prints": "looking for a",
    "array": "[]",
    "no id": json.dumps({"value": RECORD}),
    "wrong id": json.dumps({"id": 99, "value": RECORD}),
    "twice": json.dumps({"id": 1, "value": None}),
    "both": json.dumps({"id": 2, "value": RECORD, "error": "NotFound"}),
    "unknown class": json.dumps({"id": 2, "error": "NoSuchFile"}),
    "missing field": json.dumps({"id": 2, "value": {name: value for name, value in RECORD.items() if name != "kind"}}),
    "wrong kind": json.dumps({"id": 2, "value": {**RECORD, "kind": "Active"}}),
    "null": json.dumps({"id": 2, "value": None}),
}


def main(turn: str) -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if turn == "silent" or (turn == "silent later" and asked["call"] == "stat"):
            continue
        if turn == "dies":
            print("out of luck", file=sys.stderr)
            sys.exit(3)
        if asked["call"] == "hello":
            print(json.dumps({"id": asked["id"], "value": HELLOS.get(turn, HELLO)}), flush=True)
        elif turn in STATS:
            print(STATS[turn], flush=True)
        else:
            print(json.dumps({"id": asked["id"], "value": RECORD}), flush=True)
    if turn == "stays":
        time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1])
