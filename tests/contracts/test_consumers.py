"""Whoever expects a dictionary to rebuild the states it reads refuses one that does not; run over the catalogue."""

from typing import Any

import pytest
import torch

from format_dictionaries import trained
from overtone.core.catalogue import entries
from overtone.core.errors import CapabilityError, DataError
from overtone.core.sites import Site
from overtone.dictionaries.presets.crosscoder import Crosscoder
from overtone.dictionaries.pursuit import Pursuit
from overtone.directions.atoms import centroid_of_atoms, from_atom
from overtone.directions.confidence import search
from overtone.evaluate.afa import quasi_orthogonality
from overtone.evaluate.compare import Sample, measured
from overtone.evaluate.faithfulness import spliced, spliced_by_gradient
from overtone.formats.saebench import SAEBenchObject
from overtone.steering.edits.atom_set import AtomSet, Attenuate

SITE = Site("residual", 1)
FACTS = {name: entry.facts["capabilities"] for name, entry in entries("dictionaries").items()}
ELSEWHERE = [name for name, can in FACTS.items() if can["predicts_other_states"]]
SEVERAL = [name for name, can in FACTS.items() if can["several_views"]]
X = torch.ones(4, 8)

ONE_SITE = {  # of a dictionary that reads and rebuilds the states of one site
    "saebench": lambda d: SAEBenchObject(d, site=SITE, model="m"),
    "atom_set": lambda d: AtomSet(d, 0, 1.0),
    "attenuate": lambda d: Attenuate(d, 0, 0.5),
    "spliced": spliced,
    "spliced_by_gradient": spliced_by_gradient,
}
SAME_STATES = {  # of a dictionary that rebuilds what it reads
    "pursuit": lambda d: Pursuit(d, k=1),
    "quasi_orthogonality": lambda d: quasi_orthogonality(d, X),
    "measured": lambda d: measured(d, Sample(X, X)),
}


def test_what_predicts_other_states_says_so():
    needy = {name for name, entry in entries("dictionaries").items() if "y" in entry.thing.needs}
    assert set(ELSEWHERE) == needy == {"transcoder", "skip_transcoder"} and SEVERAL == ["crosscoder"]
    assert Pursuit(trained("crosscoder"), k=1).capabilities.several_views
    assert Pursuit(trained("crosscoder"), k=1).views == (4, 4)


@pytest.mark.parametrize("consumer", [*ONE_SITE, *SAME_STATES])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_predictors_of_other_states_are_refused_although_the_widths_agree(name, consumer):
    dictionary = trained(name)
    assert dictionary.width == dictionary.width_out
    with pytest.raises(CapabilityError):
        {**ONE_SITE, **SAME_STATES}[consumer](dictionary)


@pytest.mark.parametrize("consumer", ONE_SITE)
@pytest.mark.parametrize("name", SEVERAL)
def test_several_views_are_not_the_states_of_one_site(name, consumer):
    with pytest.raises(CapabilityError):
        ONE_SITE[consumer](trained(name))


@pytest.mark.parametrize("name", SEVERAL)
def test_a_search_moves_states_of_one_site(name):
    model: Any = None  # what comes first
    with pytest.raises(CapabilityError, match="several views"):
        search(model, trained(name), model, SITE)


def test_a_crosscoders_atom_is_a_direction_in_one_of_its_views():
    dictionary = Crosscoder(16, k=2, widths=(3, 5)).build(8, torch.Generator().manual_seed(0))
    blocks = dictionary.atoms()[[2, 4]].split((3, 5), 1)
    for view, block in enumerate(blocks):
        unit = block / block.norm(dim=1, keepdim=True)
        found = from_atom(dictionary, 2, SITE, view=view)
        torch.testing.assert_close(found.vector, unit[0])
        assert found.origin["view"] == view
        mean = centroid_of_atoms(dictionary, [2, 4], SITE, view=view)
        torch.testing.assert_close(mean.vector * mean.raw_norm, unit.mean(0))
    with pytest.raises(CapabilityError, match="view=0, 1"):
        from_atom(dictionary, 2, SITE)
    with pytest.raises(DataError, match="views 0 to 1"):
        from_atom(dictionary, 2, SITE, view=2)
    with pytest.raises(DataError, match="views 0 to 0"):
        from_atom(trained("top_k"), 2, SITE, view=1)
