"""Non-negative matrix factorisation of many rows, a batch at a time.

Source: Mairal, Bach, Ponce, Sapiro 2010, "Online learning for matrix factorization and sparse coding", JMLR 11, with
non-negative codes and parts. The sums Z^T Z and Z^T X forget as fast as they have seen all rows once, so batches of all
rows give plain alternation (Cichocki and Phan 2009, whose updates of the parts these are).
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from overtone.dictionaries.solvers.nonnegative import nonnegative_least_squares

BATCH_ROWS = 1024
CODE_ROUNDS = 10  # of the codes' splitting: they need not be exact while the parts still move
SWEEPS = 3  # over the parts


def online_nmf(
    x: Float[Tensor, "rows width"], n_latents: int, generator: torch.Generator, *, rounds: int
) -> Float[Tensor, "latents width"]:
    """Parts W >= 0, of length 1, so that x >= 0 is about Z W for some Z >= 0.

    They start as rows of x. A round takes up to 1024 rows, codes them and moves the parts. A part that no row uses
    becomes another row.
    """
    size = min(BATCH_ROWS, len(x))
    parts = normalize(_drawn(x, n_latents, generator), dim=1)
    zz, zx = x.new_zeros(n_latents, n_latents), x.new_zeros(n_latents, x.shape[1])
    order = x.new_zeros(0, dtype=torch.int64)
    for _ in range(rounds):
        if len(order) < size:
            order = torch.cat([order, torch.randperm(len(x), generator=generator)])
        rows, order = x[order[:size]], order[size:]
        codes = nonnegative_least_squares(parts @ parts.T, rows @ parts.T, rounds=CODE_ROUNDS)
        kept = 1 - size / len(x)
        zz, zx = kept * zz + codes.T @ codes, kept * zx + codes.T @ rows
        for _ in range(SWEEPS):
            _sweep(parts, zz, zx)
        length = parts.norm(dim=1)
        unused = (zz.diagonal() <= 1e-12 * zz.diagonal().max()) | (length <= 1e-12)
        length = torch.where(unused, 1.0, length)
        parts, zz, zx = parts / length[:, None], zz * length[:, None] * length, zx * length[:, None]
        parts[unused] = normalize(_drawn(x, int(unused.sum()), generator), dim=1)
    return parts


def _sweep(parts: Tensor, zz: Tensor, zx: Tensor) -> None:
    """One pass over the parts, each to its best value given the others, in place."""
    for j, own in enumerate(zz.diagonal().tolist()):
        if own > 0:
            parts[j] = (parts[j] + (zx[j] - zz[j] @ parts) / own).clamp_min_(0)


def _drawn(x: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n rows, each once where there are enough."""
    order = [torch.randperm(len(x), generator=generator) for _ in range(-(-n // len(x)))]
    return x[torch.cat([*order, torch.zeros(0, dtype=torch.int64)])[:n]]
