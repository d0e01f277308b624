"""An adapter for an architecture nobody described: guessed by structure and usual names, then checked on a few tokens.

What the check refutes becomes absent with the reason, so a site that is offered means what its kind says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from overtone.core.errors import ModelError, OvertoneError
from overtone.core.sites import KINDS, Site
from overtone.models.adapter import PARALLEL, Adapter, first_path

if TYPE_CHECKING:
    from overtone.models.hooked import HookedModel

ATTENTION = ("self_attn", "attn", "attention", "self_attention", "temporal_block", "mixer")
MLP = ("mlp", "ffn", "feed_forward", "ff", "block_sparse_moe", "mlp_block")
HEADS = ("o_proj", "out_proj", "c_proj", "dense", "out_lin", "wo", "proj", "output")
NEURONS = ("down_proj", "c_proj", "fc2", "dense_4h_to_h", "fc_out", "w2", "lin2", "wo", "proj", "linear2")
FINAL_NORM = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "ln_final", "norm_f")
HEAD = ("lm_head", "embed_out", "head", "unembed", "output")
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}  # relative; coarser types get 5e-2
HALVES = ("attn_out", "mlp_out", "residual_mid")
UNKNOWN = "without both halves of the block it cannot be checked what they add; give an Adapter."
NOT_ADDED = "what these modules return does not add up to what the block adds to the stream; give an Adapter."


def by_structure(model: nn.Module) -> Adapter:
    """The most likely adapter by module names. Raises ModelError listing what to give if there are no clear blocks."""
    lists = _lists(model)
    longest = sorted(lists, key=lambda path: len(model.get_submodule(path)), reverse=True)  # type: ignore[arg-type]
    if not longest or (len(longest) > 1 and len(_at(model, longest[0])) == len(_at(model, longest[1]))):
        raise ModelError(_help(model, lists))
    layers = longest[0]
    block, parent = _at(model, layers)[0], layers.rpartition(".")[0]
    attention, mlp = first_path(block, *ATTENTION), first_path(block, *MLP)
    added = (
        "post_attention_layernorm",
        "post_feedforward_layernorm",
    )  # norms after both halves, as in Gemma and OLMo 2
    attn_out, mlp_out = added if all(first_path(block, path) for path in added) else ("", "")
    return Adapter(
        layers=layers,
        attention=attention,
        mlp=mlp,
        final_norm=first_path(model, *(f"{parent}.{name}".lstrip(".") for name in FINAL_NORM)),
        head=_head(model),
        attn_out=attn_out,
        mlp_out=mlp_out,
        attn_heads=attention and first_path(block, *(f"{attention}.{name}" for name in HEADS)),
        mlp_neurons=mlp and first_path(block, *(f"{mlp}.{name}" for name in NEURONS)),
    )


def _at(model: nn.Module, path: str) -> list[nn.Module]:
    return list(model.get_submodule(path).children())


def _lists(model: nn.Module) -> list[str]:
    """Paths of the outermost lists of like blocks; lists inside a block (experts) do not count."""
    found: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential) or any(path.startswith(f"{p}.") for p in found):
            continue
        kinds = {type(child) for child in module.children()}
        if len(kinds) == 1 and any(next(child.children(), None) is not None for child in module.children()):
            found.append(path)
    return found


def _help(model: nn.Module, lists: list[str]) -> str:
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    named = f"{type(model).__name__}" + (f" (model type {model_type!r})" if model_type else "")
    every = [(path, m) for path, m in model.named_modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m)]
    shown = ", ".join(f"{path} ({len(m)} x {type(m[0]).__name__})" for path, m in every[:8]) or "none"
    why = "it has several lists of blocks of one length" if lists else "it has no list of like blocks"
    return (
        f"{named} is not an architecture overtone knows, and {why}. Say where the sites are: HookedModel.wrap(model, "
        "adapter=Adapter(layers=..., attention=..., mlp=..., final_norm=..., head=...)), with layers, final_norm and "
        f"head as paths from the model, the others from a block. Module lists: {shown}."
    )


def _head(model: nn.Module) -> str:
    """Path of the module that maps to the vocabulary."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        return next((path for path, module in model.named_modules() if module is head), "")
    return first_path(model, *HEAD)


