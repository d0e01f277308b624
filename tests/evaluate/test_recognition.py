"""The best single latent: planted ones are found, choosing does not leak, shuffled labels score one half."""

import numpy as np
import pytest

from overtone.core.errors import DataError, ShapeError
from overtone.evaluate.recognition import LabelledCodes, best_among, best_latents, mean_auroc, selected_auroc


def planted(rng, n=400, latents=60, clean=True, sign=1.0, prefix="p"):
    """Codes in which latent 7 fires for `check` and latent 9 (with a sign of its own) for `leave`; the rest is
    noise."""
    labels = rng.choice(["check", "leave", "go on"], size=n)
    codes = rng.random((n, latents)) * (rng.random((n, latents)) < 0.2)
    if clean:
        codes[:, 7] = (labels == "check") * rng.uniform(1, 2, n)
        codes[:, 9] = sign * (labels == "leave") * rng.uniform(1, 2, n)
    return LabelledCodes(codes, labels, tuple(f"{prefix}{i // 4}" for i in range(n)))


def two_splits(**options):
    rng = np.random.default_rng(0)
    return planted(rng, prefix="a", **options), planted(rng, prefix="b", **options)


def test_planted_latents_are_found_and_separate_perfectly_on_the_other_split():
    found = best_latents(*two_splits(), rng=np.random.default_rng(0), behaviours=["check", "leave"])
    assert {b: r.latent for b, r in found.items()} == {"check": 7, "leave": 9}
    assert mean_auroc(found) == 1 and found["check"].auroc.n == 100
    assert found["check"].n == 400 and 80 < found["check"].n_positive < 180


@pytest.mark.parametrize(("sign", "reading"), [(1.0, "positive"), (-1.0, "negative")])
def test_a_latent_may_be_read_on_either_side(sign, reading):
    found = best_latents(*two_splits(sign=sign), rng=np.random.default_rng(0))
    assert (found["leave"].latent, found["leave"].reading, found["leave"].auroc.value) == (9, reading, 1)


def test_a_latent_that_fires_strongly_with_either_sign_is_read_by_its_size():
    rng = np.random.default_rng(0)
    parts = []
    for prefix in "ab":
        labels = rng.choice(["yes", "no"], size=200)
        values = np.where(labels == "yes", rng.choice([-2.0, 2.0], 200), 0.1 * rng.normal(size=200))
        parts.append(LabelledCodes(values[:, None], labels, [f"{prefix}{i}" for i in range(200)]))
    found = best_latents(*parts, rng=rng, behaviours=["yes"])["yes"]
    assert found.reading == "size" and found.auroc.value == 1


def test_what_choosing_among_many_noise_latents_gains_is_gone_on_the_other_split():
    found = best_latents(*two_splits(clean=False), rng=np.random.default_rng(0))
    for r in found.values():
        assert r.selected > 0.53
        assert r.auroc.value == pytest.approx(0.5, abs=0.08) and not r.auroc.excludes(0.5)


def test_shuffled_labels_score_one_half_even_with_perfect_latents():
    rng = np.random.default_rng(0)
    select, report = two_splits()
    found = best_latents(select.shuffled(rng), report.shuffled(rng), rng=rng)
    assert mean_auroc(found) == pytest.approx(0.5, abs=0.05)


def test_every_behaviour_gets_the_dictionary_that_is_best_for_it_on_the_split_of_the_choice():
    """One dictionary knows `check` only, one `leave` only on the first split: the choice may not see the second."""
    parts = two_splits()
    only = {place: [p.codes.toarray() for p in parts] for place in ("check", "leave")}
    for place, other in (("check", 9), ("leave", 7)):
        for codes in only[place]:
            codes[:, other] = 0
    only["leave"][1][:, 9] = 0
    places = {
        place: tuple(LabelledCodes(c, p.labels, p.groups) for c, p in zip(codes, parts, strict=True))
        for place, codes in only.items()
    }
    found = best_among(places, rng=np.random.default_rng(0), behaviours=["check", "leave"])
    assert {b: (place, r.latent) for b, (place, r) in found.items()} == {"check": ("check", 7), "leave": ("leave", 9)}
    assert found["check"][1].auroc.value == 1 and found["leave"][1].auroc.value == 0.5
    assert selected_auroc(parts[0]) > max(selected_auroc(select) for select, _ in places.values())


def test_rows_without_label_and_rare_behaviours_are_left_out():
    select, report = two_splits()
    labels = [None if label == "go on" else label for label in report.labels]
    report = LabelledCodes(report.codes, ["rare", *labels[1:]], report.groups)
    found = best_latents(select, report, rng=np.random.default_rng(0))
    assert set(found) == {"check", "leave"}
    assert found["check"].n == sum(label is not None for label in report.labels)


def test_mistakes_are_named():
    rng = np.random.default_rng(0)
    select, report = two_splits()
    with pytest.raises(DataError, match="100 groups lie in both splits"):
        best_latents(select, select, rng=rng)
    with pytest.raises(DataError, match="60 and 59 latents"):
        best_latents(select, LabelledCodes(report.codes[:, :59], report.labels, report.groups), rng=rng)
    with pytest.raises(DataError, match="no behaviour has 1000 steps"):
        best_latents(select, report, rng=rng, n_min=1000)
    with pytest.raises(ShapeError, match="400 rows of codes but 3 labels"):
        LabelledCodes(select.codes, "abc", select.groups)
