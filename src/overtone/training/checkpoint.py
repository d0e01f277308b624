"""Checkpoints: a folder that holds a training completely, written atomically, refused by another training."""

import itertools
import json
from pathlib import Path
from typing import Any

from overtone.core.artifacts import MANIFEST, Manifest, new_folder, read_manifest, write_json
from overtone.core.errors import StoreError
from overtone.core.tensor_files import Blocks, StoredTensors, in_file_order, write_tensors
from overtone.training.record import Record
from overtone.training.run import Run

KIND = "training"
OVER = "start over (resume=False; overtone train: --restart), or choose another folder."


def save_checkpoint(
    folder: Path, runs: list[Run], position: dict[str, int], identity: dict[str, Any], *, first: bool = True
) -> None:
    """Write the state of all runs, the position in the stream and what training this is; the older one is replaced.

    Where processes train together all of them call it; the first one writes, the others give it what they have, block
    by block, to the end also if it cannot."""
    left, whole = list(runs), dict[str, Blocks]()
    try:
        if first:
            plain = [{"tokens": run.tokens, "records": [r.to_dict() for r in run.records]} for run in runs]
            with new_folder(folder, Manifest(KIND, identity.get("seed"))) as part:
                while left:
                    i, whole = len(runs) - len(left), left.pop(0).whole()
                    write_tensors(part / f"run-{i}.safetensors", whole)
                write_json(part / "state.json", {"identity": identity, "position": position, "runs": plain})
    finally:
        for rest in itertools.chain([whole], (run.whole() for run in left)):
            for name in in_file_order(rest):
                for _ in rest[name].blocks:
                    pass


def load_checkpoint(folder: Path, runs: list[Run], identity: dict[str, Any]) -> dict[str, int] | None:
    """Restore all runs from a folder and return the position in the stream; None if there is no checkpoint yet. Each
    process reads its own part.

    Raises StoreError if the folder is damaged, belongs to a training with other settings or data, or was written by a
    version that kept something else, naming what differs or is missing.
    """
    if not (folder / MANIFEST).exists():
        return None
    try:
        read_manifest(folder, KIND)
    except StoreError as error:
        raise StoreError(f"{str(error).partition('. ')[0]}: {OVER}") from None
    state = json.loads((folder / "state.json").read_text())
    theirs, ours = _told(state["identity"]), _told(json.loads(json.dumps(identity)))
    if different := [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]:
        told = "; ".join(f"{name} {theirs.get(name)} there, {ours.get(name)} asked" for name in different)
        raise StoreError(f"{folder} holds another unfinished training ({told}). Ask for the same again, {OVER}")
    for i, (run, plain) in enumerate(zip(runs, state["runs"], strict=True)):
        tensors = StoredTensors(folder / f"run-{i}.safetensors")
        if lacking := sorted(run.tensors().keys() - tensors.keys()):
            raise StoreError(f"{folder} was written by another version, it lacks {', '.join(lacking)}: {OVER}")
        run.load(tensors, plain["tokens"], [Record(**record) for record in plain["records"]])
    return state["position"]


def _told(identity: dict[str, Any]) -> dict[str, Any]:
    """What tells trainings apart, by names that their user knows."""
    found = {name: value for name, value in identity.items() if name not in ("jobs", "data")}
    several = len(identity["jobs"]) > 1
    for i, (kind, settings, asks, lr) in enumerate(identity["jobs"]):
        before = f"{i + 1}: " if several else ""
        knobs = {"kind": kind, **settings, "states": asks, "lr": lr}
        found |= {before + name: value for name, value in knobs.items()}
    return {**found, "rows": identity["data"]}
