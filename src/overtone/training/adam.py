"""Adam with a bound on the gradient's norm. Source: Kingma and Ba 2014, arXiv 1412.6980."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from overtone.dictionaries.kernels import memory
from overtone.dictionaries.kernels.dispatch import kernels_for
from overtone.dictionaries.kernels.update import Moments
from overtone.dictionaries.kernels.waiting import Sums, Waiting

SURE = 1 + 1e-4  # bounds of norms are float32 numbers


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
    def update(self, lr: float, unit: Sequence[Tensor | None] = (), waiting: Waiting | None = None) -> None:
        """One update of the parameters that have gradients, which are then dropped. unit: parameters of which each row
        stays at length one; their gradients lose what lies along the rows. waiting: gradients that may wait."""
        ready = {} if waiting is None else self._ready(waiting)
        moments = self._all(unit)
        norm = self.norm(moments) if moments or not ready else torch.zeros(())
        if waiting is not None and ready and not self._stay_short(norm, ready):
            for name in ready:
                waiting.make(self.parameters[name])
            ready, moments = {}, self._all(unit)
            norm = self.norm(moments)
        if moments:
            everything = list(moments.values())
            update = kernels_for(everything[0].parameter.device).update
            update.adam(everything, lr, self.betas, None if ready else self._shortening(norm))
        for name, sums in ready.items():
            one = self._moments(name, self.parameters[name].new_empty(0), unit)
            kernels_for(one.parameter.device).update.adam_of_sums(one, sums, lr, self.betas)
        for parameter in self.parameters.values():
            parameter.grad = None

    def _ready(self, waiting: Waiting) -> dict[str, Sums]:
        """The gradients that still may wait."""
        found = {name: waiting.alone(parameter) for name, parameter in self.parameters.items()}
        return {name: sums for name, sums in found.items() if sums is not None}

    def _stay_short(self, norm: Tensor, ready: Mapping[str, Sums]) -> bool:
        """Whether all gradients together are surely no longer than they may be."""
        return SURE * math.hypot(float(norm), *(sums.most for sums in ready.values())) <= self.clip

    def gradients(self) -> dict[str, Tensor]:
        """The gradients that there are, by parameter."""
        return {name: p.grad for name, p in self.parameters.items() if p.grad is not None}

    def _all(self, unit: Sequence[Tensor | None]) -> dict[str, Moments]:
        return {name: self._moments(name, gradient, unit) for name, gradient in self.gradients().items()}

    def _moments(self, name: str, gradient: Tensor, unit: Sequence[Tensor | None]) -> Moments:
        parameter = self.parameters[name]
        is_unit = any(parameter is rows for rows in unit)
        return Moments(parameter, gradient, self.means[name], self.squares[name], self.steps[name], is_unit)

    def _shortening(self, norm: Tensor) -> Tensor | None:
        """What gradients are multiplied by, None for 1."""
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
