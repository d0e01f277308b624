"""Steering a model: at the right site and positions, on the right rows only, and gone afterwards."""

import pytest
import torch

from models.miniatures import LAYERS, VOCABULARY, WIDTH, build, miniature, padded, some_rows
from overtone.core.errors import ShapeError, SiteError
from overtone.core.sites import Site
from overtone.directions import mean_difference, unit_direction
from overtone.models.hooked import HookedModel
from overtone.steering.edits.add import Add
from overtone.steering.edits.remove import Remove
from overtone.steering.edits.scale import Scale
from overtone.steering.plan import Plan
from overtone.steering.steer import Steering, everywhere, steered
from overtone.steering.when import When

ALWAYS = When(phases={"prompt", "generation"})


def direction(site="residual.1", seed=0, model=""):
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
    return unit_direction(vector, site, model=model)


@pytest.fixture(params=["llama", "gpt2"])
def model(request):
    return miniature(request.param)


@pytest.fixture
def batch():
    return padded(some_rows(), "left")


@pytest.mark.parametrize("edit", [Add(0.0), Scale(1.0)])
def test_an_edit_of_no_strength_changes_no_bit(model, batch, edit):
    with steered(model, [Steering(direction(), edit, ALWAYS)]):
        after = model.logits(*batch)
    assert torch.equal(after, model.logits(*batch))


def test_a_clause_that_does_not_hold_changes_no_bit(model, batch):
    before = model.logits(*batch)
    with steered(model, [Steering(direction(), Add(5.0), When(phases={"generation"}))]):  # all columns are prompt here
        assert torch.equal(model.logits(*batch), before)


def test_only_the_row_at_a_delimiter_is_touched(model):
    tokens = torch.tensor([[5, 6, 7, 9], [5, 6, 7, 8]])
    when = When(phases={"prompt"}, after=frozenset({9}))
    before = model.logits(tokens)
    with steered(model, [Steering(direction(), Add(5.0), when)]):
        after = model.logits(tokens)
    assert torch.equal(after[1], before[1])
    assert torch.equal(after[0, :3], before[0, :3])
    assert not torch.allclose(after[0, 3], before[0, 3])


def test_padding_is_not_steered(model, batch):
    tokens, real = batch
    seen = []

    def look(states, call):
        seen.append(states.detach().clone())
        return states

    site = Site("residual", 1)
    with model.editing({site: look}):
        model.logits(tokens, real)
    with steered(model, [Steering(direction(), Add(5.0), ALWAYS)]), model.editing({site: look}):
        model.logits(tokens, real)
    moved = (seen[1] - seen[0]).norm(dim=-1)
    assert torch.equal(moved > 1, real) and float(moved[~real].max()) == 0.0


