"""The compiled dense product is the product, for all sizes and strides, and the same bits on any number of threads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import matrix_registers
from overtone.core.errors import ShapeError
from overtone.dictionaries.kernels import compiler, native_dense
from overtone.dictionaries.kernels.compiler import BuildError
from overtone.dictionaries.kernels.native import MACHINE, Native
from overtone.dictionaries.kernels.native_dense import NativeProduct

BUILDS = {"machine": (MACHINE,), "AVX2": ("-mavx2", "-mfma"), "portable": ()}


@pytest.fixture(scope="module", params=[*BUILDS, "matrix registers"])
def product(request):
    if request.param == "AVX2" and torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("no AVX2 here")
    try:
        if request.param in BUILDS:
            return NativeProduct(compiler.load(BUILDS[request.param]))
        native = Native(*matrix_registers.using())
        if not native.amx:
            pytest.skip("this processor's registers are too narrow")
        return NativeProduct(native.library, native.amx)
    except BuildError as error:
        pytest.skip(f"no compiled kernels here: {error}")


@pytest.fixture(autouse=True)
def no_size_is_too_small(monkeypatch):
    monkeypatch.setattr(native_dense, "SMALL", 0)


def matrix(rows, columns, *, transposed, seed):
    generator = torch.Generator().manual_seed(seed)
    if transposed:
        return torch.randn(columns, rows + 3, generator=generator)[:, 1 : rows + 1].T
    return torch.randn(rows, columns + 3, generator=generator)[:, 1 : columns + 1]


def exact(a, b):
    return (a.double() @ b.double().T).float()


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 110), n=st.integers(1, 70), k=st.integers(1, 40), a_transposed=st.booleans(),
    b_transposed=st.booleans(), add=st.booleans(), seed=st.integers(0, 9),
)  # fmt: skip
def test_it_is_the_product_of_any_matrices(product, m, n, k, a_transposed, b_transposed, add, seed):
    a, b = matrix(m, k, transposed=a_transposed, seed=seed), matrix(n, k, transposed=b_transposed, seed=seed + 1)
    around = torch.full((m, n + 2), 7.0)
    out = around[:, 1:-1]
    product(a, b, out, add=add)
    torch.testing.assert_close(out, exact(a, b) + 7.0 * add, rtol=1e-4, atol=1e-4)
    assert (around[:, [0, -1]] == 7).all()  # and nothing beside it is written


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e15])
def test_it_is_as_exact_as_sums_in_float32_are(product, scale):
    """Mean squared errors are no larger than those of torch's own product, whose sums are in float32, and of numbers
    that are whole up to 2^24 nothing is lost."""
    a, b = matrix(90, 400, transposed=False, seed=0) * scale, matrix(70, 400, transposed=True, seed=1)
    out, truth = torch.empty(90, 70), a.double() @ b.double().T
    product(a, b, out, add=False)
    wrong, usual = ((found - truth).square().mean().sqrt() for found in (out.double(), (a @ b.T).double()))
    assert wrong < 1.5 * usual
    whole, one = (
        torch.randint(-(2**23), 2**23, (40, 60), generator=torch.Generator().manual_seed(2)).float(),
        torch.eye(60),
    )
    product(whole, one[:50], into := torch.empty(40, 50), add=False)
    assert torch.equal(into, whole[:, :50])


@pytest.mark.parametrize(("m", "n", "k"), [(97, 1030, 513), (300, 31, 700), (13, 600, 256)])
def test_it_is_the_product_where_sums_and_columns_come_in_parts(product, m, n, k):
    for transposed in (False, True):
        a, b = matrix(m, k, transposed=transposed, seed=0), matrix(n, k, transposed=not transposed, seed=1)
        out = torch.empty(m, n)
        product(a, b, out, add=False)
        torch.testing.assert_close(out, exact(a, b), rtol=1e-4, atol=1e-3)
        product(a, b, out, add=True)
        torch.testing.assert_close(out, 2 * exact(a, b), rtol=1e-4, atol=1e-3)


def test_threads_do_not_change_a_bit(product):
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for m, n in ((400, 70), (70, 400)):
                out = torch.ones(m, n)
                a, b = matrix(m, 300, transposed=True, seed=0), matrix(n, 300, transposed=False, seed=1)
                product(a, b, out, add=True)
                found.append(out)
    finally:
        torch.set_num_threads(before)
    for first, other in zip(found[:2] * 2, found[2:], strict=True):
        assert torch.equal(first, other)


def test_what_is_not_a_number_is_not_hidden(product):
    a, b, out = torch.ones(20, 30), torch.ones(40, 30), torch.empty(20, 40)
    a[3, 4], b[5, 6] = torch.nan, torch.inf
    product(a, b, out, add=False)
    assert out[3].isnan().all() and not out[0, 5].isfinite() and int((~out.isfinite()).sum()) == 40 + 19


def test_sizes_that_do_not_fit_are_refused_before_anything_is_read(product):
    for a, b, out in (((9, 8), (7, 6), (9, 7)), ((9, 8), (7, 8), (9, 6)), ((9, 8), (7, 8), (8, 7))):
        with pytest.raises(ShapeError, match="Both factors need one width"):
            product(torch.ones(a), torch.ones(b), torch.ones(out), add=False)


def test_it_says_what_it_serves(product):
    x = torch.ones(2, 2)
    assert product.serves(x, x.T)
    assert not product.serves(x, x.double()) and not product.serves(x.bfloat16()) and not product.serves(x[0])
