"""The `fit` verb: levers, the search over them, verification by running."""
