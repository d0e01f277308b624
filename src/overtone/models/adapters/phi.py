"""Phi 1 and 2: one norm feeds attention and MLP side by side (parallel residual)."""

from torch import nn

from overtone.core.catalogue import enrol
from overtone.models.adapter import PARALLEL, Adapter, first_path


@enrol("adapters", "phi", model_types=("phi",))
def phi(model: nn.Module) -> Adapter:
    """Phi-1, Phi-1.5 and Phi-2."""
    return Adapter(
        layers=first_path(model, "model.layers", "layers"),
        attention="self_attn",
        mlp="mlp",
        final_norm=first_path(model, "model.final_layernorm", "final_layernorm"),
        head=first_path(model, "lm_head"),
        attn_heads="self_attn.dense",
        mlp_neurons="mlp.fc2",
        absent={"residual_mid": PARALLEL},
    )
