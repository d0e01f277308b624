"""Finders recover a planted truth, agree with hand-made numbers, and refuse what holds no answer."""

import pytest
import torch

from overtone.core.errors import DataError, SettingError, ShapeError
from overtone.core.sites import Site
from overtone.directions import (
    centroid_of_atoms,
    from_atom,
    matched_mean_difference,
    mean_difference,
    principal_components,
    principal_of_pairs,
    probe,
    random_like,
    seal,
    shuffled,
    unit_direction,
)

HERE = Site("residual", 1)
WIDTH, N = 24, 100


class Atoms:
    """The least a dictionary is to the finders."""

    def __init__(self, rows):
        self.rows, self.n_latents = rows, len(rows)

    def atoms(self):
        return self.rows


@pytest.fixture
def planted(generator):
    """(positive, negative, truth): N rows each whose classes differ by 3 along a unit vector, in coloured noise."""
    truth = torch.nn.functional.normalize(torch.randn(WIDTH, generator=generator), dim=0)
    colour = torch.linspace(0.3, 1.2, WIDTH)
    positive, negative = torch.randn(2, N, WIDTH, generator=generator) * colour
    return positive + 3 * truth, negative, truth


FINDERS = {
    "mean_difference": lambda p, n: mean_difference(p, n, HERE),
    "principal_of_pairs": lambda p, n: principal_of_pairs(p, n, HERE),
    "probe with covariance": lambda p, n: probe(
        torch.cat([p, n]), torch.arange(2 * N) < N, HERE, covariance_corrected=True
    ),
    "seal": lambda p, n: seal(torch.cat([p, n]), ["execution"] * N + ["reflection"] * N, HERE),
    "matched": lambda p, n: matched_mean_difference(
        torch.cat([p, n]), torch.arange(2 * N) < N, [i % 3 for i in range(2 * N)], HERE
    ),
}


@pytest.mark.parametrize("finder", FINDERS)
def test_a_planted_direction_is_recovered_with_its_sign(finder, planted):
    positive, negative, truth = planted
    assert float(FINDERS[finder](positive, negative).vector @ truth) > 0.9


def test_labels_in_random_order_do_not_find_it(planted, generator):
    positive, negative, truth = planted
    rows, labels = torch.cat([positive, negative]), torch.arange(2 * N) < N
    mixed = shuffled(labels, generator)
    assert abs(float(mean_difference(rows[mixed], rows[~mixed], HERE).vector @ truth)) < 0.8
    assert mean_difference(rows[mixed], rows[~mixed], HERE).raw_norm < 0.5 * 3


def test_centring_the_differences_loses_a_mean_that_does_not_vary(generator):
    noise = torch.zeros(N, WIDTH)
    noise[:, 1] = 5 * torch.randn(N, generator=generator)
    positive = noise + 3 * torch.eye(WIDTH)[0] + 0.1 * torch.randn(N, WIDTH, generator=generator)
    negative = torch.zeros(N, WIDTH)
    assert abs(principal_of_pairs(positive, negative, HERE, centred=True).vector[0]) < 0.1
    assert mean_difference(positive, negative, HERE).vector[0] > 0.9


def test_a_mean_difference_is_the_hand_computed_one():
    found = mean_difference(
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 5.0]]), HERE
    )
    expected = torch.tensor([1.0, 1.0])
    assert found.raw_norm == pytest.approx(float(expected.norm()), abs=1e-6)
    torch.testing.assert_close(found.vector * found.raw_norm, expected, atol=1e-6, rtol=0)


def test_seal_is_execution_minus_the_pool_of_reflection_and_transition():
    rows = torch.tensor([[4.0, 0.0], [2.0, 0.0], [1.0, 3.0], [0.0, 9.0], [100.0, 100.0]])
    labels = ["execution", "execution", "reflection", "transition", None]
    found = seal(rows, labels, HERE)
    torch.testing.assert_close(found.vector * found.raw_norm, torch.tensor([2.5, -6.0]), atol=1e-6, rtol=0)
    without = seal(rows[:4], ["execution", "execution", "transition", "transition"], HERE)
    torch.testing.assert_close(without.vector * without.raw_norm, torch.tensor([2.5, -6.0]), atol=1e-6, rtol=0)


def test_matching_removes_what_the_strata_explain():
    """In stratum a rows sit at (10, .), where positives are common; the true difference is (0, 1) in both."""
    a, b = torch.tensor([10.0, 0.0]), torch.tensor([0.0, 0.0])
    up = torch.tensor([0.0, 1.0])
    rows = torch.stack([a + up] * 8 + [a] * 2 + [b + up] * 2 + [b] * 8)
    positive = torch.tensor([True] * 8 + [False] * 2 + [True] * 2 + [False] * 8)
    strata = ["a"] * 10 + ["b"] * 10
    matched = matched_mean_difference(rows, positive, strata, HERE)
    torch.testing.assert_close(matched.vector, up, atol=1e-6, rtol=0)
    assert mean_difference(rows[positive], rows[~positive], HERE).vector[0] > 0.9


@pytest.mark.parametrize(("weights", "share_of_a"), [("precision", 1.6 / 2.6), ("positive", 0.8), ("equal", 0.5)])
def test_strata_are_weighted_as_asked(weights, share_of_a):
    """Differences (1, 0) in a with 8 + 2 rows (precision 1.6) and (0, 1) in b with 2 + 2 rows (precision 1)."""
    e = torch.eye(2)
    rows = torch.stack([e[0]] * 8 + [0 * e[0]] * 2 + [e[1]] * 2 + [0 * e[1]] * 2)
    positive = torch.tensor([True] * 8 + [False] * 2 + [True] * 2 + [False] * 2)
    strata = ["a"] * 10 + ["b"] * 4
    found = matched_mean_difference(rows, positive, strata, HERE, weights=weights)
    torch.testing.assert_close(
        found.vector * found.raw_norm, torch.tensor([share_of_a, 1 - share_of_a]), atol=1e-6, rtol=0
    )


