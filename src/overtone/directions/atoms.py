"""Directions from a dictionary's atoms: one latent, or the centroid of several (RISE's behaviour vector)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from overtone.core.errors import CapabilityError, DataError
from overtone.core.sites import Site
from overtone.directions.direction import Direction, unit_direction

if TYPE_CHECKING:
    from overtone.dictionaries.dictionary import Dictionary


def from_atom(
    dictionary: "Dictionary",
    latent: int,
    site: Site | str,
    *,
    model: str = "",
    rows: Tensor | None = None,
    name: str = "",
    view: int | None = None,
) -> Direction:
    """The atom of one latent, as the state sees it (input scaling folded in). rows (n, width): reference for
    statistics.

    site: of what the dictionary reconstructs, so a transcoder's target; view: for a crosscoder, which of its views,
    counted from 0, lies at that site. Raises DataError naming the range for a latent or view that does not exist, and
    CapabilityError for a crosscoder without `view`.
    """
    atoms = unit_atoms(dictionary, [latent], view)
    origin = {"how": "from_atom", "latent": int(latent), "n_latents": int(dictionary.n_latents), **_of_view(view)}
    return unit_direction(atoms[0], site, model=model, rows=rows, name=name or f"atom {latent}", origin=origin)


def centroid_of_atoms(
    dictionary: "Dictionary",
    latents: Sequence[int],
    site: Site | str,
    *,
    model: str = "",
    rows: Tensor | None = None,
    name: str = "centroid",
    view: int | None = None,
) -> Direction:
    """The mean of the unit atoms of some latents, made a unit vector again: RISE's vector of a behaviour.

    Without the last step a full projection would remove only ||mean||^2 of the component. raw_norm is that length, in
    (0, 1]: 1 means that the atoms agree. site, view: as for `from_atom`. Raises DataError for no latents, unknown ones,
    or atoms that cancel, and what `from_atom` raises.
    Source: Zhang et al. 2025, arXiv 2512.23988, section on interventions.
    """
    if len(latents) == 0:
        raise DataError(
            "a centroid needs at least one latent; the selection is empty. Loosen the filter that chose them."
        )
    mean = unit_atoms(dictionary, latents, view).mean(0)
    origin = {"how": "centroid_of_atoms", "latents": [int(j) for j in latents], "n_latents": int(dictionary.n_latents)}
    origin |= _of_view(view)
    return unit_direction(mean, site, model=model, rows=rows, name=name, origin=origin)


def _of_view(view: int | None) -> dict[str, int]:
    return {} if view is None else {"view": int(view)}


def unit_atoms(dictionary: "Dictionary", latents: Sequence[int], view: int | None = None) -> Tensor:
    """Unit atoms of some latents in float64, (n, width), or their blocks of a view, as unit vectors too. Raises as
    `from_atom`."""
    bad = [int(j) for j in latents if not 0 <= int(j) < dictionary.n_latents]
    if bad:
        raise DataError(f"latent {bad[0]} does not exist; this dictionary has latents 0 to {dictionary.n_latents - 1}.")
    chosen = dictionary.atoms().detach()[torch.as_tensor(list(latents), dtype=torch.int64)].to("cpu", torch.float64)
    chosen = _block(chosen, getattr(dictionary, "views", ()) or (chosen.shape[1],), view)
    norms = chosen.norm(dim=1, keepdim=True)
    if bool((norms == 0).any()):
        raise DataError(
            f"latent {int(latents[int((norms[:, 0] == 0).nonzero()[0])])} has a zero atom (it is dead). Leave it out."
        )
    return chosen / norms


def _block(atoms: Tensor, views: Sequence[int], view: int | None) -> Tensor:
    if view is None and len(views) > 1:
        raise CapabilityError(
            f"atoms of this dictionary are blocks of {len(views)} views beside each other, and a direction lies at one "
            "site. Say which with view=0, 1, ..."
        )
    if view is not None and not 0 <= view < len(views):
        raise DataError(f"view {view} does not exist; this dictionary has views 0 to {len(views) - 1}.")
    return atoms.split(list(views), 1)[view or 0]
