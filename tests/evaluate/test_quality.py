"""Perfect dictionaries miss nothing, random ones as much as their control, and units mean nothing."""

import pytest
import torch
from torch.nn.functional import normalize

import overtone.evaluate.quality as module
from overtone.core.errors import CapabilityError, DataError, SettingError, ShapeError
from overtone.data.synthetic import plant
from overtone.dictionaries.classic.fixed import signed_projection
from overtone.dictionaries.presets.crosscoder import Crosscoder
from overtone.dictionaries.presets.g_sae import GSAE
from overtone.dictionaries.presets.pca import PCA
from overtone.dictionaries.presets.poly_sae import PolySAE
from overtone.dictionaries.presets.skip_transcoder import SkipTranscoder
from overtone.dictionaries.pursuit import Pursuit
from overtone.evaluate.quality import COMPONENTS, GRADIENT, ITS_ATOMS, MAP, MEAN, OWN, quality
from overtone.evaluate.reconstruction import fvu, reconstruction

RANDOM = "random atoms, orthogonal pursuit"


@pytest.fixture(scope="module")
def planted():
    """(rows, atoms): 600 rows of width 12, each of 3 of 24 planted atoms."""
    truth = plant(24, 12, max_cosine=0.6, seed=0)
    return truth.sample(600, active=3, seed=1).x, truth.atoms


def host(atoms, x, k=None):
    return signed_projection(atoms, atoms, x.mean(0), k=k)


def assess(dictionary, x, **options):
    return quality(dictionary, x, quiet=True, **options)


def test_a_perfect_dictionary_misses_nothing_and_needs_no_control(planted):
    x, _ = planted
    found = assess(host(torch.eye(12), x), x)
    own = found.of(OWN)
    assert own.fvu.value < 1e-10 and own.cosine == pytest.approx(1) and own.l0 == pytest.approx(12, abs=0.1)
    assert found.of(MEAN).fvu.value == pytest.approx(1) and "any atoms" in found.left_out["controls"]
    assert found.lengths["gap"] < 1e-6 and found.lengths["coherence"] < 1e-6  # orthonormal: codes as long as states


def test_what_the_own_encoder_misses_is_what_reconstruction_says(planted):
    x, atoms = planted
    dictionary = Pursuit(host(atoms, x), "matching", k=3)
    own, codes = assess(dictionary, x).of(OWN), dictionary.encode(x)
    told = reconstruction(x, dictionary.decode(codes), codes)
    assert own.fvu.value == pytest.approx(told.fvu) and own.fvu.low < own.fvu.value < own.fvu.high
    assert (own.cosine, own.l0, own.dead_share, own.n_rows) == (told.cosine, told.l0, told.dead_share, 600)
    assert own.more is None


def test_true_atoms_beat_every_control_and_random_ones_do_as_well_as_theirs(planted):
    x, atoms = planted
    good = assess(Pursuit(host(atoms, x), "orthogonal", k=3, signed=False), x)
    assert good.of(OWN).fvu.value < 0.5 * min(good.of(RANDOM).fvu.value, good.of(COMPONENTS).fvu.value)
    assert {f.id: f.holds for f in good.findings()} == {"error.random_atoms": True, "error.principal_components": True}
    random = normalize(torch.randn(24, 12, generator=torch.Generator().manual_seed(5)), dim=1)
    bad = assess(Pursuit(host(random, x), "orthogonal", k=3, signed=False), x)
    assert bad.of(OWN).fvu.value == pytest.approx(bad.of(RANDOM).fvu.value, rel=0.15)


def test_components_are_the_best_subspace_of_as_many_dimensions(planted):
    x, _ = planted
    spectrum = torch.linalg.svdvals(x.double() - x.double().mean(0)).square()
    found = assess(host(torch.eye(12), x), x, k=4)
    assert found.of(COMPONENTS).fvu.value == pytest.approx(float(spectrum[4:].sum() / spectrum.sum()), rel=1e-4)


def test_units_change_nothing(planted):
    x, atoms = planted
    small, large = (assess(host(atoms, s * x, k=3), s * x, pursuits=("matching",)) for s in (1.0, 100.0))
    for one, other in zip(small.codings, large.codings, strict=True):
        assert one.fvu.value == pytest.approx(other.fvu.value, rel=1e-4)
        assert one.fvu.high == pytest.approx(other.fvu.high, rel=1e-4) and one.l0 == other.l0
    assert small.lengths == pytest.approx(large.lengths, rel=1e-4)


