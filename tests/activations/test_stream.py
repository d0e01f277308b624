"""The live stream: a row is the state of an independent pass at its token, whatever the batching."""

from dataclasses import replace

import pytest
import torch

from overtone.activations.positions import AllTokens, LastToken, Pooled, StepAnchor
from overtone.activations.source import ActivationSource
from overtone.activations.stream import ActivationStream, padded
from overtone.core.errors import DataError, SettingError, SiteError
from overtone.core.sites import Site
from overtone.data.traces import ReasoningTrace, cut_steps
from overtone.models.gradients import loss_gradients

STEPS = frozenset([4])
SITES = [Site("residual", 1), Site("mlp_out", 0), Site("residual", 0)]


def stream(model, traces, positions=None, sites=SITES, **options):
    return ActivationStream(model, traces, sites, positions or AllTokens(), quiet=True, **options)


def alone(model, trace, site):
    """States (tokens, width) of one trace in a plain pass of its own, through the library's own hidden states."""
    hidden = model.model(torch.tensor([trace.tokens]), output_hidden_states=True).hidden_states
    assert site.kind == "residual"
    return hidden[site.layer + 1][0].detach()


def rows_of(source, seed=None):
    batches = list(source.batches(7, seed=seed))
    x = {site: torch.cat([b.at(site) for b in batches]) for site in source.sites}
    where = [torch.cat([getattr(b.where, name) for b in batches]) for name in ("document", "token", "step")]
    return x, torch.stack(where, 1)


