"""What atoms of neurons write: W_down z, in every architecture, at the place that it reaches."""

import pytest
import torch

import overtone as ot
from models.miniatures import LAYERS, NEURONS, TABLE, WIDTH, miniature
from overtone.core.errors import CapabilityError, DataError, ShapeError, SiteError
from overtone.core.sites import Site
from overtone.dictionaries.classic.nonnegative import NonNegative
from overtone.directions.writing import written_directions
from overtone.interpret.vocabulary import vocabulary_effect

PLAIN = [name for name, mini in TABLE.items() if not mini.post_norm and not mini.norm_after]
LAST = LAYERS - 1


def dictionary(generator, width=NEURONS, n=5):
    return NonNegative.of(torch.randn(n, width, generator=generator))


def projection(model, layer):
    """The matrix (width, neurons) that stands in the model."""
    module = dict(model.model.named_modules())[f"{model.adapter.layers}.{layer}.{model.adapter.path('mlp_neurons')}"]
    return module.weight.T if type(module).__name__ == "Conv1D" else module.weight


@pytest.mark.parametrize("name", PLAIN)
def test_an_atom_writes_its_product_with_the_down_projection(name, generator):
    model, made = miniature(name), dictionary(generator)
    found = written_directions(made, model, "mlp_neurons.1")
    expected = made.atoms() @ projection(model, 1).detach().T
    assert [d.site for d in found] == [Site("residual", 1)] * 5 and {d.model for d in found} == {model.fingerprint}
    got = torch.stack([d.vector * d.raw_norm for d in found])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    (one,) = written_directions(made, model, "mlp_neurons.1", [3], into="mlp_out.1")
    torch.testing.assert_close(one.vector, found[3].vector)
    assert one.site == Site("mlp_out", 1) and one.origin["latent"] == 3 and one.width == WIDTH


@pytest.mark.parametrize("name", [name for name, mini in TABLE.items() if mini.norm_after])
def test_behind_a_norm_the_direction_is_still_what_arrives(name, generator):
    model, made = miniature(name), dictionary(generator)
    norm = dict(model.model.named_modules())[f"{model.adapter.layers}.1.{model.adapter.path('mlp_out')}"]
    expected = norm(made.atoms() @ projection(model, 1).T).detach()
    for direction, row in zip(written_directions(made, model, "mlp_neurons.1"), expected, strict=True):
        assert float(direction.vector @ row / row.norm()) > 0.9999


@pytest.mark.parametrize("name", [name for name, mini in TABLE.items() if mini.post_norm])
def test_where_the_stream_is_normed_it_is_refused(name, generator):
    model, made = miniature(name), dictionary(generator)
    with pytest.raises(SiteError, match=r"passes a norm .* Use into=mlp_out\.1"):
        written_directions(made, model, "mlp_neurons.1")
    assert len(written_directions(made, model, "mlp_neurons.1", into="mlp_out.1")) == 5


def test_features_of_the_bundled_reasoner_say_words():
    """An atom that is one neuron raises the tokens that its column of the projection raises."""
    model = ot.bundled_reasoner()
    site = Site("mlp_neurons", model.n_layers - 1)
    made = NonNegative.of(torch.eye(model.width(site))[:3])
    for i, direction in enumerate(written_directions(made, model, site)):
        assert direction.site == Site("residual", site.layer)
        column = projection(model, site.layer)[:, i].detach()
        ours, expected = (vocabulary_effect(model, v).raised for v in (direction.vector, column / column.norm()))
        assert [shift.token for shift in ours] == [shift.token for shift in expected]


def test_what_is_no_dictionary_of_these_neurons_is_refused(generator):
    model, made = miniature("llama"), dictionary(generator)
    with pytest.raises(SiteError, match=r"mlp_neurons\.L, which write into"):
        written_directions(made, model, "residual.1")
    with pytest.raises(SiteError, match="of the same layer"):
        written_directions(made, model, "mlp_neurons.1", into="residual.2")
    with pytest.raises(ShapeError, match=f"width {WIDTH}, mlp_neurons.1 of this model {NEURONS}"):
        written_directions(dictionary(generator, WIDTH), model, "mlp_neurons.1")
    with pytest.raises(DataError, match="latents 0 to 4"):
        written_directions(made, model, "mlp_neurons.1", [5])
    with pytest.raises(CapabilityError, match="view"):
        written_directions(ot.Crosscoder(8, k=2, views=2).build(NEURONS, generator), model, "mlp_neurons.1")
