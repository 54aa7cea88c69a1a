"""Measures of a Graph or a Trace: what lives when, how much, at what cost. Nothing here changes anything."""
