"""AUROC and silhouette agree with scikit-learn, and their nulls are what a null must be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.metrics import roc_auc_score, silhouette_samples, silhouette_score

from overtone.core.errors import DataError, ShapeError
from overtone.evaluate.intervals import Resampling
from overtone.evaluate.separability import (
    auroc,
    auroc_estimate,
    auroc_table,
    cosine_distances,
    silhouette_pairs,
    silhouette_points,
    silhouette_test,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=4, max_size=40))
def test_auroc_equals_scikit_learn_with_ties_zeros_and_signs(pairs):
    scores, positive = np.array([s for s, _ in pairs], float), np.array([p for _, p in pairs])
    if positive.all() or not positive.any():
        with pytest.raises(DataError, match="AUROC needs both kinds"):
            auroc(scores, positive)
        return
    assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    assert auroc(scores, positive) + auroc(-scores, positive) == pytest.approx(1)


def test_the_table_holds_every_latent_and_class_and_reads_sparse_codes_alike():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(200, 30)) * (rng.random((200, 30)) < 0.2)
    members = rng.random((200, 3)) < 0.3
    table = auroc_table(codes, members)
    wanted = [[roc_auc_score(members[:, c], codes[:, j]) for c in range(3)] for j in range(30)]
    np.testing.assert_allclose(table, wanted, atol=1e-12)
    np.testing.assert_allclose(auroc_table(csr_array(codes), members), table, atol=1e-12)


def test_a_class_without_members_has_no_auroc():
    table = auroc_table(np.eye(4), np.array([[1, 0], [0, 0], [0, 0], [0, 0]], bool))
    assert table[0, 0] == 1 and np.isnan(table[:, 1]).all()


def test_shuffled_labels_score_one_half_on_average():
    rng = np.random.default_rng(0)
    scores, positive = rng.normal(size=(400, 1)), rng.random(400) < 0.3
    shuffled = np.stack([rng.permutation(positive) for _ in range(300)], axis=1)
    null = auroc_table(scores, shuffled)
    assert null.mean() == pytest.approx(0.5, abs=0.01) and null.std() < 0.06


def test_the_interval_of_an_auroc_is_over_groups_and_starts_from_the_plain_value():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 5)
    positive = rng.random(300) < 0.4
    scores = np.round(rng.normal(size=300) + positive, 1)
    resampling = Resampling.over(groups.tolist(), rng=rng, draws=200)
    found = auroc_estimate(scores, positive, groups.tolist(), resampling)
    assert found.value == pytest.approx(roc_auc_score(positive, scores))
    assert found.low < found.value < found.high and found.excludes(0.5)
    draw = resampling.weights[7]
    drawn = np.concatenate([np.flatnonzero(groups == g) for g in np.repeat(np.arange(60), draw.astype(int))])
    only_this = Resampling(resampling.names, np.tile(draw, (11, 1)))
    by_weights = auroc_estimate(scores, positive, groups.tolist(), only_this)
    assert by_weights.value == pytest.approx(roc_auc_score(positive[drawn], scores[drawn]))


def clouds(rng, n=60, apart=1.0, classes=3, width=8):
    labels = rng.integers(0, classes, n)
    return rng.normal(size=(n, width)) + apart * np.eye(width)[labels] * 2, [f"class {k}" for k in labels]


def test_the_silhouette_equals_scikit_learn_point_by_point():
    points, labels = clouds(np.random.default_rng(0))
    labels[0] = "alone"
    distances = cosine_distances(points)
    wanted = silhouette_samples(points, labels, metric="cosine")
    np.testing.assert_allclose(silhouette_points(distances, labels), wanted, atol=1e-12)


def test_the_test_reports_the_mean_and_classes_of_the_labelled_points_only():
    points, labels = clouds(np.random.default_rng(0))
    labels[:10] = [None] * 10
    found = silhouette_test(cosine_distances(points), labels, rng=np.random.default_rng(0), permutations=200)
    assert found.value == pytest.approx(silhouette_score(points[10:], labels[10:], metric="cosine"))
    assert (found.n, found.n_classes) == (50, 3) and set(found.by_class) == {"class 0", "class 1", "class 2"}
    assert found.holds and found.p == pytest.approx(1 / 201)


def test_the_permuted_values_are_the_silhouettes_of_permuted_labels():
    """The vectorised null equals silhouettes computed one permutation at a time."""
    points, labels = clouds(np.random.default_rng(5), n=20)
    distances = cosine_distances(points)
    found = silhouette_test(distances, labels, rng=np.random.default_rng(3), permutations=50)
    codes = np.unique(labels, return_inverse=True)[1]
    mixed = np.random.default_rng(3).permuted(np.tile(codes, (50, 1)), axis=1)
    null = [silhouette_points(distances, row.tolist()).mean() for row in mixed]
    assert (found.null_mean, found.null_95) == pytest.approx((np.mean(null), np.quantile(null, 0.95)))


def test_the_permutation_null_is_calibrated():
    """Under the null, p is uniform: its mean is 1/2 and it falls below 0.1 about one time in ten."""
    rng, p = np.random.default_rng(1), []
    for _ in range(150):
        points, _ = clouds(rng, n=30)
        labels = rng.integers(0, 3, 30).tolist()
        p.append(silhouette_test(cosine_distances(points), labels, rng=rng, permutations=99).p)
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)
    assert 0.03 <= np.mean(np.array(p) <= 0.1) <= 0.19


def test_pairs_look_at_two_classes_at_a_time():
    points, labels = clouds(np.random.default_rng(0))
    distances = cosine_distances(points)
    pairs = silhouette_pairs(distances, labels, rng=np.random.default_rng(0), permutations=20)
    assert list(pairs) == [("class 0", "class 1"), ("class 0", "class 2"), ("class 1", "class 2")]
    kept = [i for i, label in enumerate(labels) if label != "class 2"]
    wanted = silhouette_score(points[kept], [labels[i] for i in kept], metric="cosine")
    assert pairs["class 0", "class 1"].value == pytest.approx(wanted)


def test_mistakes_are_named():
    with pytest.raises(DataError, match="no direction"):
        cosine_distances(np.zeros((2, 2)))
    with pytest.raises(DataError, match="two classes"):
        silhouette_points(np.zeros((3, 3)), ["a", "a", "a"])
    with pytest.raises(ShapeError, match="do not fit 2 labels"):
        silhouette_points(np.zeros((3, 3)), ["a", "b"])
    with pytest.raises(ShapeError, match="must both be"):
        auroc(np.ones((2, 2)), np.ones(2))
    with pytest.raises(DataError, match="NaN"):
        auroc(np.array([np.nan, 1.0]), np.array([True, False]))
