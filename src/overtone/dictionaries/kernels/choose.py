"""How places are chosen: with a kernel that fuses product and selection where model and kernel allow it, else as
the dictionary itself does, block by block. The choice is the same, up to scores that differ by rounding alone."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear

from overtone.dictionaries.choice import Chosen, Settle, everywhere
from overtone.dictionaries.kernels.served import served
from overtone.dictionaries.scores import Product, Score
from overtone.dictionaries.scores import product as torch_product
from overtone.dictionaries.selectors.base import Rule
from overtone.dictionaries.values import Value

if TYPE_CHECKING:
    from overtone.dictionaries.autoencoder import Autoencoder

SAMPLE = 64  # rows whose scores a selection may see beforehand
SPARSE = 1 / 16  # share of places that are active up to which finding them one by one is faster

Select = Callable[[Tensor, Tensor, Tensor, Rule, bool], Chosen | None]
"""(centred states, weight, bias, rule, two-sided) -> nominated places, their pre-activations and, where the rule boosts
scores, the boosts' head; or None where the kernel is not made for such sizes. All float32, contiguous and on one
device, both products of the same shapes. Two-sided: scores are magnitudes."""


@torch.no_grad()
def choose(
    model: "Autoencoder", centred: Tensor, *, beside: Mapping[str, Tensor], peaks: bool, settle: Settle | None = None,
    first: int = 0, select: Select | None = None, product: Product = torch_product,
) -> Chosen:  # fmt: skip
    """The active places of a training batch; arguments as for `Autoencoder.choose`, in company."""
    weight, bias = model.encoder.affine(model.decoder)
    usual = (
        select is None or peaks or model.encoder.unrolled or not (_plain(model, bias) and served(centred, weight, bias))
    )
    rule = None if usual else _rule(model, centred, beside)
    found = None if rule is None or select is None else select(centred, weight, bias, rule, model.score.two_sided)
    if found is None:
        return model.choose(
            centred, company=True, beside=beside, peaks=peaks, settle=settle, first=first, product=product
        )
    if settle is None and model.selection.narrows:
        keep = model.selection.narrow(found.support, model.scores(found), centred)
    elif settle is None and not model.selection.rows_compete:
        return found
    else:
        keep = (settle or model.selection.settle)(found.support, model.scores(found))
    if keep is None:
        model.selection.widen()
        return choose(
            model, centred, beside=beside, peaks=peaks, settle=settle, first=first, select=select, product=product
        )
    return found.kept(keep)


@torch.no_grad()
def choose_alone(
    model: "Autoencoder", centred: Tensor, beside: Mapping[str, Tensor], select: Select | None
) -> Chosen | None:
    """The active places of states as `Autoencoder.choose` finds them without company; None where kernel or model do not
    allow it."""
    if select is None or model.encoder.unrolled:
        return None
    weight, bias = model.encoder.affine(model.decoder)
    if not (_plain(model, bias) and served(centred, weight, bias)):
        return None
    rule = _on_preactivations(model, model.selection.alone(), centred, beside)
    if rule is None or (not rule.k and _share(model, centred, beside) > SPARSE):
        return None
    return select(centred, weight, bias, rule, model.score.two_sided)


def _share(model: "Autoencoder", centred: Tensor, beside: Mapping[str, Tensor]) -> float:
    """Which share of the places is active, by some of the rows."""
    step = max(1, len(centred) // SAMPLE)
    rows, near = centred[::step], {name: part[::step] for name, part in beside.items()}
    at = model.selection.nominate(scores_of(model, rows, near), company=False, states=rows)
    return len(at.latents) / (len(rows) * model.n_latents)


def _rule(model: "Autoencoder", centred: Tensor, beside: Mapping[str, Tensor]) -> Rule | None:
    """What is nominated, as a rule about pre-activations that a kernel can follow."""
    if type(model.score).on_preactivations is Score.on_preactivations:
        return None  # nor need the rule be found, which may take a product
    rows, near = centred[:SAMPLE], {name: part[:SAMPLE] for name, part in beside.items()}
    rule = model.selection.rule(lambda: scores_of(model, rows, near), rows)
    return _on_preactivations(model, rule, centred, beside)


def _on_preactivations(
    model: "Autoencoder", rule: Rule | None, centred: Tensor, beside: Mapping[str, Tensor]
) -> Rule | None:
    """A rule about scores as one about pre-activations, if a kernel can follow it."""
    rule = None if rule is None else model.score.on_preactivations(rule, model.decoder, beside)
    if rule is None or rule.boost is None:
        return rule
    rows, weight = rule.boost.rows, rule.boost.weight
    alike = rows.shape == centred.shape and weight.shape == (model.n_latents, model.width)
    return rule if alike and served(rows, weight) else None


def _plain(model: "Autoencoder", bias: Tensor) -> bool:
    """Whether the affine pre-activations are all that is computed densely."""
    probe = bias.new_zeros(1, len(bias))
    return type(model.value).sides is Value.sides and model.encoder.heads(probe, everywhere)["u"] is probe


def scores_of(model: "Autoencoder", rows: Tensor, beside: Mapping[str, Tensor]) -> Tensor:
    """(rows, latents) scores of states less the centre, with what came beside them."""
    u = linear(rows, *model.encoder.affine(model.decoder))
    return model.score(model.heads_of(u, everywhere, model.score.sides(model.decoder, beside)), everywhere)
