"""Similarity of models: invariances that each measure promises, and chance levels."""

import numpy as np
import pytest

from overtone.core.errors import DataError, ShapeError
from overtone.evaluate.similarity import (
    MEASURES,
    cka,
    label_overlap,
    layer_scores,
    matched_layers,
    relative,
    svcca,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 10)) @ RNG.normal(size=(10, 10))
ROTATION = np.linalg.qr(RNG.normal(size=(10, 10)))[0]
NOISE = RNG.normal(size=X.shape)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_rotated_scaled_and_shifted_states_are_the_same_and_unrelated_ones_are_not(measure):
    assert measure(X, 5 * X @ ROTATION + 2) == pytest.approx(1, abs=1e-6)
    assert measure(X, NOISE) < 0.3
    assert measure(X, X + 2 * NOISE) > measure(X, NOISE)
    assert measure(X, NOISE) == pytest.approx(measure(NOISE, X))


def test_svcca_sees_through_any_linear_map_and_cka_does_not():
    bent = X @ np.diag([30.0] + [1.0] * 9)
    assert svcca(X, bent, keep=1 - 1e-12) == pytest.approx(1, abs=1e-6) and cka(X, bent) < 0.95


def test_relative_representations_know_angles_and_no_row_is_its_own_anchor():
    bent = X @ np.diag([30.0] + [1.0] * 9)
    assert 0.1 < relative(X, bent) < 0.9
    centred, lengths = np.vstack([X, -X]), RNG.uniform(0.1, 9, size=(300, 1))
    assert relative(centred, np.vstack([lengths, lengths]) * centred @ ROTATION, anchors=7) == pytest.approx(1)
    for n, anchors in ((40, 300), (300, 300), (300, 5)):
        unrelated = [relative(*RNG.normal(size=(2, n, 10)), anchors=anchors) for _ in range(100)]
        assert abs(np.mean(unrelated)) < 0.02


def test_random_sets_overlap_by_the_chance_that_is_reported():
    draws = [[frozenset(RNG.choice(500, size=n, replace=False).tolist()) for n in (80, 120)] for _ in range(200)]
    found = [label_overlap(a, b, n_rows=500) for a, b in draws]
    assert np.mean([f.jaccard for f in found]) == pytest.approx(found[0].chance, rel=0.05)
    assert label_overlap({1, 2}, {2, 1}, n_rows=9).jaccard == 1


def test_models_whose_layers_chose_the_same_overlap_whatever_their_order_and_others_by_chance():
    def drawn():
        return [frozenset(RNG.choice(500, size=n, replace=False).tolist()) for n in (80, 60, 40)]

    one = drawn()
    assert label_overlap(set().union(*one), set().union(*one[::-1]), n_rows=500).jaccard == 1
    found = [label_overlap(set().union(*drawn()), set().union(*drawn()), n_rows=500) for _ in range(200)]
    assert np.mean([f.jaccard - f.chance for f in found]) == pytest.approx(0, abs=0.01)


def test_layers_that_are_most_like_themselves_are_matched():
    layers = [X, X @ ROTATION[:, :4], NOISE]
    scores = layer_scores(layers, [layer + 0.1 * RNG.normal(size=layer.shape) for layer in layers], cka)
    assert matched_layers(scores) == 1 and matched_layers(scores[::-1]) < 0.5


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ShapeError, match="the same rows"):
        cka(X, X[:-1])
    with pytest.raises(DataError, match="does not vary"):
        svcca(X, np.ones((300, 2)))
    with pytest.raises(DataError, match="among 1 rows"):
        label_overlap({1}, {2}, n_rows=1)
