"""Generation under edits: the cache, the batch and the other arms change nothing; what fired is told."""

import warnings

import pytest
import torch

from models.miniatures import VOCABULARY, WIDTH, miniature, padded, some_rows
from overtone.core.errors import DataError, SettingError, SiteError
from overtone.core.seeds import derive
from overtone.directions import unit_direction
from overtone.models.hooks import Call
from overtone.steering.bias import LogitBias
from overtone.steering.edits.add import Add
from overtone.steering.edits.clamp import Clamp
from overtone.steering.edits.norm_preserving import NormPreserving
from overtone.steering.edits.scale import Scale
from overtone.steering.generate import IdleSteeringWarning, Sampling, generate, generate_arms
from overtone.steering.plan import Plan
from overtone.steering.sampling import choose, row_uniforms
from overtone.steering.steer import Steering
from overtone.steering.when import When

PROMPTS = some_rows((6, 3, 5, 2))
STEPS = frozenset(range(10, 50))  # stand in for delimiters: often enough in random text
NEW = 14
DIRECTION = unit_direction(torch.randn(WIDTH, generator=torch.Generator().manual_seed(4)), "residual.1")
WHENS = {
    "everywhere": When(phases={"prompt", "generation"}),
    "prompt": When(phases={"prompt"}),
    "generation": When(),
    "boundaries": When(after=STEPS),
    "boundaries and prompt end": When(after=STEPS, include_prompt_end=True),
    "first three": When(first_generated=3, include_prompt_end=True),
    "think": When(only_think=(PROMPTS[0][0], 30)),
    "front": When(phases={"prompt"}, positions=frozenset({0, 1})),
    "excluding": When(not_tokens=STEPS),
    "predicate": When(predicates=(lambda c: c.real.cumsum(1)[:, c.start :] % 2 == 0,)),
}


def uncached(model, prompts, steering, *, temperature, seed=0, new=NEW):
    """The plainest generation there is: the whole text through the model for each token, no cache, no early end."""
    tokens, real = padded(prompts, "left")
    width, uniforms = tokens.shape[1], row_uniforms(seed, range(len(prompts)), new)
    for step in range(new):
        plan = Plan(model, [steering], torch.zeros(len(prompts), dtype=torch.int64))
        with model.editing(plan.editors()):
            logits, _ = model.forward(tokens, real, prompt_columns=width)
        logits = plan.biased(logits[:, -1:], Call(tokens, real, tokens.shape[1] - 1, width))[:, 0]
        chosen = choose(logits, uniforms[:, step], temperature)
        tokens, real = torch.cat([tokens, chosen[:, None]], 1), torch.cat([real, torch.ones_like(real[:, :1])], 1)
    return tokens[:, width:].tolist()


@pytest.mark.filterwarnings("ignore::overtone.steering.generate.IdleSteeringWarning")
@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("rule", WHENS)
def test_with_a_cache_is_without_one(rule, n):
    model = miniature("llama")
    steering = [
        Steering(DIRECTION, Add(4.0), WHENS[rule]),
        Steering(DIRECTION.moved("mlp_out.2"), Scale(-2.0), WHENS[rule]),
    ]
    traces = generate(model, PROMPTS[:n], steering=steering, max_new_tokens=NEW, temperature=0, eos=())
    assert [list(t.response_ids) for t in traces] == uncached(model, PROMPTS[:n], steering, temperature=0)


@pytest.mark.parametrize("name", ["qwen2", "gpt2", "gpt_neox", "gemma2"])
def test_with_a_cache_is_without_one_in_other_families(name):
    model = miniature(name)
    steering = [Steering(DIRECTION, NormPreserving(Add(4.0)), WHENS["boundaries"]), Steering(DIRECTION, Clamp(1.0))]
    traces = generate(model, PROMPTS, steering=steering, max_new_tokens=NEW, temperature=1.0, eos=())
    assert [list(t.response_ids) for t in traces] == uncached(model, PROMPTS, steering, temperature=1.0)


