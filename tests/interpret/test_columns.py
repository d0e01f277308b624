"""Codes read column by column are the same whatever they came as."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from overtone.core.errors import DataError, ShapeError
from overtone.dictionaries.codes import SparseCodes
from overtone.interpret.columns import as_columns, to_numpy, two_sided

DENSE = np.array([[0, 1.5, 0, -2], [0, 0, 0, 0], [3, 0, 0, 0.5]], dtype=np.float32)


SPARSE = SparseCodes.from_dense(torch.tensor(DENSE))
FORMS = {"array": DENSE, "tensor": torch.tensor(DENSE), "bfloat16": torch.tensor(DENSE).bfloat16()}
FORMS |= {"scipy": csr_array(DENSE), "sparse codes": SPARSE}


@pytest.mark.parametrize("codes", FORMS.values(), ids=FORMS)
def test_every_kind_of_codes_has_the_same_columns(codes):
    columns = as_columns(codes)
    np.testing.assert_array_equal(columns.toarray(), DENSE)
    assert columns.nnz == 4 and columns.format == "csc"


def test_the_callers_codes_are_left_as_they_were():
    codes = csr_array((np.array([1.0, 0.0]), ([0, 1], [0, 1])), shape=(2, 2))
    as_columns(codes)
    assert codes.nnz == 2


def test_two_sided_codes_split_signs_and_lose_nothing():
    both = two_sided(DENSE)
    assert both.shape == (3, 8) and both.min() >= 0 and both.nnz == 4
    np.testing.assert_array_equal(both[:, :4].toarray() - both[:, 4:].toarray(), DENSE)


def test_a_tensor_that_needs_gradients_is_read():
    assert to_numpy(torch.ones(2, requires_grad=True)).tolist() == [1, 1]


def test_mistakes_are_named():
    with pytest.raises(ShapeError, match="must be \\(rows, latents\\)"):
        as_columns(np.ones(3))
    with pytest.raises(DataError, match="NaN"):
        as_columns(np.array([[np.nan]]))
    with pytest.raises(DataError, match="outside \\[0, 2\\)"):
        as_columns(SparseCodes(torch.ones(1, 1), torch.tensor([[2]]), 2))
