"""The algebra of edits, in double precision, over the whole catalogue: what each one declares is measured."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from overtone.core.catalogue import entries
from overtone.core.errors import CapabilityError, DataError, SettingError, ShapeError, SiteError
from overtone.core.sites import Site
from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.dictionary import Capabilities
from overtone.directions import unit_direction
from overtone.steering.edit import CONSERVED, mean_change
from overtone.steering.edits.add import Add
from overtone.steering.edits.atom_set import AtomSet, Attenuate
from overtone.steering.edits.clamp import Clamp
from overtone.steering.edits.norm_preserving import NormPreserving
from overtone.steering.edits.push import Push
from overtone.steering.edits.remove import Remove
from overtone.steering.edits.scale import Scale
from overtone.steering.edits.scale_around import ScaleAround
from overtone.steering.strength import Strength

WIDTH, LATENT = 6, 2
EDITS = entries("edits")
ROWS = arrays("float64", st.tuples(st.integers(1, 5), st.just(WIDTH)), elements=st.floats(-50, 50, width=32)).map(
    torch.from_numpy
)
FACTORS = st.floats(-4, 4)
QUICK = settings(max_examples=40, deadline=None)


class Basis:
    """A linear dictionary whose atoms are the axes, of length 2, with a bias it does not explain away."""

    width, n_latents, capabilities = WIDTH, WIDTH, Capabilities()

    def encode(self, x):
        return SparseCodes.from_dense((x / 2).relu())

    def decode(self, codes):
        return codes.dense() * 2

    def atoms(self):
        return torch.eye(WIDTH)

    def atom_norms(self):
        return torch.full((WIDTH,), 2.0)


def direction_for(entry):
    """A direction that the edit accepts: an atom for edits through a dictionary, an oblique one otherwise."""
    vector = torch.eye(WIDTH)[LATENT] if entry.facts.get("needs") else torch.arange(1.0, WIDTH + 1)
    return unit_direction(vector, Site("residual", 0), rows=torch.randn(20, WIDTH))


def make(entry, fact):
    """The edit that the facts of a catalogue entry describe."""
    chosen = dict(entry.facts[fact])
    if entry.facts.get("needs") == "dictionary":
        chosen |= {"dictionary": Basis(), "latent": LATENT}
    return entry.thing(**chosen)


def unit(direction):
    return direction.like(torch.ones(1, WIDTH, dtype=torch.float64))


def complement(rows, v):
    return rows - (rows @ v)[:, None] * v


MEASURES = {
    "complement": complement,
    "norm": lambda rows, v: rows.norm(dim=1),
    "size": lambda rows, v: (rows @ v).abs(),
    "angle_away": lambda rows, v: torch.nn.functional.normalize(complement(rows, v), dim=1),
    "error": lambda rows, v: rows - Basis().decode(Basis().encode(rows)),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_conserves_what_it_declares(name, generator):
    entry = EDITS[name]
    rows, d = 3 * torch.randn(40, WIDTH, generator=generator, dtype=torch.float64), direction_for(entry)
    if entry.facts.get("needs"):
        rows = rows.abs()  # all latents active: encoding the edited rows gives the code that the edit meant
    edit, v = make(entry, "example"), unit(d)
    edited = edit.apply(rows, d)
    assert entry.thing.conserves <= set(CONSERVED) and not torch.equal(edited, rows)
    for law in entry.thing.conserves - {"zero"}:
        torch.testing.assert_close(MEASURES[law](edited, v), MEASURES[law](rows, v), atol=1e-9, rtol=1e-9, msg=law)
    if "zero" in entry.thing.conserves:
        flat = torch.zeros(1, WIDTH, dtype=torch.float64)
        assert torch.equal(edit.apply(flat, d), flat)


@pytest.mark.parametrize("name", [n for n, e in EDITS.items() if "identity" in e.facts])
def test_the_identity_setting_returns_the_same_bits(name, generator):
    entry = EDITS[name]
    edit = make(entry, "identity")
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        rows = torch.randn(30, WIDTH, generator=generator).to(dtype) * 100
        assert edit.is_identity and torch.equal(edit.apply(rows, direction_for(entry)), rows)


@pytest.mark.parametrize("name", EDITS)
def test_rows_are_independent_and_the_callers_are_left_alone(name, generator):
    entry = EDITS[name]
    rows, d, edit = torch.randn(7, WIDTH, generator=generator), direction_for(entry), make(entry, "example")
    kept = rows.clone()
    together = edit.apply(rows, d)
    assert torch.equal(rows, kept)
    torch.testing.assert_close(torch.cat([edit.apply(row[None], d) for row in rows]), together)


@pytest.mark.parametrize("name", EDITS)
def test_a_direction_of_another_width_is_refused(name):
    entry = EDITS[name]
    other = unit_direction(torch.ones(WIDTH + 1), Site("residual", 0))
    with pytest.raises(ShapeError, match=f"width {WIDTH + 1}.*width {WIDTH}"):
        make(entry, "example").apply(torch.ones(2, WIDTH), other)


@pytest.mark.parametrize("name", [n for n, e in EDITS.items() if "idempotent" in e.facts.get("laws", ())])
@QUICK
@given(rows=ROWS)
def test_twice_is_once(name, rows):
    entry = EDITS[name]
    d, edit = direction_for(entry), make(entry, "example")
    once = edit.apply(rows, d)
    torch.testing.assert_close(edit.apply(once, d), once, atol=1e-9, rtol=1e-12)


@pytest.mark.parametrize("name", [n for n, e in EDITS.items() if "involution" in e.facts.get("laws", ())])
@QUICK
@given(rows=ROWS)
def test_twice_is_nothing(name, rows):
    entry = EDITS[name]
    d, edit = direction_for(entry), make(entry, "example")
    torch.testing.assert_close(edit.apply(edit.apply(rows, d), d), rows, atol=1e-9, rtol=1e-12)


D = unit_direction(torch.arange(1.0, WIDTH + 1), Site("residual", 0), rows=torch.ones(3, WIDTH))


@QUICK
@given(rows=ROWS, first=FACTORS, second=FACTORS)
def test_scalings_multiply(rows, first, second):
    both = Scale(second).apply(Scale(first).apply(rows, D), D)
    torch.testing.assert_close(both, Scale(first * second).apply(rows, D), atol=1e-9, rtol=1e-9)


@QUICK
@given(rows=ROWS, factor=FACTORS)
def test_scaling_multiplies_the_projection(rows, factor):
    after = D.project(Scale(factor).apply(rows, D))
    torch.testing.assert_close(after, factor * D.project(rows), atol=1e-9, rtol=1e-9)


@QUICK
@given(rows=ROWS)
def test_removing_leaves_no_projection_and_is_scaling_by_zero(rows):
    removed = Remove().apply(rows, D)
    assert float(D.project(removed).abs().max()) < 1e-10
    torch.testing.assert_close(removed, Scale(0).apply(rows, D), atol=1e-12, rtol=0)


@QUICK
@given(rows=ROWS, value=st.floats(-20, 20))
def test_clamping_sets_the_projection_on_the_side_it_is_asked_for(rows, value):
    before = D.project(rows)
    target = torch.full_like(before, value)
    for side, expected in {
        "both": target,
        "at_least": before.clamp_min(value),
        "at_most": before.clamp_max(value),
    }.items():
        after = Clamp(value, side).apply(rows, D)
        torch.testing.assert_close(D.project(after), expected, atol=1e-9, rtol=1e-9)
    untouched = before > value
    assert torch.equal(Clamp(value, "at_least").apply(rows, D)[untouched], rows[untouched])


@QUICK
@given(rows=ROWS, strength=st.floats(-30, 30))
def test_a_turned_row_keeps_its_length(rows, strength):
    turned = NormPreserving(Add(strength)).apply(rows, D)
    torch.testing.assert_close(turned.norm(dim=1), rows.norm(dim=1), atol=1e-6, rtol=1e-6)


def test_a_row_with_no_direction_left_is_returned():
    rows = 3 * D.vector[None].double()
    assert torch.equal(NormPreserving(Scale(0)).apply(torch.zeros(1, WIDTH), D), torch.zeros(1, WIDTH))
    assert torch.isfinite(NormPreserving(Remove()).apply(rows, D)).all()


@QUICK
@given(rows=ROWS, centre=st.floats(-5, 5))
def test_the_affine_removal_is_the_clamp_at_the_centre(rows, centre):
    torch.testing.assert_close(
        ScaleAround(0.0, centre).apply(rows, D), Clamp(centre).apply(rows, D), atol=1e-9, rtol=1e-9
    )


def test_the_centre_defaults_to_the_mean_projection():
    rows = torch.randn(4, WIDTH)
    torch.testing.assert_close(
        D.project(ScaleAround(0.0).apply(rows, D)), torch.full((4,), D.mean_projection), atol=1e-5, rtol=1e-5
    )
    with pytest.raises(SettingError):
        ScaleAround(0.0).apply(rows, unit_direction(torch.ones(WIDTH), Site("residual", 0)))


def test_pushing_strengthens_either_sign():
    rows = torch.stack([D.vector, -2 * D.vector])
    torch.testing.assert_close(D.project(Push(0.5).apply(rows, D)), torch.tensor([1.5, -2.5]))


def test_strengths_have_units():
    rows = torch.zeros(1, WIDTH)
    moved = Add(Strength(2.0, "norm")).apply(rows, D)
    assert float(moved.norm()) == pytest.approx(2 * math.sqrt(WIDTH), rel=1e-5)


# ------------------------------------------------------------------------------------------ through a dictionary
ATOM = unit_direction(torch.eye(WIDTH)[LATENT], Site("residual", 0))


@QUICK
@given(rows=ROWS, value=st.floats(0.015625, 9, width=16))
def test_setting_a_latent_equals_decoding_the_changed_code_plus_the_error(rows, value):
    codes = Basis().encode(rows).dense()
    error = rows - codes * 2
    codes[:, LATENT] = value
    torch.testing.assert_close(AtomSet(Basis(), LATENT, value).apply(rows, ATOM), codes * 2 + error)


@QUICK
@given(rows=ROWS)
def test_setting_a_latent_to_its_own_value_is_the_identity(rows):
    for row in rows:
        z = float(Basis().encode(row[None]).column(LATENT))
        assert torch.equal(AtomSet(Basis(), LATENT, z).apply(row[None], ATOM), row[None])


def test_a_latent_is_clamped_on_the_side_it_is_asked_for():
    rows = torch.zeros(2, WIDTH, dtype=torch.float64)
    rows[:, LATENT] = torch.tensor([2.0, 10.0])  # codes 1 and 5
    codes = lambda edit: Basis().encode(edit.apply(rows, ATOM)).column(LATENT).tolist()  # noqa: E731
    assert codes(AtomSet(Basis(), LATENT, 3.0)) == [3.0, 3.0]
    assert codes(AtomSet(Basis(), LATENT, 3.0, "at_least")) == [3.0, 5.0]
    assert codes(AtomSet(Basis(), LATENT, 3.0, "at_most")) == [1.0, 3.0]
    assert codes(Attenuate(Basis(), LATENT, 0.5)) == [0.5, 2.5]


def test_rows_in_which_a_latent_is_silent_are_not_attenuated():
    rows = -torch.ones(3, WIDTH)
    assert torch.equal(Attenuate(Basis(), LATENT, 0.0).apply(rows, ATOM), rows)


def test_edits_through_a_dictionary_refuse_other_atoms_latents_and_decoders():
    with pytest.raises(SiteError, match="not the atom of latent 2"):
        AtomSet(Basis(), LATENT, 1.0).apply(torch.ones(2, WIDTH), D)
    with pytest.raises(DataError, match="0 to 5"):
        AtomSet(Basis(), WIDTH, 1.0)
    curved = Basis()
    curved.capabilities = Capabilities(linear_decoder=False)
    with pytest.raises(CapabilityError, match="linear decoder"):
        Attenuate(curved, LATENT, 0.5)
    with pytest.raises(SettingError, match="at_least"):
        AtomSet(Basis(), LATENT, 1.0, "above")


# ------------------------------------------------------------------------------------------------------ in general
def test_edits_describe_themselves_in_plain_data():
    assert Add(Strength(2.0, "norm")).describe() == {"edit": "Add", "strength": "2 norm"}
    assert Scale(0.5).describe() == {"edit": "Scale", "factor": 0.5}


def test_the_mean_change_is_the_distance_rows_move():
    rows = torch.tensor([[0.0] * WIDTH, [1.0] * WIDTH])
    assert mean_change(Add(-3.0), D, rows) == pytest.approx(3.0, rel=1e-5)


def test_every_edit_has_the_facts_that_tests_and_pages_read():
    for entry in EDITS.values():
        assert "example" in entry.facts and isinstance(entry.thing.conserves, frozenset)
        assert set(entry.facts) <= {"identity", "example", "knob", "laws", "needs"}
