"""Thresholds: a latent is active where its score exceeds a fixed or given number."""

from collections.abc import Callable

import torch
from torch import Tensor

from overtone.dictionaries.codes import Support
from overtone.dictionaries.selectors.base import Rule, Selection


class Threshold(Selection, kind="selection.threshold"):
    """score > theta, theta (latents,) a buffer that starts at `level`: 0 for a plain rectifier, else what was exported.

    Where a half-precision copy of the dictionary is made, theta stays in float32.
    """

    has_threshold_form = True
    sliceable = True
    per_latent = ("theta",)

    def __init__(self, n_latents: int, level: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("theta", torch.full((n_latents,), float(level)))

    def arguments(self) -> dict[str, int]:
        """n_latents; the levels are state."""
        return {"n_latents": self.theta.shape[0]}

    def nominate(self, scores: Tensor, *, company: bool, states: Tensor | None = None) -> Support:
        """All places above their threshold."""
        return Support.from_mask(self.mask(scores))

    def rule(self, sample: Callable[[], Tensor], states: Tensor) -> Rule:
        """All places above their threshold."""
        return Rule(shift=self.theta.detach())

    def alone(self) -> Rule | None:
        """All places above their threshold, if each latent has one."""
        return Rule(shift=self.theta.detach()) if bool(self.theta.isfinite().all()) else None

    def mask(self, scores: Tensor) -> Tensor:
        """score > theta."""
        return scores > self.theta

    def scale_codes(self, factor: float) -> None:
        """Scale the thresholds."""
        self.theta.mul_(factor)

    def _apply(self, fn, recurse=True):  # noqa: ANN001  (torch's own signature)
        theta = self.theta
        super()._apply(fn, recurse)
        if self.theta.dtype in (torch.float16, torch.bfloat16):
            self.theta = theta.to(self.theta.device)
        return self
