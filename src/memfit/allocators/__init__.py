"""The future unknown: replays of what a real allocator does with a Trace."""