# ------------------------------------------------------------------------------------------------------------ the check
@torch.no_grad()
def verified(guess: HookedModel) -> Adapter:
    """The guessed adapter with everything absent that four tokens refute. Raises ModelError if the model cannot be run.

    Checked: each site is reached; stream + attn_out + mlp_out is the next stream; the MLP reads what attention added
    (else the block is parallel); later tokens leave earlier states alone; final norm and head give the logits; padding
    changes nothing.
    """
    tokens = _some_tokens(guess)
    absent: dict[str, str] = {}

    def states(kind: str, layer: int, ids: Tensor = tokens) -> Tensor:
        site = Site(kind, layer)
        return guess.read(ids, None, [site])[site].float()

    _run(guess, tokens)
    for kind in KINDS:
        try:
            states(kind, 0)
        except OvertoneError as error:
            absent[kind] = str(error).rpartition(": ")[2]
    if absent.keys() & {"attn_out", "mlp_out"}:
        absent = dict.fromkeys(HALVES, UNKNOWN) | absent
    elif not _adds_up(guess, states):
        absent |= dict.fromkeys(HALVES, NOT_ADDED)
    elif "mlp_in" not in absent and not _mlp_reads_attention(guess, states):
        absent["residual_mid"] = PARALLEL
    last = guess.n_layers - 1
    stream = states("residual", last)
    changed = torch.cat([tokens[:, :-1], (tokens[:, -1:] + 1) % guess.vocab_size], dim=1)
    is_causal = _close(states("residual", last, changed)[:, :-1], stream[:, :-1], guess)
    if guess.adapter.head and not _reads_out(guess, tokens):
        absent["unembed"] = "final norm and head alone do not give its logits; give an Adapter."
    offset = _position_offset(guess, tokens)
    if offset is None:
        absent["padding"] = "padding changes its states at real tokens; give an Adapter."
    return replace(guess.adapter, absent=absent, is_causal=is_causal, position_offset=offset or 0)


def _some_tokens(guess: HookedModel) -> Tensor:
    """(1, 4) token ids; padding is not among them, as some models number positions by it."""
    pad = getattr(getattr(guess.model, "config", None), "pad_token_id", None)
    return torch.tensor([[token for token in range(min(5, guess.vocab_size)) if token != pad][:4]])


def _position_offset(guess: HookedModel, tokens: Tensor) -> int | None:
    """What to add to position ids so that a padded row has the states of the row alone; None if nothing does."""
    site = Site("residual", guess.n_layers - 1)
    alone = guess.read(tokens, None, [site])[site]
    padding = torch.zeros(1, 2, dtype=torch.int64)
    padded, real = torch.cat([padding, tokens], dim=1), torch.tensor([[False] * 2 + [True] * tokens.shape[1]])
    pad = getattr(getattr(guess.model, "config", None), "pad_token_id", None) or 0
    for offset in (0, pad + 1):
        shifted = type(guess)(guess.model, None, guess.name, replace(guess.adapter, position_offset=offset))
        if not shifted.takes_padding:
            return 0
        if _close(shifted.read(padded, real, [site])[site][:, 2:].float(), alone.float(), guess):
            return offset
    return None


def _run(guess: HookedModel, tokens: Tensor) -> Tensor:
    """Logits (or the last states, without a head) of the tokens in rows."""
    try:
        if guess.adapter.head:
            return guess.logits(tokens)[0].float()
        return _last_rows(guess, tokens).float()
    except (TypeError, RuntimeError, ValueError, AttributeError) as error:
        reason = str(error).split("\n")[0][:200]
        raise ModelError(f"{guess.name} does not run on token ids alone ({reason}). Wrap its text part.") from None


def _last_rows(guess: HookedModel, tokens: Tensor) -> Tensor:
    site = Site("residual", guess.n_layers - 1)
    return guess.read(tokens, None, [site])[site][0]


def _adds_up(guess: HookedModel, states: Callable[..., Tensor]) -> bool:
    for layer in {0, guess.n_layers - 1}:
        before = states("residual", layer - 1) if layer else states("embedding", 0)
        made = before + states("attn_out", layer) + states("mlp_out", layer)
        if not _close(made, states("residual", layer), guess):
            return False
    return True


def _mlp_reads_attention(guess: HookedModel, states: Callable[..., Tensor]) -> bool:
    def double(rows: Tensor, call: Any) -> Tensor:
        return 2 * rows + 1

    plain = states("mlp_in", 0)
    with guess.editing({Site("attn_out", 0): double}):
        return not torch.equal(states("mlp_in", 0), plain)


def _reads_out(guess: HookedModel, tokens: Tensor) -> bool:
    try:
        logits = guess.unembed(_last_rows(guess, tokens)).float()
    except RuntimeError:  # widths that do not fit: something stands between norm and head
        return False
    return _close(logits, _run(guess, tokens), guess)


def _close(a: Tensor, b: Tensor, guess: HookedModel) -> bool:
    dtype = next(guess.model.parameters()).dtype
    return a.shape == b.shape and float((a - b).abs().max()) <= TOLERANCE.get(dtype, 5e-2) * float(1 + b.abs().max())
