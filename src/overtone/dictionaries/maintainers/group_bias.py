"""Group bias adaptation: thresholds that move until each latent fires no more often than its group may.

Source: "Taming polysemanticity in LLMs: provable feature recovery via sparse autoencoders", arXiv 2506.14002.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Maintainer, Observation

LEAST_SCALE = 1e-3  # factors of a tied encoder stay above it: a threshold on a u is one on u only for positive a
NEVER = 1e-6  # share of firing below which a latent counts as silent


@dataclass(frozen=True)
class BiasRule:
    """The update of (latents,) biases b from the statistics of a buffer, all in units of the unscaled pre-activation.

    rates: target rates p_k, one per group; down, up: gamma_- and gamma_+; lowest: where biases stop.
    """

    rates: tuple[float, ...]
    down: float
    up: float

    def updated(
        self, bias: Tensor, group: Tensor, seen: Mapping[str, Tensor], lowest: float,
        total: Callable[[Tensor], Tensor] = lambda here: here,
    ) -> Tensor:  # fmt: skip
        """New biases, in [lowest, 0]. group: (latents,) int64; seen: `rows` (), `counts` and `highest` (latents,): rows
        in the buffer, rows in which y = u + b exceeded 0, and the largest y; total: a sum over the latents at hand ->
        the sum over all of them.

        With r = max(highest, 0) and T_k the mean of r over those of group k that have r > 0: latents that fire more
        often than p_k lose down x r, latents that never fire gain up x T_k, the others stay.
        """
        rate, reach = seen["counts"] / seen["rows"], seen["highest"].clamp_min(0)
        target = torch.tensor(self.rates, dtype=bias.dtype, device=bias.device)[group]
        sums = torch.zeros(len(self.rates), dtype=bias.dtype, device=bias.device)
        reached, alive = sums.index_add(0, group, reach), sums.index_add(0, group, (reach > 0).to(bias.dtype))
        lift = (total(reached) / total(alive).clamp_min(1))[group]
        lowered = (bias - self.down * reach).clamp_min(lowest)
        raised = (bias + self.up * lift).clamp_max(0)
        return torch.where(rate > target, lowered, torch.where(rate < NEVER, raised, bias))


def merged(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The statistics of two buffers seen as one: rows and counts add, maxima win."""
    return {
        "rows": first["rows"] + second["rows"],
        "counts": first["counts"] + second["counts"],
        "highest": torch.maximum(first["highest"], second["highest"]),
    }


class GroupBias(Maintainer):
    """Keeps b (state "bias") and writes theta = -a b to the selection, where a are the factors of a tied encoder: a u
    exceeds theta exactly where u + b > 0. No gradient reaches b.

    every: length of a buffer as a share of the training, so that short and long ones make equally many updates. Biases
    lie between minus the typical length of a state and 0. Records tell `bias_drift`: by how much biases move per 100
    updates of the weights (mean of abs(change) over latents in the last buffer, in typical lengths of a state; 0 before
    its end). It falls while they settle; a loop that is too fast for the weights never does.
    """

    name = "group_bias"
    per_latent = ("bias", "group", "counts", "highest")
    wants_peaks = True
    sliceable = True

    def __init__(self, rule: BiasRule, every: float) -> None:
        super().__init__()
        self.rule, self.every = rule, every

    @torch.no_grad()
    def begin(self, dictionary: Autoencoder) -> None:
        """Biases of 0, latents dealt to the groups in equal shares, in order."""
        theta, where, groups = dictionary.selection.theta, dictionary.slice, len(self.rule.rates)
        every = torch.arange(where.n_latents, device=theta.device)
        group = where.own(torch.div(every * groups, where.n_latents, rounding_mode="floor")).clone()
        self.state = {"bias": torch.zeros_like(theta), "group": group, "last": torch.zeros(1, dtype=torch.float64)}
        self.state |= {"drift": torch.zeros((), dtype=torch.float64, device=theta.device)} | self._empty(theta)
        self.after_update(dictionary)

    @torch.no_grad()
    def observe(self, dictionary: Autoencoder, seen: Observation) -> None:
        """Take in a batch; at the end of a buffer, move the biases."""
        encoder: Any = dictionary.encoder
        assert seen.peaks is not None
        y = seen.peaks / encoder.scale + self.state["bias"]
        new = {"rows": torch.tensor(seen.rows), "counts": seen.counts, "highest": y}
        self.state |= merged(self.state, new) | {"updates": self.state["updates"] + 1}
        if seen.progress - float(self.state["last"]) < self.every - 1e-9:
            return
        lowest = -(float(dictionary.width) ** 0.5)  # the typical length of a state in the dictionary's units
        bias, group, total = self.state["bias"], self.state["group"], dictionary.slice.total
        self.state["bias"] = self.rule.updated(bias, group, self.state, lowest, total)
        moved = total((self.state["bias"] - bias).abs().double().sum()) / dictionary.slice.n_latents
        self.state["drift"] = moved / -lowest * (100 / int(self.state["updates"]))
        self.state |= {"last": torch.tensor([seen.progress], dtype=torch.float64)} | self._empty(y)

    def told(self) -> dict[str, float]:
        """`bias_drift`."""
        return {"bias_drift": float(self.state["drift"])}

    @torch.no_grad()
    def after_update(self, dictionary: Autoencoder) -> None:
        """Keep the factors positive and the thresholds with them."""
        encoder: Any = dictionary.encoder
        scale = encoder.scale.clamp_min_(LEAST_SCALE)
        dictionary.selection.theta.copy_(-self.state["bias"] * scale)

    def renew(self, latents: Tensor) -> None:
        """Their biases and statistics start anew; they stay in their groups."""
        group = self.state["group"].clone()
        super().renew(latents)
        self.state["group"] = group

    @staticmethod
    def _empty(like: Tensor) -> dict[str, Tensor]:
        return {
            "rows": torch.tensor(0),
            "updates": torch.tensor(0),
            "counts": torch.zeros(len(like), dtype=torch.int64, device=like.device),
            "highest": torch.full_like(like, -torch.inf),
        }
