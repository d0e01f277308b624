"""Loss gradients are the slopes of the loss, text by text, whatever else is in the batch (g-SAE card, check 3)."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from models.miniatures import miniature, padded, some_rows
from overtone.core.errors import DataError, ModelError, SettingError
from overtone.core.sites import Site
from overtone.models.gradients import loss_gradients

SITES = [Site("embedding"), Site("residual", 0), Site("residual_mid", 1), Site("mlp_out", 1), Site("residual", 2)]


def loss_of(model, row, edit=None, site=None):
    """Summed next-token cross-entropy of one text, with an edit at a site, in the library's own words."""
    tokens = torch.tensor([row])
    if edit is None:
        logits = model.logits(tokens)
    else:
        with model.editing({site: edit}):
            logits = model.logits(tokens)
    return float(cross_entropy(logits[0, :-1].double(), tokens[0, 1:], reduction="sum"))


@pytest.fixture(scope="module", params=["llama", "gpt2", "gpt_neox"])
def exact(request):
    """A miniature in float64, where finite differences mean something; it goes back to float32 afterwards."""
    model = miniature(request.param)
    model.model.double()
    yield model
    model.model.float()


def sites_of(model):
    known = model.sites()
    return [site for site in SITES if site in known]


def test_they_are_finite_differences_of_the_loss(exact):
    row = some_rows()[0]
    found = loss_gradients(exact, torch.tensor([row]), None, sites_of(exact), reduction="sum")
    assert float(found.loss[0]) == pytest.approx(loss_of(exact, row), rel=1e-6)
    draw = torch.Generator().manual_seed(0)
    for site, gradient in found.gradients.items():
        for place in (0, 3, len(row) - 2):
            way = torch.randn(gradient.shape[-1], generator=draw, dtype=torch.float64)
            move = torch.zeros_like(gradient, dtype=torch.float64)
            move[0, place] = 1e-3 * way / way.norm()
            up, down = (loss_of(exact, row, lambda h, _, m=m: h + m, site) for m in (move, -move))
            slope = float(gradient[0, place].double() @ way / way.norm())
            assert (up - down) / 2e-3 == pytest.approx(slope, rel=1e-2, abs=1e-6), (site, place)
        assert float(gradient[0, -1].abs().max()) == 0, "nothing is predicted from the last token"


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_has_the_same_gradients_alone_and_in_company(side):
    model, rows = miniature("llama"), [row for row in some_rows() if len(row) > 1]
    tokens, real = padded(rows, side)
    together = loss_gradients(model, tokens, real, sites_of(model), reduction="mean")
    for i, row in enumerate(rows):
        alone = loss_gradients(model, torch.tensor([row]), None, sites_of(model), reduction="mean")
        assert float(alone.loss[0]) == pytest.approx(float(together.loss[i]), rel=1e-4)
        for site in alone.gradients:
            for ours, whole in ((alone.gradients, together.gradients), (alone.states, together.states)):
                torch.testing.assert_close(whole[site][i][real[i]], ours[site][0], rtol=1e-3, atol=1e-5)
            assert float(together.gradients[site][i][~real[i]].abs().sum()) == 0


def test_states_are_those_that_a_reading_gives_and_nothing_is_left_behind():
    model, row = miniature("gpt2"), torch.tensor([some_rows()[0]])
    needs = [p.requires_grad for p in model.model.parameters()]
    found = loss_gradients(model, row, None, sites_of(model), reduction="mean")
    read = model.read(row, None, sites_of(model))
    assert all(torch.equal(found.states[site], read[site]) for site in read)
    assert needs == [p.requires_grad for p in model.model.parameters()]
    assert all(p.grad is None for p in model.model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.model.modules())


def test_the_mean_is_the_sum_over_the_number_of_predicted_tokens():
    model, row = miniature("gpt2"), some_rows()[0]
    mean, total = (loss_gradients(model, torch.tensor([row]), None, SITES[1:2], reduction=r) for r in ("mean", "sum"))
    torch.testing.assert_close(mean.gradients[SITES[1]] * (len(row) - 1), total.gradients[SITES[1]])
    torch.testing.assert_close(mean.loss * (len(row) - 1), total.loss)


def test_edits_in_force_are_seen():
    model, row, site = miniature("gpt2"), torch.tensor([some_rows()[0]]), SITES[1]
    plain = loss_gradients(model, row, None, [site], reduction="sum")
    with model.editing({site: lambda h, _: h + 1}):
        edited = loss_gradients(model, row, None, [site], reduction="sum")
    torch.testing.assert_close(edited.states[site], plain.states[site] + 1)
    assert not torch.allclose(edited.gradients[site], plain.gradients[site])


def test_what_has_no_loss_is_refused():
    model, row = miniature("gpt2"), torch.tensor([some_rows()[0]])
    with pytest.raises(SettingError, match="reduction='max'"):
        loss_gradients(model, row, None, SITES[:1], reduction="max")
    with pytest.raises(ModelError, match="encoder"):
        loss_gradients(miniature("bert"), row, None, SITES[:1], reduction="mean")
    with pytest.raises(DataError, match="one token"):
        loss_gradients(model, row[:, :1], None, SITES[:1], reduction="mean")
