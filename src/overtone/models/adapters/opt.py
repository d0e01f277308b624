"""OPT: the MLP's layers stand in the block itself; the 350m variant norms the stream after each half."""

from typing import Any

from torch import nn

from overtone.core.catalogue import enrol
from overtone.models.adapter import Adapter, first_path


@enrol("adapters", "opt", model_types=("opt",))
def opt(model: nn.Module) -> Adapter:
    """OPT, with norms before the halves (most sizes) or after them (350m)."""
    config: Any = model.config
    readout = (
        first_path(model, "model.decoder.final_layer_norm", "decoder.final_layer_norm", "final_layer_norm"),
        first_path(model, "model.decoder.project_out", "decoder.project_out", "project_out"),
    )
    return Adapter(
        layers=first_path(model, "model.decoder.layers", "decoder.layers", "layers"),
        attention="self_attn",
        final_norm=tuple(path for path in readout if path),
        head=first_path(model, "lm_head"),
        attn_heads="self_attn.out_proj",
        mlp_in="fc1",
        mlp_neurons="fc2",
        mlp_out="fc2",
        residual_mid="" if config.do_layer_norm_before else "self_attn_layer_norm",
    )
