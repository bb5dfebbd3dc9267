"""What keeps a run from starting."""

from __future__ import annotations


class CannotRun(Exception):
    """The run cannot start; the message is one sentence that names the remedy."""