# ---------------------------------------------------------------------------------------------------- what a row is
def test_a_row_is_the_state_of_an_independent_pass_at_its_token(model, traces):
    x, where = rows_of(stream(model, traces))
    assert len(where) == sum(len(t.tokens) for t in traces)
    for trace in traces:
        mine = where[:, 0] == trace.document
        for site in (Site("residual", 0), Site("residual", 1)):
            torch.testing.assert_close(x[site][mine], alone(model, trace, site), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("anchor", ["next", "prev", "mean", "first_k"])
def test_an_anchor_holds_the_mean_state_of_its_tokens_and_knows_its_step(model, traces, anchor):
    site = Site("residual", 1)
    x, where = rows_of(stream(model, traces, StepAnchor(anchor, STEPS, k=2)))
    row = 0
    for trace in traces:
        states = alone(model, trace, site)
        for step in cut_steps(trace, STEPS):
            expected = {
                "next": states[step.before],
                "prev": states[step.delimiter],
                "mean": states[step.start : step.end].mean(0),
                "first_k": states[step.start : min(step.end, step.start + 2)].mean(0),
            }
            torch.testing.assert_close(x[site][row], expected[anchor], rtol=1e-5, atol=1e-5)
            assert where[row].tolist()[::2] == [trace.document, step.index]
            row += 1
    assert row == len(where)


def test_pooling_takes_the_mean_or_the_coordinate_wise_maximum(model, traces):
    site = Site("residual", 1)
    for reduce in ("mean", "max"):
        x, _ = rows_of(stream(model, traces, Pooled(reduce)))
        states = [alone(model, t, site) for t in traces]
        expected = [s.mean(0) if reduce == "mean" else s.amax(0) for s in states]
        torch.testing.assert_close(x[site], torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens_per_pass", [1, 30, 10_000])
def test_the_size_of_a_pass_changes_neither_rows_nor_their_order(model, traces, tokens_per_pass):
    one, where = rows_of(stream(model, traces, tokens_per_pass=tokens_per_pass))
    two, where_two = rows_of(stream(model, traces, tokens_per_pass=200))
    assert torch.equal(where, where_two)
    for site in SITES:
        torch.testing.assert_close(one[site], two[site], rtol=1e-4, atol=1e-4)


def test_left_padding_gives_the_same_states_as_the_stream(model, traces):
    site = Site("residual", 1)
    x, where = rows_of(stream(model, traces, sites=[site]))
    tokens, real = padded([t.tokens[::-1] for t in traces])
    left = model.read(tokens.flip(1), real.flip(1), [site])[site]
    for i, trace in enumerate(traces):
        mine = x[site][where[:, 0] == trace.document]
        torch.testing.assert_close(left[i, real.flip(1)[i]], mine, rtol=1e-4, atol=1e-4)


def test_several_sites_in_one_pass_equal_one_pass_each(model, traces):
    together, _ = rows_of(stream(model, traces))
    for site in SITES:
        apart, _ = rows_of(stream(model, traces, sites=site))
        torch.testing.assert_close(together[site], apart[site], rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------------------------------- order and work
def test_rows_come_in_document_order_though_passes_are_sorted_by_length(model, traces):
    _, where = rows_of(stream(model, traces, tokens_per_pass=50))
    expected = [[t.document, i, -1] for t in traces for i in range(len(t.tokens))]
    assert where.tolist() == expected


def test_a_stream_is_a_source_whose_seed_decides_the_order(model, traces):
    source = stream(model, traces, buffer_rows=64)
    assert isinstance(source, ActivationSource)
    (_, one), (_, again), (_, other), (_, plain) = (rows_of(source, seed) for seed in (0, 0, 1, None))
    assert torch.equal(one, again) and not torch.equal(one, other) and not torch.equal(one, plain)
    assert sorted(one.tolist()) == sorted(plain.tolist())


def test_all_gives_every_row_in_document_order(model, traces):
    source = stream(model, traces)
    x, where = rows_of(source)
    everything = source.all()
    assert torch.equal(everything.where.token, where[:, 1])
    torch.testing.assert_close(everything.at(SITES[0]), x[SITES[0]], rtol=1e-5, atol=1e-5)


def test_passes_waste_little_and_stop_where_the_last_row_is(model, traces, monkeypatch):
    shapes, read = [], type(model).read

    def counting(self, tokens, real, sites):
        shapes.append(tuple(tokens.shape))
        return read(self, tokens, real, sites)

    source = stream(model, traces, LastToken("prompt"), tokens_per_pass=32)
    assert source.widths  # measured with a pass of its own
    monkeypatch.setattr(type(model), "read", counting)
    rows_of(source)
    prompts = [len(t.prompt_ids) for t in traces]
    assert max(width for _, width in shapes) == max(prompts)
    assert all(n == 1 or n * width <= 32 for n, width in shapes)
    assert sum(n for n, _ in shapes) == len(traces)
    assert sum(n * width for n, width in shapes) < 1.3 * sum(prompts)


def test_the_estimate_is_exact_about_rows_and_tokens_and_bounds_the_bytes(model, traces):
    source = stream(model, traces, LastToken("prompt"))
    known = source.estimate()
    assert known.n_tokens == sum(len(t.prompt_ids) for t in traces)
    assert known.n_rows == source.n_rows == known.n_documents == len(traces)
    assert known.bytes_all == len(traces) * (3 * 16 * 4 + 24)
    big = stream(model, traces * 1, buffer_rows=2).estimate(), stream(model, traces, buffer_rows=100).estimate()
    assert big[0].bytes_working < big[1].bytes_working
    assert "25 texts" in str(known)


def test_a_document_without_rows_is_not_run_and_does_not_shift_the_others(model, traces):
    empty = ReasoningTrace((5, 6), (), 7, "empty")
    mixed = [empty, traces[0], replace(empty, document=8), traces[1]]
    x, where = rows_of(stream(model, mixed, StepAnchor("prev", STEPS)))
    expected, expected_where = rows_of(stream(model, traces[:2], StepAnchor("prev", STEPS)))
    assert torch.equal(where, expected_where)
    torch.testing.assert_close(x[SITES[0]], expected[SITES[0]], rtol=1e-5, atol=1e-5)


def test_nothing_is_left_behind_in_the_model(model, traces):
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.model.modules()]
    next(stream(model, traces).batches(3))
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.model.modules()]
    assert torch.is_grad_enabled()


# --------------------------------------------------------------------------------------------------------- mistakes
def test_a_state_that_is_not_finite_is_an_error_that_names_the_site(helpers, traces):
    model = helpers["tiny_model"](seed=1)
    with torch.no_grad():
        model.model.transformer.h[1].mlp.c_proj.bias[3] = torch.nan
    with pytest.raises(DataError, match=r"residual\.1 in documents .*NaN"):
        next(stream(model, traces).batches(3))
    assert len(next(stream(model, traces, sites=SITES[1:]).batches(3))) == 3  # shallower sites are sound


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: [], "no traces"),
        (lambda t: [t[0], t[0]], "occurs 2 times"),
        (lambda t: [replace(t[0], response_ids=(40,))], "token id 40 is outside the vocabulary of tiny-0 .40."),
        (lambda t: [replace(t[0], response_ids=(5,) * 70)], "reads at most 64"),
    ],
)
def test_traces_that_cannot_be_read_are_refused_before_anything_runs(model, traces, change, message):
    with pytest.raises(DataError, match=message):
        stream(model, change(traces))


