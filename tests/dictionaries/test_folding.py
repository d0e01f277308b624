"""Folding the input scale away keeps the function, for every selection, normaliser and decoder, and works once."""

import pytest
import torch

from overtone.core.errors import CapabilityError
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.decoders.blocks import Blocks
from overtone.dictionaries.decoders.linear import Linear as LinearDecoder
from overtone.dictionaries.decoders.skip import Skip
from overtone.dictionaries.encoders.gated import Gated
from overtone.dictionaries.encoders.linear import Linear as LinearEncoder
from overtone.dictionaries.normalisers import FixedNorm, Scale, Standardised, Unscaled, ViewScale
from overtone.dictionaries.scores import Magnitude, NormedPreActivation, PreActivation
from overtone.dictionaries.selectors.learned_threshold import LearnedThreshold
from overtone.dictionaries.selectors.rank import Rank
from overtone.dictionaries.selectors.threshold import Threshold
from overtone.dictionaries.values import GatedMagnitude, Jump, Rectified, Signed

WIDTH, LATENTS, K = 6, 20, 4
VIEWS = (2, 4)


def batch(theta):
    made = Rank("batch", K)
    made.theta.fill_(theta)
    return made


SELECTIONS = {
    "row": (lambda: Rank("row", K), PreActivation, Rectified, LinearEncoder),
    "batch": (lambda: batch(0.5), PreActivation, Rectified, LinearEncoder),
    "two-sided": (lambda: batch(0.5), Magnitude, Signed, LinearEncoder),
    "normed": (lambda: batch(0.5), NormedPreActivation, Rectified, LinearEncoder),
    "threshold": (lambda: Threshold(LATENTS, 0.3), PreActivation, Rectified, LinearEncoder),
    "learned": (lambda: LearnedThreshold(LATENTS, 0.4, 0.2), PreActivation, Jump, LinearEncoder),
    "gated": (lambda: Threshold(LATENTS), PreActivation, GatedMagnitude, Gated),
}
UNITS = {
    "one": (Scale, None),
    "views": (lambda: ViewScale(VIEWS), None),
    "two": (Scale, Scale),
    "views to one": (lambda: ViewScale(VIEWS), Scale),
    "one to views": (Scale, lambda: ViewScale(VIEWS)),
    "nothing to one": (Unscaled, Scale),
}
DECODERS = {
    "linear": lambda: LinearDecoder(WIDTH, LATENTS),
    "skip": lambda: Skip(LinearDecoder(WIDTH, LATENTS), WIDTH),
    "blocks": lambda: Blocks(LinearDecoder(WIDTH, LATENTS), VIEWS),
}


def made(selection, units, decoder, generator):
    """A float64 dictionary with random weights, started on states whose coordinates differ in size, and the states."""
    make, score, value, encoder = SELECTIONS[selection]
    normaliser, target = UNITS[units]
    model = Autoencoder(
        normaliser(), encoder(WIDTH, LATENTS), score(), make(), value(), DECODERS[decoder](),
        centred=target is None, target=target and target(),
    ).double().eval().requires_grad_(False)  # fmt: skip
    sizes = torch.tensor([0.01, 0.01, 30.0, 30.0, 30.0, 30.0]).double()
    x, y = (s * torch.randn(50, WIDTH, generator=generator).double() + 1e-3 for s in (sizes, sizes.flip(0) * 7))
    model.start(x, None if target is None else y)
    for name, parameter in model.named_parameters():
        if "log_theta" not in name:
            parameter.add_(0.7 * torch.randn(parameter.shape, generator=generator).double())
    return model, x


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("units", [u for u in UNITS if u != "nothing to one"])
@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_folded_dictionary_is_the_same_function_and_folds_no_more(selection, units, decoder, generator):
    model, x = made(selection, units, decoder, generator)
    if selection == "normed" and decoder != "blocks" and isinstance(model.outward, ViewScale):
        with pytest.raises(CapabilityError, match="lengths of rows, by which latents compete"):
            model.folded()
        return
    folded = model.folded()
    codes, again = model.encode(x), folded.encode(x)
    assert 0 < codes.counts().double().mean() < LATENTS
    torch.testing.assert_close(again.dense(), codes.dense(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(folded.decode(again, x), model.decode(codes, x), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(folded.atoms(), model.atoms(), rtol=1e-5, atol=1e-7)
    with pytest.raises(CapabilityError, match="folded before"):
        folded.folded()


@pytest.mark.parametrize("normaliser", [Unscaled, Standardised, FixedNorm])
def test_what_has_no_scale_or_one_for_every_row_is_not_folded(normaliser, generator):
    model = Autoencoder(
        normaliser(), LinearEncoder(WIDTH, LATENTS), PreActivation(), Rank("row", K), Rectified(),
        LinearDecoder(WIDTH, LATENTS),
    )  # fmt: skip
    with pytest.raises(CapabilityError, match="cannot be folded"):
        model.folded()


def test_folding_keeps_the_dtype_of_every_tensor(generator):
    """A threshold that is kept in float64 beside float32 weights stays so, and so do half-precision weights."""
    model, x = made("batch", "one", "linear", generator)
    model = model.float()
    model.selection.theta = model.selection.theta.double()
    before = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    folded = model.folded()
    kept = {name: tensor.dtype for name, tensor in folded.state_dict().items()}
    assert kept.items() <= before.items() and kept["selection.theta"] == torch.float64
    torch.testing.assert_close(folded.encode(x.float()).dense(), model.encode(x.float()).dense(), rtol=1e-4, atol=1e-5)
    half = model.half()
    assert half.folded().decoder.weight.dtype == torch.float16 and half.folded().selection.theta.dtype == torch.float64