def test_a_pursuit_on_orthonormal_atoms_finds_the_encoders_codes_and_more_steps_never_miss_more(planted):
    x, atoms = planted
    axes = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(2))).Q
    found = assess(host(axes, x, k=4), x, pursuits=("matching", "orthogonal", "gradient"))
    for method in ("matching", "orthogonal", "gradient"):
        more = found.of(f"{method} {ITS_ATOMS}").more
        assert more is not None and abs(more.value) < 1e-5
    errors = [
        assess(host(atoms, x, k=3), x, pursuits=("orthogonal",), k=k).of(f"orthogonal {ITS_ATOMS}").fvu.value
        for k in (1, 2, 4)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_a_win_with_more_active_latents_is_no_finding(planted):
    x, atoms = planted
    found = assess(Pursuit(host(atoms, x), "orthogonal", k=6, signed=False), x, k=2)
    assert {f.holds for f in found.findings()} == {None}
    assert all("not at equal L0" in f.note for f in found.findings())


def test_intervals_are_over_groups(planted):
    x, atoms = planted
    dictionary = host(atoms, x, k=3)
    alone = assess(dictionary, x).of(OWN).fvu
    grouped = assess(dictionary, torch.cat([x] * 4), groups=list(range(600)) * 4).of(OWN).fvu
    assert alone.n == grouped.n == 600
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=1e-3)  # copies tell nothing new
    assert assess(dictionary, x, groups=["one"] * 600).of(OWN).fvu.interval is None
    assert assess(dictionary, torch.cat([x] * 4)).of(OWN).fvu.n == 1000  # neighbours joined


def test_a_pursuit_that_would_take_long_is_tried_on_some_rows(planted, monkeypatch):
    x, atoms = planted
    monkeypatch.setattr(module, "WORK", 0)
    monkeypatch.setattr(module, "FEWEST", 60)
    dictionary = host(atoms, x, k=3)
    found = assess(dictionary, x, pursuits=("orthogonal",))
    few = found.of(f"orthogonal {ITS_ATOMS}")
    assert (few.n_rows, found.of(OWN).n_rows, found.of(COMPONENTS).n_rows) == (60, 600, 600)
    some = x[torch.linspace(0, 599, 60).round().long()]
    own = fvu(some, dictionary.reconstruct(some))
    assert few.more is not None and few.more.value == pytest.approx(few.fvu.value - own, abs=1e-5)


def test_gradients_select_where_a_dictionary_takes_them(planted, generator):
    x, _ = planted
    g = torch.randn(600, 12, generator=generator)
    dictionary = GSAE(24, k=3, beta=4.0).build(12, generator)
    found = assess(dictionary, x, g=g)
    by_hand = dictionary.decode(dictionary.encode(x, {"g": g}))
    assert found.of(GRADIENT).fvu.value == pytest.approx(fvu(x, by_hand)) != found.of(OWN).fvu.value
    assert GRADIENT not in [coding.name for coding in assess(PCA(3).fitted(x, generator), x, g=g).codings]


def test_a_transcoder_stands_beside_the_best_linear_map(planted, generator):
    x, _ = planted
    y = x @ torch.randn(12, 5, generator=generator) + 1
    dictionary = SkipTranscoder(24, k=3).build(12, generator, width_out=5)
    found = assess(dictionary, x, y=y)
    assert [coding.name for coding in found.codings] == [OWN, MAP, MEAN] and "lengths" in found.left_out
    assert found.of(MAP).fvu.value < 1e-9 and found.findings()[0].holds is False
    with pytest.raises(SettingError, match="--target"):
        assess(dictionary, x)
    with pytest.raises(ShapeError, match=r"expected \(600, 5\), got \(600, 12\)"):
        assess(dictionary, x, y=x)


def test_views_are_told_apart(planted, generator):
    x, _ = planted
    dictionary = Crosscoder(24, k=3, widths=(4, 8)).build(12, generator)
    found = assess(dictionary, x)
    given_back = dictionary.reconstruct(x)
    assert found.views == pytest.approx([fvu(x[:, :4], given_back[:, :4]), fvu(x[:, 4:], given_back[:, 4:])])


def test_what_cannot_be_is_refused(planted, generator):
    x, atoms = planted
    dictionary = host(atoms, x, k=3)
    with pytest.raises(ShapeError, match="made for width 12"):
        assess(dictionary, x[:, :5])
    with pytest.raises(SettingError, match="leave y"):
        assess(dictionary, x, y=x)
    with pytest.raises(SettingError, match="Did you mean 'matching'"):
        assess(dictionary, x, pursuits=("matchin",))
    with pytest.raises(SettingError, match="1 to 24"):
        assess(dictionary, x, k=25)
    with pytest.raises(SettingError, match="3 groups for 600 rows"):
        assess(dictionary, x, groups=[1, 2, 3])
    with pytest.raises(DataError, match="no variance"):
        assess(dictionary, x[:1].repeat(4, 1))
    poly = PolySAE(24, k=3).build(12, generator)
    with pytest.raises(CapabilityError, match="nothing to pursue"):
        assess(poly, x, pursuits=("matching",))
    assert {"lengths"} == set(assess(poly, x).left_out)
    with pytest.raises(SettingError, match="there is no 'best'; there are its encoder"):
        assess(dictionary, x).of("best")
