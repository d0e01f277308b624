"""Directions found with an objective instead of labels: a search over the span of a dictionary's atoms.

Let h be the state at a site and an anchor, f the rest of the model, W the (latents, width) unit atoms. Find scores S
(latents,) that minimise E_h[ objective( f(h + S W) ) ], by default the entropy of the next-token distribution (RISE's
confidence vectors). Source: Zhang et al. 2025, arXiv 2512.23988. Differences from the paper:
1. S W has a budget: ||S W|| <= rho * mean ||h|| (without one, entropy falls without limit by inflating the state);
2. all anchors of a text are moved at once, as they are when the direction is used while generating;
3. the result comes with random S of the same ||S W|| as controls;
4. steps are taken in the geometry of states, not of scores: where atoms lie close together, as atoms of real states do,
   equal steps of all scores move the state along a few directions only, and never leave them. What atoms span only
   faintly is still held back (`FAINT`), so that scores stay moderate; of the many S with one S W it is the smallest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.errors import CapabilityError, DataError
from overtone.core.progress import track
from overtone.core.settings import Settings, require
from overtone.core.sites import Site
from overtone.directions.direction import Direction, unit_direction

if TYPE_CHECKING:
    from overtone.dictionaries.dictionary import Dictionary

Objective = Callable[[Tensor], Tensor]
FAINT = 0.1  # of the largest singular value of the atoms: below, a step of the state shrinks with the singular value
READ_TEXTS = 25  # texts whose states are read in one pass


class Tail(Protocol):
    """What the search needs of a model: states at a site, and a pass that goes on from there, differentiable."""

    @property
    def fingerprint(self) -> Any:  # a str; type checkers do not take a cached property for one
        """What a direction of this model is known by."""
        ...

    def read(self, tokens: Tensor, real: Tensor, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """States (batch, tokens, width) at sites."""
        ...

    def logits_with(
        self, tokens: Tensor, real: Tensor, site: Site, replace: Callable[[Tensor], Tensor],
        *, states: Mapping[Site, Tensor] | None,
    ) -> Tensor:  # fmt: skip
        """Logits (batch, tokens, vocabulary) of a pass that goes on from what `replace` makes of the states."""
        ...


@dataclass(frozen=True)
class Anchored:
    """Texts and the positions whose next-token distribution the objective looks at.

    tokens: (batch, tokens) int64; real: False on padding (right side); anchors: True at the chosen positions; states:
    (batch, tokens, width) at the site of a search, once they were read.
    """

    tokens: Tensor
    real: Tensor
    anchors: Tensor
    states: Tensor | None = None

    @classmethod
    def of(cls, texts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> "Anchored":
        """From (token ids, anchor positions) of each text; texts without anchors are left out, tails after the last
        anchor cut.

        Raises DataError if no anchor is left.
        """
        cut = [(list(ids[: max(at) + 1]), list(at)) for ids, at in texts if len(at)]
        if not cut:
            raise DataError("no text has an anchor. Choose another anchor rule, or give texts with step boundaries.")
        width = max(len(ids) for ids, _ in cut)
        tokens, real = torch.zeros(len(cut), width, dtype=torch.int64), torch.zeros(len(cut), width, dtype=torch.bool)
        anchors = torch.zeros_like(real)
        for i, (ids, at) in enumerate(cut):
            tokens[i, : len(ids)], real[i, : len(ids)], anchors[i, at] = torch.tensor(ids), True, True
        return cls(tokens, real, anchors)

    @property
    def n_anchors(self) -> int:
        """How many positions are looked at in all."""
        return int(self.anchors.sum())

    def select(self, texts: Tensor) -> "Anchored":
        """Some of the texts, trimmed to the longest of them."""
        width = int(self.real[texts].sum(1).max())
        states = None if self.states is None else self.states[texts, :width]
        return Anchored(self.tokens[texts, :width], self.real[texts, :width], self.anchors[texts, :width], states)

    def read(self, model: Tail, site: Site) -> "Anchored":
        """The same texts with their states at a site, so that no pass computes again what comes before it."""
        parts = zip(self.tokens.split(READ_TEXTS), self.real.split(READ_TEXTS), strict=True)
        return replace(self, states=torch.cat([model.read(tokens, real, [site])[site] for tokens, real in parts]))

    def mean_norm(self) -> float:
        """Mean length of the states at the anchors, in the units of the states; they must have been read."""
        assert self.states is not None
        return float(self.states[self.anchors].float().norm(dim=-1).mean())


@dataclass(frozen=True)
class SearchSettings(Settings):
    """How to search. rho: budget in mean state norms; n_iterations of Adam with rate lr, in budgets per coordinate,
    under a cosine schedule; batch_anchors: anchors per iteration, about (whole texts are drawn); renormalise: hold
    ||S W|| AT the budget instead of below it; n_controls: random S of equal ||S W|| to compare with; eval_anchors: how
    many anchors before/after are measured on.
    """

    rho: float = 0.3
    n_iterations: int = 1000
    lr: float = 0.05
    batch_anchors: int = 256
    renormalise: bool = False
    n_controls: int = 100
    eval_anchors: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.rho > 0, f"rho={self.rho}: the budget must be above 0; 0.1 to 0.6 mean state norms is usual.")
        require(self.n_iterations > 0 and self.lr > 0, "n_iterations and lr must be above 0.")
        require(self.batch_anchors > 0 and self.eval_anchors > 0, "batch_anchors and eval_anchors must be above 0.")


@dataclass(frozen=True, eq=False)
class Searched:
    """What a search found. scores: S (latents,) float32; atoms: W (latents, width), unit rows; before, after: the
    objective without and with S W (nats for entropy), on anchors that were held out if such were given; controls:
    (n_controls,) the objective with random S of the same ||S W||; direction: S W made a unit vector, raw_norm its
    length; curve: the objective every tenth of the way."""

    scores: Tensor
    atoms: Tensor
    direction: Direction
    before: float
    after: float
    controls: Tensor
    curve: tuple[float, ...] = ()
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def share_of_controls_beaten(self) -> float:
        """Share of the random S that end above the found one, in [0, 1]; NaN without controls."""
        return float((self.controls > self.after).double().mean())

    def top(self, n: int, name: str = "top atoms") -> Direction:
        """The direction of the n atoms with the largest scores, weighted by them. Raises DataError for n out of
        range.
        """
        if not 1 <= n <= len(self.scores):
            raise DataError(f"n={n} of {len(self.scores)} latents: use 1 to {len(self.scores)}.")
        order = self.scores.argsort(descending=True)[:n]
        vector = self.scores[order] @ self.atoms[order]
        d, origin = self.direction, {**self.direction.origin, "top": order.tolist()}
        return unit_direction(vector, d.site, model=d.model, name=f"{name} {n}", origin=origin)


def mean_entropy(logits: Float[Tensor, "rows vocabulary"]) -> Float[Tensor, ""]:
    """Mean entropy of the softmax of each row, in nats, in [0, log vocabulary]."""
    log_p = logits.float().log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean()


def search(
    model: Tail,
    dictionary: "Dictionary",
    texts: Anchored,
    site: Site | str,
    *,
    settings: SearchSettings | None = None,
    objective: Objective = mean_entropy,
    held_out: Anchored | None = None,
    name: str = "confidence",
    quiet: bool | None = None,
) -> Searched:
    """Scores over the latents whose combination of atoms minimises `objective` at the anchors, and the direction it
    gives.

    objective: logits (rows, vocabulary) at the anchors -> scalar to minimise; negate it to maximise. held_out: texts
    for before, after and controls (default: the texts of the search). Memory: the states of all tokens at the site.
    Deterministic in settings.seed on the CPU. Raises SiteError for an unknown site (from the model), CapabilityError
    for a dictionary of several views, DataError if the objective is not finite.
    """
    settings, site = settings or SearchSettings(), Site.parse(site)
    if len(getattr(dictionary, "views", ())) > 1:
        raise CapabilityError(
            "atoms of this dictionary are blocks of several views beside each other, and states are moved at one site. "
            "Give a dictionary of that site."
        )
    atoms = dictionary.atoms().detach().float().cpu()
    atoms = atoms / atoms.norm(dim=1, keepdim=True).clamp_min(1e-12)
    generator = torch.Generator().manual_seed(settings.seed)
    test = _first_anchors(held_out or texts, settings.eval_anchors).read(model, site)
    score, norm = _scorer(model, site, objective), test.mean_norm()
    with torch.no_grad():
        before = float(score(test, torch.zeros(atoms.shape[1])))
    scores, curve = _descend(score, texts.read(model, site), atoms, settings.rho * norm, settings, generator, quiet)
    delta = scores @ atoms
    if not bool(torch.isfinite(delta).all()) or float(delta.norm()) == 0.0:
        raise DataError(
            "the search found no direction: the objective has no finite slope at these anchors. Check the objective."
        )
    with torch.no_grad():
        after = float(score(test, delta))
        controls = _controls(score, test, atoms, float(delta.norm()), settings.n_controls, generator)
    origin = {"how": "search", "settings": settings.to_dict(), "before": before, "after": after, "mean_norm": norm}
    direction = unit_direction(delta, site, model=model.fingerprint, name=name, origin=origin)
    return Searched(scores, atoms, direction, before, after, controls, curve, origin)


def _scorer(model: Tail, site: Site, objective: Objective) -> Callable[[Anchored, Tensor], Tensor]:
    def score(texts: Anchored, delta: Tensor) -> Tensor:
        shift = texts.anchors[..., None].to(delta.dtype) * delta
        known = None if texts.states is None else {site: texts.states}
        logits = model.logits_with(
            texts.tokens, texts.real, site, lambda states: states + shift.to(states), states=known
        )
        return objective(logits[texts.anchors])

    return score


def _descend(
    score: Callable[[Anchored, Tensor], Tensor], texts: Anchored, atoms: Tensor, budget: float,
    settings: SearchSettings, generator: torch.Generator, quiet: bool | None,
) -> tuple[Tensor, tuple[float, ...]]:  # fmt: skip
    """Adam over the coordinates of S W along the singular directions of the atoms, in units of the budget; after every
    step S W is brought back to the budget, from outside only unless it is held there."""
    left, sizes, right = torch.linalg.svd(atoms, full_matrices=False)
    floor = sizes.clamp_min(FAINT * float(sizes[0]))
    moves = budget * (sizes / floor)[:, None] * right
    at = torch.zeros(len(sizes), requires_grad=True)
    optimiser = torch.optim.Adam([at], lr=settings.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.n_iterations)
    n_texts = max(1, round(settings.batch_anchors * len(texts.tokens) / texts.n_anchors))
    order, curve, every = torch.empty(0, dtype=torch.int64), [], max(1, settings.n_iterations // 10)
    for i in track(range(settings.n_iterations), "confidence search", quiet=quiet):
        if len(order) < min(n_texts, len(texts.tokens)):
            order = torch.randperm(len(texts.tokens), generator=generator)
        batch, order = texts.select(order[:n_texts]), order[n_texts:]
        loss = score(batch, at @ moves)
        (at.grad,) = torch.autograd.grad(loss, [at])
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            length = float((at @ moves).norm())
            if length > budget or settings.renormalise:
                at.mul_(budget / max(length, 1e-12))
        if i % every == 0:
            curve.append(float(loss.detach()))
    return left @ (budget * at.detach() / floor), tuple(curve)


def _controls(
    score: Callable[[Anchored, Tensor], Tensor],
    test: Anchored,
    atoms: Tensor,
    norm: float,
    n: int,
    generator: torch.Generator,
) -> Float[Tensor, " controls"]:
    values = []
    for _ in range(n):
        delta = torch.randn(len(atoms), generator=generator) @ atoms
        values.append(score(test, delta * (norm / delta.norm())))
    return torch.stack(values) if values else torch.empty(0)


def _first_anchors(texts: Anchored, n: int) -> "Anchored":
    """Every k-th text, so that about n anchors are left."""
    stride = max(1, texts.n_anchors // n)
    return texts.select(torch.arange(0, len(texts.tokens), stride))
