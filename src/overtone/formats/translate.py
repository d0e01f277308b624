"""Between dictionaries and the canonical form: what their parts mean as matrices and a rule."""

import torch
from torch import Tensor

from overtone.core.errors import CapabilityError
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.decoders.base import Decoder
from overtone.dictionaries.decoders.linear import Linear as LinearDecoder
from overtone.dictionaries.decoders.skip import Skip
from overtone.dictionaries.dictionary import Dictionary
from overtone.dictionaries.encoders.base import Encoder
from overtone.dictionaries.encoders.gated import Gated
from overtone.dictionaries.encoders.gaussian import Gaussian
from overtone.dictionaries.encoders.linear import Linear as LinearEncoder
from overtone.dictionaries.encoders.tied import Tied
from overtone.dictionaries.encoders.unrolled import Unrolled
from overtone.dictionaries.normalisers import FixedNorm, Normaliser, Standardised, Unscaled
from overtone.dictionaries.parts import Part
from overtone.dictionaries.sampling import Drawn, DrawnMagnitude
from overtone.dictionaries.scores import GradientWeighted, Magnitude, PreActivation
from overtone.dictionaries.selectors.base import Selection
from overtone.dictionaries.selectors.rank import Rank
from overtone.dictionaries.selectors.threshold import Threshold
from overtone.dictionaries.values import GatedMagnitude, Jump, Rectified, Signed, Value
from overtone.formats.plain import Above, Best, Gate, Plain, Positive, Pursuit, Rule

ROWS: dict[str, type[Normaliser]] = {"": Unscaled, "standardised": Standardised, "fixed_norm": FixedNorm}


def plain_of(dictionary: Dictionary) -> Plain:
    """The canonical form of a dictionary, its input scale folded in; the tensors are the (folded) dictionary's own.

    Raises CapabilityError, naming the part, for a dictionary that is no linear code with a rank, a threshold or gates.
    """
    model = folded(dictionary)
    weight, bias = model.encoder.affine(model.decoder)
    return Plain(
        encoder=weight.detach(),
        bias=bias.detach(),
        decoder=model.decoder.rows().detach(),
        constant=model.decoder.centre().detach(),
        rule=_rule_of(model),
        centred=model.centred,
        skip=model.decoder.weight.detach() if isinstance(model.decoder, Skip) else None,
        other_space=model.target is not None,
        rows=next(name for name, kind in ROWS.items() if isinstance(model.normaliser, kind)),
    )


def folded(dictionary: Dictionary) -> Autoencoder:
    """The dictionary without input scaling, if it has parts that the canonical form can express: what they do in eval
    mode and from states alone, without noise and gradients.

    Raises CapabilityError, naming the part, if not.
    """
    if not isinstance(dictionary, Autoencoder):
        raise CapabilityError(_refusal(dictionary.kind))
    model = dictionary.folded() if dictionary.capabilities.foldable else dictionary
    decoder = model.decoder.inner if isinstance(model.decoder, Skip) else model.decoder
    for part, allowed in (
        (model.normaliser, tuple(ROWS.values())),
        (model.encoder, (LinearEncoder, Tied, Gated, Gaussian, Unrolled)),
        (model.score, (PreActivation, Magnitude, DrawnMagnitude, GradientWeighted)),
        (model.value, (Rectified, Signed, Jump, GatedMagnitude, Drawn)),
        (decoder, (LinearDecoder,)),
    ):
        if not isinstance(part, allowed):
            raise CapabilityError(_refusal(part.kind))
    return model


def _refusal(kind: str) -> str:
    return (
        f"other formats hold matrices and a rank, a threshold or gates; this dictionary has {kind}, which is none of "
        "them. Keep it as it is in overtone's own format (--to overtone)."
    )


def _rule_of(model: Autoencoder) -> Rule:
    selection, signed = model.selection, model.value.signed
    gated = isinstance(model.encoder, Gated)
    if signed != model.score.two_sided or gated != isinstance(model.value, GatedMagnitude):
        raise CapabilityError(_refusal(f"{model.encoder.kind} and {model.score.kind} with {model.value.kind}"))
    if isinstance(model.encoder, Gated):
        if not isinstance(selection, Threshold) or bool(selection.theta.any()):
            raise CapabilityError(_refusal(f"{model.encoder.kind} with {selection.kind}"))
        return Gate(model.encoder.log_gain.detach(), model.encoder.magnitude_bias.detach())
    if isinstance(model.encoder, Unrolled):
        if model.encoder.tolerance:
            raise CapabilityError(_refusal(f"{model.encoder.kind} with a tolerance"))
        return Pursuit(model.encoder.steps)
    if selection.has_threshold_form:
        theta = selection.theta.detach().float().expand(model.n_latents).clone()
        return Positive() if not signed and not bool(theta.any()) else Above(theta, signed)
    if isinstance(selection, Rank) and selection.scope == "row":
        return Best(selection.per_row, signed)
    raise CapabilityError(_refusal(selection.kind))


def dictionary_of(plain: Plain) -> Autoencoder:
    """The dictionary that a canonical form describes, in eval mode, its tensors kept bit for bit.

    Raises CapabilityError for rows that are normalised one by one and then skip the code.
    """
    if plain.skip is not None and plain.rows:
        raise CapabilityError(
            "a skip past the latents of rows that are normalised one by one: overtone has no such part."
        )
    model = Autoencoder(
        ROWS[plain.rows](),
        _encoder_of(plain),
        Magnitude() if plain.rule.signed else PreActivation(),
        _selection_of(plain),
        _value_of(plain),
        _decoder_of(plain),
        centred=plain.centred,
        target=Unscaled() if plain.other_space else None,
    )
    return model.eval().requires_grad_(False)


def _fill(part: Part, **tensors: Tensor) -> None:
    """Give a part's parameters the values, and the precision, of tensors."""
    for name, tensor in tensors.items():
        getattr(part, name).data = tensor.detach().clone(memory_format=torch.contiguous_format)


def _decoder_of(plain: Plain) -> Decoder:
    decoder = LinearDecoder(plain.decoder.shape[1], plain.n_latents)
    _fill(decoder, weight=plain.decoder, bias=plain.constant)
    if plain.skip is None:
        return decoder
    skipping = Skip(decoder, plain.width)
    _fill(skipping, weight=plain.skip)
    return skipping


def _encoder_of(plain: Plain) -> Encoder:
    n_latents, width = plain.encoder.shape
    if isinstance(plain.rule, Pursuit):
        return Unrolled(plain.rule.steps)
    if isinstance(plain.rule, Gate):
        encoder = Gated(width, n_latents)
        _fill(encoder, log_gain=plain.rule.log_ratio, magnitude_bias=plain.rule.magnitude_bias)
    else:
        encoder = LinearEncoder(width, n_latents)
    _fill(encoder, weight=plain.encoder, bias=plain.bias)
    return encoder


def _value_of(plain: Plain) -> Value:
    if isinstance(plain.rule, Gate):
        return GatedMagnitude()
    return Signed() if plain.rule.signed else Rectified()


def _selection_of(plain: Plain) -> Selection:
    if isinstance(plain.rule, Best):
        return Rank("row", plain.rule.k)
    if isinstance(plain.rule, Pursuit):
        return Rank("row", plain.rule.steps)
    selection = Threshold(plain.n_latents)
    if isinstance(plain.rule, Above):
        selection.theta.copy_(plain.rule.theta.to(torch.float32))
    return selection
