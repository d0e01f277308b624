"""The choice of vectors and doses: by forecasts alone, with the sign calibrated and random directions beside."""

import math

import pytest
import torch

from overtone.core.sites import Site
from overtone.directions.direction import unit_direction
from overtone.discover.choice import LARGEST, ROOM, STRANGE, Choice, Chooser, Trial, dose_sets, most_wanted, pick
from overtone.discover.forecast import Foretold
from overtone.discover.settings import CausalSettings, DiscoverSettings
from overtone.discover.vectors import Candidate
from overtone.steering.when import When

DOSES = (-0.4, -0.2, 0.2, 0.4)


def candidate(slope: float = 1.0, kind: str = "centroid", behaviour: str = "reflection", layer: int = 1) -> Candidate:
    """A candidate whose vector carries its slope: what the planted forecast below reads."""
    vector = torch.tensor([slope, 1.0])
    rows = torch.ones(4, 2) / math.sqrt(2)
    return Candidate(kind, behaviour, unit_direction(vector, Site("residual", layer), rows=rows, name=kind))


class Planted:
    """A forecast in which a vector acts through its first coordinate: steps = 2 exp(3 * dose * coordinate)."""

    behaviours = ("reflection", "backtracking", "other")

    def __init__(self, strange: float = 0.0) -> None:
        self.strange, self.asked = strange, 0

    def plain(self, site) -> Foretold:
        return self.told(0.0, 0.0)

    def told(self, effect: float, strange: float) -> Foretold:
        steps, effects, errors = (dict.fromkeys(self.behaviours, x) for x in (2 * math.exp(effect), effect, 0.1))
        return Foretold(steps, effects, errors, strange)

    def under(self, steering) -> Foretold:
        self.asked += 1
        (one,) = steering
        moved = one.edit.apply(torch.zeros(1, 2), one.direction)[0]
        if one.direction.name == "random":
            return self.told(0.01 * float(moved[0]), 0.0)
        return self.told(3.0 * float(moved[0]), self.strange * float(moved.norm()))


def chooser(forecast: Planted | None = None, **causal) -> Chooser:
    settings = DiscoverSettings(causal=CausalSettings(**causal))
    return Chooser(forecast or Planted(), When(include_prompt_end=True), settings)  # type: ignore[arg-type]


def trial(
    low: float, inner: float, high: float, *, doses=DOSES, random=0.01, strange=0.0, kind="centroid", error=0.0
) -> Trial:
    """A trial with effects -low, -inner, inner, high."""
    effects = dict(zip(doses, (-low, -inner, inner, high), strict=True)) | {0.0: 0.0}
    steps, errors = {d: math.exp(e) for d, e in effects.items()}, dict.fromkeys(effects, error)
    return Trial(candidate(kind=kind), doses, steps, effects, errors, random, strange)


# -------------------------------------------------------------------------------------------------------- one candidate
def test_the_sign_is_set_so_that_adding_amplifies():
    made = chooser()
    kept, turned = chooser().signed(candidate(1.0), 0.3), made.signed(candidate(-1.0), 0.3)
    assert (kept.turned, turned.turned) == (False, True)
    torch.testing.assert_close(turned.direction.vector, -candidate(-1.0).direction.vector)
    assert made.trial(turned, DOSES).effects[0.4] > 0 > made.trial(turned, DOSES).effects[-0.4]


def test_a_trial_holds_what_the_forecast_says():
    found = chooser().trial(candidate(), DOSES)
    shift = found.candidate.direction.vector[0].item() * found.candidate.direction.mean_norm
    for dose in (*DOSES, 0.0):
        assert found.steps[dose] == pytest.approx(2 * math.exp(3 * dose * shift), rel=1e-4)
    assert 0 < found.random < 0.01 and found.is_sound
    assert found.to_dict()["dose"] == 0.4 and found.to_dict()["site"] == "residual.1"


def test_forecasts_are_made_once():
    forecast = Planted()
    made = chooser(forecast)
    made.trial(made.signed(candidate(-1.0), 0.4), DOSES)
    asked = forecast.asked
    made.trial(made.signed(candidate(-1.0), 0.4), DOSES)
    assert forecast.asked == asked


def test_the_margin_is_the_smaller_effect_over_what_is_needed():
    assert trial(0.9, 0.2, 0.6).margin == pytest.approx(0.6 / math.log(1.3))
    assert trial(0.9, 0.2, 0.6, random=0.3).margin == pytest.approx(0.6 / 1.2)  # four times what random ones do
    assert trial(-0.9, 0.2, 0.6).margin < 0  # more on both sides is no vector of it


def test_a_margin_counts_as_far_as_it_is_sure():
    known, guessed = trial(0.5, 0.25, 0.5, error=0.02), trial(0.6, 0.3, 0.6, error=0.2, kind="weighted atoms")
    assert known.margin == pytest.approx(0.48 / math.log(1.3)) and guessed.margin == pytest.approx(0.4 / math.log(1.3))
    assert pick([guessed, known]) is known


