"""Crosscoders: what is shared by two views and what is one view's own, whatever the views' scales."""

import pytest
import torch

from overtone.activations.aligned import AlignedSources
from overtone.activations.array import ArraySource
from overtone.core.batch import ActivationBatch, Where
from overtone.core.errors import CapabilityError, SettingError, ShapeError
from overtone.core.sites import Site
from overtone.data.synthetic import plant
from overtone.dictionaries.decoders.blocks import Blocks
from overtone.dictionaries.decoders.linear import Linear
from overtone.dictionaries.presets.crosscoder import Crosscoder
from overtone.dictionaries.presets.top_k import TopK
from overtone.evaluate.diffing import relative_norms, view_shares
from overtone.training.fit import fit

A, B = Site("residual", 0), Site("residual", 1)
PRESETS = [Crosscoder(48, k=2), Crosscoder(48, sparsity=0.2)]
NAMES = ["budget", "price"]


def trained(preset, a, b, n_tokens=100_000):
    return fit(preset, {A: a, B: b}, site=(A, B), n_tokens=n_tokens, batch_rows=250, lr=4e-3, quiet=True).dictionary


def alive(dictionary, x):
    return dictionary.encode(x).frequencies() > 0.01


@pytest.mark.parametrize("preset", PRESETS, ids=NAMES)
def test_on_two_identical_views_every_living_latent_is_half_and_half(preset, generator):
    a = torch.randn(3000, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    dictionary = trained(preset, a, 50 * a)
    x = torch.cat([a, 50 * a], 1)
    ratios = relative_norms(dictionary)[alive(dictionary, x)]
    assert len(ratios) > 10 and (ratios - 0.5).abs().max() < 0.02


@pytest.mark.parametrize("preset", PRESETS, ids=NAMES)
def test_shared_and_own_features_show_as_three_heaps(preset, generator):
    """Twelve features in both views, twelve in the first, twelve in the second."""
    one, two = (plant(36, 32, max_cosine=0.4, seed=s).atoms for s in (0, 1))
    codes = (torch.rand(3000, 36, generator=generator) < 0.06) * (1 + torch.rand(3000, 36, generator=generator))
    a, b = codes[:, :24] @ one[:24], codes[:, 12:] @ two[12:]
    dictionary = trained(preset, a, 7 * b)
    x = torch.cat([a, 7 * b], 1)
    ratios = relative_norms(dictionary)[alive(dictionary, x)]
    heaps = [(ratios < 0.15), (ratios - 0.5).abs() < 0.15, (ratios > 0.85)]
    assert all(int(heap.sum()) >= 8 for heap in heaps), sorted(ratios.tolist())
    assert float(torch.stack(heaps).any(0).float().mean()) > 0.8, sorted(ratios.tolist())


@pytest.mark.parametrize("preset", PRESETS, ids=NAMES)
def test_folding_views_of_different_scales_changes_nothing(preset, generator):
    a, b = torch.randn(1000, 6, generator=generator) + 1, 300 * torch.randn(1000, 6, generator=generator)
    dictionary = trained(preset, a, b, 20_000)
    x, folded = torch.cat([a, b], 1), dictionary.folded()
    torch.testing.assert_close(folded.encode(x).dense(), dictionary.encode(x).dense(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(folded.reconstruct(x)[:, :6], dictionary.reconstruct(x)[:, :6], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(folded.reconstruct(x)[:, 6:], dictionary.reconstruct(x)[:, 6:], rtol=1e-3, atol=0.1)
    torch.testing.assert_close(relative_norms(folded), relative_norms(dictionary))


def test_views_may_differ_in_width_and_number(generator):
    parts = [torch.randn(500, w, generator=generator) for w in (3, 5, 2)]
    source = {Site("residual", i): part for i, part in enumerate(parts)}
    preset = Crosscoder(16, k=2, widths=(3, 5, 2))
    fitted = fit(preset, source, site=tuple(source), n_tokens=4000, batch_rows=100, quiet=True)
    shares = view_shares(fitted.dictionary)
    assert shares.shape == (16, 3) and torch.allclose(shares.sum(1), torch.ones(16))
    assert relative_norms(fitted.dictionary, 0, 2).shape == (16,)


def test_each_site_is_a_view_whatever_its_width(generator):
    sites = {A: torch.randn(200, 6, generator=generator), B: torch.randn(200, 3, generator=generator)}
    source = AlignedSources({name: ArraySource(x) for name, x in zip("ab", sites.values(), strict=True)})
    batch = ActivationBatch(sites, Where(*(torch.arange(200) for _ in range(3))))
    for given, order in ((sites, (B, A)), (batch, (B, A)), (source, ("b:residual.0", "a:residual.0"))):
        fitted = fit(Crosscoder(12, k=2), given, site=order, n_tokens=400, quiet=True).dictionary
        assert fitted.views == (3, 6) and Crosscoder.from_dict(fitted.origin["settings"]).widths == (3, 6)
    for other, told in (({"widths": (4, 5)}, "the sites have"), ({"views": 3}, "views=3: there are 2 sites")):
        with pytest.raises(SettingError, match=told):
            fit(Crosscoder(12, k=2, **other), sites, site=(A, B), n_tokens=400, quiet=True)


def test_one_matrix_is_cut_into_views_only_where_it_is_asked_for(generator):
    x = torch.randn(200, 6, generator=generator)
    for source, site in ((x, None), ({A: x}, None), ({A: x, B: x}, A)):
        with pytest.raises(SettingError, match="6 columns are not known to be several views"):
            fit(Crosscoder(12, k=2), source, site=site, n_tokens=400, quiet=True)
    for asked, views in (({"views": 3}, (2, 2, 2)), ({"widths": (2, 4)}, (2, 4)), ({"views": 1}, (6,))):
        assert fit(Crosscoder(12, k=2, **asked), {A: x}, n_tokens=400, quiet=True).dictionary.views == views


def test_what_has_no_views_or_other_views_is_refused(generator):
    with pytest.raises(CapabilityError, match="no views"):
        view_shares(TopK(8, k=1).build(4, generator))
    with pytest.raises(CapabilityError, match="two different ones"):
        relative_norms(Crosscoder(8, k=1, views=2).build(4, generator), 0, 2)
    with pytest.raises(ShapeError, match="add up"):
        Blocks(Linear(5, 4), (2, 2))
