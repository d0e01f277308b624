"""What runs around the updates keeps its promises."""

import pytest
import torch

from overtone.core.errors import CapabilityError
from overtone.dictionaries.choice import Chosen
from overtone.dictionaries.codes import Support
from overtone.dictionaries.maintainers.base import Observation
from overtone.dictionaries.maintainers.firing import Firing
from overtone.dictionaries.maintainers.threshold_mean import ThresholdMean
from overtone.dictionaries.maintainers.unit_rows import UnitRows
from overtone.dictionaries.presets.abs_top_k import AbsTopK
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.poly_sae import PolySAE


def test_unit_rows_start_at_length_one_and_name_what_stays_so(generator):
    model = BatchTopK(12, k=2).build(5, generator)
    model.decoder.weight.data.mul_(3.0)
    UnitRows().begin(model)
    torch.testing.assert_close(model.decoder.weight.norm(dim=1), torch.ones(12))
    assert UnitRows().unit_rows(model) is model.decoder.weight


def test_rows_that_are_made_of_other_parameters_are_refused():
    """They would not stay at length one, and nothing would say so."""
    model = PolySAE(12, k=2).build(6, torch.Generator().manual_seed(0))
    with pytest.raises(CapabilityError, match=r"decoder\.polynomial.*no parameter.*Leave it out"):
        UnitRows().begin(model)


def fired(model, firing, z):
    """Let `firing` observe the rows of a dense code."""
    firing.observe(model, Observation(len(z), (z != 0).any(0), None, progress=0.0))
    firing.after_update(model)


def test_a_latent_that_fires_with_alternating_signs_is_alive(generator):
    model, firing = AbsTopK(3, k=1).build(4, generator), Firing(window=10)
    firing.begin(model)
    for sign in (1.0, -1.0) * 8:
        fired(model, firing, torch.tensor([[sign, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert firing.dead.tolist() == [1, 2] and firing.share() == pytest.approx(2 / 3)


def test_dead_windows_are_counted_in_tokens_not_in_batches(generator):
    model = AbsTopK(2, k=1).build(4, generator)
    for rows in (1, 4):
        firing = Firing(window=8)
        firing.begin(model)
        for tokens in range(0, 8, rows):
            assert not len(firing.dead), tokens
            fired(model, firing, torch.tensor([[1.0, 0.0]]).expand(rows, -1))
        assert firing.dead.tolist() == [1]


@pytest.mark.parametrize("rows", [8, 64])
def test_the_threshold_settles_at_the_smallest_selected_score(rows, generator):
    model = BatchTopK(4, k=1).build(4, generator)
    mean, batches = ThresholdMean(), 4096 // rows
    mean.begin(model)
    for i in range(batches):
        u = 0.5 + torch.rand(rows, generator=generator)
        u[0] = 0.5
        support = Support(torch.arange(rows), torch.zeros(rows, dtype=torch.int64), rows, 4)
        mean.observe(model, Observation(rows, torch.ones(4, dtype=torch.bool), Chosen(support, u), i / batches))
    assert float(model.selection.theta) == pytest.approx(0.5)
