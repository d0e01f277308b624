"""The laws of all dictionaries, run over the catalogue: a new preset is tested by being there."""

from typing import get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.core.artifacts import MANIFEST
from overtone.core.batch import ActivationBatch, Where
from overtone.core.catalogue import entries
from overtone.core.errors import CapabilityError, DataError, SettingError, ShapeError, StoreError
from overtone.core.sites import Site
from overtone.data.synthetic import plant, shuffled_features
from overtone.dictionaries import autoencoder
from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.kernels import choose
from overtone.dictionaries.kernels.dispatch import kernels_for, using
from overtone.dictionaries.storage import load_dictionary, save_dictionary
from overtone.training.fit import fit

ENTRIES = entries("dictionaries")
NAMES = list(ENTRIES)
WIDTH, LATENTS, K, ROWS = 8, 8, 3, 200


def states(seed=0, rows=ROWS, width=WIDTH):
    """(rows, width) float32 correlated states with a mean."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator) @ torch.randn(width, width, generator=generator) + 1


def others():
    """(2000, width) states of the law of `states()`, none of them among those."""
    generator = torch.Generator().manual_seed(0)
    torch.randn(ROWS, WIDTH, generator=generator)
    mix = torch.randn(WIDTH, WIDTH, generator=generator)
    return torch.randn(2000, WIDTH, generator=torch.Generator().manual_seed(9)) @ mix + 1


HERE, THERE = Site("mlp_in", 0), Site("mlp_out", 0)


def targets(x):
    """(rows, width) states that follow from others: what a transcoder is to predict."""
    return x.roll(1, 1).abs() - 0.5 * x


def gradients(x):
    """(rows, width) gradients of a loss at some states, which shrink as the states' unit grows."""
    unit = x.square().mean().sqrt()
    return (x / unit).sin() / unit


def train(preset, x, n_tokens=2000, batch_rows=50):
    """A dictionary of a preset, trained on states and whatever else the preset asks for."""
    where = Where(*(torch.zeros(len(x), dtype=torch.int64) for _ in range(3)))
    batch = ActivationBatch({HERE: x, THERE: targets(x)}, where, g={HERE: gradients(x)})
    target = THERE if "y" in preset.needs else None
    options = {"n_tokens": n_tokens, "batch_rows": batch_rows, "quiet": True}
    return fit(preset, batch, site=HERE, target=target, **options).dictionary


def trained(name):
    """A small dictionary of a preset after a short training."""
    if name not in _MADE:
        _MADE[name] = train(ENTRIES[name].thing.example(n_latents=LATENTS, k=K), states())
    return _MADE[name]


_MADE: dict = {}


def available(kind):
    """A kind of kernels; skips where this machine has no compiler for them."""
    try:
        with using(kind):
            kernels_for("cpu")
    except SettingError as error:
        pytest.skip(str(error))
    return kind


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_encoded_the_same_alone_and_in_company(name):
    dictionary, x = trained(name), states(1, rows=40)
    together = dictionary.encode(x).dense()
    alone = torch.cat([dictionary.encode(row[None]).dense() for row in x])
    torch.testing.assert_close(alone, together)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(dictionary.encode(x[order]).dense(), together[order])


