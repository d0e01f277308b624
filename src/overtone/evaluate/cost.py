"""What a training step costs, counted in dense products: the same number on every machine."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from torch import Tensor

    from overtone.dictionaries.autoencoder import Autoencoder
    from overtone.dictionaries.preset import Preset

_PRODUCTS = {"mm": 0, "addmm": 1, "bmm": 0, "baddbmm": 1}  # operator -> place of its first factor
_GATHERS = {"_embedding_bag": (0, 1), "_embedding_bag_forward_only": (0, 1)}  # -> places of the table and the indices


class Multiplications(TorchDispatchMode):
    """Counts the multiplications of matrix products and of gathered sums while it is active; elementwise work is not
    counted."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and count."""
        name = func.overloadpacket.__name__
        if name in _PRODUCTS:
            left, right = args[_PRODUCTS[name]], args[_PRODUCTS[name] + 1]
            self.count += left.numel() * right.shape[-1]
        elif name in _GATHERS:
            table, indices = (args[place] for place in _GATHERS[name])
            self.count += indices.numel() * table.shape[1]
        elif name == "_embedding_bag_per_sample_weights_backward":
            self.count += args[2].numel() * args[1].shape[1]
        return func(*args, **(kwargs or {}))


def matmul_units(
    preset: Preset, dictionary: Autoencoder, x: Tensor, *, y: Tensor | None = None, g: Tensor | None = None
) -> float:
    """Multiplications of one training step (forward, backward; no dead latents) on states x (rows, width), in units of
    one dense product rows x width x latents. A step cannot take less than 1; a dense one takes about 5 to 6.

    dictionary: trained, so that as many latents are active as in the end; it is not changed.
    """
    from overtone.training.kernels.dispatch import using
    from overtone.training.step import Given, forward

    model = copy.deepcopy(dictionary).requires_grad_(True).train()
    maintainers = preset.maintainers()
    for maintainer in maintainers:
        maintainer.begin(model)
    state = {f"{m.name}.{key}": value for m in maintainers if m.name for key, value in m.state.items()}
    every = any(objective.needs_all for objective in preset.objectives())
    given = Given(x, torch.zeros(0, dtype=torch.int64), 0.5, y, g, state, every)
    with using("plain"), Multiplications() as counted:  # compiled kernels do the same work out of sight
        step = forward(model, given)
        torch.stack([objective(step) for objective in preset.objectives()]).sum().backward()
    return counted.count / (len(x) * dictionary.width * dictionary.n_latents)
