"""One of two processes that train together: `python two_processes.py RANK FOLDER`. What comes out lies in FOLDER."""

import json
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from overtone.core.errors import OvertoneError, StoreError
from overtone.core.tensor_files import in_file_order
from overtone.dictionaries.presets.batch_top_k import BatchTopK
from overtone.dictionaries.presets.feature_choice import FeatureChoice
from overtone.dictionaries.presets.relu_l1 import ReluL1
from overtone.dictionaries.presets.top_k import TopK
from overtone.dictionaries.presets.v_sae import VSAE
from overtone.training import checkpoint
from overtone.training.fit import fit
from overtone.training.run import Run

LATENTS, TOKENS, ROWS = 48, 14_000, 501
PRESETS = {
    "top_k": TopK(LATENTS, k=4, k_aux=3),
    "batch_top_k": BatchTopK(LATENTS, k=4, k_aux=3),
    "relu_l1": ReluL1(LATENTS),
    "feature_choice": FeatureChoice(LATENTS, k=4, k_aux=3),
    "v_sae": VSAE(LATENTS, k=4),
}
SPLITS = ("rows", "latents")


def states() -> torch.Tensor:
    """(997, 8) states in a narrow cone, so that some latents never fire."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(997, 3, generator=generator).abs() @ torch.randn(3, 8, generator=generator) + 0.2


def train(name: str, folder: Path, **options):
    """The training that all tests compare, with everything saved at the end."""
    options = {"checkpoint_every_s": 1e9, **options}
    return fit(PRESETS[name], states(), n_tokens=TOKENS, batch_rows=ROWS, checkpoint=folder, quiet=True, **options)


def stop_at(step: int, how) -> None:
    """From now on the update with this number does something else."""
    advance, done = Run.advance, []

    def wrapped(run, *rows):
        done.append(1)
        if len(done) == step:
            how()
        advance(run, *rows)

    Run.advance = wrapped


def message_of(action) -> str:
    """The error that an action ends with."""
    try:
        action()
    except OvertoneError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def written_in_part(write, rank: int, path: Path, tensors) -> None:
    """What happens when the disk is full after two of the blocks."""
    write(path, {name: tensors[name] for name in in_file_order(tensors)[:2]})
    raise StoreError(f"process {rank}: no space left")


def interrupted() -> None:
    raise KeyboardInterrupt


def main(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {}
    for split in SPLITS:
        for name in PRESETS:
            fitted = train(name, folder / f"{split}-{name}", split=split)
            if rank == 0:
                fitted.save(folder / f"dictionary-{split}-{name}")
            found[f"{split}-{name}"] = [record.to_dict() for record in fitted.record]
            found[f"encoded {split}-{name}"] = message_of(lambda: fitted.dictionary.encode(states()))  # noqa: B023
            found[f"saved {split}-{name}"] = message_of(lambda: fitted.save(folder / f"{rank}-{split}-{name}"))  # noqa: B023
    found["too narrow"] = message_of(lambda: fit(TopK(6, k=4), states(), n_tokens=100, split="latents", quiet=True))
    found["other data"] = message_of(lambda: fit(PRESETS["top_k"], states() + rank, n_tokens=100, split="rows"))
    found["no such split"] = message_of(lambda: fit(PRESETS["top_k"], states(), n_tokens=100, split="row"))
    advance = Run.advance
    for split in SPLITS:  # stopped in the middle, saved after each step; gone on with by two
        for name in ("batch_top_k", "top_k"):
            stop_at(15, interrupted)
            with suppress(KeyboardInterrupt):
                train(name, folder / f"stopped-{split}-{name}", split=split, checkpoint_every_s=0)
            Run.advance = advance
            if name == "batch_top_k":
                train(name, folder / f"stopped-{split}-{name}", split=split)
    written = checkpoint.write_tensors
    for split in SPLITS:  # the first one cannot write to the end
        checkpoint.write_tensors = partial(written_in_part, written, rank)
        found[f"unwritten {split}"] = message_of(
            lambda: train("top_k", folder / f"unwritten-{split}", split=split)  # noqa: B023
        )
        checkpoint.write_tensors = written
        train("top_k", folder / f"unwritten-{split}", split=split)
    if rank == 1:
        (folder / "found-1.json").write_text(json.dumps(found))
        stop_at(9, lambda: os._exit(3))
    found["died"] = message_of(lambda: train("top_k", folder / "died", split="rows", checkpoint_every_s=0))
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # the other one is gone, and with it an orderly farewell


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
