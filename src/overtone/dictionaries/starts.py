"""Where rows of untrained dictionaries come from."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from overtone.dictionaries.slices import Slice, being_made

BLOCK = 2**18  # numbers that are drawn at a time
ALIGNED = 16  # torch draws so many numbers together; blocks that are multiples of it give the numbers of one draw


def random_rows(n_latents: int, width: int, generator: torch.Generator) -> Float[Tensor, "rows width"]:
    """Random directions of length 1, one for each latent.

    Inside `slices.making` only those of the latents at hand, the same as they are among all: the others are drawn too,
    block by block, and dropped. So a process never has more than its part, and what follows from the generator
    afterwards is the same everywhere. Parts are made with as many latents as there are rows.
    """
    where = being_made()
    where = where if where is not None and where.n_latents == n_latents else Slice.all(n_latents)
    first, last = where.first, where.first + where.size
    rows = torch.empty(last - first, width)
    for start, stop in _blocks(n_latents, max(ALIGNED, BLOCK // width // ALIGNED * ALIGNED)):
        drawn = torch.randn(stop - start, width, generator=generator)
        low, high = max(first, start), min(last, stop)
        if low < high:
            rows[low - first : high - first] = normalize(drawn[low - start : high - start], dim=1)
    return rows


def _blocks(n: int, size: int) -> list[tuple[int, int]]:
    """Spans of `size`; the last one is longer where less than ALIGNED would be left, which torch draws otherwise."""
    ends = [*range(size, n - ALIGNED + 1, size), n]
    return list(zip([0, *ends[:-1]], ends, strict=True))
