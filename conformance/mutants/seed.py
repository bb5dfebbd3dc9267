"""The seed: a manager that behaves as the code of 2017 did, wherever the spec departs from that."""

from __future__ import annotations

from snapspec.conformance.mutants import Exhibit

SEED: tuple[Exhibit, ...] = ()
