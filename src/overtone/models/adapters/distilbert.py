"""DistilBERT: BERT's post-norm blocks under other names."""

from torch import nn

from overtone.core.catalogue import enrol
from overtone.models.adapter import Adapter, first_path


@enrol("adapters", "distilbert", model_types=("distilbert",))
def distilbert(model: nn.Module) -> Adapter:
    """DistilBERT."""
    has_head = bool(first_path(model, "vocab_projector"))
    return Adapter(
        layers=first_path(model, "distilbert.transformer.layer", "transformer.layer"),
        attention="attention",
        mlp="ffn",
        final_norm=("vocab_transform", "activation", "vocab_layer_norm") if has_head else "",
        head="vocab_projector" if has_head else "",
        attn_heads="attention.out_lin",
        mlp_neurons="ffn.lin2",
        residual_mid="sa_layer_norm",
        is_causal=False,
    )
