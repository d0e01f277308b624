"""Builds what the kernels for GPUs launch, for a GPU that need not be there; prints their names. Run by a test."""

import itertools
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from overtone.dictionaries.codes import Support
from overtone.dictionaries.kernels import triton_int8, triton_rows, triton_select, triton_sparse
from overtone.dictionaries.kernels.triton_update import TritonUpdate
from overtone.dictionaries.kernels.update import Moments
from overtone.dictionaries.normalisers import Scale
from overtone.dictionaries.selectors.base import Boost, Rule

HOPPER = GPUTarget("cuda", 90, 32)
TYPES = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16",
         torch.int64: "i64", torch.int32: "i32", torch.int8: "i8"}  # fmt: skip


def kind(value):
    """The type of an argument as Triton names it."""
    if isinstance(value, torch.Tensor):
        return f"*{TYPES[value.dtype]}"
    if isinstance(value, TensorDescriptor):
        return f"tensordesc<{TYPES[value.base.dtype]}{value.block_shape}>"
    return "fp32" if isinstance(value, float) else "i32"


def build(kernel, *args, grid, warmup, **kwargs):
    """In place of a launch: build the kernel for such arguments."""
    options = {name: kwargs.pop(name) for name in ("num_warps", "num_stages") if name in kwargs}
    values = {**dict(zip(kernel.arg_names, args, strict=False)), **kwargs}
    constants = {p.name: values[p.name] for p in kernel.params if p.is_constexpr}
    types = {name: "constexpr" if name in constants else kind(values[name]) for name in kernel.arg_names}
    triton.compile(ASTSource(kernel, types, constants), target=HOPPER, options=options)
    sys.stdout.write(f"{kernel.__name__}\n")


def zeros(make):
    """A function that makes tensors, with zeros in them: nothing is computed here, and indices must be some."""
    return lambda *args, **kwargs: make(*args, **kwargs).zero_()


def main():
    JITFunction.run = build
    torch.empty, torch.empty_like = zeros(torch.empty), zeros(torch.empty_like)
    torch.Tensor.new_empty = zeros(torch.Tensor.new_empty)
    x, weight, bias = torch.randn(3, 40), torch.randn(200, 40), torch.zeros(200)
    boost = Boost(x, weight, "pull")
    for precision, two_sided, rule in itertools.product(
        ("high", "highest"), (False, True), (Rule(k=5), Rule(k=5, boost=boost), Rule(floor=1.0))
    ):
        torch.set_float32_matmul_precision(precision)
        triton_select.select(x, weight, bias, rule, two_sided)
    triton_int8.is_fast, triton_select.LARGE = lambda device: True, 0
    wide, parameter = torch.randn(3, 48), torch.nn.Parameter(torch.randn(208, 48))
    for two_sided in (False, True):
        triton_select._RESTS.clear()  # zeros leave all in doubt
        triton_select.select(wide, parameter.detach(), torch.zeros(208), Rule(k=5), two_sided)
    triton_rows.in_units(Scale(), x, x[0])
    by_row = Support.from_indices(torch.arange(6).view(3, 2), 200)
    ragged = Support(by_row.rows, by_row.latents, 3, 200)
    for precision, at, dtype in itertools.product(
        ("high", "highest"), (by_row, ragged), (torch.float32, torch.bfloat16, torch.float64)
    ):
        torch.set_float32_matmul_precision(precision)
        values, rows = torch.ones(6, dtype=dtype), weight.to(dtype)
        triton_sparse.TRITON.bags(values, rows, at)
        triton_sparse.TRITON.sum_by_latent(values, x.to(dtype), at)
        triton_sparse.TRITON.products(x.to(dtype), rows, at)
        triton_sparse.TRITON.towards(values, rows, rows[0], x.to(dtype), at)
        triton_sparse.TRITON.towards(values, rows, x.to(dtype), x.to(dtype), at)
    triton_int8.weights_of(parameter, wide)
    for unit, scale, at in itertools.product((False, True), (None, torch.ones(())), (weight, parameter)):
        one = Moments(at, at, at, at, torch.zeros(()), unit)
        TritonUpdate().norm([one])
        TritonUpdate().adam([one], 0.1, (0.9, 0.999), scale)


if __name__ == "__main__":
    main()
