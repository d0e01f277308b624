"""Train the bundled reasoner from scratch: one command, seeded, resumable.

    python tools/train_reasoner.py --out runs/reasoner

Writes a plain `transformers` folder (config.json, model.safetensors, tokenizer.json ...) and training.json with
the settings and the loss curve. Defaults are those of the bundled model. Cost: see docs/reasoner.md.
Interrupt it (Ctrl-C or kill) and run the same command again: it goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from overtone.data.countdown import grammar, policy, problems
from overtone.data.countdown.parser import words

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "\n\n"]
Row = tuple[list[int], int]  # the tokens of a trace, and how many of them are the prompt's


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per integer, word, symbol and blank line; decodes to natural text."""
    vocab = {w: i for i, w in enumerate(SPECIAL + grammar.vocabulary())}
    tok = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n\n|\d+|[a-z]+|[^\sa-z\d]"), behavior="removed", invert=True)
    tidy = [("\n\n ", "\n\n"), (" \n\n", "\n\n"), *((f" {m}", m) for m in ",.?)"), ("( ", "(")]
    tok.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse(), *(decoders.Replace(a, b) for a, b in tidy)]
    )
    tok.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", vocab["<bos>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tok, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        padding_side="left", model_max_length=512, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def write_rows(n_rows: int, longest: int, seed: int, share_sums: float, tokenizer) -> list[Row]:
    """Token rows and the length of each prompt: <bos> prompt \\n\\n step \\n\\n ... step <eos>. Traces on training
    problems in training wording; those above `longest` tokens are left out."""
    rng = Random(seed)
    pools = {k: problems.split_problems(k, held_out=False) for k in problems.KINDS}
    ids = tokenizer.get_vocab()
    rows: list[Row] = []
    while len(rows) < n_rows:
        kind = "sums" if rng.random() < share_sums else "plain"
        trace = policy.write_trace(rng.choice(pools[kind]), rng)
        if trace is None:
            continue
        tokens = [ids["<bos>"], *(ids[w] for w in words(trace.prompt)), ids["\n\n"]]
        n_prompt = len(tokens)
        for step in trace.steps:
            tokens += [*(ids[w] for w in words(step.text)), ids["\n\n"]]
        tokens[-1] = ids["<eos>"]
        if len(tokens) <= longest:
            rows.append((tokens, n_prompt))
    return rows


def batches(rows: list[Row], batch_tokens: int, seed: int) -> Iterator[list[int]]:
    """Endless batches (indices of rows of similar length, padded size at most batch_tokens), shuffled; a pure function
    of the seed. No row comes twice in an epoch; the last batch, a handful of the longest rows, is left out of each."""
    rng = Random(seed)
    while True:
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + rng.random() * 16)
        groups, group, longest = [], [], 0
        for i in order:
            longest = max(longest, len(rows[i][0]))
            if group and longest * (len(group) + 1) > batch_tokens:
                groups.append(group)
                group, longest = [], len(rows[i][0])
            group.append(i)
        rng.shuffle(groups)
        yield from groups


def loss_weights(labels: torch.Tensor, blank: int, numbers: range) -> torch.Tensor:
    """How much each target counts: 6 for the first token of a step and 3 for the second (they decide its kind), 3 for
    numbers (the arithmetic) and the two tokens after one (verdicts stand there), 1 for the rest, most of which is a
    free choice of words, 0 for what is masked. The first step, always the setup, has no such start.

    A weight that depends on what came before leaves the best prediction where it was. The weight on numbers does not:
    where a number and a word could both come next, the number is favoured up to three to one. That tilts the choice of
    wording (after an opener, say), not the arithmetic, where a number comes for certain.
    """
    weights = torch.ones(labels.shape)
    is_number = (labels >= numbers.start) & (labels < numbers.stop)
    weights[is_number] = 3.0
    weights[:, 1:][is_number[:, :-1]] = 3.0
    weights[:, 2:][is_number[:, :-2]] = 3.0
    weights[:, 1:][labels[:, :-1] == blank] = 6.0
    weights[:, 2:][labels[:, :-2] == blank] = 3.0
    return weights * (labels >= 0)


