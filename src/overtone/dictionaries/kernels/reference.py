"""What the kernels compute, written densely with torch's own gradients. Slow; the oracle of tests and benchmarks."""

from torch import Tensor

from overtone.dictionaries.codes import Support


def preactivations(
    centred: Tensor, centre: Tensor | float, weight: Tensor, bias: Tensor, u: Tensor, at: Support,
    lengths: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """(n,) entries of (x - centre) weight^T + bias at a support, where `centred` = x - centre; `u` (the same values)
    and `lengths` (of `centred`) are not used."""
    x = (centred + centre).detach()
    return at.take((x - centre) @ weight.T + bias)


def decode(values: Tensor, weight: Tensor, at: Support) -> Tensor:
    """(rows, width) product of the sparse matrix that holds `values` at a support with `weight` (latents, width)."""
    dense = values.new_zeros(at.n_rows * at.n_latents).index_add(0, at.rows * at.n_latents + at.latents, values)
    return dense.view(at.n_rows, at.n_latents) @ weight


def reconstruct(values: Tensor, weight: Tensor, constant: Tensor, target: Tensor, at: Support) -> tuple[Tensor, Tensor]:
    """By how much `decode` plus a constant, (width,) or (rows, width), is above a target (rows, width), and () the sum
    of the squares of that."""
    missed = decode(values, weight, at) + constant - target
    return missed, missed.square().sum()
