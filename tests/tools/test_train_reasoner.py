"""Training of the bundled reasoner: nothing held out in its data, a loss on responses only, exact resuming."""

import importlib.util
import json
from argparse import Namespace
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file

from overtone.core.errors import ModelError
from overtone.data.countdown import grammar, problems
from overtone.data.countdown.parser import parse_step
from overtone.data.countdown.policy import write_trace
from overtone.data.countdown.tokens import as_reasoning_trace
from overtone.models.reasoner import bundled_folder

TOOL = Path(__file__).parents[2] / "tools" / "train_reasoner.py"
TINY = dict(
    width=16, layers=2, heads=2, mlp=24, rows=24, longest=200, batch_tokens=500, steps=6, seed=3, focus_from=3,
    threads=1, every=2, share_sums=0.3, peak=1.0, start_from="", compile=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("train_reasoner", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tokenizer(tool):
    return tool.build_tokenizer()


@pytest.fixture(scope="module")
def rows(tool, tokenizer):
    return tool.write_rows(150, 200, 0, 0.3, tokenizer)


@pytest.fixture(scope="module")
def write():
    """write(n, kind="plain", **options) -> n traces on problems drawn at random."""

    def draw(n, kind="plain", **options):
        rng, pool = Random(0), list(problems.all_problems(kind))
        drawn = (write_trace(rng.choice(pool), rng, **options) for _ in range(2 * n))
        return [trace for trace in drawn if trace][:n]

    return draw


@pytest.fixture(scope="module")
def uninterrupted(tool, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    tool.train(Namespace(**TINY, out=str(out)))
    return out


def text_of(tokens, tokenizer):
    return tokenizer.decode(tokens, skip_special_tokens=True)


def problem_of(prompt):
    """The problem that a prompt states, read independently of the code that wrote it."""
    numbers = [int(n) for n in prompt.replace(",", " ").replace(".", " ").split() if n.isdigit()]
    kind = "plain" if prompt.startswith("use") else "sums"
    target = numbers.pop(-1 if kind == "plain" else 0)
    return problems.Problem(tuple(sorted(numbers)), target, kind)


# ----------------------------------------------------------------------------------------------------------- tokenizer
def test_what_the_policy_writes_survives_the_tokenizer(write, tokenizer):
    for trace in write(60, wording="all") + write(30, "sums", wording="all"):
        ids = tokenizer(trace.text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == trace.text


def test_a_blank_line_an_integer_and_a_word_are_one_token_each(tokenizer):
    assert tokenizer.tokenize("so, 42 is big.\n\n") == ["so", ",", "42", "is", "big", ".", "\n\n"]
    assert tokenizer("so")["input_ids"][0] == tokenizer.bos_token_id
    assert len(tokenizer) == len(grammar.vocabulary()) + 5


def test_the_bundled_model_speaks_the_language_of_this_code(tokenizer):
    try:
        folder = bundled_folder()
    except ModelError:
        pytest.skip("this checkout has no trained reasoner yet")
    bundled = json.loads((folder / "tokenizer.json").read_text())
    assert bundled["model"]["vocab"] == tokenizer.get_vocab()


# ---------------------------------------------------------------------------------------------------------------- data
def test_rows_are_training_problems_in_training_wording(rows, tokenizer):
    kinds, known = set(), {kind: set(problems.all_problems(kind)) for kind in problems.KINDS}
    for tokens, n_prompt in rows:
        problem = problem_of(text_of(tokens[:n_prompt], tokenizer).strip())
        assert not problem.held_out and problem in known[problem.kind]
        kinds.add(problem.kind)
        steps = [parse_step(s) for s in text_of(tokens[n_prompt:], tokenizer).split("\n\n")]
        assert not any(s.held_out or s.subkind == "unknown" for s in steps)
    assert kinds == {"plain", "sums"}


def test_a_row_is_what_the_library_makes_of_the_same_trace(rows, tokenizer, write):
    """Prompt, blank line, steps, end mark: training and analysis agree about every token."""
    for trace in write(30):
        row = as_reasoning_trace(trace, tokenizer.get_vocab())
        assert row.tokens == (*tokenizer(trace.text)["input_ids"][:-1], tokenizer.eos_token_id)
    for tokens, n_prompt in rows:
        assert tokens[0] == tokenizer.bos_token_id and tokens[-1] == tokenizer.eos_token_id
        assert tokens[n_prompt - 1] == tokenizer.get_vocab()["\n\n"] and len(tokens) <= 200


def test_equal_seeds_write_equal_rows(tool, tokenizer, rows):
    again, other = (tool.write_rows(20, 200, seed, 0.3, tokenizer) for seed in (0, 1))
    assert again == rows[:20] and other != rows[:20]


def test_labels_are_the_response_and_nothing_else(tool, rows):
    ids, labels = tool.collate(rows[:8], pad=0)
    assert ids.shape == labels.shape and ids.shape[1] % 16 == 0
    for i, (tokens, n_prompt) in enumerate(rows[:8]):
        assert ids[i, : len(tokens)].tolist() == tokens and not ids[i, len(tokens) :].any()
        assert labels[i, n_prompt : len(tokens)].tolist() == tokens[n_prompt:]
        assert (labels[i, :n_prompt] == -100).all() and (labels[i, len(tokens) :] == -100).all()


def test_an_epoch_brings_every_row_once_but_for_a_last_batch_of_the_longest(tool, rows):
    stream, again = (tool.batches(rows, 1000, seed=1) for _ in range(2))
    epoch, lengths = [], [len(tokens) for tokens, _ in rows]
    while not set(epoch) & set(group := next(stream)):
        assert group == next(again)
        assert len(group) * max(lengths[i] for i in group) <= 1000
        assert max(lengths[i] for i in group) - min(lengths[i] for i in group) <= 60
        epoch += group
    left_out = sorted(set(range(len(rows))) - set(epoch))
    assert sum(lengths[i] for i in left_out) <= 1000
    assert min((lengths[i] for i in left_out), default=200) >= sorted(lengths)[-len(rows) // 5]


# ---------------------------------------------------------------------------------------------------------------- loss
def test_deciding_tokens_and_numbers_weigh_more(tool):
    blank, numbers, masked = 4, range(5, 105), -100
    #         prompt ------------  step one: word number word word word, then step two: word word word, padding
    labels = [masked, masked, 200, 50, 201, 202, 203, blank, 204, 205, 206, 207, blank, 60, 208, 209, masked]
    weights = tool.loss_weights(torch.tensor([labels]), blank, numbers)[0].tolist()
    expected = [0, 0, 1, 3, 3, 3, 1, 1, 6, 3, 1, 1, 1, 6, 3, 3, 0]
    assert weights == expected


def test_what_is_minimised_is_the_weighted_mean_over_responses_and_what_is_told_the_plain_one(tool, generator):
    logits = torch.randn(2, 5, 7, generator=generator)
    labels = torch.tensor([[-100, 3, 1, 2, -100], [-100, -100, 6, 0, 5]])
    focus = torch.tensor([[0.0, 6, 3, 1, 0], [0, 0, 1, 1, 3]])
    objective, loss = tool.losses(logits, labels, focus)
    terms = [
        (focus[r, i].item(), -logits[r, i - 1].log_softmax(-1)[labels[r, i]].item())
        for r in range(2)
        for i in range(1, 5)
        if labels[r, i] >= 0
    ]
    assert objective.item() == pytest.approx(sum(w * t for w, t in terms) / sum(w for w, _ in terms))
    assert loss.item() == pytest.approx(sum(t for _, t in terms) / len(terms))


def test_the_rate_warms_up_stays_and_falls_to_a_hundredth(tool):
    rates = [tool.learning_rate(step, 4000) for step in range(4000)]
    assert rates[0] == pytest.approx(0.01) and rates[99:600] == [1.0] * 501
    assert all(a >= b for a, b in zip(rates[99:], rates[100:], strict=False))
    assert rates[-1] == pytest.approx(0.01, abs=1e-3) and min(rates[600:]) >= 0.01


# ------------------------------------------------------------------------------------------------------------- resuming
class Killed(Exception):
    """Stands for a kill: nothing catches it."""


def killed_in(tool, monkeypatch, place, at):
    """Let the `at`-th call of one of the tool's functions raise, before it does anything."""
    calls, real = [], getattr(tool, place)

    def once(*args):
        calls.append(1)
        if len(calls) == at:
            raise Killed
        return real(*args)

    monkeypatch.setattr(tool, place, once)


@pytest.mark.parametrize(("place", "at"), [("take_step", 4), ("save", 2), ("export", 1)])
def test_a_run_that_was_killed_ends_as_one_that_was_not(tool, uninterrupted, tmp_path, monkeypatch, place, at):
    """Between two checkpoints, just before one, and at the very end: model and curve agree bit for bit."""
    args = Namespace(**TINY, out=str(tmp_path))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_in(tool, patch, place, at)
        tool.train(args)
    tool.train(args)
    for file in ("model/model.safetensors", "checkpoint/state-6.safetensors"):
        expected, found = load_file(uninterrupted / file), load_file(tmp_path / file)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[k], found[k]) for k in expected)
    assert (tmp_path / "model" / "training.json").read_text() == (uninterrupted / "model/training.json").read_text()


def test_a_kill_between_tensors_and_step_count_leaves_the_earlier_checkpoint_whole(
    tool, uninterrupted, tmp_path, monkeypatch
):
    args = Namespace(**TINY, out=str(tmp_path))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        writes, real = [], Path.write_text

        def write_text(path, *rest):
            writes.append(path.name)
            if writes.count("state.json.tmp") == 2:
                raise Killed
            return real(path, *rest)

        patch.setattr(Path, "write_text", write_text)
        tool.train(args)
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["step"] == 2
    tool.train(args)
    expected, found = (load_file(f / "model/model.safetensors") for f in (uninterrupted, tmp_path))
    assert all(torch.equal(expected[k], found[k]) for k in expected)


def test_only_the_latest_checkpoint_is_kept(uninterrupted):
    assert sorted(p.name for p in (uninterrupted / "checkpoint").iterdir()) == ["state-6.safetensors", "state.json"]


def test_training_moves_every_weight_and_lowers_the_loss(tool, tokenizer, uninterrupted):
    start = dict(tool.make_model(Namespace(**TINY), tokenizer).state_dict())
    end = load_file(uninterrupted / "model" / "model.safetensors")
    assert all(not torch.equal(start[name], end[name]) for name in end)
    curve = json.loads((uninterrupted / "model" / "training.json").read_text())["curve"]
    assert [step for step, _ in curve] == [2, 4, 6] and curve[-1][1] < curve[0][1]


def test_going_on_from_an_earlier_model_takes_its_weights_token_by_token(tool, tokenizer, uninterrupted):
    model = tool.make_model(Namespace(**TINY | {"seed": 9}), tokenizer)
    fresh = model.get_input_embeddings().weight.detach().clone()
    fewer = tool.build_tokenizer()
    fewer.add_tokens(["unheard"])
    model.resize_token_embeddings(len(fewer))
    tool.start_from(model, fewer, str(uninterrupted / "model"))
    old = load_file(uninterrupted / "model" / "model.safetensors")
    new = model.state_dict()
    for name, value in old.items():
        assert torch.equal(new[name][: len(value)], value), name
    assert len(new["model.embed_tokens.weight"]) == len(fresh) + 1


def test_the_command_has_the_settings_of_the_bundled_model_as_defaults(tool, monkeypatch):
    seen = []
    monkeypatch.setattr(tool, "train", seen.append)
    monkeypatch.setattr("sys.argv", ["train_reasoner.py"])
    tool.main()
    (args,) = seen
    assert (args.width, args.layers, args.heads, args.longest, args.steps, args.focus_from) == (
        160,
        6,
        5,
        400,
        4600,
        1600,
    )
    assert args.rows == 100_000 and args.start_from == "" and args.peak == 1.0