def collate(rows: list[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels (both (rows, longest rounded up to 16)); labels are -100 on prompts and padding."""
    width = -(-max(len(t) for t, _ in rows) // 16) * 16
    ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), -100)
    for i, (tokens, n_prompt) in enumerate(rows):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        labels[i, n_prompt : len(tokens)] = torch.tensor(tokens[n_prompt:])
    return ids, labels


def learning_rate(step: int, n_steps: int) -> float:
    """Share of the peak rate: 100 warm-up steps, constant for 15 %, then linear to 1 %."""
    if step < 100:
        return (step + 1) / 100
    done = step / n_steps
    return 1.0 if done < 0.15 else max(0.01, 1 - 0.99 * (done - 0.15) / 0.85)


def save(folder: Path, model, optimisers, step: int, curve: list) -> None:
    """Checkpoint everything a bit-exact continuation needs. state.json names the file of tensors it belongs to and is
    replaced last, so that a kill at any moment leaves one whole checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    for n, optimiser in enumerate(optimisers):
        for i, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser{n}.{i}.{k}": v.clone() for k, v in state.items()}
    file = folder / f"state-{step}.safetensors"
    save_file(tensors, folder / "state.tmp")
    (folder / "state.tmp").replace(file)
    (folder / "state.json.tmp").write_text(json.dumps({"step": step, "curve": curve, "file": file.name}))
    (folder / "state.json.tmp").replace(folder / "state.json")
    for old in folder.glob("state*.safetensors"):
        if old != file:
            old.unlink()


def restore(folder: Path, model, optimisers) -> tuple[int, list]:
    """Load a checkpoint in place. Returns the number of steps taken and the loss curve: 0 and [] without one."""
    if not (folder / "state.json").exists():
        return 0, []
    info = json.loads((folder / "state.json").read_text())
    tensors = load_file(folder / info.get("file", "state.safetensors"))
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")}, strict=False)
    for n, optimiser in enumerate(optimisers):
        state: dict = {}
        for key, value in tensors.items():
            if key.startswith(f"optimiser{n}."):
                _, i, name = key.split(".", 2)
                state.setdefault(int(i), {})[name] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return info["step"], info["curve"]


def make_model(args, tokenizer) -> LlamaForCausalLM:
    """A Llama of the asked size with tied embeddings and random weights; a pure function of args.seed."""
    torch.manual_seed(args.seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=args.width, intermediate_size=args.mlp, num_hidden_layers=args.layers,
        num_attention_heads=args.heads, num_key_value_heads=args.heads, max_position_embeddings=512,
        tie_word_embeddings=True, rms_norm_eps=1e-5, initializer_range=0.05,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    ))  # fmt: skip


def start_from(model: LlamaForCausalLM, tokenizer, folder: str) -> None:
    """Copy the weights of an earlier model of the same size; token rows by token, new tokens keep their random rows."""
    old, known = LlamaForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder).get_vocab()
    rows = model.model.embed_tokens.weight.detach().clone()
    for word, i in tokenizer.get_vocab().items():
        if word in known:
            rows[i] = old.model.embed_tokens.weight[known[word]].detach()
    state = {k: v for k, v in old.state_dict().items() if "embed_tokens" not in k and "lm_head" not in k}
    model.load_state_dict({**state, "model.embed_tokens.weight": rows}, strict=False)


def make_optimisers(model) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings and norms."""
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    other = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "embed" not in n)]
    return [torch.optim.Muon(hidden, lr=0.02, momentum=0.95, weight_decay=0.01),
            torch.optim.AdamW(other, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0)]  # fmt: skip


def losses(logits: torch.Tensor, labels: torch.Tensor, focus: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What is minimised (the mean over tokens weighted by `focus`) and what is reported (the plain mean), in nats."""
    flat = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    each = torch.nn.functional.cross_entropy(*flat, reduction="none")
    weights = focus[:, 1:].flatten()
    return (each * weights).sum() / weights.sum(), each.sum() / (labels >= 0).sum()


