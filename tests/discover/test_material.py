"""The material: splits that share nothing, rows that carry the state, name and history of their own step."""

from collections import Counter

import pytest
import torch

import think_aloud
from overtone.core.errors import DataError, SiteError
from overtone.core.sites import Site
from overtone.data.traces import delimiter_ids
from overtone.discover.crew import Crew
from overtone.discover.material import FEWEST, FIT, SELECT, TEST, Material, chosen_sites, gather
from overtone.discover.pipeline import discover
from overtone.discover.run import Run
from overtone.discover.settings import SamplingSettings
from overtone.discover.subject import make_subject


@pytest.fixture(scope="module", params=["next", "mean"])
def rows(request, found):
    return found.material.rows(found.run, request.param)


def test_splits_share_no_problem(found):
    groups = {split: {t.group for t in found.material.of(split)} for split in (FIT, SELECT, TEST)}
    assert all(groups.values())
    assert not groups[FIT] & groups[SELECT] and not (groups[FIT] | groups[SELECT]) & groups[TEST]
    assert len(found.material.of(TEST)) == found.settings.causal.n_problems
    assert len(found.material.of(FIT)) + len(found.material.of(SELECT)) == found.settings.sampling.n_traces


def test_traces_are_numbered_through_and_keep_their_outcome(found):
    assert [t.document for t in found.material.traces] == list(range(len(found.material.traces)))
    for trace, outcome in zip(found.material.traces, found.material.outcomes, strict=True):
        assert outcome["problem"] == trace.group and outcome["tokens"] == len(trace.response_ids)
        assert outcome["steps"] == len(found.material.spans[trace.document])


def test_a_behaviour_needs_enough_steps_to_learn_from_and_to_select_on(found):
    material = found.material
    for split, least in ((FIT, FEWEST), (SELECT, FEWEST // 2)):
        counts = Counter(label for t in material.of(split) for label in material.labels[t.document])
        assert all(counts[b] >= least for b in material.behaviours)


def test_every_row_carries_the_name_of_its_step_and_the_kind_of_the_one_before(found, rows):
    material, i = found.material, 0
    for trace in material.traces:
        labels = material.labels[trace.document]
        for step, label in enumerate(labels):
            assert (int(rows.where.document[i]), int(rows.where.step[i])) == (trace.document, step)
            assert rows.labels[i] == label
            assert rows.previous[i] == (labels[step - 1] if step else "start")
            assert rows.groups[i] == trace.group and rows.split[i] == trace.meta["split"]
            i += 1
    assert i == len(rows.labels)


def test_a_row_is_the_state_that_an_independent_pass_has_there(found, rows):
    model = found.subject.model.model
    for trace in found.material.traces[:4]:
        with torch.no_grad():
            states = model(torch.tensor([trace.tokens]), output_hidden_states=True).hidden_states
        picked = (rows.where.document == trace.document).nonzero()[:, 0].tolist()
        for site in (Site("residual", 0), Site("residual", 1)):  # the last entry of hidden_states is after the norm
            for span, row in zip(found.material.spans[trace.document], picked, strict=True):
                read = states[site.layer + 1][0]
                at = read[span.before] if rows.anchor == "next" else read[span.start : span.end].mean(0)
                torch.testing.assert_close(rows.x[site][row], at, atol=1e-4, rtol=1e-4)


def test_rows_are_found_by_split(rows):
    fit, test, both = rows.index(FIT), rows.index(TEST), rows.index(FIT, TEST)
    assert sorted([*fit.tolist(), *test.tolist()]) == both.tolist()
    assert set(rows.picked(rows.split, test)) == {TEST}


def test_a_fingerprint_tells_what_was_read(found):
    material = found.material
    assert material.fingerprint(FIT) != material.fingerprint(SELECT) != material.fingerprint(FIT, SELECT)
    assert material.fingerprint(FIT) == gather(found.run, found.crew, found.settings).fingerprint(FIT)


def test_layers_are_those_asked_for_or_all_of_a_shallow_model(found):
    assert [s.layer for s in chosen_sites(found.subject, found.settings)] == [0, 1, 2]
    assert [s.layer for s in chosen_sites(found.subject, found.settings.replaced(layers=(2, 0)))] == [2, 0]
    with pytest.raises(SiteError, match="layers count from 0"):
        chosen_sites(found.subject, found.settings.replaced(layers=(9,)))


def test_changed_prompts_are_asked_again_though_the_file_has_the_same_name(saved, tmp_path):
    prompts = think_aloud.save_prompts(tmp_path / "prompts.jsonl", 8)
    settings = think_aloud.small_settings(
        saved.model, prompts, sampling=SamplingSettings(n_traces=96, max_new_tokens=40)
    )

    def gathered():
        subject, run = make_subject(settings), Run(tmp_path / "run", resume=True)
        return gather(run, Crew(subject, settings), settings), run.reused

    first, _ = gathered()
    again, reused = gathered()
    assert reused == ["traces", "held-out traces"] and again.traces == first.traces
    prompts.write_text(prompts.read_text().replace("What is", "The sum of"))
    other, reused = gathered()
    assert reused == [] and all("The sum of" in t.meta["prompt"] for t in other.traces)


def test_traces_without_blank_lines_have_one_kind_of_step_and_are_refused(saved, tmp_path):
    model = think_aloud.save_model(tmp_path / "model", ends=("@\n\n",))
    prompts = think_aloud.save_prompts(tmp_path / "prompts.jsonl")
    settings = think_aloud.small_settings(model, prompts, sampling=SamplingSettings(n_traces=16, max_new_tokens=3))
    assert delimiter_ids(make_subject(settings).model.tokenizer)
    with pytest.raises(DataError, match=r"fewer than two kinds.*max_new_tokens"):
        discover(settings, tmp_path / "run")
    assert not list((tmp_path / "run").glob("report*"))


def test_anchors_read_together_are_those_read_alone(found, tmp_path):
    """One pass for both anchors gives the rows that a pass for each gives."""
    run = Run(tmp_path / "run", resume=True)
    alone = Material(found.subject, found.material.sites, found.material.traces, found.material.outcomes, ())
    for anchor in ("mean", "next"):
        one, other = found.material.rows(found.run, anchor), alone.rows(run, anchor)
        assert (one.labels, one.previous, one.groups) == (other.labels, other.previous, other.groups)
        assert torch.equal(one.where.token, other.where.token) and torch.equal(one.where.step, other.where.step)
        for site in found.material.sites:
            torch.testing.assert_close(one.x[site], other.x[site], atol=1e-5, rtol=1e-4)
