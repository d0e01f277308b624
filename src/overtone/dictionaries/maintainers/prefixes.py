"""Nested prefixes that are drawn anew for every batch, from the training's seed, over latents sorted by what they
contribute."""

import torch

from overtone.core.seeds import torch_generator
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Maintainer, Observation, Surgery

TAIL = 0.5  # exponent of the Pareto law of the prefixes: P(size > m) falls as m^-TAIL
SORTINGS = 20  # per training


class SampledPrefixes(Maintainer):
    """Publishes `sizes`: n ascending prefixes, the last all latents, the others from a Pareto law on [1, latents); and
    re-sorts the latents by mean squared contribution z^2 ||d||^2 now and then, the largest first.

    Source: Nabeshima 2024, "Matryoshka sparse autoencoders" (LessWrong).
    """

    name = "prefixes"
    per_latent = ("contribution",)
    wants_step = True
    sliceable = True

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def begin(self, dictionary: Autoencoder) -> None:
        """The first prefixes."""
        device = dictionary.decoder.centre().device
        self.state = {
            "sizes": self._drawn(0, dictionary.slice.n_latents),
            "batches": torch.zeros((), dtype=torch.int64),
            "sorted": torch.zeros((), dtype=torch.int64),
            "due": torch.zeros((), dtype=torch.bool),
            "contribution": torch.zeros(dictionary.n_latents, device=device),
        }

    def _drawn(self, batch: int, n_latents: int) -> torch.Tensor:
        u = torch.rand(self.n - 1, generator=torch_generator(self.seed, "prefixes", batch), dtype=torch.float64)
        least = float(n_latents) ** -TAIL
        sizes = (1 - u * (1 - least)) ** (-1 / TAIL)
        return torch.cat([sizes.long().clamp(1, max(n_latents - 1, 1)).sort().values, torch.tensor([n_latents])])

    @torch.no_grad()
    def observe(self, dictionary: Autoencoder, seen: Observation) -> None:
        """Add up contributions and draw the next prefixes."""
        step, where = seen.step, dictionary.slice
        assert step is not None
        amounts = (step.values * step.at(dictionary.decoder.norms())).square()
        every = amounts.new_zeros(where.n_latents)
        every.index_add_(0, step.latents.expand_as(amounts).reshape(-1), amounts.reshape(-1))
        self.state["contribution"] += where.own(every)
        self.state["batches"] += 1
        self.state["sizes"] = self._drawn(int(self.state["batches"]), where.n_latents)
        self.state["due"].fill_(int(seen.progress * SORTINGS) > int(self.state["sorted"]))

    def operate(self, dictionary: Autoencoder) -> Surgery | None:
        """Sort, when it is time."""
        if not self.state["due"]:
            return None
        self.state["due"].fill_(False)
        self.state["sorted"] += 1
        order = dictionary.slice.whole(self.state["contribution"]).argsort(descending=True, stable=True)
        self.state["contribution"].zero_()
        return Surgery(order=order)
