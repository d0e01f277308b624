"""Forecasts: a chain's visits are right by hand, the unsteered forecast is what the traces show, and pushing up the
first words of a behaviour foretells more of it."""

from collections import Counter

import numpy as np
import pytest
import torch

from overtone.discover.forecast import Forecast, Foretold, _visits
from overtone.discover.material import FIT, SELECT
from overtone.discover.vectors import boundaries
from overtone.steering.bias import LogitBias


@pytest.fixture(scope="module")
def forecast(found):
    return Forecast(found.material, found.material.rows(found.run, "next"), n=120)


def test_visits_of_a_chain_by_hand():
    """From the start always to a; a repeats with chance 1/2 or goes on to b; b always ends."""
    following = {"start": np.array([1.0, 0.0, 0.0]), "a": np.array([0.5, 0.5, 0.0])}
    visits = _visits(("a", "b", "start"), following, np.array([0.0, 1.0, 0.0]))
    np.testing.assert_allclose(visits, [2.0, 1.0, 0.0], rtol=0.01)


def test_a_chain_that_never_ends_is_cut():
    visits = _visits(("a", "start"), {"start": np.array([1.0, 0.0]), "a": np.array([1.0, 0.0])}, np.zeros(2))
    assert np.isfinite(visits).all() and visits[0] > 100


def test_the_unsteered_forecast_is_near_what_the_traces_show(forecast, found):
    traces = found.material.of(FIT) + found.material.of(SELECT)
    shown = Counter(label for t in traces for label in found.material.labels[t.document])
    for behaviour, steps in forecast.base.steps.items():
        assert steps == pytest.approx(shown[behaviour] / len(traces), rel=0.5, abs=0.2), behaviour
    assert 0 <= forecast.base.strange <= 1


def test_places_are_boundaries_of_the_selection_split(forecast, found):
    documents = forecast.rows.where.document
    select = {t.document for t in found.material.of(SELECT)}
    assert len(forecast.places) == len(set(forecast.places)) <= 120
    assert {int(documents[i]) for i in forecast.places} <= select


def test_raising_the_first_words_of_a_behaviour_foretells_more_of_it(forecast, found):
    rows, tokens = forecast.rows, {t.document: t.tokens for t in found.material.traces}
    at = [i for i in rows.index(FIT).tolist() if rows.labels[i] == "reflection"]
    first = Counter(tokens[int(rows.where.document[i])][int(rows.where.token[i]) + 1] for i in at)
    vector = torch.zeros(found.subject.model.vocab_size)
    vector[[token for token, _ in first.most_common(3)]] = 4.0
    when = boundaries(found.material)
    up, down = (forecast.under([LogitBias(sign * vector, when)]) for sign in (1, -1))
    assert up.effect("reflection", forecast.base) > 0 > down.effect("reflection", forecast.base)
    assert forecast.under(()) == forecast.base  # and nothing of it stays


def test_words_that_never_began_a_step_are_strange(forecast, found):
    known = sum(forecast._known.values())
    vector = torch.where(known == 0, 20.0, 0.0)
    told = forecast.under([LogitBias(vector, boundaries(found.material))])
    assert told.strange > 0.9 > forecast.base.strange


def test_an_effect_is_a_log_ratio_and_finite_for_what_vanishes():
    base, gone = Foretold({"x": 2.0}, 0.0), Foretold({"x": 0.0}, 0.0)
    assert Foretold({"x": 4.01}, 0.0).effect("x", base) == pytest.approx(np.log(4.02 / 2.01))
    assert -6 < gone.effect("x", base) < -5
