"""What a cached decoding step carries from one call to the next."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from overtone.core.errors import ModelError


@dataclass
class KeyValues:
    """Keys and values of the columns computed so far. `HookedModel.forward` makes and extends it, in place.

    past: the library's own cache object; columns: how many columns it holds; rows: batch size.
    """

    past: Any
    columns: int
    rows: int


def new_cache(model: nn.Module) -> Any:
    """An empty cache of the kind this model decodes with."""
    from transformers import DynamicCache

    config = getattr(model, "config", None)
    if config is None or getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(model).__name__} keeps no key-value cache. Call logits(...) on the whole text instead."
        )
    return DynamicCache(config=config)


def select_rows(cache: KeyValues, keep: Int[Tensor, " kept"]) -> KeyValues:
    """The cache with some rows of the batch only, in the order of `keep` (indices). The cache given is used up."""
    cache.past.batch_select_indices(keep)
    cache.rows = int(keep.shape[0])
    return cache
