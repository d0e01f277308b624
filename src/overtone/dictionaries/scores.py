"""Scores: by what latents compete to be selected. Elementwise in the heads; no gradient flows through them.

Beside the encoder's heads a score finds `norm`, the lengths of the decoder's rows, if it says `uses_norms`, and
whatever its `sides` computed.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from overtone.core.errors import ShapeError
from overtone.dictionaries.decoders.base import Decoder
from overtone.dictionaries.encoders.base import At, Heads
from overtone.dictionaries.lengths import EVEN, rounded, typical
from overtone.dictionaries.parts import Part
from overtone.dictionaries.selectors.base import Boost, Rule
from overtone.dictionaries.slices import Slice

Product = Callable[[Tensor, Tensor], Tensor]
"""(m, k), (n, k) -> (m, n) product of the first with the transpose of the second, a new tensor."""


def product(a: Tensor, b: Tensor) -> Tensor:
    """(m, n) a b^T, torch's own."""
    return a @ b.T


class Score(Part):
    """Base of the score slot. `two_sided`: the score ignores the sign of the pre-activation. `reads`: what it takes
    beside the states."""

    two_sided: bool = False
    uses_norms: bool = False
    reads: frozenset[str] = frozenset()

    def forward(self, heads: Heads, at: At) -> Tensor:
        """Scores in the shape of the heads; `at` brings a (latents,) vector into that shape."""
        raise NotImplementedError

    def confer(self, decoder: Decoder, where: Slice) -> None:
        """Called before each step where the latents are spread over slices: all of these may agree on something."""

    def sides(self, decoder: Decoder, beside: Mapping[str, Tensor], product: Product = product) -> Heads:
        """Further (rows, latents) heads, without gradients, from what came beside some states: `g`, (rows, width)
        gradients of a loss with respect to them, where they were asked for. Heads that are missing must be done
        without. product: what makes dense products."""
        return {}

    def on_preactivations(self, rule: Rule, decoder: Decoder, beside: Mapping[str, Tensor]) -> Rule | None:
        """A rule about scores as a rule about pre-activations (their magnitudes if `two_sided`) and, where a second
        product multiplies these, its `boost`; beside: as for `sides`. None where it cannot be said so, which is always
        correct. A class that overrides `forward` must override this."""
        return None


class PreActivation(Score, kind="score.preactivation"):
    """The pre-activation itself."""

    sliceable = True

    def forward(self, heads: Heads, at: At) -> Tensor:
        """u."""
        return heads["u"]

    def on_preactivations(self, rule: Rule, decoder: Decoder, beside: Mapping[str, Tensor]) -> Rule:
        """The same."""
        return rule


class Magnitude(Score, kind="score.magnitude"):
    """The magnitude of the pre-activation, so that both signs compete. Source: AbsTopK, arXiv 2510.00404."""

    two_sided = True
    sliceable = True

    def forward(self, heads: Heads, at: At) -> Tensor:
        """|u|."""
        return heads["u"].abs()

    def on_preactivations(self, rule: Rule, decoder: Decoder, beside: Mapping[str, Tensor]) -> Rule:
        """The same."""
        return rule


class Contribution(Score, kind="score.contribution"):
    """The squared length of what the latent would add, (max(u, 0) ||d_i||)^2. Source: top-AFA, arXiv 2503.24277."""

    uses_norms = True
    sliceable = True

    def forward(self, heads: Heads, at: At) -> Tensor:
        """(max(u, 0) ||d||)^2."""
        return (heads["u"].relu() * heads["norm"]).square()

    def on_preactivations(self, rule: Rule, decoder: Decoder, beside: Mapping[str, Tensor]) -> Rule | None:
        """Ranks are the same where rows are equally long."""
        return Rule(k=rule.k) if rule.k and rule.shift is None and _even(decoder.norms()) else None


class GradientWeighted(Score, kind="score.gradient_weighted"):
    """u (1 + beta p), p_i = sqrt(width) |<g, d_i>| / (|g| s), s the root of the mean squared length of decoder rows:
    how much a loss changes, to first order, along the latent's decoder row, in proportion to what it would change (root
    mean square) along a random direction of length s. Where no gradients came, or they are zero, it is u. Source:
    g-SAE, arXiv 2411.10397."""

    sliceable = True
    reads = frozenset({"g"})

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self._size: Tensor | None = None  # s / sqrt(width), where slices of the latents have to agree on it

    def arguments(self) -> dict[str, float]:
        """beta."""
        return {"beta": self.beta}

    def boost(self, decoder: Decoder, beside: Mapping[str, Tensor]) -> Boost | None:
        """What makes `pull`, the beta p above, from `g`. Raises ShapeError for gradients of another width."""
        if "g" not in beside or not self.beta:
            return None
        weight = decoder.rows().detach()
        g = beside["g"].to(weight.dtype)
        if g.shape[1:] != weight.shape[1:]:
            raise ShapeError(
                f"gradients: expected (rows, {weight.shape[1]}), got {tuple(g.shape)}. Give those of the loss with "
                "respect to the states."
            )
        size = typical(weight) / weight.shape[1] ** 0.5 if self._size is None else self._size
        return Boost(g, weight, "pull", self.beta / size)

    def confer(self, decoder: Decoder, where: Slice) -> None:
        """Find s from the rows of all slices."""
        rows = decoder.rows().detach()
        self._size = rounded((where.total(rows.square().sum()) / where.n_latents).sqrt()) / rows.shape[1] ** 0.5

    def sides(self, decoder: Decoder, beside: Mapping[str, Tensor], product: Product = product) -> Heads:
        """`pull`, the beta p above, from `g`."""
        boost = self.boost(decoder, beside)
        return {} if boost is None else {boost.head: product(boost.states, boost.weight).abs_()}

    def forward(self, heads: Heads, at: At) -> Tensor:
        """u (1 + beta p)."""
        u = heads["u"]
        return u if "pull" not in heads else torch.addcmul(u, u, heads["pull"])

    def on_preactivations(self, rule: Rule, decoder: Decoder, beside: Mapping[str, Tensor]) -> Rule | None:
        """The same with a boost, if what is compared is not shifted."""
        boost = self.boost(decoder, beside)
        return rule if boost is None else replace(rule, boost=boost) if rule.shift is None else None


class NormedPreActivation(Score, kind="score.normed_preactivation"):
    """The pre-activation times the length of the decoder's row: what the latent would add, whatever its scale."""

    uses_norms = True
    sliceable = True

    def forward(self, heads: Heads, at: At) -> Tensor:
        """u ||d||."""
        return heads["u"] * heads["norm"]

    def on_preactivations(self, rule: Rule, decoder: Decoder, beside: Mapping[str, Tensor]) -> Rule | None:
        """A threshold is divided by the lengths; ranks are the same where rows are equally long."""
        lengths = decoder.norms()
        if rule.k:
            return rule if rule.shift is None and _even(lengths) else None
        level = (rule.floor if rule.shift is None else rule.floor + rule.shift) / lengths
        return Rule(shift=level.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf), hinted=True)


def _even(lengths: Tensor) -> bool:
    least, most = lengths.aminmax()
    return bool(most - least <= EVEN * most)
