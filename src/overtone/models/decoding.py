"""What a cached decoding step carries from one call to the next."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from overtone.core.errors import ModelError

SPARE_COLUMNS = 32  # room added, beside a quarter of what is held, whenever a layer's keys and values are moved


@dataclass
class KeyValues:
    """Keys and values of the columns computed so far. `HookedModel.forward` makes and extends it, in place.

    past: the library's own cache object; columns: how many columns it holds; rows: batch size.
    """

    past: Any
    columns: int
    rows: int


class RoomyLayer(DynamicLayer):
    """One layer's keys and values in buffers with room to grow: a step writes its column instead of copying all
    earlier ones (which dominates decoding of many rows on a CPU)."""

    keys: Any
    values: Any

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Empty buffers like the states, (batch, heads, 0, head width)."""
        super().lazy_initialization(key_states, value_states)
        self._key_room, self._value_room = key_states[:, :, :0], value_states[:, :, :0]
        self.keys, self.values = self._key_room, self._value_room

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append columns; returns all keys and all values so far, as views of the buffers."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held, needed = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if needed > self._key_room.shape[-2]:
            room = needed + needed // 4 + SPARE_COLUMNS
            self._key_room, self._value_room = _moved(self.keys, room), _moved(self.values, room)
        self._key_room[:, :, held:needed], self._value_room[:, :, held:needed] = key_states, value_states
        self.keys, self.values = self._key_room[:, :, :needed], self._value_room[:, :, :needed]
        return self.keys, self.values

    def tighten(self) -> None:
        """Keep room for one more column only."""
        room = self.keys.shape[-2] + 1
        self._key_room, self._value_room = _moved(self.keys, room), _moved(self.values, room)
        self.keys, self.values = self._key_room[:, :, : room - 1], self._value_room[:, :, : room - 1]

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows of the batch."""
        if self.is_initialized:
            held = self.keys.shape[-2]
            self._key_room, self._value_room = self._key_room[indices], self._value_room[indices]
            self.keys, self.values = self._key_room[:, :, :held], self._value_room[:, :, :held]


class HeldLength(RoomyLayer):
    """Of a layer that no pass runs through any more: how many columns it held."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns

    def get_seq_length(self) -> int:
        """The columns, from which positions and masks of later layers follow."""
        return self.columns

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Raises ModelError: what was held is gone."""
        raise ModelError("the keys and values of this block were let go. Begin passes after it, with known states.")


def let_go(cache: KeyValues, n_blocks: int) -> None:
    """Give up what the first blocks hold, since all further passes begin after them (`states` of `forward`), and the
    room to grow of the others. Layers of other kinds (with a sliding window) stay as they are."""
    layers = cache.past.layers
    for i, layer in enumerate(layers):
        if type(layer) is RoomyLayer:
            if i < n_blocks:
                layers[i] = HeldLength(cache.columns)
            else:
                layer.tighten()


def _moved(states: Tensor, room: int) -> Tensor:
    buffer = states.new_empty(*states.shape[:-2], room, states.shape[-1])
    buffer[:, :, : states.shape[-2]] = states
    return buffer


def new_cache(model: nn.Module) -> Any:
    """An empty cache of the kind this model decodes with. Raises ModelError for models that keep none."""
    config: Any = getattr(model, "config", None)
    if config is None or getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(model).__name__} keeps no key-value cache. Call logits(...) on the whole text instead."
        )
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def select_rows(cache: KeyValues, keep: Int[Tensor, " kept"]) -> KeyValues:
    """The cache with some rows of the batch only, in the order of `keep` (indices). The cache given is used up.

    Copies what is kept: worth it once a good part of the rows has finished, not after each of them.
    """
    cache.past.batch_select_indices(keep)
    cache.rows = int(keep.shape[0])
    return cache