@pytest.mark.parametrize("edit", [Add(0.0), Scale(1.0)])
def test_no_strength_is_no_steering(edit):
    model = miniature("llama")
    plain = generate(model, PROMPTS, max_new_tokens=NEW)
    steered = generate(model, PROMPTS, steering=[Steering(DIRECTION, edit)], max_new_tokens=NEW)
    assert [t.response_ids for t in steered] == [t.response_ids for t in plain]


def test_steering_changes_the_text():
    model = miniature("llama")
    plain = generate(model, PROMPTS, max_new_tokens=NEW)
    steered = generate(model, PROMPTS, steering=[Steering(DIRECTION, Add(9.0))], max_new_tokens=NEW)
    assert all(a.response_ids != b.response_ids for a, b in zip(plain, steered, strict=True))


def test_company_does_not_change_a_row():
    """Alone, together, in another order, in small batches: with the same key the same text."""
    model = miniature("llama")
    prompts = some_rows((6, 3, 5, 2, 4, 4, 1, 7), seed=8)
    steering = [Steering(DIRECTION, Add(3.0), WHENS["boundaries"])]
    keys = [11, 22, 33, 44, 55, 66, 77, 88]
    options = dict(steering=steering, max_new_tokens=NEW, eos=range(50, 60), seed=3)
    together = [t.response_ids for t in generate(model, prompts, row_keys=keys, **options)]
    assert len({len(r) for r in together}) > 2  # rows end at different times, so rows do leave the batch
    by_threes = generate(model, prompts, row_keys=keys, batch_rows=3, **options)
    assert [t.response_ids for t in by_threes] == together
    backwards = generate(model, prompts[::-1], row_keys=keys[::-1], **options)
    assert [t.response_ids for t in backwards][::-1] == together
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdleSteeringWarning)
        alone = [generate(model, [p], row_keys=[k], **options)[0] for p, k in zip(prompts, keys, strict=True)]
    assert [t.response_ids for t in alone] == together


@pytest.mark.parametrize("compact_at", [0.0, 0.5, 1.0])
def test_when_finished_rows_leave_does_not_matter(compact_at):
    model = miniature("llama")
    arms = {"a": [Steering(DIRECTION, Add(3.0), WHENS["boundaries"])]}
    sampling = Sampling(max_new_tokens=NEW, compact_at=compact_at)
    got = generate_arms(model, PROMPTS * 4, arms, sampling, eos=range(50, 65))["a"]
    usual = generate(model, PROMPTS * 4, steering=arms["a"], max_new_tokens=NEW, eos=range(50, 65))
    assert [(t.response_ids, t.meta) for t in got] == [(t.response_ids, t.meta) for t in usual]


def test_arms_together_are_arms_alone():
    model = miniature("llama")
    bias = torch.zeros(VOCABULARY)
    bias[7] = 3.0
    arms = {
        "plain": [],
        "add": [Steering(DIRECTION, Add(3.0), WHENS["boundaries"])],
        "two sites": [Steering(DIRECTION, Add(-3.0)), Steering(DIRECTION.moved("residual.0"), Scale(2.0))],
        "bias": [LogitBias(bias, WHENS["boundaries"])],
    }
    together = generate_arms(model, PROMPTS, arms, Sampling(NEW, batch_rows=5), eos=range(50, 60))
    for name, arm in arms.items():
        alone = generate(model, PROMPTS, steering=arm, max_new_tokens=NEW, eos=range(50, 60))
        assert [(t.response_ids, t.meta) for t in alone] == [(t.response_ids, t.meta) for t in together[name]]


def test_a_row_ends_with_its_end_token_or_at_the_limit():
    traces = generate(miniature("llama"), PROMPTS * 3, max_new_tokens=NEW, eos=range(50, 60))
    assert {t.meta["finished"] for t in traces} == {True, False}
    for trace in traces:
        ends = [50 <= i < 60 for i in trace.response_ids]
        assert not any(ends[:-1]) and ends[-1] == trace.meta["finished"]
        assert trace.meta["finished"] or len(trace.response_ids) == NEW


def test_the_end_tokens_are_the_models_own_by_default():
    model = miniature("llama")  # its config says 2
    bias = torch.zeros(VOCABULARY)
    bias[2] = 1e4
    traces = generate(model, PROMPTS, steering=[LogitBias(bias, When(include_prompt_end=True))], max_new_tokens=NEW)
    assert [t.response_ids for t in traces] == [(2,)] * 4