def take_step(model, optimisers, objective: torch.Tensor, rates: list[float]) -> None:
    """One update of all optimisers at the given learning rates, gradients clipped to norm 1."""
    objective.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser, rate in zip(optimisers, rates, strict=True):
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def train(args) -> None:
    """Train as the arguments say, from the last checkpoint in args.out if there is one, and export the model."""
    torch.set_num_threads(args.threads)
    out, tokenizer, started = Path(args.out), build_tokenizer(), time.time()
    rows = write_rows(args.rows, args.longest, args.seed, args.share_sums, tokenizer)
    n_tokens = sum(len(t) for t, _ in rows)
    print(f"{len(rows)} traces, {n_tokens / 1e6:.1f} M tokens, written in {time.time() - started:.0f} s", flush=True)
    model = make_model(args, tokenizer)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {args.steps} steps", flush=True)
    if args.start_from:
        start_from(model, tokenizer, args.start_from)
    curve = run_steps(args, model, rows, tokenizer.get_vocab(), out / "checkpoint")
    export(args, model, tokenizer, curve)


def run_steps(args, model, rows: list[Row], vocabulary: dict[str, int], folder: Path) -> list:
    """Every step that is still to do, with a checkpoint and a line of progress each args.every. Returns the curve."""
    optimisers = make_optimisers(model)
    peaks = [args.peak * o.param_groups[0]["lr"] for o in optimisers]
    first, curve = restore(folder, model, optimisers)
    fast = torch.compile(model, dynamic=True) if args.compile else model
    pad, blank = vocabulary["<pad>"], vocabulary["\n\n"]
    numbers = range(vocabulary["0"], vocabulary["99"] + 1)
    stream, started, seen, total = batches(rows, args.batch_tokens, args.seed + 1), time.time(), 0, 0.0
    for step, group in zip(range(args.steps), stream, strict=False):
        if step < first:
            continue
        ids, labels = collate([rows[i] for i in group], pad)
        focus = loss_weights(labels, blank, numbers) if step >= args.focus_from else labels >= 0
        objective, loss = losses(fast(ids).logits, labels, focus)
        take_step(model, optimisers, objective, [peak * learning_rate(step, args.steps) for peak in peaks])
        seen, total = seen + int((labels >= 0).sum()), total + loss.item()
        if (step + 1) % args.every == 0:
            assert math.isfinite(total), "the loss is not finite"
            spent = time.time() - started
            left = (args.steps - step - 1) * spent / (step + 1 - first) / 60
            mean, total = total / args.every, 0.0
            print(f"step {step + 1} loss {mean:.4f} {seen / spent:.0f} tokens/s {left:.1f} min left", flush=True)
            curve.append([step + 1, round(mean, 4)])
            save(folder, model, optimisers, step + 1, curve)
    return curve


def export(args, model, tokenizer, curve) -> None:
    """Write a plain `transformers` folder and training.json (settings and loss curve) to args.out/model."""
    out = Path(args.out)
    model.generation_config.pad_token_id = 0
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    info = {"settings": {k: v for k, v in vars(args).items() if k not in ("out", "start_from")}, "curve": curve}
    (out / "model" / "training.json").write_text(json.dumps(info, indent=1))
    print(f"saved {out / 'model'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/reasoner")
    for name, value in dict(width=160, layers=6, heads=5, mlp=480, rows=100_000, longest=400, batch_tokens=3072,
                            steps=4600, seed=0, focus_from=1600, threads=2, every=100).items():  # fmt: skip
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--share-sums", type=float, default=0.12)
    parser.add_argument("--peak", type=float, default=1.0, help="share of the usual peak learning rates")
    parser.add_argument("--start-from", default="", help="folder of an earlier model to go on from")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
