"""How much do atoms overlap: all of them, and those that are active together?

Babel function: Tropp 2004, "Greed is good". Used on dictionaries and on co-selected atoms by MP-SAE, arXiv 2506.03093.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from overtone.core.errors import DataError, SettingError
from overtone.evaluate.recovery import cosines_between
from overtone.interpret.columns import as_columns


def babel(atoms: Any, others: int) -> float:
    """The largest sum of |cos| between one atom and its `others` most similar ones, in [0, others]; 0 if all are
    orthogonal. atoms: (latents, width). Raises SettingError unless 1 <= others < latents."""
    cosines = np.abs(cosines_between(atoms, atoms))
    if not 1 <= others < len(cosines):
        raise SettingError(f"others={others} of {len(cosines)} atoms: use 1 to {len(cosines) - 1}.")
    np.fill_diagonal(cosines, 0)
    return float(np.sort(cosines, axis=1)[:, -others:].sum(1).max())


def selected_coherence(codes: Any, atoms: Any) -> float:
    """Mean over rows of the largest |cos| between two atoms that are active in the row together, in [0, 1]; rows with
    fewer than two are left out. Raises DataError if there is no other row."""
    rows = as_columns(codes).tocsr()
    cosines = np.abs(cosines_between(atoms, atoms))
    np.fill_diagonal(cosines, 0)
    active = (rows.indices[a:b] for a, b in zip(rows.indptr, rows.indptr[1:], strict=False) if b - a > 1)
    found = [float(cosines[np.ix_(latents, latents)].max()) for latents in active]
    if not found:
        raise DataError("no row has two active latents, so none are active together. Use a larger k.")
    return float(np.mean(found))
