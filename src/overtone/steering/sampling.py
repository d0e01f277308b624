"""How the next token is chosen, so that a row's text depends on nothing but its own prompt, key and seed.

Every row has its own stream of uniforms, derived from (seed, row key); a token is the point where the cumulative
distribution, in vocabulary order, passes the uniform. So the batch a row is in does not matter, and two doses of one
edit share their random numbers row by row.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from overtone.core.errors import DataError
from overtone.core.seeds import derive


def row_uniforms(seed: int, row_keys: Sequence[int], n: int) -> Float[Tensor, "rows steps"]:
    """(rows, n) float32 in [0, 1): row i depends on seed and row_keys[i] only, and a smaller n gives a prefix."""
    rows = [
        np.random.Generator(np.random.Philox(derive(seed, "row", key))).random(n, dtype=np.float32) for key in row_keys
    ]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, n)


def choose(
    logits: Float[Tensor, "rows vocabulary"], uniforms: Float[Tensor, " rows"], temperature: float
) -> Int[Tensor, " rows"]:
    """One token id per row: the inverse of the cumulative softmax(logits / temperature) at `uniforms`; argmax at 0.

    Tokens of probability 0 are never chosen. Raises DataError if a row of logits is not finite.
    """
    if temperature == 0:
        _refuse_nan(logits.sum(-1))
        return logits.argmax(-1)
    cumulative = (logits.float() / temperature).softmax(-1).cumsum(-1)
    total = cumulative[:, -1:]
    _refuse_nan(total)
    target = uniforms[:, None].to(total) * total
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp_max(logits.shape[1] - 1)


def _refuse_nan(sums: Tensor) -> None:
    if bool(torch.isnan(sums).any()):
        raise DataError(
            "the model's logits are not finite. Load it in float32 or bfloat16 instead of float16, "
            "or lower the strength."
        )
