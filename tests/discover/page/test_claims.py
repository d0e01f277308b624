"""Findings are grouped by letter; none is lost, and which ones stand in view does not depend on what was measured."""

import page_example
from html_tree import Tree
from overtone.discover.page.claims import grouped
from overtone.discover.page.render import render


def finding(name: str, holds: bool | None = True) -> dict:
    return {"id": name, "claim": name, "measured": 1.0, "unit": "nats", "n": 1, "holds": holds}


CAUSAL = [f"c.{b}.{k}" for b in ("reflection", "backtracking") for k in ("monotone", "suppress", "amplify", "bias")]


def test_no_finding_is_lost_and_each_keeps_its_place():
    names = ["f.reflection", "other", *CAUSAL, "a.mean.problems", "a.x", "z.y", "b.depth", "b.silhouette", "b.pair"]
    groups = grouped(map(finding, names))
    assert [g.letter for g in groups] == ["a", "b", "c", "f", ""]
    assert {place: f["id"] for g in groups for place, f in g.all} == dict(enumerate(names))
    assert all(f["id"].split(".")[0] == g.letter for g in groups if g.letter for _, f in g.all)


def test_the_first_behaviour_shows_its_curve_and_both_directions():
    (group,) = grouped(map(finding, CAUSAL))
    assert {f["id"] for _, f in group.main} == {f"c.reflection.{k}" for k in ("monotone", "suppress", "amplify")}


def test_a_group_without_main_findings_shows_its_first_two():
    (group,) = grouped(finding(f"f.{i}") for i in range(4))
    assert [f["id"] for _, f in group.main] == ["f.0", "f.1"]


def test_what_is_in_view_does_not_depend_on_the_outcome():
    views = [[f["id"] for _, f in grouped(finding(n, holds) for n in CAUSAL)[0].main] for holds in (True, False, None)]
    assert views[0] == views[1] == views[2]


def test_counts_tell_what_holds_from_what_could_not_be_tested():
    (group,) = grouped([finding("d.a"), finding("d.b", False), finding("d.c", None), finding("d.d")])
    assert (group.n_hold, group.n_open, len(group.all)) == (2, 1, 4)


def test_every_finding_of_a_report_is_charted_once_under_its_own_number():
    example = page_example.example()
    tree = Tree(render(example))
    charted = [int(a["data-index"]) for _, a in tree.elements if a.get("data-chart") == "finding"]
    measured = [i for i, f in enumerate(example["findings"]) if f["measured"] is not None]
    assert sorted(charted) == measured
    links = {a["href"] for _, a in tree.elements if a.get("href", "").startswith("#findings-")}
    assert {link[1:] for link in links} <= tree.ids() and len(links) == 6
