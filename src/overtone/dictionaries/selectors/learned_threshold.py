"""One threshold per latent, learned by pseudo-gradients."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from overtone.core.settings import require
from overtone.dictionaries.codes import Support
from overtone.dictionaries.selectors.base import Rule, Selection


class LearnedThreshold(Selection, kind="selection.learned_threshold"):
    """score > theta with theta = exp(log_theta) > 0, (latents,), a parameter.

    level, bandwidth: where thresholds start and how wide the window of the pseudo-gradient is (dictionaries/jumps), as
    multiples of the typical pre-activation of a random unit row. In training the places up to half a window below the
    threshold are nominated too: their value is 0, but they carry the threshold's gradient. Where a half-precision copy
    of the dictionary is made, log_theta stays in float32. Source: arXiv 2407.14435.
    """

    has_threshold_form = True
    learned = True
    sliceable = True
    per_latent = ("log_theta",)
    window: Tensor

    def __init__(self, n_latents: int, level: float, bandwidth: float) -> None:
        super().__init__()
        require(level > 0, f"threshold={level}: a learned threshold starts above 0.")
        require(bandwidth > 0, f"bandwidth={bandwidth}: the window of the pseudo-gradient has a width above 0.")
        self.level, self.bandwidth = level, bandwidth
        self.log_theta = nn.Parameter(torch.full((n_latents,), math.log(level)))
        self.register_buffer("window", torch.tensor(float(bandwidth)))

    def arguments(self) -> dict[str, int | float]:
        """n_latents, level and bandwidth; thresholds and window themselves are state."""
        return {"n_latents": self.log_theta.shape[0], "level": self.level, "bandwidth": self.bandwidth}

    def start(self, size: Tensor) -> None:
        """Set thresholds and window, given the typical pre-activation of a random unit row."""
        self.log_theta.data.copy_((self.level * size).log())
        self.window.copy_(self.bandwidth * size)

    @property
    def theta(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """(latents,) thresholds, with gradients."""
        return self.log_theta.exp()

    def nominate(self, scores: Tensor, *, company: bool, states: Tensor | None = None) -> Support:
        """All places above their threshold; in training those just below it too."""
        return Support.from_mask(self.mask(scores) if company else scores > self.theta)

    def rule(self, sample: Callable[[], Tensor], states: Tensor) -> Rule:
        """All places above their threshold or just below it."""
        return Rule(shift=(self.theta - self.window / 2).detach())

    def alone(self) -> Rule | None:
        """All places above their threshold, if each latent has one."""
        return Rule(shift=self.theta.detach()) if bool(self.theta.isfinite().all()) else None

    def mask(self, scores: Tensor) -> Tensor:
        """score > theta - window / 2."""
        return scores > self.theta - self.window / 2

    def scale_codes(self, factor: float) -> None:
        """Scale thresholds and window."""
        self.log_theta.data.add_(math.log(factor))
        self.window.mul_(factor)

    def _apply(self, fn, recurse=True):  # noqa: ANN001  (torch's own signature)
        exact = self.log_theta.data
        super()._apply(fn, recurse)
        if self.log_theta.dtype in (torch.float16, torch.bfloat16):
            self.log_theta.data = exact.to(self.log_theta.device)
        return self