@pytest.mark.parametrize("kind", ["compiled", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_codes_are_the_same_whatever_finds_them(name, kind, monkeypatch):
    dictionary, x = trained(name), states(1)
    with using("plain"):
        expected = dictionary.encode(x)
    monkeypatch.setattr(autoencoder, "WORTH", 0)
    monkeypatch.setattr(choose, "SPARSE", 1)
    with using(available(kind)):
        found = dictionary.encode(x)
        assert torch.equal(dictionary.encode(x[:100]).dense(), found.dense()[:100]), "company changes no bit"
    assert torch.equal(found.counts(), expected.counts())
    torch.testing.assert_close(found.dense(), expected.dense(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_saving_and_loading_changes_no_bit(name, tmp_path):
    dictionary, x = trained(name), states(1)
    loaded = load_dictionary(save_dictionary(dictionary, tmp_path / "made", seed=3))
    assert loaded.origin == dictionary.origin and loaded.capabilities == dictionary.capabilities
    before, after = dictionary.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(loaded.encode(x).dense(), dictionary.encode(x).dense())
    assert torch.equal(loaded.reconstruct(x), dictionary.reconstruct(x))


@pytest.mark.parametrize("name", NAMES)
def test_decoding_alone_and_twice_gives_the_same(name, tmp_path):
    dictionary, x = trained(name), states(1)
    codes = dictionary.encode(x)
    first = dictionary.decode(codes, x)
    dictionary.encode(1000 * states(2))
    assert torch.equal(dictionary.decode(codes, x), first)
    fresh = load_dictionary(save_dictionary(dictionary, tmp_path / "made"))
    assert torch.equal(fresh.decode(codes, x), first), "decoding must not need an encode before it"


@pytest.mark.parametrize("name", NAMES)
def test_folding_keeps_codes_and_reconstructions_and_works_once(name):
    dictionary, x = trained(name), states(1)
    if not dictionary.capabilities.foldable:
        with pytest.raises(CapabilityError, match="fold"):
            dictionary.folded()
        return
    before = {key: value.clone() for key, value in dictionary.state_dict().items()}
    folded = dictionary.folded()
    torch.testing.assert_close(folded.encode(x).dense(), dictionary.encode(x).dense(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(folded.reconstruct(x), dictionary.reconstruct(x), rtol=1e-4, atol=1e-4)
    if dictionary.capabilities.linear_decoder:
        torch.testing.assert_close(folded.atoms(), dictionary.atoms())
    assert all(torch.equal(value, dictionary.state_dict()[key]) for key, value in before.items())
    with pytest.raises(CapabilityError, match="folded before"):
        folded.folded()


@pytest.mark.parametrize("name", NAMES)
def test_a_linear_decoder_is_its_atoms_and_a_constant(name):
    dictionary, x = trained(name), states(1)
    if not dictionary.capabilities.linear_decoder:
        with pytest.raises(CapabilityError):
            dictionary.atoms()
        return
    codes = dictionary.encode(x)
    atoms, norms = dictionary.atoms(), dictionary.atom_norms()
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(LATENTS))
    nothing = SparseCodes(torch.zeros(len(x), 1), torch.zeros(len(x), 1, dtype=torch.int64), LATENTS)
    by_hand = codes.dense() @ (norms[:, None] * atoms) + dictionary.decode(nothing, x)
    torch.testing.assert_close(dictionary.decode(codes, x), by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_declared_capabilities_are_true(name):
    dictionary, x = trained(name), states(1, rows=1000)
    can = dictionary.capabilities
    assert can.to_dict() == ENTRIES[name].facts["capabilities"]
    codes = dictionary.encode(x)
    assert bool((codes.values < 0).any()) == can.signed_codes
    assert torch.equal(dictionary.encode(x).dense(), codes.dense()), "eval mode draws no random numbers"
    if not can.decode_needs_input:
        assert torch.equal(dictionary.decode(codes), dictionary.decode(codes, x))
    if not can.deterministic:
        return
    dictionary.train()
    try:
        lonely = torch.cat([dictionary.encode(row[None]).dense() for row in x[:50]])
        same = torch.allclose(lonely, dictionary.encode(x[:50]).dense(), atol=1e-5)
    finally:
        dictionary.eval()
    assert same == can.batch_independent


@pytest.mark.parametrize("name", NAMES)
def test_sparsity_is_what_the_settings_say(name):
    k = getattr(ENTRIES[name].thing.example(n_latents=LATENTS, k=K), "k", None)
    if k is None:
        pytest.skip("this preset has no budget of active latents")
    dictionary, x = trained(name), states(0)
    if not dictionary.capabilities.threshold_form:
        assert dictionary.encode(states(1)).counts().max() <= k
        return
    dictionary.train()
    spent = float(dictionary.encode(x).counts().float().mean())
    dictionary.eval()
    assert spent <= 1.05 * k
    for rows, where in ((x, "that it was trained on"), (others(), "it has not seen")):
        found = float(dictionary.encode(rows).counts().float().mean())
        assert found == pytest.approx(spent, rel=0.05), f"a threshold keeps L0 within 5 % on rows {where}"


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_keeps_the_nearest_whole_number_to_k_times_its_rows(name, tmp_path):
    thing, k = ENTRIES[name].thing, 1.4
    if get_type_hints(thing).get("k") != int | float:
        pytest.skip("this preset does not choose over the batch")
    scope = {"scope": "batch"} if "scope" in thing.__dataclass_fields__ else {}
    dictionary = train(thing.example(n_latents=LATENTS, k=K).replaced(k=k, **scope), states(), n_tokens=20_000)
    for rows in (1, 7, ROWS):  # 1.4, 9.8 and 280
        dictionary.train()
        chosen = dictionary.encode(states(1, rows) * 10).counts().sum()
        dictionary.eval()
        assert chosen == round(k * rows)
    loaded = load_dictionary(save_dictionary(dictionary, tmp_path / "made"))
    assert loaded.spec() == dictionary.spec() and loaded.train().encode(states()).counts().sum() == round(k * ROWS)
    assert torch.equal(loaded.eval().encode(states()).dense(), dictionary.encode(states()).dense())
    assert float(loaded.encode(states()).counts().float().mean()) == pytest.approx(k, rel=0.05)
    assert float(loaded.encode(others()).counts().float().mean()) == pytest.approx(k, rel=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_codes_grow_with_the_states(name):
    preset = ENTRIES[name].thing.example(n_latents=LATENTS, k=K)
    x = states()
    larger = train(preset, 256 * x)
    torch.testing.assert_close(
        larger.encode(256 * x).dense(), 256 * trained(name).encode(x).dense(), rtol=1e-4, atol=1e-2
    )


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_close(name, tmp_path):
    if ENTRIES[name].facts.get("inverse_pair"):
        pytest.skip("encoder and decoder are inverses of any condition, which rounding errors multiply by")
    dictionary, x = trained(name), states(1)
    half = load_dictionary(save_dictionary(dictionary, tmp_path / "made")).bfloat16()
    scale = (x - x.mean(0)).square().mean()
    codes = half.encode(x)
    assert codes.values.dtype == torch.float32
    active, active_half = (c.counts().double().mean() for c in (dictionary.encode(x), codes))
    assert abs(active_half - active) <= 0.05 * active
    drift = (half.decode(codes, x).float() - dictionary.reconstruct(x)).square().mean() / scale
    assert drift < 0.02
    again = load_dictionary(save_dictionary(half, tmp_path / "half"))
    assert torch.equal(again.encode(x).dense(), codes.dense())


@pytest.mark.parametrize("name", NAMES)
def test_codes_of_double_precision_are_double(name, tmp_path):
    double, x = load_dictionary(save_dictionary(trained(name), tmp_path / "made")).double(), states(1).double()
    codes = double.encode(x)
    assert codes.values.dtype == torch.float64 and double.decode(codes, x).dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_encoded_is_refused(name):
    dictionary, x = trained(name), states(1)
    with pytest.raises(ShapeError, match=f"made for width {WIDTH}"):
        dictionary.encode(x[:, :-1])
    with pytest.raises(ShapeError):
        dictionary.checked(x[0])
    with pytest.raises(DataError, match="no rows"):
        dictionary.encode(x[:0])
    with pytest.raises(DataError, match="NaN"):
        dictionary.encode(x * float("nan"))
    with pytest.raises(ShapeError, match="the dictionary that encoded them"):
        dictionary.decode(SparseCodes.from_dense(torch.ones(2, LATENTS + 1)))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None)
@given(rows=st.integers(1, 5), k=st.sampled_from([1, 2, LATENTS]), quiet_rows=st.booleans())
def test_edge_sizes_work(name, rows, k, quiet_rows):
    """One row, k = 1, k = F, rows with fewer than k positive pre-activations."""
    thing, generator = ENTRIES[name].thing, torch.Generator().manual_seed(0)
    preset = thing.example(n_latents=LATENTS, k=k)
    dictionary = preset.fitted(states(), generator) if thing.whole else preset.build(WIDTH, generator)
    dictionary.start(states(), targets(states()))
    x = states(5, rows)
    quiet_rows = quiet_rows and hasattr(getattr(dictionary, "encoder", None), "bias")
    if quiet_rows:
        dictionary.encoder.bias.data.sub_(100.0)
    codes = dictionary.encode(x)
    assert codes.dense().shape == (rows, LATENTS) and dictionary.decode(codes, x).shape == x.shape
    assert torch.isfinite(codes.values).all()
    if quiet_rows and not dictionary.capabilities.signed_codes:
        assert codes.counts().sum() == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_says_what_it_is(name):
    entry = ENTRIES[name]
    assert entry.summary and (entry.paper or entry.facts.get("role") in ("baseline", "control"))
    assert set(entry.facts["knobs"]) >= {"n_latents"}
    small = entry.thing.example(n_latents=LATENTS, k=K)
    assert entry.thing.from_dict(small.to_dict()) == small


def test_a_damaged_dictionary_is_refused(tmp_path):
    save_dictionary(trained(NAMES[0]), tmp_path / "made")
    (tmp_path / "made" / "dictionary.json").write_text("{}")
    with pytest.raises(StoreError, match="damaged"):
        load_dictionary(tmp_path / "made")
    (tmp_path / "made" / MANIFEST).unlink()
    with pytest.raises(StoreError, match="foreign or unfinished"):
        load_dictionary(tmp_path / "made")


def test_weights_that_are_not_those_of_the_description_are_named(tmp_path, monkeypatch):
    dictionary = trained("top_k")
    weights = dictionary.state_dict()
    del weights["encoder.bias"]
    weights["decoder.weight"] = torch.zeros(3, 2)
    monkeypatch.setattr(dictionary, "state_dict", lambda: weights)
    save_dictionary(dictionary, tmp_path / "made")
    with pytest.raises(StoreError, match=r"has decoder.weight \[3, 2\], where .*\[8\], decoder.weight \[8, 8\] should"):
        load_dictionary(tmp_path / "made")


# ------------------------------------------------------------------------------------------------------ planted truth
# The card of the standard methods: recovered is an atom at |cos| > 0.9; INDEX, section 4.7: medians over seeds. RISE's
# check 1 (here scaled down; its size is run by hand, docs/log) asks for 0.95, of which two kinds are not sure: of the
# atoms multi_top_k finds 0.88 to 1 so exactly, p_annealing 0.92 to 1, by seed; with smaller steps less.
CLAIMANTS = [name for name in NAMES if ENTRIES[name].facts.get("recovers")]
EXACT, LOOSE = 0.95, {"multi_top_k", "p_annealing"}


def shares_recovered(name, seed, shuffled=False):
    """Shares of planted atoms with an atom of a trained dictionary at |cos| > 0.9 and > 0.95."""
    planted = plant(48, 32, max_cosine=0.5, seed=seed)
    x = planted.sample(10_000, active=3, seed=seed, noise=0.02).x
    x = shuffled_features(x, seed=seed + 1) if shuffled else x
    options = {"n_tokens": 150_000, "batch_rows": 500, "lr": 1e-2, "seed": seed, "quiet": True}
    atoms = fit(ENTRIES[name].thing.example(n_latents=64, k=3), x, **options).dictionary.atoms()
    best = (planted.atoms @ atoms.T).abs().max(1).values
    return [float((best > least).float().mean()) for least in (0.9, EXACT)]


def check_recovery(name, seeds, shuffled):
    """Medians over seeds; nothing of it on features shuffled over rows, with the same training."""
    loosely, exactly = torch.tensor([shares_recovered(name, seed) for seed in seeds]).median(0).values
    assert loosely >= 0.9 and (name in LOOSE or exactly >= 0.9)
    for seed in shuffled:
        assert max(shares_recovered(name, seed, shuffled=True)) < 0.1


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CLAIMANTS)
def test_planted_atoms_are_recovered_and_shuffled_features_give_none(name):
    check_recovery(name, range(3), shuffled=[0])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CLAIMANTS)
def test_planted_atoms_are_recovered_on_five_seeds(name):
    check_recovery(name, range(5), shuffled=range(5))
