"""Pursuits: each step helps, atoms used leave nothing behind, and better solvers reconstruct better from equal
atoms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.core.errors import CapabilityError, SettingError
from overtone.data.synthetic import plant
from overtone.dictionaries.dictionary import Capabilities
from overtone.dictionaries.presets.abs_top_k import AbsTopK
from overtone.dictionaries.presets.pca import PCA
from overtone.dictionaries.presets.top_k import TopK
from overtone.dictionaries.pursuit import Pursuit
from overtone.dictionaries.solvers.nonnegative import nonnegative_least_squares
from overtone.dictionaries.solvers.pursuit import METHODS, gradient, matching, orthogonal
from overtone.dictionaries.storage import load_dictionary, save_dictionary
from overtone.evaluate.reconstruction import fvu
from overtone.training.fit import fit

PLANTED = plant(96, 24, max_cosine=0.7, seed=0)
X = PLANTED.sample(4000, active=3, seed=0, noise=0.05).x
HELD_OUT = PLANTED.sample(1000, active=3, seed=1, noise=0.05).x


@pytest.fixture(scope="module")
def host():
    return fit(TopK(96, k=3), X, n_tokens=60_000, batch_rows=250, lr=4e-3, quiet=True).dictionary


def unit_rows(n, width, seed=0):
    return torch.nn.functional.normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def rows(n, width, seed=1):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def residuals(codes, x, atoms):
    return x - codes.dense() @ atoms


def test_better_pursuits_reconstruct_better_and_all_beat_the_encoder_at_its_k(host):
    error = {m: fvu(HELD_OUT, Pursuit(host, m, k=3).reconstruct(HELD_OUT)) for m in METHODS}
    assert error["orthogonal"] <= error["gradient"] <= error["matching"] <= fvu(HELD_OUT, host.reconstruct(HELD_OUT))
    signed = {m: fvu(HELD_OUT, Pursuit(host, m, k=3, signed=True).reconstruct(HELD_OUT)) for m in METHODS}
    assert all(signed[m] <= error[m] for m in METHODS), "codes of either sign can do no worse"


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("method", list(METHODS))
def test_no_step_makes_a_row_worse(method, signed):
    atoms, x = unit_rows(64, 32), rows(50, 32)
    norms = [x.norm(dim=1)]
    for k in (1, 2, 4, 8, 16, 32):
        codes = METHODS[method](x, atoms, k, signed=signed)
        assert codes.counts().max() <= k and (signed or codes.values.min() >= 0)
        norms.append(residuals(codes, x, atoms).norm(dim=1))
    assert all((after <= before + 1e-4).all() for before, after in zip(norms, norms[1:], strict=False))


def test_matching_pursuit_is_what_its_definition_says_by_hand():
    atoms, x = unit_rows(20, 12), rows(7, 12)
    for signed in (True, False):
        codes = matching(x, atoms, 6, signed=signed).dense()
        for row, found in zip(x, codes, strict=True):
            r, z = row.clone(), torch.zeros(20)
            for _ in range(6):
                c = atoms @ r
                j = (c.abs() if signed else c).argmax()
                z[j] += c[j]
                r -= c[j] * atoms[j]
                assert abs(r @ atoms[j]) < 1e-5
            torch.testing.assert_close(found, z, atol=1e-4, rtol=1e-4)


def test_both_ways_of_following_the_correlations_agree(monkeypatch):
    atoms, x = unit_rows(40, 16), rows(30, 16)
    by_gram = matching(x, atoms, 12, signed=True).dense()
    monkeypatch.setattr("overtone.dictionaries.solvers.pursuit.LARGEST_GRAM", 0)
    torch.testing.assert_close(matching(x, atoms, 12, signed=True).dense(), by_gram, atol=1e-4, rtol=1e-4)


def test_atoms_that_come_again_add_up():
    codes = matching(rows(200, 32), unit_rows(64, 32), 32, signed=True)
    assert codes.counts().float().mean() < 31, "some atoms must have come twice"
    torch.testing.assert_close(codes.dense().sum(1), codes.values.sum(1))
    assert (
        residuals(codes, rows(200, 32), unit_rows(64, 32)).norm(dim=1).mean() < 0.25 * rows(200, 32).norm(dim=1).mean()
    )


def test_on_an_orthonormal_basis_all_pursuits_are_the_largest_projections():
    basis, x = torch.linalg.qr(rows(16, 16))[0], rows(40, 16)
    projections = x @ basis.T
    for signed in (True, False):
        scores = projections.abs() if signed else projections.clamp_min(0)
        chosen = scores.topk(5).indices
        wanted = torch.zeros_like(x).scatter_(1, chosen, (projections if signed else scores).gather(1, chosen))
        for method in METHODS.values():
            torch.testing.assert_close(method(x, basis, 5, signed=signed).dense(), wanted, atol=1e-4, rtol=1e-4)


def test_one_step_takes_the_atom_that_brute_force_takes():
    atoms, x = unit_rows(30, 8), rows(25, 8)
    errors = (x[:, None] - (x @ atoms.T)[..., None] * atoms).norm(dim=2)
    for method in METHODS.values():
        assert torch.equal(method(x, atoms, 1, signed=True).indices[:, 0], errors.argmin(1))


def test_orthogonal_pursuit_leaves_nothing_along_the_atoms_it_used():
    atoms, x = unit_rows(40, 16), rows(30, 16)
    codes = orthogonal(x, atoms, 6, signed=True)
    along = (residuals(codes, x, atoms) @ atoms.T).gather(1, codes.indices)
    assert along.abs().max() < 1e-4 and (codes.counts() == 6).all()


def test_what_a_row_lacks_is_not_pursued_and_nothing_divides_by_zero():
    atoms = unit_rows(6, 6)
    exact = torch.stack([2 * atoms[0], torch.zeros(6), -atoms[1]])
    for method in (matching, orthogonal, gradient):
        codes = method(exact, atoms, 5, signed=False)
        assert torch.isfinite(codes.values).all() and codes.counts()[:2].tolist() == [1, 0]
    twice = torch.cat([atoms, atoms])
    for method in (matching, orthogonal, gradient):
        assert torch.isfinite(method(rows(9, 6), twice, 12, signed=True).values).all()


def test_rows_rest_once_their_residual_is_small_enough():
    atoms, x = unit_rows(64, 16), rows(100, 16)
    for method in METHODS.values():
        codes = method(x, atoms, 40, signed=True, tolerance=0.3)
        left = residuals(codes, x, atoms).norm(dim=1) / x.norm(dim=1)
        fewer = method(x, atoms, 3, signed=True, tolerance=0.3)
        assert left.max() <= 0.3 + 1e-3 and codes.counts().float().mean() < 20
        assert (fewer.counts() <= codes.counts()).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), latents=st.integers(1, 5))
def test_non_negative_least_squares_agrees_with_scipy(seed, latents):
    from scipy.optimize import nnls

    atoms, x = rows(latents, 12, seed).double(), rows(5, 12, seed + 1).double()
    z = nonnegative_least_squares(atoms @ atoms.T, x @ atoms.T)
    for row, found in zip(x, z, strict=True):
        best = nnls(atoms.T.numpy(), row.numpy())[1]
        assert (row - found @ atoms).norm() <= best + 1e-4 and found.min() >= 0


@pytest.mark.parametrize("latents", [6, 12, 40])
def test_rows_that_share_their_atoms_get_the_least_error_too(latents):
    """Fewer atoms than the states are wide, as many, and more: the two algorithms and scipy agree on the error."""
    from scipy.optimize import nnls

    atoms, x = rows(latents, 12, 3).double().abs(), rows(30, 12, 4).double()
    gram, target = atoms @ atoms.T, x @ atoms.T
    best = torch.tensor([nnls(atoms.T.numpy(), row.numpy())[1] for row in x], dtype=torch.float64)
    for z in (nonnegative_least_squares(gram, target), nonnegative_least_squares(gram.expand(30, -1, -1), target)):
        torch.testing.assert_close((x - z @ atoms).norm(dim=1), best, atol=1e-3, rtol=1e-3)
        assert z.min() >= 0
    alone = nonnegative_least_squares(gram, target[:1])
    torch.testing.assert_close(alone @ atoms, (nonnegative_least_squares(gram, target) @ atoms)[:1], atol=1e-6, rtol=0)
    torch.testing.assert_close(
        nonnegative_least_squares(gram, 100 * target), 100 * nonnegative_least_squares(gram, target), rtol=1e-9, atol=0
    )


def test_atoms_of_length_0_are_never_used():
    atoms = torch.cat([rows(5, 12, 3), torch.zeros(2, 12)])
    z = nonnegative_least_squares(atoms @ atoms.T, rows(9, 12, 4) @ atoms.T)
    assert torch.isfinite(z).all() and not z[:, 5:].any()


def test_a_pursuit_is_a_dictionary_of_the_same_atoms(host, tmp_path):
    made = Pursuit(host, "orthogonal", k=3)
    assert torch.equal(made.atoms(), host.atoms()) and not made.capabilities.has_encoder_matrix
    loaded = load_dictionary(save_dictionary(made, tmp_path / "made"))
    codes = made.encode(HELD_OUT)
    assert torch.equal(loaded.encode(HELD_OUT).dense(), codes.dense()) and loaded.origin == made.origin
    torch.testing.assert_close(made.encode(HELD_OUT[:1]).dense(), codes.dense()[:1])


def test_codes_are_in_the_hosts_units_whatever_its_row_norms():
    """A host whose rows are not of length 1 must get codes that decode to the same reconstruction."""
    pca = fit(PCA(24), X, n_tokens=len(X)).dictionary
    exact = Pursuit(pca, k=24).reconstruct(HELD_OUT)
    torch.testing.assert_close(exact, HELD_OUT, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        pca.decoder.weight.mul_(3.0)
    torch.testing.assert_close(Pursuit(pca, k=24).reconstruct(HELD_OUT), HELD_OUT, atol=1e-4, rtol=1e-4)


def test_signs_follow_the_host():
    signed = AbsTopK(16, k=2).build(8, torch.Generator().manual_seed(0))
    assert Pursuit(signed, k=2).capabilities.signed_codes
    assert not Pursuit(TopK(16, k=2).build(8, torch.Generator().manual_seed(0)), k=2).capabilities.signed_codes


def test_what_cannot_be_pursued_is_refused(host, monkeypatch):
    with pytest.raises(SettingError, match="Did you mean 'matching'"):
        Pursuit(host, "matchin", k=3)
    with pytest.raises(SettingError, match="use 1 to 96"):
        Pursuit(host, k=97)
    monkeypatch.setattr(type(host), "capabilities", property(lambda _: Capabilities(decode_needs_input=True)))
    with pytest.raises(CapabilityError, match="nothing to pursue"):
        Pursuit(host, k=3)
