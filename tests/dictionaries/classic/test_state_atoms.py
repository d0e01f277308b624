"""ITDA: atoms are states with a known origin, chosen where pursuit fails; places, not vectors, are what it found."""

import pytest
import torch

from overtone.activations.array import ArraySource
from overtone.core.batch import Where
from overtone.core.errors import DataError, SettingError
from overtone.data.synthetic import plant
from overtone.dictionaries.classic.state_atoms import StateAtoms, choose_states, direction_errors
from overtone.dictionaries.presets.itda import ITDA
from overtone.evaluate.reconstruction import fvu
from overtone.evaluate.similarity import label_overlap
from overtone.training.fit import fit

WIDTH, K = 32, 4
PLANTED = plant(200, WIDTH, max_cosine=0.75, seed=0)
X, HELD_OUT = PLANTED.sample(3000, active=K, seed=0).x, PLANTED.sample(1500, active=K, seed=1).x
DRAW = torch.Generator().manual_seed(0)


def built(x, threshold=0.2, most=2000):
    return ITDA(most, k=K, threshold=threshold).fitted(x, DRAW)


def rotation(seed=0):
    return torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(seed)))[0]


def test_a_lower_threshold_takes_more_states_and_explains_more():
    made = [built(X, threshold) for threshold in (0.48, 0.32, 0.24, 0.16)]
    sizes = [d.n_latents for d in made]
    errors = [fvu(HELD_OUT, d.reconstruct(HELD_OUT)) for d in made]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] / 4
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.6 * errors[0]


def test_few_new_states_are_explained_worse_than_the_threshold():
    for threshold in (0.32, 0.24):
        made = built(X, threshold)
        assert (direction_errors(HELD_OUT, made.atoms(), K) > threshold).float().mean() < 0.03


def test_chosen_states_are_no_worse_than_random_ones():
    made = built(X, 0.24)
    random = X[torch.randperm(len(X), generator=torch.Generator().manual_seed(0))[: made.n_latents]]
    control = StateAtoms.of(random, torch.zeros(WIDTH), torch.zeros(len(random), 2, dtype=torch.int64), k=K)
    assert fvu(HELD_OUT, made.reconstruct(HELD_OUT)) < 1.02 * fvu(HELD_OUT, control.reconstruct(HELD_OUT))


def test_atoms_are_the_states_their_labels_name():
    made = built(X)
    assert not made.labels[:, 1].any()
    torch.testing.assert_close(made.atoms(), torch.nn.functional.normalize(X[made.labels[:, 0]], dim=1))
    assert len(made.places(with_fill=True)) == made.n_latents and len(made.places()) == made.n_latents - WIDTH


def test_a_rotated_model_chooses_the_same_places_and_noise_changes_some():
    made, turned = built(X), built(X @ rotation())
    assert made.places() == turned.places()
    noisy = [built(X + s * torch.randn(X.shape, generator=torch.Generator().manual_seed(1))) for s in (0.05, 0.2)]
    scores = [label_overlap(made.places(), other.places(), n_rows=len(X)).jaccard for other in noisy]
    assert 0.95 > scores[0] > scores[1] > 0.05


def test_unrelated_models_share_places_by_chance_only():
    other = built(plant(200, WIDTH, max_cosine=0.75, seed=5).sample(3000, active=K, seed=9).x)
    first = built(X)
    fair = label_overlap(first.places(), other.places(), n_rows=len(X))
    with_fill = label_overlap(first.places(with_fill=True), other.places(with_fill=True), n_rows=len(X))
    assert with_fill.jaccard > fair.jaccard, "the atoms that fill the space are shared whatever the model"
    made = label_overlap(first.places(), built(X @ rotation()).places(), n_rows=len(X))
    assert fair.jaccard - fair.chance < 0.5 * (made.jaccard - made.chance)


def test_without_a_threshold_the_number_of_atoms_is_what_was_asked():
    made = fit(ITDA(150, k=K), X, n_tokens=len(X)).dictionary
    assert made.n_latents == 150
    assert fvu(HELD_OUT, made.reconstruct(HELD_OUT)) < 0.5


def test_labels_come_from_the_source_and_carry_over_to_another_model():
    """A source that knows document and token of its rows hands them to the atoms, in the order it was read."""
    n = len(X)
    where = Where(torch.arange(n) // 10, torch.arange(n) % 10, torch.full((n,), -1))
    source = ArraySource(X, where=where)
    for states in (source, source.all()):
        made = fit(ITDA(150, k=K), states, n_tokens=n).dictionary
        row = made.labels[:, 0] * 10 + made.labels[:, 1]
        torch.testing.assert_close(made.atoms(), torch.nn.functional.normalize(X[row], dim=1))
    turned = made.carried_to(X @ rotation(), where)
    torch.testing.assert_close(
        turned.reconstruct(HELD_OUT @ rotation()), made.reconstruct(HELD_OUT) @ rotation(), atol=1e-3, rtol=1e-3
    )
    with pytest.raises(DataError, match="no row comes from"):
        made.carried_to(X[:100], where.select(torch.arange(100)))


def test_frequent_states_fill_the_space_first_and_zeros_never():
    x = torch.cat([torch.zeros(5, WIDTH), X[:40], X[7:8].expand(6, -1), X[3:4].expand(3, -1)])
    chosen = choose_states(x, 0.3, k=K, most=10, batch_rows=16)
    assert chosen.rows[:4].tolist() == [5 + 7, 5 + 3, 5, 6] and chosen.n_filled == 10
    with pytest.raises(DataError, match="all rows are zero"):
        built(torch.zeros(20, WIDTH))


def test_newcomers_of_one_batch_count_once():
    x = torch.cat([X[:WIDTH], X[100:101].expand(50, -1) * torch.linspace(1, 2, 50)[:, None]])
    assert len(choose_states(x, 0.05, k=1, most=500, batch_rows=len(x)).rows) <= WIDTH + 1


def test_centring_helps_where_states_share_a_large_mean():
    x, held_out = X + 20, HELD_OUT + 20
    plain, centred = (ITDA(150, k=K, centred=c).fitted(x, DRAW) for c in (False, True))
    assert fvu(held_out, centred.reconstruct(held_out)) < 0.8 * fvu(held_out, plain.reconstruct(held_out))


def test_a_threshold_that_cannot_be_is_refused():
    with pytest.raises(SettingError, match=r"1 - cos lies in \[0, 2\)"):
        ITDA(10, k=2, threshold=2.5)
