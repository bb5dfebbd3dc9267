"""Recordings: what passes between clients and a driver, kept as lines, and judged as overlapping calls."""
