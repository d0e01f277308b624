"""MP-SAE: its gradient is that of the recursion, its codes are matching pursuit at any number of steps, and it keeps a
child apart from its parent where a TopK dictionary merges them."""

from statistics import median

import pytest
import torch
from torch.nn.functional import normalize

from overtone.core.errors import CapabilityError, SettingError
from overtone.data.hierarchical import merging, plant_tree
from overtone.data.synthetic import plant
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.decoders.linear import Linear
from overtone.dictionaries.encoders.tied import Tied
from overtone.dictionaries.encoders.unrolled import Unrolled
from overtone.dictionaries.kernels.dispatch import using
from overtone.dictionaries.objectives.revival import Revival
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.mp_sae import MPSAE
from overtone.dictionaries.presets.top_k import TopK
from overtone.dictionaries.pursuit import Pursuit
from overtone.evaluate.reconstruction import dead_share, fvu, l0
from overtone.training.fit import fit
from overtone.training.schedules import Schedule
from overtone.training.step import Given, forward

TOY = {"batch_rows": 200, "lr": 3e-2, "quiet": True, "schedule": Schedule(0.02, 0.2)}
PLANTED = plant(48, 24, max_cosine=0.6, seed=0)
X = PLANTED.sample(4000, active=3, seed=0, noise=0.02).x


def untrained(k=3, n_latents=40, **knobs):
    model = MPSAE(n_latents, k=k, **knobs).build(24, torch.Generator().manual_seed(0))
    model.start(X)
    return model


@pytest.fixture(scope="module")
def trained():
    return {
        name: fit(preset, X, n_tokens=60_000, batch_rows=250, lr=4e-3, quiet=True).dictionary
        for name, preset in {"mp": MPSAE(48, k=3), "top_k": TopK(48, k=3)}.items()
    }


def test_the_gradient_of_two_steps_is_the_one_by_hand():
    """With v1 = <x, a>, v2 = <x - v1 a, b> and a random cotangent (w1, w2) of (v1, v2):
    dv1/da = x; dv2/da = -v1 b - <a, b> x; dv2/db = x - v1 a."""
    draw = torch.Generator().manual_seed(0)
    x, w1, w2 = torch.randn(1, 6, generator=draw, dtype=torch.float64), 0.7, -1.3
    decoder = Linear(6, 2).double()
    decoder.weight.data = normalize(torch.randn(2, 6, generator=draw, dtype=torch.float64), dim=1)
    decoder.weight.data[0] = normalize(x[0] + 0.3 * decoder.weight.data[0], dim=0)
    decoder.weight.data[1] = normalize(x[0] - (x[0] @ decoder.weight.data[0]) * decoder.weight.data[0] + 0.2, dim=0)
    encoder = Unrolled(2)
    support, _ = encoder.pursue(x, decoder)
    assert support.latents.tolist() == [0, 1]
    (encoder.replay(x, decoder, support) @ torch.tensor([w1, w2], dtype=torch.float64)).backward()
    a, b = decoder.weight.data
    v1 = x[0] @ a
    torch.testing.assert_close(decoder.weight.grad[0], w1 * x[0] + w2 * (-v1 * b - (a @ b) * x[0]))
    torch.testing.assert_close(decoder.weight.grad[1], w2 * (x[0] - v1 * a))


def test_the_gradient_of_the_recursion_passes_a_numerical_check():
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(3, 5, generator=draw, dtype=torch.float64)
    rows = normalize(torch.randn(8, 5, generator=draw, dtype=torch.float64), dim=1)
    decoder, encoder = Linear(5, 8).double(), Unrolled(4)
    decoder.weight.data = rows.clone()
    support, _ = encoder.pursue(x, decoder)

    class Rows:
        def __init__(self, weight):
            self.weight = weight

        def rows(self):
            return self.weight

    assert torch.autograd.gradcheck(
        lambda states, weight: encoder.replay(states, Rows(weight), support),
        (x.requires_grad_(), rows.requires_grad_()),
    )


@pytest.mark.parametrize("tolerance", [0.0, 0.4])
def test_a_training_step_sees_the_code_that_inference_gives(tolerance):
    model = untrained(k=12, tolerance=tolerance)  # 12 steps on 40 atoms: some come twice, some rows rest
    step = forward(model.train(), Given(X[:200], torch.empty(0, dtype=torch.int64), 0.0))
    inside = (step.x + step.missed).detach()
    whole = model.eval().reconstruct(X[:200])
    torch.testing.assert_close(model.normaliser.inverse(inside), whole, atol=1e-4, rtol=1e-4)
    codes = model.encode(X[:200])
    assert codes.values.min() >= 0 and codes.counts().max() <= 12
    assert (codes.counts() < 12).any()


def test_one_step_gives_the_codes_of_a_tied_dictionary_bit_for_bit():
    """INDEX, section 4.4: unroll with T = 1 is Tied with Rank(row, 1): codes are the same bits; gradients of a training
    step add up in another order, so that these agree to rounding only."""
    ours, theirs = untrained(k=1, revival=0.0), untrained(k=1)
    parts = ours.normaliser, Tied(40), ours.score, ours.selection, ours.value, theirs.decoder
    theirs = Autoencoder(*parts).eval()
    with using("plain"):
        one, other = ours.encode(X), theirs.encode(X)
        assert torch.equal(one.dense(), other.dense()) and (one.counts() == 1).float().mean() > 0.99
        for model in (ours, theirs):
            step = forward(model.train(), Given(X[:500], torch.empty(0, dtype=torch.int64), 0.0))
            step.squared_error.backward()
        torch.testing.assert_close(ours.decoder.weight.grad, theirs.decoder.weight.grad, rtol=1e-5, atol=1e-4)