def test_before_a_block_is_after_the_one_before(model, batch):
    """The stream before block l is the stream after block l - 1: the classic mistake is one block too late."""
    d = direction("residual.0")
    with steered(model, [Steering(d, Add(2.0), ALWAYS)]):
        after_first = model.logits(*batch)

    def hook(module, args, kwargs):
        given = args[0] if args else kwargs["hidden_states"]
        moved = given + 2.0 * d.vector * batch[1][..., None]
        return ((moved, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": moved})

    handle = model.module("residual.1").register_forward_pre_hook(hook, with_kwargs=True)
    try:
        before_second = model.logits(*batch)
    finally:
        handle.remove()
    torch.testing.assert_close(after_first[batch[1]], before_second[batch[1]], atol=1e-6, rtol=1e-5)


def test_steerings_of_one_site_apply_in_order(batch):
    """Adding and then removing leaves nothing; removing and then adding leaves the addition."""
    model, d = miniature("llama"), direction()
    add, remove = Steering(d, Add(5.0), ALWAYS), Steering(d, Remove(), ALWAYS)
    with steered(model, [add, remove]):
        first = model.read(*batch, [d.site])[d.site]
    with steered(model, [remove, add]):
        second = model.read(*batch, [d.site])[d.site]
    torch.testing.assert_close(d.project(first)[batch[1]], torch.zeros(int(batch[1].sum())), atol=1e-4, rtol=0)
    torch.testing.assert_close(d.project(second)[batch[1]], torch.full((int(batch[1].sum()),), 5.0), atol=1e-4, rtol=0)


def test_everything_is_restored_after_an_exception(model, batch):
    before = model.logits(*batch)
    bad = When(phases={"prompt"}, predicates=(lambda call: 1 / 0,))
    with pytest.raises(ZeroDivisionError), steered(model, [Steering(direction(), Add(1.0), bad)]):
        model.logits(*batch)
    assert torch.equal(model.logits(*batch), before)


@pytest.mark.parametrize(
    ("d", "error", "message"),
    [
        (direction(model="another"), SiteError, "another"),
        (direction(f"residual.{LAYERS}"), SiteError, f"{LAYERS} layers"),
        (unit_direction(torch.ones(WIDTH + 1), "residual.1"), ShapeError, f"width {WIDTH}"),
    ],
)
def test_a_direction_from_elsewhere_is_refused_before_anything_runs(d, error, message):
    with pytest.raises(error, match=message), steered(miniature("llama"), [Steering(d, Add(1.0))]):
        pytest.fail("it ran")


def test_removing_everywhere_equals_orthogonal_weights(batch):
    """Directional ablation of all writes to the stream is W - v v.W for every matrix that writes to it."""
    torch.manual_seed(0)
    model = HookedModel.wrap(build("llama"))
    v = direction().vector
    sites = ["embedding", *(f"{kind}.{i}" for i in range(LAYERS) for kind in ("attn_out", "mlp_out"))]
    with steered(model, everywhere(direction(), Remove(), sites, ALWAYS)):
        edited = model.logits(*batch)
    weights = build("llama")
    with torch.no_grad():
        embedding = weights.model.embed_tokens.weight
        head = weights.lm_head.weight
        weights.lm_head.weight = torch.nn.Parameter(head.clone())
        embedding -= (embedding @ v)[:, None] * v
        for block in weights.model.layers:
            for write in (block.self_attn.o_proj.weight, block.mlp.down_proj.weight):
                write -= v[:, None] * (v @ write)
    torch.testing.assert_close(
        edited[batch[1]], HookedModel.wrap(weights).logits(*batch)[batch[1]], atol=1e-4, rtol=1e-4
    )


def test_a_planted_direction_is_found_and_steers_what_reads_it():
    """Plant v in the embeddings of half of the vocabulary, and let one token's logit read it."""
    weights = build("llama")
    v = direction(seed=3).vector
    with torch.no_grad():
        weights.lm_head.weight = torch.nn.Parameter(weights.lm_head.weight.clone())
        weights.lm_head.weight[2] = 4 * v
        weights.model.embed_tokens.weight[50:] += 6 * v
    model, site = HookedModel.wrap(weights), Site("embedding")
    tokens = torch.randint(3, VOCABULARY, (200, 6), generator=torch.Generator().manual_seed(0))
    states, high = model.read(tokens, None, [site])[site][:, -1], tokens[:, -1] >= 50
    found = mean_difference(states[high], states[~high], site, model=model.fingerprint)
    assert float(found.vector @ v) > 0.9

    def logit(edit):
        with steered(model, [Steering(found, edit, ALWAYS)]):
            return float(model.logits(tokens)[:, -1, 2].mean())

    assert logit(Add(4.0)) > logit(Add(0.0)) > logit(Add(-4.0))


# ---------------------------------------------------------------------------------------------- several arms at once
def test_each_arm_of_a_batch_gets_its_own_edits_and_counts_where_they_fired(batch):
    model = miniature("llama")
    tokens, real = batch
    arms = [(), (Steering(direction(), Add(2.0), ALWAYS),),
            (Steering(direction(seed=5), Scale(-1.0), When(phases={"prompt"}, positions=frozenset({0}))),)]  # fmt: skip
    of_row = torch.tensor([0, 1, 2, 1])
    plan = Plan(model, arms, of_row)
    with model.editing(plan.editors()):
        together = model.logits(tokens, real)
    for a, arm in enumerate(arms):
        with steered(model, arm):
            alone = model.logits(tokens, real)
        assert torch.equal(together[of_row == a], alone[of_row == a])
    assert plan.counts[:, 0].tolist() == [0, 4, 1, 1]  # lengths of the rows: 9, 4, 7, 1


def test_counts_stay_with_their_rows_when_others_leave(batch):
    model = miniature("llama")
    plan = Plan(model, [(Steering(direction(), Add(2.0), ALWAYS),)], torch.zeros(4, dtype=torch.int64))
    plan.select(torch.tensor([3, 0]))
    with model.editing(plan.editors()):
        model.logits(batch[0][[3, 0]], batch[1][[3, 0]])
    assert plan.counts[:, 0].tolist() == [9, 0, 0, 1]
