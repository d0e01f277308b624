"""Adam with a bound on the gradient's norm. Source: Kingma and Ba 2014, arXiv 1412.6980."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from overtone.dictionaries.kernels import memory
from overtone.dictionaries.kernels.dispatch import kernels_for
from overtone.dictionaries.kernels.update import Moments


class Adam:
    """The moments of named parameters. Moments have the parameters' shapes, so that row surgery can move them alike."""

    def __init__(
        self, parameters: Mapping[str, Tensor], clip: float, betas: tuple[float, float] = (0.9, 0.999),
        norm: Callable[[Mapping[str, Moments]], Tensor] | None = None,
    ) -> None:  # fmt: skip
        """clip: largest norm of all gradients together; longer ones are shortened to it. betas: decay rates of mean and
        square. norm: how that norm is found, where not all gradients are here."""
        self.parameters, self.clip, self.betas, self.norm = dict(parameters), clip, betas, norm or norm_of
        self.means = {name: memory.like(p).zero_() for name, p in self.parameters.items()}
        self.squares = {name: memory.like(p).zero_() for name, p in self.parameters.items()}
        self.steps = {name: torch.zeros((), device=p.device) for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, lr: float, unit: Sequence[Tensor | None] = ()) -> None:
        """One update of the parameters that have gradients, which are then dropped. unit: parameters of which each row
        stays at length one; their gradients lose what lies along the rows."""
        moments = {name: self._moments(name, gradient) for name, gradient in self.gradients().items()}
        for one in moments.values():
            one.unit = any(one.parameter is rows for rows in unit)
        if moments:
            scale, everything = self._shortening(moments), list(moments.values())
            kernels_for(everything[0].parameter.device).update.adam(everything, lr, self.betas, scale)
        for parameter in self.parameters.values():
            parameter.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """The gradients that there are, by parameter."""
        return {name: p.grad for name, p in self.parameters.items() if p.grad is not None}

    def _moments(self, name: str, gradient: Tensor) -> Moments:
        return Moments(self.parameters[name], gradient, self.means[name], self.squares[name], self.steps[name])

    def _shortening(self, moments: Mapping[str, Moments]) -> Tensor | None:
        """What gradients are multiplied by, None for 1."""
        norm = self.norm(moments)
        if norm.device.type == "cpu" and float(norm) <= self.clip:  # an accelerator is not asked: it need not wait
            return None
        return (self.clip / (norm + 1e-6)).clamp(max=1.0)

    def tensors(self) -> dict[str, Tensor]:
        """All moments by name."""
        parts = {"mean": self.means, "square": self.squares, "step": self.steps}
        return {f"{kind}.{name}": value for kind, values in parts.items() for name, value in values.items()}

    def forget(self) -> None:
        """Let go of parameters and moments; there is no update after it."""
        for kept in (self.parameters, self.means, self.squares, self.steps):
            kept.clear()


def norm_of(moments: Mapping[str, Moments]) -> Tensor:
    """() the norm of all gradients together, on the first one's device; see `Update.norm`."""
    everything = list(moments.values())
    return kernels_for(everything[0].parameter.device).update.norm(everything) if everything else torch.zeros(())
