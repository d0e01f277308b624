"""States read from a model: which positions, live or from disk, in what order, on what scale."""
