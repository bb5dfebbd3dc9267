"""Exhibits of managers of refs: what a restart, a crash, a prune or a failing store brings about."""

from __future__ import annotations

from snapspec.conformance.mutants import Exhibit

REFS_DURABLE: tuple[Exhibit, ...] = ()
