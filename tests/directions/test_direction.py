"""A direction is a unit vector with a place; algebra stays in that place, files keep every bit."""

import json
import math

import pytest
import torch

from overtone.core.errors import DataError, ShapeError, SiteError, StoreError
from overtone.core.sites import Site
from overtone.directions.direction import Direction, load_directions, save_directions, unit_direction

HERE = Site("residual", 3)


def direction(*values, **facts):
    return unit_direction(torch.tensor(values, dtype=torch.float32), HERE, model="m1", **facts)


def test_the_vector_is_made_a_unit_vector_and_its_length_is_kept():
    d = direction(3.0, 4.0)
    assert d.raw_norm == pytest.approx(5.0)
    torch.testing.assert_close(d.vector, torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize("bad", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_no_direction_is_made_of_nothing(bad):
    with pytest.raises(DataError, match="zero|not finite"):
        direction(*bad)


def test_a_matrix_is_no_direction():
    with pytest.raises(ShapeError, match=r"\(2, 2\)"):
        unit_direction(torch.eye(2), HERE)


def test_the_callers_vector_is_not_shared():
    vector = torch.tensor([1.0, 0.0])
    d = Direction(vector, HERE)
    vector += 1
    assert d.vector.tolist() == [1.0, 0.0]


def test_statistics_are_those_of_the_reference_rows():
    rows = torch.tensor([[2.0, 0.0], [-1.0, 0.0], [0.0, 6.0]])
    d = direction(1.0, 0.0).measured(rows)
    assert d.typical_projection == pytest.approx(1.0)
    assert d.mean_projection == pytest.approx(1 / 3)
    assert d.mean_norm == pytest.approx(3.0)
    assert d.negated().mean_projection == pytest.approx(-1 / 3)


def test_measuring_needs_rows_of_this_width_that_are_finite():
    with pytest.raises(DataError, match="no reference rows"):
        direction(1.0, 0.0).measured(torch.empty(0, 2))
    with pytest.raises(ShapeError, match="width 3"):
        direction(1.0, 0.0).measured(torch.ones(4, 3))
    with pytest.raises(DataError, match="NaN"):
        direction(1.0, 0.0).measured(torch.tensor([[math.nan, 0.0]]))


@pytest.mark.parametrize(
    ("place", "error", "names"),
    [
        ({"site": Site("residual", 2)}, SiteError, ["residual.3", "residual.2"]),
        ({"model": "m2"}, SiteError, ["m1", "m2"]),
        ({"width": 5}, ShapeError, ["width 2", "width 5"]),
    ],
)
def test_another_place_is_refused_and_both_are_named(place, error, names):
    with pytest.raises(error) as raised:
        direction(1.0, 0.0).require(**place)
    assert all(name in str(raised.value) for name in names)


@pytest.mark.parametrize("operation", ["cosine", "combined", "orthogonal_to"])
def test_algebra_between_places_is_refused(operation):
    elsewhere = unit_direction(torch.tensor([0.0, 1.0]), Site("residual", 2), model="m1")
    with pytest.raises(SiteError, match=r"residual\.2"):
        getattr(direction(1.0, 0.0), operation)(elsewhere)


def test_the_mean_of_directions_is_a_unit_vector_and_says_how_well_they_agree():
    both = direction(1.0, 0.0).combined(direction(0.0, 1.0))
    torch.testing.assert_close(both.vector, torch.tensor([1.0, 1.0]) / 2**0.5)
    assert both.raw_norm == pytest.approx(2**-0.5)
    assert math.isnan(both.typical_projection)
    with pytest.raises(DataError, match="zero"):
        direction(1.0, 0.0).combined(direction(-1.0, 0.0))


def test_what_is_orthogonal_to_others_is_orthogonal_to_all_of_them_even_if_they_depend_on_each_other(generator):
    vectors = torch.randn(4, 12, generator=generator)
    first, *others = (unit_direction(v, HERE) for v in [*vectors, vectors[1] + vectors[2]])
    left = first.orthogonal_to(*others)
    assert max(abs(left.cosine(o)) for o in others) < 1e-6
    assert left.cosine(first) == pytest.approx(left.raw_norm, abs=1e-6)


def test_nothing_is_left_of_a_direction_inside_the_span():
    with pytest.raises(DataError, match="span"):
        direction(1.0, 1.0).orthogonal_to(direction(1.0, 0.0), direction(0.0, 1.0))


def test_moving_is_explicit_and_forgets_the_statistics():
    moved = direction(1.0, 0.0).measured(torch.ones(2, 2)).moved("residual.1")
    moved.require(site=Site("residual", 1))
    assert math.isnan(moved.mean_norm)
    assert moved.origin["of"][0]["site"] == "residual.3"


def test_files_keep_every_bit_the_order_and_the_facts(tmp_path, generator):
    rows = torch.randn(9, 7, generator=generator)
    first = unit_direction(rows[0], HERE, model="m1", rows=rows, name="a", origin={"k": (1, 2), "x": math.nan})
    second = unit_direction(rows[1], HERE, name="b")
    save_directions(tmp_path / "d", [first, second])
    one, two = load_directions(tmp_path / "d")
    assert torch.equal(one.vector, first.vector) and torch.equal(two.vector, second.vector)
    assert (one.name, one.site, one.model, one.mean_norm) == ("a", HERE, "m1", first.mean_norm)
    assert one.origin == {"k": [1, 2], "x": None}
    assert math.isnan(two.mean_norm)


def test_one_direction_saves_and_loads_itself(tmp_path):
    d = direction(1.0, 2.0, name="up")
    d.save(tmp_path / "d")
    assert torch.equal(Direction.load(tmp_path / "d").vector, d.vector)
    save_directions(tmp_path / "two", [d, d.negated()])
    with pytest.raises(StoreError, match="2 directions"):
        Direction.load(tmp_path / "two")


def test_a_damaged_folder_is_refused(tmp_path):
    direction(1.0, 2.0).save(tmp_path / "d")
    facts = tmp_path / "d" / "directions.json"
    facts.write_text(json.dumps([]))
    with pytest.raises(StoreError, match="damaged"):
        Direction.load(tmp_path / "d")


def test_in_double_precision_the_norm_is_one_to_double_precision(generator):
    d = unit_direction(torch.randn(100, generator=generator), HERE)
    assert float(d.like(torch.ones(1, 100, dtype=torch.float64)).norm()) == pytest.approx(1.0, abs=1e-15)
