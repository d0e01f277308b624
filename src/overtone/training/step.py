"""One training step's forward pass: selection without gradients, then exact sparse values with gradients.

Where more than a tenth of the latents are active (a rectifier before its penalty bites) the dense products are faster;
the step then takes them. Which way it goes is decided on the batch itself, so that a resumed run decides the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from overtone.dictionaries.autoencoder import Autoencoder, Chosen
from overtone.dictionaries.codes import Support
from overtone.dictionaries.selectors.rank import top_indices
from overtone.training.kernels.sparse import decode, preactivations

DENSE_FROM = 0.1  # share of active latents from which dense products are faster
PROBED = 64  # rows on which that share is measured


@dataclass(eq=False)
class Step:
    """The forward pass of one step; see `overtone.dictionaries.objectives.base.StepView` for the fields.

    centred: x less the dictionary's centre, without gradients; chosen: the active places and their pre-activations.
    After a dense pass chosen is None and `values` are (rows, latents) instead of (places,).
    """

    dictionary: Autoencoder
    x: Tensor
    centred: Tensor
    dead: Tensor
    progress: float
    chosen: Chosen | None
    values: Tensor
    x_hat: Tensor
    at: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def fired(self) -> Tensor:
        """(latents,) bool: which latents are active in this batch."""
        active = self.values != 0
        if self.chosen is None:
            return active.any(0)
        counts = torch.zeros(self.dictionary.n_latents, dtype=torch.int32, device=active.device)
        return counts.index_add_(0, self.chosen.support.latents, active.int()) > 0

    def decoded_from(self, latents: Tensor, k: int) -> Tensor:
        """(rows, width) decoding, without the constant, of the k best-scored of some latents in each row."""
        model = self.dictionary
        weight, bias = model.encoder.affine(model.decoder)
        with torch.no_grad():
            few = linear(self.centred, weight[latents], bias[latents])
            scores = model.score(
                model.encoder.heads(few, lambda vector: vector[latents]), lambda vector: vector[latents]
            )
            best = top_indices(scores, k)
            support = Support.from_indices(latents[best], model.n_latents)
        u = preactivations(self.centred, model.centre(), weight, bias, few.gather(1, best).view(-1), support)
        values = model.value(model.encoder.heads(u, support.at), support.at)
        return decode(values, model.decoder.rows(), support)


def forward(dictionary: Autoencoder, x: Tensor, dead: Tensor, progress: float) -> Step:
    """The step of a dictionary on raw states (rows, width); dead and progress as in StepView."""
    with torch.no_grad():
        x = dictionary.normaliser(x)
        centred = x - dictionary.centre()
    sparse = dictionary.selection.has_budget or _share_active(dictionary, centred[:PROBED]) < DENSE_FROM
    return (_sparse if sparse else _dense)(dictionary, x, centred, dead, progress)


def _sparse(model: Autoencoder, x: Tensor, centred: Tensor, dead: Tensor, progress: float) -> Step:
    with torch.no_grad():
        chosen = model.choose(centred, company=True)
    support = chosen.support
    weight, bias = model.encoder.affine(model.decoder)
    u = preactivations(centred, model.centre(), weight, bias, chosen.u, support)
    values = model.value(model.encoder.heads(u, support.at), support.at)
    x_hat = decode(values, model.decoder.rows(), support) + model.decoder.centre()
    return Step(model, x, centred, dead, progress, chosen, values, x_hat, support.at)


def _dense(model: Autoencoder, x: Tensor, centred: Tensor, dead: Tensor, progress: float) -> Step:
    u = linear(x - model.centre(), *model.encoder.affine(model.decoder))
    heads = model.encoder.heads(u, _same)
    with torch.no_grad():
        mask = model.selection.mask(model.score(heads, _same))
    values = model.value(heads, _same) * mask
    x_hat = torch.addmm(model.decoder.centre(), values, model.decoder.rows())
    return Step(model, x, centred, dead, progress, None, values, x_hat, _same)


@torch.no_grad()
def _share_active(model: Autoencoder, centred: Tensor) -> float:
    return len(model.choose(centred, company=True).u) / (len(centred) * model.n_latents)


def _same(vector: Tensor) -> Tensor:
    return vector
