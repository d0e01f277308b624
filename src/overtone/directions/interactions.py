"""Directions of latents that act together, from a dictionary with a polynomial decoder: the sum of what each adds, and
what only their product adds.

Source: PolySAE, arXiv 2602.01322, which steers pairs that interact by the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from overtone.core.errors import DataError
from overtone.core.sites import Site
from overtone.dictionaries.interacting import interaction_vector, linear_parts
from overtone.directions.direction import Direction, unit_direction

if TYPE_CHECKING:
    from overtone.dictionaries.dictionary import Dictionary


def from_linear_parts(
    dictionary: Dictionary, latents: Sequence[int], site: Site | str, *, model: str = "", rows: Tensor | None = None,
    name: str = "",
) -> Direction:  # fmt: skip
    """d_i + d_j (+ d_k): the sum of the linear parts of latents, rows of U C1, which the paper steers a pair with. One
    latent will do.

    raw_norm: length of the sum, so that `Strength(c, "raw")` adds c times the sum; what latents of value c add without
    any powers. It says nothing of their interaction: see `from_interaction`. rows (n, width): reference for
    statistics. Raises CapabilityError for a decoder that is not polynomial (use `from_atom`), DataError for no latents,
    unknown ones, or a sum of zero. Source: interaction steering, PolySAE, arXiv 2602.01322.
    """
    if len(latents) == 0:
        raise DataError("the sum of no latents' linear parts is no direction. Name at least one.")
    total = linear_parts(dictionary, latents).double().sum(0)
    return _direction(dictionary, total, latents, "+", site, model, rows, name, "from_linear_parts")


def from_interaction(
    dictionary: Dictionary, latents: Sequence[int], site: Site | str, *, model: str = "", rows: Tensor | None = None,
    name: str = "",
) -> Direction:  # fmt: skip
    """What two or three latents add to the reconstruction only together: what z_i z_j (z_k) is multiplied with, B_ij =
    2 l2 sum_r U_ir U_jr C2_r for a pair and 6 l3 sum_r U_ir U_jr U_kr C3_r for a triple.

    raw_norm: its length where all values are 1, the interaction strength, in states' units. A triple's leaves out what
    its pairs add. rows (n, width): reference for statistics. Raises CapabilityError for a decoder that is not
    polynomial, DataError for other numbers of latents, for one that is named twice or does not exist, or where the
    decoder has no such power. Source: PolySAE, arXiv 2602.01322.
    """
    vector = interaction_vector(dictionary, *latents)
    return _direction(dictionary, vector, latents, " x ", site, model, rows, name, "from_interaction")


def _direction(
    dictionary: Dictionary, vector: Tensor, latents: Sequence[int], sign: str, site: Site | str, model: str,
    rows: Tensor | None, name: str, how: str,
) -> Direction:  # fmt: skip
    origin = {"how": how, "latents": [int(j) for j in latents], "n_latents": int(dictionary.n_latents)}
    name = name or f"latents {sign.join(map(str, latents))}"
    return unit_direction(vector, site, model=model, rows=rows, name=name, origin=origin)
