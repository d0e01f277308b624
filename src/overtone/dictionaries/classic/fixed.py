"""Linear dictionaries whose matrices come from elsewhere than training."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.decoders.linear import Linear as LinearDecoder
from overtone.dictionaries.encoders.linear import Linear as LinearEncoder
from overtone.dictionaries.normalisers import Unscaled
from overtone.dictionaries.scores import Magnitude
from overtone.dictionaries.selectors.rank import Rank
from overtone.dictionaries.values import Signed


def signed_projection(encoder: Tensor, decoder: Tensor, centre: Tensor, *, k: int | None = None) -> Autoencoder:
    """The dictionary z = (x - centre) encoder^T, x_hat = z decoder + centre, with signed values.

    encoder, decoder: (latents, width); centre: (width,); k: keep only the k largest magnitudes of each row (None: all).
    """
    n_latents, width = decoder.shape
    selection = Rank("row", n_latents if k is None else k)
    parts = LinearEncoder(width, n_latents), LinearDecoder(width, n_latents)
    model = Autoencoder(Unscaled(), parts[0], Magnitude(), selection, Signed(), parts[1])
    with torch.no_grad():
        parts[0].weight.copy_(encoder)
        parts[1].weight.copy_(decoder)
        parts[1].bias.copy_(centre)
    return model.eval()


def mean_differences(rows: Tensor, labels: Sequence[str]) -> Autoencoder:
    """The supervised baseline: a latent per label, in sorted order, whose atom points from the mean of all rows (rows,
    width) to the mean of the label's, and whose value is the projection on it. Atoms may overlap, so a reconstruction
    from several of them is no good one."""
    kinds = sorted(set(labels))
    member = one_hot(torch.tensor([kinds.index(label) for label in labels]), len(kinds)).to(rows.dtype)
    vectors = normalize(member.T @ rows / member.sum(0)[:, None] - rows.mean(0), dim=1)
    return signed_projection(vectors, vectors, rows.mean(0))
