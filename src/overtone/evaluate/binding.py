"""Do the interactions that a dictionary reads tell features that bind from features that merely occur together, and
does steering by two features bring about what they add together?

Source: PolySAE, arXiv 2602.01322.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from overtone.core.seeds import torch_generator
from overtone.data.synthetic import PlantedPairs
from overtone.dictionaries.dictionary import Dictionary
from overtone.dictionaries.interacting import interaction_vector, linear_parts, polynomial_of
from overtone.evaluate.separability import auroc
from overtone.interpret.interactions import interactions

MATCHED = 0.9  # cosine of a latent's linear part with a planted feature from which it counts as that feature


def binding_auroc(dictionary: Dictionary, x: Tensor, truth: PlantedPairs) -> dict[str, float]:
    """AUROC in [0, 1] with which two readings of pairs of latents, strength and covariance, tell planted pairs that
    bind (vectors above 0) from planted pairs that do not, over states x (rows, width).

    Only pairs whose two latents match planted features count; 0.5 where either kind is missing among them. Raises
    CapabilityError for a dictionary without a polynomial decoder.
    """
    found = interactions(dictionary, dictionary.encode(x))
    feature = _features(dictionary, truth)
    binds = {frozenset(p): bool(v.norm() > 0) for p, v in zip(truth.pairs.tolist(), truth.vectors, strict=True)}
    pairs = zip(found.first.tolist(), found.second.tolist(), strict=True)
    features = [frozenset((feature.get(i, -1), feature.get(j, -2))) for i, j in pairs]
    places = [place for place, pair in enumerate(features) if pair in binds]
    bound = np.array([binds[features[place]] for place in places], dtype=bool)
    if not bound.any() or bound.all():
        return {"strength": 0.5, "covariance": 0.5}
    return {name: auroc(getattr(found, name)[places].cpu().numpy(), bound) for name in ("strength", "covariance")}


@torch.no_grad()
def steered_binding(dictionary: Dictionary, x: Tensor, truth: PlantedPairs, *, seed: int = 0) -> dict[str, float]:
    """How much of what two features add together steering brings about, as a share of the planted vector (1: all).

    States x (rows, width) in which neither latent of a pair is active are moved by the sum of their linear parts ("by
    sum", as the paper steers), as far along what only their product adds ("by product"), and as far by the sum of two
    random latents of features that do not bind ("by random", the control). What counts is how far reconstructions move
    along the planted vector: the mean over rows, and over pairs that bind and match; 0 where there are none. Raises
    CapabilityError for a dictionary without a polynomial decoder.
    """
    latent = {feature: i for i, feature in _features(dictionary, truth).items()}
    known = zip(map(frozenset, truth.pairs.tolist()), truth.vectors.cpu(), strict=True)
    binds = {pair: vector for pair, vector in known if vector.norm() > 0 and pair <= latent.keys()}
    others = [pair for pair in map(frozenset, combinations(latent, 2)) if pair not in binds]
    draw, x = torch_generator(seed, "random pairs"), x.cpu()
    active = dictionary.encode(x).dense().cpu() != 0
    found: dict[str, list[float]] = {"by sum": [], "by product": [], "by random": []}
    for pair, vector in binds.items():
        apart = [other for other in others if not other & pair]
        rows = x[~active[:, [latent[a] for a in pair]].any(1)]
        if not apart or not len(rows):
            continue
        other = apart[int(torch.randint(len(apart), (), generator=draw))]
        ours, theirs = ([latent[a] for a in some] for some in (pair, other))
        added = linear_parts(dictionary, ours).sum(0), interaction_vector(dictionary, *ours)
        before, length = dictionary.reconstruct(rows).cpu(), float(added[0].norm())
        for name, along in zip(found, (*added, linear_parts(dictionary, theirs).sum(0)), strict=True):
            moved = dictionary.reconstruct(rows + length * normalize(along.cpu(), dim=0)).cpu() - before
            found[name].append(float((moved @ vector).mean() / vector.square().sum()))
    return {name: float(np.mean(shares)) if shares else 0.0 for name, shares in found.items()}


def _features(dictionary: Dictionary, truth: PlantedPairs) -> dict[int, int]:
    """Latent -> the planted feature that its linear part matches, as far as it does."""
    rows = polynomial_of(dictionary)[0].rows().detach()
    best = (normalize(rows, dim=1) @ truth.atoms.T.to(rows.device)).max(0)
    return {int(latent): a for a, latent in enumerate(best.indices) if best.values[a] > MATCHED}