@pytest.mark.parametrize(
    ("low", "inner", "high", "strange", "sound"),
    [
        (0.6, 0.3, 0.6, 0.0, True),
        (0.6, 0.3, 0.2, 0.0, False),  # falls again
        (0.6, 0.59, 0.6, 0.0, False),  # saturated: the outer half adds nothing
        (0.6, 0.3, 0.6, STRANGE + 0.01, False),  # in words that never stand there
    ],
)
def test_a_curve_must_rise_to_its_ends_in_sound_words(low, inner, high, strange, sound):
    assert trial(low, inner, high, strange=strange).is_sound is sound


# --------------------------------------------------------------------------------------------------------- the choice
def test_the_smallest_doses_with_room_are_taken():
    weak, enough, strong = (
        trial(e, e / 2, e, doses=(-d, -d / 2, d / 2, d)) for e, d in ((0.3, 0.2), (ROOM + 0.01, 0.3), (0.9, 0.4))
    )
    assert pick([strong, weak, enough]) is enough
    assert pick([weak]) is weak


def test_small_doses_with_room_come_before_larger_margins():
    gentle, harsh = trial(0.5, 0.25, 0.5, doses=(-0.2, -0.1, 0.1, 0.2)), trial(1.5, 0.7, 1.5, kind="weighted atoms")
    assert harsh.margin > gentle.margin and pick([harsh, gentle]) is gentle


def test_without_room_the_largest_margin_is_taken():
    """More of an effect is no gain where random directions have it too."""
    small, large = trial(0.3, 0.15, 0.3), trial(0.39, 0.2, 0.39, doses=(-0.5, -0.25, 0.25, 0.5), random=0.1)
    assert small.margin > large.margin and pick([small, large]) is small


def test_an_unsound_trial_is_taken_only_where_there_is_no_other():
    unsound, sound = trial(9.0, 1.0, 9.0, strange=0.5), trial(0.3, 0.1, 0.3, kind="weighted atoms")
    assert pick([unsound, sound]) is sound and pick([unsound]) is unsound


def test_dense_vectors_are_rivals_and_never_steer():
    found = [candidate(0.5), candidate(3.0, "mean difference"), candidate(4.0, "matched difference", layer=2)]
    chosen, trials = chooser().choices(found, ("reflection",))
    one = chosen["reflection"]
    assert one.steered.kind == "centroid" and one.rival is not None and one.rival.kind == "mean difference"
    assert {t.candidate.kind for t in trials} == {"centroid", "mean difference", "matched difference"}
    dense = [c for c in found if c.kind != "centroid"]
    assert chooser().choices(dense, ("reflection",))[0] == {}


def test_other_behaviours_share_site_and_doses_with_one_of_the_two_that_get_every_control():
    found = [candidate(1.0, behaviour=b, layer=n) for n, b in enumerate(("reflection", "backtracking"), 1)]
    found += [candidate(9.0, behaviour="other", layer=3), candidate(0.4, behaviour="other", layer=2)]
    chosen, _ = chooser().choices(found, ("other", "reflection", "backtracking"))
    assert list(chosen)[2] == "other"
    places = {(c.site, c.doses) for c in list(chosen.values())[:2]}
    assert (chosen["other"].site, chosen["other"].doses) in places


def test_doses_that_are_given_are_kept():
    assert dose_sets(DiscoverSettings(causal=CausalSettings(doses=(0.3, -0.3)))) == [(-0.3, 0.3)]
    assert [max(doses) for doses in dose_sets(DiscoverSettings())] == list(LARGEST)
    chosen, _ = chooser(doses=(-0.3, 0.3)).choices([candidate()], ("reflection",))
    assert chosen["reflection"].doses == chosen["reflection"].extremes == (-0.3, 0.3)


def test_a_choice_comes_back_from_plain_data():
    found = [candidate(-1.0), candidate(2.0, "mean difference")]
    (one,) = chooser().choices(found, ("reflection",))[0].values()
    again = Choice.from_dict(one.to_dict(), found)
    torch.testing.assert_close(again.steered.direction.vector, one.steered.direction.vector)
    assert again.doses == one.doses and again.steered.turned and again.rival is not None
    assert Choice.from_dict(Choice(one.steered, one.doses, None).to_dict(), found).rival is None


def test_the_papers_behaviours_come_first():
    assert most_wanted(("alternative", "backtracking", "confidence", "reflection")) == ("backtracking", "reflection")
    assert most_wanted(("transition", "reflection")) == ("reflection", "transition")
    assert most_wanted(("a", "b", "c")) == ("a", "b") and most_wanted(("a",)) == ("a",)
