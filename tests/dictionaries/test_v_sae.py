"""Drawn values: noise that does not depend on blocks or interruptions, a price that is the divergence, degenerate
settings that coincide with the hosts, and the ways in which the model escapes noise and price."""

import numpy as np
import pytest
import torch

from overtone.core.errors import SettingError
from overtone.data.synthetic import plant
from overtone.dictionaries import autoencoder
from overtone.dictionaries.objectives.prior import Prior, divergence
from overtone.dictionaries.presets.abs_top_k import AbsTopK
from overtone.dictionaries.presets.top_k import TopK
from overtone.dictionaries.presets.v_sae import VSAE
from overtone.dictionaries.sampling import Drawn
from overtone.evaluate.reconstruction import fvu
from overtone.training.fit import Job, fit, fit_many
from overtone.training.run import Run
from overtone.training.schedules import Schedule
from overtone.training.step import Given, forward

FEATURES, WIDTH, LATENTS, K = 64, 32, 128, 4
PLANTED = plant(FEATURES, WIDTH, max_cosine=0.75, seed=0)
X = PLANTED.sample(20_000, active=3, seed=0).x
HELD_OUT = PLANTED.sample(3000, active=3, seed=1).x
NO_DEAD = torch.zeros(0, dtype=torch.int64)


# ------------------------------------------------------------------------------------------------ degenerate settings
@pytest.mark.parametrize(("rectified", "host"), [(True, TopK), (False, AbsTopK)])
def test_without_noise_and_price_it_trains_to_the_bits_of_its_host(rectified, host):
    ours = VSAE(24, k=K, noise="none", beta=0.0, rectified=rectified, unit_rows=True, aux_weight=1 / 32)
    options = {"n_tokens": 8000, "batch_rows": 200, "quiet": True}
    one, other = (fit(p, X, **options).dictionary for p in (ours, host(24, k=K)))
    assert all(torch.equal(value, one.state_dict()[name]) for name, value in other.state_dict().items())
    assert torch.equal(one.encode(HELD_OUT).dense(), other.encode(HELD_OUT).dense())


def test_a_fixed_deviation_of_zero_is_no_noise():
    settings = {"k": K, "beta": 0.1}
    options = {"n_tokens": 4000, "batch_rows": 200, "quiet": True}
    one = fit(VSAE(24, noise="fixed", sigma=0.0, **settings), X, **options).dictionary
    other = fit(VSAE(24, noise="none", **settings), X, **options).dictionary
    assert all(torch.equal(value, one.state_dict()[name]) for name, value in other.state_dict().items())


# ---------------------------------------------------------------------------------------------------------------- noise
def noise_of(value, first, rows, latents=37):
    return value.sides(first, rows, latents)["noise"]


def test_noise_is_that_of_the_row_however_a_batch_is_cut_and_new_in_each_batch():
    value = Drawn(sigma=0.5)
    value.seed.fill_(7)
    whole = noise_of(value, 0, 300)
    for cuts in ([1, 299], [64, 100, 136], [63, 2, 235], [300]):
        starts = [sum(cuts[:i]) for i in range(len(cuts))]
        assert torch.equal(torch.cat([noise_of(value, s, n) for s, n in zip(starts, cuts, strict=True)]), whole)
    assert abs(float(whole.mean())) < 0.02 and abs(float(whole.std()) - 0.5) < 0.02
    assert float(torch.corrcoef(torch.stack([whole[:150].flatten(), whole[150:].flatten()]))[0, 1].abs()) < 0.05
    value.batch += 1
    assert float(torch.corrcoef(torch.stack([whole.flatten(), noise_of(value, 0, 300).flatten()]))[0, 1].abs()) < 0.05


def run_of(preset, n_tokens=4000):
    run = Run(
        "test", preset, preset.build(WIDTH, torch.Generator().manual_seed(3)).train(), lr=2e-3, schedule=Schedule(),
        n_tokens=n_tokens,
    )  # fmt: skip
    run.begin(X[:2000])
    return run


NOISY = [VSAE(24, k=K, noise="fixed", sigma=0.5, beta=0.0), VSAE(24, k=K, noise="learned", beta=0.01)]