def test_a_shorter_limit_gives_a_prefix():
    model = miniature("llama")
    long, short = (generate(model, PROMPTS, max_new_tokens=n, eos=()) for n in (NEW, 5))
    assert [t.response_ids[:5] for t in long] == [t.response_ids for t in short]


def test_seed_and_key_name_the_random_numbers():
    model = miniature("llama")
    first = generate(model, [PROMPTS[0]] * 2, max_new_tokens=NEW, eos=())
    assert first[0].response_ids != first[1].response_ids
    same = generate(model, [PROMPTS[0]] * 2, max_new_tokens=NEW, row_keys=[5, 5], eos=())
    assert same[0].response_ids == same[1].response_ids
    other = generate(model, [PROMPTS[0]] * 2, max_new_tokens=NEW, seed=1, eos=())
    assert other[0].response_ids != first[0].response_ids


def test_the_number_of_edited_positions_is_told_row_by_row():
    steering = [Steering(DIRECTION, Add(2.0), When(after=STEPS, include_prompt_end=True))]
    for trace in generate(miniature("llama"), PROMPTS, steering=steering, max_new_tokens=NEW, eos=()):
        passed = [trace.prompt_ids[-1], *trace.response_ids[:-1]]  # the last token's state is never computed
        assert trace.meta["n_edited"] == sum(i in STEPS for i in passed)


def test_a_steering_that_never_applies_is_announced():
    never = [Steering(DIRECTION, Add(2.0), When(after=frozenset({VOCABULARY + 5})))]
    with pytest.warns(IdleSteeringWarning, match="no position in 4 rows"):
        generate(miniature("llama"), PROMPTS, steering=never, max_new_tokens=3)


def test_traces_carry_prompt_order_group_and_data():
    metas = [{"problem": i, "group": f"g{i}"} for i in range(4)]
    traces = generate(miniature("llama"), PROMPTS, max_new_tokens=3, metas=metas)
    assert [list(t.prompt_ids) for t in traces] == PROMPTS
    assert [(t.document, t.group, t.meta["problem"]) for t in traces] == [(i, f"g{i}", i) for i in range(4)]
    default = generate(miniature("llama"), [PROMPTS[0], PROMPTS[1], PROMPTS[0]], max_new_tokens=3)
    assert default[0].group == default[2].group == f"{derive(0, *PROMPTS[0]):x}" != default[1].group


def test_bad_input_is_one_clear_line():
    model = miniature("llama")
    with pytest.raises(DataError, match="no prompts"):
        generate(model, [], max_new_tokens=3)
    with pytest.raises(DataError, match="prompt 1 has no token"):
        generate(model, [[5], []], max_new_tokens=3)
    with pytest.raises(DataError, match="vocabulary|knows"):
        generate(model, [[VOCABULARY]], max_new_tokens=3)
    with pytest.raises(DataError, match="one entry for each of the 1 prompts"):
        generate(model, [[5]], max_new_tokens=3, row_keys=[1, 2])
    with pytest.raises(DataError, match="prompt 1 has 2 tokens.*more than the 64"):
        generate(model, [[5], [5, 6]], max_new_tokens=63)
    with pytest.raises(SettingError, match="max_new_tokens=0"):
        generate(model, [[5]], max_new_tokens=0)
    foreign = unit_direction(torch.ones(WIDTH), "residual.1", model="another model")
    with pytest.raises(SiteError, match="another model"):
        generate(model, [[5]], max_new_tokens=3, steering=[Steering(foreign, Add(1.0))])


def test_nothing_is_left_in_the_model():
    model = miniature("llama")
    tokens = torch.tensor(PROMPTS[0])[None]
    before = model.logits(tokens)
    with pytest.raises(ZeroDivisionError):
        generate(
            model, PROMPTS, max_new_tokens=3, steering=[Steering(DIRECTION, Add(3.0), When(unless=(lambda c: 1 / 0,)))]
        )
    assert torch.equal(model.logits(tokens), before)
