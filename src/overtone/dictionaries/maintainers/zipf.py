"""How often each latent is active, beside what a Zipf law of its rank leads to expect.

Zipf-Mandelbrot: rho*_i = k (rank_i + q)^-s / sum_j (j + q)^-s, ranks from 1, no density above 1 (what is cut off goes
to the others). Source: Ayonrinde 2024, arXiv 2411.02124.
"""

import torch
from torch import Tensor

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.codes import counted
from overtone.dictionaries.maintainers.base import Maintainer, Observation
from overtone.dictionaries.selectors.columns import Columns
from overtone.dictionaries.slices import Slice

GOLDEN = 0.6180339887498949  # multiples of it fill [0, 1) evenly


def zipf_densities(n: int, k: float, exponent: float, shift: float) -> Tensor:
    """(n,) float64 expected densities in order of rank, falling, each at most 1, together k (k <= n)."""
    weights = (torch.arange(1, n + 1, dtype=torch.float64) + shift) ** -exponent
    full = 0
    while True:
        rest = weights[full:] * ((k - full) / weights[full:].sum())
        over = int((rest > 1 + 1e-12).sum())
        if not over:
            return torch.cat([torch.ones(full, dtype=torch.float64), rest])
        full += over


class ZipfDensity(Maintainer):
    """Publishes "zipf.under": the (n,) latents whose density is below `margin` times what a Zipf law expects of their
    rank.

    density: running mean over `memory` tokens of the share of rows in which a latent is active. The list is renewed
    every memory / 32 tokens, so that an accelerator is not made to wait in every step. Where the selection is a rank
    over columns, its shares follow the same law. Their order is that of `demand`, the running mean of how often a
    latent is among the stronger half of all that was kept: density could not tell, since it is what was granted.
    """

    name = "zipf"
    per_latent = ("density", "demand")
    lists = ("under",)
    wants_step = True
    sliceable = True

    def __init__(self, k: float, *, exponent: float, shift: float, margin: float, memory: int) -> None:
        super().__init__()
        self.k, self.exponent, self.shift, self.margin, self.memory = k, exponent, shift, margin, memory

    @torch.no_grad()
    def begin(self, dictionary: Autoencoder) -> None:
        """Every latent equally dense, nothing under-used."""
        n, device = dictionary.slice.n_latents, dictionary.decoder.centre().device
        even = torch.full((dictionary.n_latents,), self.k / n, dtype=torch.float64, device=device)
        self.state = {
            "density": even, "demand": even / 2,
            "under": torch.zeros(0, dtype=torch.int64, device=device),
            "unchecked_tokens": torch.zeros((), dtype=torch.int64),
        }  # fmt: skip
        self._law = zipf_densities(n, self.k, self.exponent, self.shift).to(device)
        self._grant(dictionary, self.expected(even, dictionary.slice))

    def expected(self, ranked_by: Tensor, where: Slice) -> Tensor:
        """(latents,) expected densities where the largest entry of all slices has rank 1; ties go to earlier
        latents."""
        found = torch.empty_like(self._law)
        found[where.whole(ranked_by).argsort(descending=True, stable=True)] = self._law
        return where.own(found)

    @torch.no_grad()
    def observe(self, dictionary: Autoencoder, seen: Observation) -> None:
        """Count what was active."""
        assert seen.step is not None
        values = seen.step.values.detach().abs()
        latents, where = seen.step.latents.expand_as(values).reshape(-1), dictionary.slice
        active = values > 0
        strong = values >= torch.where(active, values, torch.nan).nanmedian()  # of none, where none is active
        rate = min(1.0, seen.rows / self.memory)
        for key, places in (("density", active), ("demand", strong)):
            counts = counted(latents, where.n_latents, places.reshape(-1))
            self.state[key].lerp_(where.own(counts).double() / seen.rows, rate)
        self.state["unchecked_tokens"] += seen.rows
        if int(self.state["unchecked_tokens"]) >= self.memory / 32:
            self.state["unchecked_tokens"].zero_()
            density = self.state["density"]
            self.state["under"] = (density < self.margin * self.expected(density, where)).nonzero().view(-1)
            self._grant(dictionary, self.expected(self.state["demand"], where))
        if isinstance(dictionary.selection, Columns):
            dictionary.selection.phase.add_(GOLDEN).remainder_(1.0)

    def _grant(self, dictionary: Autoencoder, shares: Tensor) -> None:
        if isinstance(dictionary.selection, Columns):
            dictionary.selection.share.copy_(shares)

    def renew(self, latents: Tensor) -> None:
        """Start from the density of an average latent."""
        for key in self.per_latent:
            self.state[key][latents] = self.k / len(self._law) / (1 if key == "density" else 2)