@pytest.mark.parametrize("preset", NOISY, ids=["fixed", "learned"])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(preset):
    whole, first = run_of(preset), run_of(preset)
    for step in range(20):
        whole.advance(X[100 * step : 100 * step + 100])
        if step < 8:
            first.advance(X[100 * step : 100 * step + 100])
    resumed = run_of(preset)
    resumed.load(first.tensors(), first.tokens, [])
    for step in range(8, 20):
        resumed.advance(X[100 * step : 100 * step + 100])
    after = whole.tensors()
    assert all(torch.equal(value, after[name]) for name, value in resumed.tensors().items())


def test_blocks_do_not_change_a_training(monkeypatch):
    found = []
    for block in (autoencoder.BLOCK, 24 * 30):
        monkeypatch.setattr(autoencoder, "BLOCK", block)
        run = run_of(NOISY[0])
        for step in range(5):
            run.advance(X[100 * step : 100 * step + 100])
        found.append(run.tensors())
    for name, value in found[0].items():  # products of other sizes may round differently, noise must not differ
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", NOISY, ids=["fixed", "learned"])
def test_training_draws_and_eval_does_not(preset):
    model = preset.build(WIDTH, torch.Generator().manual_seed(0))
    model.start(X)
    assert not model.capabilities.deterministic and torch.equal(model.encode(X).dense(), model.encode(X).dense())
    x = X[:50]
    with torch.no_grad():
        one = forward(model.train(), Given(x, NO_DEAD, 0.5, all_latents=preset.noise == "learned"))
        model.value.batch += 1
        other = forward(model, Given(x, NO_DEAD, 0.5, all_latents=preset.noise == "learned"))
    assert float((one.missed - other.missed).abs().max()) > 0.01
    assert bool((model.eval().encode(x).values >= 0).all())