def test_an_atom_that_comes_twice_in_a_row_is_one_active_latent():
    """The record's L0 is that of codes, which k steps may leave well below k."""
    model = untrained(k=12)
    step = forward(model.train(), Given(X[:200], torch.empty(0, dtype=torch.int64), 0.0))
    codes = model.eval().encode(X[:200])
    assert torch.equal(step.counts().double(), (codes.frequencies() * 200).round().double())
    assert float(codes.counts().float().mean()) < 11 and int((step.values > 0).sum()) > int(step.counts().sum())
    record = fit(MPSAE(12, k=10), X[:, :6], n_tokens=4000, batch_rows=250, quiet=True).record[-1]
    assert record.l0 < 8, "in width 6 ten steps come back to few atoms"


def test_an_objective_about_all_latents_is_refused():
    with pytest.raises(CapabilityError, match="did not choose"):
        forward(untrained().train(), Given(X[:9], torch.empty(0, dtype=torch.int64), 0.0, all_latents=True))
    with pytest.raises(SettingError, match="share of the row"):
        MPSAE(8, k=2, tolerance=1.0).build(4, torch.Generator())


def test_more_steps_after_training_never_hurt_and_its_own_number_gives_its_own_code(trained):
    x = PLANTED.sample(500, active=3, seed=1, noise=0.02).x
    same = Pursuit(trained["mp"], "matching", k=3)
    torch.testing.assert_close(same.encode(x).dense(), trained["mp"].encode(x).dense(), atol=1e-4, rtol=1e-4)
    errors = [fvu(x, Pursuit(trained["mp"], "matching", k=k).reconstruct(x)) for k in (1, 2, 3, 6, 12, 24)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.2 * errors[2]


def test_it_reconstructs_better_than_top_k_at_equal_k_and_width(trained):
    x = PLANTED.sample(1000, active=3, seed=1, noise=0.02).x
    assert fvu(x, trained["mp"].reconstruct(x)) < fvu(x, trained["top_k"].reconstruct(x))


def on_a_tree(seed, steps):
    """Merging, unexplained share and L0 of MP-SAE and of BatchTopK with k = 1 and 3, on rows it has not seen."""
    tree = plant_tree(p_parent=0.2, p_solo=0.02, seed=seed)
    x, held_out = tree.sample(20_000, seed=seed), tree.sample(2000, seed=seed + 1000)
    found = {}
    for name, preset in (
        ("mp", MPSAE(20, k=6, tolerance=0.03)), ("few", BatchTopK(20, k=1)), ("many", BatchTopK(20, k=3)),
    ):  # fmt: skip
        made = fit(preset, x, n_tokens=200 * steps, seed=seed, **TOY).dictionary
        codes = made.encode(held_out)
        found[name] = merging(made.atoms(), tree), fvu(held_out, made.decode(codes)), l0(codes)
    return found


def check_hierarchy(found):
    """Of the card's check 4 (MP below 0.35, BatchTopK at L0 1.4 above 0.4 with twice the error) this much holds: MP
    stays below 0.35 and below a BatchTopK with at least its L0, and one with less than the true L0 merges and misses
    more than twice as much. At equal L0 or more BatchTopK's merging may fall below 0.4, and the error says nothing for
    MP: with k = 2 or 3 BatchTopK explains some of the trees all but exactly."""
    (merged, missed, spent), (few_merged, few_missed, few_spent), (many_merged, _, many_spent) = (
        found[name] for name in ("mp", "few", "many")
    )
    assert few_spent < 1.1 < spent <= 1.05 * many_spent
    assert merged < 0.35 and merged < many_merged
    assert few_merged > 0.4 and missed < 0.5 * few_missed


def test_a_child_keeps_apart_from_its_parent():
    """A short training, on a seed where that suffices; five seeds at full length run with --slow."""
    check_hierarchy(on_a_tree(1, 1000))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_child_keeps_apart_from_its_parent_by_medians_and_on_every_seed():
    found = [on_a_tree(seed, 6000) for seed in range(5)]
    assert all(one["mp"][0] < 0.35 for one in found), "on each seed, as the card asks"
    check_hierarchy({name: [median(values) for values in zip(*(one[name] for one in found), strict=True)]
                     for name in found[0]})  # fmt: skip


def test_revival_wakes_atoms_that_a_bad_start_put_to_sleep(monkeypatch):
    """Two thirds of the atoms start as copies of one: the first of equal correlations is picked, the rest never."""
    build = MPSAE.build

    def copies(preset, width, generator):
        model = build(preset, width, generator)
        model.decoder.weight.data[32:] = model.decoder.weight.data[:1]
        return model

    monkeypatch.setattr(MPSAE, "build", copies)
    options = {"n_tokens": 150_000, "batch_rows": 250, "lr": 4e-3, "quiet": True}
    asleep, revived = (
        dead_share(fit(MPSAE(96, k=3, revival=weight), X, **options).dictionary.encode(X).dense())
        for weight in (0.0, 1.0)
    )
    assert revived < 0.6 * asleep and asleep > 0.2


def test_revival_moves_dead_atoms_only_and_costs_nothing_without_them():
    model = untrained().train()
    step = forward(model, Given(X[:100], torch.tensor([5, 6, 7]), 0.0))
    Revival()(step).backward()
    moved = model.decoder.weight.grad.norm(dim=1) > 0
    assert moved.any() and set(moved.nonzero().view(-1).tolist()) <= {5, 6, 7}
    assert float(Revival()(forward(model, Given(X[:9], torch.empty(0, dtype=torch.int64), 0.0)))) == 0
