"""The energy rule finds the sparsity of near-orthogonal data by itself (card checks 1, 2, 4)."""

import pytest
import torch
from torch.nn.functional import normalize

from overtone.dictionaries.selectors.energy import Energy


def planted(width, n, active, rows=4000, seed=0):
    """(rows, n) codes with `active` entries in [1, 2] and (n, width) unit atoms, orthonormal where n equals width."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.randn(n, width, generator=generator)
    atoms = torch.linalg.qr(atoms).Q if n == width else normalize(atoms, dim=1)
    chosen = torch.rand(rows, n, generator=generator).topk(active).indices
    values = 1 + torch.rand(rows, active, generator=generator)
    return torch.zeros(rows, n).scatter_(1, chosen, values), atoms


def counts(scores, states, most=None):
    support = Energy(most).nominate(scores.square(), company=True, states=states)
    return torch.bincount(support.rows, minlength=len(scores)).float()


@pytest.mark.parametrize("active", [2, 4, 8, 16])
def test_with_orthonormal_atoms_and_a_tied_encoder_the_number_of_active_latents_is_found(active):
    codes, atoms = planted(64, 64, active)
    x = codes @ atoms
    found = counts((x @ atoms.T).relu(), x)
    assert (found.mean() - active).abs() <= 0.05 and (found == active).float().mean() > 0.9


@pytest.mark.parametrize(
    ("width", "n", "oracle", "expected"),
    [
        (64, 256, True, (1.94, 3.70, 7.18, 14.27)),
        (64, 256, False, (2.41, 3.92, 5.80, 7.42)),
        (256, 1024, False, (2.69, 4.62, 8.21, 13.51)),
    ],
)
def test_with_random_atoms_it_errs_as_the_figures_of_the_method_say(width, n, oracle, expected):
    for active, figure in zip((2, 4, 8, 16), expected, strict=True):
        codes, atoms = planted(width, n, active)
        x = codes @ atoms
        found = counts(codes if oracle else (x @ atoms.T).relu(), x).mean()
        assert found == pytest.approx(figure, rel=0.05), active


def test_the_length_of_the_code_is_the_nearest_that_a_prefix_reaches():
    generator = torch.Generator().manual_seed(0)
    scores, states = torch.randn(500, 20, generator=generator).relu(), torch.randn(500, 3, generator=generator)
    states = states * torch.rand(500, 1, generator=generator) * 4
    lengths = scores.sort(1, descending=True).values.square().cumsum(1).sqrt()
    target = states.norm(dim=1)
    found = counts(scores, states).long()
    positive = (scores > 0).sum(1)
    reached = lengths.gather(1, found[:, None] - 1)[:, 0]
    assert (found >= 1).all() and (found <= positive.clamp(min=1)).all()
    below, above = target <= lengths[:, 0], target >= lengths[:, -1]
    assert (found[below] == 1).all()
    torch.testing.assert_close(reached[above], lengths[above, -1])  # the last scores may be too small to be seen
    inside = ~below & ~above
    place = (lengths < target[:, None]).sum(1)[inside]
    gap = lengths[inside].gather(1, place[:, None])[:, 0] - lengths[inside].gather(1, place[:, None] - 1)[:, 0]
    assert inside.sum() > 50 and ((reached - target).abs()[inside] <= gap / 2 + 1e-6).all()


def test_scores_that_are_lost_in_rounding_add_no_latents():
    """Noise behind what a state is made of lengthens the code by less than float32 tells apart, on any machine."""
    generator = torch.Generator().manual_seed(0)
    true = 1 + torch.rand(2000, 3, generator=generator)
    scores = torch.cat([true, 1e-5 * torch.rand(2000, 40, generator=generator)], dim=1)
    assert (counts(scores, true) == 3).all()


def test_rows_without_positive_scores_keep_one_latent_of_value_zero():
    found = counts(torch.zeros(3, 5), torch.ones(3, 2))
    assert found.tolist() == [1.0, 1.0, 1.0]


def test_a_generous_bound_changes_nothing():
    codes, atoms = planted(64, 256, 4, rows=300)
    x = codes @ atoms
    scores = (x @ atoms.T).relu()
    assert torch.equal(counts(scores, x), counts(scores, x, most=64))
    assert counts(scores, x, most=2).max() == 2
