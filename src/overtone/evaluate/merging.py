"""Has a dictionary merged children with their parents? On planted families (data/synthetic, `plant_tree`).

Source of the question: MP-SAE, arXiv 2506.03093; elsewhere the effect is called absorption or hedging.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from overtone.core.errors import DataError
from overtone.evaluate.recovery import cosines_between

if TYPE_CHECKING:
    from overtone.data.synthetic import PlantedTree


def merging(atoms: Any, tree: PlantedTree) -> float:
    """Mean over children of |cos| between the child's nearest atom and the child's parent, in [0, 1]: how much of the
    parent is in the atom. 0 for the true atoms, 0.71 for atoms halfway between child and parent.

    atoms: (latents, width). Raises DataError for a tree without children.
    """
    parent = tree.parent.numpy()
    children = np.flatnonzero(parent >= 0)
    if not len(children):
        raise DataError("this tree has no children, so nothing can be merged. Plant families.")
    cosines = np.abs(cosines_between(tree.atoms, atoms))
    nearest = cosines[children].argmax(1)
    return float(cosines[parent[children], nearest].mean())
