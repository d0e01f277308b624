"""Matryoshka: with one group it is BatchTopK; prefixes are nested, and learn to stand alone."""

import torch

from overtone.data.synthetic import plant
from overtone.dictionaries.maintainers.prefixes import SampledPrefixes
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.matryoshka import Matryoshka
from overtone.training.fit import fit
from overtone.training.run import Run
from overtone.training.schedules import Schedule


def trained(preset, x, n_tokens=40_000):
    return fit(preset, x, n_tokens=n_tokens, batch_rows=200, lr=4e-3, quiet=True).dictionary


def prefix_errors(dictionary, x, prefixes):
    """Squared error of the reconstructions from the first latents."""
    z, rows = dictionary.encode(x).dense(), dictionary.decoder.weight
    constant = dictionary.normaliser.inverse(dictionary.decoder.bias)
    return [float((x - z[:, :m] @ rows[:m] - constant).square().mean()) for m in prefixes]


def test_the_loss_is_lower_where_early_latents_stand_for_several_atoms_than_at_the_planted_truth():
    """Which is why fewer planted atoms come back than with BatchTopK, however it is trained."""
    planted = plant(48, 32, max_cosine=0.5, seed=0)
    x = planted.sample(10_000, active=3, seed=0, noise=0.02).x
    options = {"n_tokens": 150_000, "batch_rows": 500, "lr": 1e-2, "quiet": True}
    nested, flat = (fit(kind(64, k=3), x, **options).dictionary for kind in (Matryoshka, BatchTopK))
    order = (planted.atoms @ flat.atoms().T).abs().amax(0).argsort(descending=True)  # spare latents come last
    for tensor in flat.state_dict().values():
        if tensor.ndim and len(tensor) == 64:
            tensor.copy_(tensor[order])
    found, at_truth = (sum(prefix_errors(d, x, Matryoshka(64, k=3).prefixes)) for d in (nested, flat))
    shares = [float(((planted.atoms @ d.atoms().T).abs().amax(1) > 0.95).float().mean()) for d in (nested, flat)]
    assert shares[1] == 1.0 > shares[0] and found < at_truth


def test_with_one_group_it_is_batch_top_k_bit_for_bit(generator):
    x = torch.randn(400, 8, generator=generator) + 1
    one, plain = (trained(p, x, 8_000).state_dict() for p in (Matryoshka(24, k=3, groups=1), BatchTopK(24, k=3)))
    assert all(torch.equal(value, one[name]) for name, value in plain.items())


def test_prefixes_double_up_to_all_latents():
    assert Matryoshka(512, k=8).prefixes == (32, 64, 128, 256, 512)
    assert Matryoshka(3, k=1).prefixes == (1, 3) and Matryoshka(1, k=1).prefixes == (1,)


def test_longer_prefixes_miss_less_and_early_ones_less_than_without_nesting(generator):
    x = torch.randn(3000, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    nested, flat = trained(Matryoshka(48, k=4), x), trained(BatchTopK(48, k=4), x)
    prefixes = Matryoshka(48, k=4).prefixes
    errors, others = prefix_errors(nested, x, prefixes), prefix_errors(flat, x, prefixes)
    assert errors == sorted(errors, reverse=True)
    assert all(ours < theirs for ours, theirs in zip(errors[:-1], others[:-1], strict=True))


def test_sampled_prefixes_are_nested_differ_and_lie_over_sorted_latents(generator):
    x, preset = torch.randn(600, 8, generator=generator), Matryoshka(64, k=4, groups=4, sampled=True)
    run = Run("m", preset, preset.build(8, generator).train(), lr=1e-3, schedule=Schedule(), n_tokens=12_000)
    run.begin(x)
    drawn = []
    for i in range(120):
        run.advance(x[(i % 6) * 100 :][:100])
        drawn.append(tuple(run.published()["prefixes.sizes"].tolist()))
    assert all(list(sizes) == sorted(sizes) and sizes[-1] == 64 and sizes[0] >= 1 for sizes in drawn)
    assert len(set(drawn)) > 60
    beyond = sum(size >= 8 for sizes in drawn for size in sizes[:-1]) / (3 * len(drawn))
    assert abs(beyond - (8**-0.5 - 64**-0.5) / (1 - 64**-0.5)) < 0.08, "the Pareto law"
    contribution = run.model.eval().encode(x).dense().square().mean(0)
    places = contribution.argsort(descending=True).double()
    assert torch.corrcoef(torch.stack([places, torch.arange(64.0).double()]))[0, 1] > 0.9


def test_sampled_prefixes_follow_the_seed_of_the_training_and_are_drawn_again_when_it_is_resumed(generator):
    x, preset = torch.randn(600, 8, generator=generator), Matryoshka(64, k=4, groups=4, sampled=True)

    def run_of(seed):
        model = preset.build(8, torch.Generator().manual_seed(0)).train()
        run = Run("m", preset, model, lr=1e-3, schedule=Schedule(), n_tokens=12_000, seed=seed)
        run.begin(x)
        return run

    def drawn(run, batches):
        found = []
        for i in batches:
            run.advance(x[(i % 6) * 100 :][:100])
            found.append(tuple(run.published()["prefixes.sizes"].tolist()))
        return found

    whole, again, other = run_of(1), run_of(1), run_of(2)
    expected = drawn(whole, range(12))
    assert drawn(other, range(12)) != expected and drawn(again, range(5)) == expected[:5]
    resumed = run_of(1)
    resumed.load(again.tensors(), again.tokens, [])
    assert drawn(resumed, range(5, 12)) == expected[5:]
    assert all(torch.equal(value, whole.tensors()[name]) for name, value in resumed.tensors().items())


def test_fitting_hands_its_seed_on(generator, monkeypatch):
    seen, begin = [], SampledPrefixes.begin
    monkeypatch.setattr(SampledPrefixes, "begin", lambda self, model: (seen.append(self.seed), begin(self, model)))
    fit(Matryoshka(16, k=2, sampled=True), torch.randn(200, 8, generator=generator), n_tokens=100, seed=7, quiet=True)
    assert seen == [7]
