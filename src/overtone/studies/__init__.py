"""Studies: one short file per paper, which re-runs its claims with the library's own parts (`overtone study NAME`)."""
