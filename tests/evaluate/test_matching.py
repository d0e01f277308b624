"""An encoder's matching loss: predictions as made one by one, gradients as by small steps, every half judged once."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from models.miniatures import build
from overtone.core.errors import DataError, SettingError
from overtone.core.sites import Site
from overtone.data.texts import Text
from overtone.data.traces import ReasoningTrace
from overtone.evaluate.faithfulness import Arm, judged
from overtone.evaluate.matching import SCALE, Matching, halves, matched_states
from overtone.models.hooked import HookedModel

SITE, LAST = Site("residual", 1), Site("residual", 2)
TASK = Matching(frozenset({1, 2}), texts=3)


@pytest.fixture(scope="module")
def model():
    return HookedModel.wrap(build("bert").double())


@pytest.fixture(scope="module")
def traces():
    """Both halves of seven texts of different lengths, with a start and an end."""
    draw = torch.Generator().manual_seed(0)
    words = [torch.randint(3, 97, (4 + i % 5,), generator=draw).tolist() for i in range(14)]
    return [ReasoningTrace((1, *ids, 2), (), i, f"module {i // 4}") for i, ids in enumerate(words)]


def pooled(model, trace):
    return model.read(torch.tensor([trace.tokens]), None, [LAST])[LAST][0].mean(0)


def test_the_halves_of_a_text_are_its_words_and_know_their_group():
    class Letters:
        eos_token_id = None

        def encode(self, text, add_special_tokens=True):
            return [ord(c) for c in text]

    first, second = halves(Letters(), [Text("one two three", "here", {"package": "p"})])
    assert bytes(first.tokens + second.tokens).decode() == "onetwo three"
    assert (first.document, second.document) == (0, 1)
    assert first.group == second.group == "here" and first.meta["package"] == "p"
    with pytest.raises(DataError, match="two words"):
        halves(Letters(), [Text("one", "here")])


def test_every_half_is_judged_once_beside_the_halves_of_texts_from_elsewhere(traces):
    batches = list(TASK.batches(traces))
    assert [len(b.members) for b in batches] == [6, 4, 4] and sorted(m for b in batches for m in b.members) == [
        *range(14)
    ]
    for batch in batches:
        partners = [batch.members[i + len(batch.members) // 2] for i in range(len(batch.members) // 2)]
        assert partners == [m + 1 for m in batch.members[: len(partners)]]
        assert min(b - a for a, b in zip(partners, partners[1:], strict=False)) >= 6
        assert torch.equal(batch.places.sum(1), batch.real.sum(1) - 2), "start and end are left alone"


def test_predictions_are_those_of_passages_read_one_by_one(model, traces):
    batch = next(iter(TASK.batches(traces)))
    first, second = (
        torch.stack([pooled(model, traces[m]) for m in part]) for part in (batch.members[:3], batch.members[3:])
    )
    scores = SCALE * cosine_similarity(first[:, None], second[None], dim=2)
    expected = torch.cat([scores.log_softmax(1), scores.T.log_softmax(1)])
    torch.testing.assert_close(TASK.predictions(model, batch).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("site", [SITE, LAST])
def test_gradients_are_what_small_steps_show(model, traces, site):
    """Card check 3 of g-SAE: <g, direction> is the change of the loss along it."""
    batch = next(iter(TASK.batches(traces)))
    labels = torch.tensor([1, 2, 0, 0, 1, 2])
    g = TASK.slopes(model, batch, site, labels)
    directions = torch.randn(g.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(step):
        def edit(states, call):
            out = states.clone()
            out[batch.places] += step * directions
            return out

        with model.editing({site: edit}):
            return -TASK.predictions(model, batch).gather(1, labels[:, None]).mean()

    step = 1e-3
    change = (loss(step) - loss(-step)) / (2 * step)
    assert float((g * directions).sum()) == pytest.approx(float(change), rel=1e-2)


def test_states_and_gradients_come_in_the_order_of_texts(model, traces):
    states = matched_states(model, traces, [SITE, LAST], TASK)
    assert states.where.document.tolist() == [d for d, t in enumerate(traces) for _ in t.tokens[1:-1]]
    for row in (0, 20, 50):
        trace = traces[int(states.where.document[row])]
        alone = model.read(torch.tensor([trace.tokens]), None, [SITE])[SITE][0]
        torch.testing.assert_close(states.x[SITE][row], alone[int(states.where.token[row])])
    batch = list(TASK.batches(traces))[1]
    own = torch.isin(states.where.document, torch.tensor(batch.members))
    found = TASK.slopes(model, batch, LAST, TASK.targets(batch))
    assert float(found.norm()) > 0
    torch.testing.assert_close(states.g[LAST][own].sum(0), found.sum(0))
    assert states.held_out_traces(0)[0].document % 2 == 0 and len(states.held_out_traces(0)) % 2 == 0


def test_putting_back_the_states_changes_nothing_and_taking_them_away_does(model, traces):
    found = judged(model, traces, SITE, {"same": Arm(lambda x, g: x), "less": Arm(lambda x, g: x - g, "true")}, TASK)
    assert found.divergence("same").value < 1e-9 and found.divergence("zero").value > 0.01
    assert found.tokens.tolist() == [1] * 14
    assert found.cross_entropy("less").value < found.cross_entropy("clean").value, "a step down the loss"


def test_too_few_texts_are_refused(traces):
    for few in (traces[:2], traces[:3]):
        with pytest.raises(DataError, match="both halves of at least 2"):
            list(TASK.batches(few))
    with pytest.raises(SettingError, match="at least 2"):
        Matching(texts=1)
