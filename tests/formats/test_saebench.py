"""The object that SAEBench evaluates: its attributes, its shapes, and that it computes what the dictionary does."""

import pytest
import torch

from format_dictionaries import trained
from overtone.core.errors import CapabilityError
from overtone.formats.saebench import SAEBenchObject

LINEAR = ["relu_l1", "gated", "top_k", "batch_top_k", "abs_top_k", "pca", "k_means"]


def made(name):
    return SAEBenchObject(trained(name), site="residual.5", model="pythia-70m-deduped")


@pytest.mark.parametrize("name", LINEAR)
def test_it_computes_what_the_dictionary_does_on_any_leading_shape(name):
    dictionary, bench = trained(name), made(name)
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0)) + 1
    acts = bench.encode(x)
    assert acts.shape == (3, 5, 8) and bench(x).shape == x.shape
    codes = dictionary.encode(x.view(-1, 8)).dense()
    torch.testing.assert_close(acts.view(-1, 8), codes * dictionary.atom_norms(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        bench.decode(acts).view(-1, 8), dictionary.reconstruct(x.view(-1, 8)), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(bench(x), bench.decode(acts))


@pytest.mark.parametrize("name", LINEAR)
def test_its_attributes_are_those_that_sae_bench_reads(name):
    bench = made(name)
    assert bench.W_enc.shape == (8, 8) and bench.W_dec.shape == (bench.cfg.d_sae, bench.cfg.d_in) == (8, 8)
    assert bench.b_enc.shape == bench.b_dec.shape == (8,)
    assert bench.check_decoder_norms() and bench.cfg.architecture == f"overtone_{name}"
    assert bench.cfg.hook_name == "blocks.5.hook_resid_post" and bench.cfg.hook_layer == 5
    assert bench.cfg.to_dict()["model_name"] == "pythia-70m-deduped" and bench.cfg.dtype == "float32"
    assert (bench.device, bench.dtype) == (torch.device("cpu"), torch.float32)


def test_moving_it_keeps_dtype_and_configuration_in_step():
    bench = SAEBenchObject(trained("top_k").folded(), site="residual.5", model="m").to(dtype=torch.bfloat16)
    assert bench.dtype == torch.bfloat16 and bench.cfg.dtype == "bfloat16"
    assert bench.encode(torch.ones(2, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["relu_l1", "top_k", "batch_top_k"])
def test_the_matrices_give_the_pre_activations(name):
    """Where codes are rectified, an active latent's code is its row of W_enc times the centred state plus b_enc."""
    dictionary, bench = trained(name), made(name)
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(0)) + 1
    centre = bench.b_dec if dictionary.centred else 0
    acts = bench.encode(x)
    torch.testing.assert_close(
        ((x - centre) @ bench.W_enc + bench.b_enc)[acts > 0], acts[acts > 0], rtol=1e-3, atol=1e-3
    )


def test_a_decoder_without_a_matrix_is_refused():
    class Odd(type(trained("top_k"))):
        capabilities = property(lambda self: type(trained("top_k").capabilities)(linear_decoder=False))

    odd = trained("top_k").folded()
    odd.__class__ = Odd
    with pytest.raises(CapabilityError, match="one matrix"):
        SAEBenchObject(odd, site="residual.5", model="m")
