"""What follows the gradients in a training step: their norm, Adam's update, and rows that stay at length one.

Source of Adam: Kingma and Ba 2014, arXiv 1412.6980.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vecdot
from torch.nn.utils import get_total_norm
from torch.optim.adam import adam

from overtone.dictionaries.kernels.waiting import Sums

BLOCK = 2**18  # numbers at a time on a CPU, so that their product stays in the cache
LEAST = 1e-12  # rows that are shorter are divided by this
EPSILON = 1e-8


@dataclass(eq=False)
class Moments:
    """A parameter with its gradient, Adam's moments (of its shape) and () the number of updates so far. unit: it is
    (n, width) rows of length one that stay so. along: (n,) how far gradients lie along these, where `norm` only found
    out."""

    parameter: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor
    step: Tensor
    unit: bool = False
    along: Tensor | None = None


def parted(everything: Sequence[Moments], is_mine: Callable[[Moments], bool]) -> tuple[list[Moments], list[Moments]]:
    """Those that some kernels can work on, and the others."""
    mine, others = [], list[Moments]()
    for one in everything:
        (mine if is_mine(one) else others).append(one)
    return mine, others


class Update:
    """In torch alone."""

    @torch.no_grad()
    def norm(self, everything: Sequence[Moments]) -> Tensor:
        """() the norm of all gradients together (0 of none), after those of unit rows lost what lies along the rows:
        g_i <- g_i - <g_i, row_i> row_i. To be called once before `adam`."""
        for one in everything:
            if one.unit:
                _project(one.gradient, one.parameter)
        return get_total_norm([one.gradient for one in everything])

    @torch.no_grad()
    def adam(self, everything: Sequence[Moments], lr: float, betas: tuple[float, float], scale: Tensor | None) -> None:
        """One update of parameters and moments, in place. scale: () what gradients are multiplied by, None for 1."""
        if scale is not None:
            for one in everything:
                one.gradient.mul_(scale)
        # The function behind `torch.optim.Adam`: an optimiser object costs more than the update itself on small
        # dictionaries, and its first use loads a compiler that nothing here needs.
        adam(
            [one.parameter for one in everything], [one.gradient for one in everything],
            [one.mean for one in everything], [one.square for one in everything], [],
            [one.step for one in everything], beta1=betas[0], beta2=betas[1], eps=EPSILON, lr=lr, weight_decay=0.0,
            fused=True, amsgrad=False, maximize=False,
        )  # fmt: skip
        for one in everything:
            if one.unit:
                self.to_length_one(one.parameter)

    @torch.no_grad()
    def adam_of_sums(self, one: Moments, sums: Sums, lr: float, betas: tuple[float, float]) -> None:
        """`adam` with a gradient that has waited, instead of that of the moments."""
        one.gradient = sums.made()
        self.norm([one])  # for what lies along unit rows
        self.adam([one], lr, betas, None)

    @torch.no_grad()
    def to_length_one(self, rows: Tensor) -> None:
        """row_i <- row_i / ||row_i|| for (n, width) rows, in place."""
        rows.div_(rows.norm(dim=1, keepdim=True).clamp_min_(LEAST))


def _project(gradient: Tensor, rows: Tensor) -> None:
    size = max(1, BLOCK // rows.shape[1]) if rows.device.type == "cpu" else len(rows)
    for some, row in zip(gradient.split(size), rows.split(size), strict=True):
        some.addcmul_(row, vecdot(some, row).unsqueeze(1), value=-1)
