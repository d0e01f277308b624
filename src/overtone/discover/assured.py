"""Confidence vectors: directions that lower the entropy of the next token, found without labels (RISE, section F).

Scores over the atoms of the `next` dictionary are searched under a norm budget; random scores of equal norm are the
control.
The direction is then injected at step boundaries like any other, beside a random direction of equal norm.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from overtone.core.sites import Site
from overtone.directions.confidence import Anchored, Searched, SearchSettings, search
from overtone.directions.direction import Direction, load_directions, save_directions
from overtone.discover.decompose import Decomposition
from overtone.discover.material import FIT, SELECT, Material

if TYPE_CHECKING:
    from overtone.discover.run import Run
    from overtone.discover.settings import DiscoverSettings

TEXTS = 300  # traces that the search and its evaluation look at, at most


def confidence(
    run: Run, material: Material, nexts: Decomposition, site: Site, settings: DiscoverSettings
) -> tuple[dict, Direction]:
    """What the search found, as plain data, and the direction, measured over `fit` states."""
    key = [
        settings.seed,
        settings.confidence.to_dict(),
        settings.boundary.to_dict(),
        str(site),
        material.subject.model.fingerprint,
        material.fingerprint(FIT, SELECT),
    ]
    folder = run.path("confidence-direction", key)

    def make() -> dict[str, Any]:
        searched, again = _search(material, nexts, site, settings)
        direction = searched.direction.measured(nexts.rows.x[site][nexts.rows.index(FIT)])
        save_directions(folder, [direction])
        return _plain(searched, again, settings.confidence.budget)

    data = run.data("confidence", key, make)
    return data, load_directions(folder)[0]


def _search(
    material: Material, nexts: Decomposition, site: Site, settings: DiscoverSettings
) -> tuple[Searched, Searched]:
    """The search below the budget, and once more held AT the budget and on other draws of texts, which must not change
    the ranking."""
    c = settings.confidence
    first = SearchSettings(
        rho=c.budget,
        n_iterations=c.iterations,
        batch_anchors=c.rows,
        n_controls=c.n_random,
        eval_anchors=256,
        seed=settings.seed,
    )
    texts, held_out = _anchored(material, FIT), _anchored(material, SELECT)

    def run_search(s: SearchSettings) -> Searched:
        return search(material.subject.model, nexts.dictionaries[site], texts, site, settings=s, held_out=held_out)

    return run_search(first), run_search(replace(first, renormalise=True, n_controls=0, seed=settings.seed + 1))


def _anchored(material: Material, split: str) -> Anchored:
    traces = material.of(split)[:TEXTS]
    return Anchored.of([(t.tokens, [s.before for s in material.spans[t.document] if s.before >= 0]) for t in traces])


def _plain(found: Searched, again: Searched, budget: float) -> dict[str, Any]:
    import numpy as np
    from scipy.stats import spearmanr

    order = found.scores.argsort(descending=True)[:12].tolist()
    return {
        "before": found.before,
        "after": found.after,
        "random": found.controls.tolist(),
        "path": list(found.curve),
        "budget": budget,
        "rank_stability": float(np.asarray(spearmanr(found.scores.numpy(), again.scores.numpy())[0])),
        "top": [[j, float(found.scores[j])] for j in order],
        "beaten": found.share_of_controls_beaten,
        "norm_used": found.direction.raw_norm,
    }
