"""A price on active latents that is steered to a wanted number of them."""

import torch

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Maintainer, Observation

SETTLED = 0.05  # share of the training over which prices rise; nothing is steered before
REACHED = 0.5  # share of the training after which the target itself is aimed at
GAIN = 20.0  # growth of the price's logarithm per training for every e-fold of surplus
DAMPING = 1.5  # what the price's logarithm has beside that for every e-fold; without it the number would swing
MOST = 0.7  # largest surplus that counts, in e-folds: the dictionary answers late, and overshooting kills latents
SMOOTH = 0.01  # share of the training over which the number of active latents is averaged


class SparsityTarget(Maintainer):
    """Multiplies the prices of objectives by `factor`, which grows while more latents per row are active than aimed at
    and shrinks while fewer are: log factor = GAIN (integral of s over the training) + DAMPING s, with the surplus
    s = log(L0 / aim). The aim falls, evenly in logarithm, from
    what is active at first to `target`, which it reaches half way: a dictionary that must be sparse before it has
    learned anything loses its latents.

    A method without a budget then meets one, whatever the data; comparisons at equal L0 need that. It takes some 300
    updates: with 78 of them, gated and p_annealing overshot and explained nothing (measured on the bundled reasoner).
    """

    name = "price"
    sliceable = True

    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target

    def begin(self, dictionary: Autoencoder) -> None:
        """The price as it was set."""
        device = dictionary.decoder.centre().device
        self.state = {
            "factor": torch.ones((), device=device),
            "active": torch.zeros((), device=device),
            "sum": torch.zeros((), device=device),
            "first": torch.zeros((), device=device),
            "seen": torch.zeros((), dtype=torch.float64),
        }

    @torch.no_grad()
    def observe(self, dictionary: Autoencoder, seen: Observation) -> None:
        """Count the active latents of this batch and move the price."""
        assert seen.active is not None
        passed = seen.progress - float(self.state["seen"])
        self.state["seen"].fill_(seen.progress)
        active = seen.active / seen.rows
        self.state["active"].lerp_(active, 1.0 if passed <= 0 else min(1.0, passed / SMOOTH))
        if seen.progress <= SETTLED:
            self.state["first"].copy_(self.state["active"])
            return
        rest = max(0.0, 1 - (seen.progress - SETTLED) / (REACHED - SETTLED))
        aim = self.target * (self.state["first"] / self.target).clamp_min(1.0) ** rest
        surplus = (self.state["active"] / aim).clamp_min(1e-3).log().clamp(-MOST, MOST)
        self.state["sum"] += GAIN * passed * surplus
        self.state["factor"] = (self.state["sum"] + DAMPING * surplus).exp()
