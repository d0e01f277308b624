"""Directions found with an objective instead of labels: a search over the span of a dictionary's atoms.

Let h be the state at a site and an anchor, f the rest of the model, W the (latents, width) unit atoms. Find scores S
(latents,) that minimise E_h[ objective( f(h + S W) ) ], by default the entropy of the next-token distribution (RISE's
confidence vectors). Source: Zhang et al. 2025, arXiv 2512.23988. Differences from the paper:
1. S W has a budget: ||S W|| <= rho * mean ||h|| (without one, entropy falls without limit by inflating the state);
2. all anchors of a text are moved at once, as they are when the direction is used while generating;
3. the result comes with random S of the same ||S W|| as controls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from overtone.core.errors import DataError
from overtone.core.progress import track
from overtone.core.settings import Settings, require
from overtone.core.sites import Site
from overtone.directions.direction import Direction, unit_direction

if TYPE_CHECKING:
    from overtone.dictionaries.dictionary import Dictionary

Objective = Callable[[Tensor], Tensor]


class Tail(Protocol):
    """What the search needs of a model: a pass whose states at one site are replaced, differentiable from there on."""

    fingerprint: str

    def logits_with(self, tokens: Tensor, real: Tensor, site: Site, replace: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits (batch, tokens, vocabulary) of a pass in which `replace` maps the site's states (batch, tokens,
        width).
        """
        ...


@dataclass(frozen=True)
class Anchored:
    """Texts and the positions whose next-token distribution the objective looks at.

    tokens: (batch, tokens) int64; real: False on padding (right side); anchors: True at the chosen positions.
    """

    tokens: Tensor
    real: Tensor
    anchors: Tensor

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
        return Anchored(self.tokens[texts, :width], self.real[texts, :width], self.anchors[texts, :width])


@dataclass(frozen=True)
class SearchSettings(Settings):
    """How to search. rho: budget in mean state norms; n_iterations of Adam with rate lr under a cosine schedule;
    batch_anchors: anchors per iteration, about (whole texts are drawn); renormalise: hold ||S W|| AT the budget
    instead of below it; n_controls: random S of equal ||S W|| to compare with; eval_anchors: how many anchors
    before/after are measured on.
    """

    rho: float = 0.3
    n_iterations: int = 1000
    lr: float = 0.01
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
    for before, after and controls (default: the texts of the search). Deterministic in settings.seed on the CPU.
    Raises SiteError for an unknown site (from the model), DataError if the objective is not finite.
    """
    settings, site = settings or SearchSettings(), Site.parse(site)
    atoms = dictionary.atoms().detach().float()
    atoms = atoms / atoms.norm(dim=1, keepdim=True).clamp_min(1e-12)
    generator = torch.Generator().manual_seed(settings.seed)
    test = _first_anchors(held_out or texts, settings.eval_anchors)
    score = _scorer(model, site, objective)
    norm = _mean_norm(model, test, site)
    budget = settings.rho * norm
    with torch.no_grad():
        before = float(score(test, torch.zeros(atoms.shape[1])))
    scores, curve = _descend(score, texts, atoms, budget, settings, generator, quiet)
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
        logits = model.logits_with(texts.tokens, texts.real, site, lambda states: states + shift.to(states))
        return objective(logits[texts.anchors])

    return score


def _mean_norm(model: Tail, texts: Anchored, site: Site) -> float:
    seen: list[Tensor] = []

    def look(states: Tensor) -> Tensor:
        seen.append(states[texts.anchors].detach().float().norm(dim=-1))
        return states

    with torch.no_grad():
        model.logits_with(texts.tokens, texts.real, site, look)
    return float(seen[0].mean())


def _descend(
    score: Callable[[Anchored, Tensor], Tensor], texts: Anchored, atoms: Tensor, budget: float,
    settings: SearchSettings, generator: torch.Generator, quiet: bool | None,
) -> tuple[Tensor, tuple[float, ...]]:  # fmt: skip
    scores = torch.zeros(len(atoms), requires_grad=True)
    optimiser = torch.optim.Adam([scores], lr=settings.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.n_iterations)
    n_texts = max(1, round(settings.batch_anchors * len(texts.tokens) / texts.n_anchors))
    order, curve, every = torch.empty(0, dtype=torch.int64), [], max(1, settings.n_iterations // 10)
    for i in track(range(settings.n_iterations), "confidence search", quiet=quiet):
        if len(order) < min(n_texts, len(texts.tokens)):
            order = torch.randperm(len(texts.tokens), generator=generator)
        batch, order = texts.select(order[:n_texts]), order[n_texts:]
        loss = score(batch, _spent(scores @ atoms, budget) if settings.renormalise else scores @ atoms)
        optimiser.zero_grad()
        (scores.grad,) = torch.autograd.grad(loss, [scores])
        optimiser.step()
        schedule.step()
        if not settings.renormalise:
            with torch.no_grad():
                scores.mul_(min(1.0, budget / max(float((scores @ atoms).norm()), 1e-12)))
        if i % every == 0:
            curve.append(float(loss.detach()))
    found = scores.detach()
    if settings.renormalise:
        found = found * (budget / (found @ atoms).norm().clamp_min(1e-12))
    return found, tuple(curve)


def _spent(delta: Tensor, budget: float) -> Tensor:
    """S W with the length of the budget: only its direction is learned. At the start, S = 0, it is 0, with a slope."""
    return delta * (budget / delta.norm().clamp_min(1e-6 * budget))


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
