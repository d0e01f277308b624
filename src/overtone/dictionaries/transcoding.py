"""What transcoders share: dictionaries that read one kind of states and reconstruct another."""

import torch

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.decoders.linear import Linear as LinearDecoder
from overtone.dictionaries.decoders.skip import Skip
from overtone.dictionaries.encoders.linear import Linear as LinearEncoder
from overtone.dictionaries.normalisers import Scale
from overtone.dictionaries.scores import PreActivation
from overtone.dictionaries.selectors.base import Selection
from overtone.dictionaries.starts import random_rows
from overtone.dictionaries.values import Rectified


def linear_transcoder(
    width: int, selection: Selection, generator: torch.Generator, *, n_latents: int, width_out: int | None = None,
    row_norm: float = 0.0, skip: bool = False,
) -> Autoencoder:  # fmt: skip
    """A transcoder with linear encoder and decoder and a scale for each side, initialised and in eval mode.

    width_out: of the predicted states (None: as of those it reads). Encoder rows are random unit directions, decoder
    rows random directions of length `row_norm`; biases are zero, and so is the straight way, where there is one
    (`skip`). No constant is subtracted before encoding: it belongs to the other side.
    """
    width_out = width if width_out is None else width_out
    inward, outward = random_rows(n_latents, width, generator), random_rows(n_latents, width_out, generator)
    encoder, decoder = LinearEncoder(width, len(inward)), LinearDecoder(width_out, len(outward))
    encoder.weight.data.copy_(inward)
    decoder.weight.data.copy_(outward * row_norm)
    model = Autoencoder(
        Scale(), encoder, PreActivation(), selection, Rectified(), Skip(decoder, width) if skip else decoder,
        centred=False, target=Scale(),
    )  # fmt: skip
    return model.eval()
