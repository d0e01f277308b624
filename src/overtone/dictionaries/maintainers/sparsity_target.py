"""A price on active latents that is steered to a wanted number of them."""

import torch

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Maintainer, Observation

SETTLED = 0.05  # share of the training over which prices rise; nothing is steered before
REACHED = 0.5  # share of the training after which the target itself is aimed at
GAIN = 20.0  # growth of the price's logarithm per training for every e-fold of surplus
FASTEST = 0.05  # most growth per update for every e-fold: dictionaries answer in updates, however few there are
DRIFT = 50.0  # growth of the growth, per training squared, once the target itself is aimed at
DAMPING = 1.5  # what the price's logarithm has beside that for every e-fold; without it the number would swing
MOST = 0.7  # largest surplus that counts, in e-folds: the dictionary answers late, and overshooting kills latents
SMOOTH = 0.01  # share of the training over which the number of active latents is averaged


class SparsityTarget(Maintainer):
    """Multiplies the prices of objectives by `factor`, which grows while more latents per row are active than aimed at
    and shrinks while fewer are: log factor = integral of (GAIN s + drift) over the training + DAMPING s, with the
    surplus s = log(L0 / aim). The aim falls, evenly in logarithm, from what is active at first to `target`, which it
    reaches half way: a dictionary that must be sparse before it has learned anything loses its latents. From then on,
    drift = DRIFT (integral of s): the price that a number of latents takes falls while the dictionary learns and while
    a power is annealed, and a price that only follows would stay 8 % behind.

    A method without a budget then meets one, whatever the data; comparisons at equal L0 need that. It takes some 400
    updates. With fewer, FASTEST keeps the price from growing without an answer: with 78 updates of 1024 rows of the
    bundled reasoner p_annealing misses 0.73 and gated 0.89, where both missed all before.
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
            "drift": torch.zeros((), device=device),
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
        slowed = min(1.0, FASTEST / (GAIN * passed)) if passed > 0 else 1.0
        if rest == 0:
            self.state["drift"] += slowed * passed * DRIFT * surplus
        self.state["sum"] += slowed * passed * (GAIN * surplus + self.state["drift"])
        self.state["factor"] = (self.state["sum"] + slowed * DAMPING * surplus).exp()
