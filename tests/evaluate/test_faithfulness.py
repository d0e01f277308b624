"""Patching the truth changes nothing, ablations are what they say, and labels that leak are seen."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from overtone.core.errors import DataError, SettingError
from overtone.core.sites import Site
from overtone.data.traces import ReasoningTrace
from overtone.dictionaries.classic.fixed import signed_projection
from overtone.dictionaries.presets.g_sae import GSAE
from overtone.dictionaries.presets.pca import PCA
from overtone.evaluate.compare import Sample
from overtone.evaluate.faithfulness import Arm, faithfulness, spliced, spliced_arms, spliced_by_gradient
from overtone.evaluate.testbed import reasoner_states
from overtone.training.fit import fit

SITE, LAST = Site("residual", 2), Site("residual", 5)
SAME = Arm(lambda x, g: x)


@pytest.fixture(scope="module")
def bed():
    return reasoner_states([SITE, LAST], 50, gradient="mean")


@pytest.fixture(scope="module")
def texts(bed):
    return bed.traces[:10]


def test_putting_back_the_states_changes_nothing(bed, texts):
    found = faithfulness(bed.model, texts, SITE, {"same": SAME})
    assert found.divergence("same").value < 1e-6 and found.recovered("same").value == pytest.approx(1, abs=1e-4)
    assert found.cross_entropy("clean").value == pytest.approx(found.cross_entropy("same").value, abs=1e-5)
    assert found.divergence("zero").value > 0.1
    assert found.cross_entropy("mean").value > found.cross_entropy("clean").value
    assert found.recovered("zero").value == 0 and found.recovered("mean", floor="mean").value == 0


def test_sums_are_those_of_passes_made_one_by_one(bed, texts):
    found = faithfulness(bed.model, texts, SITE, {"half": Arm(lambda x, g: 0.5 * x)}, tokens_per_pass=500)
    for number in (0, 7):
        trace = texts[number]
        tokens, start = torch.tensor([trace.tokens]), len(trace.prompt_ids)

        def edit(states, call, start=start):
            return torch.cat([states[:, :start], 0.5 * states[:, start:-1], states[:, -1:]], 1)

        with bed.model.editing({SITE: edit}):
            logits = bed.model.logits(tokens)[0]
        clean = bed.model.logits(tokens)[0]
        expected = cross_entropy(logits[start:-1], tokens[0, start + 1 :], reduction="sum")
        kl = (clean.softmax(1) * (clean.log_softmax(1) - logits.log_softmax(1)))[start:-1].sum()
        assert found.ce["half"][number] == pytest.approx(float(expected), rel=1e-3)
        assert found.kl["half"][number] == pytest.approx(float(kl), rel=1e-3, abs=1e-3)
        assert found.tokens[number] == len(trace.tokens) - start - 1


def test_mean_ablation_puts_the_mean_of_the_replaced_states(bed, texts):
    seen = []
    faithfulness(bed.model, texts, SITE, {"look": Arm(lambda x, g: seen.append(x) or x)})
    mean = torch.cat(seen).mean(0)
    again = faithfulness(bed.model, texts, SITE, {"by hand": Arm(lambda x, g: mean.expand_as(x))})
    assert again.divergence("by hand").value == pytest.approx(again.divergence("mean").value, rel=1e-4)


def test_a_better_reconstruction_is_more_faithful(bed, texts):
    x = bed.x[SITE]
    few, many = (fit(PCA(n), x, n_tokens=len(x), quiet=True).dictionary for n in (4, 60))
    found = faithfulness(bed.model, texts, SITE, {"few": spliced(few), "many": spliced(many)})
    gap = found.difference("few", "many")
    assert gap.low > 0 and found.recovered("few").value < found.recovered("many").value < 1
    whole = torch.eye(x.shape[1])
    exact = faithfulness(bed.model, texts, SITE, {"all": spliced(signed_projection(whole, whole, x.mean(0), k=None))})
    assert exact.divergence("all").value < 1e-5


def test_codes_chosen_by_the_gradient_of_the_loss_know_the_label(bed, texts):
    """The leak: cross-entropy is better than the KL allows; with labels drawn from the model itself it is not, and
    without gradients it is not."""
    batch = Sample(bed.x[LAST], bed.x[LAST][:1], g=bed.g[LAST]).source
    model = fit(GSAE(256, k=4, beta=8.0), batch, n_tokens=40_000, batch_rows=512, lr=3e-3, quiet=True).dictionary
    arms = {"plain": spliced(model), "true": spliced_by_gradient(model), "drawn": spliced_by_gradient(model, "drawn")}
    found = faithfulness(bed.model, bed.traces[:30], LAST, arms)
    knows = {name: found.label_knowledge(name) for name in arms}
    assert knows["true"].low > max(knows["plain"].high, knows["drawn"].high)
    assert found.cross_entropy("true").value < found.cross_entropy("drawn").value


def test_what_cannot_be_scored_is_refused(bed, texts):
    with pytest.raises(SettingError, match="not named clean"):
        faithfulness(bed.model, texts, SITE, {"zero": SAME})
    with pytest.raises(SettingError, match="at least one arm"):
        faithfulness(bed.model, texts, SITE, {})
    with pytest.raises(SettingError, match="'true', 'drawn'"):
        Arm(lambda x, g: x, "false")
    with pytest.raises(DataError, match="no prediction"):
        faithfulness(bed.model, [ReasoningTrace((1, 5), (6,), 0, "g")], SITE, {"same": SAME})
    found = faithfulness(bed.model, texts, SITE, {"same": SAME})
    with pytest.raises(SettingError, match="no arm 'other'"):
        found.divergence("other")


def test_every_protocol_of_a_dictionary_is_an_arm_and_the_findings_are_about_them(bed, texts):
    x, draw = bed.x[LAST], torch.Generator().manual_seed(0)
    whole = torch.eye(x.shape[1])
    exact = faithfulness(bed.model, texts, LAST, spliced_arms(signed_projection(whole, whole, x.mean(0))))
    rows = {row["name"]: row for row in exact.table()}
    assert list(rows) == ["clean", "zero", "mean", "spliced"]
    assert rows["spliced"]["recovered"]["value"] == pytest.approx(1, abs=1e-3) and rows["spliced"]["kl"]["value"] < 1e-5
    (found,) = exact.findings()
    assert found.holds is True and found.control == rows["mean"]["kl"]["value"] > 0.1
    nothing = faithfulness(bed.model, texts, LAST, spliced_arms(signed_projection(0 * whole, 0 * whole, 3 * x.mean(0))))
    assert nothing.findings()[0].holds is False
    by_gradient = GSAE(64, k=4, beta=8.0).build(x.shape[1], draw)
    assert [arm.gradient for arm in spliced_arms(by_gradient).values()] == ["", "true", "drawn"]
    three = faithfulness(bed.model, texts, LAST, spliced_arms(by_gradient))
    assert [f.id for f in three.findings()] == ["spliced.kl", "spliced.leak"]
    assert three.findings()[1].measured == three.label_knowledge("true gradients").value
