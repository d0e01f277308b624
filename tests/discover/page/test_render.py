"""The page: self-contained, well formed whatever is missing, and safe whatever the text says."""

import re
from importlib.resources import files

import pytest

import page_example
from html_tree import Tree
from overtone.core.report import Finding, Report
from overtone.discover.page import sections as s
from overtone.discover.page.render import (
    CHARTED,
    SCRIPTS,
    SECTIONS,
    best_first,
    by_site,
    counted,
    in_turn,
    is_named,
    render,
)


@pytest.fixture(scope="module")
def example() -> dict:
    return page_example.example()


@pytest.fixture(scope="module")
def page(example) -> Tree:
    return Tree(render(example))


def test_the_page_is_well_formed(page):
    assert page.errors == [] and page.open == []


def test_the_page_asks_for_nothing_from_elsewhere(example):
    html = render(example)
    tree = Tree(html)
    assert {tag for tag, _ in tree.elements} & {"link", "img", "iframe", "object", "embed"} == set()
    assert [a for _, a in tree.elements if "src" in a or a.get("href", "#")[:1] != "#"] == []
    assert re.findall(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", html) == []
    assert "default-src 'none'" in html


def test_every_section_of_the_example_is_shown_and_linked(page):
    links = {attrs["href"] for tag, attrs in page.elements if tag == "a"}
    assert {key for key, _ in SECTIONS} <= page.ids()
    assert {f"#{key}" for key, _ in SECTIONS} <= links


@pytest.mark.parametrize("key", [key for key, _ in SECTIONS])
def test_a_missing_section_is_left_out_with_its_link(example, key):
    tree = Tree(render({name: part for name, part in example.items() if name != key}))
    assert tree.errors == []
    assert key not in tree.ids()
    assert all(attrs.get("href") != f"#{key}" for _, attrs in tree.elements)


@pytest.mark.parametrize("key", [key for key, _ in SECTIONS])
def test_a_section_stands_alone(example, key):
    tree = Tree(render({"title": "one section", key: example[key]}))
    assert tree.errors == []
    assert tree.ids() >= {key} and not tree.ids() & ({name for name, _ in SECTIONS} - {key})


@pytest.mark.parametrize("empty", [None, [], {}])
def test_an_empty_section_is_a_missing_one(example, empty):
    tree = Tree(render({**example, "doses": empty, "atoms": empty}))
    assert not tree.ids() & {"doses", "atoms"}


def test_a_map_without_points_is_left_out():
    assert "atoms" not in Tree(render({"title": "", "atoms": s.AtomMap("PCA", ()).to_dict()})).ids()


def test_sections_of_which_little_was_measured_are_shown():
    sections = {
        "summary": s.Summary(("One sentence.",)),
        "atoms": s.AtomMap("PCA", (s.AtomPoint(0.0, 1.0, "residual.0", 0, 3),)),
        "separability": [s.LayerSeparability("residual.0", 0, None)],
        "auroc": [s.BehaviourAuroc("reflection", "problems", s.Estimate(None))],
        "doses": [
            s.DoseCurve("reflection", "residual.0", "norms", (s.DoseSeries("v", "steered", (s.DosePoint(1.0),)),))
        ],
        "traces": [s.TraceComparison("reflection", "a prompt", (s.TracePanel("unsteered", (s.TraceStep("so"),)),))],
        "features": [s.FeatureCard("residual.0", 3)],
        "clusters": [s.ClusterCard(0, 4)],
        "confidence": s.ConfidenceResult("residual.0", 1.0, 0.5),
        "length": s.LengthResult(100.0),
        "transfer": [s.TransferRow("reflection", "sums", s.Estimate(1.0), s.Estimate(2.0), s.Estimate(0.5))],
        "model": s.ModelFacts("m"),
        "dictionaries": [s.DictionaryFacts("residual.0", "top_k", 8, 100)],
    }
    finding = Finding("a", "a claim", float("nan"), "nats", 0, None)
    tree = Tree(render(Report("little", (finding,), {"seed": 0}, s.plain(sections)).to_dict()))
    assert tree.errors == []
    assert {key for key, _ in SECTIONS} <= tree.ids()
    assert not any("Undefined" in text or text.strip() == "None" for _, text in tree.texts)


def test_text_of_a_model_cannot_become_markup(example):
    evil = '</script><img src=x onerror="alert(1)"><b>'
    step = s.TraceStep(evil, behaviour=evil)
    report = {
        **example,
        "title": evil,
        "traces": s.plain([s.TraceComparison(evil, evil, (s.TracePanel("unsteered", (step,)),))]),
        "features": s.plain([s.FeatureCard("residual.0", 1, evil, evil, contexts=(s.ContextStep(evil, evil, evil),))]),
        "model": s.ModelFacts(evil, behaviours=(s.BehaviourShare(evil, 0.5),)).to_dict(),
    }
    tree = Tree(render(report))
    assert tree.errors == []
    assert sum(tag == "script" for tag, _ in tree.elements) == 2
    assert not any(tag == "img" or "onerror" in attrs for tag, attrs in tree.elements)
    assert tree.data()["model"]["name"] == evil


def test_the_charts_read_the_numbers_of_the_report(example, page):
    data = page.data()
    assert set(data) == {*CHARTED, "behaviours"}
    assert [p["latent"] for p in data["atoms"]["points"]] == [p["latent"] for p in example["atoms"]["points"]]
    ours = example["doses"][0]["series"][0]["points"][0]["rates"]["reflection"]["value"]
    shown = data["doses"][0]["series"][0]["points"][0]["rates"]["reflection"]["value"]
    assert shown == pytest.approx(ours, rel=1e-4)


def test_every_chart_of_the_page_has_a_figure_that_draws_it(page):
    figures = (files("overtone.discover.page") / "assets" / "figures.js").read_text(encoding="utf-8")
    drawn = set(re.findall(r"^  (\w+)\(host(?:, \{[^}]*\})?\) \{", figures, re.MULTILINE))
    assert {attrs["data-chart"] for _, attrs in page.elements if "data-chart" in attrs} == drawn


def test_every_script_is_embedded(example):
    html = render(example)
    folder = files("overtone.discover.page") / "assets"
    assert {path.name for path in folder.iterdir() if path.name.endswith(".js")} == set(SCRIPTS)
    assert all((folder / name).read_text(encoding="utf-8") in html for name in SCRIPTS)


def test_a_large_report_stays_below_three_megabytes(example):
    points = example["atoms"]["points"] * 15
    assert len(render({**example, "atoms": {**example["atoms"], "points": points}}).encode()) < 3_000_000


def test_each_comparison_shows_its_steps_in_order(example, page):
    items = [text.strip() for tag, text in page.texts if tag == "li" and text.strip()]
    expected = [step["text"] for t in example["traces"] for p in t["panels"] for step in p["steps"]]
    assert [item for item in items if item in set(expected)] == expected


def test_labels_take_turns_in_the_gallery():
    cards = [{"label": label, "latent": i} for i, label in enumerate("aaabbc")]
    assert [card["label"] for card in in_turn(cards)] == list("abcaba")
    assert [card["latent"] for card in in_turn(cards) if card["label"] == "a"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("label", "purity", "named"), [("a", 0.9, True), ("a", 0.5, False), ("", 0.9, False), ("a", None, False)]
)
def test_a_cluster_is_named_by_a_pure_label_only(label, purity, named):
    assert is_named({"label": label, "purity": purity}) is named


def test_each_site_of_a_cluster_is_said_once():
    assert by_site(["residual.1 #3", "residual.2 #4", "residual.1 #5"]) == ["residual.1 #3 #5", "residual.2 #4"]


def test_contexts_that_read_the_same_are_counted():
    found = counted(s.plain([s.ContextStep("a"), s.ContextStep("b"), s.ContextStep("a", activation=2.0)]))
    assert [(c["step"], c["times"]) for c in found] == [("a", 2), ("b", 1)]


def test_trials_keep_behaviours_together_with_the_strongest_first():
    trials = [{"behaviour": b, "swing": w} for b, w in (("x", 0.1), ("y", 2.0), ("x", None), ("x", 0.7))]
    assert [(t["behaviour"], t["swing"]) for t in best_first(trials)] == [
        ("x", 0.7),
        ("x", 0.1),
        ("x", None),
        ("y", 2.0),
    ]


def test_a_long_trace_folds_its_later_steps_and_loses_none():
    steps = tuple(s.TraceStep(f"step number {i}", "reflection") for i in range(30))
    trace = s.TraceComparison("reflection", "p", (s.TracePanel("amplified", steps),))
    tree = Tree(render({"title": "", "traces": s.plain([trace])}))
    assert [t.strip() for tag, t in tree.texts if tag == "li" and t.strip()] == [step.text for step in steps]
    assert sum(tag == "details" for tag, _ in tree.elements) == 1
