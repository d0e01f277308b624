"""The norm law holds on true codes, its bound is one, and dictionaries without atoms are refused (card checks 3, 6)."""

import numpy as np
import pytest
import torch
from torch import Tensor

from overtone.core.errors import CapabilityError
from overtone.data.synthetic import plant
from overtone.dictionaries.classic.fixed import signed_projection
from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.dictionary import Capabilities
from overtone.evaluate.afa import coherence, quasi_orthogonality


class TrueCodes:
    """Planted atoms with the codes that made the rows; the atoms have length `norm`."""

    def __init__(self, atoms: Tensor, codes: SparseCodes, norm: float = 1.0) -> None:
        self._atoms, self._codes, self.norm = atoms, codes, norm
        self.n_latents = len(atoms)
        self.capabilities = Capabilities(signed_codes=False, linear_decoder=True, batch_independent=True)

    def encode(self, x: Tensor) -> SparseCodes:
        return SparseCodes(self._codes.values / self.norm, self._codes.indices, self.n_latents)

    def decode(self, codes: SparseCodes, x: Tensor | None = None) -> Tensor:
        return codes.dense() @ (self.norm * self._atoms)

    def atoms(self) -> Tensor:
        return self._atoms

    def atom_norms(self) -> Tensor:
        return torch.full((self.n_latents,), self.norm)


def planted(width, n, active, norm=1.0):
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(n, width, generator=generator), dim=1)
    indices = torch.rand(2000, n, generator=generator).topk(active).indices
    values = 1 + torch.rand(2000, active, generator=generator)
    codes = SparseCodes(values, indices, n)
    return TrueCodes(atoms, codes, norm), codes.dense() @ atoms


@pytest.mark.parametrize(("width", "n", "low", "high"), [(64, 256, 0.04, 0.06), (256, 1024, 0.02, 0.03)])
def test_true_codes_are_as_long_as_their_rows_the_more_so_the_wider_the_space(width, n, low, high):
    for active in (4, 8):
        found = quasi_orthogonality(*planted(width, n, active))
        assert low <= found.gap <= high and found.excess == pytest.approx(1, abs=0.02)
        assert (found.active == active).all()


def test_the_bound_never_exceeds_the_true_coherence_and_is_zero_for_orthonormal_atoms():
    dictionary, x = planted(64, 256, 8)
    found = quasi_orthogonality(dictionary, x)
    assert found.epsilon.max() <= coherence(dictionary) and found.bound > 0
    basis = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(1))).Q
    exact = signed_projection(basis, basis, torch.zeros(16), k=None)
    found = quasi_orthogonality(exact, torch.randn(50, 16, generator=torch.Generator().manual_seed(2)))
    assert found.epsilon.max() < 1e-5 and found.gap < 1e-5


def test_the_length_of_an_atom_counts_and_single_latents_give_no_bound():
    unit, long = planted(64, 256, 4), planted(64, 256, 4, norm=3.0)
    assert quasi_orthogonality(*unit).gap == pytest.approx(quasi_orthogonality(*long).gap, rel=1e-5)
    lonely = quasi_orthogonality(*planted(64, 256, 1))
    assert np.isnan(lonely.epsilon).all() and np.isnan(lonely.bound) and lonely.gap < 1e-5


def test_what_is_no_sum_of_atoms_is_refused():
    dictionary, x = planted(8, 16, 2)
    dictionary.capabilities = Capabilities(signed_codes=False, linear_decoder=False, batch_independent=True)
    with pytest.raises(CapabilityError, match="sum of atoms"):
        quasi_orthogonality(dictionary, x)


def test_coherence_is_that_of_the_planted_atoms():
    truth = plant(20, 16, max_cosine=0.5, seed=0)
    dictionary, _ = planted(16, 20, 2)
    dictionary._atoms = truth.atoms
    assert coherence(dictionary) == pytest.approx(truth.coherence, abs=1e-6)
