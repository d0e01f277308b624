"""The search over a dictionary's span: it beats random combinations of equal size, stays in budget, and is
repeatable.
"""

import math

import pytest
import torch

from models.miniatures import LAYERS, WIDTH, miniature, some_rows
from overtone.core.errors import DataError, SettingError, SiteError
from overtone.core.sites import Site
from overtone.directions.confidence import Anchored, SearchSettings, mean_entropy, search

SITE = Site("residual", 1)
QUICK = SearchSettings(n_iterations=40, lr=0.05, batch_anchors=16, n_controls=20, rho=0.5)


class Atoms:
    """Random unit atoms."""

    def __init__(self, n_latents=64):
        self.n_latents = n_latents

    def atoms(self):
        rows = torch.randn(self.n_latents, WIDTH, generator=torch.Generator().manual_seed(2))
        return torch.nn.functional.normalize(rows, dim=1)


@pytest.fixture(scope="module")
def texts():
    return Anchored.of([(row, [2, 5, len(row) - 1]) for row in some_rows((9, 7, 12, 8, 10, 6, 11, 9), seed=3)])


@pytest.fixture(scope="module")
def found(texts):
    return search(miniature("llama"), Atoms(), texts, SITE, settings=QUICK, quiet=True)


def test_entropy_is_in_nats():
    assert float(mean_entropy(torch.zeros(3, 8))) == pytest.approx(math.log(8))
    assert float(mean_entropy(torch.tensor([[1e4, 0.0]]))) == pytest.approx(0.0)


def test_it_lowers_entropy_below_the_start_and_below_every_random_combination_of_equal_size(found):
    assert found.after < found.before
    assert found.share_of_controls_beaten == 1.0 and len(found.controls) == 20


def test_it_stays_within_its_budget(found):
    delta = found.scores @ found.atoms
    assert float(delta.norm()) <= 0.5 * found.origin["mean_norm"] * (1 + 1e-5)
    assert found.direction.raw_norm == pytest.approx(float(delta.norm()), rel=1e-5)
    assert float(found.direction.vector @ delta) == pytest.approx(float(delta.norm()), rel=1e-5)


def test_holding_the_move_at_the_budget_keeps_the_ranking(texts):
    """With fewer atoms than coordinates, so that S W has one S only."""
    from scipy.stats import spearmanr

    few = Atoms(24)
    free, held = (
        search(miniature("llama"), few, texts, SITE, settings=QUICK.replaced(renormalise=r, n_controls=0), quiet=True)
        for r in (False, True)
    )
    assert held.direction.raw_norm == pytest.approx(0.5 * held.origin["mean_norm"], rel=1e-4)
    assert spearmanr(free.scores, held.scores).statistic > 0.8


def test_it_is_repeatable_and_leaves_the_model_alone(found, texts):
    again = search(miniature("llama"), Atoms(), texts, SITE, settings=QUICK, quiet=True)
    assert torch.equal(again.scores, found.scores)
    assert all(p.grad is None and p.requires_grad for p in miniature("llama").model.parameters())


def test_another_objective_is_followed(texts):
    """Raise the logit of one token: the found direction does so, on the same anchors."""
    wanted = search(
        miniature("llama"), Atoms(), texts, SITE, settings=QUICK, quiet=True,
        objective=lambda logits: -logits.log_softmax(-1)[:, 11].mean(),
    )  # fmt: skip
    assert wanted.after < wanted.before and wanted.share_of_controls_beaten == 1.0


def test_the_top_atoms_make_a_direction_of_their_own(found):
    top = found.top(3)
    order = found.scores.argsort(descending=True)[:3]
    assert top.origin["top"] == order.tolist()
    assert (top.site, top.model) == (SITE, miniature("llama").fingerprint)
    torch.testing.assert_close(
        top.vector * top.raw_norm, found.scores[order] @ found.atoms[order], atol=1e-5, rtol=1e-4
    )
    with pytest.raises(DataError, match="1 to 64"):
        found.top(65)


def test_texts_are_cut_after_their_last_anchor_and_dropped_without_one():
    laid = Anchored.of([([5, 6, 7, 8], [1]), ([5, 6], []), ([9, 9, 9], [0, 2])])
    assert laid.tokens.tolist() == [[5, 6, 0], [9, 9, 9]]
    assert laid.anchors.tolist() == [[False, True, False], [True, False, True]] and laid.n_anchors == 3
    with pytest.raises(DataError, match="no text has an anchor"):
        Anchored.of([([5, 6], [])])


def test_only_anchors_are_moved(texts):
    """At the last site a move at one position changes that position's logits and no other."""
    model, site = miniature("llama"), Site("residual", LAYERS - 1)
    shift = texts.anchors[..., None].float()
    moved = model.logits_with(texts.tokens, texts.real, site, lambda states: states + shift)
    change = (moved - model.logits(texts.tokens, texts.real)).abs().amax(-1)
    assert torch.equal(change > 1e-3, texts.anchors)


def test_bad_settings_and_sites_are_refused(texts):
    with pytest.raises(SettingError, match="rho=0"):
        SearchSettings(rho=0)
    with pytest.raises(SiteError, match=f"{LAYERS} layers"):
        search(miniature("llama"), Atoms(), texts, Site("residual", LAYERS), settings=QUICK, quiet=True)
    with pytest.raises(DataError, match="found no direction"):
        search(
            miniature("llama"), Atoms(), texts, SITE, settings=QUICK, quiet=True,
            objective=lambda logits: logits.sum() * 0,
        )  # fmt: skip
