"""The errors of records and handles (REF-ERROR). What a driver refuses keeps its own class, see `snapspec.impl.errors`."""

from __future__ import annotations


class RefError(Exception):
    """An answer of the manager, a handle or the store. The message says what is wrong and, where there is one, the remedy."""


class Closed(RefError):
    """The manager or its store is closed; what is on the disk can be opened again (REF-CLOSE-1)."""


class Invalid(RefError):
    """The handle is not open (REF-HANDLE-4), the argument never right (REF-NEW-3), the record of another kind (REF-MUT-1)."""


class NotFound(RefError):
    """No record has the id: it never was, is gone, or is marked for removal (REF-ERROR-2)."""


class Locked(RefError):
    """Somebody else has what is asked for: the record's handle (REF-GET-2, REF-MUT-2) or the whole store (REF-CLOSE-2)."""


class StoreError(RefError):
    """The metadata store failed, with the cause chained. What is durable is told by the next call that succeeds (REF-POINT-3)."""
