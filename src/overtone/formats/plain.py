"""The canonical form: what every format is read into and written from, matrices and a rule.

    u = (x - centre) encoder^T + bias,  centre = the constant if `centred`, else 0
    z = rule(u)
    x_hat = z decoder + constant (+ x skip^T)

Everything is in the units of x: an input scale has been folded into the weights. Where `rows` says so, x is what is
left after each row was normalised by itself, which is undone on x_hat (unless that lies in another space). The changes
of form in this module (`split`, `uncentred`, `centred_form`, `thresholded`, `rescaled`) compute the same function; what
each rounds stands in its docstring.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from overtone.core.errors import CapabilityError

NO_SIGNS = (
    "there are no signs to split: no value of this dictionary's codes is negative. Leave --split-signs out (in Python "
    "split_signs)."
)


@dataclass(frozen=True)
class Positive:
    """z = max(u, 0)."""

    signed = False
    name = "a rectifier"


@dataclass(frozen=True, eq=False)
class Above:
    """z = max(u, 0) where u > theta, else 0; if signed, z = u where |u| > theta. theta: (latents,) in float32."""

    theta: Tensor
    signed: bool = False

    @property
    def name(self) -> str:
        """What an error calls it."""
        return "a two-sided threshold" if self.signed else "a threshold per latent"


@dataclass(frozen=True)
class Best:
    """The k largest u of each row, rectified; if signed, the k largest |u| with their sign."""

    k: int
    signed: bool = False

    @property
    def name(self) -> str:
        """What an error calls it."""
        return "a signed rank within each row" if self.signed else "a rank within each row"


@dataclass(frozen=True, eq=False)
class Gate:
    """Two heads of one matrix: z = max(exp(log_ratio) (u - bias) + magnitude_bias, 0) where u > 0, else 0.

    log_ratio, magnitude_bias: (latents,). Source: Rajamanoharan et al. 2024, arXiv 2404.16014.
    """

    log_ratio: Tensor
    magnitude_bias: Tensor
    signed = False
    name = "gates"


@dataclass(frozen=True)
class Pursuit:
    """Non-negative matching pursuit in so many steps with the decoder's rows, which then are the encoder's too."""

    steps: int
    signed = False
    name = "matching pursuit"


Rule = Positive | Above | Best | Gate | Pursuit


@dataclass(frozen=True, eq=False)
class Plain:
    """A dictionary as matrices and a rule.

    encoder (latents, width), bias (latents,), decoder (latents, target width), constant (target width,); skip (target
    width, width) or None; `other_space`: the decoder writes into another space than x lives in (a transcoder).
    rows: how each row is normalised by itself: "" (it is not), "standardised" or "fixed_norm".
    """

    encoder: Tensor
    bias: Tensor
    decoder: Tensor
    constant: Tensor
    rule: Rule
    centred: bool = False
    skip: Tensor | None = None
    other_space: bool = False
    rows: str = ""

    @property
    def n_latents(self) -> int:
        """Number of latents."""
        return self.encoder.shape[0]

    @property
    def width(self) -> int:
        """Width of what is encoded."""
        return self.encoder.shape[1]

    @property
    def unit_rows(self) -> bool:
        """True if the decoder's rows have length 1, up to the rounding of their precision."""
        rows = self.decoder
        close = 1e-5 if rows.dtype in (torch.float32, torch.float64) else 1e-2
        return bool((rows.float().norm(dim=1) - 1).abs().max() <= close)

    def split(self) -> "Plain":
        """The same function with one-sided latents: i for the positive side, latents + i for the negative one.

        Exact: every product is the same up to its sign. A rank that keeps everything becomes a rectifier. Raises
        CapabilityError if nothing is signed.
        """
        if not self.rule.signed:
            raise CapabilityError(NO_SIGNS)
        rule: Rule = Positive()
        if isinstance(self.rule, Above):
            rule = Above(torch.cat([self.rule.theta, self.rule.theta]))
        elif isinstance(self.rule, Best) and self.rule.k < self.n_latents:
            rule = Best(self.rule.k)
        return replace(
            self,
            encoder=torch.cat([self.encoder, -self.encoder]),
            bias=torch.cat([self.bias, -self.bias]),
            decoder=torch.cat([self.decoder, -self.decoder]),
            rule=rule,
        )

    def uncentred(self) -> "Plain":
        """The same function without subtracting the constant: the bias carries its product. Rounds the bias."""
        if not self.centred:
            return self
        return replace(self._biased(-1), centred=False)

    def centred_form(self) -> "Plain":
        """The same function with the constant subtracted: the bias makes up for it. Rounds the bias.

        Raises CapabilityError for a transcoder, whose constant lies in another space.
        """
        if self.centred:
            return self
        if self.other_space:
            raise CapabilityError("a transcoder's constant lies in another space than its input: nothing to subtract.")
        return replace(self._biased(1), centred=True)

    def _biased(self, sign: int) -> "Plain":
        change = sign * (self.encoder.double() @ self.constant.double())
        moved = replace(self, bias=(self.bias.double() + change).to(self.bias.dtype))
        if isinstance(self.rule, Gate):
            magnitude = self.rule.magnitude_bias.double() + self.rule.log_ratio.double().exp() * change
            return replace(moved, rule=Gate(self.rule.log_ratio, magnitude.to(self.bias.dtype)))
        return moved

    def thresholded(self) -> "Plain":
        """Gates and rectifiers as thresholds on one head. Exact for a rectifier, rounds the weights of gates."""
        if isinstance(self.rule, Positive):
            return replace(self, rule=Above(torch.zeros(self.n_latents)))
        if not isinstance(self.rule, Gate):
            return self
        ratio, magnitude = self.rule.log_ratio.double().exp(), self.rule.magnitude_bias.double()
        theta = (magnitude - ratio * self.bias.double()).clamp(min=0)
        return replace(
            self,
            encoder=(ratio[:, None] * self.encoder.double()).to(self.encoder.dtype),
            bias=self.rule.magnitude_bias.to(self.bias.dtype),
            rule=Above(theta.float()),
        )

    def rescaled(self) -> "Plain":
        """The same reconstructions with unit rows: codes are multiplied by the row's length. Rounds the weights.

        A rank is then taken over the longer codes, which is what formats mean that rank by value times row length.
        """
        norms = self.decoder.double().norm(dim=1).clamp(min=1e-8)

        def times(tensor: Tensor) -> Tensor:
            return (tensor.double() * (norms if tensor.ndim == 1 else norms[:, None])).to(tensor.dtype)

        rule = self.rule
        if isinstance(rule, Above):
            rule = Above(times(rule.theta), rule.signed)
        elif isinstance(rule, Gate):
            rule = Gate(rule.log_ratio, times(rule.magnitude_bias))
        decoder = (self.decoder.double() / norms[:, None]).to(self.decoder.dtype)
        return replace(self, encoder=times(self.encoder), bias=times(self.bias), decoder=decoder, rule=rule)

    def scaled_input(self, factor: float) -> "Plain":
        """The dictionary that sees factor times x and whose reconstructions are divided by it; codes keep their scale.

        Rounds the weights, unless factor is a power of two.
        """
        return replace(
            self,
            encoder=self.encoder * factor,
            decoder=self.decoder / factor,
            constant=self.constant / factor,
        )
