"""GPT-2: learned positions, pre-norm, sequential."""

from torch import nn

from overtone.core.catalogue import enrol
from overtone.models.adapter import Adapter, first_path


@enrol("adapters", "gpt2", model_types=("gpt2",))
def gpt2(model: nn.Module) -> Adapter:
    """GPT-2 and DistilGPT-2."""
    return Adapter(
        layers=first_path(model, "transformer.h", "h"),
        attention="attn",
        mlp="mlp",
        final_norm=first_path(model, "transformer.ln_f", "ln_f"),
        head=first_path(model, "lm_head"),
        attn_heads="attn.c_proj",
        mlp_neurons="mlp.c_proj",
    )
