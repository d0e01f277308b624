"""GPT-NeoX: attention and MLP both read the block's input (parallel residual), unless the config says otherwise."""

from typing import Any

from torch import nn

from overtone.core.catalogue import enrol
from overtone.models.adapter import PARALLEL, Adapter, first_path


@enrol("adapters", "gpt_neox", model_types=("gpt_neox",))
def gpt_neox(model: nn.Module) -> Adapter:
    """GPT-NeoX and Pythia."""
    config: Any = model.config
    return Adapter(
        layers=first_path(model, "gpt_neox.layers", "layers"),
        attention="attention",
        mlp="mlp",
        final_norm=first_path(model, "gpt_neox.final_layer_norm", "final_layer_norm"),
        head=first_path(model, "embed_out", "lm_head"),
        attn_heads="attention.dense",
        mlp_neurons="mlp.dense_4h_to_h",
        absent={"residual_mid": PARALLEL} if config.use_parallel_residual else {},
    )
