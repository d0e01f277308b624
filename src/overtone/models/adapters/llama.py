"""Llama and its kin: pre-norm, sequential, gated MLP."""

from torch import nn

from overtone.core.catalogue import enrol
from overtone.models.adapter import Adapter, first_path


@enrol("adapters", "llama", model_types=("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3"))
def llama(model: nn.Module) -> Adapter:
    """Llama, Mistral, Qwen2, Qwen3, Gemma 1 and Phi-3."""
    return Adapter(
        layers=first_path(model, "model.layers", "layers"),
        attention="self_attn",
        mlp="mlp",
        final_norm=first_path(model, "model.norm", "norm"),
        head=first_path(model, "lm_head"),
        attn_heads="self_attn.o_proj",
        mlp_neurons="mlp.down_proj",
    )