def test_folding_keeps_the_noise_in_proportion():
    """Training steps of the folded dictionary see the same values in the states' units."""
    for preset in NOISY:
        model = preset.build(WIDTH, torch.Generator().manual_seed(0))
        model.start(5 * X)
        given = Given(5 * X[:50], NO_DEAD, 0.5, all_latents=True)
        with torch.no_grad():
            if preset.noise == "learned":
                model.encoder.spread_weight.data.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.1)
            folded = model.folded()
            inside, outside = forward(model.train(), given), forward(folded.train(), given)
        torch.testing.assert_close(outside.values, inside.values / model.normaliser.unit, rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------------------------------ the price
def test_the_divergence_is_the_one_that_sampling_gives_and_zero_at_the_prior():
    generator = torch.Generator().manual_seed(0)
    mu, logvar = torch.tensor([0.0, 1.5, -0.7]), torch.tensor([0.0, -1.0, 0.8])
    z = mu + torch.exp(logvar / 2) * torch.randn(1_000_000, 3, generator=generator)
    log_q = -((z - mu).square() / logvar.exp() + logvar) / 2
    sampled = (log_q + z.square() / 2).mean(0)
    exact = divergence(mu, logvar)
    assert exact[0] == 0 and bool(((sampled - exact).abs()[1:] / exact[1:] < 0.01).all())
    torch.testing.assert_close(divergence(mu, None), divergence(mu, torch.zeros(3)))


def test_the_price_counts_all_latents_or_the_selected_ones_and_warms_up():
    preset = VSAE(24, k=K, noise="none", beta=1.0)
    model = preset.build(WIDTH, torch.Generator().manual_seed(0)).train()
    model.start(X)
    with torch.no_grad():
        step = forward(model, Given(X[:64], NO_DEAD, 0.5, all_latents=True))
        mu = step.heads["u"].relu()
        unit = 2 * 64 * model.spread
        torch.testing.assert_close(Prior(1.0)(step), mu.square().sum() / unit)
        torch.testing.assert_close(Prior(1.0, selected=True)(step), step.values.square().sum() / unit)
        early = forward(model, Given(X[:64], NO_DEAD, 0.025, all_latents=True))
        torch.testing.assert_close(Prior(1.0)(early), Prior(1.0)(step) / 4)
    assert float(mu.square().sum()) > 1.2 * float(step.values.square().sum())


# ------------------------------------------------------------------------------------------------------------ ablations
ARMS = {
    "host": {"noise": "none", "beta": 0.0},
    "price": {"noise": "none", "beta": 1.0},
    "price, unit rows": {"noise": "none", "beta": 1.0, "unit_rows": True},
    "price on selected": {"noise": "none", "beta": 1.0, "selected": True},
    "noise": {"noise": "fixed", "beta": 0.0},
    "both, small": {"noise": "learned", "beta": 0.01},
    "both, large": {"noise": "learned", "beta": 1.0},
}


@pytest.fixture(scope="module")
def arms():
    """By arm: unexplained share, share alive, mean active value and row length of those alive, in dictionary units."""
    return arms_on(X, HELD_OUT, 0)


def arms_on(x, held_out, seed):
    jobs = [Job(VSAE(LATENTS, k=K, **settings), name=name, lr=4e-3) for name, settings in ARMS.items()]
    found = {}
    for one in fit_many(jobs, x, n_tokens=160_000, batch_rows=256, seed=seed, quiet=True):
        dictionary = one.dictionary
        codes = dictionary.encode(held_out)
        missed = (held_out - dictionary.decode(codes)).square().sum() / (held_out - held_out.mean(0)).square().sum()
        alive = codes.frequencies() > 0
        size = codes.values[codes.is_active].mean() * dictionary.normaliser.unit
        found[one.job.name] = (float(missed), float(alive.float().mean()), float(size),
                               float(dictionary.atom_norms()[alive].mean()))  # fmt: skip
    return found


def test_the_price_alone_kills_duplicates_and_is_escaped_by_smaller_codes_and_longer_rows(arms):
    (missed, alive, size, length), (host_missed, host_alive, host_size, host_length) = arms["price"], arms["host"]
    assert missed < 0.15 and alive < 0.65 < host_alive and size < host_size / 2 and length > 2 * host_length
    assert host_missed < 0.1


def test_with_unit_rows_there_is_no_escape_and_the_error_rises(arms):
    assert arms["price, unit rows"][0] > 1.5 * arms["price"][0]


def test_with_unit_rows_the_error_rises_with_the_price():
    """Card, check 2: from nothing to a tenth to one."""
    jobs = [
        Job(VSAE(LATENTS, k=K, noise="none", beta=beta, unit_rows=True), name=str(beta), lr=4e-3)
        for beta in (0.0, 0.1, 1.0)
    ]
    fitted = fit_many(jobs, X, n_tokens=160_000, batch_rows=256, quiet=True)
    free, some, much = (fvu(HELD_OUT, one.dictionary.reconstruct(HELD_OUT)) for one in fitted)
    assert some > 1.05 * free and much > 2 * some


def test_a_price_on_the_selected_latents_lets_the_others_live(arms):
    assert arms["price on selected"][1] > arms["price"][1] + 0.1


def test_noise_alone_is_escaped_by_larger_codes_and_shorter_rows(arms):
    (missed, _, size, length), (_, _, host_size, host_length) = arms["noise"], arms["host"]
    assert missed < 0.15 and size > 2 * host_size and length < host_length / 2


def test_together_they_collapse_at_a_large_price_and_not_at_a_small_one(arms):
    assert arms["both, small"][0] < 0.3 and arms["both, large"][0] > 0.9


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_this_holds_for_medians_over_seeds():
    """On another truth for each of three seeds."""
    found = []
    for seed in range(3):
        truth = plant(FEATURES, WIDTH, max_cosine=0.75, seed=seed)
        x, held_out = (truth.sample(n, active=3, seed=100 * seed + n).x for n in (20_000, 3000))
        found.append(arms_on(x, held_out, seed))
    medians = {name: tuple(np.median([one[name] for one in found], axis=0)) for name in ARMS}
    for check in (
        test_the_price_alone_kills_duplicates_and_is_escaped_by_smaller_codes_and_longer_rows,
        test_with_unit_rows_there_is_no_escape_and_the_error_rises,
        test_a_price_on_the_selected_latents_lets_the_others_live,
        test_noise_alone_is_escaped_by_larger_codes_and_shorter_rows,
        test_together_they_collapse_at_a_large_price_and_not_at_a_small_one,
    ):
        check(medians)


@pytest.mark.parametrize("wrong", [{"noise": "some"}, {"beta": -1.0}, {"sigma": -0.1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingError, match="use|negative"):
        VSAE(8, k=2, **wrong)