def test_texts_without_steps_are_refused_with_the_reason(model):
    trace = ReasoningTrace((5, 6), (), 0, "g")
    with pytest.raises(DataError, match="none of 1 texts holds a position to read .steps."):
        stream(model, [trace], StepAnchor("next", STEPS)).batches(4)


def test_a_site_the_model_lacks_and_settings_out_of_range_are_refused(model, traces):
    with pytest.raises(SiteError, match="residual.0 to residual.2"):
        stream(model, traces, sites=[Site("residual", 3)])
    with pytest.raises(SettingError, match="use at least 1, 1 and 2"):
        stream(model, traces, tokens_per_pass=0)
    with pytest.raises(SettingError, match="at least 1"):
        stream(model, traces).batches(0)


def test_an_encoder_is_read_with_its_padding_masked_and_to_the_end(traces):
    from transformers import BertConfig, BertModel

    from overtone.models.hooked import HookedModel

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=40,
        max_position_embeddings=64,
    )  # fmt: skip
    model = HookedModel.wrap(BertModel(config).eval())
    site = Site("residual", 1)
    x, where = rows_of(stream(model, traces, LastToken("prompt"), sites=site))
    assert where[:, 1].tolist() == [len(t.prompt_ids) - 1 for t in traces]
    expected = [alone(model, t, site)[len(t.prompt_ids) - 1] for t in traces]
    torch.testing.assert_close(x[site], torch.stack(expected), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- gradients
@pytest.mark.parametrize("kind", [AllTokens(part="response"), StepAnchor("mean", STEPS), LastToken("prompt")])
def test_every_row_carries_the_gradient_of_its_own_states(model, traces, kind):
    source = stream(model, traces, kind, gradient="sum", tokens_per_pass=70)
    batches = list(source.batches(7, seed=3))
    x, g = (torch.cat([part[SITES[0]] for part in parts]) for parts in ([b.x for b in batches], [b.g for b in batches]))
    document, token = (torch.cat([getattr(b.where, name) for b in batches]) for name in ("document", "token"))
    plain, where = rows_of(stream(model, traces, kind), seed=3)
    assert torch.equal(where[:, 0], document) and torch.equal(where[:, 1], token), "gradients do not change the order"
    torch.testing.assert_close(x, plain[SITES[0]], rtol=1e-4, atol=1e-5)
    for trace in traces[:5]:
        alone = loss_gradients(model, torch.tensor([trace.tokens]), None, [SITES[0]], reduction="sum")
        picks, start = kind.select(trace), 0
        for length, at in zip(picks.lengths.tolist(), picks.token.tolist(), strict=True):
            expected = alone.gradients[SITES[0]][0, picks.positions[start : start + length]].sum(0)
            found = g[(document == trace.document) & (token == at)][0]
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
            start += length


def test_memory_and_identity_count_the_gradients(model, traces):
    plain, summed, mean = stream(model, traces), *(stream(model, traces, gradient=r) for r in ("sum", "mean"))
    assert len({plain.fingerprint, summed.fingerprint, mean.fingerprint}) == 3 and "gradient" not in plain.identity
    origins = 24 * plain.n_rows
    assert summed.estimate().bytes_all - origins == 2 * (plain.estimate().bytes_all - origins)
    assert summed.all().g[SITES[2]].shape == summed.all().at(SITES[2]).shape and plain.all().g is None
    assert "loss gradients (sum)" in summed.told


def test_gradients_that_do_not_exist_are_refused(model, traces):
    with pytest.raises(SettingError, match="Did you mean 'mean'"):
        stream(model, traces, gradient="meen")
    with pytest.raises(SettingError, match="maximum"):
        stream(model, traces, Pooled("max"), gradient="mean")
