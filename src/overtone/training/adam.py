"""Adam with a bound on the gradient's norm, in one fused pass over parameters and moments.

The function behind `torch.optim.Adam` is called directly: an optimiser object costs more than the update itself on
small dictionaries, and its first use loads a compiler that nothing here needs. Source: Kingma and Ba 2014, arXiv
1412.6980.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim.adam import adam

EPSILON = 1e-8


class Adam:
    """The moments of named parameters. Moments have the parameters' shapes, so that row surgery can move them alike."""

    def __init__(
        self, parameters: Mapping[str, Tensor], clip: float, betas: tuple[float, float] = (0.9, 0.999),
        norm: Callable[[Mapping[str, Tensor]], Tensor] | None = None,
    ) -> None:  # fmt: skip
        """clip: largest norm of all gradients together; longer ones are shortened to it. betas: decay rates of mean and
        square. norm: how that norm is found, where not all gradients are here."""
        self.parameters, self.clip, self.betas, self.norm = dict(parameters), clip, betas, norm or _norm
        self.means = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.squares = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.steps = {name: torch.zeros((), device=p.device) for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, lr: float) -> None:
        """One update of the parameters that have gradients, which are then dropped."""
        found = self.gradients()
        names, gradients = list(found), list(found.values())
        self._shorten(found)
        adam(
            [self.parameters[name] for name in names], gradients, [self.means[name] for name in names],
            [self.squares[name] for name in names], [], [self.steps[name] for name in names],
            beta1=self.betas[0], beta2=self.betas[1], eps=EPSILON, lr=lr, weight_decay=0.0,
            fused=True, amsgrad=False, maximize=False,
        )  # fmt: skip
        for parameter in self.parameters.values():
            parameter.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """The gradients that there are, by parameter."""
        return {name: p.grad for name, p in self.parameters.items() if p.grad is not None}

    def _shorten(self, gradients: Mapping[str, Tensor]) -> None:
        norm = self.norm(gradients)
        if (
            norm.device.type != "cpu" or float(norm) > self.clip
        ):  # an accelerator is not asked, so that it need not wait
            for gradient in gradients.values():
                gradient.mul_((self.clip / (norm + 1e-6)).clamp(max=1.0))

    def tensors(self) -> dict[str, Tensor]:
        """All moments by name."""
        parts = {"mean": self.means, "square": self.squares, "step": self.steps}
        return {f"{kind}.{name}": value for kind, values in parts.items() for name, value in values.items()}

    def forget(self) -> None:
        """Let go of parameters and moments; there is no update after it."""
        for kept in (self.parameters, self.means, self.squares, self.steps):
            kept.clear()


def _norm(gradients: Mapping[str, Tensor]) -> Tensor:
    return get_total_norm(list(gradients.values()))
