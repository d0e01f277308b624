"""The lineup: equal settings, honest omissions, costs that mean the same everywhere, a page without scripts."""

import json
import re

import pytest
import torch

from html_tree import Tree
from overtone.core.errors import SettingError
from overtone.dictionaries.presets.multi_top_k import MultiTopK
from overtone.dictionaries.presets.relu_l1 import ReluL1
from overtone.dictionaries.presets.top_k import TopK
from overtone.evaluate.compare import Sample
from overtone.evaluate.cost import matmul_units
from overtone.evaluate.lineup.entrants import entrants
from overtone.evaluate.lineup.lineup import by_document, lineup
from overtone.evaluate.lineup.page import Column, _best, render, short
from overtone.training.fit import fit

NAMES = ("top_k", "jump_relu", "k_means", "pca", "transcoder")


def sample(seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(800, 8, generator=draw) @ torch.randn(8, 8, generator=torch.Generator().manual_seed(9))
    return Sample(x[:600], x[600:])


@pytest.fixture(scope="module")
def found():
    return lineup(sample, n_latents=16, ks=(2, 4), seeds=(0, 1), n_tokens=6000, batch_rows=100, names=NAMES, quiet=True)


def test_everyone_gets_the_same_width_and_budget_or_is_left_out_with_a_reason():
    able, unable = entrants((), 32, 4, width=24)
    assert {one.name for one in able if one.preset.n_latents != 32} == {"pca", "ica"}, "24 is the most they can have"
    settings = {one.name: one.preset.to_dict() for one in able}
    assert settings["top_k"]["k"] == 4 and settings["gated"]["target_l0"] == 4.0
    assert {one.name for one in able if one.k is None} >= {"k_means"}
    assert {"transcoder", "skip_transcoder"} <= unable.keys() and "targets" in unable["transcoder"]
    shared, within = entrants(("batch_top_k", "relu_l1", "top_k"), 32, 1.4, width=24)
    assert [one.k for one in shared] == [1.4, 1.4] and "k=1.4: use a whole number" in within["top_k"]


def test_a_budget_is_one_standing_and_who_has_none_stands_once(found):
    assert sorted((one.name, one.k) for one in found.standings if one.k) == [
        ("jump_relu", 2), ("jump_relu", 4), ("pca", 2), ("pca", 4), ("top_k", 2), ("top_k", 4),
    ]  # fmt: skip
    assert {one.n_latents for one in found.standings if one.name == "pca"} == {8}
    assert [one.name for one in found.standings if one.k is None] == ["k_means"]
    assert set(found.left_out) == {"transcoder"} and "targets" in found.left_out["transcoder"]


def test_more_active_latents_miss_less_and_intervals_hold_their_means(found):
    errors = {(one.name, one.k): one.fvu for one in found.standings}
    assert errors["top_k", 4].value < errors["top_k", 2].value
    assert all(e.low <= e.value <= e.high for e in errors.values())
    assert [one.fvu.value for one in found.standings if one.k == 4] == sorted(
        one.fvu.value for one in found.standings if one.k == 4
    )


def test_the_page_shows_every_number_and_runs_nothing(found):
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    html = render(data)
    assert Tree(html).errors == []
    assert "<script" not in html and "http" not in html.replace("http-equiv", "")
    for one in data["standings"]:
        assert one["name"] in html and f"{100 * one['fvu']['value']:.1f} %" in html
    assert "targets" in html and "8 latents" in html


def test_the_page_marks_the_best_of_a_group_and_nobody_where_that_says_nothing():
    def one(name, k, fvu, dead):
        return {"name": name, "k": k, "fvu": fvu, "dead_share": dead, "l0": 1.0, "n_latents": 4, "role": "",
                "paper": "", "stability": None, "seconds": 1.0, "matmul_units": None}  # fmt: skip

    standings = [one("a", 2, 0.1, 0.0), one("b", 2, 0.2, 0.0), one("c", 2, 0.3, 0.0), one("free", None, 0.01, 0.5)]
    data = {"standings": standings, "left_out": {}, "rows": {"train": 9, "held_out": 3, "width": 2}}
    settings = {"n_latents": 4, "ks": [2, 3], "n_tokens": 900, "batch_rows": 3, "seeds": [0], "rounds": 5}
    html = render(data | {"settings": settings})
    best = re.findall(r"mark best.*?<text[^>]*>([^<]*)</text>", html, re.DOTALL)
    assert best == ["10.0 %", "50.0 %", "1"], "errors within a budget; dead latents shared by three are nobody's"
    assert "asked for 2 active latents per row" in html and "no budget" in html and "2 or 3 active per row" in html
    assert "updates" not in html
    few = render(data | {"settings": settings | {"n_tokens": 897}})
    assert "Trainings had 299 updates: with fewer than some 300" in few


def test_what_lies_within_the_interval_of_the_best_shares_its_place():
    def marked(*triples, less=True):
        column = Column("stability", "", "", less, short)
        group = [{"k": 2, "stability": {"value": v, "low": v - d, "high": v + d}} for v, d in triples]
        return _best(column, group)

    assert marked((1.0, 0.1), (1.15, 0.1), (2.0, 0.1)) == [True, True, False]
    assert marked((1.0, 0.01), (1.15, 0.01), (2.0, 0.1)) == [True, False, False]
    assert marked((1.0, 0.1), (1.15, 0.1), (2.0, 0.1), less=False) == [False, False, True]
    assert marked((1.0, 0.5), (1.15, 0.1), (1.2, 0.1)) == [False] * 3, "three share it: it is nobody's"


def test_a_name_that_is_not_there_and_an_empty_field_are_refused():
    with pytest.raises(SettingError, match="no 'topk'"):
        lineup(sample, n_latents=16, ks=(2,), seeds=(0,), n_tokens=100, names=("topk",), quiet=True)
    with pytest.raises(SettingError, match="nothing can be compared: transcoder: needs targets"):
        lineup(sample, n_latents=16, ks=(2,), seeds=(0,), n_tokens=100, names=("transcoder",), quiet=True)


def test_no_document_lies_on_both_sides():
    document = torch.arange(10).repeat_interleave(7)
    x = torch.stack([document.float(), torch.arange(70.0)], 1)
    one, other = by_document(x, document, 0), by_document(x, document, 1)
    assert not set(one.train[:, 0].tolist()) & set(one.held_out[:, 0].tolist())
    assert len(one.train) + len(one.held_out) == 70 and len(set(one.held_out[:, 0].tolist())) == 3
    assert one.held_out[:, 0].tolist() != other.held_out[:, 0].tolist()
    with pytest.raises(SettingError, match="more texts"):
        by_document(x, torch.zeros(70), 0)


def units(preset, x):
    return matmul_units(preset, fit(preset, x, n_tokens=400, batch_rows=100, quiet=True).dictionary, x)


def test_a_sparse_step_costs_its_encoder_product_and_a_dense_one_several(generator):
    x = torch.randn(200, 16, generator=generator)
    assert units(TopK(256, k=8), x) == pytest.approx(1.0, abs=0.06)
    assert units(MultiTopK(256, k=8), x) == pytest.approx(2.0, abs=0.06)
    assert 4 < units(ReluL1(256, sparsity=0.0), x) < 7


def test_counting_leaves_the_dictionary_alone(generator):
    x = torch.randn(200, 16, generator=generator)
    dictionary = fit(TopK(32, k=2), x, n_tokens=400, batch_rows=100, quiet=True).dictionary
    before = {name: value.clone() for name, value in dictionary.state_dict().items()}
    matmul_units(TopK(32, k=2), dictionary, x)
    assert all(torch.equal(value, before[name]) for name, value in dictionary.state_dict().items())
    assert not dictionary.training and not any(p.requires_grad for p in dictionary.parameters())
