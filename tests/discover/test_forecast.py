"""Forecasts: a chain's visits are right by hand, the unsteered forecast is what the traces show, and pushing up the
first words of a behaviour foretells more of it."""

from collections import Counter

import numpy as np
import pytest
import torch

from overtone.directions.direction import unit_direction
from overtone.discover.forecast import Forecast, _visits
from overtone.discover.material import FIT, SELECT
from overtone.discover.vectors import add_arm, boundaries
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
    for site in forecast.rows.x:
        told = forecast.plain(site)
        for behaviour, steps in told.steps.items():
            assert steps == pytest.approx(shown[behaviour] / len(traces), rel=0.5, abs=0.2), behaviour
        assert told.strange == 0 and not any(told.effects.values()) and not any(told.errors.values())


def test_places_are_boundaries_of_the_selection_split(forecast, found):
    documents = forecast.rows.where.document
    select = {t.document for t in found.material.of(SELECT)}
    assert 0 < len(forecast.some.index) <= 120 < len(forecast.every.index)
    for places in (forecast.some, forecast.every):
        assert len(places.index) == len(set(places.index)) and {int(documents[i]) for i in places.index} <= select


def test_raising_the_first_words_of_a_behaviour_foretells_more_of_it(forecast, found):
    rows, tokens = forecast.rows, {t.document: t.tokens for t in found.material.traces}
    at = [i for i in rows.index(FIT).tolist() if rows.labels[i] == "reflection"]
    first = Counter(tokens[int(rows.where.document[i])][int(rows.where.token[i]) + 1] for i in at)
    vector = torch.zeros(found.subject.model.vocab_size)
    vector[[token for token, _ in first.most_common(3)]] = 4.0
    when = boundaries(found.material)
    up, down = (forecast.under([LogitBias(sign * vector, when)]) for sign in (1, -1))
    assert up.effects["reflection"] > 0 > down.effects["reflection"]
    assert up.errors["reflection"] > 0


def test_the_last_layer_is_read_from_states_as_from_histories(found):
    """Two ways to one number: at the same places, states under an edit give what the whole model gives."""
    rows = found.material.rows(found.run, "next")
    both = Forecast(found.material, rows, n=10**6)
    assert both.last is not None and set(both.some.index) <= set(both.every.index)
    direction = unit_direction(rows.x[both.last][0], both.last, rows=rows.x[both.last])
    arm = add_arm(direction, 0.3, boundaries(found.material))
    read = {places: _chances(places, arm) for places in (both.some, both.every)}
    for i, p in zip(both.some.index, read[both.some], strict=True):
        torch.testing.assert_close(read[both.every][both.every.index.index(i)], p, atol=1e-5, rtol=1e-3)


def _chances(places, arm):
    parts = list(places.source.chances(arm))
    return torch.cat([p for _, p in parts])[torch.cat([at for at, _ in parts]).argsort()]


def test_shares_that_know_nothing_are_set_right_by_what_came(found, monkeypatch):
    """Then the unsteered forecast is the chain of the steps that were written."""
    forecast = Forecast(found.material, found.material.rows(found.run, "next"))
    even = {k: torch.full_like(t, 1 / t.shape[1]) for k, t in forecast._read.items()}
    monkeypatch.setattr(forecast, "_read", even)
    places, rows = forecast.every, forecast.rows
    came: dict[str, np.ndarray] = {}
    for i in places.index:
        document, step = int(rows.where.document[i]), int(rows.where.step[i])
        kind = found.subject.kinds(found.material.traces[document])[step]
        came.setdefault(rows.previous[i], np.zeros(len(forecast.kinds)))[forecast.kinds.index(kind)] += 1
    steps = _visits(forecast.kinds, forecast._usual | came, forecast._ending) @ forecast._named
    told = forecast.plain(forecast.last).steps
    np.testing.assert_allclose([told[b] for b in forecast.behaviours], steps, rtol=1e-5)


def test_words_that_never_began_a_step_are_strange(forecast, found):
    known = sum(forecast._known.values())
    vector = torch.where(known == 0, 20.0, 0.0)
    assert forecast.under([LogitBias(vector, boundaries(found.material))]).strange > 0.5


def test_effects_are_finite_for_what_vanishes(forecast, found):
    """A bias that forbids every first word of a behaviour leaves a finite effect."""
    rows, tokens = forecast.rows, {t.document: t.tokens for t in found.material.traces}
    at = [i for i in rows.index(FIT, SELECT).tolist() if rows.labels[i] == "reflection"]
    vector = torch.zeros(found.subject.model.vocab_size)
    vector[[tokens[int(rows.where.document[i])][int(rows.where.token[i]) + 1] for i in at]] = -1e4
    told = forecast.under([LogitBias(vector, boundaries(found.material))])
    assert np.isfinite(list(told.effects.values())).all() and told.effects["reflection"] < -1


def test_what_the_model_never_says_is_foretold_too(found, monkeypatch):
    """Given traces may hold tokens of chance 0: forecasts stay numbers."""
    forecast = Forecast(found.material, found.material.rows(found.run, "next"), n=50)
    real = found.subject.model.unembed

    def never(rows):
        logits = real(rows)
        logits[:, :40] = -torch.inf
        return logits

    monkeypatch.setattr(found.subject.model, "unembed", never)
    direction = unit_direction(forecast.every.source.states[0], forecast.last, rows=forecast.every.source.states)
    told = forecast.under(add_arm(direction, 0.3, boundaries(found.material)))
    assert np.isfinite([*told.steps.values(), *told.effects.values(), *told.errors.values()]).all()
