"""Spans of time as people write them: 90s, 5m, 1h."""

from __future__ import annotations

import math
import re

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> float:
    """The seconds that `text` names, more than none. ValueError, saying what to write, when it names none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    span = float(found[1]) * _UNITS[found[2]] if found is not None else 0.0
    if span == 0 or math.isinf(span):
        raise ValueError(f"{text!r} is no time; write 90s, 5m or 1h")
    return span
