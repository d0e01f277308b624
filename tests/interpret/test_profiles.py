"""Profiles: the rule of the docstring by hand, planted latents get their behaviour, mixed ones are filtered."""

import numpy as np
import pytest

from overtone.core.errors import DataError, SettingError, ShapeError
from overtone.interpret.columns import two_sided
from overtone.interpret.profiles import matched_contrast, profile, specific

LABELS = ["a", "a", "b", "b", "b", "b", None]
CODES = np.array(
    [
        [3.0, 1.0, 0.0, 0.0],
        [0.0, 2.0, 1.0, 0.0],
        [0.0, 4.0, 1.0, 0.0],
        [0.0, 0.0, -5.0, 1.0],
        [0.0, 0.0, 2.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
        [9.0, 9.0, 9.0, 9.0],
    ]
)


def test_shares_purity_and_counts_are_those_of_the_rule():
    found = profile(CODES, LABELS, n_min=1)
    assert found.names == ("a", "b") and found.n_rows == 6
    np.testing.assert_allclose(found.share, [[0.5, 0.5, 0, 0], [0, 0.25, 0.5, 0]])
    assert found.fires.tolist() == [1, 3, 4, 1] and found.leads.tolist() == [1, 2, 2, 0]
    assert found.labels == ("a", "a", "b", None)
    np.testing.assert_allclose(found.purity, [1, 2 / 3, 1, np.nan])
    np.testing.assert_allclose(found.strength, [3, 7 / 3, 9 / 4, 1])


def test_classes_weigh_equally_however_often_they_occur():
    """Latent 0 leads every step of the rare class and half of the common one."""
    codes = np.zeros((110, 2))
    codes[:10, 0] = 1
    codes[10:60, 0] = 1
    codes[60:, 1] = 1
    found = profile(codes, ["rare"] * 10 + ["common"] * 100)
    assert found.labels[0] == "rare" and found.purity[0] == pytest.approx(1 / 1.5)


def test_more_leading_places_count_more_latents():
    found = profile(CODES, LABELS, n_min=1, top_m=2)
    np.testing.assert_allclose(found.share, [[0.5, 1, 0.5, 0], [0, 0.25, 0.75, 0.25]])


def test_a_latent_that_fires_rarely_has_no_label():
    found = profile(CODES, LABELS, n_min=3)
    assert found.labels == (None, "a", "b", None) and np.isnan(found.purity[[0, 3]]).all()


def test_the_two_sides_of_a_signed_latent_can_have_two_labels():
    codes = np.array([[2.0], [1.0], [-1.0], [-3.0]])
    labels = ["up", "up", "down", "down"]
    assert profile(codes, labels, n_min=1).purity[0] == 0.5
    assert profile(two_sided(codes), labels, n_min=1).labels == ("up", "down")


def test_planted_latents_are_labelled_and_ordered_by_how_much_of_the_class_they_lead():
    rng = np.random.default_rng(0)
    labels = rng.choice(["check", "leave", "go on"], 600)
    codes = 0.2 * rng.random((600, 20))
    often = rng.random(600) < 0.7
    codes[(labels == "check") & often, 4] = 2
    codes[(labels == "check") & ~often, 5] = 2
    codes[labels == "leave", 6] = 2
    found = profile(codes, list(labels))
    assert found.of("check")[:2] == [4, 5] and found.of("leave")[0] == 6
    assert (found.purity[[4, 5, 6]] > 0.85).all()


def test_a_latent_of_two_behaviours_is_not_specific():
    labels = ["a"] * 20 + ["b"] * 20 + ["c"] * 20
    codes = np.zeros((60, 3))
    codes[:20, 0] = 1  # all of a
    codes[20:40, 1] = 1  # all of b, and 0.6 of c
    codes[40:52, 1] = 1
    codes[52:, 2] = 1  # 0.4 of c
    found = profile(codes, labels, n_min=5)
    assert found.of("b") == [1] and specific(found, "b") == []
    assert specific(found, "b", max_second=0.7) == [1]
    assert specific(found, "b", max_second=0.7, min_purity=0.7) == []
    assert specific(found, "a") == [0] and specific(found, "c", most=0) == []


def test_mistakes_are_named():
    with pytest.raises(ShapeError, match="7 rows of codes but 2 labels"):
        profile(CODES, ["a", "b"])
    with pytest.raises(DataError, match="no row has a label"):
        profile(CODES, [None] * 7)
    with pytest.raises(SettingError, match="top_m=0"):
        profile(CODES, LABELS, top_m=0)
    with pytest.raises(SettingError, match="'z' is not among"):
        profile(CODES, LABELS).of("z")


def confounded(n=4000):
    """Latent 0 follows the stratum, latent 1 the behaviour within strata, latent 2 nothing; `check` is commoner in
    s1."""
    rng = np.random.default_rng(0)
    stratum = rng.integers(0, 2, n)
    check = rng.random(n) < np.where(stratum == 1, 0.6, 0.1)
    codes = rng.normal(size=(n, 3))
    codes[:, 0] += 2 * stratum
    codes[:, 1] += 0.5 * check
    return codes, np.where(check, "check", "other").tolist(), stratum.tolist()


def test_what_the_strata_explain_does_not_make_a_latent_telling():
    codes, labels, strata = confounded()
    plain = matched_contrast(codes, labels, [0] * len(labels), "check")
    matched = matched_contrast(codes, labels, strata, "check")
    assert plain[0] > 15 and abs(matched[0]) < 3
    assert matched[1] > 10 and abs(matched[2]) < 3


def test_the_matched_contrast_is_a_z_score_by_hand_and_ignores_rows_without_label():
    codes = np.array([[1.0], [3.0], [2.0], [0.0], [99.0]])
    labels = ["a", "a", "b", "b", None]
    wanted = (2 - 1) / np.sqrt(codes[:4].var() * (1 / 2 + 1 / 2))
    assert matched_contrast(codes, labels, [0, 0, 0, 0, 0], "a")[0] == pytest.approx(wanted)
    with pytest.raises(DataError, match="no stratum holds steps of 'a' and others"):
        matched_contrast(codes, labels, [0, 0, 1, 1, 1], "a")
