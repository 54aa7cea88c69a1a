"""Planners, the future known: a Problem (buffers with lifetimes) -> a Placement (an offset for each)."""
