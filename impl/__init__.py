"""The reference: an overlay snapshotter on a loop-mounted pool, and what it stands on. asyncio throughout."""
