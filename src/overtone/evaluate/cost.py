"""What a training step costs, counted in dense products: the same number on every machine."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from overtone.dictionaries.autoencoder import Autoencoder
    from overtone.dictionaries.preset import Preset


def matmul_units(
    preset: Preset, dictionary: Autoencoder, x: Tensor, *, y: Tensor | None = None, g: Tensor | None = None
) -> float:
    """Dense products of one training step (forward and backward; no dead latents) on states x (rows, width), in units
    of one product rows x width x latents. A step cannot take less than 1; a dense one takes about 6. Sparse work, in
    proportion to the active latents, is not counted.

    dictionary: trained, so that as many latents are active as in the end; it is not changed.
    """
    from overtone.dictionaries.kernels.dispatch import using
    from overtone.training.counting import Counting
    from overtone.training.step import Given, forward

    model = copy.deepcopy(dictionary).requires_grad_(True).train()
    maintainers = preset.maintainers()
    for maintainer in maintainers:
        maintainer.begin(model)
    state = {f"{m.name}.{key}": value for m in maintainers if m.name for key, value in m.state.items()}
    every = any(objective.needs_all for objective in preset.objectives())
    given = Given(x, torch.zeros(0, dtype=torch.int64), 0.5, y, g, state, every)
    with using("plain"), Counting(len(x), dictionary.n_latents, dictionary.width) as counted:
        step = forward(model, given)  # plain: compiled kernels do the same work out of sight
        torch.stack([objective(step) for objective in preset.objectives()]).sum().backward()
    return counted.products