def test_strata_with_one_side_are_left_out_and_told():
    rows, positive = torch.eye(3), torch.tensor([True, False, True])
    found = matched_mean_difference(rows, positive, ["a", "a", "b"], HERE)
    assert found.origin["left_out"] == ["b"]
    with pytest.raises(DataError, match="no stratum"):
        matched_mean_difference(rows, positive, ["a", "b", "c"], HERE)
    with pytest.raises(SettingError, match="precision"):
        matched_mean_difference(rows, positive, ["a", "a", "b"], HERE, weights="size")


def test_empty_sides_and_two_widths_are_refused():
    with pytest.raises(DataError, match="negative side has no rows"):
        mean_difference(torch.ones(3, 2), torch.empty(0, 2), HERE)
    with pytest.raises(ShapeError, match="width 3"):
        mean_difference(torch.ones(3, 2), torch.ones(3, 3), HERE)
    with pytest.raises(ShapeError, match="2 labels for 3 rows"):
        seal(torch.ones(3, 2), ["execution", "reflection"], HERE)
    with pytest.raises(DataError, match="both classes"):
        probe(torch.ones(3, 2), torch.ones(3, dtype=torch.bool), HERE)


def test_a_mean_of_many_rows_far_from_zero_keeps_its_digits():
    """float32 accumulation would lose the difference of 1e-3 next to 1e4."""
    base = torch.full((20_000, 2), 1e4)
    positive = base.clone()
    positive[:, 0] += 2**-9  # exact in float32 at this size
    found = mean_difference(positive, base, HERE)
    torch.testing.assert_close(found.vector, torch.tensor([1.0, 0.0]))
    assert found.raw_norm == pytest.approx(2**-9, rel=1e-6)


def test_principal_components_are_orthonormal_ordered_and_signed(generator):
    rows = torch.randn(200, 5, generator=generator) * torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5]) + 7
    found = principal_components(rows, 3, HERE)
    gram = torch.tensor([[a.cosine(b) for b in found] for a in found])
    torch.testing.assert_close(gram, torch.eye(3), atol=1e-5, rtol=0)
    shares = [d.origin["explained"] for d in found]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0.5
    uncentred = principal_components(rows, 1, HERE, centred=False)[0]
    assert uncentred.cosine(unit_direction(rows.mean(0), HERE)) > 0.9
    with pytest.raises(DataError, match="1 to 5"):
        principal_components(rows, 6, HERE)
    with pytest.raises(DataError, match="equal"):
        principal_components(torch.ones(4, 5), 1, HERE)


def test_a_probe_reads_in_the_states_own_coordinates():
    """One coordinate separates the classes; its scale must not matter for the order of projections."""
    rows = torch.tensor([[1e3, 0.1], [1e3, -0.1], [-1e3, 0.1], [-1e3, -0.1]]).repeat(5, 1)
    found = probe(rows, rows[:, 1] > 0, HERE)
    assert found.vector[1] > 0.999


def test_an_atom_and_the_centroid_of_several_are_unit_vectors():
    atoms = Atoms(torch.tensor([[2.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 0.0]]))
    assert from_atom(atoms, 1, HERE).vector.tolist() == [0.0, 1.0, 0.0]
    centroid = centroid_of_atoms(atoms, [0, 1], HERE)
    torch.testing.assert_close(centroid.vector, torch.tensor([1.0, 1.0, 0.0]) / 2**0.5)
    assert centroid.raw_norm == pytest.approx(2**-0.5)


@pytest.mark.parametrize(
    ("latents", "message"), [([], "at least one latent"), ([3], "latents 0 to 2"), ([0, 2], "latent 2 has a zero atom")]
)
def test_latents_that_give_no_direction_are_refused(latents, message):
    atoms = Atoms(torch.tensor([[2.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 0.0]]))
    with pytest.raises(DataError, match=message):
        centroid_of_atoms(atoms, latents, HERE)


def test_a_random_control_has_the_same_size_in_every_unit(generator):
    rows = torch.randn(50, 6, generator=generator)
    d = unit_direction(rows[0] * 3, HERE, model="m", rows=rows)
    control = random_like(d, generator)
    assert (control.typical_projection, control.mean_norm, control.raw_norm) == (
        d.typical_projection, d.mean_norm, d.raw_norm,
    )  # fmt: skip
    assert (control.site, control.model) == (d.site, d.model)
    own = random_like(d, generator, rows=rows)
    assert own.typical_projection == pytest.approx(float((rows @ own.vector).abs().mean()), rel=1e-5)


def test_random_controls_are_isotropic_and_a_function_of_their_generator():
    d = unit_direction(torch.ones(16), HERE)
    draws = [random_like(d, torch.Generator().manual_seed(s)).vector for s in range(300)]
    assert torch.stack(draws).mean(0).abs().max() < 0.08  # standard error 0.25 / sqrt(300) = 0.014
    again = random_like(d, torch.Generator().manual_seed(7)).vector
    assert torch.equal(again, draws[7])


def test_shuffling_within_groups_keeps_the_counts_of_each_group(generator):
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0, 1, 2] * 10)
    groups = [i // 10 for i in range(100)]
    mixed = shuffled(labels, generator, groups=groups)
    assert not torch.equal(mixed, labels)
    for start in range(0, 100, 10):
        assert sorted(mixed[start : start + 10].tolist()) == sorted(labels[start : start + 10].tolist())
    with pytest.raises(ShapeError, match="3 groups for 100 labels"):
        shuffled(labels, generator, groups=[1, 2, 3])
