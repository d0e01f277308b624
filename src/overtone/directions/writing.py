"""What groups of neurons write into the residual stream: the output side of a dictionary of an MLP's hidden units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from overtone.core.errors import ShapeError, SiteError
from overtone.core.sites import Site
from overtone.directions.atoms import unit_atoms
from overtone.directions.direction import Direction, unit_direction

if TYPE_CHECKING:
    from overtone.dictionaries.dictionary import Dictionary

AT_ONCE = 1024  # atoms in one pass
STRAIGHT = 0.999  # cosine from which on a state moves along what was added


class Block(Protocol):
    """What is needed of a model: its sites' widths, states of a pass, and passes with states that were exchanged."""

    @property
    def fingerprint(self) -> Any:  # a str; type checkers do not take a cached property for one
        """What a direction of this model is known by."""
        ...

    def width(self, site: Site) -> int:
        """Width of the states at a site."""
        ...

    def read(self, tokens: Tensor, real: None, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """States (batch, tokens, width) at sites."""
        ...

    def editing(self, editors: Mapping[Site, Callable[[Tensor, Any], Tensor]]) -> AbstractContextManager[Any]:
        """A block in which passes go on with what editors make of the states."""
        ...


def written_directions(
    dictionary: Dictionary, model: Block, site: Site | str, latents: Sequence[int] | None = None, *,
    into: Site | str | None = None,
) -> tuple[Direction, ...]:  # fmt: skip
    """W_down z_i for the atoms z_i of a dictionary of MLP neurons: the directions they write, one per latent.

    site: where the atoms lie, `mlp_neurons.L`; latents: which (None: all); into: where the directions lie,
    `residual.L` (the default) or `mlp_out.L`. Measured in the model: neurons are set to the atom, and what the MLP then
    adds is compared with what it adds for neurons of 0, so that biases drop out. raw_norm is the length of W_down z_i;
    where a norm follows the projection (Gemma 2 and 3), of what is left behind it. Raises SiteError for other sites, or
    where the stream is normed after the MLP, so that what arrives depends on the state (use mlp_out); ShapeError for
    another width; DataError for latents that do not exist, are dead or write nothing.
    Source: SNMF, arXiv 2506.10920 (output-side descriptions: read such a direction by `vocabulary_effect`).
    """
    place = Site.parse(site)
    added = Site("mlp_out", place.layer)
    target = Site("residual", place.layer) if into is None else Site.parse(into)
    if place.kind != "mlp_neurons" or target not in (added, Site("residual", place.layer)):
        raise SiteError(
            f"atoms at {place} that write into {target}: this is for neurons, mlp_neurons.L, which write into "
            "residual.L or mlp_out.L of the same layer."
        )
    chosen = range(dictionary.n_latents) if latents is None else latents
    atoms = unit_atoms(dictionary, chosen).float()
    if atoms.shape[1] != model.width(place):
        raise ShapeError(
            f"this dictionary's atoms have width {atoms.shape[1]}, {place} of this model {model.width(place)}. Give "
            "the model and site that it was trained on."
        )
    parts = [_written(model, place, added, target, part) for part in atoms.split(AT_ONCE)]
    origin = {"how": "written_directions", "from": str(place), "n_latents": int(dictionary.n_latents)}
    return tuple(
        unit_direction(
            row, target, model=model.fingerprint, name=f"written by atom {latent}", origin={**origin, "latent": latent}
        )  # fmt: skip
        for latent, row in zip(map(int, chosen), torch.cat(parts), strict=True)
    )


def _written(model: Block, place: Site, added: Site, target: Site, atoms: Tensor) -> Tensor:
    """(atoms, width) what each adds at `added`. Raises SiteError unless `target` moves along with it."""
    _, moved = _moved(model, place, added, atoms)
    if target != added:
        rest, _ = _moved(model, place, target, atoms[:1])
        factors = rest.norm() / moved.norm(dim=1, keepdim=True).clamp_min(1e-30)
        _, arrived = _moved(model, place, target, atoms * factors.clamp_min(1))  # as long as what it is added to
        if bool((cosine_similarity(arrived, moved)[moved.any(1)] < STRAIGHT).any()):
            raise SiteError(
                f"what the MLP adds passes a norm before {target}: what arrives depends on the state. Use into={added}."
            )
    return moved


def _moved(model: Block, place: Site, site: Site, values: Tensor) -> tuple[Tensor, Tensor]:
    """The state (width,) at a site with neurons of 0, and by how much (n, width) it moves with values (n, neurons)."""
    values = torch.cat([torch.zeros_like(values[:1]), values])
    tokens = torch.zeros(len(values), 1, dtype=torch.int64)
    with model.editing({place: lambda states, call: values[:, None].to(states)}):
        found = model.read(tokens, None, [site])[site][:, 0].float().cpu()
    return found[0], found[1:] - found[0]
