"""Values that are drawn from a normal distribution while training, and the score that ranks them.

Source: vSAE, arXiv 2509.22994: z = mu + sigma eps in training, z = mu otherwise; latents compete by |z|.
"""

import torch
from torch import Tensor

from overtone.core.seeds import torch_generator
from overtone.dictionaries.encoders.base import At, Heads
from overtone.dictionaries.scores import Score
from overtone.dictionaries.slices import Slice
from overtone.dictionaries.values import Value

STRIPE = 64  # rows whose noise is drawn at once: the noise of a row must not depend on how a batch is cut into blocks


def mean(heads: Heads, rectified: bool) -> Tensor:
    """The mean mu of each latent: the pre-activation, or its positive part."""
    return heads["u"].relu() if rectified else heads["u"]


def drawn(heads: Heads, rectified: bool) -> Tensor:
    """mu + sigma eps; mu where there is no noise. The head `noise` is eps times a fixed sigma; where there is a head
    `logvar`, it is eps alone."""
    mu = mean(heads, rectified)
    if "noise" not in heads:
        return mu
    noise = heads["noise"].to(mu.dtype)
    return mu + (torch.exp(heads["logvar"] / 2) * noise if "logvar" in heads else noise)


class DrawnMagnitude(Score, kind="score.drawn_magnitude"):
    """|z| of the value as it is drawn."""

    sliceable = True

    def __init__(self, *, rectified: bool = True) -> None:
        super().__init__()
        self.rectified, self.two_sided = rectified, not rectified

    def arguments(self) -> dict[str, bool]:
        """rectified."""
        return {"rectified": self.rectified}

    def forward(self, heads: Heads, at: At) -> Tensor:
        """|mu + sigma eps|."""
        return drawn(heads, self.rectified).abs()


class Drawn(Value, kind="value.drawn"):
    """mu + sigma eps with eps ~ N(0, 1) in training, mu otherwise. `sigma`: the standard deviation, in the dictionary's
    units, above 0; None where the encoder has a log-variance. `rectified`: mu is the positive part of u.

    The noise is a function of the seed, the number of the batch (the maintainer FreshNoise counts it) and the row's
    place in it. All that is stored, so a resumed training draws what an uninterrupted one would.
    """

    draws = True
    sliceable = True
    sigma: Tensor
    seed: Tensor
    batch: Tensor

    def __init__(self, *, sigma: float | None, rectified: bool = True) -> None:
        super().__init__()
        self.fixed, self.rectified = sigma is not None, rectified
        self.signed = not rectified
        self.register_buffer("sigma", torch.tensor(1.0 if sigma is None else sigma))
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("batch", torch.zeros((), dtype=torch.int64))

    def arguments(self) -> dict[str, float | bool | None]:
        """sigma and rectified."""
        return {"sigma": float(self.sigma) if self.fixed else None, "rectified": self.rectified}

    def sides(self, first: int, n_rows: int, n_latents: int) -> Heads:
        """The noise of some rows of the current batch: (rows, latents) float32. A slice has its part of the whole
        dictionary's, all of which is drawn for it."""
        seed, batch = torch.stack([self.seed, self.batch]).cpu().tolist()  # an accelerator is waited for once
        where = self.slice or Slice.all(n_latents)
        stripes = range(first // STRIPE, (first + n_rows - 1) // STRIPE + 1)
        draws = (torch_generator(seed, "noise", batch, stripe) for stripe in stripes)
        noise = [where.own(torch.randn(STRIPE, where.n_latents, generator=draw)) for draw in draws]
        start = first - stripes[0] * STRIPE
        return {"noise": torch.cat(noise)[start : start + n_rows].to(self.sigma.device) * self.sigma}

    def forward(self, heads: Heads, at: At) -> Tensor:
        """mu + sigma eps."""
        return drawn(heads, self.rectified)

    def scale_codes(self, factor: float) -> None:
        """Scale a fixed sigma; a learned one is the encoder's."""
        if self.fixed:
            self.sigma.mul_(factor)
