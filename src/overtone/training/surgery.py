"""Row surgery: latents change places or start anew, with all that belongs to them.

Parameters and buffers that parts list as `per_latent`, the optimiser's moments of these, and the per-latent state of
the maintainers move together: after a permutation a training goes on as before, up to the names of the latents. Where
latents are spread over processes they also move between these, one tensor after the other, block by block.
"""

from collections.abc import Iterable

import torch

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Maintainer, Surgery
from overtone.dictionaries.parts import Part
from overtone.training.adam import Adam


@torch.no_grad()
def operate(dictionary: Autoencoder, adam: Adam, maintainers: Iterable[Maintainer], surgery: Surgery) -> None:
    """Carry out what a maintainer asked for, in place."""
    if surgery.order is not None:
        tensors = {**dict(dictionary.named_parameters()), **dict(dictionary.named_buffers())}
        where = dictionary.slice
        for name in per_latent(dictionary):
            for parts in (tensors, adam.means, adam.squares):
                if name in parts:
                    parts[name].copy_(where.moved(parts[name], surgery.order))
        for maintainer in maintainers:
            maintainer.reorder(surgery.order, where)
    if surgery.fresh is not None:
        parameters = dict(dictionary.named_parameters())
        for name, rows in surgery.rows.items():
            parameters[name][surgery.fresh] = rows.to(parameters[name].dtype)
        for name in per_latent(dictionary):
            for moments in (adam.means, adam.squares):
                if name in moments:
                    moments[name][surgery.fresh] = 0
        for maintainer in maintainers:
            maintainer.renew(surgery.fresh)


def per_latent(dictionary: Autoencoder) -> list[str]:
    """Names of the parameters and buffers whose first axis is latents, as the parts declare them."""
    return [
        f"{path}.{name}".removeprefix(".")
        for path, part in dictionary.named_modules()
        if isinstance(part, Part)
        for name in part.per_latent
    ]
