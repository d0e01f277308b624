"""Changes of form compute the same function."""

import pytest
import torch

from format_dictionaries import LATENTS, plain, rules, states
from overtone.core.errors import CapabilityError
from overtone.formats.plain import Above, Best, Positive
from overtone.formats.translate import dictionary_of, plain_of

RULES = list(rules())
SIGNED = [name for name, rule in rules().items() if rule.signed]


def run(form):
    """(dense codes, reconstruction) of some states."""
    dictionary, x = dictionary_of(form), states()
    codes = dictionary.encode(x)
    return codes.dense(), dictionary.decode(codes, x)


def same(one, other):
    torch.testing.assert_close(run(one), run(other), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("centred", [True, False])
def test_subtracting_the_constant_or_changing_the_bias_is_the_same(rule, centred):
    form = plain(rule, centred=centred)
    same(form, form.uncentred())
    same(form, form.centred_form())
    assert not form.uncentred().centred and form.centred_form().centred


@pytest.mark.parametrize("rule", SIGNED)
def test_two_one_sided_latents_do_what_a_signed_one_does(rule):
    form = plain(rule)
    codes, reconstruction = run(form)
    halves, whole = run(form.split())
    assert torch.equal(halves[:, :LATENTS] - halves[:, LATENTS:], codes), "products differ in their sign only"
    assert (halves >= 0).all() and not (halves[:, :LATENTS] * halves[:, LATENTS:]).any()
    torch.testing.assert_close(whole, reconstruction, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", [name for name in RULES if name not in SIGNED])
def test_only_signed_codes_are_split(rule):
    with pytest.raises(CapabilityError, match="no signs to split"):
        plain(rule).split()


@pytest.mark.parametrize("rule", ["positive", "gate"])
def test_gates_and_rectifiers_are_thresholds(rule):
    form = plain(rule)
    assert isinstance(form.thresholded().rule, Above)
    same(form, form.thresholded())


@pytest.mark.parametrize("rule", ["positive", "above", "above-signed", "gate"])
def test_unit_rows_change_codes_by_the_row_length_and_reconstructions_not_at_all(rule):
    form = plain(rule)
    assert form.rescaled().unit_rows and not form.unit_rows
    codes, reconstruction = run(form)
    longer, again = run(form.rescaled())
    torch.testing.assert_close(longer, codes * form.decoder.norm(dim=1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(again, reconstruction, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_a_scaled_input_is_folded_into_the_weights(rule):
    form, x = plain(rule), states()
    inside, outside = dictionary_of(form), dictionary_of(form.scaled_input(0.3))
    torch.testing.assert_close(outside.encode(x).dense(), inside.encode(0.3 * x).dense(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outside.reconstruct(x), inside.reconstruct(0.3 * x) / 0.3, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_there_and_back_changes_no_bit(rule, dtype):
    form = plain(rule)
    tensors = {name: getattr(form, name).to(dtype) for name in ("encoder", "bias", "decoder", "constant")}
    form = type(form)(**tensors, rule=form.rule, centred=form.centred)
    back = plain_of(dictionary_of(form))
    for name in tensors:
        assert torch.equal(getattr(back, name), tensors[name]) and getattr(back, name).dtype == dtype
    assert back.centred and type(back.rule) is type(form.rule)


def test_a_rank_that_keeps_all_becomes_a_rectifier():
    assert isinstance(plain("everything").split().rule, Positive)
    assert plain("best-signed").split().rule == Best(3)
