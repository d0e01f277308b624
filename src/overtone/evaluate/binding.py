"""Do the interactions that a dictionary reads tell features that bind from features that merely occur together?"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize

from overtone.data.synthetic import PlantedPairs
from overtone.dictionaries.dictionary import Dictionary
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
    decoder: Any = dictionary.decoder
    cosines = normalize(decoder.rows().detach(), dim=1) @ truth.atoms.T.to(decoder.rows().device)
    best = cosines.max(0)
    feature = {int(latent): a for a, latent in enumerate(best.indices) if best.values[a] > MATCHED}
    binds = {frozenset(p): bool(v.norm() > 0) for p, v in zip(truth.pairs.tolist(), truth.vectors, strict=True)}
    pairs = zip(found.first.tolist(), found.second.tolist(), strict=True)
    features = [frozenset((feature.get(i, -1), feature.get(j, -2))) for i, j in pairs]
    places = [place for place, pair in enumerate(features) if pair in binds]
    bound = np.array([binds[features[place]] for place in places], dtype=bool)
    if not bound.any() or bound.all():
        return {"strength": 0.5, "covariance": 0.5}
    return {name: auroc(getattr(found, name)[places].cpu().numpy(), bound) for name in ("strength", "covariance")}
